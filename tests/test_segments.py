"""Searches over several segments, large and small, whole and damaged; and the laws of the scan and of the plan."""

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jammi_duck.errors import JammiWarning
from jammi_duck.storage.index import graph, nearest
from jammi_duck.storage.index.exact import LEAST, Block, scan, similarities
from jammi_duck.storage.index.graph import expansion
from tests.fakes import text_vector
from tests.test_generate import error_of, generate
from tests.test_search import WORDS, fill, ids

# So many that more than one core looks at a segment.
LARGE = 5000


@pytest.fixture(scope="module")
def texts():
    """Three words each, so that there are many ties."""
    rng = np.random.default_rng(5)
    return [" ".join(rng.choice(WORDS, 3)) for _ in range(LARGE + LARGE // 2)]


@pytest.fixture
def large(fake, texts, tmp_path):
    """A table of two segments in a database file."""
    con = fake(duckdb.connect(str(tmp_path / "db.duckdb")), segment_rows=LARGE).con
    fill(con, texts)
    generate(con, "t")
    return con


@pytest.fixture
def reopened(large, fake, tmp_path):
    """A function that closes it and opens it again."""

    def reopen():
        large.close()
        return fake(duckdb.connect(str(tmp_path / "db.duckdb"))).con

    return reopen


def right(texts, query, k, keep=lambda i: True):
    """All at once, in numpy: the ids, best first, ties by the id as text."""
    near = similarities(np.array([[text_vector(text) for text in texts]]), text_vector(query)[None])[0]
    return sorted((i for i in range(len(texts)) if keep(i)), key=lambda i: (-near[i], str(i)))[:k]


class TestLargeSegments:
    @pytest.mark.parametrize("k", [1, 25])
    def test_exactly_on_all_cores(self, large, texts, k):
        for query in ("red cat dog", "night"):
            assert ids(large, query, k, exact="true") == right(texts, query, k)
            found = ids(large, query, k, exact="true", filter="'hash(id) % 3 <> 0'")
            kept = {i for (i,) in large.execute("SELECT id FROM t WHERE hash(id) % 3 <> 0").fetchall()}
            assert found == right(texts, query, k, kept.__contains__)

    @pytest.mark.parametrize("kind", ["usearch", "vectors", "rowmap"])
    def test_with_one_that_is_damaged(self, reopened, texts, storage, kind, monkeypatch):
        monkeypatch.setattr(graph, "graph_ms", lambda *_: 0.0)
        min(storage.rglob(f"*.{kind}")).unlink()
        con = reopened()
        with pytest.warns(JammiWarning, match=f"{kind}' is missing"):
            explained = con.execute(
                "SELECT stage, detail FROM jammi_explain('t', 'red cat dog', 25, mode := 'vector')"
            ).fetchall()
        assert [stage for stage, _ in explained] == ["table", "encode", "graph", "exact", "rank", "fetch"]
        assert explained[2][1].startswith("segment 0: ")
        assert explained[3][1] == "segment 1: 2,500 of 2,500 vectors: there is no index"
        found, expected = ids(con, "red cat dog", 25), right(texts, "red cat dog", 25)
        # A graph that several threads have built may have lost the way to a row.
        assert len(found) == 25
        assert len(set(expected) - set(found)) <= 2
        assert ids(con, "red", 25, exact="true") == right(texts, "red", 25)

    def test_with_one_that_is_lost(self, reopened, storage):
        min(storage.rglob("*.parquet")).unlink()
        min(storage.rglob("*.vectors")).unlink()
        con = reopened()
        with pytest.warns(JammiWarning, match="vectors' is missing"):
            assert "its rows are lost" in error_of(con, "FROM jammi_search('t', 'red', exact := true)")
        assert "its rows are lost" in error_of(con, "FROM jammi_search('t', 'red')")


class TestSmallSegments:
    def test_what_is_said_of_them(self, fake, storage, tmp_path):
        def opened():
            return fake(duckdb.connect(str(tmp_path / "small.duckdb")), segment_rows=100).con

        con = opened()
        fill(con, [f"word{i}" for i in range(1000)])
        generate(con, "t")
        assert detail(con, "") == "10 segments: 1,000 of 1,000 vectors: N ms predicted, N ms by the graph"
        assert detail(con, ", exact := true") == "10 segments: 1,000 of 1,000 vectors: exact := true"
        assert detail(con, ", filter := 'id < 3'") == "segment 0: 3 of 100 vectors: N ms predicted, N ms by the graph"
        assert detail(con, ", filter := 'false'") is None
        for lost, reason in ((1, "1 of them without an index"), (9, "there is no index")):
            con.close()
            for sidecar in list(storage.rglob("*.usearch"))[:lost]:
                sidecar.unlink()
            con = opened()
            with pytest.warns(JammiWarning):
                assert detail(con, "") == f"10 segments: 1,000 of 1,000 vectors: {reason}"

    def test_are_measured_by_what_the_graphs_have_found(self, fake, monkeypatch):
        con = fake(segment_rows=500).con
        fill(con, [f"{WORDS[i % 16]} word{i}" for i in range(600)])
        generate(con, "t")
        bars = []

        def spied(blocks, queries, k, least):
            bars.extend(least.tolist())
            return scan(blocks, queries, k, least)

        monkeypatch.setattr(nearest, "scan", spied)
        monkeypatch.setattr(graph, "graph_ms", lambda *_: 0.0)
        monkeypatch.setattr(graph, "neighbours", lambda rows, allowed, k: 26 if rows == 500 else rows)
        similarity = "SELECT _similarity FROM jammi_search('t', 'red', 10, mode := 'vector') WHERE id < 500"
        assert con.execute(similarity).fetchall()
        assert [LEAST < bar < 1 for bar in bars] == [True]


def detail(con, options):
    """What jammi_explain says of the scan, where milliseconds are N."""
    explained = f"FROM jammi_explain('t', 'word5', 4, mode := 'vector'{options}) WHERE stage = 'exact'"
    rows = con.execute(rf"SELECT regexp_replace(detail, '[0-9.e-]+ ms', 'N ms', 'g') {explained}").fetchall()
    return rows[0][0] if rows else None


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 40), max_size=5),
    queries=st.integers(1, 3),
    count=st.integers(1, 20),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    bar=st.sampled_from([LEAST, -0.5, 0.0, 0.5, 1.0]),
)
def test_a_scan_finds_the_best_in_any_blocks(seed, sizes, queries, count, share, bar):
    rng = np.random.default_rng(seed)
    asked = rng.choice([-1.0, 1.0], (queries, 4)).astype(np.float32) / 2
    blocks, start = [], 0
    for size in sizes:
        vectors = rng.choice([-1.0, 1.0], (size, 4)).astype(np.float32) / 2
        blocks.append(Block(start, vectors, rng.random(size) < share if rng.random() < 0.7 else None))
        start += size
    found = scan(blocks, asked, count, np.full(queries, bar, np.float32))
    for i, query in enumerate(asked):
        near = {
            block.start + row: float(block.vectors[row] @ query)
            for block in blocks
            for row in range(len(block.vectors))
            if block.allowed is None or block.allowed[row]
        }
        last = sorted(near.values(), reverse=True)[min(count, len(near)) - 1] if near else 0.0
        expected = {row: similarity for row, similarity in near.items() if similarity >= max(last, bar)}
        there = found.positions[i] >= 0
        assert dict(zip(found.positions[i][there], found.similarities[i][there], strict=True)) == expected
        assert (found.similarities[i][~there] == -np.inf).all()


@given(rows=st.integers(1, 2_000_000), less=st.integers(0, 2_000_000), k=st.integers(1, 5000))
def test_a_graph_is_asked_for_more_where_rows_are_left_out(rows, less, k):
    allowed = max(1, rows - less)
    wanted = graph.neighbours(rows, allowed, k)
    assert min(rows, k) <= wanted <= min(rows, k + graph.SPARE + rows - allowed)
    assert wanted <= graph.neighbours(rows, max(1, allowed // 2), k)
    assert graph.neighbours(rows, rows, k) <= wanted
    assert wanted <= 2 * max(expansion(rows), (k + graph.SPARE) * rows / allowed)
    # Of so many, k are likely to be allowed.
    assert wanted == rows or wanted * allowed / rows >= min(k, allowed)
