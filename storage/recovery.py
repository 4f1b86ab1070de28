"""What makes a store whole again after a crash, a lost catalog, or a damaged file.

Of a build that its process left `building`: no whole Parquet, or not the last one: `failed`, and whole Parquets are
kept; all of them whole: the index is built again and the table is `ready`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from jammi_duck.errors import DamagedError, StorageError, UnsupportedError
from jammi_duck.storage import layout, manifest
from jammi_duck.storage.build import make_ready, what_is_kept
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.clock import not_before
from jammi_duck.storage.entering import catch_up, enter
from jammi_duck.storage.filesystem import Store
from jammi_duck.storage.manifest import Manifest, Segment, Tombstones
from jammi_duck.storage.ownership import owner_of
from jammi_duck.storage.parquet import Footer, State, read_footer, read_state
from jammi_duck.storage.place import Place, files_of, names_in, remove_files
from jammi_duck.storage.present import spare_segments, whole_segments
from jammi_duck.storage.segment import MappedSegment
from jammi_duck.storage.segment_files import add_sidecars, delete_disposable
from jammi_duck.storage.table import is_older, newest_manifest
from jammi_duck.types import Counts


@dataclass(frozen=True)
class Action:
    """What was found out about an embedding table, and what was done."""

    table: str
    status: str
    action: str


def settle(place: Place, running: Container[str]) -> list[Action]:
    """Settle every build that is `building`, and every change of a ready table, but those whose ids are `running`.

    One whose files cannot be reached now stays as it is, until the next time.
    """
    done = []
    for entry in place.catalog.entries("building", "ready"):
        at_work = entry.status == "building" or entry.stage is not None
        if at_work and entry.build not in running and entry.owner not in running:
            try:
                done.append(_settle(place, entry) if entry.status == "building" else _settle_change(place, entry))
            except StorageError as error:
                done.append(Action(entry.name, entry.status, f"cannot be settled now: {error}"))
    return done


def finish_drops(place: Place) -> list[Action]:
    """Remove the files of dropped tables whose drop was cut short."""
    names = names_in(place.store)
    done = []
    for entry in place.catalog.entries("dropped"):
        if entry.name in names and entry.location == place.store.location:
            files = files_of(place.store, entry.name)
            if owner_of(place.store, files) == entry.build:
                place.catalog.hide(entry.name)
                remove_files(place.store, files)
                done.append(Action(entry.name, "dropped", "removed the files that a drop had left"))
    return done


def follow(place: Place, *, adopt: bool) -> list[Action]:
    """Follow ready tables whose files moved here, and enter those that the catalog does not know, if told to `adopt`.

    What is not whole yet (a copy that is under way) is left for the next time. Ready tables get their views.
    """
    names = {entry.name: entry for entry in place.catalog.entries("ready", "gone")}
    builds = {entry.build for entry in place.catalog.entries()}
    shown = place.catalog.shown()
    files = place.store.files()
    done = []
    for table, file in manifest.newest(files).items():
        known = names.get(table)
        at_home = known is not None and known.location == place.store.location
        if (known is None and not adopt) or (at_home and file == layout.manifest(table, 1)):
            continue
        try:
            found = manifest.read(place.store, file)
        except StorageError:
            continue
        if not all(each.parquet.file in files for each in found.truth):
            continue
        if known is None and found.build not in builds:
            place.catalog.adopt(found, place.store.location)
        elif known is None or known.build != found.build:
            continue
        elif at_home:
            done += _catch_up(place, known, found)
            continue
        else:
            place.catalog.relocate(known.build, place.store.location)
            if not is_older(found, *place.catalog.files(known.build)):
                enter(place, replace(known, location=place.store.location), found)
        shown.discard(table)
        done.append(Action(table, "ready", f"found in {place.store.location}"))
    for entry in place.catalog.entries("ready"):
        if entry.name not in shown:
            place.show(entry.name, entry.definition.dimensions, entry.location, *place.catalog.files(entry.build))
    return done


def repair(place: Place) -> list[Action]:
    """Build again the sidecars and manifests of ready tables that are missing or damaged."""
    done = []
    for entry in place.catalog.entries("ready"):
        try:
            action = _repair(place, entry)
        except FileExistsError:
            again = "another process is changing it; SELECT * FROM jammi_recover() again"
            action = Action(entry.name, "ready", again)
        except StorageError as error:
            action = Action(entry.name, "ready", f"cannot be looked at now: {error}")
        if action:
            done.append(action)
    return done


def _catch_up(place: Place, entry: Entry, found: Manifest) -> list[Action]:
    """Enter the state of a table that another database has changed."""
    if found.build != entry.build or entry.stage or is_older(found, *place.catalog.files(entry.build)):
        return []
    if not catch_up(place, entry, found):
        return []
    return [Action(entry.name, "ready", "was changed by another database")]


def _settle_change(place: Place, entry: Entry) -> Action:
    store = place.store_at(entry.location)
    for scratch in store.scratches():
        if layout.is_scratch(scratch, str(entry.owner)):
            store.discard(scratch)
    try:
        found = newest_manifest(store, entry, *place.catalog.files(entry.build))
    except DamagedError as error:
        place.catalog.note(entry.build, None, None)
        return Action(entry.name, "ready", f"a change of it was interrupted, and {error}")
    if entry.stage == "compacting":
        # What it has copied is of no use to anybody.
        for segment, footer in spare_segments(store, entry, found):
            if footer.change == entry.owner:
                store.delete(segment.parquet.file)
    was_committed = found.finished.replace(tzinfo=None) != entry.finished
    enter(place, entry, found)
    done = "a change of it was committed already" if was_committed else "a change of it was interrupted, and left out"
    return Action(entry.name, "ready", done)


def _settle(place: Place, entry: Entry) -> Action:
    store = place.store_at(entry.location)
    for scratch in store.scratches():
        if layout.is_scratch(scratch, entry.build) or layout.is_scratch(scratch, str(entry.owner)):
            store.discard(scratch)
    try:
        committed = newest_manifest(store, entry)
    except DamagedError:
        committed = None
    if committed:
        make_ready(place, committed, entry.location)
        return Action(entry.name, "ready", "was committed already")
    reason = "interrupted before its last Parquet file was whole"
    files = files_of(store, entry.name)
    owner = owner_of(store, files)
    if owner in (None, entry.build):
        lost = _delete_damaged(store, entry)
        whole = whole_segments(store, entry)
        state = _closed(store, entry, whole)
        if state is not None:
            return _rebuild(place, store, entry, state)
        reason = f"{lost}; the file was deleted" if lost else reason
        if entry.definition.columns:
            reason += what_is_kept(sum(footer.rows for _, footer in whole), entry.definition, entry.name)
            delete_disposable(store, entry.name)
        elif owner:
            # Without columns, nothing can be compared, so it cannot be resumed.
            remove_files(store, files)
    place.catalog.failed(entry.build, reason)
    return Action(entry.name, "failed", reason)


def _delete_damaged(store: Store, entry: Entry) -> str | None:
    """Delete a build's Parquet files that are not whole; what was wrong with the last of them."""
    lost = None
    for file in files_of(store, entry.name):
        if layout.is_parquet(file):
            try:
                read_footer(store.found(file)[1])
            except FileNotFoundError:
                continue
            except DamagedError as error:
                store.delete(file)
                lost = str(error)
    return lost


def _closed(store: Store, entry: Entry, whole: list[tuple[Segment, Footer]]) -> Manifest | None:
    """What a build that has no manifest came to, if all of it is there: told by its last segment, or by tombstones."""
    started, now = entry.started.replace(tzinfo=UTC), datetime.now(UTC)
    state = Manifest(entry.name, entry.build, 1, entry.definition, Counts(), started, now, ())
    segments = {segment.number: segment for segment, _ in whole}
    for tombstones, closing in _tombstones(store, entry):
        if all(number in segments for number in closing.segments) and not closing.deleted:
            mine = tuple(segments[number] for number in closing.segments)
            return replace(state, counts=closing.counts, segments=mine, tombstones=(tombstones,))
    own = [(segment, footer) for segment, footer in whole if footer.change is None]
    if not own or own[-1][1].counts is None or [each.number for each, _ in own] != list(range(len(own))):
        return None
    return replace(state, counts=own[-1][1].counts, segments=tuple(segment for segment, _ in own))


def _tombstones(store: Store, entry: Entry) -> list[tuple[Tombstones, State]]:
    """A build's tombstones that are whole, the newest first, and the states that they close."""
    found = []
    for file in files_of(store, entry.name):
        name = layout.parse(file)
        if name and name.kind == "deleted.parquet":
            try:
                digest, path = store.found(file)
                build, rows, state = read_state(path)
            except (FileNotFoundError, DamagedError):
                continue
            if build == entry.build:
                found.append((Tombstones(name.number, rows, digest), state))
    return sorted(found, key=lambda each: -each[0].number)


def _rebuild(place: Place, store: Store, entry: Entry, state: Manifest) -> Action:
    delete_disposable(store, entry.name)
    segments = []
    for segment in state.segments:
        try:
            segments.append(_index(store, entry, segment, rebuilt=0))
        except DamagedError as error:
            store.delete(segment.parquet.file)
            reason = f"{error}; the file was deleted"
            place.catalog.failed(entry.build, reason)
            return Action(entry.name, "failed", reason)
    found = replace(state, segments=tuple(segments))
    manifest.commit(store, found, entry.build)
    make_ready(place, found, entry.location)
    return Action(entry.name, "ready", "its Parquet was whole: built the index")


def _repair(place: Place, entry: Entry) -> Action | None:
    store = place.store_at(entry.location)
    segments, tombstones = place.catalog.files(entry.build)
    try:
        known = newest_manifest(store, entry, segments, tombstones)
        is_there = True
    except DamagedError:
        started, now = entry.started.replace(tzinfo=UTC), datetime.now(UTC)
        known = Manifest(entry.name, entry.build, 0, entry.definition, entry.counts, started, now, segments, tombstones)
        is_there = False
    # Not before the manifest: what that names is there by then.
    files = store.files()
    if not files:
        return Action(entry.name, "ready", f"left alone: there is nothing at {entry.location}")
    gone = [each.parquet.file for each in known.truth if each.parquet.file not in files]
    if gone or not known.segments:
        missing = ", ".join(gone) or "every file"
        return Action(entry.name, "ready", f"cannot be searched: {missing} is missing; put it back, or jammi_drop it")
    try:
        for each in known.tombstones:
            store.checked(each.parquet)
    except DamagedError as error:
        return Action(entry.name, "ready", f"cannot be searched: {error}; put it back, or jammi_drop it")
    names = [name for name in map(layout.parse, files) if name and name.table == entry.name]
    # The next one: whoever else makes a later state of this one wants the same, and one of both is first.
    number = 1 + max((name.number for name in names if name.kind == "manifest.json"), default=0)
    rebuilt = max(number, 1 + max(name.rebuilt for name in names))
    try:
        whole = tuple(
            segment
            if _is_whole(store, segment, entry.definition.dimensions)
            else _index(store, entry, segment, rebuilt)
            for segment in known.segments
        )
    except DamagedError as error:
        return Action(entry.name, "ready", f"cannot be repaired: {error}; drop it and generate it again")
    if is_there and known.segments == whole:
        return None
    built = sum(segment != old for segment, old in zip(whole, known.segments, strict=True))
    state = replace(known, number=number, finished=not_before([known.finished], datetime.now(UTC)), segments=whole)
    manifest.commit(store, state, entry.build)
    enter(place, entry, state)
    return Action(entry.name, "ready", f"built {built} of {len(whole)} indexes and the manifest again")


def _is_whole(store: Store, segment: Segment, dimensions: int) -> bool:
    """Whether a segment can be opened by its sidecars. Raises StorageError where they cannot be read now."""
    try:
        usearch, rowmap, vectors = map(store.checked, segment.sidecars)
        mapped = MappedSegment(rowmap, vectors, segment.rows, dimensions)
        if segment.rows:
            mapped.map_graph(usearch)
    except (DamagedError, UnsupportedError):
        return False
    return True


def _index(store: Store, entry: Entry, segment: Segment, rebuilt: int) -> Segment:
    return add_sidecars(store, entry.name, entry.build, segment, entry.definition.dimensions, lambda _: None, rebuilt)
