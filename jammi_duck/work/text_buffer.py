"""Texts that wait to be embedded together: enough to sort by length, few enough for a small and steady memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np

from jammi_duck.encoder import Encoder
from jammi_duck.encoder.dimensions import cut
from jammi_duck.types import Counts, Vectors

ROWS = 4096
CHARACTERS = 4_000_000


class Sink(Protocol):
    """Where the vectors go."""

    def write(self, row_ids: Sequence[str], vectors: Vectors, digests: Sequence[bytes]) -> None:
        """Append rows."""
        ...


@dataclass
class TextBuffer:
    """Gathers texts, each with the keys of the rows that have it, and embeds them into a sink."""

    encoder: Encoder
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

        encodings = self.encoder.encode_rows(texts, "document", tell)
        lengths = np.array([len(each) for each in keys], np.int64)
        done = np.flatnonzero(~encodings.failed)
        vectors = cut(encodings.vectors if len(done) == len(texts) else encodings.vectors[done], self.dimensions)
        written = write_repeated(self.sink, [keys[i] for i in done], vectors, [digest(texts[i]) for i in done])
        progress(len(texts) - told)
        truncated = int(lengths[encodings.truncated & ~encodings.failed].sum())
        return Counts(rows=written, failed=int(lengths[encodings.failed].sum()), truncated=truncated)


def write_repeated(sink: Sink, keys: Sequence[Sequence[str]], vectors: Vectors, digests: Sequence[bytes]) -> int:
    """Write vectors, each for all the rows that have it, by their keys; returns how many rows these are.

    Only so many rows at a time as fill a buffer, however many have one vector.
    """
    row_ids = list(chain.from_iterable(keys))
    if len(row_ids) == len(keys) <= ROWS:
        sink.write(row_ids, vectors, digests)
        return len(row_ids)
    of_row = np.repeat(np.arange(len(keys)), [len(each) for each in keys])
    for start in range(0, len(row_ids), ROWS):
        part = of_row[start : start + ROWS]
        sink.write(row_ids[start : start + ROWS], vectors[part], [digests[i] for i in part])
    return len(row_ids)


def digest(text: str) -> bytes:
    """The MD5 of a text as UTF-8, which SQL's md5() gives as well."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()
