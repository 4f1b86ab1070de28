"""Latency against recall in benchmarks.search: graphs searched with more and more breadth, for one picture."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.rounds import interleave
from benchmarks.search_contenders import EXPANSIONS
from benchmarks.search_data import Data, K, Places, recall
from benchmarks.search_worker import Worker

HEADER = ("who", "expansion", "recall@10", "p50")


def measure(
    workers: dict[str, Worker], data: Data, right: Places, queries: int, rounds: int, path: Path
) -> list[tuple[str, ...]]:
    """The lines of a table; the file gets the same for benchmarks.search_picture."""
    found: dict[tuple[str, int], float] = {}
    for name, worker in workers.items():
        for expansion in EXPANSIONS:
            worker.call("use", (expansion,))
            # One by one: for a batch, ours may look at every vector.
            answers = [worker.ids("one", query)[0] for query in range(len(right))]
            found[name, expansion] = recall(answers, right)

    def latency(name: str, expansion: int) -> float:
        workers[name].call("use", (expansion,))
        return workers[name].p50("one", range(queries))

    measures = {f"{name} {expansion}": partial(latency, name, expansion) for name, expansion in found}
    samples = interleave("sweep", measures, rounds)
    lines: list[tuple[str, ...]] = []
    curves: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for (name, expansion), share in found.items():
        ms = median(samples[f"{name} {expansion}"])
        curves[name].append({"expansion": expansion, "recall": round(share, 5), "ms": round(ms, 5)})
        lines.append((name, f"{expansion}", f"{share:.4f}", f"{ms:.3f} ms"))
    rows, dimensions = data.documents.shape
    content = {"rows": rows, "dimensions": dimensions, "k": K, "curves": curves}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return lines
