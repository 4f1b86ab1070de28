"""A segment that is open for search: its sidecars memory-mapped, or its Parquet where those are not whole."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError
from jammi_duck.storage.files.parquet import check_shape, read_row_ids, read_vectors
from jammi_duck.storage.files.parquet_checks import check_numbers
from jammi_duck.storage.files.store import Digest, Store, called
from jammi_duck.storage.index.exact import TIE, Candidates, Mask, similarities
from jammi_duck.storage.index.row_ids import checked_ids
from jammi_duck.storage.index.sidecars import expansion, open_graph
from jammi_duck.types import Vectors

if TYPE_CHECKING:
    from usearch.index import Index

# A block that a core looks at in one go.
LEAST_ROWS, _MOST_ROWS = 1 << 11, 1 << 15
# By how much a similarity of bfloat16 vectors may be wrong.
_ROUGH = 0.01
# So many queries' vectors fit into a core's cache.
_QUERIES_AT_ONCE = 64


class Segment(Protocol):
    """The rows of one segment; row i has `row_ids[i]`. Threads may share it."""

    rows: int

    @property
    def row_ids(self) -> pa.StringArray:
        """The row ids, in the order of the rows. Raises DamagedError."""
        ...

    def vectors(self, positions: NDArray[np.int64]) -> Vectors:
        """The vectors of these rows, which rise, float32. Raises DamagedError."""
        ...

    def blocks(self, cores: int) -> Iterator[tuple[int, Vectors]]:
        """All vectors, in pieces for so many cores, each with its first place. Raises DamagedError."""
        ...


class ParquetSegment:
    """A segment without its sidecars: each search streams the Parquet, which is checked first."""

    def __init__(self, store: Store, parquet: Digest, rows: int, dimensions: int) -> None:
        """Nothing is read yet."""
        self.rows = rows
        self._store = store
        self._parquet = parquet
        self._dimensions = dimensions

    @cached_property
    def row_ids(self) -> pa.StringArray:
        """See `Segment`."""
        with self._reading() as path:
            return checked_ids(read_row_ids(path), path.name)

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
                check_shape(path, self.rows, self._dimensions)
                yield path
        except DamagedError as error:
            raise DamagedError(
                f"{error}; its rows are lost: drop the table with jammi_drop and generate it again"
            ) from error

    @staticmethod
    def _numbered(path: Path) -> Iterator[tuple[int, Vectors]]:
        start = 0
        for _, vectors in read_vectors(path):
            yield start, vectors
            start += len(vectors)


class MappedSegment:
    """A segment's sidecars, memory-mapped."""

    def __init__(self, rowmap: Path, vectors: Path, rows: int, dimensions: int) -> None:
        """Map the files, which must have been checked.

        Raises:
            DamagedError: the files do not fit each other, or the segment.
            UnsupportedError: they have what cannot be: a row id twice, a vector that is no numbers.
        """
        try:
            found = pa.ipc.open_file(pa.memory_map(str(rowmap))).read_all().column("_row_id").combine_chunks()
        except (pa.ArrowException, OSError, KeyError, MemoryError) as error:
            raise DamagedError(f"'{rowmap.name}' cannot be read: {error}") from error
        if len(found) != rows or vectors.stat().st_size != rows * dimensions * 4:
            raise DamagedError(f"'{rowmap.name}' and '{vectors.name}' are not of this segment")
        self.row_ids = checked_ids(found, rowmap.name)
        mapped = np.memmap(vectors, "<f4", "r").reshape(rows, dimensions) if rows else np.empty((0, dimensions), "<f4")
        self._vectors: Vectors = np.asarray(mapped)
        check_numbers(self._vectors, vectors.name)
        self._graph: Index | None = None
        self.rows = rows
        self._one_at_a_time = threading.Lock()

    @property
    def has_graph(self) -> bool:
        """Whether `by_graph` can be asked."""
        return self._graph is not None

    def map_graph(self, usearch: Path) -> None:
        """Map the graph as well, whose SHA-256 must have been checked: a damaged one can crash the process.

        Raises:
            DamagedError: it is not of this segment.
        """
        graph = open_graph(usearch, *self._vectors.shape, view=True)
        graph.expansion_search = expansion(self.rows)
        self._graph = graph

    def vectors(self, positions: NDArray[np.int64]) -> Vectors:
        """See `Segment`."""
        return self._vectors[positions]

    def blocks(self, cores: int) -> Iterator[tuple[int, Vectors]]:
        """See `Segment`."""
        count = cores * math.ceil(self.rows / (cores * _MOST_ROWS))
        size = max(LEAST_ROWS, math.ceil(self.rows / max(count, 1)))
        for start in range(0, self.rows, size):
            yield start, self._vectors[start : start + size]

    def by_graph(
        self, queries: Vectors, k: int, wanted: int, allowed: Mask | None
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """What `wanted` neighbours of each query in the graph hold of the rows that are `allowed`.

        The second array says for which queries the best `k`, and all that tie with the last, are sure to be among
        them, as far as the graph finds them.
        """
        assert self._graph is not None
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
