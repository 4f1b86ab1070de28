"""Models that are no local transformers: their names, their arguments, and the user's own Python."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from functools import cached_property

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jammi_duck
from jammi_duck.config.settings import load
from jammi_duck.embeddings import EmbeddingFunction, TextEmbeddingFunction, get_registry, register
from jammi_duck.encoder.specs import Spec, parse_spec
from jammi_duck.errors import EncodingError, InputError, ModelError, NoModelError, NotFoundError

REGISTRY = get_registry()
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    """What a test registers, sets or trusts is forgotten after it."""
    monkeypatch.setattr(REGISTRY, "_own", dict(REGISTRY._own))
    monkeypatch.setattr(REGISTRY, "_variables", {})
    monkeypatch.setattr(REGISTRY, "_made", {})
    monkeypatch.setattr(REGISTRY, "trusted_places", set())
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)


@pytest.fixture
def opened(tmp_path):
    """Opens the database of the test, anew each time."""
    cons = []

    def opened(**options):
        con = duckdb.connect(str(tmp_path / "db.duckdb"))
        cons.append(con)
        given = {"storage": tmp_path / "st", "cache_dir": tmp_path / "cache", **options}
        return con, jammi_duck.install(con, **given)

    yield opened
    for con in cons:
        con.close()


def docs(con, rows=6):
    con.execute(
        "CREATE OR REPLACE TABLE docs AS SELECT i AS id, 'text ' || repeat('x', i::INT) AS body "
        f"FROM range({rows}) r(i)"
    )


def lengths(texts):
    return [[1.0, len(text)] for text in texts]


class TestNames:
    @given(
        st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,9}", fullmatch=True),
        st.text(),
        st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), JSON, max_size=4),
    )
    def test_a_name_is_read_as_it_is_written(self, id, name, arguments):
        if name[:1] in ("/", "\\"):
            name = f"x{name}"
        spec = Spec(id, name, arguments)
        assert parse_spec(str(spec)) == spec

    @pytest.mark.parametrize(
        "text", ["all-MiniLM-L6-v2", "org/model", "/a/path", "./x", "s3://bucket/x", "C:\\models", "", "1a:b", ":x"]
    )
    def test_others_are_local_models(self, text):
        assert parse_spec(text) is None

    @pytest.mark.parametrize(
        ("text", "spec"),
        [
            ("openai:text-embedding-3-small", Spec("openai", "text-embedding-3-small")),
            ("ollama:nomic-embed-text:v1.5", Spec("ollama", "nomic-embed-text:v1.5")),
            ("huggingface:org/model", Spec("huggingface", "org/model")),
            ("openai:m?dimensions=256&base_url=http://localhost:8000/v1",
             Spec("openai", "m", {"dimensions": 256, "base_url": "http://localhost:8000/v1"})),
            ("x:?key=$var:a&list=[1, 2]&text=\"7\"", Spec("x", "", {"key": "$var:a", "list": [1, 2], "text": "7"})),
        ],
    )  # fmt: skip
    def test_what_is_typed(self, text, spec):
        assert parse_spec(text) == spec

    @pytest.mark.parametrize("text", ["openai:m?x", "openai:m?=1", "openai:m?a=1&a=2", "openai:m?a b=1", "openai:m?&"])
    def test_what_is_no_argument(self, text):
        with pytest.raises(InputError, match="where an argument belongs"):
            parse_spec(text)

    def test_a_url_in_an_argument_is_an_option(self):
        assert load({"model": "openai:m?base_url=http://localhost:1/v1"}).config.model.startswith("openai:m")
        with pytest.raises(jammi_duck.ConfigError, match="no URL"):
            load({"model": "https://example.com/model"})

    def test_a_directory_with_a_colon_in_its_name(self, tmp_path, monkeypatch, opened):
        (tmp_path / "some:model").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(NoModelError, match="no model 'some:model'"):
            opened()[1].embed("a", "some:model")


class TestVariables:
    def test_what_is_set_is_got(self):
        REGISTRY.set_var("a", "b:c")
        assert REGISTRY.get_var("a") == "b:c"
        with pytest.raises(NotFoundError, match=r"'b' is not set; set it by get_registry\(\).set_var\('b'"):
            REGISTRY.get_var("b")

    @pytest.mark.parametrize(("name", "value"), [("a:b", "x"), ("", "x"), (1, "x"), ("a", 1), ("a", None)])
    def test_what_cannot_be_set(self, name, value):
        with pytest.raises(InputError):
            REGISTRY.set_var(name, value)

    def test_anywhere_in_the_arguments(self, monkeypatch):
        @register("anywhere")
        class Anywhere(TextEmbeddingFunction):
            place: str = ""
            deep: dict | None = None

        REGISTRY.set_var("who", "me")
        monkeypatch.setenv("SOME_HOST", "example.com")
        made = Anywhere.create(place="$var:who", deep={"a": ["$var:none:it:is", "https://${SOME_HOST}/x"], "b": 1})
        assert (made.place, made.deep) == ("me", {"a": ["it:is", "https://example.com/x"], "b": 1})
        assert made.given["place"] == "$var:who"
        assert parse_spec(made.spec).arguments["deep"]["a"][1] == "https://${SOME_HOST}/x"

    def test_a_default_may_have_colons_and_be_empty(self):
        Plain = REGISTRY.register_function("plain", lengths, 2)
        assert Plain.create(name="$var:x:http://a:1").name == "http://a:1"
        assert Plain.create(name="$var:x:").name == ""

    def test_what_is_missing_is_told(self):
        with pytest.raises(InputError, match=r"'\$var:none' stands for a variable that is not set.*set_var\('none'"):
            REGISTRY.get("openai").create(api_key="$var:none")
        with pytest.raises(InputError, match=r"set NO_SUCH"):
            REGISTRY.get("openai").create(api_key="${NO_SUCH}")

    def test_a_new_value_counts_at_once(self, opened):
        _, jammi = opened()
        seen = []

        @register("keyed")
        class Keyed(TextEmbeddingFunction):
            api_key: str = ""

            def ndims(self):
                return 2

            def generate_embeddings(self, texts):
                seen.append(self.api_key)
                return lengths(texts)

        for value in ("one", "two"):
            REGISTRY.set_var("key", value)
            jammi.embed("a", "keyed:?api_key=$var:key")
        assert seen == ["one", "two"]


class TestSecrets:
    @pytest.mark.parametrize(
        "arguments",
        [{"api_key": "sk-literal-secret"}, {"api_key": "prefix$var:key"}, {"api_key": "$var:key:sk-literal-secret"},
         {"base_url": "https://user:sk-literal-secret@example.com"},
         {"base_url": "https://example.com/?key=sk-literal-secret"}],
    )  # fmt: skip
    def test_a_literal_is_refused_and_not_repeated(self, arguments, opened):
        REGISTRY.set_var("key", "x")
        told = []
        for make in (
            lambda: REGISTRY.get("openai").create(**arguments),
            lambda: opened()[1].embed("a", str(Spec("openai", "m", arguments))),
        ):
            with pytest.raises(InputError) as error:
                make()
            told.append(str(error.value))
        assert all("sk-literal" not in text and "set_var" in text for text in told)

    def test_by_its_name_in_any_class_and_however_deep(self):
        @register("deep")
        class Deep(TextEmbeddingFunction):
            headers: dict | None = None
            max_tokens: int = 0

        with pytest.raises(InputError, match="Authorization of 'deep' is a secret by its name"):
            Deep.create(headers={"Authorization": "Bearer abc"})
        REGISTRY.set_var("token", "abc")
        assert Deep.create(headers={"Authorization": "Bearer ${HOME}"}, max_tokens=3).max_tokens == 3

    def test_no_text_shows_it(self):
        REGISTRY.set_var("key", "sk-very-secret")
        made = REGISTRY.get("openai").create(api_key="$var:key")
        assert made.api_key == "sk-very-secret"
        assert "sk-very-secret" not in f"{made!r} {made} {made.spec} {made.given}"
        direct = REGISTRY.get("openai")(api_key="sk-very-secret")
        assert "sk-very-secret" not in repr(direct)
        with pytest.raises(InputError, match="is a secret"):
            _ = direct.spec

    def test_an_argument_that_cannot_be_stored(self):
        @register("unstorable")
        class Unstorable(TextEmbeddingFunction):
            thing: object = None

        with pytest.raises(InputError, match="thing is of type object, which cannot be stored"):
            _ = Unstorable.create(thing=object()).spec


class TestRegistry:
    def test_an_unknown_id(self):
        with pytest.raises(NoModelError, match="no embedding function 'opnai'; did you mean 'openai'"):
            REGISTRY.get("opnai")

    @pytest.mark.parametrize("id", ["", "a b", "1a", "a:b", "é", "x" * 101, None])
    def test_what_cannot_be_an_id(self, id):
        with pytest.raises(InputError, match="cannot be the id"):
            register(id)

    def test_a_provider_of_ours_is_not_replaced(self):
        with pytest.raises(InputError, match="'openai' is a provider of jammi_duck"):
            REGISTRY.register("openai", TextEmbeddingFunction)

    def test_only_functions_are_registered(self):
        with pytest.raises(InputError, match="register a subclass"):
            register("mine")(lengths)

    @pytest.mark.parametrize(
        "id", ["imagebind", "siglip", "colpali", "bedrock-text", "watsonx", "instructor", "gte-text"]
    )
    def test_ids_that_others_have_say_what_would_serve(self, id, opened):
        for make in (lambda: REGISTRY.get(id).create(), lambda: opened()[1].embed("a", f"{id}:x")):
            with pytest.raises(
                NoModelError,
                match=f"'{id}' is not among the providers of jammi_duck: .*(open-clip|OpenAI's|huggingface|sentence-)",
            ):
                make()

    def test_a_package_adds_one_by_an_entry_point(self, tmp_path):
        package = tmp_path / "site" / "others.py"
        package.parent.mkdir()
        package.write_text(
            "from jammi_duck.embeddings import TextEmbeddingFunction\n"
            "class Others(TextEmbeddingFunction):\n"
            "    def ndims(self): return 2\n"
            "    def generate_embeddings(self, texts): return [[3.0, 4.0] for _ in texts]\n"
        )
        info = tmp_path / "site" / "others-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[jammi_duck.embeddings]\nothers = others:Others\nbroken = others:Nothing\n"
        )
        code = """
            import duckdb, jammi_duck
            con = duckdb.connect(); jammi = jammi_duck.install(con, storage="memory://others")
            print(con.sql("SELECT embed('a', 'others:')").fetchall())
            print(con.sql("SELECT count(*) FROM jammi_models() WHERE name = 'others'").fetchall())
            try: jammi.embed('a', 'broken:')
            except jammi_duck.NoModelError as error: print(error)
        """
        told = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": str(package.parent)},
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        assert told[0] == "[([0.6000000238418579, 0.800000011920929],)]"
        assert told[1] == "[(1,)]"
        assert told[2].startswith(
            "the embedding function 'broken', which a package adds as others:Nothing, cannot be loaded"
        )

    def test_local_models_have_two_names(self, opened):
        con, jammi = opened()
        one, other = (
            jammi.embed("a cat", "all-MiniLM-L6-v2"),
            jammi.embed("a cat", "sentence-transformers:all-MiniLM-L6-v2"),
        )
        assert np.array_equal(one, other)
        docs(con, 3)
        made = jammi.generate("docs", "body", "id", model="sentence-transformers:all-MiniLM-L6-v2")
        assert made.model == "sentence-transformers/all-MiniLM-L6-v2"
        assert (made.requests, made.tokens) == (None, None)
        again = con.execute("SELECT * FROM jammi_generate('docs', 'body', 'id', reuse := true)").fetchall()
        assert again[0][0] == made.embedding_table

    @pytest.mark.parametrize(
        ("argument", "told"),
        [("trust_remote_code=true", "a model's code is never run"), ("normalize=false", "always have the length 1")],
    )
    def test_what_local_models_do_not_do(self, argument, told, opened):
        with pytest.raises(InputError, match=told):
            opened()[1].embed("a", f"huggingface:org/model?{argument}")

    def test_all_are_listed_with_what_they_need(self, opened, monkeypatch):
        con, _ = opened()
        REGISTRY.register_function("mine", lengths, 2)
        monkeypatch.setenv("CO_API_KEY", "x")
        needs = dict(
            con.sql("SELECT name, needs FROM jammi_models() WHERE origin IN ('provider', 'python')").fetchall()
        )
        assert needs["openai:text-embedding-ada-002"] == "OPENAI_API_KEY, or api_key in [providers.openai]"
        assert needs["cohere:embed-english-v3.0"] is None
        assert needs["mine"] is None
        assert {name.partition(":")[0] for name in needs} >= {
            "openai", "cohere", "voyageai", "gemini-text", "jina", "ollama", "huggingface", "sentence-transformers",
            "static", "open-clip",
        }  # fmt: skip


class MyModel:
    def encode(self, texts):
        return [[1.0, 2.0, 3.0] for _ in texts]


class TestOwnPython:
    def test_the_class_of_the_description(self, opened):
        @register("my-embedder")
        class MyTextEmbedder(TextEmbeddingFunction):
            model_name: str = "my-model"

            def generate_embeddings(self, texts):
                return self._model.encode(texts)

            def ndims(self):
                return len(self.generate_embeddings(["test"])[0])

            @cached_property
            def _model(self):
                return MyModel()

        assert REGISTRY.get("my-embedder") is MyTextEmbedder
        func = REGISTRY.get("my-embedder").create(model_name="other")
        assert (func.model_name, func.ndims(), func.max_retries) == ("other", 3, 7)
        assert func.compute_source_embeddings(["a", "b"]) == [[1.0, 2.0, 3.0]] * 2
        assert func.compute_query_embeddings("a") == [[1.0, 2.0, 3.0]]
        con, jammi = opened()
        docs(con)
        for model in ("my-embedder", "my-embedder:", func.spec):
            assert jammi.embed("a", model).tolist() == pytest.approx([1 / 14**0.5, 2 / 14**0.5, 3 / 14**0.5])
        assert jammi.generate("docs", "body", "id", model=func.spec).model == "my-embedder:?model_name=other"
        assert len(jammi.search("docs", "anything", 2).fetchall()) == 2

    def test_a_plain_function(self, opened):
        con, jammi = opened()
        docs(con)
        jammi.register_model("mine", lengths, 2)
        jammi.generate("docs", "body", "id", model="mine", words=False)
        assert jammi.search("docs", "text xxxx", 1).project("id").fetchall() == [(4,)]
        con.execute("INSERT INTO docs VALUES (50, 'text ' || repeat('x', 50))")
        assert jammi.refresh("docs").added == 1
        jammi.register_model("mine", lambda texts: np.array([[1, 0, 0]] * len(texts)), 3)
        with pytest.raises(ModelError, match="is not what it was"):
            jammi.search("docs", "text", 1)

    @pytest.mark.parametrize("dimensions", [0, -1, 70_000, "2", 2.0, True, None])
    def test_dimensions_that_cannot_be(self, dimensions, opened):
        with pytest.raises(InputError, match="dimensions of 'mine'"):
            opened()[1].register_model("mine", lengths, dimensions)

    def test_what_is_no_function(self, opened):
        with pytest.raises(InputError, match="cannot be called"):
            opened()[1].register_model("mine", "lengths", 2)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("bad", "told"),
        [
            ([1.0, 2.0, 3.0], "gave 3 numbers instead of 2"),
            ([1.0, float("nan")], "no finite FLOAT"),
            ([1.0, float("inf")], "no finite FLOAT"),
            ([0.0, 0.0], "a vector of zeros"),
            (None, "gave no vector"),
            ("text", "instead of a vector"),
            ([[1.0, 2.0]], "instead of a vector"),
            ({"a": 1}, "instead of a vector"),
        ],
    )
    def test_a_bad_vector_fails_its_row_only(self, bad, told, opened, caplog):
        con, jammi = opened()
        docs(con)
        jammi.register_model("mine", lambda texts: [bad if "xxx" in text else [1.0, len(text)] for text in texts], 2)
        made = jammi.generate("docs", "body", "id", model="mine")
        assert (made.row_count, made.failed_count) == (3, 3)
        with pytest.raises(EncodingError, match=told):
            jammi.embed("xxx", "mine")
        rows = con.execute(
            "SELECT _row_id, _status, _error FROM jammi_infer('docs', 'body', 'id', model := 'mine')"
        ).fetchall()
        assert [(key, told in (error or "")) for key, _, error in rows if key == "4"] == [("4", True)]

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("texts", [1, 2, 255, 256, 257, 600])
    def test_a_row_that_it_raises_for_is_found(self, texts, opened):
        con, jammi = opened()
        con.execute(f"CREATE TABLE docs AS SELECT i AS id, 'text ' || i AS body FROM range({texts}) r(i)")
        calls = []

        def picky(given):
            calls.append(len(given))
            if f"text {texts - 1}" in given:
                raise ValueError("not this one")
            return lengths(given)

        jammi.register_model("picky", picky, 2)
        made = jammi.generate("docs", "body", "id", model="picky")
        assert (made.row_count, made.failed_count) == (texts - 1, 1)
        assert len(calls) <= 2 * (texts.bit_length() + texts // 256) + 2

    def test_too_few_vectors_are_never_taken_for_others(self, opened):
        con, jammi = opened()
        docs(con, 40)
        jammi.register_model("short", lambda texts: lengths(texts)[: max(1, len(texts) - 1)], 2)
        jammi.generate("docs", "body", "id", model="short")
        ((table,),) = con.sql("SELECT embedding_table FROM jammi_tables()").fetchall()
        for key, vector in con.sql(f'SELECT _row_id, vector FROM jammi."{table}"').fetchall():
            assert vector[1] / vector[0] == pytest.approx(5 + int(key), rel=1e-4)

    def test_what_fails_at_times_is_asked_again(self, opened, monkeypatch):
        monkeypatch.setattr("jammi_duck.encoder.waits._FIRST_SECONDS", 0.001)
        con, jammi = opened()
        docs(con)
        calls = []

        def flaky(texts):
            calls.append(texts)
            if len(calls) < 4:
                raise ConnectionError("away")
            return lengths(texts)

        jammi.register_model("flaky", flaky, 2)
        assert jammi.generate("docs", "body", "id", model="flaky").row_count == 6
        assert len(calls) == 4

    def test_a_key_that_is_denied_is_asked_once(self, opened):
        class DeniedError(Exception):
            status_code = 401

        calls = []

        def denied(texts):
            calls.append(texts)
            raise DeniedError("no")

        con, jammi = opened()
        docs(con)
        jammi.register_model("denied", denied, 2)
        with pytest.raises(EncodingError, match="it was not asked again"):
            jammi.generate("docs", "body", "id", model="denied")
        assert len(calls) == 1

    def test_queries_by_a_method_of_their_own(self, opened):
        @register("two-sided")
        class TwoSided(EmbeddingFunction):
            def ndims(self):
                return 2

            def compute_source_embeddings(self, values):
                return [[1.0, 0.0] for _ in values]

            def compute_query_embeddings(self, query):
                return [[0.0, 1.0]]

        jammi = opened()[1]
        assert jammi.embed("a", "two-sided").tolist() == [1, 0]
        assert jammi.embed("a", "two-sided", role="query").tolist() == [0, 1]

    def test_a_column_of_any_type(self, opened):
        seen = []

        @register("any-value")
        class AnyValue(EmbeddingFunction):
            def ndims(self):
                return 2

            def compute_source_embeddings(self, values):
                seen.extend(values)
                return [[1.0, 0.0] for _ in values]

        con, jammi = opened()
        values = {
            "'a text'": "a text", "'\\xFF\\x00'::BLOB": b"\xff\0", "42": 42, "1.5": 1.5, "[1, 2, NULL]": [1, 2, None],
            "{'a': 'é', 'b': [true]}": {"a": "é", "b": [True]}, "DATE '2026-01-31'": "2026-01-31",
            "[1.5, 2.5]::FLOAT[2]": [1.5, 2.5],
        }  # fmt: skip
        for number, (written, value) in enumerate(values.items()):
            con.execute(f"CREATE TABLE t{number} AS SELECT 1 AS id, {written} AS v UNION ALL SELECT 2, NULL")
            made = jammi.generate(f"t{number}", "v", "id", model="any-value", words=False)
            assert (made.row_count, made.skipped_count) == (1, 1)
            assert seen.pop() == value
            con.execute(f"INSERT INTO t{number} SELECT 3, v FROM t{number} WHERE id = 1")
            assert (jammi.refresh(f"t{number}").added, seen) == (1, [])

    @pytest.mark.parametrize("ndims", [0, -3, "3", None, 2.5, True])
    def test_ndims_that_cannot_be(self, ndims, opened):
        @register("sizeless")
        class Sizeless(TextEmbeddingFunction):
            def ndims(self):
                return ndims

        with pytest.raises(ModelError, match=r"ndims\(\) of 'sizeless' returned"):
            opened()[1].embed("a", "sizeless")

    def test_one_thread_at_a_time_calls_it(self, opened):
        con, jammi = opened()
        docs(con, 20_000)
        busy, most = [], []

        def alone(texts):
            busy.append(threading.get_ident())
            most.append(len(busy))
            time.sleep(0.001)
            busy.pop()
            return lengths(texts)

        jammi.register_model("alone", alone, 2)
        assert con.sql("SELECT count(embed(body, 'alone')) FROM docs").fetchall() == [(20_000,)]
        assert set(most) == {1}

    def test_a_process_that_does_not_know_it_says_what_to_do(self, opened, tmp_path):
        con, jammi = opened()
        docs(con)
        jammi.register_model("mine", lengths, 2)
        jammi.generate("docs", "body", "id", model="mine")
        con.close()
        (tmp_path / "my_module.py").write_text(
            "from jammi_duck.embeddings import get_registry\n"
            "get_registry().register_function('mine', lambda texts: [[1.0, len(text)] for text in texts], 2)\n"
        )
        code = f"""
            import duckdb, jammi_duck
            con = duckdb.connect({str(tmp_path / "db.duckdb")!r})
            jammi = jammi_duck.install(con, storage={str(tmp_path / "st")!r})
            try: print(jammi.search("docs", "text xx", 1).project("id").fetchall())
            except jammi_duck.NoModelError as error: print(error)
        """

        def told(**environment):
            found = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, **environment}, capture_output=True,
                text=True, check=True,
            )  # fmt: skip
            return found.stdout.strip()

        assert "import the module that has @register('mine') first, or list it in [models] modules" in told()
        modules = json.dumps(["my_module"])
        assert told(JAMMI_MODELS__MODULES=modules, PYTHONPATH=str(tmp_path)) == "[(2,)]"
        assert "the module 'my_module' of [models] modules cannot be imported" in told(JAMMI_MODELS__MODULES=modules)
