"""The vectors of what is asked for: of texts, of rows, and vectors as they are given."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jammi_duck.encoder import Encoders
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut
from jammi_duck.encoder.recorded import QUERY, recorded_encoder
from jammi_duck.errors import InputError, JammiWarning
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.types import Vectors


@dataclass(frozen=True)
class Like:
    """A query for the rows similar to this row, which is left out; with the type of its key, if known."""

    row_id: str
    key_type: str | None = None


Query = str | NDArray[np.float32] | Like


def vectors_of(
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
        warn_of_vectors([texts[i] for i in said])
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


def warn_of_vectors(texts: Sequence[str]) -> None:
    """Warn of texts that look like vectors."""
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
