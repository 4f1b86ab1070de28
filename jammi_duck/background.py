"""Refreshes of a source in the background, on a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

import duckdb

from jammi_duck.config.logs import log
from jammi_duck.lifetime import stop_at_exit


class BackgroundRefresh:
    """Calls `refresh` each so many seconds, from now until `stop`, or until the connection is closed.

    A refresh that fails is logged, and the next one tries again.
    """

    def __init__(self, name: str, seconds: float, refresh: Callable[[], object]) -> None:
        """`name` is what the log calls the source."""
        self._name = name
        self._seconds = seconds
        self._refresh = refresh
        self._is_stopped = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"jammi-follow-{name}", daemon=True)
        stop_at_exit(self.tell)
        self._thread.start()

    def tell(self) -> None:
        """Let no other refresh begin."""
        self._is_stopped = True
        self._wake.put(None)

    def stop(self) -> None:
        """Wait for the refresh that runs, and let no other begin."""
        self.tell()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._refresh()
            except Exception as error:
                if isinstance(error.__cause__ or error, duckdb.ConnectionException):
                    return
                log.warning("%s could not be refreshed: %s", self._name, error)
            with suppress(Empty):
                self._wake.get(timeout=min(self._seconds, threading.TIMEOUT_MAX))
