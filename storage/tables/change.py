"""Makes the next state of an embedding table: adds and deletes rows, and commits them with a new manifest.

Nothing that is there is touched. New rows go to new segments, and rows that are gone or replaced are listed in
tombstones, which close the state: with them, the Parquet files alone say what the table holds. The manifest with the
next number makes it the table's state, if no other change was first; if one was, this change is made to fit it.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError, NotFoundError, StateError, StorageError, UnsupportedError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.manifest import Manifest, Segment, Tombstones
from jammi_duck.storage.files.marker import Marker
from jammi_duck.storage.files.parquet import (
    Digests,
    Passages,
    State,
    Texts,
    TombstoneWriter,
    joined_passages,
    read_row_ids,
    read_rows,
    read_tombstones,
)
from jammi_duck.storage.files.store import Store, writing
from jammi_duck.storage.files.table_files import by_table, files_of, free_number, remove_files
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.index.graph import Grown
from jammi_duck.storage.index.row_ids import RowIds
from jammi_duck.storage.index.segment import ParquetSegment
from jammi_duck.storage.index.sidecars import is_indexed
from jammi_duck.storage.tables.build import make_ready, what_is_kept
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import catch_up, record_state
from jammi_duck.storage.tables.clock import not_before
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.ownership import delete_table
from jammi_duck.storage.tables.segment_files import (
    ProgressCallback,
    SegmentFiles,
    add_sidecars,
    close_state,
    sidecars_of,
)
from jammi_duck.storage.tables.segment_words import Places, RowWords, WordsAgain, open_words, places_of
from jammi_duck.storage.tables.snapshot import changed_since
from jammi_duck.storage.tables.table import Table, live_masks, newest_manifest
from jammi_duck.storage.words.words_file import WordsFile
from jammi_duck.types import Analysis, Counts, Shape

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

# A segment's number, and the ids and positions of rows in it.
Found: TypeAlias = "tuple[int, pa.StringArray, NDArray[np.int64]]"


class StoredRows(NamedTuple):
    """Rows of a segment, with the places where their words are found; `passages` where the rows are passages."""

    row_ids: pa.StringArray
    vectors: Vectors
    digests: pa.FixedSizeBinaryArray
    places: Places
    passages: Passages | None

    def take(self, positions: NDArray[np.int64]) -> StoredRows:
        """Some of the rows, in another order."""
        chosen = pa.array(positions)
        passages = None if self.passages is None else self.passages.take(chosen)
        return StoredRows(
            self.row_ids.take(chosen),
            self.vectors[positions],
            self.digests.take(chosen),
            self.places[positions],
            passages,
        )

    def slice(self, part: slice) -> StoredRows:
        """Some of the rows, which follow each other."""
        passages = None if self.passages is None else self.passages[part]
        return StoredRows(self.row_ids[part], self.vectors[part], self.digests[part], self.places[part], passages)

    @classmethod
    def joined(cls, parts: Sequence[StoredRows]) -> StoredRows:
        """Several as one."""
        passages = [part.passages for part in parts if part.passages is not None]
        return cls(
            pa.concat_arrays([part.row_ids for part in parts]),
            np.concatenate([part.vectors for part in parts]),
            pa.concat_arrays([part.digests for part in parts]),
            np.concatenate([part.places for part in parts]),
            joined_passages(passages) if passages else None,
        )


class Change:
    """`write` rows and `forget` others, then `finish`, or `abandon`. One thread at a time."""

    def __init__(
        self,
        tables: EmbeddingTables,
        entry: Entry,
        base: Manifest,
        stage: str,
        *,
        spare: Sequence[Segment] = (),
        kept: Sequence[Segment] | None = None,
        free: int | None = None,
        words: Analysis | None = None,
        adds: bool = False,
    ) -> None:
        """Start from the state `base`. The catalog notes the `stage`.

        `words` says how words are indexed from now on, if that is what changes, and nothing else. A change that only
        `adds` rows, by keys that nobody else has, leaves whatever another change did, and its counts are of these rows.

        If `kept` is given, as in a compaction, the new state consists of these segments and of what is written.
        `vectors` also reads the `spare` segments, which are not part of the state. `free` is the first number for new
        files, if that was looked for. A failed build becomes `building` again. Raises StateError if somebody else has
        resumed it.
        """
        self.id = uuid.uuid4().hex
        self.entry = entry
        self.definition = replace(base.definition, words=words or base.definition.words)
        self._words = words
        self._adds = adds
        self.base = base
        self._tables = tables
        self._store = tables.store_at(entry.location)
        shape = entry.definition.shape
        self._spare = {each.number: ParquetSegment(self._store, each.parquet, each.rows, shape) for each in spare}
        self._base_segments = base.segments
        self._kept = kept
        self._grown: dict[int, Grown] = {}
        self._base_table: Table | None = None
        self._base_table_of: Manifest | None = None
        self._segments: tuple[Segment, ...] = ()
        # Where the rows are passages: the texts that were written, and those that the tombstones list.
        self._texts = self._texts_forgotten = 0
        self._tombstone_writer: TombstoneWriter | None = None
        self._tombstone_files: list[str] = []
        self._marker = Marker(self._store, entry.name, self.id)
        first = free_number(files_of(self._store, entry.name)) if free is None else free
        self._files = SegmentFiles(
            self._store,
            entry.name,
            self.definition,
            entry.build,
            self.id,
            tables.segment_rows,
            first,
            self._on_name_taken,
            self._stored_words,
        )
        self._words_again = WordsAgain(self._store, entry.name, self.id, self.definition.words)
        if entry.status == "ready":
            tables.catalog.note_change(entry.build, stage, self.id)
        else:
            tables.catalog.mark_resumed(entry.build, self.id)
            # Of a build that has no manifest; those that are wanted again get the same names.
            remove_files(self._store, sidecars_of(self.name, base.segments, shape, words=False))

    @property
    def name(self) -> str:
        """The embedding table's name."""
        return self.entry.name

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self._files.rows

    @property
    def rows_to_index(self) -> int:
        """How many rows are in segments that are not indexed yet."""
        shape = self.definition.shape
        return self.rows + sum(each.rows for each in self.base.segments if not is_indexed(each, shape))

    def write(
        self,
        row_ids: Texts,
        vectors: Vectors,
        digests: Digests,
        words: RowWords | None,
        passages: Passages | None = None,
    ) -> None:
        """Add rows; a segment that is full becomes a file. `vectors` is float32 [n, dimensions], L2-normalised.

        `words` are the texts of the rows, or the places of rows with the same texts. `passages` is given where the rows
        are passages.
        """
        self._marker.set()
        self._files.write(row_ids, vectors, digests, words, passages)
        if passages is not None:
            self._texts += _firsts(passages)

    def index_words(self, segments: Sequence[Segment], wanted: Mapping[int, int] | None = None) -> None:
        """Index the words of these segments of the state anew; `add_words` is given the texts of their rows.

        `wanted` is how many rows of each have words, if not all of their texts may come.
        """
        self._words_again.begin(segments, wanted)

    def add_words(self, segment: int, position: int, text: str) -> None:
        """Take the text of a row, by its segment's number and its position there."""
        self._marker.set()
        self._words_again.add(segment, position, text)

    def _stored_words(self, segment: int) -> WordsFile | None:
        """The words of a segment of the state that this started from, if it has any."""
        words = self.base.definition.words
        with contextlib.suppress(DamagedError, UnsupportedError):
            for each in self.base.segments:
                if words and each.number == segment:
                    return open_words(self._store, each, words)
        return None

    def end_segment(self, grown: Grown | None) -> None:
        """Close the segment that was written, even without a row; its graph has `grown`, or is built anew."""
        self._marker.set()
        self._files.open()
        self._files.close()
        if grown is not None:
            self._grown[self._files.written[-1].number] = grown

    def forget(
        self, row_ids: Texts, segments: Sequence[int], positions: Sequence[int], *, of: Table | None = None
    ) -> None:
        """Forget rows of the state that this started from, by their segments' numbers and their positions there.

        Or else of another state, whose table is given.
        """
        gone = self._tombstones()
        with writing(gone.path):
            gone.write(row_ids, segments, positions)
        if self.definition.passages:
            self._texts_forgotten += _texts_at(of or self._opened_base(), np.asarray(segments), np.asarray(positions))

    def forget_again(self, segments: Sequence[Segment]) -> None:
        """Forget the rows of these segments that are gone in the state that this started from."""
        numbers = [each.number for each in segments]
        for each in (each for each in self.base.tombstones if each.rows):
            for row_ids, of, positions in read_tombstones(self._store.checked(each.parquet)):
                mine = np.flatnonzero(np.isin(of, numbers))
                if len(mine):
                    self.forget(row_ids.take(pa.array(mine)), of[mine].tolist(), positions[mine].tolist())

    @property
    def texts_forgotten(self) -> int:
        """How many texts were forgotten, cut into passages or whole."""
        if self.definition.passages:
            return self._texts_forgotten
        return self._tombstone_writer.rows if self._tombstone_writer else 0

    @property
    def texts_before(self) -> int:
        """How many texts the state had that this started from."""
        if not self.definition.passages:
            return self.base.rows
        if self.base.number:
            return self.base.counts.rows
        table = self._opened_base()
        return sum(_firsts(segment.passages) for segment in table.segments if segment.passages is not None)

    def _opened_base(self) -> Table:
        if self._base_table is None or self._base_table_of is not self.base:
            self._base_table, self._base_table_of = Table.of(self._store, self.entry, self.base), self.base
        return self._base_table

    def vectors(self, segment: int, positions: Sequence[int]) -> Vectors:
        """The vectors of rows of the state that this started from, or that are spare, by their segment's number.

        Raises DamagedError.
        """
        order = np.argsort(positions)
        rising = np.asarray(positions, np.int64)[order]
        found = np.empty((len(positions), self.definition.dimensions), np.float32)
        if segment in self._spare:
            try:
                found[order] = self._spare[segment].vectors(rising)
            except DamagedError as error:
                file = layout.parquet(self.name, segment)
                raise DamagedError(
                    f"'{file}', which an interrupted change had left, is gone by now; run this again"
                ) from error
        else:
            table = self._opened_base()
            found[order] = table.segments[table.numbers.index(segment)].vectors(rising)
        return found

    def finish(self, counts: Counts, progress: ProgressCallback) -> Manifest:
        """Index what is new, and commit the state; gives its manifest.

        `counts` are what `skipped` and `failed` are now, and how many more were `truncated`; the rows are counted here.
        `progress` is told how many rows were added to an index. On an error, call `abandon`.

        Raises:
            NotFoundError: the table was dropped meanwhile.
            StateError: another change was first, and this one cannot be made to fit.
        """
        try:
            return self._finish(counts, progress)
        except (StorageError, StateError) as error:
            if self.entry.status == "ready" and not self._is_ready():
                raise self._dropped() from error
            raise

    def _finish(self, counts: Counts, progress: ProgressCallback) -> Manifest:
        is_same = self._kept is None and self._tombstone_writer is None and not self.rows
        is_same = is_same and not self._words_again.segments and self.definition.words == self.base.definition.words
        if is_same and self.base.number and self._counts(counts) == self.base.counts:
            self._marker.remove()
            if not catch_up(self._tables, self.entry, self.base):
                self._tables.catalog.note_change(self.entry.build, None, None)
            return self.base
        self._files.close()
        self._words_again.finish()
        self._index(progress)
        while True:
            try:
                finished = self._commit(counts)
                break
            except FileExistsError as error:
                if self._kept is not None:
                    raise StateError(f"'{self.name}' has changed meanwhile") from error
                self._rebase()
                self._index(progress)
        self._words_again.discard()
        # Before the catalog says so: what dies in between is settled.
        self._marker.remove()
        if self.entry.status != "ready":
            make_ready(self._tables, finished, self.entry.location)
        elif not record_state(self._tables, self.entry, finished):
            delete_table(self._store, self.name, self.entry.build, was_ready=True)
            raise self._dropped()
        return finished

    def _is_ready(self) -> bool:
        ready = self._tables.catalog.entries("ready", name=self.name)
        return any(entry.build == self.entry.build for entry in ready)

    def _dropped(self) -> NotFoundError:
        return NotFoundError(f"'{self.name}' was dropped while it was changed")

    def release(self) -> None:
        """Remove what is half written, and leave the rest to `recovery.settle`, as if the process had ended."""
        self._files.discard()
        self._words_again.discard()
        if self._tombstone_writer is not None:
            with contextlib.suppress(Exception):
                self._tombstone_writer.close()
            with contextlib.suppress(StorageError):
                self._store.discard(self._tombstone_writer.path.name)
            self._tombstone_writer = None
        self._marker.remove()

    def abandon(self, reason: str, *, keep: bool) -> None:
        """Remove what was written; the table stays as it was. Whole segments with new vectors stay if `keep` says so.

        A state whose manifest was committed stays, and the next `install` or `jammi_recover()` enters it.
        """
        self.release()
        if self._is_committed():
            return
        keep = keep and self._kept is None
        written = self._files.written
        mine = [*self._tombstone_files, *([] if keep else (segment.parquet.file for segment in written))]
        # A ready table's own have names that a manifest gives them.
        indexed = written if self.entry.status == "ready" else [*self._base_segments, *written]
        with contextlib.suppress(StorageError):
            sidecars = sidecars_of(self.name, indexed, self.definition.shape, words=not keep)
            remove_files(self._store, [*mine, *sidecars, *self._words_again.files])
        if self.entry.status == "ready":
            self._tables.catalog.note_change(self.entry.build, None, None)
        else:
            left = [*self._base_segments, *(self._files.written if keep else ())]
            kept = sum(segment.rows for segment in left)
            reason += what_is_kept(kept, self.definition, self.name)
            self._tables.catalog.mark_failed(self.entry.build, reason)

    def _is_committed(self) -> bool:
        """Whether a manifest names our files, or nobody can tell."""
        if not self._tombstone_files:
            return False
        try:
            newest = newest_manifest(self._store, self.entry)
        except DamagedError:
            return _last_state(files_of(self._store, self.name)) > self.base.number
        except StorageError:
            return True
        mine = {*self._tombstone_files, *(segment.parquet.file for segment in self._files.written)}
        return any(digest.file in mine for digest in newest.files)

    def _index(self, progress: ProgressCallback) -> None:
        """Make sidecars for the segments that have none."""
        shape = self.definition.shape

        def whole(segment: Segment) -> Segment:
            segment = self._words_again.with_words(segment)
            if is_indexed(segment, shape):
                return segment
            grown = self._grown.get(segment.number)
            return add_sidecars(self._store, self.name, self.id, segment, shape, progress, grown=grown)

        self.base = replace(self.base, segments=tuple(map(whole, self.base.segments)))
        done = {segment.number: segment for segment in self._segments}
        self._segments = tuple(whole(done.get(segment.number, segment)) for segment in self._files.written)

    def _commit(self, counts: Counts) -> Manifest:
        """Write the tombstones and the manifest. Raises FileExistsError where another state was first."""
        base = self.base
        segments = (*(base.segments if self._kept is None else self._kept), *self._segments)
        tombstones = base.tombstones if self._kept is None else ()
        now = self._counts(counts)
        files = self._store.names()
        numbers, gone = (tuple(each.number for each in files) for files in (segments, tombstones))
        finished = replace(
            base,
            number=base.number + 1,
            definition=self.definition,
            counts=now,
            finished=not_before([base.finished], datetime.now(UTC)),
            segments=segments,
            tombstones=(*tombstones, self._close(State(base.number + 1, numbers, gone, now), files)),
        )
        manifest.commit(self._store, finished, self.id, files | set(self._tombstone_files))
        return finished

    def _close(self, state: State, files: Collection[str]) -> Tombstones:
        """Write the tombstones that close a state. Raises NotFoundError where the table is not there any more.

        `files` are those of the location.
        """
        mine = by_table(files).get(self.name, [])
        if self.base.number > _last_state(mine):
            raise self._dropped()
        closed = close_state(self._store, self.name, self._tombstones(), state, free_number(mine))
        self._tombstone_writer, self._texts_forgotten = None, 0
        self._tombstone_files.append(closed.parquet.file)
        return closed

    def _counts(self, counts: Counts) -> Counts:
        """The new state's counts."""
        if self._words is not None:
            return self.base.counts
        rows, texts = self.base.rows, self.texts_before
        if self._kept is None:
            rows += self.rows - (self._tombstone_writer.rows if self._tombstone_writer else 0)
            texts += self._texts - self._texts_forgotten
        passages = rows if self.definition.passages else 0
        truncated = self.base.counts.truncated + counts.truncated
        before = self.base.counts if self._adds else Counts()
        skipped, failed = max(0, before.skipped + counts.skipped), before.failed + counts.failed
        rows = texts if self.definition.passages else rows
        return replace(
            self.base.counts, rows=rows, skipped=skipped, failed=failed, truncated=truncated, passages=passages
        )

    def _tombstones(self) -> TombstoneWriter:
        if self._tombstone_writer is None:
            self._marker.set()
            scratch = self._store.scratch(layout.deleted(self.name, 1), self.id)
            with writing(scratch):
                self._tombstone_writer = TombstoneWriter(scratch, self.definition, self.entry.build, self.id)
        return self._tombstone_writer

    def _on_name_taken(self, number: int) -> tuple[str, int]:
        return self.name, number + 1

    def _rebase(self) -> None:
        """Rebase on the state that another change committed first.

        For keys that this change wrote or deleted, this change wins. Keys that only the other change touched get back
        the row that they had in the state where this change started, or none: the comparison found that to be right.
        A change that compared nothing leaves them as they are.
        """
        (file,) = self._tombstone_files[-1:]
        has_compared = self._words is None and not self._adds
        mine = self._mine(file) if has_compared else None
        self._store.delete(file)
        # The name is free again: another may have it by the time that this change is abandoned.
        self._tombstone_files.remove(file)
        self.base = newest_manifest(self._store, self.entry) if mine is None else self._merged(mine)
        words = self.base.definition.words
        if self._words is None and words != self.definition.words:
            # The other change says how words are found. The next refresh indexes those of our rows so.
            self.definition = replace(self.definition, words=words)
            remove_files(self._store, self._words_again.files)
            self._words_again = WordsAgain(self._store, self.name, self.id, words)

    def _merged(self, mine: pa.StringArray) -> Manifest:
        """The newest state, of which rows are undone that only another change touched, and not `mine`."""
        newest, touched, table, found = self._rival_changes(mine)
        others = touched.filter(pa.array(~RowIds(touched).mask(mine)))
        before = Table.of(self._store, self.entry, self.base).find(others) if len(others) else []
        for number, row_ids, positions in found:
            self.forget(row_ids, [number] * len(positions), positions.tolist(), of=table)
        for segment, (_, _, positions) in zip(self.base.segments, before, strict=False):
            mask = _mask(segment.rows, positions)
            for rows in stored_rows(self._store, segment, self.definition.shape, mask):
                self.write(*rows)
        self._files.close()
        return newest

    def _mine(self, tombstones: str) -> pa.StringArray:
        """The ids of the rows that this change lists in its tombstones, or writes."""
        try:
            _, path = self._store.found(tombstones)
        except FileNotFoundError as error:
            # A drop, or a vacuum: no manifest names it yet.
            is_there = any(map(layout.is_manifest, files_of(self._store, self.name)))
            raise changed_since(self.name) if is_there else self._dropped() from error
        gone = [ids for ids, _, _ in read_tombstones(path)]
        written = [read_row_ids(self._store.checked(segment.parquet)) for segment in self._files.written]
        return pa.concat_arrays([pa.array([], pa.string()), *gone, *written])

    def _rival_changes(self, mine: pa.StringArray) -> tuple[Manifest, pa.StringArray, Table, list[Found]]:
        """The newest state, the rows that it touched, its table, and where that has these and `mine`.

        Where files of it are gone before they are read, there is a later one, which is taken then.
        """
        newest = None
        while True:
            before, newest = newest, newest_manifest(self._store, self.entry)
            try:
                touched = _touched(self._store, self.base, newest)
                table = Table.of(self._store, self.entry, newest)
                return newest, touched, table, table.find(pa.concat_arrays([mine, touched]))
            except DamagedError:
                if before and before.number == newest.number:
                    raise


def stored_rows(store: Store, segment: Segment, shape: Shape, only: Mask | None) -> Iterator[StoredRows]:
    """A segment's rows, those of a mask only if one is given. If the table has words only, the vectors are [n, 0].

    Raises DamagedError.
    """
    start = 0
    for block in read_rows(store.checked(segment.parquet), shape):
        places = places_of(segment.number, np.arange(start, start + len(block.row_ids)))
        rows = StoredRows(block.row_ids, block.vectors, block.digests, places, block.passages)
        if only is None:
            yield rows
        else:
            kept = np.flatnonzero(only[start : start + len(places)])
            if len(kept):
                yield rows.take(kept)
        start += len(places)


def _touched(store: Store, base: Manifest, newest: Manifest) -> pa.StringArray:
    """The ids of the rows that came or went from one state to a later one, or got another text, each once.

    The states in between are not asked: they may be gone.
    """
    # Imported late: it takes longer than a search takes.
    import pyarrow.compute as pc

    shared = {each.parquet for each in base.segments} & {each.parquet for each in newest.segments}
    before, after = (_live(store, state, [each for each in state.segments if each.parquet not in shared])
                     for state in (base, newest))  # fmt: skip
    ids = [pa.array([], pa.string())]
    for mine, others in ((before, after), (after, before)):
        is_new = pc.invert(pc.is_in(mine["row"], value_set=others["row"]))
        ids += mine["id"].filter(is_new).chunks
    known = {each.parquet for each in base.tombstones}
    shared_numbers = [each.number for each in base.segments if each.parquet in shared]
    for each in newest.tombstones:
        if each.parquet not in known:
            for row_ids, numbers, _ in read_tombstones(store.checked(each.parquet)):
                ids.append(row_ids.filter(pa.array(np.isin(numbers, shared_numbers))))
    return pa.concat_arrays(ids).unique()


def _live(store: Store, state: Manifest, segments: Sequence[Segment]) -> pa.Table:
    """The rows of segments that a state has, by `id`, and by id and text as `row`."""
    import pyarrow.compute as pc

    masks = live_masks(store, segments, state.tombstones)
    ids, rows = [pa.array([], pa.string())], [pa.array([], pa.binary())]
    for segment in segments:
        for found in stored_rows(store, segment, state.definition.shape, masks.get(segment.number)):
            ids.append(found.row_ids)
            rows.append(pc.binary_join_element_wise(*_parts(found), pa.scalar(b"\0")))
    return pa.table({"id": pa.chunked_array(ids), "row": pa.chunked_array(rows)})


def _parts(rows: StoredRows) -> list[pa.Array]:
    """What tells rows apart: ids and texts, and which passages of which texts they are."""
    columns = [rows.row_ids, rows.digests]
    if rows.passages is not None:
        columns += [rows.passages.column("_passage").cast(pa.string()), rows.passages.column("_row_digest")]
    return [each.cast(pa.binary()) for each in columns]


def _firsts(passages: Passages) -> int:
    """How many of these are the first of their text."""
    return int((passages.column("_passage").to_numpy(zero_copy_only=False) == 0).sum())


def _texts_at(table: Table, segments: NDArray[np.int64], positions: NDArray[np.int64]) -> int:
    """How many texts have their first passage at these positions of segments of a table."""
    firsts = 0
    for number in np.unique(segments).tolist():
        passages = table.segments[table.numbers.index(number)].passages
        if passages is not None:
            firsts += _firsts(passages.take(pa.array(positions[segments == number])))
    return firsts


def _mask(rows: int, positions: NDArray[np.int64]) -> Mask:
    mask = np.zeros(rows, bool)
    mask[positions] = True
    return mask


def _last_state(files: Iterable[str]) -> int:
    """The number of the newest manifest among the files of a table; 0 where there is none."""
    names = filter(None, map(layout.parse, files))
    return max((name.number for name in names if name.kind == "manifest.json"), default=0)
