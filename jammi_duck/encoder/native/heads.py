"""Heads of cross-encoders: a pair's pooled vector to one score, as transformers computes it for each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jammi_duck.encoder.description import TransformerDescription, hidden_size
from jammi_duck.encoder.local.architecture import ACTIVATIONS
from jammi_duck.encoder.native.mapped_weights import MappedWeights
from jammi_duck.encoder.native.modules import Step, activation, dense, layer_norm
from jammi_duck.encoder.native.not_covered import NotCovered

Config = Mapping[str, Any]


def head(config: Config, description: TransformerDescription, weights: MappedWeights) -> tuple[str, list[Step]]:
    """The pooling of a cross-encoder, and the steps from there to its scores before their activation.

    Raises:
        NotCovered: its family or a setting has no head here.
        ModelError: the weights do not fit the config.
    """
    build = _FAMILIES.get(description.family)
    if build is None:
        raise NotCovered(f"the family '{description.family}' has no head here")
    return build(config, weights)


def _two_layers(first: str, function: str, last: str) -> Callable[[Config, MappedWeights], tuple[str, list[Step]]]:
    def build(config: Config, weights: MappedWeights) -> tuple[str, list[Step]]:
        hidden = hidden_size(config) or 0
        steps = [dense(weights, first, hidden, hidden), activation(function), dense(weights, last, hidden, 1)]
        return "cls", steps

    return build


def _modernbert(config: Config, weights: MappedWeights) -> tuple[str, list[Step]]:
    hidden = hidden_size(config) or 0
    pooling, function = config.get("classifier_pooling", "cls"), config.get("classifier_activation", "gelu")
    if pooling not in ("cls", "mean") or function not in ACTIVATIONS:
        raise NotCovered(f"its head pools by '{pooling}', with the activation '{function}'")
    first = dense(weights, "head.dense", hidden, hidden, with_bias=bool(config.get("classifier_bias", False)))
    shift = weights.take("head.norm.bias", hidden).floats() if config.get("norm_bias", False) else None
    scale = weights.take("head.norm.weight", hidden).floats()
    norm = layer_norm(scale, shift, float(config.get("norm_eps", 1e-5)))
    return pooling, [first, activation(ACTIVATIONS[function]), norm, dense(weights, "classifier", hidden, 1)]


_ROBERTA = _two_layers("classifier.dense", "tanh", "classifier.out_proj")
_FAMILIES = {
    "bert": _two_layers("bert.pooler.dense", "tanh", "classifier"),
    "roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": _ROBERTA,
    "distilbert": _two_layers("pre_classifier", "relu", "classifier"),
    "modernbert": _modernbert,
}
