"""Ranks rows by their words, or by their words and their vectors: the arms of a search, and the fusion of these.

The weighted fusion scores a row with weight * cosine + (1 - weight) * BM25 / the highest BM25 of any row for the query.
Where rows are passages, BM25 / the highest is multiplied by the share of the query's words that the passage has: among
so many short texts, some passage has two of ten words by chance, and that would count as much as all ten.
Reciprocal rank fusion adds 1 / (60 + rank) for each arm that has the row: Cormack, Clarke, Buettcher: Reciprocal Rank
Fusion Outperforms Condorcet and Individual Rank Learning Methods, 2009.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jammi_duck.retrieval.text_query import TextQuery
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.tables.table import Found, RowSubset, Table, smallest
from jammi_duck.storage.words.bm25 import Matches, Words
from jammi_duck.types import Stage

# Each arm gives at least so many rows, and for each row that is wanted so many.
_LEAST, _FOR_EACH = 100, 2
_RANKS = 60
# Scores are computed in float64, and equal ones may differ by this.
_TIE = 1e-6


@dataclass(frozen=True)
class Fusion:
    """How the words and the vectors decide: by a weighted sum, of which the vectors have the `weight`, or by ranks."""

    weight: float = 0.7
    by_ranks: bool = False


WEIGHTED = Fusion()


@dataclass(frozen=True)
class Arms:
    """What a query by words is asked of: the words of a table, its rows that may be found, and the options."""

    table: Table
    words: Words
    subset: RowSubset | None
    k: int
    exact: bool
    min_similarity: float | None
    k1: float
    b: float


def by_words(arms: Arms, query: TextQuery, vector: NDArray[np.float32] | None) -> tuple[Found, list[Stage]]:
    """The rows that match the words, by BM25; with similarities if there is a vector."""
    matches, _, stage = _matching(arms, query)
    rows, scores = matches.rows, matches.values
    near = None
    if vector is not None:
        near = arms.table.similarities(rows, vector)
        if arms.min_similarity is not None:
            kept = near >= smallest(arms.min_similarity)
            rows, scores, near = rows[kept], scores[kept], near[kept]
    best = _best(scores, arms.k)
    ranked = scores[best][None]
    return Found(rows[best][None], ranked, None if near is None else near[best][None], ranked), [stage]


def by_both(arms: Arms, query: TextQuery, vector: NDArray[np.float32], fusion: Fusion) -> tuple[Found, list[Stage]]:
    """The rows that are best in both arms together. Every row that may be one of them is scored in both, exactly."""
    weights = [] if fusion.by_ranks else [fusion.weight]
    both, stages, began = _candidates(arms, query, vector, weights)
    if fusion.by_ranks:
        scores, how = both.by_ranks(_wanted(arms)), "ranks"
    else:
        scores = both.weighted(fusion.weight)
        how = f"{fusion.weight:g} * cosine + {1 - fusion.weight:g} * BM25 / {both.highest:.3g}"
        if arms.table.entry.definition.passages:
            how += " * its share of the words"
    rows = len(both.rows)
    fused = Stage("fuse", f"{rows:,} rows scored in both: {how}", rows, time.perf_counter() - began)
    return both.found(scores), [*stages, fused]


def by_weights(arms: Arms, query: TextQuery, vector: NDArray[np.float32], weights: Sequence[float]) -> list[Found]:
    """For each of these weights the rows that `by_both` finds. Both arms are searched once."""
    both, _, _ = _candidates(arms, query, vector, weights)
    return [both.found(both.weighted(weight)) for weight in weights]


def _wanted(arms: Arms) -> int:
    """How many rows each arm gives."""
    return max(_LEAST, _FOR_EACH * arms.k)


def _candidates(
    arms: Arms, query: TextQuery, vector: NDArray[np.float32], weights: Sequence[float]
) -> tuple[_Both, list[Stage], float]:
    """The best rows of both arms, and all others that may be among the best for one of these weights.

    Also the stages of the two arms, and when they were done.
    """
    matches, highest, stage = _matching(arms, query)
    subset = _meeting(arms, query)
    wanted = _wanted(arms)
    found, stages = arms.table.candidates(vector[None], wanted, exact=arms.exact, subset=subset)
    began = time.perf_counter()
    order = np.argsort(found.positions[0])
    rows, near = found.positions[0][order], found.similarities[0][order].astype(np.float64)
    rows, near = rows[rows >= 0], near[rows >= 0]
    parts = _parts(arms, query, matches, highest) if weights else matches.values
    both = _Both(arms, vector, rows, near, matches, parts, highest)
    both.add(_best(matches.values, wanted))
    # No other row is nearer than the last of these.
    last = np.partition(near, -wanted)[-wanted] if len(near) >= wanted else -1.0
    for weight in weights:
        both.add(both.missed(weight, float(last)))
    return both, [*stages, stage], began


class _Both:
    """Rows in rising order with what both arms say of them; at first, those that are nearest to the vector.

    `bm25`, and `parts`, which are what it counts in a weighted sum, are 0 for rows that do not match.
    """

    def __init__(
        self,
        arms: Arms,
        vector: NDArray[np.float32],
        rows: NDArray[np.int64],
        near: NDArray[np.float64],
        matches: Matches,
        parts: NDArray[np.float32],
        highest: float,
    ) -> None:
        self.rows, self.near, self.highest = rows, near, highest
        self._nearest = rows
        self._arms, self._vector, self._matches, self._parts = arms, vector, matches, parts
        there, places = _places(rows, matches.rows)
        self.bm25, self.parts = (
            np.where(there, values[places], 0.0) if len(values) else np.zeros(len(rows))
            for values in (matches.values, parts)
        )

    def add(self, matching: NDArray[np.int64]) -> None:
        """More rows, by their places among those that match, which rise."""
        matching = matching[~_places(self._matches.rows[matching], self.rows)[0]]
        if len(matching):
            new = self._matches.rows[matching]
            every = np.concatenate([self.rows, new])
            near = np.concatenate([self.near, self._arms.table.similarities(new, self._vector)])
            bm25 = np.concatenate([self.bm25, self._matches.values[matching]])
            parts = np.concatenate([self.parts, self._parts[matching]])
            order = np.argsort(every)
            self.rows, self.near, self.bm25, self.parts = every[order], near[order], bm25[order], parts[order]

    def weighted(self, weight: float) -> NDArray[np.float64]:
        """The weighted sums; -inf for rows that are not similar enough."""
        return self._similar(weight * self.near + (1 - weight) * self.parts)

    def missed(self, weight: float, last: float) -> NDArray[np.int64]:
        """The places of matching rows that may be among the best, if none not here is more similar than `last`."""
        scores, k = self.weighted(weight), self._arms.k
        bar = np.partition(scores, -k)[-k] if len(scores) > k else -np.inf
        most = weight * last + (1 - weight) * self._parts
        return np.flatnonzero(most >= bar - _TIE)

    def found(self, scores: NDArray[np.float64]) -> Found:
        """All rows, to be ranked by these scores."""
        values = (each.astype(np.float32)[None] for each in (scores, self.near, self.bm25))
        return Found(self.rows[None], *values)

    def by_ranks(self, wanted: int) -> NDArray[np.float64]:
        """Sums of reciprocal ranks, of the rows near to the vector and of so many of those that match."""
        scores = np.zeros(len(self.rows))
        is_near = np.isin(self.rows, self._nearest, assume_unique=True)
        for values, is_there in ((self.near, is_near), (self.bm25, self.bm25 > 0)):
            there = np.flatnonzero(is_there)
            falling = np.sort(-values[there])
            # Equal rows have equal ranks, wherever they are stored.
            ranks = 1 + np.searchsorted(falling, -values[there])
            scores[there] += np.where(ranks <= wanted, 1 / (_RANKS + ranks), 0.0)
        return self._similar(scores)

    def _similar(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        least = self._arms.min_similarity
        return scores if least is None else np.where(self.near >= smallest(least), scores, -np.inf)


def _matching(arms: Arms, query: TextQuery) -> tuple[Matches, float, Stage]:
    """The rows that match and may be found, with their BM25, and the highest of any row that matches."""
    began = time.perf_counter()
    matches = arms.words.scores(query, arms.k1, arms.b)
    found = len(matches.rows)
    highest = float(matches.values.max(initial=0))
    if arms.subset:
        kept = arms.table.mask(arms.subset)[matches.rows]
        matches = Matches(matches.rows[kept], matches.values[kept])
    detail = f"{len(query.scored):,} words and phrases: {found:,} rows match, the highest BM25 is {highest:.3g}"
    return matches, highest, Stage("words", detail, len(matches.rows), time.perf_counter() - began)


def _parts(arms: Arms, query: TextQuery, matches: Matches, highest: float) -> NDArray[np.float32]:
    """What the words of the rows that match count in a weighted sum, from 0 to 1."""
    parts = matches.values / np.float32(highest or 1)
    if arms.table.entry.definition.passages:
        shares = arms.words.shares(query)
        parts *= shares.values[np.searchsorted(shares.rows, matches.rows)]
    return parts


def _meeting(arms: Arms, query: TextQuery) -> RowSubset | None:
    """The rows that meet the query's conditions, and may be found."""
    if not query.must and not query.without:
        return arms.subset
    mask: Mask = arms.table.mask(arms.subset)
    for clauses, is_in in ((query.must, True), (query.without, False)):
        for clause in clauses:
            there = np.zeros(len(mask), bool)
            there[arms.words.matching(clause).rows] = True
            mask = mask & (there if is_in else ~there)
    return arms.table.narrowed(mask)


def _places(rows: NDArray[np.int64], among: NDArray[np.int64]) -> tuple[Mask, NDArray[np.int64]]:
    """Whether each of these rows is among others, which rise, and where it is then."""
    if not len(among):
        return np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
    places = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    return among[places] == rows, places


def _best(scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """The places of the `count` highest scores, and of all ties with the last."""
    if len(scores) <= count:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -count)[-count])
