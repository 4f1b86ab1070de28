# ruff: noqa: F811 - fixtures of another file
"""What a review with fresh eyes has found in providers: places, secrets, variables, limits, forks."""

import subprocess
import sys
import textwrap
import threading

import pytest

from jammi_duck.config.settings import load
from jammi_duck.embeddings import TextEmbeddingFunction, get_registry, register
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.errors import ConfigError, EncodingError, InputError, ModelError, NoModelError
from tests.endpoint import Endpoint
from tests.test_providers import docs, near, nothing_known, opened, sections  # noqa: F401

REGISTRY = get_registry()


@pytest.fixture
def endpoint():
    with Endpoint(key=None) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_own", {})


def model_at(url, **arguments):
    given = {"base_url": url, "dimensions": 16, **arguments}
    return "openai:any?" + "&".join(f"{key}={value}" for key, value in given.items())


class TestPlaces:
    """Texts and keys go to no place that only a file names, however the file writes it."""

    def recorded(self, opened, monkeypatch, model):
        """A table that records this model, in a process that has not named its place."""
        con, jammi = opened()
        docs(con, 3)
        jammi.generate("docs", "body", "id", model=model)
        con.close()
        monkeypatch.setattr(REGISTRY, "trusted_places", set())
        monkeypatch.setattr(REGISTRY, "_made", {})
        return opened()

    def test_a_url_that_a_variable_completes(self, endpoint, opened, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-the-users-own")
        monkeypatch.setenv("SLASH", f"/127.0.0.1:{endpoint.port}")
        _, jammi = self.recorded(opened, monkeypatch, model_at("http:/${SLASH}/v1"))
        endpoint.forget()
        with pytest.raises(ModelError, match="texts are sent to no place that only a file names"):
            jammi.search("docs", "text 2", 1)
        assert not endpoint.requests

    def test_a_url_with_a_default(self, endpoint, opened, sections, monkeypatch):
        url = endpoint.url("openai")
        con, jammi = self.recorded(opened, monkeypatch, model_at(f"$var:none:{url}"))
        with pytest.raises(ModelError, match="to no place"):
            jammi.search("docs", "text 2", 1)
        sections(f'[providers.openai]\nbase_url = "{url}"\n')
        # The installation of this database has read its configuration; a new one knows the place.
        con.close()
        assert opened()[1].search("docs", "text 2", 1).project("id").fetchall() == [(2,)]

    @pytest.mark.parametrize("option", ["model", "preload_models"])
    def test_a_model_that_the_folders_file_names(self, sections, monkeypatch, tmp_path, option):
        monkeypatch.chdir(tmp_path)
        value = '"openai:m?base_url=http://127.0.0.1:1/v1"'
        sections(f"[inference]\n{option} = {value if option == 'model' else f'[{value}]'}\n", tmp_path)
        with pytest.raises(ConfigError, match="may name a provider's model, and not say where it is"):
            load()
        sections('[inference]\nmodel = "openai:text-embedding-3-small?dimensions=256"\n', tmp_path)
        assert load().config.model.startswith("openai:")

    def test_a_section_of_the_folders_file_is_no_place_of_the_users(
        self, endpoint, opened, sections, monkeypatch, tmp_path
    ):
        _, jammi = self.recorded(opened, monkeypatch, model_at(endpoint.url("openai")))
        endpoint.forget()
        monkeypatch.chdir(tmp_path)
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\n', tmp_path)
        _, jammi = opened()
        with pytest.raises(ModelError, match="to no place"):
            jammi.search("docs", "text 2", 1)
        assert not endpoint.requests

    def test_a_section_of_the_folders_file_leaves_the_users_limits_and_key(self, sections, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        sections('[providers.openai]\napi_key = "sk-mine"\nmax_requests = 7\n')
        sections("[providers.openai]\ndimensions = 64\nmax_requests = 1000\n", tmp_path)
        assert dict(load().config.providers["openai"]) == {"api_key": "sk-mine", "max_requests": 7, "dimensions": 64}
        sections('[providers.openai]\nbase_url = "http://127.0.0.1:1"\n', tmp_path)
        assert dict(load().config.providers["openai"]) == {"max_requests": 7, "base_url": "http://127.0.0.1:1"}


class TestSecrets:
    @pytest.mark.parametrize("key", ["sk-secret-abcdef\n", "  sk-secret-abcdef"])
    def test_spaces_around_a_key_are_none_of_it(self, endpoint, opened, monkeypatch, key):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        assert near(opened()[1].embed("a", model_at(endpoint.url("openai"))), "a")
        assert endpoint.requests[0].headers["authorization"] == "Bearer sk-secret-abcdef"

    @pytest.mark.parametrize("key", ["sk-secret\nabcdef", "sk-secret-é", "sk-secret\x00x"])
    def test_a_key_that_is_none_is_not_shown(self, endpoint, opened, monkeypatch, key, caplog):
        REGISTRY.set_var("key", key)
        with pytest.raises(InputError, match="the key of 'openai' has characters that no key has") as error:
            opened()[1].embed("a", model_at(endpoint.url("openai"), api_key="$var:key"))
        assert "secret" not in f"{error.value}{caplog.text}"
        assert not endpoint.requests

    @pytest.mark.parametrize(
        "arguments",
        ["token=$var:t:sk-LITERAL", "token=sk-LITERAL${HOME}", "host=https://user:sk-LITERAL@${HOME}/x",
         "bearer=sk-LITERAL", "auth=sk-LITERAL"],
    )  # fmt: skip
    def test_a_literal_beside_a_placeholder(self, opened, arguments):
        @register("tok")
        class Tok(TextEmbeddingFunction):
            token: str = ""
            host: str = ""
            bearer: str = ""
            auth: str = ""

        with pytest.raises(InputError) as error:
            opened()[1].embed("a", f"tok:?{arguments}")
        assert "LITERAL" not in str(error.value)
        assert "sk-LITERAL" not in repr(Tok(token="sk-LITERAL", bearer="sk-LITERAL"))

    @pytest.mark.parametrize("key", ["base_url", "dimensions", "timeout", "max_retries", "max_in_flight"])
    def test_a_value_of_the_process_is_not_shown(self, opened, key):
        REGISTRY.set_var("s", "sk-TOPSECRET")
        with pytest.raises(InputError, match=rf"{key} of 'openai' is '\$var:s'"):
            opened()[1].embed("a", f"openai:any?{key}=$var:s")


class TestDeciding:
    def test_a_variable_that_decides_vectors(self, endpoint, opened):
        model = f"cohere:any?base_url={endpoint.url('cohere')}&dimensions=16&input_type=$var:kind"
        for kind in ("search_document", "search_query"):
            REGISTRY.set_var("kind", kind)
            assert near(opened()[1].embed("a", model), "a", "document" if kind.endswith("document") else "query")

    def test_a_table_of_another_value(self, opened):
        @register("varm")
        class VarM(TextEmbeddingFunction):
            model_name: str = ""

            def ndims(self):
                return 2

            def generate_embeddings(self, texts):
                return [[1.0, 0.0] if self.model_name == "small" else [0.0, 1.0] for _ in texts]

        REGISTRY.set_var("mm", "small")
        con, jammi = opened()
        docs(con, 3)
        jammi.generate("docs", "body", "id", model="varm:?model_name=$var:mm")
        REGISTRY.set_var("mm", "large")
        con.execute("INSERT INTO docs VALUES (9, 'another')")
        with pytest.raises(ModelError, match="its arguments, or variables in them, have changed"):
            jammi.refresh("docs")

    def test_numbers_by_placeholders(self, endpoint, opened, monkeypatch):
        monkeypatch.setenv("DIMS", "16")
        REGISTRY.set_var("n", "2")
        model = (
            f"openai:any?base_url={endpoint.url('openai')}&dimensions=${{DIMS}}&max_in_flight=$var:n&timeout=$var:t:5"
        )
        assert len(opened()[1].embed("a", model)) == 16

    def test_the_default_model_is_recorded_by_its_name(self, endpoint, opened, sections):
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\n')
        con, jammi = opened()
        docs(con, 3)
        assert jammi.generate("docs", "body", "id", model="openai:").model.startswith("openai:text-embedding-ada-002?")
        con.close()
        # What is added to the section later decides nothing about a table that is there.
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\ndimensions = 64\nname = "other"\n')
        assert opened()[1].search("docs", "text 2", 1).project("id").fetchall() == [(2,)]

    def test_a_name_is_said_once(self, opened):
        with pytest.raises(InputError, match="where an argument belongs"):
            opened()[1].embed("a", "openai:m?name=other")


class TestLimits:
    @pytest.mark.parametrize("tokens", ["-1000", "0", "1e25", "null", '"x"', "[]", "1.5"])
    def test_a_count_of_tokens_that_cannot_be(self, endpoint, opened, tokens):
        def strange(request):
            return None

        con, jammi = opened()
        docs(con, 30)
        encoder = LoadedEncoders(32, 3).get(model_at(endpoint.url("openai"), batch_size=10)).stream()
        function = encoder.function
        read = function.answer
        function.answer = lambda content, count: read(
            b'{"usage": {"total_tokens": ' + tokens.encode() + b"}, " + _without_usage(content)[1:], count
        )
        encoder.encode([f"text {i}" for i in range(30)])
        assert encoder.usage.requests == 3
        assert 30 <= encoder.usage.tokens <= 300 or tokens == "1.5"

    def test_a_budget_is_used_as_far_as_it_goes(self, endpoint, opened):
        con, jammi = opened()
        docs(con, 300, word="some words of")
        with pytest.raises(EncodingError, match="max_tokens is 1,000"):
            jammi.generate("docs", "body", "id", model=model_at(endpoint.url("openai"), max_tokens=1000))
        sent = sum(request.call.tokens for request in endpoint.requests)
        assert 300 <= sent <= 1000

    def test_a_limit_of_a_build_is_none_of_later_searches(self, endpoint, opened):
        con, jammi = opened()
        docs(con, 30)
        made = jammi.generate("docs", "body", "id", model=model_at(endpoint.url("openai"), max_requests=3))
        assert "max_requests" not in made.model
        for i in range(6):
            assert jammi.search("docs", f"text {i}", 1).project("id").fetchall() == [(i,)]


def _without_usage(content):
    import json

    document = json.loads(content)
    del document["usage"]
    return json.dumps(document).encode()


class TestForks:
    @pytest.mark.parametrize("model", ["openai", "mine"])
    def test_a_child_does_not_wait_for_its_parents_threads(self, endpoint, tmp_path, model):
        endpoint.acts = ["ok", "hang"]
        code = f"""
            import os, signal, threading, time
            from pathlib import Path
            from jammi_duck.embeddings import get_registry
            from jammi_duck.encoder.loaded import LoadedEncoders
            first = threading.Event()
            def slow(texts):
                if texts == ["hangs"] and not first.is_set():
                    first.set()
                    time.sleep(60)
                return [[1.0, 2.0] for _ in texts]
            get_registry().register_function("mine", slow, 2)
            name = {model_at(endpoint.url("openai"), timeout=5)!r} if {model!r} == "openai" else "mine"
            encoder = LoadedEncoders(32, 3, vectors_path=Path({str(tmp_path / "v.sqlite")!r})).get(name)
            encoder.encode(["a"])
            threading.Thread(target=lambda: encoder.encode(["hangs"]), daemon=True).start()
            time.sleep(1)
            child = os.fork()
            if not child:
                signal.alarm(20)
                encoder.encode(["hangs"])
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            os._exit(0)
        """
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == "0", done.stderr


class TestOwnClasses:
    """The idioms that users of other registries have."""

    def test_an_init_of_its_own(self, opened):
        @register("own-init")
        class OwnInit(TextEmbeddingFunction):
            device: str = "cpu"
            tags: list = []  # noqa: RUF012 - what users write

            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self._loaded = self.device.upper()

            def ndims(self):
                return 2

            def generate_embeddings(self, texts):
                return [[1.0, float(len(self._loaded))] for _ in texts]

        assert opened()[1].embed("a", "own-init:?device=cuda").tolist() == pytest.approx([1 / 17**0.5, 4 / 17**0.5])
        one, other = OwnInit.create(), OwnInit.create()
        one.tags.append("x")
        assert other.tags == []

    def test_fields_of_pydantic(self):
        from pydantic import Field, PrivateAttr

        @register("fields")
        class Fields(TextEmbeddingFunction):
            name: str = Field(default="all")
            tags: list = Field(default_factory=list)
            _model: object = PrivateAttr(None)

            def ndims(self):
                return 2

        made = Fields.create()
        assert (made.name, made.tags, made.spec) == ("all", [], "fields:all")
        assert "_model" not in Fields.arguments()

    def test_an_argument_that_is_missing(self):
        @register("needy")
        class Needy(TextEmbeddingFunction):
            model_name: str

        with pytest.raises(InputError, match="'needy' needs the argument model_name"):
            Needy.create()
        with pytest.raises(InputError, match="max_retries of 'needy' is -1"):
            Needy.create(model_name="x", max_retries=-1)

    def test_tensors(self, opened):
        torch = pytest.importorskip("torch")
        jammi = opened()[1]
        jammi.register_model("tensors", lambda texts: torch.ones(len(texts), 4, requires_grad=True), 4)
        assert jammi.embed("a", "tensors").tolist() == [0.5] * 4
        jammi.register_model("halves", lambda texts: [torch.ones(4, dtype=torch.bfloat16) for _ in texts], 4)
        assert jammi.embed("a", "halves").tolist() == [0.5] * 4

    def test_a_function_that_always_fails_ends_the_work(self, opened):
        con, jammi = opened()
        docs(con, 5000)
        calls = []

        def broken(texts):
            calls.append(texts)
            raise RuntimeError("CUDA out of luck")

        jammi.register_model("broken", broken, 2)
        with pytest.raises(EncodingError, match="for each of the first 8 values: correct the function"):
            jammi.generate("docs", "body", "id", model="broken")
        assert len(calls) < 100

    def test_a_function_that_empties_its_list(self, opened, monkeypatch):
        monkeypatch.setattr("jammi_duck.encoder.waits._FIRST_SECONDS", 0.001)
        calls = []

        def greedy(texts):
            calls.append(len(texts))
            made = [[1.0, len(texts.pop())] for _ in list(texts)]
            if len(calls) == 1:
                raise ConnectionError("once")
            return made

        jammi = opened()[1]
        jammi.register_model("greedy", greedy, 2)
        assert jammi.embed("a", "greedy") is not None
        assert calls == [1, 1]

    def test_two_installations_call_one_function_in_turn(self, opened):
        busy, most = [], []

        def alone(texts):
            busy.append(1)
            most.append(len(busy))
            threading.Event().wait(0.05)
            busy.pop()
            return [[1.0, 2.0] for _ in texts]

        (_, first), (_, second) = opened(), opened("other.duckdb")
        first.register_model("alone", alone, 2)
        threads = [
            threading.Thread(target=lambda each=each: [each.embed("a", "alone") for _ in range(5)])
            for each in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(most) == 1


class TestMessages:
    def test_a_provider_without_its_colon(self, opened):
        with pytest.raises(NoModelError, match="a provider's is written with a colon: 'openai:'"):
            opened()[1].embed("a", "openai")

    def test_a_port_that_cannot_be(self, opened):
        with pytest.raises(EncodingError, match="check base_url"):
            opened()[1].embed("a", model_at("http://127.0.0.1:99999/v1"))

    def test_nobody_answers(self, opened):
        model = "ollama:nomic-embed-text?base_url=http://127.0.0.1:9&max_retries=0"
        with pytest.raises(EncodingError, match="start Ollama"):
            opened()[1].embed("a", model)

    @pytest.mark.parametrize(
        ("given", "url"),
        [("127.0.0.1", "http://127.0.0.1:11434"), (":1234", "http://127.0.0.1:1234"), ("0.0.0.0", "http://127.0.0.1:11434"),
         ("[::]:99", "http://127.0.0.1:99"), ("[::1]", "http://[::1]:11434"), ("https://host/", "https://host"),
         ("host:1", "http://host:1")],
    )  # fmt: skip
    def test_the_variable_of_ollama(self, monkeypatch, given, url):
        monkeypatch.setenv("OLLAMA_HOST", given)
        assert REGISTRY.get("ollama").create().endpoint == url

    def test_half_a_character(self, endpoint):
        made = REGISTRY.get("openai").create(name="any", base_url=endpoint.url("openai"), dimensions=16)
        one, bad = made.compute_source_embeddings(["one", "\ud800"])
        assert near(one, "one")
        assert bad is None
        with pytest.raises(InputError, match="value 1 is of type NoneType"):
            made.compute_source_embeddings(["one", None])
