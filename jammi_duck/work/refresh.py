"""The story of a refresh: source compared with table -> rows added, changed, deleted -> the next state of the table.

DuckDB compares, in the caller's own query, and pushes what differs through four calls: `begin` once, `forget` for the
rows that are gone or replaced, `renew` for the texts that the table is to have, and `finish` once. A build that was
interrupted goes on in the same way, from the segments that are whole.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encoders, Usage
from jammi_duck.encoder.passages import Cuts
from jammi_duck.encoder.recorded import DOCUMENT, recorded_encoder
from jammi_duck.errors import (
    BuildError,
    DamagedError,
    InputError,
    NotFoundError,
    StateError,
)
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.lookup import check_is_one, find_table, of_column, of_model
from jammi_duck.storage.tables.pins import Snapshot
from jammi_duck.storage.tables.recovery import release_snapshot
from jammi_duck.storage.tables.snapshot import changed_since, pinned_snapshot, present
from jammi_duck.types import Caller, Counts, Integer
from jammi_duck.work.compact import advice
from jammi_duck.work.cut_texts import CutText, PassageBuffer, add_texts, buffer_of, parts_of, unpacked, write_whole
from jammi_duck.work.generate import (
    GENERATE_ANEW,
    SOURCE_CHANGED,
    Census,
    Generated,
    Request,
    asked,
    check_keys,
    indexing,
    log_built,
    matching_entries,
    report,
)
from jammi_duck.work.jobs import Job, Jobs
from jammi_duck.work.progress import Progress
from jammi_duck.work.text_buffer import ROWS, digest, write_repeated


@dataclass(frozen=True)
class Comparison:
    """What DuckDB found: a look at the source, and how the table differs from it.

    `source` is how the user writes it, `build` that of the table, `snapshot_token` identifies what was compared.
    `added` rows are not in it, `changed` ones have another text there, `deleted` ones are not in the source or have no
    text any more. `texts` are to be embedded. The words of the segments `without_words` are indexed again. `began` is
    when the query was planned, by `time.monotonic`. If the source was renamed, the table's is to be known by
    `new_source_name` from now on.
    """

    source: str
    table: str
    build: str
    snapshot_token: str
    census: Census
    added: int
    changed: int
    deleted: int
    texts: int
    began: float
    new_source_name: str | None = None
    without_words: Sequence[int] = ()


class Renewed(NamedTuple):
    """A text that is cut into passages, of the rows with these keys; `text` has the title before it, as SQL gives it.

    `title` is what is embedded of the title. For each passage: where it begins and ends, and the segment and position
    of an existing vector, if there is one.
    """

    keys: Sequence[str]
    digest: str
    text: str
    title: str
    starts: Sequence[int]
    ends: Sequence[int]
    segments: Sequence[int | None]
    positions: Sequence[int | None]


@dataclass(frozen=True)
class Refreshed:
    """What a refresh came to: how many rows, and how many texts it had the model encode."""

    embedding_table: str
    added: int
    changed: int
    deleted: int
    unchanged: int
    failed: int
    encoded: int
    seconds: float
    advice: str | None
    requests: Integer | None = None
    tokens: int | None = None


class Refresher:
    """The refreshes that run in one database of this process."""

    def __init__(self, tables: EmbeddingTables, encoders: Encoders, jobs: Jobs) -> None:
        """Of tables in `tables`, with models of `encoders`."""
        self._tables = tables
        self._encoders = encoders
        self._jobs = jobs

    def begin(self, found: Comparison, caller: Caller, *, is_ours: bool = False) -> str:
        """Check everything that can be wrong, and start a refresh, of the caller's or as `is_ours`; returns its token.

        Raises:
            InputError: the keys are not unique or not all there, or the table was imported without its columns.
            ModelError: something is to be embedded, and the model cannot be had, or is not what it was.
            NotFoundError: the table was dropped.
            StateError: what was compared is not there any more.
            StorageError: the location cannot be read or written.
        """
        self._jobs.settle(caller)
        entry = _entry(self._tables, found.table, found.build)
        definition = entry.definition
        check_keys(definition.source, definition.key, found.census, GENERATE_ANEW)
        if found.added and not definition.columns:
            raise InputError(
                f"'{entry.name}' was imported without the columns of its text, so {found.added} new rows of "
                f"'{definition.source}' cannot be embedded; import it again, with cols := [...] "
                "(columns=[...] in Python, --columns on the command line)"
            )
        encoder = recorded_encoder(self._encoders, entry.name, definition, DOCUMENT) if found.texts else None
        snapshot = pinned_snapshot(self._tables, entry, found.snapshot_token)

        def start() -> Job[_Change]:
            change = _Change(self._tables, entry, snapshot, found, encoder)
            progress = Progress("refreshing", definition.label, found.texts)
            return Job(change, "refresh", caller, progress)

        return self._jobs.start(caller, start, is_ours=is_ours).work.id

    def forget(self, token: str, row_ids: Sequence[str], segments: Sequence[int], positions: Sequence[int]) -> None:
        """Take rows of the table that are gone or replaced. Threads may call at once."""
        job = self._jobs.find(token, _Change)
        with self._jobs.ending_on_error(job), job.writing:
            job.raise_if_stopped()
            job.work.forget(row_ids, segments, positions)

    def renew(self, token: str, texts: Iterable[tuple[Sequence[str], str, str | None, int | None, int | None]]) -> None:
        """Take texts that the table lacks.

        Each comes as the keys of the rows that have it, its digest, and the text itself, or the segment and position
        of an existing vector, or both, if words are indexed.
        """
        job = self._jobs.find(token, _Change)
        change = job.work
        known: defaultdict[int, list[tuple[int, Sequence[str], str, str | None]]] = defaultdict(list)
        renewed = encoded = 0

        def new() -> Iterator[tuple[Sequence[str], str]]:
            nonlocal renewed, encoded
            for keys, of, text, segment, position in texts:
                renewed += len(keys)
                if (text is None and segment is None) or (text is not None and digest(text).hex() != of):
                    raise BuildError(SOURCE_CHANGED)
                if segment is not None:
                    known[segment].append((position or 0, keys, of, text))
                elif text is not None:
                    encoded += 1
                    yield keys, text

        with self._jobs.ending_on_error(job):
            job.raise_if_stopped()
            counts = add_texts(change.buffer, new(), job, job.advance) if change.buffer else _none(new())
            for segment, mine in known.items():
                positions, keys_of, digests, words = zip(*mine, strict=True)
                with job.writing:
                    job.raise_if_stopped()
                    counts += change.copy(segment, positions, keys_of, digests, words)
            with job.lock:
                change.counts += counts
                change.renewed += renewed
                change.encoded += encoded

    def renew_passages(self, token: str, texts: Iterable[Renewed]) -> None:
        """Take texts that the table lacks, cut into passages, some of which it has.

        The encoder embeds the others.
        """
        job = self._jobs.find(token, _Change)
        change = job.work
        with self._jobs.ending_on_error(job):
            job.raise_if_stopped()
            counts, whole = Counts(), list[CutText]()
            renewed = 0
            for each in texts:
                text, wanted = change.cut(each)
                renewed += len(each.keys)
                if not wanted:
                    whole.append(text)
                    if sum(map(len, whole)) >= ROWS:
                        counts += write_whole(whole, job)
                        whole = []
                elif isinstance(change.buffer, PassageBuffer):
                    counts += change.buffer.add(parts_of(text, wanted), job, job.advance)
                else:
                    raise BuildError(SOURCE_CHANGED)
            counts += write_whole(whole, job)
            with job.lock:
                change.counts += counts
                change.renewed += renewed

    def renew_cut(
        self,
        token: str,
        texts: Iterable[tuple[Sequence[str], str]],
        find: Callable[[list[str]], Mapping[str, tuple[int, int]]],
    ) -> None:
        """Cut texts that the table lacks into passages, and take them; they come with the keys of their rows.

        `find` says where the table has vectors of passages, by the digests of these: the segment, and the position.
        """
        job = self._jobs.find(token, _Change)
        rows = list(texts)
        if not rows:
            return
        with self._jobs.ending_on_error(job):
            buffer = job.work.buffer
            if not isinstance(buffer, PassageBuffer):
                raise BuildError(SOURCE_CHANGED)
            cut_texts = [buffer.cut(keys, packed) for keys, packed in rows]
            digests = [[digest(text.embedded(passage)).hex() for passage in range(len(text))] for text in cut_texts]
            places = find([each for of_text in digests for each in of_text])
        nowhere = (None, None)
        self.renew_passages(
            token,
            (
                Renewed(
                    keys,
                    text.row_digest.hex(),
                    packed,
                    text.title,
                    text.cuts.starts.tolist(),
                    text.cuts.ends.tolist(),
                    [places.get(each, nowhere)[0] for each in of_text],
                    [places.get(each, nowhere)[1] for each in of_text],
                )
                for (keys, packed), text, of_text in zip(rows, cut_texts, digests, strict=True)
            ),
        )

    def add_words(self, token: str, rows: Iterable[tuple[int, int, str]]) -> None:
        """Take the texts of rows whose words are indexed again, by their segments' numbers and positions there."""
        job = self._jobs.find(token, Change)
        with self._jobs.ending_on_error(job):
            for segment, position, text in rows:
                with job.writing:
                    job.raise_if_stopped()
                    job.work.add_words(segment, position, text)

    def finish(self, token: str) -> Refreshed:
        """Embed the rest, and commit the new state."""
        job, finished = self._finish(token)
        change, found = job.work, job.work.found
        if found.new_source_name:
            self._tables.catalog.rename_source(found.build, found.new_source_name)
        refreshed = Refreshed(
            embedding_table=finished.table,
            added=found.added,
            changed=found.changed,
            deleted=found.deleted,
            unchanged=change.unchanged,
            failed=change.counts.failed,
            encoded=change.texts_encoded if change.definition.has_vectors else 0,
            seconds=round(time.monotonic() - found.began, 3),
            advice=advice(self._tables, finished, found.source),
            requests=change.usage.requests if change.usage else None,
            tokens=change.usage.tokens if change.usage else None,
        )
        log.info(
            "refreshed %s in %.1f s: %d added, %d changed, %d deleted, %d unchanged; %d texts encoded%s",
            refreshed.embedding_table,
            refreshed.seconds,
            refreshed.added,
            refreshed.changed,
            refreshed.deleted,
            refreshed.unchanged,
            refreshed.encoded,
            asked(refreshed.requests, refreshed.tokens),
            extra=dataclasses.asdict(refreshed),
        )
        return refreshed

    def finish_build(self, token: str) -> Generated:
        """The same for a build that was interrupted, told as a build."""
        job, finished = self._finish(token)
        generated = report(finished, job.work.found.began, job.work.entry.location, job.work.usage)
        log_built(generated)
        return generated

    def _finish(self, token: str) -> tuple[Job[_Change], Manifest]:
        job = self._jobs.find(token, _Change)
        change, found = job.work, job.work.found
        with self._jobs.ending_on_error(job):
            if (change.texts_forgotten, change.renewed) != (found.changed + found.deleted, found.added + found.changed):
                raise BuildError(SOURCE_CHANGED)
            if change.buffer:
                change.counts += change.buffer.flush(job, job.advance)
            job.progress.done()
            skipped = found.census.rows - change.unchanged - found.added - found.changed
            counts = Counts(0, skipped, change.counts.failed, change.counts.truncated)
            with indexing(job, change.rows_to_index) as advance:
                finished = change.finish(counts, advance)
        self._jobs.done(job)
        self._tables.pins.release(found.snapshot_token)
        return job, finished


class _Change(Change):
    """A change of a table, and what it is made of so far."""

    def __init__(
        self, tables: EmbeddingTables, entry: Entry, snapshot: Snapshot, found: Comparison, encoder: Encoder | None
    ) -> None:
        super().__init__(tables, entry, snapshot.manifest, "refreshing", spare=snapshot.spare, free=snapshot.free)
        self.found = found
        self.unchanged = self.texts_before - found.changed - found.deleted
        self.renewed = self.encoded = 0
        self.counts = Counts()
        without_words = set(found.without_words)
        self.index_words([segment for segment in self.base.segments if segment.number in without_words])
        self.buffer = buffer_of(encoder, entry.definition) if encoder else None

    @property
    def texts_encoded(self) -> int:
        """How many texts, or passages, the encoder was given."""
        return self.buffer.encoded if isinstance(self.buffer, PassageBuffer) else self.encoded

    @property
    def usage(self) -> Usage | None:
        """What was asked of a provider."""
        return self.buffer.usage if self.buffer else None

    def release(self) -> None:
        """See `Change.release`."""
        super().release()
        self._tables.pins.release(self.found.snapshot_token)

    def abandon(self, reason: str, *, keep: bool) -> None:
        """See `Change.abandon`; the files of a table that was dropped meanwhile are not read any more."""
        super().abandon(reason, keep=keep)
        release_snapshot(self._tables, self.found.snapshot_token, self.entry.build)

    def copy(
        self,
        segment: int,
        positions: Sequence[int],
        keys: Sequence[Sequence[str]],
        of: Sequence[str],
        texts: Sequence[str | None],
    ) -> Counts:
        """Give rows with these keys the vectors at these positions of a segment, whose texts have these digests."""
        known = [text for text in texts if text is not None]
        words = known if len(known) == len(texts) else None
        written = write_repeated(self, keys, self.vectors(segment, positions), list(map(bytes.fromhex, of)), words)
        return Counts(rows=written)

    def cut(self, given: Renewed) -> tuple[CutText, Sequence[int]]:
        """A text with the vectors that the table has of its passages, and the passages whose vectors it lacks."""
        _, text = unpacked(given.text, has_title=bool(self.definition.title_columns))
        cuts = Cuts(np.array(given.starts, np.int64), np.array(given.ends, np.int64))
        cut_text = CutText(given.keys, given.text, given.title, text, cuts, self.definition.dimensions)
        if cut_text.row_digest.hex() != given.digest:
            raise BuildError(SOURCE_CHANGED)
        known: defaultdict[int, list[int]] = defaultdict(list)
        for passage, segment in enumerate(given.segments):
            if segment is not None:
                known[segment].append(passage)
        for segment, passages in known.items():
            vectors = self.vectors(segment, [given.positions[passage] or 0 for passage in passages])
            cut_text.take(passages, vectors, [digest(cut_text.embedded(passage)) for passage in passages])
        return cut_text, [passage for passage, segment in enumerate(given.segments) if segment is None]


def _none(texts: Iterable[object]) -> Counts:
    """What becomes of texts where none is to be embedded. Raises BuildError where there is one."""
    for _ in texts:
        raise BuildError(SOURCE_CHANGED)
    return Counts()


def choose_refreshable(
    tables: EmbeddingTables,
    encoders: Encoders,
    source: str,
    model: str | None,
    table: str | None,
    *,
    column: str | None = None,
    called: str | None = None,
) -> Entry:
    """The embedding table that a refresh means: as a search does, or else a build that was interrupted.

    Raises:
        InputError: there are several embeddings, and it is not said which is meant.
        NotFoundError: there is neither.
        StorageError: it cannot be known now whether something is left of a build.
    """
    try:
        return find_table(tables, encoders, source, model, table, column=column, called=called)
    except NotFoundError:
        failed = of_model(tables.catalog.entries("failed", source=source), encoders, model)
        if column is not None:
            failed = of_column(failed, column)
        elif table is None:
            check_is_one(failed, called or source)
        for entry in failed:
            is_called = table is None or layout.is_called(entry.name, table)
            if is_called and is_kept(tables, entry):
                return entry
        raise


def _entry(tables: EmbeddingTables, name: str, build: str) -> Entry:
    entries = tables.catalog.entries("building", "failed", "ready", name=name)
    entry = next((entry for entry in entries if entry.build == build), None) or tables.ready(name)
    if entry.status == "building":
        raise StateError(f"'{name}' is being built by another connection; wait until that is done")
    if entry.build != build:
        raise changed_since(name)
    return entry


def find_resumable(tables: EmbeddingTables, encoders: Encoders, request: Request) -> Entry | None:
    """The newest build that was interrupted, of which something is left, and that may be what a request would make.

    None where a newer one of these is ready.
    """
    entries = tables.catalog.entries("failed", "ready", source=request.source)
    for entry in matching_entries(entries, encoders, request):
        if entry.status == "ready":
            break
        if is_kept(tables, entry):
            return entry
    return None


def is_kept(tables: EmbeddingTables, entry: Entry) -> bool:
    """Whether something is left of a build that failed, and can go on.

    Raises StorageError where its files cannot be read now.
    """
    try:
        return bool(entry.definition.columns) and bool(present(tables, entry).manifest.segments)
    except DamagedError:
        return False
