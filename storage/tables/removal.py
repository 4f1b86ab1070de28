"""Removes embedding tables (drop) and files that nothing refers to (vacuum)."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from jammi_duck.config import cache
from jammi_duck.config.logs import log
from jammi_duck.errors import StorageError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.layout import scratch_of
from jammi_duck.storage.files.locks import is_locked
from jammi_duck.storage.files.table_files import by_table, remove_files
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.ownership import delete_table, superseded
from jammi_duck.storage.tables.recovery import Action


@dataclass(frozen=True)
class Removed:
    """A file that was removed, its size in bytes, and why."""

    file: str
    bytes: int
    reason: str


def drop(tables: EmbeddingTables, name: str, at_work: Container[str]) -> Action:
    """Drop an embedding table that is there: the catalog first, then its manifests, then other files.

    It is ready, gone or failed, or a build that none of those `at_work` is, whose files keep it from being settled.
    Files stay where some are not understood: a later version may know what they are. The action says which, and why.

    Raises:
        NotFoundError: there is no such table.
        StorageError: files could not be deleted; the table is dropped, and `jammi_recover()` deletes them later.
    """
    unfinished = tables.catalog.entries("failed", "building", name=name)
    left = [each for each in unfinished if each.build not in at_work and each.owner not in at_work]
    known = [*tables.catalog.entries("ready", "gone", name=name), *left]
    entry = known[0] if known else tables.ready(name)
    if entry.status == "building":
        tables.catalog.mark_failed(entry.build, "dropped before it could be settled")
        entry = replace(entry, status="failed")
    tables.catalog.mark_dropped(entry)
    tables.catalog.drop_view(name)
    tables.evict(entry.build)
    store = tables.store_at(entry.location)
    gone = delete_table(store, name, entry.build, was_ready=entry.status != "failed")
    return Action(name, "dropped", f"removed {gone.files} files{gone.left}")


def vacuum(tables: EmbeddingTables, at_work: Mapping[str, str]) -> list[Removed]:
    """Remove files and unfinished uploads of the location that no manifest names and that are older than the retention.

    `at_work` are the builds and changes that run in this process: the names of their tables by their ids. What they
    write is spared, as is every Parquet of a ready table, and every file of a table of which anything is not understood
    or cannot be read now, or whose newest manifest is damaged.
    """
    oldest = datetime.now(UTC) - tables.retention
    store = tables.store
    # The files first: what one of these belongs to is then still being written, or named already.
    files, scratches = store.files(), store.scratches()
    busy = {entry.build: entry.name for entry in tables.catalog.entries("building")} | dict(at_work)
    # What other processes write.
    busy |= dict(scratch_of(scratch) for scratch in scratches if store.is_locked(scratch))
    spared = _catalog_files(tables)
    old = {file for file, stored in files.items() if stored.is_file and stored.modified < oldest} - spared
    refused = {each.name for each in tables.catalog.refused()}
    going = _superseded(tables, files, old, refused | set(busy.values()))
    gone = [file for file in going if remove_files(store, [file])]
    removed = [Removed(file, files[file].size, "no manifest names it") for file in gone]
    for scratch, stored in scratches.items():
        if not any(layout.is_scratch(scratch, each) for each in busy) and stored.modified < oldest:
            store.discard(scratch)
            removed.append(Removed(scratch, stored.size, "left by a process that ended"))
    removed += [Removed(file, 0, "an upload that was never finished") for file in store.abort_uploads(oldest)]
    return removed + _old_cached(tables.cache_dir / "files", oldest)


def _superseded(tables: EmbeddingTables, files: Iterable[str], old: Container[str], busy: Container[str]) -> list[str]:
    """The old files that may go, of all tables but the busy ones, and those that a change has committed meanwhile."""
    store = tables.store
    given_up = {entry.build for entry in tables.catalog.entries("failed", "dropped")}
    going = {}
    for table, mine in by_table(files).items():
        if table not in busy:
            try:
                going[table] = superseded(store, mine, old, given_up)
            except StorageError as error:
                log.warning("a vacuum leaves the files of %s alone: %s", table, error)
    before, now = manifest.newest(files), manifest.newest(store.files())
    return [file for table, mine in going.items() if before.get(table) == now.get(table) for file in mine]


def _catalog_files(tables: EmbeddingTables) -> set[str]:
    ready = tables.catalog.entries("ready", "gone")
    return {each.parquet.file for entry in ready for files in tables.catalog.files(entry.build) for each in files}


def _old_cached(folder: Path, oldest: datetime) -> list[Removed]:
    def is_old(name: str, status: os.stat_result) -> bool:
        return max(status.st_atime, status.st_mtime) < oldest.timestamp() and not is_locked(folder / name)

    if folder.is_dir() and not cache.is_ours(folder):
        log.warning("nothing was deleted in '%s', which jammi_duck has not made: it may hold files of yours", folder)
    removed = cache.remove_cached(folder, is_old)
    return [Removed(file, size, "a cached copy that was not read of late") for file, size in removed]
