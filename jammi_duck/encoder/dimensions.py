"""Vectors with only the first dimensions, for models trained so that these carry most of the meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.errors import InputError

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder
    from jammi_duck.types import Vectors


def resolve_dims(dims: int | None, encoder: Encoder) -> int:
    """The number of dimensions: `dims`, or all dimensions of the model if it is None.

    Raises:
        InputError: the model has fewer dimensions, or `dims` is below 1.
    """
    if dims is None:
        return encoder.dimensions
    if not 1 <= dims <= encoder.dimensions:
        raise InputError(f"dims is {dims}; '{encoder.identity.name}' has 1 to {encoder.dimensions}")
    return dims


def cut(vectors: Vectors, dims: int) -> Vectors:
    """The first `dims` numbers of each vector, L2-normalised again; the same vectors if they have no more."""
    if dims == vectors.shape[1]:
        return vectors
    short = vectors[:, :dims]
    norms: Vectors = np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
    return np.divide(short, norms, dtype=np.float32)
