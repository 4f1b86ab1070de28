"""CLIP's two towers (Radford et al. 2021): one makes vectors of texts, the other of pictures, in one space.

Both are transformers with a norm before each part. That of texts is causal, so a text's vector is that of its end
token, whatever stands behind it; a picture's is that of a token of its own before its patches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jammi_duck.encoder.images.clip_description import ClipDescription, TowerShape
from jammi_duck.encoder.images.clip_weights import (
    LayerWeights,
    Pair,
    TextNames,
    TowerNames,
    VisionNames,
    pair,
    projection,
)
from jammi_duck.encoder.torch_engine.batch import Batch, Group, each_group
from jammi_duck.encoder.torch_engine.families import Norm, attention, queries_keys_values
from jammi_duck.encoder.torch_engine.linear import Linear, Placement, linear
from jammi_duck.encoder.torch_engine.weights import Weights

# quick_gelu is x * sigmoid(1.702 x), so silu(1.702 x) / 1.702: the factors go into the weights around it.
_QUICK = 1.702


class _Layer:
    """x = x + attention(norm(x)); x = x + down(activation(up(norm(x))))."""

    def __init__(self, weights: LayerWeights, shape: TowerShape, placement: Placement) -> None:
        self._heads = shape.heads
        factor = _QUICK if shape.activation == "quick_gelu" else 1.0
        self._activation = "silu" if shape.activation == "quick_gelu" else shape.activation
        self._attention_norm = _norm(weights.attention_norm, shape, placement)
        self._qkv = queries_keys_values(*weights.qkv, shape.heads, placement)
        self._mixed = linear(*weights.mixed, placement)
        self._mlp_norm = _norm(weights.mlp_norm, shape, placement)
        self._up = linear(weights.up[0] * factor, weights.up[1] * factor, placement)
        self._down = linear(weights.down[0] / factor, weights.down[1], placement)

    def __call__(self, x: Tensor, batch: Batch, biases: dict[int, Tensor] | None, wanted: Tensor | None) -> Tensor:
        mixed = attention(self._qkv(self._attention_norm(x)), batch, self._heads, biases)
        if wanted is not None:
            mixed, x = mixed[wanted], x[wanted]
        x = self._mixed.plus(mixed, x)
        return self._down.plus(self._up.activated(self._mlp_norm(x), self._activation), x)


class _Layers:
    """The layers of a tower, its last norm, and what makes its vectors those of both towers."""

    def __init__(
        self, weights: Weights, names: TowerNames, shape: TowerShape, dimensions: int, placement: Placement
    ) -> None:
        numbers = range(shape.layers)
        exact = Placement(placement.device, torch.float32)
        self._dtype = placement.dtype
        self._layers = [
            _Layer(LayerWeights(weights, names, number, shape.hidden, shape.inner), shape, placement)
            for number in numbers
        ]
        self._norm = _norm(pair(weights, names.last_norm, shape.hidden), shape, exact)
        self._projection = linear(projection(weights, names, shape.hidden, dimensions), None, exact)

    def __call__(self, x: Tensor, batch: Batch, wanted: Tensor, biases: dict[int, Tensor] | None = None) -> Tensor:
        """The unit vectors of the `wanted` rows, float32 [n, dimensions]."""
        x = x.to(self._dtype)
        for layer in self._layers:
            x = layer(x, batch, biases, wanted if layer is self._layers[-1] else None)
        return torch.nn.functional.normalize(self._projection(self._norm(x.float())), dim=-1)


class TextTower:
    """See `jammi_duck.encoder.torch_engine.families.Transformer`, but gives the vectors of texts, not of tokens."""

    def __init__(self, description: ClipDescription, names: TextNames, weights: Weights, placement: Placement) -> None:
        """Raises ModelError if the weights do not fit."""
        shape = description.text
        exact = Placement(placement.device, torch.float32)
        self.vocabulary = description.vocabulary
        self._end = description.end
        self._dtype = placement.dtype
        self._words = exact.put(weights.take(names.words, self.vocabulary, shape.hidden))
        self._positions = exact.put(weights.take(names.positions, description.max_tokens, shape.hidden))
        self._layers = _Layers(weights, names, shape, description.dimensions, placement)

    def __call__(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """The vectors of a batch's sequences, [n, dimensions], in their order."""
        x = torch.nn.functional.embedding(batch.ids, self._words)
        x += torch.nn.functional.embedding(batch.positions(), self._positions)
        lengths = {group.length for group in batch.groups}
        biases = {length: _causal(length, self._dtype, x.device) for length in lengths}
        return self._layers(x, batch, self._ends(batch), biases)

    def _ends(self, batch: Batch) -> Tensor:
        """The row of each text's first end token; without an id for it, that is the first of the highest id."""
        rows = []
        for group, ids in zip(batch.groups, each_group(batch.ids[:, None], batch), strict=True):
            marks = ids[:, :, 0] if self._end is None else (ids[:, :, 0] == self._end).long()
            starts = torch.arange(group.start, group.rows.stop, group.length, device=marks.device)
            rows.append(starts + marks.argmax(1))
        return torch.cat(rows)


class VisionTower:
    """The tower for pictures."""

    def __init__(
        self, description: ClipDescription, names: VisionNames, weights: Weights, placement: Placement
    ) -> None:
        """Raises ModelError if the weights do not fit."""
        shape, self._side = description.vision, description.patch_size
        exact = Placement(placement.device, torch.float32)
        self._device = placement.device
        self.tokens = description.picture_tokens
        kernel = weights.take(names.patch, shape.hidden, 3, self._side, self._side)
        self._patch: Linear = linear(kernel.flatten(1), None, exact)
        positions = weights.take(names.positions, self.tokens, shape.hidden)
        self._whole = exact.put(weights.take(names.whole, shape.hidden) + positions[0])
        self._positions = exact.put(positions[1:])
        self._norm = _norm(pair(weights, names.first_norm, shape.hidden), shape, exact)
        self._layers = _Layers(weights, names, shape, description.dimensions, placement)

    def __call__(self, pixels: Tensor) -> Tensor:
        """The vectors of pictures, [n, dimensions], from their pixels, [n, 3, size, size]."""
        x = self._norm(self._tokens(pixels.to(self._device)))
        batch = Batch(torch.empty(0), (Group(0, len(pixels), self.tokens),))
        wholes = torch.arange(0, len(x), self.tokens, device=x.device)
        return self._layers(x, batch, wholes)

    def _tokens(self, pixels: Tensor) -> Tensor:
        """A row for each patch, and before them one for the whole picture, [n * tokens, hidden]."""
        count, side = len(pixels), self._side
        across = pixels.shape[-1] // side
        grid = pixels[:, :, : across * side, : across * side].reshape(count, 3, across, side, across, side)
        rows = self._patch(grid.permute(0, 2, 4, 1, 3, 5).reshape(count * across * across, -1))
        patches = rows.view(count, across * across, -1) + self._positions
        return torch.cat([self._whole.expand(count, 1, -1), patches], 1).flatten(0, 1)


def _norm(weights: Pair, shape: TowerShape, placement: Placement) -> Norm:
    return Norm(*weights, shape.eps, placement)


def _causal(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bias that lets each token attend to those before it only, [1, length, length]."""
    return torch.full((1, length, length), -math.inf, dtype=dtype, device=device).triu_(1)
