"""Queries of several callers in one forward pass.

One caller alone is encoded at once. Whoever comes while that pass runs waits for its end; all who wait then go together
into the next pass, which takes little longer than one for a single query.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from weakref import WeakSet

import numpy as np

from jammi_duck.types import Vectors

MOST_TEXTS = 64


class _Caller:
    """One whose texts are to be encoded: with `vectors` once they are there, or `alone` where a pass has failed."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.vectors: Vectors | None = None
        self.alone = False
        # Something is put there when the caller is answered, or leads the next pass.
        self.turn: SimpleQueue[None] = SimpleQueue()


class Gathering:
    """Encodes texts with those of other callers.

    One caller leads: it runs the pass, and names the next leader of those who wait. Ctrl-C may come after any call, so
    the leader is handed on without one.
    """

    def __init__(self) -> None:
        """Nobody waits yet."""
        self.start()
        _all.add(self)

    def start(self) -> None:
        """Begin without callers, as a forked process does."""
        self._lock = threading.Lock()
        self._leader: _Caller | None = None
        self._waiting: list[_Caller] = []

    def encode(self, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> Vectors:
        """The vectors of these texts, as `encode` gives them for any texts, or its error."""
        me = _Caller(texts)
        try:
            with self._lock:
                if self._leader is None:
                    self._leader = me
                else:
                    self._waiting.append(me)
            if self._leader is not me:
                me.turn.get()
            if self._leader is me:
                _run(self._together(me), encode)
        finally:
            with self._lock:
                if self._leader is me:
                    self._leader = self._waiting[0] if self._waiting else None
                    if self._leader is not None:
                        del self._waiting[0]
                        self._leader.turn.put(None)
                elif me in self._waiting:
                    self._waiting.remove(me)
        return encode(texts) if me.vectors is None else me.vectors

    def _together(self, leader: _Caller) -> list[_Caller]:
        """The leader, and as many of those who wait as a pass takes."""
        together, count = [leader], len(leader.texts)
        with self._lock:
            for other in self._waiting:
                if count + len(other.texts) <= MOST_TEXTS:
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
            caller.turn.put(None)
    except BaseException as error:
        for caller in together:
            caller.alone = True
            caller.turn.put(None)
        # Another caller's text may be at fault: each is told of its own.
        if len(together) == 1 or not isinstance(error, Exception):
            raise


_all: WeakSet[Gathering] = WeakSet()


def _after_fork() -> None:
    for gathering in list(_all):
        gathering.start()


os.register_at_fork(after_in_child=_after_fork)
