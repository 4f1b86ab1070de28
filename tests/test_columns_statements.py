"""The statements for database servers, as they are sent.

python -m tests.test_columns_statements --write     writes tests/golden/columns_*.sql anew
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("psycopg")

from jammi_duck.doors.columns.catalogue import Kind, Table
from jammi_duck.doors.columns.dialect import COCKROACHDB, POSTGRESQL
from jammi_duck.doors.columns.statements import Statements
from jammi_duck.encoder.blanks import is_blank
from tests.column_worlds import Fake, PostgreSQL, fill_column

GOLDEN = Path(__file__).parent / "golden"
DIALECTS = [POSTGRESQL, COCKROACHDB]


@pytest.fixture
def world(postgres):
    found = PostgreSQL(postgres)
    yield found
    found.close()


def golden(dialect):
    return GOLDEN / f"columns_{dialect.name.lower()}.sql"


def all_of(dialect):
    """Every statement, for a key of two columns."""
    columns = {
        "id": Kind(1, "id", "uuid", False),
        "part": Kind(2, "part", "character varying(20)", True),
        "passage": Kind(3, "passage", "text", True),
    }
    table = Table(7, "public", "passage", "passage", columns)
    said = Statements(dialect, table, [columns["id"], columns["part"]], columns["passage"], "passage_vector")
    place = ("02e2e3af-821e-4a3e-8115-ccb9d7042df9", "it's")
    statements = [
        said.add_column(384),
        said.count(with_text=True),
        said.count(with_text=False),
        said.read(None, 1000, with_values=False),
        said.read(place, 1000, with_values=True),
        *(said.copy() if dialect.copies else ()),
        said.update(copied=dialect.copies),
        said.nearest([0.5, -1.0], 10, None),
        said.nearest([0.5, -1.0], 10, "part = 'it''s' -- all"),
        said.nearest([0.5, -1.0], 10, None, by_index=True),
        said.size(stale=True),
        *said.watch(),
        said.is_watched(),
        said.create_index(),
        said.has_index(),
        said.drop_index(),
    ]
    return "".join(f"{statement.as_string()};\n\n" for statement in statements)


class TestStatements:
    """CockroachDB itself is not here: its statements are looked at, and PostgreSQL runs those that it can."""

    @pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
    def test_golden(self, dialect):
        assert all_of(dialect) == golden(dialect).read_text()

    def test_vectors_by_lists(self, world):
        world.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage TEXT)")
        world.run("INSERT INTO passage SELECT i, 'text ' || i FROM generate_series(1, 200) i")
        like = dataclasses.replace(COCKROACHDB, visible=POSTGRESQL.visible, stale=POSTGRESQL.stale)
        column = world.column("passage", "passage", "v", dialect=like)
        world.run("CREATE EXTENSION vector")
        column.create(Fake.dimensions)
        assert fill_column(column, Fake(), size=60).filled == 200
        world.check()
        assert column.size().filled == 200
        assert column.instrument(index=False) == column.instrument(index=False)
        world.run("UPDATE passage SET passage = 'new' WHERE id = 1")
        assert world.run("SELECT id FROM passage WHERE v IS NULL") == [(1,)]
        assert column.nearest([1.0] * 8, 1, None)

    def test_the_visible_characters_are_those_of_duckdb(self, world):
        letters = [chr(each) for each in itertools.chain(range(1, 0xD800), range(0xE000, 0x10FFFF, 7))]
        given = json.dumps(letters)
        found = world.run(
            "SELECT string_agg(x, '') FROM json_array_elements_text($1::json) x "
            f"WHERE NOT x::text COLLATE \"C\" ~ '{POSTGRESQL.visible}'",
            given,
        )
        assert sorted(found[0][0]) == sorted(each for each in letters if is_blank(each))


if __name__ == "__main__" and "--write" in sys.argv:
    for each in DIALECTS:
        golden(each).write_text(all_of(each))
