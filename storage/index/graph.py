"""The HNSW graph beside a segment, an index of USearch; see `kinds.IndexKind` and `kinds.VectorIndex`.

Its settings and costs were measured (docs/search.md). Its vectors are bfloat16, which finds the same rows as float32 at
half the size, because the rows that it returns are ranked by their float32 vectors.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.config.logs import log
from jammi_duck.errors import DamagedError
from jammi_duck.storage.index.exact import TIE, Candidates, Mask, similarities
from jammi_duck.storage.index.graph_file import check_graph
from jammi_duck.storage.index.plan import CORES
from jammi_duck.types import Vectors

if TYPE_CHECKING:
    from usearch.index import Index

CONNECTIVITY = 20
EXPANSION_ADD = 128
# The expansion of a search in a graph of up to `_ROWS` rows; it grows with larger graphs, to keep the recall.
EXPANSION_SEARCH = 128
_ROWS, _GROWTH = 100_000, 0.4
# Neighbours requested beyond k: bfloat16 changes the order of some, and others may tie with the k-th.
SPARE = 16
# Rows that pass a filter may be rarer near the query, so this many times the expected number is requested.
_MARGIN = 1.5
# Rows that are left out are visited, too, so the expansion grows with their share, up to this factor.
_WIDEST = 2
_MS_PER_NEIGHBOUR = 0.0025
# The error of a similarity of bfloat16 vectors.
_ROUGH = 0.01
# Queries whose vectors fit into a core's cache.
_QUERIES_AT_ONCE = 64
# Bytes for a row of the graph, without its vector.
_LINKS = 190
# Graphs of at least this many megabytes are mentioned in the log.
_NOTABLE = 32


@dataclass(frozen=True)
class Grown:
    """How to build a graph from that of another segment with `rows` rows, most of which keep their positions.

    The rows at `gone` are removed from `graph`. Then those at `moved` get the positions `to`, and the rows of the new
    segment in the mask `new` are added.
    """

    graph: Path
    rows: int
    gone: NDArray[np.int64]
    moved: NDArray[np.int64]
    to: NDArray[np.int64]
    new: NDArray[np.bool_]


class Graph:
    """The index kind: its graphs are built anew, or from the graph of another segment (`grown`)."""

    sidecar = "usearch"

    def __init__(self, grown: Grown | None = None) -> None:
        """Nothing is read yet."""
        self._grown = grown

    def build(self, path: Path, rows: int, dimensions: int) -> GraphBuilder:
        """See `IndexKind`; runs on all cores, and logs beforehand how much memory it needs."""
        megabytes = memory(rows, dimensions) >> 20
        level = logging.INFO if megabytes >= _NOTABLE else logging.DEBUG
        log.log(level, "indexing %s vectors takes about %s MB of memory", f"{rows:,}", f"{megabytes:,}")
        return GraphBuilder(path, _graph(dimensions, self._grown), self._grown)

    def verify(self, path: Path, rows: int, dimensions: int) -> None:
        """See `IndexKind`: a wrong number in a graph would crash the process."""
        check_graph(path, rows, dimensions)

    def open(self, path: Path, vectors: Vectors) -> OpenGraph:
        """See `IndexKind`; the file is mapped."""
        return OpenGraph(open_graph(path, *vectors.shape, view=True), vectors)


class GraphBuilder:
    """See `Builder`."""

    def __init__(self, path: Path, graph: Index, grown: Grown | None) -> None:
        """`graph` already contains the rows that it was grown from."""
        self._path = path
        self._graph = graph
        self._grown = grown

    def add(self, start: int, row_ids: pa.StringArray, vectors: Vectors) -> int:
        """See `Builder`."""
        grown = self._grown
        new = slice(None) if grown is None else np.flatnonzero(grown.new[start : start + len(vectors)])
        keys = np.arange(start, start + len(vectors))[new]
        if len(keys):
            self._graph.add(keys, vectors[new])
        return len(keys)

    def save(self) -> None:
        """See `Builder`."""
        self._graph.save(str(self._path))


class OpenGraph:
    """See `VectorIndex`."""

    name = "graph"

    def __init__(self, graph: Index, vectors: Vectors) -> None:
        """`vectors` are those of the graph's rows, float32."""
        self._graph = graph
        self._vectors = vectors
        self._one_at_a_time = threading.Lock()
        graph.expansion_search = expansion(len(vectors))

    def neighbours(self, allowed: int, k: int) -> int:
        """See `VectorIndex`."""
        return neighbours(len(self._vectors), allowed, k)

    def ms(self, wanted: int, k: int, queries: int) -> float:
        """See `VectorIndex`."""
        return graph_ms(len(self._vectors), wanted, k, queries)

    def search(
        self, queries: Vectors, k: int, wanted: int, allowed: Mask | None
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """See `VectorIndex`."""
        with self._one_at_a_time:
            matches = self._graph.search(queries, wanted, threads=0 if len(queries) > 1 else 1)
        positions = matches.keys.astype(np.int64).reshape(len(queries), -1)
        distances = matches.distances.reshape(positions.shape)
        reached = np.asarray(matches.counts if len(queries) > 1 else [len(matches)])
        there = np.arange(positions.shape[1]) < reached[:, None]
        # Beyond these, USearch leaves what was in memory.
        distances = np.where(there, distances, np.inf)
        if allowed is not None:
            there &= allowed[np.where(there, positions, 0)]
            # Move allowed rows to the front, and drop columns without any.
            first = np.argsort(~there, axis=1, kind="stable")[:, : int(there.sum(axis=1).max())]
            positions, there = np.take_along_axis(positions, first, 1), np.take_along_axis(there, first, 1)
        near = np.full(positions.shape, -np.inf, np.float32)
        safe = np.where(there, positions, 0)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            near[part] = similarities(self._vectors[safe[part]], queries[part])
        near[~there] = -np.inf
        return Candidates(np.where(there, positions, -1), near), _is_sure(near, there, 1 - distances, reached, k)


def _is_sure(
    near: NDArray[np.float32], there: Mask, rough: NDArray[np.float32], reached: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Whether no row beyond the graph's result can be among the best `k`; `rough` decreases along each row."""
    found = there.sum(axis=1)
    enough: Mask = found >= k
    if near.shape[1] < k:
        return enough
    falling = -np.sort(-near, axis=1)
    last = falling[:, k - 1]
    least = np.take_along_axis(falling, np.maximum(found - 1, 0)[:, None], 1)[:, 0]
    farthest = np.take_along_axis(rough, np.maximum(reached - 1, 0)[:, None], 1)[:, 0]
    sure: Mask = enough & ((last - least > TIE) | (farthest < last - _ROUGH))
    return sure


def expansion(rows: int) -> int:
    """The expansion for a search in a graph of so many rows."""
    growth: float = max(1.0, rows / _ROWS) ** _GROWTH
    return round(EXPANSION_SEARCH * growth)


def neighbours(rows: int, allowed: int, k: int) -> int:
    """How many neighbours to request from a graph, so that `k` of the `allowed` rows (1 or more) are likely found."""
    share = rows / allowed
    likely = math.ceil(max(expansion(rows) * min(share, _WIDEST), (k + SPARE) * share * _MARGIN))
    certain = k + SPARE + rows - allowed
    return min(rows, likely, certain)


def graph_ms(rows: int, wanted: int, k: int, queries: int) -> float:
    """The time to request `wanted` neighbours from a graph, in milliseconds for one of so many queries."""
    return (max(wanted, expansion(rows)) + min(wanted, k + SPARE)) * _MS_PER_NEIGHBOUR / min(queries, CORES)


def _graph(dimensions: int, grown: Grown | None) -> Index:
    # Imported late, because the import takes a large part of the time of `install`.
    from usearch.index import Index

    if grown is None:
        return Index(
            ndim=dimensions, metric="cos", dtype="bf16", connectivity=CONNECTIVITY, expansion_add=EXPANSION_ADD
        )
    graph = open_graph(grown.graph, grown.rows, dimensions, view=False)
    graph.expansion_add = EXPANSION_ADD
    if len(grown.gone):
        graph.remove(grown.gone)
    for old, new in zip(grown.moved.tolist(), grown.to.tolist(), strict=True):
        graph.rename(old, new)
    return graph


def open_graph(path: Path, rows: int, dimensions: int, *, view: bool) -> Index:
    """The graph of a segment, memory-mapped if it is a `view`. Raises DamagedError if it belongs to another segment."""
    from usearch.index import Index

    check_graph(path, rows, dimensions)
    try:
        graph = Index.restore(str(path), view=view)
    except Exception as error:
        raise DamagedError(f"'{path.name}' cannot be read by this USearch: {error}") from error
    if graph is None or (len(graph), graph.ndim) != (rows, dimensions):
        raise DamagedError(f"'{path.name}' is not of this segment")
    return graph


def memory(rows: int, dimensions: int) -> int:
    """The approximate number of bytes needed to build a graph of so many rows."""
    return rows * (2 * dimensions + _LINKS)
