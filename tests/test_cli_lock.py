"""A database file that another process has open: commands say which, and wait for it if they are asked to."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.program import environment, in_pipe

HOLDING = """
import duckdb, sys
con = duckdb.connect("held.duckdb", read_only=sys.argv[1] == "reader")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """`hold("writer")`: a process that has the database open until its standard input is closed."""
    (tmp_path / "t.csv").write_text("id,text\n1,a\n")
    assert in_pipe("jammi-duck sources add t --path t.csv --db held.duckdb", tmp_path).returncode == 0
    holders = []

    def start(how):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [sys.executable, "-c", HOLDING, how, "--password=hush"]
        holder = subprocess.Popen(words, cwd=tmp_path, env=environment(), **pipes)
        holders.append(holder)
        assert holder.stdout.readline() == b"held\n"
        return holder

    yield start
    for holder in holders:
        holder.communicate()


def started(folder, *words):
    """A command that goes on, and whose standard error can be read."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(["jammi-duck", *words, "--db", "held.duckdb"], cwd=folder, env=environment(), **pipes)


@pytest.mark.parametrize(
    ("holder", "command"),
    [("writer", "tables"), ("reader", "tables"), ("writer", "sources list"), ("writer", "search t duck")],
)
def test_the_error_names_the_process(tmp_path, hold, holder, command):
    process = hold(holder)
    done = in_pipe(f"jammi-duck {command} --db held.duckdb", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    program = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert done.stderr == (
        f"jammi-duck: the database '{tmp_path}/held.duckdb' is open in the process {process.pid} ({program}), and "
        "DuckDB lets one process write a file, or several read it; end that process, or wait for it: "
        "--wait '5 minutes'\n"
    )


def test_readers_share(tmp_path, hold):
    hold("reader")
    done = in_pipe("jammi-duck sources list --db held.duckdb", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "view" in done.stdout


@pytest.mark.parametrize("command", ["sources list", "tables", "sources add u --path t.csv"])
def test_a_command_waits_until_the_process_ends(tmp_path, hold, command):
    process = hold("writer")
    waiting = started(tmp_path, *command.split(), "--wait", "5 minutes")
    line = waiting.stderr.readline()
    assert f" WARNING the database '{tmp_path}/held.duckdb' is open in the process {process.pid} (" in line
    assert line.endswith("; waiting for it, up to 0:05:00\n")
    assert waiting.poll() is None
    process.communicate()
    out, err = waiting.communicate()
    assert (waiting.returncode, err, out != "") == (0, "", True)


def test_the_time_is_over(tmp_path, hold):
    process = hold("writer")
    done = in_pipe("jammi-duck tables --db held.duckdb --wait 0.3s", tmp_path)
    first, last = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert "; waiting for it, up to 0:00:00.3" in first
    assert last.startswith(f"jammi-duck: the database '{tmp_path}/held.duckdb' is open in the process {process.pid} (")


def test_ctrl_c_while_it_waits(tmp_path, hold):
    hold("writer")
    waiting = started(tmp_path, "tables", "--wait", "5m")
    assert "waiting for it" in waiting.stderr.readline()
    waiting.send_signal(2)
    out, err = waiting.communicate()
    assert (waiting.returncode, out, err) == (130, "", "")


def test_another_error_is_not_waited_for(tmp_path):
    (tmp_path / "held.duckdb").mkdir()
    done = in_pipe("jammi-duck tables --db held.duckdb --wait 5m", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "waiting" not in done.stderr
