"""The scalar functions: for each its SQL name and types, and what is called.

Both hosts, Python's DuckDB and the command line's, register this one list. All functions see NULLs. A volatile one
is called at each execution and never by EXPLAIN; the others may be folded while a query is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from jammi_duck.encoder.listing import ModelRow
from jammi_duck.errors import InputError
from jammi_duck.retrieval.check import Checked
from jammi_duck.retrieval.evaluation import MetricRow, QuestionRow, WayRow
from jammi_duck.retrieval.tuning import Tuned
from jammi_duck.sql import Sql
from jammi_duck.storage.tables.recovery import Action
from jammi_duck.storage.tables.removal import Removed
from jammi_duck.udfs import (
    building,
    column_search,
    embedding,
    evaluating,
    filling,
    importing,
    indexing_words,
    passages,
    refreshing,
    renewing,
    search_plan,
    searching,
    snippets,
    splitting,
    upkeep,
)
from jammi_duck.udfs.columns import Column, fields_of, struct_type, table_type
from jammi_duck.udfs.engine import Engine, ScalarFunction
from jammi_duck.udfs.following import FollowedRow, UnfollowedRow, follow, unfollow
from jammi_duck.udfs.freshening import CANDIDATES, freshen
from jammi_duck.udfs.refreshing import TableStatus
from jammi_duck.udfs.rows import which_column
from jammi_duck.udfs.sources import SearchPath
from jammi_duck.udfs.table_lookup import Choice
from jammi_duck.work.compact import Compacted
from jammi_duck.work.generate import Census, Generated
from jammi_duck.work.index_words import WordsIndexed
from jammi_duck.work.refresh import Refreshed
from jammi_duck.work.sync import Synced


def _refuse(engine: Engine, reasons: Column, _seen: Column) -> pa.Array:
    """An error, where a query finds that it cannot be what it was planned to be. Raises InputError."""
    for reason in reasons.to_pylist():
        raise InputError(reason)
    return pa.array([], pa.string())


def _function(
    name: str, parameters: Sequence[str], returns: str, volatile: bool, call: Callable[..., pa.Array]
) -> ScalarFunction:
    return ScalarFunction(f"_jammi_{name}", tuple(parameters), returns, volatile, call)


def _sql_function(name: str, arguments: type, call: Callable[..., Sql], *more: str) -> ScalarFunction:
    """A function whose text becomes part of a query while that is bound.

    `arguments` is a dataclass of what it gets: a source, the database and the search path by which that is read, and so
    on. `more` are the SQL types of what `call` gets beside it.
    """
    source_type, _, *types = fields_of(arguments).values()

    def statement(engine: Engine, source: str | None, database: str, path: str, *values: Any) -> Sql:
        return call(engine, arguments(source, SearchPath(database, path), *values[: len(types)]), *values[len(types) :])

    return ScalarFunction(
        f"_jammi_{name}", (source_type, *_PATH, *types, *more), "VARCHAR", False, statement, by_row=True
    )


_TEXT, _NUMBER = "VARCHAR", "BIGINT"
_CALLER = (_TEXT, _NUMBER)
# The database and the search path.
_PATH = (_TEXT, _TEXT)
# A source, and how its embedding table is chosen: see `table_lookup.Choice`.
_CHOICE = (_TEXT, *_PATH, _TEXT, _TEXT, _TEXT, _NUMBER)
# How many, whether exactly, how near, how ranked, and the names of the parameters: those given, those of the filter.
# They are no STRUCT, since to plan a search with one takes 0.2 ms more.
_ASKED = (_TEXT, "BOOLEAN", "DOUBLE", "VARCHAR[]", "VARCHAR[]", "VARCHAR[]")
# The session, the filter, whether the source is joined, the search traced, and fresh, and by how many texts.
_SELECTED = (_TEXT, _TEXT, "BOOLEAN", "BOOLEAN", "BOOLEAN", _TEXT)
# A text or a vector, whether either is there, the model, how many, how near, and the names of parameters.
_ASKED_COLUMN = (_TEXT, "DOUBLE[]", "BOOLEAN", _TEXT, _TEXT, "DOUBLE", "VARCHAR[]", "VARCHAR[]")
_SELECTION = struct_type(searching.SelectArguments)
_HITS = table_type(searching.Hit)
_TUNED = (struct_type(evaluating.EvaluateArguments),)
_EVALUATED = (*_TUNED, table_type(evaluating.RerankedRow))
FUNCTIONS = (
    _function("embed", (_TEXT, _TEXT, _TEXT, _TEXT), "FLOAT[]", False, embedding.embed),
    _function("takes_images", (_TEXT,), "BOOLEAN", False, embedding.takes_images),
    _function("snippet", (_TEXT, _TEXT, _TEXT, _TEXT, _TEXT), _TEXT, False, snippets.snippets),
    _function(
        "split", (_TEXT, _TEXT, _TEXT, _TEXT, _TEXT), table_type(splitting.PassageOfText), False, splitting.split
    ),
    _function("slices", (_TEXT, "BIGINT[]", "BIGINT[]"), "VARCHAR[]", False, splitting.slices),
    _function("rerank", (_TEXT, _TEXT, _TEXT), "FLOAT", False, embedding.rerank),
    _function("column", (_TEXT, _TEXT, _TEXT, _TEXT), "BOOLEAN", False, which_column),
    _sql_function("generate_plan", building.GenerateCall, building.generate_plan),
    # Not volatile, since a selection that may call it is none.
    _function("refuse", (_TEXT, _TEXT), _TEXT, False, _refuse),
    _function("begin", (struct_type(building.BeginArguments),), "VARCHAR[]", True, building.begin),
    _function("push", (_TEXT, _TEXT, _TEXT), "INTEGER", True, building.push),
    _function("finish", ("VARCHAR[]", "BIGINT[]"), table_type(Generated), True, building.finish),
    _sql_function("refresh_plan", Choice, refreshing.refresh_plan, _TEXT),
    _function("refresh", (struct_type(refreshing.CompareArguments),), _TEXT, True, refreshing.begin),
    _function("forget", (_TEXT, _TEXT, "INTEGER", _NUMBER), "INTEGER", True, refreshing.forget),
    _function("renew", (_TEXT, "VARCHAR[]", _TEXT, _TEXT, "INTEGER", _NUMBER), "INTEGER", True, refreshing.renew),
    _function("word", (_TEXT, "INTEGER", _NUMBER, _TEXT), "INTEGER", True, renewing.add_words),
    _function(
        "words",
        (_TEXT, _TEXT, _TEXT, "INTEGER[]", "BIGINT[]", "BIGINT[]", "BIGINT[]", _TEXT),
        "INTEGER",
        True,
        renewing.add_words_of_passages,
    ),
    _function(
        "cut",
        (_TEXT, _TEXT, _TEXT, _TEXT, struct_type(Census)),
        struct_type(renewing.CutRow),
        True,
        renewing.cut,
    ),
    _function(
        "renew_passages",
        (_TEXT, "VARCHAR[]", _TEXT, _TEXT, _TEXT, "BIGINT[]", "BIGINT[]", "INTEGER[]", "BIGINT[]"),
        "INTEGER",
        True,
        renewing.renew_passages,
    ),
    _function("refreshed", (_TEXT, _NUMBER, _NUMBER), table_type(Refreshed), True, refreshing.finish),
    _sql_function("sync_plan", building.SyncCall, building.sync_plan),
    _function("synced", (_TEXT, "VARCHAR[]", "BIGINT[]", _NUMBER), table_type(Synced), True, building.finish_sync),
    _function("resumed", (_TEXT, _NUMBER, _NUMBER), table_type(Generated), True, building.finish_resumed),
    _sql_function("status_plan", Choice, refreshing.status_plan, _TEXT),
    _function("status", (struct_type(refreshing.CompareArguments),), table_type(TableStatus), True, refreshing.status),
    _sql_function("index_words_plan", Choice, indexing_words.index_words_plan, _TEXT, _TEXT),
    _function("index_words", (struct_type(refreshing.CompareArguments),), _TEXT, True, indexing_words.begin),
    _function("words_indexed", (_TEXT, _NUMBER), table_type(WordsIndexed), True, indexing_words.finish),
    _function("freshen", (struct_type(refreshing.CompareArguments), CANDIDATES), _TEXT, True, freshen),
    _function("follow", (*_CHOICE, _TEXT, "BOOLEAN"), table_type(FollowedRow), True, follow),
    _function("unfollow", (_TEXT, *_PATH, _NUMBER, _TEXT), table_type(UnfollowedRow), True, unfollow),
    _sql_function("passages_plan", Choice, passages.passages_plan, _TEXT),
    _sql_function("compact_plan", Choice, refreshing.compact_plan, _TEXT),
    _function("compact", (_TEXT, *_CALLER), table_type(Compacted), True, refreshing.compact_tables),
    _sql_function("import_plan", importing.ImportCall, importing.import_plan),
    _function("import", (struct_type(importing.ImportArguments),), _TEXT, True, importing.begin_import),
    _function(
        "take",
        (_TEXT, _TEXT, "DOUBLE[]", _TEXT, _TEXT, "INTEGER", _NUMBER, _NUMBER, _NUMBER, _TEXT),
        "INTEGER",
        True,
        importing.take,
    ),
    _function("imported", (_TEXT, _NUMBER), table_type(Generated), True, importing.finish_import),
    _sql_function("fill_plan", filling.FillCall, filling.fill_plan),
    _function(
        "fill", (struct_type(filling.FillArguments),), table_type(filling.ColumnFilled), True, filling.fill_columns
    ),
    _sql_function("column_search", column_search.ColumnSearchCall, column_search.column_search_query),
    _function("ask", _ASKED_COLUMN, struct_type(column_search.AskedVector), True, column_search.ask),
    _sql_function("infer_plan", embedding.InferCall, embedding.infer_plan),
    _function("infer", (_TEXT, _TEXT, _NUMBER), struct_type(embedding.InferredRow), True, embedding.infer_texts),
    _sql_function("rows", Choice, search_plan.rows_query),
    _sql_function("found", Choice, search_plan.found_query, _TEXT, _TEXT),
    _sql_function("answer", Choice, search_plan.answer_query, _TEXT, _TEXT),
    _sql_function("matched", Choice, search_plan.matches_query),
    _sql_function("selection", Choice, search_plan.selection_query, *_SELECTED),
    # Not volatile, so that DuckDB selects once for all the queries of a LATERAL join.
    _function("select", (_SELECTION, "VARCHAR[]", "BIGINT[]"), _TEXT, False, searching.select),
    _function("clock", (_NUMBER,), "DOUBLE", True, searching.clock),
    _function("search", (_TEXT, _TEXT, "FLOAT[]", "BOOLEAN", *_ASKED), _HITS, True, searching.search_rows),
    _function("search_like", (_TEXT, _TEXT, _TEXT, *_ASKED), _HITS, True, searching.search_like_rows),
    _function("rerank_hits", (_TEXT, _TEXT, _TEXT, _TEXT), "FLOAT", False, searching.rerank_hits),
    _function("stages", (_TEXT, *_CALLER, _NUMBER), table_type(searching.StageRow), True, searching.stages),
    _function("check", (*_CHOICE, _TEXT), table_type(Checked), True, searching.check_index),
    _sql_function("eval_plan", evaluating.EvaluateCall, evaluating.eval_plan, _TEXT),
    _function("eval", _EVALUATED, table_type(MetricRow), True, evaluating.evaluate),
    _function("eval_queries", _EVALUATED, table_type(QuestionRow), True, evaluating.evaluate_questions),
    _function("eval_compare", _EVALUATED, table_type(WayRow), True, evaluating.compare_ways),
    _function("eval_hits", (*_TUNED, _NUMBER), table_type(evaluating.EvaluatedHit), True, evaluating.hits_to_rerank),
    _function("tune", _TUNED, table_type(Tuned), True, evaluating.tune_weight),
    _function("tables", _CALLER, table_type(upkeep.TableRow), True, upkeep.tables),
    _function("models", (_NUMBER,), table_type(ModelRow), True, upkeep.models),
    _function("recover", _CALLER, table_type(Action), True, upkeep.recover),
    _function("drop", (_TEXT, *_CALLER), table_type(Action), True, upkeep.drop_tables),
    _function("vacuum", _CALLER, table_type(Removed), True, upkeep.vacuum_files),
)
