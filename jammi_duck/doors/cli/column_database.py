"""The column of vectors that a command names: its options, and the database that it is in."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.doors.cli.commands import add_models, add_wait, names
from jammi_duck.doors.cli.connection import opened
from jammi_duck.doors.composition import loaded_encoders
from jammi_duck.doors.database_file import expanded
from jammi_duck.doors.host import ConnectionHost
from jammi_duck.encoder import Encoder
from jammi_duck.encoder.wrappers import Wrappers
from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql
from jammi_duck.udfs.vector_column import VectorColumn

if TYPE_CHECKING:
    from jammi_duck.doors.columns.server_column import ServerColumn

AnyColumn: TypeAlias = "VectorColumn | ServerColumn"
_SERVERS = re.compile(r"\s*(postgres|postgresql|cockroachdb)(\+\w+)?://", re.IGNORECASE)
_SHOWN = 2000
# What may be a URL with a password in it, mistyped.
_MAY_BE_SECRET = re.compile(r":.*@|passw|pwd", re.IGNORECASE | re.DOTALL)


def add_column(command: argparse.ArgumentParser, *, text: bool = True, model: bool = True) -> None:
    """Add what names a column of vectors: `--url` and the like, and by which model they are."""
    command.add_argument(
        "-u", "--url", metavar="URL", required=True, help="a DuckDB file, or postgresql://user@host/database"
    )
    command.add_argument("-t", "--table", metavar="TABLE", required=True, help="the table")
    if text:
        command.add_argument("-i", "--input", metavar="COLUMN", required=True, help="the column with the text")
    command.add_argument("-o", "--output", metavar="COLUMN", required=True, help="the column with the vectors")
    if model:
        command.add_argument("-m", "--model", help="a model's name, or a directory (default: inference.model)")
        add_models(command)


def add_key(command: argparse.ArgumentParser) -> None:
    """Add `--key`."""
    command.add_argument(
        "--key", metavar="A,B", type=names, help="the columns that tell rows apart (default: the primary key)"
    )


def add_how(command: argparse.ArgumentParser) -> None:
    """Add how the database is opened, and `-d`."""
    add_wait(command)
    command.add_argument("-d", "--debug", action="store_true", help="write each statement to standard error, too")


def is_server(url: str) -> bool:
    """Whether a URL names a database server."""
    return bool(_SERVERS.match(url))


@contextlib.contextmanager
def opened_column(
    options: argparse.Namespace,
    *,
    read_only: bool,
    any_type: bool = False,
    needs_key: bool = True,
    wait: timedelta | None = None,
) -> Iterator[AnyColumn]:
    """The column that the options name, closed at the end; `wait` goes before `--wait`.

    Raises:
        InputError, NotFoundError: there is no such database, table or column.
    """
    if getattr(options, "debug", False):
        log.setLevel(logging.DEBUG)
    text, key = getattr(options, "input", None), getattr(options, "key", None)
    url = str(options.url)
    if is_server(url):
        with _server_column(options, read_only, any_type, needs_key) as column:
            yield column
        return
    path = url.removeprefix("duckdb:///") if url.startswith("duckdb:///") else url
    if not os.path.exists(expanded(path)):
        shown = "of that name" if _MAY_BE_SECRET.search(path) else f"'{path}'"
        raise NotFoundError(
            f"there is no database {shown}; --url names a DuckDB file that is there, or a server, as in "
            "postgresql://host/database"
        )
    with opened(path, options.settings.config, read_only=read_only, wait=wait or options.wait) as con, errors_of_ours():
        host = _ToldHost()
        host.add(con)
        yield VectorColumn(host, options.table, text, options.output, key=key, any_type=any_type)


@contextlib.contextmanager
def _server_column(
    options: argparse.Namespace, read_only: bool, any_type: bool, needs_key: bool
) -> Iterator[ServerColumn]:
    try:
        from jammi_duck.doors.columns.connections import Connections
        from jammi_duck.doors.columns.server_column import ServerColumn
    except ImportError as error:
        raise InputError(
            f"--url names a database server, and psycopg is missing ({error}): pip install 'jammi-duck[postgres]'"
        ) from None
    with contextlib.closing(Connections(str(options.url), read_only=read_only)) as connections:
        yield ServerColumn(
            connections,
            options.table,
            getattr(options, "input", None),
            options.output,
            key=getattr(options, "key", None),
            any_type=any_type,
            needs_key=needs_key,
        )


class _ToldHost(ConnectionHost):
    """Writes each statement into the log, for `--debug`."""

    def sql(self, text: Sql, parameters: Sequence[object] = (), rows: pa.Table | None = None) -> list[tuple[Any, ...]]:
        log.debug("%s", text[:_SHOWN])
        return super().sql(text, parameters, rows)


def need_one(options: argparse.Namespace, *given: str) -> None:
    """Raises InputError where one of these options is below 1."""
    for name in given:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def takes_any_type(options: argparse.Namespace) -> bool:
    """Whether the model is a wrapper, which gets values of any type."""
    config = options.settings.config
    return Wrappers(config.models_path, config.wrappers).find(options.model or config.model) is not None


def encoder_of(options: argparse.Namespace, threads: int | None = None) -> Encoder:
    """The encoder of the model that the options name, on so many cores."""
    config = options.settings.config
    chosen = config if threads is None else dataclasses.replace(config, threads=threads)
    return loaded_encoders(chosen).get(options.model or config.model)
