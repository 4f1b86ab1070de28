"""The scalar functions of `jammi_search_column`: an exact search over vectors in a column of any source.

DuckDB compares the vectors in the caller's own query. So there is nothing to build, and tables, views, CTEs, TEMP
tables and files are read as the caller's transaction sees them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.blobs import refuse_pictures
from jammi_duck.errors import InputError
from jammi_duck.retrieval.query_vectors import warn_of_vectors
from jammi_duck.retrieval.search import search_options
from jammi_duck.sql import NULL, Sql, joined, literal, quoted, sql, template
from jammi_duck.udfs.arguments import parse_int, parse_model
from jammi_duck.udfs.columns import Column, rows_of
from jammi_duck.udfs.disambiguation import disambiguate_new
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.filters.conditions import check_parameters
from jammi_duck.udfs.rows import key_columns
from jammi_duck.udfs.search_plan import INNER, OUTER
from jammi_duck.udfs.sources import SearchPath, Source, resolve, schemas_of

_MOST_ROWS = 2**62
_COLUMN = template("COLUMNS(list_filter(*, lambda c: _jammi_column(c, {name}, {source}, '')))")
_PRIMARY_KEY = sql(
    "SELECT unnest(constraint_column_names) FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' "
    "AND lower(database_name) = lower(?) AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
)
_ASKED = pa.struct([pa.field("vector", pa.list_(pa.float64())), pa.field("said", pa.string())])
_VECTOR_TYPE = literal(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\))\[\d*\]$")
# DuckDB refuses to compare vectors with a NULL in them, and all others that are near in memory.
_WHOLE = sql("list_transform(_jammi_vector, lambda x: coalesce(x, 'nan'::DOUBLE))")


@dataclass(frozen=True)
class ColumnSearchCall:
    """The arguments of `jammi_search_column` as SQL gives them, but for what is asked for; `key` is JSON."""

    source: str | None
    search_path: SearchPath
    vector: str | None
    key: str | None
    k: str | None
    filter: str | None
    transaction: int


@dataclass(frozen=True)
class AskedVector:
    """A vector that is asked for, NULL where nothing can be near to it, and what is said of its length."""

    vector: Annotated[object, "DOUBLE[]"]
    said: str | None


def column_search_query(engine: Engine, call: ColumnSearchCall) -> Sql:
    """The source's rows whose vectors are nearest to the one that is asked for, with the columns of a search.

    That and its options are a row of `_jammi_question`.

    Raises:
        InputError: the source or the column is NULL, or `k`, the key or the filter cannot be used.
    """
    if call.vector is None:
        raise InputError("jammi_search_column needs a source and its column of vectors: none of them may be NULL")
    source = resolve(call.source, call.search_path, engine.host)
    names, condition = NULL, sql("true")
    if call.filter is not None:
        path = call.search_path
        found = engine.conditions.of(call.filter, source.alias, path.database, schemas_of(path), call.transaction)
        names = sql("list_value({})::VARCHAR[]", joined(", ", map(literal, found.parameters)))
        condition = found.proven(beside_hits=True)
        if found.parameters:
            # DuckDB would see that no row passes where there are no values, and not ask whether there are.
            condition = sql("CASE WHEN _jammi_asked IS NULL THEN false ELSE {} END", condition)
    # Materialized, so that what is wrong is said also where no row passes the filter.
    return sql(
        "WITH _jammi_asking AS MATERIALIZED (SELECT _jammi_least, _jammi_parameters, _jammi_ask(_jammi_text, "
        "_jammi_numbers, _jammi_given, _jammi_model, _jammi_k, _jammi_least, json_keys(to_json(_jammi_parameters)), "
        "{names}) AS _jammi_asked FROM _jammi_question) "
        "SELECT _jammi_row.* EXCLUDE (_jammi_row_id, _jammi_near), _jammi_row_id AS _row_id, (row_number() OVER "
        '(ORDER BY _jammi_near DESC, _jammi_row_id COLLATE "C" ASC))::INTEGER AS _rank, '
        "_jammi_near::FLOAT AS _score, _jammi_near::FLOAT AS _similarity, "
        '"-"(1::FLOAT, _jammi_near::FLOAT) AS _distance, NULL::FLOAT AS _bm25 FROM (SELECT {outer} FROM ({best})) '
        "_jammi_row ORDER BY _rank ASC",
        names=names,
        outer=OUTER,
        best=_best(_compared(engine, call, source, condition), call.k),
    )


def _best(rows: Sql, k: str | None) -> Sql:
    """The best rows of those with a vector to compare; what is wrong about `k` is said when the query runs."""
    return sql(
        "SELECT * EXCLUDE (_jammi_least) FROM (SELECT * FROM ({}) "
        'ORDER BY _jammi_near DESC NULLS LAST, _jammi_row_id COLLATE "C" ASC LIMIT {}) '
        "WHERE _jammi_near >= coalesce(_jammi_least, -2)",
        rows,
        min(max(parse_int(k, "k") or 1, 1), _MOST_ROWS),
    )


def _compared(engine: Engine, call: ColumnSearchCall, source: Source, condition: Sql) -> Sql:
    """The source's rows that pass the filter, each with its cosine as `_jammi_near`: NULL where it has no direction.

    DuckDB 1 gives -1 as the cosine of vectors of zeros, or with a NaN, so the length of such a vector is looked at.
    """
    assert call.vector is not None
    alias = quoted(source.alias)
    width = sql(
        "_jammi_refuse(concat(struct_extract(_jammi_asked, 'said'), {}, len(_jammi_vector)::VARCHAR, {}), '')::DOUBLE",
        literal(f", and a vector in the column '{call.vector}' of '{source.written}' has "),
        literal(": search with the model, or by a vector, of the same dimensions"),
    )
    cosines = sql(
        "SELECT {alias}.*, _jammi_least, CASE WHEN struct_extract(_jammi_asked, 'vector') IS NULL THEN NULL "
        "WHEN len(_jammi_vector) <> len(struct_extract(_jammi_asked, 'vector')) THEN {width} "
        "ELSE coalesce(TRY(list_cosine_similarity(_jammi_vector, struct_extract(_jammi_asked, 'vector'))), "
        "list_cosine_similarity({whole}, struct_extract(_jammi_asked, 'vector'))) END AS _jammi_cosine "
        "FROM _jammi_asking, {rows} AS {alias} WHERE {condition}",
        alias=alias,
        width=width,
        whole=_WHOLE,
        rows=_rows(engine, call, source),
        condition=condition,
    )
    return sql(
        "SELECT * EXCLUDE (_jammi_vector, _jammi_cosine), CASE WHEN _jammi_cosine > -1 "
        "THEN CASE WHEN isfinite(_jammi_cosine) THEN _jammi_cosine END "
        "WHEN isfinite(nullif(list_inner_product({whole}, {whole}), 0)) THEN _jammi_cosine END AS _jammi_near "
        "FROM ({cosines})",
        whole=_WHOLE,
        cosines=cosines,
    )


def _rows(engine: Engine, call: ColumnSearchCall, source: Source) -> Sql:
    """The source's rows, with their vectors as `_jammi_vector`, and their keys as `_jammi_row_id`.

    The key of a table is looked up, and a CTE without such a column may be in its place; nor has every source numbers
    of its rows. What the source lacks is found in a row beside it, where it is NULL.
    """
    assert call.vector is not None
    column = template("{} AS {}")
    beside = sql("NULL")
    given = key_columns(call.key)
    if not given:
        keys = [quoted(name) for name in _primary_key(engine, source)] or [sql("rowid")]
        beside = joined(", ", (sql("NULL::VARCHAR AS {}", key) for key in keys))
        keys = [sql("{}::VARCHAR", key) for key in keys]
    else:
        keys = [sql("{}::VARCHAR", _picked(name, source)) for name in given]
    names = [sql("_jammi_key_{}", place) for place in range(len(keys))]
    key = (
        names[0]
        if len(names) == 1
        else sql("CASE WHEN {} IS NOT NULL THEN concat_ws(', ', {}) END", names[0], joined(", ", names))
    )
    no_vector = sql(
        "_jammi_refuse(concat({}, typeof(_jammi_raw), {}), '')::DOUBLE[]",
        literal(f"the column '{call.vector}' of '{source.written}' is "),
        literal(", which is no vector: name a column of type FLOAT[n], FLOAT[] or DOUBLE[]"),
    )
    return sql(
        "(SELECT * EXCLUDE (_jammi_raw, {names}), {key} AS _jammi_row_id, CASE WHEN regexp_matches(typeof(_jammi_raw), "
        "{vector_type}) THEN TRY_CAST(_jammi_raw AS DOUBLE[]) WHEN _jammi_raw IS NOT NULL THEN {no_vector} END "
        'AS _jammi_vector FROM (SELECT _jammi_there.* FROM (SELECT {beside}) "_jammi_beside", '
        'LATERAL (SELECT {vector} AS _jammi_raw, {keys}, {inner} FROM {source}) "_jammi_there" '
        "WHERE _jammi_there._jammi_raw IS NOT NULL))",
        names=joined(", ", names),
        key=key,
        vector_type=_VECTOR_TYPE,
        no_vector=no_vector,
        beside=beside,
        vector=_picked(call.vector, source),
        keys=joined(", ", map(column, keys, names)),
        inner=INNER,
        source=source.sql,
    )


def _picked(name: str, source: Source) -> Sql:
    return _COLUMN(name=literal(name), source=literal(source.written))


def _primary_key(engine: Engine, source: Source) -> list[str]:
    """The columns of the primary key, where the source may be a committed table that has one."""
    meant = disambiguate_new(engine, source)
    if meant is None or meant.relation is None:
        return []
    where = meant.relation.database, meant.relation.schema, meant.relation.name
    return [str(name) for (name,) in engine.host.sql(_PRIMARY_KEY, where)]


def ask(engine: Engine, *columns: Column) -> pa.Array:
    """The vectors that are asked for: of texts, or as they are given."""
    asked: list[AskedVector] = []
    rows = rows_of(columns)
    for text, numbers, is_given, _, k_text, least, given, named in rows:
        check_parameters(given, named or ())
        if not is_given:
            asked.append(AskedVector(None, None))
            continue
        k = parse_int(k_text, "k")
        if k is None or k < 1:
            raise InputError(f"k is {'NULL' if k is None else k}; it must be at least 1")
        search_options(k, min_similarity=least)
        if text is None and numbers is None:
            raise InputError("the query is neither a text nor a list of numbers")
        asked.append(_of_numbers(numbers) if text is None else AskedVector(None, None))
    texts: defaultdict[str, list[int]] = defaultdict(list)
    for i, (text, _, _, model, *_) in enumerate(rows):
        if text is not None and not is_blank(text):
            texts[parse_model(model) or engine.default_model].append(i)
    for name, mine in texts.items():
        said = [rows[i][0] for i in mine]
        warn_of_vectors(said)
        encoder = engine.encoders.get(name)
        if not encoder.takes_images:
            refuse_pictures(said, name)
        length = f"the model '{encoder.identity.name}' gives vectors of {encoder.dimensions} dimensions"
        for i, vector in zip(mine, encoder.encode(said, "query"), strict=True):
            asked[i] = AskedVector(vector.tolist(), length)
    return pa.array([dataclasses.asdict(each) for each in asked], _ASKED)


def _of_numbers(numbers: Sequence[float | None]) -> AskedVector:
    if not all(number is not None and math.isfinite(number) for number in numbers):
        raise InputError("the query vector has a NULL, a NaN or an infinity in it")
    vector = None if numbers and not any(numbers) else numbers
    return AskedVector(vector, f"the query vector has {len(numbers)} dimensions")
