"""The stock shell against Python, interleaved: a warm search, `embed` over 20,000 rows, a search in a new process."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

import duckdb

from benchmarks.common import environment, packages, show
from benchmarks.contenders import AUTO, default_model
from benchmarks.rounds import HEADER, Report, child, interleave
from jammi_duck.doors.installation import install

ROWS = 20_000
SEARCHES = 20
SEARCH = "SELECT max(_similarity) FROM jammi_search('texts', 'parse command line arguments', 10)"
EMBED = "SELECT count(embed(text)) FROM texts"


class Shell:
    """A session of `jammi-duck shell`."""

    def __init__(self, folder: Path) -> None:
        """On the database that lies in `folder`."""
        command = [_program(), "shell", "texts.duckdb", "-csv", "-noheader"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True, env=environment())

    def ask(self, statement: str) -> str:
        """The one line that a statement gives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement};\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the session."""
        self._process.communicate()


def main() -> None:
    """Print the medians of both, and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder, "python"), Path(folder, "shell")
        con = _filled(theirs)
        con.execute("FROM jammi_generate('texts', 'text', 'id')").fetchall()
        _filled(ours).close()
        with Shell(ours) as shell:
            shell.ask("SELECT status FROM jammi_generate('texts', 'text', 'id')")
            warm = {
                "search in Python": partial(_median_of, lambda: con.execute(SEARCH).fetchall()),
                "search in the shell": partial(_median_of, lambda: shell.ask(SEARCH)),
            }
            searched = interleave("search", warm, rounds)
            embeds = {
                "embed in Python": partial(_seconds, lambda: con.execute(EMBED).fetchall()),
                "embed in the shell": partial(_seconds, lambda: shell.ask(EMBED)),
            }
            embedded = interleave("embed", embeds, rounds)
        con.close()
        cold = {
            "first vector": partial(child, "first", AUTO, default_model().path),
            "cold search in the shell": partial(_seconds, partial(_cold, ours)),
        }
        started = interleave("start", cold, rounds)
    pairs = zip(searched["search in the shell"], searched["search in Python"], strict=True)
    later = median(shell - python for shell, python in pairs) * 1000
    pairs = zip(embedded["embed in Python"], embedded["embed in the shell"], strict=True)
    rate = median(python / shell for python, shell in pairs)
    pairs = zip(started["cold search in the shell"], started["first vector"], strict=True)
    more = median(shell - first for shell, first in pairs)
    report = Report()
    for what, samples, scale, value, goal in (
        ("warm jammi_search, ms more", searched, 1000, later, "<= 2"),
        ("embed, 20,000 rows, s, its rate", embedded, 1, rate, ">= 0.9"),
        ("new process: a search, s more than a first vector", started, 1, more, "<= 0.3"),
    ):
        in_python, in_shell = _medians(samples, scale)
        report.add(what, in_shell, "Python", in_python, value, goal)
    first = median(started["cold search in the shell"])
    report.add("new process: a search, s, its start and end included", f"{first:.2f}", "", "", first, "<= 0.5")
    show("The stock shell against Python", HEADER, report.lines)
    report.end()


def _filled(folder: Path) -> duckdb.DuckDBPyConnection:
    folder.mkdir()
    # What the shell can read, which may be older than Python's DuckDB.
    con = duckdb.connect(folder / "texts.duckdb", config={"storage_compatibility_version": "v1.0.0"})
    con.execute("CREATE TABLE texts (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO texts VALUES (?, ?)", list(enumerate(packages("summary", ROWS))))
    install(con, storage=folder / "artifacts")
    return con


def _program() -> str:
    program = shutil.which("jammi-duck")
    if program is None:
        raise SystemExit("jammi-duck is not on the PATH")
    return program


def _cold(folder: Path) -> None:
    command = [_program(), "shell", "texts.duckdb", "-c", SEARCH]
    subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=True)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _median_of(work: Callable[[], object]) -> float:
    return median(_seconds(work) for _ in range(SEARCHES))


def _medians(samples: dict[str, list[float]], factor: float) -> tuple[str, str]:
    first, second = (median(values) * factor for values in samples.values())
    return f"{first:.2f}", f"{second:.2f}"


if __name__ == "__main__":
    main()
