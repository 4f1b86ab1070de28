"""The table of a look-up model: its vectors, memory-mapped from a safetensors file and checked."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from jammi_duck.errors import ModelError
from jammi_duck.regular_files import open_regular

# bfloat16 is the upper half of float32.
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1"}
_INTEGERS = {"U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8"}
_MOST_DIMENSIONS = 65_536
# Rows of so many numbers are added up at once, 4 MB.
_NUMBERS_AT_ONCE = 1 << 20

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is in its file, and how its numbers are written."""

    dtype: str
    shape: tuple[int, ...]
    start: int


def read_header(file: Path, name: str) -> Mapping[str, Tensor]:
    """The tensors in a safetensors file of the model `name`; their numbers are not read.

    Raises:
        ModelError: the file is truncated, or is none of safetensors.
    """
    try:
        # This checks that the header is right, and that the tensors fill the file.
        with safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
        with open_regular(file) as raw:
            size = int.from_bytes(raw.read(8), "little")
            entries: dict[str, Any] = json.loads(raw.read(size))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the weights of '{name}' cannot be read: '{file}': {error}") from error
    return {
        each: Tensor(entries[each]["dtype"], tuple(entries[each]["shape"]), 8 + size + entries[each]["data_offsets"][0])
        for each in names
    }


def check_table(tensor: Tensor, tensor_name: str, name: str) -> None:
    """Raise ModelError unless a tensor of the model `name` can be a table of vectors."""
    if len(tensor.shape) != 2 or 0 in tensor.shape or tensor.shape[1] > _MOST_DIMENSIONS:
        raise ModelError(
            f"the weights of '{name}' are no table of vectors: '{tensor_name}' has the shape {list(tensor.shape)}; it "
            f"must be the number of tokens, and at most {_MOST_DIMENSIONS:,} dimensions"
        )
    _check_type(tensor, tensor_name, _FLOATS, name)


class Table:
    """The vectors of a model's tokens. Threads may share it.

    A token's vector is a row: the one of its id, or the one that `mapping` has for its id, times its entry in
    `weights`.
    """

    def __init__(self, file: Path, tensor_name: str, dimensions: int, name: str) -> None:
        """Map the tensor `tensor_name`, of which the first `dimensions` are used, in a file of the model `name`.

        Raises:
            ModelError: the tensors cannot be read, do not fit each other, or are not numbers.
        """
        tensors = read_header(file, name)
        check_table(tensors[tensor_name], tensor_name, name)
        self._vectors = _numbers(file, tensors, tensor_name, name)[:, :dimensions]
        self._rows_at_once = max(1, _NUMBERS_AT_ONCE // dimensions)
        # Only Model2Vec has these.
        others = tensors if tensor_name == "embeddings" else {}
        self._weights = _numbers(file, others, "weights", name) if "weights" in others else None
        self._mapping = _mapping(file, others, name) if "mapping" in others else None
        for each, values in (("weights", self._weights), ("mapping", self._mapping)):
            if values is not None and values.ndim != 1:
                raise ModelError(
                    f"the weights of '{name}' do not fit each other: '{each}' has the shape {list(values.shape)}; it "
                    "must have one number for each token"
                )

    @property
    def tokens(self) -> int:
        """How many tokens have a vector: those with an id below this."""
        of_tokens = [self._vectors if self._mapping is None else self._mapping, self._weights]
        return min(len(each) for each in of_tokens if each is not None)

    def sums(self, sequences: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """The sum of the vectors of each sequence of tokens, [n, dimensions]. It does not depend on the others.

        Sequences of one length are added up together, in float64: float32 would lose digits of long ones.
        """
        sums = np.zeros((len(sequences), self._vectors.shape[1]))
        of_length: dict[int, list[int]] = {}
        for place, sequence in enumerate(sequences):
            of_length.setdefault(len(sequence), []).append(place)
        for length, places in of_length.items():
            at_once = max(1, self._rows_at_once // max(1, length))
            for first in range(0, len(places), at_once):
                some = places[first : first + at_once]
                ids = np.array([sequences[place] for place in some], np.intp)
                sums[some] = self._sums_of_equal_length(ids)
        return sums

    def _sums_of_equal_length(self, ids: NDArray[np.intp]) -> NDArray[np.float64]:
        """As `sums`, of sequences of one length, [n, length]."""
        sums = np.zeros((len(ids), self._vectors.shape[1]))
        for start in range(0, ids.shape[1], self._rows_at_once):
            some = ids[:, start : start + self._rows_at_once]
            rows = self._vectors[some if self._mapping is None else self._mapping[some]]
            if self._weights is not None:
                rows = np.multiply(rows, self._weights[some][..., None], dtype=np.float64)
            sums += np.add.reduce(rows, axis=1, dtype=np.float64)
        return sums


def _numbers(file: Path, tensors: Mapping[str, Tensor], which: str, name: str) -> Floats:
    """A tensor in float32. One of float32 or int8 is mapped as it is: its rows become float32 where they are used."""
    tensor = tensors[which]
    _check_type(tensor, which, _FLOATS, name)
    values = _mapped(file, tensor, _FLOATS)
    if tensor.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype not in ("F32", "I8"):
        # What is too large becomes infinite, and is refused.
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    # Both are NaN if any number is.
    if values.size and not (math.isfinite(values.min()) and math.isfinite(values.max())):
        raise ModelError(
            f"the weights of '{name}' are damaged: '{which}' has numbers that are none (NaN) or too large; get its "
            "files again"
        )
    return values


def _mapping(file: Path, tensors: Mapping[str, Tensor], name: str) -> NDArray[np.intp]:
    _check_type(tensors["mapping"], "mapping", _INTEGERS, name)
    rows = tensors["embeddings"].shape[0]
    mapping = _mapped(file, tensors["mapping"], _INTEGERS).astype(np.intp)
    if mapping.size and not (mapping.min() >= 0 and mapping.max() < rows):
        raise ModelError(
            f"the weights of '{name}' do not fit each other: 'mapping' names rows from {mapping.min()} to "
            f"{mapping.max()}, and 'embeddings' has {rows}"
        )
    return mapping


def _mapped(file: Path, tensor: Tensor, types: Mapping[str, str]) -> NDArray[Any]:
    with open_regular(file) as raw:
        content = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    dtype = np.dtype(types[tensor.dtype])
    return np.frombuffer(content, dtype, math.prod(tensor.shape), tensor.start).reshape(tensor.shape)


def _check_type(tensor: Tensor, which: str, types: Mapping[str, str], name: str) -> None:
    if tensor.dtype not in types:
        raise ModelError(
            f"the weights of '{name}' have '{which}' in {tensor.dtype}, which is not supported; supported are "
            f"{', '.join(types)}"
        )
