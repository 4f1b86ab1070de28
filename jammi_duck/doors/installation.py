"""`install` and `connect`: register the SQL functions on a DuckDB connection."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import duckdb
import pyarrow as pa

from jammi_duck.config import logs, settings
from jammi_duck.config.options import Config
from jammi_duck.doors.composition import loaded_encoders, open_engine
from jammi_duck.doors.database_file import READ_BY_SHELLS, create, expanded
from jammi_duck.doors.host import ConnectionHost
from jammi_duck.doors.reloading import load_anew, note_loaded, reloaded
from jammi_duck.encoder import Encoders
from jammi_duck.errors import ConfigError, JammiError, StorageError, did_you_mean
from jammi_duck.jammi import Jammi
from jammi_duck.lifetime import at_work, forever, stop_at_exit
from jammi_duck.raised import errors_of_ours, keep
from jammi_duck.sql import Sql, literal, sql
from jammi_duck.storage.files.local_store import LocalStore
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.tables.embedding_tables import PROTOCOL, EmbeddingTables
from jammi_duck.udfs.arguments import plain
from jammi_duck.udfs.engine import ScalarFunction
from jammi_duck.udfs.functions import FUNCTIONS
from jammi_duck.udfs.macros import macros
from jammi_duck.work.progress import in_notebook

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

_PROBE = sql("_jammi_installation")
# A statement that is refused, as is a SET without ipywidgets, would abort the caller's transaction.
_CAN_HIDE_BAR = sql("SELECT current_setting('enable_progress_bar') AND NOT current_setting('lock_configuration')")
# Kept with DuckDB, whose functions find them by name, also when this module is loaded again.
_installations: dict[str, Installation] = vars(duckdb).setdefault("_jammi_duck_installations", {})
# DuckDB calls a function as long as the database is open, but frees it with the connection that registered it. So each
# is kept for ever, and looks up its installation by name; the installation goes with its connections.
_lent: list[Callable[..., pa.Array]] = vars(duckdb).setdefault("_jammi_duck_lent", [])
# Those of the process that this one was forked from.
_inherited: set[str] = vars(duckdb).setdefault("_jammi_duck_inherited", set())
_installing = threading.Lock()


def install(
    con: duckdb.DuckDBPyConnection,
    storage: str | Path | None = None,
    model: str | None = None,
    *,
    segment_rows: int | None = None,
    retention: timedelta | str | None = None,
    follow: timedelta | str | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int | None = None,
    max_loaded_models: int | None = None,
    preload_models: Sequence[str] | None = None,
    models_path: Sequence[str | Path] | None = None,
    images_allow: Sequence[str | Path] | None = None,
    images_max_pixels: int | None = None,
    images_max_bytes: int | str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    device: int | None = None,
    gpu_memory_limit: int | str | None = None,
    gpu_memory_fraction: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Jammi:
    """Give a connection `embed`, `jammi_generate`, `jammi_search` and the rest.

    `storage` is a local path or an fsspec URL (default `./artifacts`), `model` the model that is taken where none is
    named; the other options are those of `config.options.Config`. What is not given comes from the environment, from
    `jammi.toml`, or is the default: see `config.settings`. Builds that a dead process left are settled, and tables
    that storage has and the catalog does not know are found. A second connection to the same database gets the macros,
    and shares everything else; what other processes have done meanwhile is looked at again. In a notebook, DuckDB's own
    progress bar is turned off on the connection.

    Raises:
        ConfigError: an option cannot be used, or differs from that of an earlier `install` on this database.
        ModelError: a model of `preload_models` cannot be had.
        StorageError: the location cannot be read.
    """
    given = {
        "storage": storage,
        "model": model,
        "segment_rows": segment_rows,
        "retention": retention,
        "follow": follow,
        "cache_dir": cache_dir,
        "batch_size": batch_size,
        "max_loaded_models": max_loaded_models,
        "preload_models": preload_models,
        "models_path": models_path,
        "images_allow": images_allow,
        "images_max_pixels": images_max_pixels,
        "images_max_bytes": images_max_bytes,
        "engine": engine,
        "precision": precision,
        "threads": threads,
        "device": device,
        "gpu_memory_limit": gpu_memory_limit,
        "gpu_memory_fraction": gpu_memory_fraction,
        "storage_options": storage_options,
    }
    options = {name: plain(value) for name, value in given.items() if value is not None}
    if reloaded():
        return cast("Jammi", load_anew(__name__).install(con, **options))
    found = settings.load(options)
    if found.is_set("log_level") or found.is_set("log_format"):
        logs.show(found.config.log_level, found.config.log_format)
    for line in found.unused:
        logs.log.warning("%s", line)
    return equip_as(con, found.config, options)


def equip_as(con: duckdb.DuckDBPyConnection, config: Config, given: Mapping[str, object] | None = None) -> Jammi:
    """As `install`, with a checked configuration, of which `given` was asked for in this call."""
    return equip(con, config, loaded_encoders(config), given)


def equip(
    con: duckdb.DuckDBPyConnection, config: Config, encoders: Encoders, given: Mapping[str, object] | None = None
) -> Jammi:
    """As `equip_as`, with the encoders to take models from."""
    installation = installation_on(con, config, encoders, given)
    name = installation.name
    equip_other, with_engine = functools.partial(_add_to, name), functools.partial(_with_engine, name)
    return Jammi(con, installation.engine.tables.store.location, equip_other, with_engine)


def installation_on(
    con: duckdb.DuckDBPyConnection, config: Config, encoders: Encoders, given: Mapping[str, object] | None = None
) -> Installation:
    """What the connections to a database share; the first call makes it, and each gives its connection the macros."""
    with errors_of_ours(), _installing:
        _forget_closed()
        name = _installation_of(con)
        if name in _inherited:
            raise JammiError(_FORKED)
        if name is not None and name in _installations and not _installations[name].is_outdated:
            installation = _installations[name]
            installation.refuse_other(config, given or {})
            installation.engine.jobs.follow()
        else:
            installation = Installation(con, config, encoders, name)
        installation.add(con)
    return installation


def _add_to(installation: str, con: duckdb.DuckDBPyConnection) -> None:
    """Give another connection the macros, while the installation is there."""
    _installed(installation).add(con)


def _with_engine(installation: str, work: Callable[..., T], *arguments: Any) -> T:
    """Call some work with the engine, while the installation is there."""
    found = _installed(installation)
    return found.run(work, found.engine, *arguments)


def _installed(name: str) -> Installation:
    if name in _inherited:
        raise JammiError(_FORKED)
    if name not in _installations:
        raise JammiError(_CLOSED)
    return _installations[name]


def connect(
    database: str | Path = ":memory:", *, storage_compatibility_version: str = READ_BY_SHELLS, **options: Any
) -> duckdb.DuckDBPyConnection:
    """`duckdb.connect(database)` and `install(con, **options)` in one; returns the connection.

    A new database file gets a format that every supported DuckDB reads, so that `jammi-duck shell` and dbt can use it,
    too: DuckDB 2.0 by itself writes one that only it reads. A file that is there keeps its format.

    Args:
        database: the path of the database file; by default, the database is in memory.
        storage_compatibility_version: the oldest DuckDB that is to read a new file, such as 'v1.0.0', or 'latest' for
            the newest format. This is DuckDB's option of that name.
        options: those of `install`.

    Raises:
        duckdb.Error: the file cannot be opened, or DuckDB has no such format.
        ConfigError: as `install`, or there is no such option, in which case no file is made.
        ModelError, StorageError: as `install`.

    Example:
        >>> con = jammi_duck.connect("patents.duckdb")
        >>> con.close()
    """
    unknown = unknown_option(options)
    if unknown is not None:
        raise ConfigError(f"jammi_duck.connect has {unknown}")
    path = expanded(database)
    create(path, storage_compatibility_version)
    con = duckdb.connect(path)
    try:
        install(con, **options)
    except BaseException:
        con.close()
        raise
    return con


def unknown_option(given: Iterable[object]) -> str | None:
    """What is wrong with the first of these names that is no option of `install`; None if all are options."""
    known = list(inspect.signature(install).parameters)[1:]
    for name in map(str, given):
        if name not in known:
            near = did_you_mean(name, known) or ";"
            return f"no option '{name}'{near} options: {', '.join(known)}"
    return None


class Installation:
    """Everything that the connections to one database share."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, config: Config, encoders: Encoders, name: str | None = None
    ) -> None:
        """Open the catalog and the location, settle what a dead process left, and register the functions.

        `name` is that of an earlier installation on this open database, whose functions are there still.
        """
        self.name = name or secrets.token_hex(8)
        self.config = config
        self.host = ConnectionHost()
        self.host.add(con)
        opened = functools.partial(_register_files, self.host)
        self.engine = open_engine(self.host, config, encoders, self.host.ended, opened)
        stop_at_exit(self._stop)
        self._calls = {function.name: functools.partial(function.call, self.engine) for function in FUNCTIONS}
        _installations[self.name] = self
        self._register_functions()

    def add(self, con: duckdb.DuckDBPyConnection) -> str:
        """Give a connection the macros; returns the id of its session."""
        # DuckDB's own would show a build only at its end, below ours.
        if in_notebook() and con.execute(_CAN_HIDE_BAR).fetchall() == [(True,)]:
            con.execute("SET enable_progress_bar = false")
        session = self.host.add(con)
        for statement in macros(session):
            con.execute(statement)
        return session

    def refuse_other(self, config: Config, given: Mapping[str, object]) -> None:
        """Raise ConfigError where an option differs from those that this database has."""
        for name in given:
            ours, theirs = getattr(self.config, name), getattr(config, name)
            if name == "storage":
                ours = self.engine.tables.store.location
                theirs = open_store(config.storage, config.cache_dir, config.storage_options).location
            if ours != theirs:
                # Their values may be secret.
                secret = name == "storage_options"
                has, asked = ("others than these", "these") if secret else (f"'{ours}'", f"'{theirs}'")
                raise ConfigError(
                    f"this database is installed with {name} = {has}, and functions belong to the database: "
                    f"it cannot have {asked} as well; close its connections first"
                )

    def _register_functions(self) -> None:
        name = self.name
        probe = ScalarFunction(_PROBE, ("INTEGER",), "VARCHAR", True, lambda c: pa.repeat(pa.scalar(name), len(c)))
        lent = [(probe, probe.call)]
        lent += [(function, _call_by_name(name, function)) for function in FUNCTIONS]
        with self.host.cursor() as cursor:
            # DuckDB parses the text of a type whenever it is given one.
            types = {
                text: cursor.sqltype(text) for function, _ in lent for text in (*function.parameters, function.returns)
            }
            for function, call in lent:
                # One that is there already is of an earlier installation by the same name, and calls this one now.
                with contextlib.suppress(duckdb.CatalogException):
                    cursor.create_function(  # type: ignore[call-overload]
                        function.name,
                        _lend(len(function.parameters), call),
                        [types[each] for each in function.parameters],
                        types[function.returns],
                        type="native" if function.by_row else "arrow",
                        null_handling="special",
                        side_effects=function.volatile,
                    )

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401 - columns, or a row's values
        """Run one of the functions."""
        return self.run(self._calls[name], *arguments)

    def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do some work, for which an exit waits. Raises JammiError where modules were loaded again."""
        if self.is_outdated:
            raise JammiError("modules of jammi_duck were loaded again since it was installed: call install again")
        try:
            with at_work(comes_back=True):
                return work(*arguments)
        finally:
            # Some modules are loaded when they are first needed.
            note_loaded()

    @property
    def is_outdated(self) -> bool:
        """Whether modules that this consists of were loaded again."""
        return reloaded() is not None

    def _stop(self) -> None:
        self.engine.jobs.interrupt()


def _installation_of(con: duckdb.DuckDBPyConnection) -> str | None:
    """The name of the installation whose functions a connection's database has."""
    if not _lent:
        # No database has functions of ours yet; DuckDB would look for similar names for milliseconds.
        return None
    cursor = con.cursor()
    try:
        ((name,),) = cursor.execute(sql("SELECT system.main.{}(0)", _PROBE)).fetchall()
    except duckdb.CatalogException:
        return None
    finally:
        cursor.close()
    return str(name)


def _register_files(host: ConnectionHost, tables: EmbeddingTables) -> None:
    """Let DuckDB read remote Parquet for the views, under a protocol of our own."""
    for entry in tables.catalog.entries("building", "ready"):
        with contextlib.suppress(StorageError):
            tables.store_at(entry.location)
    if all(isinstance(store, LocalStore) for store in tables.stores().values()):
        return
    from jammi_duck.storage.tables.remote_views import StoredFiles

    with host.cursor() as cursor:
        if cursor.filesystem_is_registered(PROTOCOL):
            cursor.unregister_filesystem(PROTOCOL)
        cursor.register_filesystem(StoredFiles(tables.stores))


def _lend(parameters: int, work: Callable[..., pa.Array]) -> Callable[..., pa.Array]:
    def call(*columns: pa.ChunkedArray) -> pa.Array:
        return work(*columns)

    # DuckDB counts the parameters by the signature.
    places = [inspect.Parameter(f"c{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(parameters)]
    call.__signature__ = inspect.Signature(places)  # type: ignore[attr-defined]
    _lent.append(call)
    return call


def _call_by_name(installation: str, function: ScalarFunction) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:  # noqa: ANN401 - columns, or a row's values
        try:
            return _installed(installation).call(function.name, arguments)
        except JammiError as error:
            keep(error)
            if function.by_row:
                return _refusal(error)
            raise
        except BaseException as error:
            keep(error)
            raise

    return call


def _refusal(error: JammiError) -> Sql:
    """A query that DuckDB refuses with the text of an error, without words of its own about functions of Python's."""
    return sql("FROM query(error({}))", literal(f"{type(error).__name__}: {error}"))


_CLOSED = "every connection that jammi_duck was installed on is closed; call install again"
_FORKED = (
    "this connection is of the process that this one was forked from, and DuckDB's connections do not survive a fork: "
    "connect and install in the child"
)


def _after_fork() -> None:
    global _installing
    _installing = threading.Lock()
    # Their connections must not even be closed here: the files are the parent's, and DuckDB's threads are not there.
    for installation in _installations.values():
        forever(installation)
    _inherited.update(_installations)
    _installations.clear()


os.register_at_fork(after_in_child=_after_fork)


def _forget_closed() -> None:
    for name, installation in list(_installations.items()):
        if not installation.host.is_open:
            del _installations[name]


# What is loaded by now fits each other.
note_loaded()
