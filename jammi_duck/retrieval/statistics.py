"""How far chance may move a mean over questions: bootstrap intervals, and the paired randomisation test.

All draws are seeded: the same scores give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
_SEED = 1
# The percentiles that enclose 95 %.
_ENDS = (2.5, 97.5)
# How many numbers are drawn at a time: few enough for the caches of a processor.
_AT_ONCE = 1 << 16
# Sums of the same numbers in another order differ by so little.
_ROUNDING = 1e-12

Numbers = NDArray[np.float64]


def bootstrap_intervals(scores: Numbers) -> Numbers:
    """The 95 % bootstrap intervals of the means of columns, float64 [questions, columns]: [2, columns], low and high.

    The questions are drawn again with replacement, 10,000 times, for all columns alike; the interval holds the middle
    95 % of the means (percentile method). For a paired difference, give the differences.
    """
    draws = np.random.default_rng(_SEED)
    count = len(scores)
    means = [_drawn_counts(draws, size, count) @ scores / count for size in _blocks(count)]
    ends: Numbers = np.percentile(np.concatenate(means), _ENDS, axis=0)
    return ends


def randomisation_p(differences: Numbers) -> float:
    """The two-sided p-value of a paired randomisation test, for the differences of questions, float64 [questions].

    It is the share of all ways to swap the two sides of questions whose mean difference is at least as large as that
    found. Where there are more than 10,000 ways, so many are drawn, and the one found is counted as another.
    """
    moved = differences[differences != 0]
    least = abs(moved.sum()) - _ROUNDING * np.abs(moved).sum()
    if 2 ** min(len(moved), 64) <= DRAWS:
        ways = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((1 - 2 * ways) @ moved) >= least).mean())
    draws = np.random.default_rng(_SEED)
    extreme = 0
    for size in _blocks(len(moved)):
        signs = 1 - 2 * draws.integers(2, size=(size, len(moved)), dtype=np.int8)
        extreme += int((np.abs(signs @ moved) >= least).sum())
    return (extreme + 1) / (DRAWS + 1)


def _drawn_counts(draws: np.random.Generator, size: int, count: int) -> Numbers:
    """How often each of `count` questions is drawn, in each of `size` draws with replacement."""
    drawn = draws.integers(count, size=(size, count), dtype=np.int32)
    counts = np.bincount((drawn + np.arange(size)[:, None] * count).reshape(-1), minlength=size * count)
    return counts.reshape(size, count).astype(np.float64)


def _blocks(count: int) -> Iterator[int]:
    """The draws in blocks that fit into memory."""
    most = max(1, _AT_ONCE // max(1, count))
    for start in range(0, DRAWS, most):
        yield min(most, DRAWS - start)
