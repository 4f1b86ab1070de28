"""Stops all work before the interpreter exits, and repairs the state of a forked child.

While Python exits, it ends every thread that wants its lock. In the middle of DuckDB's or torch's C++ code, this aborts
the process. So all work on threads runs in `at_work`: at the exit it is told to stop and waited for, and no new work
begins. A query of another thread that is between two of its calls is waited for, too.

A fork copies only one thread, and the locks of the others in their current state. So each module replaces its locks and
threads in the child.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakMethod

from jammi_duck.errors import JammiError

_WAIT_SECONDS = 30.0
# A thread that has called a function of ours within this time may still run the same query.
_BETWEEN_CALLS_SECONDS = 5.0
# DuckDB ends a failed query on threads that cannot be asked, so wait until none has run for this time, and at most for
# the second time.
_QUIET_SECONDS = 0.5
_UNWIND_SECONDS = 5.0
_LOOK_SECONDS = 0.01
# The exit code that shells give to a program ended by Ctrl-C.
_INTERRUPTED = 130


class ExitingError(JammiError):
    """The interpreter is exiting, so no new work can begin."""


class _Life:
    def __init__(self) -> None:
        # The threads that are at work, and in how many contexts. Each notes only itself, so whatever Ctrl-C leaves
        # here is of the main thread, which does not wait for itself.
        self.depths: dict[int, int] = {}
        # When each thread that comes back was last at work.
        self.called: dict[int, float] = {}
        self.is_ending = False


_life: _Life = globals().get("_life") or _Life()
_to_stop: list[WeakMethod[Callable[[], None]]] = globals().get("_to_stop") or []


class at_work:
    """A context that the interpreter waits for before it exits. Raises ExitingError once it is exiting.

    What DuckDB calls `comes_back`: the same thread may call again within the same query.
    """

    def __init__(self, *, comes_back: bool = False) -> None:
        self._comes_back = comes_back

    def __enter__(self) -> None:
        """Begin."""
        me = threading.get_ident()
        self._outer = _life.depths.get(me, 0)
        _life.depths[me] = self._outer + 1
        if _life.is_ending:
            self.__exit__()
            raise ExitingError("Python exits; what was done so far is kept as after a crash")

    def __exit__(self, *_: object) -> None:
        """End."""
        me = threading.get_ident()
        if self._comes_back:
            _life.called[me] = time.monotonic()
        if self._outer:
            _life.depths[me] = self._outer
        else:
            _life.depths.pop(me, None)


def stop_at_exit(stop: Callable[[], None]) -> None:
    """Call the method `stop` at the exit, if its object still exists."""
    _to_stop[:] = [each for each in _to_stop if each() is not None]
    _to_stop.append(WeakMethod(stop))


def forever(thing: object) -> None:
    """Keep an object from ever being freed, even when Python exits, by an extra reference."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _end() -> None:
    _life.is_ending = True
    if not _others_work() and not _others_called():
        return
    try:
        for each in _to_stop:
            stop = each()
            if stop is not None:
                stop()
        end = time.monotonic() + _WAIT_SECONDS
        while _others_work() and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        is_over = not _others_work()
        _unwind()
    except KeyboardInterrupt:
        is_over = False
    if not is_over:
        # Exit at once, rather than abort.
        os._exit(_INTERRUPTED)


def _others_work() -> bool:
    return bool(_life.depths.keys() - {threading.get_ident()})


def _others_called() -> bool:
    """Whether another Python thread may be in a query that has called a function of ours, and will call it again.

    DuckDB's own threads are Python threads only during such a call.
    """
    lately = time.monotonic() - _BETWEEN_CALLS_SECONDS
    others = sys._current_frames().keys() - {threading.get_ident()}
    return any(_life.called.get(thread, -math.inf) > lately for thread in others)


def _unwind() -> None:
    end = time.monotonic() + _UNWIND_SECONDS
    quiet = time.monotonic() + _QUIET_SECONDS
    while time.monotonic() < min(quiet, end):
        time.sleep(_LOOK_SECONDS)
        if _others_run():
            quiet = time.monotonic() + _QUIET_SECONDS


def _others_run() -> bool:
    """Whether another thread of this process is running or runnable, according to Linux."""
    me = str(threading.get_native_id())
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):
            if thread.name != me and (thread / "stat").read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def _after_fork() -> None:
    global _life
    _life = _Life()
    _to_stop.clear()


atexit.register(_end)
os.register_at_fork(after_in_child=_after_fork)
