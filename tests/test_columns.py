"""Vectors in a column of the user's own table: `jammi-duck embed`, and `jammi-duck search --url`."""

import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck.doors.host import ConnectionHost
from jammi_duck.encoder import Encoder, Encodings
from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.udfs.vector_column import VectorColumn
from jammi_duck.work.fill import fill
from tests.fakes import text_vector

PASSAGES = [
    (1, "New York City is a financial capital"),
    (2, "A fish swims in water, and this is a longer text about fish"),
    (3, None),
    (4, " \t"),
    (5, "The bank of New York"),
    (6, "Jesus, knowing their thoughts"),
]
COLUMN = ("-t", "passage", "-i", "passage", "-o", "passage_vector")


class Fake(Encoder):
    """Gives each text its vector, and does something else before; a text with `bad` in it fails."""

    dimensions = 8

    def __init__(self, meanwhile=lambda texts: None):
        self.meanwhile = meanwhile
        self.texts = []

    def encode_rows(self, texts, role, progress):
        self.meanwhile(texts)
        self.texts += texts
        vectors = np.array([vector_of(text) for text in texts], np.float32).reshape(-1, self.dimensions)
        return Encodings(vectors, np.zeros(len(texts), bool), np.array(["bad" in text for text in texts], bool))


def vector_of(text):
    vector = np.asarray(text_vector(text, Fake.dimensions), np.float32)
    return vector / np.linalg.norm(vector)


def filled(
    con,
    encoder=None,
    table="passage",
    *,
    size=2,
    batches=1,
    to_the_end=True,
    columns=("passage", "v"),
    kind=VectorColumn,
):
    host = ConnectionHost()
    host.add(con)
    column = kind(host, table, *columns)
    encoder = encoder or Fake()
    column.create(encoder.dimensions)
    return fill(
        column,
        encoder,
        batch_size=size,
        batches=batches,
        to_the_end=to_the_end,
        began=lambda *_: None,
        encoded=lambda *_: None,
    )


def check(con, table="passage", columns=("passage", "v")):
    """Every vector is that of the row's own text; returns the texts without one."""
    rows = con.execute(f'SELECT "{columns[0]}", "{columns[1]}" FROM {table}').fetchall()
    for text, vector in rows:
        assert vector is None or np.allclose(vector, vector_of(text), atol=1e-6), text
    return [text for text, vector in rows if vector is None]


@pytest.fixture
def con():
    with duckdb.connect() as con:
        con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
        con.executemany("INSERT INTO passage VALUES (?, ?)", PASSAGES)
        yield con


class TestFill:
    def test_rows_without_a_vector_get_one(self, con):
        done = filled(con)
        assert (done.filled, done.skipped, done.failed, done.left) == (4, 2, 0, 0)
        assert check(con) == [None, " \t"]
        assert filled(con, again := Fake()).filled == 0
        assert again.texts == []
        con.execute("UPDATE passage SET passage = 'Alice', v = NULL WHERE id = 5")
        assert filled(con, again).filled == 1
        assert again.texts == ["Alice"]
        check(con)

    @pytest.mark.parametrize(("size", "batches", "wanted"), [(2, 1, 2), (1, 3, 3), (3, 1, 3), (100, 1, 4), (1, 100, 4)])
    def test_so_many_rows(self, con, size, batches, wanted):
        done = filled(con, size=size, batches=batches, to_the_end=False)
        assert (done.filled, done.left) == (wanted, 4 - wanted)
        check(con)

    def test_rows_that_fail_end_nothing(self, con):
        con.execute("INSERT INTO passage VALUES (7, 'bad one'), (8, 'bad two'), (9, 'good')")
        done = filled(con, size=1)
        assert (done.filled, done.failed, done.left) == (5, 2, 2)
        assert sorted(filter(None, check(con))) == [" \t", "bad one", "bad two"]

    @pytest.mark.parametrize(
        "keys",
        [
            "a INTEGER, b VARCHAR, PRIMARY KEY (a, b)", "a UUID PRIMARY KEY, b INTEGER",
            "a TIMESTAMPTZ, b DECIMAL(9, 2)", "a INTEGER UNIQUE, b VARCHAR UNIQUE",
        ],
    )  # fmt: skip
    def test_keys_of_all_kinds(self, keys):
        with duckdb.connect() as con:
            con.execute(f'CREATE SCHEMA "s.x"; CREATE TABLE "s.x"."a \'table\'" ({keys}, "the text" VARCHAR)')
            first = "uuid()" if "UUID" in keys else "now() + to_days(i::INT)" if "TIMESTAMPTZ" in keys else "i"
            con.execute(f"INSERT INTO \"s.x\".\"a 'table'\" SELECT {first}, i, 'text ' || i FROM range(10) r(i)")
            table, columns = '"s.x"."a \'table\'"', ("the text", "V")
            assert filled(con, table=table, columns=columns).filled == 10
            assert check(con, table, columns) == []

    def test_a_collation_makes_no_texts_equal(self, con):
        con.execute("CREATE TABLE t (passage VARCHAR COLLATE NOCASE)")
        con.execute("INSERT INTO t VALUES ('Text'), ('a')")
        change = [lambda: con.execute("UPDATE t SET passage = 'TEXT' WHERE passage = 'text'")]
        encoder = Fake(lambda texts: change.pop()() if change else None)
        assert filled(con.cursor(), encoder, "t", to_the_end=False).filled == 1
        assert check(con, "t") == ["TEXT"]

    def test_what_is_refused(self, con):
        con.execute("CREATE VIEW seen AS FROM passage; CREATE TABLE other (id INT, passage VARCHAR, v FLOAT[3])")
        for table, columns, error, said in (
            ("seen", ("passage", "v"), InputError, "'seen' is a view"),
            ("passages", ("passage", "v"), NotFoundError, "no table 'passages' .* did you mean 'passage'"),
            ("passage", ("passag", "v"), NotFoundError, "no column 'passag' .* did you mean 'passage'"),
            ("passage", ("id", "v"), InputError, "'id' of 'passage' is INTEGER"),
            ("other", ("passage", "v"), InputError, r"'v' of 'other' is FLOAT\[3\]"),
            ("a.b.c.d", ("passage", "v"), InputError, "names no table"),
        ):
            with pytest.raises(error, match=said):
                filled(con, table=table, columns=columns)
        assert con.execute("SELECT count(*) FROM duckdb_columns() WHERE column_name = 'v'").fetchone() == (1,)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_no_row_gets_the_vector_of_another_text(self, data):
        texts = st.none() | st.sampled_from(["cat", "dog", "owl", "bad", "", "é" * 50])
        changes = st.sampled_from([
            "UPDATE passage SET passage = $2 WHERE id = $1 AND v IS NULL",
            "UPDATE passage SET passage = $2, v = NULL WHERE id = $1",
            "DELETE FROM passage WHERE id = $1 AND ($2 IS NULL OR true)",
            "INSERT INTO passage (id, passage) SELECT $1 + 100, $2 WHERE NOT EXISTS (FROM passage WHERE id = $1 + 100)",
        ])  # fmt: skip
        change = st.tuples(changes, st.tuples(st.integers(0, 9), texts))
        # The encoder calls from another thread, which draws nothing.
        planned = data.draw(st.lists(st.lists(change, max_size=3), max_size=8))
        lock = threading.Lock()
        with duckdb.connect() as con:
            con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
            con.executemany(
                "INSERT INTO passage VALUES (?, ?)", [[-1, "first"], *enumerate(data.draw(st.lists(texts, max_size=8)))]
            )
            other = con.cursor()

            def meanwhile(_):
                for change in planned.pop() if planned else []:
                    with lock:
                        other.execute(*change)

            class Locked(VectorColumn):
                def write(self, rows, vectors):
                    # DuckDB refuses what two transactions change at once.
                    with lock:
                        return super().write(rows, vectors)

            sizes = st.integers(1, 4)
            filled(con, Fake(meanwhile), size=data.draw(sizes), batches=data.draw(sizes), kind=Locked)
            check(con)
            filled(con)
            assert [text for text in check(con) if text and "bad" not in text] == []


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
    def test_embed_says_what_it_does(self, file):
        done = run("embed", "-u", file, *COLUMN, "-m", "all-MiniLM-L6-v2", "-b", "3", "-n", "1", "-w", "2", "-v")
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
            (("embed", "-u", "postgresql://u:secret@h/d", *COLUMN), "names a database server"),
            (("embed", "-u", "none.duckdb", *COLUMN), "no database 'none.duckdb'"),
            (("embed", "-u", file, *COLUMN, "-b", "0"), "--batch-size is 0"),
            (("search", "-u", file, *COLUMN, "-l", "0", "x"), "--limit is 0"),
            (("search", "nothing", "--", "-u"), "no table, view or file 'nothing'"),
            (("search", "nothing", "x", "--filter", "-u > 3"), "no table, view or file 'nothing'"),
            (("search", "-u", file, *COLUMN, "x"), "no column 'passage_vector'"),
            (("search", "-u", file, "-t", "passage"), "required"),
        ):
            done = run(*words)
            assert done.returncode == 2
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
