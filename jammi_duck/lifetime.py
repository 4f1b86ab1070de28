"""The life of this process: what a forked child takes over, and what ends before the interpreter does.

While it exits, Python ends each thread that wants its lock, wherever that is; in the midst of DuckDB's or torch's C++
this aborts the process. So whatever runs on threads stands in `at_work`: at the exit it is told to stop, and waited
for, and nothing else begins. A query of another thread that is between two of its calls is waited for, too.

A fork copies one thread only, and the locks of the others as they are. So a module replaces in the child what it keeps.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from weakref import WeakMethod

from jammi_duck.errors import JammiError

_WAIT_SECONDS = 30.0
# A thread that has called a function of ours so lately may be in the same query still.
_BETWEEN_CALLS_SECONDS = 5.0
# DuckDB ends a query whose functions have failed on threads that nobody can ask: when none has run for so long, and
# after so long at the latest.
_QUIET_SECONDS = 0.5
_UNWIND_SECONDS = 5.0
# What shells call a program that Ctrl-C has ended.
_INTERRUPTED = 130


class ExitingError(JammiError):
    """The interpreter exits, so nothing begins any more."""


class _Life:
    def __init__(self) -> None:
        self.at_work = 0
        # When each thread has last called a function of ours; for ever, while it does.
        self.called: dict[int, float] = {}
        self.is_ending = False
        self.changed = threading.Condition()


_life: _Life = globals().get("_life") or _Life()
_to_stop: list[WeakMethod[Callable[[], None]]] = globals().get("_to_stop") or []


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """What the interpreter waits for before it exits. Raises ExitingError once it does."""
    with _life.changed:
        if _life.is_ending:
            raise ExitingError("Python exits; what was done so far is kept as after a crash")
        _life.at_work += 1
        _life.called[threading.get_ident()] = math.inf
    try:
        yield
    finally:
        with _life.changed:
            _life.at_work -= 1
            _life.called[threading.get_ident()] = time.monotonic()
            _life.changed.notify_all()


def stop_at_exit(stop: Callable[[], None]) -> None:
    """Call the method `stop` at the exit, if its object is there still."""
    _to_stop[:] = [each for each in _to_stop if each() is not None]
    _to_stop.append(WeakMethod(stop))


def forever(thing: object) -> None:
    """Keep an object from ever being freed, even when Python exits: there is one more reference than anybody holds."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _end() -> None:
    with _life.changed:
        _life.is_ending = True
        if not _life.at_work and not _others_called():
            return
    try:
        for each in _to_stop:
            stop = each()
            if stop is not None:
                stop()
        with _life.changed:
            is_over = _life.changed.wait_for(lambda: not _life.at_work, _WAIT_SECONDS)
        _unwind()
    except KeyboardInterrupt:
        is_over = False
    if not is_over:
        # Rather at once than by an abort.
        os._exit(_INTERRUPTED)


def _others_called() -> bool:
    """Whether another thread of Python's may be in a query that has called a function of ours, and will again.

    DuckDB's own threads are none of Python's but while they call.
    """
    lately = time.monotonic() - _BETWEEN_CALLS_SECONDS
    others = sys._current_frames().keys() - {threading.get_ident()}
    return any(_life.called.get(thread, -math.inf) > lately for thread in others)


def _unwind() -> None:
    end = time.monotonic() + _UNWIND_SECONDS
    quiet = time.monotonic() + _QUIET_SECONDS
    while time.monotonic() < min(quiet, end):
        time.sleep(0.02)
        if _others_run():
            quiet = time.monotonic() + _QUIET_SECONDS


def _others_run() -> bool:
    """Whether another thread of this process runs, or would on a machine that is less busy; only Linux tells."""
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
