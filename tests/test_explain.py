"""jammi_explain and jammi_check: how a search was done, and how good an index is; and the verbs of Python for both."""

# ruff: noqa: F811 - fixtures of another file

import duckdb
import numpy as np
import pytest

from jammi_duck.errors import JammiWarning
from jammi_duck.storage.index import graph
from tests.fakes import text_vector
from tests.test_generate import error_of, generate
from tests.test_search import fill, ids
from tests.test_selection import numbers, way  # noqa: F401


class TestExplain:
    def test_says_what_was_done(self, numbers):
        con, _ = numbers
        rows = con.execute("FROM jammi_explain('t', 'red', 4, filter := 'bucket < 10', mode := 'vector')").fetchall()
        stages = [row[0] for row in rows]
        assert stages == ["table", "filter", "encode", "exact", "rank", "fetch"]
        by_stage = {row[0]: row for row in rows}
        assert by_stage["table"][1].startswith("t__embedding__small__")
        assert "7 segments, 64 dimensions" in by_stage["table"][1]
        assert (by_stage["filter"][2], by_stage["fetch"][2]) == (20, 4)
        assert by_stage["exact"][1].startswith("2 segments: 20 of 600 vectors: ")
        assert "ms predicted" in by_stage["exact"][1]
        assert by_stage["exact"][2] == 20
        assert all(milliseconds >= 0 for *_, milliseconds in rows)

    def test_says_when_the_graph_was_taken(self, numbers, monkeypatch):
        con, _ = numbers
        monkeypatch.setattr(graph, "graph_ms", lambda *_: 0.0)
        rows = con.execute("SELECT stage, detail FROM jammi_explain('t', 'red', 4, mode := 'vector')").fetchall()
        assert rows[2][0] == "graph"
        assert "20 neighbours by the graph" in rows[2][1]

    def test_runs_nothing_but_the_search_it_explains(self, numbers):
        con, _ = numbers
        con.begin()
        con.execute("DELETE FROM t WHERE id > 500")
        with pytest.warns(JammiWarning):
            rows = con.execute("SELECT stage, detail, row_count FROM jammi_explain('t', 'red', 4)").fetchall()
        assert rows[1] == ("filter", "the rows that the source still has", 501)
        con.rollback()
        assert "no embedding table for 'x'" in error_of(con, "FROM jammi_explain('x', 'red')")

    def test_several_in_one_query(self, numbers):
        con, _ = numbers
        one, other = (
            f"SELECT '{n}', row_count FROM jammi_explain('t', 'red', 4, filter := 'bucket < {n}')" for n in (1, 4)
        )
        rows = con.execute(f"FROM ({one} UNION ALL {other})").fetchall()
        assert ("1", 2) in rows
        assert ("4", 8) in rows
        assert ("1", 8) not in rows

    def test_no_query_gives_only_the_fetch(self, numbers):
        con, _ = numbers
        assert con.execute("SELECT stage, row_count FROM jammi_explain('t', NULL)").fetchall() == [("fetch", 0)]

    @pytest.mark.parametrize("options", ["'red', filter := 'false'", "NULL"])
    def test_a_search_that_does_not_run_is_not_taken_for_the_one_before(self, numbers, options):
        con, _ = numbers
        for begin, end in (("SELECT 1", "SELECT 1"), ("BEGIN", "ROLLBACK")):
            con.execute(begin)
            assert len(con.execute("FROM jammi_explain('t', 'red')").fetchall()) > 3
            stages = con.execute(f"SELECT stage, row_count FROM jammi_explain('t', {options})").fetchall()
            assert stages[-1] == ("fetch", 0)
            assert {"exact", "graph"}.isdisjoint(stage for stage, _ in stages)
            con.execute(end)


class TestCheck:
    def test_recall_of_an_index(self, numbers, way):
        con, _ = numbers
        row = con.execute("FROM jammi_check('t', 5)").fetchall()
        (name, rows, segments, k, queries, recall, index_ms, exact_ms, advice), again = row[0], row[0][5]
        assert name.startswith("t__embedding__small__")
        assert (rows, segments, k, queries) == (2000, 7, 5, 200)
        assert recall > 0.97
        assert index_ms > 0
        assert exact_ms > 0
        assert (advice == "the index is good") == (recall >= 0.99)
        assert con.execute("SELECT recall FROM jammi_check('t', 5)").fetchall() == [(again,)]

    def test_an_index_that_finds_little(self, numbers, monkeypatch):
        con, _ = numbers
        monkeypatch.setattr(graph, "graph_ms", lambda *_: 0.0)
        monkeypatch.setattr(graph, "SPARE", 0)
        search = graph.OpenGraph.search

        def poor(self, queries, k, wanted, allowed):
            found, sure = search(self, queries[:, ::-1].copy(), k, wanted, allowed)
            return found, np.ones_like(sure)

        monkeypatch.setattr(graph.OpenGraph, "search", poor)
        recall, advice = con.execute("SELECT recall, advice FROM jammi_check('t')").fetchall()[0]
        assert recall < 0.5
        assert "exact := true finds all of them" in advice

    def test_an_index_that_is_gone(self, numbers, storage, fake):
        for sidecar in storage.rglob("*.usearch"):
            sidecar.unlink()
        other = fake(duckdb.connect()).con
        rows = other.execute("SELECT queries, recall, advice FROM jammi_check('t')").fetchall()
        assert rows[0][:2] == (0, None)
        assert "usearch' is missing); SELECT * FROM jammi_recover() builds it again" in rows[0][2]

    @pytest.mark.parametrize("texts", [[], ["red"]])
    def test_of_no_rows_and_of_one(self, fake, texts):
        con = fake().con
        fill(con, texts)
        generate(con, "t")
        assert con.execute("SELECT queries, recall, advice FROM jammi_check('t')").fetchall() == [
            (0, None, "nothing to compare")
        ]
        assert ids(con, "red", 10) == list(range(len(texts)))
        assert con.execute("FROM jammi_similar('t', 0)").fetchall() == []

    def test_mistakes(self, numbers):
        con, _ = numbers
        assert "k is 0" in error_of(con, "FROM jammi_check('t', 0)")
        assert "k is NULL" in error_of(con, "FROM jammi_check('t', NULL)")
        assert "no embedding table for 'x'" in error_of(con, "FROM jammi_check('x')")


class TestPython:
    def test_the_same_as_methods(self, fake):
        jammi = fake()
        fill(jammi.con, ["red cat", "red dog", "green duck", "blue owl"])
        jammi.generate("t", "text", "id")
        vector = text_vector("red").astype(np.float64)
        assert jammi.search("t", vector, 1, filter="id > 0").project("id").fetchall() == [(1,)]
        assert jammi.search("t", "red", min_similarity=0.999).fetchall() == []
        assert jammi.similar("t", 0, 1).project("id").fetchall() == [(1,)]
        assert jammi.explain("t", "red").project("stage").fetchall()[-1] == ("fetch",)
        assert jammi.check("t", 2).project("recall").fetchall() == [(1.0,)]
