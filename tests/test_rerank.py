"""Re-ranking: the first rows of a search in the order of a cross-encoder's scores, in every mode and at every door."""

import functools
import json

import duckdb
import pytest

import jammi_duck
from jammi_duck import InputError, ModelError, NoModelError, NotFoundError
from tests.stock_shell import folder, needs_extension, rows, shell  # noqa: F401
from tests.test_cli import call
from tests.test_cross_encoder import make_reranker, reranker

pytestmark = pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
MODES = ["hybrid", "text", "vector"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A cross-encoder with random weights."""
    return make_reranker("bert", tmp_path_factory.mktemp("reranker") / "bert")


@pytest.fixture
def jammi(tiny_model, tmp_path):
    con = duckdb.connect()
    jammi = jammi_duck.install(con, storage=tmp_path / "artifacts", model=str(tiny_model), precision="float32")
    # Titles are in a column of a name of ours, and NULL for some.
    con.execute(
        """CREATE TABLE t AS SELECT range AS id, CASE WHEN range % 3 > 0 THEN 'duck ' || range END AS _rank,
        repeat('water ', (range % 7)::INTEGER) || ['night', 'snow', 'river'][1 + range % 3] || range AS body
        FROM range(200)"""
    )
    jammi.generate("t", ["_rank", "body"], "id")
    yield jammi
    con.close()


@functools.cache
def score(model, query, text):
    return float(reranker(model).scores([(query, text)])[0])


class ByHand:
    """The best rows of a search, each pair scored alone, to be compared with ids and scores; ties in any order."""

    def __init__(self, jammi, model, query, k, first=50, **options):
        found = jammi.search("t", query, first, **options).project("id, concat_ws(' ', __rank, body)").fetchall()
        self.scores = {id_: pytest.approx(score(model, query, text), abs=1e-5) for id_, text in found}
        self.best = sorted((score(model, query, text) for _, text in found), reverse=True)[:k]

    def __eq__(self, rows):
        given = [value for _, value in rows]
        assert given == sorted(given, reverse=True)
        assert dict(rows) == {id_: self.scores[id_] for id_, _ in rows}
        return len(set(rows)) == len(rows) and given == pytest.approx(self.best, abs=1e-5)

    __hash__ = None


class TestOrder:
    @pytest.mark.parametrize("mode", MODES)
    def test_is_that_of_the_scores(self, jammi, model, mode):
        found = jammi.search("t", "duck in snow", 10, mode=mode, rerank=str(model), rerank_k=40)
        assert found.columns[-7:] == ["_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25", "_rerank"]
        assert str(found.types[-1]) == "FLOAT"
        assert found.project("id, _rerank").fetchall() == ByHand(jammi, model, "duck in snow", 10, 40, mode=mode)
        assert found.project("_rank").fetchall() == [(rank,) for rank in range(1, 11)]
        assert found.filter("_score <> _rerank OR _row_id <> id::VARCHAR").fetchall() == []
        # What the search computed stays.
        given = jammi.search("t", "duck in snow", 40, mode=mode).project("id, _similarity, _distance, _bm25").fetchall()
        assert set(found.project("id, _similarity, _distance, _bm25").fetchall()) <= set(given)

    def test_differs_from_the_search(self, jammi, model):
        plain = jammi.search("t", "duck in snow", 10)
        assert "_rerank" not in plain.columns
        ids = jammi.search("t", "duck in snow", 10, rerank=str(model)).project("id").fetchall()
        assert ids != plain.project("id").fetchall()

    def test_fifty_rows_by_default(self, jammi, model):
        found = jammi.con.execute("SELECT id, _rerank FROM jammi_search('t', 'duck', 4, rerank := $1)", [str(model)])
        assert found.fetchall() == ByHand(jammi, model, "duck", 4, 50)

    def test_ties_are_as_they_were_ranked(self, jammi, model):
        jammi.con.execute("CREATE TABLE same AS SELECT range AS id, 'duck' AS body, range % 2 AS part FROM range(30)")
        jammi.generate("same", "body", "id")
        found = jammi.search("same", "duck", 30, rerank=str(model)).project("_row_id").fetchall()
        assert found == jammi.search("same", "duck", 30).project("_row_id").fetchall()

    def test_fewer_rows_than_are_wanted(self, jammi, model):
        assert len(jammi.search("t", "duck", 40, filter="id < 7", rerank=str(model)).fetchall()) == 7
        assert jammi.search("t", None, rerank=str(model)).fetchall() == []
        assert jammi.con.execute(f"FROM jammi_search('t', ' ', rerank := '{model}')").fetchall() == []

    def test_only_these_rows_are_scored_once(self, jammi, model, monkeypatch):
        from jammi_duck.encoder.local.cross_encoder import CrossEncoder

        told, real = [], CrossEncoder.scores
        monkeypatch.setattr(CrossEncoder, "scores", lambda self, pairs: told.append(list(pairs)) or real(self, pairs))
        jammi.con.execute(
            f"SELECT id FROM jammi_search('t', 'duck', 2, filter := 'id < 90', rerank := '{model}', rerank_k := 20)"
        ).fetchall()
        assert [len(pairs) for pairs in told] == [20]
        told.clear()
        jammi.con.execute(f"EXPLAIN FROM jammi_search('t', 'duck', 2, rerank := '{model}')").fetchall()
        assert told == []
        # The pairs of many questions are scored together.
        jammi.con.execute(
            "SELECT * FROM (SELECT 'duck ' || range AS q FROM range(10)) q, "
            f"jammi_search('t', q.q, 2, rerank := '{model}', rerank_k := 20)"
        ).fetchall()
        assert [len(pairs) for pairs in told] == [200]


class TestWith:
    def test_a_lateral_join(self, jammi, model):
        found = jammi.con.execute(
            f"""SELECT q, s.id, s._rerank FROM (VALUES ('duck', 3), ('night 9', 2), (NULL, 5), (' ', 5)) q(q, k),
            jammi_search('t', q.q, q.k, rerank := '{model}', rerank_k := 30) s ORDER BY q, _rank"""
        ).fetchall()
        assert [row[1:] for row in found if row[0] == "duck"] == ByHand(jammi, model, "duck", 3, 30)
        assert [row[1:] for row in found if row[0] == "night 9"] == ByHand(jammi, model, "night 9", 2, 30)
        assert len(found) == 5

    @pytest.mark.parametrize("mode", MODES)
    def test_a_filter(self, jammi, model, mode):
        options = {"filter": "id % 2 = 0 AND _rank IS NOT NULL AND body <> $b", "parameters": {"b": "night0"}}
        found = jammi.search("t", "duck", 5, mode=mode, rerank=str(model), rerank_k=20, **options)
        assert found.project("id, _rerank").fetchall() == ByHand(jammi, model, "duck", 5, 20, mode=mode, **options)
        assert found.filter("id % 2 = 1").fetchall() == []

    def test_other_options_of_the_search(self, jammi, model):
        options = {"exact": True, "min_similarity": 0.5, "weight": 0.2, "k1": 0.4, "b": 0.1}
        found = jammi.search("t", "river duck", 3, rerank=str(model), rerank_k=9, **options)
        assert found.project("id, _rerank").fetchall() == ByHand(jammi, model, "river duck", 3, 9, **options)

    def test_texts_as_they_are_now(self, jammi, model):
        """In the caller's transaction; a row whose text is gone comes last, without a score."""
        con = jammi.con
        con.execute("BEGIN")
        con.execute("UPDATE t SET body = 'snow', _rank = NULL WHERE id = 1")
        con.execute("UPDATE t SET body = NULL, _rank = NULL WHERE id IN (2, 5)")
        found = (
            jammi.search("t", "duck", 9, filter="id < 9", rerank=str(model)).project("id, _rerank, _rank").fetchall()
        )
        con.execute("ROLLBACK")
        assert dict(row[:2] for row in found)[1] == pytest.approx(score(model, "duck", "snow"), abs=1e-5)
        assert [row[1:] for row in found[-2:]] == [(None, 8), (None, 9)]
        assert {row[0] for row in found[-2:]} == {2, 5}

    def test_numbers_as_texts(self, jammi, model):
        jammi.con.execute("CREATE TABLE n AS SELECT range AS id, range * 7 AS number, 'duck' AS word FROM range(9)")
        jammi.generate("n", ["number", "word"], "id")
        found = jammi.search("n", "21", 9, rerank=str(model)).project("id, _rerank").fetchall()
        assert dict(found) == {i: pytest.approx(score(model, "21", f"{i * 7} duck"), abs=1e-5) for i in range(9)}

    @pytest.mark.filterwarnings("ignore:'t' has 199 rows now:jammi_duck.JammiWarning")
    def test_rows_that_are_gone_and_rows_that_are_doubled(self, jammi, model):
        con = jammi.con
        con.execute("DELETE FROM t WHERE id IN (3, 4)")
        con.execute("INSERT INTO t SELECT * FROM t WHERE id = 7")
        found = jammi.search("t", "duck", 10, filter="id < 9", rerank=str(model)).project("id, _rank").fetchall()
        assert sorted(id_ for id_, _ in found) == [0, 1, 2, 5, 6, 7, 7, 8]
        assert [rank for _, rank in found] == list(range(1, 9))

    def test_columns_with_names_of_ours(self, jammi, model):
        con = jammi.con
        con.execute(
            "CREATE TABLE odd AS SELECT id, body AS _jammi_c1, _rank AS _rerank, body AS _jammi_rerank, 1 AS _jammi_k, "
            "body AS _jammi_query FROM t"
        )
        jammi.generate("odd", ["_rerank", "_jammi_c1"], "id")
        found = jammi.search("odd", "duck", 3, filter="_jammi_k = 1", rerank=str(model))
        assert found.columns[1:6] == ["__jammi_c1", "__rerank", "__jammi_rerank", "__jammi_k", "__jammi_query"]
        theirs = jammi.search("t", "duck", 3, filter="true", rerank=str(model))
        assert found.project("id, _rerank").fetchall() == theirs.project("id, _rerank").fetchall()

    def test_explain(self, jammi, model):
        found = jammi.explain("t", "duck", 3, filter="id < 90", rerank=str(model), rerank_k=20).fetchall()
        assert [row[0] for row in found][-3:] == ["fuse", "fetch", "rerank"]
        assert found[-1][1:3] == (f"by {model}, ties as they were ranked", 20)
        assert found[-2][2] == 20
        assert all(row[3] >= 0 for row in found)

    def test_a_view_and_a_prepared_statement(self, jammi, model):
        con = jammi.con
        con.execute(f"CREATE TEMP VIEW v AS SELECT id, _rerank FROM jammi_search('t', 'duck', 3, rerank := '{model}')")
        con.execute(
            "PREPARE p AS SELECT id, _rerank FROM jammi_search('t', $1::VARCHAR, $2::INTEGER, rerank := $3::VARCHAR)"
        )
        expected = ByHand(jammi, model, "duck", 3)
        assert con.execute("FROM v").fetchall() == expected
        assert con.execute(f"EXECUTE p('duck', 3, '{model}')").fetchall() == expected


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"k": 51}, "k is 51, and rerank_k is 50: the rows that are re-ranked; write rerank_k := 51 or more"),
            ({"k": 3, "rerank_k": 2}, "k is 3, and rerank_k is 2"),
            ({"k": 0}, "k is 0; it must be at least 1"),
            ({"query": [0.5] * 32}, "rerank needs a text, which it reads with each row's, and the query is a vector"),
        ],
        ids=str,
    )
    def test_options(self, jammi, model, options, message):
        with pytest.raises(InputError, match=message):
            jammi.search("t", **{"query": "duck", "rerank": str(model), **options})

    def test_a_model_that_is_none_is_refused_before_anything_is_searched(self, jammi, tiny_model, monkeypatch):
        from jammi_duck.udfs import searching

        monkeypatch.setattr(searching, "search", None)
        with pytest.raises(NoModelError, match="no model at '/no/such/place'"):
            jammi.search("t", "duck", rerank="/no/such/place")
        with pytest.raises(ModelError, match="made for sentence embeddings .* cannot re-rank"):
            jammi.search("t", "duck", rerank=str(tiny_model))
        with pytest.raises(duckdb.Error, match="no model at '/no/such/place'"):
            jammi.con.execute("EXPLAIN FROM jammi_search('t', 'duck', rerank := '/no/such/place')")

    def test_matches_have_no_texts(self, jammi, model):
        with pytest.raises(InputError, match="does not read the rows' texts, which rerank needs: use jammi_search"):
            jammi.matches("t", "duck", rerank=str(model))
        assert len(jammi.matches("t", "duck", rerank_k=3).fetchall()) == 10

    def test_similar_has_no_such_option(self, jammi, model):
        with pytest.raises(duckdb.BinderException, match="does not support the supplied arguments"):
            jammi.con.execute(f"FROM jammi_similar('t', 1, rerank := '{model}')")

    def test_a_column_that_is_gone(self, jammi, model):
        jammi.con.execute("ALTER TABLE t RENAME body TO content")
        with pytest.raises(Exception, match="no column 'body' in 't', whose text rerank reads"):
            jammi.search("t", "duck", rerank=str(model))

    def test_a_column_that_holds_bytes_now(self, jammi, model):
        jammi.con.execute("ALTER TABLE t ALTER body TYPE BLOB USING encode(body)")
        with pytest.raises(InputError, match="the column 'body' of 't' is a BLOB"):
            jammi.search("t", "duck", rerank=str(model))

    def test_vectors_without_their_columns(self, jammi, model):
        jammi.con.execute("CREATE TABLE mine AS SELECT id, embed(body) AS v FROM t")
        jammi.import_vectors("mine", "mine", "id", "v", jammi.tables().project("model").fetchall()[0][0])
        with pytest.raises(InputError, match=r"'mine__.*' was imported without its columns: import it with cols"):
            jammi.search("mine", "duck", rerank=str(model))

    def test_no_embedding_table(self, jammi, model):
        with pytest.raises(NotFoundError, match="no embedding table for 'other'"):
            jammi.search("other", "duck", rerank=str(model))


class TestDoors:
    def test_the_command_line(self, tmp_path, monkeypatch, tiny_model, model, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("JAMMI_INFERENCE__MODEL", str(tiny_model))
        monkeypatch.setenv("JAMMI_INFERENCE__PRECISION", "float32")
        (tmp_path / "a.csv").write_text("id,text\n1,the duck in water\n2,a loud night\n3,river and snow\n")
        assert call(capsys, "generate a.csv --columns text --key id")[0] == 0
        line = f"search a.csv duck -k 2 --rerank {model} --rerank-k 3"
        found = json.loads(call(capsys, f"{line} --json")[1])
        texts = {1: "the duck in water", 2: "a loud night", 3: "river and snow"}
        expected = sorted(((-score(model, "duck", text), id_) for id_, text in texts.items()))[:2]
        assert [(-row["_rerank"], row["id"]) for row in found] == [
            (pytest.approx(value, abs=1e-5), id_) for value, id_ in expected
        ]
        assert list(json.loads(call(capsys, f"{line} --columns text --json")[1])[0])[-2:] == ["_rerank", "text"]
        code, out, _ = call(capsys, line)
        assert (code, "_score" in out, "_rerank" in out) == (0, True, False)
        code, _, err = call(capsys, f"{line} -k 4")
        assert (code, "rerank_k is 3" in err) == (2, True)

    @needs_extension
    def test_the_stock_shell(self, folder, model):  # noqa: F811
        rows("FROM jammi_generate('t', 'text', 'id')")
        found = rows(f"SELECT id, _rank, _rerank FROM jammi_search('t', 'duck', 2, rerank := '{model}')")
        told = (
            reranker(model, "auto", engine="auto")
            .scores([("duck", "the duck in water"), ("duck", "a loud dog")])
            .tolist()
        )
        expected = sorted(zip([1, 2], told, strict=True), key=lambda row: -row[1])
        assert [(row["id"], row["_rerank"]) for row in found] == [
            (id_, pytest.approx(value, abs=1e-5)) for id_, value in expected
        ]
        assert "no model at '/no/such'" in shell("FROM jammi_search('t', 'duck', rerank := '/no/such')").stderr
