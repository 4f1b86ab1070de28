"""Searches over passages against searches over as many plain rows, which have the same vectors and the same words.

The texts are those of benchmarks.search, ordered by the families of packages that they are of, so that passages of a
row are alike. One table has a row for so many texts, as evenly as it goes; in the other, a family is a row: most have
a few passages, and some have thousands.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import search_data
from benchmarks.common import packages
from benchmarks.passages_texts import PARAGRAPHS
from jammi_duck.config.options import DEFAULT_MODEL

if TYPE_CHECKING:
    import duckdb

    from jammi_duck.types import Vectors

PLAIN, EVEN, SKEWED = "plain", "even", "skewed"
# So many passages a row of the even table has.
PER_ROW = 10
# How to search: each is asked of every table.
WAYS = {
    "vector, graph": "mode := 'vector'",
    "vector, exact": "mode := 'vector', exact := true",
    "hybrid, graph": "mode := 'hybrid'",
    "hybrid, exact": "mode := 'hybrid', exact := true",
}
_FAMILY = re.compile(r"(lib)?[a-z]+|.")


@dataclass(frozen=True)
class Rows:
    """Texts with their vectors, ordered by what they are of; `families` are numbers that rise with it."""

    texts: Sequence[str]
    vectors: Vectors
    families: NDArray[np.int64]
    queries: Sequence[str]

    def of(self, kind: str) -> NDArray[np.int64]:
        """The number of the row that each text is of in a table."""
        return {PLAIN: np.arange(len(self.texts)), EVEN: np.arange(len(self.texts)) // PER_ROW, SKEWED: self.families}[
            kind
        ]


def rows(cache: Path, count: int, queries: int) -> Rows:
    """So many rows of benchmarks.search: of its texts, and beyond those of copies whose vectors are a little off."""
    texts = search_data.texts()
    known = texts[: search_data.TEXTS]
    repeated = [known[i % len(known)] for i in range(count)]
    families = _families(texts)
    names = [families[text] for text in repeated]
    order = sorted(range(count), key=names.__getitem__)
    ordered = [names[i] for i in order]
    numbers = np.cumsum([0, *(a != b for a, b in itertools.pairwise(ordered))])
    vectors = np.ascontiguousarray(search_data.vectors(cache, count)[order])
    return Rows([repeated[i] for i in order], vectors, numbers, texts[search_data.TEXTS :][:queries])


def _families(texts: Sequence[str]) -> dict[str, str]:
    """The family of packages that each text is of: of those whose names begin with the same word."""
    columns = (packages(column) for column in ("package", "summary", "description"))
    known = set(texts)
    found: dict[str, str] = {}
    for name, summary, description in zip(*columns, strict=True):
        family = (_FAMILY.match(name) or [name])[0]
        first = re.split(r"(?<=[.!?])\s", description.strip())[0][: search_data.LONGEST]
        for text in {summary, first} & known:
            found.setdefault(text, family)
    return found


def measure(
    con: duckdb.DuckDBPyConnection, made: Rows, rounds: int, model: str = DEFAULT_MODEL
) -> tuple[dict[str, float], dict[tuple[str, str], list[float]]]:
    """The seconds in which each table is imported; and the milliseconds of each way in each, in rounds."""
    seconds = {kind: _imported(con, made, kind, model) for kind in (PLAIN, EVEN, SKEWED)}
    return seconds, _searched(con, made.queries, rounds)


def _imported(con: duckdb.DuckDBPyConnection, made: Rows, kind: str, model: str) -> float:
    """Write a source, and import the vectors."""
    import pyarrow as pa

    print(f"passages: importing {kind}", file=sys.stderr, flush=True)
    of_row = made.of(kind)
    texts, starts, ends = joined_texts(made.texts, of_row)
    con.register("given", pa.table({"id": np.arange(len(texts)), "text": pa.array(texts, pa.string())}))
    con.execute(f"CREATE TABLE {kind} AS FROM given")
    con.unregister("given")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(made.vectors.reshape(-1)), made.vectors.shape[1])
    option = "false" if kind == PLAIN else "{'start': 'start', 'end': 'end'}"
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "vectors.parquet"))
        _write_table(pa.table({"id": of_row, "start": starts, "end": ends, "vector": lists}), path)
        began = time.perf_counter()
        con.execute(
            f"FROM jammi_import('{kind}', $1, 'id', 'vector', model := $2, cols := 'text', passages := {option})",
            [path, model],
        ).fetchall()
    return time.perf_counter() - began


def _write_table(table: Any, path: str) -> None:  # noqa: ANN401 - of pyarrow
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="none")


def joined_texts(
    texts: Sequence[str], of_row: NDArray[np.int64]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The text of each row, as paragraphs, and where each of the given texts starts and ends in that of its row."""
    lengths = np.array([len(text) for text in texts], np.int64)
    steps = lengths + len(PARAGRAPHS)
    before = np.cumsum(steps) - steps
    firsts = np.flatnonzero(np.diff(of_row, prepend=-1))
    starts = before - np.repeat(before[firsts], np.diff([*firsts, len(texts)]))
    bounds = zip(firsts.tolist(), [*firsts[1:].tolist(), len(texts)], strict=True)
    return [PARAGRAPHS.join(texts[a:b]) for a, b in bounds], starts, starts + lengths


def _searched(
    con: duckdb.DuckDBPyConnection, queries: Sequence[str], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Median milliseconds of a search of each way in each table. Tables take turns at each query; round 0 warms up."""
    found: dict[tuple[str, str], list[float]] = {}
    kinds = (PLAIN, EVEN, SKEWED)
    for turn in range(rounds + 1):
        print(f"searches: {f'round {turn} of {rounds}' if turn else 'warming up'}", file=sys.stderr, flush=True)
        for way, option in WAYS.items():
            run = _runner(con, option)
            times = [
                [1000 * run(kinds[(place + number + turn) % 3], query) for place in range(3)]
                for number, query in enumerate(queries)
            ]
            for kind in kinds if turn else ():
                mine = [of[(kinds.index(kind) - number - turn) % 3] for number, of in enumerate(times)]
                found.setdefault((way, kind), []).append(median(mine))
    return found


def _runner(con: duckdb.DuckDBPyConnection, option: str) -> Callable[[str, str], float]:
    """What takes the seconds of a search of a table, with the text that it finds."""

    def run(kind: str, query: str) -> float:
        text = "text" if kind == PLAIN else "_passage_text"
        began = time.perf_counter()
        found = con.execute(
            f"SELECT id, _score, {text} FROM jammi_search('{kind}', $1, {search_data.K:d}, {option})", [query]
        ).fetchall()
        seconds = time.perf_counter() - began
        assert len(found) == search_data.K
        assert all(each[2] for each in found)
        return seconds

    return run
