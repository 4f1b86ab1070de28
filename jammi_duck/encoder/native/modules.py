"""What comes after pooling: linear layers, activations, norms and unit vectors, with numpy in float32.

Each row is computed as if it were alone, bit for bit: sums run along rows, and functions that numpy computes for
several numbers at once, which may depend on their place, get one row at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jammi_duck.encoder.description import Module, module_settings
from jammi_duck.encoder.native.forward import linear
from jammi_duck.encoder.native.library import kernels_number
from jammi_duck.encoder.native.mapped_weights import Floats, MappedWeights
from jammi_duck.encoder.native.not_covered import NotCovered
from jammi_duck.errors import ModelError

Step = Callable[[Floats], Floats]
_Wide: TypeAlias = NDArray[np.float64]
_Function = Callable[[_Wide], Any]


def _sigmoid(x: _Wide) -> _Wide:
    with np.errstate(over="ignore"):
        y: _Wide = 1 / (1 + np.exp(-x))
    return y


def _gelu(x: _Wide) -> _Wide:
    y: _Wide = x * 0.5 * (1 + np.array([math.erf(value * math.sqrt(0.5)) for value in x.tolist()]))
    return y


def _gelu_tanh(x: _Wide) -> _Wide:
    y: _Wide = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return y


_FUNCTIONS: Mapping[str, _Function] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}
_OF_TORCH = {"GELU": "gelu", "ReLU": "relu", "Sigmoid": "sigmoid", "SiLU": "silu", "Tanh": "tanh"}


def activation(function: str) -> Step:
    """One of the functions above, of each number."""
    compute = _FUNCTIONS[function]

    def activated(x: Floats) -> Floats:
        y = np.empty_like(x)
        for row, found in zip(x, y, strict=True):
            # An infinity here is found by whoever looks at the result.
            with np.errstate(invalid="ignore", over="ignore"):
                found[:] = compute(row.astype(np.float64))
        return y

    return activated


def activation_of_torch(name: str) -> Step:
    """One of torch.nn's activations by its dotted name.

    Raises:
        NotCovered: it is another one, or none of torch.nn's.
    """
    last = name.rsplit(".", 1)[-1]
    if name.startswith("torch.nn.") and last == "Identity":
        return lambda x: x
    if not name.startswith("torch.nn.") or last not in _OF_TORCH:
        raise NotCovered(f"the activation '{name}' is not computed here")
    return activation(_OF_TORCH[last])


def unit(x: Floats) -> Floats:
    """Rows of length 1; zeros stay zeros."""
    with np.errstate(invalid="ignore"):
        lengths = np.sqrt(np.add.reduce(np.square(x, dtype=np.float64), axis=1, keepdims=True))
        y: Floats = (x / np.maximum(lengths, 1e-12)).astype(np.float32)
    return y


def layer_norm(scale: Floats, shift: Floats | None, eps: float) -> Step:
    """Layer normalisation of each row."""

    def normed(x: Floats) -> Floats:
        size = x.shape[1]
        if size != len(scale):
            raise ModelError(f"a LayerNorm for {len(scale)} numbers comes after {size} of them")
        with np.errstate(invalid="ignore", over="ignore"):
            # Sums of another type than what they are of would be made in pieces.
            wide = x.astype(np.float64)
            centred = wide - np.add.reduce(wide, axis=1, keepdims=True) / size
            variance = np.add.reduce(centred * centred, axis=1, keepdims=True) / size
            y: Floats = (centred / np.sqrt(variance + eps)).astype(np.float32) * scale
            return y if shift is None else y + shift

    return normed


def dense(weights: MappedWeights, name: str, inputs: int, outputs: int, *, with_bias: bool = True) -> Step:
    """A linear layer. Raises ModelError if the weights have none of this size."""
    matrix = weights.take(f"{name}.weight", outputs, inputs).floats()
    bias = weights.take(f"{name}.bias", outputs).floats() if with_bias else None
    kernels = kernels_number()
    return lambda x: linear(kernels, x, matrix, bias)


def step(module: Module, model: str) -> Step:
    """A module after pooling.

    Raises:
        ModelError: its weights or settings cannot be used.
        NotCovered: it is not computed here.
    """
    if module.kind == "Normalize":
        return unit
    settings = module_settings(module, model)
    weights = MappedWeights(module.path, model)
    if module.kind == "LayerNorm":
        size = int(settings["dimension"])
        return layer_norm(weights.take("norm.weight", size).floats(), weights.take("norm.bias", size).floats(), 1e-5)
    return _dense_module(settings, weights)


def _dense_module(settings: Mapping[str, Any], weights: MappedWeights) -> Step:
    inputs, outputs = settings["in_features"], settings["out_features"]
    layer = dense(weights, "linear", inputs, outputs, with_bias=bool(settings.get("bias", True)))
    activated = activation_of_torch(str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")))
    if not settings.get("use_residual"):
        return lambda x: activated(layer(x))
    residual = dense(weights, "residual", inputs, outputs, with_bias=False) if inputs != outputs else lambda x: x
    return lambda x: activated(layer(x)) + residual(x)
