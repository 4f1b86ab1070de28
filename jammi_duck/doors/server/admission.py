"""Which queries run now, which wait, and which are refused."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from jammi_duck.errors import JammiError

# How often one who waits looks whether it still should.
_LOOK_SECONDS = 0.2
# So long a thread waits for a core; then it computes all the same, since others may keep theirs for minutes.
_PATIENCE_SECONDS = 0.5


class BusyError(JammiError):
    """Too many queries wait already."""


class GoneError(JammiError):
    """The client has gone away, or the server ends."""


class _Waiting:
    """A query that waits for its turn."""

    def __init__(self, is_search: bool) -> None:
        self.is_search = is_search
        self.called = threading.Event()


class Cores:
    """Lets a number of threads compute at once. More of them would wait for Python's lock, and delay each other."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)
        self._mine = threading.local()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A context in which this thread computes."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    @contextlib.contextmanager
    def left_to_others(self) -> Iterator[None]:
        """A context, perhaps within the other one, in which this thread waits for work elsewhere."""
        if not self._give_back():
            yield
            return
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        self._mine.is_held = self._free.acquire(timeout=_PATIENCE_SECONDS)

    def _give_back(self) -> bool:
        """Give back the core of this thread; whether it had one."""
        is_held = getattr(self._mine, "is_held", False)
        if is_held:
            self._mine.is_held = False
            self._free.release()
        return is_held


class Admission:
    """Lets a number of queries run at once, in the order in which they came. Long ones leave some to searches."""

    def __init__(self, most_running: int, most_waiting: int) -> None:
        """`most_waiting` queries wait for their turn before one is refused."""
        self._most_running = most_running
        self._most_waiting = most_waiting
        # A quarter, and at least one where there is more than one.
        self._most_scans = max(1, most_running - max(1, most_running // 4))
        self._changed = threading.Condition()
        self._line: list[_Waiting] = []
        self._searches = 0
        self._scans = 0
        self._is_closed = False

    @property
    def running(self) -> int:
        """How many queries run now."""
        return self._searches + self._scans

    @property
    def waiting(self) -> int:
        """How many queries wait for their turn."""
        return len(self._line)

    @contextlib.contextmanager
    def turn(self, *, is_search: bool, is_gone: Callable[[], bool]) -> Iterator[float]:
        """A context in which a query runs; gives the seconds that it has waited.

        Raises:
            BusyError: too many wait.
            GoneError: the client went away meanwhile, or the server ends.
        """
        began = time.monotonic()
        self._enter(_Waiting(is_search), is_gone)
        try:
            yield time.monotonic() - began
        finally:
            with self._changed:
                self._count(is_search, -1)
                self._call()
                self._changed.notify_all()

    def _enter(self, me: _Waiting, is_gone: Callable[[], bool]) -> None:
        with self._changed:
            if self._is_closed:
                raise GoneError("the server ends, and takes no more queries")
            if len(self._line) >= self._most_waiting and not self._is_free(me.is_search):
                raise BusyError(
                    f"{self.running} queries run and {self.waiting} wait, as many as may: try again in a moment, "
                    "or raise [server] max_queries or max_waiting"
                )
            self._line.append(me)
            self._call()
        while not me.called.wait(_LOOK_SECONDS):
            if self._is_closed or is_gone():
                with self._changed:
                    if not me.called.is_set():
                        self._line.remove(me)
                        raise GoneError("the client is gone, or the server ends")
                break

    def _call(self) -> None:
        """Let those run whose turn it is; the lock is held."""
        for each in list(self._line):
            if self._is_free(each.is_search):
                self._line.remove(each)
                self._count(each.is_search, 1)
                each.called.set()

    def _count(self, is_search: bool, step: int) -> None:
        if is_search:
            self._searches += step
        else:
            self._scans += step

    def _is_free(self, is_search: bool) -> bool:
        return self.running < self._most_running and (is_search or self._scans < self._most_scans)

    def close(self) -> None:
        """Let no more queries begin; those who wait are sent away."""
        with self._changed:
            self._is_closed = True

    def drained(self, seconds: float) -> bool:
        """Wait until no query runs, for so many seconds; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.running, seconds)
