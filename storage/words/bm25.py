"""Which rows of a table have which words, and their BM25, over the words of all segments.

BM25 as in Lucene: the sum over the clauses of a query of

    weight * idf * tf / (tf + k1 * (1 - b + b * length / average)), with idf = ln(1 + (N - n + 0.5) / (n + 0.5))

N is the number of live rows, n that of those which match the clause, tf how often a row matches, and length its number
of words, without stop words. All are counted over the live rows of all segments. Robertson, Zaragoza: The Probabilistic
Relevance Framework: BM25 and Beyond, 2009.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError
from jammi_duck.storage.words.analyser import Analyser
from jammi_duck.storage.words.varints import Numbers
from jammi_duck.storage.words.words_file import WordsFile

Mask = NDArray[np.bool_]
K1, B = 1.2, 0.75
# The matches of terms in recent queries are kept, up to so many bytes for a table.
_KEPT_BYTES = 16 << 20
# Scores are summed in an array over all rows if at least one in so many matches.
_SPARSE = 16
_ROWS = np.empty(0, np.int64)
_NO_VALUES = np.empty(0, np.float32)


@dataclass(frozen=True)
class Clause:
    """What a row may match: a term; a phrase, of terms with their positions; or a prefix.

    A row matches a prefix with any term that begins with the text of the one in `terms`, or with one of `also`: stems
    of words that begin so, which are cut shorter.
    """

    terms: tuple[tuple[str, int], ...]
    is_prefix: bool = False
    also: tuple[str, ...] = ()


class WordsQuery(Protocol):
    """Clauses with their weights in the score, clauses that a row must match, and clauses that it must not."""

    @property
    def scored(self) -> Sequence[tuple[Clause, float]]:
        """What is scored."""
        ...

    @property
    def must(self) -> Sequence[Clause]:
        """What a row must match."""
        ...

    @property
    def without(self) -> Sequence[Clause]:
        """What a row must not match."""
        ...


@dataclass(frozen=True)
class Matches:
    """Rows in rising order, by their numbers in the table, and a value for each."""

    rows: Numbers
    values: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return self.rows.nbytes + self.values.nbytes


class _Recent:
    """The matches of terms in recent queries. Threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Clause, Matches] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, clause: Clause) -> Matches | None:
        with self._lock:
            found = self._kept.get(clause)
            if found is not None:
                self._kept.move_to_end(clause)
            return found

    def keep(self, clause: Clause, matches: Matches) -> None:
        if matches.nbytes * 4 > self._most_bytes:
            return
        with self._lock:
            if clause not in self._kept:
                self._kept[clause] = matches
                self._bytes += matches.nbytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


class Words:
    """The words of a table's segments. Threads may share it."""

    def __init__(self, analyser: Analyser, segments: Sequence[WordsFile], live: Sequence[Mask | None]) -> None:
        """`live` are masks of the rows of each segment that are not gone; None if all are there."""
        self.analyser = analyser
        self._segments = segments
        self._live = live
        self._starts = np.cumsum([0, *(each.rows for each in segments)])
        self._recent = _Recent(_KEPT_BYTES)
        self._weights = functools.lru_cache(4)(self._compute_weights)

    @cached_property
    def _counted(self) -> tuple[int, float]:
        """The number of live rows, and their average length."""
        lengths = [
            each.lengths if mask is None else each.lengths[mask]
            for each, mask in zip(self._segments, self._live, strict=True)
        ]
        rows = sum(map(len, lengths))
        return rows, sum(int(each.sum(dtype=np.int64)) for each in lengths) / max(rows, 1)

    def _compute_weights(self, k1: float, b: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """For each row k1 * (1 - b + b * length / average), and what tf / (tf + that) is for a tf of 1."""
        lengths = np.concatenate([_ROWS, *(each.lengths for each in self._segments)])
        norms = (k1 * (1 - b + b * lengths / max(self._counted[1], 1e-9))).astype(np.float32)
        return norms, np.reciprocal(1 + norms)

    def damaged(self) -> list[WordsFile]:
        """The files that cannot be read."""
        found = []
        for segment in self._segments:
            try:
                segment.read_through()
            except DamagedError:
                found.append(segment)
        return found

    def scores(self, query: WordsQuery, k1: float = K1, b: float = B) -> Matches:
        """The BM25 of the rows that match a scored clause and every condition. Raises DamagedError."""
        count, _ = self._counted
        norms, of_one = self._weights(k1, b)
        found, scores = [], []
        for clause, weight in query.scored:
            matches = self.matching(clause)
            rows, counts = matches.rows, matches.values
            idf = _idf(count, len(rows))
            values = of_one[rows]
            several = np.flatnonzero(counts > 1)
            values[several] = counts[several] / (counts[several] + norms[rows[several]])
            found.append(rows)
            scores.append(values * np.float32(weight * idf))
        summed = self._sum(found, scores)
        for clause in query.must:
            summed = _kept(summed, self.matching(clause).rows, is_in=True)
        for clause in query.without:
            summed = _kept(summed, self.matching(clause).rows, is_in=False)
        return summed

    def shares(self, query: WordsQuery) -> Matches:
        """For each row of `scores` the share of the query that it has: weight * idf of the clauses that it matches.

        Of all clauses, also those that no row matches, this is 1. Raises DamagedError.
        """
        # With a k1 of 0, it does not count how often a row matches, nor how long it is.
        had = self.scores(query, 0.0, 0.0)
        count, _ = self._counted
        every = sum(weight * _idf(count, len(self.matching(clause).rows)) for clause, weight in query.scored)
        return Matches(had.rows, had.values / np.float32(every or 1))

    def matching(self, clause: Clause) -> Matches:
        """The live rows that match a clause, with how often each does. Raises DamagedError."""
        known = self._recent.get(clause)
        if known is not None:
            return known
        found = self._matching(clause)
        self._recent.keep(clause, found)
        return found

    def _matching(self, clause: Clause) -> Matches:
        rows, counts = [], []
        for segment, live, start in zip(self._segments, self._live, self._starts[:-1].tolist(), strict=True):
            found = _matching(segment, clause)
            there = slice(None) if live is None else live[found.rows]
            rows.append(found.rows[there] + start)
            counts.append(found.values[there])
        if len(rows) == 1:
            return Matches(rows[0], counts[0])
        return Matches(np.concatenate([_ROWS, *rows]), np.concatenate([_NO_VALUES, *counts]))

    def _sum(self, rows: Sequence[Numbers], values: Sequence[NDArray[np.float32]]) -> Matches:
        """The sums of the values of each row."""
        total = int(self._starts[-1])
        if sum(map(len, rows)) * _SPARSE < total:
            there, places = np.unique(np.concatenate([_ROWS, *rows]), return_inverse=True)
            sums = np.bincount(places, np.concatenate([_NO_VALUES, *values]), len(there))
            return Matches(there, sums.astype(np.float32))
        dense = np.zeros(total, np.float32)
        for mine, scores in zip(rows, values, strict=True):
            np.add.at(dense, mine, scores)
        there = np.flatnonzero(dense > 0)
        return Matches(there, dense[there])


def _idf(rows: int, matching: int) -> float:
    return math.log1p((rows - matching + 0.5) / (matching + 0.5))


def _matching(segment: WordsFile, clause: Clause) -> Matches:
    """The rows of a segment that match a clause."""
    if clause.is_prefix:
        return _beginning(segment, clause)
    if len(clause.terms) == 1:
        entry = segment.find(clause.terms[0][0].encode())
        if entry is None:
            return Matches(_ROWS, _NO_VALUES)
        postings = segment.postings(entry, positions=False)
        return Matches(postings.rows, postings.counts.astype(np.float32))
    return _phrase(segment, clause)


def _beginning(segment: WordsFile, clause: Clause) -> Matches:
    """The rows that have a term which begins so, or one of the others."""
    others = (segment.find(term.encode()) for term in clause.also)
    entries = [segment.beginning(clause.terms[0][0].encode()), *(entry for entry in others if entry)]
    found = [segment.postings(each, positions=False) for each in entries]
    rows, places = np.unique(np.concatenate([each.rows for each in found]), return_inverse=True)
    counts = np.bincount(places, np.concatenate([each.counts for each in found]), len(rows))
    return Matches(rows, counts.astype(np.float32))


def _phrase(segment: WordsFile, clause: Clause) -> Matches:
    """The rows where the terms stand at the clause's distances."""
    entries = {term: segment.find(term.encode()) for term, _ in clause.terms}
    known = {term: entry for term, entry in entries.items() if entry}
    if len(known) < len(entries):
        return Matches(_ROWS, _NO_VALUES)
    last = max(place for _, place in clause.terms)
    read: dict[str, Numbers] = {}
    begins: Numbers | None = None
    # The rarest first: the others are only looked up for what is left.
    for term, place in sorted(clause.terms, key=lambda term: int(known[term[0]].row_counts[0])):
        if begins is not None and not len(begins):
            break
        if term not in read:
            postings = segment.postings(known[term])
            read[term] = np.repeat(postings.rows, postings.counts) << 33 | (postings.positions + last)
        # Where the phrase would begin, by row. They rise.
        mine = read[term] - place
        if begins is None:
            begins = mine[np.diff(mine, prepend=-1) > 0]
        else:
            places = np.minimum(np.searchsorted(mine, begins), len(mine) - 1)
            begins = begins[mine[places] == begins]
    rows = _ROWS if begins is None else begins >> 33
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    return Matches(rows[firsts], np.diff(firsts, append=len(rows)).astype(np.float32))


def _kept(found: Matches, rows: Numbers, *, is_in: bool) -> Matches:
    kept = np.isin(found.rows, rows, assume_unique=True, invert=not is_in)
    return Matches(found.rows[kept], found.values[kept])
