"""LoadedEncoders without a model: quick, deterministic, and near for texts that share words."""

import hashlib
import re
from functools import lru_cache

import numpy as np

from jammi_duck.encoder import Encoder, Encoders, Encodings, Identity
from jammi_duck.encoder.listing import ModelRow
from jammi_duck.encoder.names import full_name
from jammi_duck.encoder.token_counts import TokenCounts
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


class WordTokens(TokenCounts):
    """Every word is a token."""

    limit, fixed = 8, 0
    is_plain = True

    def ends(self, text):
        return np.array([word.end() for word in re.finditer(r"\S+", text)], np.int32)

    def alone(self, texts):
        return [len(text.split()) for text in texts]

    def embedded(self, texts):
        return self.alone(texts)


class FakeEncoder(Encoder):
    token_counts = WordTokens()

    def __init__(self, name: str, dimensions: int = DIMENSIONS, weights: str = "0" * 64) -> None:
        self.identity = Identity(name, weights=weights, pooling="mean", max_tokens=8)
        self.dimensions = dimensions
        self.encoded: list[str] = []

    def encode_rows(self, texts, role, progress):
        progress(len(texts))
        self.encoded += texts
        failed = np.array(["unencodable" in text for text in texts], np.bool_)
        vectors = np.array([text_vector(text, self.dimensions) for text in texts], np.float32)
        vectors = vectors.reshape(len(texts), self.dimensions)
        vectors[failed] = 0
        truncated = np.array([len(text.split()) > 8 for text in texts], np.bool_)
        return Encodings(vectors, truncated, failed)


class FakeEncoders(Encoders):
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

    def available(self, default: str) -> list[ModelRow]:
        here = {"location": "/nowhere", "origin": "cache"}
        rows = [
            ModelRow(name, label=f"The {name}", dimensions=encoder.dimensions, max_tokens=8, **here)
            for name, encoder in self.loaded.items()
        ]
        return [*rows, ModelRow("fake/broken", error="it is broken", **here)]
