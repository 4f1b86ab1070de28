"""Waits for what may take long: until a call that failed is made again, or an answer is there. Ctrl-C ends them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from jammi_duck.errors import EncodingError

_FIRST_SECONDS = 0.5
_SECONDS_BETWEEN_LOOKS = 0.1


class Interrupts:
    """Counts how often Ctrl-C was pressed. DuckDB tells its main thread of it, and not the others, which wait here."""

    def __init__(self) -> None:
        self.count = 0

    def ctrl_c(self) -> None:
        """Count one more; called within a signal handler."""
        self.count += 1


INTERRUPTS = Interrupts()


class Renewable(Protocol):
    """What has locks, or work of threads, that a forked child does not have."""

    def after_fork(self) -> None:
        """Begin anew; called in the child, which has one thread."""
        ...


_renewable: WeakSet[Renewable] = WeakSet()


def renewed_after_fork(each: Renewable) -> None:
    """Have `each` begin anew in forked children."""
    _renewable.add(each)


def _after_fork() -> None:
    for each in list(_renewable):
        each.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def interruptible(progress: Callable[[int], None]) -> Callable[[int], None]:
    """`progress`, that raises once Ctrl-C was pressed after this call."""
    before = INTERRUPTS.count

    def asked(done: int) -> None:
        if before != INTERRUPTS.count:
            raise EncodingError("interrupted by Ctrl-C")
        progress(done)

    return asked


def pause(attempt: int, longest: float) -> float:
    """Seconds before the next attempt, after so many (from 0): each twice as long, up to `longest`, and not alike.

    Between half of it and all of it, so that callers that failed together do not come again together.
    """
    return min(longest, _FIRST_SECONDS * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1)


def sleep(seconds: float, progress: Callable[[int], None]) -> None:
    """Sleep so long; `progress` is asked meanwhile, and ends it by raising."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        progress(0)
        time.sleep(min(left, _SECONDS_BETWEEN_LOOKS))
