"""The command that evaluates a search: eval."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jammi_duck.doors.cli.commands import (
    Commands,
    add_chosen,
    add_command,
    add_database,
    add_json,
    add_rerank,
    names,
    number,
)
from jammi_duck.doors.cli.connection import equipped
from jammi_duck.doors.cli.output import fact_lines, print_json, print_objects, print_rows
from jammi_duck.doors.cli.picture import bars, curve
from jammi_duck.errors import InputError
from jammi_duck.jammi import Jammi
from jammi_duck.retrieval.metrics import METRICS
from jammi_duck.retrieval.search import Mode
from jammi_duck.retrieval.tuning import DEFAULT_WEIGHT, WEIGHTS
from jammi_duck.sql import quoted, sql

_EVAL = """\
Measure how good a search is, by questions with judged answers.

  jammi-duck eval tickets questions judgements
  jammi-duck eval tickets questions.csv judgements.csv --svg eval.svg
  jammi-duck eval tickets questions judgements --queries
  jammi-duck eval tickets questions judgements --compare mode=vector --compare mode=hybrid

QUESTIONS has the columns id and text. JUDGEMENTS has the columns question (an id), key
(of a row of SOURCE) and grade: 1 or more for a row that answers the question. Each metric
comes with its 95 % interval.
"""
_METRICS = sql(
    "metric, k, round(value, 3) AS value, round(low, 3) AS low, round(high, 3) AS high, question_count, skipped_count"
)
_COMPARED = sql(
    "way, options, round(value, 3) AS value, round(difference, 3) AS difference, round(low, 3) AS low, "
    "round(high, 3) AS high, round(p_value, 4) AS p_value, won, lost"
)


def add_to(commands: Commands) -> None:
    """Add this command."""
    command = add_command(commands, "eval", _EVAL, _eval)
    command.add_argument("source", metavar="SOURCE", help="the table, view or file that was embedded")
    command.add_argument("questions", metavar="QUESTIONS", help="a table, view or file with the questions")
    command.add_argument("judgements", metavar="JUDGEMENTS", help="a table, view or file with the judgements")
    command.add_argument("-k", metavar="N", type=number, default=10, help="the rows that count (default: %(default)s)")
    command.add_argument(
        "--metric", choices=METRICS, default="ndcg", help="the metric of all but the first form (default: %(default)s)"
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--queries", action="store_true", help="a row for each question, the worst first")
    what.add_argument(
        "--compare",
        metavar="OPTIONS",
        type=_way,
        action="append",
        help="a way to search, as NAME=VALUE,NAME=VALUE; each further way is compared with the first",
    )
    what.add_argument("--tune", action="store_true", help="find the weight of a hybrid search")
    add_chosen(command, "search")
    command.add_argument(
        "--mode", choices=[mode.value for mode in Mode], help="search by words (text), by vectors, or by both (hybrid)"
    )
    command.add_argument(
        "--weight", metavar="W", type=float, help="in a hybrid search, the share of the vectors, 0 to 1"
    )
    add_rerank(command)
    command.add_argument("--exact", action="store_true", help="compare with every vector, without the index")
    command.add_argument("--min-similarity", metavar="X", type=float, help="leave out rows with a smaller similarity")
    command.add_argument(
        "--question-columns", metavar="A,B", type=names, help="the columns with the id and the text (default: id,text)"
    )
    command.add_argument(
        "--judgement-columns",
        metavar="A,B,C",
        type=names,
        help="the columns with the question, the key and the grade (default: question,key,grade)",
    )
    command.add_argument(
        "--svg", metavar="FILE", help="draw a bar for each question, or with --tune the metric against the weight"
    )
    add_database(command)
    add_json(command)


def _eval(options: argparse.Namespace) -> None:
    if options.compare is not None:
        _compare(options)
        return
    if options.tune and _ranking(options):
        raise InputError(
            "--tune finds the weight of a hybrid search; leave out --mode, --weight and --rerank, which --compare takes"
        )
    with equipped(options, read_only=True) as jammi:
        if options.tune:
            _tune(options, jammi)
            return
        given, way = _given(options), {**_search_options(options), **_columns(options)}
        questions = jammi.eval_queries(*given, **way) if options.queries or options.svg else None
        if questions is not None and options.svg:
            columns = f"question, text, {quoted(options.metric)}"
            _write(options.svg, bars(options.metric, options.k, questions.project(columns).fetchall()))
        if questions is not None and options.queries:
            worst = questions.order(f"{quoted(options.metric)} ASC")
            shown = f"question, text, round({quoted(options.metric)}, 3) AS {quoted(options.metric)}, missed, keys"
            print_json(worst) if options.json else print_rows(worst.project(shown))
        else:
            found = jammi.eval(*given, **way)
            print_json(found) if options.json else print_rows(found.project(str(_METRICS)))


def _compare(options: argparse.Namespace) -> None:
    if options.svg:
        raise InputError("--svg draws one way to search, or with --tune its weights; leave out --compare")
    if _search_options(options):
        raise InputError("write the options of a search into each --compare, such as --compare exact=true")
    with equipped(options, read_only=True) as jammi:
        source, questions, judgements, k = _given(options)
        found = jammi.eval_compare(
            source,
            questions,
            judgements,
            options.compare,
            k,
            metric=options.metric,
            **_columns(options),
        )
        print_json(found) if options.json else print_rows(found.project(str(_COMPARED)))


def _tune(options: argparse.Namespace, jammi: Jammi) -> None:
    given = {"metric": options.metric, **_search_options(options), **_columns(options)}
    tuned = jammi.tune(*_given(options), **given)
    if options.svg:
        drawn = curve(tuned.metric, tuned.k, WEIGHTS, tuned.curve, tuned.weight, DEFAULT_WEIGHT)
        _write(options.svg, drawn)
    if options.json:
        print_objects([vars(tuned)])
    else:
        print(*fact_lines({name: value for name, value in vars(tuned).items() if name != "curve"}), sep="\n")


def _given(options: argparse.Namespace) -> tuple[str, str, str, int]:
    return options.source, options.questions, options.judgements, options.k


def _search_options(options: argparse.Namespace) -> dict[str, Any]:
    given = {
        "model": options.model,
        "exact": options.exact or None,
        "embedding_table": options.table,
        "column": options.column,
        "min_similarity": options.min_similarity,
        **_ranking(options),
    }
    return {name: value for name, value in given.items() if value is not None}


def _ranking(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("mode", "weight", "rerank", "rerank_k")}
    return {name: value for name, value in given.items() if value is not None}


def _columns(options: argparse.Namespace) -> dict[str, Any]:
    return {"question_columns": options.question_columns, "judgement_columns": options.judgement_columns}


def _way(text: str) -> dict[str, str]:
    """`model=all-mpnet-base-v2,exact=true` as options; an empty text is a way without any."""
    pairs = [each.partition("=") for each in text.split(",") if each.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _write(file: str, drawn: str) -> None:
    try:
        Path(file).write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise InputError(f"'{file}' cannot be written: {error.strerror}; name another file with --svg") from error
