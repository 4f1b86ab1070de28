"""Vectors in a column of a table of DuckDB's: what only DuckDB has, and the commands."""

import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from jammi_duck.errors import InputError, NotFoundError
from tests.column_worlds import DuckDB, Fake, fill_column
from tests.test_columns_contract import PASSAGES

COLUMN = ("-t", "passage", "-i", "passage", "-o", "passage_vector")
has_triggers = pytest.mark.skipif(duckdb.__version__ < "2", reason="DuckDB 1 has no triggers")


@pytest.fixture
def world():
    found = DuckDB()
    found.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
    for row in PASSAGES:
        found.run("INSERT INTO passage VALUES ($1, $2)", *row)
    yield found
    found.close()


class TestFill:
    @pytest.mark.parametrize("keys", ["a INTEGER UNIQUE, b VARCHAR UNIQUE", "a VARCHAR", "a INTEGER[]"])
    def test_without_a_key_a_row_has_its_rowid(self, world, keys):
        world.run(f"CREATE TABLE t ({keys}, passage VARCHAR)")
        world.run("INSERT INTO t (passage) SELECT 'text ' || i FROM range(10) r(i)")
        column = world.column("t", "passage", "v")
        assert (column.key, column.key_type) == (("rowid",), "bigint")
        assert world.filled(table="t").filled == 10
        assert world.check("t") == []

    def test_a_rowid_that_means_another_row_gets_no_vector(self, world):
        world.run("CREATE TABLE t (passage VARCHAR)")
        world.run("INSERT INTO t SELECT 'text ' || i FROM range(300000) r(i)")
        column = world.column("t", "passage", "v")
        column.create(Fake.dimensions)
        rows = [row for row in column.read(None, 300000) if row.place.rowid > 299990]
        vectors = Fake().encode_rows([row.value for row in rows], "document", None).vectors
        world.run("DELETE FROM t WHERE rowid < 250000")
        world.run("CHECKPOINT")
        column.write(rows, vectors)
        world.check("t")

    def test_names_in_any_case_and_with_everything_in_them(self, world):
        world.run(
            """CREATE SCHEMA "s ""x"; CREATE TABLE "s ""x"."a 'b' {}" ("the ""text" VARCHAR, k INT PRIMARY KEY)"""
        )
        world.run("""INSERT INTO "s ""x"."a 'b' {}" VALUES ('one', 1)""")
        assert world.filled(table='"S ""X"."A \'b\' {}"', columns=('THE "text', 'V"{}')).filled == 1

    @pytest.mark.parametrize("kind", ["INTEGER", "VARCHAR"])
    def test_a_column_named_rowid_is_refused(self, world, kind):
        world.run(f"CREATE TABLE t (RowID {kind}, passage VARCHAR)")
        with pytest.raises(InputError, match="'t' has a column rowid, which hides DuckDB's own.* rename it"):
            world.filled(table="t")

    def test_rows_that_others_refer_to(self, world):
        world.run("CREATE TABLE other (id INTEGER REFERENCES passage (id)); INSERT INTO other VALUES (1)")
        with pytest.raises(InputError, match="'passage' are referred to by a foreign key of another table, and DuckDB"):
            world.filled(columns=("passage", "v"))


class TestInstrument:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "my.duckdb"
        with duckdb.connect(str(path), config={"storage_compatibility_version": "v2.0.0"}) as con:
            con.execute("CREATE TABLE passage (id INTEGER, part VARCHAR, passage VARCHAR, PRIMARY KEY (id, part))")
            con.execute("INSERT INTO passage SELECT i, 'p', 'text ' || i FROM range(10) r(i)")
        world = DuckDB(path)
        world.filled()
        yield world
        world.close()

    @has_triggers
    def test_changed_texts_get_new_vectors(self, file):
        column = file.column("passage", "passage", "v")
        assert column.instrument(index=True) == ["Changes of passage are noted"]
        assert column.instrument(index=True) == ["Changes of passage were already noted"]
        file.run("UPDATE passage SET passage = 'new' WHERE id < 2")
        file.run("UPDATE passage SET passage = 'newer' WHERE id = 1")
        file.run("UPDATE passage SET passage = passage WHERE id = 3")
        file.run("UPDATE passage SET passage = NULL WHERE id = 4")
        file.run("UPDATE passage SET passage = 'given', v = (SELECT v FROM passage WHERE id = 5) WHERE id = 6")
        file.run("UPDATE passage SET passage = 'given later' WHERE id = 7")
        file.run("UPDATE passage SET v = (SELECT v FROM passage WHERE id = 5) WHERE id = 7")
        file.run("DELETE FROM passage WHERE id = 8")
        file.run("BEGIN")
        file.run("UPDATE passage SET passage = 'rolled back' WHERE id = 9")
        file.run("ROLLBACK")
        again = Fake()
        done = fill_column(column, again)
        assert sorted(again.texts) == ["new", "newer"]
        assert (done.filled, done.skipped, done.left) == (2, 1, 0)
        five = file.run("SELECT v FROM passage WHERE id = 5")
        assert file.run("SELECT DISTINCT v FROM passage WHERE id IN (6, 7)") == five
        ((queue,),) = file.run("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '#_jammi%' ESCAPE '#'")
        assert file.run(f"SELECT count(*) FROM {queue}") == [(0,)]
        assert fill_column(column, again).filled == 0

    @has_triggers
    def test_a_crash_between_the_statements_loses_no_change(self, file):
        column = file.column("passage", "passage", "v")
        column.instrument(index=True)
        file.run("UPDATE passage SET passage = 'new' WHERE id = 1")
        host, statements = column._queue._host, []

        class Crashing:
            def sql(self, text, *given):
                statements.append(text)
                if text.startswith("DELETE"):
                    raise KeyboardInterrupt
                return host.sql(text, *given)

        column._queue._host = Crashing()
        with pytest.raises(KeyboardInterrupt):
            column.clear_changed()
        column._queue._host = host
        # The row is changed again before the next run.
        file.run("UPDATE passage SET passage = 'newer' WHERE id = 1")
        assert fill_column(column, Fake()).filled == 1
        file.check()

    @has_triggers
    def test_cleanup_leaves_nothing(self, file):
        column = file.column("passage", "passage", "v")
        column.instrument(index=True)
        file.run("UPDATE passage SET passage = 'new' WHERE id = 1")
        assert column.cleanup() == [
            "Vectors of changed texts that were set NULL: 1",
            "Changes of passage are no longer noted",
        ]
        assert column.cleanup() == ["Changes of passage were not noted"]
        assert file.run("SELECT count(*) FROM duckdb_triggers()") == [(0,)]
        assert file.run("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '%jammi%'") == [(0,)]
        file.run("ALTER TABLE passage RENAME passage TO words")

    @has_triggers
    def test_the_key_is_that_which_instrument_got(self, world):
        world.run("CREATE TABLE t (k VARCHAR, passage VARCHAR)")
        world.run("INSERT INTO t VALUES ('a', 'one'), ('b', 'two')")
        world.filled(table="t")
        with pytest.raises(InputError, match="'t' has no primary key, by which changes are noted: name one with --key"):
            world.column("t", "passage", "v").instrument(index=True)
        world.column("t", "passage", "v", key=["k"]).instrument(index=True)
        world.run("UPDATE t SET passage = 'three' WHERE k = 'a'")
        assert world.filled(table="t").filled == 1
        assert world.check("t") == []
        world.column("t", "passage", "v").cleanup()

    @has_triggers
    def test_a_dropped_table_leaves_a_queue_that_cleanup_removes(self, file):
        file.column("passage", "passage", "v").instrument(index=True)
        file.run("DROP TABLE passage")
        file.run("CREATE TABLE passage (id INTEGER, part VARCHAR, passage VARCHAR, v FLOAT[8], PRIMARY KEY (id, part))")
        file.run("INSERT INTO passage (id, part, passage) VALUES (1, 'p', 'one')")
        assert file.filled().filled == 1
        column = file.column("passage", "passage", "v")
        assert column.instrument(index=True) == ["Changes of passage are noted"]
        file.run("UPDATE passage SET passage = 'two'")
        assert file.filled().filled == 1
        column.cleanup()
        assert file.run("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '%jammi%'") == [(0,)]

    def test_where_there_are_no_triggers(self, tmp_path):
        with duckdb.connect(str(tmp_path / "old.duckdb"), config={"storage_compatibility_version": "v1.4.0"}) as con:
            con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR, v FLOAT[8])")
        world = DuckDB(tmp_path / "old.duckdb")
        said = "install DuckDB 2.0" if duckdb.__version__ < "2" else "format v1.4.0.*STORAGE_VERSION 'v2.0.0'"
        with pytest.raises(InputError, match=said):
            world.column("passage", "passage", "v").instrument(index=True)
        assert world.column("passage", "passage", "v").cleanup() == ["Changes of passage were not noted"]
        assert world.run("SELECT count(*) FROM duckdb_tables()") == [(1,)]
        with pytest.raises(NotFoundError, match="no column 'w'"):
            world.column("passage", "passage", "w").instrument(index=True)
        world.close()


@pytest.fixture
def file(tmp_path):
    with duckdb.connect(str(tmp_path / "my.duckdb")) as con:
        con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
        con.executemany("INSERT INTO passage VALUES (?, ?)", PASSAGES)
    return tmp_path / "my.duckdb"


def run(*words, cwd=None):
    program = Path(sys.executable).with_name("jammi-duck")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.minilm
class TestCommands:
    @pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "hf_st_all_minilm_l6"])
    def test_embed_says_what_it_does(self, file, model):
        done = run("embed", "-u", file, *COLUMN, "-m", model, "-b", "3", "-n", "1", "-w", "2", "-v")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.sub(r"in \d+\.\d+ seconds", "in 1.5 seconds", done.stdout) == (
            "[INFO] Column passage_vector was added\n"
            "[INFO] Run 1, Batch 1 starting (3 rows)\n"
            "[INFO] (batch 1, 1/2) Updating vector for row id 1: 'New York City is a financial capital'\n"
            "[INFO] (batch 1, 2/2) Updating vector for row id 2: 'A fish swims in water, and this is a lon'\n"
            "[INFO] (batch 1, 1/1) Updating vector for row id 5: 'The bank of New York'\n"
            "Done in 1.5 seconds\n"
            "[INFO] Vectorization complete.\n"
        )
        done = run("embed", "-F", "-o", "passage_vector", "-t", "passage", "-i", "passage", f"--url={file}")
        assert re.sub(r"in [\d.]+ s", "in 1.5 s", done.stdout) == "rows embedded: 1, in 1.5 s; without a text: 2\n"
        done = run("embed", "-u", f"duckdb:///{file}", *COLUMN, "-v")
        assert done.stdout.startswith("[INFO] Column passage_vector already exists\nDone in ")

    def test_search_finds_the_nearest(self, file):
        run("embed", "-u", file, *COLUMN, "-F")
        found = run("search", "-u", file, *COLUMN, "-l", "2", "-v", "New York is the financial capital of the world!")
        assert (found.returncode, found.stderr) == (0, "")
        first, near, nearer, end = found.stdout.split("\n\n")
        assert (first, end) == ("[INFO] PK: id (integer)", "")
        assert re.fullmatch(r"0\.\d+ --> 1\nNew York City is a financial capital", near)
        assert re.fullmatch(r"0\.\d+ --> 5\nThe bank of New York", nearer)
        found = run("search", "--url", file, *COLUMN, "--where", "id > 5 -- or all", "New York")
        assert found.stdout.count(" --> ") == 1
        assert " --> 6\nJesus" in found.stdout

    def test_errors(self, file):
        for words, said in (
            (("embed", "-u", "postgresql://u:secret@127.0.0.1:1/d", *COLUMN), "cannot reach the database server"),
            (("embed", "-u", "none.duckdb", *COLUMN), "no database 'none.duckdb'"),
            (("embed", "-u", file, *COLUMN, "-b", "0"), "--batch-size is 0"),
            (("search", "-u", file, *COLUMN, "-l", "0", "x"), "--limit is 0"),
            (("sql", "-u", file, *COLUMN, "--where", " ", "x"), "--where is empty"),
            (("search", "nothing", "--", "-u"), "no table, view or file 'nothing'"),
            (("search", "nothing", "x", "--filter", "-u > 3"), "no table, view or file 'nothing'"),
            (("search", "-u", file, *COLUMN, "x"), "no column 'passage_vector'"),
            (("search", "-u", file, "-t", "passage"), "required"),
        ):
            done = run(*words)
            assert done.returncode == (1 if "cannot reach" in said else 2)
            assert said in done.stderr
            assert "secret" not in done.stderr
        assert run("search", "nothing", "x").returncode == 2

    def test_killed_while_it_embeds(self, file):
        with duckdb.connect(str(file)) as con:
            con.execute("INSERT INTO passage SELECT range + 100, 'the text of row ' || range FROM range(400)")
        program = Path(sys.executable).with_name("jammi-duck")
        for seconds in (0.05, 0.3, 0.6):
            process = subprocess.Popen(
                [program, "embed", "-u", file, *COLUMN, "-b", "10", "-F", "-v"], stdout=subprocess.PIPE, text=True
            )
            # Not before it embeds.
            while "starting" not in process.stdout.readline():
                assert process.poll() is None
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            with duckdb.connect(str(file)) as con:
                ((count,),) = con.execute("SELECT count(passage_vector) FROM passage").fetchall()
                assert count % 10 == 0 or count == 404
        done = run("embed", "-u", file, *COLUMN, "-F")
        assert done.returncode == 0
        with duckdb.connect(str(file)) as con:
            assert con.execute("SELECT count(passage_vector) FROM passage").fetchone() == (404,)

    def test_the_session_of_the_docs(self, tmp_path):
        texts = ("New York City is a financial capital", "The bank of New York", "A fish swims in water")
        with duckdb.connect(str(tmp_path / "my.duckdb")) as con:
            con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
            con.executemany("INSERT INTO passage VALUES (?, ?)", list(enumerate(texts, start=1)))
        page = (Path(__file__).parents[1] / "docs" / "columns.md").read_text()
        commands, shown = re.findall(r"```(?:bash|text)\n(.*?)```", page, re.DOTALL)[:2]
        words = [shlex.split(line)[1:] for line in commands.splitlines()]
        printed = "".join(run(*each, cwd=tmp_path).stdout for each in words)

        def rounded(text):
            text = re.sub(r"in \d+\.\d+ seconds", "in 1.5 seconds", text)
            return re.sub(r"\d\.\d{6,}", lambda found: f"{float(found[0]):.3f}", text).strip()

        assert rounded(printed) == rounded(shown)
