"""Writes segments: rows to Parquet, with a new file every so many rows, and Parquet to sidecars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.errors import StorageError
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.locks import SharedLocks
from jammi_duck.storage.files.manifest import Segment, Tombstones
from jammi_duck.storage.files.parquet import (
    Digests,
    Passages,
    SegmentWriter,
    State,
    Texts,
    TombstoneWriter,
    check_shape,
)
from jammi_duck.storage.files.store import Store, called, writing
from jammi_duck.storage.index import sidecars as index
from jammi_duck.storage.index.graph import Grown
from jammi_duck.storage.tables.segment_words import KIND, RowWords, SegmentWords
from jammi_duck.storage.words.words_file import WordsFile
from jammi_duck.types import Counts, Definition, Shape

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

ProgressCallback = Callable[[int], None]


class SegmentFiles:
    """Writes rows to the segments of one embedding table. One thread at a time."""

    def __init__(
        self,
        store: Store,
        table: str,
        definition: Definition,
        build: str,
        change: str,
        segment_rows: int,
        first: int,
        on_name_taken: Callable[[int], tuple[str, int]],
        stored_words: Callable[[int], WordsFile | None] = lambda _: None,
    ) -> None:
        """Nothing is written yet. `change` is the id that scratch files bear, `first` the number of the first segment.

        `stored_words` gives the words of an earlier segment, by its number. `on_name_taken` gives another table and
        number where another process has written a segment of this number.
        """
        self.table = table
        self.written: list[Segment] = []
        self.rows = 0
        self._store = store
        self._definition = definition
        self._build = build
        self._change = change
        self._segment_rows = segment_rows
        self._number = first
        self._on_name_taken = on_name_taken
        self._writer: SegmentWriter | None = None
        words = definition.words
        self._words = SegmentWords(store, table, change, words, stored_words) if words else None

    def open(self) -> None:
        """Begin a file, unless one is open. Raises StorageError."""
        self._open_writer()

    def write(
        self,
        row_ids: Texts,
        vectors: Vectors,
        digests: Digests,
        words: RowWords | None = None,
        passages: Passages | None = None,
    ) -> None:
        """Append rows; a segment that is full becomes a file. `vectors` is float32 [n, dimensions], L2-normalised.

        `words` is None where they are not known. `passages` is given where the rows are passages.
        """
        start = 0
        while start < len(row_ids):
            writer = self._open_writer()
            if writer.rows >= self._segment_rows:
                self.close()
                continue
            end = _end(passages, start + self._segment_rows - writer.rows, len(row_ids))
            with writing(writer.path):
                if self._words:
                    self._words.add(writer.rows, None if words is None else words[start:end])
                part = None if passages is None else passages[start:end]
                writer.write(row_ids[start:end], vectors[start:end], digests[start:end], part)
            self.rows += end - start
            start = end

    def close(self, counts: Counts | None = None) -> None:
        """Give the file that is open its name, if there is one; `counts` mark the last one of a build."""
        if self._writer is None:
            return
        writer = self._writer
        with writing(writer.path):
            writer.close(counts)
        while True:
            try:
                digest = self._store.create(layout.parquet(self.table, self._number), writer.path)
                break
            except FileExistsError:
                self.table, self._number = self._on_name_taken(self._number)
        self._writer = None
        self._number += 1
        self.written.append(Segment(self._number - 1, writer.rows, digest))
        if self._words:
            # Its Parquet file is there, whatever becomes of its words.
            self.written[-1] = self._words.close(self.table, self.written[-1])

    def discard(self) -> None:
        """Close what is open, and remove what was not given a name yet."""
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.close()
            with contextlib.suppress(StorageError):
                self._store.discard(self._writer.path.name)
            self._writer = None
        if self._words:
            self._words.discard()

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            change = None if self._change == self._build else self._change
            scratch = self._store.scratch(layout.parquet(self.table, self._number), self._change)
            with writing(scratch):
                self._writer = SegmentWriter(scratch, self._definition, self._build, change)
        return self._writer


def _end(passages: Passages | None, wanted: int, rows: int) -> int:
    """Where a segment ends in rows that are written: at the place that is wanted, or after the passages of a text.

    So whole segments of a build that was interrupted have whole texts.
    """
    if passages is None or wanted >= rows:
        return min(wanted, rows)
    firsts = np.flatnonzero(passages.column("_passage").to_numpy(zero_copy_only=False)[wanted:] == 0)
    return wanted + int(firsts[0]) if len(firsts) else rows


def add_sidecars(
    store: Store,
    table: str,
    change: str,
    segment: Segment,
    shape: Shape,
    progress: ProgressCallback,
    rebuilt: int = 0,
    grown: Grown | None = None,
) -> Segment:
    """Build and store the sidecars of a segment; `rebuilt` is the number of the manifest that will name them.

    Sidecars of other kinds are kept. The graph extends the one that has `grown`, if there is one, or is built anew.

    Raises:
        DamagedError: the Parquet is not what its digest says.
        FileNotFoundError: it is gone by now.
        UnsupportedError: it has what cannot be indexed: other rows, a vector that is no numbers, a row id twice.
    """
    files = {kind: layout.sidecar(table, segment.number, kind, rebuilt) for kind in index.built(shape)}
    scratches = {kind: store.scratch(file, change) for kind, file in files.items()}
    try:
        parquet = store.checked(segment.parquet)
        # It may be a copy in the cache, which a vacuum of another process would take.
        scratch = next(iter(scratches.values()))
        with contextlib.closing(SharedLocks([parquet])), writing(scratch), called(segment.parquet.file, parquet):
            check_shape(parquet, segment.rows, shape)
            index.build(parquet, scratches, rows=segment.rows, shape=shape, progress=progress, grown=grown)
        made = {kind: store.create(file, scratches[kind]) for kind, file in files.items()}
        return replace(segment, sidecars={**segment.sidecars, **made})
    finally:
        for scratch in scratches.values():
            with contextlib.suppress(StorageError):
                store.discard(scratch.name)


def sidecars_of(table: str, segments: Iterable[Segment], shape: Shape, *, words: bool = True) -> list[str]:
    """The names of the sidecars that these segments get at first; those of their `words` cannot be made of them."""
    kinds = (*index.built(shape), *([KIND] if words else []))
    return [layout.sidecar(table, segment.number, kind) for segment in segments for kind in kinds]


def close_state(store: Store, table: str, writer: TombstoneWriter, state: State, first: int) -> Tombstones:
    """Close tombstones, which say what the state is, and give them the first number that is free from `first` on."""
    with writing(writer.path):
        writer.close(state)
    number = first
    while True:
        try:
            return Tombstones(number, writer.rows, store.create(layout.deleted(table, number), writer.path))
        except FileExistsError:
            number += 1
