"""The catalog's versions: golden catalogs stay readable, and what a later version has written in one is kept."""

from pathlib import Path

import duckdb
import pytest

from jammi_duck import JammiError, StorageError, UnsupportedError
from jammi_duck.storage.tables import migrations
from jammi_duck.types import Definition
from tests.faults import dying
from tests.races import ask, fill, generate
from tests.stock_shell import folder, needs_extension, rows
from tests.test_generate import error_of

__all__ = ["folder"]

GOLDEN = Path(__file__).parent / "golden"
TABLE = "{}__embedding__small__20260325T120000"


@pytest.fixture
def database(tmp_path):
    """Loads a golden catalog into a database file, whose tables lie nowhere yet; gives the file's path."""

    def load(name):
        path = str(tmp_path / "golden.duckdb")
        con = duckdb.connect(path)
        con.execute((GOLDEN / name).read_text().replace("LOCATION", str(tmp_path / "artifacts")))
        con.close()
        return path

    return load


def tables(con):
    return dict(ask(con, "SELECT embedding_table, status FROM jammi_tables()"))


def version(con):
    return ask(con, "FROM jammi_catalog.version")


@pytest.mark.parametrize("golden", ["catalog before versions.sql", "catalog 1.sql"])
class TestGolden:
    def test_is_read_and_comes_to_this_version(self, fake, database, golden):
        path = database(golden)
        for _ in range(2):
            con = fake(duckdb.connect(path)).con
            # Their files are nowhere.
            assert tables(con) == {TABLE.format("t"): "missing", TABLE.format("u"): "failed"}
            assert ask(con, "SELECT status, build FROM jammi_catalog.embedding_tables ORDER BY build") == [
                ("ready", "a" * 32),
                ("failed", "b" * 32),
                ("dropped", "c" * 32),
            ]
            assert ask(con, "SELECT parquet, row_count FROM jammi_catalog.segments") == [
                (f"{TABLE.format('t')}.parquet", 3)
            ]
            assert version(con) == [(migrations.VERSION,)]
            con.close()

    def test_is_read_in_a_read_only_database(self, fake, database, golden):
        con = fake(duckdb.connect(database(golden), read_only=True)).con
        assert tables(con) == {TABLE.format("t"): "missing"}


def test_a_new_catalog_has_this_version(words):
    assert version(words) == [(migrations.VERSION,)]


def test_a_read_only_database_with_an_earlier_catalog_is_searched(fake, tmp_path):
    path = str(tmp_path / "db.duckdb")
    con = fake(duckdb.connect(path)).con
    fill(con, range(5))
    generate(con)
    con.execute("DROP TABLE jammi_catalog.version")
    con.close()
    con = fake(duckdb.connect(path, read_only=True)).con
    assert ask(con, "SELECT id FROM jammi_search('t', 'word3', 1)") == [(3,)]


@pytest.mark.parametrize("column", ["started", "finished"])
@pytest.mark.parametrize("moment", ["290000-01-01", "2000-01-01 (BC)"])
def test_a_time_that_only_duckdb_has_is_one_table_that_is_refused(words, column, moment):
    words.execute("CREATE TABLE u AS FROM t")
    words.execute("FROM jammi_generate('u', 'text', 'id')").fetchall()
    words.execute(f"UPDATE jammi_catalog.embedding_tables SET {column} = '{moment}' WHERE source LIKE '%t'")
    words.execute("FROM jammi_vacuum()").fetchall()
    statuses = dict(ask(words, "SELECT status, error FROM jammi_tables()"))
    assert statuses["ready"] is None
    assert "it has a time in the catalog that cannot be" in statuses["refused"]
    assert "cannot be used" in error_of(words, "FROM jammi_search('t', 'word3')")
    assert len(ask(words, "FROM jammi_search('u', 'word3', 100)")) == 10


@pytest.mark.parametrize("table", ["segments", "embedding_tables"])
def test_a_catalog_without_one_of_its_tables_is_refused_by_its_name(fake, tmp_path, table):
    path = str(tmp_path / "db.duckdb")
    con = fake(duckdb.connect(path)).con
    fill(con, range(5))
    generate(con)
    con.close()
    con = duckdb.connect(path)
    con.execute(f"DROP TABLE jammi_catalog.{table}")
    with pytest.raises(StorageError, match=f"a catalog without the table jammi_catalog.{table}"):
        fake(con)
    con.execute("DROP SCHEMA jammi_catalog CASCADE")
    assert ask(fake(con).con, "SELECT status FROM jammi_tables()") == [("ready",)]


def test_a_row_with_another_build_is_not_searched(words):
    words.execute("UPDATE jammi_catalog.embedding_tables SET build = repeat('0', 32)")
    words.execute("FROM jammi_vacuum()").fetchall()
    assert "another build's manifest" in error_of(words, "FROM jammi_search('t', 'word3')")


class TestLater:
    """A later version's catalog that this one may read: more columns, fields, tables, statuses, and a feature."""

    @pytest.fixture
    def path(self, database):
        return database("later catalog.sql")

    def test_one_row_that_is_not_understood_is_one_table_that_is_refused(self, fake, path):
        con = fake(duckdb.connect(path)).con
        found = {
            name: (status, error)
            for name, status, error in ask(con, "SELECT embedding_table, status, error FROM jammi_tables()")
        }
        status, error = found[TABLE.format("t")]
        assert (status, "there is nothing at" in error) == ("missing", True)
        assert found[TABLE.format("x")] == ("failed", "no room")
        assert {name for name, (status, _) in found.items() if status == "refused"} == {
            TABLE.format("w"),
            TABLE.format("y"),
        }
        assert "needs the feature 'sections'" in found[TABLE.format("w")][1]
        assert "has the status 'archived'" in found[TABLE.format("y")][1]
        con.execute("CREATE TABLE w AS SELECT 1 AS id, 'word' AS text")
        for call in ("jammi_search('w', 'word')", "jammi_refresh('w')", f"jammi_drop('{TABLE.format('w')}')"):
            message = error_of(con, f"FROM {call}")
            assert f"'{TABLE.format('w')}' cannot be used" in message
            assert "needs the feature 'sections'" in message

    def test_everything_else_goes_on_and_what_it_has_written_stays(self, fake, path):
        before = "SELECT * FROM jammi_catalog.embedding_tables WHERE source IN ('w', 'y') ORDER BY build"
        con = fake(duckdb.connect(path)).con
        there = ask(con, before)
        con.execute("CREATE TABLE z AS SELECT range AS id, 'word' || range AS text FROM range(5)")
        ((name,),) = ask(con, "SELECT embedding_table FROM jammi_generate('z', 'text', 'id')")
        con.execute("UPDATE jammi_catalog.embedding_tables SET sections = 11 WHERE source = 'z'")
        con.execute("UPDATE jammi_catalog.segments SET words = 'z' WHERE parquet = ?", [f"{name}.parquet"])
        con.execute("INSERT INTO z VALUES (9, 'more')")
        assert ask(con, "SELECT added FROM jammi_refresh('z')") == [(1,)]
        for verb in ("recover", "vacuum", "tables"):
            ask(con, f"FROM jammi_{verb}()")
        assert ask(con, before) == there
        assert ask(con, "SELECT sections FROM jammi_catalog.embedding_tables WHERE source = 'z'") == [(11,)]
        assert ("z",) in ask(con, "SELECT words FROM jammi_catalog.segments")
        assert ask(con, "FROM jammi_catalog.words") == [("a" * 32, "english")]
        ((definition,),) = ask(con, "SELECT definition FROM jammi_catalog.embedding_tables WHERE source = 'x'")
        assert Definition.from_json(definition).unknown == {"analyser": "porter"}

    def test_of_a_later_version_is_refused_with_what_to_do_and_is_searched_read_only(self, fake, tmp_path):
        path = str(tmp_path / "db.duckdb")
        con = fake(duckdb.connect(path)).con
        fill(con, range(5))
        generate(con)
        con.execute(f"UPDATE jammi_catalog.version SET version = {migrations.VERSION + 1}")
        con.execute("ALTER TABLE jammi_catalog.embedding_tables ADD COLUMN passages BIGINT")
        con.close()
        con = duckdb.connect(path)
        with pytest.raises(UnsupportedError, match="install a later one, or open the database read-only"):
            fake(con)
        assert ask(con, "SELECT count(*) FROM t") == [(5,)]
        con.close()
        con = fake(duckdb.connect(path, read_only=True)).con
        assert ask(con, "SELECT id FROM jammi_search('t', 'word3', 1)") == [(3,)]


@pytest.mark.parametrize("said", ["'seven'", "NULL", "2.5", "0", "-5"])
def test_a_version_that_is_no_number_is_refused(fake, database, said):
    path = database("catalog before versions.sql")
    con = duckdb.connect(path)
    con.execute(f"CREATE TABLE jammi_catalog.version AS SELECT {said} AS version")
    with pytest.raises(UnsupportedError, match="has no version that this jammi_duck understands"):
        fake(con)


def test_a_migration_is_done_once_and_as_a_whole(fake, database, monkeypatch):
    """One that fails, or whose process dies, leaves the catalog as it was."""
    path = database("catalog 1.sql")
    done = []

    def with_passages(schema):
        done.append(schema)
        return [f"ALTER TABLE {schema}.embedding_tables ADD COLUMN passages BIGINT DEFAULT 3", *failing]

    failing = ["SELECT error('no room')"]
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, with_passages))
    monkeypatch.setattr(migrations, "VERSION", migrations.VERSION + 1)
    con = duckdb.connect(path)
    with pytest.raises(JammiError, match="no room"):
        fake(con)
    assert version(con) == [(migrations.VERSION - 1,)]
    assert "sections" not in [name for name, *_ in ask(con, "DESCRIBE jammi_catalog.embedding_tables")]
    con.close()
    failing.clear()
    for last in range(1, 4):
        con = duckdb.connect(path)
        with dying(monkeypatch, last), pytest.raises(BaseException):  # noqa: B017, PT011 - it dies somehow
            fake(con)
        con.close()
        con = duckdb.connect(path)
        has = "sections" in [name for name, *_ in ask(con, "DESCRIBE jammi_catalog.embedding_tables")]
        assert version(con) == [(migrations.VERSION - (not has),)]
        con.close()
    con = fake(duckdb.connect(path)).con
    times = len(done)
    assert ask(con, "SELECT DISTINCT passages FROM jammi_catalog.embedding_tables") == [(3,)]
    con.close()
    fake(duckdb.connect(path))
    assert len(done) == times


@needs_extension
def test_an_earlier_catalog_comes_to_this_version_in_the_shell(folder):
    rows("SELECT row_count FROM jammi_generate('t', 'text', 'id')")
    assert rows("DROP TABLE jammi_catalog.version; SELECT 1 AS one") == [{"one": 1}]
    assert rows("SELECT id FROM jammi_search('t', 'the duck in water', 1)") == [{"id": 1}]
    assert rows("SELECT source, columns, status FROM jammi_tables()") == [
        {"source": "t", "columns": ["text"], "status": "ready"}
    ]
    assert rows("FROM jammi_catalog.version") == [{"version": migrations.VERSION}]
