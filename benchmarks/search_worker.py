"""Runs a contender of benchmarks.search in its own process; this file contains both ends.

search_worker.py serve CONTENDER FOLDER             answers requests, a line of JSON each
search_worker.py first CONTENDER FOLDER SETTING     prints the seconds to import, open, and answer a first query

What is timed is timed in that process. It may be another Python, with other packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

from benchmarks.common import ROOT, environment

if TYPE_CHECKING:
    from benchmarks.search_contenders import Contender, Setting

# The interpreter's start, and the standard library's modules above, are not counted.
BEGAN = time.perf_counter()
# The Python with the older DuckDB, if no other is given.
EXTENSIONS_PYTHON = str(ROOT / ".venv-search-extensions" / "bin" / "python")


class Worker:
    """The end that asks."""

    def __init__(self, name: str, folder: Path, python: str = sys.executable) -> None:
        """Start the process.

        Raises:
            ImportError: there is no such Python.
        """
        if not Path(python).exists():
            raise ImportError(f"there is no {python}")
        self.name = name
        command = _command(python, "serve", name, folder)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=folder
        )

    def call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - what JSON can hold
        """What a method of the contender returns.

        Raises:
            ImportError: the contender's packages are not installed.
        """
        return self._ask("call", method, arguments)

    def ids(self, method: str, *arguments: object) -> list[list[int]]:
        """The rows that a search of the contender finds."""
        found: list[list[int]] = self._ask("ids", method, arguments)
        return found

    def seconds(self, method: str, *arguments: object) -> float:
        """How long a method takes."""
        return float(self._ask("seconds", method, arguments))

    def p50(self, method: str, queries: Sequence[int], *arguments: object) -> float:
        """How many milliseconds a method takes for a query: the median of these."""
        return float(self._ask("p50", method, (list(queries), *arguments)))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, kind: str, method: str, arguments: Sequence[object]) -> Any:  # noqa: ANN401 - what JSON can hold
        requests, answers = self._process.stdin, self._process.stdout
        assert requests
        assert answers
        requests.write(json.dumps([kind, method, arguments]) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} has ended")
        answer = json.loads(line)
        if "missing" in answer:
            raise ImportError(answer["missing"])
        return answer["value"]


def built(
    folder: Path, names: Sequence[str], extensions: str, missing: dict[str, str], connectivity: int, expansion: int
) -> dict[str, float]:
    """Build contenders one after another: the seconds of each; `missing` gets why others are not installed.

    `extensions` is the Python with the older DuckDB.
    """
    builds = {}
    for name in names:
        print(f"building: {name}", file=sys.stderr, flush=True)
        try:
            with closing(Worker(name, folder, python_of(name, extensions))) as worker:
                worker.call("prepare")
                builds[name] = worker.seconds("build", connectivity, expansion)
        except ImportError as error:
            missing[name] = str(error)
    return builds


def opened(running: ExitStack, folder: Path, names: Iterable[str], extensions: str) -> dict[str, Worker]:
    """Open what contenders have built, each in a process of its own, which ends with `running`."""
    workers = {}
    for name in names:
        workers[name] = running.enter_context(closing(Worker(name, folder, python_of(name, extensions))))
        workers[name].call("open")
        workers[name].call("load")
    return workers


def python_of(name: str, extensions: str) -> str:
    """The Python that runs a contender: this one, or that with the older DuckDB."""
    from benchmarks.search_contenders import EXTENSIONS

    return extensions if name in EXTENSIONS else sys.executable


def first(name: str, folder: Path, setting: Setting, python: str = sys.executable) -> float:
    """The seconds to a first answer in a new process; the interpreter's start is not counted."""
    command = [*_command(python, "first", name, folder), json.dumps(setting)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=folder, check=True)
    return float(done.stdout.split()[-1])


def _command(python: str, *arguments: object) -> list[str]:
    return [python, "-P", str(Path(__file__).resolve()), *map(str, arguments)]


def _serve(contender: Contender, requests: IO[str], answers: IO[str]) -> None:
    for line in requests:
        kind, method, arguments = json.loads(line)
        answer: dict[str, object]
        try:
            answer = {"value": _KINDS[kind](contender, method, arguments)}
        except ImportError as error:
            answer = {"missing": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _call(contender: Contender, method: str, arguments: Sequence[Any]) -> object:
    value = getattr(contender, method)
    return value(*arguments) if callable(value) else value


def _ids(contender: Contender, method: str, arguments: Sequence[Any]) -> object:
    return contender.ids(_call(contender, method, arguments))


def _seconds(contender: Contender, method: str, arguments: Sequence[Any]) -> float:
    work = getattr(contender, method)
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _p50(contender: Contender, method: str, arguments: Sequence[Any]) -> float:
    queries, *rest = arguments
    return median(_seconds(contender, method, [query, *rest]) for query in queries) * 1000


_KINDS: dict[str, Callable[[Contender, str, Sequence[Any]], object]] = {
    "call": _call,
    "ids": _ids,
    "seconds": _seconds,
    "p50": _p50,
}


def main() -> None:
    """Be the end that answers, or take the measure of a first answer."""
    from benchmarks.search_contenders import contender

    what, name, folder, *rest = sys.argv[1:]
    # What libraries print is not to be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    chosen = contender(name, Path(folder))
    if what == "serve":
        _serve(chosen, sys.stdin, answers)
        return
    chosen.open()
    chosen.load()
    chosen.use(json.loads(rest[0]))
    chosen.one(0)
    print(time.perf_counter() - BEGAN, file=answers, flush=True)


if __name__ == "__main__":
    main()
