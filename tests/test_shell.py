"""The stock DuckDB shell with jammi in it: the real program, in a pipe and on a terminal."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import duckdb
import pytest

import jammi_duck
from tools.program import BIN, Terminal, environment, in_pipe

pytestmark = [
    pytest.mark.skipif(
        not (Path(jammi_duck.__file__).parent / "udfs/native/jammi.duckdb_extension").is_file(),
        reason="the extension was not built: no C compiler",
    )
]
OLD_STORAGE = {"storage_compatibility_version": "v1.0.0"}


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_model):
    """A working directory with a database that every shell can read, and the small model as the default."""
    pytest.importorskip("duckdb_cli")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tiny_model))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    shell("CREATE TABLE t AS FROM (VALUES (1, 'the duck in water'), (2, 'a loud dog'), (3, NULL)) t(id, text)")
    return tmp_path


def shell(sql, *words, database="my.db", **more):
    """Run the shell with these words and a statement; returns the finished process."""
    return in_pipe(shlex.join(["jammi-duck", "shell", database, *words, "-c", sql]), Path.cwd(), **more)


def rows(sql, *words, **more):
    """What a statement gives, as objects."""
    done = shell(sql, "-json", *words, **more)
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout or "[]")


class Session:
    """A shell that reads statements from a pipe, one at a time."""

    def __init__(self, database="my.db"):
        self.process = subprocess.Popen(
            [f"{BIN}/jammi-duck", "shell", database, "-csv", "-noheader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, sql):
        """The first line that a statement gives."""
        self.tell(sql)
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, sql):
        self.process.stdin.write(f"{sql};\n" if not sql.startswith(".") else f"{sql}\n")
        self.process.stdin.flush()

    @property
    def worker(self):
        """The worker's process id."""
        (found,) = children(self.process.pid)
        return found

    def end(self):
        """The exit code, the rest of standard output, and standard error."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def children(parent):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(status[1]) == parent and status[0] != "Z":
                found.append(int(entry.name))
    return found


def gone(process, seconds=10):
    """Whether a process ends within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


class TestUse:
    def test_the_same_as_in_python(self, folder):
        (built,) = rows("FROM jammi_generate('t', 'text', 'id')")
        assert (built["status"], built["row_count"], built["skipped_count"]) == ("ready", 2, 1)
        query = "SELECT id, text, _rank, _similarity FROM jammi_search('t', 'duck', 2)"
        ours = rows(query)
        con = duckdb.connect()
        jammi_duck.install(con)
        con.execute(
            "CREATE TABLE t AS FROM (VALUES (1, 'the duck in water'), (2, 'a loud dog'), (3, NULL)) t(id, text)"
        )
        theirs = [
            dict(zip(("id", "text", "_rank", "_similarity"), row, strict=True)) for row in con.sql(query).fetchall()
        ]
        assert [{**row, "_similarity": pytest.approx(row["_similarity"], abs=1e-6)} for row in ours] == theirs
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


class TestArguments:
    def test_they_pass_through(self, folder):
        assert shell("SELECT 1 AS a", "-csv").stdout == "a\n1\n"
        (folder / "q.sql").write_text("SELECT 2 AS b;\n")
        assert in_pipe("jammi-duck shell -csv my.db -f q.sql", folder).stdout == "b\n2\n"
        done = subprocess.run(
            [f"{BIN}/jammi-duck", "shell", "-noheader", "-csv"], input="SELECT 3;\n", capture_output=True, text=True,
            env=environment(), cwd=folder,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
        assert shell("SELECT nothing").returncode == 1

    def test_the_users_own_file_is_read(self, folder):
        (folder / ".duckdbrc").write_text(".mode csv\n.headers off\nCREATE TEMP MACRO own() AS 42;\n")
        done = shell("SELECT own(), len(embed('x'))")
        assert done.stdout == "42,32\n"

    def test_read_only(self, folder):
        rows("FROM jammi_generate('t', 'text', 'id')")
        assert len(rows("FROM jammi_search('t', 'duck', 2)", "-readonly")) == 2

    def test_in_memory(self, folder):
        assert len(rows("SELECT embed('x') AS e", database=":memory:")[0]["e"]) == 32

    def test_the_alias_does_the_same(self, folder):
        printed = in_pipe("jammi-duck shell --print", folder)
        assert re.fullmatch(r"alias duckdb='.*'\n", printed.stdout)
        line = f"shopt -s expand_aliases\n{printed.stdout}duckdb my.db -csv -noheader -c \"SELECT len(embed('x'))\""
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment(), cwd=folder)
        assert (done.stdout, done.stderr) == ("32\n", "")

    def test_no_wal_and_no_worker_is_left(self, folder):
        session = Session()
        assert session.ask("SELECT status FROM jammi_generate('t', 'text', 'id')") == "ready"
        worker = session.worker
        assert session.end() == (0, "", "")
        assert gone(worker)
        assert not (folder / "my.db.wal").exists()

    def test_what_cannot_start(self, folder):
        (folder / "bin").mkdir()
        old = folder / "bin" / "duckdb"
        old.write_text("#!/bin/sh\necho v1.3.2 0123456\n")
        old.chmod(0o755)
        done = in_pipe("jammi-duck shell", folder, PATH=f"{folder}/bin:{BIN}:/usr/bin:/bin")
        assert (done.returncode, done.stdout) == (2, "")
        assert "bin/duckdb' is DuckDB v1.3.2 0123456; 1.4 or later is needed" in done.stderr

    def test_an_installation_without_a_compiler(self, folder, monkeypatch, capsys):
        from jammi_duck.cli import shell as command

        monkeypatch.setattr(command, "_EXTENSION", folder / "nowhere")
        assert command.become_shell(["my.db"]) == 2
        assert "no C compiler was found when jammi-duck was installed; install one" in capsys.readouterr().err

    def test_no_duckdb(self, folder, monkeypatch, capsys):
        from jammi_duck.cli import shell as command

        monkeypatch.setattr(command, "_carried", lambda: None)
        monkeypatch.setenv("PATH", str(folder))
        assert command.become_shell(["my.db"]) == 2
        assert "there is no duckdb on the PATH; pip install duckdb-cli" in capsys.readouterr().err


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

    @pytest.mark.skipif(duckdb.__version__ < "2", reason="this DuckDB writes what the shell reads")
    def test_a_database_in_a_newer_format(self, folder):
        duckdb.connect("new.db").execute("CREATE TABLE t AS SELECT 1 AS a").close()
        done = shell("FROM t", database="new.db")
        assert (done.returncode, "created with a newer version of DuckDB" in done.stderr) == (1, True)


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
        done = shell("SELECT embed('x')", PYTHONPATH=str(folder / "broken"))
        assert (done.returncode, "OSError: libtorch cannot be mapped" in done.stderr) == (1, True), done.stderr
        assert "Traceback" not in done.stderr

    def test_the_reason_shows_where_torch_is_missing(self, folder):
        (folder / "broken").mkdir()
        (folder / "broken" / "torch.py").write_text("raise ImportError('no torch here')\n")
        done = shell("SELECT embed('x')", PYTHONPATH=str(folder / "broken"))
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
        (init,) = folder.glob("cache/jammi_duck/shell/*/init.sql")
        session.tell(f'.read "{init}"')
        assert session.ask("SELECT len(embed('x'))") == "32"
        assert session.end() == (0, "", "")
