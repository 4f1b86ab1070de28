"""The pool of threads for all forward passes of the process, one thread for each core.

A pass stays on one core, so cores never wait for each other within a layer. As many passes run at once as there are
cores, whatever callers they belong to. Only if a caller has a single pass, and no other pass is running, it is spread
over all cores. With torch, one thread runs all spread passes, because each thread that spreads its work has its own
team of threads there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from jammi_duck.lifetime import at_work

T = TypeVar("T")
_Job = tuple[bool, int, Future[Any], Callable[[], Any]]


class Workers:
    """A pool of threads for forward passes."""

    def __init__(self, threads: int) -> None:
        """Start a thread for each of `threads` cores, and one for spread passes; they end with the process."""
        self.threads = threads
        self._numbers = itertools.count()
        self.start()

    def start(self) -> None:
        """Start the threads again: a forked process has no threads of its parent."""
        self._unfinished = 0
        self._counting = threading.Lock()
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._spread_jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        threads = [(self._jobs, 1, f"jammi-encoder-{number}") for number in range(self.threads)]
        for jobs, cores, name in [*threads, (self._spread_jobs, self.threads, "jammi-encoder-spread")]:
            threading.Thread(target=self._work, args=(jobs, cores), name=name, daemon=True).start()

    def submit(
        self, work: Callable[[], T], *, urgent: bool = False, spread: bool = False, here: bool = False
    ) -> Future[T]:
        """Run `work` as soon as a thread is free; urgent work goes first.

        If nothing else is running, it may use all cores with `spread`, and with `here` runs at once on the calling
        thread: to wake another one takes as long as a short pass.
        """
        future: Future[T] = Future()
        with self._counting:
            is_alone = not self._unfinished
            self._unfinished += 1
            if not (here and is_alone):
                jobs = self._spread_jobs if spread and is_alone else self._jobs
                jobs.put((not urgent, next(self._numbers), future, work))
                return future
        before, _here.cores = cores_here(), self.threads if spread else 1
        try:
            self._run(future, work)
        finally:
            _here.cores = before
        return future

    def _work(self, jobs: queue.PriorityQueue[_Job], cores: int) -> None:
        _here.cores = cores
        while True:
            _, _, future, work = jobs.get()
            self._run(future, work)
            del future, work

    def _run(self, future: Future[T], work: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            self._finish()
            return
        try:
            with at_work(), _passes.one():
                result = work()
        except BaseException as error:
            self._finish()
            future.set_exception(error)
        else:
            self._finish()
            future.set_result(result)

    def _finish(self) -> None:
        with self._counting:
            self._unfinished -= 1


def cores_here() -> int | None:
    """On how many cores the calling thread may compute; None if it is no thread of a pool."""
    return getattr(_here, "cores", None)


class _Passes:
    """Counts running passes. A fork waits for them, because the child would inherit the locks that they hold in C++."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_forking = False
        self._mine = threading.local()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A context in which one pass runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_forking)
            self._running += 1
            self._mine.runs = True
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._mine.runs = False
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no pass runs, for some seconds; no new pass begins meanwhile."""
        with self._changed:
            self._is_forking = True
            mine = int(getattr(self._mine, "runs", False))
            self._changed.wait_for(lambda: self._running <= mine, _FORK_SECONDS)

    def after_fork(self) -> None:
        """In the parent, let passes begin again."""
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()


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


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
