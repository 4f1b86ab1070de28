"""Look-up models: a vector for each token, and their mean for a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jammi_duck.encoder.names import WORDLLAMA
from jammi_duck.encoder.providers.local import LocalFunction
from jammi_duck.errors import ModelError

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder, Encoders


class Static(LocalFunction):
    """A model that looks vectors up: one of Model2Vec, a StaticEmbedding of sentence-transformers, or wordllama.

    Args:
        name: as SQL names a local model; `wordllama` is that of the package wordllama.

    Example:
        >>> get_registry().get("static").create(name="minishlab/potion-base-8M")
    """

    name: str = WORDLLAMA

    def encoder(self, encoders: Encoders) -> Encoder:
        """See `EmbeddingFunction.encoder`. It is that of the bare name, so it is the same model to SQL.

        Raises:
            ModelError: the model cannot be found or loaded, or is of another kind.
        """
        from jammi_duck.encoder.static.encoder import StaticEncoder

        found = super().encoder(encoders)
        if not isinstance(found, StaticEncoder):
            raise ModelError(
                f"the model '{self.name}' is no look-up model: it has no table of vectors; leave '{self.id}:' out"
            )
        return found
