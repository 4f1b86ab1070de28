"""Runs a search: query -> vector -> segments -> ranked rows."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.encoder import Encoders
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut
from jammi_duck.encoder.recorded import QUERY, recorded_encoder
from jammi_duck.errors import DamagedError, InputError, JammiWarning
from jammi_duck.retrieval.selection import Selection, opened
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.table import Answers, RowSubset, Table
from jammi_duck.types import Stage, Vectors


@dataclass(frozen=True)
class Like:
    """A query for the rows similar to this row, which is left out; with the type of its key, if known."""

    row_id: str
    key_type: str | None = None


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search: `k` rows of this similarity or more; compares every vector if `exact`."""

    k: int
    exact: bool = False
    min_similarity: float | None = None


# How often a search starts again if files of the table are missing.
_TRIES = 3

Query = str | NDArray[np.float32] | Like


def search(
    tables: EmbeddingTables, encoders: Encoders, selected: Selection, options: SearchOptions, queries: Sequence[Query]
) -> tuple[str, Answers]:
    """Answer many queries on one table at once; returns the source's name, and the answers in the same order.

    Raises:
        InputError: a `k` below 1, or a vector that does not fit the table.
        NotFoundError: the embedding table was dropped meanwhile.
        ModelError: the table's model is not available, or its files have changed.
    """
    if options.k < 1:
        raise InputError(f"k is {options.k}; it must be at least 1")
    for _ in range(_TRIES):
        state = tables.recorded.get(selected.build)
        try:
            # The table may have been refreshed since rows of it were selected. It is opened to see whether it is there.
            present = opened(tables, selected.build)
            return _answered(encoders, selected, options, queries, selected.chosen or (present, None))
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
    return _answered(encoders, selected, options, queries, selected.chosen or (opened(tables, selected.build), None))


def _answered(
    encoders: Encoders,
    selected: Selection,
    options: SearchOptions,
    queries: Sequence[Query],
    chosen: tuple[Table, RowSubset | None],
) -> tuple[str, Answers]:
    table, subset = chosen
    entry = table.entry
    began = time.perf_counter()
    like = _rows_like(table, queries)
    vectors, known = _vectors(encoders, entry, queries, {i: vector for i, (_, vector) in like.items()})
    encoding = Stage("encode", "the query's vector", len(known), time.perf_counter() - began)
    # A row is its own nearest neighbour.
    k = options.k + 1 if like else options.k
    answers = table.search(vectors, k, exact=options.exact, subset=subset, min_similarity=options.min_similarity)
    stages = [encoding, *answers.stages]
    if like or len(known) < len(queries):
        answers = _spread(answers, known, len(queries), {i: row_id for i, (row_id, _) in like.items()}, options.k)
    if selected.traced:
        filtering = [selected.filtering] if selected.filtering else []
        selected.stages = [_described(entry, table), *filtering, *stages]
        selected.ended = time.perf_counter()
    return entry.source, answers


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


def _vectors(
    encoders: Encoders, entry: Entry, queries: Sequence[Query], stored: Mapping[int, NDArray[np.float32]]
) -> tuple[Vectors, NDArray[np.int64]]:
    """The unit vectors of queries, and which queries have one: a blank text and a zero vector have none.

    `stored` contains the vectors of rows that are queries themselves.
    """
    vectors = np.empty((len(queries), entry.definition.dimensions), np.float32)
    known = np.array([i in stored or not isinstance(query, Like) for i, query in enumerate(queries)], bool)
    for i, vector in stored.items():
        vectors[i] = vector
    texts = {i: query for i, query in enumerate(queries) if isinstance(query, str)}
    for i, text in texts.items():
        known[i] = not is_blank(text)
    said = [i for i in texts if known[i]]
    if said:
        _warn_of_vectors([texts[i] for i in said])
        encoder = recorded_encoder(encoders, entry.name, entry.definition, QUERY)
        encoded = encoder.encode([texts[i] for i in said], "query")
        vectors[said] = cut(encoded, entry.definition.dimensions)
    given = {i: query for i, query in enumerate(queries) if isinstance(query, np.ndarray)}
    for i, vector in given.items():
        if len(vector) != vectors.shape[1]:
            raise InputError(f"the query vector has {len(vector)} dimensions; '{entry.name}' has {vectors.shape[1]}")
        vectors[i] = vector
    if given:
        positions = list(given)
        vectors[positions], known[positions] = _normalised(vectors[positions])
    return vectors[known], np.flatnonzero(known)


def _warn_of_vectors(texts: Sequence[str]) -> None:
    if any(map(_looks_like_vector, texts)):
        warnings.warn(
            "the query is a text that looks like a vector, and is embedded as words; for a search by the vector, cast "
            "it: '[0.1, ...]'::FLOAT[]",
            JammiWarning,
            stacklevel=2,
        )


def _looks_like_vector(text: str) -> bool:
    inside = text.strip()
    if not (inside.startswith("[") and inside.endswith("]") and "," in inside):
        return False
    with contextlib.suppress(ValueError):
        return all(math.isfinite(float(number)) for number in inside[1:-1].split(","))
    return False


def _normalised(vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
    """The vectors scaled to length 1, and which of them could be scaled: a zero vector has no direction."""
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise InputError("the query vector has a NULL, a NaN or an infinity in it")
    unit: Vectors = (exact / np.where(norms, norms, 1)).astype(np.float32)
    return unit, norms[:, 0] > 0


def _spread(answers: Answers, known: NDArray[np.int64], queries: int, like: dict[int, str], k: int) -> Answers:
    """Answers for all queries, including those without a vector; a `like` row is removed from its own answer."""
    ends = np.cumsum(answers.counts)
    counts = np.zeros(queries, np.int64)
    kept: list[NDArray[np.int64]] = []
    for i, start, end in zip(known, ends - answers.counts, ends, strict=True):
        mine = np.arange(start, end)
        if i in like:
            itself = np.array([row_id == like[i] for row_id in answers.row_ids[start:end].to_pylist()], bool)
            mine = mine[~itself]
        kept.append(mine[:k])
        counts[i] = len(kept[-1])
    positions = np.concatenate(kept) if kept else np.empty(0, np.int64)
    return Answers(counts, answers.row_ids.take(pa.array(positions)), answers.similarities[positions])


def _described(entry: Entry, table: Table) -> Stage:
    segments = f"{len(table.segments)} segment" + "s" * (len(table.segments) != 1)
    return Stage("table", f"{entry.name}, {segments}, {entry.definition.dimensions} dimensions", table.rows)
