"""How a segment is searched: by its graph, or by looking at every vector, whichever is predicted to be faster.

The costs were measured (docs/search.md); only their ratios matter.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from jammi_duck.storage.exact import SPARSE
from jammi_duck.storage.index import expansion

# Neighbours asked for beyond k: bfloat16 puts some in another order, and others may tie with the k-th.
SPARE = 16
CORES = os.cpu_count() or 1
# A filter's rows may be rarer near the query than elsewhere: so many times as many as should do are asked for.
_MARGIN = 1.5

# Where so many are allowed, as few neighbours do as where all are: most often those that are gone have tombstones.
_NEARLY_ALL = 0.9

_MS_PER_BYTE_READ = 1 / 30e6
_MS_PER_BYTE_COPIED = 1 / 5e6
_MS_PER_PRODUCT = 1 / 50e6
_MS_PER_BLOCK_ROW = 1 / 1e6
_MS_PER_NEIGHBOUR = 0.0025


@dataclass(frozen=True)
class Plan:
    """The way a segment is searched; `wanted` neighbours are asked of its graph. `reason` is a sentence for users."""

    way: Literal["graph", "exact"]
    wanted: int
    reason: str


def choose(rows: int, allowed: int, k: int, dimensions: int, queries: int) -> Plan:
    """The plan for a segment of `rows`, of which so many are allowed, when `k` of them are wanted for each query."""
    wanted = neighbours(rows, allowed, k)
    exactly, graph = exact_ms(rows, allowed, dimensions, queries), graph_ms(rows, wanted, k, queries)
    by_graph, by_all = f"{wanted:,} neighbours by the graph", f"{allowed:,} of {rows:,} vectors"
    if wanted >= rows or exactly <= graph:
        return Plan("exact", 0, f"{by_all}: {exactly:.2g} ms predicted, {graph:.2g} ms for {by_graph}")
    return Plan("graph", wanted, f"{by_graph}: {graph:.2g} ms predicted, {exactly:.2g} ms for {by_all}")


def neighbours(rows: int, allowed: int, k: int) -> int:
    """How many neighbours to ask a graph for, so that `k` of those that are allowed are likely to be among them."""
    if allowed >= _NEARLY_ALL * rows:
        return min(rows, math.ceil((k + SPARE) * rows / max(allowed, 1)))
    # Of those that are left out, too, the graph has to visit some.
    return min(rows, max(2 * expansion(rows), math.ceil((k + SPARE) * rows / max(allowed, 1) * _MARGIN)))


def exact_ms(rows: int, allowed: int, dimensions: int, queries: int) -> float:
    """What looking at every allowed vector costs for one of so many queries, in milliseconds."""
    if allowed * SPARSE <= rows:
        read, multiplied = allowed * dimensions * 4 * _MS_PER_BYTE_COPIED, allowed
    else:
        read, multiplied = rows * dimensions * 4 * _MS_PER_BYTE_READ, rows
    products = multiplied * dimensions * _MS_PER_PRODUCT if queries > 1 else 0.0
    return read / queries + products + multiplied * _MS_PER_BLOCK_ROW


def graph_ms(rows: int, wanted: int, k: int, queries: int) -> float:
    """What asking a graph of `rows` for so many neighbours costs for one of so many queries, in milliseconds."""
    return (max(wanted, expansion(rows)) + min(wanted, k + SPARE)) * _MS_PER_NEIGHBOUR / min(queries, CORES)
