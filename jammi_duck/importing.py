"""The story of an import: vectors that were made elsewhere -> checked and normalised -> files -> ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jammi_duck.encoder import Encoders
from jammi_duck.errors import BuildError, InputError, ModelError
from jammi_duck.generate import Census, Generated, Request, check_keys, define, indexing, log_built, report
from jammi_duck.progress import Progress
from jammi_duck.running import Runner, Running
from jammi_duck.storage.build import Build
from jammi_duck.storage.place import Place
from jammi_duck.types import Caller, Counts, Definition, Vectors

# In place of a text's digest where the text is not known.
NO_DIGEST = bytes(16)


@dataclass(frozen=True)
class VectorCensus:
    """What a first look at the vectors found: how many there are, and the fewest and the most dimensions."""

    there: int
    least: int | None
    most: int | None


class Importer:
    """The imports that run in one database of this process."""

    def __init__(self, place: Place, encoders: Encoders, runner: Runner) -> None:
        """Into `place`; `encoders` say what the model is, where they know it."""
        self._place = place
        self._encoders = encoders
        self._runner = runner

    def begin(self, request: Request, vectors: str, census: Census, found: VectorCensus, caller: Caller) -> str:
        """Check what can be seen beforehand, and start a build; returns its token. `vectors` is their table's name.

        Raises:
            InputError: the keys are not unique or not all there, or the vectors are not all there, not of one length,
                or not of a length that the model gives.
            StorageError: the location cannot be written.
        """
        self._runner.settle(caller)
        check_keys(vectors, request.key, census)
        if found.there < census.rows:
            missing = census.rows - found.there
            raise InputError(f"the vector is NULL in {missing} of {census.rows} rows of '{vectors}'; filter them out")
        if not census.rows or not found.most:
            raise InputError(f"'{vectors}' has no vectors")
        if found.least != found.most:
            raise InputError(f"the vectors of '{vectors}' have from {found.least} to {found.most} dimensions")
        definition = self._define(replace(request, dims=found.most), found.most)
        owner = f"{caller.connection}/{caller.transaction}"

        def start() -> Running[_Import]:
            progress = Progress("importing", request.source, census.rows)
            build = _Import(self._place, definition, owner)
            return Running(build, "import", caller, request.in_main_thread, progress)

        running = self._runner.start(start)
        with self._runner.abandoning(running):
            running.work.open()
        return running.work.id

    def push(self, token: str, keys: Sequence[str], vectors: Vectors, digests: Sequence[str | None]) -> None:
        """Take rows: vectors as float64 or float32 [n, dimensions], and digests of their texts in hexadecimal.

        A digest is NULL where the source has no such key, and empty where its text is not known. Raises InputError for
        a vector that is zero, or not finite.
        """
        running = self._runner.known(token, _Import)
        with running.lock, self._runner.abandoning(running):
            running.keep_going()
            norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
            bad = ~np.isfinite(norms) | (norms == 0)
            if bad.any():
                key = keys[int(np.flatnonzero(bad)[0])]
                raise InputError(f"the vector of '{key}' is zero, or has a NULL, a NaN or an infinity in it")
            unit = (vectors / norms[:, None]).astype(np.float32)
            running.work.write(keys, unit, [bytes.fromhex(each) if each else NO_DIGEST for each in digests])
            running.work.matched += sum(each is not None for each in digests)
            running.progress.advance(len(keys))

    def finish(self, token: str, pushed: int, source_rows: int) -> Generated:
        """Build the index, and make the table ready; rows of the source that have no vector count as skipped."""
        running = self._runner.known(token, _Import)
        build = running.work
        with running.lock, self._runner.abandoning(running):
            if build.rows != pushed:
                raise BuildError(f"{pushed} rows came, and {build.rows} were written")
            if not build.matched:
                raise InputError(
                    f"none of the {pushed:,} keys is one of '{build.definition.source}'; is "
                    f"'{build.definition.key}' its key?"
                )
            running.progress.done()
            with indexing(running, pushed) as advance:
                finished = build.finish(Counts(rows=pushed, skipped=max(0, source_rows - pushed)), advance)
        self._runner.done(running)
        generated = report(finished, build.began, self._place.store.location)
        log_built(generated)
        return generated

    def _define(self, request: Request, dimensions: int) -> Definition:
        """As far as the model is at hand; where it is not, its name is all that is known."""
        try:
            encoder = self._encoders.get(request.model)
        except ModelError:
            return Definition(
                source=request.source,
                columns=request.columns,
                key=request.key,
                model=request.model,
                revision=None,
                weights="",
                pooling="",
                prompt="",
                precision="float32",
                max_tokens=0,
                dimensions=dimensions,
            )
        if dimensions > encoder.description.dimensions:
            raise InputError(
                f"the vectors have {dimensions} dimensions; '{request.model}' gives {encoder.description.dimensions}"
            )
        return define(request, encoder)


class _Import(Build):
    """A build, and how many of its keys the source has."""

    def __init__(self, place: Place, definition: Definition, owner: str) -> None:
        super().__init__(place, definition, owner)
        self.matched = 0
        self.began = time.monotonic()
