"""Queries of several callers in one forward pass.

One caller alone is encoded at once. Whoever comes while that pass runs waits for its end; all who wait then go together
into the next pass, which takes little longer than one for a single query. The main thread always goes alone: Ctrl-C
may end it at any moment, and nobody is to wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np

from jammi_duck.types import Vectors

MOST_TEXTS = 64


@dataclass(eq=False)
class _Caller:
    """One who waits: with `vectors` once they are there, or `alone` where a pass with others has failed."""

    texts: Sequence[str]
    vectors: Vectors | None = None
    alone: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether a pass that the caller took part in is over."""
        return self.alone or self.vectors is not None


class Gathering:
    """Encodes texts with those of other callers."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self.start()
        _all.add(self)

    def start(self) -> None:
        """Begin without callers, as a forked process does."""
        self._changed = threading.Condition()
        self._waiting: list[_Caller] = []
        self._is_running = False

    def encode(self, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> Vectors:
        """The vectors of these texts, as `encode` gives them for any texts, or its error."""
        if threading.current_thread() is threading.main_thread():
            return encode(texts)
        me = _Caller(texts)
        with self._changed:
            self._waiting.append(me)
            self._changed.wait_for(lambda: me.is_answered or not self._is_running)
            together = [] if me.is_answered else self._next(me)
            self._is_running = self._is_running or bool(together)
        if together:
            try:
                _run(together, encode)
            finally:
                with self._changed:
                    self._is_running = False
                    self._changed.notify_all()
        return encode(texts) if me.vectors is None else me.vectors

    def _next(self, me: _Caller) -> list[_Caller]:
        """The caller, and as many of those who wait as a pass takes."""
        together, count = [me], len(me.texts)
        for other in self._waiting:
            if other is not me and count + len(other.texts) <= MOST_TEXTS:
                together.append(other)
                count += len(other.texts)
        self._waiting = [each for each in self._waiting if each not in together]
        return together


def _run(together: Sequence[_Caller], encode: Callable[[Sequence[str]], Vectors]) -> None:
    try:
        if len(together) == 1:
            together[0].vectors = encode(together[0].texts)
            return
        vectors = encode([text for caller in together for text in caller.texts])
        ends = np.cumsum([len(caller.texts) for caller in together])[:-1]
        for caller, part in zip(together, np.split(vectors, ends), strict=True):
            caller.vectors = part
    except BaseException as error:
        for caller in together:
            caller.alone = True
        # Another caller's text may be at fault: each is told of its own.
        if len(together) == 1 or not isinstance(error, Exception):
            raise


_all: WeakSet[Gathering] = WeakSet()


def _after_fork() -> None:
    for gathering in list(_all):
        gathering.start()


os.register_at_fork(after_in_child=_after_fork)
