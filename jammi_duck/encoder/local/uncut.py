"""The tokens of texts that are longer than a model reads, counted by its own tokenizer."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from jammi_duck.encoder.token_counts import WHITE_SPACE, TokenCounts, estimated_ends
from jammi_duck.errors import EncodingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
# A tokenizer takes up to 200 bytes for each character that it sees at once.
_BLOCK = 1 << 16
_BLOCKS = 4


class UncutTokens(TokenCounts):
    """Counts with a tokenizer that cuts nothing. It is the caller's own, since how it cuts is its state."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        name: str,
        *,
        limit: int,
        prompt: str,
        adds_special_tokens: bool,
        is_local: bool,
        most_characters: int,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.most_characters = most_characters
        self._tokenizer, self._name, self._prompt = tokenizer, name, prompt
        self._adds_special_tokens = adds_special_tokens
        self.limit, self.is_plain = limit, not prompt
        self.separators = "".join(filter(self._separates, WHITE_SPACE)) if is_local else ""
        (self.fixed,) = self.embedded([""])

    def ends(self, text: str) -> NDArray[np.int32]:
        """See `TokenCounts.ends`. A long text is tokenized in blocks."""
        # No list of arrays, which would be in memory twice when they are put together.
        found = array("i")
        for blocks in _in_turn(_blocks(text)):
            texts = [text[start:end] for start, end in blocks]
            for (start, _), encoding, block in zip(blocks, self._encoded(texts), texts, strict=True):
                ends = estimated_ends(block) if encoding is None else _ends(encoding)
                found.frombytes((ends + np.int32(start)).tobytes())
        return np.frombuffer(found, np.int32) if found else np.empty(0, np.int32)

    def alone(self, texts: Sequence[str]) -> list[int]:
        """See `TokenCounts.alone`."""
        return self._counts(list(texts), special=False)

    def embedded(self, texts: Sequence[str]) -> list[int]:
        """See `TokenCounts.embedded`."""
        return self._counts([self._prompt + text for text in texts], special=self._adds_special_tokens)

    def _separates(self, space: str) -> bool:
        """Whether the tokenizer splits a text at a white space, and does not just leave it out."""
        tokenizer, text = self._tokenizer, f"a{space}b"
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return not any("a" in word and "b" in word for word, _ in words)

    def _counts(self, texts: list[str], *, special: bool) -> list[int]:
        def count(some: list[str]) -> list[int]:
            return [len(each) for each in self._tokenizer.encode_batch_fast(some, add_special_tokens=special)]

        made = self._made(texts, count)
        return [len(estimated_ends(text)) if each is None else each for text, each in zip(texts, made, strict=True)]

    def _encoded(self, texts: list[str]) -> list[Encoding | None]:
        return self._made(texts, lambda some: self._tokenizer.encode_batch(some, add_special_tokens=False))

    def _made(self, texts: list[str], make: Callable[[list[str]], list[T]]) -> list[T | None]:
        """What the tokenizer makes of each text; None where it cannot: some fail at a character they do not know."""
        try:
            return list(make(texts))
        except Exception:
            return [None] if len(texts) == 1 else [made for text in texts for made in self._made([text], make)]
        except BaseException as error:
            # tokenizers is written in Rust, and panics if a pattern takes too long; a panic is not an Exception.
            if type(error).__name__ != "PanicException":
                raise
            raise EncodingError(f"the tokenizer of '{self._name}' failed at a text: {error}") from error


def _ends(encoding: Encoding) -> NDArray[np.int32]:
    offsets = np.fromiter(chain.from_iterable(encoding.offsets), np.int32, 2 * len(encoding))
    # A normalizer may exchange two marks.
    return np.maximum.accumulate(offsets[1::2])


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text, cut at line breaks or spaces where there are any."""
    start = 0
    while start < len(text):
        end = start + _BLOCK
        if end < len(text):
            places = (text.rfind(mark, start + _BLOCK // 2, end) for mark in "\n ")
            end = next((place for place in places if place > 0), end)
        yield start, min(end, len(text))
        start = end


def _in_turn(blocks: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    waiting: list[tuple[int, int]] = []
    for block in blocks:
        waiting.append(block)
        if len(waiting) == _BLOCKS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
