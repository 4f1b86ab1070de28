"""Ollama. The form is that of https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from jammi_duck.encoder.providers.remote import Answer, RemoteFunction, as_many, count_of, decoded
from jammi_duck.types import Role


class _Document(msgspec.Struct):
    embeddings: list[list[float | None]]
    prompt_eval_count: Any = None


class Ollama(RemoteFunction):
    """Ollama, on this machine or another. It needs no key.

    Args:
        name: the model; `ollama pull NAME` fetches it.
        keep_alive: how long Ollama keeps the model in memory, such as `10m`.

    Other arguments are those of `RemoteFunction`.
    """

    url: ClassVar[str] = "http://localhost:11434"
    key_variables: ClassVar[tuple[str, ...]] = ("OLLAMA_API_KEY",)
    known_dimensions: ClassVar[Mapping[str, int]] = {
        "nomic-embed-text": 768,
        "mxbai-embed-large": 1024,
        "all-minilm": 384,
        "bge-m3": 1024,
        "snowflake-arctic-embed": 1024,
    }
    most_texts: ClassVar[int] = 64
    needs_key: ClassVar[bool] = False
    when_away: ClassVar[str] = "start Ollama (`ollama serve`), or say where it is, as OLLAMA_HOST or base_url"

    name: str = "nomic-embed-text"
    keep_alive: str | None = None

    @classmethod
    def passing_keys(cls) -> Sequence[str]:
        """See `EmbeddingFunction.passing_keys`."""
        return (*super().passing_keys(), "keep_alive")

    @classmethod
    def surroundings(cls) -> Mapping[str, Any]:
        """See `EmbeddingFunction.surroundings`. Ollama's own variable is a host and a port, or a URL."""
        given = os.environ.get("OLLAMA_HOST")
        if not given:
            return {}
        scheme, _, place = given.rpartition("://")
        host, colon, port = place.rstrip("/").rpartition(":")
        if not colon or "]" in port:
            host, port = place.rstrip("/"), "" if scheme else "11434"
        # The server reads it, too: where it listens is not where it is.
        host = "127.0.0.1" if host in ("", "0.0.0.0", "[::]") else host
        return {"base_url": f"{scheme or 'http'}://{host}{f':{port}' if port else ''}"}

    def address(self) -> str:
        """See `RemoteFunction.address`."""
        return f"{self.endpoint}/api/embed"

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """See `RemoteFunction.body`."""
        known = self.known_dimensions.get(self.name.removesuffix(":latest"))
        kept = {"keep_alive": self.keep_alive} if self.keep_alive else {}
        wanted = {"dimensions": self.dimensions} if self.dimensions not in (None, known) else {}
        return {"model": self.name, "input": texts, "truncate": True, **kept, **wanted}

    def answer(self, content: bytes, count: int) -> Answer:
        """See `RemoteFunction.answer`."""
        document: _Document = decoded(content, _Document)
        return Answer(as_many(document.embeddings, count), count_of(document.prompt_eval_count))
