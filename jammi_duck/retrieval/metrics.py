"""Scores ranked keys by judged grades, with the definitions of trec_eval: recall, precision, hit, MRR, nDCG and MAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
METRICS = ("recall", "precision", "hit", "mrr", "ndcg", "map")
# The lowest grade of a relevant row.
RELEVANT = 1


def relevant(grades: Mapping[str, int]) -> list[str]:
    """The keys that are relevant to a question, by the grades of its judged keys."""
    return [key for key, grade in grades.items() if grade >= RELEVANT]


def scores_at(k: int, ranked: Sequence[Sequence[str]], grades: Sequence[Mapping[str, int]]) -> dict[str, Scores]:
    """Each metric of each question, float64 [questions], from the first `k` of its ranked keys.

    `ranked` are the keys that were found, the best first; `grades` those of the judged keys, in the same order of
    questions. Each question needs a relevant key. A key without a grade counts as not relevant. A relevant key that
    was not found counts in `recall`, `ndcg` and `map`. The gain of nDCG is the grade itself, and 0 if that is negative.
    """
    gains = _rows([[given.get(key, 0) for key in keys[:k]] for keys, given in zip(ranked, grades, strict=True)])
    best = _rows([sorted(given.values(), reverse=True)[:k] for given in grades])
    known = np.array([len(relevant(given)) for given in grades], np.float64)
    hits = gains >= RELEVANT
    found = hits.sum(axis=1).astype(np.float64)
    ranks = np.arange(1, gains.shape[1] + 1)
    precisions = np.where(hits, hits.cumsum(axis=1) / ranks, 0)
    first = np.where(hits, 1 / ranks, 0)
    return {
        "recall": found / known,
        "precision": found / k,
        "hit": (found > 0).astype(np.float64),
        "mrr": first.max(axis=1, initial=0),
        "ndcg": _discounted(gains) / _discounted(best),
        "map": precisions.sum(axis=1) / known,
    }


def _rows(lists: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Lists of grades as the rows of a matrix, with zeros behind the end of a list, and for negative grades."""
    matrix = np.zeros((len(lists), max(map(len, lists), default=0)))
    for row, numbers in zip(matrix, lists, strict=True):
        row[: len(numbers)] = numbers
    return np.maximum(matrix, 0)


def _discounted(gains: NDArray[np.float64]) -> Scores:
    discounts = np.log2(np.arange(2, gains.shape[1] + 2))
    total: Scores = (gains / discounts).sum(axis=1)
    return total
