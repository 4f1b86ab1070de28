"""Where a text may be cut: not between a letter and its accents, nor within a flag, a family, or a Korean syllable.

The rules are those of Unicode's grapheme clusters (UAX 29); some places are left whole where those would cut.
"""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
# What belongs to the character before without being a mark: joiners, Thai and Lao vowels, the voice of Japanese letters
# of half width, colours of skin, tags of flags, and the later letters of a Korean syllable.
_LATER = (
    ("\u200c", _JOINER), ("\u0e33", "\u0e33"), ("\u0eb3", "\u0eb3"), ("\uff9e", "\uff9f"), ("\U0001f3fb", "\U0001f3ff"),
    ("\U000e0020", "\U000e007f"), ("\u1160", "\u11ff"), ("\ud7b0", "\ud7ff"),
)  # fmt: skip
_FLAG_LETTERS = ("\U0001f1e6", "\U0001f1ff")
# The first letters of a Korean syllable, and the Arabic signs before a number.
_EARLIER = (
    ("\u1100", "\u115f"),
    ("\ua960", "\ua97c"),
    ("\u0600", "\u0605"),
    ("\u06dd", "\u06dd"),
    ("\u0890", "\u0891"),
)
_VIRAMA = 9


def start_of_character(text: str, place: int) -> int:
    """The last place up to this one where a character begins."""
    while not _is_between(text, place):
        place -= 1
    return place


def end_of_character(text: str, place: int) -> int:
    """The first place from this one on where a character ends."""
    while not _is_between(text, place):
        place += 1
    return place


def is_punctuation(character: str) -> bool:
    """Whether a character is a mark of punctuation."""
    return unicodedata.category(character)[0] == "P"


def _is_between(text: str, place: int) -> bool:
    """Whether a text may be cut here."""
    if not 0 < place < len(text):
        return True
    before, after = text[place - 1], text[place]
    if before < "\u0300" and after < "\u0300":
        return before + after != "\r\n"
    belongs = unicodedata.category(after)[0] == "M" or _is_in(after, _LATER)
    is_open = before == _JOINER or _is_in(before, _EARLIER) or unicodedata.combining(before) == _VIRAMA
    is_flag = _is_in(before, (_FLAG_LETTERS,)) and _is_in(after, (_FLAG_LETTERS,))
    return not (belongs or is_open or is_flag)


def _is_in(character: str, ranges: tuple[tuple[str, str], ...]) -> bool:
    return any(first <= character <= last for first, last in ranges)
