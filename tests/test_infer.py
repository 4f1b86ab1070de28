"""jammi_infer: a vector or a reason for every row, at work only on the rows that are asked for."""

import numpy as np
import pytest

from jammi_duck.work.infer import NO_TEXT
from tests.fakes import text_vector
from tests.test_generate import error_of, nothing_is_left

COLUMNS = ["_row_id", "_source", "_model", "_status", "_error", "_latency_ms", "vector"]
TYPES = ["VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "DOUBLE", "FLOAT[]"]


def encoded(jammi, model="fake/small"):
    return jammi.encoders.get(model).encoded


class TestRows:
    def test_columns_and_their_types(self, animals):
        rows = animals.execute("DESCRIBE FROM jammi_infer('animals', 'text', 'id')").fetchall()
        assert [row[:2] for row in rows] == list(zip(COLUMNS, TYPES, strict=True))

    def test_one_row_for_each_and_nothing_kept(self, animals, jammi, storage):
        rows = animals.execute("FROM jammi_infer('Main.Animals', ['name', 'text'], 'id') ORDER BY _row_id").fetchall()
        assert [row[:5] for row in rows] == [(str(i), "animals", "fake/small", "ok", None) for i in range(1, 6)]
        assert rows[0][6] == pytest.approx(text_vector("cat a small cat sleeps").tolist())
        assert all(row[5] > 0 for row in rows)
        nothing_is_left(jammi, storage)

    def test_rows_without_text_and_rows_that_fail_say_why(self, con):
        con.execute(
            """CREATE TABLE t AS FROM (VALUES
            (1, NULL), (2, ''), (3, E' \\t'), (4, 'unencodable'),
            (5, 'fine'), (NULL, 'fine'), (5, 'fine')) t(id, text)"""
        )
        rows = con.execute(
            "SELECT _row_id, _status, _error, vector IS NULL, _latency_ms > 0 FROM jammi_infer('t', 'text', 'id')"
        ).fetchall()
        failure = "Not enough memory for this text of 11 characters, even alone; shorten it"
        assert rows == [
            *((key, "error", NO_TEXT, True, False) for key in "123"),
            ("4", "error", failure, True, True),
            *((key, "ok", None, False, True) for key in ("5", None, "5")),
        ]
        assert NO_TEXT == "Empty or null text input"

    def test_the_model_and_fewer_dimensions(self, animals):
        query = "SELECT _model, vector FROM jammi_infer('animals', 'name', 'id', model := 'fake/other', dims := 3)"
        rows = animals.execute(query).fetchall()
        short = text_vector("cat", 8)[:3]
        assert rows[0] == ("fake/other", pytest.approx((short / np.linalg.norm(short)).tolist()))

    @pytest.mark.parametrize("threads", [1, 4])
    def test_many_rows_on_several_threads(self, con, threads):
        con.execute(f"SET threads = {threads}")
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || (range % 7) AS text FROM range(20000)")
        wrong = con.execute(
            """SELECT count(*) FROM jammi_infer('t', 'text', 'id') i JOIN t ON t.id::VARCHAR = i._row_id
            WHERE i.vector IS DISTINCT FROM embed(t.text)"""
        ).fetchone()
        assert wrong == (0,)

    def test_the_same_kinds_of_source_as_a_build(self, animals, tmp_path):
        path = str(tmp_path / "animals.parquet")
        animals.execute(f"COPY animals TO '{path}'")
        assert len(animals.execute("FROM jammi_infer(?, 'text', 'id')", [path]).fetchall()) == 5
        cte = "WITH two AS (FROM animals LIMIT 2) SELECT _source FROM jammi_infer('two', 'text', 'id')"
        assert animals.execute(cte).fetchall() == [("two",)] * 2
        animals.execute("CREATE TABLE none AS FROM animals LIMIT 0")
        assert animals.execute("FROM jammi_infer('none', 'text', 'id')").fetchall() == []
        animals.execute("CREATE TABLE kept AS FROM jammi_infer('animals', 'text', 'id')")
        assert animals.execute("SELECT count(vector) FROM kept").fetchone() == (5,)


class TestOnlyWhatIsAskedFor:
    @pytest.fixture
    def many(self, con):
        con.execute("CREATE TABLE many AS SELECT range AS id, 'word' || range AS text FROM range(20000)")
        return con

    @pytest.mark.parametrize(
        ("query", "rows"),
        [
            ("FROM jammi_infer('many', 'text', 'id') LIMIT 5", 5),
            ("FROM jammi_infer('many', 'text', 'id') WHERE _row_id = '77'", 1),
            ("SELECT count(*) FROM jammi_infer('many', 'text', 'id')", 0),
            ("EXPLAIN FROM jammi_infer('many', 'text', 'id')", 0),
        ],
    )
    def test_other_rows_are_not_embedded(self, many, jammi, query, rows):
        many.execute(query).fetchall()
        assert len(encoded(jammi)) == rows

    def test_a_row_is_embedded_once_however_many_columns_are_looked_at(self, many, jammi):
        query = "FROM jammi_infer('many', 'text', 'id') WHERE _status = 'ok' AND _error IS NULL AND _latency_ms > 0"
        assert len(many.execute(query).fetchall()) == 20000
        assert len(encoded(jammi)) == 20000

    def test_a_relation_in_python(self, many, jammi):
        relation = jammi.infer("many", ["text"], "id", dims=4)
        assert relation.columns == COLUMNS
        assert encoded(jammi) == []
        assert [len(vector) for *_, vector in relation.limit(3).fetchall()] == [4] * 3
        assert len(encoded(jammi)) == 3
        assert jammi.infer("many", "text", "id", "fake/other").limit(1).fetchall()[0][2] == "fake/other"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'animals', 'txt', 'id'", "no column 'txt' in 'animals'; did you mean 'text'? columns: id, name, text"),
        ("'animals', 'text', 'nr'", "no column 'nr' in 'animals'; columns: id, name, text"),
        ("'animals', [], 'id'", "columns are []"),
        ("NULL, 'text', 'id'", "jammi_infer needs a source, its columns and its key: none of them may be NULL"),
        ("'animal', 'text', 'id'", "Table with name animal does not exist"),
        ("'animals', 'text', 'id', model := 'nope'", "no model 'nope'"),
        ("'animals', 'text', 'id', dims := 65", "dims is 65; 'fake/small' has 1 to 64"),
        ("'animals', 'text', 'id', dims := 0", "dims is 0; 'fake/small' has 1 to 64"),
        (
            "'animals', 'text', 'id', task := 'summarization'",
            "the task 'summarization' is not supported; supported: text_embedding",
        ),
        (
            "'animals', 'text', 'id', task := 'text_embeddings'",
            "the task 'text_embeddings' is not supported; did you mean 'text_embedding'? supported: text_embedding",
        ),
        ("'animals', 'text', 'id', task := NULL", "the task 'None' is not supported"),
    ],
)
def test_mistakes(animals, jammi, call, message):
    assert message in error_of(animals, f"FROM jammi_infer({call})")
    assert encoded(jammi) == []


def test_a_task_is_refused_before_the_query_runs(animals):
    assert "the task 'ner' is not supported" in error_of(
        animals, "EXPLAIN FROM jammi_infer('animals', 'text', 'id', task := 'ner')"
    )
