"""The connections to a database server: how they are opened, opened again, and what their errors become."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from jammi_duck.config.logs import log
from jammi_duck.config.redaction import redacted
from jammi_duck.errors import InputError, JammiError, StorageError

T = TypeVar("T")
Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
Statement: TypeAlias = sql.SQL | sql.Composed

_SCHEME = re.compile(r"\s*(?:postgres|postgresql|cockroachdb)(?:\+\w+)?://", re.IGNORECASE)
_SECRET = ("password", "sslpassword", "oauth_client_secret")
_AGAIN = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
# The server ends, or has ended, or is starting.
_GONE = (
    psycopg.errors.AdminShutdown,
    psycopg.errors.CrashShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
_WRONG = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)
_MOST_CONFLICTS = 20
_SHOWN = 2000


class Connections:
    """Connections to one database: to read by, and to write by. What fails for a moment is done again."""

    # For so many seconds, a server that has gone away is waited for.
    patience = 120.0
    longest_pause = 10.0

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Connect; `url` is one of libpq's, or that of another driver, with all the options of libpq.

        Raises:
            InputError: the URL is none.
            StorageError: there is no such server, or it lets nobody in.
        """
        self._url = _SCHEME.sub("postgresql://", url, count=1).strip()
        self._secrets = _secrets(self._url)
        self._read_only = read_only
        self._open: dict[str, Connection] = {}
        with self._told():
            self._open["read"] = self._connected()

    def close(self) -> None:
        """Close them."""
        for each in self._open.values():
            each.close()

    def rows(self, statement: Statement) -> list[tuple[Any, ...]]:
        """The rows of a statement that changes nothing."""
        return self._again("read", lambda con: self._run(con, statement).fetchall())

    def read(self, work: Callable[[Connection], T]) -> T:
        """What some work in a transaction that changes nothing returns; it may be done again."""
        return self._again("read", lambda con: _in_transaction(con, work))

    def write(self, work: Callable[[Connection], T]) -> T:
        """What some work in a transaction returns; it may be done again."""
        return self._again("write", lambda con: _in_transaction(con, work))

    def run(self, statement: Statement) -> None:
        """Run a statement that is its own transaction."""
        self._again("write", lambda con: self._run(con, statement))

    def execute(self, con: Connection, statement: Statement, values: list[Any] | None = None) -> psycopg.Cursor[Any]:
        """Run a statement within some work; its values stand for $1 and so on."""
        return self._run(con, statement, values)

    def _run(self, con: Connection, statement: Statement, values: list[Any] | None = None) -> psycopg.Cursor[Any]:
        text = statement.as_string(con)
        log.debug("%s", redacted(text[:_SHOWN], self._secrets))
        return con.execute(text.encode(), values)

    def _again(self, purpose: str, work: Callable[[Connection], T]) -> T:
        with self._told():
            conflicts = 0
            until = None
            pause = 0.1
            while True:
                try:
                    return work(self._connection(purpose))
                except _AGAIN:
                    conflicts += 1
                    if conflicts == _MOST_CONFLICTS:
                        raise
                    time.sleep(random.uniform(0, 0.01 * 2 ** min(conflicts, 7)))
                except psycopg.OperationalError as error:
                    if not self._is_lost(purpose, error):
                        raise
                    now = time.monotonic()
                    until = now + self.patience if until is None else until
                    if now + pause > until:
                        raise
                    log.warning("the connection to the database server is lost; trying again in %.1f s", pause)
                    time.sleep(pause)
                    pause = min(pause * 2, self.longest_pause)

    def _is_lost(self, purpose: str, error: psycopg.OperationalError) -> bool:
        """Whether another connection may help; the one that was there is given up then."""
        con = self._open.get(purpose)
        lost = con is None or con.closed or isinstance(error, _GONE)
        if lost:
            self._open.pop(purpose, None)
            if con is not None:
                con.close()
        return lost

    def _connection(self, purpose: str) -> Connection:
        if purpose not in self._open:
            self._open[purpose] = self._connected()
        return self._open[purpose]

    def _connected(self) -> Connection:
        con = psycopg.connect(
            self._url,
            autocommit=True,
            # The places of values are $1 and so on: a % may stand in a name.
            cursor_factory=psycopg.RawCursor,
            # A pool between us and the server may change the session.
            prepare_threshold=None,
            fallback_application_name="jammi-duck",
            client_encoding="utf8",
        )
        con.read_only = self._read_only or None
        return con

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the server as ours, without secrets."""
        try:
            yield
        except psycopg.Error as error:
            raise self._ours(error) from None

    def _ours(self, error: psycopg.Error) -> JammiError:
        told = error.diag.message_primary or " ".join(str(error).split())
        hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
        text = redacted(f"{told}{hint}", self._secrets)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return StorageError(f"the database server refuses: {text}; ask its administrator for the right")
        if isinstance(error, _WRONG):
            return InputError(f"the database server says: {text}")
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            return StorageError(
                f"cannot reach the database server: {text}; check the host, the user and the password in --url"
            )
        return StorageError(f"the database server says: {text}")


def _in_transaction(con: Connection, work: Callable[[Connection], T]) -> T:
    with con.transaction():
        return work(con)


def _secrets(url: str) -> frozenset[str]:
    """The texts of a URL that must not be shown.

    Raises:
        InputError: it is no URL, or no two readers would agree where its password ends. Its text is not in the message.
    """
    # libpq would take a part of such a password for the host or the port, and its errors show those.
    server, _, rest = url.partition("://")[2].partition("/")
    if server.count("@") > 1 or ("@" not in server and "@" in rest.partition("?")[0]):
        raise InputError(
            "--url has @ or / in its user or password: write these as %40 and %2F, or leave the password to PGPASSWORD "
            "or ~/.pgpass"
        )
    try:
        options = conninfo_to_dict(url)
    except psycopg.Error:
        raise InputError(
            "--url is no URL of a database server: write it as postgresql://host:5432/database, with USER:PASSWORD@ "
            "before the host, options of libpq behind a question mark, % as %25, and a space as %20"
        ) from None
    return frozenset(str(options[name]) for name in _SECRET if options.get(name))
