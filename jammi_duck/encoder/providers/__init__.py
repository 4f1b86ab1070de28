"""The providers that come with this package, each in a module of its own, which is imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jammi_duck.encoder.functions import EmbeddingFunction


@dataclass(frozen=True)
class Provider:
    """Where a provider's class is, what it is called, and what its users need; None is nothing."""

    module: str
    class_name: str
    label: str
    needs: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it works, and does not only say what would serve."""
        return self.module != "missing"

    def load(self) -> type[EmbeddingFunction]:
        """The class."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        found: type[EmbeddingFunction] = getattr(module, self.class_name)
        return found

    def missing(self, cls: type[EmbeddingFunction], section: Mapping[str, Any]) -> str | None:
        """What is needed that is not there, as far as can be known without asking."""
        if self.needs == "jammi-duck[images]" and importlib.util.find_spec("PIL") is not None:
            return None
        if self.needs is None or not self.needs.endswith("_KEY"):
            return self.needs
        variables: tuple[str, ...] = getattr(cls, "key_variables", ())
        has_key = section.get("api_key") or any(os.environ.get(name) for name in variables)
        return None if has_key else f"{self.needs}, or api_key in [providers.{cls.id}]"


PROVIDERS = {
    "openai": Provider("openai", "OpenAI", "OpenAI, and any server that speaks its protocol", "OPENAI_API_KEY"),
    "cohere": Provider("cohere", "Cohere", "Cohere", "CO_API_KEY"),
    "voyageai": Provider("voyageai", "VoyageAI", "Voyage AI", "VOYAGE_API_KEY"),
    "gemini-text": Provider("gemini", "Gemini", "Google Gemini", "GEMINI_API_KEY"),
    "jina": Provider("jina", "Jina", "Jina AI", "JINA_API_KEY"),
    "ollama": Provider("ollama", "Ollama", "Ollama, on this machine or another", "a running Ollama"),
    "huggingface": Provider("local", "HuggingFace", "A model of the Hugging Face hub, in this process"),
    "sentence-transformers": Provider("local", "SentenceTransformers", "A model of the hub, in this process"),
    "static": Provider("static", "Static", "A look-up model: fast, without a transformer"),
    "open-clip": Provider("open_clip", "OpenClip", "Pictures and texts in one space", "jammi-duck[images]"),
}
# Names that others have: each says what would serve.
_MISSING = {
    "imagebind": "ImageBind",
    "siglip": "SigLip",
    "colpali": "ColPali",
    "bedrock-text": "Bedrock",
    "watsonx": "WatsonX",
    "instructor": "Instructor",
    "gte-text": "GteText",
}
PROVIDERS |= {id: Provider("missing", name, name) for id, name in _MISSING.items()}
