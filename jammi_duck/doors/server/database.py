"""The database that a server reads: opened, restricted, and lent to one query at a time on a connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import duckdb

from jammi_duck.config.logs import log
from jammi_duck.config.options import Config
from jammi_duck.doors.database_file import expanded
from jammi_duck.doors.installation import Installation, installation_on
from jammi_duck.doors.lock import connect_waiting
from jammi_duck.doors.s3 import read_s3_through_fsspec
from jammi_duck.doors.server.allowed_files import allowed_files, is_pattern
from jammi_duck.doors.server.allowed_files import expanded as expanded_paths
from jammi_duck.doors.server.names import Names
from jammi_duck.encoder import Encoders
from jammi_duck.errors import NotFoundError
from jammi_duck.sql import Sql, folded, joined, literal, sql
from jammi_duck.storage.tables.embedding_tables import PROTOCOL
from jammi_duck.udfs.plain_search import SEARCH_PATH, Look
from jammi_duck.udfs.sources import Relation, SearchPath, attached

_TABLES = sql(
    "SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()"
)
# Of the tables that nobody can write to, by each name that clients write.
_MOST_SEEN = 1_000
_BEGIN, _END = sql("BEGIN TRANSACTION READ ONLY"), sql("ROLLBACK")


T = TypeVar("T")
Parameters: TypeAlias = Sequence[object] | Mapping[str, object]


@dataclass(eq=False)
class Lent:
    """A connection of a database that one query has to itself, within a transaction that cannot write."""

    database: ServedDatabase
    con: duckdb.DuckDBPyConnection
    session: str
    writes: bool
    path: str
    search_path: SearchPath

    def execute(self, statement: duckdb.Statement | str, parameters: Parameters = ()) -> duckdb.DuckDBPyConnection:
        """Run a statement."""
        return self.con.execute(statement, parameters) if parameters else self.con.execute(statement)

    def rows(self, statement: duckdb.Statement | str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        return self.execute(statement, parameters).fetchall()


class ServedDatabase:
    """One opening of the database file. A server opens another when the file has been replaced."""

    def __init__(self, config: Config, encoders: Encoders, *, wait: timedelta = timedelta(0)) -> None:
        """Open it read-only, unless clients may write; from then on DuckDB opens no other file.

        Raises:
            NotFoundError: there is no such file.
            StorageError: another process has it open.
        """
        file = os.path.abspath(expanded(config.database))
        if not os.path.exists(file):
            raise NotFoundError(
                f"there is no database '{config.database}' to serve; `jammi-duck sources add NAME --path FILE --db "
                f"{config.database}` makes one"
            )
        self._file, self._is_copy = file, config.snapshot
        self._opened = _state(file, changed=self._is_copy)
        self._folder = tempfile.TemporaryDirectory(prefix="jammi-serve-") if self._is_copy else None
        try:
            if self._folder is not None:
                file = _copied(file, self._folder.name, wait)
            self._root = connect_waiting(file, read_only=not config.allow_write, wait=wait)
        except BaseException:
            self._clean_up()
            raise
        try:
            self._open(config, encoders)
        except BaseException:
            self._root.close()
            self._clean_up()
            raise

    def _clean_up(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _open(self, config: Config, encoders: Encoders) -> None:
        root = self._root
        root.execute("SET GLOBAL python_enable_replacements = false")
        # It would take as much memory as there is, for files that the system caches anyway.
        root.execute("SET GLOBAL enable_external_file_cache = false")
        read_s3_through_fsspec(root, config.storage_options)
        self.installation: Installation = installation_on(root, config, encoders)
        self.engine = self.installation.engine
        self.names = Names(self.engine.host)
        self.names.add_sources()
        self.names.follow()
        # Clients attach no others.
        self.attached = attached(self.engine.host)
        self.engine.stand_ins.update(self.names.stand_ins(self.attached))
        self._fixed: frozenset[Relation] = frozenset()
        if not config.allow_write:
            self._fixed = frozenset(Relation(*map(folded, row)) for row in root.execute(_TABLES).fetchall())
        self._seen: dict[tuple[str, Sql], tuple[list[tuple[Any, ...]], list[str]]] = {}
        self._restrict()
        self.engine.jobs.writers = set()
        self._lock = threading.Condition()
        self._idle: list[Lent] = []
        self._lent: set[Lent] = set()
        self._is_closed = False

    def _restrict(self) -> None:
        """Let DuckDB read the files that views name, and those of embedding tables, and no others."""
        stores = self.engine.tables.stores()
        views = [f"{PROTOCOL}://{location}/" for location in stores]
        folders = joined(", ", map(literal, [*(store.local_folder for store in stores.values()), *views]))
        self._patterns = allowed_files(self._root)
        self._files = expanded_paths(self._root, self._patterns)
        files = joined(", ", map(literal, self._files))
        for setting in (
            sql("SET GLOBAL allowed_directories = [{}]", folders),
            sql("SET GLOBAL allowed_paths = [{}]", files),
            sql("SET GLOBAL enable_external_access = false"),
            sql("SET GLOBAL lock_configuration = true"),
        ):
            self._root.execute(setting)

    @contextlib.contextmanager
    def lend(self, *, writes: bool = False, path: str | None = None) -> Iterator[Lent]:
        """A connection for one query; `writes` says whether it may change embedding tables by our functions.

        `path` is a search path that the client has chosen.
        """
        lent = self._take(writes)
        try:
            wanted = path or self.names.search_path
            if lent.path != wanted:
                lent.con.execute(sql("SET search_path = {}", literal(wanted)))
                lent.path = wanted
                lent.search_path = SearchPath(*lent.rows(SEARCH_PATH)[0])
            lent.con.execute(_BEGIN)
            yield lent
        finally:
            self._give_back(lent)

    def _take(self, writes: bool) -> Lent:
        with self._lock:
            if self._is_closed:
                raise ClosedDatabaseError
            found = next((each for each in reversed(self._idle) if each.writes == writes), None)
            if found is not None:
                self._idle.remove(found)
                self._lent.add(found)
                return found
        try:
            con = self._root.cursor()
        except duckdb.ConnectionException:
            raise ClosedDatabaseError from None
        try:
            session = self.installation.add(con)
        except BaseException:
            con.close()
            raise
        made = Lent(self, con, session, writes, "", SearchPath("", ""))
        with self._lock:
            if self._is_closed:
                con.close()
                raise ClosedDatabaseError
            if writes and self.engine.jobs.writers is not None:
                self.engine.jobs.writers.add(session)
            self._lent.add(made)
        return made

    def _give_back(self, lent: Lent) -> None:
        is_usable = True
        try:
            lent.con.execute(_END)
        except duckdb.TransactionException:
            # It had not begun, or an error has ended it.
            pass
        except BaseException as error:
            log.debug("a connection is closed after %s", error)
            is_usable = False
        with self._lock:
            self._lent.discard(lent)
            if is_usable and not self._is_closed:
                self._idle.append(lent)
            else:
                self._let_go(lent)
            self._lock.notify_all()

    def _let_go(self, lent: Lent) -> None:
        if self.engine.jobs.writers is not None:
            self.engine.jobs.writers.discard(lent.session)
        with contextlib.suppress(duckdb.Error):
            lent.con.close()

    def with_engine(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do some work with the engine."""
        return self.installation.run(work, self.engine, *arguments)

    def seen(self, lent: Lent, look: Look) -> tuple[list[tuple[Any, ...]], list[str]]:
        """See `plainly_found`. A table of a database that nobody can write to stays as it was."""
        key = lent.path, look.state
        found = self._seen.get(key)
        if found is None:
            found = lent.rows(look.state), lent.con.sql(look.columns).columns
            if look.relation in self._fixed and len(self._seen) < _MOST_SEEN:
                self._seen[key] = found
        return found

    def interrupt(self, lent: Lent) -> None:
        """Stop what runs on a connection."""
        self.engine.jobs.interrupt(lent.session)
        with contextlib.suppress(duckdb.Error):
            lent.con.interrupt()

    def follow(self) -> bool:
        """Look for what other processes have changed in the location; whether the names of tables have changed."""
        self.installation.run(self.engine.jobs.follow)
        return self.names.follow()

    def is_replaced(self) -> bool:
        """Whether the file is another one than was opened, or a copied one has changed, or patterns mean other files.

        A file that is not there now may come back.
        """
        state = _state(self._file, changed=self._is_copy)
        return state is not None and (state != self._opened or self._has_other_files())

    def _has_other_files(self) -> bool:
        """Whether a pattern in a view means other files than when the database was opened; of this machine alone."""
        if not any(is_pattern(path) and "://" not in path for path in self._patterns):
            return False
        with duckdb.connect() as con:
            local = [path for path in self._patterns if "://" not in path]
            return not set(expanded_paths(con, local)) <= set(self._files)

    def close(self, wait: float) -> None:
        """Lend no more, wait until running queries end, for so many seconds, then interrupt them; and close."""
        with self._lock:
            self._is_closed = True
            for lent in self._idle:
                self._let_go(lent)
            self._idle.clear()
            if not self._lock.wait_for(lambda: not self._lent, wait):
                for lent in list(self._lent):
                    self.interrupt(lent)
                self._lock.wait_for(lambda: not self._lent, wait)
        self._root.close()
        self._clean_up()


def _state(file: str, *, changed: bool) -> object:
    """Which file this is, and with `changed` in which state; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_dev, (found.st_mtime_ns, found.st_size) if changed else None


def _copied(file: str, folder: str, wait: timedelta) -> str:
    """A copy of a database file that nobody writes to meanwhile; its path."""
    copy = os.path.join(folder, os.path.basename(file))
    # While it is open here, no other process can write to it.
    with connect_waiting(file, read_only=True, wait=wait):
        for ending in ("", ".wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(file + ending, copy + ending)
    return copy


class ClosedDatabaseError(Exception):
    """The database is being opened anew."""
