"""Checks questions and their judgements, before any search: which are judged, and how."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jammi_duck.encoder.blanks import is_blank
from jammi_duck.errors import InputError, JammiWarning
from jammi_duck.retrieval.metrics import relevant
from jammi_duck.storage.index.key_values import form_of
from jammi_duck.storage.tables.table import Table


@dataclass(frozen=True)
class GivenQuestions:
    """Questions as they are given by the source `name`: ids and texts, and the SQL type of the ids."""

    name: str
    ids: Sequence[str | None]
    texts: Sequence[str | None]
    kind: str | None


@dataclass(frozen=True)
class GivenJudgements:
    """Judgements as they are given by the source `name`: ids of questions, keys, grades, and the SQL types of both."""

    name: str
    questions: Sequence[str | None]
    keys: Sequence[str | None]
    grades: Sequence[float | None]
    question_kind: str | None
    key_kind: str | None


@dataclass(frozen=True)
class JudgedQuestions:
    """Questions with a judgement of at least 1, and of each the grades by key; `key_kind` is the SQL type of the keys.

    `skipped_count` is the number of the other questions.
    """

    ids: list[str]
    texts: list[str]
    grades: list[dict[str, int]]
    key_kind: str | None
    skipped_count: int


def judged_questions(
    questions: GivenQuestions, judgements: GivenJudgements, *, warned: bool = False
) -> JudgedQuestions:
    """The questions that can be evaluated, in the order given.

    Warns of judgements of questions that are not there, if it was not `warned` of them before.

    Raises:
        InputError: an id, a key or a grade is NULL, or is there twice; a grade is not a whole number; a judged question
            has no text; or no question has a judgement of at least 1.
    """
    asked, judged = questions.name, judgements.name
    _refuse_nulls(questions.ids, f"questions in '{asked}'", "an id")
    ids = _common(questions.ids, questions.kind)
    _refuse_repeated(
        ids, lambda id_, times: f"the question '{id_}' is in '{asked}' {times} times; its id must be unique"
    )
    _refuse_nulls(judgements.questions, f"judgements in '{judged}'", "a question")
    _refuse_nulls(judgements.keys, f"judgements in '{judged}'", "a key")
    _refuse_nulls(judgements.grades, f"judgements in '{judged}'", "a grade that is a number")
    of = _common(judgements.questions, judgements.question_kind)
    keys = [str(key) for key in judgements.keys]
    _refuse_repeated(
        list(zip(of, keys, strict=True)),
        lambda pair, times: (
            f"the key '{pair[1]}' is judged {times} times for the question '{pair[0]}' in '{judged}'; keep one of the "
            "judgements, such as max(grade) with GROUP BY"
        ),
    )
    grades: dict[str, dict[str, int]] = {id_: {} for id_ in ids}
    unknown = [id_ for id_ in of if id_ not in grades]
    for id_, key, grade in zip(of, keys, judgements.grades, strict=True):
        if grade is None or not math.isfinite(grade) or grade != int(grade):
            raise InputError(
                f"the grade of '{key}' for the question '{id_}' is {grade} in '{judged}'; it must be a whole number: 1 "
                "or more for a relevant row, and 0 for others"
            )
        grades.get(id_, {})[key] = int(grade)
    found = JudgedQuestions([], [], [], judgements.key_kind, sum(not relevant(mine) for mine in grades.values()))
    for id_, written, text in zip(ids, questions.ids, questions.texts, strict=True):
        if not relevant(grades[id_]):
            continue
        if text is None or is_blank(text):
            raise InputError(
                f"the question '{written}' in '{asked}' has no text; name the column with question_columns"
            )
        found.ids.append(str(written))
        found.texts.append(text)
        found.grades.append(grades[id_])
    if not found.ids:
        raise InputError(_nothing(questions, judgements))
    if unknown and not warned:
        warnings.warn(
            f"'{judged}' has judgements of questions that '{asked}' does not have: {len(unknown):,}, such as one of "
            f"'{unknown[0]}'; they are left out",
            JammiWarning,
            stacklevel=2,
        )
    return found


def grades_in(table: Table, questions: JudgedQuestions) -> list[dict[str, int]]:
    """The grades of each question by the row ids that a table has for the keys. Warns of keys that it does not have.

    Raises DamagedError.
    """
    keys = list(dict.fromkeys(key for mine in questions.grades for key in mine))
    there = {row_id for _, row_ids, _ in table.find(pa.array(keys, pa.string())) for row_id in row_ids.to_pylist()}
    others = [key for key in keys if key not in there]
    row_ids = table.alike(others, questions.key_kind) if others else {}
    missing = [key for key in others if key not in row_ids]
    if missing:
        warnings.warn(
            f"judged keys that '{table.entry.name}' does not have: {len(missing):,}, such as '{missing[0]}'; those "
            "that are relevant count as not found",
            JammiWarning,
            stacklevel=2,
        )
    return [{row_ids.get(key, key): grade for key, grade in mine.items()} for mine in questions.grades]


def _common(ids: Sequence[str | None], kind: str | None) -> list[str]:
    """Ids as one text for each value, such as 1 for 1.0: questions and judgements may have columns of other types."""
    form = form_of(kind)
    texts = [str(each) for each in ids]
    return form.texts(pa.array(texts, pa.string())).to_pylist() if form else texts


def _refuse_nulls(values: Sequence[object], what: str, part: str) -> None:
    count = sum(value is None for value in values)
    if count:
        raise InputError(f"{what} without {part}: {count:,}; leave them out")


def _refuse_repeated(values: Sequence[Any], message: Callable[[Any, int], str]) -> None:
    counts = Counter(values)
    if len(counts) < len(values):
        ((value, times),) = counts.most_common(1)
        raise InputError(message(value, times))


def _nothing(questions: GivenQuestions, judgements: GivenJudgements) -> str:
    if not questions.ids:
        return f"'{questions.name}' has no rows; there must be a question"
    if not judgements.questions:
        return f"'{judgements.name}' has no rows; there must be a judgement"
    return (
        f"no question of '{questions.name}' has a judgement of at least 1 in '{judgements.name}'; compare their ids: a "
        f"question has '{questions.ids[0]}', and a judgement is of '{judgements.questions[0]}'"
    )
