"""Finds the weight of a fusion by cross-validation on judged questions, and whether it is better beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jammi_duck.encoder import Encoders
from jammi_duck.errors import InputError
from jammi_duck.retrieval.evaluation import AT_ONCE, difference_of, row_ids_of
from jammi_duck.retrieval.fusion import WEIGHTED
from jammi_duck.retrieval.judgements import JudgedQuestions, grades_in
from jammi_duck.retrieval.metrics import Scores, scores_at
from jammi_duck.retrieval.search import search_by_weights
from jammi_duck.retrieval.selection import Selection, opened
from jammi_duck.retrieval.ways import Way
from jammi_duck.sql import literal
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.types import Integer

WEIGHTS = tuple(step / 20 for step in range(21))
DEFAULT_WEIGHT = WEIGHTED.weight
# What is called better beyond chance.
SIGNIFICANT = 0.05
_FOLDS = 5
_SEED = 1


@dataclass(frozen=True)
class Tuned:
    """The weight that is best for a metric, and how it fares against the default weight on questions held out.

    `value` and `default_value` are means over the questions; `low` and `high` are the ends of the difference's 95 %
    interval. `curve` is the metric over all questions at the weights 0, 0.05, 0.1 and so on to 1.
    """

    weight: float
    metric: str
    k: Integer
    value: float
    default_value: float
    difference: float
    low: float
    high: float
    p_value: float
    question_count: int
    skipped_count: int
    embedding_table: str
    advice: str
    curve: list[float]


def tune(
    tables: EmbeddingTables,
    encoders: Encoders,
    selected: Selection,
    way: Way,
    metric: str,
    questions: JudgedQuestions,
) -> Tuned:
    """Search for all questions with each weight, and cross-validate the choice of the best.

    Raises:
        InputError: there are fewer questions than folds, or the words of the table are not indexed.
    """
    if len(questions.ids) < _FOLDS:
        raise InputError(
            f"jammi_tune needs at least {_FOLDS} questions with a judgement of at least 1, since it divides them into "
            f"{_FOLDS} parts; there are {len(questions.ids)}"
        )
    table = opened(tables, selected.build)
    if not table.has_words:
        raise InputError(
            f"jammi_tune weighs words against vectors, and '{table.entry.name}' has no index of words; SELECT * FROM "
            f"jammi_index_words({literal(table.entry.source)}) makes one"
        )
    grades, k = grades_in(table, questions), way.options.k
    ranked = ranked_by_weight(tables, encoders, selected, way, questions.texts)
    scores = np.array([scores_at(k, each, grades)[metric] for each in ranked])
    weight, held_out = cross_validated(scores)
    default = scores[WEIGHTS.index(DEFAULT_WEIGHT)]
    found = difference_of(held_out, default)
    is_better = found.difference > 0 and found.p_value < SIGNIFICANT
    return Tuned(
        weight,
        metric,
        k,
        float(held_out.mean()),
        float(default.mean()),
        found.difference,
        found.low,
        found.high,
        found.p_value,
        len(questions.ids),
        questions.skipped_count,
        table.entry.name,
        f"weight := {weight:g} is better than the default, {DEFAULT_WEIGHT}, beyond chance"
        if is_better
        else f"keep the default, weight := {DEFAULT_WEIGHT}: no other weight is better beyond chance",
        scores.mean(axis=1).tolist(),
    )


def ranked_by_weight(
    tables: EmbeddingTables, encoders: Encoders, selected: Selection, way: Way, texts: Sequence[str]
) -> list[list[list[str]]]:
    """For each of `WEIGHTS`, the row ids that a hybrid search with this weight finds for each text, the best first.

    Raises the errors of `search_by_weights`.
    """
    ranked: list[list[list[str]]] = [[] for _ in WEIGHTS]
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        answers = search_by_weights(tables, encoders, selected, way.options, some, WEIGHTS)
        for mine, each in zip(ranked, answers, strict=True):
            mine += row_ids_of(each)
    return ranked


def cross_validated(scores: NDArray[np.float64]) -> tuple[float, Scores]:
    """The best weight, and the scores of questions that took no part in the choice: of `scores`, [weights, questions].

    The questions are divided at random into five parts. The questions of each part are scored with the weight that is
    best for all others. The weight that is returned is the best for all questions. Of weights that are equally good,
    the nearest to the default is taken.
    """
    order = np.random.default_rng(_SEED).permutation(scores.shape[1])
    held_out = np.empty(scores.shape[1])
    for part in np.array_split(order, _FOLDS):
        held_out[part] = scores[_best(np.delete(scores, part, axis=1)), part]
    return WEIGHTS[_best(scores)], held_out


def _best(scores: NDArray[np.float64]) -> int:
    means = scores.mean(axis=1)
    equal = np.flatnonzero(np.isclose(means, means.max(), rtol=0, atol=1e-12))
    return int(min(equal, key=lambda place: abs(WEIGHTS[place] - DEFAULT_WEIGHT)))
