"""Which models are here, and what they say of themselves."""

import dataclasses
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jammi_duck
from jammi_duck.encoder.card import Card, read_card
from jammi_duck.encoder.listing import ModelRow
from jammi_duck.encoder.names import MINILM, WORDLLAMA, available, find
from tests.conftest import put_in_cache

README = """---
language: en
license: apache-2.0
tags:
- license: not this
---

![logo](logo.png)

# Tiny **BERT**
[![badge](https://x/y.svg)](https://x)

It maps [sentences](https://x.org/a_(b)) to
`32` numbers.

More of it.
"""

COLUMNS = tuple(each.name for each in dataclasses.fields(ModelRow))


class TestCard:
    def card(self, tmp_path, text, name="acme/tiny"):
        (tmp_path / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_card(tmp_path, name)

    def test_all_of_it(self, tmp_path):
        told = "It maps sentences to 32 numbers."
        assert self.card(tmp_path, README) == Card("Tiny BERT", told, "apache-2.0", "https://huggingface.co/acme/tiny")

    @pytest.mark.parametrize("text", ["", "---\n---\n", "---\nlicense:\n---\n", "```\n# code\n```\n", b"\xff\xfe# x"])
    def test_none_of_it(self, tmp_path, text):
        assert self.card(tmp_path, text) == Card("tiny", None, None, "https://huggingface.co/acme/tiny")

    def test_without_a_readme_a_directory_leads_to_itself(self, tmp_path):
        assert read_card(tmp_path, str(tmp_path)) == Card(tmp_path.name, None, None, str(tmp_path))

    @pytest.mark.parametrize(
        ("line", "licence"),
        [
            ("license: mit", "mit"),
            ("license: 'mit' # free", "mit"),
            ("license: [mit, apache-2.0]", "mit"),
            ("license:\n- mit", "mit"),
            ("license: cc-by-nc-4.0", "cc-by-nc-4.0"),
            ("licenses: mit", None),
        ],
    )
    def test_licences(self, tmp_path, line, licence):
        assert self.card(tmp_path, f"---\n{line}\ntags: x\n---\n# T").licence == licence

    @pytest.mark.parametrize(
        ("text", "label", "description"),
        [
            ("Words first.\n\n## Usage\nRun it.", "tiny", "Words first."),
            ("Words first.\n\n# Title\nIts own.", "Title", "Its own."),
            ("## Title\n- a list\n\n| a | table |\n\n<p>html</p>\n\nPlain.", "Title", "Plain."),
            ("# \x1b[31mRed\x07", "[31mRed", None),
        ],
    )
    def test_titles_and_paragraphs(self, tmp_path, text, label, description):
        card = self.card(tmp_path, text)
        assert (card.label, card.description) == (label, description)

    def test_a_long_description_is_cut_between_words(self, tmp_path):
        description = self.card(tmp_path, "# T\n" + "word " * 1000).description
        assert len(description) <= 402
        assert description.endswith("word …")

    @given(st.one_of(st.binary(), st.text(alphabet="# -[]()!<>*_`\n:licenseabc")))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_garbage_is_no_error(self, tmp_path, text):
        card = self.card(tmp_path, text)
        told = (card.label, card.description or "x", card.licence or "x")
        assert all(part.isprintable() and part.strip() for part in told)


class TestAvailable:
    def test_every_place(self, hub_cache, tmp_path, tiny_model, monkeypatch):
        put_in_cache(hub_cache, "acme/cached", tiny_model)
        shutil.copytree(tiny_model, tmp_path / "my_model_package")
        info = tmp_path / "my_model-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-model\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(
            "[jammi_duck.models]\nacme/packed = my_model_package\nacme/gone = no_such_package.inner\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        found = {each.name: each for each in available(str(tiny_model))}
        for name in (MINILM.name, WORDLLAMA):
            found.pop(name, None)
        origins = {name: each.origin for name, each in found.items()}
        assert origins == {"acme/cached": "cache", "acme/packed": "package", str(tiny_model): "directory"}
        assert all(find(name) == each for name, each in found.items())

    def test_what_is_no_whole_model_is_left_out(self, hub_cache, tiny_model):
        (put_in_cache(hub_cache, "acme/partial", tiny_model) / "model.safetensors").unlink()
        whole = put_in_cache(hub_cache, "acme/old", tiny_model)
        (whole.parents[1] / "refs" / "main").write_text("another commit")
        (hub_cache / "models--acme--empty").mkdir()
        (hub_cache / "datasets--acme--words").mkdir()
        assert [each.name for each in available("no such directory") if each.origin == "cache"] == []

    def test_without_a_cache(self, hub_cache):
        assert {each.origin for each in available("")} <= {"package"}


class TestSql:
    def test_columns_and_rows(self, jammi):
        relation = jammi.models()
        assert tuple(relation.columns) == COLUMNS
        rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in relation.fetchall()}
        small = rows["fake/small"]
        assert (small["label"], small["dimensions"], small["max_tokens"], small["error"]) == (
            "The fake/small",
            64,
            8,
            None,
        )
        broken = {column: value for column, value in rows["fake/broken"].items() if value is not None}
        assert broken == {"name": "fake/broken", "location": "/nowhere", "origin": "cache", "error": "it is broken"}

    def test_real_models_and_one_that_is_refused(self, hub_cache, tmp_path, tiny_model):
        good = put_in_cache(hub_cache, "acme/good", tiny_model)
        (good / "README.md").write_text(README)
        strange = put_in_cache(hub_cache, "acme/strange", tiny_model)
        (strange / "modules.json").write_text('[{"type": 3}]')
        pickled = put_in_cache(hub_cache, "acme/pickled", tiny_model)
        (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
        with jammi_duck.connect(storage=tmp_path / "artifacts", model=str(tiny_model)) as con:
            query = "SELECT name, label, family, dimensions, origin, licence, location FROM jammi_models()"
            is_one = f"origin <> 'provider' AND name NOT IN ('{MINILM.name}', '{WORDLLAMA}')"
            rows = con.execute(f"{query} WHERE error IS NULL AND {is_one}").fetchall()
            assert rows == [
                (str(tiny_model), "tiny-bert", "bert", 32, "directory", None, str(tiny_model)),
                ("acme/good", "Tiny BERT", "bert", 32, "cache", "apache-2.0", str(good)),
            ]
            errors = dict(con.execute("SELECT name, error FROM jammi_models() WHERE error IS NOT NULL").fetchall())
            assert errors.keys() == {"acme/strange", "acme/pickled"}
            assert "no safetensors weights" in errors["acme/pickled"]
            assert len(con.execute("SELECT embed('duck', 'acme/good')").fetchall()) == 1

    @pytest.mark.minilm
    def test_the_carried_model_has_a_card(self, hub_cache, tmp_path):
        with jammi_duck.connect(storage=tmp_path / "artifacts") as con:
            query = "SELECT label, dimensions, max_tokens, origin, licence FROM jammi_models() WHERE name = ?"
            rows = con.execute(query, [MINILM.name]).fetchall()
        assert rows == [("all-MiniLM-L6-v2", 384, 256, "package", "apache-2.0")]
