"""Text to vectors. This package knows nothing about DuckDB or the files of embedding tables.

`LoadedEncoders(...).get(name)` finds a model by name, loads it once per process, and gives an `Encoder`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jammi_duck.encoder.token_counts import EstimatedTokens, TokenCounts
from jammi_duck.errors import EncodingError, NoModelError
from jammi_duck.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.encoder.listing import ModelRow
    from jammi_duck.encoder.vector_cache import VectorCache
    from jammi_duck.types import Definition, Vectors


@dataclass(frozen=True)
class Identity:
    """Everything that determines an encoder's vectors; the definition of an embedding table records it.

    Only the name is always known. `weights` is the SHA-256 of a local model's weights and tokenizer, `pooling` the way
    the vectors of a text's tokens become one vector, `prompt` the prompt before each document, and `max_tokens` the
    limit at which longer texts are cut. If `weights` is empty, two models of the same name are taken to be the same.
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
    """The result of encoding n texts, in their order.

    `vectors` is float32 [n, dimensions], L2-normalised, zeros where `failed`; `truncated` marks texts that were longer
    than the model reads; `failed` marks texts that did not fit into memory even alone, or whose numbers overflowed, or
    for which `reasons` has another reason, by their place.
    """

    vectors: Vectors
    truncated: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    reasons: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What was asked of a provider: the number of requests, and of the tokens in them."""

    requests: int
    tokens: int


class Encoder(Protocol):
    """Turns texts into vectors, with a model in this process or elsewhere. Threads may share it.

    Subclasses set `identity` and `dimensions` (the length of the vectors), and implement `encode_rows`. If they set
    `takes_images`, a document is a picture, as `blobs.py` writes it, or its path or URL; a query may be either.
    """

    identity: Identity
    dimensions: int
    takes_images: bool = False

    @abstractmethod
    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """The vectors of texts, with flags for texts that were cut or failed.

        `progress` is called from time to time with the number of further texts that are done (equal texts count as
        one). To end the work, it raises.

        Raises:
            EncodingError: neither these texts nor later ones can be encoded now.
        """
        ...

    @property
    def usage(self) -> Usage | None:
        """What this encoder has asked of a provider so far; None for a model in this process."""
        return None

    @property
    def token_counts(self) -> TokenCounts:
        """Counts the tokens of texts, however long; by a rule, where the model's tokenizer is not known."""
        return EstimatedTokens(self.identity.max_tokens)

    def stream(self) -> Encoder:
        """The same encoder for one long stream of texts, which adapts to them, and whose usage is its own."""
        return self

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """The L2-normalised vectors of texts, float32 [n, dimensions], in their order.

        Raises:
            EncodingError: a text has failed.
        """
        encodings = self.encode_rows(texts, role, lambda _: None)
        if encodings.failed.any():
            place = int(encodings.failed.argmax())
            text = texts[place]
            usual = "there is not enough memory for it even alone, or the model's numbers for it overflow"
            raise EncodingError(
                f"the text '{text[:40]}' of {len(text)} characters could not be embedded: "
                f"{encodings.reasons.get(place, usual)}"
            )
        return encodings.vectors


@runtime_checkable
class LocalEncoder(Encoder, Protocol):
    """A model whose files are on this machine, computed in this process."""

    description: ModelDescription


class Reranker(Protocol):
    """Scores how well texts answer a query, by reading both together. Threads may share it.

    Subclasses set `name`, and implement `scores`.
    """

    name: str

    @abstractmethod
    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """A score for each pair of a query and a text, float32 [n], in their order; the higher, the better.

        Scores of different models have different ranges.

        Raises:
            EncodingError: a pair could not be scored.
        """
        ...


class Encoders(Protocol):
    """Finds encoders by name, and re-rankers. `loaded.LoadedEncoders` is the implementation."""

    @property
    def vector_cache(self) -> VectorCache | None:
        """The vectors that providers have made before, if they are kept."""
        return None

    def secret(self, url: str) -> str | None:
        """The key for a URL, where a user has stored one."""
        return None

    def use_secrets(self, find: Callable[[str], str | None]) -> None:
        """Let `find` say which key there is for a URL."""
        return

    def get(self, name: str) -> Encoder:
        """The encoder of a model.

        Raises:
            ModelError: the model cannot be found, or cannot be loaded.
        """
        ...

    def recorded(self, definition: Definition) -> Encoder:
        """The encoder of an embedding table's model: one with the recorded weights, wherever it is, if there is any.

        Otherwise the one of the recorded name, whose vectors must not be compared with those of the table.

        Raises:
            ModelError: there is neither, or it cannot be loaded.
        """
        return self.get(definition.model)

    def reranker(self, name: str) -> Reranker:
        """The re-ranker of a name.

        Raises:
            ModelError: it cannot be found, or cannot be loaded, or is a model for embeddings.
        """
        raise NoModelError(f"no re-ranker '{name}'")

    def takes_images(self, name: str) -> bool:
        """Whether the model of a name takes pictures, without loading it; false for one that cannot be found."""
        return False

    def weights_and_pooling(self, name: str) -> tuple[str, str] | None:
        """The digest of the weights and the pooling of a model whose files are on this machine; None for others.

        `recorded` knows from then on where these weights are.

        Raises:
            ModelError: its files cannot be read.
        """
        return None

    def names(self, name: str) -> set[str]:
        """The names that an embedding table may record for a model that the user calls `name`."""
        ...

    def available(self, default: str) -> list[ModelRow]:
        """The models available without a download, sorted by name; includes `default` if that is a directory."""
        ...
