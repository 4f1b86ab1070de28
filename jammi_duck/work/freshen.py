"""The story of a fresh search: texts that may have changed -> those whose vectors the table lacks -> its next state.

What is embedded is kept, as a refresh keeps it.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa

from jammi_duck.errors import JammiWarning
from jammi_duck.sql import Sql, literal, quoted, sql
from jammi_duck.storage.tables.catalog import Entry, live_rows
from jammi_duck.storage.tables.compaction import plan_tidying
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.snapshot import PinnedSnapshot, pin_snapshot
from jammi_duck.types import GIVEN, Caller, Host
from jammi_duck.work.compact import compact
from jammi_duck.work.generate import GENERATE_ANEW, Census, check_keys
from jammi_duck.work.jobs import Jobs
from jammi_duck.work.refresh import Comparison, Refresher
from jammi_duck.work.text_buffer import digest

# How many texts a search embeds, if it is not told.
TEXTS = 1000


@dataclass(frozen=True)
class Candidates:
    """Rows that may have changed, by their keys: the texts that they have now, None for one that is gone or has none.

    `rest` more rows have changed, and are left for later. `source` is how the user writes it. All that have changed
    since the table's state that was finished at `since`, in UTC, are among them, if that is given.
    """

    source: str
    texts: Mapping[str, str | None]
    census: Census
    rest: int = 0
    since: datetime | None = None


class _Place(NamedTuple):
    segment: int
    position: int


@dataclass(frozen=True)
class _Live:
    """A text of a table: its digest, and where its rows are, one or one for each passage."""

    digest: str
    places: list[_Place]


class Freshener:
    """Brings what has changed into embedding tables, for the searches of one database."""

    def __init__(self, host: Host, tables: EmbeddingTables, jobs: Jobs, refresher: Refresher) -> None:
        """For the tables in `tables`."""
        self._host = host
        self._tables = tables
        self._jobs = jobs
        self._refresher = refresher
        # One search embeds what is new in a table, and others wait for it.
        self._turns: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def turn(self, build: str) -> AbstractContextManager[bool]:
        """A context for one thread at a time that changes the table of a build."""
        return self._turns[build]

    def freshen(
        self, entry: Entry, found: Candidates, limit: int, caller: Caller, *, is_ours: bool = False
    ) -> tuple[Entry, bool]:
        """Bring candidates into a table; returns it as it is now, and whether it has what the source had, and no more.

        At most `limit` texts are embedded, and a warning tells of the others. See `Jobs.start` for `is_ours`.

        Raises:
            InputError: the keys are not unique or not all there, or the table was imported without its columns.
            ModelError: something is to be embedded, and the model cannot be had, or is not what it was.
            NotFoundError: the table was dropped.
            StorageError: the location cannot be read or written.
        """
        began = time.monotonic()
        check_keys(entry.definition.source, entry.definition.key, found.census, GENERATE_ANEW)
        with self.turn(entry.build):
            left, is_known = self._bring(entry, found, limit, caller, began, is_ours)
            now = self._tables.ready(entry.name)
        rest = found.rest + left
        if rest:
            warnings.warn(
                f"'{found.source}' has {rest:,} new or changed rows more than a search brings in (fresh_rows is "
                f"{limit:,}): they are not in this one. SELECT * FROM jammi_refresh({literal(found.source)}) brings in "
                "all of them",
                JammiWarning,
                stacklevel=2,
            )
        return now, is_known and not rest

    def _bring(
        self, entry: Entry, found: Candidates, limit: int, caller: Caller, began: float, is_ours: bool
    ) -> tuple[int, bool]:
        """How many rows are left for later, and whether nobody else has changed the table since it was compared."""
        entry = self._tables.ready(entry.name)
        if not found.texts and found.census.rows == _counted(entry):
            return 0, entry.finished == found.since
        pinned = pin_snapshot(self._tables, entry, caller)
        base = pinned.snapshot.manifest
        is_known = base.finished.astimezone(UTC).replace(tzinfo=None) == found.since
        live = self._live(pinned, list(found.texts))
        gone: list[tuple[str, _Live]] = []
        new: defaultdict[str, list[str]] = defaultdict(list)
        deleted = rest = 0
        for key, text in found.texts.items():
            before = live.get(key)
            if text is None:
                if before is not None:
                    deleted += 1
                    gone.append((key, before))
            elif before is None or before.digest != digest(text).hex():
                if text not in new and len(new) == limit:
                    rest += 1
                    continue
                new[text].append(key)
                if before is not None:
                    gone.append((key, before))
        changed = len(gone) - deleted
        added = sum(map(len, new.values())) - changed
        if not gone and not new and found.census.rows == _counted(entry):
            self._tables.pins.release(pinned.token)
            return rest, is_known
        comparison = Comparison(
            source=found.source,
            table=entry.name,
            build=entry.build,
            snapshot_token=pinned.token,
            # The table may have more rows than the source had, if that was seen before others brought them in.
            census=replace(found.census, rows=max(found.census.rows, base.texts - deleted + added)),
            added=added,
            changed=changed,
            deleted=deleted,
            texts=len(new),
            began=began,
        )
        token = self._refresher.begin(comparison, caller, is_ours=is_ours)
        rows = [(key, *place) for key, text in gone for place in text.places]
        if rows:
            self._refresher.forget(token, *map(list, zip(*rows, strict=True)))
        if entry.definition.passages:
            texts = ((keys, text) for text, keys in new.items())
            self._refresher.renew_cut(token, texts, lambda digests: self._places(pinned, digests))
        else:
            self._refresher.renew(token, ((keys, digest(text).hex(), text, None, None) for text, keys in new.items()))
        refreshed = self._refresher.finish(token)
        states = 1
        if refreshed.advice:
            now = self._tables.ready(entry.name)
            done = compact(self._tables, self._jobs, now, caller, plan=plan_tidying, is_ours=True)
            states += done.bytes != done.bytes_before
        # Others commit states of their own.
        return rest, is_known and self._tables.recorded.get(entry.build) == base.number + states

    def _live(self, pinned: PinnedSnapshot, keys: list[str]) -> dict[str, _Live]:
        """The texts of a table that are of rows with these keys."""
        has_passages = pinned.snapshot.manifest.definition.passages is not None
        of = sql("_row_digest") if has_passages else sql("_text_digest")
        text = sql(
            "SELECT l._row_id, lower(hex(l.digest)), l._segment, l._place FROM ({}) l "
            'SEMI JOIN {} g ON l._row_id = g.key COLLATE "C"',
            _rows(pinned, sql("_row_id, {} AS digest, _segment, _place", of)),
            quoted(GIVEN),
        )
        found: dict[str, _Live] = {}
        for key, digested, *place in self._host.sql(text, rows=pa.table({"key": pa.array(keys, pa.string())})):
            found.setdefault(key, _Live(digested, [])).places.append(_Place(*place))
        return found

    def _places(self, pinned: PinnedSnapshot, digests: list[str]) -> dict[str, tuple[int, int]]:
        """Where a table has vectors of passages, by the digests of these."""
        text = sql(
            "SELECT lower(hex(l._text_digest)), l._segment, l._place FROM ({}) l "
            "SEMI JOIN (SELECT unhex(key) AS digest FROM {}) g ON l._text_digest = g.digest",
            _rows(pinned, sql("_text_digest, _segment, _place")),
            quoted(GIVEN),
        )
        found = self._host.sql(text, rows=pa.table({"key": pa.array(digests, pa.string())}))
        return {digested: (segment, position) for digested, segment, position in found}


def _rows(pinned: PinnedSnapshot, columns: Sql) -> Sql:
    """A query for these columns of the rows of a table."""
    return live_rows(
        columns,
        [(number, str(path)) for number, path in pinned.segments],
        [str(path) for path in pinned.tombstones],
    )


def _counted(entry: Entry) -> int:
    """How many rows the source had."""
    return entry.counts.source_rows
