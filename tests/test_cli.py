"""The command line as a whole: usage, help, exit codes, errors, progress and log, on a terminal and in a pipe."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jammi_duck import StorageError
from jammi_duck.doors.cli import main
from tools.pages import commands
from tools.program import BIN, Terminal, environment, in_pipe

ROOT = Path(__file__).resolve().parents[1]


COMMANDS = [name for name, _ in commands() if name]


def call(capsys, line):
    """The exit code of a command line, and what was written to standard output and standard error."""
    try:
        code = main(shlex.split(line))
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_model):
    """A working directory with a file of five rows, and the small model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tiny_model))
    rows = [
        "id,name,text",
        "1,cat,a small cat",
        "2,dog,a loud dog",
        "3,duck,the duck in water",
        "4,none,",
        "5,owl,an owl",
    ]
    (tmp_path / "animals.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


class TestUsage:
    @pytest.mark.parametrize(
        "line",
        [
            "nonsense", "sources", "sources add", "sources add x", "generate", "generate t --key id",
            "generate t --columns a, --key id", "search t", "search t q -k many", "drop", "models", "models desc",
            "generate t --columns '' --key id", "generate t --columns 'a\nb' --key id", "search t q -k 99999999999",
            "models pull", "models list x", "config --nonsense", "sources add x --path p --format xls",
            "status", "sync t --key id", "compact a b", "import a b id v", "import a b id --model m",
            "import a b id v --model m --columns a,", "tables --wait 30", "tables --wait '5 moons'",
            "tables --wait 999999999w",
        ],
    )  # fmt: skip
    def test_a_wrong_call(self, capsys, line):
        code, out, err = call(capsys, line)
        assert (code, out) == (2, "")
        assert err.startswith("usage: jammi-duck")

    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_has_an_example_and_fits_a_terminal(self, capsys, command, monkeypatch):
        monkeypatch.setenv("COLUMNS", "90")
        code, out, err = call(capsys, f"{command} --help")
        assert (code, err) == (0, "")
        assert f"\n  jammi-duck {command}" in out
        assert max(map(len, out.splitlines())) <= 90

    def test_the_first_screen(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "90")
        code, out, _ = call(capsys, "--help")
        assert code == 0
        assert len(out.splitlines()) <= 40
        assert max(map(len, out.splitlines())) <= 90
        more = set(out.partition("More, with --help: ")[2].partition(". Exit codes")[0].split(", "))
        assert more < set(COMMANDS)
        for command in set(COMMANDS) - more - {"search-column"}:
            assert f"    {command.split()[0]} " in out

    @pytest.mark.parametrize(
        "line", ["embed postgresql://me:hush@host/db", "size -u x -t t -o v postgresql://me:hush@h"]
    )
    def test_a_wrong_call_shows_no_password(self, capsys, line):
        code, out, err = call(capsys, line)
        assert (code, out) == (2, "")
        assert "hush" not in err

    def test_the_version(self, capsys):
        from jammi_duck import __version__

        assert call(capsys, "--version") == (0, f"jammi-duck {__version__}\n", "")


class TestExitCodes:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("generate animals.csv --columns txt --key id", "no column 'txt' in 'animals.csv'; did you mean 'text'?"),
            (
                "generate animals --columns text --key id",
                "there is no table, view or file 'animals' here, and no database; `jammi-duck sources list`",
            ),
            ("generate animals.csv --columns text --key id --db no.duckdb", "there is no database 'no.duckdb'"),
            (
                "sources list --db no.duckdb",
                "there is no database 'no.duckdb'; `jammi-duck sources add NAME --path FILE --db no.duckdb` makes one",
            ),
            ("search animals.csv owl", "no embedding table for 'animals.csv'"),
            ("drop nothing", "no embedding table 'nothing'; none is ready"),
            ("sources add x --path animals.xls", "cannot tell from its ending what 'animals.xls' is; say --format"),
            (
                "sources add x --path https://host/x.csv?X-Amz-Signature=hush",
                "'https://host/x.csv' has a user or a signature",
            ),
            ("sources add 'a b;' --path animals.csv --db animals.csv", "'animals.csv' is not a DuckDB database"),
            ("tables --db animals.csv", "'animals.csv' is not a DuckDB database; name another with --db"),
            (
                "sources add x --path animals.csv --db :memory:",
                "a view in memory would be gone at once; name a database",
            ),
            ("sources add '' --path animals.csv", "'' names no table, view or file"),
            ("sources add x --path s3://KEY:hush@bucket/x.csv", "'s3://bucket/x.csv' has a user or a signature in it"),
        ],
    )
    def test_a_wrong_call_is_2_and_leaves_nothing(self, folder, capsys, line, message):
        code, out, err = call(capsys, line)
        assert (code, out) == (2, "")
        assert err.startswith(f"jammi-duck: {message}")
        assert "hush" not in err
        assert [path.name for path in folder.iterdir() if path.name != "artifacts"] == ["animals.csv"]
        assert not list(folder.glob("artifacts/jammi_db/*"))

    @pytest.mark.parametrize("written", ["~/new.duckdb", "file:{home}/new.duckdb"])
    def test_a_database_in_the_home_directory(self, folder, capsys, monkeypatch, written):
        monkeypatch.setenv("HOME", str(folder))
        database = shlex.quote(written.format(home=folder))
        assert call(capsys, f"sources add x --path animals.csv --db {database}")[0] == 0
        assert (folder / "new.duckdb").is_file()
        code, out, _ = call(capsys, f"sources list --db {database} --json")
        assert (code, [row["source"] for row in json.loads(out)]) == (0, ["x"])
        assert call(capsys, f"tables --db {database}")[0] == 0

    def test_a_wrong_configuration_is_2(self, folder, capsys, monkeypatch):
        monkeypatch.setenv("JAMMI_INFERENCE__MODELS", "x")
        code, out, err = call(capsys, "tables")
        assert (code, out) == (2, "")
        assert err.startswith(
            "jammi-duck: the environment variable JAMMI_INFERENCE__MODELS sets no option; did you mean"
        )

    @pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
    def test_the_demo(self, folder, capsys, monkeypatch):
        found = [(1, "module", "a.b", "Talk to a web server."), (2, "function", "c", "Compress a file.")]
        monkeypatch.setattr("jammi_duck.doors.demo.docstrings", lambda _: iter(found))
        code, out, err = call(capsys, "demo --folder inner/demo")
        assert code == 0
        assert "pydoc: 2 docstrings" in out
        assert (folder / "inner" / "demo" / "pydoc.duckdb").is_file()

    def test_a_failure_is_1(self, folder, capsys):
        (folder / "artifacts").write_text("a file is in the way")
        code, out, err = call(capsys, "generate animals.csv --columns text --key id")
        assert (code, out) == (1, "")
        assert err.startswith(f"jammi-duck: cannot list '{folder}/artifacts/jammi_db'")

    def test_rows_that_could_not_be_embedded_are_3(self, folder, capsys, monkeypatch):
        from tests.fakes import FakeEncoders

        monkeypatch.setattr("jammi_duck.doors.installation.loaded_encoders", lambda _: FakeEncoders())
        monkeypatch.setenv("JAMMI_INFERENCE__MODEL", "fake/small")
        (folder / "animals.csv").write_text("id,text\n1,a cat\n2,unencodable\n")
        code, out, err = call(capsys, "generate animals.csv --columns text --key id")
        assert code == 3
        assert re.search(r"^failed_count +1$", out, re.MULTILINE)

    def test_out_of_what_is_expected_is_1_without_a_secret(self, folder, capsys, monkeypatch):
        def fails(*_, **__):
            raise StorageError("no answer from https://me:hush@host/x?sig=hush for hush-hush")

        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS__SECRET", "hush-hush")
        monkeypatch.setattr("jammi_duck.doors.cli.connection.equip_as", fails)
        code, out, err = call(capsys, "tables")
        assert (code, out, err) == (1, "", "jammi-duck: no answer from https://***@host/x?*** for ***\n")


class TestProgram:
    """The installed script."""

    def test_alone_it_says_what_it_can_do(self, folder):
        alone, asked = in_pipe("jammi-duck", folder), in_pipe("jammi-duck --help", folder)
        assert (alone.returncode, alone.stderr) == (0, "")
        assert alone.stdout == asked.stdout
        assert "jammi-duck demo" in alone.stdout

    def test_in_a_pipe(self, folder):
        done = in_pipe("jammi-duck generate animals.csv --columns name,text --key id", folder)
        assert done.returncode == 0
        facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        assert (facts["source"], facts["row_count"], facts["skipped_count"]) == ("animals.csv", "5", "0")
        lines = [re.sub(r"\d+\.\d s", "0.1 s", line) for line in done.stderr.splitlines()]
        name = facts["embedding_table"]
        assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", "", line) for line in lines] == [
            "INFO embedding animals.csv: 5 rows in 0.1 s",
            "INFO indexing animals.csv: 5 rows in 0.1 s",
            f"INFO built {name}: 5 rows in 0.1 s; 0 skipped, 0 failed, 0 truncated",
        ]
        found = in_pipe("jammi-duck search animals.csv duck -k 2 --json", folder)
        assert (found.returncode, found.stderr) == (0, "")
        first, second = json.loads(found.stdout)
        assert (first["_rank"], second["_rank"], set(first)) == (
            1,
            2,
            {"id", "name", "text", "_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25"},
        )

    def test_the_log_in_json(self, folder):
        env = {"JAMMI_LOGGING__FORMAT": "json"}
        done = in_pipe("jammi-duck generate animals.csv --columns text --key id", folder, **env)
        embedding, indexing, built = map(json.loads, done.stderr.splitlines())
        assert set(embedding) == {"time", "level", "message", "stage", "source", "rows", "seconds"}
        assert (embedding["stage"], embedding["rows"], embedding["level"]) == ("embedding", 4, "INFO")
        assert (indexing["stage"], indexing["rows"]) == ("indexing", 4)
        assert (built["status"], built["row_count"], built["skipped_count"]) == ("ready", 4, 1)
        failed = in_pipe("jammi-duck generate animals.csv --columns text --key nope", folder, **env)
        (error,) = map(json.loads, failed.stderr.splitlines())
        assert (failed.returncode, error["level"], error["exit_code"]) == (2, "ERROR", 2)
        assert error["message"].startswith("no column 'nope' in 'animals.csv'")

    def test_the_level_of_the_log(self, folder):
        env = {"JAMMI_LOGGING__LEVEL": "warning"}
        done = in_pipe("jammi-duck generate animals.csv --columns text --key id", folder, **env)
        assert (done.returncode, done.stderr) == (0, "")

    def test_on_a_terminal(self, folder):
        terminal = Terminal("jammi-duck generate animals.csv --columns text --key id", folder)
        code, lines = terminal.finish()
        assert code == 0
        assert b"embedding animals.csv:" in terminal.raw
        assert b"INFO" not in terminal.raw
        # The bar is gone at the end.
        assert lines[0].startswith("embedding_table  animals.csv__embedding__")
        assert len(lines) == 11
        terminal = Terminal("jammi-duck search animals.csv 'the duck' -k 2 --exact", folder, columns=70)
        code, lines = terminal.finish()
        assert code == 0
        assert max(map(len, lines)) <= 70
        assert "_score" in lines[1]
        assert any("the duck in water" in line for line in lines)

    def test_a_warning_is_one_line(self, folder):
        assert in_pipe("jammi-duck generate animals.csv --columns text --key id", folder).returncode == 0
        (index,) = folder.glob("artifacts/jammi_db/*.usearch")
        index.write_bytes(b"damaged")
        done = in_pipe("jammi-duck search animals.csv duck", folder)
        assert done.returncode == 0
        (line,) = done.stderr.splitlines()
        assert re.match(r"\S+Z WARNING the search index of .* jammi_recover\(\)", line), line
        code, lines = Terminal("jammi-duck search animals.csv duck", folder).finish()
        assert code == 0
        assert lines[0].startswith("jammi-duck: the search index of ")
        repaired = in_pipe("jammi-duck recover", folder)
        assert (repaired.returncode, "rebuilt" in repaired.stdout or "index" in repaired.stdout) == (0, True)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("seconds", [0, 0.5, 2])
    def test_ctrl_c_in_a_build(self, folder, seconds):
        rows = "\n".join(f"{i},word {i} " + "and more words " * 20 for i in range(60000))
        (folder / "many.csv").write_text("id,text\n" + rows)
        terminal = Terminal("jammi-duck generate many.csv --columns text --key id", folder)
        terminal.read_until(b"/60.0k")
        time.sleep(seconds)
        terminal.press_ctrl_c()
        code, lines = terminal.finish()
        assert code == 130
        assert not any("Traceback" in line or "terminate" in line for line in lines)
        listed = in_pipe("jammi-duck tables --json", folder)
        assert json.loads(listed.stdout) == []

    def test_a_reader_that_has_seen_enough(self, folder):
        in_pipe("jammi-duck generate animals.csv --columns text --key id", folder)
        line = f"'{BIN}/jammi-duck' search animals.csv duck --json | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.stdout in ("1\n", "0\n")
        assert done.stderr == ""

    def test_closed_streams(self, folder):
        for line in ("jammi-duck config >&-", "jammi-duck tables >&- 2>&- <&-"):
            done = subprocess.run(
                ["bash", "-c", line], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
            )
            assert (done.returncode, done.stderr) == (0, "")

    def test_output_that_cannot_be_encoded(self, folder):
        (folder / "animals.csv").write_text("id,text\n1,ein Kätzchen\n")
        env = {"PYTHONIOENCODING": "ascii"}
        assert in_pipe("jammi-duck generate animals.csv --columns text --key id", folder, **env).returncode == 0
        done = in_pipe("jammi-duck search animals.csv x --json", folder, **env)
        assert (done.returncode, json.loads(done.stdout)[0]["text"]) == (0, "ein Kätzchen")
        done = in_pipe("jammi-duck search animals.csv x", folder, **env)
        assert (done.returncode, "ein K\\xe4tzchen" in done.stdout) == (0, True)
        done = subprocess.run(
            [f"{BIN}/jammi-duck", "drop", b"a\xff"], env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "error: an argument is not UTF-8" in done.stderr

    def test_as_a_module(self, folder):
        done = in_pipe(f"'{sys.executable}' -m jammi_duck.doors.cli models desc /no/such/model", folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("jammi-duck: no model at '/no/such/model'")

    def test_help_imports_no_torch(self, folder):
        code = "import sys, jammi_duck.doors.cli; print({'torch', 'transformers', 'dbt', 's3fs'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
        assert done.stdout == "set()\n"
