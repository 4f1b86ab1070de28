"""The words of segments: written beside their Parquet files, found again, and opened for a search."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError, InputError, StorageError, UnsupportedError
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.manifest import Manifest, Segment
from jammi_duck.storage.files.store import FileDigest, Store, writing
from jammi_duck.storage.files.table_files import files_of
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.words.analyser import NAME, Analyser, analyser
from jammi_duck.storage.words.bm25 import Words
from jammi_duck.storage.words.collecting import Collector, Source
from jammi_duck.storage.words.words_file import WordsFile
from jammi_duck.types import Analysis

KIND = "words"
# The places of rows in segments, whose words are taken: the segment's number, and the position there.
Places: TypeAlias = NDArray[np.int64]
# For rows that are written, their texts, or the places of rows with the same texts.
RowWords: TypeAlias = Sequence[str] | Places

_POSITION_BITS = 32
# The SHA-256s of the content of files that were found to be forged: theirs fit, and they cannot be read.
_forged: set[str] = set()


def places_of(segment: int, positions: NDArray[np.int64]) -> Places:
    """The places of rows by their positions in a segment."""
    return segment << _POSITION_BITS | positions


def analyser_of(words: Analysis) -> Analyser:
    """The analyser of a table. Raises UnsupportedError where this version does not have it."""
    if words.analyser != NAME:
        raise UnsupportedError(
            f"its words were found by the analyser '{words.analyser}', which a later version may know"
        )
    try:
        return analyser(words.language)
    except InputError as error:
        raise UnsupportedError(f"its words are in the language '{words.language}', which is not known here") from error


class SegmentWords:
    """Writes the words of the segment that is being written. One thread at a time."""

    def __init__(
        self, store: Store, table: str, change: str, words: Analysis, stored: Callable[[int], WordsFile | None]
    ) -> None:
        """`change` is the id in the names of scratch files; `stored` gives the words of an earlier segment.

        Raises UnsupportedError where the analyser is not known.
        """
        self._store = store
        self._scratch_name = layout.sidecar(table, 0, KIND)
        self._change = change
        self._analyser = analyser_of(words)
        self._stored = stored
        self._begin()

    def add(self, row: int, words: RowWords | None) -> None:
        """Take the words of rows that are written, the first of which is this row of the segment."""
        if words is None:
            self._is_whole = False
        elif isinstance(words, np.ndarray):
            self._taken.append((row, words))
        else:
            for place, text in enumerate(words, start=row):
                self._collector.add(place, text)

    def close(self, table: str, segment: Segment) -> Segment:
        """Write the words of the segment, which is whole now; gives it with them, if they are all known."""
        try:
            taken = self._sources()
            if self._is_whole and taken is not None:
                file = layout.sidecar(table, segment.number, KIND)
                # What it is taken from may be forged. Without words, a refresh indexes them again.
                with contextlib.suppress(DamagedError, FileExistsError):
                    digest = written(self._store, file, self._change, self._collector, segment, taken)
                    segment = replace(segment, sidecars={**segment.sidecars, KIND: digest})
        finally:
            self.discard()
            self._begin()
        return segment

    def discard(self) -> None:
        """Remove what is half written."""
        self._collector.discard()

    def _begin(self) -> None:
        self._collector = Collector(self._analyser, self._scratch)
        self._taken: list[tuple[int, Places]] = []
        self._is_whole = True

    def _scratch(self) -> Path:
        return self._store.scratch(self._scratch_name, self._change)

    def _sources(self) -> list[Source] | None:
        """The words that are taken from earlier segments; None if one of these has none."""
        rows = (
            np.concatenate([np.arange(row, row + len(places)) for row, places in self._taken]) if self._taken else _NONE
        )
        places = np.concatenate([each for _, each in self._taken]) if self._taken else _NONE
        sources = []
        for number in np.unique(places >> _POSITION_BITS).tolist():
            words = self._stored(number)
            if words is None:
                return None
            mine = places >> _POSITION_BITS == number
            becomes = np.full(words.rows, -1)
            becomes[places[mine] & (1 << _POSITION_BITS) - 1] = rows[mine]
            sources.append(Source(words, becomes))
        return sources


_NONE = np.empty(0, np.int64)


class WordsAgain:
    """Indexes the words of segments that are there, from texts that come in any order. One thread at a time."""

    def __init__(self, store: Store, table: str, change: str, words: Analysis | None) -> None:
        """Nothing is done unless `begin` names segments. `change` is the id in the names of scratch files."""
        self.segments: tuple[Segment, ...] = ()
        # What was written.
        self.files: list[str] = []
        self._store = store
        self._table = table
        self._change = change
        self._words = words
        self._starts: dict[int, int] = {}
        self._wanted: Mapping[int, int] = {}
        self._came: Counter[int] = Counter()
        self._made: dict[FileDigest, FileDigest] = {}
        # The words of all segments together, once they are collected.
        self._together: Path | None = None

    def begin(self, segments: Sequence[Segment], wanted: Mapping[int, int] | None = None) -> None:
        """The segments whose rows come, and how many rows of each are wanted; by default those that come."""
        self.segments = tuple(segments)
        self._wanted = wanted or {}
        if segments and self._words:
            starts = np.cumsum([0, *(segment.rows for segment in segments)]).tolist()
            self._starts = dict(zip((segment.number for segment in segments), starts, strict=False))
            self._collector = Collector(analyser_of(self._words), self._scratch)

    def add(self, segment: int, position: int, text: str) -> None:
        """Take the text of a row."""
        self._collector.add(self._starts[segment] + position, text)
        self._came[segment] += 1

    def finish(self) -> None:
        """Write the words of all segments. Raises FileExistsError and StorageError."""
        if not self.segments:
            return
        names = [name for file in files_of(self._store, self._table) if (name := layout.parse(file))]
        numbers = [name.number for name in names if name.kind == KIND]
        again = 1 + max(max(name.rebuilt for name in names), max(name.number for name in names))
        rows = sum(segment.rows for segment in self.segments)
        self._together = together = self._scratch()
        try:
            with writing(together):
                self._collector.save(together, rows, "0" * 64)
                collected = WordsFile(together)
            for segment in self.segments:
                becomes = np.full(rows, -1)
                start = self._starts[segment.number]
                becomes[start : start + segment.rows] = np.arange(segment.rows)
                collector = Collector(self._collector.analyser, self._scratch)
                rebuilt = again if segment.number in numbers else 0
                while True:
                    file = layout.sidecar(self._table, segment.number, KIND, rebuilt)
                    with contextlib.suppress(FileExistsError):
                        taken = [Source(collected, becomes)]
                        lacks = self._came[segment.number] < self._wanted.get(segment.number, 0)
                        made = written(self._store, file, self._change, collector, segment, taken, lacks_rows=lacks)
                        break
                    # Another process was first.
                    rebuilt = max(again, rebuilt + 1)
                self._made[segment.parquet] = made
                self.files.append(file)
        finally:
            self.discard()

    def with_words(self, segment: Segment) -> Segment:
        """A segment with the words that were written for it, if they were."""
        made = self._made.get(segment.parquet)
        return replace(segment, sidecars={**segment.sidecars, KIND: made}) if made else segment

    def discard(self) -> None:
        """Remove what is half written, or of use no more. What cannot be removed now is removed by the next call."""
        if self.segments:
            self._collector.discard()
        if self._together:
            with contextlib.suppress(StorageError):
                self._store.discard(self._together.name)
                self._together = None

    def _scratch(self) -> Path:
        return self._store.scratch(layout.sidecar(self._table, 0, KIND), self._change)


def written(
    store: Store,
    file: str,
    change: str,
    collector: Collector,
    segment: Segment,
    taken: Sequence[Source] = (),
    *,
    lacks_rows: bool = False,
) -> FileDigest:
    """Write what was collected to the words of a segment. Raises FileExistsError and StorageError."""
    scratch = store.scratch(file, change)
    try:
        with writing(scratch):
            collector.save(scratch, segment.rows, segment.parquet.sha256, taken, lacks_rows=lacks_rows)
        return store.create(file, scratch)
    finally:
        with contextlib.suppress(StorageError):
            store.discard(scratch.name)


def open_words(store: Store, segment: Segment, words: Analysis) -> WordsFile:
    """The words of a segment.

    Raises:
        DamagedError: it has none, they are damaged, or were found in another way than the table's.
        StorageError: they cannot be read now.
    """
    digest = segment.sidecars.get(KIND)
    if digest is None:
        raise DamagedError(f"the words of '{segment.parquet.file}' are not indexed")
    found = WordsFile(store.checked(digest), digest.file)
    _check_belongs(found, digest.file, segment, words)
    if found.header.content in _forged:
        raise DamagedError(f"'{digest.file}' cannot be read")
    return found


def note_forged(words: Words) -> bool:
    """Keep in mind which files could be opened, and cannot be read: they count as damaged from now on.

    Returns whether there are any.
    """
    found = words.damaged()
    _forged.update(each.header.content for each in found)
    return bool(found)


def _check_belongs(found: WordsFile, file: str, segment: Segment, words: Analysis) -> None:
    mine = found.header.parquet, found.rows, found.analysis.analyser, found.analysis.language
    if mine != (segment.parquet.sha256, segment.rows, words.analyser, words.language):
        raise DamagedError(f"'{file}' has the words of other rows, or in another language")


def words_of(store: Store, state: Manifest, live: Mapping[int, Mask]) -> Words:
    """The words of all segments of a table that has any. Raises DamagedError and StorageError."""
    words = state.definition.words
    if words is None:
        raise DamagedError(f"the words of '{state.table}' are not indexed")
    finder = analyser_of(words)
    segments = [segment for segment in state.segments if segment.rows]
    opened = [open_words(store, segment, words) for segment in segments]
    return Words(finder, opened, [live.get(segment.number) for segment in segments])


def without_words(store: Store, state: Manifest) -> list[Segment]:
    """The segments of a table with words whose own are missing, damaged, or not those of all rows.

    Raises StorageError.
    """
    words = state.definition.words
    lacking = []
    for segment in state.segments if words else ():
        try:
            if segment.rows and words and open_words(store, segment, words).header.lacks_rows:
                lacking.append(segment)
        except (DamagedError, UnsupportedError):
            lacking.append(segment)
    return lacking


def with_words_found(
    store: Store,
    files: Iterable[str],
    segments: Sequence[Segment],
    words: Analysis | None,
    *,
    is_to_last: bool = True,
) -> tuple[Segment, ...]:
    """The segments, with the words that are there for them though no manifest names these.

    `files` are those of the table. A file of words says which Parquet file it is for.

    Raises:
        StorageError: a file cannot be read now, and what is found `is_to_last`, as in a manifest.
    """
    if words is None:
        return tuple(segments)
    names = {file: name for file in files if (name := layout.parse(file)) and name.kind == KIND}
    unusable = (DamagedError, UnsupportedError) if is_to_last else (StorageError,)

    def found(segment: Segment) -> Segment:
        if KIND in segment.sidecars:
            return segment
        mine = [file for file, name in names.items() if name.number == segment.number]
        for file in sorted(mine, key=lambda file: -names[file].rebuilt):
            with contextlib.suppress(*unusable, FileNotFoundError):
                digest, path = store.found(file)
                words_file = WordsFile(path, file)
                _check_belongs(words_file, file, segment, words)
                words_file.check()
                return replace(segment, sidecars={**segment.sidecars, KIND: digest})
        return segment

    return tuple(map(found, segments))
