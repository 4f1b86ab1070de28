"""`jammi-duck models`: what it prints, where, and with which exit code."""

import dataclasses
import json
import re
import shutil

import pytest

from jammi_duck.doors.cli import main
from jammi_duck.embeddings import get_registry
from jammi_duck.encoder.listing import ModelRow
from tests.conftest import put_in_cache
from tests.test_listing import README

COLUMNS = tuple(each.name for each in dataclasses.fields(ModelRow))


def run(capsys, *arguments):
    """The exit code, and the lines on standard output and standard error."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def without_packages(monkeypatch):
    """As if no package with a model were installed."""
    for finds in ("_carried_folder", "_wordllama"):
        monkeypatch.setattr(f"jammi_duck.encoder.names.{finds}", lambda: None)


@pytest.fixture
def good(hub_cache, tiny_model, monkeypatch):
    without_packages(monkeypatch)
    monkeypatch.setenv("COLUMNS", "60")
    good = put_in_cache(hub_cache, "acme/good", tiny_model)
    (good / "README.md").write_text(
        README.replace("More of it.", "").replace("numbers.", "numbers. " + "And on. " * 20)
    )
    broken = put_in_cache(hub_cache, "acme/broken", tiny_model)
    (broken / "tokenizer.json").unlink()
    return good


class TestList:
    def test_names_and_labels(self, good, capsys):
        code, out, err = run(capsys, "models", "list")
        first, *providers = out.splitlines()
        assert (code, err, first) == (0, "", "acme/good\tTiny BERT")
        assert "static:wordllama\tA look-up model: fast, without a transformer" in providers

    def test_what_providers_need(self, hub_cache, monkeypatch, capsys):
        monkeypatch.delenv("CO_API_KEY", raising=False)
        monkeypatch.setenv("JINA_API_KEY", "x")
        told = dict(line.split("\t") for line in run(capsys, "models", "list")[1].splitlines())
        assert told["cohere:embed-english-v3.0"] == "Cohere (needs CO_API_KEY, or api_key in [providers.cohere])"
        assert told["jina:jina-embeddings-v3"] == "Jina AI"

    def test_nothing_here(self, hub_cache, monkeypatch, capsys):
        without_packages(monkeypatch)
        monkeypatch.setattr(get_registry(), "_own", {})
        code, out, err = run(capsys, "models", "list")
        assert (code, err) == (0, "")
        assert all(":" in line for line in out.splitlines())

    def test_json(self, good, capsys):
        code, out, err = run(capsys, "models", "list", "--json")
        broken, row, *others = json.loads(out)
        assert (code, err) == (0, "")
        assert tuple(row) == tuple(broken) == COLUMNS
        assert (row["name"], row["dimensions"], row["error"]) == ("acme/good", 32, None)
        assert (broken["name"], broken["label"]) == ("acme/broken", None)
        assert "has no tokenizer.json" in broken["error"]
        assert {each["origin"] for each in others} == {"provider"}


class TestDesc:
    def test_a_provider(self, capsys):
        code, out, err = run(capsys, "models", "desc", "cohere:embed-v4.0")
        assert (code, err) == (0, "")
        assert "Documents are sent as `search_document`" in out
        assert re.search(r"^max_in_flight +8$", out, re.MULTILINE)
        assert "Example" not in out

    def test_all_that_is_told(self, good, capsys):
        code, out, err = run(capsys, "models", "desc", "acme/good")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[:5] == ["┌───────────┐", "│ Tiny BERT │", "└───────────┘", "", lines[4]]
        told, facts = out.split("\n\n")[1:3]
        assert told.startswith("It maps sentences to 32 numbers. And on.")
        assert max(map(len, told.splitlines())) <= 60
        facts = dict(re.split(r"\s{2,}", line) for line in facts.splitlines() if not line.startswith("maximum"))
        engine = facts.pop("engine")
        assert engine == "native" or engine.startswith("torch, because ")
        assert facts == {
            "name": "acme/good", "family": "bert", "dimensions": "32", "pooling": "mean", "document prompt": "none",
            "query prompt": "none", "licence": "apache-2.0", "location": str(good),
        }  # fmt: skip
        assert "maximum tokens   16" in lines
        assert lines[-1] == "https://huggingface.co/acme/good"

    def test_a_directory_with_prompts_and_without_a_readme(self, good, tiny_model, tmp_path, capsys):
        path = tmp_path / "mine"
        shutil.copytree(tiny_model, path)
        (path / "config_sentence_transformers.json").write_text('{"prompts": {"query": "find: \\n"}}')
        code, out, _ = run(capsys, "models", "desc", str(path))
        assert code == 0
        for line in ("│ mine │", 'query prompt     "find: \\n"', "licence          not stated", str(path)):
            assert line in out.splitlines()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "acme/god",
                "no model 'acme/god' on this machine; did you mean 'acme/good'? `jammi-duck models list` shows",
            ),
            ("unheard-of", "no model 'unheard-of' on this machine; `jammi-duck models list` shows"),
            ("./nowhere", "no model at './nowhere': there is no directory with a config.json or modules.json"),
            ("acme/broken", "the model 'acme/broken' has no tokenizer.json"),
        ],
    )
    def test_mistakes(self, good, capsys, name, message):
        code, out, err = run(capsys, "models", "desc", name)
        assert (code, out) == (1, "")
        assert err.startswith(f"jammi-duck: {message}")


class TestPull:
    def test_what_is_here_already(self, good, tiny_model, capsys):
        assert run(capsys, "models", "pull", "acme/good") == (0, f"acme/good is here already: {good}\n", "")
        assert run(capsys, "models", "pull", str(tiny_model))[0] == 0

    def test_a_model_that_cannot_be_used_says_so(self, good, capsys):
        code, out, err = run(capsys, "models", "pull", "acme/broken")
        assert (code, out.startswith("acme/broken is here already")) == (1, True)
        assert err.startswith("jammi-duck: it cannot be used: the model 'acme/broken' has no tokenizer.json")

    def test_offline(self, good, capsys):
        code, out, err = run(capsys, "models", "pull", "acme/none")
        assert (code, out) == (1, "")
        assert "HF_HUB_OFFLINE is set" in err

    def test_ctrl_c(self, good, capsys, monkeypatch):
        def interrupted(name):
            raise KeyboardInterrupt

        monkeypatch.setattr("jammi_duck.doors.cli.models.find", interrupted)
        assert run(capsys, "models", "pull", "acme/none") == (130, "", "")
