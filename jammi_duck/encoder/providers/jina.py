"""Jina AI. The form is that of https://api.jina.ai/docs: OpenAI's, with a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jammi_duck.encoder.providers.openai import OpenAI
from jammi_duck.encoder.providers.remote import RemoteFunction
from jammi_duck.types import Role

_TASKS: Mapping[Role, str] = {"document": "retrieval.passage", "query": "retrieval.query"}
# Models before these know no task.
_WITHOUT_TASK = ("jina-embeddings-v2", "jina-clip-v1")


class Jina(RemoteFunction):
    """Jina AI. Documents are sent for the task `retrieval.passage`, and queries for `retrieval.query`.

    Args:
        name: the model.
        task: the task for both instead, such as `text-matching`.

    Other arguments are those of `RemoteFunction`.
    """

    url: ClassVar[str] = "https://api.jina.ai/v1"
    key_variables: ClassVar[tuple[str, ...]] = ("JINA_API_KEY",)
    known_dimensions: ClassVar[Mapping[str, int]] = {
        "jina-embeddings-v4": 2048,
        "jina-embeddings-v3": 1024,
        "jina-embeddings-v2-base-en": 768,
        "jina-clip-v2": 1024,
        "jina-clip-v1": 768,
    }
    most_texts: ClassVar[int] = 128

    name: str = "jina-embeddings-v3"
    task: str | None = None

    def address(self) -> str:
        """See `RemoteFunction.address`."""
        return f"{self.endpoint}/embeddings"

    def body(self, texts: Sequence[str], role: Role) -> Mapping[str, Any]:
        """See `RemoteFunction.body`."""
        sent: dict[str, Any] = {"model": self.name, "input": texts, "embedding_type": "base64"}
        if not self.name.startswith(_WITHOUT_TASK):
            sent |= {"task": self.task or _TASKS[role], "truncate": True}
        if self.dimensions not in (None, self.known_dimensions.get(self.name)):
            sent["dimensions"] = self.dimensions
        return sent

    answer = OpenAI.answer
