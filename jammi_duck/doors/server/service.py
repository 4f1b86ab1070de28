"""What every door of the server shares: the database, and how a query of a client runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.config.options import Config
from jammi_duck.cpus import cpus
from jammi_duck.doors.composition import loaded_encoders
from jammi_duck.doors.server.admission import Admission, Cores, GoneError
from jammi_duck.doors.server.database import ClosedDatabaseError, Lent, Parameters, ServedDatabase
from jammi_duck.doors.server.grants import Granted, Later, Narrowing, granted
from jammi_duck.doors.server.identity import ADMIN, READER, Gate, Visitor
from jammi_duck.doors.server.metrics import Metrics
from jammi_duck.doors.server.models import ServedEncoders
from jammi_duck.doors.server.statements import Schemas, Statement, parser, shape
from jammi_duck.doors.server.streams import BATCH_ROWS
from jammi_duck.doors.server.syntax import explained
from jammi_duck.errors import ConfigError, InputError, JammiError, NotFoundError, StorageError
from jammi_duck.kept import numbered
from jammi_duck.plainly import plainly_found
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import folded, literal, sql

_SEARCH = re.compile(r"\bjammi_(search|similar|matches)\b", re.IGNORECASE)
_EVALUATION = re.compile(r"\bjammi_(eval|eval_queries|eval_compare|tune)\b", re.IGNORECASE)
_SUGGESTED = re.compile(r"[;.,]?\s*(Did you mean|Candidate).*", re.IGNORECASE | re.DOTALL)
_BUILD = re.compile(r"\bjammi_(generate|sync|refresh|import|index_words|compact)\b", re.IGNORECASE)
# DuckDB's own among them, which a name for a part of a query must not hide.
_TABLES = "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views()"
_MACROS = (
    "SELECT DISTINCT function_name FROM duckdb_functions() "
    "WHERE macro_definition IS NOT NULL AND NOT internal AND database_name <> 'temp'"
)
_OURS = re.compile(r"\b_?jammi_", re.IGNORECASE)
_TICK_SECONDS = 0.1
_REOPENING_SECONDS = 60.0
_MOST_GRANTS = 100
_HANG_UP_SECONDS = 1.0
# DuckDB 1 streams what `execute` gives; DuckDB 2 copies it, and streams relations.
_RELATIONS_STREAM = int(duckdb.__version__.partition(".")[0]) >= 2


class LimitError(JammiError):
    """A query has passed a limit of the server."""


@dataclass(eq=False)
class Query:
    """A statement of a client that runs, or is about to."""

    statement: Statement
    visitor: Visitor
    rows: Sequence[Sequence[Any]] = ((),)
    kinds: Sequence[str | None] = ()
    path: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    began: float = field(default_factory=time.monotonic)
    lent: Lent | None = None
    reason: BaseException | None = None
    stopped: float = 0.0
    # Ends the call of a client that does not read its answer.
    hang_up: Callable[[], object] | None = None
    row_count: int = 0
    byte_count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_narrowed: bool = False
    later: tuple[Later, ...] = ()

    def raise_if_stopped(self) -> None:
        """Raise the reason for which it was stopped, if there is one."""
        if self.reason is not None:
            raise self.reason


class Service:
    """One server's state, for Flight SQL and for HTTP."""

    def __init__(self, config: Config, gate: Gate, *, wait: timedelta = timedelta(0)) -> None:
        """Load the models that are to be loaded, and open the database.

        Raises:
            ConfigError, ModelError, NotFoundError, StorageError: as the parts do.
        """
        if config.snapshot and config.allow_write:
            raise ConfigError("[server] snapshot serves a copy, which nobody could write to: set allow_write = false")
        self.config = config
        self.gate = gate
        self.metrics = Metrics()
        self.admission = Admission(config.max_queries, config.max_waiting)
        self._cores = Cores(cpus())
        self.schemas = Schemas()
        models = (*config.preload_models, *config.server_preload_models)
        if config.wrappers is None:
            # What a client names must not run code that nobody has named for the server.
            config = dataclasses.replace(config, wrappers=(config.model, *models))
        self.encoders = ServedEncoders(
            loaded_encoders(config), config.model, models, self.metrics.encode_seconds.observe, self._cores
        )
        for model in models:
            self.encoders.get(model)
        self._database = ServedDatabase(config, self.encoders, wait=wait)
        self._running: set[Query] = set()
        self._grants: dict[object, Granted] = {}
        self.is_ending = False
        # What the columns of results depend on.
        self.state = 0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"jammi-server-{name}", daemon=True)
            for name, work in (("watch", self._watch), ("follow", self._follow), ("refresh", self._refresh))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def database(self) -> ServedDatabase:
        """The database as it is now."""
        return self._database

    @contextlib.contextmanager
    def lend(self, visitor: Visitor, path: str | None = None) -> Iterator[Lent]:
        """A connection for a visitor, outside of the admission: for short questions about the catalog."""
        writes = self.config.allow_write and visitor.role == ADMIN
        end = time.monotonic() + _REOPENING_SECONDS
        while True:
            lending = self._database.lend(writes=writes, path=path)
            try:
                lent = lending.__enter__()
                break
            except ClosedDatabaseError:
                if time.monotonic() > end or self.is_ending:
                    raise GoneError("the database is being opened anew") from None
                time.sleep(_TICK_SECONDS)
        with contextlib.ExitStack() as stack:
            stack.push(lending.__exit__)
            yield lent

    def schema(self, query: Query) -> pa.Schema:
        """The columns of a query's result, without running it. Raises what DuckDB and ours say of it."""
        self._narrow(query)
        key = self._key(query)
        known = self.schemas.known(key)
        if known is not None:
            return known
        values = query.rows[0] if query.rows and query.rows[0] else None
        # To plan a query can take long, too.
        self._running.add(query)
        try:
            with (
                self._discreet(query),
                errors_of_ours(),
                self.lend(query.visitor, query.path) as lent,
                self._registered(query, lent),
            ):
                return self.schemas.of(query.statement, lent, key, values)
        except Exception:
            query.raise_if_stopped()
            raise
        finally:
            self._running.discard(query)

    def _key(self, query: Query) -> object:
        """What the columns of a query's result depend on."""
        values = query.rows[0] if query.rows and query.rows[0] else None
        statement = query.statement
        text = statement.search.shape if statement.search else statement.text
        return self.state, query.path, text, shape(statement, values, query.kinds)

    @contextlib.contextmanager
    def answer(self, query: Query, is_gone: Callable[[], bool]) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Run a query: its schema, and its batches as they are fetched.

        Raises:
            BusyError, GoneError: it did not get its turn.
            LimitError: it took too long, or its result is too large.
            JammiError, duckdb.InterruptException: what DuckDB and ours say of it.
        """
        text = query.statement.text
        is_search = _SEARCH.search(text) is not None
        if _EVALUATION.search(text):
            self.metrics.eval_invocations.inc()
        began = time.monotonic()
        self._running.add(query)
        try:
            self._narrow(query)
            with self.admission.turn(
                is_search=is_search, is_gone=lambda: is_gone() or query.reason is not None
            ) as waited:
                self.metrics.queue_seconds.observe(waited)
                with (
                    self._discreet(query),
                    errors_of_ours(),
                    self.lend(query.visitor, query.path) as lent,
                    self._registered(query, lent),
                ):
                    yield self._results(query, lent)
        except BaseException as error:
            # What stopped it is the reason for whatever went wrong then.
            if query.reason is not None and isinstance(error, Exception):
                error = query.reason
            self._note(query, began, is_search, error)
            raise error
        finally:
            self._running.discard(query)
        self._note(query, began, is_search, None)

    def grant(self, visitor: Visitor) -> Granted | None:
        """What a visitor sees; None is everything."""
        if visitor.sources is None:
            return None
        key = (visitor.sources, self.state)
        found = self._grants.get(key)
        if found is None:
            with self.lend(Visitor("grants", READER)) as lent:
                known = [name for (name,) in lent.rows(_TABLES)]
                embedded = lent.rows("SELECT embedding_table, source FROM jammi_tables()")
                macros = [name for (name,) in lent.rows(_MACROS)]
            theirs = {folded(source) for source in visitor.sources}
            own = [name for name, source in embedded if source is not None and folded(source) in theirs]
            names = self._database.names
            found = granted(names.home, names.beside, visitor.sources, own, known, macros)
            if len(self._grants) >= _MOST_GRANTS:
                self._grants.clear()
            self._grants[key] = found
        return found

    def _narrow(self, query: Query) -> None:
        """Let a query read only what its visitor sees. Raises DeniedError where it wants more."""
        grant = self.grant(query.visitor)
        if grant is None:
            return
        narrowing = Narrowing(grant, self._database.names.home, parser())
        if not query.is_narrowed:
            statement = query.statement
            head, text = explained(statement.text) if statement.explains else ("", statement.text)
            narrowed, query.later = narrowing.narrowed(text)
            query.statement = dataclasses.replace(statement, text=f"{head} {narrowed}", search=None)
            query.is_narrowed = True
        for later in query.later:
            place = query.statement.parameters.index(later.parameter)
            for row in query.rows:
                if len(row) == len(query.statement.parameters):
                    narrowing.check(later, row[place])

    @contextlib.contextmanager
    def _discreet(self, query: Query) -> Iterator[None]:
        """Tell a visitor who sees a part only nothing of the rest, which the errors for a missing table name."""
        try:
            yield
        except JammiError as error:
            if query.visitor.sources is None:
                raise
            if isinstance(error, NotFoundError):
                raise NotFoundError("there is no embedding table for this among the sources of the token") from None
            if type(error) is InputError:
                raise InputError(_SUGGESTED.sub("", str(error))) from None
            raise

    @contextlib.contextmanager
    def _registered(self, query: Query, lent: Lent) -> Iterator[None]:
        query.lent = lent
        try:
            query.raise_if_stopped()
            yield
        finally:
            # Not while it is being interrupted: the connection is another query's afterwards.
            with query.lock:
                query.lent = None

    def _results(self, query: Query, lent: Lent) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        if not query.rows:
            schema = self.schemas.of(query.statement, lent, self._key(query))
            return schema, iter(())
        first = self._reader(query, query.rows[0], lent)
        return first.schema, self._counted(query, self._batches(query, lent, first))

    def _reader(self, query: Query, row: Sequence[Any], lent: Lent) -> pa.RecordBatchReader:
        statement = query.statement
        values = statement.bound(row)
        plainly = self._plainly(query, row, lent)
        if plainly is not None:
            return plainly
        # A relation is planned twice, which matters to a search, and whose rows are few.
        if _RELATIONS_STREAM and not _OURS.search(statement.text) and not statement.explains:
            relation = lent.con.sql(statement.text, params=values) if values else lent.con.sql(statement.text)
            reader: pa.RecordBatchReader = relation.to_arrow_reader(BATCH_ROWS)
            return reader
        return _executed(lent, statement.text, values)

    def _plainly(self, query: Query, row: Sequence[Any], lent: Lent) -> pa.RecordBatchReader | None:
        """The rows of a statement whose search runs before it; None where that is for the macro."""
        statement, database = query.statement, lent.database
        search = statement.search
        question = search and search.question(dict(zip(statement.parameters, row, strict=True)))
        if not search or not question:
            return None
        with self._cores.one():
            seen = functools.partial(database.seen, lent)
            found = plainly_found(seen, database.with_engine, lent.search_path, question, database.attached)
            query.raise_if_stopped()
            if found is None:
                return None
            text, lists = found
            with contextlib.suppress(duckdb.BinderException, duckdb.CatalogException):
                (one,) = lent.con.extract_statements(search.with_rows(text(*numbered(lists))))
                return _executed(lent, one, lists)
        return None

    def _batches(self, query: Query, lent: Lent, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        schema = reader.schema
        yield from reader
        for row in query.rows[1:]:
            query.raise_if_stopped()
            another = self._reader(query, row, lent)
            if another.schema != schema:
                raise LimitError("the columns of the result are of other types for these parameters than for the first")
            yield from another

    def _counted(self, query: Query, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        most_rows, most_bytes = self.config.max_result_rows, self.config.max_result_bytes
        for batch in batches:
            query.raise_if_stopped()
            query.row_count += batch.num_rows
            query.byte_count += batch.nbytes
            if most_rows is not None and query.row_count > most_rows:
                raise LimitError(f"the result has more than {most_rows:,} rows ([server] max_result_rows): use LIMIT")
            if most_bytes != "auto" and query.byte_count > most_bytes:
                raise LimitError(
                    f"the result has more than {most_bytes:,} bytes ([server] max_result_bytes): use LIMIT"
                )
            yield batch

    def _note(self, query: Query, began: float, is_search: bool, error: BaseException | None) -> None:
        """Count a query, and write its line to the log."""
        seconds = time.monotonic() - began
        self.metrics.query_seconds.observe(seconds)
        self.metrics.sent_bytes.inc(query.byte_count)
        if is_search:
            self.metrics.search_seconds.observe(seconds)
        if error is not None and not isinstance(error, GeneratorExit):
            self.metrics.errors.labels(type(error).__name__).inc()
        digest = hashlib.sha256(query.statement.text.encode(errors="replace")).hexdigest()[:16]
        fields = {
            "query": query.id,
            "user": query.visitor.name,
            "seconds": round(seconds, 6),
            "rows": query.row_count,
            "statement": digest,
            "error": None if error is None else type(error).__name__,
        }
        log.info("query of %s: %d rows in %.3f s", query.visitor.name, query.row_count, seconds, extra=fields)
        log.debug("query %s: %s", query.id, query.statement.text, extra=fields)

    def stop(self, query: Query, reason: BaseException) -> None:
        """Stop a query, whether it runs already or not."""
        if query.reason is None:
            query.reason, query.stopped = reason, time.monotonic()
        with query.lock:
            if query.lent is not None:
                query.lent.database.interrupt(query.lent)

    def find(self, id: str) -> Query | None:
        """A query that runs, by its id."""
        return next((query for query in list(self._running) if query.id == id), None)

    def _watch(self) -> None:
        """Stop queries that take too long."""
        limit = self.config.query_timeout.total_seconds()
        while not self._stopped.wait(_TICK_SECONDS):
            now = time.monotonic()
            for query in list(self._running):
                if query.reason is not None:
                    # An interrupt before DuckDB has begun is lost.
                    self.stop(query, query.reason)
                    if query.hang_up is not None and now - query.stopped > _HANG_UP_SECONDS:
                        # It waits for a client that does not read.
                        query.hang_up()
                elif now - query.began > limit and not self._builds(query):
                    self.stop(query, LimitError(f"the query took longer than {limit:g} s ([server] query_timeout)"))

    def _builds(self, query: Query) -> bool:
        """Whether a query does work that may take hours, which an admin may ask for."""
        may_write = self.config.allow_write and query.visitor.role == ADMIN
        return may_write and _BUILD.search(query.statement.text) is not None

    def _follow(self) -> None:
        """Follow what others change: the database file, and the location."""
        # Not without a pause, which `follow = 0` would be.
        seconds = max(self.config.server_follow.total_seconds(), _TICK_SECONDS)
        while not self._stopped.wait(seconds):
            try:
                if self._database.is_replaced():
                    self._reopen()
                if self._database.follow():
                    self.state += 1
            except StorageError as error:
                # Somebody writes to the file just now, or the location cannot be read.
                log.info("what others have changed is not seen yet: %s", error)
            except Exception as error:
                log.warning("cannot follow what others change: %s", error)

    def _refresh(self) -> None:
        """Refresh the sources that are to be current."""
        seconds = max(self.config.server_follow.total_seconds(), _TICK_SECONDS)
        while self.config.server_refresh and not self._stopped.wait(seconds):
            for source in self.config.server_refresh:
                try:
                    with self._database.lend(writes=True) as lent:
                        lent.rows(sql("SELECT * FROM jammi_refresh({})", literal(source)))
                except ClosedDatabaseError:
                    # The next one is not.
                    break
                except Exception as error:
                    log.warning("%s could not be refreshed: %s", source, error)

    def _reopen(self) -> None:
        """Open the database anew. Queries that run may end.

        DuckDB opens a path once, so that new queries wait for those that run; copies have paths of their own.
        """
        log.info("the database file has changed; opening it anew")
        old, drain = self._database, self.config.drain.total_seconds()
        if self.config.snapshot:
            self._database = ServedDatabase(self.config, self.encoders)
            threading.Thread(target=old.close, args=[drain], daemon=True).start()
        else:
            old.close(drain)
            self._database = ServedDatabase(self.config, self.encoders, wait=timedelta(minutes=1))
        self.state += 1

    def is_ready(self) -> str | None:
        """None if a query and a model answer; otherwise what does not."""
        if self.is_ending:
            return "the server is ending"
        try:
            with self.lend(Visitor("readyz", "reader")) as lent:
                lent.rows("SELECT count(*) FROM jammi_tables()")
            for model in self.config.server_preload_models[:1]:
                self.encoders.get(model).encode(["ready?"], "query")
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def drain(self, seconds: float) -> bool:
        """Take no more queries, wait for those that run, then stop them; whether all have ended by themselves."""
        self.is_ending = True
        self.admission.close()
        if self.admission.drained(seconds):
            return True
        for query in list(self._running):
            self.stop(query, GoneError("the server ends"))
        self.admission.drained(5)
        return False

    def close(self) -> None:
        """Close the database."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)
        self._database.close(0)


def _executed(lent: Lent, text: duckdb.Statement | str, values: Parameters) -> pa.RecordBatchReader:
    result = lent.execute(text, values)
    # DuckDB 1.4 has it by the second name alone.
    make = getattr(result, "to_arrow_reader", None) or getattr(result, "fetch_record_batch")  # noqa: B009
    reader: pa.RecordBatchReader = make(BATCH_ROWS)
    return reader
