"""Which queries run now, which wait, and which are refused."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from jammi_duck.errors import JammiError


class BusyError(JammiError):
    """Too many queries wait already."""


class GoneError(JammiError):
    """The client has gone away, or the server ends."""


class Admission:
    """Lets a number of queries run at once. Long ones leave some of that to searches."""

    def __init__(self, most_running: int, most_waiting: int) -> None:
        """`most_waiting` queries wait for their turn before one is refused."""
        self._most_running = most_running
        self._most_waiting = most_waiting
        # A quarter, and at least one where there is more than one.
        self._most_scans = max(1, most_running - max(1, most_running // 4))
        self._changed = threading.Condition()
        self._searches = 0
        self._scans = 0
        self.waiting = 0
        self._is_closed = False

    @property
    def running(self) -> int:
        """How many queries run now."""
        return self._searches + self._scans

    @contextlib.contextmanager
    def turn(self, *, is_search: bool, is_gone: Callable[[], bool]) -> Iterator[float]:
        """A context in which a query runs; gives the seconds that it has waited.

        Raises:
            BusyError: too many wait.
            GoneError: the client went away meanwhile, or the server ends.
        """
        began = time.monotonic()
        with self._changed:
            if not self._is_free(is_search):
                if self.waiting >= self._most_waiting:
                    raise BusyError(
                        f"{self.running} queries run and {self.waiting} wait, as many as may: try again in a moment, "
                        "or raise [server] max_queries or max_waiting"
                    )
                self.waiting += 1
                try:
                    while not self._is_free(is_search):
                        if self._is_closed or is_gone():
                            raise GoneError("the client is gone, or the server ends")
                        self._changed.wait(0.1)
                finally:
                    self.waiting -= 1
            if self._is_closed:
                raise GoneError("the server ends, and takes no more queries")
            self._count(is_search, 1)
        try:
            yield time.monotonic() - began
        finally:
            with self._changed:
                self._count(is_search, -1)
                self._changed.notify_all()

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
            self._changed.notify_all()

    def drained(self, seconds: float) -> bool:
        """Wait until no query runs, for so many seconds; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.running, seconds)
