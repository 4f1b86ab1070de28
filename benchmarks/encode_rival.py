"""Jammi itself in process beside ours, for benchmarks.encode; this file contains both ends of its process.

encode_rival.py FOLDER MODEL TEXTS      connects to the folder, then answers requests, a line of JSON each

Both embed the same texts of the same table, with the same directory of the model: Jammi with `generate_embeddings` from
a Parquet file, in float32 on the CPU, ours with `jammi_generate` in a DuckDB of its own, as it does by default. Both
keep their vectors with an index; ours also indexes the words. A lone text goes to `encode_query` and to `Jammi.embed`.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.common import ROOT, environment, packages
from benchmarks.rounds import Report, interleave

if TYPE_CHECKING:
    import duckdb

    from jammi_duck import Jammi

NAME = "Jammi"
_PROGRAM = ROOT / ".venv-serve" / "bin" / "python"
_CONFIG = """
[gpu]
device = -1
[logging]
level = "error"
"""
_QUERIES = 40


def compare(report: Report, texts: Sequence[str], rounds: int) -> None:
    """Measure both in turns. Jammi takes half a minute for 1,000 descriptions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "texts.parquet"
        pq.write_table(pa.table({"id": range(len(texts)), "text": list(texts)}), file)
        try:
            rival = _Rival(folder / "jammi", file)
        except ImportError as error:
            report.missing[NAME] = str(error)
            return
        spawned = multiprocessing.get_context("spawn")
        with closing(rival), ProcessPoolExecutor(1, spawned) as ours:
            place = str(folder / "ours"), str(file)
            rows = interleave(
                "Jammi",
                {
                    "ours": lambda: ours.submit(_generate, *place).result(),
                    "theirs": partial(rival.ask, "generate", []),
                },
                rounds,
            )
            questions = _questions()
            asked = interleave(
                "Jammi, queries",
                {
                    "ours": lambda: ours.submit(_ask, *place, list(itertools.islice(questions, _QUERIES))).result(),
                    "theirs": lambda: rival.ask("encode", list(itertools.islice(questions, _QUERIES))),
                },
                rounds,
            )
    what = f"{len(texts):,} descriptions, embedded and kept"
    report.compare(what, rows["ours"], NAME, rows["theirs"], "s")
    report.compare("a lone text in process, p50", asked["ours"], NAME, asked["theirs"], "ms")


def _questions() -> Iterator[str]:
    """Texts that nobody has asked before."""
    texts = sorted(set(packages("summary")))
    random.Random(4).shuffle(texts)
    return iter(texts)


@functools.cache
def _ours(folder: str, file: str) -> tuple[duckdb.DuckDBPyConnection, Jammi, Iterator[int]]:
    """A connection of ours with the texts, its methods, and numbers for its tables."""
    import duckdb

    import jammi_duck

    Path(folder).mkdir()
    con = duckdb.connect(f"{folder}/texts.duckdb")
    jammi = jammi_duck.install(con, storage=f"{folder}/artifacts")
    con.execute(f"CREATE TABLE texts AS FROM '{file}'")
    return con, jammi, itertools.count()


def _generate(folder: str, file: str) -> float:
    con, _, numbers = _ours(folder, file)
    table = f"texts_{next(numbers)}"
    con.execute(f"CREATE TABLE {table} AS FROM texts")
    began = time.perf_counter()
    con.execute(f"SELECT * FROM jammi_generate('{table}', 'text', 'id')").fetchall()
    return time.perf_counter() - began


def _ask(folder: str, file: str, texts: list[str]) -> float:
    return _p50(_ours(folder, file)[1].embed, texts)


def _p50(encode: Callable[[str], object], texts: Sequence[str]) -> float:
    milliseconds = []
    for text in texts:
        began = time.perf_counter()
        encode(text)
        milliseconds.append((time.perf_counter() - began) * 1e3)
    return median(milliseconds)


class _Rival:
    """Jammi, in a process of its own."""

    def __init__(self, folder: Path, file: Path) -> None:
        """Start it.

        Raises:
            ImportError: it is not installed.
        """
        from benchmarks.contenders import default_model

        if not _PROGRAM.exists():
            raise ImportError(f"there is no {_PROGRAM}")
        found = subprocess.run([_PROGRAM, "-c", "import jammi, jammi_native"], check=False, stderr=subprocess.DEVNULL)
        if found.returncode:
            raise ImportError(f"jammi-ai or jammi-ai-native is not installed in {_PROGRAM.parents[1]}")
        folder.mkdir()
        model = f"local:{default_model().path}"
        command: list[str | Path] = [_PROGRAM, "-P", __file__, folder, model, file]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(), cwd=folder)

    def ask(self, name: str, texts: Sequence[str]) -> float:
        """The seconds of one build, or the median of milliseconds of the texts."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests
        assert answers
        requests.write(json.dumps([name, list(texts)]) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the process of {NAME} has ended")
        return float(line)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def main() -> None:
    """Be Jammi's process."""
    import jammi  # type: ignore[import-not-found]

    folder, model, file = sys.argv[1:]
    # What libraries print is not to be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = Path(folder, "jammi.toml")
    config.write_text(_CONFIG)
    db: Any = jammi.connect(f"file://{folder}", config=str(config))
    db.add_source("texts", url=file, format="parquet")
    for line in sys.stdin:
        name, texts = json.loads(line)
        if name == "generate":
            began = time.perf_counter()
            db.generate_embeddings(source="texts", model=model, columns=["text"], key="id", modality="text")
            answer = time.perf_counter() - began
        else:
            answer = _p50(lambda text: db.encode_query(model=model, query=text), texts)
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
