"""A model's tensors, memory-mapped from safetensors files, without torch, and checked when they are used."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from jammi_duck.encoder.description import WEIGHTS
from jammi_duck.encoder.local.weight_files import misfit, name_in, weight_files
from jammi_duck.encoder.native.library import NUMBERS
from jammi_duck.encoder.native.not_covered import NotCovered
from jammi_duck.errors import ModelError
from jammi_duck.regular_files import open_regular

Floats: TypeAlias = NDArray[np.float32]

# bfloat16 is the upper half of float32.
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
# What torch calls those that are no floating point numbers.
_INTEGERS = {
    "BOOL": "torch.bool", "U8": "torch.uint8", "I8": "torch.int8", "I16": "torch.int16", "U16": "torch.uint16",
    "I32": "torch.int32", "U32": "torch.uint32", "I64": "torch.int64", "U64": "torch.uint64",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor's numbers as they lie in a file, which stays mapped as long as this lives; `dtype` as in safetensors."""

    numbers: NDArray[np.uint8]
    dtype: str
    shape: tuple[int, ...]

    @property
    def address(self) -> int:
        """Where the numbers are."""
        return int(self.numbers.ctypes.data)

    @property
    def number(self) -> int:
        """How they are written: an `enum number`; for `readable` ones."""
        return NUMBERS.index(self.dtype)

    def readable(self) -> Tensor:
        """The same in numbers that the library reads: a copy, if it is float64."""
        if self.dtype in NUMBERS:
            return self
        return Tensor(self.floats().reshape(-1).view(np.uint8), "F32", self.shape)

    def floats(self) -> Floats:
        """The numbers in float32."""
        values = self.numbers.view(_TYPES[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        # What is too large becomes infinite, as it does in torch.
        with np.errstate(over="ignore"):
            return np.require(values, np.float32, ("C", "A"))


@dataclass(frozen=True)
class _Place:
    """Where a tensor is in a mapped file."""

    content: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    start: int


class MappedWeights:
    """The tensors of one folder, in one file or in the shards that an index lists."""

    def __init__(self, folder: Path, model: str, name: str = WEIGHTS) -> None:
        """Map the file of this name, or its shards; `model` is the model's name in messages.

        Raises:
            ModelError: a file is missing, truncated, or not safetensors.
        """
        self._model = model
        self._places: dict[str, _Place] = {}
        for path in weight_files(folder, model, name):
            try:
                self._places.update(_places(path))
            except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise ModelError(f"the weights of '{model}' cannot be read: '{path}': {error}") from error
        self._prefix = ""

    def below(self, prefix: str, sign: str) -> MappedWeights:
        """The same tensors by their names after `prefix`, if there is one called `sign` there."""
        found = MappedWeights.__new__(MappedWeights)
        found._model, found._places = self._model, self._places
        found._prefix = prefix if prefix + sign in self._places else ""
        return found

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape.

        Raises:
            ModelError: it does not exist, has another shape, or is quantized.
            NotCovered: its numbers are of a type that is not read here.
        """
        found = name_in(self._places, self._prefix + name)
        if found not in self._places:
            raise misfit(self._model, f"there is no '{name}'")
        place = self._places[found]
        if place.shape != shape:
            raise misfit(self._model, f"'{name}' is {list(place.shape)}, not {list(shape)}")
        if place.dtype in _INTEGERS:
            raise ModelError(
                f"the weights of '{self._model}' are quantized ('{name}' is {_INTEGERS[place.dtype]}): not supported"
            )
        if place.dtype not in _TYPES:
            raise NotCovered(f"'{name}' is {place.dtype}")
        size = math.prod(shape) * _BITS[place.dtype] // 8
        return Tensor(np.frombuffer(place.content, np.uint8, size, place.start), place.dtype, shape)


def _places(path: Path) -> Mapping[str, _Place]:
    """The tensors of a file, all of which lie within it.

    Raises:
        SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError: it is damaged.
    """
    # This checks that the header is right, and that the tensors fill the file.
    with safe_open(path, framework="numpy") as opened:
        names = list(opened.keys())
    # What is mapped may be another file by now, so it is checked, too.
    with open_regular(path) as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = int.from_bytes(content[:8], "little")
    entries: dict[str, Any] = json.loads(content[8 : 8 + header])
    return {name: _place(content, name, entries[name], 8 + header) for name in names}


def _place(content: mmap.mmap, name: str, entry: Mapping[str, Any], data: int) -> _Place:
    dtype, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
    first, end = map(int, entry["data_offsets"])
    is_within = 0 <= first <= end <= len(content) - data and min(shape, default=0) >= 0
    # Types of other sizes are refused where they are used.
    if not is_within or (dtype in _BITS and 8 * (end - first) != math.prod(shape) * _BITS[dtype]):
        raise ValueError(f"'{name}' does not lie within the file, or has another size than its shape")
    return _Place(content, dtype, shape, data + first)
