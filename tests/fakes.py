"""LoadedEncoders without a model: quick, deterministic, and near for texts that share words."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from jammi_duck.encoder import Encodings, TokenBudget
from jammi_duck.encoder.card import Card
from jammi_duck.encoder.description import ModelDescription
from jammi_duck.encoder.listing import Listed
from jammi_duck.encoder.names import Found, full_name
from jammi_duck.errors import NoModelError

DIMENSIONS = 64


def word_vector(word: str, dimensions: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.md5(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)


@lru_cache(maxsize=50_000)
def text_vector(text: str, dimensions: int = DIMENSIONS) -> np.ndarray:
    total = sum((word_vector(word, dimensions) for word in text.lower().split()), np.zeros(dimensions, np.float32))
    vector = (total / max(float(np.linalg.norm(total)), 1e-9)).astype(np.float32)
    vector.setflags(write=False)
    return vector


class FakeEncoder:
    def __init__(self, name: str, dimensions: int = DIMENSIONS, weights: str = "0" * 64) -> None:
        self.description = ModelDescription(
            name=name,
            revision=None,
            path=Path("/nowhere"),
            dimensions=dimensions,
            max_tokens=8,
            pooling="mean",
            lower_case=True,
            document_prompt="",
            query_prompt="",
            weights=weights,
            family="fake",
        )
        self.encoded: list[str] = []

    def budget(self) -> TokenBudget:
        return TokenBudget(256)

    def encode(self, texts, role="document"):
        return self.encode_rows(texts, role, self.budget(), lambda _: None).vectors

    def encode_rows(self, texts, role, budget, progress):
        progress(len(texts))
        self.encoded += texts
        failed = np.array(["unencodable" in text for text in texts], np.bool_)
        vectors = np.array([text_vector(text, self.description.dimensions) for text in texts], np.float32)
        vectors = vectors.reshape(len(texts), self.description.dimensions)
        vectors[failed] = 0
        truncated = np.array([len(text.split()) > 8 for text in texts], np.bool_)
        return Encodings(vectors, truncated, failed)


class FakeEncoders:
    """Knows the models `fake/small` and `fake/other`, and the default model under its name."""

    def __init__(self) -> None:
        self.loaded = {
            "fake/small": FakeEncoder("fake/small"),
            "fake/other": FakeEncoder("fake/other", 8),
        }

    def get(self, name: str) -> FakeEncoder:
        if name not in self.loaded:
            raise NoModelError(f"no model '{name}'")
        return self.loaded[name]

    def names(self, name: str) -> set[str]:
        return {name, full_name(name), f"fake/{name}"}

    def available(self, default: str) -> list[Listed]:
        listed = []
        for name, encoder in self.loaded.items():
            found = Found(name, None, encoder.description.path, "cache")
            card = Card(f"The {name}", "For tests.", "apache-2.0", f"https://huggingface.co/{name}")
            listed.append(Listed(found, card, encoder.description))
        broken = Found("fake/broken", None, Path("/nowhere"), "cache")
        return [*listed, Listed(broken, Card("Broken", None, None, ""), None, "it is broken")]
