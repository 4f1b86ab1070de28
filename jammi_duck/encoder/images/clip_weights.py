"""What the tensors of CLIP are called, in the files of transformers and of open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from jammi_duck.encoder.torch_engine.weights import Weights


@dataclass(frozen=True)
class TowerNames:
    """The names in one tower: `layers` has a place for a layer's number, and `joined` says how the rest is called.

    With `joined`, queries, keys and values are one matrix, and the projection is transposed.
    """

    positions: str
    layers: str
    last_norm: str
    projection: str
    joined: bool


@dataclass(frozen=True)
class TextNames(TowerNames):
    """Those of the tower for texts."""

    words: str


@dataclass(frozen=True)
class VisionNames(TowerNames):
    """Those of the tower for pictures: the token that stands for the whole picture, and the matrix for a patch."""

    whole: str
    patch: str
    first_norm: str


@dataclass(frozen=True)
class _LayerNames:
    attention_norm: str
    mixed: str
    mlp_norm: str
    up: str
    down: str


TRANSFORMERS = (
    TextNames(
        positions="text_model.embeddings.position_embedding.weight",
        layers="text_model.encoder.layers.{}.",
        last_norm="text_model.final_layer_norm",
        projection="text_projection.weight",
        joined=False,
        words="text_model.embeddings.token_embedding.weight",
    ),
    VisionNames(
        positions="vision_model.embeddings.position_embedding.weight",
        layers="vision_model.encoder.layers.{}.",
        last_norm="vision_model.post_layernorm",
        projection="visual_projection.weight",
        joined=False,
        whole="vision_model.embeddings.class_embedding",
        patch="vision_model.embeddings.patch_embedding.weight",
        # So it is written.
        first_norm="vision_model.pre_layrnorm",
    ),
)
OPEN_CLIP = (
    TextNames(
        positions="positional_embedding",
        layers="transformer.resblocks.{}.",
        last_norm="ln_final",
        projection="text_projection",
        joined=True,
        words="token_embedding.weight",
    ),
    VisionNames(
        positions="visual.positional_embedding",
        layers="visual.transformer.resblocks.{}.",
        last_norm="visual.ln_post",
        projection="visual.proj",
        joined=True,
        whole="visual.class_embedding",
        patch="visual.conv1.weight",
        first_norm="visual.ln_pre",
    ),
)
_APART = _LayerNames("layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2")
_JOINED = _LayerNames("ln_1", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")

Pair = tuple[Tensor, Tensor]


class LayerWeights:
    """The tensors of one layer: a matrix or a weight, and its bias."""

    def __init__(self, weights: Weights, names: TowerNames, number: int, hidden: int, inner: int) -> None:
        """Look them up. Raises ModelError if one is missing, or has another shape."""
        self._weights, self._prefix = weights, names.layers.format(number)
        mine = _JOINED if names.joined else _APART
        self.qkv = self._joined(hidden) if names.joined else self._apart(hidden)
        self.attention_norm = self._pair(mine.attention_norm, hidden)
        self.mixed = self._pair(mine.mixed, hidden, hidden)
        self.mlp_norm = self._pair(mine.mlp_norm, hidden)
        self.up = self._pair(mine.up, inner, hidden)
        self.down = self._pair(mine.down, hidden, inner)

    def _pair(self, name: str, *shape: int) -> Pair:
        return pair(self._weights, self._prefix + name, *shape)

    def _apart(self, hidden: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        pairs = [self._pair(f"self_attn.{part}_proj", hidden, hidden) for part in "qkv"]
        return [matrix for matrix, _ in pairs], [bias for _, bias in pairs]

    def _joined(self, hidden: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        matrix = self._weights.take(f"{self._prefix}attn.in_proj_weight", 3 * hidden, hidden)
        bias = self._weights.take(f"{self._prefix}attn.in_proj_bias", 3 * hidden)
        return matrix.chunk(3), bias.chunk(3)


def pair(weights: Weights, name: str, *shape: int) -> Pair:
    """A matrix or a weight of this shape, and its bias. Raises ModelError."""
    return weights.take(f"{name}.weight", *shape), weights.take(f"{name}.bias", shape[0])


def projection(weights: Weights, names: TowerNames, hidden: int, dimensions: int) -> Tensor:
    """The matrix that makes a tower's vectors those of both, [dimensions, hidden]. Raises ModelError."""
    if names.joined:
        return weights.take(names.projection, hidden, dimensions).t()
    return weights.take(names.projection, dimensions, hidden)
