"""Runs the engine's SQL in Python, on cursors of the connections that jammi_duck was installed on."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import duckdb
import pyarrow as pa

from jammi_duck.errors import JammiError
from jammi_duck.sql import Sql, sql
from jammi_duck.types import GIVEN

_RELATIONS = "duckdb._relation"


class ConnectionHost:
    """Runs the engine's SQL on cursors of the installed connections, as long as one of them is open."""

    def __init__(self) -> None:
        """A host without a connection yet."""
        self._roots: dict[str, tuple[Callable[[], duckdb.DuckDBPyConnection | None], duckdb.DuckDBPyConnection]] = {}
        self._lock = threading.Lock()
        self._home: str | None = None

    def add(self, con: duckdb.DuckDBPyConnection) -> str:
        """Use cursors of this connection, too; returns the id of its session."""
        with self._lock:
            for known, (reference, _) in self._roots.items():
                if reference() is con:
                    return known
            name = secrets.token_hex(8)
            root = con.cursor()
            if con is duckdb.default_connection():
                # DuckDB holds the connection; each request returns a new, short-lived object for it.
                self._roots[name] = (lambda: con, root)
                return name
            self._roots[name] = (weakref.ref(con), root)
        # The root would keep the database open after the user's own connection is closed.
        weakref.finalize(con, _close, root, os.getpid())
        return name

    def ended(self) -> list[str]:
        """Forget the sessions whose connections are closed; returns their ids."""
        with self._lock:
            self._close_left()
            gone = [name for name, (_, root) in self._roots.items() if not _is_open(root)]
            for name in gone:
                del self._roots[name]
        return gone

    def _close_left(self) -> None:
        """Close the root of the default connection if that was closed; nothing else reports it."""
        for reference, root in self._roots.values():
            con = None if isinstance(reference, weakref.ref) else reference()
            if con is not None and not _is_open(con):
                root.close()

    @property
    def is_open(self) -> bool:
        """Whether a connection is still open."""
        with self._lock:
            self._close_left()
            return any(_is_open(root) for _, root in self._roots.values())

    @contextlib.contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one thread, closed at the end."""
        cursor = self._new_cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def _new_cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            for _, root in self._roots.values():
                with contextlib.suppress(duckdb.ConnectionException):
                    return root.cursor()
        raise JammiError("every connection that jammi_duck was installed on is closed; call install again")

    def sql(self, text: Sql, parameters: Sequence[object] = (), rows: pa.Table | None = None) -> list[tuple[Any, ...]]:
        """See `jammi_duck.types.Host`."""
        with self.cursor() as cursor:
            if rows is not None:
                cursor.register(GIVEN, rows)
            return list(cursor.execute(text, list(parameters)).fetchall())

    def untouched(self, text: Sql) -> list[tuple[Any, ...]]:
        """See `jammi_duck.types.Host`."""
        with duckdb.connect() as fresh:
            return list(fresh.execute(text).fetchall())

    def home(self) -> str:
        """See `jammi_duck.types.Host`."""
        if self._home is None:
            ((self._home,),) = self.sql(sql("SELECT current_database()"))
        return str(self._home)

    def directory(self) -> str:
        """See `jammi_duck.types.Host`."""
        return os.getcwd()

    def may_be_look(self) -> bool:
        """See `jammi_duck.types.Host`: relations of DuckDB 2 are Python, and those of DuckDB 1 cannot be told apart."""
        frame: FrameType | None = sys._getframe()
        while _RELATIONS in sys.modules and frame and frame.f_globals.get("__name__") != _RELATIONS:
            frame = frame.f_back
        return frame is not None


def _close(con: duckdb.DuckDBPyConnection, process: int) -> None:
    # In a forked process, it must not be closed.
    if os.getpid() == process:
        # At the exit, a cursor of it may be at work, and DuckDB refuses.
        with contextlib.suppress(duckdb.Error):
            con.close()


def _is_open(con: duckdb.DuckDBPyConnection) -> bool:
    try:
        con.cursor().close()
    except duckdb.ConnectionException:
        return False
    return True
