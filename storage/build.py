"""One embedding table in the making: rows to Parquet, Parquet to sidecars, and the manifest last."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jammi_duck.errors import DamagedError, JammiError, StorageError
from jammi_duck.storage import index, layout, manifest
from jammi_duck.storage.filesystem import Digest, Store
from jammi_duck.storage.manifest import SIDECARS, Manifest, Segment
from jammi_duck.storage.parquet import SegmentWriter, read_footer
from jammi_duck.storage.place import Place, files_of, names_in
from jammi_duck.types import Counts, Definition

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

Progress = Callable[[int], None]


class Build:
    """A build in the state `building`: `write` rows, then `finish`, or `abandon`. One thread at a time."""

    def __init__(self, place: Place, definition: Definition, owner: str) -> None:
        """Enter the build in the catalog, under a name that neither it nor the location has used."""
        self.id = uuid.uuid4().hex
        self.definition = definition
        self.rows = 0
        self._place = place
        self._store = place.store
        self._started = datetime.now(UTC)
        self._segments: list[tuple[int, Digest]] = []
        self._committing = False
        self.name = self._free_name()
        place.catalog.begin(self.id, self.name, definition, self._store.location, owner)
        self._writer: SegmentWriter | None = None

    def stage(self, stage: str) -> None:
        """Note in the catalog what the build is doing."""
        self._place.catalog.stage(self.id, stage)

    def open(self) -> None:
        """Begin the first file, so that a location that cannot be reached or written is known before any work.

        Raises:
            StorageError: call `abandon` then.
        """
        self._store.files()
        self._open_writer()

    def let_go(self) -> None:
        """Close what is open and leave the rest to `recovery.settle`, as if the process had ended."""
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.close()

    def write(self, row_ids: Sequence[str], vectors: Vectors, digests: Sequence[bytes]) -> None:
        """Append rows; a segment that is full becomes a file. `vectors` is float32 [n, dimensions], L2-normalised."""
        start = 0
        while start < len(row_ids):
            writer = self._open_writer()
            if writer.rows >= self._place.segment_rows:
                self._close_segment(None)
                continue
            end = min(len(row_ids), start + self._place.segment_rows - writer.rows)
            with _writing(writer.path):
                writer.write(row_ids[start:end], vectors[start:end], digests[start:end])
            self.rows += end - start
            start = end

    def finish(self, counts: Counts, progress: Progress) -> Manifest:
        """Close the last Parquet, build the sidecars, commit the manifest, and make the table ready.

        `progress` is told how many rows were added to the index. On an error before the manifest is committed, call
        `abandon`; after it, the table is ready whatever happens.
        """
        self._open_writer()
        self._close_segment(counts)
        self.stage("indexing")
        segments = []
        for number, (rows, parquet) in enumerate(self._segments):
            segment = add_sidecars(
                self._store, self.name, self.id, number, rows, parquet, self.definition.dimensions, progress
            )
            segments.append(segment)
        self.stage("committing")
        finished = Manifest(
            table=self.name,
            build=self.id,
            number=1,
            definition=self.definition,
            counts=counts,
            started=self._started,
            finished=datetime.now(UTC),
            segments=tuple(segments),
        )
        self._committing = True
        manifest.commit(self._store, finished)
        make_ready(self._place, finished, self._store.location)
        return finished

    def abandon(self, reason: str) -> None:
        """Remove what was written and move the build to `failed`.

        A table whose manifest was committed stays, and the next `jammi_recover()` makes it ready.
        """
        self.let_go()
        if self._writer is not None:
            with contextlib.suppress(StorageError):
                self._store.discard(self._writer.path.name)
        if self._committing and self._is_committed():
            return
        with contextlib.suppress(StorageError):
            if self._owns_name():
                for file in files_of(self._store, self.name):
                    self._store.delete(file)
        self._place.catalog.failed(self.id, reason)

    def _is_committed(self) -> bool:
        try:
            return layout.manifest(self.name, 1) in self._store.files()
        except StorageError:
            return True

    def _owns_name(self) -> bool:
        """Whether files of this name are ours: until the first is there, another database may take the name."""
        if self._segments:
            return True
        try:
            with self._store.unchecked(layout.parquet(self.name, 0), self.id) as path:
                return read_footer(path).build == self.id
        except (DamagedError, FileNotFoundError):
            return False

    def _free_name(self) -> str:
        taken = {entry.name for entry in self._place.catalog.entries()}
        with contextlib.suppress(StorageError):
            taken |= names_in(self._store)
        return layout.table_name(self.definition.source, self.definition.model, self._started, taken)

    def _open_writer(self) -> SegmentWriter:
        if self._writer is None:
            number = len(self._segments)
            scratch = self._store.scratch(layout.parquet(self.name, number), self.id)
            with _writing(scratch):
                self._writer = SegmentWriter(scratch, self.definition, self.id, number)
        return self._writer

    def _close_segment(self, counts: Counts | None) -> None:
        writer = self._open_writer()
        with _writing(writer.path):
            writer.close(counts)
        number = len(self._segments)
        while True:
            file = layout.parquet(self.name, number)
            try:
                digest = self._store.create(file, writer.path)
                break
            except FileExistsError as error:
                # Another database took this name in the shared location; no file bears it for us yet.
                if number:
                    raise StorageError(f"cannot write '{file}': another database has written it") from error
                self.name = self._free_name()
                self._place.catalog.rename(self.id, self.name)
        self._writer = None
        self._segments.append((writer.rows, digest))


def add_sidecars(
    store: Store,
    table: str,
    build: str,
    number: int,
    rows: int,
    parquet: Digest,
    dimensions: int,
    progress: Progress,
    rebuilt: int = 0,
) -> Segment:
    """Build and store the index of one segment; `rebuilt` is the number of the manifest that will name it.

    Raises:
        DamagedError: the Parquet is not what its digest says.
    """
    files = [layout.sidecar(table, number, kind, rebuilt) for kind in SIDECARS]
    scratches = [store.scratch(file, build) for file in files]
    try:
        with _writing(scratches[0]):
            index.build(store.checked(parquet), *scratches, rows=rows, dimensions=dimensions, progress=progress)
        sidecars = [store.create(file, path) for file, path in zip(files, scratches, strict=True)]
        return Segment(number, rows, parquet, *sidecars)
    finally:
        for scratch in scratches:
            with contextlib.suppress(StorageError):
                store.discard(scratch.name)


def make_ready(place: Place, finished: Manifest, location: str) -> None:
    """Move a build whose manifest is committed to `ready`, and show its view."""
    place.catalog.ready(finished)
    parquets = [segment.parquet.file for segment in finished.segments]
    place.show(finished.table, finished.definition.dimensions, location, parquets)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except JammiError:
        raise
    except (OSError, RuntimeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise StorageError(f"cannot write '{path.parent}': {reason}; check that there is room on the disk") from error
