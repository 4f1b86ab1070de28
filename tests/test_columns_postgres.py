"""What only a database server has: several writers, connections that are lost, rights, passwords, triggers."""

import contextlib
import dataclasses
import shlex
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

pytest.importorskip("psycopg")

import psycopg
import psycopg.sql

from jammi_duck.config.logs import log
from jammi_duck.doors.cli import main
from jammi_duck.doors.columns.connections import Connections
from jammi_duck.doors.columns.dialect import COCKROACHDB, POSTGRESQL, dialect_of
from jammi_duck.errors import InputError, StorageError
from tests.column_worlds import LETTERS, Fake, PostgreSQL, fill_column
from tests.postgres import PASSWORD
from tests.test_columns_contract import types  # noqa: F401


@pytest.fixture(autouse=True)
def the_level_of_the_log():
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture
def world(postgres):
    found = PostgreSQL(postgres)
    yield found
    found.close()


@pytest.fixture
def rows(world):
    """A table of 200 rows."""
    world.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage TEXT)")
    world.run("INSERT INTO passage SELECT i, 'text ' || i FROM generate_series(1, 200) i")
    return world


@pytest.fixture
def letters(tmp_path):
    (tmp_path / "letters.py").write_text(LETTERS.format(sleep=0.01))
    return ("--models", str(tmp_path), "-m", "letters")


COLUMN = ("-t", "passage", "-i", "passage", "-o", "v")


class TestSeveralAtOnce:
    @pytest.mark.parametrize("isolation", ["read committed", "serializable"])
    def test_two_that_go_on_to_the_end_write_each_row_once(self, rows, letters, isolation):
        rows.run("CREATE EXTENSION vector; ALTER TABLE passage ADD COLUMN v vector(3), ADD COLUMN writes INT DEFAULT 0")
        rows.run(
            "CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN NEW.writes := OLD.writes + 1; RETURN NEW; END'"
        )
        rows.run("CREATE TRIGGER counted BEFORE UPDATE ON passage FOR EACH ROW EXECUTE FUNCTION counted()")
        rows.run(f"ALTER DATABASE {rows.database} SET default_transaction_isolation = '{isolation}'")
        program = Path(sys.executable).with_name("jammi-duck")
        words = [program, "embed", "-u", rows.url, *COLUMN, *letters, "-b", "7", "-F"]
        both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [each.communicate() for each in both]
        assert [each.returncode for each in both] == [0, 0], said
        counts = [int(out.split("rows embedded: ")[1].split(",")[0]) for out, _ in said]
        assert sum(counts) == 200
        assert rows.run("SELECT DISTINCT writes FROM passage") == [(1,)]
        assert rows.run("SELECT count(v) FROM passage") == [(200,)]

    def test_two_that_make_the_column(self, rows):
        columns = [rows.column("passage", "passage", "v") for _ in range(2)]
        assert [column.create(3) for column in columns] == [True, False]

    def test_a_row_that_cannot_be_written_ends(self, rows):
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        rows.run("CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        rows.run(
            "CREATE TRIGGER never BEFORE UPDATE ON passage FOR EACH ROW WHEN (NEW.id > 190) EXECUTE FUNCTION never()"
        )
        done = fill_column(column, Fake(), size=50)
        assert (done.filled, done.left) == (190, 10)

    def test_vectors_that_a_trigger_takes_away_end(self, rows):
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        rows.run("CREATE FUNCTION emptied() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NULL; RETURN NEW; END'")
        rows.run(
            "CREATE TRIGGER a BEFORE UPDATE ON passage FOR EACH ROW WHEN (NEW.id > 190) EXECUTE FUNCTION emptied()"
        )
        assert fill_column(column, Fake(), size=50).left == 10

    def test_a_deadlock_is_tried_again(self, rows):
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        first, second = (psycopg.connect(rows.url) for _ in range(2))
        page = column.read(None, 200)
        done = []
        with contextlib.closing(first), contextlib.closing(second):
            first.execute("UPDATE passage SET passage = passage WHERE id = 200")
            vectors = Fake().encode_rows([row.value for row in page], "document", None).vectors
            thread = threading.Thread(target=lambda: done.append(column.write(page, vectors)))
            thread.start()
            while not first.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
                time.sleep(0.01)
            # The other one holds row 1, and waits for row 200.
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                first.execute("UPDATE passage SET passage = passage WHERE id = 1")
            first.rollback()
            thread.join()
        assert done == [200]


class TestLostConnections:
    def test_a_server_that_goes_away_and_comes_back(self, rows, caplog):
        def away(_):
            if len(encoder.texts) == 40:
                rows.server.stop("immediate")
                threading.Timer(0.5, rows.server.start).start()

        encoder = Fake(away)
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        done = fill_column(column, encoder, size=20)
        assert (done.left, done.failed) == (0, 0)
        assert "the connection to the database server is lost; trying again in 0.1 s" in caplog.text
        with contextlib.closing(rows.another()) as after:
            after.check()
            assert after.run("SELECT count(v) FROM passage") == [(200,)]

    def test_connections_that_are_ended(self, rows):
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jammi-duck'"
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        assert fill_column(column, Fake(lambda _: rows.run(ending)), size=20).left == 0
        rows.check()

    def test_a_server_that_stays_away(self, rows, monkeypatch):
        monkeypatch.setattr(Connections, "patience", 0.3)
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        rows.server.stop()
        try:
            with pytest.raises(
                StorageError, match="cannot reach the database server: connection is bad: .*; check the host"
            ):
                column.count(with_text=True)
        finally:
            rows.server.start()
        assert column.count(with_text=True) == 200


class TestRights:
    def test_no_key(self, world):
        world.run("CREATE TABLE t (a INTEGER, passage TEXT)")
        with pytest.raises(InputError, match="'t' has no primary key, .* as in --key id or --key a,b"):
            world.column("t", "passage", "v")

    def test_who_may_not_make_the_extension(self, rows):
        rows.run("GRANT ALL ON passage TO guest")
        url = rows.server.guest_url(rows.database)
        column = rows.column("passage", "passage", "v", url=url)
        with pytest.raises(StorageError, match="CREATE EXTENSION vector fails .*permission denied.*an administrator"):
            column.create(3)
        rows.run("CREATE EXTENSION vector")
        with pytest.raises(StorageError, match="the database server refuses: must be owner of table passage"):
            rows.column("passage", "passage", "v", url=url).create(3)

    @pytest.mark.parametrize("may_make_tables", [True, False])
    def test_one_who_may_only_write(self, rows, may_make_tables):
        rows.column("passage", "passage", "v").create(Fake.dimensions)
        rows.run("GRANT SELECT, UPDATE ON passage TO guest")
        if not may_make_tables:
            rows.run(f"REVOKE TEMPORARY ON DATABASE {rows.database} FROM PUBLIC")
        column = rows.column("passage", "passage", "v", url=rows.server.guest_url(rows.database))
        assert fill_column(column, Fake(), size=77).filled == 200
        rows.check()

    @pytest.mark.parametrize("dialect", [POSTGRESQL, dataclasses.replace(POSTGRESQL, copies=False)])
    def test_the_type_in_a_schema_of_its_own(self, rows, dialect):
        rows.run('CREATE SCHEMA "its own"; CREATE EXTENSION vector SCHEMA "its own"')
        column = rows.column("passage", "passage", "v", dialect=dialect)
        assert column.create(Fake.dimensions)
        assert not rows.column("passage", "passage", "v").create(Fake.dimensions)
        assert fill_column(column, Fake()).filled == 200
        rows.check()
        assert column.nearest([1.0] * 8, 1, None)[0].text.startswith("text")
        assert column.size().dimensions == 8
        assert len(column.instrument(index=True)) == 2
        rows.run("UPDATE passage SET passage = 'new' WHERE id = 1")
        assert rows.run("SELECT id FROM passage WHERE v IS NULL") == [(1,)]

    def test_a_partitioned_table(self, world):
        world.run("CREATE TABLE t (id INTEGER PRIMARY KEY, passage TEXT) PARTITION BY RANGE (id)")
        world.run("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (5)")
        world.run("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (5) TO (10)")
        world.run("INSERT INTO t SELECT i, 'text ' || i FROM generate_series(0, 9) i")
        assert world.filled(table="t").filled == 10
        assert world.check("t") == []

    def test_keys_that_python_does_not_know(self, world, types):  # noqa: F811
        world.run("CREATE TABLE t (d DATE, t TIMESTAMPTZ, i INTERVAL, x DATE, PRIMARY KEY (d, t, i))")
        world.run("INSERT INTO t VALUES ('infinity', '-infinity', '1 month', '4713-01-01 BC')")
        world.run("INSERT INTO t VALUES ('2020-01-01', now(), '1 s', now())")
        column = world.column("t", "x", "v", any_type=True)
        column.create(2)
        assert fill_column(column, types, size=1).filled == 2

    @pytest.mark.parametrize(("kind", "value"), [("TIMESTAMPTZ", "'2024-01-01'::timestamptz + i * interval '1 h'"),
        ("DOUBLE PRECISION", "i / 7.0"), ("INTERVAL", "i * interval '-1 day 3 hours'")])  # fmt: skip
    def test_keys_are_found_whatever_the_session_s_format(self, world, types, kind, value):  # noqa: F811
        world.run(f"CREATE TABLE passage AS SELECT ({value})::{kind} AS k, 'text ' || i AS passage "
                  "FROM generate_series(1, 20) i; ALTER TABLE passage ADD PRIMARY KEY (k)")  # fmt: skip
        for setting in ("datestyle = 'SQL, DMY'", "timezone = 'Asia/Kolkata'", "extra_float_digits = 0",
                        "intervalstyle = 'sql_standard'"):  # fmt: skip
            world.run(f"ALTER DATABASE {world.database} SET {setting}")
        assert world.filled(types, size=3, any_type=True).left == 0


class TestPasswords:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://guest:{0}x@127.0.0.1:{1}/{2}",
            "postgresql://guest:{0}@127.0.0.1:1/{2}",
            "postgresql://guest:{0}@no-host.invalid/{2}",
            "postgresql://guest:a{0}/b@127.0.0.1:{1}/{2}",
            "postgresql://guest:a@{0}@127.0.0.1:{1}/{2}",
            "postgresql://guest:a?{0}@127.0.0.1:{1}/{2}",
            "postgresql://guest:%zz{0}@127.0.0.1:{1}/{2}",
            "postgresql://guest@127.0.0.1:{1}/{2}?password={0}x",
            "postgresql://guest:{0}@127.0.0.1:{1}/{2}?nonsense={0}",
            "postgresql://guest:{0}@127.0.0.1:{1}/{2}?sslmode=verify-full",
            "postgresql://guest:{0}@127.0.0.1:{1}/no_such_database",
            "cockroachdb://guest:{0}@127.0.0.1:x{1}/{2}",
            "postgresql+psycopg://guest:{0}@127.0.0.1:{1}/{2}",
            "postgresql:/guest:{0}@127.0.0.1:{1}/{2}",
            "host=127.0.0.1 password={0}",
        ],
    )
    def test_none_is_shown(self, rows, capsys, caplog, url, letters):
        given = url.format(PASSWORD, rows.server.port, rows.database)
        code = main(["embed", "-u", given, *COLUMN, *letters, "-d"])
        out, err = capsys.readouterr()
        assert code in (1, 2)
        assert err.startswith("jammi-duck: ")
        assert "hush" not in out + err + caplog.text

    def test_none_is_shown_where_all_is_well(self, rows, capsys, caplog, letters):
        rows.run("CREATE EXTENSION vector; ALTER TABLE passage ADD COLUMN v vector(3); GRANT ALL ON passage TO guest")
        url = rows.server.guest_url(rows.database)
        assert main(["embed", "-u", url, *COLUMN, *letters, "-d"]) == 0
        assert main(["search", "-u", url, *COLUMN, *letters, "-d", "x"]) == 0
        assert main(["search", "-u", url, *COLUMN, *letters, "--where", "nonsense", "x"]) == 2
        out, err = capsys.readouterr()
        assert "SELECT version()" in caplog.text
        assert 'column "nonsense" does not exist' in err
        assert "hush" not in out + err + caplog.text

    def test_without_psycopg(self, capsys, monkeypatch, letters):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        for name in [name for name in sys.modules if name.startswith("jammi_duck.doors.columns")]:
            monkeypatch.delitem(sys.modules, name)
        assert main(["embed", "-u", "postgres://u:hush@h/d", *COLUMN, *letters]) == 2
        err = capsys.readouterr().err
        assert "pip install 'jammi-duck[postgres]'" in err
        assert "hush" not in err


class TestUrls:
    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "cockroachdb", "postgresql+psycopg", "PostgreSQL"])
    def test_schemes_and_options(self, rows, scheme):
        url = f"{rows.url.replace('postgresql', scheme, 1)}&sslmode=verify-full&application_name=mine"
        column = rows.column("passage", "passage", "v", url=url)
        assert column.dialect is POSTGRESQL
        assert rows.run("SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name = 'mine'")

    def test_an_at_sign_in_an_option(self, rows):
        with pytest.raises(StorageError, match='role "a@b" does not exist'):
            Connections(f"{rows.url.replace('postgres@', '', 1)}&user=a@b")

    def test_a_password_with_everything_in_it(self, rows):
        password = "p @/?#%:'\\"
        rows.run("DROP ROLE IF EXISTS strange")
        rows.run(psycopg.sql.SQL("CREATE ROLE strange LOGIN PASSWORD {}").format(password).as_string(rows.con))
        url = rows.server.guest_url(rows.database, urllib.parse.quote(password, safe="")).replace("guest", "strange")
        with contextlib.closing(Connections(url)) as connections:
            assert connections.rows(psycopg.sql.SQL("SELECT current_user")) == [("strange",)]

    def test_the_server_says_what_it_is(self):
        assert dialect_of("CockroachDB CCL v25.2.0 (x86_64-pc-linux-gnu)") is COCKROACHDB
        assert dialect_of("PostgreSQL 18.4 on x86_64-pc-linux-gnu") is POSTGRESQL


class TestInstrument:
    def test_a_changed_text_has_no_vector(self, rows):
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        fill_column(column, Fake(), size=200)
        assert column.instrument(index=True) == column.instrument(index=True)
        rows.run("UPDATE passage SET passage = 'new' WHERE id < 3")
        rows.run("UPDATE passage SET passage = 'given', v = array_fill(1, ARRAY[8])::vector WHERE id = 3")
        rows.run("UPDATE passage SET passage = passage WHERE id = 4")
        rows.run("UPDATE passage SET passage = NULL WHERE id = 5")
        rows.run("UPDATE passage SET v = array_fill(1, ARRAY[8])::vector WHERE id = 6")
        rows.run(
            "INSERT INTO passage (id, passage) VALUES (7, 'new') "
            "ON CONFLICT (id) DO UPDATE SET passage = excluded.passage"
        )
        assert rows.run("SELECT id FROM passage WHERE v IS NULL ORDER BY id") == [(1,), (2,), (5,), (7,)]
        assert fill_column(column, Fake()).filled == 3
        assert [line.endswith("was dropped") for line in column.cleanup()] == [True, True]
        assert [line.endswith("is not there") for line in column.cleanup()] == [True, True]
        rows.run("UPDATE passage SET passage = 'newer' WHERE id = 8")
        assert rows.run("SELECT count(*) FROM passage WHERE v IS NULL AND passage IS NOT NULL") == [(0,)]
        assert rows.run("SELECT count(*) FROM pg_proc WHERE proname LIKE '%jammi%'") == [(0,)]

    def test_the_index_serves_and_finds_as_many_rows(self, rows):
        rows.run("INSERT INTO passage SELECT i, 'text ' || i FROM generate_series(201, 3000) i")
        column = rows.column("passage", "passage", "v")
        column.create(Fake.dimensions)
        fill_column(column, Fake(), size=3000)
        column.instrument(index=True)
        rows.run("ANALYZE passage")
        vector = [1.0] * 8
        plan = "\n".join(line for (line,) in rows.run(f"EXPLAIN {column.nearest_sql(vector, 3, None)}"))
        assert f"using {column._statements.mark}_index" in plan
        assert len(column.nearest(vector, 100, None)) == 100
        assert len(column.nearest(vector, 5, "id % 100 = 7")) == 5
        assert column.size().index_bytes > column.size().bytes / 10

    def test_a_name_with_everything_in_it(self, world):
        name, text, vector = "a \"b\" 'c' %s {} \\ $1 $$", 'the "text" %', "v'\" %s {}"
        quoted = ['"' + each.replace('"', '""') + '"' for each in (name, text, vector)]
        world.run(f"CREATE TABLE {quoted[0]} ({quoted[1]} TEXT, k TEXT PRIMARY KEY)")
        world.run(f"INSERT INTO {quoted[0]} VALUES ('one', 'k%1'), ('two', $1)", "it's {} \\ %s \u2028")
        column = world.column(quoted[0], text, vector)
        assert column.create(Fake.dimensions)
        column.instrument(index=True)
        assert fill_column(column, Fake(), size=1).filled == 2
        assert len(column.nearest([1.0] * 8, 5, "'{}' = '{}' AND k LIKE '%'")) == 2
        world.run(f"UPDATE {quoted[0]} SET {quoted[1]} = 'three'")
        assert column.count(with_text=True) == 2
        column.cleanup()


def test_the_description_s_lines_as_they_stand(rows, capsys, letters):
    """With `jammi-duck` for its program, and a host and models that are here."""
    rows.run("ALTER TABLE passage RENAME id TO key")
    url = f"{rows.url}&sslmode=verify-full"
    models = " ".join(letters[:2])
    line = f"embed -u {url} -t passage -i passage -o passage_vector -m letters -b 10 -n 1 -w 2 -v {models}"
    assert main(shlex.split(line)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        "[INFO] Column passage_vector was added",
        "[INFO] Run 1, Batch 1 starting (10 rows)",
        "[INFO] (batch 1, 1/5) Updating vector for row id 1: 'text 1'",
    ]
    assert out[7] == "[INFO] (batch 1, 1/5) Updating vector for row id 6: 'text 6'"
    assert out[-1] == "[INFO] Vectorization complete."
    line = f"search -u {url} -t passage -i passage -o passage_vector -m letters -l 10 -v 'New York' {models}"
    assert main(shlex.split(line)) == 0
    first, *found = capsys.readouterr().out.strip().split("\n\n")
    assert first == "[INFO] PK: key (integer)"
    assert len(found) == 10
