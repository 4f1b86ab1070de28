"""Chooses how to search a segment: by an index, or by comparing every vector, whichever is predicted to be fastest.

The costs were measured (docs/search.md); only their ratios matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jammi_duck.cpus import cpus
from jammi_duck.storage.index.exact import SPARSE
from jammi_duck.storage.index.kinds import VectorIndex

CORES = cpus()

_MS_PER_BYTE_READ = 1 / 30e6
_MS_PER_BYTE_COPIED = 1 / 5e6
_MS_PER_PRODUCT = 1 / 50e6
_MS_PER_BLOCK_ROW = 1 / 1e6


@dataclass(frozen=True)
class Plan:
    """How to search a segment: compare every vector if `exact`, or request neighbours from the `index`.

    `index` is the fastest index of the segment, and `wanted` the number of neighbours to request from it. The predicted
    times of both ways are in milliseconds.
    """

    exact: bool
    index: VectorIndex
    wanted: int
    index_ms: float
    exact_ms: float


def choose(indexes: Sequence[VectorIndex], rows: int, allowed: int, k: int, *, dimensions: int, queries: int) -> Plan:
    """The plan for a segment of `rows` rows, `allowed` of them allowed, if `k` are wanted for each query.

    The segment has at least one index.
    """
    asked = [(index, index.neighbours(allowed, k)) for index in indexes]
    index_ms, (index, wanted) = min(
        ((index.ms(wanted, k, queries), (index, wanted)) for index, wanted in asked), key=lambda each: each[0]
    )
    exactly = exact_ms(rows, allowed, dimensions, queries)
    return Plan(wanted >= rows or exactly <= index_ms, index, wanted, index_ms, exactly)


def exact_ms(rows: int, allowed: int, dimensions: int, queries: int) -> float:
    """The time to compare every allowed vector, in milliseconds for one of so many queries."""
    if allowed * SPARSE <= rows:
        read, multiplied = allowed * dimensions * 4 * _MS_PER_BYTE_COPIED, allowed
    else:
        read, multiplied = rows * dimensions * 4 * _MS_PER_BYTE_READ, rows
    products = multiplied * dimensions * _MS_PER_PRODUCT if queries > 1 else 0.0
    return read / queries + products + multiplied * _MS_PER_BLOCK_ROW
