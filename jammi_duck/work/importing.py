"""The story of an import: vectors from elsewhere -> checked and normalised -> files -> ready."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoders, Identity
from jammi_duck.encoder.no_vectors import NO_VECTORS
from jammi_duck.encoder.passages import Cutter
from jammi_duck.errors import BuildError, InputError, NoModelError
from jammi_duck.storage.tables.build import Build
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.types import Caller, Counts, Definition
from jammi_duck.work.generate import (
    SOURCE_CHANGED,
    Census,
    Generated,
    Request,
    check_keys,
    define,
    indexing,
    log_built,
    report,
    rule_of,
)
from jammi_duck.work.imported_passages import Given, ImportedPassages, Place
from jammi_duck.work.jobs import Job, Jobs
from jammi_duck.work.progress import Progress

# Types in which equal numbers have the same text.
_SIZES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_ALIKE = {"VARCHAR", *_SIZES, *(f"U{size}" for size in _SIZES)}


@dataclass(frozen=True)
class VectorCensus:
    """What a first look at the vectors found.

    `kind` is their SQL type, `there` how many there are, `least` and `most` the fewest and the most dimensions; `bad`
    vectors have no direction, and the row with the key `bad_key` has one of them. `matched` have a row of the source,
    and `with_text` one that has a text, or of which none is asked. `misplaced` are passages that are not in their text,
    and the row with the key `misplaced_key` has one of them.
    """

    kind: str
    there: int
    least: int | None
    most: int | None
    bad: int
    bad_key: str | None
    matched: int
    with_text: int
    misplaced: int
    misplaced_key: str | None


@dataclass(frozen=True)
class Vectored:
    """A table that has vectors: its name, the column they are in, and what a first look found."""

    name: str
    column: str
    census: Census
    found: VectorCensus


class Importer:
    """The imports that run in one database of this process."""

    def __init__(self, tables: EmbeddingTables, encoders: Encoders, jobs: Jobs) -> None:
        """Into `tables`; `encoders` say what the model is, where they know it."""
        self._tables = tables
        self._encoders = encoders
        self._jobs = jobs

    def begin(self, request: Request, source: Census, vectors: Vectored, caller: Caller) -> str:
        """Check everything that can be wrong, and start a build; returns its token.

        Raises:
            InputError: the keys of either table are not unique or not all there, or the vectors are not all there, not
                of one length, of a length that the model does not give, or without a direction.
            ModelError: the model is here, and cannot be used.
            StorageError: the location cannot be written.
        """
        self._jobs.settle(caller)
        check_keys(request.source, request.key, source)
        found, dimensions = vectors.found, _dimensions(request, source, vectors)
        definition = self._define(request, dimensions)
        owner = f"{caller.session}/{caller.transaction}"

        def start() -> Job[_Import]:
            progress = Progress("importing", definition.label, found.with_text)
            build = _Import(self._tables, definition, owner, source, found, self._cutter(definition))
            return Job(build, "import", caller, progress)

        job = self._jobs.start(caller, start)
        with self._jobs.ending_on_error(job):
            job.work.open()
        return job.work.id

    def push(
        self,
        token: str,
        keys: Sequence[str],
        numbers: NDArray[np.float64],
        lengths: NDArray[np.int32],
        digests: Sequence[str],
        texts: Sequence[str | None],
        places: Sequence[Place],
    ) -> None:
        """Take n rows: the numbers of their vectors one after another, how many each has, and digests in hexadecimal.

        `texts` are there where they are known. Where the rows are passages, `places` say which, and the digests are of
        the whole texts.

        Raises BuildError for a vector that was not there when they were checked.
        """
        job = self._jobs.find(token, _Import)
        with self._jobs.ending_on_error(job):
            job.raise_if_stopped()
            dimensions = job.work.definition.dimensions
            if (lengths != dimensions).any():
                raise BuildError(SOURCE_CHANGED)
            vectors = numbers.reshape(len(keys), dimensions)
            norms = np.linalg.norm(vectors, axis=1)
            if not np.isfinite(norms).all() or not norms.all():
                raise BuildError(SOURCE_CHANGED)
            unit = (vectors / norms[:, None]).astype(np.float32)
            hashes = list(map(bytes.fromhex, digests))
            if job.work.passages is None:
                # Where words are indexed, the texts are known.
                job.write(keys, unit, hashes, [text or "" for text in texts])
            else:
                given = map(Given, unit, texts, hashes, places)
                job.work.passages.add(zip(keys, given, strict=True), job)
            job.advance(len(keys))

    def finish(self, token: str, pushed: int) -> Generated:
        """Build the index, and make the table ready; rows of the source that have no vector count as skipped."""
        job = self._jobs.find(token, _Import)
        build = job.work
        with self._jobs.ending_on_error(job):
            is_whole = build.passages is None or build.passages.is_empty
            if not is_whole or not build.rows == pushed == build.found.with_text:
                raise BuildError(SOURCE_CHANGED)
            job.progress.done()
            with indexing(job, pushed) as advance:
                finished = build.finish(build.counts(pushed), advance)
            build.commit(finished)
        self._jobs.done(job)
        generated = report(finished, build.began, self._tables.store.location)
        log_built(generated)
        return generated

    def _cutter(self, definition: Definition) -> Cutter | None:
        """What says how much of a title is embedded; None where there is none, or the model is not at hand."""
        if not definition.title_columns or definition.passages is None:
            return None
        try:
            return Cutter(self._encoders.get(definition.model), definition.passages)
        except NoModelError:
            return None

    def _define(self, request: Request, dimensions: int) -> Definition:
        """As far as the model is at hand; where it is not, its name is all that is known."""
        try:
            encoder = self._encoders.get(request.model)
        except NoModelError as error:
            log.warning("importing vectors of a model that is not here, which searches by text will need: %s", error)
            return define(request, Identity(request.model), dimensions, rule_of(request, NO_VECTORS))
        if dimensions > encoder.dimensions:
            raise InputError(f"the vectors have {dimensions} dimensions; '{request.model}' gives {encoder.dimensions}")
        return define(request, encoder.identity, dimensions, rule_of(request, encoder))


def _dimensions(request: Request, source: Census, vectors: Vectored) -> int:
    """How many dimensions the vectors have. Raises InputError where anything is wrong with them."""
    name, census, found = vectors.name, vectors.census, vectors.found
    if request.passages:
        # Several vectors are of one text.
        census = dataclasses.replace(census, distinct_keys=census.non_null_keys)
    is_repeated = census.distinct_keys < census.non_null_keys == census.rows
    passages = ", or write passages := true if they are of its passages" if is_repeated else ""
    check_keys(name, request.key, census, f"choose another key{passages}")
    if not census.rows:
        raise InputError(f"'{name}' has no vectors")
    if not found.kind.endswith("]"):
        raise InputError(
            f"the column '{vectors.column}' of '{name}' is a {found.kind}; it must be a list or an array of numbers"
        )
    if found.there < census.rows:
        missing = census.rows - found.there
        raise InputError(
            f"the vector is NULL, or holds no numbers, in {missing} of {census.rows} rows of '{name}'; filter them out"
        )
    if found.least != found.most:
        raise InputError(f"the vectors of '{name}' have from {found.least} to {found.most} dimensions")
    if found.bad or not found.most:
        raise InputError(
            f"{found.bad} of {census.rows} vectors of '{name}', such as that of '{found.bad_key}', cannot be scaled to "
            "length 1: they are zero, or contain a NULL, a NaN, an infinity, or numbers too large or small to be "
            "squared; filter them out"
        )
    if not source.rows:
        raise InputError(f"'{request.source}' has no rows")
    if not found.matched:
        hint = f"is '{request.key}' its key?"
        if not {census.key_type, source.key_type} <= _ALIKE and census.key_type != source.key_type:
            hint = f"it is {census.key_type} in '{name}' and {source.key_type} in '{request.source}': cast one of them"
        raise InputError(f"none of the {census.rows:,} keys of '{name}' is one of '{request.source}'; {hint}")
    if found.misplaced:
        raise InputError(
            f"{found.misplaced} passages of '{name}', such as one of '{found.misplaced_key}', are not in the text of "
            f"their row: start and end count its characters, from 0, in {', '.join(request.columns)} joined by a "
            "space, without the title"
        )
    if not found.with_text:
        raise InputError(f"no row of '{request.source}' that has a vector has a text in {', '.join(request.columns)}")
    return found.most


class _Import(Build):
    """A build, and what was found before it began."""

    def __init__(
        self,
        tables: EmbeddingTables,
        definition: Definition,
        owner: str,
        source: Census,
        found: VectorCensus,
        cutter: Cutter | None,
    ) -> None:
        super().__init__(tables, definition, owner)
        self.source = source
        self.found = found
        self.passages = None if definition.passages is None else ImportedPassages(cutter)
        self.began = time.monotonic()

    def counts(self, vectors: int) -> Counts:
        """The counts of so many vectors; rows of the source that have none count as skipped."""
        if self.passages is None:
            return Counts(rows=vectors, skipped=self.source.rows - vectors)
        texts = self.passages.texts
        return Counts(rows=texts, skipped=self.source.rows - texts, passages=vectors)
