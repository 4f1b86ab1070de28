"""Tables in Python, whose rows are embedded as they are added: `connect` of `jammi_duck.embeddings`."""

import doctest
import inspect
import re
from functools import cached_property
from pathlib import Path
from typing import Optional

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from jammi_duck import EncodingError, InputError, NotFoundError
from jammi_duck.embeddings import LanceModel, Model, TextEmbeddingFunction, Vector, connect, get_registry, register
from jammi_duck.embeddings.query import Query
from jammi_duck.embeddings.table import Table
from jammi_duck.embeddings.tables import Connection
from tests.endpoint import Endpoint
from tests.fakes import text_vector
from tests.python_tables import ROOT, WithTables, embedded_as, embedding_tables, states, texts


class TestTheExample(WithTables):
    def test_it_runs_and_sql_sees_it(self, tmp_path):
        func = get_registry().get("tests-told").create(max_retries=7)

        class Words(LanceModel):
            text: str = func.SourceField()
            vector: Vector(func.ndims()) = func.VectorField()

        db = connect(str(tmp_path / "db"))
        table = db.create_table("words", schema=Words, mode="overwrite")
        table.add([{"text": "hello world"}, {"text": "goodbye world"}])
        actual = table.search("hello you").limit(1).to_pydantic(Words)[0]
        assert actual.text == "hello world"
        assert actual.vector == embedded_as("hello world")
        found = db.con.execute("SELECT text FROM jammi_search('words', 'goodbye you', 1)").fetchall()
        assert found == [("goodbye world",)]
        named = db.con.execute("""SELECT text FROM jammi_search('words', 'goodbye', 1, "column" := 'vector')""")
        assert named.fetchall() == [("goodbye world",)]
        assert db.con.execute("SELECT source, columns, model FROM jammi_tables()").fetchall() == [
            ("words", ["text"], func.spec)
        ]
        assert (tmp_path / "db" / "jammi_db").is_dir()

    def test_the_descriptions_python_runs_with_a_provider(self, tmp_path, monkeypatch):
        with Endpoint() as endpoint:
            monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
            monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url("openai"))
            db = connect(tmp_path / "db", cache_dir=tmp_path / "cache")
            func = get_registry().get("openai").create(name="text-embedding-ada-002")

            class Words(LanceModel):
                text: str = func.SourceField()
                vector: Vector(func.ndims()) = func.VectorField()

            table = db.create_table("words", schema=Words, mode="overwrite")
            table.add([{"text": "hello world"}, {"text": "goodbye world"}])

            query = "greetings"
            actual = table.search(query).limit(1).to_pydantic(Words)[0]
            assert actual.text in ("hello world", "goodbye world")

            query_vector = func.compute_query_embeddings("goodbye world")[0]
            actual = table.search(query_vector).limit(1).to_pydantic(Words)[0]
            assert actual.text == "goodbye world"

    def test_the_descriptions_function_of_ones_own(self, db):
        class MyEmbeddingModel:
            def __init__(self, model_name: str):
                self.model_name = model_name

            def encode(self, texts: list[str]) -> list[list[float]]:
                return [[1.0, 2.0, 3.0] for _ in texts]

        @register("my-embedder")
        class MyTextEmbedder(TextEmbeddingFunction):
            model_name: str = "my-model"

            def generate_embeddings(self, texts: list[str]) -> list[list[float]]:
                return self._model.encode(texts)

            def ndims(self) -> int:
                return len(self.generate_embeddings(["test"])[0])

            @cached_property
            def _model(self) -> MyEmbeddingModel:
                return MyEmbeddingModel(self.model_name)

        func = get_registry().get("my-embedder").create()

        class Words(Model):
            text: str = func.SourceField()
            vector: Vector(func.ndims()) = func.VectorField()

        table = db.create_table("words", schema=Words)
        table.add([{"text": "hello"}])
        assert table.search("anything").to_list()[0]["vector"] == pytest.approx(np.array([1, 2, 3]) / 14**0.5)

    @pytest.mark.minilm
    def test_a_local_model_needs_no_name_of_a_provider(self, db):
        func = get_registry().get("sentence-transformers").create(name="all-MiniLM-L6-v2")

        class Words(Model):
            text: str = func.SourceField()
            vector: Vector(func.ndims()) = func.VectorField()

        table = db.create_table("words", schema=Words)
        table.add([{"text": "a small cat"}, {"text": "a robot arm"}])
        assert texts(table.search("kitten").limit(1)) == ["a small cat"]


@pytest.mark.minilm
def test_the_page_about_tables_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python-tables.md").read_text(), re.DOTALL)
    told = []
    example = doctest.DocTestParser().get_doctest("".join(blocks), {}, "python-tables.md", None, 0)
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=told.append, clear_globs=False)
    example.globs["db"].close()
    assert (outcome.failed, outcome.attempted > 15) == (0, True), "".join(told)


@pytest.mark.parametrize("kind", [Connection, Table, Query])
def test_each_page_is_whole(kind):
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        page = inspect.getdoc(method) or ""
        if not name.startswith("_") and name != "close":
            assert "Example:" in page, name
            for argument in list(inspect.signature(method).parameters)[1:]:
                assert re.search(rf"^    {argument}: ", page, re.MULTILINE), (name, argument)


class TestGivenVectors(WithTables):
    def test_they_stay_and_are_searched(self, table, told):
        given = [float(number) for number in range(1, 17)]
        table.add([{"text": "the first", "vector": given}, {"text": "the second"}])
        assert told == ["the second"]
        found = table.search(given).limit(1).to_list()
        assert (found[0]["text"], found[0]["vector"]) == ("the first", given)
        assert found[0]["_distance"] == pytest.approx(0, abs=1e-6)
        assert texts(table.search("the second").limit(1)) == ["the second"]

    def test_two_rows_of_one_text_keep_their_own(self, table, told):
        one, other = np.eye(16)[0].tolist(), np.eye(16)[1].tolist()
        table.add([{"text": "same", "vector": one, "number": 1}, {"text": "same", "vector": other, "number": 2}])
        table.add([{"text": "same", "number": 3}])
        assert [row["number"] for row in table.search(one).limit(1).to_list()] == [1]
        assert [row["number"] for row in table.search(other).limit(1).to_list()] == [2]
        assert [row["number"] for row in table.search("same").limit(1).to_list()] == [3]
        assert told.count("same") == 2

    def test_a_row_is_found_by_one_without_a_text(self, table):
        given = np.eye(16)[3].tolist()
        table.add([{"text": None, "vector": given, "number": 7}, {"text": "other"}])
        assert [row["number"] for row in table.search(given).limit(1).to_list()] == [7]
        table.jammi.refresh("words")
        table.add([{"text": "more"}])
        assert [row["number"] for row in table.search(given).limit(1).to_list()] != [7]
        table.refresh()
        assert [row["number"] for row in table.search(given).limit(1).to_list()] == [7]

    def test_words_of_their_texts_are_found(self, table):
        table.add([{"text": "a peculiar text", "vector": np.eye(16)[0].tolist()}])
        assert texts(table.search("peculiar", query_type="fts")) == ["a peculiar text"]

    def test_those_that_sql_writes_are_taken(self, db, table, told):
        table.add([{"text": "before"}])
        told.clear()
        vector = ", ".join(map(str, np.eye(16)[5]))
        db.con.execute(f"INSERT INTO words (text, vector) VALUES ('by sql', [{vector}]), ('to embed', NULL)")
        assert texts(table.search(np.eye(16)[5]).limit(1)) == ["by sql"]
        assert told == ["to embed"]

    def test_those_of_a_column_that_is_called_like_one_of_ours(self, db, func):
        fields = {"c2": (str, func.SourceField()), "c1": (Vector(16), func.VectorField())}
        table = db.create_table("t", schema=pydantic.create_model("M", __base__=Model, **fields))
        vector = ", ".join(map(str, np.eye(16)[5]))
        db.con.execute(f"INSERT INTO t (c2, c1) VALUES ('by sql', [{vector}]), ('other', NULL)")
        assert table.search(np.eye(16)[5]).limit(1).to_list()[0]["c2"] == "by sql"

    def test_a_vector_of_zeros_is_kept_and_not_found(self, table, told):
        table.add([{"text": "zeros", "vector": [0] * 16}, {"text": "another"}])
        for _ in ("this process", "as another one"):
            assert texts(table.search(np.ones(16)).limit(5)) == ["another"]
            table.jammi._with_engine(lambda engine: engine.fingerprints.clear())
        assert table.to_arrow()["vector"][0].as_py() == [0.0] * 16
        assert told == ["another"]


class TestSeveralPairs(WithTables):
    @pytest.fixture
    def pairs(self, db, told):
        short = get_registry().get("tests-told").create(dimensions=8)
        long = get_registry().get("tests-told").create()

        class Pages(Model):
            title: str = short.SourceField()
            title_vector: Vector(8) = short.VectorField()
            body: Optional[str] = long.SourceField(default=None)  # noqa: UP045 - as users write it
            body_vector: Vector(16) = long.VectorField()

        table = db.create_table("pages", schema=Pages)
        table.add([{"title": "water", "body": "a robot arm"}, {"title": "robots", "body": "fish in water"}])
        return table

    def test_each_has_its_own_width(self, pairs):
        rows = pairs.to_arrow().to_pylist()
        assert rows[0]["title_vector"] == embedded_as("water", 8)
        assert rows[0]["body_vector"] == embedded_as("a robot arm")

    def test_one_is_chosen_by_its_vector_or_its_source(self, pairs):
        for column, title in (("title_vector", "water"), ("title", "water"), ("body_vector", "robots")):
            found = pairs.search("water", vector_column_name=column).limit(1).to_list()
            assert [row["title"] for row in found] == [title]
        found = pairs.search(text_vector("fish", 16), "body_vector").limit(1).to_list()
        assert [row["title"] for row in found] == ["robots"]

    def test_without_a_choice_it_says_what_there_is(self, pairs):
        for query in ("water", [0.1] * 8):
            with pytest.raises(InputError, match="title_vector, body_vector; say which is meant"):
                pairs.search(query).to_list()
        with pytest.raises(InputError, match="no column of vectors 'bodyvector'; did you mean 'body_vector'"):
            pairs.search("water", "bodyvector").to_list()
        with pytest.raises(InputError, match="16"):
            pairs.search([0.1] * 8, "body_vector").to_list()

    def test_one_may_be_missing(self, pairs, told):
        told.clear()
        pairs.add([{"title": "only a title"}])
        assert told == ["only a title"]
        assert pairs.to_arrow()["body_vector"][2].as_py() is None
        assert len(pairs.search("title", "body").limit(9).to_list()) == 2

    def test_a_row_that_fails_in_one_is_in_none(self, pairs):
        with pytest.raises(EncodingError, match="row 1 of the data: 'body' could not be embedded"):
            pairs.add([{"title": "fine", "body": "fine"}, {"title": "fine", "body": "none"}])
        assert pairs.add([{"title": "kept", "body": "x"}, {"title": "not", "body": "none"}], "drop") == 1
        assert pairs.count_rows() == 3
        assert [row["title"] for row in pairs.search("not", "title").limit(9).to_list()].count("not") == 0

    def test_sql_searches_each(self, db, pairs):
        text = """SELECT title FROM jammi_search('pages', 'water', 1, "column" := '{}', mode := 'vector')"""
        assert db.con.execute(text.format("title_vector")).fetchall() == [("water",)]
        assert db.con.execute(text.format("body_vector")).fetchall() == [("robots",)]


class TestBadVectors(WithTables):
    @pytest.mark.parametrize(
        "vector", [[1.0] * 15, [1.0] * 17, [float("nan")] * 16, [float("inf")] * 16, [None] * 16, []]
    )
    def test_each_policy(self, table, told, vector):
        rows = [{"text": "good"}, {"text": "bad", "vector": vector, "number": 5}]
        with pytest.raises(InputError, match="row 1 of the data has a vector.* in 'vector'.*on_bad_vectors"):
            table.add(rows)
        assert (table.count_rows(), told) == (0, [])
        assert table.add(rows, on_bad_vectors="drop") == 1
        assert table.add(rows, on_bad_vectors="fill", fill_value=2.5) == 2
        assert table.to_arrow()["vector"][2].as_py() == [2.5] * 16
        assert [row["number"] for row in table.search([1.0] * 16).limit(1).to_list()] == [5]
        assert "bad" not in told
        table.add(rows, on_bad_vectors="null")
        assert table.to_arrow()["vector"][4].as_py() == embedded_as("bad")

    @pytest.mark.parametrize("text", ["none", "nan"])
    def test_each_policy_where_a_function_gives_none(self, table, text):
        rows = [{"text": "good"}, {"text": text, "number": 5}]
        with pytest.raises(EncodingError, match="row 1 of the data: 'text' could not be embedded by 'tests-told:"):
            table.add(rows)
        assert table.count_rows() == 0
        assert table.add(rows, on_bad_vectors="drop") == 1
        assert table.add(rows, on_bad_vectors="null") == 2
        assert table.to_arrow()["vector"][2].as_py() is None
        assert table.add(rows, on_bad_vectors="fill") == 2
        assert table.add(rows, on_bad_vectors="fill", fill_value=-1.0) == 2
        assert [row["number"] for row in table.search([-1.0] * 16).limit(1).to_list()] == [5]
        vectors = [row["vector"] for row in table.to_arrow().to_pylist() if row["number"] == 5]
        assert vectors == [None, [0.0] * 16, [-1.0] * 16]
        assert texts(table.search("good").limit(4)) == ["good"] * 4

    def test_a_function_that_gives_nothing_at_all(self, db):
        class Empty(TextEmbeddingFunction):
            def ndims(self):
                return 3

            def generate_embeddings(self, texts):
                return []

        func = register("tests-empty")(Empty).create(max_retries=0)

        class Words(Model):
            text: str = func.SourceField()
            vector: Vector(3) = func.VectorField()

        table = db.create_table("words", schema=Words)
        with pytest.raises(EncodingError, match="row 0 of the data"):
            table.add([{"text": "hello"}])
        assert table.add([{"text": "hello"}], on_bad_vectors="null") == 1

    def test_rows_that_fail_are_named_by_their_place_among_all(self, table):
        rows = [{"text": "x", "vector": [1.0]}, {"text": "y"}, {"text": "none"}]
        with pytest.raises(InputError, match="row 0 of the data"):
            table.add(rows)
        table.add(rows[:2], on_bad_vectors="drop")
        with pytest.raises(InputError, match="on_bad_vectors is 'skip'"):
            table.add(rows, on_bad_vectors="skip")
        with pytest.raises(InputError, match="fill_value is 'a'"):
            table.add(rows, on_bad_vectors="fill", fill_value="a")
        assert table.count_rows() == 1

    def test_a_denied_request_is_not_made_again(self, db):
        calls = []

        class Denied(TextEmbeddingFunction):
            def ndims(self):
                return 3

            def generate_embeddings(self, texts):
                calls.append(texts)
                error = RuntimeError("no such key")
                error.status_code = 401
                raise error

        func = register("tests-denied")(Denied).create()

        class Words(Model):
            text: str = func.SourceField()
            vector: Vector(3) = func.VectorField()

        table = db.create_table("words", schema=Words)
        with pytest.raises(EncodingError, match="no such key"):
            table.add([{"text": "hello"}])
        assert (len(calls), table.count_rows()) == (1, 0)
        assert table.add([{"text": "hello", "vector": [1, 2, 3]}]) == 1


class TestTextsThatAreNone(WithTables):
    @pytest.mark.parametrize("text", [None, "", " \n", "\u200b"])
    def test_they_have_no_vector_and_are_not_found(self, table, told, text):
        assert table.add([{"text": text}, {"text": "there"}]) == 2
        assert told == ["there"]
        assert [row["vector"] is None for row in table.to_arrow().to_pylist()] == [True, False]
        assert texts(table.search("there").limit(9)) == ["there"]
        assert states(table) == [(0, 0, 0)]

    def test_only_such_and_no_rows_at_all(self, table, told):
        assert table.add([{"text": None}, {"text": None}]) == 2
        assert table.add([]) == 0
        assert table.add(pa.table({"text": pa.array([], pa.string())})) == 0
        assert (table.count_rows(), told) == (2, [])
        assert table.search("x").to_list() == []


class TestModes(WithTables):
    def test_create_refuses_a_name_that_is_taken(self, db, table, words):
        for name in ("words", "WORDS"):
            with pytest.raises(InputError, match=r"there is a table 'words'; open_table\('words'\)"):
                db.create_table(name, schema=words)
        db.con.execute("CREATE VIEW looking AS FROM words")
        with pytest.raises(InputError, match="there is a view 'looking'"):
            db.create_table("looking", schema=words, mode="overwrite")
        with pytest.raises(InputError, match="mode is 'replace'.*create, overwrite, exist_ok"):
            db.create_table("words", schema=words, mode="replace")

    def test_exist_ok_opens_what_is_there(self, db, table, words):
        table.add([{"text": "there"}])
        again = db.create_table("words", data=[{"text": "more"}], schema=words, mode="exist_ok")
        assert texts(again.search()) == ["there"]
        with pytest.raises(InputError, match="has the columns text, vector, number, and the schema has other"):
            db.create_table("words", schema=pa.schema([("other", pa.string())]), mode="exist_ok")
        assert db.create_table("new", schema=words, mode="exist_ok").count_rows() == 0

    def test_overwrite_replaces_rows_and_vectors(self, db, table, words):
        table.add([{"text": "the old"}])
        before = embedding_tables(db)
        table = db.create_table("words", data=[{"text": "the new"}], schema=words, mode="overwrite")
        assert texts(table.search("the old")) == ["the new"]
        (after,) = embedding_tables(db)
        assert [after] != before
        assert list((Path(db.jammi.location) / "jammi_db").glob(f"{before[0][0]}.*")) == []

    def test_one_that_fails_leaves_the_old(self, db, table, words):
        table.add([{"text": "the old"}])
        before = embedding_tables(db)
        for rows, error in (([{"text": "none"}], EncodingError), ([{"text": "x", "number": "y"}], InputError)):
            with pytest.raises(error):
                db.create_table("words", data=rows, schema=words, mode="overwrite")
        assert embedding_tables(db) == before
        assert texts(table.search("the old")) == ["the old"]

    def test_a_creation_that_fails_leaves_nothing(self, db, words):
        with pytest.raises(EncodingError):
            db.create_table("words", data=[{"text": "fine"}, {"text": "none"}], schema=words)
        assert (db.table_names(), embedding_tables(db)) == ([], [])
        files = Path(db.jammi.location) / "jammi_db"
        assert [file for file in files.glob("*") if file.is_file()] == []
        db.create_table("words", data=[{"text": "fine"}], schema=words)

    def test_drop_removes_rows_and_vectors(self, db, table):
        table.add([{"text": "there"}])
        with pytest.raises(NotFoundError, match="there is no table 'word'; did you mean 'words'"):
            db.drop_table("word")
        db.drop_table("word", ignore_missing=True)
        db.drop_table("Words")
        assert (db.table_names(), embedding_tables(db)) == ([], [])
        with pytest.raises(NotFoundError, match="there is no table 'words'; tables: none"):
            db.open_table("words")

    def test_what_a_table_may_not_be(self, db, func):
        with pytest.raises(InputError, match="needs data, or a schema"):
            db.create_table("t")
        with pytest.raises(InputError, match="has no columns"):
            db.create_table("t", data=[])
        with pytest.raises(InputError, match="row 2 of the data for 't' has 'x' in 'a', which has no type in common"):
            db.create_table("t", data=[{"a": 1}, {"a": 2}, {"a": "x"}])
        with pytest.raises(InputError, match="'a' and 'A' are the same name to DuckDB"):
            db.create_table("t", data=[{"a": 1, "A": 2}])
        with pytest.raises(InputError, match="'_ROWID' is the name of the key"):
            db.create_table("t", data=[{"_ROWID": 1}])
        with pytest.raises(InputError, match="halffloat, which DuckDB lacks"):
            db.create_table("t", schema=pa.schema([("a", pa.float16())]))
        with pytest.raises(InputError, match="give a subclass of Model, or an Arrow schema"):
            db.create_table("t", schema={"a": int})
        for name in ("", 3, None, "a\x00b", "_jammi_t"):
            with pytest.raises(InputError, match="a table cannot be called|jammi_duck's own"):
                db.create_table(name, data=[{"a": 1}])
        assert db.table_names() == []

    def test_models_that_make_no_sense(self, db, func):
        def made(**fields):
            return pydantic.create_model("M", __base__=Model, **fields)

        source, vector = (str, func.SourceField()), (Vector(16), func.VectorField())
        with pytest.raises(InputError, match="M.v is the vector of no field"):
            db.create_table("t", schema=made(v=vector))
        with pytest.raises(InputError, match=r"M.v is the vector of 2 fields \(a, b\)"):
            db.create_table("t", schema=made(a=source, b=source, v=vector))
        with pytest.raises(InputError, match="M.v and M.w are both the vectors of 'a' by the same function"):
            db.create_table("t", schema=made(a=source, v=vector, w=vector))
        with pytest.raises(InputError, match="'v' has vectors of 3 numbers.*makes vectors of 16"):
            db.create_table("t", schema=made(a=source, v=(Vector(3), func.VectorField())))
        with pytest.raises(InputError, match="M.x is of type <class 'dict'>, which no column can have"):
            db.create_table("t", schema=made(x=(dict, ...)))
        for dim in (0, -1, 1.5, True, "3", 2**20):
            with pytest.raises(InputError, match="give the number of dimensions"):
                Vector(dim)
        assert (db.table_names(), embedding_tables(db)) == ([], [])
