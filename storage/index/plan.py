"""How a segment is searched: by its graph, or by looking at every vector, whichever is predicted to be faster.

The costs were measured (docs/search.md); only their ratios matter.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from jammi_duck.storage.index.exact import SPARSE
from jammi_duck.storage.index.sidecars import expansion

# Neighbours asked for beyond k: bfloat16 puts some in another order, and others may tie with the k-th.
SPARE = 16
CORES = os.cpu_count() or 1
# A filter's rows may be rarer near the query than elsewhere: so many times as many as should do are asked for.
_MARGIN = 1.5
# Those that are left out are visited, too: the search widens as they are more, up to so many times.
_WIDEST = 2

_MS_PER_BYTE_READ = 1 / 30e6
_MS_PER_BYTE_COPIED = 1 / 5e6
_MS_PER_PRODUCT = 1 / 50e6
_MS_PER_BLOCK_ROW = 1 / 1e6
_MS_PER_NEIGHBOUR = 0.0025


@dataclass(frozen=True)
class Plan:
    """The way a segment is searched: `wanted` neighbours are asked of its graph, or every vector is looked at.

    What either is predicted to cost is in milliseconds.
    """

    way: Literal["graph", "exact"]
    wanted: int
    graph_ms: float
    exact_ms: float


def predict(rows: int, allowed: int, k: int, dimensions: int, queries: int) -> Plan:
    """The plan for a segment of `rows`, of which so many are allowed, when `k` of them are wanted for each query."""
    wanted = neighbours(rows, allowed, k)
    graph, exactly = graph_ms(rows, wanted, k, queries), exact_ms(rows, allowed, dimensions, queries)
    return Plan("exact" if wanted >= rows or exactly <= graph else "graph", wanted, graph, exactly)


def neighbours(rows: int, allowed: int, k: int) -> int:
    """How many neighbours to ask a graph for, so that `k` of the one or more allowed are likely to be among them."""
    share = rows / allowed
    likely = math.ceil(max(expansion(rows) * min(share, _WIDEST), (k + SPARE) * share * _MARGIN))
    certain = k + SPARE + rows - allowed
    return min(rows, likely, certain)


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
