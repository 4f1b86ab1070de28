"""A model that cannot give right vectors is refused when it is loaded, by its name and with the cause."""

import json
import re
import shutil

import pytest

from jammi_duck import ModelError
from jammi_duck.encoder.loaded import LoadedEncoders
from tests.models import BROKEN, TENSOR, dense, save


@pytest.fixture(scope="module")
def whole(families, tmp_path_factory):
    return save(families["bert"], tmp_path_factory.mktemp("whole") / "bert")


@pytest.fixture
def broken(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "broken")


def refusal(path):
    with pytest.raises(ModelError) as caught:
        LoadedEncoders(4, 1, precision="float32").get(str(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_copy_that_is_not_broken_is_taken(broken):
    assert LoadedEncoders(4, 1, precision="float32").get(str(broken)).encode(["duck"]).shape == (1, 48)


@pytest.mark.parametrize("fault", BROKEN)
def test_says_what_is_wrong(broken, fault):
    damage, words = BROKEN[fault]
    damage(broken)
    assert re.search(words, refusal(broken).lower())


def test_a_tensor_of_the_wrong_shape_is_named(broken):
    BROKEN["another shape"][0](broken)
    assert TENSOR in refusal(broken)


def test_pickled_weights_come_with_the_command_that_converts_them(broken):
    BROKEN["only pickled"][0](broken)
    message = refusal(broken)
    assert re.search(r"\b(python|jammi-duck|pip)\b", message)
    assert "pytorch_model.bin" in message


def test_a_part_of_the_weights_that_is_not_there(families, tmp_path):
    path = save(families["roberta"], tmp_path / "sharded")
    shard = max(path.glob("model-*.safetensors"))
    shard.unlink()
    assert shard.name in refusal(path)


def test_pickled_weights_of_a_module(families, tmp_path):
    path = save(families["bert"], tmp_path / "model", "mean", dense(48, 16))
    (path / "2_Dense" / "model.safetensors").rename(path / "2_Dense" / "pytorch_model.bin")
    assert "safetensors" in refusal(path)


def test_a_module_whose_weights_do_not_fit(families, tmp_path):
    path = save(families["bert"], tmp_path / "model", "mean", dense(48, 16))
    shutil.copy(
        save(families["bert"], tmp_path / "other", "mean", dense(48, 20)) / "2_Dense" / "model.safetensors",
        path / "2_Dense",
    )
    assert re.search("linear|shape|fit", refusal(path))


def test_an_activation_that_is_not_of_torch_is_never_imported(families, tmp_path):
    path = save(families["bert"], tmp_path / "model", "mean", dense(48, 16))
    config = path / "2_Dense" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "activation_function": "os.system"}))
    assert "os.system" in refusal(path)
