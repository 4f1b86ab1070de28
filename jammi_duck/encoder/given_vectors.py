"""Checks of vectors that were made elsewhere, by a server or by the user's own Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encodings
from jammi_duck.types import Vectors

_MOST_TOLD = 200
# Lengths whose squares are surely exact to the digits of a FLOAT; neither NaN nor infinity is between.
_LEAST, _MOST = 1e-12, 1e12


# A vector of length 1, or the reason why there is none.
Made: TypeAlias = NDArray[np.float32] | str


def checked_all(given: Sequence[object], dimensions: int) -> list[Made]:
    """As `checked`, for several vectors: at once, if nothing is wrong with any."""
    try:
        with np.errstate(all="ignore"):
            matrix = np.asarray(given, np.float32)
            lengths = np.linalg.norm(matrix, axis=-1, keepdims=True)
        is_good = matrix.shape == (len(given), dimensions) and bool(((lengths > _LEAST) & (lengths < _MOST)).all())
    except (TypeError, ValueError):
        is_good = False
    return list(matrix / lengths) if is_good else [checked(each, dimensions) for each in given]


def checked(given: object, dimensions: int) -> Made:
    """A vector of length 1, of so many dimensions, or the reason why there is none."""
    if given is None:
        return "it gave no vector"
    if hasattr(given, "detach"):
        # A tensor of torch may be on a GPU, need a gradient, or be of a type that numpy does not have.
        given = given.detach().float().cpu()
    try:
        numbers = np.asarray(given)
        with np.errstate(all="ignore"):
            vector = numbers.astype(np.float64) if numbers.dtype.kind in "iufO" else None
    except Exception as error:
        return f"it gave {shown(given)} instead of a vector: {type(error).__name__}"
    if vector is None or vector.ndim != 1:
        return f"it gave {shown(given)} instead of a vector"
    if len(vector) != dimensions:
        return f"it gave {len(vector)} numbers instead of {dimensions}"
    finite = np.isfinite(vector)
    if not finite.all():
        place = int(finite.argmin())
        return f"it gave {numbers[place]} as number {place + 1} of the vector, which is no finite FLOAT"
    # A first division keeps the squares of very large and of very small numbers finite.
    largest = float(np.abs(vector).max(initial=0.0))
    if largest == 0:
        return "it gave a vector of zeros, which has no direction"
    vector /= largest
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def encodings_of(vectors: Vectors, reasons: Mapping[int, str]) -> Encodings:
    """What came of texts, none of which was cut: their vectors, and by place why some have none. The log is told."""
    if reasons:
        log.warning("%d texts could not be embedded, the first: %s", len(reasons), reasons[min(reasons)])
    failed = np.zeros(len(vectors), np.bool_)
    failed[list(reasons)] = True
    return Encodings(vectors, np.zeros(len(vectors), np.bool_), failed, reasons)


def shown(value: object) -> str:
    """A value as an error shows it."""
    text = "None" if value is None else f"{type(value).__name__} {value!r}"
    return text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}…"


def length_of(given: object) -> int:
    """How many numbers a vector has; 0 if it is none."""
    return len(given) if isinstance(given, list | tuple | np.ndarray) else 0
