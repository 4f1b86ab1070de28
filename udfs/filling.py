"""The scalar functions of `jammi_fill`: vectors in a column of the user's own table.

DuckDB lets no query write to the table that it reads, so the vectors are written on a connection of the engine's, which
sees what is committed. The caller's query says what its transaction sees of the rows that are to be filled: where that
is something else, nothing is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from jammi_duck.encoder.blanks import VISIBLE
from jammi_duck.encoder.wrapper_encoder import WrapperEncoder
from jammi_duck.errors import InputError, NoSourceError, StateError, did_you_mean
from jammi_duck.sql import NULL, Sql, folded, joined, literal, quoted, sql
from jammi_duck.types import Caller, Host, Integer
from jammi_duck.udfs.arguments import parse_model
from jammi_duck.udfs.columns import Column, packed, records, table
from jammi_duck.udfs.disambiguation import disambiguate_new, looked_up, proven
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.refreshing import caller_sql
from jammi_duck.udfs.rows import key_columns
from jammi_duck.udfs.sources import Relation, SearchPath, Source, SourceCandidate, resolve
from jammi_duck.udfs.vector_column import VectorColumn
from jammi_duck.work.fill import fill
from jammi_duck.work.jobs import Job
from jammi_duck.work.progress import Progress

_BATCH_ROWS = 1000
_TABLES = sql(
    "SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE NOT internal AND database_name <> 'temp'"
)
_COLUMNS = sql(
    "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ? "
    "ORDER BY column_index"
)
_DATABASE = sql("SELECT readonly, type FROM duckdb_databases() WHERE database_name = ?")
_ROW = quoted("_jammi_row")


@dataclass(frozen=True)
class FillCall:
    """The arguments of `jammi_fill` as SQL gives them; `key` is JSON."""

    source: str | None
    search_path: SearchPath
    text: str | None
    vector: str | None
    key: str | None
    model: str | None
    transaction: int
    session: str


@dataclass(frozen=True)
class Seen:
    """What a transaction sees of a table: its columns, how many of its rows are to be filled, and a hash of these."""

    columns: str | None
    row_count: int
    hash: str


@dataclass(frozen=True)
class FillArguments:
    """Arguments of `_jammi_fill`: the request as JSON, and who calls.

    `source` is what the caller's query takes it for, and `seen` what it sees of that.
    """

    request: str
    source: str | None
    seen: Seen
    caller: Caller


@dataclass(frozen=True)
class ColumnFilled:
    """What became of the rows without a vector: how many have one now, have no text, or could not be embedded.

    `left_count` are those that have a text and still no vector: some failed, and some may have changed meanwhile.
    """

    source: str
    model: str
    row_count: int
    skipped_count: int
    failed_count: int
    left_count: int
    dimensions: Integer
    seconds: float


@dataclass(frozen=True)
class _Request:
    """What is to be filled: `place` is the table's database, schema and name, and None where none is committed.

    `columns` are those that the table has. `is_default` says whether the model is that of `install`.
    """

    written: str
    place: tuple[str, str, str] | None
    columns: tuple[str, ...]
    text: str
    vector: str
    key: tuple[str, ...]
    model: str
    is_default: bool

    @property
    def instead(self) -> str:
        """The statement that does the same within the caller's transaction."""
        table, text, vector = self.written, quoted(self.text), quoted(self.vector)
        model = "" if self.is_default else f", {literal(self.model)}"
        return f"UPDATE {table} SET {vector} = embed({text}{model}) WHERE {vector} IS NULL"


class _Filling:
    """A fill as `Jobs` knows it: each batch is written as a whole, so nothing is ever to be removed."""

    def __init__(self, name: str) -> None:
        self.id = secrets.token_hex(16)
        self.name = name

    def release(self) -> None:
        """See `jammi_duck.work.jobs.Work`."""

    def abandon(self, reason: str, *, keep: bool) -> None:
        """See `jammi_duck.work.jobs.Work`."""


def fill_plan(engine: Engine, call: FillCall) -> Sql:
    """The query that says what the caller sees of a table, and has its column of vectors filled.

    Raises:
        InputError: an argument is NULL, the source is no table, or cannot be written to, or a column has another type.
        NotFoundError: there is no such column.
        DeniedError: the caller only reads.
    """
    if call.source is None or call.text is None or call.vector is None:
        raise InputError(
            "jammi_fill needs a table, its column with the text, and its column for the vectors: none may be NULL"
        )
    caller = Caller(call.session, call.transaction)
    engine.jobs.planned(caller)
    source = resolve(call.source, call.search_path, engine.host)
    if source.is_file:
        raise InputError(
            f"'{source.written}' is a file, and vectors are stored in tables: write CREATE TABLE docs AS "
            f"FROM {literal(source.written)}, and jammi_fill('docs', ...)"
        )
    model = parse_model(call.model) or engine.default_model
    is_default = model == engine.default_model
    request = _Request(source.written, None, (), call.text, call.vector, key_columns(call.key), model, is_default)
    meant = disambiguate_new(engine, source)
    if meant is None or meant.relation is None:
        seen = packed(Seen, columns=NULL, row_count=sql("0"), hash=literal(""))
        return sql(
            "SELECT unnest({}, recursive := true)", _call(request, sql("(SELECT {})", looked_up(source)), seen, caller)
        )
    return _filling_query(engine, source, meant, request, caller)


def _filling_query(engine: Engine, source: Source, meant: SourceCandidate, request: _Request, caller: Caller) -> Sql:
    assert meant.relation is not None
    place = _place(engine.host, meant.relation)
    if place is None:
        raise InputError(
            f"'{source.written}' is a view, and vectors are stored in tables: name the table that it reads"
        )
    _refuse_unwritable(engine.host, place[0], source)
    # Says which column is wrong; which types a model takes is known once it is loaded.
    VectorColumn(engine.host, place, request.text, request.vector, key=request.key, any_type=True)
    columns = tuple(str(name) for (name,) in engine.host.sql(_COLUMNS, place))
    request = dataclasses.replace(request, place=place, columns=columns)
    return sql(
        "SELECT unnest({}, recursive := true) FROM ({}) s",
        _call(
            request,
            proven(meant.identity, source, meant, request.text),
            packed(Seen, columns=sql("s.columns"), row_count=sql("s.row_count"), hash=sql("s.hash")),
            caller,
        ),
        _seen(request),
    )


def _call(request: _Request, source: Sql, seen: Sql, caller: Caller) -> Sql:
    arguments = packed(
        FillArguments,
        request=literal(json.dumps(dataclasses.asdict(request))),
        source=source,
        seen=seen,
        caller=caller_sql(caller),
    )
    return sql("_jammi_fill({})", arguments)


def fill_columns(engine: Engine, arguments: Column) -> pa.Array:
    """Fill columns; gives what came of each."""
    return table([[_filled(engine, each)] for each in records(arguments, FillArguments)], ColumnFilled)


def _filled(engine: Engine, given: FillArguments) -> ColumnFilled:
    fields = json.loads(given.request)
    lists = {name: tuple(each) for name, each in fields.items() if isinstance(each, list)}
    request = _Request(**{**fields, **lists})
    if request.place is None:
        raise _no_table(engine.host, request, given.source)
    encoder = engine.encoders.get(request.model)
    is_wrapper = isinstance(encoder, WrapperEncoder)
    column = VectorColumn(
        engine.host, request.place, request.text, request.vector, key=request.key, any_type=is_wrapper
    )
    ((columns, row_count, digest),) = engine.host.sql(_seen(request))
    if given.seen != Seen(columns, row_count, digest):
        raise InputError(
            f"'{request.written}' has changes that are not committed, or was changed by others since this transaction "
            "began, and jammi_fill writes on a connection of its own, which sees what is committed: COMMIT first; or "
            f"within the transaction: {request.instead}"
        )
    progress = Progress("embedding", request.written, row_count)
    job = engine.jobs.start(given.caller, lambda: Job(_Filling(request.written), "fill", given.caller, progress))
    with engine.jobs.ending_on_error(job), _conflicts(request.written):
        column.create(encoder.dimensions)
        done = fill(
            column,
            encoder,
            batch_size=_BATCH_ROWS,
            batches=1,
            to_the_end=True,
            began=lambda *_: job.raise_if_stopped(),
            encoded=lambda *_: job.raise_if_stopped(),
            written=job.advance,
        )
        job.progress.done()
    engine.jobs.done(job)
    return ColumnFilled(
        source=request.written,
        model=encoder.identity.name,
        row_count=done.filled,
        skipped_count=done.skipped,
        failed_count=done.failed,
        left_count=done.left,
        dimensions=encoder.dimensions,
        seconds=round(done.seconds, 3),
    )


def _place(host: Host, relation: Relation) -> tuple[str, str, str] | None:
    """The database, the schema and the name of a table as they are written; None if it is a view."""
    for database, schema, name in host.sql(_TABLES):
        if Relation(folded(database), folded(schema), folded(name)) == relation:
            return database, schema, name
    return None


def _refuse_unwritable(host: Host, database: str, source: Source) -> None:
    ((is_read_only, kind),) = host.sql(_DATABASE, [database])
    if is_read_only:
        raise InputError(
            f"the database '{database}' of '{source.written}' is open read-only, so no vectors can be written to it: "
            "open it without read_only"
        )
    if kind != "duckdb":
        raise InputError(
            f"'{source.written}' is a table of a {kind} database, and jammi_fill writes to DuckDB's own tables: for "
            "PostgreSQL and CockroachDB there is `jammi-duck embed --url`"
        )


def _seen(request: _Request) -> Sql:
    """A query for what a transaction sees of a table, as `Seen` has it.

    DuckDB would lose an update of any column in another transaction, since it writes a row anew to change a vector.
    """
    assert request.place is not None
    names = ("database_name", "schema_name", "table_name")
    is_it = joined(" AND ", [sql("{} = {}", Sql(a), literal(b)) for a, b in zip(names, request.place, strict=True)])
    is_there = folded(request.vector) in map(folded, request.columns)
    without = sql("{}.{} IS NULL AND ", _ROW, quoted(request.vector)) if is_there else sql("")
    return sql(
        "SELECT (SELECT string_agg(concat(column_name, ' ', data_type), ', ' ORDER BY column_index ASC) "
        "FROM duckdb_columns() WHERE {is_it}) AS columns, count(*) AS row_count, "
        "coalesce(sum(hash({row}.rowid, {values})), 0)::VARCHAR AS hash FROM {table} AS {row} "
        "WHERE {without}regexp_matches({row}.{text}::VARCHAR, {visible})",
        is_it=is_it,
        row=_ROW,
        values=joined(", ", (sql("{}.{}", _ROW, quoted(name)) for name in request.columns)),
        table=joined(".", map(quoted, request.place)),
        without=without,
        text=quoted(request.text),
        visible=literal(VISIBLE),
    )


def _no_table(host: Host, request: _Request, seen: str | None) -> Exception:
    """The error where no table is committed: `seen` is what the caller has of this name."""
    written = request.written
    if seen is None:
        near = did_you_mean(written, [name for *_, name in host.sql(_TABLES)]) or ";"
        return NoSourceError(
            f"there is no table '{written}'{near} jammi_fill writes to a table of the database, and a CTE or a "
            "DataFrame cannot be written to",
            written,
        )
    other = "a TEMP table or view" if seen.startswith("temp.") else "not committed yet"
    return InputError(
        f"'{written}' is {other}, and jammi_fill writes on a connection of its own, which does not see it: write "
        f"{request.instead}"
    )


@contextlib.contextmanager
def _conflicts(written: str) -> Iterator[None]:
    """Say what it means that another transaction writes to the same rows; the host's errors are of its own kinds."""
    try:
        yield
    except Exception as error:
        if "onflict" not in str(error):
            raise
        raise StateError(
            f"'{written}' is changed by another transaction at the same time ({error}); the vectors that were written "
            "stay, and another call goes on"
        ) from error
