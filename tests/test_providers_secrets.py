"""A provider's key is in nothing that is written or shown: a scan of all files, logs, errors, and their tracebacks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from jammi_duck import JammiError
from tests.endpoint import Endpoint, vector_of
from tests.hostile import KEY, check_resumed, shows_key, told, told_deeply

FORMS = ("openai", "cohere", "ollama")


class TestSecrets:
    @pytest.mark.parametrize(
        ("form", "act"),
        [
            pytest.param(form, act, marks=() if form == "openai" or act == "echo 400" else pytest.mark.long)
            for form in FORMS
            for act in ("401", "echo 400", "echo 500", "echo in pieces", "reset", "html", "hang", "one short")
        ],
    )
    def test_no_traceback_has_the_key(self, worlds, form, act):
        """Neither what Python shows, nor what a debugger can reach from the error."""
        world = worlds(form)
        world.fill(f"traceback {act}", 3)
        world.endpoint.acts = lambda _: act
        model = world.model(max_retries=1, timeout=0.3 if act == "hang" else 10)
        with pytest.raises(JammiError) as caught:
            world.jammi.generate("docs", "body", "id", words=False, model=model)
        assert not shows_key(told(caught.value).encode())
        assert not shows_key(told_deeply(caught.value).encode())

    def test_a_key_in_the_name_of_a_model_is_refused_and_not_repeated(self, worlds):
        world = worlds("openai")
        world.fill("literal", 3)
        places = (f"api_key={KEY}", f"organization={KEY}&api_key={KEY}", f"base_url=http://me:{KEY}@localhost/v1")
        for place in (*places, f"base_url=http://localhost/v1?api-key={KEY}"):
            with pytest.raises(duckdb.Error) as caught:
                world.con.execute(f"FROM jammi_generate('docs', 'body', 'id', model := 'openai:any?{place}')")
            # DuckDB may show the query; what we say does not have it.
            said = str(caught.value).split("LINE 1")[0]
            assert not shows_key(said.encode()), said
        assert not world.endpoint.requests

    def test_functions_do_not_show_it(self, worlds):
        from jammi_duck.embeddings import get_registry

        world = worlds("openai")
        registry = get_registry()
        registry.set_var("hostile", KEY)
        function = registry.get("openai").create(
            name="any", api_key="$var:hostile", base_url=world.endpoint.url("openai"), dimensions=16
        )
        assert np.abs(function.generate_embeddings(["a"])[0] - vector_of("a", 16)).max() < 1e-5
        assert not shows_key(f"{function!r} {function} {function.spec} {registry!r}".encode())
        world.fill("variable", 3)
        world.con.execute(f"FROM jammi_generate('docs', 'body', 'id', model := '{function.spec}')").fetchall()
        (recorded,) = world.con.execute("SELECT model FROM jammi_tables() ORDER BY started DESC LIMIT 1").fetchone()
        assert "$var:hostile" in recorded

    @pytest.mark.parametrize(
        ("form", "given"), [("openai", None), pytest.param("cohere", "${MY_KEY}", marks=pytest.mark.long)]
    )
    def test_nothing_that_the_command_shows_has_it(self, tmp_path, monkeypatch, form, given):
        """The key is in the user's own configuration, as it is, or as a variable."""
        config = tmp_path / "config" / "jammi" / "jammi.toml"
        config.parent.mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.setenv("MY_KEY", KEY)
        for name in ("OPENAI_API_KEY", "CO_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        with duckdb.connect("my.duckdb") as con:
            con.execute("CREATE TABLE docs AS SELECT range AS id, 'text ' || range AS body FROM range(5)")
        with Endpoint(key=KEY) as endpoint:
            config.write_text(
                f"[logging]\nlevel = 'debug'\n[providers.{form}]\napi_key = '{given or KEY}'\n"
                f"base_url = '{endpoint.url(form)}'\ndimensions = 16\nmax_retries = 0\n"
            )
            generate = ("generate", "docs", "--columns", "body", "--key", "id", "--db", "my.duckdb", "--model")
            said = [run("config"), run("models", "list"), run(*generate, f"{form}:any")]
            endpoint.acts = lambda _: "echo 401"
            said.append(run(*generate, f"{form}:other", fails=True))
            assert {request.headers["authorization"] for request in endpoint.requests} == {f"Bearer {KEY}"}
        for text in said:
            assert not shows_key(text.encode()), text
        for path in tmp_path.rglob("*"):
            assert path == config or path.is_dir() or not shows_key(path.read_bytes()), path

    def test_a_wrong_key_of_gemini_is_a_wrong_key(self, worlds):
        """Its status is 400, as for a wrong text."""
        world = worlds("gemini-text")
        world.fill("gemini")
        world.endpoint.key = "another"
        outcome = world.build(max_in_flight=1)
        world.endpoint.key = KEY
        assert re.search("check the key.*GEMINI_API_KEY", str(outcome.error))
        assert len(world.endpoint.requests) == 1
        check_resumed(world)


class TestEmbed:
    """`embed` in a query has no rows that could fail: an error says what is wrong."""

    @pytest.mark.parametrize("form", FORMS)
    def test_each_row_has_its_own_vector(self, worlds, form):
        world = worlds(form)
        world.fill("embed")
        world.endpoint.acts = ["one short", "429", "reset within"]
        found = world.con.execute(f"SELECT body, embed(body, '{world.model()}') FROM docs").fetchall()
        assert len(found) == 32
        for text, vector in found:
            assert (vector is None) == (not (text or "").strip())
            if vector:
                assert np.abs(np.array(vector) - vector_of(text, 16)).max() < 1e-5

    @pytest.mark.parametrize("act", ["401", "one has NaN", "500"])
    def test_errors(self, worlds, act):
        world = worlds("openai")
        world.fill(f"embed {act}")
        world.endpoint.acts = lambda _: act
        with pytest.raises(duckdb.Error, match="'openai'|could not be embedded") as caught:
            world.con.execute(f"SELECT embed(body, '{world.model()}') FROM docs").fetchall()
        world.errors.append(caught.value)


def run(*arguments, fails=False):
    """All that a command prints."""
    program = Path(sys.executable).with_name("jammi-duck")
    places = ("--storage", "artifacts") if arguments[0] == "generate" else ()
    environment = {**os.environ, "JAMMI_STORAGE__CACHE_DIR": "cache"}
    done = subprocess.run([program, *arguments, *places], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr
