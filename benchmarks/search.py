"""Search: a warm jammi_search with a vector from SQL, k = 10, over 100,000 vectors of 384 dimensions.

The vectors are those of 20,000 real texts, each five times with a little noise; the queries are held out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np

from benchmarks.common import packages, show
from benchmarks.memory import RandomEncoder, RandomEncoders
from jammi_duck.config import DEFAULT_MODEL, Config
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.installation import equip
from jammi_duck.types import Role, Vectors

QUERIES = 200
RECALL_QUERIES = 50

T = TypeVar("T")


class _Prepared(RandomEncoder):
    """Gives rows of a matrix in turn, whatever the texts."""

    def __init__(self, vectors: Vectors) -> None:
        super().__init__()
        self._vectors = vectors

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        places = [int(text) for text in texts]
        return self._vectors[places]


class _PreparedEncoders(RandomEncoders):
    def __init__(self, vectors: Vectors) -> None:
        super().__init__()
        self._encoder = _Prepared(vectors)


def main() -> None:
    """Print the median latencies, the recall, and how long the encoding of a query takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=QUERIES)
    options = parser.parse_args()
    encoder = LoadedEncoders(32, 3).get(DEFAULT_MODEL)
    texts = packages("summary", options.rows // 5 + QUERIES)
    real = encoder.encode(texts)
    queries, documents = real[:QUERIES], _noisy(real[QUERIES:], options.rows)
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        config = Config(storage=folder, cache_dir=Path(folder, "cache"))
        equip(con, config, _PreparedEncoders(documents))
        con.execute(f"CREATE TABLE t AS SELECT range AS id, range::VARCHAR AS text FROM range({options.rows:d})")
        started = time.perf_counter()
        con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        build = time.perf_counter() - started
        con.execute("CREATE TABLE q (n INTEGER, v FLOAT[384])")
        con.executemany("INSERT INTO q VALUES (?, ?)", [(n, vector.tolist()) for n, vector in enumerate(queries)])
        latencies: dict[str, list[float]] = {"search": [], "matches": [], "exact": [], "encode": []}
        hits = 0
        for n in range(options.rounds):
            vector = f"(SELECT v FROM q WHERE n = {n % QUERIES:d})"
            found = _timed(latencies["search"], partial(_ids, con, "jammi_search", f"{vector}, 10"))
            _timed(latencies["matches"], partial(_ids, con, "jammi_matches", f"{vector}, 10"))
            if n < RECALL_QUERIES:
                exactly = partial(_ids, con, "jammi_search", f"{vector}, 10, exact := true")
                hits += len(set(found) & set(_timed(latencies["exact"], exactly)))
            _timed(latencies["encode"], partial(encoder.encode, [texts[n % QUERIES]], "query"))
        con.close()
    rows = [
        ("jammi_search, the source's rows (goal: under 10)", *_figures(latencies["search"])),
        ("jammi_matches, row ids only", *_figures(latencies["matches"])),
        ("jammi_search, exact := true", *_figures(latencies["exact"])),
        ("encoding a text query, apart", *_figures(latencies["encode"])),
    ]
    show(f"Search over {options.rows:,} vectors, k = 10, ms", ("what", "median", "p95"), rows)
    most = 10 * min(RECALL_QUERIES, options.rounds)
    print(f"recall@10 against exact search: {hits / most:.3f}; build without encoding: {build:.1f} s")


def _noisy(vectors: Vectors, rows: int) -> Vectors:
    random = np.random.default_rng(0)
    many = np.tile(vectors, (rows // len(vectors) + 1, 1))[:rows]
    many = many + random.standard_normal(many.shape, np.float32) * np.float32(0.01)
    result: Vectors = many / np.linalg.norm(many, axis=1, keepdims=True)
    return result


def _ids(con: duckdb.DuckDBPyConnection, function: str, rest: str) -> list[str]:
    return [row_id for (row_id,) in con.execute(f"SELECT _row_id FROM {function}('t', {rest})").fetchall()]


def _timed(seconds: list[float], work: Callable[[], T]) -> T:
    started = time.perf_counter()
    outcome = work()
    seconds.append(time.perf_counter() - started)
    return outcome


def _figures(seconds: list[float]) -> tuple[str, str]:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.2f}", f"{ordered[int(len(ordered) * 0.95)] * 1000:.2f}"


if __name__ == "__main__":
    main()
