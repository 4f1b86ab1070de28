"""Models whose files are made to do something else than to be read: each is refused, in bounded time and memory."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors

from jammi_duck import ModelError
from jammi_duck.encoder.listing import look_at
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local import excerpts
from jammi_duck.encoder.local.tokenizer_check import check_rules
from jammi_duck.encoder.names import Found
from jammi_duck.errors import EncodingError
from tests.models import FAMILIES, make


@pytest.fixture
def model(tiny_model, tmp_path):
    """A small model that may be spoilt."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def load(path):
    return LoadedEncoders(4, 2, "float32").get(str(path))


def files_of(path):
    return sorted(str(each.relative_to(path)) for each in path.rglob("*") if each.is_file())


FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json", "README.md",
    "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "model.safetensors.index.json",
)  # fmt: skip


class TestFiles:
    @pytest.mark.parametrize("file", FILES)
    @pytest.mark.parametrize("kind", ["fifo", "device", "socket", "link out"])
    def test_what_is_no_file_of_the_model(self, model, tmp_path, monkeypatch, file, kind):
        path = model / file
        path.parent.mkdir(exist_ok=True)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(path.read_bytes() if path.exists() else b"{}")
        path.unlink(missing_ok=True)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            monkeypatch.chdir(path.parent)
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        else:
            path.symlink_to("/dev/zero" if kind == "device" else elsewhere)
        with pytest.raises(ModelError, match=f"{path.name}' is|{path.name}.* cannot be read|no model at|is missing"):
            load(model)
        assert look_at(Found("m", None, model, "directory")).error

    def test_links_of_the_hugging_face_cache(self, model, tmp_path):
        snapshot = tmp_path / "models--a--b/snapshots/c0ffee"
        blobs = tmp_path / "models--a--b/blobs"
        blobs.mkdir(parents=True)
        for number, file in enumerate(files_of(model)):
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(model / file, blobs / str(number))
            (snapshot / file).symlink_to(os.path.relpath(blobs / str(number), (snapshot / file).parent))
        assert load(snapshot).encode(["a duck"]).shape == (1, 32)

    @pytest.mark.parametrize("place", ["0_Transformer", "a/b/c"])
    def test_a_folder_that_is_a_link_out(self, model, tmp_path, place):
        shutil.copytree(model, tmp_path / "elsewhere")
        (model / place).parent.mkdir(parents=True, exist_ok=True)
        (model / place).symlink_to(tmp_path / "elsewhere")
        (model / "modules.json").write_text(json.dumps([{"type": "Transformer", "path": place}]))
        with pytest.raises(ModelError, match=f"{place}' is a link that leads out of the model"):
            load(model)

    @pytest.mark.parametrize("file", ["model.safetensors", "another.safetensors", "tokenizer.json"])
    def test_what_is_no_file_in_a_folder_in_folders(self, model, tmp_path, file):
        shutil.copytree(model, model / "a/b/c")
        (model / "a/b/c" / file).unlink(missing_ok=True)
        os.mkfifo(model / "a/b/c" / file)
        (model / "modules.json").write_text(json.dumps([{"type": "Transformer", "path": "a/b/c"}]))
        with pytest.raises(ModelError, match=f"{file}' is no regular file"):
            load(model)

    @pytest.mark.parametrize(("file", "size"), [("config.json", 1 << 40), ("model.safetensors", 1 << 40)])
    def test_sizes(self, model, file, size):
        with (model / file).open("r+b") as sparse:
            sparse.truncate(size)
        with pytest.raises(ModelError, match="and more than"):
            load(model)

    @pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "\x00"])
    @pytest.mark.parametrize("file", ["config.json", "modules.json", "tokenizer_config.json", "tokenizer.json"])
    def test_json_that_is_none(self, model, file, text):
        (model / file).write_text(text)
        with pytest.raises(ModelError):
            load(model)

    def test_an_adapter(self, model):
        (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"}')
        with pytest.raises(ModelError, match="is an adapter of another one"):
            load(model)

    @pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ""])
    def test_shards_elsewhere(self, model, shard):
        (model / "model.safetensors").rename(model.parent / "model.safetensors")
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
        with pytest.raises(ModelError, match="are not all there"):
            load(model)


class TestConfig:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_hidden_layers": 10**12}, "has num_hidden_layers = 1000000000000"),
            ({"hidden_size": 10**12}, "has hidden_size = 1000000000000"),
            ({"vocab_size": 10**9}, "they are smaller than vocab_size"),
            ({"intermediate_size": 10**9}, "they are smaller than intermediate_size"),
            ({"max_position_embeddings": 10**12}, "has max_position_embeddings"),
            ({"text_config": {"layers": [{"size": 10**15}]}}, "has size = 1000000000000000"),
            ({"backbone": "resnet50"}, "has backbone in its config.json"),
            ({"text_config": {"quantization_config": {"a": 1}}}, "has quantization_config in its config.json"),
        ],
    )
    def test_what_no_model_asks_for(self, tmp_path, changes, message):
        path = make(FAMILIES["electra"], tmp_path / "model")
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(ModelError, match=message):
            load(path)

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("nested", [False, True])
    def test_no_code_and_no_network(self, tmp_path, nested):
        """In a process of its own, in which a socket ends it; whatever is installed there might be asked."""
        path = make(FAMILIES["electra"], tmp_path / "model")
        asked = {
            "_attn_implementation": "kernels-community/flash-attn3",
            "attn_implementation": "kernels-community/flash-attn3",
            "_name_or_path": "somebody/else", "use_kernels": True, "torch_dtype": "float16", "dtype": "os.system",
            "custom_generate": "somebody/else",
        }  # fmt: skip
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **({"text_config": asked} if nested else asked)}))
        code = (
            "import sys, socket\n"
            "def audit(event, arguments):\n"
            "    if event in ('socket.connect', 'socket.getaddrinfo', 'subprocess.Popen', 'os.system'):\n"
            "        print('ASKED', event, arguments, flush=True)\n"
            "sys.addaudithook(audit)\n"
            "from jammi_duck.encoder.loaded import LoadedEncoders\n"
            f"print('shape', LoadedEncoders(4, 2, 'float32').get({str(path)!r}).encode(['a duck']).shape[0])\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
        )
        assert "shape 1" in done.stdout, done.stderr[-2000:]
        assert "ASKED socket" not in done.stdout, done.stdout


class TestTokenizer:
    @staticmethod
    def change(model, **parts):
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        for name, part in parts.items():
            setattr(tokenizer, name, part)
        tokenizer.save(str(model / "tokenizer.json"))

    @pytest.mark.parametrize(
        "normalizer",
        [
            normalizers.Replace("a", "b" * 1_000_000),
            normalizers.Sequence([normalizers.Replace("a", "a" * 60)] * 5),
            normalizers.Prepend("b" * 1000),
            normalizers.Sequence([normalizers.Sequence([normalizers.Replace("a", "b" * 100)])]),
            normalizers.Sequence([normalizers.Replace("", "x")] * 20),
            normalizers.Sequence([normalizers.Replace(Regex("(?=.)"), "x")] * 20),
            normalizers.Sequence([normalizers.Replace(Regex("z*"), "x")] * 20),
            normalizers.Sequence([normalizers.Replace("\u0644", "\ufdfa"), normalizers.NFKC()] * 4),
            normalizers.Sequence([normalizers.ByteLevel()] * 20),
            normalizers.Sequence([normalizers.Lowercase()] * 20_000),
            normalizers.Precompiled(bytes(4) + b"b" * 1000 + b"\0"),
            normalizers.Replace(Regex("(a+)+$"), "b"),
            normalizers.Replace(Regex("(?:a|a)*b"), "b"),
            normalizers.Replace(Regex("((ab*)c?){2,}x"), "b"),
        ],
    )
    def test_a_normaliser_that_explodes(self, model, normalizer):
        self.change(model, normalizer=normalizer)
        with pytest.raises(ModelError, match="the tokenizer of .* no published model's does"):
            load(model)

    @pytest.mark.parametrize(
        "normalizer",
        [
            # As of ALBERT, XLM-RoBERTa, CLIP and WangchanBERTa, with a map of SentencePiece's lengths.
            [
                normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
                normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Precompiled(bytes(4) + b"b" * 18),
                normalizers.Replace(Regex(" {2,}"), " "),
            ],
            [normalizers.Precompiled(bytes(4) + b"b" * 18), normalizers.Replace(Regex(" {2,}"), "\u2581")],
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()],
            [normalizers.Replace(" ", "<_>"), normalizers.Replace("\u2026", "..."), normalizers.Replace("\xe6", "ae")],
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581"), normalizers.NFKC()],
        ],
    )  # fmt: skip
    def test_normalisers_of_published_models(self, model, normalizer):
        self.change(model, normalizer=normalizers.Sequence(normalizer))
        check_rules(Tokenizer.from_file(str(model / "tokenizer.json")), "m")

    @pytest.mark.parametrize(
        "splitter",
        [
            pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)] * 20),
            pre_tokenizers.Sequence([pre_tokenizers.Metaspace()] * 20_000),
        ],
    )
    def test_splitters_that_explode(self, model, splitter):
        self.change(model, pre_tokenizer=splitter)
        with pytest.raises(ModelError, match="the tokenizer of .* no published model's does"):
            load(model)

    @pytest.mark.parametrize(
        ("framing", "message"),
        [
            (processors.TemplateProcessing(["$A"] * 1000, None, []), "contains each text 1000 times"),
            (
                processors.TemplateProcessing(["[CLS]"] * 100 + ["$A"], None, [("[CLS]", 2)]),
                "adds 100 tokens to each text",
            ),
            (processors.Sequence([processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))] * 100), "has 10. rules"),
        ],
    )
    def test_what_is_put_around_a_text(self, model, framing, message):
        self.change(model, post_processor=framing)
        with pytest.raises(ModelError, match=message):
            load(model)

    def test_parts_of_words_with_much_before_them(self, model):
        text = json.loads((model / "tokenizer.json").read_text())
        text["model"]["continuing_subword_prefix"] = "#" * 1_000_000
        (model / "tokenizer.json").write_text(json.dumps(text))
        with pytest.raises(ModelError, match="adds 1000000 characters to each part of a word"):
            load(model)

    def test_a_pattern_that_takes_too_long_is_an_error(self, model):
        self.change(model, normalizer=normalizers.Replace(Regex("a?" * 30 + "a" * 30 + "b"), "b"))
        encoder = load(model)
        with pytest.raises(EncodingError, match="failed at a text"):
            encoder.encode(["a" * 1000])

    def test_a_text_that_is_too_long_when_it_is_normalised(self, model, monkeypatch):
        monkeypatch.setattr(excerpts, "MOST_CHARACTERS", 1_000_000)
        self.change(model, normalizer=normalizers.NFKC())
        encoder = load(model)
        texts = ["\ufdfa" * 210_000, "\u00e4" * 210_000, "a" * 210_000]
        assert encoder.encode_rows(texts, "document", lambda _: None).failed.tolist() == [
            True,
            False,
            False,
        ]

    def test_a_pattern_to_split_by(self, model):
        self.change(model, pre_tokenizer=pre_tokenizers.Split(Regex(r"(\w+\s?)*$"), "isolated"))
        with pytest.raises(ModelError, match="may take unbounded time"):
            load(model)

    @pytest.mark.parametrize(
        "pattern",
        [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lo}]+(?i:'s|'t)?|[(+*)]+| {2,}",
        ],
    )
    def test_patterns_of_published_models(self, model, pattern):
        self.change(model, pre_tokenizer=pre_tokenizers.Split(Regex(pattern), "isolated"))
        assert load(model).encode(["a duck"]).shape == (1, 32)

    def test_words_without_an_end(self, model):
        text = json.loads((model / "tokenizer.json").read_text())
        text["model"]["max_input_chars_per_word"] = 10**9
        (model / "tokenizer.json").write_text(json.dumps(text))
        with pytest.raises(ModelError, match="looks at words of 1000000000 characters"):
            load(model)
