"""Quack, DuckDB's own protocol, by which another DuckDB attaches the server.

DuckDB's extension serves it, and would run what clients send on the database that it is loaded in. So it is loaded in
an empty database in memory, which opens no files, and runs no client's text: before each query, the extension asks a
function of ours, and runs the SQL that this gives. The function has the query answered as those of other clients are,
copies its rows into a table in memory, and gives a query for that table, or for the error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import secrets
import tempfile
import threading
import time
from collections import OrderedDict, deque
from pathlib import Path

import duckdb
import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.config.options import Config
from jammi_duck.doors.server.identity import READER, UnknownError, Visitor
from jammi_duck.doors.server.names import TABLES
from jammi_duck.doors.server.service import Query, Service
from jammi_duck.doors.server.statements import statement_of
from jammi_duck.errors import ConfigError, JammiError
from jammi_duck.sql import Sql, joined, literal, quoted, sql

# Quack takes its random numbers from httpfs.
_EXTENSIONS = ("httpfs", "quack")
_HOSTS = {"localhost", "127.0.0.1", "[::1]"}
# Of results that wait for their clients; what is beyond goes to a temporary file.
_MEMORY = "1GB"
# After so long, the extension has begun to read a result, and what it reads stays until it has all.
_KEPT_SECONDS = 30.0
_MOST_SESSIONS = 10_000
# What a client asks for when it attaches the server.
_SCHEMAS = re.compile(r"\s*SELECT catalog_name, schema_name\s+FROM information_schema\.schemata\b")
_TABLES = re.compile(r"\s*SELECT schema_name, sql, 'table'\s+FROM duckdb_tables\(\)")
# The extension asks for leave with such a text before it takes rows itself, and would take another one for leave.
_INSERT = re.compile(r"\s*INSERT\b", re.IGNORECASE)


def refuse_open_quack(config: Config) -> None:
    """Raise ConfigError where Quack would let in somebody whom the configuration does not.

    The extension has no TLS and no limits, and lets web pages of all origins ask.
    """
    listen = config.quack_listen
    if listen is None:
        return
    if listen.rpartition(":")[0] not in _HOSTS:
        raise ConfigError(
            f"[server] quack_listen = '{listen}' is refused, since Quack has no TLS: it listens on localhost, "
            "127.0.0.1 or [::1] alone. For clients elsewhere, put a proxy with TLS before it, or use Flight SQL"
        )
    if config.tokens is None:
        raise ConfigError(
            "[server] quack_listen needs tokens, also on this machine, where any web page in a browser could ask "
            "otherwise: name a file with [server] tokens (`jammi-duck token add NAME` makes it)"
        )
    if config.tls_client_ca is not None:
        raise ConfigError(
            "[server] quack_listen and tls_client_ca exclude each other, since Quack asks for no certificates: leave "
            "one of them out"
        )


class Quack:
    """The server for Quack."""

    def __init__(self, listen: str) -> None:
        """Load the extension; it does not listen yet. Raises ConfigError where it is not there."""
        self._listen = listen
        self._folder = tempfile.TemporaryDirectory(prefix="jammi-quack-")
        self._front = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "memory_limit": _MEMORY,
                "temp_directory": self._folder.name,
                "threads": "1",
            }
        )
        for name in _EXTENSIONS:
            try:
                self._front.execute(sql("LOAD {}", literal(_extension(name))))
            except duckdb.Error as error:
                raise ConfigError(_missing(name, error)) from None
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, str] = OrderedDict()
        self._results: deque[tuple[float, str]] = deque()
        self._stopped = threading.Event()

    def start(self, service: Service) -> None:
        """Listen. Raises ConfigError where the address cannot be had."""
        self._service = service
        front = self._front
        for function, work, parameters, returns in (
            ("jammi_quack_enter", self._enter, 3, "BOOLEAN"),
            ("jammi_quack_answer", self._answer, 2, "VARCHAR"),
        ):
            front.create_function(  # type: ignore[call-overload]
                function, work, ["VARCHAR"] * parameters, returns, null_handling="special", side_effects=True
            )
        for setting in (
            sql("SET GLOBAL quack_authentication_function = 'jammi_quack_enter'"),
            sql("SET GLOBAL quack_authorization_function = 'jammi_quack_answer'"),
            sql("SET GLOBAL python_enable_replacements = false"),
            sql("SET GLOBAL enable_external_access = false"),
            sql("SET GLOBAL lock_configuration = true"),
        ):
            front.execute(setting)
        where = literal(f"quack:{self._listen}")
        try:
            front.execute(sql("CALL quack_serve({}, token = {})", where, literal(secrets.token_hex(32)))).fetchall()
        except duckdb.Error as error:
            raise ConfigError(
                f"cannot listen on {self._listen} ([server] quack_listen): {_first_line(error)}"
            ) from None
        threading.Thread(target=self._forget, name="jammi-server-quack", daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopped.set()
        with contextlib.suppress(duckdb.Error):
            self._front.execute(sql("CALL quack_stop({})", literal(f"quack:{self._listen}"))).fetchall()
        self._folder.cleanup()

    def _enter(self, session: str, token: str, _: str) -> bool:
        """Whether a client may come in: the first thing that the extension asks."""
        try:
            self._service.gate.visitor(f"Bearer {token}")
        except UnknownError:
            return False
        with self._lock:
            self._tokens[session] = token
            while len(self._tokens) > _MOST_SESSIONS:
                self._tokens.popitem(last=False)
        return True

    def _visitor(self, session: str) -> Visitor:
        """Who has entered by this session: a reader, whatever else he may do elsewhere.

        Raises UnknownError where his token was revoked meanwhile.
        """
        with self._lock:
            token = self._tokens.get(session)
            if token is None:
                raise UnknownError("the session is over: attach the server again")
            self._tokens.move_to_end(session)
        return dataclasses.replace(self._service.gate.visitor(f"Bearer {token}"), role=READER)

    def _answer(self, session: str, text: str) -> str | None:
        """The SQL that the extension runs in place of a client's; None refuses whatever it is about to do."""
        if _INSERT.match(text):
            return None
        try:
            visitor = self._visitor(session)
            return self._copied(Query(statement_of(self._asked(text)), visitor))
        except (JammiError, duckdb.Error, MemoryError) as error:
            return sql("SELECT error({})", literal(str(error)))
        except Exception as error:
            log.error("a query over Quack failed", exc_info=error)
            return sql("SELECT error({})", literal("a fault of the server; its log tells more"))

    def _asked(self, text: str) -> str:
        """What a client means: in place of DuckDB's own lists, those of what it can reach.

        They have tables as views, for which a client asks their columns: those that the rows come with may differ from
        the table's.
        """
        names = self._service.database.names
        home = literal(names.home)
        listed = sql(
            "FROM information_schema.tables WHERE table_catalog = {} AND table_schema NOT IN ({}, 'jammi_catalog') "
            "OR table_catalog = {} AND table_schema = {}",
            home,
            literal(TABLES),
            literal(names.beside),
            literal(TABLES),
        )
        if _SCHEMAS.match(text):
            return sql("SELECT {}, 'main' UNION SELECT table_catalog, table_schema {}", home, listed)
        if _TABLES.match(text):
            return sql("SELECT table_schema, table_name, 'view' {}", listed)
        return text

    def _copied(self, query: Query) -> Sql:
        """Run a query, and copy its rows; the query for the copy."""
        name = secrets.token_hex(16)
        copy = quoted(name)
        with self._service.answer(query, lambda: False) as (schema, batches), self._front.cursor() as cursor:
            # Two columns of a result may have one name.
            columns = [f"c{i}" for i in range(len(schema))]
            cursor.begin()
            cursor.register("rows", schema.empty_table().rename_columns(columns))
            cursor.execute(sql("CREATE TABLE {} AS FROM rows", copy))
            for batch in batches:
                cursor.register("rows", pa.Table.from_batches([batch]).rename_columns(columns))
                cursor.execute(sql("INSERT INTO {} FROM rows", copy))
            cursor.commit()
        self._results.append((time.monotonic(), name))
        named = [
            sql("{} AS {}", quoted(own), quoted(column)) for own, column in zip(columns, schema.names, strict=True)
        ]
        return sql("SELECT {} FROM {}", joined(", ", named), copy)

    def _forget(self) -> None:
        """Drop the copies that the extension reads by now, or that nobody came for."""
        while not self._stopped.wait(1):
            while self._results and time.monotonic() - self._results[0][0] > _KEPT_SECONDS:
                _, name = self._results.popleft()
                with contextlib.suppress(duckdb.Error), self._front.cursor() as cursor:
                    cursor.execute(sql("DROP TABLE {}", quoted(name)))


def _extension(name: str) -> str:
    """The file of an extension in a package from PyPI; its name where there is none for this DuckDB."""
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    for folder in (found and found.submodule_search_locations) or ():
        file = Path(folder, "extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
        if file.is_file():
            return str(file)
    return name


def _missing(name: str, error: duckdb.Error) -> str:
    both = " and ".join(_EXTENSIONS)
    return (
        f"[server] quack_listen needs DuckDB's extensions {both}, and DuckDB {duckdb.__version__} has no {name} here: "
        f"`INSTALL {name}` in DuckDB, or the package duckdb-extension-{name} from PyPI, brings it, if there is one for "
        f"this version; or leave out --quack. DuckDB says: {_first_line(error)}"
    )


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]
