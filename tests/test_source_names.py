"""What a name means, asked of DuckDB itself in the same connection: no row of anything else is embedded or found."""

import contextlib
import tempfile

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from tests.effort import some
from tests.fakes import FakeEncoders

# What may be there: how it is made. The text of each row says what it is a row of.
PLACES = {
    "home": "CREATE TABLE memory.main.n AS {rows}",
    "schema": "CREATE TABLE memory.s.n AS {rows}",
    "view": "CREATE VIEW memory.v.n AS {rows}",
    "other": "CREATE TABLE o.main.n AS {rows}",
    "deep": "CREATE TABLE o.s.n AS {rows}",
    "temp": "CREATE TEMP TABLE n AS {rows}",
}
WRITTEN = ("n", "N", '"n"', "main.n", "s.n", "v.n", "o.n", "o.s.n", "o.main.n", "memory.n", "memory.main.n", "temp.n")
USES = ("memory", "memory.s", "o", "o.s", "memory.v")


def rows_of(con, name):
    """The texts that DuckDB gives for a name, or None where it refuses it."""
    try:
        return sorted(text for (text,) in con.execute(f"SELECT text FROM {name}").fetchall())
    except duckdb.Error:
        return None


@contextlib.contextmanager
def connected():
    with tempfile.TemporaryDirectory() as storage, duckdb.connect() as con:
        equip(con, Config(storage=storage, model="fake/small"), FakeEncoders())
        con.execute("CREATE SCHEMA s; CREATE SCHEMA v; ATTACH ':memory:' AS o; CREATE SCHEMA o.s")
        yield con


@settings(deadline=None, max_examples=some(30))
@given(
    there=st.sets(st.sampled_from(sorted(PLACES)), min_size=1),
    embedded=st.lists(st.sampled_from(WRITTEN), min_size=1, max_size=3),
    later=st.sets(st.sampled_from(sorted(PLACES)), max_size=2),
    asked=st.sampled_from(WRITTEN),
    uses=st.tuples(st.sampled_from(USES), st.sampled_from(USES)),
    uncommitted=st.booleans(),
)
def test_only_what_the_name_means_is_embedded_and_found(there, embedded, later, asked, uses, uncommitted):
    with connected() as con:
        make(con, there)
        con.execute(f"USE {uses[0]}")
        known = {}
        for name in embedded:
            generate(con, name, known)
        con.execute(f"USE {uses[1]}")
        if uncommitted:
            con.execute("BEGIN")
        # A transaction writes to one database only.
        make(con, sorted(later - there)[: 1 if uncommitted else None])
        check(con, asked, known)


def generate(con, name, known):
    """Embed what a name means, and note which rows are known by what; or it is refused."""
    meant = rows_of(con, name)
    query = "SELECT embedding_table, source FROM jammi_generate(?, 'text', 'id')"
    try:
        ((table, source),) = con.execute(query, [name]).fetchall()
    except duckdb.Error:
        return
    embedded = con.execute(f'SELECT _row_id FROM jammi."{table}"').fetchall()
    assert meant is not None
    assert {row for (row,) in embedded} == {text.split()[1] for text in meant}
    assert known.setdefault(source, meant) == meant


def make(con, places):
    for place in sorted(places):
        # A key of its own for each, so that what was embedded is known by its keys.
        number = 10 * (1 + sorted(PLACES).index(place))
        rows = f"SELECT {number} + i AS id, '{place} ' || ({number} + i) AS text FROM range(2) r(i)"
        con.execute(PLACES[place].format(rows=rows))


def check(con, asked, known):
    """A search finds the rows that DuckDB gives for the name, by vectors of theirs, or is refused."""
    meant = rows_of(con, asked)
    try:
        found = con.execute("SELECT text FROM jammi_search(?, 'a b', 10)", [asked]).fetchall()
    except duckdb.Error:
        return
    assert sorted(text for (text,) in found) == meant
    assert meant in known.values()
