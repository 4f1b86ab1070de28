"""The verbs that say how good a search is, as methods for Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jammi_duck.errors import InputError
from jammi_duck.retrieval.fusion import WEIGHTED
from jammi_duck.retrieval.search import RERANK_K
from jammi_duck.retrieval.tuning import Tuned
from jammi_duck.sql import template
from jammi_duck.storage.words.bm25 import K1, B
from jammi_duck.udfs.arguments import plain

if TYPE_CHECKING:
    import duckdb

    from jammi_duck.statements import Statements
    from jammi_duck.variables import Source


class EvalMethods:
    """The methods of `Jammi` that evaluate."""

    _statements: Statements

    def eval(
        self,
        source: Source,
        questions: Source,
        judgements: Source,
        k: int = 10,
        *,
        model: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        mode: str = "auto",
        weight: float = WEIGHTED.weight,
        fusion: str = "weighted",
        k1: float = K1,
        b: float = B,
        rerank: str | None = None,
        rerank_k: int = RERANK_K,
        question_columns: Sequence[str] | None = None,
        judgement_columns: Sequence[str] | None = None,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """How good a search is, by judged questions, a row for each metric: SQL's `jammi_eval`.

        Args:
            source: what was embedded.
            questions: the questions: ids that are unique, and texts.
            judgements: for a question's id and a key of the source, a grade: 1 or more for a relevant row, else 0.
            k: how many rows of each answer count.
            model: search the embedding table of this model; by default the newest of any.
            exact: compare with every vector, without the index.
            embedding_table: search this one.
            min_similarity: leave out rows whose cosine is less.
            mode: search by 'text', by 'vector', or by both ('hybrid'), as in `search`; by default by both, if it can.
            weight: in a hybrid search, of the vectors, from 0 to 1.
            fusion: how a hybrid search adds both up: 'weighted', or 'rrf'.
            k1: of BM25, 0 or more.
            b: of BM25, from 0 to 1.
            rerank: a cross-encoder that ranks the rows by their texts.
            rerank_k: how many rows of the search it reads; at least `k`.
            question_columns: the columns of `questions` with the id and the text; by default `id` and `text`.
            judgement_columns: the columns of `judgements` with the question, the key and the grade; by default these.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation: metric VARCHAR, k INTEGER, value DOUBLE, low DOUBLE, high DOUBLE, question_count BIGINT,
            skipped_count BIGINT, embedding_table VARCHAR.

        Raises:
            NotFoundError: the source has no embedding table. NoSourceError: a source is not there.
            InputError: an argument, a question or a judgement is wrong, or no question has a relevant row.

        Example:
            >>> con.execute("CREATE TABLE asked AS SELECT 1 AS id, 'a fish' AS text") and None
            >>> con.execute("CREATE TABLE judged AS SELECT 1 AS question, 4 AS key, 1 AS grade") and None
            >>> jammi.eval("animals", "asked", "judged").filter("metric = 'mrr'").project("value").fetchall()
            [(1.0,)]
        """
        text = template(
            "SELECT * FROM jammi_eval({}, {}, {}, {}, model := {}, exact := {}, embedding_table := {}, "
            "min_similarity := {}, mode := {}, weight := {}, fusion := {}, k1 := {}, b := {}, rerank := {}, "
            'rerank_k := {}, question_columns := {}, judgement_columns := {}, "column" := {})'
        )
        ranking = (mode, weight, fusion, k1, b, rerank, rerank_k)
        way = (model, exact, embedding_table, min_similarity, *ranking)
        columns = _listed(question_columns), _listed(judgement_columns)
        return self._statements.kept(text, (source, questions, judgements), k, *way, *columns, column)

    def eval_queries(
        self,
        source: Source,
        questions: Source,
        judgements: Source,
        k: int = 10,
        *,
        model: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        mode: str = "auto",
        weight: float = WEIGHTED.weight,
        fusion: str = "weighted",
        k1: float = K1,
        b: float = B,
        rerank: str | None = None,
        rerank_k: int = RERANK_K,
        question_columns: Sequence[str] | None = None,
        judgement_columns: Sequence[str] | None = None,
        column: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """What a search found for each judged question, and how good that is: SQL's `jammi_eval_queries`.

        Args:
            source: what was embedded.
            questions: the questions: ids that are unique, and texts.
            judgements: for a question's id and a key of the source, a grade: 1 or more for a relevant row, else 0.
            k: how many rows of each answer count.
            model: search the embedding table of this model; by default the newest of any.
            exact: compare with every vector, without the index.
            embedding_table: search this one.
            min_similarity: leave out rows whose cosine is less.
            mode: search by 'text', by 'vector', or by both ('hybrid'), as in `search`; by default by both, if it can.
            weight: in a hybrid search, of the vectors, from 0 to 1.
            fusion: how a hybrid search adds both up: 'weighted', or 'rrf'.
            k1: of BM25, 0 or more.
            b: of BM25, from 0 to 1.
            rerank: a cross-encoder that ranks the rows by their texts.
            rerank_k: how many rows of the search it reads; at least `k`.
            question_columns: the columns of `questions` with the id and the text; by default `id` and `text`.
            judgement_columns: the columns of `judgements` with the question, the key and the grade; by default these.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            A relation: question VARCHAR, text VARCHAR, relevant_count BIGINT, recall DOUBLE, precision DOUBLE,
            hit DOUBLE, mrr DOUBLE, ndcg DOUBLE, map DOUBLE, keys VARCHAR[], grades BIGINT[], missed VARCHAR[].

        Raises:
            JammiError: the same as `eval`.

        Example:
            >>> con.execute("CREATE TABLE asked AS SELECT 1 AS id, 'a fish' AS text") and None
            >>> con.execute("CREATE TABLE judged AS SELECT 1 AS question, 4 AS key, 1 AS grade") and None
            >>> jammi.eval_queries("animals", "asked", "judged", 1).project("question, keys, grades").fetchall()
            [('1', ['4'], [1])]
        """
        text = template(
            "SELECT * FROM jammi_eval_queries({}, {}, {}, {}, model := {}, exact := {}, embedding_table := {}, "
            "min_similarity := {}, mode := {}, weight := {}, fusion := {}, k1 := {}, b := {}, rerank := {}, "
            'rerank_k := {}, question_columns := {}, judgement_columns := {}, "column" := {})'
        )
        ranking = (mode, weight, fusion, k1, b, rerank, rerank_k)
        way = (model, exact, embedding_table, min_similarity, *ranking)
        columns = _listed(question_columns), _listed(judgement_columns)
        return self._statements.kept(text, (source, questions, judgements), k, *way, *columns, column)

    def eval_compare(
        self,
        source: Source,
        questions: Source,
        judgements: Source,
        ways: Sequence[Mapping[str, object]],
        k: int = 10,
        *,
        metric: str = "ndcg",
        question_columns: Sequence[str] | None = None,
        judgement_columns: Sequence[str] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """Which of several ways to search is better, and whether beyond chance: SQL's `jammi_eval_compare`.

        Args:
            source: what was embedded.
            questions: the questions: ids that are unique, and texts.
            judgements: for a question's id and a key of the source, a grade: 1 or more for a relevant row, else 0.
            ways: at least two: the options of each by name, which are those of `eval` that choose a table or rank, such
                as `model`, `mode` and `rerank`. All others are compared with the first.
            k: how many rows of each answer count.
            metric: `recall`, `precision`, `hit`, `mrr`, `ndcg` or `map`.
            question_columns: the columns of `questions` with the id and the text; by default `id` and `text`.
            judgement_columns: the columns of `judgements` with the question, the key and the grade; by default these.

        Returns:
            A relation: way INTEGER, options VARCHAR, metric VARCHAR, k INTEGER, value DOUBLE, difference DOUBLE,
            low DOUBLE, high DOUBLE, p_value DOUBLE, won BIGINT, lost BIGINT, question_count BIGINT,
            skipped_count BIGINT, embedding_table VARCHAR.

        Raises:
            JammiError: the same as `eval`. InputError: an option of a way is unknown, or there is one way only.

        Example:
            >>> con.execute("CREATE TABLE asked AS SELECT 1 AS id, 'a fish' AS text") and None
            >>> con.execute("CREATE TABLE judged AS SELECT 1 AS question, 4 AS key, 1 AS grade") and None
            >>> compared = jammi.eval_compare("animals", "asked", "judged", [{}, {"exact": True}])
            >>> compared.project("way, value, difference, won, lost").fetchall()
            [(1, 1.0, None, None, None), (2, 1.0, 0.0, 0, 0)]
        """
        text = template(
            "SELECT * FROM jammi_eval_compare({}, {}, {}, {}, {}, metric := {}, question_columns := {}, "
            "judgement_columns := {})"
        )
        try:
            listed = json.dumps([{name: plain(value) for name, value in way.items()} for way in ways])
        except (AttributeError, TypeError, ValueError):
            raise InputError("ways is not a list of dicts whose values are texts, numbers, True or False") from None
        columns = _listed(question_columns), _listed(judgement_columns)
        return self._statements.kept(text, (source, questions, judgements), listed, k, metric, *columns)

    def tune(
        self,
        source: Source,
        questions: Source,
        judgements: Source,
        k: int = 10,
        *,
        metric: str = "ndcg",
        model: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        k1: float = K1,
        b: float = B,
        question_columns: Sequence[str] | None = None,
        judgement_columns: Sequence[str] | None = None,
        column: str | None = None,
    ) -> Tuned:
        """The weight of a hybrid search that is best for judged questions: SQL's `jammi_tune`.

        Args:
            source: what was embedded.
            questions: at least five questions with a relevant row: ids that are unique, and texts.
            judgements: for a question's id and a key of the source, a grade: 1 or more for a relevant row, else 0.
            k: how many rows of each answer count.
            metric: `recall`, `precision`, `hit`, `mrr`, `ndcg` or `map`.
            model: search the embedding table of this model; by default the newest of any.
            exact: compare with every vector, without the index.
            embedding_table: search this one.
            min_similarity: leave out rows whose cosine is less.
            k1: of BM25, 0 or more.
            b: of BM25, from 0 to 1.
            question_columns: the columns of `questions` with the id and the text; by default `id` and `text`.
            judgement_columns: the columns of `judgements` with the question, the key and the grade; by default these.
            column: which of several embeddings of the source: its label, or the column that it is of.

        Returns:
            The weight, and how it fares on questions that took no part in its choice: weight float, metric str, k int,
            value float, default_value float, difference float, low float, high float, p_value float,
            question_count int, skipped_count int, embedding_table str, advice str, curve list[float].

        Raises:
            JammiError: the same as `eval`. InputError: there are too few questions, or no words.

        Example:
            >>> con.execute("CREATE TABLE asked AS SELECT id, name AS text FROM animals") and None
            >>> con.execute("CREATE TABLE judged AS SELECT id AS question, id AS key, 1 AS grade FROM animals") and None
            >>> jammi.tune("animals", "asked", "judged", 1).weight
            0.7
        """
        text = template(
            "SELECT * FROM jammi_tune({}, {}, {}, {}, metric := {}, model := {}, exact := {}, embedding_table := {}, "
            'min_similarity := {}, k1 := {}, b := {}, question_columns := {}, judgement_columns := {}, "column" := {})'
        )
        way = (model, exact, embedding_table, min_similarity, k1, b)
        columns = _listed(question_columns), _listed(judgement_columns)
        (row,) = self._statements.rows(text, (source, questions, judgements), k, metric, *way, *columns, column)
        return Tuned(*row)


def _listed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else [columns] if isinstance(columns, str) else list(columns)
