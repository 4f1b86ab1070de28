"""The connection of a command: to the database file if it exists, with jammi_duck installed as configured."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb

from jammi_duck.config.logs import log
from jammi_duck.config.options import Config
from jammi_duck.config.settings import Settings
from jammi_duck.doors.database_file import create, expanded
from jammi_duck.doors.installation import equip_as
from jammi_duck.doors.lock import connect_waiting
from jammi_duck.doors.s3 import read_s3_through_fsspec
from jammi_duck.errors import InputError, NoSourceError, NotFoundError, did_you_mean
from jammi_duck.jammi import Jammi
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import sql

IN_MEMORY = ":memory:"
# The arguments that set options, by their names in `Config`.
_ARGUMENTS = {
    "db": "database",
    "storage": "storage",
    "models": "models_path",
    "flight": "flight_listen",
    "http": "http_listen",
    "quack": "quack_listen",
    "tokens": "tokens",
}
_IS_FILE = sql("SELECT path IS NOT NULL FROM duckdb_databases() WHERE database_name = current_database()")
_SOURCES = sql("""
    SELECT concat_ws('.', nullif(schema_name, 'main'), table_name) AS source, 'table' AS kind, column_count AS columns
    FROM duckdb_tables() WHERE database_name = current_database() AND schema_name != 'jammi_catalog'
    AND table_name NOT LIKE '#_jammi#_column#_%' ESCAPE '#'
    UNION ALL
    SELECT concat_ws('.', nullif(schema_name, 'main'), view_name), 'view', column_count
    FROM duckdb_views() WHERE database_name = current_database() AND schema_name != 'jammi' AND NOT internal
    ORDER BY source ASC
""")


def arguments(options: argparse.Namespace) -> dict[str, object]:
    """The options set by the command line, by their names in `Config`."""
    given = {name: getattr(options, argument, None) for argument, name in _ARGUMENTS.items()}
    return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def equipped(options: argparse.Namespace, *, read_only: bool = False) -> Iterator[Jammi]:
    """A connection for a command with everything installed, closed at the end; warnings go to the log.

    Without a database file, it is in memory: files can be read, and the embedding tables of the location are found.

    Raises:
        NotFoundError: a database file was named, but does not exist.
    """
    settings: Settings = options.settings
    if getattr(options, "server", None) is not None:
        with _on_server(options) as jammi:
            yield jammi
        return
    path = existing(settings)
    with warnings.catch_warnings(), opened(path, settings.config, read_only=read_only, wait=options.wait) as con:
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_: log.warning("%s", message)
        try:
            # A command is too short to profit from preloaded models.
            jammi = equip_as(con, dataclasses.replace(settings.config, preload_models=()))
            with errors_of_ours():
                yield jammi
        except NoSourceError as error:
            known = [name for name, _, _ in sources(con).fetchall()]
            near = did_you_mean(error.name, known) or ";"
            where = f"in '{settings.config.database}'" if path != IN_MEMORY else "here, and no database"
            raise NoSourceError(
                f"there is no table, view or file '{error.name}' {where}{near} `jammi-duck sources list` shows what "
                "there is, `jammi-duck sources add` adds to it, and --db names another database"
            ) from error
        except NotFoundError as error:
            if error.remedy is None:
                raise
            raise NotFoundError(f"{error.message}; `jammi-duck generate` makes one") from error


@contextlib.contextmanager
def _on_server(options: argparse.Namespace) -> Iterator[Jammi]:
    """The methods on the server that a command names."""
    from jammi_duck.doors.remote import remote

    for name in ("db", "storage", "models"):
        if getattr(options, name, None) is not None:
            raise InputError(f"--server and --{name} exclude each other: the server has a database and a location")
    token = None
    if options.token_file is not None:
        try:
            token = Path(options.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the token in '{options.token_file}': {error}") from error
    with remote(options.server, token, options.settings.config.tls_certificate) as jammi:
        yield jammi


@contextlib.contextmanager
def opened(
    path: str, config: Config, *, read_only: bool = False, wait: timedelta = timedelta(0)
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database file, without DuckDB's progress bar and with s3://, closed at the end.

    Raises:
        InputError: the file is no database.
        StorageError: another process has it open, and does not close it within `wait`.
    """
    # An absolute path, because DuckDB would open `md:name` and the like as a remote database, and send its keys there.
    file = path if path == IN_MEMORY else os.path.abspath(expanded(path))
    if not read_only:
        create(file)
    con = connect_waiting(file, read_only=read_only and path != IN_MEMORY, wait=wait)
    try:
        if path != IN_MEMORY and con.execute(_IS_FILE).fetchone() == (False,):
            # DuckDB opens a CSV file as an in-memory database, and nothing would be saved.
            raise InputError(f"'{path}' is not a DuckDB database; name another with --db")
        con.execute("SET enable_progress_bar = false")
        read_s3_through_fsspec(con, config.storage_options)
        yield con
    finally:
        con.close()


def sources(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """The tables and views of a database, except our own, with kind and number of columns."""
    return con.sql(_SOURCES)


def existing(settings: Settings) -> str:
    """The path of the database file; `:memory:` if there is none and none was named.

    Raises:
        NotFoundError: a database file was named, but does not exist.
    """
    path = settings.config.database
    if path == IN_MEMORY or os.path.exists(expanded(path)):
        return path
    if settings.is_set("database"):
        raise NotFoundError(
            f"there is no database '{path}'; `jammi-duck sources add NAME --path FILE --db {path}` makes one"
        )
    return IN_MEMORY
