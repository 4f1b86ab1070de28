"""Texts that wait to be embedded together: enough to sort by length, few enough for a small and steady memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np

from jammi_duck.encoder import Encoder, TokenBudget
from jammi_duck.encoder.dimensions import cut
from jammi_duck.types import Counts, Vectors

ROWS = 4096
CHARACTERS = 16_000_000


class Sink(Protocol):
    """Where the vectors go."""

    def write(self, row_ids: Sequence[str], vectors: Vectors, digests: Sequence[bytes]) -> None:
        """Append rows."""
        ...


@dataclass
class Window:
    """Gathers texts, each with the keys of the rows that have it, and embeds them into a sink."""

    encoder: Encoder
    budget: TokenBudget
    dimensions: int
    sink: Sink
    _keys: list[Sequence[str]] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _characters: int = 0

    def add(self, keys: Sequence[str], text: str) -> None:
        """Let one more text wait."""
        self._keys.append(keys)
        self._texts.append(text)
        self._characters += len(text)

    @property
    def is_full(self) -> bool:
        """Whether it is time to embed."""
        return len(self._texts) >= ROWS or self._characters >= CHARACTERS

    def embed(self, progress: Callable[[int], None]) -> Counts:
        """Embed and write what waits; says what became of the rows. `progress` is told how many texts were done."""
        keys, texts = self._keys, self._texts
        self._keys, self._texts, self._characters = [], [], 0
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            told += done
            progress(done)

        encodings = self.encoder.encode_rows(texts, "document", self.budget, tell)
        lengths = np.array([len(each) for each in keys], np.int64)
        kept = np.repeat(np.flatnonzero(~encodings.failed), lengths[~encodings.failed])
        digests = [digest(text) for text in texts]
        same = len(kept) == len(texts) and (lengths == 1).all()
        vectors = cut(encodings.vectors if same else encodings.vectors[kept], self.dimensions)
        row_ids = list(
            chain.from_iterable(each for each, failed in zip(keys, encodings.failed, strict=True) if not failed)
        )
        self.sink.write(row_ids, vectors, [digests[i] for i in kept])
        progress(len(texts) - told)
        truncated = int(lengths[encodings.truncated & ~encodings.failed].sum())
        return Counts(rows=len(kept), failed=int(lengths[encodings.failed].sum()), truncated=truncated)


def digest(text: str) -> bytes:
    """The MD5 of a text as UTF-8, which SQL's md5() gives as well."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()
