"""A file of vectors by the digest of their text, so that no text is paid for twice.

It is an SQLite database, which several processes may use at once, and which survives a crash. It holds no texts, and
may be removed at any time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jammi_duck.config.cache import make
from jammi_duck.config.logs import log
from jammi_duck.encoder.waits import renewed_after_fork

_AT_ONCE = 500
_BUSY_SECONDS = 30
# By which a file is known for ours ("jamv"), and the version of its tables.
_APPLICATION, _VERSION = 0x6A616D76, 1
_TABLE = "CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
_PUT = "INSERT OR IGNORE INTO vectors VALUES "


class VectorCache:
    """Vectors by keys of 32 bytes; threads and processes may share a file. If it fails, there is no cache."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before it is used."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._has_failed = False
        self._using = threading.Lock()
        renewed_after_fork(self)

    def after_fork(self) -> None:
        """A thread of the parent may have been using it."""
        self._using = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]:
        """The vectors that are there, of these keys."""
        found: dict[bytes, NDArray[np.float32]] = {}
        with self._using:
            if not self._has_failed:
                try:
                    _get(self._open(), keys, found)
                except (sqlite3.Error, OSError) as error:
                    self._fail(error)
        return found

    def put(self, vectors: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Keep vectors; they are safe from a crash of this process when this returns."""
        with self._using:
            if not self._has_failed:
                try:
                    _put(self._open(), list(vectors))
                except (sqlite3.Error, OSError) as error:
                    self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._has_failed = True
        log.warning(
            "the cache of vectors '%s' cannot be used: %s; texts are sent to their provider again. Remove the file, or "
            "give another as [cache] vectors",
            self._path,
            error,
        )

    def _open(self) -> sqlite3.Connection:
        # A connection does not survive a fork.
        if self._connection is None or self._process != os.getpid():
            self._connection, self._process = _connected(self._path), os.getpid()
        return self._connection


def _get(connection: sqlite3.Connection, keys: Sequence[bytes], found: dict[bytes, NDArray[np.float32]]) -> None:
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        asked = f"SELECT key, vector FROM vectors WHERE key IN ({', '.join('?' * len(some))})"
        found |= {key: np.frombuffer(vector, "<f4") for key, vector in connection.execute(asked, some)}


def _put(connection: sqlite3.Connection, vectors: Sequence[tuple[bytes, NDArray[np.float32]]]) -> None:
    with connection:
        for start in range(0, len(vectors), _AT_ONCE):
            some = vectors[start : start + _AT_ONCE]
            values = [part for key, vector in some for part in (key, vector.astype("<f4").tobytes())]
            # One statement: between statements, another thread would have Python's lock for a while.
            connection.execute(_PUT + ", ".join(["(?, ?)"] * len(some)), values)


def _connected(path: Path) -> sqlite3.Connection:
    make(path.parent)
    # Whoever can read the vectors can tell much of the texts.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 10000")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if not tables:
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    elif (application, version) != (_APPLICATION, _VERSION):
        raise sqlite3.DatabaseError("it is another program's database, or of another version, and is left alone")
