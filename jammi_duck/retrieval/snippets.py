"""The passage of a text that answers a query best, with its matches marked."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jammi_duck.retrieval.characters import end_of_character, is_punctuation, start_of_character
from jammi_duck.retrieval.text_query import TextQuery
from jammi_duck.storage.words.analyser import Analyser, spans, whole, word_spans
from jammi_duck.storage.words.bm25 import Clause

# A passage has at most so many characters for each word.
_LONGEST_WORD = 40
# So many marks of punctuation beside a passage belong to it.
_MOST_PUNCTUATION = 16
_TAG = re.compile(r"<([A-Za-z][\w:.-]*)(?:\s[^<>]*)?>")
_SENTENCE_END = re.compile(r"[.!?…][\"')\]”’]*\s|[。！？]|\n\s*\n")  # noqa: RUF001 - an apostrophe, and Chinese, are meant


def snippet(text: str, query: TextQuery, analyser: Analyser, words: int, mark: str) -> str:
    """The passage of about so many words in which most is found of what a query asks for, the first of several.

    If nothing is found, it is the beginning of the text. `mark` stands before each match and behind it; a tag such as
    `<b>` is closed by `</b>`. Where the text goes on, there is a `…`.
    """
    layout = _Layout(text)
    matches, weights = _matches(layout, query, analyser)
    first, last = _densest(matches, weights, words)
    begin, end = _framed(layout, first, last, words)
    here = [match for match in matches if match.first < end and match.last > begin]
    marks = [layout.characters(match) for match in here]
    start, stop = _clipped(text, layout.cut(begin, end), marks, words * _LONGEST_WORD)
    before, after = ("…" if part.strip() else part for part in (text[:start], text[stop:]))
    return before + _marked(text, start, stop, marks, mark) + after


class _Match(NamedTuple):
    """What matches which part of a query, from one word of the text to before another, or all of a compound."""

    part: int
    first: int
    last: int
    is_whole: bool = False


class _Layout:
    """Where the words of a text stand. A word is known by its number."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = 0
        # Of each token: where it begins and ends in the text, and the number of its first word.
        self._starts, self._ends, self._firsts = array("Q"), array("Q"), array("Q")
        self._spans: dict[int, list[tuple[int, int]]] = {}

    def add(self, start: int, end: int, words: int) -> int:
        """Take the next token. Returns the number of its first word."""
        first = self.words
        self._starts.append(start)
        self._ends.append(end)
        self._firsts.append(first)
        self.words += words
        return first

    def characters(self, match: _Match) -> tuple[int, int]:
        """Where a match begins and ends in the text, with whole characters."""
        if match.is_whole:
            token = self._token(match.first)
            start, end = self._starts[token], self._ends[token]
        else:
            start, end = self._span(match.first)[0], self._span(match.last - 1)[1]
        return start_of_character(self.text, start), end_of_character(self.text, end)

    def snapped(self, begin: int, end: int, most: int) -> tuple[int, int]:
        """The same words, with the rest of the tokens at both ends if these have no more words than `most`."""
        first, last = self._token(begin), self._token(end - 1)
        if self._next(first) - self._firsts[first] <= most:
            begin = self._firsts[first]
        if self._next(last) - self._firsts[last] <= most:
            end = self._next(last)
        return begin, end

    def from_character(self, start: int) -> int:
        """The first word of the first token that begins there or later."""
        token = bisect_left(self._starts, start)
        return self._firsts[token] if token < len(self._firsts) else self.words

    def place(self, word: int) -> tuple[int, int]:
        """Where a word begins and ends, with what stands before the first of a token or behind its last, as in C++."""
        token = self._token(word)
        start, end = self._span(word)
        if word == self._firsts[token]:
            start = self._starts[token]
        if word + 1 == self._next(token):
            end = self._ends[token]
        return start, end

    def cut(self, begin: int, end: int) -> tuple[int, int]:
        """Where some words begin and end in the text, with the punctuation beside them."""
        start, stop = 0, len(self.text)
        if begin > 0:
            start = self.place(begin)[0]
            least = max(self.place(begin - 1)[1], start - _MOST_PUNCTUATION)
            outer = start
            while outer > least and is_punctuation(self.text[outer - 1]):
                outer -= 1
            if self.text[max(0, outer - 1) : outer].isspace():
                start = outer
        if end < self.words:
            stop = self.place(end - 1)[1]
            most = min(self.place(end)[0], stop + _MOST_PUNCTUATION)
            outer = stop
            while outer < most and is_punctuation(self.text[outer]):
                outer += 1
            if self.text[outer : outer + 1].isspace():
                stop = outer
        return start_of_character(self.text, start), end_of_character(self.text, stop)

    def _token(self, word: int) -> int:
        return bisect_right(self._firsts, word) - 1

    def _next(self, token: int) -> int:
        """The first word behind a token."""
        return self._firsts[token + 1] if token + 1 < len(self._firsts) else self.words

    def _span(self, word: int) -> tuple[int, int]:
        """Where a word begins and ends in the text."""
        token = self._token(word)
        start, first = self._starts[token], self._firsts[token]
        if token not in self._spans:
            self._spans[token] = word_spans(self.text[start : self._ends[token]], self._next(token) - first)
        begin, end = self._spans[token][word - first]
        return start + begin, start + end


class _Finder:
    """Finds what matches in a token. Words and prefixes are known by their number among the clauses."""

    def __init__(self, clauses: Sequence[Clause], analyser: Analyser) -> None:
        self._analyser = analyser
        self._parts: defaultdict[str, list[int]] = defaultdict(list)
        self._prefixes: list[tuple[str, int]] = []
        self._of_phrases: set[str] = set()
        for number, clause in enumerate(clauses):
            if len(clause.terms) > 1:
                self._of_phrases.update(text for text, _ in clause.terms)
                continue
            text = clause.terms[0][0]
            if clause.is_prefix:
                self._prefixes.append((text, number))
            for term in clause.also if clause.is_prefix else (text,):
                self._parts[term].append(number)

    def find(self, token: str) -> tuple[int, list[_Match], list[tuple[str, int]]]:
        """How many words a token has, what matches there, and the words of phrases, with their places in the token."""
        terms, words = self._analyser.token(token)
        compound = whole(token)
        found = []
        for text, place, is_own in terms:
            parts = [*self._parts.get(text, ()), *(part for start, part in self._prefixes if text.startswith(start))]
            is_whole = not is_own and text == compound
            found += [_Match(part, 0, words, True) if is_whole else _Match(part, place, place + 1) for part in parts]
        of_phrases = [(term.text, term.position) for term in terms if term.is_own and term.text in self._of_phrases]
        return words, found, of_phrases


def _matches(layout: _Layout, query: TextQuery, analyser: Analyser) -> tuple[list[_Match], list[float]]:
    """What matches in a text, in its order, and the weights of the query's parts. The layout gets the tokens.

    The parts are clauses. Of a phrase that the text has nowhere, each word is a part of its own.
    """
    clauses = [clause for clause, _ in query.scored]
    weights = [weight for _, weight in query.scored]
    finder = _Finder(clauses, analyser)
    found: list[_Match] = []
    places: defaultdict[str, list[int]] = defaultdict(list)
    known: dict[str, tuple[int, list[_Match], list[tuple[str, int]]]] = {}
    for start, end in spans(layout.text):
        token = layout.text[start:end]
        in_token = known.get(token)
        if in_token is None:
            in_token = known[token] = finder.find(token)
        words, matches, of_phrases = in_token
        if words:
            number = layout.add(start, end, words)
            found += [_Match(part, number + first, number + last, all_) for part, first, last, all_ in matches]
            for text, place in of_phrases:
                places[text].append(number + place)
    for part, clause in enumerate(clauses):
        if len(clause.terms) > 1:
            of_phrase = list(_of_phrase(part, clause, places))
            if not of_phrase:
                for text in dict.fromkeys(text for text, _ in clause.terms):
                    of_phrase += [_Match(len(weights), place, place + 1) for place in places[text]]
                    weights.append(weights[part] / len(clause.terms))
            found += of_phrase
    return sorted(found, key=lambda match: match[1:3]), weights


def _of_phrase(part: int, clause: Clause, places: defaultdict[str, list[int]]) -> Iterator[_Match]:
    """Where the terms of a phrase stand at its distances."""
    starts = set.intersection(*({place - offset for place in places[text]} for text, offset in clause.terms))
    return (_Match(part, start, start + clause.terms[-1][1] + 1) for start in starts)


def _densest(matches: Sequence[_Match], weights: Sequence[float], words: int) -> tuple[int, int]:
    """The first and the last word of the matches that have most weight within so many words; (0, 0) without any.

    Each part of the query counts once; of several such places, the first of those with most matches is taken.
    """
    best, place = (0.0, 0), (0, 0)
    counts: Counter[int] = Counter()
    weight, end = 0.0, 0
    for i, match in enumerate(matches):
        while end < len(matches) and (end == i or matches[end].last <= match.first + words):
            part = matches[end].part
            weight += weights[part] if not counts[part] else 0.0
            counts[part] += 1
            end += 1
        # The weights of phrases are fractions, whose sums are not exact.
        score = round(weight, 6), end - i
        if score > best:
            best, place = score, (match.first, max(match.last, matches[end - 1].last))
        counts[match.part] -= 1
        weight -= weights[match.part] if not counts[match.part] else 0.0
    return place


def _framed(layout: _Layout, first: int, last: int, words: int) -> tuple[int, int]:
    """So many words around some that match: from the beginning of a sentence on, if one is near."""
    if layout.words <= words:
        return 0, layout.words
    spare = max(0, words - (last - first))
    begin = 0
    if first > spare:
        begin = max(_sentences(layout, first - spare, first), default=first - spare // 3)
    latest = layout.words - words
    if begin > latest:
        begin = min(_sentences(layout, latest, begin), default=latest)
    return layout.snapped(begin, min(begin + words, layout.words), words // 4)


def _sentences(layout: _Layout, first: int, last: int) -> list[int]:
    """The words from one to another, itself included, with which a sentence begins."""
    start, stop = layout.place(first - 1)[1], layout.place(last)[0]
    starts = [layout.from_character(found.end()) for found in _SENTENCE_END.finditer(layout.text, start, stop)]
    return [word for word in starts if first <= word <= last]


def _clipped(text: str, cut: tuple[int, int], marks: Sequence[tuple[int, int]], most: int) -> tuple[int, int]:
    """What is left of a passage if it has more characters than `most`, as with words that are no words."""
    start, stop = cut
    if stop - start <= most:
        return cut
    first = min((begin for begin, _ in marks), default=start)
    if first - start > most // 2:
        start = start_of_character(text, first - most // 4)
    return start, min(stop, end_of_character(text, start + most))


def _marked(text: str, start: int, stop: int, marks: Sequence[tuple[int, int]], mark: str) -> str:
    """A passage with its matches between marks; those that touch have one pair."""
    tag = _TAG.fullmatch(mark)
    closing = f"</{tag[1]}>" if tag else mark
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((max(begin, start), min(end, stop)) for begin, end in marks):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif begin < end:
            merged.append((begin, end))
    pieces, place = [], start
    for begin, end in merged:
        pieces += [text[place:begin], mark, text[begin:end], closing]
        place = end
    return "".join([*pieces, text[place:stop]])
