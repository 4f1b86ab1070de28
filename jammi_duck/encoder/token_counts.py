"""How many tokens a text has for a model, and where they end, however long the text is.

`Encoder.token_counts` gives a `TokenCounts`. Models without a tokenizer on this machine have `EstimatedTokens`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A word has a token for each so many bytes of its UTF-8. Most models' own tokens of most languages are longer.
_BYTES = 4
# So many characters are looked at together: each takes some 40 bytes.
_BLOCK = 1 << 18


_SPACE = np.array([chr(point).isspace() for point in range(0x3002)], np.bool_)
WHITE_SPACE = "".join(map(chr, np.flatnonzero(_SPACE).tolist()))


class TokenCounts(Protocol):
    """Counts the tokens of texts that are not cut. Threads may share it.

    `limit` is how many tokens the model reads, 0 where that is not known; `fixed` of them are the document's prompt and
    special tokens. `most_characters` is how many characters it reads, 0 if any number. What stands beyond one of the
    `separators` changes no token. `is_plain` says that nothing stands before a document but special tokens.
    """

    limit: int
    fixed: int
    most_characters: int = 0
    separators: str = WHITE_SPACE
    is_plain: bool

    @abstractmethod
    def ends(self, text: str) -> NDArray[np.int32]:
        """Where each token of a text ends, in code points, ascending; without the prompt and special tokens.

        Raises:
            EncodingError: the tokenizer fails.
        """
        ...

    @abstractmethod
    def alone(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without the prompt and special tokens. Raises as `ends` does."""
        ...

    @abstractmethod
    def embedded(self, texts: Sequence[str]) -> list[int]:
        """How many tokens the model has to read for each text, all of them counted. Raises as `ends` does."""
        ...


class EstimatedTokens(TokenCounts):
    """Counts by a rule, for models whose tokenizer is elsewhere: a word has a token for each four bytes of its UTF-8.

    That is more than most models make of most texts.
    """

    fixed = 0
    is_plain = True

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def ends(self, text: str) -> NDArray[np.int32]:
        """See `TokenCounts.ends`. No token is part of a character."""
        parts = [_ends(text[start : start + _BLOCK]) + np.int32(start) for start in range(0, len(text), _BLOCK)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def alone(self, texts: Sequence[str]) -> list[int]:
        """See `TokenCounts.alone`."""
        return [len(self.ends(text)) for text in texts]

    def embedded(self, texts: Sequence[str]) -> list[int]:
        """See `TokenCounts.embedded`."""
        return self.alone(texts)


def estimated_ends(text: str) -> NDArray[np.int32]:
    """Where tokens end by the rule of `EstimatedTokens`."""
    return EstimatedTokens(0).ends(text)


def _ends(text: str) -> NDArray[np.int32]:
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    is_space = _SPACE[np.minimum(points, len(_SPACE) - 1)]
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    after = np.cumsum(sizes)
    is_start = ~is_space & np.concatenate(([True], is_space[:-1]))
    # Of each word, what stands before it in the text: carried on from its start.
    origin = np.maximum.accumulate(np.where(is_start, after - sizes, 0))
    token = (after - 1 - origin) // _BYTES
    is_last = np.concatenate((token[1:] != token[:-1], [True])) | np.concatenate((is_space[1:], [True]))
    return (np.flatnonzero(is_last & ~is_space) + 1).astype(np.int32)
