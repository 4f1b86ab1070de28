"""Handles Ctrl-C while DuckDB works on its own threads.

DuckDB notices an interrupt in the main thread, and then waits until the other threads' work is done: all rows of a
build, it may be. So whoever runs long work asks to be told, too.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet


class Interruptible(Protocol):
    """Long work that can be told to stop."""

    def ctrl_c(self) -> None:
        """Stop soon what the main thread waits for. Must return at once: it is called within a signal handler."""
        ...


# The same after this module was loaded again: work that is under way is told still.
_listeners: WeakSet[Interruptible] = globals().get("_listeners") or WeakSet()


def listen(work: Interruptible) -> bool:
    """Tell `work` of each Ctrl-C from now on; the handler that was there before is called as well.

    Returns False, and changes nothing, off the main thread: Ctrl-C does not concern it. A handler that somebody else
    sets later takes the place of this one, so ask again before each piece of work.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    _listeners.add(work)
    before = signal.getsignal(signal.SIGINT)
    if callable(before) and not isinstance(before, _Handler):
        signal.signal(signal.SIGINT, _Handler(before))
    return True


class _Handler:
    def __init__(self, before: Any) -> None:  # noqa: ANN401 - what signal.getsignal gives
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for work in list(_listeners):
            work.ctrl_c()
        self._before(number, frame)
