"""Voyage AI. The form is that of https://docs.voyageai.com/reference/embeddings-api."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jammi_duck.encoder.providers.openai import OpenAI
from jammi_duck.encoder.providers.remote import RemoteFunction
from jammi_duck.types import Role


class VoyageAI(RemoteFunction):
    """Voyage AI. Documents are sent as `document`, and queries as `query`.

    Args:
        name: the model.
        truncation: whether a text that is too long is cut, and not refused.

    Other arguments are those of `RemoteFunction`.
    """

    url: ClassVar[str] = "https://api.voyageai.com/v1"
    key_variables: ClassVar[tuple[str, ...]] = ("VOYAGE_API_KEY",)
    known_dimensions: ClassVar[Mapping[str, int]] = {
        "voyage-3.5": 1024,
        "voyage-3.5-lite": 1024,
        "voyage-3-large": 1024,
        "voyage-3": 1024,
        "voyage-3-lite": 512,
        "voyage-code-3": 1024,
        "voyage-finance-2": 1024,
        "voyage-law-2": 1024,
    }
    most_texts: ClassVar[int] = 1000
    most_tokens: ClassVar[int] = 100_000

    name: str = "voyage-3.5"
    truncation: bool = True

    def address(self) -> str:
        """See `RemoteFunction.address`."""
        return f"{self.endpoint}/embeddings"

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """See `RemoteFunction.body`."""
        known = self.known_dimensions.get(self.name)
        wanted = {"output_dimension": self.dimensions} if self.dimensions not in (None, known) else {}
        sent = {"model": self.name, "input": texts, "input_type": role, "truncation": self.truncation}
        return {**sent, "encoding_format": "base64", **wanted}

    answer = OpenAI.answer
