"""Hosted providers: what each is sent, where its arguments come from, what is paid for, and what is kept of it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck.config.settings import load
from jammi_duck.embeddings import get_registry
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.providers.batches import batches, most_tokens_of, tokens_of
from jammi_duck.encoder.providers.transport import asked_to_wait, exhausted_for
from jammi_duck.encoder.vector_cache import VectorCache
from jammi_duck.errors import ConfigError, EncodingError, InputError, ModelError
from tests.endpoint import Endpoint, vector_of

REGISTRY = get_registry()
# Of each provider: the form that is played, its environment variable, a model, and how many dimensions that has.
PROVIDERS = {
    "openai": ("openai", "OPENAI_API_KEY", "text-embedding-3-small", 1536),
    "cohere": ("cohere", "CO_API_KEY", "embed-english-v3.0", 1024),
    "voyageai": ("voyage", "VOYAGE_API_KEY", "voyage-3.5", 1024),
    "gemini-text": ("gemini", "GEMINI_API_KEY", "gemini-embedding-001", 3072),
    "jina": ("jina", "JINA_API_KEY", "jina-embeddings-v3", 1024),
    "ollama": ("ollama", "OLLAMA_API_KEY", "nomic-embed-text", 768),
}
KEYS = [key for _, key, _, _ in PROVIDERS.values()]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_variables", {})
    monkeypatch.setattr(REGISTRY, "_made", {})
    monkeypatch.setattr(REGISTRY, "trusted_places", set())
    for name in (*KEYS, "COHERE_API_KEY", "GOOGLE_API_KEY", "OPENAI_BASE_URL", "CO_API_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint():
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def opened(tmp_path):
    cons = []

    def opened(database="db.duckdb", config=None, **options):
        con = duckdb.connect(str(tmp_path / database), config=config or {})
        cons.append(con)
        return con, jammi_duck.install(con, **{"storage": tmp_path / "st", "cache_dir": tmp_path / "cache", **options})

    yield opened
    for con in cons:
        con.close()


@pytest.fixture
def sections(monkeypatch, tmp_path):
    """Writes [providers.*] to the user's own configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def write(text, folder=None):
        path = folder or tmp_path / "config" / "jammi"
        path.mkdir(parents=True, exist_ok=True)
        (path / "jammi.toml").write_text(textwrap.dedent(text))

    return write


def docs(con, rows=10, word="text"):
    con.execute(f"CREATE OR REPLACE TABLE docs AS SELECT i AS id, '{word} ' || i AS body FROM range({rows}) r(i)")


def near(vector, text, role="document"):
    return float(np.dot(np.array(vector, np.float64), vector_of(text, len(vector), role))) > 1 - 1e-5


class TestForms:
    @pytest.mark.parametrize("id", PROVIDERS)
    @pytest.mark.parametrize("dimensions", [None, 32])
    def test_documents_and_queries(self, endpoint, opened, monkeypatch, id, dimensions):
        form, variable, name, usual = PROVIDERS[id]
        if id == "cohere" and dimensions:
            name = "embed-v4.0"
        monkeypatch.setenv(variable, endpoint.key)
        model = f"{id}:{name}?base_url={endpoint.url(form)}" + (f"&dimensions={dimensions}" if dimensions else "")
        con, jammi = opened()
        document, query = (jammi.embed("a text", model, role=role) for role in ("document", "query"))
        assert len(document) == len(query) == (dimensions or usual)
        assert near(document, "a text")
        # OpenAI and Ollama are not told the role.
        assert near(query, "a text", "document" if id in ("openai", "ollama") else "query")
        docs(con, 5)
        made = jammi.generate("docs", "body", "id", model=model)
        assert (made.row_count, made.requests, made.dimensions) == (5, 1, dimensions or usual)
        assert made.tokens >= 5
        assert jammi.search("docs", "text 3", 1, mode="vector").project("_row_id").fetchall()[0][
            0
        ] == "3" or id not in ("openai", "ollama")
        assert endpoint.key not in "".join(made.model)

    def test_azure(self, endpoint, opened, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        model = f"openai:my-deployment?base_url={endpoint.url()}&api_version=2024-10-21&dimensions=16"
        assert near(opened()[1].embed("a text", model), "a text")
        (request,) = endpoint.requests
        assert request.path == "/openai/deployments/my-deployment/embeddings"
        assert request.query == {"api-version": "2024-10-21"}
        assert request.headers["api-key"] == endpoint.key
        assert "authorization" not in request.headers

    def test_in_python(self, endpoint):
        REGISTRY.set_var("key", endpoint.key)
        made = REGISTRY.get("openai").create(
            name="text-embedding-3-small", api_key="$var:key", base_url=endpoint.url("openai"), max_retries=1
        )
        assert made.ndims() == 1536
        assert not endpoint.requests
        one, other = made.compute_source_embeddings(["one", "other"])
        assert near(one, "one")
        assert near(other, "other")
        (query,) = made.compute_query_embeddings("one")
        assert near(query, "one")

    def test_a_model_that_is_not_known_is_asked_once(self, endpoint, opened):
        endpoint.key = None
        model = f"openai:unknown?base_url={endpoint.url('openai')}"
        assert len(opened()[1].embed("one", model)) == 64
        assert [request.texts for request in endpoint.requests] == [["a text"], ["one"]]
        assert len(opened("other.duckdb")[1].embed("other", model)) == 64
        assert [request.texts for request in endpoint.requests[2:]] == [["other"]]

    def test_another_width_than_was_said(self, endpoint, opened):
        endpoint.key = None
        function = REGISTRY.get("ollama").create(name="nomic-embed-text", base_url=endpoint.url("ollama"))
        endpoint.acts = lambda _: "all are longer"
        with pytest.raises(
            EncodingError, match=r"of 769 numbers for 'nomic-embed-text', and not of 768: give dimensions"
        ):
            function.compute_source_embeddings(["a"])
        assert len(endpoint.requests) == 1

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ("dimensions=0", "dimensions of 'openai' is 0; it must be a whole number of at least 1"),
            ("dimensions=x", "dimensions of 'openai' is 'x'"),
            ("max_retries=-1", "max_retries of 'openai' is -1"),
            ("timeout=-1", "timeout of 'openai' is -1; it must be a number of at least 0"),
            ("max_in_flight=true", "max_in_flight of 'openai' is True"),
            ("base_url=ftp://example.com", "it must begin with https:// or http://"),
            ("nothing=1", "'openai' has no argument 'nothing'"),
        ],
    )
    def test_arguments_that_cannot_be(self, opened, arguments, told):
        with pytest.raises(InputError, match=told):
            opened()[1].embed("a", f"openai:m?{arguments}")

    def test_no_key(self, opened):
        with pytest.raises(
            EncodingError,
            match=r"'openai' needs a key: set OPENAI_API_KEY in the environment, or api_key in \[providers.openai\]",
        ):
            opened()[1].embed("a", "openai:text-embedding-3-small")


class TestArguments:
    def test_a_section_with_a_variable_of_the_environment(self, endpoint, opened, sections, monkeypatch):
        monkeypatch.setenv("MY_KEY", endpoint.key)
        sections(f"""
            [providers.openai]
            base_url = "{endpoint.url("openai")}"
            api_key = "${{MY_KEY}}"
            dimensions = 16
            max_retries = 1
        """)
        con, jammi = opened()
        docs(con)
        made = jammi.generate("docs", "body", "id", model="openai:any")
        # What decides the vectors is recorded, and nothing else.
        assert made.model == f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"
        assert endpoint.requests[0].headers["authorization"] == f"Bearer {endpoint.key}"

    def test_a_section_with_a_variable_of_the_process(self, endpoint, opened, sections):
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\napi_key = "$var:mine"\ndimensions = 16\n')
        with pytest.raises(InputError, match="set_var"):
            opened()[1].embed("a", "openai:any")
        REGISTRY.set_var("mine", endpoint.key)
        assert near(opened()[1].embed("a", "openai:any"), "a")

    def test_what_is_given_comes_before_the_section_and_that_before_the_environment(
        self, endpoint, opened, sections, monkeypatch
    ):
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\ndimensions = 16\n')
        endpoint.key = None
        assert len(opened()[1].embed("a", "openai:any")) == 16
        assert len(opened()[1].embed("a", "openai:any?dimensions=8")) == 8

    def test_the_environment_alone(self, endpoint, opened, monkeypatch):
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url("openai"))
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        assert len(opened()[1].embed("a", "openai:text-embedding-3-small")) == 1536
        monkeypatch.setenv("OLLAMA_HOST", endpoint.url().removeprefix("http://"))
        assert len(opened()[1].embed("a", "ollama:nomic-embed-text")) == 768

    @pytest.mark.parametrize(
        "secret",
        ["(TYPE http, BEARER_TOKEN '{key}', SCOPE '{url}')"],
    )
    def test_a_secret_of_duckdb(self, endpoint, opened, secret):
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"
        con, jammi = opened(config={"allow_unredacted_secrets": "true"})
        with pytest.raises(EncodingError, match="401"):
            jammi.embed("a", model)
        con.execute(f"CREATE SECRET mine {secret.format(key=endpoint.key, url=endpoint.url('openai'))}")
        assert near(jammi.embed("a", model), "a")
        con.close()
        con, jammi = opened()
        con.execute(f"CREATE SECRET mine {secret.format(key=endpoint.key, url=endpoint.url('openai'))}")
        with pytest.raises(EncodingError, match="401"):
            jammi.embed("b", model)

    def test_an_unknown_argument_of_a_section(self, opened, sections):
        sections('[providers.openai]\nbase = "x"\n')
        with pytest.raises(ConfigError, match=r"\[providers.openai\] sets base, which 'openai' has not"):
            opened()[1].embed("a", "openai:any")

    @pytest.mark.parametrize("text", ["[providers]\nopenai = 1\n", "providers = 1\n", "[[providers]]\nx = 1\n"])
    def test_what_is_no_section(self, sections, text):
        sections(text)
        with pytest.raises(ConfigError, match="providers"):
            load()

    def test_no_value_is_shown(self, sections):
        sections('[providers.openai]\napi_key = "sk-very-secret"\n')
        shown = subprocess.run(
            [sys.executable, "-m", "jammi_duck.doors.cli", "config"], capture_output=True, text=True, check=True
        ).stdout
        assert "providers" in shown
        assert "sk-very-secret" not in shown
        assert "sk-very-secret" not in repr(load())
        assert "sk-very-secret" in load().config.secrets

    def test_by_a_variable_of_the_environment(self, endpoint, opened, monkeypatch):
        given = {"openai": {"base_url": endpoint.url("openai"), "dimensions": 16, "api_key": endpoint.key}}
        monkeypatch.setenv("JAMMI_PROVIDERS", json.dumps(given))
        assert near(opened()[1].embed("a", "openai:any"), "a")


class TestTrust:
    """A working directory may come from anywhere, and so may a database."""

    def test_the_folders_file_gets_no_key_of_the_user(self, endpoint, opened, sections, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-the-users-own")
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\ndimensions = 16\n', tmp_path)
        endpoint.key = None
        assert near(opened()[1].embed("a", "openai:any"), "a")
        assert "authorization" not in endpoint.requests[0].headers

    @pytest.mark.parametrize("key", ["${OPENAI_API_KEY}", "$var:key"])
    def test_nor_does_it_name_one(self, sections, monkeypatch, tmp_path, key):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-the-users-own")
        sections(f'[providers.openai]\nbase_url = "http://127.0.0.1:1"\napi_key = "{key}"\n', tmp_path)
        with pytest.raises(ConfigError, match=r"does not say where the provider is\. Give both in your own jammi.toml"):
            load()

    def test_its_own_key_is_used(self, endpoint, opened, sections, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\napi_key = "{endpoint.key}"\n', tmp_path)
        assert len(opened()[1].embed("a", "openai:text-embedding-3-small")) == 1536

    def test_a_section_is_taken_whole(self, sections, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        sections('[providers.openai]\napi_key = "sk-the-users-own"\n[providers.cohere]\ntimeout = 3\n')
        sections('[providers.openai]\nbase_url = "http://127.0.0.1:1"\n', tmp_path)
        config = load().config
        assert dict(config.providers["openai"]) == {"base_url": "http://127.0.0.1:1"}
        assert dict(config.providers["cohere"]) == {"timeout": 3}
        assert config.foreign_providers == ("openai",)

    @pytest.mark.parametrize("text", ['[models]\nmodules = ["evil"]\n', '[cache]\nvectors = "/tmp/x"\n'])
    def test_it_runs_no_code_and_names_no_file(self, sections, monkeypatch, tmp_path, text):
        monkeypatch.chdir(tmp_path)
        sections(text, tmp_path)
        with pytest.raises(ConfigError, match="is not taken from a file in the working directory"):
            load()

    def test_texts_go_to_no_place_that_only_a_table_names(self, endpoint, opened, monkeypatch, tmp_path):
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"
        con, jammi = opened()
        docs(con)
        jammi.generate("docs", "body", "id", model=model)
        con.close()
        endpoint.forget()
        monkeypatch.setattr(REGISTRY, "trusted_places", set())
        con, jammi = opened()
        with pytest.raises(ModelError, match="texts are sent to no place that only a file names"):
            jammi.search("docs", "text 3", 1)
        con.execute("INSERT INTO docs VALUES (99, 'new')")
        with pytest.raises(ModelError, match="texts are sent to no place"):
            jammi.refresh("docs")
        assert not endpoint.requests
        con.execute("DELETE FROM docs WHERE id = 99")
        # Who calls it by its name knows it.
        jammi.embed("a", model)
        assert jammi.search("docs", "text 3", 1).project("id").fetchall() == [(3,)]

    def test_a_place_that_the_configuration_names(self, endpoint, opened, sections, monkeypatch):
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\ndimensions = 16\n')
        endpoint.key = None
        con, jammi = opened()
        docs(con)
        jammi.generate("docs", "body", "id", model="openai:any")
        con.close()
        monkeypatch.setattr(REGISTRY, "trusted_places", set())
        con, jammi = opened()
        assert jammi.search("docs", "text 3", 1).project("id").fetchall() == [(3,)]

    def test_a_server_gives_no_provider_away(self):
        from jammi_duck.doors.server.admission import Cores
        from jammi_duck.doors.server.models import ModelDeniedError, ServedEncoders

        inner = LoadedEncoders(32, 3)
        served = ServedEncoders(inner, "default", (), lambda _: None, Cores(1))
        assert any(row.name == "openai:text-embedding-ada-002" for row in inner.available("default"))
        assert not any(row.origin in ("provider", "python") for row in served.available("default"))
        for name in ("openai:text-embedding-ada-002", "openai:m?base_url=http://127.0.0.1:1", "ollama:x"):
            with pytest.raises(ModelDeniedError):
                served.get(name)


class TestTables:
    def test_a_model_is_found_by_what_decides_its_vectors(self, endpoint, opened, sections):
        sections(f'[providers.openai]\nbase_url = "{endpoint.url("openai")}"\n')
        endpoint.key = None
        con, jammi = opened()
        docs(con)
        for model in ("openai:one?dimensions=16", "openai:other?dimensions=16"):
            jammi.generate("docs", "body", "id", model=model)
        dims = "dimensions=16"
        for model in (f"openai:one?{dims}", f"openai:one?{dims}&max_retries=1", f"openai:other?{dims}"):
            found = jammi.search("docs", "text 3", 1, model=model).project("id").fetchall()
            assert found == [(3,)]
        sent = {request.call.model for request in endpoint.requests[-2:]}
        assert sent == {"one", "other"}
        with pytest.raises(jammi_duck.NotFoundError, match="openai:one"):
            jammi.search("docs", "text 3", 1, model="openai:one?dimensions=8")
        assert jammi.sync("docs", "body", "id", model="openai:one?dimensions=16&timeout=5").action == "unchanged"


class TestCache:
    def test_no_text_is_paid_for_twice(self, endpoint, opened, tmp_path):
        endpoint.key = None
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"
        con, jammi = opened()
        docs(con, 300)
        first = jammi.generate("docs", "body", "id", model=model)
        con.execute("CREATE TABLE others AS SELECT id + 1 AS id, body FROM docs UNION ALL SELECT -1, 'a new one'")
        other = jammi.generate("others", "body", "id", model=model)
        assert (first.requests, other.requests) == (2, 1)
        assert sorted(endpoint.sent) == sorted({f"text {i}" for i in range(300)} | {"a new one"})
        # In another database and another storage, too.
        con, jammi = opened("other.duckdb", storage=tmp_path / "elsewhere")
        docs(con, 300)
        assert jammi.generate("docs", "body", "id", model=model).requests == 0
        files = [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("vectors.sqlite")]
        assert files
        assert all(path.stat().st_mode & 0o077 == 0 for path in files)
        assert b"text 299" not in b"".join(path.read_bytes() for path in files)

    def test_another_definition_is_another_vector(self, endpoint, opened):
        endpoint.key = None
        _, jammi = opened()
        url = endpoint.url("openai")
        for model in (f"openai:any?base_url={url}&dimensions=16", f"openai:any?base_url={url}&dimensions=8",
                      f"openai:other?base_url={url}&dimensions=16"):  # fmt: skip
            assert near(jammi.embed("a", model), "a")
        assert len(endpoint.requests) == 3
        cohere = f"cohere:any?base_url={endpoint.url('cohere')}&dimensions=16"
        assert near(jammi.embed("a", cohere), "a")
        assert near(jammi.embed("a", cohere, role="query"), "a", "query")
        # Other retries are not.
        assert near(jammi.embed("a", f"{cohere}&max_retries=1"), "a")
        assert len(endpoint.requests) == 5

    def test_off(self, endpoint, opened, monkeypatch, tmp_path):
        monkeypatch.setenv("JAMMI_CACHE__VECTORS", "off")
        endpoint.key = None
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"
        _, jammi = opened()
        jammi.embed("a", model)
        jammi.embed("a", model)
        assert endpoint.sent == ["a", "a"]
        assert not list(tmp_path.rglob("*.sqlite*"))

    @pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
    def test_a_file_that_is_none_is_left_alone(self, endpoint, opened, monkeypatch, tmp_path, content, caplog):
        path = tmp_path / "mine.sqlite"
        path.write_bytes(content)
        monkeypatch.setenv("JAMMI_CACHE__VECTORS", str(path))
        endpoint.key = None
        assert near(opened()[1].embed("a", f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"), "a")
        assert path.read_bytes() == content
        assert "cannot be used" in caplog.text

    def test_another_programs_database_is_left_alone(self, tmp_path, caplog):
        import sqlite3

        path = tmp_path / "mine.sqlite"
        with sqlite3.connect(path) as con:
            con.execute("CREATE TABLE vectors (key, vector)")
        con.close()
        cache = VectorCache(path)
        cache.put([(b"k" * 32, np.ones(2, np.float32))])
        assert cache.get([b"k" * 32]) == {}
        assert "left alone" in caplog.text

    def test_threads_and_processes_share_it(self, tmp_path):
        path = tmp_path / "folder" / "vectors.sqlite"
        caches = [VectorCache(path) for _ in range(3)]

        def write(cache, start):
            for i in range(start, start + 50):
                cache.put([(f"{i:032}".encode(), np.full(3, i, np.float32))])

        threads = [threading.Thread(target=write, args=(cache, n * 30)) for n, cache in enumerate(caches * 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = f"""
            import numpy as np
            from pathlib import Path
            from jammi_duck.encoder.vector_cache import VectorCache
            cache = VectorCache(Path({str(path)!r}))
            found = cache.get([f"{{i:032}}".encode() for i in range(300)])
            assert all(vector.tolist() == [int(key)] * 3 for key, vector in found.items())
            print(len(found))
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "200"

    def test_a_child_of_a_fork_has_its_own_connection(self, tmp_path):
        cache = VectorCache(tmp_path / "vectors.sqlite")
        cache.put([(b"a" * 32, np.ones(2, np.float32))])
        child = os.fork()
        if child == 0:
            ok = set(cache.get([b"a" * 32])) == {b"a" * 32}
            os._exit(0 if ok else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestBudgets:
    def test_requests_of_a_build(self, endpoint, opened):
        endpoint.key = None
        con, jammi = opened()
        docs(con, 100)
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16&batch_size=10&max_requests="
        with pytest.raises(
            EncodingError, match="'openai' was not asked further: max_requests is 4, and 4 requests with"
        ):
            jammi.generate("docs", "body", "id", model=model + "4")
        assert len(endpoint.requests) == 4
        # What was answered is not asked again, so the same again goes on.
        with pytest.raises(EncodingError, match="max_requests is 4"):
            jammi.generate("docs", "body", "id", model=model + "4")
        made = jammi.generate("docs", "body", "id", model=model + "4")
        assert (made.row_count, made.requests) == (100, 2)
        assert len(endpoint.sent) == len(set(endpoint.sent)) == 100

    @pytest.mark.parametrize("most", [0, 1, 150, 400])
    def test_tokens_are_never_passed(self, endpoint, opened, most):
        endpoint.key = None
        con, jammi = opened()
        docs(con, 100, word="some words of a text")
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16&batch_size=5&max_tokens={most}"
        with pytest.raises(EncodingError, match=f"max_tokens is {most}"):
            jammi.generate("docs", "body", "id", model=model)
        assert sum(request.call.tokens for request in endpoint.requests) <= most
        assert bool(endpoint.requests) == (most > 100)

    def test_enough_is_enough(self, endpoint, opened):
        endpoint.key = None
        con, jammi = opened()
        docs(con, 100)
        model = (
            f"openai:any?base_url={endpoint.url('openai')}&dimensions=16&batch_size=10&max_requests=10&max_tokens=4000"
        )
        made = jammi.generate("docs", "body", "id", model=model)
        assert (made.row_count, made.requests) == (100, 10)
        assert made.tokens == sum(request.call.tokens for request in endpoint.requests)

    def test_the_log_tells_of_requests_and_of_many_texts(self, endpoint, opened, caplog):
        caplog.set_level("INFO", "jammi_duck")
        endpoint.key = None
        con, jammi = opened()
        docs(con, 2500)
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16"
        con.execute("SELECT count(embed(body, ?)) FROM docs", [model]).fetchall()
        assert "embed has sent" in caplog.text
        con.execute("UPDATE docs SET body = body || '!'")
        jammi.generate("docs", "body", "id", model=model)
        assert "10 requests with" in caplog.text
        docs(con, 2600, word="other")
        assert jammi.refresh("docs").requests == 11
        assert jammi.sync("docs", "body", "id", model=model).action == "unchanged"


class TestInFlight:
    def test_never_more_than_allowed(self, endpoint, opened):
        endpoint.key, endpoint.delay = None, 0.01
        con, jammi = opened()
        docs(con, 3000)
        model = f"openai:any?base_url={endpoint.url('openai')}&dimensions=16&batch_size=20&max_in_flight=5"
        jammi.generate("docs", "body", "id", model=model)
        assert endpoint.sums["at_once"] == 5

    def test_equal_texts_are_sent_once_whoever_wants_them(self, endpoint, opened, monkeypatch):
        monkeypatch.setenv("JAMMI_CACHE__VECTORS", "off")
        endpoint.key, endpoint.delay = None, 0.05
        _, jammi = opened()
        encoder = LoadedEncoders(32, 3).get(f"openai:any?base_url={endpoint.url('openai')}&dimensions=16&batch_size=10")
        texts = [f"text {i % 50}" for i in range(200)]
        done = []
        threads = [threading.Thread(target=lambda: done.append(encoder.encode(texts))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(endpoint.sent) == sorted({*texts})
        assert all(near(vector, text) for vectors in done for vector, text in zip(vectors, texts, strict=True))

    @pytest.mark.parametrize("call", ["generate", "embed"])
    def test_ctrl_c_ends_it_at_once(self, endpoint, tmp_path, call):
        endpoint.key = None
        endpoint.acts = lambda request: "hang"
        query = {
            "generate": "SELECT * FROM jammi_generate('docs', 'body', 'id', model := '{}')",
            "embed": "SELECT count(embed(body, '{}')) FROM docs",
        }[call].format(f"openai:any?base_url={endpoint.url('openai')}&dimensions=16")
        code = f"""
            import duckdb, jammi_duck, time
            con = duckdb.connect()
            jammi_duck.install(con, storage={str(tmp_path / "st")!r}, cache_dir={str(tmp_path / "cache")!r})
            con.execute("CREATE TABLE docs AS SELECT i AS id, 'text ' || i AS body FROM range(10000) r(i)")
            print("ready", flush=True)
            try: con.execute({query!r}).fetchall()
            except BaseException as error: print(type(error).__name__, flush=True)
        """
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        while not endpoint.requests:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.stdout.readline().strip() in ("RuntimeError", "KeyboardInterrupt", "InvalidInputException")
        process.wait(10)
        # Of a hanging request it would be a minute.
        assert time.monotonic() - began < 10
        process.stdout.close()


class TestWords:
    """What headers say, and how texts are split."""

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [({"retry-after": "3"}, 3), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "-1"}, 0),
         ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0), ({"retry-after": "soon"}, None), ({}, None)],
    )  # fmt: skip
    def test_retry_after(self, headers, seconds):
        assert asked_to_wait(headers) == seconds

    @pytest.mark.parametrize(
        ("reset", "seconds"),
        [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3s", 3723), ("2.5", 2.5), ("", 0), ("soon", 0),
         ("1764460800", 0), ("nan", 0), ("-3", 0)],
    )  # fmt: skip
    def test_limits_that_are_reached(self, reset, seconds):
        headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
        assert exhausted_for(headers) == pytest.approx(seconds)
        assert exhausted_for({**headers, "x-ratelimit-remaining-requests": "1"}) == 0

    def test_batches_are_all_texts_in_order_and_within_the_limits(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            texts = ["é" * int(length) for length in rng.integers(0, 60, rng.integers(0, 40))]
            most_texts, most_tokens = int(rng.integers(1, 10)), int(rng.integers(1, 100))
            parts = list(batches(texts, most_texts, most_tokens))
            assert [place for part in parts for place in part] == list(range(len(texts)))
            for part in parts:
                tokens = sum(tokens_of(texts[place]) for place in part)
                assert 1 <= len(part) <= most_texts
                assert tokens <= most_tokens or len(part) == 1

    def test_a_text_never_has_more_tokens_than_bytes(self):
        assert most_tokens_of("🦆") >= 4
