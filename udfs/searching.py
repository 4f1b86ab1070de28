"""The scalar functions of a search: which table it is and which rows may be found, the hits, and what it took."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.retrieval.check import check
from jammi_duck.retrieval.search import Asked, Like, Query, search
from jammi_duck.retrieval.selection import RowsThere, refusal
from jammi_duck.sql import literal, quoted
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.lookup import find_table
from jammi_duck.storage.tables.table import Answers
from jammi_duck.types import Caller, Stage
from jammi_duck.udfs.arguments import whole
from jammi_duck.udfs.columns import Column, caller_of, offsets_of, rows_of, structs
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.filters.conditions import check_parameters
from jammi_duck.udfs.renames import telling_renames
from jammi_duck.udfs.settling import proven_selection, settle
from jammi_duck.udfs.sources import Meaning, Source, found, has_relations, resolve, schemas_of

HIT = {"_row_id": "VARCHAR", "_source_id": "VARCHAR", "_rank": "INTEGER", "_similarity": "FLOAT", "_distance": "FLOAT"}
STAGE = {"stage": "VARCHAR", "detail": "VARCHAR", "row_count": "BIGINT", "milliseconds": "DOUBLE"}
# Columns of the source with a name of ours get one more underscore, so that both are there: first what our queries use,
# then, once the filter was asked, what the search gives.
_INNER = r"(?is)^(?:(_)(_*jammi_.*)|(.*))$"
_OURS = r"(?is)^(?:(_)(_*(?:row_id|rank|similarity|distance))|(.*))$"
# Types in which two texts of one value are equal, whichever of the types that are cast to them the value had.
_EXACT = ("DOUBLE", "TIMESTAMP")
CHECK = {
    "embedding_table": "VARCHAR", "row_count": "BIGINT", "segments": "INTEGER", "k": "INTEGER", "queries": "INTEGER",
    "recall": "DOUBLE", "index_ms": "DOUBLE", "exact_ms": "DOUBLE", "advice": "VARCHAR",
}  # fmt: skip


def rows_query(
    engine: Engine, source: str | None, path: Sequence[str], model: str | None, table: str | None, _: int
) -> str:
    """The keys of the source's rows, as `_jammi_key`."""
    named = _resolved(engine, source, path)
    try:
        key = _key_column(_chosen(engine, named, model, table)[0])
    except NotFoundError:
        return "SELECT NULL::VARCHAR AS _jammi_key LIMIT 0"
    return f"SELECT {key} AS _jammi_key FROM {named.sql} AS {quoted(named.alias)}"


def found_query(
    engine: Engine,
    source: str | None,
    path: Sequence[str],
    model: str | None,
    table: str | None,
    transaction: int,
    predicate: str | None,
) -> str:
    """The source's rows that a search has found, each with its hit and the search's token.

    A key may have been doubled in the source meanwhile, so the filter is there once more. It is asked of the rows that
    were found only: since it waits for a hit's rank, DuckDB cannot ask it of the others first.

    A row id is the key's text of the time when it was embedded, and the key may have another type now. Then the cast
    finds the row, if that is of the same value: 2 is not the row that was 1.5.
    """
    named, only = _resolved(engine, source, path), ""
    alias = quoted(named.alias)
    try:
        key_column = _key_column(_chosen(engine, named, model, table)[0])
    except NotFoundError as error:
        _check_there(engine, named, error)
        # Not NULL, with which DuckDB would not even look for hits, and not say that there is no table.
        key_column, predicate = "''::VARCHAR", None
    if predicate is not None:
        condition = engine.conditions.of(predicate, named.alias, path[0], schemas_of(path), transaction).beside_hits
        only = f" WHERE CASE WHEN _jammi_rank IS NULL THEN false ELSE {condition}::BOOLEAN END"
    key, row_id = f"{alias}._jammi_found", "_jammi_hits._jammi_row_id"
    same = " ".join(f"TRY_CAST({row_id} AS {kind}) = TRY_CAST({key}::VARCHAR AS {kind})," for kind in _EXACT)
    # Whatever collation the column or the session has, a text is its own row only.
    letters = f"(typeof({key}) <> 'VARCHAR' OR {key}::VARCHAR COLLATE \"C\" = {row_id})"
    return (
        f"SELECT COLUMNS('{_OURS}') AS '\\1\\1\\2\\3' FROM _jammi_hits JOIN "
        f"(SELECT {key_column} AS _jammi_found, COLUMNS('{_INNER}') AS '\\1\\1\\2\\3' FROM {named.sql} AS {alias}) "
        f"AS {alias} "
        f"ON {key} = TRY(cast_to_type({row_id}, {key})) AND coalesce({same} true) AND {letters}{only}"
    )


def selection_query(
    engine: Engine,
    source: str | None,
    path: Sequence[str],
    model: str | None,
    table: str | None,
    transaction: int,
    connection: str,
    predicate: str | None,
    joined: bool,
    traced: bool,
) -> str:
    """A token for the rows that a search may find, as one row, and the parameters that its filter names.

    With a filter they are those of the source's rows that pass. Without one, where the source is joined and its
    number of rows has changed, they are all of the source's, since rows that are gone may not take others' places.
    Otherwise they are all of the table's. Where there is no table, that is said when it is searched: a view that
    searches is made before, when a database is imported.
    """
    named = _resolved(engine, source, path)
    try:
        entry, meaning = _chosen(engine, named, model, table)
    except NotFoundError as error:
        return f"SELECT {literal(refusal(error))} AS _jammi_token, NULL AS _jammi_named"
    rows, counts, build = named.sql, entry.counts, literal(entry.build)
    keys = f"(SELECT {_key_column(entry)} AS _jammi_key FROM {rows} AS {quoted(named.alias)}"
    began, clock = "NULL", ""
    if traced:
        began, clock = "min(_jammi_clocked.began)", "(SELECT _jammi_clock(0) AS began) AS _jammi_clocked, "

    def token(row_ids: str, numbers: str, key_type: str, source_rows: str, start: str = began) -> str:
        caller = f"{literal(connection)}, txid_current()::BIGINT"
        return f"_jammi_select({caller}, {traced}, {build}, {row_ids}, {numbers}, {key_type}, {source_rows}, {start})"

    key_type = "any_value(typeof(_jammi_key))"
    everything = token("NULL", "NULL", "NULL", "NULL", "NULL") if traced else build
    names, origin = "NULL", ""
    if predicate is not None:
        condition = engine.conditions.of(predicate, named.alias, path[0], schemas_of(path), transaction)
        texts, numbers = _keys("_jammi_key")
        chosen = token(texts, f"coalesce({numbers}, list_value())", key_type, "NULL")
        names = f"list_value({', '.join(map(literal, condition.parameters))})::VARCHAR[]"
        origin = f" FROM {clock}{keys} WHERE {condition.proven()})"
    elif joined:
        now = "max(_jammi_changed.n)"
        then = counts.rows + counts.skipped + counts.failed
        all_there = token("list(_jammi_key::VARCHAR)", "NULL", key_type, now)
        chosen = f"CASE WHEN {now} IS NULL THEN {everything} ELSE {all_there} END"
        origin = (
            f" FROM {clock}(SELECT count(*) AS n FROM {rows} HAVING count(*) <> {then:d}) AS _jammi_changed, {keys})"
        )
    else:
        chosen = everything
    reads = joined or predicate is not None
    return proven_selection(chosen, names, origin, named, meaning, entry.definition.key, joined=reads)


def select(
    engine: Engine,
    connection: Column,
    transaction: Column,
    traced: Column,
    build: Column,
    row_ids: Column,
    numbers: Column,
    key_type: Column,
    source_rows: Column,
    began: Column,
) -> pa.Array:
    """Keep the rows of a selection, whose ids are texts or whole numbers; gives its token."""
    lists, whole = row_ids.combine_chunks(), numbers.combine_chunks()
    tokens = []
    for i, (of, kind, rows, start, trace) in enumerate(rows_of((build, key_type, source_rows, began, traced))):
        chosen = [each[i].values for each in (lists, whole) if each[i].is_valid]
        there = RowsThere(chosen, kind, rows)
        caller = caller_of((connection[i:], transaction[i:]))
        tokens.append(engine.selections.keep(caller, of, there, start, traced=trace))
    return pa.array(tokens, pa.string())


def clock(engine: Engine, each: Column) -> pa.Array:
    """Seconds on the clock that stages are timed by."""
    return pa.array([time.perf_counter()] * len(each))


def search_rows(
    engine: Engine,
    token: Column,
    text: Column,
    vector: Column,
    row_id: Column,
    key_type: Column,
    given: Column,
    k: Column,
    exact: Column,
    least: Column,
    parameters: Column,
    named: Column,
) -> pa.Array:
    """The hits of each query, a list for each; those that ask for the same are answered together."""
    vectors = vector.combine_chunks()
    alike: defaultdict[tuple[str, Asked], list[int]] = defaultdict(list)
    queries: dict[int, Query] = {}
    for i, (of, words, row, kind, there, count, exactly, near) in enumerate(
        rows_of((token, text, row_id, key_type, given, k, exact, least))
    ):
        if not there:
            # Where there is no table, no row of it can be asked for either, and that is said.
            engine.selections.of(of)
            continue
        query = words if words is not None else Like(row, kind) if row is not None else _vector(vectors, i)
        if query is None:
            raise InputError("the query is neither a text nor a list of numbers")
        k_wanted = whole(count, "k")
        if k_wanted is None:
            raise InputError("k is NULL; it must be at least 1")
        if near is not None and math.isnan(near):
            raise InputError("min_similarity is not a number; it must be a cosine, such as 0.5")
        queries[i] = query
        alike[of, Asked(k_wanted, bool(exactly), near)].append(i)
    chosen = {key: engine.selections.of(key[0]) for key in alike}
    for given_names, wanted_names in set(zip(map(_names, parameters), map(_names, named), strict=True)):
        check_parameters(given_names, wanted_names or ())
    answers = []
    for (of, asked), mine in alike.items():
        selected = chosen[of, asked]
        answers.append((mine, *search(engine.tables, engine.encoders, selected, asked, [queries[i] for i in mine])))
    return _hits(len(token), answers)


def stages(engine: Engine, *columns: Column) -> pa.Array:
    """What traced searches did, once their rows were fetched: by token, or the connection's last that found nothing."""
    now = time.perf_counter()
    traces = []
    for token, connection, transaction, fetched in rows_of(columns):
        selections = engine.selections
        done = selections.of(token) if token else selections.traced(Caller(connection, transaction))
        done.traced = False
        fetch = Stage("fetch", "the source's rows, joined by key", fetched, now - (done.ended or now))
        rows = [(stage.name, stage.detail, stage.rows, stage.seconds * 1000) for stage in (*done.stages, fetch)]
        traces.append([dict(zip(STAGE, row, strict=True)) for row in rows])
    return structs(traces, STAGE)


def check_index(engine: Engine, *columns: Column) -> pa.Array:
    """The recall of a table's index on a sample."""
    checked = []
    for source, database, path, model, table, _, k in rows_of(columns):
        entry, _meaning = _chosen(engine, _resolved(engine, source, (database, path)), model, table)
        checked.append([dataclasses.asdict(check(engine.tables, entry, whole(k, "k")))])
    return structs(checked, CHECK)


def _resolved(engine: Engine, source: str | None, path: Sequence[str]) -> Source:
    if source is None:
        raise InputError("the source is NULL; name the table whose rows are searched")
    return resolve(source, path, engine.host)


def _chosen(engine: Engine, source: Source, model: str | None, table: str | None) -> tuple[Entry, Meaning]:
    """The embedding table that is searched, and what the source must be for it."""
    meaning = settle(engine, source, table)
    with telling_renames(engine, source):
        return find_table(
            engine.tables, engine.encoders.names, meaning.identity, model, table, called=source.written
        ), meaning


def _check_there(engine: Engine, source: Source, error: NotFoundError) -> None:
    """Raise an error at once where DuckDB would only say, and not so well, that there is no such table.

    Where there is none at all, an IMPORT DATABASE that is not committed yet may be making a view that searches.
    """
    if source.session and not found(source.relations, engine.host) and has_relations(engine.host):
        raise error


def _key_column(entry: Entry) -> str:
    """The key's column of a source, chosen by its name.

    Where there is none, DuckDB says that nothing matches the pattern, and with it what that means: the key was renamed.
    To ask `_jammi_column` takes longer than the rest of such a query.
    """
    return _column_or(
        entry.definition.key,
        f"no column '{entry.definition.key}' in '{entry.source}', and it is the key of '{entry.name}'; if it was "
        "renamed, generate anew",
    )


@functools.lru_cache(1000)
def _column_or(key: str, message: str) -> str:
    # DuckDB takes ASCII letters alone for the same in both cases.
    letters = "".join(f"[{c.lower()}{c.upper()}]" if c.isascii() and c.isalpha() else _exactly(c) for c in key)
    return f"COLUMNS({literal(f'^({letters})$|^({_exactly(message)})$')})"


def _exactly(text: str) -> str:
    """A pattern for this text only."""
    return "".join(f"\\{c}" if c in r"\.+*?()|[]{}^$" else c for c in text)


def _names(names: pa.ListScalar) -> tuple[str, ...] | None:
    return tuple(names.as_py()) if names.is_valid else None


def _keys(key: str) -> tuple[str, str]:
    """The values of a column as a list of texts, and as one of whole numbers, of which the other is NULL or empty.

    The usual whole numbers need no text. The type of a column is known when a query is bound, and so DuckDB works out
    one of the two only.
    """
    whole = f"typeof({key}) IN ('BIGINT', 'INTEGER')"
    texts = f"list(CASE WHEN {whole} THEN NULL ELSE {key}::VARCHAR END) FILTER (WHERE NOT {whole})"
    numbers = f"list(CASE WHEN {whole} THEN TRY_CAST({key} AS BIGINT) END) FILTER (WHERE {whole})"
    return texts, numbers


def _vector(vectors: Any, i: int) -> np.ndarray[Any, np.dtype[np.float32]] | None:  # noqa: ANN401 - a ListArray
    value = vectors[i]
    return np.asarray(value.values.to_numpy(zero_copy_only=False), np.float32) if value.is_valid else None


def _hits(rows: int, answered: Sequence[tuple[list[int], str, Answers]]) -> pa.Array:
    if not answered:
        return structs([[]] * rows, HIT)
    lengths = np.zeros(rows, np.int64)
    for mine, _, answers in answered:
        lengths[mine] = answers.counts
    row_ids = pa.concat_arrays([answers.row_ids for _, _, answers in answered])
    names = pa.concat_arrays([pa.repeat(pa.scalar(name), len(answers.row_ids)) for _, name, answers in answered])
    near = np.concatenate([answers.similarities for _, _, answers in answered])
    if len(answered) > 1:
        of_row = np.concatenate([np.repeat(mine, answers.counts) for mine, _, answers in answered])
        order = np.argsort(of_row, kind="stable")
        row_ids, names, near = row_ids.take(pa.array(order)), names.take(pa.array(order)), near[order]
    offsets = offsets_of(lengths)
    ranks = np.arange(1, len(near) + 1, dtype=np.int32) - np.repeat(offsets[:-1], lengths)
    columns = [row_ids, names, pa.array(ranks), pa.array(near), pa.array(np.float32(1) - near)]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(columns, names=list(HIT)))
