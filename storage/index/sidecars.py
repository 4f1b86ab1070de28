"""The sidecars beside a segment's Parquet: an HNSW graph, the row ids in the order of its keys, and the raw vectors.

The graph's settings were chosen by measurement (docs/search.md): its vectors are bfloat16, which finds the same rows
as float32 at half the size, since the rows that it gives are ranked by their float32 vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.config.logs import log
from jammi_duck.errors import DamagedError
from jammi_duck.storage.files.parquet import read_vectors
from jammi_duck.storage.index.graph_file import check_graph
from jammi_duck.storage.index.row_ids import checked_ids

if TYPE_CHECKING:
    from usearch.index import Index

CONNECTIVITY = 20
EXPANSION_ADD = 128
# So wide is a search in a graph of `_ROWS` or fewer; in a larger one it widens, to find as much.
EXPANSION_SEARCH = 128
_ROWS, _GROWTH = 100_000, 0.4
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


def build(
    parquet: Path,
    usearch: Path,
    rowmap: Path,
    vectors: Path,
    *,
    rows: int,
    dimensions: int,
    progress: Callable[[int], None],
    grown: Grown | None = None,
) -> None:
    """Write the sidecars of a segment, on all cores. `progress` is told each time how many rows were added.

    The graph is built anew, or has `grown` from another one.

    Memory is that of the graph, which the log says beforehand. Raises as `read_vectors` does.
    """
    megabytes = memory(rows, dimensions) >> 20
    level = logging.INFO if megabytes >= _NOTABLE else logging.DEBUG
    log.log(level, "indexing %s vectors takes about %s MB of memory", f"{rows:,}", f"{megabytes:,}")
    graph = _graph(dimensions, grown)
    schema = pa.schema([pa.field("_row_id", pa.string(), nullable=False)])
    row_ids: list[pa.Array] = []
    with open(vectors, "wb") as raw:
        start = 0
        for ids, block in read_vectors(parquet):
            new = slice(None) if grown is None else np.flatnonzero(grown.new[start : start + len(block)])
            keys = np.arange(start, start + len(block))[new]
            if len(keys):
                graph.add(keys, block[new])
            raw.write(np.ascontiguousarray(block, "<f4").data)
            row_ids.append(ids)
            start += len(block)
            progress(len(keys))
    with pa.OSFile(str(rowmap), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        # One batch, so that a reader has the row ids in one piece, without a copy.
        column = checked_ids(pa.concat_arrays(row_ids) if row_ids else pa.array([], pa.string()), parquet.name)
        writer.write_batch(pa.record_batch([column], schema=schema))
    graph.save(str(usearch))


def expansion(rows: int) -> int:
    """The expansion for a search in a graph of so many rows."""
    growth: float = max(1.0, rows / _ROWS) ** _GROWTH
    return round(EXPANSION_SEARCH * growth)


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
