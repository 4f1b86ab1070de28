"""Evaluates a search: how good its answers to judged questions are, and whether another way is better beyond chance."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jammi_duck.encoder import Encoders
from jammi_duck.errors import InputError, did_you_mean
from jammi_duck.retrieval.judgements import JudgedQuestions, grades_in
from jammi_duck.retrieval.metrics import METRICS, Scores, relevant, scores_at
from jammi_duck.retrieval.search import search
from jammi_duck.retrieval.selection import Selection, opened
from jammi_duck.retrieval.statistics import bootstrap_intervals, randomisation_p
from jammi_duck.retrieval.ways import Way
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.table import Answers
from jammi_duck.types import Integer

# Questions that are encoded and searched together.
AT_ONCE = 2048
# Two scores of a question that differ by less are the same, computed in another order.
_SAME = 1e-12


@dataclass(frozen=True)
class MetricRow:
    """A metric's mean over the questions, and the ends of its 95 % interval."""

    metric: str
    k: Integer
    value: float
    low: float
    high: float
    question_count: int
    skipped_count: int
    embedding_table: str


@dataclass(frozen=True)
class QuestionRow:
    """The metrics of a question, its ranked keys with the grades of those that are judged, and what was missed."""

    question: str
    text: str
    relevant_count: int
    recall: float
    precision: float
    hit: float
    mrr: float
    ndcg: float
    map: float
    keys: list[str]
    grades: list[int | None]
    missed: list[str]


@dataclass(frozen=True)
class WayRow:
    """A way's mean of a metric, and how it differs from the first way, which has no difference from itself."""

    way: Integer
    options: str
    metric: str
    k: Integer
    value: float
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    won: int | None
    lost: int | None
    question_count: int
    skipped_count: int
    embedding_table: str


@dataclass(frozen=True)
class Answered:
    """The answers to judged questions: of each, the ranked row ids, the grades of row ids, and the metrics."""

    embedding_table: str
    k: int
    ranked: list[list[str]]
    grades: list[dict[str, int]]
    scores: dict[str, Scores]


@dataclass(frozen=True)
class Difference:
    """How scores differ from others of the same questions: mean, 95 % interval, p-value, questions won and lost."""

    difference: float
    low: float
    high: float
    p_value: float
    won: int
    lost: int


# That of the first way.
_NONE: dict[str, Any] = dict.fromkeys(each.name for each in dataclasses.fields(Difference))


def check_metric(metric: str | None) -> str:
    """The name of a metric. Raises InputError if there is no such."""
    if metric not in METRICS:
        near = did_you_mean(metric or "", METRICS) or ";"
        raise InputError(f"metric is {'NULL' if metric is None else repr(metric)}{near} metrics: {', '.join(METRICS)}")
    return metric


def answer(
    tables: EmbeddingTables,
    encoders: Encoders,
    selected: Selection,
    way: Way,
    questions: JudgedQuestions,
    reranked: list[list[str]] | None = None,
) -> Answered:
    """Search for all questions in one way, and score the answers, or those that were `reranked` already.

    Raises the errors of `search`.
    """
    table = opened(tables, selected.build)
    grades = grades_in(table, questions)
    ranked = ranked_row_ids(tables, encoders, selected, way, questions.texts) if reranked is None else reranked
    k = way.options.k
    return Answered(table.entry.name, k, ranked, grades, scores_at(k, ranked, grades))


def ranked_row_ids(
    tables: EmbeddingTables, encoders: Encoders, selected: Selection, way: Way, texts: Sequence[str]
) -> list[list[str]]:
    """The row ids that a way to search finds for each text, the best first."""
    ranked: list[list[str]] = []
    for answers in ranked_answers(tables, encoders, selected, way, texts):
        ranked += row_ids_of(answers)
    return ranked


def ranked_answers(
    tables: EmbeddingTables, encoders: Encoders, selected: Selection, way: Way, texts: Sequence[str]
) -> Iterator[Answers]:
    """What a way to search finds for texts, for some of them after another: `rerank_k` rows if they are re-ranked."""
    for start in range(0, len(texts), AT_ONCE):
        yield search(tables, encoders, selected, way.options, texts[start : start + AT_ONCE])[1]


def row_ids_of(answers: Answers) -> list[list[str]]:
    """The row ids of each answer."""
    row_ids = iter(answers.row_ids.to_pylist())
    return [list(itertools.islice(row_ids, count)) for count in answers.counts.tolist()]


def metric_rows(answered: Answered, questions: JudgedQuestions) -> list[MetricRow]:
    """A row for each metric."""
    scores = np.column_stack([answered.scores[metric] for metric in METRICS])
    ends = zip(METRICS, scores.mean(axis=0), *bootstrap_intervals(scores), strict=True)
    return [
        MetricRow(
            metric,
            answered.k,
            float(mean),
            float(low),
            float(high),
            len(scores),
            questions.skipped_count,
            answered.embedding_table,
        )
        for metric, mean, low, high in ends
    ]


def question_rows(answered: Answered, questions: JudgedQuestions) -> list[QuestionRow]:
    """A row for each question."""
    rows = []
    for i, (keys, grades) in enumerate(zip(answered.ranked, answered.grades, strict=True)):
        wanted, found = relevant(grades), set(keys)
        row = QuestionRow(
            questions.ids[i],
            questions.texts[i],
            len(wanted),
            **{metric: float(answered.scores[metric][i]) for metric in METRICS},
            keys=keys,
            grades=[grades.get(key) for key in keys],
            missed=[key for key in wanted if key not in found],
        )
        rows.append(row)
    return rows


def way_rows(ways: Sequence[Way], answers: Sequence[Answered], metric: str, questions: JudgedQuestions) -> list[WayRow]:
    """A row for each way, with its difference from the first."""
    rows = []
    first = answers[0].scores[metric]
    for number, (way, answered) in enumerate(zip(ways, answers, strict=True), start=1):
        scores = answered.scores[metric]
        difference = _NONE if number == 1 else dataclasses.asdict(difference_of(scores, first))
        row = WayRow(
            number,
            way.written,
            metric,
            answered.k,
            float(scores.mean()),
            **difference,
            question_count=len(scores),
            skipped_count=questions.skipped_count,
            embedding_table=answered.embedding_table,
        )
        rows.append(row)
    return rows


def difference_of(scores: Scores, others: Scores) -> Difference:
    """How scores, float64 [questions], differ from others of the same questions."""
    differences = scores - others
    differences[np.abs(differences) < _SAME] = 0
    low, high = bootstrap_intervals(differences[:, None])[:, 0]
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return Difference(float(differences.mean()), float(low), float(high), randomisation_p(differences), won, lost)
