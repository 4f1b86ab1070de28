"""Keeps the catalog in step with the newest committed state of each embedding table, from this process or another."""

from __future__ import annotations

import contextlib
from collections import defaultdict

from jammi_duck.errors import StorageError
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.table import is_older
from jammi_duck.storage.tables.watch import Seen


def record_state(tables: EmbeddingTables, entry: Entry, present: Manifest, *, at_work: bool = False) -> bool:
    """Record a state of a ready table in the catalog, recreate its view, and close the open table.

    A newer recorded state is never replaced, since threads may arrive in another order than they committed. The note of
    a change that is `at_work` stays. Returns False if the table is no longer ready, and then records nothing.
    """
    with tables.recording:
        if tables.recorded.get(entry.build, 0) > present.number:
            if not at_work:
                tables.catalog.note_change(entry.build, None, None)
            return tables.catalog.is_ready(entry.build)
        # The view first: what dies in between is settled, as long as the catalog has not the new state.
        tables.show(entry.name, entry.definition.shape, entry.location, present.segments, present.tombstones)
        is_ready = tables.catalog.set_state(present, at_work=at_work)
        if is_ready:
            tables.recorded[entry.build] = present.number
        else:
            tables.catalog.drop_view(entry.name)
        tables.evict(entry.build)
    return is_ready


def catch_up(tables: EmbeddingTables, entry: Entry, present: Manifest, *, at_work: bool = False) -> bool:
    """Record the present state of a ready table, if the catalog has another one. Returns whether it had."""
    if _has(tables, entry, present):
        return False
    return record_state(tables, entry, present, at_work=at_work)


def follow_others(tables: EmbeddingTables, *, at_once: bool = False) -> None:
    """Update the catalog with changes that other processes made to its tables, if it is time to look.

    If a location has files, but none of a table, that table was dropped: it is `gone` until its files come back.
    """
    with tables.watch.turn(at_once=at_once) as is_ours:
        if not is_ours:
            return
        known: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        for entry in tables.catalog.entries("ready", "gone"):
            known[entry.location][entry.name] = entry
        for location, entries in known.items():
            with contextlib.suppress(StorageError):
                numbers = {name: tables.recorded.get(entry.build, 1) for name, entry in entries.items()}
                seen = tables.watch.look(tables.store_at(location), numbers, at_once=at_once)
                if seen:
                    _take_in(tables, entries, seen)


def _take_in(tables: EmbeddingTables, entries: dict[str, Entry], seen: Seen) -> None:
    for state in seen.states:
        entry = entries.get(state.table)
        if entry and entry.build == state.build and not is_older(state, *tables.catalog.files(entry.build)):
            catch_up(tables, entry, state, at_work=True)
    looked_for = {entry.build for name, entry in entries.items() if name in seen.known}
    gone = {entry.build for name, entry in entries.items() if name in seen.gone}
    lost = tables.catalog.note_missing(looked_for, gone)
    for entry in entries.values():
        if entry.build in lost:
            tables.evict(entry.build)
            with contextlib.suppress(Exception):
                # Another thing of that name, which somebody has put there, stays.
                tables.catalog.drop_view(entry.name)
        elif entry.status == "gone" and entry.build in looked_for - gone:
            tables.show(entry.name, entry.definition.shape, entry.location, *tables.catalog.files(entry.build))


def _has(tables: EmbeddingTables, entry: Entry, present: Manifest) -> bool:
    """Whether the catalog has this state of a table, or a later one."""
    if entry.build in tables.recorded:
        return tables.recorded[entry.build] >= present.number
    files = {each.parquet for kind in tables.catalog.files(entry.build) for each in kind}
    has = present.finished.replace(tzinfo=None) == entry.finished and files == {
        each.parquet for each in present.parquet_files
    }
    if has:
        tables.recorded[entry.build] = present.number
    return has
