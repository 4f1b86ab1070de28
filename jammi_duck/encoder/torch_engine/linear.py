"""Linear layers: with oneDNN and weights packed in advance if torch supports that, otherwise with torch's operators.

torch's oneDNN operators are private. They take weights in oneDNN's own layout, which is about twice as fast in float32
on some CPUs, and compute the next operation (GELU, a sum, a product) while the result is still in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]

# The most rows of one forward pass on a CPU; more do not fit into its caches.
PASS_TOKENS = 2048

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_new": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "gelu_fast": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "relu": torch.nn.functional.relu,
    "silu": torch.nn.functional.silu,
    "swish": torch.nn.functional.silu,
}
ACTIVATIONS = frozenset(_ACTIVATIONS)
# The same for oneDNN's operators: a name, its scalars, and an algorithm.
_FUSED: dict[str, tuple[str, list[float], str]] = {
    "gelu": ("gelu", [], "none"),
    "gelu_new": ("gelu", [], "tanh"),
    "gelu_fast": ("gelu", [], "tanh"),
    "gelu_pytorch_tanh": ("gelu", [], "tanh"),
    "relu": ("relu", [], ""),
    "silu": ("swish", [], ""),
    "swish": ("swish", [], ""),
}


@dataclass(frozen=True)
class Placement:
    """The device of a model's tensors, and their type: float32 or bfloat16."""

    device: torch.device
    dtype: torch.dtype

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor, moved there."""
        return tensor.to(self.device, self.dtype)


class Linear(Protocol):
    """y = x W^T + b for x of [rows, in], giving [rows, out]."""

    def __call__(self, x: Tensor) -> Tensor:
        """The layer alone."""
        ...

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """activation(layer(x)); see `ACTIVATIONS`."""
        ...

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """layer(x) + other."""
        ...

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """layer(x) * other."""
        ...


class PlainLinear:
    """See `Linear`: with torch's ordinary operators, on any device."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """`weight` is [out, in], `bias` [out]."""
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear.__call__`."""
        return torch.nn.functional.linear(x, self._weight, self._bias)

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """See `Linear.activated`."""
        return _ACTIVATIONS[activation](self(x))

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear.plus`."""
        return self(x) + other

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear.times`."""
        return self(x) * other


class PackedLinear:
    """See `Linear`: with oneDNN on the CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """`weight` is [out, in], `bias` [out]."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PASS_TOKENS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear.__call__`."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return result

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """See `Linear.activated`."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, *_FUSED[activation])
        return result

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear.plus`."""
        return self._with(x, other, "add")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear.times`."""
        return self._with(x, other, "mul")

    def _with(self, x: Tensor, other: Tensor, operation: str) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, operation)
        return result


def linear(weight: Tensor, bias: Tensor | None, placement: Placement) -> Linear:
    """The fastest of the above classes that works here."""
    weight, bias = placement.put(weight), None if bias is None else placement.put(bias)
    if placement.device.type == "cpu" and packs(placement.dtype):
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


@functools.cache
def packs(dtype: torch.dtype) -> bool:
    """Whether torch's oneDNN operators exist, accept this type on this CPU, and compute correctly."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = torch.linspace(-1, 1, 16 * 16).reshape(16, 16)
    weight, bias = x.flip(0), torch.linspace(0, 1, 16)
    expected = torch.nn.functional.gelu(x @ weight.t() + bias)
    try:
        packed = PackedLinear(weight.to(dtype), bias.to(dtype))
        found = packed.activated(x.to(dtype), "gelu")
        summed = packed.plus(x.to(dtype), found)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return torch.allclose(found.float(), expected, atol=0.1) and bool(torch.isfinite(summed).all())
