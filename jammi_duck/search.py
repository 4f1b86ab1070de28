"""The story of a search: query -> vector -> segments -> ranked rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.encoder import Encoder, Encoders
from jammi_duck.encoder.dimensions import cut
from jammi_duck.errors import InputError, JammiWarning, ModelError, NotFoundError, did_you_mean
from jammi_duck.selection import Selected, opened
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.entering import follow_others
from jammi_duck.storage.place import Place
from jammi_duck.storage.table import Answers, Table
from jammi_duck.types import Stage, Vectors


@dataclass(frozen=True)
class Like:
    """A query for the rows that are like this one, which is itself left out."""

    row_id: str


@dataclass(frozen=True)
class Asked:
    """What is wanted of a search: `k` rows, by looking at every vector if `exact`, of similarity `least` or more."""

    k: int
    exact: bool = False
    least: float | None = None


Query = str | NDArray[np.float32] | Like


def search(
    place: Place, encoders: Encoders, selected: Selected, asked: Asked, queries: Sequence[Query]
) -> tuple[str, Answers]:
    """Answer many searches of one table at once: the source's name, and the answers in the order of the queries.

    Raises:
        InputError: a `k` below 1, an empty text, or a vector that does not fit the table.
        NotFoundError: the embedding table was dropped meanwhile.
        ModelError: the table's model cannot be had, or is not what it was.
    """
    if asked.k < 1:
        raise InputError(f"k is {asked.k}; it must be at least 1")
    present = opened(place, selected.build)
    # The table may have been refreshed since rows of it were selected.
    table = selected.table or present
    entry = table.entry
    began = time.perf_counter()
    vectors, known = _vectors(encoders, entry, table, queries)
    encoding = Stage("encode", "the query's vector", len(known), time.perf_counter() - began)
    like = {i: query.row_id for i, query in enumerate(queries) if isinstance(query, Like)}
    # A row is its own nearest neighbour.
    k = asked.k + 1 if like else asked.k
    answers = table.search(vectors, k, exact=asked.exact, among=selected.among, least=asked.least)
    stages = [encoding, *answers.stages]
    if like or len(known) < len(queries):
        answers = _spread(answers, known, len(queries), like, asked.k)
    if selected.traced:
        filtering = [selected.filtering] if selected.filtering else []
        selected.stages = [_described(entry, table), *filtering, *stages]
        selected.ended = time.perf_counter()
    return entry.definition.source, answers


def choose(place: Place, encoders: Encoders, source: str, model: str | None, table: str | None) -> Entry:
    """The embedding table that a search means: `table`, or the newest of `source`, of `model` if one is given.

    Raises:
        NotFoundError: there is none; says which there are.
    """
    follow_others(place)
    if table is not None:
        entry = place.ready(table)
        if entry.definition.source != source:
            raise NotFoundError(f"'{entry.name}' is an embedding table of '{entry.definition.source}', not '{source}'")
        return entry
    known = place.catalog.entries("ready", "gone", source=source)
    names = None if model is None else encoders.names(model)
    meant = [entry for entry in known if names is None or entry.definition.model in names]
    found = [entry for entry in meant if entry.status == "ready"]
    if not found:
        raise NotFoundError(_none_for(place, source, model, known, meant))
    if meant[0].status == "gone":
        _tell(place, meant[0], found[0])
    return found[0]


def _none_for(place: Place, source: str, model: str | None, known: Sequence[Entry], meant: Sequence[Entry]) -> str:
    """Why there is no embedding table for a source: of all that are known, and those of the wanted model."""
    if meant:
        return f"no embedding table for '{source}': '{meant[0].name}' cannot be used, {meant[0].error}"
    if known:
        models = ", ".join(sorted({entry.definition.model for entry in known}))
        return f"no embedding table for '{source}' of the model '{model}'; there are: {models}"
    sources = sorted({entry.definition.source for entry in place.catalog.entries("ready")})
    others = f"there are some for: {', '.join(sources)}" if sources else "there are none yet"
    return (
        f"no embedding table for '{source}'{did_you_mean(source, sources) or ';'} {others}. "
        f"SELECT * FROM jammi_generate('{source}', columns, key) makes one"
    )


def _tell(place: Place, gone: Entry, taken: Entry) -> None:
    """Warn once that an older table is taken since the newest is gone."""
    if gone.build in place.told:
        return
    place.told.add(gone.build)
    warnings.warn(
        f"'{gone.name}' cannot be used: {gone.error}; '{taken.name}', an older embedding table of "
        f"'{taken.definition.source}', is taken instead",
        JammiWarning,
        stacklevel=2,
    )


def _vectors(
    encoders: Encoders, entry: Entry, table: Table, queries: Sequence[Query]
) -> tuple[Vectors, NDArray[np.int64]]:
    """The unit vectors of the queries that have one, and which these are: a row without a vector has none."""
    vectors = np.empty((len(queries), entry.definition.dimensions), np.float32)
    known = np.ones(len(queries), bool)
    texts = {i: query for i, query in enumerate(queries) if isinstance(query, str)}
    if texts:
        if not all(text.strip() for text in texts.values()):
            raise InputError("the query is an empty text; give some words, or NULL for no rows")
        encoded = _encoder_of(encoders, entry).encode(list(texts.values()), "query")
        vectors[list(texts)] = cut(encoded, entry.definition.dimensions)
    like = {i: query.row_id for i, query in enumerate(queries) if isinstance(query, Like)}
    if like:
        stored = table.vectors(list(set(like.values())))
        for i, row_id in like.items():
            known[i] = row_id in stored
            if known[i]:
                vectors[i] = stored[row_id]
    given = {i: query for i, query in enumerate(queries) if isinstance(query, np.ndarray)}
    for i, vector in given.items():
        if len(vector) != vectors.shape[1]:
            raise InputError(f"the query vector has {len(vector)} dimensions; '{entry.name}' has {vectors.shape[1]}")
        vectors[i] = vector
    if given:
        vectors[list(given)] = _normalised(vectors[list(given)])
    return vectors[known], np.flatnonzero(known)


def _encoder_of(encoders: Encoders, entry: Entry) -> Encoder:
    encoder = encoders.get(entry.definition.model)
    now, then = encoder.description, entry.definition
    # A table that was imported without the model at hand knows its name only.
    differs = bool(then.weights) and (now.weights, now.pooling) != (then.weights, then.pooling)
    if differs or now.dimensions < then.dimensions:
        raise ModelError(
            f"the model '{then.model}' is not the one that '{entry.name}' was generated with: its files have changed; "
            "put the old ones back, or generate again"
        )
    return encoder


def _normalised(vectors: Vectors) -> Vectors:
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise InputError("the query vector is zero, or has a NULL, a NaN or an infinity in it")
    unit: Vectors = (exact / norms).astype(np.float32)
    return unit


def _spread(answers: Answers, known: NDArray[np.int64], queries: int, like: dict[int, str], k: int) -> Answers:
    """Answers for all queries, those without a vector included, where `like` rows lose themselves."""
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
    places = np.concatenate(kept) if kept else np.empty(0, np.int64)
    return Answers(counts, answers.row_ids.take(pa.array(places)), answers.similarities[places])


def _described(entry: Entry, table: Table) -> Stage:
    segments = f"{len(table.segments)} segment" + "s" * (len(table.segments) != 1)
    return Stage("table", f"{entry.name}, {segments}, {entry.definition.dimensions} dimensions", table.rows)
