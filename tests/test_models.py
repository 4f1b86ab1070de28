"""Where models are found, what their directories say, and which are refused."""

import json
import shutil

import pytest

from jammi_duck import ModelError
from jammi_duck.encoder.description import describe, weights_digest
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.names import MINILM, find, full_name, verify
from tests.conftest import make_tiny_model


class TestNames:
    def test_a_directory_comes_first(self, tiny_model, monkeypatch):
        monkeypatch.chdir(tiny_model.parent)
        for name in ("tiny-bert", "./tiny-bert", str(tiny_model)):
            assert find(name).path == tiny_model

    def test_a_directory_is_known_by_all_its_spellings(self, tiny_model, monkeypatch):
        monkeypatch.chdir(tiny_model.parent)
        encoders = LoadedEncoders(4, 2)
        full = encoders.get("./tiny-bert").description.name
        assert all(full in encoders.names(name) for name in ("tiny-bert", "./tiny-bert", str(tiny_model)))

    def test_a_relative_name_is_looked_up_where_the_process_stands(self, tmp_path, tiny_model, monkeypatch):
        encoders = LoadedEncoders(4, 2)
        for place in ("here", "there"):
            make_tiny_model(tmp_path / place / "model", pooling="mean" if place == "here" else "cls")
            monkeypatch.chdir(tmp_path / place)
            assert encoders.get("model").description.name == str(tmp_path / place / "model")

    def test_bare_names_are_those_of_sentence_transformers(self):
        assert full_name("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
        assert full_name("BAAI/bge-small-en") == "BAAI/bge-small-en"

    @pytest.mark.minilm
    def test_the_carried_model_under_both_its_names(self):
        found = find("all-MiniLM-L6-v2")
        assert found == find(MINILM.name)
        assert (found.name, found.revision) == (MINILM.name, MINILM.revision)

    def test_the_carried_model_only_while_its_digests_hold(self, tmp_path, monkeypatch):
        package = tmp_path / MINILM.package
        (package / MINILM.folder).mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('never imported')")
        for file, _ in MINILM.digests:
            (package / MINILM.folder / file).write_bytes(b"something else")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModelError, match="is not the published model.safetensors"):
            verify(find(MINILM.name))

    def test_a_model_of_an_installed_package(self, tmp_path, tiny_model, monkeypatch):
        shutil.copytree(tiny_model, tmp_path / "my_model_package")
        (tmp_path / "my_model_package" / "__init__.py").write_text("raise RuntimeError('never imported')")
        info = tmp_path / "my_model-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-model\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text("[jammi_duck.models]\nacme/tiny = my_model_package\n")
        monkeypatch.syspath_prepend(tmp_path)
        found = find("acme/tiny")
        assert (found.name, found.revision, found.path.name) == ("acme/tiny", "2.5", "my_model_package")

    def test_the_hugging_face_cache(self, tmp_path, tiny_model, monkeypatch):
        from huggingface_hub import constants

        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--acme--cached"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(tiny_model, repository / "snapshots" / commit)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
        found = find("acme/cached")
        assert (found.name, found.revision) == ("acme/cached", commit)
        assert LoadedEncoders(4, 1).get("acme/cached").description.dimensions == 32

    def test_nowhere_says_where_was_looked_and_what_to_do(self, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError) as caught:
            find("acme/nowhere")
        message = str(caught.value)
        for part in ("a directory 'acme/nowhere'", "installed packages", "Hugging Face cache", "HF_HUB_OFFLINE is set"):
            assert part in message
        assert "hf download acme/nowhere" in message
        for path in ("/no/such", "./no", "~/no", "a/b/c"):
            with pytest.raises(ModelError, match="there is no directory with a config.json"):
                find(path)


class TestRefusals:
    @pytest.fixture
    def broken(self, tiny_model, tmp_path):
        path = tmp_path / "broken"
        shutil.copytree(tiny_model, path)
        return path

    def refuse(self, path, message):
        with pytest.raises(ModelError, match=message):
            LoadedEncoders(4, 1).get(str(path))

    def test_pickled_weights_are_never_read(self, broken):
        (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
        self.refuse(broken, "no safetensors weights")

    def test_remote_code_is_never_run(self, broken):
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
        self.refuse(broken, "needs code of its own")

    @pytest.mark.parametrize("kind", ["CLIPModel", "WordEmbeddings"])
    def test_other_modules_are_refused_by_name(self, broken, kind):
        modules = json.loads((broken / "modules.json").read_text())
        modules.append({"idx": 2, "name": "2", "path": "2", "type": f"sentence_transformers.models.{kind}"})
        (broken / "modules.json").write_text(json.dumps(modules))
        self.refuse(broken, f"has a module '{kind}'")

    @pytest.mark.parametrize("folder", ["../elsewhere", "/etc"])
    def test_modules_outside_the_directory(self, broken, folder):
        modules = json.loads((broken / "modules.json").read_text())
        modules[1]["path"] = folder
        (broken / "modules.json").write_text(json.dumps(modules))
        self.refuse(broken, "a folder outside itself")

    def test_other_pooling_is_refused_by_name(self, broken):
        (broken / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "attention"}))
        self.refuse(broken, "pools by 'attention'; supported are cls, max")

    @pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_files_that_are_cut_short(self, broken, file):
        content = (broken / file).read_bytes()
        (broken / file).write_bytes(content[: len(content) // 2])
        self.refuse(broken, "cannot be (read|loaded)")

    def test_weights_that_do_not_fit(self, broken):
        from safetensors.numpy import load_file, save_file

        tensors = load_file(broken / "model.safetensors")
        del tensors["encoder.layer.1.output.dense.weight"]
        save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
        self.refuse(broken, "do not fit its config.json")

    def test_a_missing_tokenizer(self, broken):
        (broken / "tokenizer.json").unlink()
        self.refuse(broken, "has no tokenizer.json")


class TestDescription:
    def test_the_limit_comes_from_the_model_not_from_its_tokenizer(self, tiny_model):
        assert describe(tiny_model, "tiny").max_tokens == 16

    def test_without_modules_it_pools_by_mean_up_to_the_positions(self, tiny_model, tmp_path):
        path = tmp_path / "bare"
        shutil.copytree(tiny_model, path)
        for file in ("modules.json", "sentence_bert_config.json"):
            (path / file).unlink()
        description = describe(path, "bare")
        assert (description.pooling, description.max_tokens) == ("mean", 64)

    def test_the_digest_is_that_of_the_files(self, tiny_model, tmp_path):
        path = tmp_path / "copy"
        shutil.copytree(tiny_model, path)
        before = weights_digest(describe(tiny_model, "y"))
        assert weights_digest(describe(path, "x")) == before
        (path / "tokenizer.json").write_text((path / "tokenizer.json").read_text() + " ")
        assert weights_digest(describe(path, "x")) != before


class TestLoaded:
    def test_the_least_recently_used_model_goes(self, tmp_path, tiny_model):
        from jammi_duck.encoder import loaded

        paths = [str(make_tiny_model(tmp_path / f"m{i}")) for i in range(3)]
        encoders = LoadedEncoders(4, 2)
        first, second = encoders.get(paths[0]), encoders.get(paths[1])
        assert encoders.get(paths[0]) is first
        encoders.get(paths[2])
        assert len(loaded._loaded) <= 2
        assert encoders.get(paths[0]) is first
        assert encoders.get(paths[1]) is not second
        assert LoadedEncoders(4, 2).get(paths[0]) is first
