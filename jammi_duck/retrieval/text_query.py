"""The query language: a text that asks for words becomes clauses, which rows may match, must match, or must not.

Any of the words is asked for. `"two words"` is a phrase, `+word` must be there, `-word` must not, and `begin*` is every
word that begins so. What cannot be read as one of these is taken for plain words, so that no text is an error.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jammi_duck.storage.words.analyser import Analyser, beginning, is_paired, spans, tokens, whole
from jammi_duck.storage.words.bm25 import Clause

# What is read of a text.
_MOST_CHARACTERS = 100_000
# In the score, beside a word's own term, the others by which it is found.
_OTHER = 0.5
# A phrase, with a sign that stands before it. A quote after a letter or a digit is none, as in 5".
_PHRASE = r'(?:(?<!\S)(?P<sign>[-+]))?(?<!\w)["\u201c\u201e](?P<words>[^"\u201c-\u201e]*)["\u201c\u201d]'
_STAR = r"\*(?![*\w])"
# Of European languages, without accents: how words go on, where a stemmer cuts more than what was written of a word.
_ENDINGS = (
    "s es e en er ed ers ing ings ion ions ation ations ment ments ly ness ity al able ive ies est ism ist ung ungen "
    "lich isch keit te ten et ar ir o a os as ado ada idad mente cion ando iendo ita zione are ere ire ato i eur ement "
    "ique ite"
)


@dataclass(frozen=True)
class TextQuery:
    """Clauses with their weights in the score, those that a row must match, and those that it must not.

    `plain` is the text without operators, for the model that embeds the query: what is excluded is left out of it.
    """

    scored: tuple[tuple[Clause, float], ...]
    must: tuple[Clause, ...]
    without: tuple[Clause, ...]
    plain: str


def parse(text: str, analyser: Analyser) -> TextQuery:
    """What a text asks for, in the terms of an analyser.

    Of a very long text, the beginning is read. If nothing but exclusions and stop words is left, the whole text is
    taken for plain words.
    """
    read = text[:_MOST_CHARACTERS]
    operands = list(_operands(read))
    scored = _scored((each for each in operands if each.sign != "-"), analyser)
    if not scored:
        words = (_Operand(token, "", (0, 0), (0, 0)) for token in tokens(read))
        return TextQuery(_scored(words, analyser), (), (), text)
    must, without = ([_condition(each, analyser) for each in operands if each.sign == sign] for sign in "+-")
    plain = _plain(read, operands) if read == text else text
    return TextQuery(scored, _distinct(must), _distinct(without), plain)


@dataclass(frozen=True)
class _Operand:
    """A word, a compound, a prefix or a phrase, its sign, and where it stands with its operators and without them."""

    text: str
    sign: str
    outer: tuple[int, int]
    inner: tuple[int, int]
    is_phrase: bool = False
    is_prefix: bool = False


def _operands(text: str) -> Iterator[_Operand]:
    start = 0
    for phrase in re.finditer(_PHRASE, text):
        yield from _words(text, start, phrase.start())
        yield _Operand(phrase["words"], phrase["sign"] or "", phrase.span(), phrase.span("words"), is_phrase=True)
        start = phrase.end()
    yield from _words(text, start, len(text))


def _words(text: str, start: int, end: int) -> Iterator[_Operand]:
    """The operands between two phrases."""
    for first, last in spans(text[start:end]):
        inner = start + first, start + last
        token = text[slice(*inner)]
        before = text[max(0, inner[0] - 2) : inner[0]]
        is_signed = before[-1:] in ("+", "-") and not before[:-1].strip()
        star = re.compile(_STAR).match(text, inner[1])
        outer = inner[0] - is_signed, star.end() if star else inner[1]
        sign = before[-1] if is_signed else ""
        begun = beginning(token) if star else ""
        yield _Operand(token, sign, outer, inner, is_prefix=begun != "" and not is_paired(begun))


def _scored(operands: Iterator[_Operand], analyser: Analyser) -> tuple[tuple[Clause, float], ...]:
    weights: Counter[Clause] = Counter()
    for operand in operands:
        for clause, weight in _clauses(operand, analyser):
            weights[clause] += weight  # type: ignore[assignment]  # a Counter adds up any numbers
    return tuple(weights.items())


def _clauses(operand: _Operand, analyser: Analyser) -> list[tuple[Clause, float]]:
    """What counts for the score, with its weight."""
    if operand.is_prefix:
        return _prefix(operand.text, analyser)
    own = _own(tokens(operand.text), analyser)
    if operand.is_phrase and len(own) > 1:
        return [(Clause(own), 1.0)]
    return [each for token in tokens(operand.text) for each in _word(token, analyser)]


def _word(token: str, analyser: Analyser) -> list[tuple[Clause, float]]:
    return [(_term(term.text), 1.0 if term.is_own else _OTHER) for term in analyser.token(token).terms]


def _term(text: str) -> Clause:
    """A term. The index has pairs of Chinese characters: one that is alone is what a pair begins with."""
    return Clause(((text, 0),), is_prefix=len(text) == 1 and is_paired(text))


def _condition(operand: _Operand, analyser: Analyser) -> Clause | None:
    """What a row must match, or must not; None for stop words."""
    if operand.is_prefix:
        return _prefix(operand.text, analyser)[-1][0]
    found = tokens(operand.text)
    own = _own(found, analyser)
    if len(own) > 1:
        return Clause(own)
    # Not the C of C++, nor the duck of the-duck, if the compound is what stands there.
    (compound,) = {whole(token) for token in found} if len(found) == 1 else {None}
    if compound is not None:
        return _term(compound)
    return _term(own[0][0]) if own else None


def _own(found: Sequence[str], analyser: Analyser) -> tuple[tuple[str, int], ...]:
    """The own terms of tokens with their positions, from 0 on. Stop words leave gaps."""
    own: list[tuple[str, int]] = []
    words = 0
    for token in found:
        terms, count = analyser.token(token)
        own += [(term.text, words + term.position) for term in terms if term.is_own]
        words += count
    return tuple((text, place - own[0][1]) for text, place in own)


def _prefix(token: str, analyser: Analyser) -> list[tuple[Clause, float]]:
    """The words before the last one of a token, and at last what begins as that does, or as the whole compound."""
    compound = whole(token)
    if compound is not None:
        return [(Clause(((compound, 0),), is_prefix=True), 1.0)]
    terms, words = analyser.token(token)
    before = [(_term(term.text), 1.0 if term.is_own else _OTHER) for term in terms if term.position < words - 1]
    last = beginning(token)
    return [*before, (Clause(((last, 0),), is_prefix=True, also=_stems(last, analyser)), 1.0)]


@functools.lru_cache(1024)
def _stems(start: str, analyser: Analyser) -> tuple[str, ...]:
    """The stems of words that begin so, as far as they do not: `run` of `running` for `runn`.

    The words are made of usual endings, of which the first letters may be there, as the `i` of `connecti` is.
    """
    words = {start} | {
        start + ending[there:]
        for ending in _ENDINGS.split()
        for there in range(len(ending))
        if start.endswith(ending[:there])
    }
    stems = {term.text for word in words for term in analyser.token(word).terms if term.is_own}
    return tuple(sorted(stem for stem in stems if not stem.startswith(start)))


def _distinct(found: Sequence[Clause | None]) -> tuple[Clause, ...]:
    return tuple(dict.fromkeys(clause for clause in found if clause is not None))


def _plain(text: str, operands: Sequence[_Operand]) -> str:
    kept, start = [], 0
    for each in operands:
        kept.append(text[start : each.outer[0]])
        words = text[slice(*each.inner)] if each.sign != "-" else ""
        kept.append(f" {words} " if each.is_phrase or not words else words)
        start = each.outer[1]
    kept.append(text[start:])
    plain = "".join(kept)
    return text if plain == text else " ".join(plain.split())
