"""Heads of cross-encoders: the vectors of a pair's tokens to one score, as transformers computes it for each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from jammi_duck.encoder.description import TransformerDescription, hidden_size
from jammi_duck.encoder.torch_engine.batch import Batch, each_group
from jammi_duck.encoder.torch_engine.families import Norm
from jammi_duck.encoder.torch_engine.linear import ACTIVATIONS, Placement, PlainLinear
from jammi_duck.encoder.torch_engine.weights import Weights
from jammi_duck.errors import ModelError

Config = Mapping[str, Any]
_Step = Callable[[Tensor], Tensor]


class Head:
    """The vectors of tokens, [rows, hidden], to the scores of sequences before their activation, [sequences, 1].

    Computed in float32. If it `pools_mean`, it needs all tokens, otherwise only the first of each sequence.
    """

    def __init__(
        self, config: Config, description: TransformerDescription, weights: Weights, device: torch.device
    ) -> None:
        """`weights` have the names of the file.

        Raises:
            ModelError: the family or its pooling is not supported, or the weights do not fit the config.
        """
        build = _FAMILIES.get(description.family)
        if build is None:
            raise ModelError(
                f"the model '{description.name}' is of the family '{description.family}'; supported as re-rankers are "
                + ", ".join(_FAMILIES)
            )
        if description.family == "modernbert":
            for setting, known in _OF_MODERNBERT.items():
                if config.get(setting, known[0]) not in known:
                    raise ModelError(
                        f"the model '{description.name}' has {setting} = '{config[setting]}': not supported"
                    )
        self.pools_mean = description.family == "modernbert" and config.get("classifier_pooling") == "mean"
        self._steps = build(config, weights, Placement(device, torch.float32))

    def __call__(self, hidden: Tensor, batch: Batch) -> Tensor:
        """`hidden` has a row for each token of the batch."""
        groups = [tokens.float() for tokens in each_group(hidden, batch)]
        x = torch.cat([tokens.mean(1) if self.pools_mean else tokens[:, 0] for tokens in groups])
        for step in self._steps:
            x = step(x)
        return x


# The first is the default.
_OF_MODERNBERT = {"classifier_pooling": ("cls", "mean"), "classifier_activation": ("gelu", *sorted(ACTIVATIONS))}


def _linear(
    weights: Weights, name: str, outputs: int, inputs: int, placement: Placement, *, bias: bool = True
) -> PlainLinear:
    weight = placement.put(weights.take(f"{name}.weight", outputs, inputs))
    return PlainLinear(weight, placement.put(weights.take(f"{name}.bias", outputs)) if bias else None)


def _two_layers(first: str, activation: _Step, last: str) -> Callable[[Config, Weights, Placement], list[_Step]]:
    def build(config: Config, weights: Weights, placement: Placement) -> list[_Step]:
        hidden = hidden_size(config) or 0
        dense = _linear(weights, first, hidden, hidden, placement)
        return [dense, activation, _linear(weights, last, 1, hidden, placement)]

    return build


def _modernbert(config: Config, weights: Weights, placement: Placement) -> list[_Step]:
    hidden = hidden_size(config) or 0
    dense = _linear(weights, "head.dense", hidden, hidden, placement, bias=config.get("classifier_bias", False))
    shift = weights.take("head.norm.bias", hidden) if config.get("norm_bias", False) else None
    norm = Norm(weights.take("head.norm.weight", hidden), shift, config.get("norm_eps", 1e-5), placement)
    activation = config.get("classifier_activation", "gelu")
    return [lambda x: dense.activated(x, activation), norm, _linear(weights, "classifier", 1, hidden, placement)]


_ROBERTA = _two_layers("classifier.dense", torch.tanh, "classifier.out_proj")
_FAMILIES = {
    "bert": _two_layers("bert.pooler.dense", torch.tanh, "classifier"),
    "roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": _ROBERTA,
    "distilbert": _two_layers("pre_classifier", torch.nn.functional.relu, "classifier"),
    "modernbert": _modernbert,
}
