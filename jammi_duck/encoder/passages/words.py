"""Where a text may be cut if a sentence is too long: between words, and within a word between characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import regex

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What belongs to the character before it, wherever that is.
JOINED = r"[\p{Grapheme_Cluster_Break=Extend}\p{Grapheme_Cluster_Break=SpacingMark}\p{Grapheme_Cluster_Break=ZWJ}]"
# Chinese and Japanese have no spaces between words. What opens a bracket stays with what is in it, and small letters
# and signs of repetition with the letter before them.
_SMALL = "々〆ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰ-ㇿゝゞヽヾ"
_WITHOUT_SPACES = rf"[[\p{{Script=Han}}\p{{Script=Hiragana}}\p{{Script=Katakana}}]--[{_SMALL}]]"
_WORD = regex.compile(
    rf"""
      \s++ (?= \S ) (?! {JOINED} )
    | (?<= [^\s\p{{Ps}}\p{{Pi}}\p{{Grapheme_Cluster_Break=Prepend}}] ) (?= {_WITHOUT_SPACES} ) (?! {JOINED} )
    """,
    regex.VERBOSE | regex.V1,
)
_ASCII_WORD = re.compile(r"\s++(?=\S)")
_SPACED_MARK = regex.compile(rf"\s(?={JOINED})", regex.V1)
_CHARACTER = regex.compile(r"\X")


def word_starts(text: str, start: int, end: int) -> NDArray[np.int32]:
    """Where words begin between two places of a text, ascending, but for one that begins at the first place."""
    pattern = _ASCII_WORD if text.isascii() else _WORD
    found = np.fromiter((match.end() for match in pattern.finditer(text, start, end)), np.int32)
    return found[(found > start) & (found < end)]


def next_word(text: str, start: int, end: int) -> int | None:
    """The first place from `start` on where a word begins, if there is one before `end`."""
    pattern = _ASCII_WORD if text.isascii() else _WORD
    match = pattern.search(text, start, end)
    return match.end() if match and match.end() < end else None


def spaced_marks(text: str) -> NDArray[np.int32]:
    """Where a mark stands on a white space, which is one character with it: no place for a border."""
    if text.isascii():
        return np.empty(0, np.int32)
    return np.fromiter((match.end() for match in _SPACED_MARK.finditer(text)), np.int32)


def character_starts(text: str, start: int, end: int) -> NDArray[np.int32]:
    """Where what a reader takes for one character begins, between two places, but for the first."""
    if text.isascii():
        return np.arange(start + 1, end, dtype=np.int32)
    return np.fromiter((match.start() for match in _CHARACTER.finditer(text, start, end)), np.int32)[1:]
