"""What a provider's form is: how it wants its requests, and how it writes answers and errors."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tests.endpoint.vectors import Item, periods_of

# How long vectors of well-known models are; those of others have as many numbers as the endpoint says.
WIDTHS = {
    "text-embedding-ada-002": 1536,
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "embed-english-v3.0": 1024,
    "embed-english-light-v3.0": 384,
    "embed-multilingual-v3.0": 1024,
    "embed-multilingual-light-v3.0": 384,
    "embed-v4.0": 1536,
    "voyage-3.5": 1024,
    "voyage-3.5-lite": 1024,
    "voyage-code-3": 1024,
    "jina-embeddings-v3": 1024,
    "nomic-embed-text": 768,
    "gemini-embedding-001": 3072,
}


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class Call:
    """What a request asks for."""

    model: str
    texts: Sequence[str]
    dimensions: int | None = None
    role: str = "document"
    is_base64: bool = False
    # What only one form has.
    version: str = ""
    vectors_scale: float = 1
    extra: Mapping[str, Any] = field(default_factory=dict)

    def items(self, width: int) -> list[Item]:
        """The vectors of its texts, in their order."""
        dimensions = self.dimensions or width
        periods = periods_of(self.texts, dimensions, self.role)
        return [Item(i, period, dimensions, self.vectors_scale) for i, period in enumerate(periods)]

    @property
    def tokens(self) -> int:
        """The tokens of all texts."""
        return sum(map(tokens_of, self.texts))


def tokens_of(text: str) -> int:
    """About as many as real tokenizers find."""
    return max(1, (len(text) + 3) // 4)


class Form:
    """The form of one provider; the base is that of most."""

    name: ClassVar[str]
    needs_key: ClassVar[bool] = True
    most_texts: ClassVar[int] = 1_000_000
    most_tokens: ClassVar[int] = 1_000_000_000

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The key that a request comes with."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key if scheme.lower() == "bearer" else None

    def wrong_key(self, key: str | None) -> RefusedError:
        """How a wrong key, or none, is answered."""
        raise NotImplementedError

    def no_model(self, model: str) -> RefusedError:
        """How an unknown model is answered."""
        raise NotImplementedError

    def refused_text(self) -> RefusedError:
        """How a text that the provider does not like is answered."""
        return RefusedError(400, "The input was refused by the content policy.")

    def too_many(self, count: int, most: int) -> RefusedError:
        """How more texts than a request may have are answered."""
        raise NotImplementedError

    def too_long(self, call: Call, most: int) -> RefusedError:
        """How more tokens than a request may have are answered."""
        raise NotImplementedError

    def check_size(self, call: Call, most_texts: int, most_tokens: int) -> None:
        """Refuse a request that is too large.

        Raises:
            RefusedError: it is.
        """
        if len(call.texts) > most_texts:
            raise self.too_many(len(call.texts), most_texts)
        if call.tokens > most_tokens:
            raise self.too_long(call, most_tokens)

    def read(self, path: Mapping[str, str], payload: Any) -> Call:
        """What a request asks for; `path` has the parts of its path that have names.

        Raises:
            RefusedError: as the provider does.
        """
        raise NotImplementedError

    def answer(self, call: Call, items: Sequence[Item]) -> str:
        """The body of an answer."""
        raise NotImplementedError

    def error(self, status: int, message: str, code: str | None = None) -> str:
        """The body of an error."""
        raise NotImplementedError


def object_of(payload):
    if not isinstance(payload, dict):
        raise RefusedError(400, "the body is no JSON object")
    return payload


def dimensions_of(payload, name):
    dimensions = payload.get(name)
    if dimensions is None or (type(dimensions) is int and 0 < dimensions <= 10_000):
        return dimensions
    raise RefusedError(400, f"Invalid value for '{name}': {dimensions!r}")


def base64_of(item):
    return f'"{base64.b64encode(item.values.astype(np.dtype("<f4")).tobytes()).decode()}"'
