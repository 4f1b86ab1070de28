"""install: what it finds, what it settles, what it leaves alone, and how it goes."""

import gc
import subprocess
import sys
import threading
import weakref
from datetime import timedelta

import duckdb
import pytest

import jammi_duck
from jammi_duck import ConfigError
from jammi_duck.doors.installation import _installations
from tests.test_generate import error_of, generate

TEXTS = "CREATE TABLE t AS FROM (VALUES (1, 'a cat'), (2, 'a dog'), (3, 'a duck')) t(id, text)"


def find(con, query="a duck"):
    return con.execute("SELECT _row_id FROM jammi_matches('t', ?, 1)", [query]).fetchall()


class TestSurface:
    def test_exports_are_sorted_and_real(self):
        assert jammi_duck.__all__ == sorted(jammi_duck.__all__)
        assert all(getattr(jammi_duck, name) for name in jammi_duck.__all__)

    def test_import_is_light(self):
        code = (
            "import sys, duckdb, jammi_duck; con = duckdb.connect(); jammi_duck.install(con, storage=sys.argv[1]); "
            "heavy = {'torch', 'transformers', 'pyarrow.flight', 'dbt', 'huggingface_hub', 's3fs'}; "
            "print(sorted(heavy & set(sys.modules))); con.close()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "/nonexistent/x"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_nothing_is_printed_at_exit(self, tmp_path):
        code = (
            "import duckdb, jammi_duck, sys\n"
            "con = duckdb.connect()\n"
            "jammi = jammi_duck.install(con, storage=sys.argv[1])\n"
            "other = con.cursor()\n"
            "jammi_duck.install(other)\n"
            "con.execute('FROM jammi_tables()').fetchall()\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout == ""

    def test_install_writes_nothing_to_storage(self, fake, storage):
        fake()
        assert not storage.exists()

    def test_connect_makes_files_that_all_supported_versions_read(self, tmp_path):
        def format_of(name, **options):
            path = tmp_path / name
            jammi_duck.connect(path, storage=str(tmp_path / "artifacts"), **options).close()
            return int.from_bytes(path.read_bytes()[12:20], "little")

        assert format_of("new.duckdb") == 67
        assert format_of("older.duckdb", storage_compatibility_version="v1.0.0") == 64
        duckdb.connect(tmp_path / "there.duckdb").close()
        there = int.from_bytes((tmp_path / "there.duckdb").read_bytes()[12:20], "little")
        assert format_of("there.duckdb") == there
        assert format_of("newest.duckdb", storage_compatibility_version="latest") >= there

    def test_a_file_that_connect_made_can_be_opened_beside_it(self, tmp_path):
        con = jammi_duck.connect(tmp_path / "db.duckdb", storage=str(tmp_path / "artifacts"))
        con.execute("CREATE TABLE n AS SELECT 1 AS a")
        with duckdb.connect(tmp_path / "db.duckdb") as other:
            assert other.execute("FROM n").fetchall() == [(1,)]
        con.close()

    def test_no_file_is_made_in_an_unknown_format(self, tmp_path):
        with pytest.raises(duckdb.InvalidInputException, match="'v9' is not a known DuckDB version"):
            jammi_duck.connect(tmp_path / "db.duckdb", storage_compatibility_version="v9")
        assert not (tmp_path / "db.duckdb").exists()

    def test_connect_in_memory_makes_no_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in (":memory:", ":memory:named", ""):
            jammi_duck.connect(name, storage=str(tmp_path / "artifacts")).close()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("written", ["~/db.duckdb", "file:{home}/db.duckdb", "file://{home}/db.duckdb"])
    def test_a_database_may_be_connected_twice_however_it_is_written(self, tmp_path, monkeypatch, written):
        monkeypatch.setenv("HOME", str(tmp_path))
        name = written.format(home=tmp_path)
        for _ in range(2):
            con = jammi_duck.connect(name, storage=str(tmp_path / "artifacts"))
            other = jammi_duck.connect(name, storage=str(tmp_path / "artifacts"))
            assert con.execute("SELECT path FROM duckdb_databases() WHERE path IS NOT NULL").fetchall() == [
                (str(tmp_path / "db.duckdb"),)
            ]
            other.close()
            con.close()
        assert int.from_bytes((tmp_path / "db.duckdb").read_bytes()[12:20], "little") == 67

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"storag": "./a"}, r"^jammi_duck\.connect has no option 'storag'; did you mean 'storage'\? options: "),
            ({"read_only": True}, r"^jammi_duck\.connect has no option 'read_only'; .*options: storage, model, "),
        ],
    )
    def test_no_file_is_made_with_an_unknown_option(self, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            jammi_duck.connect(tmp_path / "db.duckdb", **options)
        assert list(tmp_path.iterdir()) == []

    def test_connect_is_both_in_one(self, tmp_path):
        con = jammi_duck.connect(tmp_path / "db.duckdb", storage=str(tmp_path / "artifacts"))
        assert con.execute("FROM jammi_tables()").fetchall() == []
        con.close()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"segment_rows": 0}, "segment_rows is 0; it must be a whole number of at least 1"),
            ({"threads": 0}, "threads is 0; it must be a whole number of at least 1"),
            ({"device": -2}, "device is -2; it must be a whole number of at least -1"),
            ({"precision": "half"}, "precision is 'half'; it must be one of auto, float32, bfloat16"),
            ({"batch_size": "32"}, "batch_size is '32'"),
            ({"max_loaded_models": True}, "max_loaded_models is True"),
            ({"model": "  "}, "model is '  '"),
            ({"retention": 7}, "retention is 7; it must be a duration of at least 0, such as '7 days'"),
            ({"retention": timedelta(-1)}, "retention is"),
        ],
    )
    def test_wrong_options(self, con, options, message):
        with pytest.raises(ConfigError, match=message.replace("(", "\\(")):
            jammi_duck.install(duckdb.connect(), **options)

    def test_storage_options_are_not_shown(self):
        from jammi_duck.config.options import Config

        assert "hush" not in repr(Config(storage_options={"secret": "hush"}))


class TestConnections:
    def test_a_second_connection_shares_everything_but_the_macros(self, fake):
        first = fake()
        first.con.execute(TEXTS)
        generate(first.con, "t")
        other = first.con.cursor()
        assert "does not exist" in error_of(other, "FROM jammi_tables()")
        installed = set(_installations)
        fake(other)
        assert find(other) == [("3",)]
        assert set(_installations) == installed

    def test_another_storage_on_the_same_database_is_an_error(self, fake, tmp_path):
        first = fake()
        with pytest.raises(ConfigError, match="cannot have .*elsewhere"):
            fake(first.con.cursor(), storage=str(tmp_path / "elsewhere"))
        with pytest.raises(ConfigError, match="segment_rows = '500000'"):
            fake(first.con.cursor(), segment_rows=3)
        with pytest.raises(ConfigError, match="storage_options = others than these") as refused:
            fake(first.con.cursor(), storage_options={"auto_mkdir": True})
        assert "True" not in str(refused.value)

    def test_functions_outlive_the_connection_that_made_them(self, fake, tmp_path):
        database = str(tmp_path / "db.duckdb")
        first, second = duckdb.connect(database), duckdb.connect(database)
        fake(first)
        fake(second)
        second.execute(TEXTS)
        first.close()
        gc.collect()
        generate(second, "t")
        assert find(second) == [("3",)]

    def test_a_database_can_be_closed_and_opened_again(self, fake, tmp_path):
        database = str(tmp_path / "db.duckdb")
        for _ in range(3):
            con = duckdb.connect(database)
            fake(con)
            con.execute("CREATE OR REPLACE TABLE t AS SELECT 3 AS id, 'a duck' AS text")
            generate(con, "t")
            con.close()
        con = duckdb.connect(database, config={"access_mode": "read_only"})
        assert con.execute("SELECT count(*) FROM jammi_catalog.embedding_tables").fetchone() == (3,)
        con.close()

    def test_a_connection_that_is_only_dropped_lets_the_database_go(self, fake, tmp_path):
        from jammi_duck.config.options import Config
        from jammi_duck.doors.installation import equip
        from tests.fakes import FakeEncoders

        database = str(tmp_path / "db.duckdb")
        con = duckdb.connect(database)
        equip(con, Config(storage=str(tmp_path / "a"), model="fake/small", cache_dir=tmp_path), FakeEncoders())
        reference = weakref.ref(con)
        del con
        gc.collect()
        assert reference() is None
        code = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"
        subprocess.run([sys.executable, "-c", code, database], check=True)

    def test_a_connection_for_each_request(self, fake):
        root = duckdb.connect()
        root.execute(TEXTS)
        for count in range(1, 4):
            con = root.cursor()
            fake(con)
            generate(con, "t")
            assert con.execute("SELECT count(*) FROM jammi_tables()").fetchall() == [(count,)]
            con.close()
        root.close()

    def test_a_connection_for_each_request_on_a_read_only_database(self, fake, tmp_path):
        duckdb.connect(str(tmp_path / "db.duckdb")).close()
        root = duckdb.connect(str(tmp_path / "db.duckdb"), read_only=True)
        for _ in range(3):
            con = root.cursor()
            fake(con, storage=f"memory://{tmp_path.name}")
            assert con.execute("FROM jammi_tables()").fetchall() == []
            con.close()
        root.close()

    def test_a_build_of_a_connection_that_closed_is_settled(self, fake):
        keep = fake()
        other = keep.con.cursor()
        fake(other)
        other.execute(
            "CREATE VIEW broken AS SELECT range AS id, CASE WHEN range = 9999 THEN error('boom') ELSE 'x' END AS t "
            "FROM range(10000)"
        )
        error_of(other, "FROM jammi_generate('broken', 't', 'id')")
        assert keep.con.execute("SELECT status FROM jammi_tables()").fetchall() == [("building",)]
        other.close()
        assert [row[1] for row in keep.con.execute("FROM jammi_recover()").fetchall()] == ["failed"]

    def test_installing_again_on_one_connection_changes_nothing(self, fake):
        jammi = fake()
        again = fake(jammi.con)
        assert again.location == jammi.location
        jammi.con.execute(TEXTS)
        generate(jammi.con, "t")
        assert find(jammi.con) == [("3",)]

    def test_many_threads_install_at_once(self, fake):
        root = duckdb.connect()
        problems = []

        def work():
            try:
                own = root.cursor()
                fake(own)
                own.execute("FROM jammi_tables()").fetchall()
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        root.close()


class TestFinding:
    @pytest.fixture
    def built(self, fake, tmp_path):
        """A database file that built a table of `t`; closed. Gives the file."""
        database = str(tmp_path / "first.duckdb")
        con = duckdb.connect(database)
        fake(con)
        con.execute(TEXTS)
        generate(con, "t")
        con.close()
        return database

    def test_an_empty_and_an_in_memory_database_find_the_tables(self, built, fake, tmp_path):
        for database in (":memory:", str(tmp_path / "empty.duckdb")):
            con = duckdb.connect(database)
            fake(con)
            assert find(con) == [("3",)]
            (name, counted) = con.execute("SELECT embedding_table, row_count FROM jammi_tables()").fetchone()
            assert counted == 3
            assert con.execute(f'SELECT count(*) FROM jammi."{name}"').fetchone() == (3,)

    @pytest.mark.parametrize("file", ["plain.duckdb", "jammi.duckdb", "Jammi.duckdb"])
    def test_a_read_only_database_finds_the_tables(self, built, fake, tmp_path, file):
        database = str(tmp_path / file)
        con = duckdb.connect(database)
        con.execute(TEXTS)
        con.close()
        con = duckdb.connect(database, read_only=True)
        fake(con)
        assert find(con) == [("3",)]
        assert con.execute("SELECT text FROM jammi_search('t', 'a duck', 1)").fetchall() == [("a duck",)]
        (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        schema = "jammi" if file == "plain.duckdb" else "jammi_memory.main"
        assert con.execute(f'SELECT count(*) FROM {schema}."{name}"').fetchone() == (3,)
        assert generate(con, "t") == [(3, 0, 0)]
        assert con.execute("SELECT count(*) FROM jammi_tables()").fetchone() == (2,)

    def test_a_read_only_database_beside_a_users_own_named_jammi(self, built, fake, tmp_path):
        duckdb.connect(str(tmp_path / "jammi.duckdb")).close()
        con = duckdb.connect(built, read_only=True)
        con.execute(f"ATTACH '{tmp_path}/jammi.duckdb' AS jammi (READ_ONLY)")
        fake(con)
        assert find(con) == [("3",)]
        (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[0]
        assert con.execute(f'SELECT count(*) FROM jammi_memory.main."{name}"').fetchall() == [(3,)]

    def test_a_read_only_database_keeps_its_catalog_where_a_manifest_is_lost(self, built, fake, storage):
        for path in (storage / "jammi_db").glob("*.manifest.json"):
            path.unlink()
        con = duckdb.connect(built, read_only=True)
        fake(con)
        with pytest.warns(jammi_duck.JammiWarning, match="has no manifest"):
            assert find(con) == [("3",)]

    def test_files_that_moved_are_followed(self, built, fake, storage, tmp_path):
        storage.rename(tmp_path / "moved")
        con = duckdb.connect(built)
        fake(con, storage=str(tmp_path / "moved"))
        assert find(con) == [("3",)]
        (name, location) = con.execute("SELECT embedding_table, location FROM jammi_tables()").fetchone()
        assert location == str(tmp_path / "moved")
        assert con.execute(f'SELECT count(*) FROM jammi."{name}"').fetchone() == (3,)

    def test_tables_of_an_earlier_location_stay_searchable(self, built, fake, tmp_path):
        con = duckdb.connect(built)
        fake(con, storage=str(tmp_path / "another"))
        assert find(con) == [("3",)]

    def test_a_table_dropped_here_is_gone_for_good(self, built, fake, storage):
        con = duckdb.connect(built)
        fake(con)
        (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        assert con.execute("SELECT * FROM jammi_drop(?)", [name]).fetchall() == [(name, "dropped", "removed 6 files")]
        assert list((storage / "jammi_db").iterdir()) == []
        assert f"no embedding table '{name}'" in error_of(con, "FROM jammi_drop(?)", [name])
        assert con.execute("FROM jammi_tables()").fetchall() == []
        assert "does not exist" in error_of(con, f'FROM jammi."{name}"')
        con.close()
        con = duckdb.connect(built)
        fake(con)
        assert con.execute("FROM jammi_tables()").fetchall() == []

    def test_a_copy_that_is_not_whole_yet_is_left_for_later(self, built, fake, storage):
        (parquet,) = (storage / "jammi_db").glob("*.parquet")
        parquet.rename(storage / "aside")
        con = duckdb.connect()
        fake(con)
        assert con.execute("FROM jammi_tables()").fetchall() == []
        (storage / "aside").rename(parquet)
        assert [row[1] for row in con.execute("FROM jammi_recover()").fetchall()] == ["ready"]
        assert find(con) == [("3",)]

    def test_a_build_that_cannot_be_reached_does_not_keep_install_from_working(self, built, fake):
        con = duckdb.connect(built)
        con.execute("UPDATE jammi_catalog.embedding_tables SET status = 'building', location = 'nope://x'")
        fake(con)
        (action,) = con.execute("SELECT action FROM jammi_recover()").fetchall()[:1]
        assert "cannot be settled now: the catalog names the location 'nope://x', which is not opened" in action[0]

    def test_a_view_that_cannot_be_made_hinders_nothing(self, fake, tmp_path):
        con = duckdb.connect(config={"enable_external_access": "false"})
        fake(con)
        con.execute(TEXTS)
        generate(con, "t")
        assert find(con) == [("3",)]


class TestSharing:
    def test_a_database_that_has_tables_takes_no_others_by_itself(self, fake, storage, tmp_path):
        for file, word in (("a", "alpha"), ("b", "beta"), ("a", "gamma")):
            con = duckdb.connect(str(tmp_path / f"{file}.duckdb"))
            fake(con)
            con.execute(f"CREATE OR REPLACE TABLE t AS SELECT 1 AS id, '{word}' AS text")
            generate(con, "t")
            con.close()
        con = duckdb.connect(str(tmp_path / "b.duckdb"))
        fake(con)
        assert con.execute("SELECT round(_similarity, 3) FROM jammi_search('t', 'beta')").fetchall() == [(1.0,)]
        assert len(con.execute("FROM jammi_recover()").fetchall()) == 1

    def test_two_databases_on_one_storage_do_not_touch_each_others_builds(self, fake, storage, tmp_path):
        first = duckdb.connect(str(tmp_path / "first.duckdb"))
        fake(first, segment_rows=100)
        first.execute(
            "CREATE TABLE t AS SELECT range AS id, CASE WHEN range = 4999 THEN error('boom') "
            "ELSE 'word ' || range END AS text FROM range(10)"
        )
        first.execute(
            "CREATE VIEW broken AS SELECT range AS id, CASE WHEN range = 19999 THEN error('boom') "
            "ELSE 'word' || range END AS text FROM range(20000)"
        )
        error_of(first, "FROM jammi_generate('broken', 'text', 'id')")
        assert first.execute("SELECT status FROM jammi_catalog.embedding_tables").fetchall() == [("building",)]
        before = {path.name: path.stat().st_mtime_ns for path in (storage / "jammi_db").iterdir()}
        second = duckdb.connect(str(tmp_path / "second.duckdb"))
        fake(second, segment_rows=100)
        second.execute("FROM jammi_recover()").fetchall()
        second.execute("FROM jammi_vacuum()").fetchall()
        assert second.execute("FROM jammi_tables()").fetchall() == []
        assert {path.name: path.stat().st_mtime_ns for path in (storage / "jammi_db").iterdir()} == before
        assert [row[1] for row in first.execute("FROM jammi_recover()").fetchall()] == ["failed"]
        (error,) = first.execute("SELECT error FROM jammi_tables()").fetchone()
        assert "embedded rows are kept until jammi_vacuum()" in error

    def test_a_name_that_another_database_takes_meanwhile(self, fake, storage, tmp_path, monkeypatch):
        from jammi_duck.storage.tables import build as module

        monkeypatch.setattr(module, "names_in", lambda store: set())
        built = []
        clock = module.datetime.now(module.UTC)

        class Clock(module.datetime):
            @classmethod
            def now(cls, tz=None):
                return clock

        monkeypatch.setattr(module, "datetime", Clock)
        for file in ("first", "second"):
            con = duckdb.connect(str(tmp_path / f"{file}.duckdb"))
            fake(con)
            con.execute(TEXTS)
            if file == "second":
                con.execute("UPDATE t SET text = 'a duck' WHERE id = 1")
            real = module.names_in
            if file == "second":
                calls = iter([set()])
                monkeypatch.setattr(
                    module, "names_in", lambda store, calls=calls: next(calls, None) or {name for name in built}
                )
            built.append(con.execute("SELECT embedding_table FROM jammi_generate('t', 'text', 'id')").fetchone()[0])
            assert real is not None
            con.close()
        assert built[1] == built[0] + "_2"
        assert len(list((storage / "jammi_db").iterdir())) == 12


class TestDump:
    """EXPORT and IMPORT DATABASE carry an installed database elsewhere."""

    @pytest.fixture
    def dump(self, fake, tmp_path):
        con = duckdb.connect(str(tmp_path / "first.duckdb"))
        fake(con)
        con.execute(TEXTS)
        generate(con, "t")
        con.execute("CREATE VIEW hits AS SELECT text FROM jammi_search('t', 'a duck', 1)")
        con.execute(f"EXPORT DATABASE '{tmp_path}/dump'")
        con.close()
        return f"IMPORT DATABASE '{tmp_path}/dump'"

    def test_into_an_installed_database(self, dump, fake, tmp_path):
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        fake(con)
        con.execute(dump)
        assert con.execute("FROM hits").fetchall() == [("a duck",)]
        assert generate(con, "t") == [(3, 0, 0)]
        # The build that the dump has and the one that the location has are one.
        assert con.execute("SELECT count(*) FROM jammi_tables()").fetchall() == [(2,)]
        con.close()
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        fake(con)
        assert con.execute("SELECT count(*) FROM jammi_tables()").fetchall() == [(2,)]
        assert find(con) == [("3",)]

    def test_before_the_installation(self, dump, fake, tmp_path):
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        con.execute("CREATE MACRO jammi_search(a, b, c) AS TABLE SELECT 'none' AS text")
        con.execute(dump)
        con.execute("DROP MACRO TABLE jammi_search")
        fake(con)
        assert find(con) == [("3",)]

    def test_where_the_vectors_are_elsewhere(self, dump, fake, storage, tmp_path):
        storage.rename(tmp_path / "moved")
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        fake(con, storage=str(tmp_path / "empty"))
        con.execute(dump)
        assert con.execute("SELECT count(*) FROM t").fetchall() == [(3,)]
        assert "no embedding table for 't'" in error_of(con, "FROM hits")
        con.close()
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        fake(con, storage=str(tmp_path / "moved"))
        assert con.execute("FROM hits").fetchall() == [("a duck",)]


class TestViews:
    """The views `jammi."NAME"` read the same wherever the connection stands."""

    @pytest.fixture
    def named(self, fake, tmp_path):
        con = duckdb.connect(str(tmp_path / "first.duckdb"))
        fake(con)
        con.execute(TEXTS)
        generate(con, "t")
        (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        return con, f'SELECT count(*) FROM jammi."{name}"'

    def test_after_use(self, named):
        con, query = named
        con.execute("CREATE SCHEMA s; USE s")
        assert con.execute(query).fetchall() == [(3,)]
        con.execute("ATTACH ':memory:' AS other; USE other")
        assert con.execute(query).fetchall() == [(3,)]

    def test_of_a_file_of_an_earlier_version(self, named, fake, tmp_path):
        con, query = named
        view = query.partition("FROM ")[2]
        text = con.execute("SELECT sql FROM duckdb_views() WHERE contains(sql, 'read_parquet')").fetchone()[0]
        con.close()
        con = duckdb.connect(str(tmp_path / "first.duckdb"))
        con.execute("CREATE SCHEMA jammi")
        con.execute(f"CREATE VIEW {view} AS {text.partition(' AS ')[2]}")
        con.close()
        con = duckdb.connect(str(tmp_path / "first.duckdb"), read_only=True)
        fake(con)
        assert con.execute(query).fetchall() == [(3,)]
        con.close()
        con = duckdb.connect(str(tmp_path / "first.duckdb"))
        fake(con)
        assert con.execute(query).fetchall() == [(3,)]
        assert con.execute("SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'jammi'").fetchall() == [(0,)]

    def test_what_a_user_has_in_the_schema_stays(self, named, fake, tmp_path):
        con, query = named
        con.close()
        con = duckdb.connect(str(tmp_path / "first.duckdb"))
        con.execute("CREATE SCHEMA jammi; CREATE TABLE jammi.mine AS SELECT 42 AS n")
        fake(con)
        assert con.execute("FROM jammi.mine").fetchall() == [(42,)]
        assert con.execute(query).fetchall() == [(3,)]

    def test_an_installation_alone_leaves_nothing_in_the_file(self, fake, tmp_path):
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        fake(con)
        con.close()
        con = duckdb.connect(str(tmp_path / "new.duckdb"))
        assert con.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall() == []


class TestDefaultConnection:
    def test_it_stays_installed(self, fake):
        own = duckdb.connect()
        before = duckdb.default_connection()
        duckdb.set_default_connection(own)
        del own
        try:
            fake(duckdb.default_connection())
            gc.collect()
            duckdb.execute(TEXTS)
            assert duckdb.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id')").fetchall() == [(3,)]
        finally:
            duckdb.default_connection().close()
            duckdb.set_default_connection(before)
