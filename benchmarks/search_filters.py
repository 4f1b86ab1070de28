"""Filters in benchmarks.search, for random rows and for rows of one topic: ours against LanceDB's prefilter."""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np

from benchmarks.rounds import Report, interleave
from benchmarks.search_data import FILTERED, PARTS, Data, K, nearest, recall
from benchmarks.search_worker import Worker

# How many of PARTS pass: 0.1 %, 1 %, 10 % and 50 %.
BELOW = (1, 10, 100, 500)
HEADER = ("filter", "rows that pass", "who", "p50", "recall@10", "fewest rows found")


def measure(
    workers: dict[str, Worker], ours: str, data: Data, queries: int, rounds: int, report: Report
) -> list[tuple[str, ...]]:
    """The lines of a table; the report gets the latencies of `ours` against the others', and its rows."""
    lines: list[tuple[str, ...]] = []
    for column in FILTERED:
        for below in BELOW:
            what = f"{column}, {below / PARTS:.1%}"
            passing = np.flatnonzero(getattr(data, column) < below)
            right = passing[nearest(data.documents[passing], data.queries[:queries])]
            measures = {
                name: partial(worker.p50, "filtered", range(queries), column, below) for name, worker in workers.items()
            }
            samples = interleave(f"filter {what}", measures, rounds)
            for name, worker in workers.items():
                found = [worker.ids("filtered", query, column, below)[0] for query in range(queries)]
                fewest = min(map(len, found))
                figures = (f"{median(samples[name]):.2f} ms", f"{recall(found, right):.4f}", f"{fewest}")
                lines.append((what, f"{len(passing):,}", name, *figures))
                if name == ours:
                    there = min(K, len(passing))
                    report.add(
                        f"filter {what}: fewest rows", f"{fewest}", "there are", f"{there}", fewest - there, ">= 0"
                    )
                else:
                    report.compare(f"filter {what}: p50", samples[ours], name, samples[name], "ms", "< 1")
    return lines
