"""Measures the arithmetic rate of this machine, and computes how much arithmetic a model needs for texts."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

# Rows, inner dimension, columns: those of the model's own layers, and larger ones.
_SHAPES = ((2048, 384, 1536), (2048, 1536, 384), (2048, 384, 1152), (4096, 1024, 1024), (2048, 2048, 2048))
# As the numbers of peak.c.
PRECISIONS = ("float32", "bfloat16", "int8")
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_STEPS = 1_000_000


def cores() -> int:
    """Of this process."""
    return len(os.sched_getaffinity(0))


def registers(precision: str, bits: int = 512) -> float | None:
    """The best 10^9 operations/s of all cores with numbers in registers, in vectors of at most so many bits.

    None where the CPU has no instructions for it, or nothing compiles them. A core's time counts only while it runs.
    """
    peak = _compiled_peak()
    if peak is None:
        return None
    with ThreadPoolExecutor(cores()) as threads:
        found = threads.map(lambda _: peak(PRECISIONS.index(precision), bits, _STEPS), range(cores()))
    return sum(found) or None


def product(precision: str, seconds: float = 2.0) -> float | None:
    """The best GFLOP/s of a matrix product with all of torch's threads; None for int8.

    Of several shapes, each by torch's own product and by oneDNN with the weights packed beforehand, which on some
    processors is much faster in float32.
    """
    if precision not in _TYPES:
        return None
    best = 0.0
    each = seconds / len(_SHAPES) / 2
    for rows, inner, columns in _SHAPES:
        left = torch.randn(rows, inner).to(_TYPES[precision])
        right = torch.randn(columns, inner).to(_TYPES[precision])
        for product in (_plain(left, right), _packed(left, right)):
            best = max(best, 2 * rows * inner * columns / _quickest(product, each) / 1e9)
    return best


def work(model: Path, lengths: Sequence[int]) -> float:
    """The GFLOP that texts of so many tokens need at least in a BERT model: its products of matrices, without padding.

    With hidden size h and intermediate size i, a text of L tokens takes, in each layer,
    2 L (4 h h + 2 h i) for the weights (query, key, value and output: 4 h h; the two of the feed-forward part: 2 h i),
    and 4 L L h for attention (queries by keys, and weights by values).
    """
    config = json.loads((model / "config.json").read_text())
    h, i = config["hidden_size"], config["intermediate_size"]
    a_layer = sum(2 * n * (4 * h * h + 2 * h * i) + 4 * n * n * h for n in lengths)
    return float(config["num_hidden_layers"] * a_layer / 1e9)


@cache
def _compiled_peak() -> Callable[[int, int, int], float] | None:
    """`peak` of peak.c, which runs without the interpreter's lock."""
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "peak.so")
        source = Path(__file__).with_name("peak.c")
        command: list[str | Path] = [compiler, "-O2", "-shared", "-fPIC", "-o", made, source]
        if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            return None
        peak = ctypes.CDLL(str(made)).peak
    peak.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_long
    peak.restype = ctypes.c_double
    return peak


def _plain(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    return lambda: torch.nn.functional.linear(left, right)


def _packed(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(right.to_mkldnn(), len(left))
        torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return _plain(left, right)
    return lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")


def _quickest(product: Callable[[], object], seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        while (started := time.perf_counter()) < end:
            product()
            best = min(best, time.perf_counter() - started)
    return best
