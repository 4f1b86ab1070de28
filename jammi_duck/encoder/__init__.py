"""Text to vectors. Knows neither DuckDB nor files of ours.

`LoadedEncoders(...).get(name)` finds a model by name, loads it once per process, and gives an `Encoder`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jammi_duck.errors import EncodingError
from jammi_duck.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.encoder.listing import ModelRow
    from jammi_duck.types import Vectors


@dataclass(frozen=True)
class Identity:
    """All that decides an encoder's vectors, as the definition of an embedding table keeps it.

    Only the name is always known. `weights` is the SHA-256 of a local model's weights and tokenizer, and `pooling` how
    it makes one vector of a text's tokens; `prompt` is what stands before each document, `max_tokens` where longer
    texts are cut. Where `weights` are empty, two of one name are taken to be the same.
    """

    name: str
    revision: str | None = None
    weights: str = ""
    pooling: str = ""
    prompt: str = ""
    precision: str = "float32"
    max_tokens: int = 0


@dataclass(frozen=True)
class Encodings:
    """What became of n texts, in their order.

    `vectors` is float32 [n, dimensions], L2-normalised, zeros where `failed`; `truncated` marks texts that were longer
    than the model reads; `failed` marks texts that did not fit into memory even alone, or whose numbers overflowed.
    """

    vectors: Vectors
    truncated: NDArray[np.bool_]
    failed: NDArray[np.bool_]


class Encoder(Protocol):
    """What makes vectors of texts: a model in this process, or one elsewhere. Threads may share it.

    A class of encoders inherits from this one, sets `identity` and `dimensions`, which is how long the vectors are, and
    has `encode_rows`.
    """

    identity: Identity
    dimensions: int

    @abstractmethod
    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """The vectors of texts, and for each text what became of it.

        `progress` is told now and then how many more texts are done (equal texts count as one), and ends the work by
        raising.

        Raises:
            EncodingError: none of these texts can be encoded now, nor can those that would come after them.
        """
        ...

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """The L2-normalised vectors of texts, float32 [n, dimensions], in their order.

        Raises:
            EncodingError: a text has failed.
        """
        encodings = self.encode_rows(texts, role, lambda _: None)
        if encodings.failed.any():
            text = texts[int(encodings.failed.argmax())]
            raise EncodingError(
                f"the text '{text[:40]}' of {len(text)} characters could not be embedded: there is not enough memory "
                "for it even alone, or the model's numbers for it overflow"
            )
        return encodings.vectors


@runtime_checkable
class LocalEncoder(Encoder, Protocol):
    """A model of files, which computes in the memory of this process."""

    description: ModelDescription

    def stream(self) -> Encoder:
        """The same for one long stream of texts: what running out of memory has taught it holds for all of them."""
        ...


def for_stream(encoder: Encoder) -> Encoder:
    """The encoder to use for all texts of one long stream."""
    return encoder.stream() if isinstance(encoder, LocalEncoder) else encoder


class Encoders(Protocol):
    """Where encoders are had by name. `loaded.LoadedEncoders` is the real one."""

    def get(self, name: str) -> Encoder:
        """The encoder of a model.

        Raises:
            ModelError: the model cannot be found, or cannot be loaded.
        """
        ...

    def names(self, name: str) -> set[str]:
        """What a model may be called in an embedding table, if a user calls it `name`."""
        ...

    def available(self, default: str) -> list[ModelRow]:
        """The models that can be had without a download, by name; `default` is one of them where it is a directory."""
        ...
