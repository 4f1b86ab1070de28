"""The scalar functions of a search: which rows may be found, the hits, and what it took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.arrays import numbers, texts, values_of
from jammi_duck.errors import InputError
from jammi_duck.retrieval.check import Checked, check
from jammi_duck.retrieval.query_vectors import Like, Query
from jammi_duck.retrieval.search import SearchOptions, search, search_options
from jammi_duck.retrieval.selection import SourceRows
from jammi_duck.storage.tables.table import Answers
from jammi_duck.types import Caller, Float, Integer, Stage
from jammi_duck.udfs.arguments import parse_float, parse_int
from jammi_duck.udfs.columns import Column, fields_of, offsets_of, records, rows_of, table
from jammi_duck.udfs.embedding import rerank
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.filters.conditions import check_parameters
from jammi_duck.udfs.sources import SearchPath, resolve
from jammi_duck.udfs.table_lookup import find_embeddings


@dataclass(frozen=True)
class Hit:
    """A row that a search has found; by which passage of which text, in hexadecimal its MD5, or NULL."""

    _row_id: str
    _source_id: str
    _rank: Integer
    _score: Float
    _similarity: Float
    _distance: Float
    _bm25: Float
    _passage: Integer
    _start: int
    _end: int
    _row_digest: str


@dataclass(frozen=True)
class SelectArguments:
    """Arguments of `_jammi_select` beside the rows: see `SourceRows` and `Selections.keep`."""

    caller: Caller
    traced: bool
    build: str
    key_type: str | None
    source_row_count: int | None
    began: float | None


@dataclass(frozen=True)
class StageRow:
    """What is told of a stage of a search."""

    stage: str
    detail: str
    row_count: int
    milliseconds: float


def select(engine: Engine, arguments: Column, row_ids: Column, row_numbers: Column) -> pa.Array:
    """Keep the rows of a selection, whose ids are texts or whole numbers; gives its token."""
    lists = [row_ids.combine_chunks(), row_numbers.combine_chunks()]
    tokens = []
    for i, given in enumerate(records(arguments, SelectArguments)):
        chosen = [each[i].values for each in lists if each[i].is_valid]
        rows = SourceRows(chosen, given.key_type, given.source_row_count)
        tokens.append(engine.selections.keep(given.caller, given.build, rows, given.began, traced=given.traced))
    return texts(tokens)


def clock(engine: Engine, each: Column) -> pa.Array:
    """Seconds on the clock that stages are timed by."""
    return numbers(np.full(len(each), time.perf_counter()))


def search_rows(engine: Engine, token: Column, text: Column, vector: Column, given: Column, *asked: Column) -> pa.Array:
    """The hits of each text or vector, a list for each."""
    vectors = vector.combine_chunks()
    queries: list[Query | None] = []
    for i, (words, there) in enumerate(rows_of((text, given))):
        query = None if not there else words if words is not None else _vector(vectors, i)
        if there and query is None:
            raise InputError("the query is neither a text nor a list of numbers")
        queries.append(query)
    return _answered(engine, token, queries, *asked)


def search_like_rows(engine: Engine, token: Column, row_id: Column, key_type: Column, *asked: Column) -> pa.Array:
    """The hits of each row that others are to be like, a list for each."""
    queries = [None if row is None else Like(row, kind) for row, kind in rows_of((row_id, key_type))]
    return _answered(engine, token, queries, *asked)


def _answered(
    engine: Engine,
    token: Column,
    queries: Sequence[Query | None],
    k: Column,
    exact: Column,
    min_similarity: Column,
    ranking: Column,
    parameters: Column,
    named: Column,
) -> pa.Array:
    """The hits of each query, none for None; those that ask for the same are answered together."""
    together: defaultdict[tuple[str, SearchOptions], list[int]] = defaultdict(list)
    for i, (of_row, k_text, is_exact, smallest, ranked) in enumerate(
        rows_of((token, k, exact, min_similarity, ranking))
    ):
        if queries[i] is None:
            # Where there is no table, no row of it can be asked for either, and that is said.
            engine.selections.of(of_row)
            continue
        k_wanted = parse_int(k_text, "k")
        if k_wanted is None:
            raise InputError("k is NULL; it must be at least 1")
        mode, weight, fusion, k1, b, reranker, rerank_k, per_row = ranked or (None,) * 8
        options = search_options(
            k_wanted,
            exact=bool(is_exact),
            min_similarity=smallest,
            mode=mode,
            weight=parse_float(weight, "weight"),
            fusion=fusion,
            k1=parse_float(k1, "k1"),
            b=parse_float(b, "b"),
            rerank=reranker,
            rerank_k=parse_int(rerank_k, "rerank_k"),
            per_row=parse_int(per_row, "per_row"),
        )
        together[of_row, options].append(i)
    selections = {key: engine.selections.of(key[0]) for key in together}
    for given_names, wanted_names in set(zip(map(_names, parameters), map(_names, named), strict=True)):
        check_parameters(given_names, wanted_names or ())
    answers = []
    for (of_row, options), mine in together.items():
        wanted = [query for query in (queries[i] for i in mine) if query is not None]
        answers.append((mine, *search(engine.tables, engine.encoders, selections[of_row, options], options, wanted)))
    return _hits(len(token), answers)


def rerank_hits(engine: Engine, token: Column, query: Column, text: Column, model: Column) -> pa.Array:
    """The scores of a search's rows by a re-ranker; see `embedding.rerank`."""
    began = time.perf_counter()
    scores = rerank(engine, query, text, model)
    selected = engine.selections.of(token[0].as_py()) if len(token) else None
    if selected and selected.traced:
        stage = selected.reranking or Stage("rerank", f"by {model[0].as_py()}, ties as they were ranked")
        stage.rows, stage.seconds = stage.rows + len(token), stage.seconds + time.perf_counter() - began
        selected.reranking = stage
    return scores


def stages(engine: Engine, *columns: Column) -> pa.Array:
    """What traced searches did, once their rows were fetched: by token, or the session's last that found nothing."""
    now = time.perf_counter()
    traces = []
    for token, session, transaction, fetched in rows_of(columns):
        selections = engine.selections
        done = selections.of(token) if token else selections.traced(Caller(session, transaction))
        done.traced = False
        reranking = [done.reranking] if done.reranking else []
        seconds = now - (done.ended or now) - sum(each.seconds for each in reranking)
        rows = sum(each.rows for each in reranking) or fetched
        fetch = Stage("fetch", "the source's rows, joined by key", rows, seconds)
        traces.append([_stage_row(each) for each in (*done.stages, fetch, *reranking)])
    return table(traces, StageRow)


def _stage_row(stage: Stage) -> StageRow:
    return StageRow(stage.name, stage.detail, stage.rows, round(stage.seconds * 1000, 3))


def check_index(engine: Engine, *columns: Column) -> pa.Array:
    """The recall of a table's index on a sample."""
    checked = []
    for source, database, path, model, name, column, _, k in rows_of(columns):
        resolved = resolve(source, SearchPath(database, path), engine.host)
        entry, _ = find_embeddings(engine, resolved, model, name, column)
        checked.append([check(engine.tables, entry, parse_int(k, "k"))])
    return table(checked, Checked)


def _names(names: pa.ListScalar) -> tuple[str, ...] | None:
    return tuple(names.as_py()) if names.is_valid else None


def _vector(vectors: Any, i: int) -> np.ndarray[Any, np.dtype[np.float32]] | None:  # noqa: ANN401 - a ListArray
    value = vectors[i]
    return np.asarray(value.values.to_numpy(zero_copy_only=False), np.float32) if value.is_valid else None


def _hits(rows: int, answered: Sequence[tuple[list[int], str, Answers]]) -> pa.Array:
    if not answered:
        return table([[]] * rows, Hit)
    lengths = np.zeros(rows, np.int64)
    for mine, _, answers in answered:
        lengths[mine] = answers.counts
    row_ids = pa.concat_arrays([answers.row_ids for _, _, answers in answered])
    names = pa.concat_arrays([pa.repeat(texts([name])[0], len(answers.row_ids)) for _, name, answers in answered])
    scores, near, bm25 = (
        np.concatenate([getattr(answers, name) for _, _, answers in answered])
        for name in ("scores", "similarities", "bm25")
    )
    ranks = np.concatenate([ranks_of(answers) for _, _, answers in answered])
    # What was not computed is NULL.
    computed = (numbers(each, nan_is_null=True) for each in (scores, near, np.float32(1) - near, bm25))
    places = (pa.concat_arrays(each) for each in zip(*(places_of(answers) for _, _, answers in answered), strict=True))
    columns = [row_ids, names, numbers(ranks), *computed, *places]
    hits = pa.StructArray.from_arrays(columns, names=list(fields_of(Hit)))
    if len(answered) > 1:
        of_row = np.concatenate([np.repeat(mine, answers.counts) for mine, _, answers in answered])
        hits = hits.take(numbers(np.argsort(of_row, kind="stable")))
    return pa.ListArray.from_arrays(numbers(offsets_of(lengths)), hits)


def ranks_of(answers: Answers) -> NDArray[np.int32]:
    """The ranks of the rows that were found; those of one row, which follow one another, have one rank."""
    ends = np.cumsum(answers.counts)
    begins = np.repeat(ends - answers.counts, answers.counts)
    places = np.arange(len(begins))
    if answers.passages is not None and len(places):
        ids = values_of(answers.row_ids.dictionary_encode().indices)
        is_next = np.concatenate([[True], (ids[1:] != ids[:-1]) | (begins[1:] != begins[:-1])])
        places = np.cumsum(is_next) - 1
        begins = places[begins]
    return (places - begins + 1).astype(np.int32)


def places_of(answers: Answers) -> list[pa.Array]:
    """Of the rows that were found the numbers, starts and ends of their passages, and the digests of their texts."""
    rows, passages = len(answers.row_ids), answers.passages
    if passages is None:
        return [pa.nulls(rows, kind) for kind in (pa.int32(), pa.int64(), pa.int64(), pa.string())]
    digests = [digest.hex() for digest in passages.column("_row_digest").to_pylist()]
    return [*(passages.column(name) for name in ("_passage", "_start", "_end")), texts(digests)]
