"""The connection that a command works on: a database file if there is one, equipped as the configuration says."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator

import duckdb

from jammi_duck.cli.s3 import read_s3_through_fsspec
from jammi_duck.config import Config
from jammi_duck.errors import NotFoundError
from jammi_duck.install import Jammi, equip_as
from jammi_duck.logs import log
from jammi_duck.settings import Settings

IN_MEMORY = ":memory:"


def arguments(options: argparse.Namespace) -> dict[str, object]:
    """What the call says of the configuration, by its names in `Config`."""
    given = {"database": getattr(options, "db", None), "storage": getattr(options, "storage", None)}
    return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def equipped(settings: Settings, *, read_only: bool = False) -> Iterator[Jammi]:
    """A connection with everything installed, closed at the end; warnings on it go to the log.

    Without a database file it is in memory: files can be read, and the embedding tables of the location are found.

    Raises:
        NotFoundError: a database file was asked for, and is not there.
    """
    path = _existing(settings)
    with warnings.catch_warnings(), opened(path, settings.config, read_only=read_only) as con:
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_: log.warning("%s", message)
        try:
            # A command ends too soon for loaded models to be of use.
            yield equip_as(con, dataclasses.replace(settings.config, preload_models=()))
        except duckdb.CatalogException as error:
            if path == IN_MEMORY:
                reason = str(error).removeprefix("Catalog Error: ").splitlines()[0]
                raise NotFoundError(
                    f"{reason} There is no database '{settings.config.database}' here, so only files can be read; "
                    "name yours with --db, or make one with `jammi-duck sources add`"
                ) from error
            raise


@contextlib.contextmanager
def opened(path: str, config: Config, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database file that shows no progress of its own and reads s3://, closed at the end."""
    con = duckdb.connect(path, read_only=read_only and path != IN_MEMORY)
    try:
        con.execute("SET enable_progress_bar = false")
        read_s3_through_fsspec(con, config.storage_options)
        yield con
    finally:
        con.close()


def _existing(settings: Settings) -> str:
    path = settings.config.database
    if path == IN_MEMORY or os.path.exists(path):
        return path
    if settings.is_set("database"):
        raise NotFoundError(f"there is no database '{path}'; `jammi-duck sources add --db {path}` makes one")
    return IN_MEMORY
