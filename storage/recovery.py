"""What makes a store whole again after a crash, a lost catalog, or a damaged file.

Of a build that its process left `building`: no whole Parquet, or not the last one: `failed`, and whole Parquets are
kept; all of them whole: the index is built again and the table is `ready`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from jammi_duck.errors import DamagedError, StorageError
from jammi_duck.storage import layout, manifest
from jammi_duck.storage.build import add_sidecars, make_ready
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.filesystem import Digest, Store, sha256_of
from jammi_duck.storage.manifest import Manifest, Segment
from jammi_duck.storage.parquet import Footer, read_footer
from jammi_duck.storage.place import Place, files_of
from jammi_duck.storage.table import newest_manifest


@dataclass(frozen=True)
class Action:
    """What was found out about an embedding table, and what was done."""

    table: str
    status: str
    action: str


def settle(place: Place, running: Container[str]) -> list[Action]:
    """Settle every build that is `building`, those left out whose ids are `running`.

    One whose files cannot be reached now stays as it is, until the next time.
    """
    done = []
    for entry in place.catalog.entries("building"):
        if entry.build not in running:
            try:
                done.append(_settle(place, entry))
            except StorageError as error:
                done.append(Action(entry.name, "building", f"cannot be settled now: {error}"))
    return done


def finish_drops(place: Place) -> list[Action]:
    """Remove the files of dropped tables whose drop was cut short."""
    manifests = manifest.newest(place.store.files())
    done = []
    for entry in place.catalog.entries("dropped"):
        here = entry.name in manifests and entry.location == place.store.location
        if here and _is_of(place.store, manifests[entry.name], entry):
            place.catalog.hide(entry.name)
            remove_files(place.store, entry.name)
            done.append(Action(entry.name, "dropped", "removed the files that a drop had left"))
    return done


def follow(place: Place, *, adopt: bool) -> list[Action]:
    """Follow ready tables whose files moved here, and enter those that the catalog does not know, if told to `adopt`.

    What is not whole yet (a copy that is under way) is left for the next time. Ready tables get their views.
    """
    known = {entry.name: entry for entry in place.catalog.entries()}
    shown = place.catalog.shown()
    files = place.store.files()
    done = []
    for table, file in manifest.newest(files).items():
        entry = known.get(table)
        if entry is None and not adopt:
            continue
        if entry and (entry.location == place.store.location or entry.status != "ready"):
            continue
        try:
            found = manifest.read(place.store, file)
        except StorageError:
            continue
        if not all(segment.parquet.file in files for segment in found.segments):
            continue
        if entry is None:
            place.catalog.adopt(found, place.store.location)
        elif entry.build == found.build:
            place.catalog.relocate(entry.build, place.store.location)
        else:
            continue
        shown.discard(table)
        done.append(Action(table, "ready", f"found in {place.store.location}"))
    for entry in place.catalog.entries("ready"):
        if entry.name not in shown:
            parquets = [file for _, _, file, _, _ in place.catalog.segments(entry.build)]
            place.show(entry.name, entry.definition.dimensions, entry.location, parquets)
    return done


def repair(place: Place) -> list[Action]:
    """Build again the sidecars and manifests of ready tables that are missing or damaged."""
    done = []
    for entry in place.catalog.entries("ready"):
        try:
            action = _repair(place, entry)
        except FileExistsError:
            action = Action(entry.name, "ready", "another process is repairing it")
        if action:
            done.append(action)
    return done


def remove_files(store: Store, table: str) -> list[str]:
    """Delete all files of a table, its manifests first, so that nobody finds it half gone."""
    files = files_of(store, table)
    for file in files:
        store.delete(file)
    return files


def _is_of(store: Store, file: str, entry: Entry) -> bool:
    try:
        return manifest.read(store, file).build == entry.build
    except DamagedError:
        return False


def _settle(place: Place, entry: Entry) -> Action:
    store = place.store_at(entry.location)
    for scratch in store.scratches():
        if layout.is_scratch(scratch, entry.build):
            store.discard(scratch)
    try:
        committed = newest_manifest(store, entry)
    except DamagedError:
        committed = None
    if committed:
        make_ready(place, committed, entry.location)
        return Action(entry.name, "ready", "was committed already")
    parquets, lost = _whole_parquets(store, entry)
    footers = [footer for _, footer in parquets]
    closed = bool(footers) and footers[-1].counts is not None
    if lost or not closed or [footer.segment for footer in footers] != list(range(len(footers))):
        kept = sum(footer.rows for footer in footers)
        reason = f"{lost}; the file was deleted" if lost else "interrupted before its last Parquet file was whole"
        reason += f"; {kept} embedded rows are kept until jammi_vacuum()" if kept else ""
        place.catalog.failed(entry.build, reason)
        return Action(entry.name, "failed", reason)
    return _rebuild(place, store, entry, parquets)


def _whole_parquets(store: Store, entry: Entry) -> tuple[list[tuple[Digest, Footer]], str | None]:
    """The build's own Parquet files in order, and what was wrong with one that had to be deleted."""
    whole, lost = [], None
    names = {file: layout.parse(file) for file in store.files()}
    mine = [(name.number, file) for file, name in names.items() if name and name.table == entry.name]
    for _, file in sorted((number, file) for number, file in mine if file.endswith(".parquet")):
        try:
            with store.unchecked(file, entry.build) as path:
                footer = read_footer(path)
                if footer.build == entry.build:
                    whole.append((Digest(file, path.stat().st_size, sha256_of(path)), footer))
        except FileNotFoundError:
            continue
        except DamagedError as error:
            store.delete(file)
            lost = str(error)
    return whole, lost


def _rebuild(place: Place, store: Store, entry: Entry, parquets: list[tuple[Digest, Footer]]) -> Action:
    for file in files_of(store, entry.name):
        if not file.endswith(".parquet"):
            store.delete(file)
    segments = []
    for digest, footer in parquets:
        try:
            segments.append(_index(store, entry, footer.segment, footer.rows, digest, rebuilt=0))
        except DamagedError as error:
            store.delete(digest.file)
            reason = f"{error}; the file was deleted"
            place.catalog.failed(entry.build, reason)
            return Action(entry.name, "failed", reason)
    counts = parquets[-1][1].counts
    assert counts is not None
    started = entry.started.replace(tzinfo=UTC)
    found = Manifest(entry.name, entry.build, 1, entry.definition, counts, started, datetime.now(UTC), tuple(segments))
    manifest.commit(store, found)
    make_ready(place, found, entry.location)
    return Action(entry.name, "ready", "its Parquet was whole: built the index")


def _repair(place: Place, entry: Entry) -> Action | None:
    store = place.store_at(entry.location)
    files = store.files()
    if not files:
        return Action(entry.name, "ready", f"left alone: there is nothing at {entry.location}")
    try:
        present = newest_manifest(store, entry)
    except DamagedError:
        present = None
    known = present.segments if present else _from_catalog(place, entry)
    gone = [segment.parquet.file for segment in known if segment.parquet.file not in files]
    if gone or not known:
        missing = ", ".join(gone) or "every file"
        return Action(entry.name, "ready", f"cannot be searched: {missing} is missing; put it back, or jammi_drop it")
    number = 1 + max(
        max(name.number if name.kind == "manifest.json" else 0, name.rebuilt) for name in _named(files, entry)
    )
    try:
        segments = [
            segment if _is_whole(store, segment) else _again(store, entry, segment, number) for segment in known
        ]
    except DamagedError as error:
        return Action(entry.name, "ready", f"cannot be repaired: {error}; drop it and generate it again")
    if present and list(present.segments) == segments:
        return None
    rebuilt = [segment for segment, old in zip(segments, known, strict=True) if segment != old]
    if present:
        state = replace(present, number=number, finished=datetime.now(UTC), segments=tuple(segments))
    else:
        started, now = entry.started.replace(tzinfo=UTC), datetime.now(UTC)
        state = Manifest(entry.name, entry.build, number, entry.definition, entry.counts, started, now, tuple(segments))
    manifest.commit(store, state)
    place.catalog.set_segments(state)
    place.forget(entry.build)
    return Action(entry.name, "ready", f"built {len(rebuilt)} of {len(segments)} indexes and the manifest again")


def _from_catalog(place: Place, entry: Entry) -> tuple[Segment, ...]:
    missing = Digest("", 0, "")
    return tuple(
        Segment(number, rows, Digest(file, size, sha256), missing, missing, missing)
        for number, rows, file, size, sha256 in place.catalog.segments(entry.build)
    )


def _named(files: Iterable[str], entry: Entry) -> list[layout.FileName]:
    return [name for name in map(layout.parse, files) if name and name.table == entry.name]


def _is_whole(store: Store, segment: Segment) -> bool:
    try:
        for sidecar in segment.sidecars:
            store.checked(sidecar)
    except DamagedError:
        return False
    return True


def _again(store: Store, entry: Entry, segment: Segment, number: int) -> Segment:
    return _index(store, entry, segment.number, segment.rows, segment.parquet, rebuilt=number)


def _index(store: Store, entry: Entry, segment: int, rows: int, parquet: Digest, rebuilt: int) -> Segment:
    dimensions = entry.definition.dimensions
    return add_sidecars(store, entry.name, entry.build, segment, rows, parquet, dimensions, lambda _: None, rebuilt)
