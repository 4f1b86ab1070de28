"""The threads on which all forward passes of the process run: one for each core, none in another's way.

A pass stays on one core, so cores never wait for each other within a layer, and as many passes run at once as there are
cores, whoever asked for them. Only a large one that has the pool to itself takes all cores: for a small one, waiting
for the others would cost more than it gains, and very much more where another program has a core.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_Job = tuple[bool, int, bool, Future[Any], Callable[[], Any]]


class Workers:
    """A pool of threads for forward passes."""

    def __init__(self, threads: int) -> None:
        """Start `threads` threads; they end with the process."""
        self.threads = threads
        self._numbers = itertools.count()
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._unfinished = 0
        self._counting = threading.Lock()
        for number in range(self.threads):
            threading.Thread(target=self._work, name=f"jammi-encoder-{number}", daemon=True).start()

    def submit(self, work: Callable[[], T], *, urgent: bool = False, large: bool = False) -> Future[T]:
        """Run `work` as soon as a thread is free; what is urgent goes before what is not."""
        if self._process != os.getpid():
            # A forked process has none of its parent's threads.
            self._start()
        future: Future[T] = Future()
        with self._counting:
            self._unfinished += 1
        self._jobs.put((not urgent, next(self._numbers), large, future, work))
        return future

    def _work(self) -> None:
        threads = 0
        while True:
            _, _, large, future, work = self._jobs.get()
            with self._counting:
                wanted = self.threads if large and self._unfinished == 1 else 1
            if wanted != threads:
                _use_threads(wanted)
                threads = wanted
            error: BaseException | None = None
            is_wanted = future.set_running_or_notify_cancel()
            try:
                result = work() if is_wanted else None
            except BaseException as raised:
                error = raised
            with self._counting:
                self._unfinished -= 1
            if is_wanted and error is None:
                future.set_result(result)
            elif is_wanted:
                future.set_exception(error)
            del future, work, error
            result = None


def _use_threads(count: int) -> None:
    """Have torch compute on `count` cores when this thread calls it, and nothing else changed.

    torch keeps a number for each thread, and one more that a thread takes over when it first computes; the second is
    put back, once this thread has taken it.
    """
    others: list[int] = []
    unseen = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    unseen.start()
    unseen.join()
    torch.set_num_threads(count)
    torch.get_num_threads()
    restored = threading.Thread(target=torch.set_num_threads, args=others)
    restored.start()
    restored.join()


_pools: dict[int, Workers] = {}
_starting = threading.Lock()


def workers(threads: int | None) -> Workers:
    """The process's pool of `threads` threads, by default as many as torch would use; started when first asked for."""
    wanted = threads or torch.get_num_threads()
    with _starting:
        if wanted not in _pools:
            _pools[wanted] = Workers(wanted)
        return _pools[wanted]
