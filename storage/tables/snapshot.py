"""The snapshot that a change starts from: the present state of a table, or what an interrupted build left."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from jammi_duck.errors import DamagedError, StateError, UnsupportedError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.manifest import Manifest, Segment, TableFile
from jammi_duck.storage.files.parquet import Footer, read_footer, read_rows
from jammi_duck.storage.files.store import Store
from jammi_duck.storage.files.table_files import by_table, files_of, free_number
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.pins import Snapshot
from jammi_duck.storage.tables.segment_words import with_words_found
from jammi_duck.storage.tables.table import newest_manifest
from jammi_duck.types import Caller

# In how many earlier states a segment is looked for before it is taken for one that no state has.
_LOOK_BACK = 20
_TRIES = 20


def state_of(tables: EmbeddingTables, entry: Entry, files: Collection[str] | None = None) -> Manifest:
    """The present state of a ready table; `files` are those of its location, if that was listed.

    Raises DamagedError where it has no manifest.
    """
    store = tables.store_at(entry.location)
    try:
        return newest_manifest(store, entry, *tables.catalog.files(entry.build), files)
    except DamagedError as error:
        if not store.names():
            # Nothing can be written again of nothing.
            raise
        raise DamagedError(f"{error}; SELECT * FROM jammi_recover() writes it again") from error


def present(tables: EmbeddingTables, entry: Entry) -> Snapshot:
    """The present state of a table, or what is left of a build that failed, and what is spare.

    Raises:
        DamagedError: a ready table has no manifest, or nothing is left of a build that failed.
    """
    store = tables.store_at(entry.location)
    everything = store.names()
    files = by_table(everything).get(entry.name, [])
    free = free_number(files)
    if entry.status == "ready":
        state = state_of(tables, entry, everything)
        return Snapshot(state, tuple(segment for segment, _ in spare_segments(store, entry, state, files)), free)
    manifests = list(filter(layout.is_manifest, files))
    if manifests:
        again = f"drop '{entry.name}' with jammi_drop and generate it again"
        raise DamagedError(f"'{manifests[-1]}' cannot be read, and nothing else says what it held: {again}")
    whole = [each for each in _whole(store, entry, files) if _has_whole_pages(store, entry, each[0])]
    own = [segment for segment, footer in whole if footer.change is None]
    kept = with_words_found(store, files, own, entry.definition.words)
    if not kept:
        raise DamagedError(f"nothing is left of '{entry.name}'; generate it again")
    spare = tuple(segment for segment, footer in whole if footer.change is not None)
    return Snapshot(_left(entry, kept), spare, free)


def pinned_snapshot(tables: EmbeddingTables, entry: Entry, token: str) -> Snapshot:
    """What a query was planned on.

    Raises StateError where that is over, is not what is to be changed, or is not there any more although it was held.
    """
    snapshot = tables.pins.of(token)
    if snapshot is None or (entry.status == "ready") != bool(snapshot.manifest.number):
        raise changed_since(entry.name)
    kept = () if snapshot.manifest.number else snapshot.manifest.segments
    needed = {each.parquet.file for each in (*kept, *snapshot.spare)}
    if needed and not needed <= tables.store_at(entry.location).names():
        raise changed_since(entry.name)
    return snapshot


def changed_since(name: str) -> StateError:
    """The error for a table that has changed since a query was planned."""
    return StateError(f"'{name}' has changed since this query was planned; run it again")


def _left(entry: Entry, kept: Sequence[Segment]) -> Manifest:
    started = entry.started.replace(tzinfo=UTC)
    return Manifest(entry.name, entry.build, 0, entry.definition, entry.counts, started, started, tuple(kept))


def spare_segments(store: Store, entry: Entry, state: Manifest, files: Sequence[str]) -> list[tuple[Segment, Footer]]:
    """The complete segments of changes to a ready table that no state names, neither the present nor an earlier one.

    `files` are those of the table.

    Only the newest manifests are read. Segments numbered below the oldest of these are skipped: they may belong to a
    state that was not read, since a change takes the first free number when it begins.
    """
    left = set(filter(layout.is_parquet, files)) - {each.parquet.file for each in state.segments}
    earlier = [file for file in files if layout.is_manifest(file) and file != state.file][-_LOOK_BACK:]
    last = 0
    while earlier and left:
        with contextlib.suppress(DamagedError, UnsupportedError):
            before = manifest.read(store, earlier.pop())
            left -= {each.parquet.file for each in before.segments}
            last = max(each.number for each in before.parquet_files)
    return [(segment, footer) for segment, footer in _whole(store, entry, left, last) if footer.change]


def _has_whole_pages(store: Store, entry: Entry, segment: Segment) -> bool:
    try:
        for _ in read_rows(store.checked(segment.parquet), entry.definition.shape):
            pass
    except DamagedError:
        return False
    return True


def complete_segments(store: Store, entry: Entry) -> list[tuple[Segment, Footer]]:
    """The complete Parquet files of a build's segments that this version understands, in order."""
    return _whole(store, entry, files_of(store, entry.name))


def _whole(store: Store, entry: Entry, files: Iterable[str], first: int = 0) -> list[tuple[Segment, Footer]]:
    names = {file: layout.parse(file) for file in files}
    mine = sorted((name.number, file) for file, name in names.items() if name and name.kind == "parquet")
    whole = []
    for number, file in mine:
        if number < first:
            continue
        try:
            digest, path = store.found(file)
            footer = read_footer(path)
        except (FileNotFoundError, DamagedError, UnsupportedError):
            continue
        if footer.build == entry.build and footer.definition == entry.definition:
            whole.append((Segment(number, footer.rows, digest), footer))
    return whole


@dataclass(frozen=True)
class PinnedSnapshot:
    """The local paths of the Parquet files that a query reads, segments with their numbers.

    The files stay until the query is over. `token` identifies all of this.
    """

    token: str
    snapshot: Snapshot
    segments: list[tuple[int, Path]]
    spare: list[tuple[int, Path]]
    tombstones: list[Path]


def pin_snapshot(tables: EmbeddingTables, entry: Entry, caller: Caller, *, spare: bool = False) -> PinnedSnapshot:
    """Choose and lock the files that a query reads: the present state, and spare segments if `spare`.

    Remote files are downloaded to the cache. If a file disappears meanwhile, another process has committed a newer
    state, and this starts over with that.

    Raises:
        DamagedError: a ready table has no manifest, a file is damaged, or nothing is left of a build that failed.
    """
    tries = 0
    while True:
        tries += 1
        snapshot = present(tables, entry) if spare else Snapshot(state_of(tables, entry))
        try:
            return _held(tables, entry, caller, snapshot)
        except (DamagedError, FileNotFoundError) as error:
            if tries < _TRIES and (spare or state_of(tables, entry).number != snapshot.manifest.number):
                continue
            raise DamagedError(
                f"{error}: put it back, or drop '{entry.name}' with jammi_drop and generate it again"
            ) from error


def _held(tables: EmbeddingTables, entry: Entry, caller: Caller, snapshot: Snapshot) -> PinnedSnapshot:
    store = tables.store_at(entry.location)

    def local(files: Sequence[TableFile]) -> list[tuple[int, Path]]:
        return [(each.number, store.checked(each.parquet)) for each in files]

    state = snapshot.manifest
    segments, spare, gone = local(state.segments), local(snapshot.spare), [path for _, path in local(state.tombstones)]
    held = [*(path for _, path in (*segments, *spare)), *gone]
    return PinnedSnapshot(tables.pins.keep(caller, snapshot, held), snapshot, segments, spare, gone)
