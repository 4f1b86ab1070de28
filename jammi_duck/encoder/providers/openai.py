"""OpenAI, and any server that speaks its protocol: vLLM, Ollama, LM Studio, llama.cpp, Azure.

The form of requests and answers is that of https://platform.openai.com/docs/api-reference/embeddings/create.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
import numpy as np

from jammi_duck.encoder.providers.remote import Answer, Malformed, RemoteFunction, count_of, decoded, in_order
from jammi_duck.types import Role

Numbers = list[float | None]


class Item(msgspec.Struct):
    """A vector, and the place of its text."""

    index: int
    embedding: bytes | Numbers


class Document(msgspec.Struct):
    """An answer, of which other fields are of no interest."""

    data: list[Item]
    usage: Any = None


class OpenAI(RemoteFunction):
    """OpenAI, and any server that speaks its protocol.

    Args:
        name: the model; of a server of your own, its name there.
        base_url: such as `http://localhost:8000/v1` for a server of your own. Of Azure, the resource's
            `https://NAME.openai.azure.com`.
        api_version: of Azure only, such as `2024-10-21`; `name` is that of the deployment then.
        organization: the organization that pays, if the key has several.

    Other arguments are those of `RemoteFunction`.

    Example:
        >>> get_registry().get("openai").create(name="text-embedding-3-small", dimensions=256)
    """

    url: ClassVar[str] = "https://api.openai.com/v1"
    key_variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    url_variables: ClassVar[tuple[str, ...]] = ("OPENAI_BASE_URL",)
    known_dimensions: ClassVar[Mapping[str, int]] = {
        "text-embedding-ada-002": 1536,
        "text-embedding-3-small": 1536,
        "text-embedding-3-large": 3072,
    }
    most_texts: ClassVar[int] = 256
    most_tokens: ClassVar[int] = 250_000

    name: str = "text-embedding-ada-002"
    api_version: str | None = None
    organization: str | None = None

    @classmethod
    def passing_keys(cls) -> Sequence[str]:
        """See `EmbeddingFunction.passing_keys`."""
        return (*super().passing_keys(), "organization", "api_version")

    def address(self) -> str:
        """See `RemoteFunction.address`."""
        if self.api_version is None:
            return f"{self.endpoint}/embeddings"
        deployment, version = quote(self.name, safe=""), quote(self.api_version, safe="")
        return f"{self.endpoint}/openai/deployments/{deployment}/embeddings?api-version={version}"

    def headers(self, key: str | None) -> Mapping[str, str]:
        """See `RemoteFunction.headers`."""
        if self.api_version is not None:
            return {"api-key": key} if key else {}
        named = {"openai-organization": self.organization} if self.organization else {}
        return {**super().headers(key), **named}

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """See `RemoteFunction.body`."""
        wanted = {"dimensions": self.dimensions} if self.sends_dimensions() else {}
        return {"model": self.name, "input": texts, "encoding_format": "base64", **wanted}

    def sends_dimensions(self) -> bool:
        """Whether the server is asked for so many dimensions, and not only expected to give them."""
        return self.dimensions is not None and self.dimensions != self.known_dimensions.get(self.name)

    def answer(self, content: bytes, count: int) -> Answer:
        """See `RemoteFunction.answer`."""
        document: Document = decoded(content, Document)
        vectors = in_order(document.data, count, lambda item: item.index, lambda item: numbers(item.embedding))
        usage = document.usage
        return Answer(vectors, count_of(usage.get("total_tokens")) if isinstance(usage, dict) else None)


def numbers(given: bytes | Numbers) -> Any:  # noqa: ANN401 - numbers of either form
    """The numbers of a vector: little-endian float32, or a list, which servers give that know no base64."""
    if not isinstance(given, bytes):
        return given
    try:
        return np.frombuffer(given, "<f4")
    except ValueError as error:
        raise Malformed(f"the answer is not as it should be: {error}") from None
