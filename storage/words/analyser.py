"""Splits texts into words, and makes each word the terms by which it is found.

A word is lower-cased, loses its accents, and is stemmed. What stands together without a space, such as `E-1047` or
`foo_bar`, is a compound: it is found as a whole and by its parts.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.storage.words.stop_words import STOP_WORDS
from jammi_duck.types import Analysis

NAME = "words-1"
ENGLISH = "english"
# No stop words and no stemming.
NONE = "none"

_LONG_TEXT = 1 << 20
# Longer terms are cut, in the index and in queries.
_LONGEST = 64
# What joins the parts of a compound, and what may end it, as in C++ and F#.
_JOINTS, _END = "[-.@'\u2019+#/:&~]{1,3}", r"(?:\+\+|#)?"
# Scripts that are written without spaces, or (Korean) with several words between them: Thai, Lao, Myanmar, Khmer,
# Chinese, Japanese, Korean.
_PAIRED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(f"[{_PAIRED}]+|[^{_PAIRED}]+")
_is_paired = re.compile(f"[{_PAIRED}]").match
_DIGITS_OR_LETTERS = re.compile(r"\d+|\D+")
_NO_LETTERS = re.compile(r"[\W_]")
# Characters within words that say nothing: the soft hyphen, and the joiners and spaces of no width.
_SILENT = "\u00ad\u200b-\u200d"
_SILENCE = re.compile(f"[{_SILENT}]")


class Term(NamedTuple):
    """A term of a token: its text, its position from the token's first word on, and whether it is a word's own.

    Each word has one term of its own, unless it is a stop word. The other terms find a compound as a whole, a word by
    its letters and digits, and a word with accents where they count for the stem.
    """

    text: str
    position: int
    is_own: bool


class Token(NamedTuple):
    """The terms of a token, and how many words it has, with its stop words."""

    terms: tuple[Term, ...]
    words: int


class Analyser:
    """Finds the terms of texts in one language. Threads may share it."""

    def __init__(self, language: str) -> None:
        """Raises InputError for a language without a stemmer."""
        self.language = language
        self._stop_words = STOP_WORDS.get(language, frozenset())
        self._stem = _stemmer(language)

    @property
    def analysis(self) -> Analysis:
        """What is noted of it with an index."""
        return Analysis(NAME, self.language, "" if self.language == NONE else _stemmer_version())

    def token(self, token: str) -> Token:
        """The terms of one of the `tokens` of a text."""
        token = _SILENCE.sub("", unicodedata.normalize("NFKC", token).casefold())
        terms: dict[Term, None] = {}
        words = 0
        for piece in (run for part in _parts(token)(token) for run in _RUNS.findall(part)):
            pairs = _pairs(piece) if _is_paired(piece) else [piece]
            for place, word in enumerate(pairs, start=words):
                terms |= dict.fromkeys(Term(text[:_LONGEST], place, not i) for i, text in enumerate(self._terms(word)))
            words += len(pairs)
        is_compound = not set(_NO_LETTERS.findall(token)) <= set("'\u2019")
        if words and is_compound and len(token) <= _LONGEST:
            terms[Term(_unaccented(token), 0, False)] = None
        return Token(tuple(terms), words)

    def _terms(self, word: str) -> list[str]:
        """A word's own term, and others by which it is found, none for a stop word."""
        if word in self._stop_words:
            return []
        plain = _unaccented(word)
        parts = _DIGITS_OR_LETTERS.findall(plain)
        found = [self._stem(plain), _unaccented(self._stem(word)), *(map(self._stem, parts) if len(parts) > 1 else ())]
        return list(dict.fromkeys(found))


@functools.cache
def analyser(language: str) -> Analyser:
    """The analyser for a language: one of `languages`. Raises InputError."""
    return Analyser(language)


def tokens(text: str) -> list[str]:
    """The words and compounds of a text, as they stand there."""
    found: list[str] = _pattern(text.isascii()).findall(text)
    return found


def tokens_in(text: str) -> Iterator[str]:
    """The same, one after another, without a list of those of a long text."""
    if len(text) < _LONG_TEXT:
        return iter(tokens(text))
    return (found[0] for found in _pattern(text.isascii()).finditer(text))


def spans(text: str) -> list[tuple[int, int]]:
    """Where the `tokens` of a text begin and end."""
    return [found.span() for found in _pattern(text.isascii()).finditer(text)]


def languages() -> list[str]:
    """The languages that there are, and 'none'."""
    import Stemmer

    return [*Stemmer.algorithms(), NONE]


def _stemmer(language: str) -> Callable[[str], str]:
    if language == NONE:
        return str
    # Imported late, because a search by vectors does not need it.
    import Stemmer

    known = Stemmer.algorithms()
    if language not in known:
        near = did_you_mean(language, [*known, NONE])
        raise InputError(f"no language '{language}'{near}; there are {enumerated([*known, NONE])}")
    # Without a cache of its own: who analyses many texts keeps the terms of each token.
    stem: Callable[[str], str] = Stemmer.Stemmer(language, 0).stemWord
    return stem


def _stemmer_version() -> str:
    import Stemmer

    return f"PyStemmer {Stemmer.version()}"


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(max(1, len(run) - 1))]


def _unaccented(word: str) -> str:
    """A word without the accents of Latin and Greek letters; in other scripts, marks make other letters."""
    if word.isascii():
        return word
    letters, is_folded = [], False
    for letter in unicodedata.normalize("NFD", word):
        is_mark = "\u0300" <= letter <= "\u036f"
        if not is_mark:
            is_folded = "a" <= letter <= "z" or "\u0370" <= letter <= "\u03ff"
        if not (is_mark and is_folded):
            letters.append(letter)
    return unicodedata.normalize("NFC", "".join(letters))


@functools.cache
def _pattern(is_ascii: bool) -> re.Pattern[str]:
    """Finds tokens."""
    word = "[A-Za-z0-9_]" if is_ascii else rf"[\w{_marks()}{_SILENT}]"
    return re.compile(f"{word}+(?:{_JOINTS}{word}+)*{_END}")


def _parts(token: str) -> Callable[[str], list[str]]:
    return _part_pattern(token.isascii()).findall


@functools.cache
def _part_pattern(is_ascii: bool) -> re.Pattern[str]:
    """Finds the parts of a token that are joined by neither a joint nor an underscore."""
    return re.compile("[A-Za-z0-9]+" if is_ascii else rf"(?:[^\W_]|[{_marks()}])+")


@functools.cache
def _marks() -> str:
    """The characters that belong to the letter before, as a part of a character class."""
    codes = [code for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"]
    first = [code for code in codes if code - 1 not in set(codes)]
    last = [code for code in codes if code + 1 not in set(codes)]
    return "".join(f"\\u{a:04x}-\\u{b:04x}" for a, b in zip(first, last, strict=True))
