"""Encoding all-MiniLM-L6-v2: this project's encoder against others on the CPU, in one interleaved run.

Each round runs every contender once on the same texts, in an order that moves on by one; the first round warms up and
is dropped. A ratio is the median of the rounds' ratios. The texts are distinct, a seeded sample, and sorted by their
tokens for all: systems that do not sort need not. The rivals need benchmarks/requirements.txt (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks import arithmetic, judged_collections
from benchmarks.common import DATA, packages, show
from benchmarks.contenders import RIVALS, SENTENCE_TRANSFORMERS, default_model, model_tokenizer
from benchmarks.rounds import HEADER, Contender, Report, Samples, child, interleave

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

PRECISIONS = tuple(arithmetic.PRECISIONS)
PARTS = ("mixed", "short", "query", "start", "memory", "limit", "quality")
LOWEST_COSINE = 0.999
# Precision of ours, rival, and by how many times as fast ours should be.
GOALS = (
    ("bfloat16", SENTENCE_TRANSFORMERS, ">= 5.5"),
    ("float32", SENTENCE_TRANSFORMERS, ">= 3.5"),
    ("float32", "ONNX Runtime float32", "> 1"),
    ("float32", "fastembed float32", "> 1"),
    ("float32", "OpenVINO float32", ""),
    ("bfloat16", "OpenVINO bfloat16", ">= 0.9"),
    ("bfloat16", "OpenVINO bfloat16, hint THROUGHPUT", ""),
)


def main() -> None:
    """Print the measures and their goals, the limit of the machine, and the quality."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="after the one that warms up")
    parser.add_argument("--rows", type=int, default=1000, help="descriptions, of mixed lengths")
    parser.add_argument("--short-rows", type=int, default=4000, help="summaries")
    parser.add_argument("--queries", type=int, default=100, help="of each contender in a round")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--skip-quality", action="store_true")
    parser.add_argument("--quick", action="store_true", help="scifact with 1,000 documents, the judged among them")
    options = parser.parse_args()
    parts = set(options.only) - ({"quality"} if options.skip_quality else set())
    began, load = time.perf_counter(), os.getloadavg()[0]
    report = Report()
    mixed, lengths = _sample("description", options.rows)
    limits = [_limits()] if "limit" in parts else []
    speeds: Samples = {}
    with ExitStack() as running:
        warm = parts & {"mixed", "short", "query"}
        rivals = _rivals(running, mixed[:: max(1, len(mixed) // 64)], report) if warm else {}
        own = {name: running.enter_context(closing(Contender(name))) for name in PRECISIONS}
        if "mixed" in parts:
            speeds = _mixed(own, rivals, mixed, sum(lengths), options.rounds, report)
        if "short" in parts:
            _short(own, rivals, options.short_rows, options.rounds, report)
    if "query" in parts and SENTENCE_TRANSFORMERS not in report.missing:
        _queries(options.queries, options.rounds, report)
    if "start" in parts:
        _start(options.rounds, report)
    if "memory" in parts:
        _memory(mixed, min(options.rounds, 3), report)
    title = f"Encoding with {default_model().name}, {torch.get_num_threads()} threads, {options.rounds} rounds"
    show(title, HEADER, report.lines)
    print(f"Mixed: {len(mixed):,} texts, {sum(lengths):,} tokens, median {median(lengths):.0f}, most {lengths[-1]}.")
    print(f"Other load on the machine when it began (average of a minute): {load:.1f}.")
    for name, reason in report.missing.items():
        print(f"Not measured: {name}: {reason}")
    if limits:
        limits.append(_limits())
        best = {name: max(each[name] for each in limits) for name in PRECISIONS}
        _show_limits(best, arithmetic.work(default_model().path, lengths) / sum(lengths), speeds)
    if "quality" in parts:
        _show_quality(options.quick)
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    report.end()


def _sample(column: str, rows: int) -> tuple[list[str], list[int]]:
    """Distinct texts, the shortest first, and how many tokens each has."""
    texts = random.Random(0).sample(sorted(set(packages(column))), rows)
    counts = [len(encoding.ids) for encoding in model_tokenizer(default_model()).encode_batch_fast(texts)]
    order = sorted(range(rows), key=counts.__getitem__)
    return [texts[place] for place in order], [counts[place] for place in order]


def _rivals(running: ExitStack, sample: Sequence[str], report: Report) -> dict[str, Contender]:
    """The rivals that are installed, and whose vectors are those of sentence-transformers."""
    rivals: dict[str, Contender] = {}
    reference: Vectors | None = None
    for name in RIVALS:
        rival = running.enter_context(closing(Contender(name)))
        try:
            vectors = rival.encode(sample)
        except ImportError as error:
            report.missing[name] = f"not installed ({error})"
            continue
        reference = vectors if reference is None else reference
        if (cosine := _lowest_cosine(vectors, reference)) < LOWEST_COSINE:
            report.missing[name] = f"left out: its vectors are not those of the others (cosine {cosine:.4f})"
        else:
            rivals[name] = rival
    return rivals


def _mixed(
    own: dict[str, Contender], rivals: dict[str, Contender], texts: list[str], tokens: int, rounds: int, report: Report
) -> Samples:
    """Tokens a second of each."""
    measures = {name: partial(each.seconds, texts) for name, each in (own | rivals).items()}
    seconds = interleave("mixed texts", measures, rounds)
    speeds = {name: [tokens / each for each in values] for name, values in seconds.items()}
    for precision, rival, goal in GOALS:
        if rival in rivals:
            report.compare(f"mixed, {precision}", speeds[precision], rival, speeds[rival], "tokens/s", goal)
    if SENTENCE_TRANSFORMERS in rivals:
        reference = rivals[SENTENCE_TRANSFORMERS].encode(texts)
        for name, each in own.items():
            cosine = _lowest_cosine(each.encode(texts), reference)
            report.lines.append((f"lowest cosine, {name}", "", SENTENCE_TRANSFORMERS, "", f"{cosine:.6f}", "", ""))
    return speeds


def _short(own: dict[str, Contender], rivals: dict[str, Contender], rows: int, rounds: int, report: Report) -> None:
    rival = SENTENCE_TRANSFORMERS
    if rival not in rivals:
        return
    texts, counts = _sample("summary", rows)
    measures = {name: partial(each.seconds, texts) for name, each in (own | {rival: rivals[rival]}).items()}
    seconds = interleave("short texts", measures, rounds)
    speeds = {name: [sum(counts) / each for each in values] for name, values in seconds.items()}
    for precision, goal in (("bfloat16", ">= 4"), ("float32", "")):
        report.compare(f"short, {precision}", speeds[precision], rival, speeds[rival], "tokens/s", goal)


def _queries(count: int, rounds: int, report: Report) -> None:
    """The p50 of so many queries, one at a time; no text is encoded twice, so no memory of recent ones helps."""
    texts = sorted(set(packages("summary")))
    random.Random(1).shuffle(texts)
    unused = iter(texts)
    rival = SENTENCE_TRANSFORMERS

    def latency(contender: Contender) -> float:
        return contender.latency(list(itertools.islice(unused, count))) * 1000

    with ExitStack() as running:
        asking = {name: running.enter_context(closing(Contender(name, "query"))) for name in ("auto", "float32", rival)}
        samples = interleave("queries", {name: partial(latency, each) for name, each in asking.items()}, rounds)
    report.compare("query p50, auto", samples["auto"], rival, samples[rival], "ms", "<= 0.3")
    report.compare("query p50, float32", samples["float32"], rival, samples[rival], "ms")


def _start(rounds: int, report: Report) -> None:
    measures = {"install": partial(child, "install")} | {
        name: partial(child, "first", name, default_model().path) for name in _started(report)
    }
    samples = interleave("new processes", measures, rounds)
    _against_rival("new process to first vector", samples, "s", "<= 0.3", report)
    seconds = median(samples["install"])
    report.add("new process: import, connect, install", f"{seconds:.3f} s", "", "", seconds, "< 0.22")


def _memory(mixed: list[str], rounds: int, report: Report) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as texts:
        json.dump(mixed, texts)
        texts.flush()
        path = default_model().path
        measures = {name: partial(child, "peak", name, path, texts.name) for name in _started(report)}
        samples = interleave("memory", measures, rounds)
    _against_rival(f"peak memory, {len(mixed):,} mixed texts", samples, "MB", "<= 1", report)


def _started(report: Report) -> list[str]:
    return [name for name in ("auto", "float32", SENTENCE_TRANSFORMERS) if name not in report.missing]


def _against_rival(what: str, samples: Samples, unit: str, goal: str, report: Report) -> None:
    rival = SENTENCE_TRANSFORMERS
    if rival in samples:
        report.compare(f"{what}, auto", samples["auto"], rival, samples[rival], unit, goal)
        report.compare(f"{what}, float32", samples["float32"], rival, samples[rival], unit)


def _lowest_cosine(vectors: Vectors, reference: Vectors) -> float:
    """The least similarity of two encoders' vectors of one text, whatever their lengths."""
    a, b = (each.astype(np.float64) for each in (vectors, reference))
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def _limits() -> dict[str, float]:
    return {precision: arithmetic.limit(precision) for precision in PRECISIONS}


def _show_limits(limits: dict[str, float], gflop: float, speeds: Samples) -> None:
    """What the machine could do at most, and how near to it the encoder is, at so many GFLOP a token."""
    rows = []
    for precision, most in limits.items():
        share = f"{median(speeds[precision]) * gflop / most:.0%}" if speeds else ""
        rival = speeds.get(SENTENCE_TRANSFORMERS)
        allowed = f"{most / gflop / median(rival):.1f}" if rival else ""
        rows.append((precision, f"{most:,.0f}", f"{most / gflop:,.0f}", share, allowed))
    header = ("precision", "GFLOP/s", "tokens/s it allows", "ours of it", f"times {SENTENCE_TRANSFORMERS} it allows")
    show(f"The arithmetic limit of this machine; {gflop * 1000:.1f} MFLOP a token", header, rows)


def _show_quality(quick: bool) -> None:
    rows = []
    for name, most in (("cranfield", None), ("scifact", 1000 if quick else None)):
        collection = judged_collections.load(name, most)
        if collection is None:
            print(f"Not measured: {name}: {DATA / name} is not there")
            continue
        reference = f"{judged_collections.REFERENCE[name]:.4f}" if collection.whole else ""
        for precision in PRECISIONS:
            print(f"quality: {name}, {precision}", file=sys.stderr, flush=True)
            with closing(Contender(precision)) as documents, closing(Contender(precision, "query")) as queries:
                vectors = documents.encode(collection.documents), queries.encode(collection.queries)
            value = judged_collections.ndcg(collection, judged_collections.nearest(*vectors))
            rows.append((collection.label, precision, f"{value:.4f}", reference))
    show("nDCG@10 by exact search", ("collection", "precision", "ours", SENTENCE_TRANSFORMERS), rows)


if __name__ == "__main__":
    main()
