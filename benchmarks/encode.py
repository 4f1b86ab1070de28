"""Encoding all-MiniLM-L6-v2: this project's engines against each other and against others on the CPU, interleaved.

Each round runs every contender once on the same texts, in an order that moves on by one; the first round warms up and
is dropped. A ratio is the median of the rounds' ratios. The texts are distinct, a seeded sample, and sorted by their
tokens for all: systems that do not sort need not. The rivals need benchmarks/requirements.txt, and Jammi an environment
of its own (see CONTRIBUTING.md). The first search in a new shell is measured by benchmarks/shell.py.
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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks import arithmetic, encode_rival, judged_collections
from benchmarks.common import DATA, packages, show
from benchmarks.contenders import (
    AUTO,
    NATIVE_AVX2,
    NATIVE_BFLOAT16,
    NATIVE_FLOAT32,
    NATIVE_INT8,
    ONNX_AVX2,
    ONNX_INT8,
    OPENVINO_INT8,
    OWN,
    RIVALS,
    SENTENCE_TRANSFORMERS,
    TORCH_BFLOAT16,
    TORCH_FLOAT32,
    default_model,
    model_tokenizer,
)
from benchmarks.rounds import HEADER, Contender, Report, Samples, child, interleave
from jammi_duck.errors import JammiError

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

PARTS = ("mixed", "short", "query", "start", "memory", "jammi", "limit", "quality")
# A rival whose vectors are further from those of sentence-transformers computes something else.
LOWEST_COSINE, LOWEST_COSINE_INT8 = 0.999, 0.9
# One of ours, whom it is compared with, and by how many times as fast it should be.
GOALS = (
    (NATIVE_BFLOAT16, TORCH_BFLOAT16, ">= 1.2"),
    (NATIVE_BFLOAT16, "OpenVINO bfloat16", ">= 1.3"),
    (NATIVE_BFLOAT16, "OpenVINO bfloat16, hint THROUGHPUT", ""),
    (NATIVE_BFLOAT16, SENTENCE_TRANSFORMERS, ">= 5.5"),
    (NATIVE_FLOAT32, TORCH_FLOAT32, ">= 1.15"),
    (NATIVE_FLOAT32, "OpenVINO float32", "> 1"),
    (NATIVE_FLOAT32, "ONNX Runtime float32", "> 1"),
    (NATIVE_FLOAT32, "fastembed float32", "> 1"),
    (NATIVE_FLOAT32, SENTENCE_TRANSFORMERS, ">= 3.5"),
    (NATIVE_INT8, TORCH_BFLOAT16, ">= 2.2"),
    (NATIVE_INT8, OPENVINO_INT8, "> 1"),
    (NATIVE_INT8, f"{OPENVINO_INT8}, hint THROUGHPUT", ""),
    (NATIVE_INT8, ONNX_INT8, "> 1"),
    (NATIVE_INT8, SENTENCE_TRANSFORMERS, ""),
    (NATIVE_AVX2, ONNX_AVX2, "> 1"),
)
# How much of the similarity to float32 ours loses, by how much they lose.
LOSS_GOALS = ((NATIVE_INT8, OPENVINO_INT8, "< 1"), (NATIVE_INT8, ONNX_INT8, "< 1"))
# The precision and the bits of the vectors whose limit a contender has, and how much of it should be reached.
LIMITS = {
    NATIVE_BFLOAT16: ("bfloat16", 512, ">= 0.8"),
    NATIVE_INT8: ("int8", 512, ">= 0.6"),
    NATIVE_FLOAT32: ("float32", 512, ""),
    NATIVE_AVX2: ("float32", 256, ""),
}
# What a lone query takes at most, in ms, and by what sentence-transformers takes.
QUERY_GOALS = {NATIVE_BFLOAT16: ("<= 0.6", "<= 0.09"), NATIVE_INT8: ("<= 0.3", "<= 0.09"), NATIVE_FLOAT32: ("", "")}
# By how much nDCG@10 may differ from float32.
QUALITY_GOALS = {NATIVE_FLOAT32: "", NATIVE_BFLOAT16: "<= 0.001", NATIVE_INT8: "<= 0.004"}


class Limit(NamedTuple):
    """The most 10^9 operations/s, with numbers in registers and in products of torch, where they were measured."""

    registers: float | None
    product: float | None

    @property
    def most(self) -> float | None:
        """The higher one."""
        return max((each for each in self if each), default=None)


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
    cosines: dict[str, tuple[float, float]] = {}
    with ExitStack() as running:
        few = mixed[:: max(1, len(mixed) // 64)]
        own = _own(running, few, report) if parts - {"limit", "jammi"} else {}
        if parts & {"mixed", "short", "query", "start", "memory"}:
            names = tuple(RIVALS) if "mixed" in parts else (SENTENCE_TRANSFORMERS,)
            rivals = _rivals(running, names, few, report)
        if "mixed" in parts:
            speeds = _mixed(own, rivals, mixed, sum(lengths), options.rounds, report)
            cosines = _cosines(own | rivals, mixed, report)
        if "short" in parts:
            _short(own, rivals, options.short_rows, options.rounds, report)
    if "query" in parts:
        _queries(options.queries, options.rounds, report)
    if "start" in parts:
        _start(options.rounds, report)
    if "memory" in parts:
        _memory(mixed, min(options.rounds, 3), report)
    if "jammi" in parts:
        encode_rival.compare(report, mixed, min(options.rounds, 2))
    gflop = arithmetic.work(default_model().path, lengths) / sum(lengths)
    best = _best([*limits, _limits()]) if limits else {}
    _add_limits(best, gflop, speeds, report)
    quality = _quality(options.quick, report) if "quality" in parts else []
    title = f"Encoding with {default_model().name}, {arithmetic.cores()} cores, {options.rounds} rounds"
    show(title, HEADER, report.lines)
    print(f"Mixed: {len(mixed):,} texts, {sum(lengths):,} tokens, median {median(lengths):.0f}, most {lengths[-1]}.")
    print(f"Other load on the machine when it began (average of a minute): {load:.1f}.")
    for name, reason in report.missing.items():
        print(f"Not measured: {name}: {reason}")
    if speeds:
        _show_contenders(speeds, cosines)
    if best:
        _show_limits(best, gflop, speeds)
    if quality:
        show("nDCG@10 by exact search", ("collection", "ours", "found", SENTENCE_TRANSFORMERS), quality)
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    report.end()


def _sample(column: str, rows: int) -> tuple[list[str], list[int]]:
    """Distinct texts, the shortest first, and how many tokens each has."""
    texts = random.Random(0).sample(sorted(set(packages(column))), rows)
    counts = [len(encoding.ids) for encoding in model_tokenizer(default_model()).encode_batch_fast(texts)]
    order = sorted(range(rows), key=counts.__getitem__)
    return [texts[place] for place in order], [counts[place] for place in order]


def _own(running: ExitStack, sample: Sequence[str], report: Report) -> dict[str, Contender]:
    """Ours that can be had on this machine."""
    own: dict[str, Contender] = {}
    for name in OWN:
        if name == AUTO:
            continue
        contender = running.enter_context(closing(Contender(name)))
        try:
            contender.encode(sample)
        except JammiError as error:
            report.missing[name] = str(error)
        else:
            own[name] = contender
    return own


def _rivals(running: ExitStack, names: Sequence[str], sample: Sequence[str], report: Report) -> dict[str, Contender]:
    """The rivals that are installed, and whose vectors are those of sentence-transformers."""
    rivals: dict[str, Contender] = {}
    reference: Vectors | None = None
    for name in names:
        rival = running.enter_context(closing(Contender(name)))
        try:
            vectors = rival.encode(sample)
        except ImportError as error:
            report.missing[name] = f"not installed ({error})"
            continue
        reference = vectors if reference is None else reference
        lowest = _similarities(vectors, reference)[0]
        if lowest < (LOWEST_COSINE_INT8 if "int8" in name else LOWEST_COSINE):
            report.missing[name] = f"left out: its vectors are not those of the others (cosine {lowest:.4f})"
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
    for ours, rival, goal in GOALS:
        if ours in speeds and rival in speeds:
            report.compare(f"mixed, {ours}", speeds[ours], rival, speeds[rival], "tokens/s", goal)
    return speeds


def _cosines(contenders: dict[str, Contender], texts: list[str], report: Report) -> dict[str, tuple[float, float]]:
    """The lowest and the mean similarity of each to sentence-transformers, if that is there."""
    if SENTENCE_TRANSFORMERS not in contenders:
        return {}
    reference = contenders[SENTENCE_TRANSFORMERS].encode(texts)
    cosines = {name: _similarities(each.encode(texts), reference) for name, each in contenders.items()}
    for ours, rival, goal in LOSS_GOALS:
        if ours in cosines and rival in cosines:
            (_, mean), (_, theirs) = cosines[ours], cosines[rival]
            ratio = (1 - mean) / (1 - theirs)
            report.add(f"1 - mean cosine, {ours}", f"{1 - mean:.6f}", rival, f"{1 - theirs:.6f}", ratio, goal)
    return cosines


def _short(own: dict[str, Contender], rivals: dict[str, Contender], rows: int, rounds: int, report: Report) -> None:
    rival = SENTENCE_TRANSFORMERS
    if rival not in rivals:
        return
    texts, counts = _sample("summary", rows)
    measures = {name: partial(each.seconds, texts) for name, each in (own | {rival: rivals[rival]}).items()}
    seconds = interleave("short texts", measures, rounds)
    speeds = {name: [sum(counts) / each for each in values] for name, values in seconds.items()}
    for name, other, goal in (
        (NATIVE_BFLOAT16, rival, ">= 4"),
        (NATIVE_BFLOAT16, TORCH_BFLOAT16, ""),
        (NATIVE_FLOAT32, rival, ""),
        (NATIVE_FLOAT32, TORCH_FLOAT32, ""),
        (NATIVE_INT8, rival, ""),
        (NATIVE_INT8, TORCH_BFLOAT16, ""),
    ):
        if name in speeds and other in speeds:
            report.compare(f"short, {name}", speeds[name], other, speeds[other], "tokens/s", goal)


def _queries(count: int, rounds: int, report: Report) -> None:
    """The p50 of so many queries, one at a time; no text is encoded twice, so no memory of recent ones helps."""
    texts = sorted(set(packages("summary")))
    random.Random(1).shuffle(texts)
    unused = iter(texts)
    rival = SENTENCE_TRANSFORMERS

    def latency(contender: Contender) -> float:
        return contender.latency(list(itertools.islice(unused, count))) * 1000

    names = [name for name in (*QUERY_GOALS, TORCH_BFLOAT16, rival) if name not in report.missing]
    with ExitStack() as running:
        asking = {name: running.enter_context(closing(Contender(name, "query"))) for name in names}
        samples = interleave("queries", {name: partial(latency, each) for name, each in asking.items()}, rounds)
    for name, (most, goal) in QUERY_GOALS.items():
        if name not in samples:
            continue
        middle = median(samples[name])
        report.add(f"query p50, {name}, ms", f"{middle:.3g} ms", "", "", middle, most)
        for other, wanted in ((rival, goal), (TORCH_BFLOAT16, "")):
            if other in samples:
                report.compare(f"query p50, {name}", samples[name], other, samples[other], "ms", wanted)


def _start(rounds: int, report: Report) -> None:
    model, rival = default_model().path, SENTENCE_TRANSFORMERS
    measures = {"install": partial(child, "install"), "vector": partial(child, "vector")}
    measures |= {name: partial(child, "first", name, model) for name in _started(report)}
    samples = interleave("new processes", measures, rounds)
    seconds = median(samples["vector"])
    what = "new process: import, install, first vector"
    report.add(f"{what}, s", f"{seconds:.3f} s", "", "", seconds, "<= 0.35")
    if rival in samples:
        report.compare(what, samples["vector"], rival, samples[rival], "s", "<= 0.1")
    _against_rival("new process to first vector, encoder alone", samples, "s", "", report)
    seconds = median(samples["install"])
    report.add("new process: import, connect, install", f"{seconds:.3f} s", "", "", seconds, "< 0.22")


def _memory(mixed: list[str], rounds: int, report: Report) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as texts:
        json.dump(mixed, texts)
        texts.flush()
        path = default_model().path
        measures = {name: partial(child, "peak", name, path, texts.name) for name in _started(report)}
        samples = interleave("memory", measures, rounds)
    _against_rival(f"peak memory, {len(mixed):,} mixed texts", samples, "MB", "<= 0.5", report)


def _started(report: Report) -> list[str]:
    names = (AUTO, NATIVE_FLOAT32, NATIVE_INT8, TORCH_BFLOAT16, SENTENCE_TRANSFORMERS)
    return [name for name in names if name not in report.missing]


def _against_rival(what: str, samples: Samples, unit: str, goal: str, report: Report) -> None:
    rival = SENTENCE_TRANSFORMERS
    if rival in samples:
        for name in samples:
            if name in OWN:
                is_meant = name == AUTO
                values = samples[name]
                report.compare(f"{what}, {name}", values, rival, samples[rival], unit, goal if is_meant else "")


def _similarities(vectors: Vectors, reference: Vectors) -> tuple[float, float]:
    """The lowest and the mean similarity of two encoders' vectors of one text, whatever their lengths."""
    a, b = (each.astype(np.float64) for each in (vectors, reference))
    found = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(found.min()), float(found.mean())


def _limits() -> dict[str, Limit]:
    limits: dict[str, Limit] = {}
    for name, (precision, bits, _) in LIMITS.items():
        # torch's products are not held to smaller vectors.
        product = arithmetic.product(precision) if bits == 512 else None
        limits[name] = Limit(arithmetic.registers(precision, bits), product)
    return limits


def _best(measured: list[dict[str, Limit]]) -> dict[str, Limit]:
    """The highest of several measures."""

    def most(found: Sequence[float | None]) -> float | None:
        return max((each for each in found if each), default=None)

    return {
        name: Limit(most([each[name].registers for each in measured]), most([each[name].product for each in measured]))
        for name in LIMITS
    }


def _add_limits(limits: dict[str, Limit], gflop: float, speeds: Samples, report: Report) -> None:
    for name, limit in limits.items():
        if limit.most is None:
            report.missing[f"the limit of {name}"] = "this CPU cannot, or there is no C compiler that knows how"
        elif name in speeds:
            speed, allowed = median(speeds[name]), limit.most / gflop
            goal = LIMITS[name][2]
            what = f"mixed, {name}"
            report.add(what, f"{speed:,.0f} tokens/s", "its limit", f"{allowed:,.0f} tokens/s", speed / allowed, goal)


def _show_contenders(speeds: Samples, cosines: dict[str, tuple[float, float]]) -> None:
    rows = []
    for name, values in sorted(speeds.items(), key=lambda each: -median(each[1])):
        lowest, mean = cosines.get(name, (float("nan"), float("nan")))
        rows.append((name, f"{median(values):,.0f}", f"{lowest:.6f}", f"{mean:.6f}"))
    header = ("mixed texts", "tokens/s", f"lowest cosine to {SENTENCE_TRANSFORMERS}", "mean cosine")
    show("All contenders, the fastest first", header, rows)


def _show_limits(limits: dict[str, Limit], gflop: float, speeds: Samples) -> None:
    """What the machine could do at most, and how near to it the encoder is, at so many GFLOP a token."""
    rows = []
    for name, limit in limits.items():
        if limit.most is None:
            continue
        share = f"{median(speeds[name]) * gflop / limit.most:.0%}" if name in speeds else ""
        rival = speeds.get(SENTENCE_TRANSFORMERS)
        allowed = f"{limit.most / gflop / median(rival):.1f}" if rival else ""
        both = [f"{each:,.0f}" if each else "" for each in limit]
        rows.append((name, *both, f"{limit.most / gflop:,.0f}", share, allowed))
    header = (
        "ours", "in registers, 10^9 operations/s", "product of torch", "tokens/s the higher allows", "ours of it",
        f"times {SENTENCE_TRANSFORMERS} it allows",
    )  # fmt: skip
    show(f"The arithmetic limit of this machine; {gflop * 1000:.1f} million operations a token", header, rows)


def _quality(quick: bool, report: Report) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for collection_name, most in (("cranfield", None), ("scifact", 1000 if quick else None)):
        collection = judged_collections.load(collection_name, most)
        if collection is None:
            report.missing[f"nDCG@10 on {collection_name}"] = f"{DATA / collection_name} is not there"
            continue
        reference = f"{judged_collections.REFERENCE[collection_name]:.4f}" if collection.whole else ""
        exact: float | None = None
        for name, goal in QUALITY_GOALS.items():
            if name in report.missing:
                continue
            print(f"quality: {collection_name}, {name}", file=sys.stderr, flush=True)
            with closing(Contender(name)) as documents, closing(Contender(name, "query")) as queries:
                vectors = documents.encode(collection.documents), queries.encode(collection.queries)
            value = judged_collections.ndcg(collection, judged_collections.nearest(*vectors))
            rows.append((collection.label, name, f"{value:.4f}", reference))
            if exact is None:
                exact = value
                continue
            what = f"nDCG@10, {collection_name}, {name}, difference"
            report.add(what, f"{value:.4f}", NATIVE_FLOAT32, f"{exact:.4f}", abs(value - exact), goal)
    return rows


if __name__ == "__main__":
    main()
