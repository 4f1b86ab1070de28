"""The stock DuckDB shell with jammi in it: the real program, in a pipe and on a terminal."""

import json
import os
import re
import signal
import time
from pathlib import Path

import duckdb
import pytest

import jammi_duck
from tests.stock_shell import Session, children, folder, gone, needs_extension, rows, shell
from tools.program import Terminal

__all__ = ["folder"]

pytestmark = [needs_extension]
OLD_STORAGE = {"storage_compatibility_version": "v1.0.0"}


class TestUse:
    def test_the_same_as_in_python(self, folder):
        (built,) = rows("FROM jammi_generate('t', 'text', 'id')")
        assert (built["status"], built["row_count"], built["skipped_count"]) == ("ready", 2, 1)
        query = "SELECT id, text, _rank, _score, _similarity, _bm25 FROM jammi_search('t', 'duck', 2)"
        ours = rows(query)
        con = duckdb.connect()
        jammi_duck.install(con)
        con.execute(
            "CREATE TABLE t AS FROM (VALUES (1, 'the duck in water'), (2, 'a loud dog'), (3, NULL)) t(id, text)"
        )
        names = ("id", "text", "_rank", "_score", "_similarity", "_bm25")
        theirs = [dict(zip(names, row, strict=True)) for row in con.sql(query).fetchall()]
        nearly = ("_score", "_similarity", "_bm25")
        ours = [row | {name: pytest.approx(row[name], abs=1e-6) for name in nearly} for row in ours]
        assert ours == theirs
        assert theirs[0]["_bm25"] > theirs[1]["_bm25"] == 0
        vectors = con.sql("SELECT embed('the duck'), embed(''), embed(NULL)").fetchall()[0]
        (row,) = rows("SELECT embed('the duck') AS a, embed('') AS b, embed(NULL) AS c")
        assert (row["a"], row["b"], row["c"]) == (pytest.approx(vectors[0], abs=1e-6), None, None)
        con.close()

    def test_lateral_tables_drop_and_infer(self, folder):
        rows("FROM jammi_generate('t', 'text', 'id')")
        found = rows("SELECT q, id FROM (VALUES ('duck'), ('dog')) v(q), jammi_search('t', q, 1) ORDER BY q")
        assert [row["q"] for row in found] == ["dog", "duck"]
        (table,) = rows("SELECT embedding_table, columns, key FROM jammi_tables()")
        assert len(rows("FROM jammi_infer('t', 'text', 'id')")) == 3
        assert rows(f"SELECT status FROM jammi_drop('{table['embedding_table']}')") == [{"status": "dropped"}]
        assert rows("FROM jammi_tables()") == []
        assert rows("SELECT count(*) AS n FROM jammi_models()")[0]["n"] >= 1

    def test_a_warning_is_a_line(self, folder):
        rows("FROM jammi_generate('t', 'text', 'id')")
        rows("FROM jammi_generate('t', ['id', 'text'], 'id')")
        done = shell("SELECT id FROM jammi_search('t', 'duck', 1)")
        assert done.returncode == 0
        assert re.fullmatch(r"jammi-duck: 't' has embedding tables of different columns: .* chooses one\n", done.stderr)

    def test_a_table_follows_its_source(self, folder):
        rows("FROM jammi_generate('t', 'text', 'id')")
        shell("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (4, 'a quiet owl'), (5, 'a loud dog')")
        counts = "current, new, changed, gone"
        assert rows(f"SELECT {counts} FROM jammi_status('t')") == [{"current": 1, "new": 2, "changed": 0, "gone": 1}]
        (done,) = rows("SELECT added, deleted, unchanged, encoded FROM jammi_refresh('t')")
        assert done == {"added": 2, "deleted": 1, "unchanged": 1, "encoded": 1}
        assert rows("SELECT segments, rows_removed FROM jammi_compact('t')") == [{"segments": 1, "rows_removed": 1}]
        shell("CREATE TABLE v AS SELECT id, embed(text)::DOUBLE[] AS v FROM t WHERE text IS NOT NULL")
        imported = "FROM jammi_import('t', 'v', 'id', 'v', model := 'of/others', cols := 'text')"
        assert rows(f"SELECT status, row_count {imported}") == [{"status": "ready", "row_count": 3}]
        assert rows("SELECT id FROM jammi_search('t', (SELECT v FROM v WHERE id = 4), 1)") == [{"id": 4}]

    def test_long_texts_are_cut_into_passages(self, folder):
        words = "a duck swims in a pond. " * 30
        shell(
            f"CREATE TABLE long AS FROM (VALUES (1, 'birds', '{words}an owl hunts.'), (2, 'no', NULL)) v(id, title, t)"
        )
        made = "FROM jammi_generate('long', 't', 'id', passages := {'by': 'sentence', 'title': 'title'})"
        (done,) = rows(f"SELECT row_count, skipped_count, passage_count {made}")
        assert (done["row_count"], done["skipped_count"]) == (1, 1)
        cut = rows("FROM jammi_passages('long')")
        assert len(cut) == done["passage_count"] > 1
        text = f"{words}an owl hunts."
        assert [row["_passage_text"] for row in cut] == [text[row["_start"] : row["_end"]] for row in cut]
        (found,) = rows("SELECT _passage, _passage_text FROM jammi_search('long', 'an owl', 1)")
        assert "owl" in found["_passage_text"]
        shell("UPDATE long SET t = replace(t, 'owl', 'cat')")
        (refreshed,) = rows("SELECT changed, encoded FROM jammi_refresh('long')")
        assert refreshed["changed"] == 1
        assert 1 <= refreshed["encoded"] <= 4
        parts = rows("SELECT unnest(jammi_split(t, by := 'sentence'), recursive := true) FROM long")
        assert len(parts) > 1

    def test_filters_with_parameters_change_nothing(self, folder):
        rows("FROM jammi_generate('t', 'text', 'id')")
        shell("CREATE VIEW few AS SELECT 1 AS id; CREATE MACRO same(a, b) AS a = b")
        search = "SELECT id FROM jammi_search('t', 'duck', filter := '{}', parameters := {{'i': {}}})"
        assert rows(search.format("id IN (FROM few) AND same(id, $i)", 1)) == [{"id": 1}]
        assert rows(search.format("text = $i", "$$x'' OR ''a''=''a$$")) == []
        shell("CREATE MACRO makes() AS (SELECT count(*) FROM jammi_generate('t', 'text', 'id'))")
        done = shell("SELECT id FROM jammi_search('t', 'duck', filter := 'makes() > 0')")
        assert "uses macro makes, which calls jammi_generate, and a filter may change nothing" in done.stderr
        done = shell(search.format("true", 1))
        assert "the parameter 'i' was given, and the filter does not name $i" in done.stderr
        assert rows("SELECT count(*) AS n FROM jammi_tables()") == [{"n": 1}]

    def test_every_kind_of_text(self, folder):
        planes = "'\U0001f986 é 中 \U00024b62 \U000e0041'"
        texts = f"SELECT unnest([NULL, '', ' ', 'duck', repeat('water ', 200000), {planes}, '''\"\\']) AS text"
        (counted,) = rows(f"SELECT count(*) AS n, count(embed(text)) AS vectors FROM ({texts})")
        assert counted == {"n": 7, "vectors": 4}

    def test_a_hundred_thousand_rows_on_many_threads(self, folder):
        texts = "SELECT embed('word ' || (i % 50)) AS e FROM range(100000) r(i)"
        done = shell(f"SET threads = 8; SELECT count(e) AS n, count(DISTINCT e) AS d FROM ({texts})", "-json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == [{"n": 100000, "d": 50}]

    def test_names_with_quotes(self, folder):
        strange = '"x\'; DROP TABLE t; --"'
        shell(f'CREATE TABLE {strange} AS SELECT 1 AS "a""b", \'a duck\' AS "it\'s"')
        quoted = strange.replace("'", "''")
        (built,) = rows(f"FROM jammi_generate('{quoted}', 'it''s', 'a\"b')")
        assert built["row_count"] == 1
        assert rows(f"SELECT _row_id FROM jammi_search('{quoted}', 'duck', 1)") == [{"_row_id": "1"}]
        assert len(rows("FROM t")) == 3


class TestMistakes:
    @pytest.mark.parametrize(
        ("sql", "message"),
        [
            ("FROM jammi_generate('t', 'txt', 'id')", "InputError: no column 'txt' in 't'; did you mean 'text'?"),
            ("FROM jammi_search('t', 'x')", "NotFoundError: no embedding table for 't'"),
            ("SELECT embed('x', 'no/model')", "ModelError: no model 'no/model'"),
        ],
    )  # fmt: skip
    def test_they_are_answered_as_in_python(self, folder, sql, message):
        done = shell(sql)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr

    def test_a_wrong_configuration(self, folder):
        done = shell("SELECT embed('x')", JAMMI_INFERENCE__BATCH_SIZE="0")
        assert "ConfigError: JAMMI_INFERENCE__BATCH_SIZE is '0'; it must be a whole number" in done.stderr

    def test_a_database_that_another_process_holds(self, folder):
        con = duckdb.connect("held.db", config=OLD_STORAGE if duckdb.__version__ >= "2" else {})
        try:
            done = shell("SELECT 1", database="held.db")
        finally:
            con.close()
        assert (done.returncode, "Could not set lock on file" in done.stderr) == (1, True)


class TestWorker:
    def test_killed_between_two_statements(self, folder):
        session = Session()
        assert session.ask("SELECT len(embed('x'))") == "32"
        first = session.worker
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        assert session.ask("SELECT len(embed('y'))") == "32"
        assert session.worker != first
        assert session.end() == (0, "", "")

    def test_killed_in_a_statement(self, folder):
        session = Session()
        assert session.ask("SELECT len(embed('x'))") == "32"
        session.tell("SELECT count(embed(repeat('water ', 10) || i)) FROM range(2000000) r(i)")
        time.sleep(1)
        os.kill(session.worker, signal.SIGKILL)
        assert session.ask("SELECT len(embed('y'))") == "32"
        code, out, err = session.end()
        assert (code, out) == (1, "")
        (line,) = [line for line in err.splitlines() if line]
        assert line.endswith("the jammi worker was killed by signal 9; the next call starts another")

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_it_ends_with_the_shell(self, folder, how):
        session = Session()
        assert session.ask("SELECT len(embed('x'))") == "32"
        worker = session.worker
        session.tell("SELECT count(embed(repeat('water ', 10) || i)) FROM range(2000000) r(i)")
        time.sleep(0.5)
        session.process.send_signal(how)
        session.end()
        assert gone(worker)

    def test_it_imports_no_pandas(self, folder):
        pytest.importorskip("pandas")
        session = Session()
        assert session.ask("SELECT status FROM jammi_generate('t', 'text', 'id')") == "ready"
        assert session.ask("SELECT id FROM jammi_search('t', 'duck', 1)") == "1"
        mapped = Path(f"/proc/{session.worker}/maps").read_text()
        assert ("/pyarrow/" in mapped, "/pandas/" in mapped) == (True, False)
        assert session.end() == (0, "", "")

    def test_one_that_cannot_start(self, folder):
        assert rows("SELECT 1 AS a") == [{"a": 1}]
        (announcement,) = folder.glob("cache/jammi_duck/shell/*/announcement")
        # A name of the same length, as it stands behind its length.
        announcement.write_bytes(announcement.read_bytes().replace(b"/bin/python", b"/bin/nothin"))
        done = shell("SELECT embed('x')")
        assert re.search(r"cannot start the jammi worker '.*/bin/nothin.*': No such file or directory", done.stderr)

    def test_an_announcement_that_is_none(self, folder):
        rows("SELECT 1 AS a")
        (announcement,) = folder.glob("cache/jammi_duck/shell/*/announcement")
        for content in (b"", b"jammi 1\n", announcement.read_bytes()[:-1], announcement.read_bytes() + b"x"):
            announcement.write_bytes(content)
            done = shell("SELECT 1 AS a")
            assert "the announcement of the extension jammi is of another version" in done.stderr

    def test_an_error_of_the_system_is_told_and_is_not_the_workers_end(self, folder):
        (folder / "broken").mkdir()
        (folder / "broken" / "torch.py").write_text("raise OSError('libtorch cannot be mapped')\n")
        done = shell("SELECT embed('x')", PYTHONPATH=str(folder / "broken"), JAMMI_INFERENCE__ENGINE="torch")
        assert (done.returncode, "OSError: libtorch cannot be mapped" in done.stderr) == (1, True), done.stderr
        assert "Traceback" not in done.stderr

    def test_the_reason_shows_where_torch_is_missing(self, folder):
        (folder / "broken").mkdir()
        (folder / "broken" / "torch.py").write_text("raise ImportError('no torch here')\n")
        done = shell("SELECT embed('x')", PYTHONPATH=str(folder / "broken"), JAMMI_INFERENCE__ENGINE="torch")
        assert (done.returncode, "ImportError: no torch here" in done.stderr) == (1, True)


class TestCtrlC:
    def at_work(self, folder):
        terminal = Terminal("jammi-duck shell my.db -dark-mode", folder)
        terminal.read_until(b"D ")
        terminal.write(b"SELECT len(embed('x')) + 1000 AS ready;\r")
        terminal.read_until(b"1032")
        terminal.write(b"SELECT count(embed(repeat('water ', 10) || i)) FROM range(2000000) r(i);\r")
        time.sleep(1)
        return terminal

    def interrupted(self, terminal):
        began, shown = time.monotonic(), len(terminal.raw)
        terminal.write(b"\x03")
        terminal.read_until(b"^C")
        while b"D " not in terminal.raw[shown:].rpartition(b"^C")[2]:
            terminal.read_more()
        return time.monotonic() - began

    def test_at_the_prompt(self, folder):
        terminal = self.at_work(folder)
        self.interrupted(terminal)
        terminal.write(b"SELECT len(embed('again')) + 2000 AS again;\r")
        terminal.read_until(b"2032")
        terminal.write(b".exit 0\r")
        assert terminal.finish()[0] == 1  # As without jammi, after a statement that was interrupted.

    def test_while_the_worker_starts(self, folder):
        (folder / "slow").mkdir()
        starting = folder / "starting"
        (folder / "slow" / "sitecustomize.py").write_text(
            "import pathlib, sys, time\n"
            "if 'jammi_duck.doors.worker' in sys.orig_argv:\n"
            f"    pathlib.Path({str(starting)!r}).touch()\n"
            "    time.sleep(3)\n"
        )
        terminal = Terminal("jammi-duck shell my.db -dark-mode", folder, PYTHONPATH=str(folder / "slow"))
        terminal.read_until(b"D ")
        terminal.write(b"SELECT len(embed('x')) + 1000 AS ready;\r")
        end = time.monotonic() + 30
        while not starting.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        self.interrupted(terminal)
        terminal.write(b"SELECT len(embed('again')) + 2000 AS again;\r")
        terminal.read_until(b"2032")
        assert b"KeyboardInterrupt" not in terminal.raw
        terminal.write(b".exit 0\r")
        assert terminal.finish()[0] == 1  # As without jammi, after a statement that was interrupted.

    def test_where_the_worker_hangs(self, folder):
        terminal = self.at_work(folder)
        (worker,) = children(terminal.process.pid)
        os.kill(worker, signal.SIGSTOP)
        self.interrupted(terminal)
        terminal.write(b"SELECT len(embed('again')) + 2000 AS again;\r")
        terminal.read_until(b"2032")
        terminal.write(b".exit 0\r")
        assert terminal.finish()[0] == 1  # As without jammi, after a statement that was interrupted.
        assert gone(worker)

    def test_in_a_pipe(self, folder):
        session = Session()
        assert session.ask("SELECT len(embed('x'))") == "32"
        worker = session.worker
        session.tell("SELECT count(embed(repeat('water ', 10) || i)) FROM range(2000000) r(i)")
        time.sleep(1)
        session.process.send_signal(signal.SIGINT)
        # As without jammi: what does not stand at a prompt ends.
        assert session.end() == (1, "", "")
        assert gone(worker)


class TestSeveral:
    def test_shells_on_several_files(self, folder):
        sessions = [Session(f"{name}.db") for name in "abc"]
        assert [session.ask("SELECT len(embed('x'))") for session in sessions] == ["32"] * 3
        assert len({session.worker for session in sessions}) == 3
        assert [session.end()[0] for session in sessions] == [0] * 3

    def test_another_database_is_opened(self, folder):
        session = Session()
        assert session.ask("SELECT len(embed('x'))") == "32"
        session.tell(".open other.db")
        assert session.ask("SELECT 5") == "5"
        # The first file is let go, so that another process can have it.
        end = time.monotonic() + 30
        while True:
            try:
                duckdb.connect("my.db").close()
                break
            except duckdb.IOException:
                assert time.monotonic() < end
                time.sleep(0.1)
        session.tell("SELECT len(embed('x'))")
        session.tell(".read /dev/fd/9")
        assert session.ask("SELECT len(embed('x'))") == "32"
        session.tell(".open my.db")
        session.tell(".read /dev/fd/9")
        assert session.ask("SELECT len(embed('x'))") == "32"
        code, out, err = session.end()
        assert (code, out, err.count("Scalar Function with name embed does not exist!")) == (1, "", 1)

    def test_another_database_is_attached(self, folder):
        session = Session()
        session.tell("ATTACH 'other.db' AS other")
        session.tell("USE other")
        session.tell("CREATE TABLE own AS SELECT 7 AS id, 'a duck' AS text")
        assert session.ask("SELECT status FROM jammi_generate('own', 'text', 'id')") == "ready"
        assert session.ask("SELECT id FROM jammi_search('own', 'duck')") == "7"
        assert session.end() == (0, "", "")


class TestSources:
    def test_temp_tables_and_files_of_two_directories(self, folder):
        (folder / "sub").mkdir()
        (folder / "c.csv").write_text("id,text\n1,an owl\n")
        (folder / "sub" / "c.csv").write_text("id,text\n1,a cat\n")
        session = Session()
        session.tell("CREATE TEMP TABLE t AS SELECT 1 AS id, 'temporary' AS text")
        assert session.ask("SELECT source FROM jammi_generate('my.main.t', 'text', 'id')") == "t"
        assert session.ask("SELECT source FROM jammi_generate('temp.t', 'text', 'id')") == "temp.t"
        assert session.ask("SELECT text FROM jammi_search('temp.t', 'duck', 1)") == "temporary"
        assert session.ask("SELECT text FROM jammi_search('my.main.t', 'duck', 1)") == "the duck in water"
        assert session.ask("SELECT source FROM jammi_generate('c.csv', 'text', 'id')") == "c.csv"
        session.tell(".cd sub")
        assert session.ask("SELECT text FROM jammi_search('../c.csv', 'owl', 1)") == "an owl"
        session.tell("SELECT text FROM jammi_search('c.csv', 'owl', 1)")
        session.tell("SELECT text FROM jammi_search('t', 'duck', 1)")
        _, out, err = session.end()
        assert out == ""
        assert "no embedding table for 'c.csv'" in err
        assert 'write "my"."main"."t" for the table, temp."t" for a TEMP table' in err
