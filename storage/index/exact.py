"""Exact search: compares every vector, block by block, so that memory stays bounded.

A product in float32 finds the rows that may be among the best. Their similarity is then computed in float64, so that it
does not depend on the position of a row in a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jammi_duck.types import Vectors

# The error of a product in float32: rows this near to the last of the best may belong to the best.
TIE = 1e-6
# If at most one row in this many is allowed, the allowed rows are copied out of the block before the product.
SPARSE = 8
_QUERIES_AT_ONCE = 256
# Less than any similarity.
LEAST = -2.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """Rows that may be among the best for each of n queries, in no order, padded to the same width.

    `positions` are row numbers, int64 [n, width], and -1 for padding; `similarities` are float32, and -inf for padding.
    """

    positions: NDArray[np.int64]
    similarities: NDArray[np.float32]


class Block(NamedTuple):
    """Vectors, float32 [rows, dimensions], the number of the first, and a mask of the allowed rows, if not all."""

    start: int
    vectors: Vectors
    allowed: Mask | None


def scan(blocks: Iterable[Block], queries: Vectors, count: int, bars: NDArray[np.float32]) -> Candidates:
    """The `count` rows nearest to each query and all ties with the last, among the rows that reach the query's bar.

    `bars` are the smallest similarities, float32 [n], or `LEAST` for no bar; rows up to `TIE` below may be found, too.
    """
    best = [_Best(query, count, bar) for query, bar in zip(queries, bars.tolist(), strict=True)]
    for start, block, allowed in blocks:
        vectors, positions, barred = block, np.arange(start, start + len(block)), None
        if allowed is not None:
            here = np.flatnonzero(allowed)
            if len(here) * SPARSE <= len(block):
                vectors, positions = block[here], start + here
            else:
                barred = ~allowed
        if not len(vectors):
            continue
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            last = first + _QUERIES_AT_ONCE
            for rough, found in zip(_products(queries[first:last], vectors), best[first:last], strict=True):
                if barred is not None:
                    rough[barred] = -np.inf
                found.offer(rough, vectors, positions)
    return padded([found.positions for found in best], [found.similarities for found in best])


def similarities(vectors: Vectors, queries: Vectors) -> NDArray[np.float32]:
    """Inner products of each query, [n, dimensions], with its own vectors, [n, width, dimensions]."""
    products = np.matmul(vectors.astype(np.float64), queries.astype(np.float64)[:, :, None])
    exact: NDArray[np.float32] = products[:, :, 0].astype(np.float32)
    return exact


def joined(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of several searches for the same queries."""
    if len(parts) == 1:
        return parts[0]
    return Candidates(
        np.concatenate([part.positions for part in parts], axis=1),
        np.concatenate([part.similarities for part in parts], axis=1),
    )


def padded(positions: Sequence[NDArray[np.int64]], near: Sequence[NDArray[np.float32]]) -> Candidates:
    """Candidates of lists of different lengths."""
    width = max(map(len, positions), default=0)
    found = Candidates(np.full((len(positions), width), -1), np.full((len(positions), width), -np.inf, np.float32))
    for i, (rows, similar) in enumerate(zip(positions, near, strict=True)):
        found.positions[i, : len(rows)] = rows
        found.similarities[i, : len(rows)] = similar
    return found


def _products(queries: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    if len(queries) > 1:
        return np.asarray(queries @ vectors.T)
    # One by one, the dot products read memory as fast as a core can; numpy's matrix @ vector was slower.
    return np.asarray(vectors[:, None] @ queries[0][:, None])[None, :, 0, 0]


class _Best:
    """The best rows for one query so far, among those that reach the bar."""

    def __init__(self, query: NDArray[np.float32], count: int, bar: float) -> None:
        self._query = query
        self._count = count
        self._bar = bar
        self.positions = np.empty(0, np.int64)
        self.similarities = np.empty(0, np.float32)

    def offer(self, rough: NDArray[np.float32], vectors: Vectors, positions: NDArray[np.int64]) -> None:
        near = np.flatnonzero(rough >= self._bar - TIE)
        if len(near) > self._count:
            near = near[rough[near] >= _last_of(rough[near], self._count) - TIE]
        if not len(near):
            return
        self.positions = np.concatenate([self.positions, positions[near]])
        exactly = similarities(vectors[None, near], self._query[None])[0]
        self.similarities = np.concatenate([self.similarities, exactly])
        if len(self.positions) > self._count:
            self._bar = float(_last_of(self.similarities, self._count))
            kept = self.similarities >= self._bar
            self.positions, self.similarities = self.positions[kept], self.similarities[kept]


def _last_of(values: NDArray[np.float32], count: int) -> np.float32:
    """The `count`-th largest of more values than that."""
    last: np.float32 = np.partition(values, len(values) - count)[len(values) - count]
    return last
