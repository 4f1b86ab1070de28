"""From token vectors to a text's vector: pooling and the modules after it, as in sentence-transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from jammi_duck.encoder.description import ModelDescription, Module, module_settings
from jammi_duck.encoder.torch_engine.batch import Batch, each_group
from jammi_duck.encoder.torch_engine.weights import Weights
from jammi_duck.errors import ModelError

Step = Callable[[Tensor], Tensor]


class Pooling:
    """Token vectors of [rows, hidden] to unit vectors of [texts, dimensions], computed in float32."""

    def __init__(self, description: ModelDescription, device: torch.device) -> None:
        """Read the modules after pooling.

        Raises:
            ModelError: their weights or settings cannot be used.
        """
        self._modes = [_MODES[mode] for mode in description.pooling.split("+")]
        self._steps = [_step(module, description.name, device) for module in description.modules]
        self._dimensions = description.dimensions

    def __call__(self, hidden: Tensor, batch: Batch, skipped: int = 0) -> Tensor:
        """One vector for each sequence; the first `skipped` tokens of each, its prompt, are left out."""
        pooled = []
        for tokens in each_group(hidden, batch):
            rest = tokens[:, skipped:].float()
            # If the prompt takes all tokens, nothing is left to pool: zeros, as for an empty text.
            rest = rest if rest.shape[1] else torch.zeros_like(tokens[:, :1], dtype=torch.float)
            pooled.append(torch.cat([mode(rest, skipped) for mode in self._modes], 1))
        vectors = torch.cat(pooled)
        for step in self._steps:
            vectors = step(vectors)
        # Only the first numbers if the model says so (truncate_dim).
        return torch.nn.functional.normalize(vectors[:, : self._dimensions], dim=1)


def _mean(tokens: Tensor, skipped: int) -> Tensor:
    return tokens.mean(1)


def _mean_over_root(tokens: Tensor, skipped: int) -> Tensor:
    return tokens.sum(1) / math.sqrt(tokens.shape[1])


def _weighted(tokens: Tensor, skipped: int) -> Tensor:
    """Weights 1, 2, 3, ... from the first token on, counting the tokens of a prompt that is left out."""
    weights = torch.arange(skipped + 1, skipped + 1 + tokens.shape[1], dtype=torch.float, device=tokens.device)
    result: Tensor = (tokens * weights[:, None]).sum(1) / weights.sum()
    return result


_MODES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda tokens, skipped: tokens[:, 0],
    "max": lambda tokens, skipped: tokens.amax(1),
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_over_root,
    "weightedmean": _weighted,
    "lasttoken": lambda tokens, skipped: tokens[:, -1],
}


def _step(module: Module, model: str, device: torch.device) -> Step:
    if module.kind == "Normalize":
        return lambda x: torch.nn.functional.normalize(x, dim=1)
    settings = module_settings(module, model)
    weights = Weights(module.path, model)
    if module.kind == "LayerNorm":
        size = int(settings["dimension"])
        shape, *tensors = (size,), weights.take("norm.weight", size), weights.take("norm.bias", size)
        scale, shift = (tensor.to(device) for tensor in tensors)
        return lambda x: torch.nn.functional.layer_norm(x, shape, scale, shift)
    return _dense(settings["in_features"], settings["out_features"], settings, weights, model, device)


def _dense(
    inputs: int, outputs: int, settings: Mapping[str, object], weights: Weights, model: str, device: torch.device
) -> Step:
    weight = weights.take("linear.weight", outputs, inputs).to(device)
    bias = weights.take("linear.bias", outputs).to(device) if settings.get("bias", True) else None
    name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = activation_named(name, f"the model '{model}' has a Dense")
    residual: Step | None = None
    if settings.get("use_residual"):
        matrix = weights.take("residual.weight", outputs, inputs).to(device) if inputs != outputs else None
        residual = (lambda x: x) if matrix is None else (lambda x: torch.nn.functional.linear(x, matrix))

    def dense(x: Tensor) -> Tensor:
        result: Tensor = activation(torch.nn.functional.linear(x, weight, bias))
        return result if residual is None else result + residual(x)

    return dense


def activation_named(name: str, whose: str) -> torch.nn.Module:
    """One of torch.nn's activations by its dotted name; nothing else is ever imported.

    Raises:
        ModelError: it is another function, or has weights; `whose` it is begins the message.
    """
    known: Sequence[str] = (*torch.nn.modules.activation.__all__, "Identity")
    last = name.rsplit(".", 1)[-1]
    if not name.startswith("torch.nn.") or last not in known:
        raise ModelError(f"{whose} with the activation '{name}', which is not torch.nn's")
    try:
        activation: torch.nn.Module = getattr(torch.nn, last)()
    except TypeError as error:
        raise ModelError(f"{whose} with the activation '{name}': {error}") from error
    if next(activation.parameters(), None) is not None:
        raise ModelError(f"{whose} with the activation '{name}', which learns: not supported")
    return activation.eval()
