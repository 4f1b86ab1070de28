"""Forward passes of the most common model families, without the transformers library.

Each turns a `Batch` into its tokens' vectors, [rows, hidden]. The arithmetic is that of the papers and of the
published checkpoints: BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), MPNet (Song
et al. 2020), ModernBERT (Warner et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from jammi_duck.encoder.description import hidden_size
from jammi_duck.encoder.torch_engine.attention import LOG2E, attend, query_scale
from jammi_duck.encoder.torch_engine.batch import Batch, each_group
from jammi_duck.encoder.torch_engine.linear import ACTIVATIONS, Linear, Placement, linear
from jammi_duck.encoder.torch_engine.weights import Weights

Config = Mapping[str, Any]


class Transformer(Protocol):
    """Token ids to token vectors."""

    vocabulary: int

    def __call__(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """The vectors of a batch's tokens, [rows, hidden]; only of the `wanted` rows, if given."""
        ...


@dataclass(frozen=True)
class _Names:
    """The names that a family gives to the parts of a layer."""

    layer: str
    query: str
    key: str
    value: str
    mixed: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


_BERT = _Names(
    "encoder.layer.{}.", "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_MPNET = _Names(
    "encoder.layer.{}.", "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o",
    "attention.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_DISTILBERT = _Names(
    "transformer.layer.{}.", "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
    "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
)  # fmt: skip


def transformer(config: Config, weights: Weights, placement: Placement) -> Transformer | None:
    """The forward pass for a config.json, or None if its family or a setting is not supported here.

    Raises:
        ModelError: the weights do not fit the config.
    """
    family = config["model_type"]
    build = _FAMILIES.get(family)
    if build is None or not _is_usual(config):
        return None
    return build({**_DEFAULTS.get(family, {}), **config}, weights, placement)


def _is_usual(config: Config) -> bool:
    """Whether the passes below support all settings."""
    activation = config.get("hidden_act", config.get("hidden_activation", config.get("activation", "gelu")))
    ropes = [config.get("rope_scaling"), *(config.get("rope_parameters") or {}).values()]
    return (
        activation in ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("add_cross_attention")
        and config.get("embedding_size", hidden_size(config)) == hidden_size(config)
        and all(rope is None or rope.get("rope_type", "default") == "default" for rope in ropes)
        and config.get("local_attention", 128) >= 2
    )


class Norm:
    """Layer normalisation over the last dimension."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float, placement: Placement) -> None:
        """`weight` and `bias` are [hidden]."""
        self._weight, self._bias = placement.put(weight), None if bias is None else placement.put(bias)
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Of x, [rows, hidden]."""
        return torch.nn.functional.layer_norm(x, self._weight.shape, self._weight, self._bias, self._eps)


class _PostNormLayer:
    """x = norm(x + attention(x)); x = norm(x + down(activation(up(x))))."""

    def __init__(self, config: Config, number: int, weights: Weights, names: _Names, placement: Placement) -> None:
        hidden, inner = hidden_size(config) or 0, config["intermediate_size"]
        layer = names.layer.format(number)
        self._heads = config["num_attention_heads"]
        self._activation = config["hidden_act"]
        parts = [(layer + part, hidden) for part in (names.query, names.key, names.value)]
        matrices = [weights.take(f"{name}.weight", size, hidden) for name, size in parts]
        shifts = [weights.take(f"{name}.bias", size) for name, size in parts]
        self._qkv = queries_keys_values(matrices, shifts, self._heads, placement)
        self._mixed = _dense(weights, layer + names.mixed, hidden, hidden, placement)
        self._attention_norm = _norm(weights, layer + names.attention_norm, config, placement)
        self._up = _dense(weights, layer + names.up, hidden, inner, placement)
        self._down = _dense(weights, layer + names.down, inner, hidden, placement)
        self._output_norm = _norm(weights, layer + names.output_norm, config, placement)

    def __call__(self, x: Tensor, batch: Batch, biases: Mapping[int, Tensor], wanted: Tensor | None) -> Tensor:
        mixed = attention(self._qkv(x), batch, self._heads, biases)
        if wanted is not None:
            mixed, x = mixed[wanted], x[wanted]
        x = self._attention_norm(self._mixed.plus(mixed, x))
        return self._output_norm(self._down.plus(self._up.activated(x, self._activation), x))


class Bert:
    """BERT, RoBERTa and their kin, DistilBERT, MPNet: learned positions, and norms after each part."""

    def __init__(
        self, config: Config, weights: Weights, placement: Placement, names: _Names, padding: int | None = None
    ) -> None:
        """`padding` is the token id from which RoBERTa and MPNet count their positions."""
        hidden = hidden_size(config) or 0
        self.vocabulary = config["vocab_size"]
        self._placement = placement
        self._padding = padding
        self._words = weights.take("embeddings.word_embeddings.weight", self.vocabulary, hidden)
        shape = (config["max_position_embeddings"], hidden)
        self._positions = weights.take("embeddings.position_embeddings.weight", *shape)
        exact = Placement(placement.device, torch.float32)
        self._types = None
        if names is _BERT:
            types = weights.take("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
            self._positions = self._positions + types[0]
            self._types = exact.put(types - types[0])
        self._words, self._positions = exact.put(self._words), exact.put(self._positions)
        self._norm = _norm(weights, "embeddings.LayerNorm", config, exact)
        numbers = range(config["num_hidden_layers"])
        self._layers = [_PostNormLayer(config, number, weights, names, placement) for number in numbers]
        self._relative = None
        if names is _MPNET:
            heads = config["num_attention_heads"]
            table = weights.take("encoder.relative_attention_bias.weight", _BUCKETS, heads)
            self._relative = placement.put(table * LOG2E)

    def __call__(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """See `Transformer`."""
        words = torch.nn.functional.embedding(batch.ids, self._words)
        places = torch.nn.functional.embedding(self._places(batch), self._positions)
        if self._types is not None and batch.types is not None:
            words += torch.nn.functional.embedding(batch.types, self._types)
        x = self._norm(words.add_(places)).to(self._placement.dtype)
        biases = self._biases(batch)
        for layer in self._layers[:-1]:
            x = layer(x, batch, biases, None)
        return self._layers[-1](x, batch, biases, wanted)

    def _places(self, batch: Batch) -> Tensor:
        if self._padding is None:
            return batch.positions()
        # A padding token that the text itself holds has a place of its own, and does not count.
        real = batch.ids != self._padding
        places = torch.zeros_like(batch.ids)
        for ids, found in zip(each_group(real.long(), batch), each_group(places, batch), strict=True):
            found.copy_(ids.cumsum(1) * ids)
        return places + self._padding

    def _biases(self, batch: Batch) -> Mapping[int, Tensor]:
        if self._relative is None:
            return {}
        longest = max(group.length for group in batch.groups)
        place = torch.arange(longest, device=batch.ids.device)
        buckets = _buckets(place[None, :] - place[:, None])
        whole = torch.nn.functional.embedding(buckets, self._relative).permute(2, 0, 1)
        return {group.length: whole[:, : group.length, : group.length] for group in batch.groups}


_BUCKETS = 32
_FARTHEST = 128


def _buckets(distance: Tensor) -> Tensor:
    """The bucket of each distance between a key and a query, as T5 (Raffel et al. 2019) and MPNet count them.

    Half of the buckets are for keys behind the query. In each half, the first half of the buckets has one distance
    each, and the others have ranges that grow by equal factors, up to `_FARTHEST`.
    """
    half = _BUCKETS // 2
    exact = half // 2
    far = distance.abs()
    factor = torch.log(far.float() / exact) / math.log(_FARTHEST / exact)
    grown = (exact + (factor * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(far < exact, far, grown) + (distance > 0) * half


class _PreNormLayer:
    """x = x + attention(norm(x)); x = x + down(activation(gate(norm(x))) * up(norm(x)))."""

    def __init__(self, config: Config, number: int, weights: Weights, placement: Placement) -> None:
        hidden, inner, layer = config["hidden_size"], config["intermediate_size"], f"layers.{number}."
        self._heads = config["num_attention_heads"]
        self._activation = config["hidden_activation"]
        self._attention_norm = _norm(weights, layer + "attn_norm", config, placement) if number else None
        matrices = weights.take(layer + "attn.Wqkv.weight", 3 * hidden, hidden).chunk(3)
        shifts = weights.take(layer + "attn.Wqkv.bias", 3 * hidden).chunk(3) if config["attention_bias"] else None
        self._qkv = queries_keys_values(matrices, shifts, self._heads, placement)
        self._mixed = _dense(weights, layer + "attn.Wo", hidden, hidden, placement, bias=config["attention_bias"])
        self._mlp_norm = _norm(weights, layer + "mlp_norm", config, placement)
        wide = weights.take(layer + "mlp.Wi.weight", 2 * inner, hidden)
        biases = weights.take(layer + "mlp.Wi.bias", 2 * inner) if config["mlp_bias"] else None
        self._gate = linear(wide[:inner], None if biases is None else biases[:inner], placement)
        self._up = linear(wide[inner:], None if biases is None else biases[inner:], placement)
        self._down = _dense(weights, layer + "mlp.Wo", inner, hidden, placement, bias=config["mlp_bias"])

    def __call__(self, x: Tensor, batch: Batch, rotation: Rotation, reach: int | None, wanted: Tensor | None) -> Tensor:
        qkv = self._qkv(self._attention_norm(x) if self._attention_norm else x)
        rotation.turn(qkv, self._heads)
        mixed = attention(qkv, batch, self._heads, reach=reach)
        if wanted is not None:
            mixed, x = mixed[wanted], x[wanted]
        x = self._mixed.plus(mixed, x)
        normed = self._mlp_norm(x)
        return self._down.plus(self._up.times(normed, self._gate.activated(normed, self._activation)), x)


class Rotation:
    """Rotary position embeddings (Su et al. 2021) for the tokens of one batch."""

    def __init__(self, positions: Tensor, size: int, theta: float) -> None:
        """`positions` is [rows]; each head has `size` numbers, turned pairwise by angles of base `theta`."""
        steps = torch.arange(0, size, 2, dtype=torch.float, device=positions.device) / size
        angles = positions[:, None].float() * (1.0 / theta**steps)
        self._cos, self._sin = angles.cos()[:, None, None], angles.sin()[:, None, None]

    def turn(self, qkv: Tensor, heads: int) -> None:
        """Turn queries and keys in [rows, 3 * hidden], in place; computed in float32."""
        turned = qkv.view(len(qkv), 3, heads, -1)[:, :2]
        left, right = turned.float().chunk(2, -1)
        both = (left * self._cos - right * self._sin, right * self._cos + left * self._sin)
        turned.copy_(torch.cat(both, -1))


class ModernBert:
    """ModernBERT: rotary positions, norms before each part, gated layers, and attention that is mostly local."""

    def __init__(self, config: Config, weights: Weights, placement: Placement) -> None:
        """See `transformer`."""
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        exact = Placement(placement.device, torch.float32)
        self.vocabulary = config["vocab_size"]
        self._placement = placement
        self._size = hidden // config["num_attention_heads"]
        self._words = exact.put(weights.take("embeddings.tok_embeddings.weight", self.vocabulary, hidden))
        self._norm = _norm(weights, "embeddings.norm", config, exact)
        self._layers = [_PreNormLayer(config, number, weights, placement) for number in range(layers)]
        self._final_norm = _norm(weights, "final_norm", config, placement)
        every = config["global_attn_every_n_layers"]
        kinds = ["sliding_attention" if number % every else "full_attention" for number in range(layers)]
        self._is_local = [kind == "sliding_attention" for kind in config.get("layer_types") or kinds]
        ropes = config.get("rope_parameters") or {}
        self._global_theta = _theta(ropes.get("full_attention"), config["global_rope_theta"])
        self._local_theta = _theta(ropes.get("sliding_attention"), config["local_rope_theta"])
        self._reach = config["local_attention"] // 2

    def __call__(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """See `Transformer`."""
        x = self._norm(torch.nn.functional.embedding(batch.ids, self._words)).to(self._placement.dtype)
        positions = batch.positions()
        everywhere = Rotation(positions, self._size, self._global_theta)
        nearby = Rotation(positions, self._size, self._local_theta)
        for layer, is_local in zip(self._layers, self._is_local, strict=True):
            rotation, reach = (nearby, self._reach) if is_local else (everywhere, None)
            x = layer(x, batch, rotation, reach, wanted if layer is self._layers[-1] else None)
        return self._final_norm(x)


def _theta(rope: Mapping[str, Any] | None, default: float) -> float:
    return float((rope or {}).get("rope_theta", default))


def attention(
    qkv: Tensor, batch: Batch, heads: int, biases: Mapping[int, Tensor] | None = None, reach: int | None = None
) -> Tensor:
    """Attention within each sequence of a batch, [rows, hidden]; `biases` are by length. See `attend`."""
    out = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
    for group in batch.groups:
        bias = biases.get(group.length) if biases else None
        attend(qkv[group.rows], group.count, group.length, heads, out[group.rows], bias=bias, reach=reach)
    if batch.groups[-1].rows.stop < len(out):
        out[batch.groups[-1].rows.stop :] = 0
    return out


def queries_keys_values(
    matrices: Sequence[Tensor], biases: Sequence[Tensor] | None, heads: int, placement: Placement
) -> Linear:
    """One layer that gives [rows, 3 * hidden], its queries scaled for `attend`."""
    scales = (query_scale(matrices[0].shape[0] // heads), 1.0, 1.0)

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([placement.put(part * scale) for part, scale in zip(parts, scales, strict=True)])

    return linear(joined(matrices), None if biases is None else joined(biases), placement)


def _dense(
    weights: Weights, name: str, inputs: int, outputs: int, placement: Placement, *, bias: bool = True
) -> Linear:
    weight = weights.take(f"{name}.weight", outputs, inputs)
    return linear(weight, weights.take(f"{name}.bias", outputs) if bias else None, placement)


def _norm(weights: Weights, name: str, config: Config, placement: Placement) -> Norm:
    hidden = hidden_size(config) or 0
    bias = weights.take(f"{name}.bias", hidden) if config.get("norm_bias", True) else None
    return Norm(weights.take(f"{name}.weight", hidden), bias, config["layer_norm_eps"], placement)


def _bert(config: Config, weights: Weights, placement: Placement) -> Transformer:
    weights.below(("bert.",), "embeddings.word_embeddings.weight")
    return Bert(config, weights, placement, _BERT)


def _roberta(config: Config, weights: Weights, placement: Placement) -> Transformer:
    weights.below(("roberta.",), "embeddings.word_embeddings.weight")
    return Bert(config, weights, placement, _BERT, config["pad_token_id"])


def _mpnet(config: Config, weights: Weights, placement: Placement) -> Transformer:
    weights.below(("mpnet.",), "embeddings.word_embeddings.weight")
    return Bert(config, weights, placement, _MPNET, padding=1)


def _distilbert(config: Config, weights: Weights, placement: Placement) -> Transformer:
    weights.below(("distilbert.",), "embeddings.word_embeddings.weight")
    usual = {
        "num_attention_heads": config["n_heads"],
        "num_hidden_layers": config["n_layers"],
        "intermediate_size": config["hidden_dim"],
        "hidden_act": config["activation"],
        "layer_norm_eps": 1e-12,
    }
    return Bert({**config, **usual}, weights, placement, _DISTILBERT)


def _modernbert(config: Config, weights: Weights, placement: Placement) -> Transformer:
    weights.below(("model.",), "embeddings.tok_embeddings.weight")
    return ModernBert({**config, "layer_norm_eps": config["norm_eps"]}, weights, placement)


_FAMILIES: dict[str, Callable[[Config, Weights, Placement], Transformer]] = {
    "bert": _bert,
    "roberta": _roberta,
    "camembert": _roberta,
    "xlm-roberta": _roberta,
    "mpnet": _mpnet,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
}

# Defaults for settings that a config.json leaves out.
_OF_BERT = {
    "vocab_size": 30522, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip
_OF_ROBERTA = {**_OF_BERT, "vocab_size": 50265, "pad_token_id": 1}
_DEFAULTS: dict[str, Mapping[str, Any]] = {
    "bert": _OF_BERT,
    "roberta": _OF_ROBERTA,
    "camembert": {**_OF_ROBERTA, "vocab_size": 30522},
    "xlm-roberta": {**_OF_ROBERTA, "vocab_size": 30522},
    "mpnet": {**_OF_BERT, "vocab_size": 30527},
    "distilbert": {
        "vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768,
        "hidden_dim": 3072, "activation": "gelu",
    },
    "modernbert": {
        "vocab_size": 50368, "num_hidden_layers": 22, "num_attention_heads": 12, "hidden_size": 768,
        "intermediate_size": 1152, "hidden_activation": "gelu", "norm_eps": 1e-5, "norm_bias": False,
        "attention_bias": False, "mlp_bias": False, "local_attention": 128, "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0,
    },
}  # fmt: skip
