"""A segment open for search: its memory-mapped sidecars, or its Parquet file if these are damaged or missing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError
from jammi_duck.storage.files.parquet import (
    PASSAGE_SCHEMA,
    Passages,
    check_shape,
    read_passages,
    read_row_ids,
    read_vectors,
)
from jammi_duck.storage.files.parquet_checks import check_numbers
from jammi_duck.storage.files.store import FileDigest, Store, called
from jammi_duck.storage.index.kinds import IndexKind, VectorIndex
from jammi_duck.storage.index.row_ids import checked_ids
from jammi_duck.types import Shape, Vectors

# A block that one core compares at a time: small enough that no core waits long for another at the end, and so large
# that the work for each block costs little beside reading it.
LEAST_ROWS, _MOST_BYTES = 1 << 11, 10 << 20


class OpenSegment(Protocol):
    """The rows of one segment; row i has `row_ids[i]`. Threads may share it.

    `indexes` are its open vector indexes.
    """

    rows: int
    indexes: tuple[VectorIndex, ...]

    @property
    def row_ids(self) -> pa.StringArray:
        """The row ids, in the order of the rows. Raises DamagedError."""
        ...

    @property
    def passages(self) -> Passages | None:
        """Which places of which texts the rows are, in their order, if they are passages. Raises DamagedError."""
        ...

    def vectors(self, positions: NDArray[np.int64]) -> Vectors:
        """The vectors of these rows, whose positions increase, float32. Raises DamagedError."""
        ...

    def blocks(self, cores: int) -> Iterator[tuple[int, Vectors]]:
        """All vectors, in blocks for so many cores, each with its first position. Raises DamagedError."""
        ...


class ParquetSegment:
    """A segment without its sidecars: each search streams the Parquet file, which is checked first."""

    def __init__(self, store: Store, parquet: FileDigest, rows: int, shape: Shape) -> None:
        """Nothing is read yet."""
        self.rows = rows
        self.indexes: tuple[VectorIndex, ...] = ()
        self._store = store
        self._parquet = parquet
        self._shape = shape

    @cached_property
    def row_ids(self) -> pa.StringArray:
        """See `Segment`."""
        with self._reading() as path:
            return checked_ids(read_row_ids(path), path.name, self.passages)

    @cached_property
    def passages(self) -> Passages | None:
        """See `Segment`."""
        if not self._shape.has_passages:
            return None
        with self._reading() as path:
            return read_passages(path)

    def vectors(self, positions: NDArray[np.int64]) -> Vectors:
        """See `Segment`."""
        with self._reading() as path:
            found: Vectors = np.concatenate(
                [
                    block[
                        positions[np.searchsorted(positions, start) : np.searchsorted(positions, start + len(block))]
                        - start
                    ]
                    for start, block in self._numbered(path)
                ]
            )
        return found

    def blocks(self, cores: int) -> Iterator[tuple[int, Vectors]]:
        """See `Segment`."""
        with self._reading() as path:
            yield from self._numbered(path)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Path]:
        try:
            path = self._store.checked(self._parquet)
            with called(self._parquet.file, path):
                check_shape(path, self.rows, self._shape)
                yield path
        except DamagedError as error:
            raise DamagedError(
                f"{error}; its rows are lost: drop the table with jammi_drop and generate it again"
            ) from error

    def _numbered(self, path: Path) -> Iterator[tuple[int, Vectors]]:
        start = 0
        for _, vectors in read_vectors(path, self._shape):
            yield start, vectors
            start += len(vectors)


class MappedSegment:
    """A segment's sidecars, memory-mapped."""

    def __init__(self, rowmap: Path, vectors: Path | None, rows: int, shape: Shape) -> None:
        """Map the files, which must have been checked; `vectors` is None if there are none.

        Raises:
            DamagedError: the files do not fit each other, or the segment.
            UnsupportedError: their contents are impossible: a duplicate row id, or NaN in a vector.
        """
        dimensions = shape.dimensions
        try:
            there = pa.ipc.open_file(pa.memory_map(str(rowmap))).read_all()
            found = there.column("_row_id").combine_chunks()
            self.passages = _passages(there) if shape.has_passages else None
        except (pa.ArrowException, OSError, KeyError, MemoryError) as error:
            raise DamagedError(f"'{rowmap.name}' cannot be read: {error}") from error
        if len(found) != rows or (vectors and vectors.stat().st_size != rows * dimensions * 4):
            names = " and ".join(f"'{path.name}'" for path in (rowmap, vectors) if path)
            raise DamagedError(f"the segment has other rows than {names}")
        self.row_ids = checked_ids(found, rowmap.name, self.passages)
        self._vectors: Vectors = np.empty((rows, dimensions), "<f4")
        if rows and vectors:
            self._vectors = np.asarray(np.memmap(vectors, "<f4", "r").reshape(rows, dimensions))
            check_numbers(self._vectors, vectors.name)
        self.rows = rows
        self.indexes: tuple[VectorIndex, ...] = ()

    def open_index(self, kind: IndexKind[VectorIndex], path: Path) -> None:
        """Open one more index, whose SHA-256 must have been checked. Raises DamagedError if it does not fit."""
        self.indexes = (*self.indexes, kind.open(path, self._vectors))

    def vectors(self, positions: NDArray[np.int64]) -> Vectors:
        """See `Segment`."""
        return self._vectors[positions]

    def blocks(self, cores: int) -> Iterator[tuple[int, Vectors]]:
        """See `Segment`."""
        most = max(LEAST_ROWS, _MOST_BYTES // self._vectors.strides[0])
        count = cores * math.ceil(self.rows / (cores * most))
        size = max(LEAST_ROWS, math.ceil(self.rows / max(count, 1)))
        for start in range(0, self.rows, size):
            yield start, self._vectors[start : start + size]


def _passages(rowmap: pa.Table) -> Passages:
    """The columns of a row map that say which passages its rows are."""
    columns = [rowmap.column(name).combine_chunks() for name in PASSAGE_SCHEMA.names]
    return pa.RecordBatch.from_arrays(columns, schema=PASSAGE_SCHEMA)
