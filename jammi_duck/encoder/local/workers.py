"""The pool of threads for all forward passes of the process, one thread for each core.

A pass stays on one core, so cores never wait for each other within a layer. As many passes run at once as there are
cores, whatever callers they belong to. Only if a caller has a single pass, and no other pass is running, it is spread
over all cores. With torch, one thread runs all spread passes, because each thread that spreads its work has its own
team of threads there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from jammi_duck.cpus import cpus
from jammi_duck.lifetime import at_work
from jammi_duck.threads import Task, Threads, beside

T = TypeVar("T")


class Workers:
    """A pool of threads for forward passes."""

    def __init__(self, threads: int) -> None:
        """Start a thread for each of `threads` cores, and one for spread passes; they end with the process."""
        self.threads = threads
        self.start()

    def start(self) -> None:
        """Start the threads again: a forked process has no threads of its parent."""
        # The threads that compute now. Each notes only itself, so Ctrl-C leaves no note but the main thread's.
        self._computing: dict[int, None] = {}
        self._each_on_a_core = Threads(self.threads, "jammi-encoder", lambda: _compute_on(1))
        self._on_all_cores = Threads(1, "jammi-encoder-spread", lambda: _compute_on(self.threads))

    def submit(
        self,
        work: Callable[[], T],
        *,
        urgent: bool = False,
        spread: bool = False,
        here: bool = False,
        landed: SimpleQueue[Task[T]] | None = None,
    ) -> Task[T]:
        """Run `work` as soon as a thread is free; urgent work goes first. When it is done, `landed` gets the task.

        If nothing else is running, it may use all cores with `spread`, and with `here` runs at once on the calling
        thread: to wake another one takes as long as a short pass.
        """
        task = Task(lambda: self._computed(work), landed)
        is_alone = (here or spread) and self.is_idle
        if here and is_alone:
            before = cores_here()
            try:
                _here.cores = self.threads if spread else 1
                task.run()
            finally:
                _here.cores = before
        elif spread and is_alone:
            self._on_all_cores.start(task)
        else:
            self._each_on_a_core.start(task, urgent=urgent)
        return task

    def load(self, work: Callable[[], T]) -> Task[T]:
        """Do some work that takes seconds, on all cores, on a thread of its own: passes do not wait for it."""

        def counted() -> T:
            _here.cores = self.threads
            with at_work():
                return work()

        return beside(counted)

    @property
    def is_idle(self) -> bool:
        """Whether no other thread computes, and no pass waits."""
        waiting = self._each_on_a_core.waiting or self._on_all_cores.waiting
        return not waiting and not self._computing.keys() - {threading.get_ident()}

    def _computed(self, work: Callable[[], T]) -> T:
        me = threading.get_ident()
        self._computing[me] = None
        try:
            with at_work(), _passes:
                return work()
        finally:
            self._computing.pop(me, None)


def cores_here() -> int | None:
    """On how many cores the calling thread may compute; None if it is no thread of a pool."""
    return getattr(_here, "cores", None)


def _compute_on(cores: int) -> None:
    _here.cores = cores


class _Passes:
    """Knows the running passes. A fork waits for them, because the child would inherit the locks that they hold in C.

    Each thread notes only itself. Ctrl-C can leave a note of the main thread, until its next pass.
    """

    def __init__(self) -> None:
        self._running: dict[int, None] = {}
        # Until when each thread that forks wants no pass to begin. Ctrl-C can keep it from taking that back.
        self._forking: dict[int, float] = {}

    def __enter__(self) -> None:
        me = threading.get_ident()
        self._running[me] = None
        while any(until > time.monotonic() for until in list(self._forking.values())):
            self._running.pop(me, None)
            time.sleep(_LOOK_SECONDS)
            self._running[me] = None

    def __exit__(self, *_: object) -> None:
        self._running.pop(threading.get_ident(), None)

    def before_fork(self) -> None:
        """Wait until no pass runs but one of this thread, for some seconds; no new pass begins meanwhile."""
        me, until = threading.get_ident(), time.monotonic() + _FORK_SECONDS
        self._forking[me] = until
        while self._running.keys() - {me} and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)

    def after_fork(self) -> None:
        """In the parent, let passes begin again."""
        self._forking.pop(threading.get_ident(), None)


_LOOK_SECONDS = 0.001
_FORK_SECONDS = 5.0
_passes = _Passes()
_pools: dict[int, Workers] = {}
_starting = threading.Lock()
_here = threading.local()


def _after_fork() -> None:
    global _passes, _starting
    _passes, _starting = _Passes(), threading.Lock()
    for pool in _pools.values():
        pool.start()


os.register_at_fork(
    before=lambda: _passes.before_fork(), after_in_parent=lambda: _passes.after_fork(), after_in_child=_after_fork
)


def workers(threads: int | None) -> Workers:
    """The process's pool of `threads` threads, by default one for each CPU that it may use; started when first needed.

    Each number of threads has its own pool.
    """
    wanted = threads or cpus()
    with _starting:
        if wanted not in _pools:
            _pools[wanted] = Workers(wanted)
        return _pools[wanted]
