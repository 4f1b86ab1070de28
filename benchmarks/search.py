"""Search over real vectors: this project against its index alone, LanceDB, DuckDB's vss and lance, FAISS and hnswlib.

Each contender is in a process of its own, and is searched at the least work that gives a recall@10 of 0.99, or at its
best. They take turns: each round measures every contender once, in an order that moves on by one; the first round warms
up and is dropped. A ratio is the median of the rounds' ratios. Builds are measured once, without any encoding. The
rivals need benchmarks/requirements-search.txt, and an environment with the older DuckDB (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import search_exact, search_filters, search_sweep
from benchmarks.common import show
from benchmarks.rounds import HEADER, Report, Samples, interleave
from benchmarks.search_contenders import (
    CONTENDERS,
    CORES,
    FAISS,
    HNSWLIB,
    LANCE_SQL,
    LANCEDB,
    LANCEDB_PQ,
    METHOD,
    OURS,
    PYTHON,
    USEARCH,
    VSS,
    Setting,
)
from benchmarks.search_data import CACHE, HELD_OUT, NOISE, TEXTS, Data, K, Places, nearest, originals, recall
from benchmarks.search_worker import EXTENSIONS_PYTHON, Worker, built, first, opened, python_of
from jammi_duck.config.options import Config
from jammi_duck.storage.index.graph import CONNECTIVITY, EXPANSION_ADD, expansion, neighbours

PARTS = ("contenders", "filters", "exact", "sweep")
RECALL = 0.99
# Those that are measured with more rows than there are texts.
LARGE = (OURS, METHOD, PYTHON, USEARCH, LANCEDB)
# Rivals that ours should be ahead of in everything.
AHEAD_OF = (LANCEDB, LANCEDB_PQ, VSS)
CONTENDER = ("contender", "setting", "recall@10", "p50", "batch", "build", "index", "all it reads", "first answer")


@dataclass
class Entrant:
    """A contender that takes part."""

    worker: Worker
    build: float
    setting: Setting = ()
    label: str = ""
    recall: float = 0.0


def main() -> None:
    """Print the contenders' figures, and the goals and whether they are met."""
    options = _options()
    began, load = time.perf_counter(), os.getloadavg()[0]
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = Data.prepare(folder, options.cache, options.rows, options.queries)
        right = nearest(data.documents, data.queries)
        chosen = CONTENDERS if options.rows <= TEXTS else LARGE
        names = [each for each in chosen if _takes_part(each, options.only)]
        builds = built(folder, names, options.extensions, report.missing, CONNECTIVITY, EXPANSION_ADD)
        with ExitStack() as running:
            workers = opened(running, folder, builds, options.extensions)
            entrants = {name: Entrant(worker, builds[name]) for name, worker in workers.items()}
            for each, entrant in entrants.items():
                _tune(each, entrant, right, options.rows)
            tables = _measure(entrants, data, right, options, report)
        if "contenders" in options.only:
            starts = _first_answers(folder, entrants, options, report)
            tables[0][2][:] = [(*line, _seconds(starts[line[0]])) for line in tables[0][2]]
    for table in tables:
        show(*table)
    title = f"Goals, {options.rows:,} vectors, {CORES} cores, {options.rounds} rounds"
    show(title, HEADER, report.lines)
    if options.rows > TEXTS:
        print(f"Rows after the first {TEXTS:,} are the same with noise, {NOISE} for each number; the {K} nearest stem")
        print(f"from {originals(right):.0f} different texts (median).")
    print(f"Other load on the machine when it began (average of a minute): {load:.1f}.")
    for missing, reason in report.missing.items():
        print(f"Not measured: {missing}: {reason}")
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    report.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=TEXTS)
    parser.add_argument("--rounds", type=int, default=5, help="after the one that warms up")
    parser.add_argument("--queries", type=int, default=1000, help="of a batch, and to find the recall by")
    parser.add_argument("--singles", type=int, default=100, help="queries that are asked alone in a round")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the texts' vectors are kept")
    parser.add_argument("--sweep", type=Path, help="the file for benchmarks.search_picture; in the cache, if not given")
    parser.add_argument("--extensions", default=EXTENSIONS_PYTHON, help="the Python with DuckDB's vss and lance")
    options = parser.parse_args()
    if not 1 <= options.singles <= options.queries < HELD_OUT:
        parser.error(f"--queries has to be less than {HELD_OUT:,}, and --singles no more than that")
    options.sweep = options.sweep or options.cache / "sweep.json"
    options.only = set(options.only)
    return options


def _takes_part(name: str, parts: set[str]) -> bool:
    if "contenders" in parts or name == OURS:
        return True
    sweep = {PYTHON, FAISS, HNSWLIB} if "sweep" in parts else set()
    exact = {PYTHON} if "exact" in parts else set()
    return name in sweep | exact or (name == LANCEDB and "filters" in parts)


def _tune(name: str, entrant: Entrant, right: Places, rows: int) -> None:
    """Choose the first setting that finds enough, or the one that finds most."""
    print(f"choosing a setting: {name}", file=sys.stderr, flush=True)
    worker = entrant.worker
    width = expansion(min(rows, Config().segment_rows))
    as_ours = {USEARCH: (width, neighbours(1 << 62, 1 << 62, K)), PYTHON: (width,)}
    settings: list[Setting] = [as_ours[name]] if name in as_ours else worker.call("settings")
    entrant.recall = -1.0
    for setting in settings:
        worker.call("use", setting)
        found = recall(worker.ids("batch", len(right)), right)
        if found > entrant.recall:
            entrant.setting, entrant.recall = setting, found
        if found >= RECALL:
            break
    worker.call("use", entrant.setting)
    labels = worker.call("labels")
    entrant.label = ", ".join(f"{label} {value}" for label, value in zip(labels, entrant.setting, strict=True))


def _measure(
    entrants: dict[str, Entrant], data: Data, right: Places, options: argparse.Namespace, report: Report
) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Take all measures of what is open; the tables, beside the report."""
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = []
    workers = {name: entrant.worker for name, entrant in entrants.items()}
    singles, rounds = options.singles, options.rounds
    if "contenders" in options.only:
        title = f"Search over {options.rows:,} vectors, k = {K}, batches of {options.queries:,}"
        tables.append((title, CONTENDER, _contenders(entrants, options, report)))
    if "filters" in options.only:
        compared = {name: workers[name] for name in (OURS, LANCEDB) if name in workers}
        if LANCEDB in compared:
            compared[LANCEDB].call("index_columns")
        lines = search_filters.measure(compared, OURS, data, singles, rounds, report)
        tables.append((f"Filters over {options.rows:,} vectors", search_filters.HEADER, lines))
    if "exact" in options.only:
        search_exact.measure(workers, data, max(1, singles // 10), rounds, report)
    if "sweep" in options.only:
        compared = {name: workers[name] for name in (PYTHON, FAISS, HNSWLIB) if name in workers}
        lines = search_sweep.measure(compared, data, right, singles, min(rounds, 3), options.sweep)
        tables.append((f"Breadth of the search, kept in {options.sweep}", search_sweep.HEADER, lines))
    return tables


def _contenders(entrants: dict[str, Entrant], options: argparse.Namespace, report: Report) -> list[tuple[str, ...]]:
    """The lines of the contenders, but for their first answers; what is compared goes to the report."""
    shown = {name: entrant for name, entrant in entrants.items() if name != PYTHON}
    count = options.queries
    asked = {name: partial(each.worker.p50, "one", range(options.singles)) for name, each in shown.items()}
    latencies = interleave("single queries", asked, options.rounds)
    batches = {name: partial(each.worker.seconds, "batch", count) for name, each in shown.items()}
    seconds = interleave("batches", batches, options.rounds)
    rates = {name: [count / each for each in values] for name, values in seconds.items()}
    sizes = {name: [size / 1e6 for size in each.worker.call("sizes")] for name, each in shown.items()}
    _goals(shown, latencies, rates, sizes, report)
    return [
        (
            name,
            each.label,
            f"{each.recall:.4f}",
            f"{median(latencies[name]):.3f} ms",
            f"{median(rates[name]):,.0f}/s",
            _seconds(each.build),
            *(f"{size:.1f} MB" for size in sizes[name]),
        )
        for name, each in shown.items()
    ]


def _goals(
    entrants: dict[str, Entrant], latencies: Samples, rates: Samples, sizes: dict[str, list[float]], report: Report
) -> None:
    ours = entrants[OURS]
    report.add("recall@10", f"{ours.recall:.4f}", "", "", ours.recall, f">= {RECALL}")
    for name, goal in ((OURS, "<= 1.8"), (METHOD, "<= 1.2")):
        more = [a - b for a, b in zip(latencies[name], latencies[USEARCH], strict=True)]
        figures = f"{median(latencies[name]):.3g} ms", USEARCH, f"{median(latencies[USEARCH]):.3g} ms"
        report.add(f"p50 of {name}, ms more", *figures, median(more), goal)
    report.compare("batch", rates[OURS], USEARCH, rates[USEARCH], "queries/s", ">= 0.7")
    for rival in (*AHEAD_OF, LANCE_SQL):
        if rival not in entrants:
            continue
        theirs = entrants[rival]
        # The files of lance are LanceDB's: it has no build and no size of its own.
        goals = ("",) * 4 if rival == LANCE_SQL else (">= 1", "< 1", "> 1", "< 1")
        report.compare("recall@10", [ours.recall], rival, [theirs.recall], "", goals[0])
        report.compare("p50 of a query", latencies[OURS], rival, latencies[rival], "ms", goals[1])
        report.compare("batch", rates[OURS], rival, rates[rival], "queries/s", goals[2])
        if rival == LANCE_SQL:
            continue
        report.compare("build", [ours.build], rival, [theirs.build], "s", goals[3])
        for what, size, other in zip(("index", "all it reads"), sizes[OURS], sizes[rival], strict=True):
            report.compare(what, [size], rival, [other], "MB", goals[3])
    for rival in (FAISS, HNSWLIB):
        if rival in entrants:
            report.compare(f"batch, {USEARCH}", rates[USEARCH], rival, rates[rival], "queries/s", ">= 0.8")
            report.compare(f"index, {USEARCH}", sizes[USEARCH][:1], rival, sizes[rival][:1], "MB", "<= 0.5")


def _first_answers(
    folder: Path, entrants: dict[str, Entrant], options: argparse.Namespace, report: Report
) -> dict[str, float]:
    """Seconds of each, in new processes: only now, as a database that is open is locked."""
    measures = {
        name: partial(first, name, folder, each.setting, python_of(name, options.extensions))
        for name, each in entrants.items()
        if name != PYTHON
    }
    samples = interleave("new processes", measures, options.rounds)
    for rival in AHEAD_OF:
        if rival in samples:
            report.compare("new process to first answer", samples[OURS], rival, samples[rival], "s", "< 1")
    return {name: median(values) for name, values in samples.items()}


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
