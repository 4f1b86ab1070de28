"""The rule by which texts are cut: what the user says, and what holds otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jammi_duck.errors import InputError, did_you_mean
from jammi_duck.types import PassageRule

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder

# The algorithm. Another name says that the same rule cuts elsewhere.
CUTTER = "jammi 1"
DEFAULT_TOKENS = 128
DEFAULT_OVERLAP = 0
DEFAULT_BY = "paragraph"
BORDERS = ("paragraph", "sentence", "word")
_LEAST_TOKENS, _MOST_TOKENS = 16, 1_000_000


def resolve_rule(
    encoder: Encoder, tokens: int | None, overlap: int | None, by: str | None, title: tuple[str, ...] = ()
) -> PassageRule:
    """A rule with what the user has given, and what the model reads where it was not.

    Raises:
        InputError: an option does not fit the model, or the others.
    """
    counts = encoder.token_counts
    reads = counts.limit - counts.fixed if counts.limit else None
    most = DEFAULT_TOKENS if reads is None else min(DEFAULT_TOKENS, reads)
    tokens = _checked_tokens(encoder, most, reads) if tokens is None else _checked_tokens(encoder, tokens, reads)
    overlap = DEFAULT_OVERLAP if overlap is None else overlap
    if not 0 <= overlap <= tokens // 2:
        raise InputError(
            f"overlap is {overlap}; it must be from 0 to {tokens // 2}, which is half of tokens ({tokens}): what a "
            "passage repeats of the one before"
        )
    by = DEFAULT_BY if by is None else by
    if by not in BORDERS:
        raise InputError(f"by is '{by}'{did_you_mean(by, BORDERS) or ';'} it must be 'paragraph', 'sentence' or 'word'")
    return PassageRule(CUTTER, tokens, overlap, by, title)


def _checked_tokens(encoder: Encoder, tokens: int, reads: int | None) -> int:
    least = _LEAST_TOKENS if reads is None else min(_LEAST_TOKENS, reads)
    name, counts = encoder.identity.name, encoder.token_counts
    if reads is not None and tokens > reads:
        fixed = f", {counts.fixed} of which are its prompt and special tokens" if counts.fixed else ""
        raise InputError(
            f"tokens is {tokens}, and '{name}' reads {counts.limit} tokens{fixed}: it must be from {least} to {reads}"
        )
    most = _MOST_TOKENS if reads is None else reads
    if not least <= tokens <= most:
        raise InputError(f"tokens is {tokens}; it must be from {least} to {most:,}")
    return tokens
