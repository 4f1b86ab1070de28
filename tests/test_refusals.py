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
    assert re.search(words, refusal(broken).replace(str(broken), "").lower())


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


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", []),
        ("config.json", {"model_type": "bert", "hidden_size": "wide"}),
        ("config.json", {"model_type": ["bert"], "hidden_size": 48}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"num_hidden_layers": 0}),
        ("config.json", {"max_position_embeddings": "64"}),
        ("config.json", {"layer_norm_eps": None}),
        ("config.json", {"quantization_config": {"bits": 8}}),
        ("modules.json", [1]),
        ("modules.json", [{"type": "sentence_transformers.models.Transformer"}]),
        ("sentence_bert_config.json", [1]),
        ("sentence_bert_config.json", {"max_seq_length": "16"}),
        ("sentence_bert_config.json", {"config_kwargs": {"num_hidden_layers": 1}}),
        ("sentence_bert_config.json", {"model_kwargs": {"num_hidden_layers": 1}}),
        ("config_sentence_transformers.json", {"prompts": ["query"]}),
        ("config_sentence_transformers.json", {"truncate_dim": "few"}),
        ("1_Pooling/config.json", []),
        ("1_Pooling/config.json", {"pooling_mode": 5}),
        ("tokenizer_config.json", 5),
        ("tokenizer.json", {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 99999}, "unk_token": "a"}}),
    ],
)
def test_what_is_malformed_is_told_and_nothing_breaks(broken, file, content):
    path = broken / file
    whole = isinstance(content, dict) and "model_type" not in content and file == "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **content} if whole else content))
    refusal(broken)


def test_quantized_weights(broken):
    from safetensors.torch import load_file, save_file

    tensors = load_file(broken / "model.safetensors")
    tensors[TENSOR] = tensors[TENSOR].char()
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    assert "quantized" in refusal(broken)


def test_a_bias_that_an_mpnet_must_have(families, tmp_path):
    from safetensors.torch import load_file, save_file

    path = save(families["mpnet"], tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    del tensors[next(name for name in tensors if "relative_attention_bias" in name)]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert "relative_attention_bias" in refusal(path)


def test_an_activation_that_learns(families, tmp_path):
    path = save(families["bert"], tmp_path / "model", "mean", dense(48, 16))
    config = path / "2_Dense" / "config.json"
    prelu = "torch.nn.modules.activation.PReLU"
    config.write_text(json.dumps({**json.loads(config.read_text()), "activation_function": prelu}))
    assert "PReLU" in refusal(path)
