"""Exact search in benchmarks.search: the share of the machine's memory bandwidth that it uses."""

from __future__ import annotations

from functools import partial

from benchmarks.rounds import Report, interleave
from benchmarks.search_contenders import OURS, PYTHON
from benchmarks.search_data import Data
from benchmarks.search_worker import Worker

GOAL = "> 0.73"
READING = "all cores reading"
PRODUCT = "numpy matrix @ query"


def measure(workers: dict[str, Worker], data: Data, queries: int, rounds: int, report: Report) -> None:
    """Add the GB/s of SQL, of what is below it, and of numpy, next to the best that reading the vectors gives."""
    asked = range(queries)
    below = workers[PYTHON]
    seconds = interleave(
        "exact search",
        {
            READING: partial(below.call, "reading"),
            PRODUCT: lambda: below.p50("product", asked) / 1000,
            f"{PYTHON}, exact": lambda: below.p50("exact", asked) / 1000,
            f"{OURS}, exact := true": lambda: workers[OURS].p50("exact", asked) / 1000,
        },
        rounds,
    )
    speeds = {name: [data.documents.nbytes / each / 1e9 for each in values] for name, values in seconds.items()}
    reading = speeds.pop(READING)
    for name, speed in speeds.items():
        report.compare(name, speed, READING, reading, "GB/s", GOAL if name.startswith(PYTHON) else "")
    product = speeds.pop(PRODUCT)
    for name, speed in speeds.items():
        report.compare(name, speed, PRODUCT, product, "GB/s", ">= 1")
