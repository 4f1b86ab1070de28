"""Repairs a store after a crash, a lost catalog, or a damaged file.

Of a build that its process left `building`: no whole Parquet, or not the last one: `failed`, and whole Parquets are
kept; all of them whole: the index is built again and the table is `ready`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from jammi_duck.errors import DamagedError, StateError, StorageError, UnsupportedError
from jammi_duck.sql import literal
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.manifest import Manifest, Segment, TableFile, Tombstones
from jammi_duck.storage.files.marker import Marker, marked
from jammi_duck.storage.files.parquet import State, TombstoneWriter
from jammi_duck.storage.files.store import Store, writing
from jammi_duck.storage.files.table_files import files_of, names_in, remove_files
from jammi_duck.storage.index import sidecars
from jammi_duck.storage.tables.build import make_ready, what_is_kept
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import catch_up, record_state
from jammi_duck.storage.tables.clock import not_before
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.ownership import closing_of, delete_table, footer_of, origin, owner_of, written_by
from jammi_duck.storage.tables.rebuilding import rebuilt
from jammi_duck.storage.tables.segment_files import add_sidecars, close_state
from jammi_duck.storage.tables.segment_words import with_words_found, without_words
from jammi_duck.storage.tables.snapshot import complete_segments, spare_segments
from jammi_duck.storage.tables.table import is_older, newest_manifest
from jammi_duck.types import Shape


@dataclass(frozen=True)
class Action:
    """What was found out about an embedding table, and what was done."""

    embedding_table: str
    status: str
    action: str


def settle(tables: EmbeddingTables, running: Container[str]) -> list[Action]:
    """Settle every build that is `building`, and every change of a ready table, but those whose ids are `running`.

    One whose files cannot be reached now stays as it is, until the next time.
    """
    done = []
    for entry in tables.catalog.entries("building", "ready"):
        at_work = entry.status == "building" or entry.stage is not None
        if at_work and entry.build not in running and entry.owner not in running:
            try:
                done.append(_settle(tables, entry) if entry.status == "building" else _settle_change(tables, entry))
            except (StorageError, StateError, FileExistsError, FileNotFoundError) as error:
                done.append(Action(entry.name, entry.status, f"cannot be settled now: {error}"))
    return done


def finish_drops(tables: EmbeddingTables) -> list[Action]:
    """Remove the files of dropped tables whose drop was cut short."""
    names = names_in(tables.store)
    done = []
    for entry in tables.catalog.entries("dropped"):
        if entry.name in names and entry.location == tables.store.location:
            tables.catalog.drop_view(entry.name)
            try:
                gone = delete_table(tables.store, entry.name, entry.build, was_ready=False)
            except StorageError as error:
                done.append(Action(entry.name, "dropped", f"the files that a drop had left cannot be removed: {error}"))
                continue
            if gone.files or gone.left:
                said = "removed the files" if gone.files else "removed none of the files"
                done.append(Action(entry.name, "dropped", f"{said} that a drop had left{gone.left}"))
    return done


def release_snapshot(tables: EmbeddingTables, token: str, build: str) -> None:
    """Let go of what a query was planned on, and remove the files that a drop has left since they were held."""
    tables.pins.release(token)
    with contextlib.suppress(StorageError):
        if not tables.catalog.is_ready(build):
            finish_drops(tables)


def follow(tables: EmbeddingTables, *, adopt: bool) -> list[Action]:
    """Follow ready tables whose files moved here, and enter those that the catalog does not know, if told to `adopt`.

    What is not whole yet (a copy that is under way) is left for the next time. Ready tables get their views.
    """
    names = {entry.name: entry for entry in tables.catalog.entries("ready", "gone")}
    builds = tables.catalog.names()
    shown = tables.catalog.view_names()
    files = tables.store.files()
    done = []
    for table, file in manifest.newest(files).items():
        known = names.get(table)
        at_home = known is not None and known.location == tables.store.location
        if (known is None and not adopt) or (at_home and file == layout.manifest(table, 1)):
            continue
        try:
            found = manifest.read(tables.store, file)
        except StorageError as error:
            if known is None and table not in builds.values():
                done.append(Action(table, "refused", f"left alone: {error}"))
            continue
        if not all(each.parquet.file in files for each in found.parquet_files):
            continue
        if known is None and found.build not in builds:
            tables.catalog.adopt(found, tables.store.location)
        elif known is None or known.build != found.build:
            continue
        elif at_home:
            done += _catch_up(tables, known, found)
            continue
        else:
            tables.catalog.relocate(known.build, tables.store.location)
            if not is_older(found, *tables.catalog.files(known.build)):
                record_state(tables, replace(known, location=tables.store.location), found)
        shown.discard(table)
        done.append(Action(table, "ready", f"found in {tables.store.location}"))
    for entry in tables.catalog.entries("ready"):
        if entry.name not in shown:
            tables.show(entry.name, entry.definition.shape, entry.location, *tables.catalog.files(entry.build))
    return done


def repair(tables: EmbeddingTables) -> list[Action]:
    """Build again the sidecars and manifests of ready tables that are missing or damaged."""
    done = []
    for entry in tables.catalog.entries("ready"):
        try:
            action = _repair(tables, entry)
        except (FileExistsError, FileNotFoundError, StateError):
            again = "another process is changing it; SELECT * FROM jammi_recover() again"
            action = Action(entry.name, "ready", again)
        except UnsupportedError as error:
            action = Action(entry.name, "ready", f"left alone: {error}")
        except StorageError as error:
            action = Action(entry.name, "ready", f"cannot be looked at now: {error}")
        if action:
            done.append(action)
    return done


def _catch_up(tables: EmbeddingTables, entry: Entry, found: Manifest) -> list[Action]:
    """Enter the state of a table that another database has changed."""
    if found.build != entry.build or entry.stage or is_older(found, *tables.catalog.files(entry.build)):
        return []
    if not catch_up(tables, entry, found):
        return []
    return [Action(entry.name, "ready", "was changed by another database")]


def _settle_change(tables: EmbeddingTables, entry: Entry) -> Action:
    store = tables.store_at(entry.location)
    for scratch in store.scratches():
        if layout.is_scratch(scratch, str(entry.owner)):
            store.discard(scratch)
    try:
        found = newest_manifest(store, entry, *tables.catalog.files(entry.build))
    except DamagedError as error:
        tables.catalog.note_change(entry.build, None, None)
        return Action(entry.name, "ready", f"a change of it was interrupted, and {error}")
    _delete_interrupted(store, entry, found)
    was_committed = found.finished.replace(tzinfo=None) != entry.finished
    record_state(tables, entry, found)
    done = "a change of it was committed already" if was_committed else "a change of it was interrupted, and left out"
    return Action(entry.name, "ready", done)


def _delete_interrupted(store: Store, entry: Entry, present: Manifest) -> None:
    """Delete what a change has written that did not come to a state, but for vectors that are new."""
    unnamed = [file for file in files_of(store, entry.name) if layout.is_tombstones(file)]
    for file in set(unnamed) - {each.parquet.file for each in present.tombstones}:
        said = origin(store, file)
        if said and said.change == entry.owner and said.closes and said.closes.number > present.number:
            store.delete(file)
    if entry.stage == "compacting":
        # What it has copied is of no use to anybody.
        for segment, footer in spare_segments(store, entry, present, files_of(store, entry.name)):
            if footer.change == entry.owner:
                store.delete(segment.parquet.file)


def _settle(tables: EmbeddingTables, entry: Entry) -> Action:
    store = tables.store_at(entry.location)
    for scratch in store.scratches():
        if layout.is_scratch(scratch, entry.build) or layout.is_scratch(scratch, str(entry.owner)):
            store.discard(scratch)
    try:
        committed = newest_manifest(store, entry)
    except DamagedError:
        committed = None
    if committed:
        make_ready(tables, committed, entry.location)
        return Action(entry.name, "ready", "was committed already")
    files = files_of(store, entry.name)
    owner = owner_of(store, files)
    reason = "interrupted before its last Parquet file was whole"
    if owner in (None, entry.build):
        try:
            state = rebuilt(store, entry)
            if state is not None and _can_be_searched(store, entry, state):
                make_ready(tables, _made_whole(store, entry, state), entry.location)
                return Action(entry.name, "ready", "its Parquet was whole: built the index")
            unfinished = "interrupted before its words were whole" if state else reason
            reason = _damage(store, files) or unfinished
        except DamagedError as error:
            reason = str(error)
        if owner and not any(map(layout.is_manifest, files)):
            reason += _give_up(store, entry, files)
    tables.catalog.mark_failed(entry.build, reason)
    return Action(entry.name, "failed", reason)


def _can_be_searched(store: Store, entry: Entry, state: Manifest) -> bool:
    """Whether a state that was rebuilt has something to search: a table of words only, all of its words."""
    if entry.definition.has_vectors:
        return True
    files = files_of(store, entry.name)
    segments = with_words_found(store, files, state.segments, entry.definition.words)
    return not without_words(store, replace(state, segments=segments))


def _damage(store: Store, files: Iterable[str]) -> str | None:
    """What is wrong with a Parquet file that is not whole: it stays, since nothing in it says whose it is."""
    for file in filter(layout.is_truth, files):
        try:
            closing_of(store, file) if layout.is_tombstones(file) else footer_of(store, file)
        except DamagedError as error:
            return f"{error}; it was left where it is"
    return None


def _give_up(store: Store, entry: Entry, files: Sequence[str]) -> str:
    """Delete the sidecars of a build that came to no manifest, and tell what is kept of it.

    Where there are no columns, nothing can be compared, so it cannot be resumed, and nothing is kept.
    """
    gone = list(filter(_can_be_built_again, files))
    if not entry.definition.columns:
        gone = [*filter(layout.is_sidecar, files), *written_by(store, files, entry.build)]
    remove_files(store, gone)
    kept = sum(footer.rows for _, footer in complete_segments(store, entry))
    return what_is_kept(kept, entry.definition, entry.name) if entry.definition.columns else ""


def _made_whole(store: Store, entry: Entry, state: Manifest) -> Manifest:
    """Index a state that was rebuilt for a build that was never ready here, and commit it. Raises DamagedError."""
    files = files_of(store, entry.name)
    if not any(map(layout.is_manifest, files)):
        remove_files(store, list(filter(_can_be_built_again, files)))
    with marked(store, entry.name, entry.build) as marker:
        return _commit(store, entry, replace(state, segments=_indexed(store, entry, state.segments, marker)))


def _can_be_built_again(file: str) -> bool:
    """Whether a file is a sidecar that is made of the Parquet file alone."""
    name = layout.parse(file)
    return name is not None and name.kind in sidecars.BUILT


def _repair(tables: EmbeddingTables, entry: Entry) -> Action | None:
    store = tables.store_at(entry.location)
    known = tables.catalog.files(entry.build)
    try:
        state, is_there = _state(store, entry, known)
    except DamagedError as error:
        if not store.files():
            return Action(entry.name, "missing", f"left alone: there is nothing at {entry.location}")
        return Action(entry.name, "ready", f"cannot be searched: {error}; put it back, or jammi_drop it")
    with marked(store, entry.name, entry.build) as marker:
        try:
            whole = _indexed(store, entry, state.segments, marker)
        except DamagedError as error:
            return Action(entry.name, "ready", f"cannot be repaired: {error}; drop it and generate it again")
        lost = without_words(store, replace(state, segments=whole))
        if is_there and state.segments == whole:
            return Action(entry.name, "ready", _of_words(tables, entry, lost)) if lost else None
        built = sum(segment != old for segment, old in zip(whole, state.segments, strict=True))
        marker.set()
        record_state(tables, entry, _commit(store, entry, replace(state, segments=whole)))
    done = f"built {built} of {len(whole)} indexes and the manifest again"
    return Action(entry.name, "ready", f"{done}; {_of_words(tables, entry, lost)}" if lost else done)


def _of_words(tables: EmbeddingTables, entry: Entry, lost: Sequence[Segment]) -> str:
    """What is said of a table whose words are missing or damaged in these segments."""
    refresh = f"SELECT * FROM jammi_refresh({literal(entry.source)}, embedding_table := {literal(entry.name)})"
    which = "a segment" if len(lost) == 1 else f"{len(lost)} segments"
    return f"words of {which} are missing or damaged: {refresh} indexes them again from the source"


def _state(store: Store, entry: Entry, known: tuple[Sequence[Segment], Sequence[Tombstones]]) -> tuple[Manifest, bool]:
    """The present state of a ready table, and whether its manifest is there: otherwise it was rebuilt.

    `known` are its files as the catalog has them. Raises DamagedError where a Parquet file is missing or damaged.
    """
    try:
        state, is_there = newest_manifest(store, entry, *known), True
    except DamagedError as error:
        listed = [each for files in known for each in files]
        found, is_there = rebuilt(store, entry, listed), False
        if found is None:
            _check_there(store, listed)
            raise DamagedError(f"{error}, and no Parquet file says what it held") from error
        state = found
    _check_there(store, state.parquet_files)
    for each in state.tombstones:
        store.checked(each.parquet)
    return state, is_there


def _check_there(store: Store, parts: Iterable[TableFile]) -> None:
    files = store.files()
    gone = [each.parquet.file for each in parts if each.parquet.file not in files]
    if gone:
        raise DamagedError(f"{', '.join(gone)} is missing")


def _indexed(store: Store, entry: Entry, segments: Sequence[Segment], marker: Marker) -> tuple[Segment, ...]:
    """The segments, with sidecars under new names where theirs are not whole. Raises DamagedError.

    With the first that is built, the `marker` says that there is work.
    """
    files = files_of(store, entry.name)
    names = [name for name in map(layout.parse, files) if name]
    number = 1 + max((name.number for name in names if name.kind == "manifest.json"), default=0)
    # A name that no file has, and no manifest names, from that of the manifest that will name it on.
    again = max(number, 1 + max(name.rebuilt for name in names))
    rebuilt = again if number > 1 or any(name.kind in sidecars.BUILT for name in names) else 0
    shape = entry.definition.shape

    def indexed(segment: Segment) -> Segment:
        if _is_whole(store, segment, shape):
            return segment
        marker.set()
        return _index(store, entry, segment, rebuilt)

    return with_words_found(store, files, list(map(indexed, segments)), entry.definition.words)


def _is_whole(store: Store, segment: Segment, shape: Shape) -> bool:
    """Whether a segment can be opened by its sidecars. Raises StorageError where they cannot be read now."""
    try:
        sidecars.open_whole(segment, lambda kind: sidecars.check(store, segment, kind), shape)
    except (DamagedError, UnsupportedError):
        return False
    return True


def _index(store: Store, entry: Entry, segment: Segment, rebuilt: int) -> Segment:
    return add_sidecars(store, entry.name, entry.build, segment, entry.definition.shape, lambda _: None, rebuilt)


def _commit(store: Store, entry: Entry, state: Manifest) -> Manifest:
    """Write the manifest of a state that is there, or that follows one that holds the same; gives it.

    What follows is closed by tombstones that list nothing: else nobody could rebuild it.

    Raises:
        FileExistsError: another was first.
    """
    names = [name for name in map(layout.parse, files_of(store, entry.name)) if name]
    number = 1 + max((name.number for name in names if name.kind == "manifest.json"), default=0)
    now = not_before([state.finished], datetime.now(UTC))
    finished = replace(state, number=max(number, state.number), finished=now)
    closing = None
    if finished.number > state.number:
        # Tombstones that close a state which no manifest can name would stay.
        layout.manifest(entry.name, finished.number)
        free = 1 + max(name.number for name in names if name.kind != "manifest.json")
        closing = _closing(store, entry, finished, free)
        finished = replace(finished, tombstones=(*finished.tombstones, closing))
    try:
        manifest.commit(store, finished, entry.build)
    except FileExistsError:
        if closing:
            store.delete(closing.parquet.file)
        raise
    return finished


def _closing(store: Store, entry: Entry, state: Manifest, free: int) -> Tombstones:
    segments, deleted = (tuple(each.number for each in files) for files in (state.segments, state.tombstones))
    scratch = store.scratch(layout.deleted(entry.name, free), entry.build)
    try:
        with writing(scratch):
            # By the id, of two that close one state each knows its own.
            writer = TombstoneWriter(scratch, entry.definition, entry.build, uuid.uuid4().hex)
        return close_state(store, entry.name, writer, State(state.number, segments, deleted, state.counts), free)
    finally:
        store.discard(scratch.name)
