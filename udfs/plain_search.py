"""A search of a plain table in small queries, for who holds the caller's connection: DuckDB plans them sooner.

They say what the source is to the caller, and give its rows beside the hits, which are computed in between. So nothing
is open that one large query, as the macro stands for, has to settle by conditions. All that is not so plain is left to
the macro.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jammi_duck.arrays import numbers
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.errors import InputError
from jammi_duck.retrieval.query_vectors import Query
from jammi_duck.retrieval.search import SearchOptions, search, search_options
from jammi_duck.sql import Sql, Template, folded, quoted, sql, template
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.types import Caller
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.following import bring_in
from jammi_duck.udfs.freshening import texts_wanted
from jammi_duck.udfs.passage_columns import passage_columns, passage_text
from jammi_duck.udfs.search_plan import OURS, OURS_OF_PASSAGES, RANK, RANK_OF_PASSAGES, THEN
from jammi_duck.udfs.searching import places_of, ranks_of
from jammi_duck.udfs.sources import Relation, SearchPath, resolve
from jammi_duck.udfs.table_lookup import find_embeddings
from jammi_duck.work.freshen import TEXTS

# A name of ours, or of what our queries use; and the same where rows are found by passages.
_OURS, _OURS_OF_PASSAGES = (
    re.compile(f"_+(?:jammi_.*|{names})", re.IGNORECASE | re.DOTALL) for names in (OURS, OURS_OF_PASSAGES)
)
# A whole number as DuckDB writes it, which has no other value in a type that it fits.
_WHOLE = re.compile("-?(?:[1-9][0-9]{0,17}|[1-8][0-9]{18})|0")
# By the type of the key, which row has a hit's id. Whatever collation the column or the session has, a text is its own
# row only; this is no join by that as well, for which DuckDB would look at the letters of every row.
_NUMBER = template("{key} = _jammi_row_id::BIGINT")
_TEXT = template('{key} = _jammi_row_id AND ({key}::VARCHAR COLLATE "C" = _jammi_row_id OR _jammi_rank < 0)')
_CONDITIONS = {"BIGINT": _NUMBER, "INTEGER": _NUMBER, "VARCHAR": _TEXT}

# A hit's columns, from lists of their values.
_HIT = template(
    "unnest({}::VARCHAR[]) AS _jammi_row_id, unnest({}::INTEGER[]) AS _jammi_rank, unnest({}::FLOAT[]) AS "
    "_jammi_score, unnest({}::FLOAT[]) AS _jammi_similarity, unnest({}::FLOAT[]) AS _jammi_distance, "
    "unnest({}::FLOAT[]) AS _jammi_bm25"
)
_PLACE = template(
    "unnest({}::INTEGER[]) AS _jammi_passage, unnest({}::BIGINT[]) AS _jammi_start, unnest({}::BIGINT[]) AS "
    "_jammi_end, unnest({}::VARCHAR[]) AS _jammi_row_digest"
)

# The caller's search path, as `SearchPath` has it.
SEARCH_PATH = sql("SELECT current_database(), current_setting('search_path')")


@dataclass(frozen=True)
class Question:
    """What a search is asked for. With None for `fresh_rows`, nothing is brought in, even if the source is followed."""

    source: str
    query: Query
    options: SearchOptions
    model: str | None = None
    table: str | None = None
    column: str | None = None
    fresh_rows: int | None = TEXTS


def question_of(
    source: str,
    query: object,
    k: int = 10,
    *,
    exact: bool = False,
    min_similarity: float | None = None,
    model: str | None = None,
    embedding_table: str | None = None,
    column: str | None = None,
    per_row: int = 1,
    fresh: bool | None = None,
    fresh_rows: int = TEXTS,
    **ranking: Any,
) -> Question | None:
    """What is asked for, where it is so plainly: all else is for DuckDB to read, or to refuse.

    `ranking` is mode, weight, fusion, k1 and b.
    """
    is_number = min_similarity is None or (type(min_similarity) in (int, float) and math.isfinite(min_similarity))
    are_whole = all(type(each) is int for each in (k, per_row, fresh_rows))
    is_plain = are_whole and type(exact) is bool and is_number and not fresh
    if not is_plain or query is None or (isinstance(query, str) and is_blank(query)):
        return None
    with contextlib.suppress(ValueError, TypeError, OverflowError, InputError):
        if not isinstance(query, str) and np.asarray(query).dtype.kind not in "fiu":
            return None
        wanted = query if isinstance(query, str) else np.asarray(query, np.float32)
        if isinstance(wanted, str) or wanted.ndim == 1:
            options = search_options(k, exact=exact, min_similarity=min_similarity, per_row=per_row, **ranking)
            limit = None if fresh is False else fresh_rows
            return Question(source, wanted, options, model, embedding_table, column, limit)
    return None


@dataclass(frozen=True)
class Look:
    """What is to be looked at, before a search: a `relation`, which a query reads by its `source`.

    `state` gives the source's number of rows, the type of its key, the caller's database and search path. DuckDB cannot
    bind it where the source is not the table, or view, that the embeddings in `entry` are of. `columns` gives its
    columns.
    """

    entry: Entry
    relation: Relation
    source: Sql
    state: Sql
    columns: Sql


def look_of(
    engine: Engine, search_path: SearchPath, question: Question, databases: Mapping[str, str | None] | None
) -> Look | None:
    """What to look at where names are resolved by this search path; None for what is no table or view.

    Raises:
        JammiError: the source has no name that can be used, or no embeddings.
    """
    source = resolve(question.source, search_path, engine.host, databases)
    entry, meant = find_embeddings(engine, source, question.model, question.table, question.column)
    if meant.relation is None:
        return None
    if question.fresh_rows is not None:
        limit = texts_wanted(str(question.fresh_rows))
        entry = bring_in(engine, source, meant, entry, limit, Caller(uuid.uuid4().hex, 0))
    # A column that is called by database, schema and table is found only in that table.
    state = sql(
        "SELECT count(*), typeof((SELECT {relation}.{key} FROM {source} LIMIT 0)), "
        "current_database(), current_setting('search_path') FROM {source}",
        relation=meant.relation.sql,
        key=quoted(entry.definition.key),
        source=source.sql,
    )
    return Look(entry, meant.relation, source.sql, state, sql("SELECT * FROM {}", source.sql))


def answer_of(
    engine: Engine, question: Question, look: Look, columns: Sequence[str], rows: int, key_type: str
) -> tuple[Template, list[list[Any]]] | None:
    """The query for the rows that were found, from SQL for each value, and these; None where there is more to settle.

    Raises:
        JammiError: whatever a search may refuse.
    """
    definition = look.entry.definition
    has_changed = rows != look.entry.counts.source_rows
    ours = _OURS_OF_PASSAGES if definition.passages else _OURS
    if has_changed or key_type not in _CONDITIONS or any(map(ours.fullmatch, columns)):
        return None
    if definition.passages and not {*map(folded, definition.columns)} <= {*map(folded, columns)}:
        return None
    selected = engine.selections.of(look.entry.build)
    _, answers = search(engine.tables, engine.encoders, selected, question.options, [question.query])
    keys = answers.row_ids.to_pylist()
    if key_type != "VARCHAR" and not all(map(_WHOLE.fullmatch, keys)):
        return None
    near = answers.similarities
    computed = (answers.scores, near, np.float32(1) - near, answers.bm25)
    values = [
        keys,
        ranks_of(answers).tolist(),
        *(numbers(each, nan_is_null=True).to_pylist() for each in computed),
    ]
    if definition.passages:
        values += [each.to_pylist() for each in places_of(answers)]
    return functools.partial(_rows_query, look, key_type), values


def _rows_query(look: Look, key_type: str, *values: Sql) -> Sql:
    definition = look.entry.definition
    hits, rank, then, more = _HIT(*values[:6]), RANK, sql(""), sql("")
    if definition.passages:
        hits, rank, then = sql("{}, {}", hits, _PLACE(*values[6:])), RANK_OF_PASSAGES, THEN
        more = passage_columns(passage_text(definition, lambda place: _there(definition.columns[place - 1])))
    return sql(
        "SELECT _jammi_there.*, _jammi_row_id AS _row_id, ({rank} OVER (ORDER BY _jammi_rank ASC))::INTEGER AS "
        "_rank, _jammi_score AS _score, _jammi_similarity AS _similarity, _jammi_distance AS _distance, "
        "_jammi_bm25 AS _bm25{more} FROM (SELECT {hits}) "
        "_jammi_hits JOIN {source} AS _jammi_there ON {condition} ORDER BY _jammi_rank ASC{then}",
        rank=rank,
        more=more,
        hits=hits,
        source=look.source,
        condition=_CONDITIONS[key_type](key=_there(definition.key)),
        then=then,
    )


def _there(column: str) -> Sql:
    return sql("_jammi_there.{}", quoted(column))
