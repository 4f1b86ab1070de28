"""A locked scratch file that shows vacuums of other processes which table is being written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from jammi_duck.errors import StorageError
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.locks import SharedLocks
from jammi_duck.storage.files.store import Store


class Marker:
    """A mark of one build or change, from its first file to its end, however that comes."""

    def __init__(self, store: Store, table: str, work: str) -> None:
        """Nothing is there yet. `work` is the id that scratch files bear."""
        self._store = store
        self._table = table
        self._work = work
        self._held: SharedLocks | None = None
        self._name = ""

    def set(self) -> None:
        """Say that this is at work, unless it was said. Raises StorageError."""
        if self._held is None:
            path = self._store.scratch(layout.manifest(self._table, 1), self._work)
            try:
                path.touch()
                self._held = SharedLocks([path])
            except OSError:
                # A vacuum was quicker, or the disk is full: what is written next says more about that.
                with contextlib.suppress(StorageError):
                    self._store.discard(path.name)
                return
            self._name = path.name

    def remove(self) -> None:
        """Say that it is over."""
        if self._held is not None:
            self._held.close()
            self._held = None
            # A disk may fail once.
            for _ in range(2):
                with contextlib.suppress(StorageError):
                    self._store.discard(self._name)
                    break


@contextlib.contextmanager
def marked(store: Store, table: str, work: str) -> Iterator[Marker]:
    """A mark that is removed at the end, if it was set."""
    marker = Marker(store, table, work)
    try:
        yield marker
    finally:
        marker.remove()
