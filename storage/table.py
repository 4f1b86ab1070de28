"""A ready embedding table, open for search: every segment by its graph or exactly, merged into one answer."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError, JammiWarning
from jammi_duck.storage import manifest, plan
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.exact import Candidates, Mask
from jammi_duck.storage.filesystem import Store
from jammi_duck.storage.manifest import Tombstones
from jammi_duck.storage.parquet import read_tombstones
from jammi_duck.storage.row_ids import RowIds
from jammi_duck.storage.segment import MappedSegment, ParquetSegment, Segment
from jammi_duck.types import Vectors

_WIDER = 4
_ALL: Mapping[int, Mask] = {}


@dataclass(frozen=True)
class Among:
    """The rows that may be found: a mask for each segment, a bit for each row, and how many there are."""

    masks: tuple[NDArray[np.uint8], ...]
    rows: int


@dataclass
class Stage:
    """A part of a search: what was done, with how many rows, in how many seconds."""

    name: str
    detail: str
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Answers:
    """The answers to n queries, one after another, each the best first.

    `counts` are how many rows each has, int64 [n]; `similarities` are their cosines, float32.
    """

    counts: NDArray[np.int64]
    row_ids: pa.StringArray
    similarities: NDArray[np.float32]
    stages: list[Stage] = field(default_factory=list)


class Table:
    """An embedding table's segments. Threads may share it."""

    def __init__(
        self, entry: Entry, segments: Mapping[int, Segment], damage: str | None, live: Mapping[int, Mask] = _ALL
    ) -> None:
        """`segments` by their numbers; `live` says which rows of one are not gone, where not all are there.

        `damage` says why a segment has no sidecars; the first search that suffers from it warns.
        """
        self.entry = entry
        self.damage = damage
        self.numbers = tuple(segments)
        self.segments = tuple(segments.values())
        self.live = tuple(live.get(number) for number in segments)
        there = (
            each.rows if mask is None else int(mask.sum()) for each, mask in zip(self.segments, self.live, strict=True)
        )
        self.rows = sum(there)
        self._starts = np.cumsum([0, *(segment.rows for segment in self.segments)])
        self._warning = threading.Lock()
        self._warned = False

    @cached_property
    def _row_ids(self) -> tuple[RowIds, ...]:
        return tuple(RowIds(segment.row_ids) for segment in self.segments)

    @classmethod
    def open(cls, store: Store, entry: Entry, known: Sequence[manifest.Segment], gone: Sequence[Tombstones]) -> Table:
        """Map the sidecars that the newest manifest names, each checked by its SHA-256.

        `known` and `gone` are the segments and the tombstones as the catalog has them: they serve where the manifest
        cannot be read. Raises DamagedError where it is not known which rows are gone.
        """
        try:
            found = newest_manifest(store, entry, known, gone)
        except DamagedError as error:
            parquets = {each.number: ParquetSegment(store, each.parquet, each.rows) for each in known}
            return cls(entry, parquets, str(error), live_masks(store, known, gone))
        return cls.of(store, entry, found)

    @classmethod
    def of(cls, store: Store, entry: Entry, found: manifest.Manifest) -> Table:
        """The state that this manifest names. Raises DamagedError where it is not known which rows are gone."""
        damage = None
        segments: dict[int, Segment] = {}
        with ThreadPoolExecutor() as cores:
            checks = [[cores.submit(store.checked, file) for file in segment.sidecars] for segment in found.segments]
        for segment, sidecars in zip(found.segments, checks, strict=True):
            opened, why = _open(store, segment, sidecars, entry.definition.dimensions)
            segments[segment.number] = opened
            damage = why or damage
        return cls(entry, segments, damage, live_masks(store, found.segments, found.tombstones))

    def among(self, row_ids: Sequence[pa.Array]) -> Among:
        """The rows whose id is in one of these arrays, of texts or of whole numbers; others count for nothing.

        Raises DamagedError.
        """
        masks = [
            np.any([ids.mask(wanted) for wanted in row_ids], axis=0) & (True if live is None else live)
            for ids, live in zip(self._row_ids, self.live, strict=True)
        ]
        return Among(tuple(map(np.packbits, masks)), sum(int(mask.sum()) for mask in masks))

    def vectors(self, row_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those of the rows that the table has. Raises DamagedError."""
        found: dict[str, NDArray[np.float32]] = {}
        for segment, (_, names, places) in zip(self.segments, self.find(pa.array(row_ids, pa.string())), strict=True):
            if len(places):
                found |= zip(names.to_pylist(), segment.vectors(places), strict=True)
        return found

    def find(self, row_ids: pa.StringArray) -> list[tuple[int, pa.StringArray, NDArray[np.int64]]]:
        """For each segment its number, and those of these rows that it has, by their ids and places, which rise.

        Raises DamagedError.
        """
        found = []
        for number, segment, ids, live in zip(self.numbers, self.segments, self._row_ids, self.live, strict=True):
            places = np.flatnonzero(ids.mask(row_ids) & (True if live is None else live))
            found.append((number, segment.row_ids.take(pa.array(places)), places))
        return found

    def sample(self, count: int) -> Vectors:
        """The vectors of about so many rows, spread evenly over the table. Raises DamagedError."""
        places = np.unique(np.linspace(0, self.rows - 1, min(count, self.rows)).astype(np.int64))
        if any(mask is not None for mask in self.live):
            masks = zip(self.live, self.segments, strict=True)
            there = [np.ones(each.rows, bool) if mask is None else mask for mask, each in masks]
            places = np.flatnonzero(np.concatenate(there))[places]
        parts = []
        for start, end, segment in zip(self._starts[:-1], self._starts[1:], self.segments, strict=True):
            mine = places[(places >= start) & (places < end)] - start
            parts.append(segment.vectors(mine))
        return np.concatenate(parts)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exact: bool = False,
        among: Among | None = None,
        least: float | None = None,
    ) -> Answers:
        """The `k` rows nearest to each of the L2-normalised queries, float32 [n, dimensions]: all, if there are fewer.

        Only the rows of `among` are found, and of these only those whose similarity is `least` or more. Similarity is
        the inner product, computed in float64 from the stored vectors; ties are ordered by row id.
        Raises DamagedError where rows can be had neither from a sidecar nor from the Parquet.
        """
        k = min(k, self.rows)
        if not len(queries):
            return Answers(np.empty(0, np.int64), pa.array([], pa.string()), np.empty(0, np.float32))
        parts, stages = [], []
        for number, (start, segment) in enumerate(zip(self._starts[:-1], self.segments, strict=True)):
            packed = among.masks[number] if among else None
            allowed = self.live[number] if packed is None else np.unpackbits(packed, count=segment.rows).view(bool)
            found, done = self._search(segment, queries, k, exact, allowed)
            parts.append(Candidates(np.where(found.places < 0, -1, found.places + start), found.similarities))
            done.detail = f"segment {self.numbers[number]}: {done.detail}"
            stages.append(done)
        ranking = Stage("rank", "by exact similarity, ties by row id")
        began = time.perf_counter()
        places = np.concatenate([part.places for part in parts], axis=1)
        near = np.concatenate([part.similarities for part in parts], axis=1)
        if least is not None:
            near = np.where(near >= np.float32(np.clip(least, -2, 2)), near, np.float32(-np.inf))
        answers = self._best(places, near, k)
        ranking.rows, ranking.seconds = len(answers.similarities), time.perf_counter() - began
        return Answers(answers.counts, answers.row_ids, answers.similarities, [*stages, ranking])

    def _search(
        self, segment: Segment, queries: Vectors, k: int, exact: bool, allowed: Mask | None
    ) -> tuple[Candidates, Stage]:
        began = time.perf_counter()
        there = segment.rows if allowed is None else int(allowed.sum())
        count = min(k, there)
        with_graph = segment if isinstance(segment, MappedSegment) and segment.has_graph else None
        if with_graph and not exact:
            chosen = plan.choose(segment.rows, there, count, queries.shape[1], len(queries))
        else:
            if not with_graph:
                self._warn()
            chosen = plan.Plan("exact", 0, "exact := true" if exact else "there is no index")
        if not count:
            none = np.empty((len(queries), 0))
            found, stage = Candidates(none.astype(np.int64), none.astype(np.float32)), Stage("exact", "no rows")
        elif with_graph and chosen.way == "graph":
            found, stage = _by_graph(with_graph, queries, count, allowed, there, chosen)
        else:
            found = segment.exactly(queries, count, None if there == segment.rows else allowed)
            stage = Stage("exact", chosen.reason, there)
        stage.seconds = time.perf_counter() - began
        return found, stage

    def _best(self, places: NDArray[np.int64], near: NDArray[np.float32], k: int) -> Answers:
        order = np.argsort(-near, axis=1, kind="stable")
        falling = np.take_along_axis(near, order, 1)
        counts = np.minimum((falling > -np.inf).sum(axis=1), k)
        ties = (falling[:, 1 : k + 1] == falling[:, :k][:, : falling.shape[1] - 1]) & (falling[:, 1 : k + 1] > -np.inf)
        for i in np.flatnonzero(ties.any(axis=1)):
            self._settle_ties(order[i], falling[i], places[i], k)
        order, falling = order[:, :k], falling[:, :k]
        chosen = np.arange(order.shape[1]) < counts[:, None]
        rows = np.take_along_axis(places, order, 1)[chosen]
        return Answers(counts, self._named(rows), np.clip(falling[chosen], -1, 1))

    def _settle_ties(
        self, order: NDArray[np.int64], falling: NDArray[np.float32], places: NDArray[np.int64], k: int
    ) -> None:
        """Order the first `k` rows of equal similarity, and those that tie with them, by row id, in place."""
        end = int(np.searchsorted(-falling, -falling[min(k, len(falling)) - 1], side="right"))
        if falling[end - 1] == -np.inf:
            end = int(np.searchsorted(-falling, np.inf))
        row_ids = self._named(places[order[:end]]).to_pylist()
        by_id = sorted(range(end), key=lambda i: (-falling[i], row_ids[i]))
        order[:end] = order[by_id]

    def _named(self, places: NDArray[np.int64]) -> pa.StringArray:
        if len(self.segments) == 1:
            return self.segments[0].row_ids.take(pa.array(places))
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        parts, back = [], []
        for number in np.unique(numbers):
            mine = np.flatnonzero(numbers == number)
            parts.append(self.segments[number].row_ids.take(pa.array(places[mine] - self._starts[number])))
            back.append(mine)
        if not parts:
            return pa.array([], pa.string())
        return pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(back))))

    def _warn(self) -> None:
        with self._warning:
            warned, self._warned = self._warned, True
        if self.damage and not warned:
            warnings.warn(
                f"the search index of '{self.entry.name}' cannot be used ({self.damage}); searching exactly, with the "
                "same rows but slower; SELECT * FROM jammi_recover() builds it again",
                JammiWarning,
                stacklevel=2,
            )


def live_masks(store: Store, segments: Sequence[manifest.Segment], tombstones: Sequence[Tombstones]) -> dict[int, Mask]:
    """Which rows of segments, by number, are not gone: of those that have lost some. Raises DamagedError."""
    rows = {segment.number: segment.rows for segment in segments}
    masks: dict[int, Mask] = {}
    for each in (each for each in tombstones if each.rows):
        for _, numbers, places in read_tombstones(store.checked(each.parquet)):
            for number in np.unique(numbers).tolist():
                if number in rows:
                    masks.setdefault(number, np.ones(rows[number], bool))[places[numbers == number]] = False
    return masks


def newest_manifest(
    store: Store, entry: Entry, segments: Sequence[manifest.Segment] = (), tombstones: Sequence[Tombstones] = ()
) -> manifest.Manifest:
    """The present manifest of a table.

    `segments` and `tombstones` are those that are known of. Raises DamagedError where there is no manifest, it is not
    this build's, or it is older than what is known.
    """
    file = manifest.newest(store.files()).get(entry.name)
    if file is None:
        raise DamagedError(f"'{entry.name}' has no manifest")
    found = manifest.read(store, file)
    if found.build != entry.build:
        raise DamagedError(f"'{file}' is another build's manifest")
    if is_older(found, segments, tombstones):
        raise DamagedError(f"the manifest after '{file}' is missing")
    return found


def is_older(state: manifest.Manifest, segments: Sequence[manifest.Segment], tombstones: Sequence[Tombstones]) -> bool:
    """Whether a state is older than the one that consists of these segments and tombstones: each has a new number."""
    known: tuple[manifest.Truth, ...] = (*segments, *tombstones)
    return max((each.number for each in known), default=0) > max(each.number for each in state.truth)


def _open(
    store: Store, segment: manifest.Segment, sidecars: Sequence[Future[Path]], dimensions: int
) -> tuple[Segment, str | None]:
    """A segment with those of its sidecars that are whole, and what is wrong with the others."""
    usearch, rowmap, vectors = sidecars
    try:
        mapped = MappedSegment(rowmap.result(), vectors.result(), segment.rows, dimensions)
    except DamagedError as error:
        return ParquetSegment(store, segment.parquet, segment.rows), str(error)
    try:
        if segment.rows:
            mapped.map_graph(usearch.result())
    except DamagedError as error:
        return mapped, str(error)
    return mapped, None


def _by_graph(
    segment: MappedSegment, queries: Vectors, k: int, allowed: Mask | None, there: int, chosen: plan.Plan
) -> tuple[Candidates, Stage]:
    """Ask the graph for more and more, for the queries that need it; look at every vector where that is quicker."""
    wanted = chosen.wanted
    found, sure = segment.by_graph(queries, k, wanted, allowed)
    stage = Stage("graph", chosen.reason, wanted)
    while not sure.all():
        open_ = np.flatnonzero(~sure)
        wanted = min(segment.rows, wanted * _WIDER)
        exactly = plan.exact_ms(segment.rows, there, queries.shape[1], len(open_))
        if wanted >= segment.rows or exactly <= plan.graph_ms(segment.rows, wanted, k, len(open_)):
            more, now = segment.exactly(queries[open_], k, allowed), np.ones(len(open_), bool)
            stage.detail += f"; exactly for {len(open_):,} queries, as their neighbours were too few"
        else:
            more, now = segment.by_graph(queries[open_], k, wanted, allowed)
            stage.detail += f"; {wanted:,} neighbours for {len(open_):,} queries, as the first were too few"
            stage.rows = wanted
        found = _replaced(found, open_, more)
        sure[open_] = now
    return found, stage


def _replaced(found: Candidates, rows: NDArray[np.int64], by: Candidates) -> Candidates:
    width = max(found.places.shape[1], by.places.shape[1])
    places = np.full((len(found.places), width), -1)
    near = np.full(places.shape, -np.inf, np.float32)
    for target, source, new in ((places, found.places, by.places), (near, found.similarities, by.similarities)):
        target[:, : source.shape[1]] = source
        target[rows] = -1 if target is places else -np.inf
        target[rows, : new.shape[1]] = new
    return Candidates(places, near)
