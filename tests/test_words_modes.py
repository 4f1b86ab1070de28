"""The modes of a search, what can be said of them, and what is wrong to say: through SQL, and Python's methods."""

import pytest

from jammi_duck import InputError
from tests.test_generate import error_of, generate
from tests.test_search import fill
from tests.test_words_search import NOTES, ask, check, scored, sql_of


@pytest.fixture
def notes(con):
    """A table of six notes in two segments of words and vectors."""
    con.execute("CREATE TABLE t (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", list(NOTES.items()))
    generate(con, "t")
    return con


def keys(con, query, extra="", k=10):
    rows = con.execute(f"SELECT id FROM jammi_search('t', $q, $k{extra}) ORDER BY _rank", {"q": query, "k": k})
    return [key for (key,) in rows.fetchall()]


class TestModes:
    def test_text_finds_only_what_matches(self, notes):
        assert keys(notes, "broken pipe", ", mode := 'text'") == [5, 2, 3]
        assert keys(notes, '"broken pipe" -windows', ", mode := 'text'") == [2]
        assert keys(notes, "+report engine", ", mode := 'text'") == [1, 6, 3]
        assert keys(notes, "e-1047", ", mode := 'text'") == [1]
        assert keys(notes, "libs*", ", mode := 'text'") == [3]
        assert keys(notes, "c++", ", mode := 'text'") == [6]
        assert keys(notes, "zebra", ", mode := 'text'") == []
        assert keys(notes, "the", ", mode := 'text'") == []

    @pytest.mark.parametrize("mode", ["auto", "hybrid"])
    def test_hybrid_finds_every_row_that_meets_the_conditions(self, notes, mode):
        assert sorted(keys(notes, "zebra", f", mode := '{mode}'")) == sorted(NOTES)
        assert set(keys(notes, "storm -windows +broken", f", mode := '{mode}'")) == {2, 5}
        for query in ("broken pipe", "zebra", "E-1047 -windows"):
            hits = ask(notes, query, {"k": 10, "mode": mode})
            check(hits, NOTES, lambda _: True, query, mode=mode)

    def test_auto_is_hybrid_for_a_text_and_by_vectors_for_others(self, notes):
        hybrid, auto = (ask(notes, "broken pipe", {"k": 3, "mode": mode}) for mode in ("hybrid", "auto"))
        assert auto == hybrid
        assert auto == ask(notes, "broken pipe", {"k": 3})
        by_vector = notes.execute(
            "SELECT _row_id, _score, _similarity, _bm25 FROM jammi_search('t', embed('broken pipe'), 3)"
        ).fetchall()
        assert all(score == near and own is None for _, score, near, own in by_vector)
        asked = notes.execute(
            "SELECT _row_id, _score, _similarity, _bm25 FROM jammi_search('t', 'broken pipe', 3, mode := 'vector')"
        ).fetchall()
        assert asked == by_vector
        similar = notes.execute("SELECT id, _score = _similarity, _bm25 FROM jammi_similar('t', 5, 2)").fetchall()
        assert [row[1:] for row in similar] == [(True, None)] * 2
        assert 5 not in {row[0] for row in similar}

    def test_a_filter_and_a_threshold_change_no_score(self, notes):
        scores = {key: score for key, _, score, *_ in ask(notes, "broken engine", {"k": 10})}
        for options in ({"filter": "id <> 5"}, {"filter": "id IN (1, 4)"}, {"min_similarity": 0.05}):
            hits = ask(notes, "broken engine", {"k": 10, **options})
            assert hits
            assert {key: score for key, _, score, *_ in hits}.items() <= scores.items()

    def test_rrf_adds_reciprocal_ranks(self, notes):
        query = "broken pipe"
        _, near, matched = scored(NOTES, query, mode="hybrid")
        own = {key: value for key, value in matched.items() if value}
        wanted = dict.fromkeys(NOTES, 0.0)
        for values in (near, own):
            for rank, key in enumerate(sorted(values, key=values.get, reverse=True), 1):
                wanted[key] += 1 / (60 + rank)
        hits = ask(notes, query, {"k": 10, "fusion": "rrf"})
        assert {int(key): score for key, _, score, *_ in hits} == pytest.approx(wanted, abs=1e-6)
        assert [int(key) for key, *_ in hits] == sorted(wanted, key=wanted.get, reverse=True)

    def test_ties_are_in_the_order_of_the_row_ids(self, con):
        fill(con, ["same words"] * 12)
        generate(con, "t")
        for mode in ("text", "hybrid"):
            found = [key for key, *_ in ask(con, "words", {"k": 5, "mode": mode})]
            assert found == ["0", "1", "10", "11", "2"]

    def test_what_finds_nothing(self, notes):
        for query in ("''", "'  '", "NULL"):
            for mode in ("text", "hybrid", "auto"):
                rows = notes.execute(f"SELECT id FROM jammi_search('t', {query}, 3, mode := '{mode}')").fetchall()
                assert rows == []

    def test_lateral_with_a_mode_and_a_weight_for_each_row(self, notes):
        rows = notes.execute(
            """SELECT q.text, q.mode, list(s.id ORDER BY s._rank), count(s._bm25), count(s._similarity) FROM
            (VALUES ('broken pipe', 'text', 0.5), ('broken pipe', 'hybrid', 1.0), ('E-1047', 'text', 0.0),
                (NULL, 'text', 0.5), ('broken pipe', 'vector', 0.5)) q(text, mode, weight),
            jammi_search('t', q.text, 3, mode := q.mode, weight := q.weight) s GROUP BY ALL"""
        ).fetchall()
        found = {(text, mode): rest for text, mode, *rest in rows}
        assert found["broken pipe", "text"] == [[5, 2, 3], 3, 0]
        assert found["E-1047", "text"] == [[1], 1, 0]
        by_vector = found["broken pipe", "vector"]
        assert found["broken pipe", "hybrid"] == [by_vector[0], 3, 3]
        assert by_vector[1:] == [0, 3]
        assert len(found) == 4

    def test_a_chunk_of_questions_has_the_answers_of_each(self, notes):
        questions = [f"{a} {b}" for a in ("broken", "engine", "E-1047", "zebra") for b in ("pipe", "-pipe", "report")]
        together = notes.execute(
            "SELECT q, _row_id, _score FROM (SELECT unnest($1) AS q), jammi_matches('t', q, 3) ORDER BY q, _rank",
            [questions],
        ).fetchall()
        alone = [
            (question, key, score)
            for question in sorted(questions)
            for key, _, score, *_ in ask(notes, question, {"k": 3}, "jammi_matches")
        ]
        assert together == alone

    def test_prepared_statements(self, notes):
        notes.execute("PREPARE s AS SELECT id FROM jammi_search('t', $1, $2, mode := $3, filter := 'id <> 3')")
        assert notes.execute("EXECUTE s('broken pipe', 5, 'text')").fetchall() == [(5,), (2,)]
        notes.execute("INSERT INTO t VALUES (7, 'pipe pipe pipe')")
        notes.execute("FROM jammi_refresh('t')").fetchall()
        assert set(notes.execute("EXECUTE s('pipe', 5, 'text')").fetchall()) == {(7,), (5,), (2,)}

    def test_matches_needs_no_source(self, notes):
        before = ask(notes, "broken -windows", {"k": 3, "mode": "text"}, "jammi_matches")
        notes.execute("DROP TABLE t")
        assert ask(notes, "broken -windows", {"k": 3, "mode": "text"}, "jammi_matches") == before
        assert len(before) == 2

    def test_explain(self, notes):
        def stages(extra=""):
            return notes.execute(f"FROM jammi_explain('t', 'broken \"engine runs\" +pipe', 3{extra})").fetchall()

        assert [row[0] for row in stages(", mode := 'text'")] == ["table", "words", "fetch"]
        assert [row[0] for row in stages()] == ["table", "encode", "exact", "words", "fuse", "fetch"]
        by_stage = {stage: (detail, rows) for stage, detail, rows, _ in stages(", filter := 'id <> 5'")}
        detail, rows = by_stage["words"]
        assert detail.startswith("3 words and phrases: 3 rows match, the highest BM25 is ")
        assert rows == 2
        assert by_stage["filter"][1] == 5
        assert by_stage["fuse"][0].startswith("2 rows scored in both: 0.7 * cosine + 0.3 * BM25 / ")
        assert by_stage["fetch"][1] == 2
        fused = dict(row[:2] for row in stages(", fusion := 'rrf'"))["fuse"]
        assert fused == "3 rows scored in both: ranks"


class TestErrors:
    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ("mode := 'word'", "no mode 'word'"), ("mode := 'txt'", "no mode 'txt'; did you mean 'text'?"),
            ("fusion := 'rff'", "no fusion 'rff'; did you mean 'rrf'?"),
            ("weight := 1.5", "weight is 1.5; it must be from 0, for words alone, to 1, for vectors alone"),
            ("weight := 'nan'", "weight is nan"), ("weight := 'much'", "weight is much; it must be a number"),
            ("k1 := -1", "k1 is -1; it must be from 0 to 1,000"), ("k1 := 'inf'", "k1 is inf"),
            ("b := 2", "b is 2; it must be from 0 to 1"), ("b := -0.1", "b is -0.1; it must be from 0 to 1"),
        ],
    )  # fmt: skip
    def test_numbers_that_cannot_be(self, notes, extra, message):
        assert message in error_of(notes, f"FROM jammi_search('t', 'pipe', {extra})")

    @pytest.mark.parametrize("mode", ["text", "hybrid"])
    def test_modes_that_do_not_fit(self, jammi, notes, mode):
        message = f"mode is '{mode}', which searches for a text; a vector is searched with mode := 'vector'"
        assert message in error_of(notes, f"FROM jammi_search('t', embed('pipe'), mode := '{mode}')")
        with pytest.raises(InputError, match="which searches for a text"):
            jammi.search("t", jammi.embed("pipe"), mode=mode)
        notes.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        error = error_of(notes, f"FROM jammi_search('t', 'pipe', mode := '{mode}')")
        assert "has no index of words; SELECT * FROM jammi_index_words('t') makes one" in error
        with pytest.raises(InputError, match="no mode 'texts'; did you mean 'text'"):
            jammi.search("t", "pipe", mode="texts")


class TestPython:
    @pytest.mark.parametrize(
        "options",
        [
            {"mode": "text"}, {"mode": "hybrid", "weight": 0.2}, {"fusion": "rrf"}, {"k1": 0.3, "b": 0.1},
            {"mode": "vector"}, {"mode": "text", "min_similarity": 0.1}, {"mode": "text", "filter": "id <> 3"},
        ],
        ids=str,
    )  # fmt: skip
    def test_methods_give_what_the_functions_give(self, jammi, notes, options):
        columns = "_row_id, _rank, _score, _similarity, _distance, _bm25"
        query = "broken pipe"
        wanted = ask(notes, query, {"k": 4, **options})
        assert jammi.search("t", query, 4, **options).project(columns).fetchall() == wanted
        assert jammi.matches("t", query, 4, **options).project(columns).fetchall() == wanted
        stages = jammi.explain("t", query, 4, **options).project("stage").fetchall()
        assert (
            stages
            == notes.execute(
                f"SELECT stage FROM jammi_explain('t', $query, 4{sql_of(options)})", {"query": query, **options}
            ).fetchall()
        )
