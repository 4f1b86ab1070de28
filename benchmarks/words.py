"""Searches by words, and by words and vectors, from SQL: against our searches by vectors, and against others.

The others are LanceDB's full-text and hybrid search, DuckDB's extension fts, bm25s and tantivy. Each is in a process of
its own, on the same rows. They take turns: each round measures every contender once, in an order that moves on by one;
the first round warms up and is dropped. It leaves the queries' vectors known to us, and LanceDB is given them. A ratio
is the median of the rounds' ratios. The rivals need benchmarks/requirements-search.txt, and an environment with the
older DuckDB (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from benchmarks import search_data, words_data
from benchmarks.common import show
from benchmarks.rounds import HEADER, Report, Samples, interleave
from benchmarks.search_contenders import BM25S, CORES, FTS, LANCEDB_WORDS, OURS_WORDS, TANTIVY, WORDS
from benchmarks.search_data import K
from benchmarks.search_worker import EXTENSIONS_PYTHON, Worker, built, opened
from jammi_duck.storage.index.graph import CONNECTIVITY, EXPANSION_ADD

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

ROWS, LARGE_ROWS = 100_000, 1_000_000
# What each is asked for.
KINDS = {
    OURS_WORDS: ("text", "vector", "hybrid", "frequent"),
    LANCEDB_WORDS: ("text", "vector", "hybrid", "frequent"),
    FTS: ("text", "frequent"),
    BM25S: ("text", "frequent"),
    TANTIVY: ("text", "frequent"),
}
# Those that are measured with more rows.
LARGE = (OURS_WORDS, LANCEDB_WORDS, TANTIVY)
# The breadth and the refinement with which LanceDB's graph finds 99 of 100 in benchmarks.search.
LANCEDB_SETTING = (128, 5)
CONTENDER = ("contender", *KINDS[OURS_WORDS], f"same texts in the first {K}", "build", "words", "all it reads")


def main() -> None:
    """Print the contenders' figures, and the goals and whether they are met."""
    options = _options()
    began, load = time.perf_counter(), os.getloadavg()[0]
    report = Report(is_trial=options.quick)
    texts = words_data.descriptions()
    asked = words_data.chosen(texts[: options.rows], options.queries)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = search_data.vectors(options.cache, options.rows)
        rows = words_data.repeated(texts, options.rows)
        words_data.write(folder, rows, documents, asked, _encoded(asked.queries))
        del documents, rows
        names = list(WORDS if options.rows <= ROWS else LARGE)
        builds = built(folder, names, options.extensions, report.missing, CONNECTIVITY, EXPANSION_ADD)
        with ExitStack() as running:
            workers = opened(running, folder, builds, options.extensions)
            if LANCEDB_WORDS in workers:
                workers[LANCEDB_WORDS].call("use", LANCEDB_SETTING)
            samples = _measure(workers, asked, options.rounds)
            same = _same_texts(workers, len(asked.queries), len(texts))
            sizes = {name: worker.call("sizes") for name, worker in workers.items()}
    _compare(samples, options.rows, report)
    lines = [_line(name, samples, same[name], builds[name], sizes[name]) for name in sizes]
    show(f"Median of a search over {options.rows:,} descriptions, k = {K}", CONTENDER, lines)
    show(f"Goals, {options.rows:,} rows, {CORES} cores, {options.rounds} rounds", HEADER, report.lines)
    print(
        f"{len(asked.queries)} queries of {mean(len(each.split()) for each in asked.queries):.1f} words (mean), such as"
    )
    print(f"'{asked.queries[0]}'; {len(asked.frequent)} of three frequent words, such as '{asked.frequent[0]}'.")
    print(f"{min(options.rows, len(texts)):,} texts differ. Load of a minute when it began: {load:.1f}.")
    for missing, reason in report.missing.items():
        print(f"Not measured: {missing}: {reason}")
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    report.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5, help="after the one that warms up")
    parser.add_argument("--queries", type=int, default=100, help="that are asked in a round")
    parser.add_argument("--quick", action="store_true", help="a trial: 5,000 rows, 2 rounds, 20 queries, and no goals")
    parser.add_argument("--cache", type=Path, default=search_data.CACHE, help="where the texts' vectors are kept")
    parser.add_argument("--extensions", default=EXTENSIONS_PYTHON, help="the Python with DuckDB's fts")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.rounds, options.queries = 5_000, 2, 20
    return options


def _encoded(queries: list[str]) -> Vectors:
    from jammi_duck.config.options import DEFAULT_MODEL
    from jammi_duck.encoder.loaded import LoadedEncoders

    return LoadedEncoders(32, 3).get(DEFAULT_MODEL).encode(queries, "query")


def _measure(workers: dict[str, Worker], asked: words_data.Asked, rounds: int) -> Samples:
    """Milliseconds of each contender's searches of each kind."""
    counts = {"frequent": len(asked.frequent)}
    measures = {
        _measured(name, kind): partial(worker.p50, kind, range(counts.get(kind, len(asked.queries))))
        for name, worker in workers.items()
        for kind in KINDS[name]
    }
    return interleave("searches", measures, rounds)


def _measured(name: str, kind: str) -> str:
    return f"{name}: {kind}"


def _same_texts(workers: dict[str, Worker], queries: int, texts: int) -> dict[str, float]:
    """The share of the texts found by our words that each finds, too: they are to do the same work."""
    found = {
        name: [{row % texts for row in worker.ids("text", query)[0]} for query in range(queries)]
        for name, worker in workers.items()
    }
    ours = found[OURS_WORDS]
    return {
        name: mean(len(a & b) / max(len(b), 1) for a, b in zip(theirs, ours, strict=True))
        for name, theirs in found.items()
    }


def _compare(samples: Samples, rows: int, report: Report) -> None:
    ours = {kind: samples[_measured(OURS_WORDS, kind)] for kind in KINDS[OURS_WORDS]}
    for kind, goal in (("text", "<= 1"), ("hybrid", "<= 1.5")):
        report.compare(
            f"{kind}, from SQL", ours[kind], "by vectors", ours["vector"], "ms", goal if rows == ROWS else ""
        )
    most = max(ours["frequent"])
    goal = "< 30" if rows == LARGE_ROWS else ""
    report.add("three frequent words, slowest round, ms", f"{most:.3g} ms", "", "", most, goal)
    for name, kinds in KINDS.items():
        for kind in kinds:
            if name != OURS_WORDS and _measured(name, kind) in samples:
                report.compare(f"{kind}, from SQL", ours[kind], name, samples[_measured(name, kind)], "ms")


def _line(name: str, samples: Samples, same: float, build: float, sizes: list[int]) -> tuple[str, ...]:
    figures = [
        f"{median(samples[_measured(name, kind)]):.3f} ms" if kind in KINDS[name] else "" for kind in KINDS[OURS_WORDS]
    ]
    return (name, *figures, f"{same:.2f}", f"{build:.1f} s", *(f"{size / 1e6:.1f} MB" for size in sizes))


if __name__ == "__main__":
    main()
