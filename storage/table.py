"""A ready embedding table, open for search: by the index where that is whole, else exactly over the Parquet."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError, JammiWarning
from jammi_duck.storage import manifest
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.filesystem import Digest, Store
from jammi_duck.storage.index import SegmentIndex
from jammi_duck.storage.parquet import read_vectors
from jammi_duck.types import Vectors

# Neighbours fetched beyond k, to see whether others tie with the k-th.
_SPARE = 16
_TIE = 1e-6
_QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class Ranked:
    """The answer to one query, the best first: row ids of `source`, and their cosine similarities as float32."""

    source: str
    row_ids: list[str]
    similarities: NDArray[np.float32]


@dataclass(frozen=True)
class _Segment:
    rows: int
    parquet: Digest
    index: SegmentIndex | None


class Table:
    """An embedding table's segments. Threads may share it."""

    def __init__(self, store: Store, entry: Entry, segments: Sequence[_Segment], damage: str | None) -> None:
        """`damage` says why a segment has no index; the first search that suffers from it warns."""
        self.entry = entry
        self.rows = sum(segment.rows for segment in segments)
        self.damage = damage
        self._store = store
        self._segments = segments
        self._warning = threading.Lock()

    @classmethod
    def open(cls, store: Store, entry: Entry, parquets: Sequence[tuple[int, Digest]]) -> Table:
        """Map the sidecars that the newest manifest names, each checked by its SHA-256.

        `parquets` are the rows and digests of the segments as the catalog has them: they serve where the manifest
        cannot be read.
        """
        try:
            found = newest_manifest(store, entry)
        except DamagedError as error:
            return cls(store, entry, [_Segment(rows, parquet, None) for rows, parquet in parquets], str(error))
        damage = None
        segments = []
        for segment in found.segments:
            try:
                usearch, rowmap = store.checked(segment.usearch), store.checked(segment.rowmap)
                index = SegmentIndex(usearch, rowmap, segment.rows, entry.definition.dimensions)
            except DamagedError as error:
                index, damage = None, str(error)
            segments.append(_Segment(segment.rows, segment.parquet, index))
        return cls(store, entry, segments, damage)

    def search(self, queries: Vectors, k: int, *, exact: bool = False) -> list[Ranked]:
        """The `k` rows nearest to each of the L2-normalised queries, float32 [n, dimensions]: all, if there are fewer.

        Similarity is the inner product, computed in float64 from the stored vectors; ties are ordered by row id.
        Raises DamagedError where rows can be had neither by the index nor from the Parquet.
        """
        exact = exact or 4 * k >= self.rows
        candidates: list[list[_Candidates]] = [[] for _ in queries]
        for segment in self._segments:
            if segment.index is not None:
                found = [_by_index(segment.index, query, min(k, segment.rows), exact) for query in queries]
            else:
                self._warn()
                found = _by_parquet(self._store, segment, queries, k)
            for mine, new in zip(candidates, found, strict=True):
                mine.append(new)
        return [_best(self.entry.definition.source, mine, k) for mine in candidates]

    def _warn(self) -> None:
        with self._warning:
            damage, self.damage = self.damage, None
        if damage:
            warnings.warn(
                f"the search index of '{self.entry.name}' cannot be used ({damage}); searching exactly, with the same "
                "rows but slower; SELECT * FROM jammi_recover() builds it again",
                JammiWarning,
                stacklevel=2,
            )


def newest_manifest(store: Store, entry: Entry) -> manifest.Manifest:
    """The present manifest of a table. Raises DamagedError where there is none, or it is not this build's."""
    file = manifest.newest(store.files()).get(entry.name)
    if file is None:
        raise DamagedError(f"'{entry.name}' has no manifest")
    found = manifest.read(store, file)
    if found.build != entry.build:
        raise DamagedError(f"'{file}' is another build's manifest")
    return found


@dataclass(frozen=True)
class _Candidates:
    row_ids: NDArray[np.object_]
    similarities: NDArray[np.float32]


def _by_index(index: SegmentIndex, query: NDArray[np.float32], k: int, exact: bool) -> _Candidates:
    """Candidates for the best k, and all that tie with the k-th, so that row ids can settle who is in."""
    wanted = k
    while True:
        wanted = min(wanted + _SPARE, index.rows)
        row_ids, vectors = index.nearest(query, wanted, exact)
        found = _Candidates(np.array(row_ids, object), _similarities(vectors, query))
        falling = -np.sort(-found.similarities)
        if len(falling) < wanted and not exact:
            exact = True  # the graph did not reach enough rows
        elif wanted == index.rows or falling[k - 1] - falling[-1] > _TIE:
            return found
        else:
            wanted *= 4


def _by_parquet(store: Store, segment: _Segment, queries: Vectors, count: int) -> list[_Candidates]:
    try:
        path = store.checked(segment.parquet)
        found: list[list[_Candidates]] = [[] for _ in queries]
        for row_ids, vectors in read_vectors(path):
            for start in range(0, len(queries), _QUERIES_AT_ONCE):
                block = queries[start : start + _QUERIES_AT_ONCE]
                for offset, rough in enumerate(block @ vectors.T):
                    near = _near_top(rough, count)
                    ids = row_ids.take(pa.array(near)).to_numpy(zero_copy_only=False)
                    found[start + offset].append(_Candidates(ids, _similarities(vectors[near], block[offset])))
    except DamagedError as error:
        raise DamagedError(
            f"{error}; its rows are lost: drop the table with jammi_drop and generate it again"
        ) from error
    return [_joined(parts) for parts in found]


def _near_top(rough: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    if len(rough) <= count:
        return np.arange(len(rough))
    threshold = np.partition(rough, len(rough) - count)[len(rough) - count]
    return np.flatnonzero(rough >= threshold - _TIE)


def _similarities(vectors: Vectors, query: NDArray[np.float32]) -> NDArray[np.float32]:
    return (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


def _joined(parts: Sequence[_Candidates]) -> _Candidates:
    if not parts:
        return _Candidates(np.empty(0, object), np.empty(0, np.float32))
    return _Candidates(
        np.concatenate([part.row_ids for part in parts]), np.concatenate([part.similarities for part in parts])
    )


def _best(source: str, parts: Sequence[_Candidates], k: int) -> Ranked:
    found = _joined(parts)
    similarities, row_ids = found.similarities, found.row_ids
    if len(similarities) > k:
        good = np.flatnonzero(similarities >= np.partition(similarities, len(similarities) - k)[len(similarities) - k])
        similarities, row_ids = similarities[good], row_ids[good]
    order = sorted(range(len(row_ids)), key=lambda i: (-similarities[i], row_ids[i]))[:k]
    return Ranked(source, row_ids[order].tolist(), np.clip(similarities[order], -1, 1))
