"""The story of a search: query -> vector -> segments -> ranked rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder import Encoder
from jammi_duck.encoder.loaded import Encoders
from jammi_duck.errors import InputError, ModelError, NotFoundError, did_you_mean
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.place import Place
from jammi_duck.storage.table import Ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors


@dataclass(frozen=True)
class Target:
    """Which embedding table a search means: the newest of `source`, of `model` if given, or the one named `table`."""

    source: str
    model: str | None = None
    table: str | None = None


@dataclass(frozen=True)
class Query:
    """One search: `query` is a text or a vector; `k` is how many rows are wanted."""

    target: Target
    query: str | NDArray[np.float32]
    k: int
    exact: bool


def search(place: Place, encoders: Encoders, queries: Sequence[Query]) -> list[Ranked]:
    """Answer many searches at once: texts for one table are encoded in one batch.

    Raises:
        InputError: a `k` below 1, an empty text, or a vector that does not fit the table.
        NotFoundError: the source has no ready embedding table.
        ModelError: the table's model cannot be had, or is not what it was.
    """
    answers: list[Ranked | None] = [None] * len(queries)
    alike: defaultdict[tuple[Target, int, bool], list[int]] = defaultdict(list)
    for i, query in enumerate(queries):
        if query.k < 1:
            raise InputError(f"k is {query.k}; it must be at least 1")
        alike[query.target, query.k, query.exact].append(i)
    for (target, k, exact), mine in alike.items():
        entry = choose(place, encoders, target)
        vectors = _vectors(encoders, entry, [queries[i].query for i in mine])
        table = place.table(entry)
        for i, ranked in zip(mine, table.search(vectors, k, exact=exact), strict=True):
            answers[i] = ranked
    return [answer for answer in answers if answer is not None]


def choose(place: Place, encoders: Encoders, target: Target) -> Entry:
    """The embedding table that a search means. Raises NotFoundError, saying which there are."""
    if target.table is not None:
        entry = place.ready(target.table)
        if entry.definition.source != target.source:
            raise NotFoundError(
                f"'{entry.name}' is an embedding table of '{entry.definition.source}', not '{target.source}'"
            )
        return entry
    found = place.catalog.entries("ready", source=target.source)
    if not found:
        sources = sorted({entry.definition.source for entry in place.catalog.entries("ready")})
        known = f"there are some for: {', '.join(sources)}" if sources else "there are none yet"
        raise NotFoundError(
            f"no embedding table for '{target.source}'{did_you_mean(target.source, sources)}; {known}. "
            f"SELECT * FROM jammi_generate('{target.source}', columns, key) makes one"
        )
    if target.model is None:
        return found[0]
    names = encoders.names(target.model)
    of_model = [entry for entry in found if entry.definition.model in names]
    if not of_model:
        models = ", ".join(sorted({entry.definition.model for entry in found}))
        raise NotFoundError(
            f"no embedding table for '{target.source}' of the model '{target.model}'; there are: {models}"
        )
    return of_model[0]


def _vectors(encoders: Encoders, entry: Entry, queries: Sequence[str | NDArray[np.float32]]) -> Vectors:
    vectors = np.empty((len(queries), entry.definition.dimensions), np.float32)
    texts = {i: query for i, query in enumerate(queries) if isinstance(query, str)}
    if texts:
        if not all(text.strip() for text in texts.values()):
            raise InputError("the query is an empty text; give some words, or NULL for no rows")
        vectors[list(texts)] = _encoder_of(encoders, entry).encode(list(texts.values()), "query")
    for i, query in enumerate(queries):
        if not isinstance(query, str):
            vectors[i] = _normalised(query, entry)
    return vectors


def _encoder_of(encoders: Encoders, entry: Entry) -> Encoder:
    encoder = encoders.get(entry.definition.model)
    now, then = encoder.description, entry.definition
    if (now.weights, now.pooling, now.dimensions) != (then.weights, then.pooling, then.dimensions):
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
