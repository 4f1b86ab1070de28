"""The HNSW graph beside a segment, an index of USearch; see `kinds.IndexKind` and `kinds.VectorIndex`.

Its settings were chosen by measurement (docs/search.md), as were its costs: its vectors are bfloat16, which finds the
same rows as float32 at half the size, since the rows that it gives are ranked by their float32 vectors.
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
# So wide is a search in a graph of `_ROWS` or fewer; in a larger one it widens, to find as much.
EXPANSION_SEARCH = 128
_ROWS, _GROWTH = 100_000, 0.4
# Neighbours asked for beyond k: bfloat16 puts some in another order, and others may tie with the k-th.
SPARE = 16
# A filter's rows may be rarer near the query than elsewhere: so many times as many as should do are asked for.
_MARGIN = 1.5
# Those that are left out are visited, too: the search widens as they are more, up to so many times.
_WIDEST = 2
_MS_PER_NEIGHBOUR = 0.0025
# By how much a similarity of bfloat16 vectors may be wrong.
_ROUGH = 0.01
# So many queries' vectors fit into a core's cache.
_QUERIES_AT_ONCE = 64
# What a row of the graph takes beside its vector, in bytes.
_LINKS = 190
# So many megabytes are told in the log.
_NOTABLE = 32


@dataclass(frozen=True)
class Grown:
    """How the graph of another segment, of so many `rows`, becomes the one to be built: rows keep their positions.

    The rows at `gone` are taken out of `graph`; then those at `moved` get the positions `to`, and of the new segment's
    rows those of the mask `new` are added.
    """

    graph: Path
    rows: int
    gone: NDArray[np.int64]
    moved: NDArray[np.int64]
    to: NDArray[np.int64]
    new: NDArray[np.bool_]


class Graph:
    """The kind: a graph is built anew, or has `grown` from that of another segment."""

    sidecar = "usearch"

    def __init__(self, grown: Grown | None = None) -> None:
        """Nothing is read yet."""
        self._grown = grown

    def build(self, path: Path, rows: int, dimensions: int) -> GraphBuilder:
        """See `IndexKind`; on all cores, and the log says beforehand how much memory it takes."""
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
        """Of a graph that has the rows already that it has grown from."""
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
        if allowed is not None:
            there &= allowed[np.where(there, positions, 0)]
            # Those that are allowed come first, and the columns that are left without any go.
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
    """Whether nothing beyond what the graph gave can be among the best `k`: `rough` falls along each row."""
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
    """How many neighbours to ask a graph for, so that `k` of the one or more allowed are likely to be among them."""
    share = rows / allowed
    likely = math.ceil(max(expansion(rows) * min(share, _WIDEST), (k + SPARE) * share * _MARGIN))
    certain = k + SPARE + rows - allowed
    return min(rows, likely, certain)


def graph_ms(rows: int, wanted: int, k: int, queries: int) -> float:
    """What asking a graph of `rows` for so many neighbours costs for one of so many queries, in milliseconds."""
    return (max(wanted, expansion(rows)) + min(wanted, k + SPARE)) * _MS_PER_NEIGHBOUR / min(queries, CORES)


def _graph(dimensions: int, grown: Grown | None) -> Index:
    # Imported late: it takes a good part of the time that `install` takes.
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
    """The graph of a segment, memory-mapped if it is but a `view`. Raises DamagedError where it is another's."""
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
    """About how many bytes it takes to build the graph of so many rows."""
    return rows * (2 * dimensions + _LINKS)
