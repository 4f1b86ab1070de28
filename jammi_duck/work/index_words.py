"""The story of an index of words for a table without one: the source's texts -> words of each segment -> a new state.

DuckDB compares the source with the table, and pushes the texts of the rows that it still has, in the caller's own
query. Nothing is embedded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from jammi_duck.config.logs import log
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.recovery import release_snapshot
from jammi_duck.storage.tables.segment_words import without_words
from jammi_duck.storage.tables.snapshot import pinned_snapshot
from jammi_duck.storage.tables.table import live_masks
from jammi_duck.storage.words.analyser import analyser
from jammi_duck.types import Caller
from jammi_duck.work.compact import call
from jammi_duck.work.generate import GENERATE_ANEW, Census, check_keys
from jammi_duck.work.jobs import Job, Jobs
from jammi_duck.work.progress import Progress


@dataclass(frozen=True)
class WordsRequest:
    """What is to be indexed: the segments `without_words` of a table.

    `source` is how the user writes it, `build` that of the table, and `snapshot_token` identifies what was compared.
    `began` is when the query was planned, by `time.monotonic`.
    """

    source: str
    table: str
    build: str
    snapshot_token: str
    began: float
    language: str
    without_words: Sequence[int]


@dataclass(frozen=True)
class WordsIndexed:
    """What came of it: how many rows had their words indexed now, and how many bytes the words of the table take."""

    embedding_table: str
    language: str
    row_count: int
    bytes: int
    seconds: float
    advice: str | None


class WordsIndexer:
    """The indexing of words that runs in one database of this process."""

    def __init__(self, tables: EmbeddingTables, jobs: Jobs) -> None:
        """Of tables in `tables`."""
        self._tables = tables
        self._jobs = jobs

    def begin(self, request: WordsRequest, census: Census, caller: Caller) -> str:
        """Check everything that can be wrong, and start; returns a token.

        Raises:
            InputError: the keys are not unique or not all there, or there is no such language.
            NotFoundError: the table was dropped.
            StateError: what was compared is not there any more.
            StorageError: the location cannot be read or written.
        """
        self._jobs.settle(caller)
        entry = self._tables.ready(request.table)
        check_keys(entry.definition.source, entry.definition.key, census, GENERATE_ANEW)
        base = pinned_snapshot(self._tables, entry, request.snapshot_token).manifest
        words = analyser(request.language).analysis
        wanted = set(request.without_words)
        segments = [segment for segment in base.segments if segment.number in wanted]

        def start() -> Job[_Indexing]:
            change = _Indexing(self._tables, entry, base, "indexing words", words=words)
            change.request = request
            gone = live_masks(self._tables.store_at(entry.location), segments, base.tombstones)
            live = {
                each.number: int(gone[each.number].sum()) if each.number in gone else each.rows for each in segments
            }
            change.index_words(segments, live)
            progress = Progress("indexing words", entry.definition.label, sum(each.rows for each in segments))
            return Job(change, "indexing of words", caller, progress)

        return self._jobs.start(caller, start).work.id

    def finish(self, token: str, pushed: int) -> WordsIndexed:
        """Commit the new state. `pushed` is how many rows came."""
        job = self._jobs.find(token, _Indexing)
        request, base = job.work.request, job.work.base
        with self._jobs.ending_on_error(job):
            job.progress.done()
            finished = job.work.finish(base.counts, lambda _: None)
        self._jobs.done(job)
        self._tables.pins.release(request.snapshot_token)
        wanted = sum(each.rows for each in base.segments if each.number in set(request.without_words))
        gone = sum(each.rows for each in base.tombstones)
        refresh = f"{call('jammi_refresh', self._tables, finished, request.source)} adds them"
        advice = None
        if pushed < wanted - gone:
            advice = f"rows that have changed since they were embedded have no words: {refresh}"
        elif without_words(self._tables.store_at(job.work.entry.location), finished):
            advice = f"rows that another change has written meanwhile have no words: {refresh}"
        indexed = WordsIndexed(
            embedding_table=finished.table,
            language=request.language,
            row_count=pushed,
            bytes=sum(each.sidecars["words"].size for each in finished.segments if "words" in each.sidecars),
            seconds=round(time.monotonic() - request.began, 3),
            advice=advice,
        )
        log.info("indexed the words of %d rows of %s in %.1f s", pushed, indexed.embedding_table, indexed.seconds)
        return indexed


class _Indexing(Change):
    """A change of a table, and what was asked for."""

    request: WordsRequest

    def release(self) -> None:
        """See `Change.release`."""
        super().release()
        self._tables.pins.release(self.request.snapshot_token)

    def abandon(self, reason: str, *, keep: bool) -> None:
        """See `Change.abandon`."""
        super().abandon(reason, keep=keep)
        release_snapshot(self._tables, self.request.snapshot_token, self.entry.build)
