"""Filters, rows that are gone, rows like a row, thresholds: a search finds all that it may find, and nothing else."""

import threading
from dataclasses import replace
from itertools import cycle, pairwise

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.errors import JammiWarning
from jammi_duck.storage.index import graph, plan
from tests.fakes import text_vector
from tests.test_generate import error_of, generate
from tests.test_search import WORDS, fill, ids

# Each test has three plans.
pytestmark = pytest.mark.sampled(3)

TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), max_size=40)


@pytest.fixture(params=["graph", "exact", "in turns"])
def way(request, monkeypatch):
    """Each plan, whatever the planner would choose for so few rows, and both of them, segment by segment."""
    monkeypatch.setattr(*((plan, "exact_ms") if request.param == "exact" else (graph, "graph_ms")), lambda *_: 0.0)
    if request.param == "in turns":
        choose, turns = plan.choose, cycle([False, True])

        def chosen(*segment, **shape):
            by_itself = choose(*segment, **shape)
            return replace(by_itself, exact=True) if next(turns) else by_itself

        monkeypatch.setattr(plan, "choose", chosen)
    return request.param


@pytest.fixture
def numbers(fake):
    """A table of 2,000 rows in segments of 300, with words in common, and its embedding table."""
    con = fake(segment_rows=300).con
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, 3)) + f" n{i}" for i in range(2000)]
    con.execute(
        "CREATE TABLE t AS SELECT i AS id, text, (i % 1000)::INTEGER AS bucket, split_part(text, ' ', 1) AS kind "
        "FROM (SELECT unnest(range(2000)) AS i, unnest($1) AS text)",
        [texts],
    )
    generate(con, "t")
    return con, texts


def nearest(texts, query, k, keep=lambda i: True, least=-2.0):
    """The oracle: exact search in plain numpy over the rows that are kept; ids, best first, ties by the id as text."""
    vector = (text_vector(query) if isinstance(query, str) else query).astype(np.float64)
    near = [
        (-np.float32(text_vector(text).astype(np.float64) @ vector), str(i)) for i, text in enumerate(texts) if keep(i)
    ]
    return [int(i) for similarity, i in sorted(near)[:k] if -similarity >= np.float32(least)]


def agree(way, found, expected):
    """Whether an answer is the right one; a graph may miss a row now and then, but gives as many."""
    if way == "exact":
        return found == expected
    return len(found) == len(expected) and missed(found, expected) <= 1


def missed(found, expected):
    """How many rows were missed, of each five that are right, or of fewer."""
    return len(set(expected) - set(found)) / max(1, len(expected) / 5)


class TestFilter:
    @given(
        texts=TEXTS,
        query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
        k=st.integers(1, 50),
        segment_rows=st.sampled_from([1, 7, 1000]),
        modulus=st.integers(1, 9),
        least=st.sampled_from([-1.0, 0.0, 0.3, 1.0]),
    )
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_finds_what_exact_search_over_the_survivors_finds(
        self, fake, way, texts, query, k, segment_rows, modulus, least
    ):
        con = fake(duckdb.connect(), segment_rows=segment_rows).con
        fill(con, texts)
        generate(con, "t")
        expected = nearest(texts, query, k, lambda i: i % modulus == 0, least)
        found = ids(con, query, k, filter=f"'id % {modulus} = 0'", min_similarity=least)
        assert found == expected if way == "exact" else missed(found, expected) <= 1
        assert least > -1 or len(found) == len(expected)
        assert set(found) <= set(nearest(texts, query, len(texts), lambda i: i % modulus == 0, least))
        con.close()

    @pytest.mark.parametrize(
        "predicate",
        [
            "bucket < 1",
            "bucket < 20",
            "bucket < 500",
            "kind = 'red'",
            "kind = 'red' AND bucket < 50",
            "id IN (SELECT id FROM t WHERE bucket = 7)",
            "true",
            "false",
            "NULL",
        ],
    )
    def test_gives_as_many_rows_as_there_are(self, numbers, way, predicate):
        con, texts = numbers
        survivors = {i for (i,) in con.execute(f"SELECT id FROM t WHERE {predicate}").fetchall()}
        hits = wanted = 0
        # Graphs differ from build to build: with few queries, a share of their neighbours would be a matter of luck.
        more = (f"{a} {b}" for a, b in pairwise(WORDS))
        for query in ("red night", "glass", "owl n77", "n1999 stone water", *more, *texts[::100]):
            expected = nearest(texts, query, 10, survivors.__contains__)
            found = ids(con, query, 10, filter="'" + predicate.replace("'", "''") + "'")
            assert len(found) == min(10, len(survivors))
            assert set(found) <= survivors
            hits += len(set(found) & set(expected))
            wanted += len(expected)
        assert hits >= 0.97 * wanted

    def test_a_row_that_does_not_pass_is_never_given(self, numbers):
        con, _ = numbers
        con.execute("INSERT INTO t SELECT id, 'a secret', bucket, 'hidden' FROM t WHERE id < 9")
        rows = con.execute(
            "SELECT id, kind FROM jammi_search('t', 'n5', 100, filter := $$kind <> 'hidden'$$)"
        ).fetchall()
        assert len(rows) == 100
        assert "hidden" not in {kind for _, kind in rows}

    def test_ties_beyond_what_the_graph_was_asked_for(self, fake, way):
        con = fake().con
        fill(con, [*["red cat"] * 600, *(f"owl n{i}" for i in range(600))])
        generate(con, "t")
        smallest = sorted((i for i in range(0, 600, 2)), key=str)
        assert ids(con, "red cat", 7, filter="'id % 2 = 0'") == smallest[:7]
        assert ids(con, "red cat", 7) == sorted(range(600), key=str)[:7]

    def test_ties_across_segments(self, fake, way):
        con = fake(segment_rows=400).con
        fill(con, [f"owl n{i}" if i % 13 else "red cat" for i in range(2000)])
        generate(con, "t")
        for k in (7, 60):
            for modulus, options in ((13, {}), (26, {"filter": "'id % 2 = 0'"})):
                found, equal = ids(con, "red cat", k, **options), sorted(range(0, 2000, modulus), key=str)
                # Of many equal vectors, a graph may not reach each.
                assert found == equal[:k] if way == "exact" else set(found) <= set(equal)
                assert found == sorted(found, key=str)
                assert len(found) == k

    def test_columns_of_a_lateral_join(self, numbers):
        con, _ = numbers
        con.execute("CREATE TABLE q AS SELECT range AS wanted FROM range(20)")
        rows = con.execute("SELECT q.wanted, s.id FROM q, jammi_search('t', 'owl', 1, filter := 't.id = q.wanted') s")
        assert sorted(rows.fetchall()) == [(i, i) for i in range(20)]

    def test_the_table_can_be_called_by_its_name(self, numbers):
        con, _ = numbers
        assert ids(con, "n5", 1, filter="'t.id = 6'") == [6]
        assert ids(con, "n5", 1, filter="'\"T\".id = 6 -- that one'") == [6]

    def test_in_the_callers_own_transaction(self, numbers):
        con, texts = numbers
        con.begin()
        con.execute("CREATE TEMP TABLE chosen AS SELECT 11 AS id")
        con.execute("UPDATE t SET bucket = -1 WHERE id IN (11, 12)")
        assert sorted(ids(con, "red", 10, filter="'bucket = -1'")) == [11, 12]
        assert ids(con, "red", 10, filter="'id IN (FROM chosen)'") == [11]
        con.rollback()
        assert ids(con, "red", 10, filter="'bucket = -1'") == []

    def test_prepared_with_the_filter_as_a_parameter(self, numbers):
        con, texts = numbers
        con.execute("PREPARE find AS SELECT id FROM jammi_search('t', $1, 3, filter := $2, mode := 'vector')")
        assert con.execute("EXECUTE find('n5', 'id = 6')").fetchall() == [(6,)]
        assert con.execute("EXECUTE find('n5', 'id = 8')").fetchall() == [(8,)]
        assert con.execute("EXECUTE find('n5', NULL)").fetchall() == [(i,) for i in nearest(texts, "n5", 3)]

    def test_lateral_selects_once(self, numbers, monkeypatch):
        con, texts = numbers
        from jammi_duck.retrieval.selection import Selections

        kept, keep = [], Selections.keep
        monkeypatch.setattr(Selections, "keep", lambda *a, **b: kept.append(a[3].row_ids) or keep(*a, **b))
        con.execute("CREATE TABLE q AS SELECT range AS n, 'owl n' || range AS text FROM range(3000)")
        rows = con.execute(
            "SELECT q.n, list(s.id ORDER BY s._rank) FROM q, "
            "jammi_search('t', q.text, 3, filter := 'bucket < 50', mode := 'vector') s GROUP BY q.n"
        ).fetchall()
        assert len(rows) == 3000
        assert [sum(map(len, row_ids)) for row_ids in kept] == [100]
        assert all(found == nearest(texts, f"owl n{n}", 3, lambda i: i % 1000 < 50) for n, found in rows[:30])

    def test_several_in_one_query(self, numbers):
        con, _ = numbers
        unions = " UNION ALL ".join(
            f"SELECT {i} AS n, id FROM jammi_search('t', 'n5', 1, filter := 'id = {i}')" for i in range(20)
        )
        assert sorted(con.execute(unions).fetchall()) == [(i, i) for i in range(20)]

    def test_matches_filters_too(self, numbers):
        con, _ = numbers
        rows = con.execute("SELECT _row_id FROM jammi_matches('t', 'n5', 5, filter := 'id IN (6, 7)')").fetchall()
        assert sorted(rows) == [("6",), ("7",)]

    @pytest.mark.parametrize(
        ("predicate", "message"),
        [
            ("buckt = 1", 'Candidate bindings: "bucket"'),
            ("bucket =", "the filter 'bucket =' cannot be parsed: syntax error"),
            ("", "the filter is empty"),
            ("1=1) UNION SELECT (1", "is more than a condition"),
            ("1=1) ORDER BY (1", "is more than a condition"),
            ("true) GROUP BY (1", "is more than a condition"),
            ("true); DROP TABLE t; SELECT (1", "cannot be parsed"),
            ("true /*", "cannot be parsed"),
            ("id = $1", "has a parameter without a name"),
            ("count(*) > 1", "cannot contain aggregates"),
            ("EXISTS (FROM jammi_drop('x'))", "calls jammi_drop, and a filter may change nothing"),
            ("nextval('s') > 1", "calls nextval"),
            ("_jammi_clock(1) > 1", "calls _jammi_clock"),
            ("id", None),
            ("text", "Could not convert"),
        ],
    )
    def test_mistakes(self, numbers, predicate, message):
        con, _ = numbers
        text = "FROM jammi_search('t', 'x', filter := '" + predicate.replace("'", "''") + "')"
        if message is None:
            con.execute(text).fetchall()
        else:
            assert message in error_of(con, text)
        assert con.execute("SELECT count(*) FROM t").fetchone() == (2000,)


class TestGone:
    def test_answers_stay_full_and_the_user_is_told_once(self, numbers, way):
        con, texts = numbers
        gone = set(ids(con, "owl n5", 8))
        con.execute(f"DELETE FROM t WHERE id IN ({', '.join(map(str, gone))})")
        with pytest.warns(JammiWarning, match="'t' has 1,992 rows now, and had 2,000") as told:
            for query in ("owl n5", "owl n6"):
                found = ids(con, query, 10)
                assert agree(way, found, nearest(texts, query, 10, lambda i: i not in gone))
                assert not set(found) & gone
        assert len(told) == 1
        assert len(ids(con, "owl n5", 5000)) == 1992

    def test_within_a_transaction(self, numbers):
        con, texts = numbers
        con.begin()
        con.execute("DELETE FROM t WHERE id <> 7")
        with pytest.warns(JammiWarning, match="has 1 rows now"):
            assert ids(con, "owl", 10) == [7]
        con.rollback()
        assert ids(con, "owl", 10) == nearest(texts, "owl", 10)

    def test_an_empty_source_and_new_rows(self, numbers):
        con, texts = numbers
        con.execute("INSERT INTO t SELECT id + 5000, text, bucket, kind FROM t")
        with pytest.warns(JammiWarning, match="has 4,000 rows now"):
            assert ids(con, "owl", 10) == nearest(texts, "owl", 10)
        con.execute("DELETE FROM t")
        assert ids(con, "owl", 10) == []

    def test_rows_without_text_are_not_taken_for_gone(self, fake):
        con = fake().con
        fill(con, ["red", "", "blue", "  "])
        generate(con, "t")
        assert ids(con, "red", 1) == [0]


class TestSimilar:
    def test_leaves_the_row_itself_out(self, numbers, way):
        con, texts = numbers
        rows = con.execute("SELECT id, _rank FROM jammi_similar('t', 77, 5)").fetchall()
        found = [i for i, _ in rows]
        assert agree(way, found, nearest(texts, texts[77], 5, lambda i: i != 77))
        assert 77 not in found
        assert [rank for _, rank in rows] == [1, 2, 3, 4, 5]

    def test_among_more_copies_than_are_wanted(self, fake):
        con = fake().con
        fill(con, ["red cat"] * 9 + ["dog"])
        generate(con, "t")
        assert con.execute("SELECT id FROM jammi_similar('t', 8, 3)").fetchall() == [(0,), (1,), (2,)]
        assert con.execute("SELECT id FROM jammi_similar('t', 9, 3)").fetchall() == [(0,), (1,), (2,)]

    @pytest.mark.parametrize(
        ("kind", "key"),
        [("BIGINT", "'07'"), ("BIGINT", "7.0"), ("DOUBLE", "7"), ("DECIMAL(9, 2)", "7"), ("VARCHAR", "7")],
    )
    def test_a_key_that_is_written_otherwise(self, fake, kind, key):
        con = fake().con
        con.execute(f"CREATE TABLE t AS SELECT range::{kind} AS id, 'word' || range AS text FROM range(20)")
        generate(con, "t")
        assert len(con.execute(f"SELECT id FROM jammi_similar('t', {key}, 3)").fetchall()) == 3

    def test_a_row_without_a_vector_has_no_neighbours(self, fake):
        con = fake().con
        fill(con, ["red", "", "blue"])
        generate(con, "t")
        rows = con.execute("SELECT t.id, s.id FROM t, jammi_similar('t', t.id, 5) s ORDER BY ALL").fetchall()
        assert rows == [(0, 2), (2, 0)]
        assert con.execute("FROM jammi_similar('t', 17)").fetchall() == []
        assert con.execute("FROM jammi_similar('t', NULL)").fetchall() == []

    def test_with_a_filter_and_a_threshold(self, numbers):
        con, texts = numbers
        rows = con.execute("SELECT id FROM jammi_similar('t', 77, 5, filter := 'id % 2 = 0', min_similarity := 0.5)")
        assert [i for (i,) in rows.fetchall()] == nearest(texts, texts[77], 5, lambda i: i % 2 == 0, 0.5)

    def test_where_the_sidecars_are_gone(self, numbers, storage, fake):
        con, texts = numbers
        for sidecar in storage.rglob("*.vectors"):
            sidecar.unlink()
        other = fake(duckdb.connect()).con
        other.execute("CREATE TABLE t AS SELECT range AS id FROM range(2000)")
        with pytest.warns(JammiWarning, match="vectors' is missing"):
            rows = other.execute("SELECT id FROM jammi_similar('t', 77, 5)").fetchall()
        assert [i for (i,) in rows] == nearest(texts, texts[77], 5, lambda i: i != 77)


class TestQueries:
    def test_numbers_beyond_all_bounds(self, numbers):
        con, texts = numbers
        most = 2**63 - 1
        assert len(ids(con, "red", most)) == 2000
        assert len(con.execute(f"FROM jammi_similar('t', 4, {most})").fetchall()) == 1999
        assert con.execute(f"SELECT recall FROM jammi_check('t', {2**31 - 1})").fetchall() == [(1.0,)]
        assert ids(con, "red", 3, min_similarity=1e300) == []
        assert ids(con, "red", 3, min_similarity=-1e300) == nearest(texts, "red", 3)
        assert "min_similarity is not a number" in error_of(
            con, "FROM jammi_search('t', 'red', min_similarity := 'nan'::DOUBLE)"
        )

    def test_everything_closer_than_this(self, numbers, way):
        con, texts = numbers
        expected = nearest(texts, "red night", 1000, least=0.5)
        assert 0 < len(expected) < 1000
        found = ids(con, "red night", 1000, min_similarity=0.5)
        assert set(found) <= set(expected)
        assert len(found) >= 0.9 * len(expected)
        assert way == "graph" or found == expected

    def test_a_batch_of_vectors_is_answered_as_one_by_one(self, numbers, way):
        con, _ = numbers
        con.execute("CREATE TABLE q AS SELECT id AS n, embed(text) AS v FROM t WHERE id < 200")
        batch = con.execute(
            "SELECT q.n, list(s.id ORDER BY s._rank) FROM q, jammi_search('t', q.v, 4) s GROUP BY q.n ORDER BY q.n"
        ).fetchall()
        for n, found in batch[:20]:
            alone = ids(con, con.execute("SELECT v FROM q WHERE n = ?", [n]).fetchall()[0][0], 4)
            assert agree(way, found, alone)

    def test_threads_and_connections_at_once(self, numbers, fake, way):
        con, texts = numbers
        problems = []

        def ask(number):
            try:
                mine = con.cursor()
                fake(mine)
                for i in range(number, 60, 6):
                    assert agree(way, ids(mine, f"owl n{i}", 3), nearest(texts, f"owl n{i}", 3))
                    assert ids(mine, f"owl n{i}", 1, filter=f"'id = {i}'") == [i]
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=ask, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
