"""Models of the Hugging Face hub, computed in this process by our own encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from jammi_duck.encoder.functions import TextEmbeddingFunction
from jammi_duck.errors import InputError

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder, Encoders


class LocalFunction(TextEmbeddingFunction):
    """A model of the hub, or a directory, in this process.

    Args:
        name: as SQL names a local model.
        device: `cpu`, `cuda` or `cuda:N`; by default what [gpu] device says.
        normalize: vectors always have the length 1, so it can only be true.
        trust_remote_code: code of a model is never run, so it can only be false.
    """

    is_local: ClassVar[bool] = True

    device: str | None = None
    normalize: bool = True
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        """Check the arguments.

        Raises:
            InputError: one asks for what is not done.
        """
        if self.trust_remote_code:
            raise InputError(f"trust_remote_code of '{self.id}' is true, and a model's code is never run; leave it out")
        if not self.normalize:
            raise InputError(f"normalize of '{self.id}' is false, and vectors always have the length 1; leave it out")

    @classmethod
    def passing_keys(cls) -> Sequence[str]:
        """See `EmbeddingFunction.passing_keys`."""
        return (*super().passing_keys(), "device", "normalize", "trust_remote_code")

    def ndims(self) -> int:
        """See `EmbeddingFunction.ndims`."""
        return self._encoder.dimensions

    def generate_embeddings(self, texts: list[str]) -> Any:  # noqa: ANN401 - an array of all vectors
        """The vectors of texts, float32 [n, dimensions], in their order."""
        return self._encoder.encode(texts)

    def compute_query_embeddings(self, query: Any) -> list[Any]:  # noqa: ANN401 - see the base
        """See `EmbeddingFunction.compute_query_embeddings`; with the model's prompt for queries."""
        return list(self._encoder.encode([query] if isinstance(query, str) else list(query), "query"))

    @cached_property
    def _encoder(self) -> Encoder:
        from jammi_duck.encoder.loaded import LoadedEncoders

        return LoadedEncoders(32, 3, device=self._device()).get(self.name)

    def takes_images(self, encoders: Encoders) -> bool:
        """See `EmbeddingFunction.takes_images`."""
        return encoders.takes_images(self.name)

    def encoder(self, encoders: Encoders) -> Encoder:
        """See `EmbeddingFunction.encoder`. It is that of the bare name, so it is the same model to SQL."""
        return encoders.get(self.name)

    def _device(self) -> int | None:
        if self.device is None:
            return None
        kind, _, number = self.device.partition(":")
        devices: dict[str, Callable[[], int]] = {"cpu": lambda: -1, "cuda": lambda: int(number or 0)}
        if kind not in devices or not (number or "0").isdigit():
            raise InputError(f"device of '{self.id}' is '{self.device}'; it must be cpu, cuda or cuda:N")
        return devices[kind]()


class HuggingFace(LocalFunction):
    """A model of the Hugging Face hub, in this process; see `LocalFunction`.

    The default is that of others, a model that gives a vector for each token; here it gives their mean.
    """

    name: str = "colbert-ir/colbertv2.0"


class SentenceTransformers(LocalFunction):
    """A model of sentence-transformers, in this process; see `LocalFunction`."""

    name: str = "all-MiniLM-L6-v2"
