"""Google Gemini. The form is that of https://ai.google.dev/api/embeddings (batchEmbedContents)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from jammi_duck.encoder.providers.remote import Answer, RemoteFunction, as_many, decoded
from jammi_duck.types import Role

_TASKS: Mapping[Role, str] = {"document": "RETRIEVAL_DOCUMENT", "query": "RETRIEVAL_QUERY"}


class _Embedding(msgspec.Struct):
    values: list[float | None]


class _Document(msgspec.Struct):
    embeddings: list[_Embedding]


class Gemini(RemoteFunction):
    """Google Gemini. Documents are sent for the task RETRIEVAL_DOCUMENT, and queries for RETRIEVAL_QUERY.

    Args:
        name: the model, with or without `models/` before it.
        task: the task for both instead, such as SEMANTIC_SIMILARITY.

    Other arguments are those of `RemoteFunction`. Gemini does not count tokens, so they are estimated.
    """

    url: ClassVar[str] = "https://generativelanguage.googleapis.com/v1beta"
    key_variables: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    known_dimensions: ClassVar[Mapping[str, int]] = {
        "gemini-embedding-001": 3072,
        "text-embedding-004": 768,
        "embedding-001": 768,
    }
    most_texts: ClassVar[int] = 100
    most_tokens: ClassVar[int] = 20_000

    name: str = "gemini-embedding-001"
    task: str | None = None

    def address(self) -> str:
        """See `RemoteFunction.address`."""
        return f"{self.endpoint}/models/{quote(self._model, safe='')}:batchEmbedContents"

    @property
    def _model(self) -> str:
        return self.name.removeprefix("models/")

    def headers(self, key: str | None) -> Mapping[str, str]:
        """See `RemoteFunction.headers`."""
        return {"x-goog-api-key": key} if key else {}

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """See `RemoteFunction.body`."""
        known = self.known_dimensions.get(self._model)
        wanted = {"outputDimensionality": self.dimensions} if self.dimensions not in (None, known) else {}
        shared = {"model": f"models/{self._model}", "taskType": self.task or _TASKS[role], **wanted}
        return {"requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in texts]}

    def answer(self, content: bytes, count: int) -> Answer:
        """See `RemoteFunction.answer`."""
        document: _Document = decoded(content, _Document)
        return Answer([each.values for each in as_many(document.embeddings, count)], None)
