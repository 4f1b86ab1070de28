"""The story of a compaction: existing rows -> as few segments as possible -> the next state of the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from jammi_duck.config.logs import log
from jammi_duck.errors import BuildError, StateError
from jammi_duck.sql import literal
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import catch_up
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.compaction import Compaction, merge, plan_compaction, segments_needed
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.recovery import release_snapshot
from jammi_duck.storage.tables.snapshot import pin_snapshot
from jammi_duck.storage.tables.table import live_masks
from jammi_duck.types import Caller, Counts, Integer
from jammi_duck.work.generate import indexing
from jammi_duck.work.jobs import Job, Jobs
from jammi_duck.work.progress import Progress

# Beyond so many segments more than are needed, or rows that are gone for one that is there, searches are slower.
_SEGMENTS = 8
_GONE, _LEAST_GONE = 0.2, 1000
_TRIES = 5


@dataclass(frozen=True)
class Compacted:
    """What a compaction came to: segments and bytes before and now, and rows that are not stored any more."""

    embedding_table: str
    segments_before: Integer
    segments: Integer
    rows_removed: int
    bytes_before: int
    bytes: int
    seconds: float


def advice(tables: EmbeddingTables, state: Manifest, source: str) -> str | None:
    """What to do where a search would gain by it; `source` is how the user writes it."""
    gone = sum(each.rows for each in state.tombstones)
    spare = len(state.segments) - segments_needed(state.rows, tables.segment_rows)
    if spare < _SEGMENTS and gone <= max(_LEAST_GONE, _GONE * state.rows):
        return None
    cure = call("jammi_compact", tables, state, source)
    return f"{len(state.segments)} segments, {gone:,} rows in them are gone: {cure} makes searches faster"


def call(function: str, tables: EmbeddingTables, state: Manifest, source: str) -> str:
    """The SQL that calls a function for a table, which it names where its source alone may mean another."""
    newest = tables.catalog.entries("ready", source=state.definition.source)[:1]
    is_meant = state.definition.embedding is None and any(entry.name == state.table for entry in newest)
    table = "" if is_meant else f", embedding_table := {literal(state.table)}"
    return f"SELECT * FROM {function}({literal(source)}{table})"


def compact(
    tables: EmbeddingTables,
    jobs: Jobs,
    entry: Entry,
    caller: Caller,
    *,
    plan: Callable[[Manifest, dict[int, Mask], int], Compaction] = plan_compaction,
    is_ours: bool = False,
) -> Compacted:
    """Merge the segments of a ready table, without the rows that are gone; nothing is encoded.

    `plan` says which segments. See `Jobs.start` for `is_ours`.

    Raises:
        BuildError: the table was changed again and again meanwhile, or the compaction was interrupted.
        NotFoundError: the table was dropped meanwhile.
        StorageError: the location cannot be read or written.
    """
    jobs.settle(caller)
    store = tables.store_at(entry.location)
    for _ in range(_TRIES):
        began = time.monotonic()
        # Its files are held as long as rows are copied out of them.
        pinned = pin_snapshot(tables, entry, caller)
        base = pinned.snapshot.manifest
        todo = plan(base, live_masks(store, base.segments, base.tombstones), tables.segment_rows)
        if not todo.mergers and not todo.others:
            catch_up(tables, entry, base)
            tables.pins.release(pinned.token)
            return _report(base, base, began)

        def start(base: Manifest = base, todo: Compaction = todo) -> Job[Change]:
            change = Change(tables, entry, base, "compacting", kept=todo.kept)
            progress = Progress("merging", entry.definition.label, sum(each.rows for each in todo.mergers))
            return Job(change, "compaction", caller, progress)

        job = jobs.start(caller, start, is_ours=is_ours)
        try:
            with jobs.ending_on_error(job):
                job.work.forget_again(todo.kept)
                indexed = merge(job.work, store, todo, tables.segment_rows, job.advance)
                job.progress.done()
                with indexing(job, indexed) as advance:
                    counts = Counts(0, base.counts.skipped, base.counts.failed, 0)
                    finished = job.work.finish(counts, advance)
        except StateError:
            log.info("%s has changed while it was compacted; starting again", entry.name)
            continue
        finally:
            release_snapshot(tables, pinned.token, entry.build)
        jobs.done(job)
        return _report(base, finished, began)
    raise BuildError(f"'{entry.name}' was changed each time that it was compacted; try again later")


def _report(base: Manifest, finished: Manifest, began: float) -> Compacted:
    return Compacted(
        embedding_table=finished.table,
        segments_before=len(base.segments),
        segments=len(finished.segments),
        rows_removed=sum(each.rows for each in base.tombstones),
        bytes_before=size(base),
        bytes=size(finished),
        seconds=round(time.monotonic() - began, 3),
    )


def size(state: Manifest) -> int:
    """How many bytes the files of a state have."""
    return sum(file.size for file in state.files)
