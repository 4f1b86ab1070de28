"""How the tensors of each family become a model of the library: its shape, and what goes where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jammi_duck.encoder.description import hidden_size
from jammi_duck.encoder.local.architecture import (
    ACTIVATIONS,
    BUCKETS,
    NAMES,
    Config,
    Names,
    completed,
    local_layers,
    padding,
    rotary_bases,
)
from jammi_duck.encoder.native.library import Activation, CShape, MatrixSlot, VectorSlot
from jammi_duck.encoder.native.mapped_weights import Floats, MappedWeights, Tensor
from jammi_duck.encoder.native.not_covered import NotCovered

_LOG2E = math.log2(math.e)
_MOST = (1 << 31) - 1
# A model whose rotations would take more bytes than this is left to torch, which computes those of a pass.
_MOST_ROTATIONS = 1 << 26


@dataclass(frozen=True)
class Part:
    """A tensor, and by what its numbers are multiplied where they are put."""

    tensor: Tensor
    scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A model of the library: `matrices` and `vectors` are put one below the other, by layer (-1 is none) and slot.

    `layers` has, for each, the number of its table of rotations, and how far its attention reaches (-1 is everywhere).
    """

    shape: CShape
    words: Tensor
    matrices: dict[tuple[int, MatrixSlot], Sequence[Part]] = field(default_factory=dict)
    vectors: dict[tuple[int, VectorSlot], Sequence[Part]] = field(default_factory=dict)
    layers: list[tuple[int, int]] = field(default_factory=list)

    def put_dense(
        self, layer: int, matrix: MatrixSlot, bias: VectorSlot, tensors: Iterator[tuple[Part, Part | None]]
    ) -> None:
        """A linear layer of the model, of one matrix or of several."""
        pairs = list(tensors)
        self.matrices[layer, matrix] = [weight for weight, _ in pairs]
        shifts = [shift for _, shift in pairs if shift is not None]
        if shifts:
            self.vectors[layer, bias] = shifts

    def put_norm(self, layer: int, slot: VectorSlot, bias: VectorSlot, norm: tuple[Tensor, Tensor | None]) -> None:
        """A norm of the model."""
        weight, shift = norm
        self.vectors[layer, slot] = [Part(weight)]
        if shift is not None:
            self.vectors[layer, bias] = [Part(shift)]


def plan(config: Config, weights: MappedWeights, most_tokens: int) -> Plan:
    """What a model of this config.json is; `most_tokens` is what it reads of a text, where positions have no end.

    Raises:
        NotCovered: its family, a setting or its shape is not computed here.
        ModelError: the weights do not fit the config.
    """
    family, settings = config["model_type"], completed(config)
    if settings is None:
        raise NotCovered(f"the family '{family}', or a setting in its config.json, has no forward pass here")
    sizes = _sizes(settings)
    if family in NAMES:
        return _post_norm(settings, sizes, weights.below(NAMES[family].prefix, f"{_WORDS}.weight"), family)
    return _pre_norm(settings, sizes, weights.below("model.", f"{_TOKENS}.weight"), most_tokens)


_WORDS, _TOKENS = "embeddings.word_embeddings", "embeddings.tok_embeddings"


@dataclass(frozen=True)
class _Sizes:
    hidden: int
    heads: int
    inner: int
    layers: int
    vocabulary: int

    @property
    def query_scale(self) -> float:
        """With this in the queries' weights, the softmax of the scores is 2^score over its sum."""
        return _LOG2E / math.sqrt(self.hidden // self.heads)


def _sizes(config: Config) -> _Sizes:
    hidden, heads = hidden_size(config) or 0, _whole(config, "num_attention_heads", 1)
    inner = _whole(config, "intermediate_size", 1)
    for name, size in (("its hidden size", hidden), ("the size of its inner layers", inner)):
        if size % 16 or not 0 < size <= _MOST // 4:
            raise NotCovered(f"{name} is {size}, and no multiple of 16")
    if hidden % heads or hidden // heads % 2:
        raise NotCovered(f"{hidden} numbers cannot be shared by {heads} heads as even numbers of them")
    layers = _whole(config, "num_hidden_layers", 1)
    return _Sizes(hidden, heads, inner, layers, _whole(config, "vocab_size", 1))


def _whole(config: Config, key: str, least: int = 0) -> int:
    return _within(key, config[key], least)


def _within(key: str, value: object, least: int) -> int:
    if not isinstance(value, int) or not least <= value <= _MOST:
        raise NotCovered(f"{key} is {value!r} in its config.json")
    return value


def _shape(config: Config, sizes: _Sizes, **others: int) -> CShape:
    activation = ACTIVATIONS.get(config["hidden_act"])
    if activation is None:
        raise NotCovered(f"its activation is '{config['hidden_act']}'")
    eps = float(config["layer_norm_eps"])
    common = {"padding": -1, "activation": Activation[activation.upper()]}
    return CShape(**{**vars(sizes), **common, **others}, eps=eps)


def _post_norm(config: Config, sizes: _Sizes, weights: MappedWeights, family: str) -> Plan:
    """BERT, RoBERTa and their kin, DistilBERT, MPNet: x = norm(x + attention(x)); x = norm(x + down(up(x)))."""
    hidden, inner, names = sizes.hidden, sizes.inner, NAMES[family]
    positions = _whole(config, "max_position_embeddings", 1)
    begin = padding(config)
    counted_from = -1 if begin is None else _within("pad_token_id", begin, -1)
    types = _whole(config, "type_vocab_size", 1) if names.has_types else 0
    shape = _shape(
        config, sizes, positions=positions, types=types, padding=counted_from, relative=int(names.has_buckets)
    )
    made = Plan(shape, weights.take(f"{_WORDS}.weight", sizes.vocabulary, hidden))
    table = weights.take("embeddings.position_embeddings.weight", positions, hidden)
    made.vectors[-1, VectorSlot.POSITION_TABLE] = [Part(table)]
    if types:
        table = weights.take("embeddings.token_type_embeddings.weight", types, hidden)
        made.vectors[-1, VectorSlot.TYPE_TABLE] = [Part(table)]
    norm = _norm(config, weights, "embeddings.LayerNorm")
    made.put_norm(-1, VectorSlot.EMBEDDING_NORM, VectorSlot.EMBEDDING_NORM_BIAS, norm)
    for number in range(sizes.layers):
        layer = names.layer.format(number)
        made.put_dense(number, MatrixSlot.QKV, VectorSlot.QKV_BIAS, _queries(sizes, weights, layer, names))
        for matrix, bias, name, inputs, outputs in (
            (MatrixSlot.MIXED, VectorSlot.MIXED_BIAS, names.mixed, hidden, hidden),
            (MatrixSlot.UP, VectorSlot.UP_BIAS, names.up, hidden, inner),
            (MatrixSlot.DOWN, VectorSlot.DOWN_BIAS, names.down, inner, hidden),
        ):
            made.put_dense(number, matrix, bias, _dense(weights, layer + name, inputs, outputs))
        for slot, bias, name in (
            (VectorSlot.ATTENTION_NORM, VectorSlot.ATTENTION_NORM_BIAS, names.attention_norm),
            (VectorSlot.OUTPUT_NORM, VectorSlot.OUTPUT_NORM_BIAS, names.output_norm),
        ):
            made.put_norm(number, slot, bias, _norm(config, weights, layer + name))
        made.layers.append((0, -1))
    if names.has_buckets:
        biases = weights.take("encoder.relative_attention_bias.weight", BUCKETS, sizes.heads)
        made.vectors[-1, VectorSlot.RELATIVE_TABLE] = [Part(_made(relative_table(biases.floats(), positions)))]
    return made


def _pre_norm(config: Config, sizes: _Sizes, weights: MappedWeights, most_tokens: int) -> Plan:
    """ModernBERT: x = x + attention(norm(x)); x = x + down(activation(gate(norm(x))) * up(norm(x)))."""
    hidden, inner = sizes.hidden, sizes.inner
    positions = max(most_tokens, 512)
    if 8 * positions * hidden // sizes.heads > _MOST_ROTATIONS:
        raise NotCovered(f"it reads texts of {positions} tokens")
    are_local = local_layers(config)
    if len(are_local) != sizes.layers:
        raise NotCovered(f"it has {sizes.layers} layers, and the kinds of {len(are_local)}")
    shape = _shape(config, sizes, positions=positions, pre_norm=1, gated=1, rotations=2)
    made = Plan(shape, weights.take(f"{_TOKENS}.weight", sizes.vocabulary, hidden))
    embedding, final = (_norm(config, weights, name) for name in ("embeddings.norm", "final_norm"))
    made.put_norm(-1, VectorSlot.EMBEDDING_NORM, VectorSlot.EMBEDDING_NORM_BIAS, embedding)
    made.put_norm(-1, VectorSlot.FINAL_NORM, VectorSlot.FINAL_NORM_BIAS, final)
    tables = [rotation_table(positions, hidden // sizes.heads, base) for base in rotary_bases(config)]
    made.vectors[-1, VectorSlot.ROTATION_TABLE] = [Part(_made(np.stack(tables)))]
    # Further than the longest text is everywhere.
    reach = min(int(config["local_attention"]) // 2, positions)
    of_attention, of_mlp = bool(config["attention_bias"]), bool(config["mlp_bias"])
    for number, is_local in enumerate(are_local):
        layer = f"layers.{number}."
        if number:
            norm = _norm(config, weights, f"{layer}attn_norm")
            made.put_norm(number, VectorSlot.ATTENTION_NORM, VectorSlot.ATTENTION_NORM_BIAS, norm)
        joined = _thirds(sizes, weights, f"{layer}attn.Wqkv", with_bias=of_attention)
        made.put_dense(number, MatrixSlot.QKV, VectorSlot.QKV_BIAS, joined)
        for matrix, bias, name, inputs, outputs, with_bias in (
            (MatrixSlot.MIXED, VectorSlot.MIXED_BIAS, "attn.Wo", hidden, hidden, of_attention),
            (MatrixSlot.UP, VectorSlot.UP_BIAS, "mlp.Wi", hidden, 2 * inner, of_mlp),
            (MatrixSlot.DOWN, VectorSlot.DOWN_BIAS, "mlp.Wo", inner, hidden, of_mlp),
        ):
            dense = _dense(weights, layer + name, inputs, outputs, with_bias=with_bias)
            made.put_dense(number, matrix, bias, dense)
        norm = _norm(config, weights, f"{layer}mlp_norm")
        made.put_norm(number, VectorSlot.OUTPUT_NORM, VectorSlot.OUTPUT_NORM_BIAS, norm)
        made.layers.append((1, reach) if is_local else (0, -1))
    return made


def _dense(
    weights: MappedWeights, name: str, inputs: int, outputs: int, scale: float = 1.0, *, with_bias: bool = True
) -> Iterator[tuple[Part, Part | None]]:
    weight = Part(weights.take(f"{name}.weight", outputs, inputs), scale)
    yield weight, Part(weights.take(f"{name}.bias", outputs), scale) if with_bias else None


def _queries(sizes: _Sizes, weights: MappedWeights, layer: str, names: Names) -> Iterator[tuple[Part, Part | None]]:
    for name, scale in ((names.query, sizes.query_scale), (names.key, 1.0), (names.value, 1.0)):
        yield from _dense(weights, layer + name, sizes.hidden, sizes.hidden, scale)


def _thirds(sizes: _Sizes, weights: MappedWeights, name: str, *, with_bias: bool) -> Iterator[tuple[Part, Part | None]]:
    """A matrix that has queries, keys and values one below the other."""
    [(weight, shift)] = _dense(weights, name, sizes.hidden, 3 * sizes.hidden, with_bias=with_bias)
    for number, scale in enumerate((sizes.query_scale, 1.0, 1.0)):
        part = Part(_third(weight.tensor, number), scale)
        yield part, None if shift is None else Part(_third(shift.tensor, number), scale)


def _third(tensor: Tensor, number: int) -> Tensor:
    rows, size = tensor.shape[0] // 3, len(tensor.numbers) // 3
    return Tensor(tensor.numbers[number * size : (number + 1) * size], tensor.dtype, (rows, *tensor.shape[1:]))


def _norm(config: Config, weights: MappedWeights, name: str) -> tuple[Tensor, Tensor | None]:
    hidden = hidden_size(config) or 0
    bias = weights.take(f"{name}.bias", hidden) if config.get("norm_bias", True) else None
    return weights.take(f"{name}.weight", hidden), bias


def _made(values: Floats) -> Tensor:
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return Tensor(flat.view(np.uint8), "F32", values.shape)


def rotation_table(positions: int, size: int, base: float) -> Floats:
    """The cosines and sines by which a head's `size` numbers are turned at each position, [positions, 2, size / 2]."""
    angles = np.arange(positions)[:, None] * (1.0 / base ** (np.arange(0, size, 2) / size))
    table: Floats = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    return table


def relative_table(biases: Floats, positions: int) -> Floats:
    """MPNet's `biases`, [buckets, heads], by key minus query from 1 - `positions` on, in base 2; [heads, distances]."""
    return biases[buckets(np.arange(1 - positions, positions))].T * np.float32(_LOG2E)


def buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each distance between a key and a query, as T5 (Raffel et al. 2019) and MPNet count them.

    Half of the buckets are for keys behind the query. In each half, distances below 8 have one bucket each, and each
    further bucket begins at the square root of 2 times the distance of the one before.
    """
    half = BUCKETS // 2
    exact = half // 2
    far = np.abs(distances)
    starts = exact**2 << np.arange(1, half - exact)
    grown = exact + np.searchsorted(starts, far**2, side="right")
    found: NDArray[np.int64] = np.where(far < exact, far, grown) + (distances > 0) * half
    return found
