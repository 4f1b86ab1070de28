"""A ready embedding table, open for search: each segment is searched by an index or exactly, then merged."""

from __future__ import annotations

import functools
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.arrays import flags, numbers, texts
from jammi_duck.errors import DamagedError, JammiWarning, UnsupportedError
from jammi_duck.sql import literal
from jammi_duck.storage.files import manifest
from jammi_duck.storage.files.manifest import TableFile, Tombstones
from jammi_duck.storage.files.parquet import Passages, joined_passages, read_tombstones
from jammi_duck.storage.files.store import Store, called
from jammi_duck.storage.files.table_files import files_of
from jammi_duck.storage.index import sidecars
from jammi_duck.storage.index.exact import Candidates, Mask, similarities
from jammi_duck.storage.index.key_values import Form, form_of
from jammi_duck.storage.index.nearest import Part, nearest
from jammi_duck.storage.index.row_ids import RowIds
from jammi_duck.storage.index.segment import OpenSegment, ParquetSegment
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.rebuilding import rebuilt
from jammi_duck.storage.tables.segment_words import with_words_found, words_of
from jammi_duck.storage.words.bm25 import Words
from jammi_duck.types import Stage, Vectors

_ALL: Mapping[int, Mask] = {}
# Of so many vectors at a time similarities are computed exactly.
_AT_ONCE = 4096
# A sum of unit vectors that is shorter has no direction but that of its rounding.
_NOTHING = 1e-6


@dataclass(frozen=True)
class RowSubset:
    """The rows that may be found: a mask for each segment, a bit for each row, and how many rows each mask has."""

    masks: tuple[NDArray[np.uint8], ...]
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(self.counts)


@dataclass(frozen=True)
class Answers:
    """The answers to n queries, one after another, each the best first.

    `counts` are how many rows each has, int64 [n]; `scores` are what they are ranked by, float32. `similarities` are
    their cosines and `bm25` how well their words match, NaN where that was not computed. `positions` are the rows'
    numbers in the table, and `passages` says which places of which texts they are, where that was looked up.
    """

    counts: NDArray[np.int64]
    row_ids: pa.StringArray
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32]
    bm25: NDArray[np.float32]
    positions: NDArray[np.int64]
    stages: list[Stage] = field(default_factory=list)
    passages: Passages | None = None

    def take(self, positions: NDArray[np.int64], counts: NDArray[np.int64]) -> Answers:
        """Some of the rows, in another order, as answers of so many rows."""
        values = (self.scores[positions], self.similarities[positions], self.bm25[positions], self.positions[positions])
        return Answers(counts, self.row_ids.take(numbers(positions)), *values, self.stages)


@dataclass(frozen=True)
class Found:
    """Rows that may be among the best for each of n queries, padded to the same width, in no order.

    `rows` are row numbers, int64 [n, width]; `scores` are float32, and -inf for padding. `similarities` and `bm25` are
    None where they were not computed; similarities are the scores if that is all they are.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32] | None = None
    bm25: NDArray[np.float32] | None = None

    def within(self, mask: Mask) -> Found:
        """Only the rows of a mask."""
        return replace(self, scores=np.where(mask[self.rows], self.scores, np.float32(-np.inf)))


class Table:
    """An embedding table's segments. Threads may share it."""

    def __init__(
        self,
        entry: Entry,
        segments: Mapping[int, OpenSegment],
        damage: str | None,
        live: Mapping[int, Mask] = _ALL,
        words: Callable[[], Words] | None = None,
    ) -> None:
        """`segments` by their numbers; `live` says which rows of one are not gone, where not all are there.

        `damage` says why a segment has no sidecars; the first search that suffers from it warns. `words` opens the
        words, if the table is to have any.
        """
        self.entry = entry
        self.damage = damage
        self.numbers = tuple(segments)
        self.segments = tuple(segments.values())
        self.live = tuple(live.get(number) for number in segments)
        self._there = tuple(
            each.rows if mask is None else int(mask.sum()) for each, mask in zip(self.segments, self.live, strict=True)
        )
        self.rows = sum(self._there)
        self._starts = np.cumsum([0, *(segment.rows for segment in self.segments)])
        self._open_words = words
        self._warning = threading.Lock()
        self._warned: set[str] = set()

    @cached_property
    def _row_ids(self) -> tuple[RowIds, ...]:
        return tuple(RowIds(segment.row_ids) for segment in self.segments)

    @property
    def has_words(self) -> bool:
        """Whether its words are indexed, or are to be."""
        return self._open_words is not None

    @cached_property
    def words(self) -> Words | None:
        """The words of its rows; None if it has none.

        Raises DamagedError or UnsupportedError if they cannot be used: see `lose_words`.
        """
        return self._open_words() if self._open_words else None

    def lose_words(self, error: Exception) -> None:
        """Go by vectors alone from now on, with a warning.

        Raises the error if the table has nothing else to search.
        """
        unusable = f"the words of '{self.entry.name}' cannot be used ({error})"
        call = f"jammi_refresh({literal(self.entry.source)}, embedding_table := {literal(self.entry.name)})"
        again = f"SELECT * FROM {call} indexes them again"
        if not self.entry.definition.has_vectors:
            raise type(error)(f"{unusable}; {again}") from error
        self._warn(f"{unusable}; searching by vectors alone; {again}")
        # In place of what would be opened.
        self.words = None

    @classmethod
    def open(cls, store: Store, entry: Entry, known: Sequence[manifest.Segment], gone: Sequence[Tombstones]) -> Table:
        """Map the sidecars that the newest manifest names, each checked by its SHA-256.

        `known` and `gone` are the segments and the tombstones as the catalog has them. Where the manifest is damaged,
        the Parquet files say what it held. Raises DamagedError where they do not.
        """
        number = 0
        while True:
            try:
                found = newest_manifest(store, entry, known, gone)
            except DamagedError as error:
                return cls._without_manifest(store, entry, [*known, *gone], error)
            is_same, number = found.number == number, found.number
            try:
                table = cls.of(store, entry, found)
            except DamagedError:
                if is_same:
                    raise
                continue
            # What is missing was removed by now since there is a later state, perhaps.
            if is_same or not table.damage:
                return table

    @classmethod
    def _without_manifest(cls, store: Store, entry: Entry, known: Sequence[TableFile], damage: DamagedError) -> Table:
        """The newest state by the word of its Parquet files: what the catalog has may be an earlier one."""
        found = rebuilt(store, entry, known)
        if found is None and not store.names():
            raise damage
        if found is None:
            raise DamagedError(f"{damage}, and no Parquet file says what it held") from damage
        shape = entry.definition.shape
        parquets = {each.number: ParquetSegment(store, each.parquet, each.rows, shape) for each in found.segments}
        live = live_masks(store, found.segments, found.tombstones)
        words = functools.partial(_words_found, store, found, live) if found.definition.words else None
        return cls(entry, parquets, str(damage), live, words)

    @classmethod
    def of(cls, store: Store, entry: Entry, found: manifest.Manifest) -> Table:
        """The state that this manifest names. Raises DamagedError where it is not known which rows are gone."""
        damage = None
        segments: dict[int, OpenSegment] = {}
        kinds = sidecars.built(entry.definition.shape)
        with ThreadPoolExecutor() as cores:
            checks = [
                {kind: cores.submit(sidecars.check, store, segment, kind) for kind in kinds}
                for segment in found.segments
            ]
        for segment, mine in zip(found.segments, checks, strict=True):
            checked = functools.partial(_result, mine)
            opened, why = sidecars.open_segment(store, segment, checked, entry.definition.shape)
            segments[segment.number] = opened
            damage = why or damage
        live = live_masks(store, found.segments, found.tombstones)
        words = functools.partial(words_of, store, found, live) if found.definition.words else None
        return cls(entry, segments, damage, live, words)

    def subset(self, row_ids: Sequence[pa.Array], key_type: str | None = None) -> RowSubset:
        """The rows whose id is in one of these arrays, of texts or of whole numbers; others count for nothing.

        Keys of a type that is not that of the table's ids any more find them by their values.
        Raises DamagedError.
        """
        masks = [
            np.any([ids.mask(wanted) for wanted in row_ids], axis=0) & (True if live is None else live)
            for ids, live in zip(self._row_ids, self.live, strict=True)
        ]
        form = form_of(key_type)
        if form and self._ids_in(masks) < sum(len(each) - each.null_count for each in row_ids):
            self._add_alike(masks, row_ids, form)
        return RowSubset(tuple(map(np.packbits, masks)), tuple(int(mask.sum()) for mask in masks))

    def _ids_in(self, masks: Sequence[Mask]) -> int:
        """How many ids the rows of these masks have."""
        if not self.entry.definition.passages:
            return sum(int(mask.sum()) for mask in masks)
        parts = [each.row_ids.filter(flags(mask)) for each, mask in zip(self.segments, masks, strict=True)]
        return len(pa.concat_arrays([texts([]), *parts]).unique())

    def _add_alike(self, masks: Sequence[Mask], row_ids: Sequence[pa.Array], form: Form) -> None:
        """Add the rows to masks whose id is written in another way than the wanted one of the same value."""
        import pyarrow.compute as pc

        wanted = pa.concat_arrays([each.drop_null().cast(pa.string()) for each in row_ids])
        for segment, mask in zip(self.segments, masks, strict=True):
            there = segment.row_ids.filter(flags(mask)).cast(pa.string())
            wanted = wanted.filter(pc.invert(pc.is_in(wanted, value_set=there)))
        wanted = form.texts(wanted)
        for ids, live, mask in zip(self._row_ids, self.live, masks, strict=True):
            positions = ids.alike(wanted, form)
            mask[positions if live is None else positions[live[positions]]] = True

    def row_ids_of(self, subset: RowSubset) -> list[pa.StringArray]:
        """The ids of the rows of a selection, which `subset` has looked up here."""
        masks = (np.unpackbits(mask, count=each.rows) for mask, each in zip(subset.masks, self.segments, strict=True))
        return [
            ids.filter(flags(mask.view(bool)))
            for ids, mask in zip((s.row_ids for s in self.segments), masks, strict=True)
        ]

    def vectors(self, row_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those of the rows that the table has. Raises DamagedError.

        That of a row of passages is the mean of theirs, scaled to length 1; one whose mean is zero has none.
        """
        found: dict[str, NDArray[np.float32]] = {}
        sums: defaultdict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(self.entry.definition.dimensions))
        for segment, (_, names, positions) in zip(self.segments, self.find(texts(row_ids)), strict=True):
            if not len(positions):
                continue
            vectors = zip(names.to_pylist(), segment.vectors(positions), strict=True)
            if not self.entry.definition.passages:
                found |= vectors
                continue
            for name, vector in vectors:
                sums[name] += vector
        lengths = {name: float(np.linalg.norm(total)) for name, total in sums.items()}
        return found | {n: (sums[n] / length).astype(np.float32) for n, length in lengths.items() if length > _NOTHING}

    def alike(self, keys: Sequence[str], key_type: str | None) -> dict[str, str]:
        """The row ids that are written in another way than these keys of the same value. Raises DamagedError."""
        form = form_of(key_type)
        if form is None:
            return {}
        wanted = form.texts(texts(keys))
        key_of = dict(zip(wanted.to_pylist(), keys, strict=True))
        found = {}
        for segment, ids, live in zip(self.segments, self._row_ids, self.live, strict=True):
            positions = ids.alike(wanted, form)
            row_ids = segment.row_ids.take(numbers(positions if live is None else positions[live[positions]]))
            for row_id, value in zip(row_ids.to_pylist(), form.texts(row_ids).to_pylist(), strict=True):
                found[key_of[value]] = row_id
        return found

    @property
    def passages_per_row(self) -> float:
        """How many passages its rows have on average: 1 where they are no passages."""
        return max(1.0, self.rows / max(self.entry.counts.rows, 1)) if self.entry.definition.passages else 1.0

    def find(self, row_ids: pa.StringArray) -> list[tuple[int, pa.StringArray, NDArray[np.int64]]]:
        """For each segment its number, and those of these rows that it has, by their ids and positions, which rise.

        Raises DamagedError.
        """
        found = []
        for number, segment, ids, live in zip(self.numbers, self.segments, self._row_ids, self.live, strict=True):
            positions = np.flatnonzero(ids.mask(row_ids) & (True if live is None else live))
            found.append((number, segment.row_ids.take(numbers(positions)), positions))
        return found

    def stored(self, row_ids: pa.StringArray) -> tuple[NDArray[np.int64], pa.StringArray]:
        """The numbers of the stored rows that have these ids, and the id of each. Raises DamagedError."""
        found = self.find(row_ids)
        positions = [mine + start for (_, _, mine), start in zip(found, self._starts, strict=False)]
        names = [texts([]), *(mine for _, mine, _ in found)]
        return np.concatenate([np.empty(0, np.int64), *positions]), pa.concat_arrays(names)

    def sample(self, count: int) -> Vectors:
        """The vectors of about so many rows, spread evenly over the table. Raises DamagedError."""
        positions = np.unique(np.linspace(0, self.rows - 1, min(count, self.rows)).astype(np.int64))
        if any(mask is not None for mask in self.live):
            masks = zip(self.live, self.segments, strict=True)
            there = [np.ones(each.rows, bool) if mask is None else mask for mask, each in masks]
            positions = np.flatnonzero(np.concatenate(there))[positions]
        parts = []
        for start, end, segment in zip(self._starts[:-1], self._starts[1:], self.segments, strict=True):
            mine = positions[(positions >= start) & (positions < end)] - start
            parts.append(segment.vectors(mine))
        return np.concatenate(parts)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        exact: bool = False,
        subset: RowSubset | None = None,
        min_similarity: float | None = None,
    ) -> Answers:
        """The `k` rows nearest to each of the L2-normalised queries, float32 [n, dimensions]: all, if there are fewer.

        Only the rows of `subset` are found, and of these only those of `min_similarity` or more. Similarity is
        the inner product, computed in float64 from the stored vectors; ties are ordered by row id.
        Raises DamagedError where rows can be had neither from a sidecar nor from the Parquet.
        """
        if not len(queries):
            return no_answers(0)
        found, stages = self.candidates(queries, k, exact=exact, subset=subset)
        ranking = Stage("rank", "by exact similarity, ties by row id")
        began = time.perf_counter()
        near = found.similarities
        if min_similarity is not None:
            near = np.where(near >= smallest(min_similarity), near, np.float32(-np.inf))
        answers = self.best(Found(found.positions, near, near), k)
        ranking.rows, ranking.seconds = len(answers.scores), time.perf_counter() - began
        answers.stages.extend([*stages, ranking])
        return answers

    def candidates(
        self, queries: Vectors, k: int, *, exact: bool = False, subset: RowSubset | None = None
    ) -> tuple[Candidates, list[Stage]]:
        """Rows that include the `k` nearest to each query and all ties with the last, with their similarities.

        See `search` for the arguments and errors.
        """
        parts = self._parts(subset)
        if not all(part.segment.indexes for part in parts):
            self._warn_of_damage()
        return nearest(parts, queries, min(k, self.rows), exact=exact)

    def similarities(self, rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        """The similarity of each of these rows, whose numbers rise, to an L2-normalised query. Raises DamagedError."""
        ends = np.searchsorted(rows, self._starts)
        near = [
            similarities(segment.vectors(rows[here : min(end, here + _AT_ONCE)] - first)[None], query[None])[0]
            for segment, first, start, end in zip(self.segments, self._starts, ends, ends[1:], strict=False)
            for here in range(start, end, _AT_ONCE)
        ]
        return np.concatenate(near) if near else np.empty(0, np.float32)

    def mask(self, subset: RowSubset | None) -> Mask:
        """For each row by its number, whether it may be found."""
        masks = (
            [
                np.unpackbits(mask, count=segment.rows).view(bool)
                for mask, segment in zip(subset.masks, self.segments, strict=True)
            ]
            if subset
            else [
                np.ones(segment.rows, bool) if mask is None else mask
                for mask, segment in zip(self.live, self.segments, strict=True)
            ]
        )
        return np.concatenate(masks)

    def narrowed(self, mask: Mask) -> RowSubset:
        """The rows of a mask like that of `mask`."""
        masks = np.split(mask, self._starts[1:-1])
        return RowSubset(tuple(map(np.packbits, masks)), tuple(int(mask.sum()) for mask in masks))

    def _parts(self, subset: RowSubset | None) -> list[Part]:
        masks: Sequence[Mask | None] = self.live
        there: Sequence[int] = self._there
        if subset:
            there = subset.counts
            masks = [
                np.unpackbits(mask, count=segment.rows).view(bool)
                for mask, segment in zip(subset.masks, self.segments, strict=True)
            ]
        parts = zip(self.numbers, self.segments, self._starts[:-1].tolist(), masks, there, strict=True)
        return [
            Part(number, segment, first, None if count == segment.rows else mask, count)
            for number, segment, first, mask, count in parts
        ]

    def best(self, found: Found, k: int) -> Answers:
        """The best `k` rows of each query by their scores, ties by row id and passage. Raises DamagedError."""
        rows, scores, k = found.rows, found.scores, min(k, self.rows)
        order = np.argsort(-scores, axis=1, kind="stable")
        falling = np.take_along_axis(scores, order, 1)
        counts = np.minimum((falling > -np.inf).sum(axis=1), k)
        ties = (falling[:, 1 : k + 1] == falling[:, :k][:, : falling.shape[1] - 1]) & (falling[:, 1 : k + 1] > -np.inf)
        for i in np.flatnonzero(ties.any(axis=1)):
            self._sort_ties(order[i], falling[i], rows[i], k)
        order, falling = order[:, :k], falling[:, :k]
        chosen = np.arange(order.shape[1]) < counts[:, None]
        ranked = falling[chosen]
        if found.similarities is scores:
            ranked = near = np.clip(ranked, -1, 1)
        else:
            near = np.clip(_taken(found.similarities, order, chosen), -1, 1)
        best = np.take_along_axis(rows, order, 1)[chosen]
        return Answers(counts, self._named(best), ranked, near, _taken(found.bm25, order, chosen), best)

    def _sort_ties(
        self, order: NDArray[np.int64], falling: NDArray[np.float32], positions: NDArray[np.int64], k: int
    ) -> None:
        """Order the first `k` rows of equal similarity, and all ties with them, by row id and passage, in place."""
        end = int(np.searchsorted(-falling, -falling[min(k, len(falling)) - 1], side="right"))
        if falling[end - 1] == -np.inf:
            end = int(np.searchsorted(-falling, np.inf))
        row_ids = self._named(positions[order[:end]]).to_pylist()
        passages = self.passages(positions[order[:end]])
        numbers = [0] * end if passages is None else passages.column(0).to_pylist()
        by_id = sorted(range(end), key=lambda i: (-falling[i], row_ids[i], numbers[i]))
        order[:end] = order[by_id]

    def _named(self, positions: NDArray[np.int64]) -> pa.StringArray:
        if len(self.segments) == 1:
            return self.segments[0].row_ids.take(numbers(positions))
        order = np.argsort(positions)
        rising = positions[order]
        ends = np.searchsorted(rising, self._starts)
        parts = [
            segment.row_ids.take(numbers(rising[start:end] - first))
            for segment, first, start, end in zip(self.segments, self._starts, ends, ends[1:], strict=False)
            if start < end
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_arrays([texts([]), *parts]).take(numbers(back))

    def passages(self, positions: NDArray[np.int64]) -> Passages | None:
        """Which places of which texts rows are, by their numbers; None if they are no passages. Raises DamagedError."""
        if not self.entry.definition.passages:
            return None
        segments = np.searchsorted(self._starts, positions, side="right") - 1
        parts, order = [], np.argsort(segments, kind="stable")
        for number in np.unique(segments).tolist():
            there = self.segments[number].passages
            if there is not None:
                parts.append(there.take(numbers(positions[segments == number] - self._starts[number])))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return joined_passages(parts).take(numbers(back))

    def _warn_of_damage(self) -> None:
        if self.damage:
            self._warn(
                f"the search index of '{self.entry.name}' cannot be used ({self.damage}); searching exactly, with the "
                "same rows but slower; SELECT * FROM jammi_recover() builds it again"
            )

    def _warn(self, message: str) -> None:
        """Warn, once for each message."""
        with self._warning:
            is_known = message in self._warned
            self._warned.add(message)
        if not is_known:
            warnings.warn(message, JammiWarning, stacklevel=2)


def _words_found(store: Store, state: manifest.Manifest, live: Mapping[int, Mask]) -> Words:
    """The words of a state that no manifest describes; their files say of which segments they are."""
    files = files_of(store, state.table)
    segments = with_words_found(store, files, state.segments, state.definition.words, is_to_last=False)
    return words_of(store, replace(state, segments=segments), live)


def no_answers(queries: int) -> Answers:
    """No rows at all for each of so many queries."""
    values = np.empty(0, np.float32)
    none = np.empty(0, np.int64)
    return Answers(np.zeros(queries, np.int64), texts([]), values, values, values, none)


def smallest(min_similarity: float) -> np.float32:
    """The smallest similarity of rows that are to be of this similarity or more."""
    return np.float32(np.clip(min_similarity, -2, 2))


def _taken(values: NDArray[np.float32] | None, order: NDArray[np.int64], chosen: Mask) -> NDArray[np.float32]:
    """Values of the chosen rows; NaN where none were computed."""
    if values is None:
        return np.full(int(chosen.sum()), np.nan, np.float32)
    return np.take_along_axis(values, order, 1)[chosen]


def live_masks(store: Store, segments: Sequence[manifest.Segment], tombstones: Sequence[Tombstones]) -> dict[int, Mask]:
    """Which rows of segments, by number, are not gone: of those that have lost some.

    Raises DamagedError, and UnsupportedError where tombstones list a row that is not there.
    """
    rows = {segment.number: segment.rows for segment in segments}
    masks: dict[int, Mask] = {}
    for each in (each for each in tombstones if each.rows):
        path = store.checked(each.parquet)
        with called(each.parquet.file, path):
            for _, numbers, positions in read_tombstones(path):
                for number in filter(rows.__contains__, np.unique(numbers).tolist()):
                    mine = positions[numbers == number]
                    if mine.min() < 0 or mine.max() >= rows[number]:
                        raise UnsupportedError(f"'{each.parquet.file}' lists a row that segment {number} does not have")
                    masks.setdefault(number, np.ones(rows[number], bool))[mine] = False
    return masks


def newest_manifest(
    store: Store,
    entry: Entry,
    segments: Sequence[manifest.Segment] = (),
    tombstones: Sequence[Tombstones] = (),
    files: Collection[str] | None = None,
) -> manifest.Manifest:
    """The present manifest of a table.

    `segments` and `tombstones` are those that are known of, and `files` are those of the location, if it was listed.
    Raises DamagedError where there is no manifest, it is not this build's, or it is older than what is known.
    """
    file, found = _read_newest(store, entry.name, files)
    if found.build != entry.build:
        raise DamagedError(f"'{file}' is another build's manifest")
    if is_older(found, segments, tombstones):
        raise DamagedError(f"the manifest after '{file}' is missing")
    return found


def _read_newest(store: Store, table: str, files: Collection[str] | None) -> tuple[str, manifest.Manifest]:
    """The newest manifest, and its file. One that is gone by the time that it is read was followed by another."""
    file = None
    while True:
        names, files = store.names() if files is None else files, None
        before, file = file, manifest.newest(names).get(table)
        if not names:
            raise DamagedError(
                f"there is nothing at '{store.location}', where '{table}' was; it may not be mounted, or was moved: "
                "once its files are back, the table is ready again"
            )
        if file is None:
            raise DamagedError(f"'{table}' has no manifest")
        try:
            return file, manifest.read(store, file)
        except DamagedError:
            if file == before:
                raise


def is_older(state: manifest.Manifest, segments: Sequence[manifest.Segment], tombstones: Sequence[Tombstones]) -> bool:
    """Whether a state is older than the one that consists of these segments and tombstones: each has a new number."""
    known: tuple[manifest.TableFile, ...] = (*segments, *tombstones)
    return max((each.number for each in known), default=0) > max(each.number for each in state.parquet_files)


def _result(checks: Mapping[str, Future[Path]], kind: str) -> Path:
    return checks[kind].result()
