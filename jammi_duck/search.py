"""The story of a search: query -> vector -> segments -> ranked rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder import Encoder, Encoders
from jammi_duck.encoder.dimensions import cut
from jammi_duck.errors import InputError, ModelError, NotFoundError, did_you_mean
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.place import Place
from jammi_duck.storage.table import Ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors


@dataclass(frozen=True)
class Query:
    """One search of the embedding table that `build` made, by whose `key` its hits are joined.

    `query` is a text or a vector; `k` is how many rows are wanted.
    """

    build: str
    key: str
    query: str | NDArray[np.float32]
    k: int
    exact: bool


def search(place: Place, encoders: Encoders, queries: Sequence[Query]) -> list[Ranked]:
    """Answer many searches at once: texts for one table are encoded in one batch.

    Raises:
        InputError: a `k` below 1, an empty text, or a vector that does not fit the table.
        NotFoundError: the embedding table was dropped meanwhile.
        ModelError: the table's model cannot be had, or is not what it was.
    """
    answers: dict[int, Ranked] = {}
    alike: defaultdict[tuple[str, str, int, bool], list[int]] = defaultdict(list)
    for i, query in enumerate(queries):
        if query.k < 1:
            raise InputError(f"k is {query.k}; it must be at least 1")
        alike[query.build, query.key, query.k, query.exact].append(i)
    for (build, key, k, exact), mine in alike.items():
        entry = _ready(place, build, key)
        vectors = _vectors(encoders, entry, [queries[i].query for i in mine])
        answers |= zip(mine, place.table(entry).search(vectors, k, exact=exact), strict=True)
    return [answers[i] for i in range(len(queries))]


def choose(place: Place, encoders: Encoders, source: str, model: str | None, table: str | None) -> Entry:
    """The embedding table that a search means: `table`, or the newest of `source`, of `model` if one is given.

    Raises:
        NotFoundError: there is none; says which there are.
    """
    if table is not None:
        entry = place.ready(table)
        if entry.definition.source != source:
            raise NotFoundError(f"'{entry.name}' is an embedding table of '{entry.definition.source}', not '{source}'")
        return entry
    found = place.catalog.entries("ready", source=source)
    if not found:
        sources = sorted({entry.definition.source for entry in place.catalog.entries("ready")})
        known = f"there are some for: {', '.join(sources)}" if sources else "there are none yet"
        raise NotFoundError(
            f"no embedding table for '{source}'{did_you_mean(source, sources) or ';'} {known}. "
            f"SELECT * FROM jammi_generate('{source}', columns, key) makes one"
        )
    if model is None:
        return found[0]
    names = encoders.names(model)
    of_model = [entry for entry in found if entry.definition.model in names]
    if not of_model:
        models = ", ".join(sorted({entry.definition.model for entry in found}))
        raise NotFoundError(f"no embedding table for '{source}' of the model '{model}'; there are: {models}")
    return of_model[0]


def _ready(place: Place, build: str, key: str) -> Entry:
    for entry in place.catalog.entries("ready"):
        if entry.build == build and entry.definition.key == key:
            return entry
    raise NotFoundError("the embedding table was replaced or dropped while this query was planned; run it again")


def _vectors(encoders: Encoders, entry: Entry, queries: Sequence[str | NDArray[np.float32]]) -> Vectors:
    vectors = np.empty((len(queries), entry.definition.dimensions), np.float32)
    texts = {i: query for i, query in enumerate(queries) if isinstance(query, str)}
    if texts:
        if not all(text.strip() for text in texts.values()):
            raise InputError("the query is an empty text; give some words, or NULL for no rows")
        encoded = _encoder_of(encoders, entry).encode(list(texts.values()), "query")
        vectors[list(texts)] = cut(encoded, entry.definition.dimensions)
    for i, query in enumerate(queries):
        if not isinstance(query, str):
            vectors[i] = _normalised(query, entry)
    return vectors


def _encoder_of(encoders: Encoders, entry: Entry) -> Encoder:
    encoder = encoders.get(entry.definition.model)
    now, then = encoder.description, entry.definition
    if (now.weights, now.pooling) != (then.weights, then.pooling) or now.dimensions < then.dimensions:
        raise ModelError(
            f"the model '{then.model}' is not the one that '{entry.name}' was generated with: its files have changed; "
            "put the old ones back, or generate again"
        )
    return encoder


def _normalised(vector: NDArray[np.float32], entry: Entry) -> NDArray[np.float32]:
    wanted = entry.definition.dimensions
    if len(vector) != wanted:
        raise InputError(f"the query vector has {len(vector)} dimensions; '{entry.name}' has {wanted}")
    exact = vector.astype(np.float64)
    norm = float(np.linalg.norm(exact))
    if not np.isfinite(norm) or norm == 0:
        raise InputError("the query vector is zero, or has a NULL, a NaN or an infinity in it")
    return (exact / norm).astype(np.float32)
