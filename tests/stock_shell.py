"""The installed `jammi-duck shell`, for tests: a folder to start it in, statements, and sessions."""

import json
import shlex
import subprocess
import time
from pathlib import Path

import pytest

import jammi_duck
from tools.program import BIN, environment, in_pipe

needs_extension = pytest.mark.skipif(
    not (Path(jammi_duck.__file__).parent / "udfs/native/jammi.duckdb_extension").is_file(),
    reason="the extension was not built: no C compiler",
)


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
