"""The story of a build: rows -> vectors -> files -> ready.

DuckDB pushes a source's rows through three calls, inside the caller's own query: `begin` once, `push` for each chunk,
from several threads, and `finish` once. Between them a build is running; it is known by its token.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from jammi_duck.encoder import Encoder, Encoders, TokenBudget
from jammi_duck.encoder.dimensions import cut, wanted
from jammi_duck.errors import BuildError, InputError
from jammi_duck.logs import log
from jammi_duck.progress import Progress
from jammi_duck.storage.build import Build
from jammi_duck.storage.place import Place
from jammi_duck.storage.recovery import Action, finish_drops, follow, repair, settle
from jammi_duck.types import Caller, Counts, Definition

# Rows that are encoded together: enough to sort by length, few enough for a small and steady memory.
WINDOW_ROWS = 4096
WINDOW_CHARACTERS = 16_000_000

# Types whose text does not lead back to the same value in every session.
_UNFIT_KEYS = ("STRUCT", "MAP", "UNION", "VARIANT", "GEOMETRY")
_UNFIT_ENDINGS = ("]", "WITH TIME ZONE", "TIMESTAMPTZ_NS")


@dataclass(frozen=True)
class Request:
    """What the user asked to generate; `columns` are joined by one space, NULLs left out.

    `dims` is how many dimensions the vectors are cut to. `in_main_thread` says that Ctrl-C is meant for it.
    """

    source: str
    columns: tuple[str, ...]
    key: str
    model: str
    dims: int | None = None
    in_main_thread: bool = False


@dataclass(frozen=True)
class Census:
    """What a first look at the source found: its rows, those with a key, the distinct keys, and the key's type."""

    rows: int
    keyed: int
    distinct: int
    key_type: str


@dataclass(frozen=True)
class Generated:
    """What a build came to; `seconds` is the whole of it, `location` where the files are."""

    embedding_table: str
    source: str
    model: str
    status: str
    row_count: int
    skipped_count: int
    failed_count: int
    truncated_count: int
    dimensions: int
    seconds: float
    location: str


@dataclass
class _Running:
    build: Build
    encoder: Encoder
    budget: TokenBudget
    caller: Caller
    census: Census
    in_main_thread: bool
    progress: Progress
    started: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    interrupted: threading.Event = field(default_factory=threading.Event)
    counts: Counts = field(default_factory=Counts)
    keys: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    characters: int = 0

    def keep_going(self) -> None:
        """Raise BuildError where somebody wants the build to end."""
        if self.stopped.is_set() or self.interrupted.is_set():
            raise BuildError("the build was interrupted")


class Generator:
    """The builds that run in one database of this process."""

    def __init__(self, place: Place, encoders: Encoders, closed: Callable[[], Sequence[str]]) -> None:
        """Build in `place`, with models of `encoders`. `closed` tells each connection once that has closed."""
        self._place = place
        self._encoders = encoders
        self._closed = closed
        self._running: dict[str, _Running] = {}
        # Held while builds are settled, and while one begins: so none is taken for a dead one.
        self._settling = threading.Lock()

    def begin(self, request: Request, census: Census, caller: Caller) -> str:
        """Check everything that can be wrong, and start a build; returns its token.

        Raises:
            InputError: the keys are not unique, not all there, or of a type that cannot be a key; or the model has
                not so many dimensions.
            ModelError: the model cannot be had.
            StorageError: the location cannot be written.
        """
        self.settle(caller)
        _check_keys(request, census)
        encoder = self._encoders.get(request.model)
        definition = _define(request, encoder)
        owner = f"{caller.connection}/{caller.transaction}"
        with self._settling:
            build = Build(self._place, definition, owner)
            progress = Progress("embedding", request.source, census.rows)
            running = _Running(
                build, encoder, encoder.budget(), caller, census, request.in_main_thread, progress, time.monotonic()
            )
            self._running[build.id] = running
        with self._abandoning(running):
            build.open()
        return build.id

    def push(self, token: str, keys: Sequence[str | None], texts: Sequence[str | None]) -> None:
        """Take a chunk of rows, and embed what has gathered when it is enough. Threads may push at once."""
        running = self._known(token)
        with running.lock, self._abandoning(running):
            for key, text in zip(keys, texts, strict=True):
                if key is None or text is None or not text.strip():
                    running.counts += Counts(skipped=1)
                    continue
                running.keys.append(key)
                running.texts.append(text)
                running.characters += len(text)
            if len(running.texts) >= WINDOW_ROWS or running.characters >= WINDOW_CHARACTERS:
                _embed_window(running)

    def finish(self, token: str, pushed: int) -> Generated:
        """Embed the rest, build the index, and make the table ready. `pushed` is how many rows came."""
        running = self._known(token)
        with running.lock, self._abandoning(running):
            if pushed != running.census.rows:
                raise BuildError(
                    f"the source was counted with {running.census.rows} rows, and then gave {pushed}; if it can be "
                    "read only once, or changes while it is read, CREATE TEMP TABLE from it first"
                )
            _embed_window(running)
            running.progress.done()
            with Progress("indexing", running.build.definition.source, running.build.rows) as indexing:

                def advance(rows: int) -> None:
                    running.keep_going()
                    indexing.advance(rows)

                running.build.finish(running.counts, advance)
        del self._running[token]
        generated = _report(running, self._place.store.location)
        _log_built(generated)
        return generated

    def settle(self, caller: Caller | None = None, *, wait: bool = True) -> list[Action]:
        """Settle the builds that nobody runs any more.

        They are those of other processes, of connections that have closed, and of the caller's own earlier queries.
        Without `wait`, nothing is done while another thread is at it.
        """
        if not wait and self._settling.locked():
            return []
        with self._settling:
            closed = self._closed()
            for token, running in list(self._running.items()):
                theirs = running.caller
                earlier = caller and theirs.connection == caller.connection and theirs.transaction != caller.transaction
                if (earlier or theirs.connection in closed) and not running.stopped.is_set():
                    self._let_go(token)
            settled = settle(self._place, frozenset(self._running))
        for action in settled:
            fields = {"embedding_table": action.table, "status": action.status}
            log.warning("settled %s: %s, %s", action.table, action.status, action.action, extra=fields)
        return settled

    def recover(self, caller: Caller) -> list[Action]:
        """Settle builds, finish drops, find tables that the catalog does not know, and repair those that it does."""
        settled = self.settle(caller)
        with self._settling:
            return [*settled, *finish_drops(self._place), *follow(self._place, adopt=True), *repair(self._place)]

    def interrupt(self, *, everywhere: bool = False) -> None:
        """Stop the builds of the main thread soon, or all: there was a Ctrl-C."""
        for running in list(self._running.values()):
            if running.in_main_thread or everywhere:
                running.interrupted.set()

    def _let_go(self, token: str) -> None:
        running = self._running.pop(token, None)
        if running is None:
            return
        running.stopped.set()
        running.progress.close()
        running.build.let_go()
        fields = {"embedding_table": running.build.name, "status": "building"}
        log.warning("the build of %s was interrupted", running.build.name, extra=fields)

    def _known(self, token: str) -> _Running:
        try:
            return self._running[token]
        except KeyError:
            raise BuildError("this build is over: an earlier part of it failed, or was interrupted") from None

    @contextlib.contextmanager
    def _abandoning(self, running: _Running) -> Iterator[None]:
        """What goes wrong inside ends the build: `failed`, no files left. An interrupted one is settled later."""
        if running.stopped.is_set():
            raise BuildError("this build is over: an earlier part of it failed, or was interrupted")
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or running.interrupted.is_set():
                self._let_go(running.build.id)
            else:
                running.stopped.set()
                running.progress.close()
                fields = {"embedding_table": running.build.name, "status": "failed"}
                log.error("the build of %s failed: %s", running.build.name, error, extra=fields)
                try:
                    running.build.abandon(f"{type(error).__name__}: {error}")
                finally:
                    # Not before: a build that nobody runs is settled, and this one is removing its own files.
                    self._running.pop(running.build.id, None)
            raise


def _check_keys(request: Request, census: Census) -> None:
    where = f"the key '{request.key}' of '{request.source}'"
    if census.key_type.startswith(_UNFIT_KEYS) or census.key_type.endswith(_UNFIT_ENDINGS):
        raise InputError(
            f"{where} is a {census.key_type}, whose text depends on the session or is no key; cast it first"
        )
    if census.keyed < census.rows:
        missing = census.rows - census.keyed
        raise InputError(f"{where} is NULL in {missing} of {census.rows} rows; filter them out, or choose another key")
    if census.distinct < census.keyed:
        repeated = census.keyed - census.distinct
        raise InputError(
            f"{where} is not unique: {repeated} of {census.rows} rows repeat another's; choose another key"
        )


def _define(request: Request, encoder: Encoder) -> Definition:
    description = encoder.description
    return Definition(
        source=request.source,
        columns=request.columns,
        key=request.key,
        model=description.name,
        revision=description.revision,
        weights=description.weights,
        pooling=description.pooling,
        prompt=description.prompt("document"),
        precision=description.precision,
        max_tokens=description.max_tokens,
        dimensions=wanted(request.dims, description),
    )


def _embed_window(running: _Running) -> None:
    keys, texts = running.keys, running.texts
    running.keys, running.texts, running.characters = [], [], 0
    told = 0

    def progress(done: int) -> None:
        nonlocal told
        told += done
        running.keep_going()
        running.progress.advance(done)

    encodings = running.encoder.encode_rows(texts, "document", running.budget, progress)
    kept = (~encodings.failed).nonzero()[0]
    digests = [hashlib.md5(texts[i].encode(), usedforsecurity=False).digest() for i in kept]
    vectors = encodings.vectors if len(kept) == len(texts) else encodings.vectors[kept]
    vectors = cut(vectors, running.build.definition.dimensions)
    running.build.write([keys[i] for i in kept], vectors, digests)
    truncated = int(encodings.truncated[kept].sum())
    running.counts += Counts(rows=len(kept), failed=len(texts) - len(kept), truncated=truncated)
    running.progress.advance(len(texts) - told)


def _log_built(generated: Generated) -> None:
    log.info(
        "built %s: %d rows in %.1f s; %d skipped, %d failed, %d truncated",
        generated.embedding_table,
        generated.row_count,
        generated.seconds,
        generated.skipped_count,
        generated.failed_count,
        generated.truncated_count,
        extra=dataclasses.asdict(generated),
    )


def _report(running: _Running, location: str) -> Generated:
    counts, definition = running.counts, running.build.definition
    return Generated(
        embedding_table=running.build.name,
        source=definition.source,
        model=definition.model,
        status="ready",
        row_count=counts.rows,
        skipped_count=counts.skipped,
        failed_count=counts.failed,
        truncated_count=counts.truncated,
        dimensions=definition.dimensions,
        seconds=round(time.monotonic() - running.started, 3),
        location=location,
    )
