"""The index beside a segment's Parquet: a USearch graph, and the row ids in the order of its keys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError
from jammi_duck.storage.filesystem import fsync
from jammi_duck.storage.parquet import read_vectors
from jammi_duck.types import Vectors

CONNECTIVITY = 16
EXPANSION_SEARCH = 128
# Up to so many rows every vector is looked at: quick enough, and nothing is missed.
EXACT_ROWS = 10_000


def build(parquet: Path, usearch: Path, rowmap: Path, dimensions: int, progress: Callable[[int], None]) -> None:
    """Write both sidecars of a segment. `progress` is told each time how many rows were added.

    Memory is that of the segment's vectors and their graph. Raises DamagedError where the Parquet cannot be read.
    """
    # Imported late: it takes a good part of the time that `install` takes.
    from usearch.index import Index

    index = Index(ndim=dimensions, metric="cos", dtype="f32", connectivity=CONNECTIVITY)
    schema = pa.schema([pa.field("_row_id", pa.string(), nullable=False)])
    rows = 0
    with pa.OSFile(str(rowmap), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for row_ids, vectors in read_vectors(parquet):
            writer.write_batch(pa.record_batch([row_ids], schema=schema))
            index.add(np.arange(rows, rows + len(vectors)), vectors)
            rows += len(vectors)
            progress(len(vectors))
    index.save(str(usearch))
    fsync(usearch)


class SegmentIndex:
    """A segment's sidecars, memory-mapped. Threads may share it."""

    def __init__(self, usearch: Path, rowmap: Path, rows: int, dimensions: int) -> None:
        """Map both files, which must have been checked: a damaged graph can crash the process.

        Raises:
            DamagedError: the files do not fit each other, or the segment.
        """
        from usearch.index import Index

        try:
            self._row_ids = pa.ipc.open_file(pa.memory_map(str(rowmap))).read_all().column("_row_id")
        except (pa.ArrowException, OSError, KeyError) as error:
            raise DamagedError(f"'{rowmap.name}' cannot be read: {error}") from error
        self._index = Index.restore(str(usearch), view=True) if rows else None
        sizes = {rows, len(self._row_ids), len(self._index) if self._index is not None else 0}
        if len(sizes) > 1 or (self._index is not None and self._index.ndim != dimensions):
            raise DamagedError(f"'{usearch.name}' and '{rowmap.name}' are not of this segment")
        if self._index is not None:
            self._index.expansion_search = EXPANSION_SEARCH
        self.rows = rows
        self._one_at_a_time = threading.Lock()

    def nearest(self, query: NDArray[np.float32], count: int, exact: bool) -> tuple[list[str], Vectors]:
        """The row ids of about `count` neighbours of a query and their vectors, in no order.

        By the graph, which may miss some, or by looking at every vector where `exact` or where there are few.
        """
        if self._index is None:
            return [], np.empty((0, len(query)), np.float32)
        exact = exact or len(self._index) <= EXACT_ROWS
        with self._one_at_a_time:
            keys = self._index.search(query, count, exact=exact, threads=1).keys
            vectors = np.asarray(self._index.get(keys), np.float32)
        return self._row_ids.take(pa.array(keys)).to_pylist(), vectors
