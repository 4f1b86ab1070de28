"""Polls locations, cheaply and no more often than configured, for tables that other processes changed or removed.

On a disk, the time of the folder tells whether it must be listed at all. A remote location is listed by a thread of its
own, for which nobody waits long: what it finds serves the next search, if it comes too late for this one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta

from jammi_duck.errors import StorageError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.files.store import Store

# How long a search waits for a remote location, and for one that was slow the last time: not at all.
_PATIENCE = 0.5
# A folder that has had the same time for so long gets another one with the next change: of file systems whose
# times are coarse, or that remember for a while what a folder on another machine was.
_SETTLED = 3.0
# How many seconds somebody else's look is waited for, where it must be known now.
_LONGEST = 10.0
_TRIES = 3


@dataclass(frozen=True)
class Seen:
    """What is in a location: the names of tables that have files there, and later states of those that are `known`.

    `is_whole` says that everything could be read that had to be.
    """

    known: frozenset[str]
    tables: frozenset[str]
    states: tuple[Manifest, ...]
    is_whole: bool

    @property
    def gone(self) -> frozenset[str]:
        """The known tables without a file, where others have some: an empty location may be one that is not mounted."""
        return self.known - self.tables if self.tables else frozenset()


@dataclass
class _Location:
    """What is remembered of one location; `token` stands for the content that was looked at last.

    `missing` are the tables that were looked for when nothing was there.
    """

    token: object = None
    first: float = 0.0
    is_settled: bool = False
    asked: Future[Seen] | None = None
    since: float = 0.0
    is_slow: bool = False
    failure: str | None = None
    missing: frozenset[str] = frozenset()


@dataclass
class Watch:
    """Looks at locations, `every` so often at most."""

    every: timedelta
    _due: float = 0.0
    _locations: dict[str, _Location] = field(default_factory=dict)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def turn(self, *, at_once: bool) -> Iterator[bool]:
        """Whether it is time to look, and nobody else does."""
        is_due = at_once or time.monotonic() >= self._due
        # Not for ever: a forked child may find that it is held.
        if not is_due or not self._looking.acquire(timeout=_LONGEST if at_once or not self.every else 0):
            yield False
            return
        try:
            yield True
        finally:
            self._due = time.monotonic() + self.every.total_seconds()
            self._looking.release()

    def look(self, store: Store, known: Mapping[str, int], *, at_once: bool) -> Seen | None:
        """What is in a location that tables are `known` to be in, by the numbers of their states.

        None where that is what it was, or where it cannot be told now: see `failure`.
        """
        location = self._locations.setdefault(store.location, _Location())
        try:
            seen = (
                _look_remote(location, store, known, self._patience(location, at_once))
                if store.is_remote
                else _look_local(location, store, known)
            )
            location.failure = None
            if seen:
                location.missing = frozenset() if seen.tables else seen.known
        except TimeoutError:
            location.failure = f"it has not answered for {time.monotonic() - location.since:.0f} s"
            return None
        # Whatever it is, a search goes on with what is known.
        except Exception as error:
            location.failure = str(error) if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
            return None
        return seen

    def failure(self, location: str) -> str | None:
        """Why a location could not be looked at the last time, if so."""
        known = self._locations.get(location)
        return known.failure if known else None

    def is_missing(self, location: str, table: str) -> bool:
        """Whether the last look at a location found nothing there, not even this table."""
        known = self._locations.get(location)
        return known is not None and table in known.missing

    def _patience(self, location: _Location, at_once: bool) -> float | None:
        """How many seconds an answer is waited for; None is until it comes."""
        if at_once or not self.every:
            return None
        return 0.0 if location.is_slow else _PATIENCE


def _look_local(location: _Location, store: Store, known: Mapping[str, int]) -> Seen | None:
    now, token = time.monotonic(), store.change_token()
    if token != location.token:
        location.token, location.first, location.is_settled = token, now, False
    if token is not None and location.is_settled:
        return None
    seen = _list(store, known)
    location.is_settled = seen.is_whole and now - location.first >= _SETTLED
    return seen


def _look_remote(location: _Location, store: Store, known: Mapping[str, int], patience: float | None) -> Seen:
    late = None if patience is None else location.asked
    asked = late or _ask(location, store, known)
    location.is_slow = True
    try:
        seen = asked.result(patience)
    except Exception:
        if asked.done():
            location.asked = None
        raise
    location.is_slow, location.asked = False, None
    if late:
        # What was asked some time ago is not the newest any more, perhaps.
        _ask(location, store, known)
    return seen


def _ask(location: _Location, store: Store, known: Mapping[str, int]) -> Future[Seen]:
    asked: Future[Seen] = Future()

    def work() -> None:
        try:
            asked.set_result(_list(store, known))
        except BaseException as error:
            asked.set_exception(error)

    location.asked, location.since = asked, time.monotonic()
    threading.Thread(target=work, name="jammi_duck looks", daemon=True).start()
    return asked


def _list(store: Store, known: Mapping[str, int]) -> Seen:
    """Raises StorageError where the location cannot be listed."""
    names: set[str] = set()
    for _ in range(_TRIES):
        before, names = names, store.names()
        states: list[Manifest] = []
        is_whole = True
        for table, file in manifest.newest(names).items():
            name = layout.parse(file)
            if table in known and name and name.number > known[table]:
                state = _state(store, file)
                if state and all(each.parquet.file in names for each in state.parquet_files):
                    states.append(state)
                else:
                    # It is an earlier state by now, and was removed; or a copy is under way; or it cannot be read.
                    is_whole = False
        if is_whole or names == before:
            break
    tables = frozenset(name.table for name in map(layout.parse, names) if name)
    return Seen(frozenset(known), tables, tuple(states), is_whole)


def _state(store: Store, file: str) -> Manifest | None:
    with contextlib.suppress(StorageError):
        return manifest.read(store, file)
    return None
