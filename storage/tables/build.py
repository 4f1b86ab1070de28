"""Builds one embedding table: rows to Parquet, Parquet to sidecars, and the manifest last."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jammi_duck.errors import StorageError
from jammi_duck.sql import literal
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.files.marker import Marker
from jammi_duck.storage.files.parquet import Digests, Passages, Texts
from jammi_duck.storage.files.table_files import files_of, names_in
from jammi_duck.storage.tables.clock import not_before
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.ownership import written_by
from jammi_duck.storage.tables.segment_files import ProgressCallback, SegmentFiles, add_sidecars, sidecars_of
from jammi_duck.types import Counts, Definition

if TYPE_CHECKING:
    from jammi_duck.types import Vectors


class Build:
    """A build in the state `building`: `write` rows, then `finish` and `commit`, or `abandon`. One thread at a time."""

    def __init__(self, tables: EmbeddingTables, definition: Definition, owner: str, label: str | None = None) -> None:
        """Enter the build in the catalog, under a name that neither it nor the location has used.

        The name begins with the label, by default with that of the source.
        """
        # What could not be read again must not be built first.
        Definition.from_json(definition.to_json())
        self.id = uuid.uuid4().hex
        self.definition = definition
        self._label = label or definition.label
        self._tables = tables
        self._store = tables.store
        self._committing = False
        names = self._names()
        known = [entry.started for entry in tables.catalog.entries(source=definition.source)]
        began = [time for label in {definition.label, self._label} for time in layout.times(label, names)]
        # The newest table of a source is the one that was begun last, whatever the clock was when others were begun.
        self._started = not_before([*known, *began], datetime.now(UTC))
        name = self._free_name(names)
        tables.catalog.begin(self.id, name, definition, self._store.location, owner, self._started)
        self._files = SegmentFiles(
            self._store, name, definition, self.id, self.id, tables.segment_rows, 0, self._on_name_taken
        )

        self._marker = Marker(self._store, name, self.id)

    @property
    def name(self) -> str:
        """The embedding table's name."""
        return self._files.table

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self._files.rows

    def open(self) -> None:
        """Begin the first file, so that a location that cannot be reached or written is known before any work.

        Raises:
            StorageError: call `abandon` then.
        """
        self._store.files()
        self._marker.set()
        self._files.open()

    def release(self) -> None:
        """Remove what is half written, and leave the rest to `recovery.settle`, as if the process had ended."""
        self._files.discard()
        self._marker.remove()

    def write(
        self,
        row_ids: Texts,
        vectors: Vectors,
        digests: Digests,
        texts: Sequence[str] | None,
        passages: Passages | None = None,
    ) -> None:
        """Append rows; a segment that is full becomes a file. `vectors` is float32 [n, dimensions], L2-normalised.

        `texts` are those of the rows, of which the words are indexed if the definition says so. `passages` is given
        where the rows are passages.
        """
        self._files.write(row_ids, vectors, digests, texts, passages)

    def finish(self, counts: Counts, progress: ProgressCallback) -> Manifest:
        """Close the last Parquet and build the sidecars; gives the manifest for `commit`.

        `progress` is told how many rows were added to the index.
        """
        self._files.open()
        self._files.close(counts)
        self._tables.catalog.note_stage(self.id, "indexing")
        shape = self.definition.shape
        segments = [
            add_sidecars(self._store, self.name, self.id, segment, shape, progress) for segment in self._files.written
        ]
        self._tables.catalog.note_stage(self.id, "committing")
        return Manifest(
            table=self.name,
            build=self.id,
            number=1,
            definition=self.definition,
            counts=counts,
            started=self._started,
            finished=not_before([self._started], datetime.now(UTC)),
            segments=tuple(segments),
        )

    def commit(self, finished: Manifest) -> None:
        """Commit the manifest, and make the table ready.

        On an error before the manifest is committed, call `abandon`; after it, the table is ready whatever happens.
        """
        self._committing = True
        manifest.commit(self._store, finished, self.id)
        # Before the catalog says so: what dies in between is settled.
        self._marker.remove()
        make_ready(self._tables, finished, self._store.location)

    def abandon(self, reason: str, *, keep: bool) -> None:
        """Remove what was written, and move the build to `failed`; whole segments stay if they are to be kept.

        A table whose manifest was committed stays, and the next `jammi_recover()` makes it ready.
        """
        self.release()
        if self._committing and self._is_committed():
            return
        # Without columns, nothing can be compared, so it cannot be resumed.
        keep = keep and bool(self.definition.columns)
        kept = sum(segment.rows for segment in self._files.written) if keep else 0
        with contextlib.suppress(StorageError):
            for file in sidecars_of(self.name, self._files.written, self.definition.shape, words=not kept):
                self._store.delete(file)
            for file in [] if kept else written_by(self._store, files_of(self._store, self.name), self.id):
                self._store.delete(file)
        self._tables.catalog.mark_failed(self.id, reason + what_is_kept(kept, self.definition, self.name))

    def _is_committed(self) -> bool:
        try:
            return layout.manifest(self.name, 1) in self._store.files()
        except StorageError:
            return True

    def _names(self) -> set[str]:
        """The names of tables that the catalog knows, or that the location has."""
        names = set(self._tables.catalog.names().values())
        with contextlib.suppress(StorageError):
            names |= names_in(self._store)
        return names

    def _free_name(self, taken: set[str]) -> str:
        return layout.table_name(self._label, self.definition.model, self._started, taken)

    def _on_name_taken(self, number: int) -> tuple[str, int]:
        """Another database took this name in the shared location; no file bears it for us yet."""
        if number:
            raise StorageError(f"cannot write segment {number} of '{self.name}': another database has written it")
        name = self._free_name(self._names())
        self._tables.catalog.rename(self.id, name)
        # Vacuums of other processes spare what is written now by the new name.
        self._marker.remove()
        self._marker = Marker(self._store, name, self.id)
        self._marker.set()
        return name, 0


def what_is_kept(rows: int, definition: Definition, table: str) -> str:
    """What the reason of a failed build ends with: how to go on from the rows that are kept of it, if there are any."""
    if not rows:
        return ""
    refresh = f"jammi_refresh({literal(definition.source)}, embedding_table := {literal(table)})"
    return f"; {rows:,} embedded rows are kept until jammi_vacuum(): {refresh} goes on from there"


def make_ready(tables: EmbeddingTables, finished: Manifest, location: str) -> None:
    """Move a build whose manifest is committed to `ready`, and show its view."""
    tables.catalog.mark_ready(finished)
    tables.show(finished.table, finished.definition.shape, location, finished.segments, finished.tombstones)
