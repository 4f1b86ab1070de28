"""How embedding tables and files go: a drop removes one table, a vacuum what nothing names any more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jammi_duck import cache
from jammi_duck.errors import StorageError
from jammi_duck.logs import log
from jammi_duck.storage import layout, manifest
from jammi_duck.storage.filesystem import Store
from jammi_duck.storage.ownership import owner_of
from jammi_duck.storage.place import Place, files_of, remove_files
from jammi_duck.storage.recovery import Action


@dataclass(frozen=True)
class Removed:
    """A file that was removed, its size in bytes, and why."""

    file: str
    size: int
    reason: str


def drop(place: Place, name: str) -> Action:
    """Drop an embedding table that is ready, gone or failed: the catalog first, then its manifests, then other files.

    Raises:
        NotFoundError: no table of this name is ready, gone or failed.
        StorageError: files could not be deleted; the table is dropped, and `jammi_recover()` deletes them later.
    """
    known = [*place.catalog.entries("ready", "gone", name=name), *place.catalog.entries("failed", name=name)]
    entry = known[0] if known else place.ready(name)
    place.catalog.dropped(entry)
    place.catalog.hide(name)
    place.forget(entry.build)
    store = place.store_at(entry.location)
    files = files_of(store, name)
    # Another database may have given the name of one that failed to a table of its own.
    if entry.status == "failed" and owner_of(store, files) != entry.build:
        files = []
    remove_files(store, files)
    return Action(name, "dropped", f"removed {len(files)} files")


def vacuum(place: Place, at_work: Mapping[str, str]) -> list[Removed]:
    """Remove files and unfinished uploads of the location that no manifest names and that are older than the retention.

    `at_work` are the builds and changes that run in this process: the names of their tables by their ids. What they
    write is spared, as is every Parquet of a ready table.
    """
    oldest = datetime.now(UTC) - place.retention
    store = place.store
    # The files first: what one of these belongs to is then still being written, or named already.
    files, scratches = store.files(), store.scratches()
    busy = {entry.build: entry.name for entry in place.catalog.entries("building")} | dict(at_work)
    writing = tuple(f"{name}." for name in busy.values())
    spared = _named_files(store) | _catalog_files(place)
    removed = []
    for file, stored in files.items():
        ours = stored.is_file and layout.parse(file) is not None and not file.startswith(writing)
        if ours and file not in spared and stored.modified < oldest:
            store.delete(file)
            removed.append(Removed(file, stored.size, "no manifest names it"))
    for scratch, stored in scratches.items():
        if not any(layout.is_scratch(scratch, each) for each in busy) and stored.modified < oldest:
            store.discard(scratch)
            removed.append(Removed(scratch, stored.size, "left by a process that ended"))
    removed += [Removed(file, 0, "an upload that was never finished") for file in store.abort_uploads(oldest)]
    return removed + _old_cached(place.cache_dir / "files", oldest)


def _named_files(store: Store) -> set[str]:
    named = set()
    for table, file in manifest.newest(store.files()).items():
        named.add(file)
        try:
            found = manifest.read(store, file)
            named.update(digest.file for digest in found.files)
        except StorageError:
            named.update(files_of(store, table))
    return named


def _catalog_files(place: Place) -> set[str]:
    ready = place.catalog.entries("ready")
    return {each.parquet.file for entry in ready for files in place.catalog.files(entry.build) for each in files}


def _old_cached(folder: Path, oldest: datetime) -> list[Removed]:
    def is_old(status: os.stat_result) -> bool:
        return max(status.st_atime, status.st_mtime) < oldest.timestamp()

    if folder.is_dir() and not cache.is_ours(folder):
        log.warning("nothing was deleted in '%s', which jammi_duck has not made: it may hold files of yours", folder)
    removed = cache.remove_cached(folder, is_old)
    return [Removed(file, size, "a cached copy that was not read of late") for file, size in removed]
