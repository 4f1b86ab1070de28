"""Forward passes of the most common model families, without the transformers library.

Each turns a `Batch` into its tokens' vectors, [rows, hidden]. The arithmetic is that of the papers, which
`local/architecture.py` names, and of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from jammi_duck.encoder.description import hidden_size
from jammi_duck.encoder.local.architecture import (
    BUCKETS,
    NAMES,
    Config,
    Names,
    completed,
    local_layers,
    padding,
    rotary_bases,
)
from jammi_duck.encoder.torch_engine.attention import LOG2E, attend, query_scale
from jammi_duck.encoder.torch_engine.batch import Batch, each_group
from jammi_duck.encoder.torch_engine.linear import Linear, Placement, linear
from jammi_duck.encoder.torch_engine.weights import Weights


class Transformer(Protocol):
    """Token ids to token vectors."""

    vocabulary: int

    def __call__(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """The vectors of a batch's tokens, [rows, hidden]; only of the `wanted` rows, if given."""
        ...


def transformer(config: Config, weights: Weights, placement: Placement) -> Transformer | None:
    """The forward pass for a config.json, or None if its family or a setting is not supported here.

    Raises:
        ModelError: the weights do not fit the config.
    """
    settings = completed(config)
    if settings is None:
        return None
    family = config["model_type"]
    if family in NAMES:
        weights.below(NAMES[family].prefix, "embeddings.word_embeddings.weight")
        return Bert(settings, weights, placement, family)
    weights.below("model.", "embeddings.tok_embeddings.weight")
    return ModernBert(settings, weights, placement)


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

    def __init__(self, config: Config, number: int, weights: Weights, names: Names, placement: Placement) -> None:
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

    def __init__(self, config: Config, weights: Weights, placement: Placement, family: str) -> None:
        """See `transformer`."""
        hidden, names = hidden_size(config) or 0, NAMES[family]
        self.vocabulary = config["vocab_size"]
        self._placement = placement
        self._padding = padding(config)
        self._words = weights.take("embeddings.word_embeddings.weight", self.vocabulary, hidden)
        shape = (config["max_position_embeddings"], hidden)
        self._positions = weights.take("embeddings.position_embeddings.weight", *shape)
        exact = Placement(placement.device, torch.float32)
        self._types = None
        if names.has_types:
            types = weights.take("embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
            self._positions = self._positions + types[0]
            self._types = exact.put(types - types[0])
        self._words, self._positions = exact.put(self._words), exact.put(self._positions)
        self._norm = _norm(weights, "embeddings.LayerNorm", config, exact)
        numbers = range(config["num_hidden_layers"])
        self._layers = [_PostNormLayer(config, number, weights, names, placement) for number in numbers]
        self._relative = None
        if names.has_buckets:
            heads = config["num_attention_heads"]
            table = weights.take("encoder.relative_attention_bias.weight", BUCKETS, heads)
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


_FARTHEST = 128


def _buckets(distance: Tensor) -> Tensor:
    """The bucket of each distance between a key and a query, as T5 (Raffel et al. 2019) and MPNet count them.

    Half of the buckets are for keys behind the query. In each half, the first half of the buckets has one distance
    each, and the others have ranges that grow by equal factors, up to `_FARTHEST`.
    """
    half = BUCKETS // 2
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
        self._activation = config["hidden_act"]
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
        self._is_local = local_layers(config)
        self._global_theta, self._local_theta = rotary_bases(config)
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
