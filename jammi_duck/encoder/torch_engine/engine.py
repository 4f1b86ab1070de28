"""The forward passes of a model with torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from jammi_duck.encoder.cross_encoder_description import CrossEncoderDescription
from jammi_duck.encoder.description import ModelDescription
from jammi_duck.encoder.local.engine import Engine, PairEngine, Tokens
from jammi_duck.encoder.local.pairs import PairTokens
from jammi_duck.encoder.torch_engine.batch import Batch, pack
from jammi_duck.encoder.torch_engine.families import Transformer, transformer
from jammi_duck.encoder.torch_engine.heads import Head
from jammi_duck.encoder.torch_engine.linear import PASS_TOKENS, Placement
from jammi_duck.encoder.torch_engine.pooling import Pooling, activation_named
from jammi_duck.encoder.torch_engine.threads import use_cores
from jammi_duck.encoder.torch_engine.weights import products_of_token, read_model
from jammi_duck.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors

# A pass of fewer products than this stays on one core: several would save a tenth of its time, and those that wait
# keep their cores busy for milliseconds after it.
_SPREAD_PRODUCTS = 1 << 28

# The layers of a model, what makes the vectors of texts of those of their tokens (and leaves out so many, which are the
# prompt), and about how many products a token takes.
Parts = tuple[Transformer, Callable[[torch.Tensor, Batch, int], torch.Tensor], int]


class TorchEngine(Engine):
    """See `Engine`."""

    name = "torch"

    def __init__(
        self, description: ModelDescription, placement: Placement, load: Callable[[], Parts] | None = None
    ) -> None:
        """Load the model, by `load` if it is given.

        Raises:
            ModelError: the weights cannot be read, do not fit config.json, or are of no supported architecture.
        """
        use_cores()
        self.precision = precision_of(placement)
        self.tokens_of_pass = tokens_of_pass(placement)
        self._transformer, self._pooling, products = load() if load else _parts(description, placement)
        self.vocabulary = self._transformer.vocabulary
        self.spread_tokens = _SPREAD_PRODUCTS // products
        self._pools_first = description.pooling == "cls"
        self._device = placement.device

    def vectors(self, sequences: Sequence[Tokens], skipped: int) -> Vectors:
        """See `Engine.vectors`."""
        use_cores()
        with torch.inference_mode():
            batch = pack(sequences, self._device)
            wanted, pooled = None, batch
            if self._pools_first and not skipped:
                # Most of the last layer's work would be for tokens that pooling does not use.
                wanted, pooled = batch.firsts()
            hidden = self._transformer(batch, wanted)
            vectors: Vectors = self._pooling(hidden, pooled, skipped).cpu().numpy()
        return vectors


class TorchPairEngine(PairEngine):
    """See `PairEngine`."""

    name = "torch"

    def __init__(self, description: CrossEncoderDescription, placement: Placement) -> None:
        """Load the model.

        Raises:
            ModelError: the weights cannot be read, do not fit config.json, or are of no supported family.
        """
        use_cores()
        self.precision = precision_of(placement)
        self.tokens_of_pass = tokens_of_pass(placement)
        self._device = placement.device
        self._has_types = description.has_types
        self._activation = activation_named(description.activation, f"the model '{description.name}' makes scores")
        config, weights = read_model(description)
        self._head = Head(config, description, weights, placement.device)
        compact = transformer(config, weights, placement)
        if compact is None:
            raise ModelError(
                f"the model '{description.name}' has a setting in its config.json that is not supported for a "
                "re-ranker, such as another activation than GELU, or relative positions"
            )
        self._transformer = compact
        self.vocabulary = compact.vocabulary

    def scores(self, pairs: Sequence[PairTokens]) -> NDArray[np.float32]:
        """See `PairEngine.scores`."""
        use_cores()
        with torch.inference_mode():
            types = [pair.types for pair in pairs] if self._has_types else None
            batch = pack([pair.ids for pair in pairs], self._device, types)
            wanted, pooled = (None, batch) if self._head.pools_mean else batch.firsts()
            made = self._activation(self._head(self._transformer(batch, wanted), pooled))
            scores: NDArray[np.float32] = made.cpu().numpy()
        return scores


def precision_of(placement: Placement) -> str:
    """The name of a placement's type."""
    return str(placement.dtype).removeprefix("torch.")


def tokens_of_pass(placement: Placement) -> int:
    """See `Engine`; a CUDA device takes whatever fits into its memory."""
    return PASS_TOKENS if placement.device.type == "cpu" else sys.maxsize


def _parts(description: ModelDescription, placement: Placement) -> Parts:
    config, weights = read_model(description)
    layers = transformer(config, weights, placement)
    if layers is None:
        from jammi_duck.encoder.torch_engine.through_transformers import ThroughTransformers

        layers = ThroughTransformers(config, description, placement)
    return layers, Pooling(description, placement.device), products_of_token(config)
