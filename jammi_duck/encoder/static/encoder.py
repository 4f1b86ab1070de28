"""The encoder of a look-up model: the mean of the vectors of a text's tokens, scaled to length 1."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encodings
from jammi_duck.encoder.static.description import StaticDescription
from jammi_duck.encoder.static.table import Table
from jammi_duck.encoder.static.tokens import LookUpTokenizer
from jammi_duck.types import Role

if TYPE_CHECKING:
    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.encoder.local.engine import Tokens
    from jammi_duck.encoder.token_counts import TokenCounts

_CHUNK_TEXTS = 1024
_CHUNK_CHARACTERS = 4_000_000
_NO_WORD = "the model has no vector for any of its words"
_NO_DIRECTION = "the vectors of its words add up to zeros, which have no direction"


class StaticEncoder(Encoder):
    """Looks up the vectors of a text's tokens, and scales their mean to length 1. Threads may share it.

    A text fails if none of its tokens has a vector, or if their vectors add up to zeros: it has no direction then.
    """

    def __init__(self, description: StaticDescription) -> None:
        """Map the table, and read the tokenizer.

        Raises:
            ModelError: they cannot be read, or do not fit each other.
        """
        self.description: ModelDescription = description
        self.identity = description.identity
        self.dimensions = description.dimensions
        self._table = Table(description.table, description.tensor, description.dimensions, description.name)
        self._tokenizer = LookUpTokenizer(description)
        self._tokenizer.check_fits(self._table.tokens)

    @functools.cached_property
    def token_counts(self) -> TokenCounts:
        """See `Encoder.token_counts`."""
        return self._tokenizer.counts(self.description.prompt("document"))

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`."""
        prompt = self.description.prompt(role)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        truncated = np.zeros(len(texts), np.bool_)
        reasons: dict[int, str] = {}
        for chunk in _chunks(texts):
            found, truncated[chunk] = self._tokenizer.looked_up([prompt + text for text in texts[chunk]])
            # A sum has the direction of a mean.
            sums = self._table.sums([() if isinstance(each, str) else each for each in found])
            lengths = np.linalg.norm(sums, axis=1)
            has_direction = lengths > 0
            vectors[chunk][has_direction] = sums[has_direction] / lengths[has_direction, None]
            for place in np.flatnonzero(~has_direction).tolist():
                reasons[chunk.start + place] = _reason(found[place])
            progress(len(found))
        for place, reason in list(reasons.items())[:1]:
            log.warning(
                "%d texts could not be embedded, the first is '%s': %s", len(reasons), texts[place][:40], reason
            )
        failed = np.zeros(len(texts), np.bool_)
        failed[list(reasons)] = True
        return Encodings(vectors, truncated, failed, reasons)


def _reason(found: Tokens | str) -> str:
    """Why a text with these tokens has no vector."""
    if isinstance(found, str):
        return found
    return _NO_DIRECTION if found else _NO_WORD


def _chunks(texts: Sequence[str]) -> Iterator[slice]:
    """Texts that are tokenized together: a token takes a hundred bytes until its vector is looked up."""
    first, characters = 0, 0
    for place, text in enumerate(texts):
        characters += len(text)
        if place - first == _CHUNK_TEXTS or (characters > _CHUNK_CHARACTERS and place > first):
            yield slice(first, place)
            first, characters = place, len(text)
    if texts:
        yield slice(first, len(texts))
