"""Locks the files that a planned query reads until the query is over, so that nobody deletes them."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jammi_duck.storage.files.locks import SharedLocks
from jammi_duck.storage.files.manifest import Manifest, Segment
from jammi_duck.types import Caller

# A session runs one query at a time; others may have ended without a word.
_MOST_KEPT = 256


@dataclass(frozen=True)
class Snapshot:
    """A state of a table, whose number is 0 where it was never committed, and segments that no state has.

    These are `spare`: of a change that was interrupted, and as good as any other for the vector of a text. `free` is
    the number after those of all segments and tombstones that were there, if that was looked for.
    """

    manifest: Manifest
    spare: tuple[Segment, ...] = ()
    free: int | None = None


@dataclass
class Pins:
    """The plans of queries that may be running, by tokens. A session's are over in its next transaction."""

    _kept: OrderedDict[str, tuple[Caller, Snapshot, SharedLocks]] = field(default_factory=OrderedDict)
    _number: itertools.count[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, caller: Caller, start: Snapshot, files: Iterable[Path]) -> str:
        """Keep what a query is planned on, and hold its files; gives a token.

        Raises FileNotFoundError where a file is gone by now.
        """
        held = SharedLocks(files)
        self.release_earlier(caller)
        with self._lock:
            token = f"{caller.session}/{next(self._number)}"
            self._kept[token] = caller, start, held
            over = [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - _MOST_KEPT)]
        for _, _, files_of_one in over:
            files_of_one.close()
        return token

    def of(self, token: str) -> Snapshot | None:
        """What a query was planned on, if it is kept still."""
        with self._lock:
            kept = self._kept.get(token)
        return kept[1] if kept else None

    def release_earlier(self, caller: Caller) -> None:
        """Let go of what earlier transactions of a session have planned."""
        with self._lock:
            over = [
                token
                for token, (theirs, _, _) in self._kept.items()
                if theirs.session == caller.session and theirs.transaction != caller.transaction
            ]
            files = [self._kept.pop(token)[2] for token in over]
        for held in files:
            held.close()

    def release_sessions(self, sessions: Container[str]) -> None:
        """Let go of all that sessions have planned which have ended."""
        with self._lock:
            over = [token for token, (theirs, _, _) in self._kept.items() if theirs.session in sessions]
            files = [self._kept.pop(token)[2] for token in over]
        for held in files:
            held.close()

    def release(self, token: str) -> None:
        """Let go of the files of a query that has read them; what it was planned on is known still."""
        with self._lock:
            kept = self._kept.get(token)
        if kept:
            kept[2].close()
