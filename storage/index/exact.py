"""Exact search: looks at every vector, block by block, so that memory stays bounded.

A product in float32 finds the rows that may be among the best; their similarity is then computed in float64, so that
it does not depend on where in a block a row stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jammi_duck.types import Vectors

# A product in float32 may be wrong by so much: rows this near to the last of the best may belong to them.
TIE = 1e-6
# Where at most one row in so many is allowed, those are copied out of the block before they are multiplied.
SPARSE = 8
_QUERIES_AT_ONCE = 256
# Below any similarity.
LEAST = -2.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """Rows that may be among the best for each of n queries, in no order; where there are fewer, it is filled up.

    `positions` are row numbers, int64 [n, width], -1 where there is none; `similarities` are float32, -inf there.
    """

    positions: NDArray[np.int64]
    similarities: NDArray[np.float32]


class Block(NamedTuple):
    """Vectors, float32 [rows, dimensions], the number of the first, and which may be found, if not all."""

    start: int
    vectors: Vectors
    allowed: Mask | None


def scan(blocks: Iterable[Block], queries: Vectors, count: int, bars: NDArray[np.float32]) -> Candidates:
    """The `count` rows nearest to each query, and all that tie with the last, of those that reach its bar.

    `bars` are similarities, float32 [n], `LEAST` where there is none; a row that is below by `TIE` may be found, too.
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
    """Inner products of each query, [n, dimensions], with vectors of its own, [n, width, dimensions]."""
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
    """The best rows for one query so far, of those that reach the bar."""

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
