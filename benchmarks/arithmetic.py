"""Measures the arithmetic rate of this machine, and computes how much arithmetic a model needs for texts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

# Rows, inner dimension, columns: those of the model's own layers, and larger ones.
_SHAPES = ((2048, 384, 1536), (2048, 1536, 384), (2048, 384, 1152), (4096, 1024, 1024), (2048, 2048, 2048))
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def limit(precision: str, seconds: float = 2.0) -> float:
    """The best GFLOP/s of a matrix product with all of torch's threads.

    Of several shapes, each by torch's own product and by oneDNN with the weights packed beforehand, which on some
    processors is much faster in float32.
    """
    best = 0.0
    each = seconds / len(_SHAPES) / 2
    for rows, inner, columns in _SHAPES:
        left = torch.randn(rows, inner).to(PRECISIONS[precision])
        right = torch.randn(columns, inner).to(PRECISIONS[precision])
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
