"""Fewer dimensions than a model gives: the first of them say most where a model was trained so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.errors import InputError

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder
    from jammi_duck.types import Vectors


def wanted(dims: int | None, encoder: Encoder) -> int:
    """How many dimensions are meant: `dims`, or all that the model has where it is None.

    Raises:
        InputError: the model has not so many, or `dims` is below 1.
    """
    if dims is None:
        return encoder.dimensions
    if not 1 <= dims <= encoder.dimensions:
        raise InputError(f"dims is {dims}; '{encoder.identity.name}' has 1 to {encoder.dimensions}")
    return dims


def cut(vectors: Vectors, dims: int) -> Vectors:
    """The first `dims` numbers of each vector, L2-normalised again; the vectors themselves where that is all."""
    if dims == vectors.shape[1]:
        return vectors
    short = vectors[:, :dims]
    norms: Vectors = np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
    return np.divide(short, norms, dtype=np.float32)
