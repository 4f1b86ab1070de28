"""Jobs that DuckDB drives through several calls of one query.

It is known by a token, abandoned on an error, and let go when nobody drives it any more; then it is settled.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from jammi_duck.config.logs import log
from jammi_duck.errors import BuildError, DeniedError, InputError, JammiError, NotFoundError, StateError
from jammi_duck.storage.files.parquet import Passages
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.recovery import Action, finish_drops, follow, repair, settle
from jammi_duck.types import Caller, Definition, Vectors
from jammi_duck.work.interrupts import listen
from jammi_duck.work.progress import Progress
from jammi_duck.work.text_buffer import Sink

_MAIN_THREAD_CALLERS = 64
_FAILURES = 64
_READER = (
    "this client only reads: generate, refresh, compact, import, index_words, fill, drop, vacuum and recover need a "
    "server with [server] allow_write = true, and a token with the role admin"
)


class Work(Protocol):
    """What is done to the table of this name, which is an embedding table, or a user's own."""

    id: str

    @property
    def name(self) -> str:
        """The table's name."""
        ...

    def release(self) -> None:
        """Remove what is half written, and leave the rest to be settled."""
        ...

    def abandon(self, reason: str, *, keep: bool) -> None:
        """Remove what was written, but for whole files of vectors where these are to be kept."""
        ...


class StoredWork(Work, Sink, Protocol):
    """What is written, by one thread at a time: a build, or a change of an embedding table."""

    definition: Definition


W = TypeVar("W", bound=Work)
S = TypeVar("S", bound=StoredWork)


class InterruptedJobError(BuildError):
    """Somebody has stopped a job, so whoever runs several must not go on with the next."""


@dataclass
class Job(Generic[W]):
    """Work that is under way; `what` it is called in the log.

    Threads that take part in it hold `writing` while they write, and `lock` while they count: neither while they embed.
    What ends the work ends all that one query does `together`.
    """

    work: W
    what: str
    caller: Caller
    progress: Progress
    lock: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)
    is_stopped: bool = False
    is_interrupted: bool = False
    failure: BaseException | None = None
    together: list[Job[W]] = field(default_factory=list, repr=False, compare=False)

    @property
    def interruption(self) -> InterruptedJobError:
        """What the job raises once it is interrupted."""
        return InterruptedJobError(f"the {self.what} was interrupted")

    def raise_if_stopped(self) -> None:
        """Raise InterruptedJobError where somebody wants the work to end, or the error that another thread had."""
        if self.failure is not None:
            raise self.failure
        if self.is_stopped or self.is_interrupted:
            raise self.interruption

    def advance(self, done: float) -> None:
        """Note that so many more rows are done, if the work is to go on."""
        self.raise_if_stopped()
        with self.lock:
            self.progress.advance(done)

    def write(
        self: Job[S],
        row_ids: Sequence[str],
        vectors: Vectors,
        digests: Sequence[bytes],
        texts: Sequence[str] | None,
        passages: Passages | None = None,
    ) -> None:
        """See `Sink`: rows of the work, if it is to go on."""
        with self.writing:
            self.raise_if_stopped()
            self.work.write(row_ids, vectors, digests, texts, passages)

    def stop(self, failure: BaseException | None = None) -> bool:
        """Let no thread go on, because of this failure if there is one; False where the work was stopped before."""
        with self.lock:
            if self.is_stopped:
                return False
            self.failure = failure
            self.is_stopped = True
        self.progress.close()
        return True


class Jobs:
    """The work that runs in one database of this process."""

    def __init__(self, tables: EmbeddingTables, ended: Callable[[], Sequence[str]]) -> None:
        """For the tables in `tables`. `ended` returns the sessions that have ended since it was last called."""
        self._tables = tables
        self._ended = ended
        # Whose queries the main thread has planned lately: one of them may be running there.
        self._in_main_thread: deque[Caller] = deque(maxlen=_MAIN_THREAD_CALLERS)
        # Of these, those that Ctrl-C was pressed for: a query may not have begun its work by then.
        self._interrupted: set[Caller] = set()
        self._running: dict[str, Job[Work]] = {}
        self._failures: OrderedDict[str, JammiError] = OrderedDict()
        # The sessions that may change embedding tables; None: every session may.
        self.writers: set[str] | None = None
        # Held while work is settled, and while some begins: so none is taken for that of the dead.
        self._settling = threading.Lock()

    def refuse_readers(self, caller: Caller) -> None:
        """Raise DeniedError where the caller's session may not change embedding tables.

        A session's id is known to nobody else: so nobody can call a function of ours in another's name.
        """
        if self.writers is not None and caller.session not in self.writers:
            raise DeniedError(_READER)

    def start(
        self,
        caller: Caller,
        make: Callable[[], Job[W]],
        together: list[Job[W]] | None = None,
        *,
        is_ours: bool = False,
    ) -> Job[W]:
        """Enter work that `make` makes for a caller, and add it to what is done `together`.

        Raises DeniedError if the caller only reads, unless the work `is_ours`: nobody's wish, but that of the database.
        """
        if not is_ours:
            self.refuse_readers(caller)
        with self._settling:
            job = make()
            job.together = [] if together is None else together
            job.together.append(job)
            self._running[job.work.id] = job  # type: ignore[assignment]
        if caller in self._interrupted:
            job.is_interrupted = True
        return job

    def find(self, token: str, kind: type[W]) -> Job[W]:
        """The work of this kind that a token stands for. Raises what has ended it, or BuildError, where it is over."""
        job = self._running.get(token)
        if job is None and token in self._failures:
            # DuckDB tells the error that it gets first, which may be this thread's.
            raise copy.copy(self._failures[token])
        if job is None or not isinstance(job.work, kind):
            raise BuildError("this build is over: an earlier part of it failed, or was interrupted")
        return job  # type: ignore[return-value]

    def done(self, job: Job[W]) -> None:
        """Note that work has come to its end."""
        job.together.remove(job)
        del self._running[job.work.id]

    @contextlib.contextmanager
    def ending_on_error(self, job: Job[W]) -> Iterator[None]:
        """What goes wrong inside ends the work, and all that is done together with it.

        An interrupted build is settled later. Vectors in whole files are kept, unless the input was wrong, or the table
        is gone.
        """
        if job.is_stopped:
            job.raise_if_stopped()
        try:
            yield
        except BaseException as error:
            is_interrupted = isinstance(error, KeyboardInterrupt) or job.is_interrupted
            stopped = [each for each in tuple(job.together) if each.stop(None if is_interrupted else error)]
            with contextlib.ExitStack() as ending:
                # Each, even if another cannot be ended.
                for each in reversed(stopped):
                    ending.callback(self._fail, each, None if is_interrupted else error)
            raise

    def _fail(self, job: Job[W], error: BaseException | None) -> None:
        """End work that was stopped because of an error, or of an interrupt."""
        if error is None:
            # A thread that asks for the job later was interrupted, too.
            self._note(job.work.id, job.interruption)
            self._release(job)
            return
        fields = {"embedding_table": job.work.name, "status": "failed"}
        # Somebody else was first: what follows from that is for the caller to say.
        level = logging.DEBUG if isinstance(error, StateError) else logging.ERROR
        log.log(level, "the %s of %s failed: %s", job.what, job.work.name, error, extra=fields)
        try:
            keep = not isinstance(error, (InputError, NotFoundError))
            with job.writing:
                job.work.abandon(f"{type(error).__name__}: {error}", keep=keep)
        finally:
            self._note(job.work.id, error)
            # Not before: work that nobody runs is settled, and this one is removing its own files.
            self._running.pop(job.work.id, None)

    def _note(self, token: str, error: BaseException) -> None:
        """Keep what work has failed with, as others of its threads may ask for it; a copy has no traceback."""
        if isinstance(error, JammiError):
            self._failures[token] = copy.copy(error)
            while len(self._failures) > _FAILURES:
                self._failures.popitem(last=False)

    def at_work(self) -> dict[str, str]:
        """The embedding tables that are being written, by the ids of the work."""
        return {token: job.work.name for token, job in list(self._running.items())}

    def settle(self, caller: Caller | None = None, *, wait: bool = True) -> list[Action]:
        """Settle what nobody runs any more.

        That is work of other processes, of sessions that have ended, and of the caller's own earlier queries.
        Without `wait`, nothing is done while another thread is at it.
        """
        if caller:
            self._tables.pins.release_earlier(caller)
        if not self._settling.acquire(blocking=wait):
            return []
        try:
            ended = self._ended()
            for job in list(self._running.values()):
                theirs = job.caller
                earlier = caller and theirs.session == caller.session and theirs.transaction != caller.transaction
                if (earlier or theirs.session in ended) and job.stop():
                    self._release(job)
            settled = settle(self._tables, frozenset(self._running))
        finally:
            self._settling.release()
        for action in settled:
            fields = {"embedding_table": action.embedding_table, "status": action.status}
            log.warning("settled %s: %s, %s", action.embedding_table, action.status, action.action, extra=fields)
        return settled

    def recover(self, caller: Caller) -> list[Action]:
        """Settle work, finish drops, find tables that the catalog does not know, and repair those that it does."""
        settled = self.settle(caller)
        with self._settling:
            done = [*settled, *finish_drops(self._tables), *follow(self._tables, adopt=True), *repair(self._tables)]
            follow_others(self._tables, at_once=True)
        gone = self._tables.catalog.entries("gone")
        return [*done, *(Action(entry.name, "gone", str(entry.error)) for entry in gone)]

    def follow(self) -> None:
        """Find what other processes have made, and tables that moved; any table at all, if the catalog has none."""
        with self._settling:
            follow(self._tables, adopt=not self._tables.catalog.names())
            follow_others(self._tables, at_once=True)

    def interrupt(self, session: str | None = None) -> None:
        """Stop the work of a session soon; of all sessions where none is named."""
        for job in list(self._running.values()):
            if session in (None, job.caller.session):
                job.is_interrupted = True

    def planned(self, caller: Caller) -> None:
        """Note that a query of the caller will begin work: if the main thread plans it, Ctrl-C is meant for that one.

        Raises DeniedError where the caller only reads.
        """
        self.refuse_readers(caller)
        self._interrupted.discard(caller)
        if listen(self):
            self._in_main_thread.append(caller)

    def ctrl_c(self) -> None:
        """See `jammi_duck.work.interrupts.Interruptible`."""
        self._interrupted = set(self._in_main_thread)
        for job in list(self._running.values()):
            if job.caller in self._in_main_thread:
                job.is_interrupted = True

    def _release(self, job: Job[Any]) -> None:
        """Let work that was stopped go, to be settled."""
        try:
            with job.writing:
                job.work.release()
        finally:
            # Not before: work that nobody runs is settled, and this one is removing its own files.
            self._running.pop(job.work.id, None)
        fields = {"embedding_table": job.work.name, "status": "building"}
        log.warning("the %s of %s was interrupted", job.what, job.work.name, extra=fields)
