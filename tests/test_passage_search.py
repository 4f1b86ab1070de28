"""Searches for passages: rows by their best passage, as brute force over all passages ranks them, whatever the mode."""

import contextlib
import json
import math
import shutil
import tempfile
import warnings
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from jammi_duck import InputError, JammiWarning
from jammi_duck.errors import JammiError
from jammi_duck.retrieval import best_rows, fusion
from jammi_duck.retrieval.text_query import parse
from jammi_duck.storage.index import graph, plan
from tests.effort import some
from tests.fakes import text_vector
from tests.histories import Database
from tests.plain_bm25 import bm25, meets, shares
from tests.test_cli import call, folder  # noqa: F401
from tests.test_cross_encoder import make_reranker, reranker
from tests.test_words_search import ENGLISH, FILTERS, KEYS, QUERIES, VOCABULARY, sql_of

CLOSE = 1e-5
# The columns of a search, and those of passages after them.
HIT = ["_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25"]
PLACE = ["_passage", "_start", "_end", "_passage_text"]
# Eight words are as many as the fake model reads.
PASSAGES = "{'tokens': 8, 'by': 'word'}"


def generate(con, source="t", columns="'body'", passages=PASSAGES):
    found = con.execute(
        f"SELECT embedding_table FROM jammi_generate('{source}', {columns}, 'id', passages := {passages})"
    )
    return found.fetchall()[0][0]


def fill(con, texts):
    con.execute("CREATE OR REPLACE TABLE t (id INTEGER, body VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", [[key, text] for key, text in texts.items()])


def stored(con, texts, name=None):
    """The embedded text of each passage, by row and number, as the Parquet files say where they are in these texts."""
    name = name or con.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[-1][0]
    rows = con.execute(f'SELECT _row_id, _passage, _start, _end FROM jammi."{name}"').fetchall()
    return {(int(row), number): texts[int(row)][start:end] for row, number, start, end in rows}


def scored(passages, query, *, mode="auto", fusion=None, depth=100, weight=0.7, k1=1.2, b=0.75, may=None):
    """What each passage that may be found is ranked by, its cosine and its BM25."""
    parsed = parse(query, ENGLISH)
    matched = bm25(ENGLISH, passages, parsed, k1, b)
    vector = text_vector(parsed.plain).astype(np.float64)
    near = {key: float(text_vector(text).astype(np.float64) @ vector) for key, text in passages.items()}
    if mode == "vector":
        vector = text_vector(query).astype(np.float64)
        near = {key: float(text_vector(text).astype(np.float64) @ vector) for key, text in passages.items()}
        return near, near, dict.fromkeys(passages)
    if mode == "text":
        return matched, near, matched
    met = [key for key, text in passages.items() if meets(ENGLISH, text, parsed)]
    own = {key: matched.get(key, 0.0) for key in met}
    if fusion == "rrf":
        found = [key for key in met if may is None or may(key[0])]
        scores = dict.fromkeys(found, 0.0)
        for values in (near, {key: value for key, value in own.items() if value}):
            falling = sorted(np.float32(-values[key]) for key in found if key in values)
            for key in found:
                if key in values:
                    scores[key] += 1 / (61 + int(np.searchsorted(falling, np.float32(-values[key]))))
        return scores, near, own
    highest = max(matched.values(), default=0) or 1
    share = shares(ENGLISH, passages, parsed)
    return {key: weight * near[key] + (1 - weight) * own[key] / highest * share[key] for key in met}, near, own


def ask(con, query, options, verb="jammi_search", columns=(*HIT, *PLACE[:3])):
    options = {name: value for name, value in options.items() if value is not None}
    statement = f"SELECT {', '.join(columns)} FROM {verb}('t', $query, $k{sql_of(options)})"
    return con.execute(statement, {"query": query, **options}).fetchall()


def check(hits, passages, may, query, k=10, per_row=1, filter=None, min_similarity=None, exact=False, **options):
    """The hits are the best rows, in their order, each by its best passages; the numbers are those of the passages."""
    scores, near, matched = scored(passages, query, may=may, **options)
    least = -2.0 if min_similarity is None else min_similarity
    sure = by_row({key: score for key, score in scores.items() if may(key[0]) and near[key] >= least + CLOSE})
    possible = by_row({key: score for key, score in scores.items() if may(key[0]) and near[key] >= least - CLOSE})
    found = by_row({(int(hit[0]), hit[6]): hit[2] for hit in hits})
    assert sum(map(len, found.values())) == len(hits)
    assert min(k, len(sure)) <= len(found) <= min(k, len(possible))
    assert found.keys() <= possible.keys()
    for hit in hits:
        key = int(hit[0]), hit[6]
        assert hit[2] == pytest.approx(scores[key], abs=CLOSE)
        if options.get("mode") == "text" and min_similarity is None:
            assert hit[3] is hit[4] is None
        else:
            assert (hit[3], hit[4]) == pytest.approx((near[key], 1 - near[key]), abs=CLOSE)
        assert hit[5] is matched[key] or hit[5] == pytest.approx(matched[key], abs=CLOSE)
    # Row by row, each by falling scores, ties by number; rows by their best, ties by id.
    ranks = dict.fromkeys(int(hit[0]) for hit in hits)
    assert [hit[1] for hit in hits] == [list(ranks).index(int(hit[0])) + 1 for hit in hits]
    assert hits == sorted(hits, key=lambda hit: (hit[1], -hit[2], hit[6]))
    bests = [(-max(found[row].values()), str(row)) for row in ranks]
    assert bests == sorted(bests)
    for row, mine in found.items():
        given = sorted(mine.values(), reverse=True)
        assert min(per_row, len(sure.get(row, ()))) <= len(mine) <= min(per_row, len(possible[row]))
        if min_similarity is None:
            assert given == pytest.approx(sorted(possible[row].values(), reverse=True)[: len(given)], abs=CLOSE)
    if len(found) == k and min_similarity is None:
        wanted = sorted((max(mine.values()) for mine in possible.values()), reverse=True)[:k]
        assert [-score for score, _ in bests] == pytest.approx(wanted, abs=CLOSE)


def by_row(scores):
    rows = {}
    for (row, number), score in scores.items():
        rows.setdefault(row, {})[number] = score
    return rows


def texts_of(rng, rows, longest=40):
    """Rows of very different lengths, of few words, so that many passages are alike."""
    lengths = rng.integers(1, longest, rows) ** 2 // longest + 1
    return {row: " ".join(rng.choice(VOCABULARY, length)) for row, length in enumerate(lengths.tolist())}


WAYS = [
    {"mode": "vector"}, {"mode": "vector", "exact": True}, {"mode": "vector", "min_similarity": 0.3}, {"mode": "text"},
    {"mode": "text", "min_similarity": 0.2}, {"mode": "hybrid"}, {"mode": "hybrid", "weight": 0.2, "k1": 0.5, "b": 0.3},
    {"mode": "hybrid", "min_similarity": 0.2}, {"fusion": "rrf"}, {},
]  # fmt: skip


@pytest.fixture
def long(con):
    """A table of 60 rows in one to six passages, and the passages."""
    texts = texts_of(np.random.default_rng(7), 60)
    fill(con, texts)
    generate(con)
    return con, stored(con, texts)


class TestRanking:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("options", WAYS, ids=str)
    def test_is_that_of_brute_force(self, long, options, monkeypatch):
        con, passages = long
        assert len(passages) > 120
        if options.get("fusion") == "rrf":
            monkeypatch.setattr(fusion, "_LEAST", 1000)
        rng = np.random.default_rng(3)
        for k, per_row, filter in ((1, 1, None), (5, 3, None), (5, 1, "id % 2 = 0"), (20, 2, "id < 3"), (200, 2, None)):
            for query in ("alpha", " ".join(rng.choice(VOCABULARY, 3)), "beta -gamma"):
                every = {"k": k, "filter": filter, "per_row": per_row, **options}
                check(ask(con, query, every), passages, FILTERS[filter], query, **every)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("options", WAYS, ids=str)
    def test_by_graph_and_over_several_segments(self, fake, options, monkeypatch):
        """However few passages are asked for at first."""
        monkeypatch.setattr(graph, "graph_ms", lambda *_: 0.0)
        monkeypatch.setattr(best_rows, "_SPARE", 0)
        if options.get("fusion") == "rrf":
            monkeypatch.setattr(fusion, "_LEAST", 1000)
        con = fake(segment_rows=20).con
        texts = texts_of(np.random.default_rng(11), 50)
        fill(con, texts)
        generate(con)
        passages = stored(con, texts)
        for query in ("alpha runs", "E-1047"):
            for per_row in (1, 2):
                every = {"k": 7, "per_row": per_row, **options}
                check(ask(con, query, every), passages, lambda _: True, query, **every)

    def test_widens_until_there_are_enough_rows(self, con):
        """A row of five hundred passages that are all nearer than any other row's."""
        texts = {0: " ".join(["alpha beta"] * 2000), **{row: f"alpha gamma{row}" for row in range(1, 30)}}
        fill(con, texts)
        generate(con)
        passages = stored(con, texts)
        for options in ({"mode": "vector"}, {"mode": "text"}, {}, {"fusion": "rrf"}):
            hits = ask(con, "alpha beta", {"k": 20, **options})
            assert len({hit[0] for hit in hits}) == len(hits) == 20
            assert hits[0][0] == "0"
            if options.get("fusion") != "rrf":
                check(hits, passages, lambda _: True, "alpha beta", k=20, **options)
        stages = con.execute("FROM jammi_explain('t', 'alpha beta', 20, mode := 'vector')").fetchall()
        (detail, rows) = next((detail, rows) for stage, detail, rows, _ in stages if stage == "passages")
        assert "as the first were of too few rows" in detail
        assert rows == 20
        # Only the questions that need it are asked anew, and each has its answer.
        found = con.execute(
            """SELECT q, list(s.id ORDER BY _rank) FROM (VALUES ('alpha beta'), ('gamma3')) t(q),
            jammi_search('t', t.q, 12, mode := 'vector') s GROUP BY q"""
        ).fetchall()
        for query, rows in found:
            alone = ask(con, query, {"k": 12, "mode": "vector"})
            assert rows == [int(hit[0]) for hit in alone]

    def test_ties_are_in_the_order_of_the_row_ids_and_numbers(self, con):
        fill(con, dict.fromkeys(range(12), "\n\n".join(["the same seven words in each paragraph"] * 3)))
        generate(con, passages="{'tokens': 8}")
        for options in ({"mode": "vector"}, {"mode": "text"}, {}, {"fusion": "rrf"}):
            found = [(hit[0], hit[6]) for hit in ask(con, "words", {"k": 3, "per_row": 2, **options})]
            assert found == [("0", 0), ("0", 1), ("1", 0), ("1", 1), ("10", 0), ("10", 1)]

    def test_numbers_beyond_all_bounds(self, long):
        con, passages = long
        most = 10**80
        for verb, asked in (("search", "'alpha'"), ("similar", "3")):
            rows = con.execute(f"SELECT id FROM jammi_{verb}('t', {asked}, {most}, per_row := {most})").fetchall()
            assert len(rows) == sum(verb == "search" or row != 3 for row, _ in passages)

    def test_the_order_of_rows_with_several_passages(self, long):
        """In the answer as it comes, without an ORDER BY, and with a filter, too."""
        con, _ = long
        for extra in ("", ", filter := 'id <> 3'"):
            rows = con.execute(
                f"SELECT id, _rank, _score, _passage FROM jammi_search('t', 'alpha beta', 8, per_row := 3{extra})"
            ).fetchall()
            assert rows == sorted(rows, key=lambda row: (row[1], -row[2], row[3]))
            assert {rank for _, rank, *_ in rows} == set(range(1, 9))

    def test_several_questions_at_once_have_the_answers_of_each(self, long):
        con, _ = long
        asked = [("alpha", 3, 1), ("beta gamma", 5, 2), ("E-1047", 2, 4), ("", 3, 1), (None, 3, 2)]
        for mode in ("vector", "text", "hybrid"):
            rows = con.execute(
                """SELECT q.query, s._row_id, s._rank, s._passage, s._score
                FROM (SELECT unnest($1) AS query, unnest($2) AS k, unnest($3) AS per_row) q,
                jammi_search('t', q.query, q.k, per_row := q.per_row, mode := $4) s
                ORDER BY q.query, _rank, _score DESC, _passage""",
                [*map(list, zip(*asked, strict=True)), mode],
            ).fetchall()
            alone = [
                (query, *(hit[0], hit[1], hit[6], hit[2]))
                for query, k, per_row in sorted(asked[:3])
                for hit in ask(con, query, {"k": k, "per_row": per_row, "mode": mode})
            ]
            assert rows == alone

    def test_vectors_of_questions(self, long):
        con, _ = long
        by_text = ask(con, "alpha beta", {"k": 5, "per_row": 2, "mode": "vector"})
        vector = con.execute("SELECT embed('alpha beta', role := 'query')").fetchall()[0][0]
        assert ask(con, vector, {"k": 5, "per_row": 2}) == by_text
        assert ask(con, [0.0] * 64, {"k": 5}) == []

    def test_rrf_counts_the_ranks_of_the_first_passages_only(self, long, monkeypatch):
        """The scores of a row's other passages are those of a search that gives them as rows' best."""
        con, _ = long
        monkeypatch.setattr(fusion, "_LEAST", 20)
        monkeypatch.setattr(fusion, "_FOR_EACH", 1)
        one = {hit[0]: hit for hit in ask(con, "alpha beta", {"k": 6, "fusion": "rrf"})}
        several = ask(con, "alpha beta", {"k": 6, "fusion": "rrf", "per_row": 5})
        bests = {hit[0]: hit for hit in reversed(several)}
        assert bests == one
        assert len(several) > len(one)
        assert all(0 < hit[2] <= one[hit[0]][2] for hit in several)

    def test_without_sidecars(self, fake, storage, tmp_path):
        """The Parquet files alone say the same, with a warning."""
        con = fake(duckdb.connect(str(tmp_path / "db.duckdb")), segment_rows=30).con
        fill(con, texts_of(np.random.default_rng(5), 40))
        name = generate(con)
        every = [{"k": 5, "per_row": 3, "mode": mode, "filter": "id > 4"} for mode in ("vector", "text", "hybrid")]
        before = [ask(con, "alpha beta", options) for options in every]
        alike = "SELECT id, _passage, _passage_text FROM jammi_similar('t', 3, 5, per_row := 2)"
        similar = con.execute(alike).fetchall()
        con.close()
        kinds = (".rowmap", ".vectors", ".usearch")
        files = [file for file in (storage / "jammi_db").iterdir() if file.suffix in kinds]
        assert len(files) > 6
        for file in files:
            file.unlink()
        con = fake(duckdb.connect(str(tmp_path / "db.duckdb")), segment_rows=30).con
        with pytest.warns(JammiWarning, match=f"the search index of '{name}' cannot be used"):
            after = [ask(con, "alpha beta", options) for options in every]
        assert after == before
        assert con.execute(alike).fetchall() == similar

    @pytest.mark.parametrize("type", ["BIGINT", "VARCHAR", "DECIMAL(9, 2)", "DOUBLE"])
    def test_types_of_keys(self, con, type):
        texts = texts_of(np.random.default_rng(2), 30)
        fill(con, texts)
        con.execute(f"ALTER TABLE t ALTER id TYPE {type}")
        generate(con)
        # Text that others write otherwise: the key's type has changed.
        for other in (type, "DECIMAL(12, 4)" if type != "VARCHAR" else type):
            con.execute(f"ALTER TABLE t ALTER id TYPE {other}")
            for filter in (None, "id::DOUBLE < 20"):
                extra = "" if filter is None else f", filter := '{filter}'"
                rows = con.execute(f"SELECT id, _rank FROM jammi_search('t', 'alpha', 50{extra})").fetchall()
                assert sorted(int(float(key)) for key, _ in rows) == list(range(30 if filter is None else 20))
                assert [rank for _, rank in rows] == list(range(1, len(rows) + 1))

    def test_rows_that_are_gone_take_nobodys_place(self, long):
        con, passages = long
        con.execute("DELETE FROM t WHERE id % 3 = 0")
        with pytest.warns(JammiWarning, match="40 rows now"):
            hits = ask(con, "alpha beta", {"k": 30, "per_row": 2})
        check(hits, passages, lambda key: key % 3 > 0, "alpha beta", k=30, per_row=2)
        assert len({hit[0] for hit in hits}) == 30


class TestSimilar:
    def mean(self, passages, row):
        total = sum(text_vector(text).astype(np.float64) for (key, _), text in passages.items() if key == row)
        return total / np.linalg.norm(total)

    @pytest.mark.parametrize("exact", [False, True])
    def test_by_the_mean_of_the_rows_passages(self, long, exact):
        con, passages = long
        for row in (2, 17, 59):
            vector = self.mean(passages, row)
            near = {key: float(text_vector(text) @ vector) for key, text in passages.items() if key[0] != row}
            for per_row in (1, 3):
                found = con.execute(
                    "SELECT _row_id, _rank, _similarity, _passage FROM "
                    f"jammi_similar('t', {row}, 8, per_row := {per_row}, exact := {exact})"
                ).fetchall()
                bests = sorted((max(mine.values()) for mine in by_row(near).values()), reverse=True)[:8]
                own = {}
                for key, rank, similarity, number in found:
                    assert similarity == pytest.approx(near[int(key), number], abs=CLOSE)
                    own.setdefault((rank, key), []).append(similarity)
                assert [max(mine) for _, mine in sorted(own.items())] == pytest.approx(bests, abs=CLOSE)
                for (_, key), mine in own.items():
                    wanted = sorted(by_row(near)[int(key)].values(), reverse=True)[:per_row]
                    assert mine == pytest.approx(wanted, abs=CLOSE)

    def test_the_row_itself_is_left_out_with_all_its_passages(self, long):
        con, passages = long
        rows = {row for row, _ in passages}
        for row in (0, 30):
            found = con.execute(f"SELECT id FROM jammi_similar('t', {row}, 100)").fetchall()
            assert {key for (key,) in found} == rows - {row}
            assert len(found) == len(rows) - 1
        found = con.execute("SELECT t.id, s.id FROM t, jammi_similar('t', t.id, 2) s").fetchall()
        assert len(found) == 2 * len(rows)
        assert all(one != other for one, other in found)

    def test_no_such_row(self, long):
        con, _ = long
        assert con.execute("FROM jammi_similar('t', 777, 2)").fetchall() == []
        assert con.execute("FROM jammi_similar('t', NULL, 2)").fetchall() == []


class TestColumns:
    def test_of_tables_of_passages_and_of_others(self, long, jammi):
        con, _ = long
        con.execute("CREATE TABLE plain AS SELECT id, 'word' || id AS body, 1 AS _start, 'x' AS _passage_text FROM t")
        con.execute("FROM jammi_generate('plain', 'body', 'id')").fetchall()

        def columns(searched):
            found = con.execute(f"FROM {searched}")
            names = [column[0] for column in found.description]
            assert found.fetchall()
            return names

        types = con.sql("SELECT COLUMNS('_(passage|start|end|passage_text)$') FROM jammi_search('t', 'alpha', 3)").types
        assert list(map(str, types)) == ["INTEGER", "BIGINT", "BIGINT", "VARCHAR"]
        for searched in (
            "jammi_search('t', 'alpha')",
            "jammi_similar('t', 3)",
            "jammi_search('t', 'a', filter := 'true')",
        ):
            assert columns(searched) == ["id", "body", *HIT, *PLACE]
        assert columns("jammi_matches('t', 'alpha')") == ["_row_id", "_source_id", *HIT[1:], *PLACE[:3]]
        own = ["id", "body", "_start", "_passage_text"]
        for searched in ("jammi_search('plain', 'a')", "jammi_search('plain', 'a', filter := 'true')"):
            assert columns(searched) == [*own, *HIT]
        assert columns("jammi_matches('plain', 'alpha')") == ["_row_id", "_source_id", *HIT[1:]]
        assert jammi.search("t", "alpha").columns == ["id", "body", *HIT, *PLACE]
        assert jammi.search("plain", "alpha").columns == [*own, *HIT]
        assert jammi.search("plain", "word3", filter="_start = 1").project("_start").fetchall() == [(1,)] * 10

    @pytest.mark.parametrize("filter", [None, "_start = 1 AND _passage_text = 'x'"])
    def test_those_of_the_source_with_such_names(self, long, jammi, filter):
        con, _ = long
        con.execute("ALTER TABLE t ADD COLUMN _start INTEGER DEFAULT 1")
        con.execute("ALTER TABLE t ADD COLUMN _PASSAGE_TEXT VARCHAR DEFAULT 'x'")
        found = jammi.search("t", "alpha", 3, filter=filter)
        assert found.columns == ["id", "body", "__start", "__PASSAGE_TEXT", *HIT, *PLACE]
        assert found.project("__start, __passage_text, _passage_text <> 'x'").fetchall() == [(1, "x", True)] * 3

    def test_python_goes_a_quick_way_to_the_same_rows(self, long, jammi, monkeypatch):
        from jammi_duck.jammi import Jammi

        con, _ = long
        for options in (*WAYS, {"k1": 0.2}):
            for per_row in (1, 3):
                found = con.execute(
                    f"FROM jammi_search('t', $query, $k, per_row := $per_row{sql_of(options)})",
                    {"query": "alpha beta", "k": 7, "per_row": per_row, **options},
                )
                names, rows = [column[0] for column in found.description], found.fetchall()
                with monkeypatch.context() as patch:
                    patch.setattr(Jammi, "_found", None)
                    mine = jammi.search("t", "alpha beta", 7, per_row=per_row, **options)
                assert (mine.columns, mine.fetchall()) == (names, rows)
        con.execute("ALTER TABLE t RENAME body TO text")
        with pytest.raises(JammiError, match="no column 'body' in 't', from whose text the passages of"):
            jammi.search("t", "alpha")

    def test_explain_tells_of_passages(self, long):
        con, passages = long
        stages = con.execute("FROM jammi_explain('t', 'alpha', 4, per_row := 2)").fetchall()
        assert [stage for stage, *_ in stages].count("passages") == 2
        by_stage = {stage: (detail, rows) for stage, detail, rows, _ in reversed(stages)}
        assert by_stage["table"][0].endswith(f"{len(passages) / 60:.3g} passages a row")
        assert by_stage["passages"] == (f"the best {math.ceil(4 * len(passages) / 60) + 16} passages asked for: each "
                                        "row by its best", 4)  # fmt: skip
        assert by_stage["fetch"][1] == [rows for stage, _, rows, _ in stages if stage == "passages"][1] > 4
        assert by_stage["fuse"][0].endswith(" * its share of the words")

    def test_a_plan_without_the_text_does_not_cut_it(self, long):
        con, _ = long
        with_text, without = (
            con.execute(f"EXPLAIN (FORMAT json) SELECT {columns} FROM jammi_search('t', 'alpha', 3)").fetchall()[0][1]
            for columns in ("id, _passage_text", "id, _start")
        )
        assert '"body"' in with_text
        assert '"body"' not in without


SIGNS = st.sampled_from(
    ["a", "\u00e9", "e\u0301", "日", "👨‍👩‍👧", "🇩🇪", "\0", "\r\n", "\u202e", "א", "𐍈", "ﷺ", "\0\u0301", "\n\n", ". ",
     " ", "word"]
)  # fmt: skip


class TestText:
    @given(bodies=st.lists(st.lists(SIGNS, max_size=60).map("".join), min_size=1, max_size=6))
    @settings(max_examples=some(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_is_the_slice_of_python(self, con, bodies):
        texts = {row: text for row, text in enumerate(["alpha", *bodies])}
        fill(con, texts)
        made = generate(con)
        rows = con.execute("SELECT id, _start, _end, _passage_text FROM jammi_search('t', 'a', 99, per_row := 99)")
        found = rows.fetchall()
        assert found
        for row, start, end, text in found:
            assert text == texts[row][start:end]
        # The same texts may come again, for which the table would be taken again, with a warning.
        con.execute("FROM jammi_drop(?)", [made])

    def test_is_null_where_the_row_has_changed_since(self, long):
        con, _ = long
        con.execute("UPDATE t SET body = body || '.' WHERE id = 3")
        con.execute("UPDATE t SET body = NULL WHERE id = 4")
        con.execute("UPDATE t SET body = upper(body) WHERE id = 5")
        rows = dict(con.execute("SELECT id, _passage_text FROM jammi_search('t', 'alpha', 99)").fetchall())
        assert {row for row, text in rows.items() if text is None} == {3, 4, 5}
        places = con.execute("SELECT _passage, _start, _end FROM jammi_search('t', 'alpha', 99)").fetchall()
        assert not any(None in place for place in places)

    def test_of_several_columns_with_a_title(self, con):
        con.execute(
            """CREATE TABLE t AS SELECT range AS id, 'Title ' || range AS title, CASE WHEN range % 2 = 0 THEN 'Sub' END
            AS sub, repeat('word' || range || ' more. ', 9) AS body, 'and the end' AS tail FROM range(10)"""
        )
        generate(con, columns="['body', 'title', 'tail', 'sub']", passages="{'tokens': 8, 'title': ['title', 'sub']}")
        rows = con.execute("SELECT * FROM jammi_search('t', 'word3', 10, per_row := 2)").fetchall()
        assert len(rows) == 20
        for _, _, _, body, tail, *hit in rows:
            *_, start, end, text = hit
            assert text == f"{body} {tail}"[start:end]
        # The title is of the text whose digest is known.
        con.execute("UPDATE t SET title = 'T' WHERE id = 3")
        con.execute("UPDATE t SET sub = '' WHERE id = 2")
        rows = dict(con.execute("SELECT id, _passage_text FROM jammi_search('t', 'word3', 10)").fetchall())
        assert {row for row, text in rows.items() if text is None} == {2, 3}

    def test_a_word_only_the_title_has_is_found(self, con):
        con.execute(
            "CREATE TABLE t AS FROM (VALUES (1, 'zebra', 'red cat'), (2, 'owl', 'blue cat')) t(id, title, body)"
        )
        generate(con, columns="['title', 'body']", passages="{'tokens': 8, 'title': 'title'}")
        rows = con.execute("SELECT id, _passage_text FROM jammi_search('t', 'zebra', 5, mode := 'text')").fetchall()
        assert rows == [(1, "red cat")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A cross-encoder with random weights."""
    return make_reranker("bert", tmp_path_factory.mktemp("reranker") / "bert")


class TestRerank:
    @pytest.fixture
    def tall(self, tiny_model, tmp_path):
        import jammi_duck

        con = duckdb.connect()
        jammi = jammi_duck.install(con, storage=tmp_path / "artifacts", model=str(tiny_model), precision="float32")
        con.execute(
            """CREATE TABLE t AS SELECT range AS id, 'duck ' || range AS title,
            string_agg(w || '. ', '') FILTER (w IS NOT NULL) AS body FROM range(12),
            LATERAL (SELECT ['water', 'night', 'snow', 'river'][1 + (range * 7 + i) % 4] || ' ' || (range + i) AS w
            FROM range(3 + range % 5) s(i)) GROUP BY range"""
        )
        jammi.generate("t", ["title", "body"], "id", passages={"tokens": 14, "by": "sentence", "title": "title"})
        yield jammi
        con.close()

    @pytest.mark.parametrize("per_row", [1, 2])
    def test_reads_title_and_passage(self, tall, model, per_row):
        given = tall.search("t", "snow", 12, per_row=per_row).project("id, _passage, title, _passage_text").fetchall()
        scores = {
            (row, number): float(reranker(model).scores([("snow", f"{title} {text}")])[0])
            for row, number, title, text in given
        }
        for k in (4, 12):
            found = tall.search("t", "snow", k, rerank=str(model), rerank_k=12, per_row=per_row)
            assert found.columns == ["id", "title", "body", *HIT, "_rerank", *PLACE]
            rows = found.project("id, _rank, _score, _rerank, _passage").fetchall()
            for row, _, score, rerank, number in rows:
                assert score == rerank == pytest.approx(scores[row, number], abs=1e-5)
            bests = sorted((max(mine.values()) for mine in by_row(scores).values()), reverse=True)[:k]
            mine = by_row({(row, number): score for row, _, score, _, number in rows})
            assert [max(each.values()) for each in mine.values()] == pytest.approx(bests, abs=1e-5)
            assert [rank for _, rank, *_ in rows] == sorted(rank for _, rank, *_ in rows)
            assert {rank for _, rank, *_ in rows} == set(range(1, k + 1))
            assert {row: set(each) for row, each in mine.items()} == {row: set(by_row(scores)[row]) for row in mine}

    def test_reads_the_whole_row_where_it_has_changed_since(self, tall, model):
        tall.con.execute("UPDATE t SET body = 'snow' WHERE id = 3")
        rows = tall.search("t", "snow", 12, rerank=str(model)).project("id, _rerank, _passage_text").fetchall()
        (score,) = (score for row, score, _ in rows if row == 3)
        assert score == pytest.approx(float(reranker(model).scores([("snow", "duck 3 snow")])[0]), abs=1e-5)
        assert [row for row, _, text in rows if text is None] == [3]

    def test_is_evaluated_as_it_is_searched(self, tall, model):
        tall.con.execute("CREATE TABLE q AS FROM (VALUES (1, 'snow'), (2, 'night river')) q(id, text)")
        tall.con.execute("CREATE TABLE j AS FROM (VALUES (1, 3, 1), (2, 5, 1)) j(question, key, grade)")
        for rerank in ("NULL", f"'{model}'"):
            found = tall.con.execute(
                f"SELECT text, keys FROM jammi_eval_queries('t', 'q', 'j', k := 5, rerank := {rerank}, rerank_k := 12)"
            ).fetchall()
            for text, keys in found:
                extra = "" if rerank == "NULL" else f", rerank := {rerank}, rerank_k := 12"
                rows = tall.con.execute(f"SELECT _row_id FROM jammi_search('t', '{text}', 5{extra})").fetchall()
                assert keys == [key for (key,) in rows]
                assert len(set(keys)) == 5


class TestEvaluation:
    def test_judgements_of_rows(self, long):
        con, passages = long
        con.execute("CREATE TABLE q AS FROM (VALUES (1, 'alpha beta'), (2, 'E-1047'), (3, 'runs')) q(id, text)")
        con.execute("CREATE TABLE j AS SELECT 1 + range % 3 AS question, range AS key, 1 AS grade FROM range(30)")
        for question, text, keys, missed in con.execute(
            "SELECT question, text, keys, missed FROM jammi_eval_queries('t', 'q', 'j', k := 7)"
        ).fetchall():
            assert keys == [hit[0] for hit in ask(con, text, {"k": 7})]
            judged = {str(key) for key in range(30) if 1 + key % 3 == int(question)}
            assert set(missed) == judged - set(keys)
        values = dict(con.execute("SELECT metric, value FROM jammi_eval('t', 'q', 'j', k := 7)").fetchall())
        assert 0 <= values["ndcg"] <= 1

    def test_each_weight_is_searched_as_by_a_search(self, long, jammi):
        from jammi_duck.retrieval.evaluation import row_ids_of
        from jammi_duck.retrieval.search import search_by_weights, search_options
        from jammi_duck.retrieval.selection import Selection

        con, _ = long
        queries, weights = ["alpha beta", "E-1047 runs", "", "-alpha gamma"], [0.0, 0.25, 0.7, 1.0]
        (build,) = jammi._with_engine(lambda engine: [each.build for each in engine.tables.catalog.entries("ready")])
        for k in (3, 40):
            found = jammi._with_engine(
                lambda engine, k=k: search_by_weights(
                    engine.tables, engine.encoders, Selection(build), search_options(k), queries, weights
                )
            )
            for weight, answers in zip(weights, found, strict=True):
                for query, rows in zip(queries, row_ids_of(answers), strict=True):
                    wanted = ask(con, query, {"k": k, "mode": "hybrid", "weight": weight}) if query else []
                    assert rows == [hit[0] for hit in wanted]


class TestMistakes:
    def test_per_row(self, long, jammi):
        con, _ = long
        con.execute("CREATE TABLE plain AS SELECT id, 'word' || id AS body FROM t")
        con.execute("FROM jammi_generate('plain', 'body', 'id')").fetchall()
        for verb in ("search", "matches", "explain", "similar"):
            asked = "3" if verb == "similar" else "'alpha'"
            for per_row, told in (
                ("0", "per_row is 0; it must be at least 1, for the best passage of each row"),
                ("'two'", "per_row is two; it must be a whole number"),
            ):
                with pytest.raises(Exception, match=told):
                    con.execute(f"FROM jammi_{verb}('t', {asked}, per_row := {per_row})").fetchall()
            with pytest.raises(Exception, match=r"has each text as a whole; SELECT \* FROM jammi_generate\('plain', "):
                con.execute(f"FROM jammi_{verb}('plain', {asked}, per_row := 2)").fetchall()
            assert con.execute(f"FROM jammi_{verb}('plain', {asked}, 2, per_row := 1)").fetchall()
        with pytest.raises(InputError, match="passages := true"):
            jammi.search("plain", "alpha", per_row=2)
        with pytest.raises(InputError, match="per_row is -1"):
            jammi.search("t", "alpha", per_row=-1)
        # Another table of the source has them.
        (name,) = con.execute("SELECT embedding_table FROM jammi_tables() WHERE source = 'plain'").fetchall()[0]
        other = generate(con, "plain")
        with pytest.raises(InputError, match=f"embedding_table := '{other}' .* has passages of the same source"):
            jammi.search("plain", "alpha", per_row=2, embedding_table=name)

    def test_nothing_is_embedded_for_a_wrong_call(self, long, jammi):
        con, _ = long
        con.execute("CREATE TABLE plain AS SELECT id, 'word' || id AS body FROM t")
        con.execute("FROM jammi_generate('plain', 'body', 'id')").fetchall()
        jammi.encoders.loaded["fake/small"].encoded.clear()
        with pytest.raises(InputError):
            jammi.search("plain", "alpha", per_row=2)
        assert jammi.encoders.loaded["fake/small"].encoded == []


class TestCommandLine:
    def test_several_passages_of_a_row(self, folder, capsys):  # noqa: F811
        texts = {row: f"the duck {row}. " * (row * 3) for row in range(1, 6)}
        lines = ["id,body", *(f"{row},{text}" for row, text in texts.items())]
        (folder / "long.csv").write_text("\n".join(lines) + "\n")
        code, _, err = call(capsys, "generate long.csv --columns body --key id --passages --tokens 14")
        assert code == 0, err
        code, out, _ = call(capsys, "search long.csv 'the duck' -k 2 --per-row 2 --json --columns id")
        rows = json.loads(out)
        assert code == 0
        assert [row["_rank"] for row in rows] == [1, 1, 2, 2]
        assert list(rows[0]) == ["_rank", "_score", "_similarity", "_bm25", *PLACE, "id"]
        for row in rows:
            assert row["_passage_text"] == texts[row["id"]].strip()[row["_start"] : row["_end"]]
        _, out, _ = call(capsys, "search long.csv 'the duck' -k 2 --columns id")
        assert "_passage_text" in out
        code, _, err = call(capsys, "search long.csv 'the duck' --per-row 0")
        assert code == 2
        assert "per_row is 0; it must be at least 1" in err


class TestWordsOnly:
    @pytest.mark.parametrize("per_row", [1, 3])
    def test_rows_by_their_best_passage(self, con, per_row):
        texts = texts_of(np.random.default_rng(9), 40)
        fill(con, texts)
        con.execute("FROM jammi_generate('t', 'body', 'id', vectors := false, passages := {'tokens': 16})").fetchall()
        passages = stored(con, texts)
        for query in ("alpha beta", '"foo bar"', "+runs -alpha", "al*"):
            hits = ask(con, query, {"k": 9, "per_row": per_row})
            check(hits, passages, lambda _: True, query, k=9, per_row=per_row, mode="text")


TEXTS = st.one_of(
    st.lists(st.sampled_from(VOCABULARY), max_size=40).map(" ".join), st.sampled_from([None, "", "the", "alpha " * 60])
)
OPTIONS = st.fixed_dictionaries(
    {
        "k": st.integers(1, 12),
        "per_row": st.integers(1, 4),
        "mode": st.sampled_from(["text", "hybrid", "auto", "vector"]),
        "exact": st.booleans(),
    },
    optional={
        "filter": st.sampled_from(list(FILTERS)),
        "min_similarity": st.sampled_from([-0.5, 0.2, 0.5]),
    },
)
ASKED = st.lists(st.tuples(QUERIES, OPTIONS), min_size=2, max_size=4)


class History(RuleBasedStateMachine):
    """A table in segments of five passages that follows its source, and is searched after any step."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="passages-"))
        self.database = Database(self.folder, "db", str(self.folder / "artifacts"))
        self.texts, self.table = {}, {}
        self.patch = pytest.MonkeyPatch()
        self.quiet = contextlib.ExitStack()
        self.quiet.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")

    @initialize(texts=st.lists(TEXTS, min_size=4, max_size=10), by_graph=st.booleans(), few=st.booleans())
    def build(self, texts, by_graph, few):
        self.patch.setattr(*((graph, "graph_ms") if by_graph else (plan, "exact_ms")), lambda *_: 0.0)
        if few:
            self.patch.setattr(fusion, "_LEAST", 1)
            self.patch.setattr(fusion, "_FOR_EACH", 1)
            self.patch.setattr(best_rows, "_SPARE", 0)
        self.database.open()
        self.database.put(dict(enumerate(texts)))
        generate(self.database.con, columns="'text'")
        self.refreshed()

    def refreshed(self):
        self.texts = dict(self.database.source)
        self.table = stored(self.database.con, self.texts)

    @rule(first=st.integers(0, 12), texts=st.lists(TEXTS, min_size=1, max_size=4))
    def put(self, first, texts):
        self.database.put(dict(enumerate(texts, first)))

    @rule(keys=KEYS)
    def delete(self, keys):
        self.database.delete(sorted(keys))

    @rule(first=st.integers(0, 12), texts=st.lists(TEXTS, max_size=4), keys=KEYS, asked=ASKED)
    def change_and_refresh(self, first, texts, keys, asked):
        self.put(first, texts)
        self.delete(keys)
        self.database.con.execute("FROM jammi_refresh('t')").fetchall()
        self.refreshed()
        self.search_the_table(asked)

    @rule(asked=ASKED)
    def compact(self, asked):
        self.database.con.execute("FROM jammi_compact('t')").fetchall()
        self.search_the_table(asked)

    @rule(asked=ASKED)
    def search_the_table(self, asked):
        """Its passages are those of the last refresh."""
        for query, options in asked:
            options = {name: value for name, value in options.items() if name != "filter"}
            hits = ask(self.database.other, query, options, "jammi_matches")
            self.check(hits, lambda _: True, query, options)

    @rule(query=QUERIES, options=OPTIONS)
    def search_the_source(self, query, options):
        """Rows that the source has lost, or that do not pass, are not found; passages of changed ones have no text."""
        passes, source = FILTERS[options.get("filter")], self.database.source
        options = {**options, "filter": options.get("filter") or "true"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JammiWarning)
            hits = ask(self.database.con, query, options, columns=(*HIT, *PLACE))
        self.check([hit[:9] for hit in hits], lambda key: key in source and passes(key), query, options)
        for hit in hits:
            key, (start, end, text) = int(hit[0]), hit[7:]
            is_same = (source[key] or "") == (self.texts[key] or "")
            assert text == (source[key][start:end] if is_same else None)

    def check(self, hits, may, query, options):
        if options["mode"] == "vector" and not query.strip():
            assert hits == []
            return
        check(hits, self.table, may, query, **options)

    def teardown(self):
        self.database.close()
        self.quiet.close()
        self.patch.undo()
        shutil.rmtree(self.folder)


HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


class TestHistory(History.TestCase):
    settings = settings(max_examples=10, stateful_step_count=8, deadline=None, suppress_health_check=HEALTH)


@pytest.mark.long
class TestLongHistory(History.TestCase):
    settings = settings(max_examples=250, stateful_step_count=25, deadline=None, suppress_health_check=HEALTH)
