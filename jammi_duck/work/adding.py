"""The story of an addition: rows that a program adds -> vectors for those that bring none -> a table's next state.

Nothing is compared: the keys are new, so an addition costs what its rows cost, however many the table has.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encoders
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut, resolve_dims
from jammi_duck.encoder.no_vectors import NO_VECTORS
from jammi_duck.encoder.recorded import DOCUMENT, recorded_encoder
from jammi_duck.errors import JammiError
from jammi_duck.storage.tables.build import Build
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.compaction import plan_tidying
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.removal import drop
from jammi_duck.storage.tables.snapshot import state_of
from jammi_duck.types import Caller, Counts, Vectors
from jammi_duck.work.compact import advice, compact
from jammi_duck.work.generate import Request, define, indexing
from jammi_duck.work.jobs import Job, Jobs
from jammi_duck.work.progress import Progress
from jammi_duck.work.text_buffer import digest

if TYPE_CHECKING:
    import pyarrow as pa

_NO_MEMORY = "there is not enough memory for it even alone, or the model's numbers for it overflow"


@dataclass
class Made:
    """The vectors of some rows: float32 [n, dimensions], zeros where there is none; `failed` says why, by the place."""

    vectors: Vectors
    has_vector: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    failed: dict[int, str] = field(default_factory=dict)


class Addition:
    """Rows on their way into one embedding table: `make` their vectors, `write` them, and `commit`, or `abandon`."""

    def __init__(
        self,
        tables: EmbeddingTables,
        encoders: Encoders,
        jobs: Jobs,
        target: Entry | Request,
        rows: int,
        *,
        replaces: bool = False,
    ) -> None:
        """Into a table that is ready, or a new one, which begins here. There will be so many `rows`.

        One that `replaces` may `forget` rows of a table that is ready, and write them anew.

        Raises:
            InputError: the model of a new table has not so many dimensions.
            ModelError: the model of a new table cannot be had.
            StorageError: the location cannot be written.
        """
        self._tables, self._encoders, self._jobs = tables, encoders, jobs
        self._entry = target if isinstance(target, Entry) else None
        self._rows = rows
        self._replaces = replaces
        self._counts = Counts()
        self._caller = Caller(uuid.uuid4().hex, 0)
        self._job: Job[Build | Change] | None = None
        self._is_done = False
        if isinstance(target, Request):
            encoder = encoders.get(target.model) if target.model else NO_VECTORS
            self._encoder = encoder.stream()
            self.definition = define(target, encoder.identity, resolve_dims(target.dims, encoder))
            with jobs.ending_on_error(self._begun):
                if isinstance(self._begun.work, Build):
                    self._begun.work.open()
        else:
            self.definition = target.definition

    @property
    def name(self) -> str:
        """The embedding table's name."""
        return self._entry.name if self._entry else self._begun.work.name

    @property
    def build(self) -> str:
        """The id of the table's build."""
        return self._entry.build if self._entry else self._begun.work.id

    def make(self, texts: Sequence[str | None], given: Mapping[int, NDArray[np.float64]]) -> Made:
        """The vectors of rows with these texts: those that are given by the place, and the model's for the others.

        A row has none if its text is blank and none is given, or if that has no direction. Nothing is written.

        Raises:
            ModelError: a text is to be embedded, and the model cannot be had, or is not what it was.
            EncodingError: nothing can be embedded now.
        """
        size = len(texts), self.definition.dimensions
        made = Made(np.zeros(size, np.float32), np.zeros(size[0], np.bool_), np.zeros(size[0], np.bool_))
        for place, vector in given.items():
            length = np.linalg.norm(vector)
            if length > 0 and np.isfinite(length):
                made.vectors[place] = vector / length
                made.has_vector[place] = True
        wanted = [i for i, text in enumerate(texts) if i not in given and text is not None and not is_blank(text)]
        if wanted:
            self._embed(made, wanted, [texts[i] or "" for i in wanted])
        return made

    def _embed(self, made: Made, places: Sequence[int], texts: Sequence[str]) -> None:
        encodings = self._encoder.encode_rows(texts, "document", lambda _: None)
        made.vectors[places] = cut(encodings.vectors, self.definition.dimensions)
        made.has_vector[places] = ~encodings.failed
        made.truncated[places] = encodings.truncated & ~encodings.failed
        made.failed |= {
            places[i]: encodings.reasons.get(i, _NO_MEMORY) for i in np.flatnonzero(encodings.failed).tolist()
        }

    def write(self, keys: Sequence[str], texts: Sequence[str | None], made: Made, kept: NDArray[np.bool_]) -> None:
        """Write those of the rows that are `kept` and have a vector, and count the others that are kept."""
        there: list[int] = np.flatnonzero(kept & made.has_vector).tolist()
        without = [texts[i] for i in np.flatnonzero(kept & ~made.has_vector).tolist()]
        # Whoever compares finds that these have a text, as those that failed, although a vector of zeros was given.
        failed = sum(text is not None and not is_blank(text) for text in without)
        skipped = len(without) - failed
        self._counts += Counts(0, skipped, failed, int(made.truncated[there].sum()))
        if not there:
            return
        job = self._begun
        mine = [texts[i] or "" for i in there]
        with self._jobs.ending_on_error(job):
            job.write([keys[i] for i in there], made.vectors[there], list(map(digest, mine)), mine)
            job.advance(len(there))

    def forget(self, row_ids: pa.StringArray, segment: int, positions: NDArray[np.int64]) -> None:
        """Take rows out of the table, by their segment and their positions there: with this, they may be replaced."""
        job = self._begun
        assert self._replaces
        assert isinstance(job.work, Change)
        with self._jobs.ending_on_error(job):
            job.work.forget(row_ids, [segment] * len(positions), positions.tolist())

    def commit(self, *, were_skipped: bool = False) -> None:
        """Make what was written part of the table, or the new table ready.

        `were_skipped` says that the table knew of these rows, as such that have no text.
        """
        if self._entry and self._job is None and self._counts == Counts():
            return
        job = self._begun
        written = job.work.rows
        counts = self._counts + Counts(rows=written, skipped=-written if were_skipped else 0)
        if self._entry and self._replaces:
            before = self._entry.counts
            counts += Counts(skipped=before.skipped, failed=before.failed)
        with self._jobs.ending_on_error(job):
            job.progress.done()
            with indexing(job, written) as advance:
                finished = job.work.finish(counts, advance)
            if isinstance(job.work, Build):
                job.work.commit(finished)
        self._jobs.done(job)
        self._is_done = True
        log.info("added %d rows to %s", written, finished.table)

    def tidy(self) -> None:
        """Merge small segments, where there are many by now."""
        if self._entry is None:
            return
        now = self._tables.ready(self._entry.name)
        if advice(self._tables, state_of(self._tables, now), now.source):
            compact(self._tables, self._jobs, now, self._caller, plan=plan_tidying, is_ours=True)

    def abandon(self, error: BaseException) -> None:
        """Remove what was written, because of an error. Of a new table nothing is left, even if it is ready."""
        job = self._job
        if job is None:
            return
        if not self._is_done and not job.is_stopped:
            with contextlib.suppress(BaseException), self._jobs.ending_on_error(job):
                raise error
        if self._entry is None:
            with contextlib.suppress(JammiError):
                drop(self._tables, job.work.name, self._jobs.at_work())

    @cached_property
    def _encoder(self) -> Encoder:
        assert self._entry is not None
        return recorded_encoder(self._encoders, self._entry.name, self.definition, DOCUMENT).stream()

    @property
    def _begun(self) -> Job[Build | Change]:
        """The job, which begins with the first row: before, nothing is left if something is wrong."""
        if self._job is None:
            self._job = self._jobs.start(self._caller, self._start)
        return self._job

    def _start(self) -> Job[Build | Change]:
        progress = Progress("adding to", self.definition.label, self._rows)
        if self._entry is None:
            build = Build(self._tables, self.definition, f"{self._caller.session}/0")
            return Job(build, "build", self._caller, progress)
        state = state_of(self._tables, self._entry)
        change = Change(self._tables, self._entry, state, "refreshing", adds=not self._replaces)
        return Job(change, "addition", self._caller, progress)
