"""Evaluation: metrics as trec_eval has them, intervals, comparisons and tuning, at every door."""

import itertools
import json
import math
import random
import re
import xml.etree.ElementTree as ET

import duckdb
import numpy as np
import pandas as pd
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

import jammi_duck
from jammi_duck import InputError, JammiWarning, NoModelError, NotFoundError
from jammi_duck.doors.cli.picture import bars, curve
from jammi_duck.retrieval import statistics, tuning
from jammi_duck.retrieval.metrics import METRICS, scores_at
from tests.effort import some
from tests.stock_shell import folder, needs_extension, rows, shell  # noqa: F401
from tests.test_cli import call
from tests.test_cross_encoder import make_reranker
from tests.test_generate import error_of

# What trec_eval calls each metric, at k; it does not cut `recip_rank`, so it gets no more than k keys.
TREC = {
    "recall": "recall",
    "precision": "P",
    "hit": "success",
    "mrr": "recip_rank",
    "ndcg": "ndcg_cut",
    "map": "map_cut",
}
KEYS = [f"k{number}" for number in range(12)]
ASKED = [(1, "a small cat"), (2, "water"), (3, "an owl"), (4, "a machine"), (5, "a loud dog"), (6, "night")]
JUDGED = [(1, 1, 2), (1, 2, 0), (2, 3, 1), (2, 4, 3), (3, 5, 1), (4, 1, 0), (5, 1, 1), (5, 2, 2), (6, 5, 1)]


def trec(k, ranked, grades):
    """The metrics of each question by trec_eval itself, from scores that fall strictly."""
    names = {f"{name}.{k}" if name != "recip_rank" else name for name in TREC.values()}
    run = {
        str(i): {key: float(len(keys) - place) for place, key in enumerate(keys[:k])} for i, keys in enumerate(ranked)
    }
    judged = {str(i): dict(each) for i, each in enumerate(grades)}
    found = pytrec_eval.RelevanceEvaluator(judged, names).evaluate(run)
    # trec_eval says nothing of a question whose answer is empty.
    none = dict.fromkeys((f"{name}_{k}" for name in TREC.values()), 0.0) | {"recip_rank": 0.0}
    return {
        metric: [found.get(str(i), none)[name if name == "recip_rank" else f"{name}_{k}"] for i in range(len(ranked))]
        for metric, name in TREC.items()
    }


judged_answers = st.lists(
    st.tuples(
        st.lists(st.sampled_from(KEYS), unique=True),
        # Negative grades too, and at least one relevant key.
        st.dictionaries(st.sampled_from(KEYS), st.integers(-2, 4)).filter(lambda g: any(v > 0 for v in g.values())),
    ),
    min_size=1,
    max_size=5,
)


class TestMetrics:
    @settings(max_examples=some(300))
    @given(st.integers(1, 14), judged_answers)
    def test_they_are_those_of_trec_eval(self, k, answers):
        ranked, grades = zip(*answers, strict=True)
        ours = scores_at(k, ranked, grades)
        assert list(ours) == list(METRICS) == list(TREC)
        for metric, theirs in trec(k, ranked, grades).items():
            assert ours[metric] == pytest.approx(theirs, abs=1e-6), metric

    def test_ties_keep_the_order_of_the_search(self, jammi):
        con = jammi.con
        con.execute("CREATE TABLE t AS SELECT 'r' || range AS id, 'the same words' AS text FROM range(9)")
        jammi.generate("t", "text", "id")
        con.execute("CREATE TABLE q AS SELECT 'a' AS id, 'the words' AS text")
        con.execute("CREATE TABLE j AS FROM (VALUES ('a', 'r2', 1), ('a', 'r7', 3)) t(question, key, grade)")
        (row,) = jammi.eval_queries("t", "q", "j", 5).project("keys, recall, mrr, ndcg, missed").fetchall()
        found = jammi.matches("t", "the words", 5).order("_rank").project("_row_id").fetchall()
        assert row[0] == [key for (key,) in found] == ["r0", "r1", "r2", "r3", "r4"]
        grades = [{"r2": 1, "r7": 3}]
        theirs = trec(5, [row[0]], grades)
        assert row[1:4] == pytest.approx([theirs[name][0] for name in ("recall", "mrr", "ndcg")], abs=1e-6)
        assert row[4] == ["r7"]

    def test_a_worked_example(self):
        (found,) = zip(
            *scores_at(4, [["a", "b", "c", "d", "e"]], [{"b": 3, "d": 1, "e": 1, "z": -5}]).values(), strict=True
        )
        ndcg = (3 / math.log2(3) + 1 / math.log2(5)) / (3 + 1 / math.log2(3) + 1 / 2)
        assert found == pytest.approx((2 / 3, 2 / 4, 1, 1 / 2, ndcg, (1 / 2 + 2 / 4) / 3))


scores = st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]), min_size=1, max_size=40).map(np.array)
differences = st.lists(st.sampled_from([-1.0, -0.3, 0.0, 0.1, 0.7]), min_size=1, max_size=11).map(np.array)


class TestStatistics:
    @settings(max_examples=some(50))
    @given(scores)
    def test_the_interval_holds_the_mean(self, scores):
        low, high = statistics.bootstrap_intervals(scores[:, None])[:, 0]
        assert scores.min() - 1e-12 <= low <= scores.mean() + 1e-12
        assert scores.mean() - 1e-12 <= high <= scores.max() + 1e-12

    def test_columns_are_drawn_alike_and_each_time_the_same(self):
        scores = np.random.default_rng(3).random((700, 2))
        ends = statistics.bootstrap_intervals(scores)
        assert (ends == statistics.bootstrap_intervals(scores)).all()
        assert ends[:, 1] == pytest.approx(statistics.bootstrap_intervals(scores[:, 1:])[:, 0])

    def test_the_interval_is_as_wide_as_theory_has_it(self):
        scores = np.random.default_rng(5).random(400)
        low, high = statistics.bootstrap_intervals(scores[:, None])[:, 0]
        assert high - low == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.05)

    @settings(max_examples=some(50))
    @given(differences)
    def test_few_questions_are_swapped_in_every_way(self, differences):
        every = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))]
        share = np.mean([each >= abs(differences.sum()) - 1e-9 for each in every])
        assert statistics.randomisation_p(differences) == pytest.approx(share)

    def test_of_many_questions_ways_are_drawn(self):
        """By the normal approximation, which is good for so many."""
        noise = np.random.default_rng(7).normal(size=500)
        for shift in (0.0, 0.05, 0.1, 1.0):
            moved = noise - noise.mean() + shift
            z = moved.sum() / math.sqrt((moved**2).sum())
            assert statistics.randomisation_p(moved) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.015)
        assert statistics.randomisation_p(noise + 3) == 1 / 10_001
        assert statistics.randomisation_p(np.zeros(500)) == 1

    @settings(max_examples=some(30))
    @given(scores, st.data())
    def test_two_sides_differ_as_much_as_each_other(self, scores, data):
        from jammi_duck.retrieval.evaluation import difference_of

        others = np.array(data.draw(st.permutations(list(scores))))
        there, back = difference_of(scores, others), difference_of(others, scores)
        assert there.difference == pytest.approx(-back.difference)
        assert (there.won, there.lost, there.p_value) == (back.lost, back.won, pytest.approx(back.p_value))
        assert there.low - 1e-12 <= there.difference <= there.high + 1e-12
        assert difference_of(scores, scores) == type(there)(0, 0, 0, 1, 0, 0)


@pytest.fixture
def asked(jammi, animals):
    """Embedded animals, questions, and judgements of all but one of them."""
    jammi.generate("animals", "text", "id")
    animals.execute("CREATE TABLE questions (id INTEGER, text VARCHAR)")
    animals.execute("CREATE TABLE judgements (question INTEGER, key INTEGER, grade INTEGER)")
    animals.executemany("INSERT INTO questions VALUES (?, ?)", ASKED)
    animals.executemany("INSERT INTO judgements VALUES (?, ?, ?)", JUDGED)
    return jammi


def by_hand(jammi, k=3):
    """The metrics of the questions by trec_eval, from what `jammi.matches` finds."""
    grades = {id_: {str(key): grade for of, key, grade in JUDGED if of == id_} for id_, _ in ASKED}
    texts = {id_: text for id_, text in ASKED if any(grade > 0 for grade in grades[id_].values())}
    ranked = [
        [key for (key,) in jammi.matches("animals", text, k).order("_rank").project("_row_id").fetchall()]
        for text in texts.values()
    ]
    return trec(k, ranked, [grades[id_] for id_ in texts]), ranked


class TestEval:
    CALL = "jammi_eval('animals', 'questions', 'judgements', k := 3)"

    def test_a_row_for_each_metric(self, asked):
        theirs, _ = by_hand(asked)
        found = asked.con.execute(f"FROM {self.CALL}").fetchall()
        assert [row[0] for row in found] == list(METRICS)
        for metric, k, value, low, high, questions, skipped, table in found:
            assert value == pytest.approx(np.mean(theirs[metric]), abs=1e-6)
            assert low - 1e-12 <= value <= high + 1e-12
            assert (k, questions, skipped) == (3, 5, 1)
            assert table.startswith("animals__embedding__")
        assert found == asked.con.execute(f"FROM {self.CALL}").fetchall()
        assert found == asked.eval("animals", "questions", "judgements", 3).fetchall()

    def test_a_row_for_each_question(self, asked):
        theirs, ranked = by_hand(asked)
        found = asked.con.execute("FROM jammi_eval_queries('animals', 'questions', 'judgements', k := 3)")
        names = [column[0] for column in found.description]
        table = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        assert [row["question"] for row in table] == ["1", "2", "3", "5", "6"]
        assert [row["text"] for row in table] == [text for id_, text in ASKED if id_ != 4]
        assert [row["keys"] for row in table] == ranked
        for metric in METRICS:
            assert [row[metric] for row in table] == pytest.approx(theirs[metric], abs=1e-6)
        grades = {(of, str(key)): grade for of, key, grade in JUDGED}
        for row in table:
            of = int(row["question"])
            assert row["grades"] == [grades.get((of, key)) for key in row["keys"]]
            relevant = {key for (other, key), grade in grades.items() if other == of and grade > 0}
            assert row["relevant_count"] == len(relevant)
            assert set(row["missed"]) == relevant - set(row["keys"])
        assert asked.eval_queries("animals", "questions", "judgements", 3).fetchall() == [
            tuple(row.values()) for row in table
        ]

    @pytest.mark.filterwarnings("ignore:'animals' has 4 rows now:jammi_duck.JammiWarning")
    def test_what_a_search_finds_it_evaluates(self, asked):
        """Also by another model, with a smallest similarity, and without rows that the source has lost."""
        con = asked.con
        asked.generate("animals", "name", "id", "fake/other", name="names")
        con.execute("DELETE FROM animals WHERE id = 3")
        for options in (
            "model := 'fake/small'",
            "model := 'fake/other', exact := true",
            "embedding_table := 'names'",
            "model := 'fake/small', min_similarity := 0.4",
        ):
            given = f"('animals', 'questions', 'judgements', k := 4, {options})"
            found = con.execute(f"SELECT question, keys FROM jammi_eval_queries{given}").fetchall()
            theirs = con.execute(
                "SELECT q.id::VARCHAR, list(s._row_id ORDER BY s._rank) FROM questions q, "
                f"jammi_search('animals', q.text, k := 4, {options}) s WHERE q.id <> 4 GROUP BY q.id ORDER BY q.id"
            ).fetchall()
            assert [row for row in found if row[1]] == theirs, options
            assert not any("3" in keys for _, keys in theirs)

    def test_the_transaction_sees_its_own(self, asked):
        con = asked.con
        con.execute("BEGIN")
        con.execute("CREATE TEMP TABLE mine AS SELECT 9 AS id, 'an owl' AS text")
        given = "WITH judged AS (SELECT 9 AS question, 5 AS key, 1 AS grade)"
        found = con.execute(f"{given} SELECT question, hit FROM jammi_eval_queries('animals', 'mine', 'judged')")
        assert found.fetchall() == [("9", 1.0)]
        con.execute("ROLLBACK")

    def test_columns_by_name_and_types_of_another_kind(self, asked):
        """Whole numbers with missing ones among them are floats in pandas."""
        topics = pd.DataFrame({"qid": [1.0, 3.0], "words": ["a small cat", "an owl"]})
        qrels = pd.DataFrame({"qid": ["1", "3"], "docid": [1.0, 5.0], "score": [True, True]})
        found = asked.eval_queries(
            "animals", topics, qrels, 1, question_columns=["qid", "words"], judgement_columns=["qid", "docid", "score"]
        )
        assert found.project("question, hit, keys").fetchall() == [("1.0", 1.0, ["1"]), ("3.0", 1.0, ["5"])]
        assert len(topics) == len(qrels) == 2

    def test_files(self, asked, tmp_path):
        for name in ("questions", "judgements"):
            asked.con.execute(f"COPY {name} TO '{tmp_path}/{name}.csv'")
        found = asked.eval("animals", tmp_path / "questions.csv", tmp_path / "judgements.csv", 3)
        assert found.fetchall() == asked.eval("animals", "questions", "judgements", 3).fetchall()

    def test_settings_of_the_session_change_nothing(self, asked):
        con = asked.con
        before = con.execute(f"FROM {self.CALL}").fetchall()
        queries = con.execute("FROM jammi_eval_queries('animals', 'questions', 'judgements')").fetchall()
        con.execute("SET default_order = 'DESC'; SET default_null_order = 'NULLS_FIRST'")
        con.execute("SET default_collation = 'NOCASE'")
        assert con.execute(f"FROM {self.CALL}").fetchall() == before
        assert con.execute("FROM jammi_eval_queries('animals', 'questions', 'judgements')").fetchall() == queries

    def test_more_questions_than_are_searched_at_once(self, asked):
        con = asked.con
        con.execute(
            "CREATE TABLE many AS SELECT range AS id, ['an owl', 'a small cat'][range % 2 + 1] AS text FROM range(3000)"
        )
        con.execute("CREATE TABLE all_judged AS SELECT id AS question, [5, 1][id % 2 + 1] AS key, 1 AS grade FROM many")
        found = asked.eval_queries("animals", "many", "all_judged", 1)
        assert found.aggregate(
            "count(*), min(hit), bool_and(keys[1] = [5, 1][question::INT % 2 + 1]::VARCHAR)"
        ).fetchall() == [(3000, 1.0, True)]

    def test_explain_searches_nothing(self, asked, encoded):
        encoded()
        asked.con.execute(f"EXPLAIN FROM {self.CALL}").fetchall()
        assert encoded() == []


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    return make_reranker("bert", tmp_path_factory.mktemp("reranker") / "bert")


@pytest.fixture
def ranked(tiny_model, tmp_path, cross_encoder):
    """A table with words, a model that is one, and a re-ranker; a question for each fifth row."""
    con = duckdb.connect()
    jammi = jammi_duck.install(con, storage=tmp_path / "artifacts", model=str(tiny_model), precision="float32")
    con.execute(
        """CREATE TABLE t AS SELECT range AS id, 'duck ' || range % 5 AS title, CASE WHEN range % 4 > 0 THEN
        repeat('water ', (range % 7)::INTEGER) || ['night', 'snow', 'river'][1 + range % 3] END AS body
        FROM range(60)"""
    )
    con.execute("CREATE TABLE q AS SELECT id, 'the ' || concat_ws(' ', title, body) AS text FROM t WHERE id % 5 = 0")
    con.execute("CREATE TABLE j AS SELECT id AS question, id + range AS key, 3 - range AS grade FROM q, range(3)")
    jammi.generate("t", ["title", "body"], "id")
    jammi.rerank = str(cross_encoder)
    yield jammi
    con.close()


WAYS = [
    {"mode": "text", "k1": 0.2, "b": 1.0},
    {"mode": "vector", "exact": True},
    {"mode": "hybrid", "weight": 0.1},
    {"fusion": "rrf", "min_similarity": 0.4},
    {"rerank": True},
    {"rerank": True, "rerank_k": 6, "mode": "text"},
]


class TestWays:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("options", WAYS, ids=str)
    def test_each_option_is_that_of_the_search(self, ranked, options):
        options = {name: ranked.rerank if name == "rerank" else value for name, value in options.items()}
        found = ranked.eval_queries("t", "q", "j", 5, **options).project("question, keys").fetchall()
        given = ", ".join(f"{name} := '{value}'" for name, value in options.items())
        theirs = ranked.con.execute(
            "SELECT q.id::VARCHAR, list(_row_id ORDER BY _rank), list(_score ORDER BY _rank) FROM q, "
            f"jammi_search('t', q.text, 5, {given}) GROUP BY q.id ORDER BY q.id"
        ).fetchall()
        assert [question for question, _ in found] == [question for question, *_ in theirs]
        for (_, keys), (_, row_ids, scores) in zip(found, theirs, strict=True):
            # Scores of one pair differ in the last bits with the pairs that are beside it.
            for key, row_id, place in zip(keys, row_ids, range(5), strict=False):
                assert key == row_id or scores[row_ids.index(key)] == pytest.approx(scores[place], abs=1e-5)
        (way,) = (
            ranked.eval_compare("t", "q", "j", [{}, options], 5, metric="map").filter("way = 2").project("value")
        ).fetchall()
        (alone,) = ranked.eval("t", "q", "j", 5, **options).filter("metric = 'map'").project("value").fetchall()
        assert way == pytest.approx(alone)

    def test_a_row_whose_text_is_gone_comes_last(self, ranked):
        ranked.con.execute("BEGIN")
        ranked.con.execute("UPDATE t SET title = NULL, body = NULL WHERE id = 10")
        ranked.con.execute("UPDATE q SET text = 'duck 0'")
        (keys,) = (
            ranked.eval_queries("t", "q", "j", 60, rerank=ranked.rerank, rerank_k=60).project("keys").fetchall()[0]
        )
        ranked.con.execute("ROLLBACK")
        assert keys[-1] == "10"
        assert len(keys) == 60

    def test_several_tables_in_one_comparison(self, ranked):
        ranked.generate("t", "title", "id", name="titles")
        ways = [
            {"rerank": ranked.rerank, "embedding_table": table, "rerank_k": 9}
            for table in ("titles", ranked.tables().filter("source = 't'").order("started").fetchall()[0][0])
        ]
        values = ranked.eval_compare("t", "q", "j", ways, 5).project("value, embedding_table").fetchall()
        for way, (value, table) in zip(ways, values, strict=True):
            (row,) = ranked.eval("t", "q", "j", 5, **way).filter("metric = 'ndcg'").fetchall()
            assert (row[2], row[-1]) == (pytest.approx(value), table)

    def test_a_judgement_of_no_question_is_warned_of_once(self, ranked):
        ranked.con.execute("INSERT INTO j VALUES (777, 1, 1)")
        with pytest.warns(JammiWarning) as told:
            ranked.eval("t", "q", "j", rerank=ranked.rerank)
        assert len(told) == 1

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"mode": "words"}, InputError, "no mode 'words'; there are"),
            ({"weight": 2}, InputError, "weight is 2; it must be from 0"),
            ({"k1": -1}, InputError, "k1 is -1; it must be from 0 to 1,000"),
            ({"rerank": "/no/such", "rerank_k": 10}, NoModelError, "no model at '/no/such'"),
            ({"rerank": "x", "rerank_k": 9}, InputError, "k is 10, and rerank_k is 9"),
        ],
        ids=str,
    )
    def test_mistakes(self, ranked, options, error, message):
        with pytest.raises(error, match=message):
            ranked.eval("t", "q", "j", **options)
        with pytest.raises(error, match=message):
            ranked.eval_compare("t", "q", "j", [options, {}])

    def test_the_command_line(self, ranked, tmp_path, monkeypatch, capsys, tiny_model):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tiny_model))
        monkeypatch.setenv("JAMMI_INFERENCE__PRECISION", "float32")
        for name in ("t", "q", "j"):
            ranked.con.execute(f"COPY {name} TO '{name}.csv'")
        assert call(capsys, "generate t.csv --columns title,body --key id")[0] == 0
        line = f"eval t.csv q.csv j.csv -k 5 --rerank {ranked.rerank} --rerank-k 6 --mode text --json"
        told = {row["metric"]: row["value"] for row in json.loads(call(capsys, line)[1])}
        found = ranked.eval("t", "q", "j", 5, rerank=ranked.rerank, rerank_k=6, mode="text")
        assert told == {metric: pytest.approx(value) for metric, value in found.project("metric, value").fetchall()}
        line = "eval t.csv q.csv j.csv --compare mode=text --compare mode=hybrid,weight=0.2,rerank_k=60 --json"
        assert json.loads(json.loads(call(capsys, line)[1])[1]["options"])["weight"] == 0.2


class TestWarnings:
    def test_a_key_that_the_table_does_not_have_counts_as_not_found(self, asked):
        asked.con.execute("INSERT INTO judgements VALUES (3, 77, 1), (3, 78, 0)")
        with pytest.warns(JammiWarning, match=r"does not have: 2, such as '77'; those that are relevant count as not"):
            found = asked.eval_queries("animals", "questions", "judgements").filter("question = '3'")
        assert found.project("recall, missed").fetchall() == [(0.5, ["77"])]

    def test_a_judgement_of_no_question_is_left_out(self, asked):
        before = asked.eval("animals", "questions", "judgements").fetchall()
        asked.con.execute("INSERT INTO judgements VALUES (40, 1, 1), (41, 1, 1)")
        with pytest.warns(JammiWarning, match="questions that 'questions' does not have: 2, such as one of '40'"):
            assert asked.eval("animals", "questions", "judgements").fetchall() == before


class TestMistakes:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("INSERT INTO questions VALUES (NULL, 'x')", "questions in 'questions' without an id: 1; leave them out"),
            ("INSERT INTO questions VALUES (2, 'x')", "the question '2' is in 'questions' 2 times; its id must be"),
            ("UPDATE questions SET text = ' ' WHERE id = 3", "the question '3' in 'questions' has no text; name the"),
            ("INSERT INTO judgements VALUES (NULL, 1, 1)", "judgements in 'judgements' without a question: 1"),
            ("INSERT INTO judgements VALUES (1, NULL, 1)", "judgements in 'judgements' without a key: 1"),
            ("INSERT INTO judgements VALUES (1, 3, NULL)", "in 'judgements' without a grade that is a number"),
            ("INSERT INTO judgements VALUES (1, 1, 5)", "the key '1' is judged 2 times for the question '1' in"),
            ("ALTER TABLE judgements ALTER grade TYPE VARCHAR USING 'good'", "without a grade that is a number: 9"),
            ("ALTER TABLE judgements ALTER grade TYPE DOUBLE USING 0.5", "is 0.5 in 'judgements'; it must be a whole"),
            ("ALTER TABLE judgements ALTER grade TYPE DOUBLE USING 'nan'", "it must be a whole number"),
            ("UPDATE judgements SET grade = 0", "no question of 'questions' has a judgement of at least 1"),
            ("UPDATE questions SET id = id + 100", "a question has '101', and a judgement is of '1'"),
            ("DELETE FROM questions", "'questions' has no rows; there must be a question"),
            ("DELETE FROM judgements", "'judgements' has no rows; there must be a judgement"),
            ("ALTER TABLE judgements RENAME question TO qid", "no column 'question' in 'judgements'; columns: qid, "),
            ("ALTER TABLE judgements RENAME grade TO score", "Name the columns with judgement_columns := ['...'], in"),
            ("ALTER TABLE questions RENAME text TO words", "no column 'text' in 'questions'; columns: id, words. Name"),
        ],
    )  # fmt: skip
    def test_of_questions_and_judgements_before_any_work(self, asked, encoded, change, message):
        asked.con.execute(change)
        encoded()
        for function in ("jammi_eval", "jammi_eval_queries", "jammi_tune"):
            assert message in error_of(asked.con, f"FROM {function}('animals', 'questions', 'judgements')")
        with pytest.raises(InputError, match=re.escape(message)):
            asked.eval_compare("animals", "questions", "judgements", [{}, {"exact": True}])
        assert encoded() == []

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("ways", "message"),
        [
            ("[{'exact': true}]", "ways is a list of 1; give a list of 2 to 64 ways"),
            ("NULL", "ways is null; give a list of 2 to 64 ways"),
            ("'hybrid'", "ways is 'hybrid', which is no JSON; give a list"),
            ("{'exact': true}", "give a list of 2 to 64 ways"),
            ("['vector', 'hybrid']", 'a way is "vector"; it must be a STRUCT of options, such as'),
            ("[{'exat': true}, {'exat': false}]", "a way has no option 'exat'; did you mean 'exact'? options: model, "),
            ("[{'exact': 1}, {'exact': 2}]", "exact is 1; it must be true or false"),
            ("[{'model': 1}, {'model': 2}]", "model is 1; it must be a text"),
            ("[{'min_similarity': 'x'}, {'min_similarity': 'y'}]", 'min_similarity is "x"; it must be a number'),
            ("[{'model': 'fake/smal'}, {'model': 'fake/small'}]", "of the model 'fake/smal'; there are: fake/small"),
        ],
    )
    def test_of_ways(self, asked, ways, message):
        assert message in error_of(asked.con, f"FROM jammi_eval_compare('animals', 'questions', 'judgements', {ways})")

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("jammi_eval('animals', 'questions', 'judgements', k := 0)", "k is 0; it must be at least 1"),
            ("jammi_eval('animals', 'questions', 'judgements', k := 'all')", "k is all; it must be a whole number"),
            ("jammi_eval('animals', 'questions', 'judgements', question_columns := 'id')", "_columns is id; name"),
            ("jammi_eval('animals', NULL, 'judgements')", "the source is NULL; name a table, a view or a file"),
            ("jammi_tune('animals', 'questions', 'judgements', metric := 'ndgc')", "did you mean 'ndcg'? metrics: "),
            ("jammi_tune('animals', 'questions', 'judgements', metric := NULL)", "metric is NULL; metrics: recall, "),
        ],
    )  # fmt: skip
    def test_of_arguments(self, asked, call, message):
        assert message in error_of(asked.con, f"FROM {call}")

    def test_of_sources(self, asked):
        with pytest.raises(NotFoundError, match="no embedding table for 'questions'"):
            asked.eval("questions", "questions", "judgements")
        with pytest.raises(NotFoundError, match="there is no table, view or file 'nowhere'"):
            asked.eval("animals", "nowhere", "judgements")
        with pytest.raises(InputError, match="ways is not a list of dicts"):
            asked.eval_compare("animals", "questions", "judgements", ["exact", "hybrid"])


class TestCompare:
    def test_a_way_against_itself(self, asked):
        found = asked.eval_compare("animals", "questions", "judgements", [{}, {}, {"exact": True}], 3)
        first, *others = found.project("value, difference, low, high, p_value, won, lost").fetchall()
        assert first[1:] == (None,) * 6
        assert others == [(first[0], 0, 0, 0, 1, 0, 0)] * 2

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("metric", METRICS)
    def test_it_compares_what_was_evaluated(self, asked, metric):
        ways = [{"min_similarity": 0.6}, {"exact": True}, {"min_similarity": 0.99, "model": "fake/small"}]
        options = [{"min_similarity": 0.6}, {"exact": True}, {"min_similarity": 0.99}]
        scores = [
            np.array(
                [
                    value
                    for (value,) in asked.eval_queries("animals", "questions", "judgements", 2, **each)
                    .project(metric)
                    .fetchall()
                ]
            )
            for each in options
        ]
        found = asked.eval_compare("animals", "questions", "judgements", ways, 2, metric=metric)
        for number, row in enumerate(found.fetchall()):
            way, written, name, k, value, difference, low, high, p, won, lost, questions, skipped, _ = row
            assert (way, json.loads(written), name, k, questions, skipped) == (
                number + 1,
                ways[number],
                metric,
                2,
                5,
                1,
            )
            assert value == pytest.approx(scores[number].mean())
            if number:
                moved = scores[number] - scores[0]
                assert difference == pytest.approx(moved.mean())
                assert (won, lost) == ((moved > 0).sum(), (moved < 0).sum())
                assert p == pytest.approx(statistics.randomisation_p(moved))
                assert low - 1e-12 <= difference <= high + 1e-12

    def test_structs_maps_and_json_say_the_same(self, asked):
        def found(ways):
            return asked.con.execute(
                f"FROM jammi_eval_compare('animals', 'questions', 'judgements', {ways})"
            ).fetchall()

        structs = found("[{'exact': true}, {'min_similarity': 0.5}]")
        assert structs == found("""'[{"exact": true}, {"min_similarity": 0.5}]'""")
        assert structs == found("[MAP {'exact': 'true'}, MAP {'min_similarity': '0.5'}]")
        assert structs == found("[{'exact': true, 'min_similarity': NULL}, {'min_similarity': 0.5, 'exact': NULL}]")

    def test_tables_of_several_models(self, asked):
        asked.generate("animals", "text", "id", "fake/other")
        ways = [{"model": "fake/small"}, {"model": "fake/other"}]
        tables = asked.eval_compare("animals", "questions", "judgements", ways).project("embedding_table").fetchall()
        assert [name.partition("__")[2].split("__")[1] for (name,) in tables] == ["small", "other"]


class TestTune:
    def test_the_choice_sees_no_question_that_it_is_scored_on(self):
        """A fold's questions are scored with the weight that is best for the others, whatever they say themselves."""
        scores = np.random.default_rng(11).random((len(tuning.WEIGHTS), 40))
        weight, held_out = tuning.cross_validated(scores)
        assert weight == tuning.WEIGHTS[scores.mean(axis=1).argmax()]
        order = np.random.default_rng(1).permutation(40)
        for part in np.array_split(order, 5):
            best = np.delete(scores, part, axis=1).mean(axis=1).argmax()
            assert (held_out[part] == scores[best, part]).all()
        assert (tuning.cross_validated(scores)[1] == held_out).all()

    def test_noise_is_not_called_better(self):
        """Over many sets of questions for which no weight matters, about one in twenty may seem better."""
        found = 0
        for seed in range(60):
            scores = np.random.default_rng(seed).random((len(tuning.WEIGHTS), 50))
            _, held_out = tuning.cross_validated(scores)
            differences = held_out - scores[tuning.WEIGHTS.index(tuning.DEFAULT_WEIGHT)]
            found += differences.mean() > 0 and statistics.randomisation_p(differences) < tuning.SIGNIFICANT
        assert found <= 6

    def test_a_weight_that_is_better_is_found(self):
        rng = np.random.default_rng(2)
        peak = np.array([-abs(weight - 0.35) for weight in tuning.WEIGHTS])
        scores = 0.5 + peak[:, None] + rng.normal(scale=0.05, size=(len(tuning.WEIGHTS), 60))
        weight, held_out = tuning.cross_validated(scores)
        assert weight == pytest.approx(0.35, abs=0.051)
        default = scores[tuning.WEIGHTS.index(tuning.DEFAULT_WEIGHT)]
        assert statistics.randomisation_p(held_out - default) < 0.001

    def test_where_all_are_equal_it_is_the_default(self):
        scores = np.full((len(tuning.WEIGHTS), 9), 0.5)
        weight, held_out = tuning.cross_validated(scores)
        assert (weight, list(held_out)) == (tuning.DEFAULT_WEIGHT, [0.5] * 9)

    @pytest.mark.sampled(3)
    @pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
    @pytest.mark.parametrize("options", ["", ", k1 := 0.2, b := 1.0", ", min_similarity := 0.3, exact := true"])
    def test_each_weight_is_searched_as_by_a_search(self, jammi, monkeypatch, options):
        """Many rows, so that the arms' lists end long before the table does, and many ties."""
        con, told = jammi.con, []
        chance = random.Random(5)
        words = [f"w{number}" for number in range(40)]
        texts = [" ".join(chance.choices(words, weights=range(1, 41), k=chance.randint(1, 9))) for _ in range(1500)]
        con.execute("CREATE TABLE t AS SELECT unnest(range(1500)) AS id, unnest($1) AS text", [texts])
        jammi.generate("t", "text", "id")
        con.execute("DELETE FROM t WHERE id % 9 = 0")
        jammi.refresh("t")
        asked = ["w3 w39", "w1", "+w7 w38", 'w38 -w39 "w30 w31"', "nowhere", "w2 w2 w35 w36"]
        con.execute("CREATE TABLE q AS SELECT unnest(range(6)) AS id, unnest($1) AS text", [asked])
        con.execute("CREATE TABLE j AS SELECT range AS question, 1 AS key, 1 AS grade FROM range(6)")
        real = tuning.ranked_by_weight
        monkeypatch.setattr(tuning, "ranked_by_weight", lambda *given: told.append(real(*given)) or told[-1])
        con.execute(f"FROM jammi_tune('t', 'q', 'j', k := 7{options})")
        for weight, ranked in zip(tuning.WEIGHTS, told[0], strict=True):
            found = con.execute(
                f"SELECT q.id, list(_row_id ORDER BY _rank) FROM q, "
                f"jammi_search('t', q.text, 7, weight := {weight}{options}) GROUP BY q.id"
            ).fetchall()
            assert dict(found) == {i: each for i, each in enumerate(ranked) if each}, weight
        assert told[0][0] != told[0][14] != told[0][-1]

    def test_a_row_says_it_all(self, asked):
        tuned = asked.tune("animals", "questions", "judgements", 1, metric="mrr")
        assert asked.con.execute(
            "FROM jammi_tune('animals', 'questions', 'judgements', k := 1, metric := 'mrr')"
        ).fetchall() == [tuple(vars(tuned).values())]
        assert (tuned.metric, tuned.k, tuned.question_count, tuned.skipped_count) == ("mrr", 1, 5, 1)
        assert len(tuned.curve) == len(tuning.WEIGHTS)
        assert tuned.default_value == pytest.approx(tuned.curve[tuning.WEIGHTS.index(tuning.DEFAULT_WEIGHT)])
        assert tuned.difference == pytest.approx(tuned.value - tuned.default_value)
        assert max(tuned.curve) == pytest.approx(tuned.curve[tuning.WEIGHTS.index(tuned.weight)])
        assert tuned.advice.startswith("keep the default, weight := 0.7")
        for weight in (0, 0.7, 1):
            found = asked.matches("animals", ASKED[0][1], 1, weight=weight).project("_row_id").fetchall()
            assert found == [("1",)]

    def test_five_questions_at_least(self, asked):
        asked.con.execute("DELETE FROM judgements WHERE question = 6")
        with pytest.raises(InputError, match="needs at least 5 questions .*; there are 4"):
            asked.tune("animals", "questions", "judgements")

    def test_words_are_needed(self, asked):
        asked.generate("animals", "text", "id", words=False, name="plain")
        with pytest.raises(InputError, match=r"'plain__.*' has no index of words; .* jammi_index_words\('animals'\)"):
            asked.tune("animals", "questions", "judgements", embedding_table="plain")


def texts_of(svg):
    """The texts of a picture; raises where it is no XML."""
    return [each.text for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


class TestPicture:
    @given(st.lists(st.tuples(st.text("ab<>&\"'"), st.text('x<&"é'), st.floats(0, 1)), min_size=1, max_size=400))
    def test_a_bar_for_each_question_inside_the_picture(self, questions):
        svg = bars("ndcg", 10, questions)
        root = ET.fromstring(svg)
        drawn = root.findall("{http://www.w3.org/2000/svg}rect")
        assert len(drawn) == len(questions)
        heights = [float(each.get("height")) for each in drawn]
        assert heights == sorted(heights)
        for each in drawn:
            assert 56 <= float(each.get("x")) <= 704 - float(each.get("width")) + 0.01
            assert 40 - 0.01 <= float(each.get("y")) <= 272 - float(each.get("height")) + 0.02
        told = [each.find("{http://www.w3.org/2000/svg}title").text for each in drawn]
        assert sorted(told) == sorted(f"{id_}: {text} ({value:.3f})" for id_, text, value in questions)

    @given(st.lists(st.floats(0, 1), min_size=21, max_size=21), st.sampled_from(tuning.WEIGHTS))
    def test_the_curve_stays_inside(self, values, best):
        svg = curve("map", 5, tuning.WEIGHTS, values, best, 0.7)
        (line,) = ET.fromstring(svg).findall("{http://www.w3.org/2000/svg}polyline")
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert len(points) == 21
        assert all(56 <= x <= 704 and 39.99 <= y <= 272.01 for x, y in points)
        assert f"best, {best:g}" in texts_of(svg)


@pytest.fixture
def judged_folder(tmp_path, monkeypatch, tiny_model):
    """A working directory with files of animals, questions and judgements, and embeddings of the animals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tiny_model))
    (tmp_path / "a.csv").write_text("id,text\n1,the small cat\n2,the loud dog\n3,a duck in water\n")
    (tmp_path / "q.csv").write_text("id,text\nc,small cat\nw,water\nn,nothing\n")
    (tmp_path / "j.csv").write_text("question,key,grade\nc,1,2\nw,3,1\nw,2,0\n")
    return tmp_path


class TestCommand:
    def test_each_form(self, judged_folder, capsys):
        assert call(capsys, "generate a.csv --columns text --key id")[0] == 0
        code, out, _ = call(capsys, "eval a.csv q.csv j.csv -k 3 --json --svg eval.svg")
        found = json.loads(out)
        assert (code, [row["metric"] for row in found]) == (0, list(METRICS))
        assert {(row["question_count"], row["skipped_count"]) for row in found} == {(2, 1)}
        svg = (judged_folder / "eval.svg").read_text()
        (mean,) = (row["value"] for row in found if row["metric"] == "ndcg")
        assert texts_of(svg)[0] == f"ndcg@3 of each question, mean {mean:.3f}"
        assert svg.count("<rect") == 2
        code, out, _ = call(capsys, "eval a.csv q.csv j.csv --queries --metric mrr --json")
        values = [row["mrr"] for row in json.loads(out)]
        assert values == sorted(values)
        assert len(values) == 2
        code, out, _ = call(capsys, "eval a.csv q.csv j.csv --compare '' --compare exact=true,min_similarity=-1 --json")
        assert [(row["way"], row["options"]) for row in json.loads(out)] == [
            (1, "{}"), (2, '{"exact": true, "min_similarity": -1.0}')
        ]  # fmt: skip
        for line, head in (("", "question_count"), ("--queries", "missed"), ("--compare '' --compare ''", "p_value")):
            code, out, _ = call(capsys, f"eval a.csv q.csv j.csv {line}")
            assert (code, head in out) == (0, True)

    def test_a_tuning_and_its_curve(self, judged_folder, capsys):
        (judged_folder / "q.csv").write_text("id,text\n" + "".join(f"{i},water {i}\n" for i in range(6)))
        (judged_folder / "j.csv").write_text("a,b,c\n" + "".join(f"{i},3,1\n" for i in range(6)))
        call(capsys, "generate a.csv --columns text --key id")
        line = "eval a.csv q.csv j.csv --tune --judgement-columns a,b,c --svg tune.svg"
        code, out, _ = call(capsys, line)
        assert (code, re.search(r"^weight +0\.7$", out, re.MULTILINE) is not None) == (0, True)
        assert "best, 0.7" in texts_of((judged_folder / "tune.svg").read_text())
        assert len(json.loads(call(capsys, f"{line} --json")[1])[0]["curve"]) == 21

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--compare exact", "'exact' is not NAME=VALUE,NAME=VALUE"),
            ("--compare exact=true", "ways is a list of 1"),
            ("--compare '' --compare '' --svg x.svg", "leave out --compare"),
            ("--compare '' --compare '' --exact", "write the options of a search into each --compare"),
            ("--compare '' --compare '' --weight 0", "write the options of a search into each --compare"),
            ("--tune --mode text", "leave out --mode, --weight and --rerank"),
            ("--svg nowhere/x.svg", "'nowhere/x.svg' cannot be written: No such file"),
            ("--metric ndgc", "invalid choice: 'ndgc'"),
            ("--question-columns id", "question_columns is id; name 2"),
        ],
    )
    def test_mistakes(self, judged_folder, capsys, line, message):
        call(capsys, "generate a.csv --columns text --key id")
        code, _, err = call(capsys, f"eval a.csv q.csv j.csv {line}")
        assert (code, message in re.sub(r"\s+", " ", err)) == (2, True), err


@needs_extension
def test_the_stock_shell_evaluates(folder):  # noqa: F811
    model = make_reranker("bert", folder / "reranker")
    rows("FROM jammi_generate('t', 'text', 'id')")
    shell("CREATE TABLE q AS SELECT unnest([1, 2]) AS id, unnest(['duck', 'dog']) AS text")
    shell("CREATE TABLE j AS SELECT unnest([1, 2]) AS question, unnest([1, 2]) AS key, 1 AS grade")
    found = rows("SELECT metric, value, question_count FROM jammi_eval('t', 'q', 'j', k := 1)")
    assert [row["metric"] for row in found] == list(METRICS)
    (each, _) = rows(f"SELECT keys FROM jammi_eval_queries('t', 'q', 'j', k := 2, rerank := '{model}')")
    (theirs,) = rows(
        f"SELECT list(id::VARCHAR ORDER BY _rank) AS keys FROM jammi_search('t', 'duck', 2, rerank := '{model}')"
    )
    assert each == theirs
    (each, _) = rows("SELECT question, keys, grades, missed FROM jammi_eval_queries('t', 'q', 'j', k := 2)")
    assert (each["question"], sorted(each["keys"]), each["missed"]) == ("1", ["1", "2"], [])
    compared = rows(
        "SELECT way, difference FROM jammi_eval_compare('t', 'q', 'j', [{'exact': false}, {'exact': true}])"
    )
    assert compared == [{"way": 1, "difference": None}, {"way": 2, "difference": 0.0}]
    assert "did you mean 'exact'?" in shell("FROM jammi_eval_compare('t', 'q', 'j', [{'exat': 1}, {'exat': 2}])").stderr


@pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
@pytest.mark.minilm
@pytest.mark.shared_data
def test_real_questions_are_scored_as_by_trec_eval(shared_data, tmp_path):
    """Cranfield: the judged rows of its first questions, with the real model."""
    con = duckdb.connect()
    jammi = jammi_duck.install(con, storage=tmp_path / "artifacts")
    path = shared_data / "cranfield"
    con.execute(f"CREATE TABLE queries AS FROM '{path}/queries.parquet' WHERE id::INT <= 12")
    con.execute(f"CREATE TABLE qrels AS FROM '{path}/qrels.parquet' WHERE qid IN (SELECT id FROM queries)")
    con.execute(f"CREATE TABLE corpus AS FROM '{path}/corpus.parquet' WHERE id IN (SELECT docid FROM qrels)")
    jammi.generate("corpus", ["title", "text"], "id")
    found = jammi.eval_queries("corpus", "queries", "qrels", judgement_columns=["qid", "docid", "score"])
    table = found.df()
    grades: dict[str, dict[str, int]] = {}
    for qid, docid, score in con.execute("FROM qrels").fetchall():
        grades.setdefault(qid, {})[docid] = score
    theirs = trec(10, [list(keys) for keys in table["keys"]], [grades[question] for question in table["question"]])
    for metric in METRICS:
        assert list(table[metric]) == pytest.approx(theirs[metric], abs=1e-6)
    assert table["ndcg"].mean() > 0.5
    con.close()
