"""The sidecars beside a segment's Parquet: an HNSW graph, the row ids in the order of its keys, and the raw vectors.

The graph's settings were chosen by measurement (docs/search.md): its vectors are bfloat16, which finds the same rows
as float32 at half the size, since the rows that it gives are ranked by their float32 vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from jammi_duck.logs import log
from jammi_duck.storage.filesystem import fsync
from jammi_duck.storage.parquet import read_vectors

CONNECTIVITY = 20
EXPANSION_ADD = 128
# So wide is a search in a graph of `_ROWS` or fewer; in a larger one it widens, to find as much.
EXPANSION_SEARCH = 128
_ROWS, _GROWTH = 100_000, 0.4
# What a row of the graph takes beside its vector, in bytes.
_LINKS = 190
# So many megabytes are told in the log.
_NOTABLE = 32


def build(
    parquet: Path,
    usearch: Path,
    rowmap: Path,
    vectors: Path,
    *,
    rows: int,
    dimensions: int,
    progress: Callable[[int], None],
) -> None:
    """Write the sidecars of a segment, on all cores. `progress` is told each time how many rows were added.

    Memory is that of the graph, which the log says beforehand. Raises DamagedError where the Parquet cannot be read.
    """
    # Imported late: it takes a good part of the time that `install` takes.
    from usearch.index import Index

    megabytes = memory(rows, dimensions) >> 20
    level = logging.INFO if megabytes >= _NOTABLE else logging.DEBUG
    log.log(level, "indexing %s vectors takes about %s MB of memory", f"{rows:,}", f"{megabytes:,}")
    graph = Index(ndim=dimensions, metric="cos", dtype="bf16", connectivity=CONNECTIVITY, expansion_add=EXPANSION_ADD)
    schema = pa.schema([pa.field("_row_id", pa.string(), nullable=False)])
    row_ids: list[pa.Array] = []
    with open(vectors, "wb") as raw:
        for ids, block in read_vectors(parquet):
            start = len(graph)
            graph.add(np.arange(start, start + len(block)), block)
            raw.write(np.ascontiguousarray(block, "<f4").data)
            row_ids.append(ids)
            progress(len(block))
    with pa.OSFile(str(rowmap), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        # One batch, so that a reader has the row ids in one piece, without a copy.
        column = pa.concat_arrays(row_ids) if row_ids else pa.array([], pa.string())
        writer.write_batch(pa.record_batch([column], schema=schema))
    graph.save(str(usearch))
    fsync(usearch)


def expansion(rows: int) -> int:
    """The expansion for a search in a graph of so many rows."""
    growth: float = max(1.0, rows / _ROWS) ** _GROWTH
    return round(EXPANSION_SEARCH * growth)


def memory(rows: int, dimensions: int) -> int:
    """About how many bytes it takes to build the graph of so many rows."""
    return rows * (2 * dimensions + _LINKS)
