"""Cohere. The form is that of its API, version 2: https://docs.cohere.com/reference/embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from jammi_duck.encoder.providers.remote import Answer, RemoteFunction, as_many, count_of, decoded
from jammi_duck.types import Role

_INPUT_TYPES: Mapping[Role, str] = {"document": "search_document", "query": "search_query"}


class _Embeddings(msgspec.Struct):
    floats: list[list[float | None]] = msgspec.field(name="float")


class _Document(msgspec.Struct):
    embeddings: _Embeddings
    meta: Any = None


class Cohere(RemoteFunction):
    """Cohere. Documents are sent as `search_document`, and queries as `search_query`.

    Args:
        name: the model.
        input_type: what documents are sent as instead, such as `classification`; queries, too.
        truncate: what is done with a text that is too long: END or START cut it, NONE refuses it.

    Other arguments are those of `RemoteFunction`.

    Example:
        >>> get_registry().get("cohere").create(name="embed-v4.0", dimensions=512)
    """

    url: ClassVar[str] = "https://api.cohere.com"
    key_variables: ClassVar[tuple[str, ...]] = ("CO_API_KEY", "COHERE_API_KEY")
    url_variables: ClassVar[tuple[str, ...]] = ("CO_API_URL",)
    known_dimensions: ClassVar[Mapping[str, int]] = {
        "embed-english-v3.0": 1024,
        "embed-multilingual-v3.0": 1024,
        "embed-english-light-v3.0": 384,
        "embed-multilingual-light-v3.0": 384,
        "embed-v4.0": 1536,
    }
    most_texts: ClassVar[int] = 96

    name: str = "embed-english-v3.0"
    input_type: str | None = None
    truncate: str = "END"

    def address(self) -> str:
        """See `RemoteFunction.address`."""
        return f"{self.endpoint}/v2/embed"

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """See `RemoteFunction.body`."""
        known = self.known_dimensions.get(self.name)
        wanted = {"output_dimension": self.dimensions} if self.dimensions not in (None, known) else {}
        return {
            "model": self.name,
            "texts": texts,
            "input_type": self.input_type or _INPUT_TYPES[role],
            "embedding_types": ["float"],
            "truncate": self.truncate,
            **wanted,
        }

    def answer(self, content: bytes, count: int) -> Answer:
        """See `RemoteFunction.answer`."""
        document: _Document = decoded(content, _Document)
        meta = document.meta if isinstance(document.meta, dict) else {}
        units = meta.get("billed_units")
        tokens = count_of(units.get("input_tokens")) if isinstance(units, dict) else None
        return Answer(as_many(document.embeddings.floats, count), tokens)
