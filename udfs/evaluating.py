"""The scalar functions of evaluations: the query that reads questions and judgements, and what is made of them."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jammi_duck.errors import InputError
from jammi_duck.retrieval.evaluation import (
    Answered,
    MetricRow,
    QuestionRow,
    WayRow,
    answer,
    check_metric,
    metric_rows,
    question_rows,
    ranked_answers,
    way_rows,
)
from jammi_duck.retrieval.judgements import GivenJudgements, GivenQuestions, JudgedQuestions, judged_questions
from jammi_duck.retrieval.tuning import Tuned, tune
from jammi_duck.retrieval.ways import Way, way_of
from jammi_duck.sql import NULL, Sql, joined, literal, sql, template
from jammi_duck.storage.tables.table import Answers
from jammi_duck.udfs.arguments import parse_int
from jammi_duck.udfs.columns import Column, packed, records, table
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.rows import column_names, picked, texts_picked
from jammi_duck.udfs.search_plan import scored_hits, selection_query
from jammi_duck.udfs.searching import places_of
from jammi_duck.udfs.sources import SearchPath, resolve
from jammi_duck.udfs.table_lookup import Choice

# The default columns of questions and of judgements.
_QUESTION = ("id", "text")
_JUDGEMENT = ("question", "key", "grade")
_WAYS = "give a list of 2 to 64 ways, such as [{'exact': false}, {'exact': true}]"
# A query keeps so many selections.
_MOST_WAYS = 64
_ARGUMENTS = sql("_jammi_arguments")
_COMPARE, _TUNE = "compare", "tune"
_CALLS = {
    "metrics": template("_jammi_eval({}, {})"),
    "questions": template("_jammi_eval_queries({}, {})"),
    _COMPARE: template("_jammi_eval_compare({}, {})"),
    _TUNE: template("_jammi_tune({})"),
}


@dataclass(frozen=True)
class EvaluateCall:
    """The arguments of `jammi_eval` and its like as SQL gives them; the ways and the columns are JSON."""

    source: str | None
    search_path: SearchPath
    questions: str | None
    judgements: str | None
    ways: str | None
    k: str | None
    metric: str | None
    question_columns: str | None
    judgement_columns: str | None
    transaction: int
    session: str


@dataclass(frozen=True)
class EvaluateArguments:
    """Arguments of `_jammi_eval` and its like: the request as JSON, what the sources have, and a token for each way."""

    request: str
    ids: list[str | None]
    texts: list[str | None]
    id_kind: str | None
    judged: list[str | None]
    keys: list[str | None]
    grades: list[float | None]
    judged_kind: str | None
    key_kind: str | None
    tokens: list[str]


@dataclass(frozen=True)
class EvaluatedHit:
    """A row that a way with a re-ranker finds: of which question, by its place and its text, and in which place.

    Of a table of passages also which place in which text was found.
    """

    _jammi_question: int
    _jammi_query: str
    _jammi_place: int
    _jammi_row_id: str
    _jammi_start: int | None
    _jammi_end: int | None
    _jammi_row_digest: str | None


@dataclass(frozen=True)
class RerankedRow:
    """A row of such an answer. A list of them is in the order of ways, of questions, and of what the re-ranker says."""

    way: int
    question: int
    row_id: str


def eval_plan(engine: Engine, call: EvaluateCall, verb: str) -> Sql:
    """The query that reads questions and judgements within the caller's own transaction, and evaluates the ways.

    `verb` says what is asked for: one of `_CALLS`.
    """
    k = _k(call.k)
    given = _listed(call.ways) if verb == _COMPARE else [json.loads(call.ways or "{}")]
    ways = [way_of(each, k) for each in given]
    metric = check_metric(call.metric) if verb in (_COMPARE, _TUNE) else None
    questions, judgements = (resolve(each, call.search_path, engine.host) for each in (call.questions, call.judgements))
    id_, text = _columns(call.question_columns, "question_columns", _QUESTION)
    judged, *others = _columns(call.judgement_columns, "judgement_columns", _JUDGEMENT)
    request = {
        "k": k,
        "metric": metric,
        "ways": [json.loads(way.written) for way in ways],
        "questions": questions.written,
        "judgements": judgements.written,
    }
    chosen = [
        Choice(call.source, call.search_path, way.model, way.embedding_table, way.column, call.transaction)
        for way in ways
    ]
    choices = list(dict.fromkeys(chosen))
    selections = [
        selection_query(engine, each, call.session, predicate=None, is_joined=True, traced=False) for each in choices
    ]
    places = (choices.index(each) for each in chosen)
    arguments = packed(
        EvaluateArguments,
        request=literal(json.dumps(request)),
        ids=sql("q.ids"),
        texts=sql("q.texts"),
        id_kind=sql("q.kind"),
        judged=sql("j.judged"),
        keys=sql("j.keys"),
        grades=sql("j.grades"),
        judged_kind=sql("j.kind"),
        key_kind=sql("j.key_kind"),
        tokens=sql("list_value({})", joined(", ", (sql("s{}._jammi_token", place) for place in places))),
    )
    reranked = _reranked(engine, ways, chosen)
    return sql(
        "WITH _jammi_given AS {materialized} (SELECT {arguments} AS _jammi_arguments FROM "
        "(SELECT list(c0::VARCHAR ORDER BY {order}) AS ids, list(c1::VARCHAR ORDER BY {order}) AS texts, "
        "any_value(typeof(c0)) AS kind FROM ({questions})) q, "
        "(SELECT list(c0::VARCHAR) AS judged, list(c1::VARCHAR) AS keys, list(TRY_CAST(c2 AS DOUBLE)) AS grades, "
        "any_value(typeof(c0)) AS kind, any_value(typeof(c1)) AS key_kind FROM ({judgements})) j, {selections}) "
        "SELECT unnest({call}, recursive := true) FROM _jammi_given",
        materialized=sql("NOT MATERIALIZED") if reranked is NULL else sql("MATERIALIZED"),
        arguments=arguments,
        call=_CALLS[verb](*[_ARGUMENTS] if verb == _TUNE else [_ARGUMENTS, reranked]),
        # Whatever collation the column or the session has, both lists have one order.
        order=sql('c0 ASC, c0::VARCHAR COLLATE "C" ASC'),
        questions=texts_picked(questions, [text], id_, advice=_advice("question_columns", _QUESTION)),
        judgements=picked(judgements, others, judged, advice=_advice("judgement_columns", _JUDGEMENT)),
        selections=joined(", ", (sql("({}) s{}", each, place) for place, each in enumerate(selections))),
    )


def _reranked(engine: Engine, ways: Sequence[Way], chosen: Sequence[Choice]) -> Sql:
    """SQL for a list of `RerankedRow`, of the ways that have a re-ranker; NULL if none has."""
    answers = [
        sql(
            "SELECT {place}::BIGINT AS _jammi_way, * FROM ({scored})",
            place=place,
            scored=scored_hits(
                engine,
                choice,
                sql("SELECT unnest(_jammi_eval_hits({}, {}), recursive := true) FROM _jammi_given", _ARGUMENTS, place),
                way.options.rerank,
            ),
        )
        for place, (way, choice) in enumerate(zip(ways, chosen, strict=True))
        if way.options.rerank is not None
    ]
    if not answers:
        return NULL
    row = packed(RerankedRow, way=sql("_jammi_way"), question=sql("_jammi_question"), row_id=sql("_jammi_row_id"))
    order = sql("_jammi_way ASC, _jammi_question ASC, _jammi_rerank DESC NULLS LAST, _jammi_place ASC")
    return sql("(SELECT list({} ORDER BY {}) FROM ({}))", row, order, joined(" UNION ALL BY NAME ", answers))


def hits_to_rerank(engine: Engine, arguments: Column, ways: Column) -> pa.Array:
    """The rows that a way finds, by its place among the ways, for a re-ranker."""
    rows = []
    for each, place in zip(records(arguments, EvaluateArguments), ways.to_pylist(), strict=True):
        questions, way = _questions(each, warned=True), _ways(each)[place]
        selected = engine.selections.of(each.tokens[place])
        answers = ranked_answers(engine.tables, engine.encoders, selected, way, questions.texts)
        rows.append(list(_hits_of(questions.texts, answers)))
    return table(rows, EvaluatedHit)


def _hits_of(texts: Sequence[str], answers: Iterable[Answers]) -> Iterator[EvaluatedHit]:
    """The hits of questions, in their order."""
    numbered = iter(enumerate(texts))
    for each in answers:
        _, *places = places_of(each)
        found = zip(each.row_ids.to_pylist(), *(place.to_pylist() for place in places), strict=True)
        for count in each.counts.tolist():
            question, text = next(numbered)
            for rank, hit in enumerate(itertools.islice(found, count)):
                yield EvaluatedHit(question, text, rank, *hit)


def evaluate(engine: Engine, arguments: Column, reranked: Column) -> pa.Array:
    """The metrics of a way to search."""
    rows = []
    for each, mine in zip(records(arguments, EvaluateArguments), reranked.to_pylist(), strict=True):
        questions, (answered,) = _answered(engine, each, mine)
        rows.append(metric_rows(answered, questions))
    return table(rows, MetricRow)


def evaluate_questions(engine: Engine, arguments: Column, reranked: Column) -> pa.Array:
    """The answers of a way to search, question by question."""
    rows = []
    for each, mine in zip(records(arguments, EvaluateArguments), reranked.to_pylist(), strict=True):
        questions, (answered,) = _answered(engine, each, mine)
        rows.append(question_rows(answered, questions))
    return table(rows, QuestionRow)


def compare_ways(engine: Engine, arguments: Column, reranked: Column) -> pa.Array:
    """How ways to search differ from the first."""
    rows = []
    for each, mine in zip(records(arguments, EvaluateArguments), reranked.to_pylist(), strict=True):
        questions, answers = _answered(engine, each, mine)
        rows.append(way_rows(_ways(each), answers, json.loads(each.request)["metric"], questions))
    return table(rows, WayRow)


def tune_weight(engine: Engine, arguments: Column) -> pa.Array:
    """The weight of a fusion that is best for a metric."""
    rows = []
    for each in records(arguments, EvaluateArguments):
        (way,), metric = _ways(each), json.loads(each.request)["metric"]
        selected = engine.selections.of(each.tokens[0])
        rows.append([tune(engine.tables, engine.encoders, selected, way, metric, _questions(each))])
    return table(rows, Tuned)


def _answered(
    engine: Engine, given: EvaluateArguments, reranked: Sequence[Mapping[str, Any]] | None
) -> tuple[JudgedQuestions, list[Answered]]:
    selections = [engine.selections.of(token) for token in given.tokens]
    questions, ways = _questions(given), _ways(given)
    # Rows whose key was doubled in the source are there twice.
    found: defaultdict[tuple[int, int], dict[str, None]] = defaultdict(dict)
    for row in reranked or ():
        found[row["way"], row["question"]][row["row_id"]] = None
    answers = []
    for place, (selected, way) in enumerate(zip(selections, ways, strict=True)):
        ranked = None
        if way.options.rerank is not None:
            ranked = [list(found[place, question])[: way.options.k] for question in range(len(questions.ids))]
        answers.append(answer(engine.tables, engine.encoders, selected, way, questions, ranked))
    return questions, answers


def _questions(given: EvaluateArguments, *, warned: bool = False) -> JudgedQuestions:
    request = json.loads(given.request)
    return judged_questions(
        GivenQuestions(request["questions"], given.ids or [], given.texts or [], given.id_kind),
        GivenJudgements(
            request["judgements"],
            given.judged or [],
            given.keys or [],
            given.grades or [],
            given.judged_kind,
            given.key_kind,
        ),
        warned=warned,
    )


def _ways(given: EvaluateArguments) -> list[Way]:
    request = json.loads(given.request)
    return [way_of(each, request["k"]) for each in request["ways"]]


def _k(text: str | None) -> int:
    k = parse_int(text, "k")
    if k is None or k < 1:
        raise InputError(f"k is {'NULL' if k is None else k}; it must be at least 1")
    return k


def _listed(ways: str | None) -> list[object]:
    """The ways of a comparison: a list of STRUCTs, or the same as JSON."""
    given = json.loads(ways or "null")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise InputError(f"ways is {given!r}, which is no JSON; {_WAYS}") from None
    if not isinstance(given, list) or not 2 <= len(given) <= _MOST_WAYS:
        count = f"a list of {len(given)}" if isinstance(given, list) else json.dumps(given)
        raise InputError(f"ways is {count}; {_WAYS}")
    return given


def _columns(given: str | None, option: str, default: Sequence[str]) -> Sequence[str]:
    if given in (None, "null"):
        return default
    names = column_names(str(given))
    if len(names) != len(default):
        raise InputError(f"{option} is {', '.join(names)}; name {len(default)}: {_these(default)}, in this order")
    return names


def _advice(option: str, default: Sequence[str]) -> str:
    return f"Name the columns with {option} := ['...'], in this order: {_these(default)}"


def _these(default: Sequence[str]) -> str:
    return ", ".join(f"the {name}" for name in default)
