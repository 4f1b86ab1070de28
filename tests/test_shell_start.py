"""How the stock DuckDB shell is started: its arguments, the alias, and what keeps it from starting."""

import re
import shlex
import subprocess

import duckdb
import pytest

import jammi_duck
from jammi_duck.doors.database_file import refusal
from jammi_duck.version import __version__
from tests.stock_shell import Session, folder, gone, needs_extension, rows, shell
from tools.program import BIN, Terminal, environment, in_pipe

__all__ = ["folder"]

pytestmark = [needs_extension]


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

    def test_on_a_terminal_it_says_what_to_type_after_open(self, folder):
        terminal = Terminal("jammi-duck shell my.db -dark-mode", folder)
        terminal.read_until(b" D ")
        said = terminal.raw.decode()
        assert (
            said.count("jammi-duck: the functions are here. After .open FILE, type .read /dev/fd/9 to have them") == 1
        )
        typed = re.search(r"type (\.read \S+) to have", said)[1]
        terminal.write(f".open other.db\n{typed}\nSELECT len(embed('x')) + 1000 AS n;\n.quit\n".encode())
        code, _ = terminal.finish()
        assert (code, b"1032" in terminal.raw, b"does not exist" in terminal.raw) == (0, True, False)
        terminal = Terminal("jammi-duck shell my.db -dark-mode -csv -noheader -c 'SELECT 5'", folder)
        assert terminal.finish() == (0, ["5"])

    def test_read_only(self, folder):
        rows("FROM jammi_generate('t', 'text', 'id')")
        assert len(rows("FROM jammi_search('t', 'duck', 2)", "-readonly")) == 2

    def test_in_memory(self, folder):
        assert len(rows("SELECT embed('x') AS e", database=":memory:")[0]["e"]) == 32

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
        from jammi_duck.doors.cli import shell as command

        monkeypatch.setattr(command, "_EXTENSION", folder / "nowhere")
        assert command.become_shell(["my.db"]) == 2
        assert "no C compiler was found when jammi-duck was installed; install one" in capsys.readouterr().err

    def test_no_duckdb(self, folder, monkeypatch, capsys):
        from jammi_duck.doors.cli import shell as command

        monkeypatch.setattr(command, "_carried", lambda: None)
        monkeypatch.setenv("PATH", str(folder))
        assert command.become_shell(["my.db"]) == 2
        assert "there is no duckdb on the PATH; pip install duckdb-cli" in capsys.readouterr().err

    def test_every_program_is_asked_for_its_version_once(self, folder):
        program = folder / "bin" / "duckdb"
        program.parent.mkdir()

        def started(version):
            program.write_text(f"#!/bin/sh\necho $* >> {folder}/calls\necho {version}\n")
            program.chmod(0o755)
            done = in_pipe("jammi-duck shell", folder, PATH=f"{program.parent}:{BIN}:/usr/bin:/bin")
            calls = (folder / "calls").read_text().splitlines()
            (folder / "calls").unlink()
            return done.returncode, "--version" in calls, len(calls)

        assert started("v1.4.0") == (0, True, 2)
        assert started("v1.4.0") == (0, True, 2), "a file that was written anew"
        done = in_pipe("jammi-duck shell", folder, PATH=f"{program.parent}:{BIN}:/usr/bin:/bin")
        assert (done.returncode, len((folder / "calls").read_text().splitlines())) == (0, 1)
        assert started("v1.30.0")[0] == 0
        assert started("v1.3.0") == (2, True, 1)


class TestAlias:
    def test_it_does_the_same(self, folder):
        printed = in_pipe("jammi-duck shell --print", folder)
        assert re.fullmatch(r"alias duckdb='.*'\n", printed.stdout)
        line = f"shopt -s expand_aliases\n{printed.stdout}duckdb my.db -csv -noheader -c \"SELECT len(embed('x'))\""
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment(), cwd=folder)
        assert (done.stdout, done.stderr) == ("32\n", "")

    def test_it_names_nothing_that_an_upgrade_replaces(self, folder):
        printed = in_pipe("jammi-duck shell --print", folder)
        assert __version__ not in printed.stdout
        assert str(folder) not in printed.stdout
        assert "duckdb_cli" not in printed.stdout


class TestFolder:
    """The working directory is the user's: Python finds no modules there."""

    def test_its_files_are_no_modules(self, folder):
        for name in ("re", "numpy", "jammi_duck"):
            (folder / f"{name}.py").write_text("raise SystemExit('imported by mistake')\n")
        assert rows("SELECT len(embed('x')) AS n") == [{"n": 32}]
        printed = in_pipe("jammi-duck shell --print", folder).stdout.strip()
        (command,) = shlex.split(printed.removeprefix("alias duckdb="))
        done = in_pipe(f"{command} :memory: -csv -noheader -c 'SELECT 1'", folder)
        assert (done.stdout, done.stderr) == ("1\n", "")


class TestFormats:
    @pytest.mark.skipif(duckdb.__version__ < "2", reason="this DuckDB writes what the shell reads")
    def test_a_newer_one_is_refused_with_advice_that_works(self, folder):
        with duckdb.connect("it's new.db") as con:
            con.execute("CREATE TABLE t AS SELECT 1 AS a")
        done = shell("FROM t", database="it's new.db")
        assert (done.returncode, done.stdout) == (1, "")
        assert "created with a newer version of DuckDB" in done.stderr
        assert "jammi-duck: 'it's new.db' is in a newer format than" in done.stderr
        advice = re.search(r"ATTACH .*", done.stderr, re.DOTALL)[0]
        with duckdb.connect() as con:
            con.execute(advice)
        assert rows("FROM t", database="it's new.db.1.4") == [{"a": 1}]

    def test_one_that_python_made_is_read(self, folder):
        with jammi_duck.connect("python.db") as con:
            con.execute("CREATE TABLE t AS SELECT 1 AS a")
        assert rows("FROM t", database="python.db") == [{"a": 1}]

    def test_the_program_is_asked_where_it_might_be_too_old(self, tmp_path):
        program = tmp_path / "duckdb"
        asked = tmp_path / "asked"
        program.write_text(f"#!/bin/sh\ntouch {asked}\ncat {tmp_path}/says >&2\n")
        program.chmod(0o755)
        database = tmp_path / "any.db"

        def refused(number, says):
            asked.unlink(missing_ok=True)
            (tmp_path / "says").write_text(says)
            database.write_bytes(bytes(8) + b"DUCK" + number.to_bytes(8, "little"))
            return refusal(str(program), ["-c", "FROM t", str(tmp_path), "\0", "x" * 10_000, str(database)])

        too_new = "Trying to read a database file with version number 99, but we can only read"
        assert refused(67, too_new) is None
        assert not asked.exists()
        assert refused(68, "Could not set lock") is None
        assert asked.exists()
        told = refused(68, too_new)
        assert told is not None
        assert told.startswith(too_new)
        assert f"'{database}' is in a newer format than '{program}' reads" in told

    def test_what_duckdb_itself_refuses_is_left_to_it(self, folder):
        with duckdb.connect("held.db"):
            done = shell("SELECT 1", database="held.db")
        assert (done.returncode, "Could not set lock on file" in done.stderr) == (1, True)
        for name, content in (("empty", b""), ("short", b"12345678DUCK"), ("other", b"a,b\n" * 10)):
            (folder / name).write_bytes(content)
            assert "jammi-duck:" not in shell("SELECT 1", database=name).stderr
