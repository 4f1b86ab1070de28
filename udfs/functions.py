"""The scalar functions: for each its SQL name and types, and how Arrow columns become calls and answers.

Both hosts, Python's DuckDB and the command line's, register this one list. All functions see NULLs. A volatile one
is called at each execution and never by EXPLAIN; the others may be folded while a query is bound.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut, wanted
from jammi_duck.encoder.listing import COLUMNS
from jammi_duck.errors import DamagedError, InputError, did_you_mean, enumerated
from jammi_duck.sql import qualified
from jammi_duck.storage.tables.catalog import Catalog, Entry, Refused
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.recovery import Action
from jammi_duck.storage.tables.removal import drop, vacuum
from jammi_duck.types import Caller, Role, Vectors
from jammi_duck.udfs import following, searching
from jammi_duck.udfs.arguments import whole
from jammi_duck.udfs.columns import (
    Column,
    caller_of,
    rows_in_turn,
    rows_of,
    struct_type,
    structs,
    table_type,
    vector_column,
)
from jammi_duck.udfs.engine import Engine, ScalarFunction
from jammi_duck.udfs.macros import INFERRED, generate_query, infer_query, picked
from jammi_duck.udfs.settling import identified, settle, settle_new
from jammi_duck.udfs.sources import folded, resolve, shown
from jammi_duck.work.generate import Census, Generated, Request, to_reuse
from jammi_duck.work.infer import check_task, infer
from jammi_duck.work.interrupts import listen
from jammi_duck.work.refresh import to_resume

_GENERATED = {
    "embedding_table": "VARCHAR", "source": "VARCHAR", "model": "VARCHAR", "status": "VARCHAR",
    "row_count": "BIGINT", "skipped_count": "BIGINT", "failed_count": "BIGINT", "truncated_count": "BIGINT",
    "dimensions": "INTEGER", "seconds": "DOUBLE", "location": "VARCHAR",
}  # fmt: skip
_INFERRED = dict(zip(INFERRED, ("VARCHAR", "VARCHAR", "VARCHAR", "DOUBLE", "FLOAT[]"), strict=True))
_TABLE = {
    "embedding_table": "VARCHAR", "source": "VARCHAR", "columns": "VARCHAR[]", "key": "VARCHAR", "model": "VARCHAR",
    "dimensions": "INTEGER", "status": "VARCHAR", "stage": "VARCHAR", "row_count": "BIGINT",
    "skipped_count": "BIGINT", "failed_count": "BIGINT", "truncated_count": "BIGINT", "location": "VARCHAR",
    "started": "TIMESTAMP", "finished": "TIMESTAMP", "age": "DOUBLE", "error": "VARCHAR",
}  # fmt: skip
_MODEL = dict.fromkeys(COLUMNS, "VARCHAR") | {"dimensions": "INTEGER", "max_tokens": "INTEGER"}
_ACTION = {"embedding_table": "VARCHAR", "status": "VARCHAR", "action": "VARCHAR"}
# Each column of a text takes an expression over all columns of the source.
_MOST_COLUMNS = 1000
_REMOVED = {"file": "VARCHAR", "bytes": "BIGINT", "reason": "VARCHAR"}


def _embed(engine: Engine, text: Column, model: Column, role: Column, dims: Column) -> pa.Array:
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    texts = text.to_pylist()
    for i, options in enumerate(zip(model.to_pylist(), role.to_pylist(), dims.to_pylist(), strict=True)):
        groups[options].append(i)
    encoded: list[tuple[list[int], Vectors]] = []
    for (name, wanted_role, dims_of_row), rows in groups.items():
        if wanted_role not in ("document", "query"):
            raise InputError(f"role is {wanted_role!r}; it must be 'document' or 'query'")
        mine = [i for i in rows if texts[i] is not None and not is_blank(texts[i])]
        encoder = engine.encoders.get(name or engine.default_model) if mine or name else None
        if encoder is None:
            continue
        dimensions = wanted(whole(dims_of_row, "dims"), encoder.description)
        if mine:
            vectors = encoder.encode([texts[i] for i in mine], cast("Role", wanted_role))
            encoded.append((mine, cut(vectors, dimensions)))
    return vector_column(len(texts), encoded)


# DuckDB asks of so many columns at a time. Of a wider source, those that came before, by thread and what is asked.
_AT_ONCE = 2048
_before: dict[tuple[int, str, str, str], list[str]] = {}


def _column(engine: Engine, column: Column, wanted: Column, source: Column, table: Column) -> pa.Array:
    """Which of a source's columns is the wanted one. DuckDB asks for all of them at once, while it binds.

    `table` is the embedding table that was made of it, or empty.
    """
    names, name, of, made = column.to_pylist(), *(each[0].as_py() for each in (wanted, source, table))
    asked = threading.get_ident(), name, of, made
    before = _before.pop(asked, [])
    every = names if names[0] in before else before + names
    if len(names) == _AT_ONCE:
        _before[asked] = every
    elif not any(_is_called(name, every)):
        near = did_you_mean(name, every) or ";"
        known = f"no column '{name}' in '{of}'{near} columns: {enumerated(every)}"
        renamed = f". '{made}' was made of it: if it has another name now, generate anew" if made else ""
        raise InputError(known + renamed)
    return pa.array(_is_called(name, names))


def _is_called(name: str, names: Sequence[str]) -> list[bool]:
    return [n == name for n in names] if name in names else [folded(n) == folded(name) for n in names]


def _plan(
    engine: Engine,
    source: str | None,
    path: Sequence[str],
    cols: str | None,
    key: str | None,
    model: str | None,
    dims: str | None,
    reuse: bool | None,
    resume: bool | None,
    transaction: int,
    connection: str,
) -> str:
    if source is None or cols is None or key is None:
        raise InputError("jammi_generate needs a source, its columns and its key: none of them may be NULL")
    names = _column_names(cols)
    in_main_thread = listen(engine.jobs)
    named = resolve(source, path, engine.host)
    if resume:
        # A build that this connection has left is not over before.
        engine.jobs.settle(Caller(connection, transaction))
    if reuse:
        follow_others(engine.tables, at_once=True)
    new = settle_new(engine, named)
    meaning = settle(engine, named, failed=True)
    if new and meaning.relation != new.relation:
        meaning = new
    wanted, chosen = whole(dims, "dims"), model or engine.default_model
    request = Request(meaning.identity, tuple(names), key, chosen, wanted, in_main_thread)
    if resume and (left := to_resume(engine.tables, engine.encoders, request)):
        caller = Caller(connection, transaction)
        return following.refresh_query(engine, named, meaning, left, caller, finish="_jammi_resumed")
    comparison = None
    if reuse and (made := to_reuse(engine.tables, engine.encoders, request)):
        try:
            comparison = following.comparison_of(engine, named, made, Caller(connection, transaction))
            request = dataclasses.replace(request, reuse=made.name)
        except DamagedError as error:
            log.warning("%s cannot be used again: %s; building anew", made.name, error)
    rows = comparison or f"_jammi_rows AS NOT MATERIALIZED ({picked(named, names, key)})"
    asked = json.dumps(dataclasses.asdict(request))
    identity = identified(named, new or (meaning if comparison else None), key)
    return generate_query(rows, identity, asked, connection, columns=names, compared=comparison is not None)


def _plan_import(
    engine: Engine,
    source: str | None,
    path: Sequence[str],
    vectors: str | None,
    key: str | None,
    vector: str | None,
    model: str | None,
    cols: str | None,
    transaction: int,
    connection: str,
) -> str:
    columns = () if cols in (None, "null") else _column_names(str(cols))
    return following.import_plan(engine, source, path, vectors, key, vector, model, columns, transaction, connection)


def _column_names(cols: str) -> list[str]:
    """The names in `cols`, which is JSON: of a name, or of a list of them."""
    parsed = json.loads(cols)
    names = [parsed] if isinstance(parsed, str) else parsed
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"columns are {cols}; give a name, or a list of names that is not empty")
    if len(names) > _MOST_COLUMNS:
        raise InputError(
            f"{len(names):,} columns are too many for one text: {enumerated(names[:3])} and so on; name "
            f"{_MOST_COLUMNS:,} at most, or make them one column of the source"
        )
    return names


def _plan_inference(
    engine: Engine,
    source: str | None,
    path: Sequence[str],
    cols: str | None,
    key: str | None,
    model: str | None,
    task: str | None,
    dims: str | None,
) -> str:
    check_task(task)
    if source is None or cols is None or key is None:
        raise InputError("jammi_infer needs a source, its columns and its key: none of them may be NULL")
    named = resolve(source, path, engine.host)
    known = settle_new(engine, named)
    name = known.identity if known else named.written
    return infer_query(named, name, _column_names(cols), key, model or engine.default_model, whole(dims, "dims"))


def _infer(engine: Engine, texts: Column, model: Column, dims: Column) -> pa.Array:
    """The model and the dimensions are the same in all rows."""
    inferred, name = [], None
    if len(texts):
        encoder = engine.encoders.get(model[0].as_py())
        name = encoder.description.name
        inferred = infer(encoder, texts.to_pylist(), dims[0].as_py())
    there = [i for i, each in enumerate(inferred) if each.vector is not None]
    vectors = [(there, np.array([inferred[i].vector for i in there]))] if there else []
    columns = [
        pa.array([name] * len(inferred), pa.string()),
        pa.array(["error" if each.error else "ok" for each in inferred], pa.string()),
        pa.array([each.error for each in inferred], pa.string()),
        pa.array([each.latency_ms for each in inferred], pa.float64()),
        vector_column(len(inferred), vectors),
    ]
    return pa.StructArray.from_arrays(columns, names=list(_INFERRED))


def _begin(engine: Engine, *columns: Column) -> pa.Array:
    tokens = []
    for text, source, rows, keyed, distinct, key_type, differing, connection, transaction in rows_of(columns):
        fields = json.loads(text)
        request = Request(**{**fields, "source": source, "columns": tuple(fields["columns"])})
        census = Census(rows, keyed, distinct, key_type or "")
        tokens.append(engine.generator.begin(request, census, differing, Caller(connection, transaction)))
    return pa.array(tokens, pa.string())


def _push(engine: Engine, token: Column, keys: Column, texts: Column) -> pa.Array:
    if len(token):
        engine.generator.push(token[0].as_py(), rows_in_turn((keys, texts)))
    return pa.array(np.zeros(len(token), np.int32))


def _finish(engine: Engine, token: Column, pushed: Column) -> pa.Array:
    return _generated(engine, [engine.generator.finish(*row) for row in rows_of((token, pushed))])


def _finish_import(engine: Engine, *columns: Column) -> pa.Array:
    return _generated(engine, [engine.importer.finish(*row) for row in rows_of(columns)])


def _finish_resumed(engine: Engine, token: Column, *_: Column) -> pa.Array:
    return _generated(engine, [engine.refresher.finish_build(each) for each in token.to_pylist()])


def _generated(engine: Engine, done: Sequence[Generated]) -> pa.Array:
    rows = [dataclasses.asdict(each) for each in done]
    return structs([[{**row, "source": shown(row["source"], engine.host)}] for row in rows], _GENERATED)


def _tables(engine: Engine, *caller: Column) -> pa.Array:
    engine.jobs.settle(caller_of(caller), wait=False)
    follow_others(engine.tables)
    now = datetime.now(UTC).replace(tzinfo=None)
    catalog = engine.tables.catalog
    entries = catalog.entries("building", "ready", "gone", "failed")
    rows = [_entry(entry, engine) for entry in entries]
    rows += [
        {**dataclasses.asdict(each), "status": "refused", "embedding_table": each.name} for each in _refused(catalog)
    ]
    for row in rows:
        row["age"] = max(0.0, (now - (row["finished"] or row["started"] or now)).total_seconds())
    return structs([[{name: row.get(name) for name in _TABLE} for row in rows]], _TABLE)


def _refused(catalog: Catalog) -> list[Refused]:
    return [each for each in catalog.refused() if each.status != "dropped"]


def _entry(entry: Entry, engine: Engine) -> dict[str, Any]:
    return {
        "embedding_table": entry.name,
        "source": shown(entry.source, engine.host),
        "columns": list(entry.definition.columns),
        "key": entry.definition.key,
        "model": entry.definition.model,
        "dimensions": entry.definition.dimensions,
        "status": entry.status,
        "stage": entry.stage,
        "row_count": entry.counts.rows,
        "skipped_count": entry.counts.skipped,
        "failed_count": entry.counts.failed,
        "truncated_count": entry.counts.truncated,
        "location": entry.location,
        "started": entry.started,
        "finished": entry.finished,
        "error": entry.error or _unseen(engine, entry),
    }


def _unseen(engine: Engine, entry: Entry) -> str | None:
    """Why the row of a ready table may not be its newest state."""
    failure = engine.tables.watch.failure(entry.location) if entry.status == "ready" else None
    return failure and f"what other processes do is not seen at {entry.location}: {failure}"


def _refuse(engine: Engine, reasons: Column, _seen: Column) -> pa.Array:
    """An error, where a query finds that it cannot be what it was planned to be. Raises InputError."""
    for reason in reasons.to_pylist():
        raise InputError(reason)
    return pa.array([], pa.string())


def _models(engine: Engine, _: Column) -> pa.Array:
    return structs([[model.row() for model in engine.encoders.available(engine.default_model)]], _MODEL)


def _recover(engine: Engine, *caller: Column) -> pa.Array:
    return structs([[_action(action) for action in engine.jobs.recover(caller_of(caller))]], _ACTION)


def _drop(engine: Engine, names: Column) -> pa.Array:
    if any(name is None for name in names.to_pylist()):
        raise InputError("jammi_drop needs the name of an embedding table; SELECT * FROM jammi_tables() lists them")
    return structs([[_action(drop(engine.tables, name, engine.jobs.at_work()))] for name in names.to_pylist()], _ACTION)


def _vacuum(engine: Engine, *caller: Column) -> pa.Array:
    engine.jobs.settle(caller_of(caller), wait=False)
    removed = [
        {"file": r.file, "bytes": r.size, "reason": r.reason} for r in vacuum(engine.tables, engine.jobs.at_work())
    ]
    return structs([removed], _REMOVED)


def _action(action: Action) -> dict[str, str]:
    return {"embedding_table": action.table, "status": action.status, "action": action.action}


def _function(
    name: str, parameters: Sequence[str], returns: str, volatile: bool, call: Callable[..., pa.Array]
) -> ScalarFunction:
    return ScalarFunction(f"_jammi_{name}", tuple(parameters), returns, volatile, call)


def _text(name: str, parameters: Sequence[str], call: Callable[..., str]) -> ScalarFunction:
    """A function whose text becomes part of a query while that is bound.

    The first parameter is a source; the database and the search path by which it is read come after it.
    """

    def statement(engine: Engine, source: str | None, database: str, path: str, *more: Any) -> str:  # noqa: ANN401
        return qualified(call(engine, source, (database, path), *more))

    signature = (parameters[0], *_PATH, *parameters[1:])
    return ScalarFunction(f"_jammi_{name}", signature, "VARCHAR", False, statement, by_row=True)


_TEXT, _NUMBER = "VARCHAR", "BIGINT"
_CALLER = (_TEXT, _NUMBER)
# The rows, those with a key, the distinct keys, and the key's type.
_CENSUS = (_NUMBER, _NUMBER, _NUMBER, _TEXT)
# Beside these the rows that are added, changed, and deleted.
_COMPARED = (*_CENSUS, _NUMBER, _NUMBER, _NUMBER)
# The database and the search path.
_PATH = (_TEXT, _TEXT)
# The source, the model, the embedding table, and the transaction.
_CHOICE = (_TEXT, _TEXT, _TEXT, _NUMBER)
FUNCTIONS = (
    _function("embed", (_TEXT, _TEXT, _TEXT, _TEXT), "FLOAT[]", False, _embed),
    _function("column", (_TEXT, _TEXT, _TEXT, _TEXT), "BOOLEAN", False, _column),
    _text("plan", (_TEXT, _TEXT, _TEXT, _TEXT, _TEXT, "BOOLEAN", "BOOLEAN", _NUMBER, _TEXT), _plan),
    # Not volatile, since a selection that may call it is none.
    _function("refuse", (_TEXT, _TEXT), _TEXT, False, _refuse),
    _function("begin", (_TEXT, _TEXT, _NUMBER, _NUMBER, _NUMBER, _TEXT, _NUMBER, *_CALLER), _TEXT, True, _begin),
    _function("push", (_TEXT, _TEXT, _TEXT), "INTEGER", True, _push),
    _function("finish", (_TEXT, _NUMBER), table_type(_GENERATED), True, _finish),
    _text("refresh_plan", (*_CHOICE, _TEXT), following.refresh_plan),
    _function("refresh", (_TEXT, *_COMPARED, _NUMBER, *_CALLER), _TEXT, True, following.begin),
    _function("forget", (_TEXT, _TEXT, "INTEGER", _NUMBER), "INTEGER", True, following.forget),
    _function("renew", (_TEXT, "VARCHAR[]", _TEXT, _TEXT, "INTEGER", _NUMBER), "INTEGER", True, following.renew),
    _function("refreshed", (_TEXT, _NUMBER, _NUMBER), table_type(following.REFRESHED), True, following.finish),
    _function("resumed", (_TEXT, _NUMBER, _NUMBER), table_type(_GENERATED), True, _finish_resumed),
    _text("status_plan", (*_CHOICE, _TEXT), following.status_plan),
    _function("status", (_TEXT, *_COMPARED), table_type(following.STATUS), True, following.status),
    _text("compact_plan", (*_CHOICE, _TEXT), following.compact_plan),
    _function("compact", (_TEXT, "BOOLEAN", *_CALLER), table_type(following.COMPACTED), True, following.compact_tables),
    _text("import_plan", (_TEXT, *[_TEXT] * 5, _NUMBER, _TEXT), _plan_import),
    _function(
        "import",
        (_TEXT, _TEXT, *_CENSUS, *_CENSUS, _TEXT, *[_NUMBER] * 4, _TEXT, _NUMBER, _NUMBER, *_CALLER),
        _TEXT,
        True,
        following.begin_import,
    ),
    _function("take", (_TEXT, _TEXT, "DOUBLE[]", _TEXT), "INTEGER", True, following.take),
    _function("imported", (_TEXT, _NUMBER), table_type(_GENERATED), True, _finish_import),
    _text("plan_inference", (_TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT), _plan_inference),
    _function("infer", (_TEXT, _TEXT, _NUMBER), struct_type(_INFERRED), True, _infer),
    _text("rows", _CHOICE, searching.rows_query),
    _text("found", (*_CHOICE, _TEXT), searching.found_query),
    _text("selection", (*_CHOICE, _TEXT, _TEXT, "BOOLEAN", "BOOLEAN"), searching.selection_query),
    # Not volatile, so that DuckDB selects once for all the queries of a LATERAL join.
    _function(
        "select",
        (*_CALLER, "BOOLEAN", _TEXT, "VARCHAR[]", "BIGINT[]", _TEXT, _NUMBER, "DOUBLE"),
        _TEXT,
        False,
        searching.select,
    ),
    _function("clock", (_NUMBER,), "DOUBLE", True, searching.clock),
    _function(
        "search",
        (_TEXT, _TEXT, "FLOAT[]", _TEXT, _TEXT, "BOOLEAN", _TEXT, "BOOLEAN", "DOUBLE", "VARCHAR[]", "VARCHAR[]"),
        table_type(searching.HIT),
        True,
        searching.search_rows,
    ),
    _function("stages", (_TEXT, *_CALLER, _NUMBER), table_type(searching.STAGE), True, searching.stages),
    _function("check", (_TEXT, *_PATH, *_CHOICE[1:], _TEXT), table_type(searching.CHECK), True, searching.check_index),
    _function("tables", _CALLER, table_type(_TABLE), True, _tables),
    _function("models", (_NUMBER,), table_type(_MODEL), True, _models),
    _function("recover", _CALLER, table_type(_ACTION), True, _recover),
    _function("drop", (_TEXT,), table_type(_ACTION), True, _drop),
    _function("vacuum", _CALLER, table_type(_REMOVED), True, _vacuum),
)
