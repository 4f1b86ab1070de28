"""Splits texts into requests: no more texts, and no more tokens, than a provider takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# English has some four characters a token; other languages and code have fewer.
_BYTES_PER_TOKEN = 3


def tokens_of(text: str) -> int:
    """About how many tokens a text has: rather too many."""
    return len(text.encode()) // _BYTES_PER_TOKEN + 1


def most_tokens_of(text: str) -> int:
    """A number of tokens that a text never exceeds: a token is at least a byte, and there are a few special ones."""
    return len(text.encode()) + 8


def batches(texts: Sequence[str], most_texts: int, most_tokens: int) -> Iterator[range]:
    """The places of the texts of each request, in order; a text that is too long alone is alone."""
    start = tokens = 0
    for place, text in enumerate(texts):
        mine = tokens_of(text)
        if place > start and (place - start >= most_texts or tokens + mine > most_tokens):
            yield range(start, place)
            start, tokens = place, 0
        tokens += mine
    if start < len(texts):
        yield range(start, len(texts))
