"""Runs a search: query -> vector, words, or both -> segments -> ranked rows."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from jammi_duck.encoder import Encoders
from jammi_duck.encoder.blobs import is_picture, refuse_pictures
from jammi_duck.errors import DamagedError, InputError, UnsupportedError, did_you_mean, enumerated
from jammi_duck.retrieval.best_rows import Numbers, Wanted, best_rows, concatenated, in_order
from jammi_duck.retrieval.fusion import WEIGHTED, Arms, Fusion, by_both, by_weights, by_words
from jammi_duck.retrieval.needs import need_passages, need_vectors
from jammi_duck.retrieval.query_vectors import Like, Query, vectors_of, warn_of_vectors
from jammi_duck.retrieval.selection import Selection, opened
from jammi_duck.retrieval.text_query import TextQuery, parse
from jammi_duck.sql import literal
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.segment_words import note_forged
from jammi_duck.storage.tables.table import Answers, RowSubset, Table, no_answers
from jammi_duck.storage.words.bm25 import K1, B, Words
from jammi_duck.types import Stage

# How many rows are re-ranked.
RERANK_K = 50


class Mode(enum.StrEnum):
    """What finds rows: words and vectors together, words, or vectors; by default what the table and the query have."""

    AUTO = "auto"
    HYBRID = "hybrid"
    TEXT = "text"
    VECTOR = "vector"


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search: `k` rows of this similarity or more; compares every vector if `exact`.

    `k1` and `b` are the parameters of BM25. If there is a re-ranker, `rerank`, the search gives `rerank_k` rows for it,
    of which the best `k` are kept. Of a row, the best `per_row` passages are given.
    """

    k: int
    exact: bool = False
    min_similarity: float | None = None
    mode: Mode = Mode.AUTO
    fusion: Fusion = WEIGHTED
    k1: float = K1
    b: float = B
    rerank: str | None = None
    rerank_k: int = RERANK_K
    per_row: int = 1

    @property
    def row_count(self) -> int:
        """How many rows the search itself gives."""
        return self.rerank_k if self.rerank is not None else self.k


def search_options(
    k: int,
    *,
    exact: bool = False,
    min_similarity: float | None = None,
    mode: str | None = None,
    weight: float | None = None,
    fusion: str | None = None,
    k1: float | None = None,
    b: float | None = None,
    rerank: str | None = None,
    rerank_k: int | None = None,
    per_row: int | None = None,
) -> SearchOptions:
    """The options of a search as a user gives them; None for what is not given. Raises InputError."""
    if min_similarity is not None and math.isnan(min_similarity):
        raise InputError("min_similarity is not a number; it must be a cosine, such as 0.5")
    known = [each.value for each in Mode]
    if mode is not None and mode not in known:
        raise InputError(f"no mode '{mode}'{did_you_mean(mode, known) or ';'} there are {enumerated(known)}")
    if fusion is not None and fusion not in _FUSIONS:
        raise InputError(
            f"no fusion '{fusion}'{did_you_mean(fusion, _FUSIONS) or ';'} there are {enumerated(_FUSIONS)}"
        )
    if weight is not None and not 0 <= weight <= 1:
        raise InputError(f"weight is {weight:g}; it must be from 0, for words alone, to 1, for vectors alone")
    if k1 is not None and not 0 <= k1 <= _MOST_K1:
        raise InputError(f"k1 is {k1:g}; it must be from 0 to {_MOST_K1:,}, such as {K1:g}")
    if b is not None and not 0 <= b <= 1:
        raise InputError(f"b is {b:g}; it must be from 0 to 1, such as {B:g}")
    first = RERANK_K if rerank_k is None else rerank_k
    if rerank is not None and first < k:
        raise InputError(
            f"k is {k}, and rerank_k is {first}: the rows that are re-ranked; write rerank_k := {k} or more"
        )
    if per_row is not None and per_row < 1:
        raise InputError(f"per_row is {per_row}; it must be at least 1, for the best passage of each row")
    fused = Fusion(WEIGHTED.weight if weight is None else weight, fusion == "rrf")
    words = K1 if k1 is None else k1, B if b is None else b
    return SearchOptions(k, exact, min_similarity, Mode(mode or Mode.AUTO), fused, *words, rerank, first, per_row or 1)


_FUSIONS = ("weighted", "rrf")
_MOST_K1 = 1000
# How often a search starts again if files of the table are missing.
_TRIES = 3


def search(
    tables: EmbeddingTables, encoders: Encoders, selected: Selection, options: SearchOptions, queries: Sequence[Query]
) -> tuple[str, Answers]:
    """Answer many queries on one table at once; returns the source's name, and the answers in the same order.

    Raises:
        InputError: a `k` below 1, a vector that does not fit the table, or vectors or passages are needed and there are
            none.
        NotFoundError: the embedding table was dropped meanwhile.
        ModelError: the table's model is not available, or its files have changed.
    """
    if options.k < 1:
        raise InputError(f"k is {options.k}; it must be at least 1")
    if options.rerank is not None and not all(isinstance(query, str) and not is_picture(query) for query in queries):
        raise InputError(
            "rerank needs a text, which it reads with each row's, and the query is a vector or a picture: give a text"
        )
    return _searched(tables, selected, lambda *chosen: _answered(tables, encoders, selected, options, queries, *chosen))


def search_by_weights(
    tables: EmbeddingTables,
    encoders: Encoders,
    selected: Selection,
    options: SearchOptions,
    texts: Sequence[str],
    weights: Sequence[float],
) -> list[Answers]:
    """For each of these weights, the answers to texts of a hybrid search. Words and vectors are searched once.

    Raises:
        InputError: the words of the table are not indexed or cannot be used, or it has words only.
    """
    options = dataclasses.replace(options, mode=Mode.HYBRID)

    def answered(table: Table, subset: RowSubset | None) -> list[Answers]:
        need_vectors(tables, table.entry, "jammi_tune")
        words = _words_for(tables, table, options.mode, texts)
        if words is None:
            raise InputError(f"the words of '{table.entry.name}' cannot be used, and a weight needs them")
        arms = _arms(table, words, subset, options)
        parsed = [parse(text, words.analyser) for text in texts]
        vectors, _ = _text_vectors(encoders, arms, parsed)
        every = np.arange(len(texts) * len(weights)).reshape(len(texts), len(weights))

        def ask(queries: Numbers, count: int, within: RowSubset | None) -> Answers:
            """Each query is a text with a weight."""
            wide, answers = dataclasses.replace(arms, k=count), []
            for text, numbers in itertools.groupby(queries.tolist(), lambda number: number // len(weights)):
                chosen, vector = [weights[number % len(weights)] for number in numbers], vectors[text]
                found = [] if vector is None else by_weights(wide, parsed[text], vector, chosen)
                answers += [table.best(each, count) for each in found] or [no_answers(1)] * len(chosen)
            return concatenated(answers)

        best = best_rows(table, ask, every.size, Wanted(options.row_count))
        ends = np.cumsum(best.counts)
        return [_of_queries(best, ends, mine) for mine in every.T]

    return _searched(tables, selected, answered)


T = TypeVar("T")


def _searched(tables: EmbeddingTables, selected: Selection, answered: Callable[[Table, RowSubset | None], T]) -> T:
    """What `answered` gives for the table, and those of its rows that may be found."""
    for _ in range(_TRIES):
        state = tables.recorded.get(selected.build)
        try:
            # The table may have been refreshed since rows of it were selected. It is opened to see whether it is there.
            present = opened(tables, selected.build)
            return answered(*(selected.chosen or (present, None)))
        except DamagedError:
            # Its files may be missing because of a later state, or a drop, which opening it again reports.
            follow_others(tables, at_once=True)
            if tables.recorded.get(selected.build) == state and tables.catalog.is_ready(selected.build):
                raise
            if selected.chosen:
                table, subset = selected.chosen
                now = opened(tables, selected.build)
                # At once: other threads search with it.
                selected.chosen = now, now.subset(table.row_ids_of(subset))
    return answered(*(selected.chosen or (opened(tables, selected.build), None)))


def _answered(
    tables: EmbeddingTables,
    encoders: Encoders,
    selected: Selection,
    options: SearchOptions,
    queries: Sequence[Query],
    table: Table,
    subset: RowSubset | None,
) -> tuple[str, Answers]:
    definition = table.entry.definition
    if options.per_row > 1:
        need_passages(tables, table.entry)
    if not definition.pictures:
        refuse_pictures(queries, definition.model or table.entry.name)
    if not definition.has_vectors:
        options = _by_words_only(tables, table.entry, options, queries)
    words = _words_for(tables, table, options.mode, queries)
    texts = {i: query for i, query in enumerate(queries) if words and isinstance(query, str)}
    parts: list[tuple[list[int], Answers]] = []
    if words and texts:
        arms = _arms(table, words, subset, options)
        try:
            parts.append((list(texts), _by_texts(encoders, arms, options, list(texts.values()))))
        except DamagedError as error:
            if not note_forged(words):
                raise
            table.lose_words(error)
            texts = {}
    others = [i for i in range(len(queries)) if i not in texts]
    if others or not texts:
        parts.append((others, _by_vectors(encoders, table, subset, options, [queries[i] for i in others])))
    if selected.traced:
        filtering = [selected.filtering] if selected.filtering else []
        selected.stages = [_described(table), *filtering, *(stage for _, part in parts for stage in part.stages)]
        selected.ended = time.perf_counter()
    answers = parts[0][1] if len(parts) == 1 else in_order(parts, len(queries))
    if definition.passages:
        answers = dataclasses.replace(answers, passages=table.passages(answers.positions))
    return table.entry.source, answers


def _arms(table: Table, words: Words, subset: RowSubset | None, options: SearchOptions) -> Arms:
    return Arms(table, words, subset, options.row_count, options.exact, options.min_similarity, options.k1, options.b)


def _by_words_only(
    tables: EmbeddingTables, entry: Entry, options: SearchOptions, queries: Sequence[Query]
) -> SearchOptions:
    """The options of a search in a table of words only. Raises InputError for a search that compares vectors."""
    wanted = {
        "jammi_similar": any(isinstance(query, Like) for query in queries),
        "a search for a vector": not all(isinstance(query, str | Like) for query in queries),
        f"mode := '{options.mode}'": options.mode in (Mode.HYBRID, Mode.VECTOR),
        "min_similarity": options.min_similarity is not None,
    }
    for what, is_wanted in wanted.items():
        if is_wanted:
            need_vectors(tables, entry, what)
    return dataclasses.replace(options, mode=Mode.TEXT)


def _words_for(tables: EmbeddingTables, table: Table, mode: Mode, queries: Sequence[Query]) -> Words | None:
    """The words that texts are searched in; None if their vectors alone are searched.

    Raises InputError if the mode needs words, and there are none, or a query is no text.
    """
    if mode == Mode.VECTOR:
        return None
    if mode in (Mode.TEXT, Mode.HYBRID):
        if not all(isinstance(query, str) for query in queries):
            raise InputError(f"mode is '{mode}', which searches for a text; a vector is searched with mode := 'vector'")
        if not table.has_words:
            raise InputError(
                f"mode is '{mode}', and '{table.entry.name}' has no index of words; SELECT * FROM "
                f"jammi_index_words({literal(table.entry.source)}) makes one"
            )
    return _usable_words(tables, table) if any(isinstance(query, str) for query in queries) else None


def _usable_words(tables: EmbeddingTables, table: Table) -> Words | None:
    """The words of a table; None if it has none, or, with a warning, if they cannot be used.

    Raises DamagedError if the table has a later state by now, because of which they may be missing.
    """
    try:
        return table.words
    except (DamagedError, UnsupportedError) as error:
        before = tables.recorded.get(table.entry.build)
        follow_others(tables, at_once=True)
        if tables.recorded.get(table.entry.build) != before:
            raise DamagedError(str(error)) from error
        table.lose_words(error)
        return None


def _by_vectors(
    encoders: Encoders, table: Table, subset: RowSubset | None, options: SearchOptions, queries: Sequence[Query]
) -> Answers:
    began = time.perf_counter()
    like = _rows_like(table, queries)
    vectors, known = vectors_of(encoders, table.entry, queries, {i: vector for i, (_, vector) in like.items()})
    encoding = Stage("encode", "the query's vector", len(known), time.perf_counter() - began)

    def ask(chosen: Numbers, count: int, within: RowSubset | None) -> Answers:
        mine = vectors if len(chosen) == len(vectors) else vectors[chosen]
        exact, least = options.exact or within is not None, options.min_similarity
        if within is None:
            return table.search(mine, count, exact=exact, subset=subset, min_similarity=least)
        return table.search(mine, max(within.rows, 1), exact=exact, subset=within, min_similarity=least)

    # A row is its own nearest neighbour.
    itself = {place: like[i][0] for place, i in enumerate(known.tolist()) if i in like}
    wanted = Wanted(options.row_count, options.per_row, itself)
    answers = best_rows(table, ask, len(known), wanted, subset)
    answers.stages.insert(0, encoding)
    return answers if len(known) == len(queries) else _spread(answers, known, len(queries))


def _by_texts(encoders: Encoders, arms: Arms, options: SearchOptions, texts: Sequence[str]) -> Answers:
    """The answers to texts, by their words, or by their words and their vectors."""
    parsed = [parse(text, arms.words.analyser) for text in texts]
    # A minus before a number is read as an operator.
    warn_of_vectors([text for text, query in zip(texts, parsed, strict=True) if text != query.plain])
    is_hybrid = options.mode != Mode.TEXT
    vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
    stages = []
    if is_hybrid or options.min_similarity is not None:
        vectors, stage = _text_vectors(encoders, arms, parsed)
        stages = [stage]

    def ask(queries: Numbers, count: int, within: RowSubset | None) -> Answers:
        asked = dataclasses.replace(arms, k=count)
        found = [
            _by_text(asked, parsed[query], vectors[query], options.fusion if is_hybrid else None, within)
            for query in queries.tolist()
        ]
        return dataclasses.replace(concatenated(found), stages=[stage for each in found for stage in each.stages])

    answers = best_rows(arms.table, ask, len(texts), Wanted(options.row_count, options.per_row), arms.subset)
    return dataclasses.replace(answers, stages=stages + answers.stages)


def _by_text(
    arms: Arms, query: TextQuery, vector: NDArray[np.float32] | None, fusion: Fusion | None, within: RowSubset | None
) -> Answers:
    """The answers to a query by words, and by its vector as well if there is a `fusion`; see `best_rows.Ask`."""
    if fusion is not None and vector is None:
        return no_answers(1)
    count = arms.k if within is None else max(within.rows, 1)
    by_ranks = fusion is not None and fusion.by_ranks
    if within is not None and not by_ranks:
        arms = dataclasses.replace(arms, k=count, subset=within, exact=True)
    if fusion is None or vector is None:
        ranked, stages = by_words(arms, query, vector)
    else:
        ranked, stages = by_both(arms, query, vector, fusion)
    if within is not None and by_ranks:
        # The ranks are those among all.
        ranked = ranked.within(arms.table.mask(within))
    return dataclasses.replace(arms.table.best(ranked, count), stages=stages)


def _text_vectors(
    encoders: Encoders, arms: Arms, parsed: Sequence[TextQuery]
) -> tuple[list[NDArray[np.float32] | None], Stage]:
    """The vectors of queries by words; None for a query that has none."""
    began = time.perf_counter()
    found, known = vectors_of(encoders, arms.table.entry, [query.plain for query in parsed], {})
    vectors: list[NDArray[np.float32] | None] = [None] * len(parsed)
    for i, vector in zip(known.tolist(), found, strict=True):
        vectors[i] = vector
    return vectors, Stage("encode", "the query's vector", len(known), time.perf_counter() - began)


def _rows_like(table: Table, queries: Sequence[Query]) -> dict[int, tuple[str, NDArray[np.float32]]]:
    """For each query of the kind `Like`, the id and the vector of its row, if the table has it."""
    like = {i: query for i, query in enumerate(queries) if isinstance(query, Like)}
    if not like:
        return {}
    stored = table.vectors(list({query.row_id for query in like.values()}))
    others = {query.row_id: query.key_type for query in like.values() if query.row_id not in stored}
    renamed = table.alike(list(others), next(iter(others.values()))) if others else {}
    stored |= table.vectors(list(renamed.values())) if renamed else {}
    rows = {i: renamed.get(query.row_id, query.row_id) for i, query in like.items()}
    return {i: (row_id, stored[row_id]) for i, row_id in rows.items() if row_id in stored}


def _spread(answers: Answers, known: NDArray[np.int64], queries: int) -> Answers:
    """Answers for all queries, including those without a vector."""
    counts = np.zeros(queries, np.int64)
    counts[known] = answers.counts
    return dataclasses.replace(answers, counts=counts)


def _of_queries(answers: Answers, ends: Numbers, queries: Numbers) -> Answers:
    """The answers to some of the queries; `ends` are where those of each end."""
    counts = answers.counts[queries]
    places = [np.arange(end - count, end) for end, count in zip(ends[queries], counts, strict=True)]
    return answers.take(np.concatenate([np.empty(0, np.int64), *places]), counts)


def _described(table: Table) -> Stage:
    entry = table.entry
    segments = f"{len(table.segments)} segment" + "s" * (len(table.segments) != 1)
    dimensions = f"{entry.definition.dimensions} dimensions" if entry.definition.has_vectors else "words only"
    passages = f", {table.passages_per_row:.3g} passages a row" if entry.definition.passages else ""
    return Stage("table", f"{entry.name}, {segments}, {dimensions}{passages}", table.rows)
