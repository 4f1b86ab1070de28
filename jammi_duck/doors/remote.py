"""The methods for Python on a server: each statement runs there, and its rows come back over Flight SQL."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.flight as flight

from jammi_duck.errors import ConfigError, DeniedError, InputError, JammiError, NotFoundError, StorageError
from jammi_duck.jammi import Jammi
from jammi_duck.kept import literals
from jammi_duck.sql import Sql, Template, literal
from jammi_duck.statements import Statements
from jammi_duck.udfs.arguments import plain

_TOLD = re.compile(r".*?with message: (?P<message>.*?)(?:\. gRPC client debug context: .*)?", re.DOTALL)
_ERRORS: tuple[tuple[type[BaseException], type[JammiError]], ...] = (
    (flight.FlightUnauthenticatedError, ConfigError),
    (flight.FlightUnauthorizedError, DeniedError),
    (flight.FlightUnavailableError, StorageError),
    (KeyError, NotFoundError),
    (pa.ArrowInvalid, InputError),
)


@contextlib.contextmanager
def remote(uri: str, token: str | None = None, root_certificates: Path | None = None) -> Iterator[Jammi]:
    """The methods on a server at `grpc://HOST:PORT` or `grpc+tls://HOST:PORT`; a relation has the rows that came.

    Raises:
        ConfigError: this is no such address, or the server does not know the token.
        StorageError: the server cannot be reached.
    """
    roots = {} if root_certificates is None else {"tls_root_certs": root_certificates.read_bytes()}
    try:
        client = flight.connect(uri, **roots)
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError(f"'{uri}' is no address of a server; write grpc://HOST:PORT") from error
    with client, duckdb.connect() as local:
        statements = RemoteStatements(client, token, local)
        jammi = Jammi(local, uri, lambda con: None, lambda *_: None)
        jammi._statements = statements
        # What asks for more than the methods do asks for it in SQL.
        jammi.con = cast(duckdb.DuckDBPyConnection, _Connection(statements))
        yield jammi


class RemoteStatements(Statements):
    """Statements on a server; their values are written into them, as literals."""

    def __init__(self, client: flight.FlightClient, token: str | None, local: duckdb.DuckDBPyConnection) -> None:
        """`local` holds the rows that come."""
        super().__init__(local, lambda con: None)
        self._client = client
        self._local = local
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        self._options = flight.FlightCallOptions(headers=headers)

    def rows(self, text: Template, tables: Sequence[object], *values: object) -> list[tuple[Any, ...]]:
        """See `Statements.rows`."""
        return self.kept(text, tables, *values).fetchall()

    def kept(self, text: Template, tables: Sequence[object], *values: object) -> duckdb.DuckDBPyRelation:
        """See `Statements.kept`."""
        for table in tables:
            if not isinstance(table, str):
                raise InputError(
                    f"a server knows the tables of its database by their names, and no {type(table).__name__}"
                )
        given = literals(self._local, [*tables, *map(plain, values)])
        return self.of(text(*given))

    def planned(self, text: Template, tables: Sequence[object], *given: Sql) -> duckdb.DuckDBPyRelation:
        """See `Statements.planned`; it runs now."""
        return self.of(text(*(literal(str(table)) for table in tables), *given))

    def of(self, text: Sql) -> duckdb.DuckDBPyRelation:
        """The rows of a statement. Raises the server's errors, as ours."""
        try:
            reader = self._client.do_get(flight.Ticket(text.encode()), self._options)
            table = reader.read_all()
        except (flight.FlightError, pa.ArrowException, KeyError) as error:
            raise _ours(error) from error
        return self._local.from_arrow(table)


class _Connection:
    """What the command line asks of a connection."""

    def __init__(self, statements: RemoteStatements) -> None:
        self._statements = statements

    def sql(self, text: Sql) -> duckdb.DuckDBPyRelation:
        """The rows of a query."""
        return self._statements.of(text)

    execute = sql

    def from_arrow(self, table: pa.Table) -> duckdb.DuckDBPyRelation:
        """Rows that are here."""
        return self._statements.con().from_arrow(table)


def _ours(error: BaseException) -> JammiError:
    told = _TOLD.fullmatch(str(error.args[0] if error.args else error))
    message = told["message"] if told else str(error)
    kind = next((ours for theirs, ours in _ERRORS if isinstance(error, theirs)), JammiError)
    if kind is StorageError:
        message = f"the server cannot be reached: {message}"
    return kind(message)
