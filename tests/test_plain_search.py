"""`jammi.search` of a plain table goes another way than the macro, to the same rows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.errors import JammiError, JammiWarning
from tests.effort import some
from tests.test_generate import generate

WORDS = ("red", "green", "cat", "owl", "ship", "tea")


@pytest.fixture
def way(monkeypatch):
    """A list of the searches that the macro was asked for."""
    from jammi_duck.jammi import Jammi

    asked, found = [], Jammi._found

    def noted(self, *arguments, **options):
        asked.append(arguments)
        return found(self, *arguments, **options)

    monkeypatch.setattr(Jammi, "_found", noted)
    return asked


@pytest.fixture
def words(con):
    con.execute(
        "CREATE TABLE t AS SELECT range AS id, (['red','green','cat','owl','ship','tea'])[range % 6 + 1] || ' n' || "
        "range AS text, range * 1.5 AS price, {'a': range} AS \"a b\" FROM range(60)"
    )
    generate(con, "t")
    return con


def by_macro(con, source, query, k=10, **options):
    named = "".join(f", {name} := ?" for name in options)
    # DuckDB 1 may wait for ever in con.sql with parameters.
    found = con.execute(f"SELECT * FROM jammi_search(?, ?, ?{named})", [source, query, k, *options.values()])
    names, types = zip(*((column[0], str(column[1])) for column in found.description), strict=True)
    return list(names), list(types), found.fetchall()


def by_method(jammi, source, query, k=10, **options):
    found = jammi.search(source, query, k, **options)
    return found.columns, list(map(str, found.types)), found.fetchall()


def test_the_same_rows_columns_and_types(words, jammi, way):
    vector = words.execute("SELECT embed('red owl')").fetchall()[0][0]
    for query in ("red owl", vector, tuple(vector), np.array(vector)):
        for options in ({}, {"exact": True}, {"min_similarity": 0.3}, {"model": "fake/small"}):
            theirs = by_macro(
                words, "t", list(vector) if query is not vector and not isinstance(query, str) else query, **options
            )
            assert by_method(jammi, "t", query, **options) == theirs
            assert way == []


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "hybrid"},
        {"mode": "text"},
        {"mode": "vector"},
        {"mode": "text", "min_similarity": 0.3},
        {"weight": 0.2},
        {"fusion": "rrf"},
        {"k1": 0.5, "b": 0.1},
    ],
    ids=str,
)
def test_the_same_in_each_mode(words, jammi, way, options):
    for query in ("red owl", "+red -n6", '"tea n5" n5'):
        theirs = by_macro(words, "t", query, 30, **options)
        assert theirs[2]
        assert by_method(jammi, "t", query, 30, **options) == theirs
        assert way == []


@pytest.mark.parametrize(
    ("type", "is_plain"),
    [
        ("INTEGER", True), ("BIGINT", True), ("VARCHAR", True), ("VARCHAR COLLATE NOCASE", True),
        ("DOUBLE", False), ("DECIMAL(9, 2)", False), ("UBIGINT", False), ("HUGEINT", False), ("SMALLINT", False),
    ],
)  # fmt: skip
def test_types_of_keys(con, jammi, way, type, is_plain):
    con.execute(f'CREATE TABLE t ("Key" {type}, text VARCHAR)')
    con.execute("INSERT INTO t SELECT range, 'word' || range FROM range(40)")
    generate(con, "t", "text", "key")
    theirs = by_macro(con, "t", "word7", 3)
    assert by_method(jammi, "t", "word7", 3) == theirs
    assert len(theirs[2]) == 3
    assert (way == []) == is_plain


def test_letters_of_a_key_are_compared_whatever_its_collation(con, jammi, way):
    con.execute("CREATE TABLE t (id VARCHAR, text VARCHAR)")
    con.execute("INSERT INTO t VALUES ('a', 'red'), ('A', 'green'), ('b', 'blue'), ('é', 'cat'), ('É', 'owl')")
    generate(con, "t")
    con.execute("SET default_collation = 'NOCASE'")
    for word in ("red", "green", "owl"):
        theirs = by_macro(con, "t", word, 5)
        assert len(theirs[2]) == 5
        assert by_method(jammi, "t", word, 5) == theirs


@pytest.mark.filterwarnings("ignore::jammi_duck.errors.JammiWarning")
@given(data=st.data())
@settings(max_examples=some(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_any_changes_of_the_source(words, jammi, data):
    """Rows go, come, are doubled or get other keys, in the caller's transaction, and both ways give the same."""
    ids = st.integers(0, 70)
    changes = st.one_of(
        st.tuples(st.just("DELETE FROM t WHERE id = {}"), ids),
        st.tuples(st.just("INSERT INTO t SELECT {}, 'new', 0, {{'a': 0}}"), ids),
        st.tuples(st.just("UPDATE t SET id = id + 100 WHERE id = {}"), ids),
    )
    words.begin()
    try:
        for change, number in data.draw(st.lists(changes, max_size=4)):
            words.execute(change.format(number))
        word, k = data.draw(st.sampled_from(WORDS)), data.draw(st.integers(1, 70))
        assert by_method(jammi, "t", word, k) == by_macro(words, "t", word, k)
    finally:
        words.rollback()


def test_a_source_that_changed_is_told_of(words, jammi, way):
    jammi.search("t", "red")
    words.execute("DELETE FROM t WHERE id < 3")
    with pytest.warns(JammiWarning, match="57 rows now"):
        assert len(jammi.search("t", "red", 60).fetchall()) == 57


def test_a_temp_table_in_its_place_is_refused_and_the_transaction_goes_on(words, jammi):
    jammi.search("t", "red")
    words.begin()
    words.execute("CREATE TEMP TABLE t AS SELECT 1 AS id, 'other' AS text")
    with pytest.raises(JammiError, match="is not the table"):
        jammi.search("t", "red").fetchall()
    words.rollback()
    assert len(jammi.search("t", "red", 3).fetchall()) == 3


def test_a_variable_of_the_caller_is_no_table(words, jammi):
    jammi.search("t", "red")
    words.begin()
    words.execute("DROP TABLE t")
    t = words.sql("SELECT 1 AS id, 'x' AS text")
    with pytest.raises(JammiError):
        jammi.search("t", "red").fetchall()
    words.rollback()
    del t


def test_another_schema_by_the_same_name(words, jammi):
    words.execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT id, 'blue' AS text, 1 AS price FROM main.t WHERE id < 9")
    generate(words, "s.t")
    here = by_method(jammi, "t", "red", 5)
    assert here == by_macro(words, "t", "red", 5)
    words.execute("USE s")
    there = by_method(jammi, "t", "red", 5)
    assert there == by_macro(words, "t", "red", 5) != here
    words.execute("USE main")
    assert jammi.search("t", "red", 5).fetchall() == here[2]


@pytest.mark.parametrize("name", ["_rank", "__ROW_ID", "_jammi_x", "_jammi_there", "_jammi_row_id"])
def test_names_of_ours_among_the_columns(con, jammi, name):
    con.execute(f"CREATE TABLE t AS SELECT range AS id, 'word' || range AS text, range AS {name} FROM range(20)")
    generate(con, "t")
    assert by_method(jammi, "t", "word3", 4) == by_macro(con, "t", "word3", 4)


@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
@pytest.mark.parametrize("name", ['"a ""b"" c"', "v", "main.v", '"t.parquet"', "s.w", "db.s.w", '"Ünï"'])
def test_names_of_sources(con, jammi, way, name, kind):
    con.execute("CREATE SCHEMA s")
    name = name.replace("db", con.execute("SELECT current_database()").fetchall()[0][0])
    con.execute("CREATE TABLE of_it AS SELECT range AS id, 'word' || range AS text FROM range(20)")
    con.execute(f"CREATE {kind} {name} AS FROM of_it")
    generate(con, name)
    assert by_method(jammi, name, "word3", 4) == by_macro(con, name, "word3", 4)
    # A view's columns cannot be called by its schema where it is.
    assert way == [] or (kind, "." in name) == ("VIEW", True)


def test_what_is_wrong_is_said_by_the_macro(words, jammi):
    jammi.search("t", "red")
    for arguments, message in (
        (("t", [1.0, 2.0]), "dimensions"),
        (("t", "red", 0), "k is 0"),
        (("u", "red"), "no embedding table for 'u'"),
        (("t", " "), "empty text"),
        (("t", [float("nan")] * 64), "NaN"),
        (("t", "red", 2.5), "whole number"),
    ):
        with pytest.raises(JammiError, match=message):
            jammi.search(*arguments).fetchall()
    with pytest.raises(JammiError, match="min_similarity"):
        jammi.search("t", "red", min_similarity=float("nan")).fetchall()


def test_it_can_be_looked_at_again_and_queried(words, jammi):
    jammi.search("t", "red")
    found = jammi.search("t", "red", 4)
    assert found.fetchall() == found.fetchall()
    assert found.project("id, _rank").filter("_rank < 3").count("*").fetchall() == [(2,)]
    assert words.sql("SELECT count(*) FROM found").fetchall() == [(4,)]
