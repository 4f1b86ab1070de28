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
from jammi_duck.storage.words.stop_words import stop_words
from jammi_duck.types import Analysis

NAME = "words-1"
ENGLISH = "english"
# No stop words and no stemming.
NONE = "none"

_LONG_TEXT = 1 << 20
# Longer terms are cut, in the index and in queries.
_LONGEST = 64
# What joins the parts of a compound, and what may end it, as in C++ and F#.
_JOINTS, _END = "[-\u2010\u2011.\u00b7@'\u2019+#/:&~]{1,3}", r"(?:\+\+|#)?"
# Joints that are written in several ways.
_SAME = {ord("\u2010"): "-", ord("\u2019"): "'"}
# Scripts that are written without spaces, or (Korean) with several words between them: Thai, Lao, Myanmar, Khmer,
# Chinese, Japanese, Korean.
_PAIRED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Patterns are compiled when they are needed, which a search by vectors does not.
_RUNS = f"[{_PAIRED}]+|[^{_PAIRED}]+"
_PAIR = f"[{_PAIRED}]"
_DIGITS_OR_LETTERS = r"\d+|\D+"
# Characters within words that say nothing: the soft hyphen, the line that stretches an Arabic word, joiners and spaces
# of no width, and what encloses a character or chooses between two shapes of it.
_SILENT = "\u00ad\u0640\u200b-\u200d\u2060\u20dd-\u20e4\ufe00-\ufe0f"
_SILENCE = f"[{_SILENT}]"
# Letters that no accent is taken off of, and how they are written without it.
_PLAIN = str.maketrans({"\u0131": "i", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe"})


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
        self._stop_words = frozenset(map(_folded, stop_words(language)))
        self._stem = _stemmer(language)
        self._remembered = functools.lru_cache(1 << 13)(self._found)

    @property
    def analysis(self) -> Analysis:
        """What is noted of it with an index."""
        return Analysis(NAME, self.language, "" if self.language == NONE else _stemmer_version())

    def token(self, token: str) -> Token:
        """The terms of one of the `tokens` of a text."""
        return self._remembered(token) if len(token) <= _LONGEST else self._found(token)

    def _found(self, token: str) -> Token:
        token = _folded(token)
        parts = _parts(token)
        terms: dict[Term, None] = {}
        words = 0
        for piece in (run for part in parts for run in re.findall(_RUNS, part)):
            if is_paired(piece):
                found = [Term(pair, place, True) for place, pair in enumerate(_pairs(piece), start=words)]
                words += len(found)
            else:
                found = [Term(text, words, not i) for i, text in enumerate(self._terms(piece))]
                words += 1
            terms |= dict.fromkeys(found)
        whole = _whole(token, parts)
        if whole is not None:
            terms[Term(whole, 0, False)] = None
        return Token(tuple(terms), words)

    def _terms(self, word: str) -> list[str]:
        """A word's own term, and others by which it is found, none for a stop word."""
        if word in self._stop_words:
            return []
        plain = _unaccented(word)
        parts = re.findall(_DIGITS_OR_LETTERS, plain)
        found = [self._stem(plain), _unaccented(self._stem(word)), *(map(self._stem, parts) if len(parts) > 1 else ())]
        return list(dict.fromkeys(text[:_LONGEST] for text in found))


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


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the `tokens` of a text begin and end."""
    return (found.span() for found in _pattern(text.isascii()).finditer(text))


def word_spans(token: str, words: int) -> list[tuple[int, int]]:
    """Where the words of a token begin and end, as many as its `Token` has.

    Where a character stands for several words, or several for one, each word's span is that of the token.
    """
    found = [
        (part.start() + run.start() + i, part.start() + run.start() + i + len(word))
        for part in _part_pattern(token.isascii()).finditer(token)
        for run in re.finditer(_RUNS, part.group())
        for i, word in enumerate(_pairs(run.group()) if is_paired(run.group()) else [run.group()])
    ]
    return found if len(found) == words else [(0, len(token))] * words


def beginning(token: str) -> str:
    """The last word of a token as what words begin with: folded, without accents, not stemmed. Empty if it has none."""
    parts = _parts(_unaccented(_folded(token)))
    return re.findall(_RUNS, parts[-1])[-1][:_LONGEST] if parts else ""


def whole(token: str) -> str | None:
    """The term by which a compound is found as a whole; None for a word, and for what is too long."""
    folded = _folded(token)
    return _whole(folded, _parts(folded))


def languages() -> list[str]:
    """The languages that there are, and 'none'."""
    import Stemmer

    return [*Stemmer.algorithms(), NONE]


def is_paired(term: str) -> bool:
    """Whether a term is Chinese, Japanese, Korean or Thai, say, where the index has pairs of characters."""
    return re.match(_PAIR, term) is not None


def _stemmer(language: str) -> Callable[[str], str]:
    if language == NONE:
        return str
    # Imported late, because a search by vectors does not need it.
    import Stemmer

    known = Stemmer.algorithms()
    if language not in known:
        near = did_you_mean(language, [*known, NONE])
        raise InputError(f"no language '{language}'{near or ';'} languages: {enumerated([*known, NONE])}")
    # Without a cache of its own: who analyses many texts keeps the terms of each token.
    stem: Callable[[str], str] = Stemmer.Stemmer(language, 0).stemWord
    return stem


def _stemmer_version() -> str:
    import Stemmer

    return f"PyStemmer {Stemmer.version()}"


def _folded(token: str) -> str:
    if token.isascii():
        return token.lower()
    # To order many marks of one letter would take time with the square of their number.
    token = _many_marks().sub(r"\1", token)
    # To fold the case can take a composed letter apart.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", token).casefold())
    return re.sub(_SILENCE, "", folded.translate(_SAME))


def _whole(token: str, parts: list[str]) -> str | None:
    """What `whole` gives, for a token that is folded, and its parts. Only an apostrophe makes no compound."""
    if not parts or len(token) > _LONGEST or parts == [token]:
        return None
    return _unaccented(token) if _part_pattern(token.isascii()).sub("", token).strip("'") else None


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
    return unicodedata.normalize("NFC", "".join(letters)).translate(_PLAIN)


@functools.cache
def _pattern(is_ascii: bool) -> re.Pattern[str]:
    """Finds tokens. A mark without a letter before it is none."""
    word = r"[A-Za-z0-9_]+" if is_ascii else rf"\w[\w{_marks()}{_SILENT}]*"
    return re.compile(f"{word}(?:{_JOINTS}{word})*{_END}")


def _parts(token: str) -> list[str]:
    found: list[str] = _part_pattern(token.isascii()).findall(token)
    return found


@functools.cache
def _part_pattern(is_ascii: bool) -> re.Pattern[str]:
    """Finds the parts of a token that are joined by neither a joint nor an underscore."""
    return re.compile("[A-Za-z0-9]+" if is_ascii else rf"[^\W_](?:[^\W_]+|[{_marks()}]+)*")


@functools.cache
def _many_marks() -> re.Pattern[str]:
    """More marks of one letter than any writing has."""
    return re.compile(rf"([{_marks()}]{{30}})[{_marks()}]+")


@functools.cache
def _marks() -> str:
    """The characters that belong to the letter before, as a part of a character class."""
    codes = {code for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"}
    first = sorted(code for code in codes if code - 1 not in codes)
    last = sorted(code for code in codes if code + 1 not in codes)
    return "".join(f"\\u{a:04x}-\\u{b:04x}" for a, b in zip(first, last, strict=True))
