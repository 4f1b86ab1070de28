"""Our vectors are those of sentence-transformers: each family, pooling, module and option, in every engine."""

import functools
import json
import random
import shutil

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Normalize
from tokenizers import Tokenizer

from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.names import MINILM, find
from tests import models
from tests.conftest import REAL_MPNET
from tests.effort import WHOLE, some
from tests.engines import (
    LOWEST,
    NATIVE_FAMILIES,
    TORCH,
    VARIANTS,
    by,
    by_torch,
    case,
    check,
    engines_of,
    load,
    reference,
    same,
    texts_for,
    unit,
)
from tests.models import FAMILIES, POOLING, dense, edit, layer_norm, save
from tests.texts import ODD, WORDS

# The plain kernels take a second for three texts of MiniLM, and minutes for the comparison with float32 in int8.
SLOWEST = ("plain", "int8")
SPECIAL = ("<s>", "</s>", "<pad>", "<pad><pad><pad>", "<mask>", "<unk>", "[UNK]")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where the native engine keeps what it found out about int8."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def plain(families, tmp_path_factory):
    """Each family with mean pooling: `plain("bert")`."""
    folder = tmp_path_factory.mktemp("plain")
    return functools.cache(lambda name: save(families[name], folder / name))


class TestFamilies:
    @pytest.mark.parametrize(
        ("family", "variant"),
        [(family, each) for family in FAMILIES for each in TORCH + (VARIANTS if family in NATIVE_FAMILIES else [])],
        ids=lambda each: each if isinstance(each, str) else "-".join(each),
    )
    def test_texts_of_every_kind(self, plain, family, variant):
        engine, precision = variant
        chosen, expected = case(plain(family), some(2000))
        check(by(engine, plain(family), chosen, precision=precision), expected, precision, family)

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_whatever_the_batch_and_the_order(self, plain, family, precision):
        chosen, expected = case(plain(family), some(2000))
        order = random.Random(3).sample(range(len(chosen)), some(200))
        shuffled = [chosen[i] for i in order]
        check(by_torch(plain(family), shuffled, precision=precision, batch_size=1), expected[order], precision)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_truncation_is_told(self, plain, family):
        chosen = texts_for(plain(family), 250)
        model = load(plain(family))
        longer = [len(tokens) > model.max_seq_length for tokens in model.tokenizer(chosen)["input_ids"]]
        encoder = LoadedEncoders(32, 2, precision="float32", engine="torch").get(str(plain(family)))
        told = encoder.encode_rows(chosen, "document", lambda _: None)
        assert encoder.description.max_tokens == model.max_seq_length == models.LIMIT
        assert told.truncated.tolist() == longer
        assert 0 < sum(longer) < 250
        assert not told.failed.any()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_directory_of_transformers_is_pooled_by_mean(self, families, family):
        same(families[family])

    @pytest.mark.parametrize("family", FAMILIES)
    def test_weights_that_were_saved_with_a_head(self, tmp_path, family):
        path = models.make(FAMILIES[family], tmp_path / "head", transformers.AutoModelForMaskedLM)
        same(path)


class TestPooling:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("family", ["bert", "modernbert", "electra"])
    @pytest.mark.parametrize("mode", [*POOLING, ("cls", "mean"), ("lasttoken", "max", "weightedmean")])
    def test_each_mode(self, families, tmp_path, family, mode):
        path = save(families[family], tmp_path / "model", mode)
        same(path)

    @pytest.mark.parametrize(
        "modes", [["mean_tokens", "cls_token"], ["lasttoken"], ["weightedmean_tokens", "max_tokens"], []]
    )
    def test_as_older_versions_wrote_it(self, plain, tmp_path, modes):
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        flags = {f"pooling_mode_{mode}": True for mode in modes}
        settings = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": False, **flags}
        (path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        kinds = ("Transformer", "Pooling")
        modules = [{"idx": i, "name": str(i), "type": f"sentence_transformers.models.{kinds[i]}"} for i in (0, 1)]
        modules = [{**module, "path": path} for module, path in zip(modules, ("", "1_Pooling"), strict=True)]
        (path / "modules.json").write_text(json.dumps(modules))
        same(path)


class TestModules:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        "modules",
        {
            "tanh, smaller": [dense(48, 20)],
            "identity, larger": [dense(48, 80, torch.nn.Identity())],
            "gelu, no bias": [dense(48, 48, torch.nn.GELU(), bias=False)],
            "sigmoid": [dense(48, 37, torch.nn.Sigmoid())],
            "silu": [dense(48, 16, torch.nn.SiLU())],
            "residual": [dense(48, 48, use_residual=True)],
            "residual, projected": [dense(48, 20, use_residual=True)],
            "two": [dense(48, 80), dense(80, 16, torch.nn.Identity())],
            "layer norm": [layer_norm(48)],
            "all": [dense(48, 32), layer_norm(32), Normalize()],
            "normalised first": [Normalize(), dense(48, 32, torch.nn.ReLU()), layer_norm(32)],
            "normalised": [Normalize()],
        }.items(),
        ids=lambda modules: modules[0],
    )
    def test_each(self, families, tmp_path, modules):
        path = save(families["bert"], tmp_path / "model", "mean", *modules[1])
        same(path)

    def test_after_a_concatenation(self, families, tmp_path):
        path = save(families["roberta"], tmp_path / "model", ("cls", "mean"), dense(96, 24), Normalize())
        same(path)

    @pytest.mark.parametrize("normalize", [[], [Normalize()]])
    def test_fewer_dimensions(self, families, tmp_path, normalize):
        path = save(families["bert"], tmp_path / "model", "mean", *normalize, truncate_dim=16)
        assert by_torch(path, ["duck"]).shape == (1, 16)
        same(path)


PROMPTS = {"query": "search for: ", "document": "Represent this passage: "}


class TestPrompts:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("role", PROMPTS)
    @pytest.mark.parametrize("family", ["bert", "roberta", "camembert", "modernbert"])
    def test_of_each_role(self, families, tmp_path, family, role):
        path = save(families[family], tmp_path / "model", prompts=PROMPTS)
        same(path, texts_for(path, 200), role)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("mode", POOLING)
    @pytest.mark.parametrize("family", ["bert", "roberta"])
    def test_left_out_of_the_pooling(self, families, tmp_path, family, mode):
        """A prompt's tokens are counted alone: RoBERTa's last space is one then, and none before a word."""
        path = save(families[family], tmp_path / "model", mode, include_prompt=False, prompts=PROMPTS)
        same(path, role="query")

    def test_nothing_is_left_out_without_a_prompt(self, families, tmp_path):
        path = save(families["bert"], tmp_path / "model", "cls", include_prompt=False, prompts={"query": "q: "})
        same(path)

    def test_one_that_leaves_no_room_for_the_text(self, families, tmp_path):
        """The last token is no part of the prompt: it alone is pooled."""
        prompts = {"document": "water duck " * 80}
        path = save(families["bert"], tmp_path / "model", include_prompt=False, prompts=prompts)
        same(path)

    def test_a_passage_prompt_is_for_documents(self, plain, tmp_path):
        """encode_document does not find it in 6.2, since `document` is always there, as "" where it is not set."""
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        edit(path / "config_sentence_transformers.json", prompts={"query": "query: ", "passage": "passage: "})
        same(path, prompt_name="passage")
        same(path, role="query")

    def test_the_default_prompt(self, plain, tmp_path):
        """As `encode` takes it: encode_document and encode_query never come to it in 6.2, for the same reason."""
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        prompts = {"prompts": {"s2p": "search: "}, "default_prompt_name": "s2p"}
        edit(path / "config_sentence_transformers.json", **prompts)
        same(path, prompt_name="")

    def test_an_empty_prompt_is_one_too(self, families, tmp_path):
        prompts = {"query": "search for: ", "document": ""}
        path = save(families["bert"], tmp_path / "model", prompts=prompts, default_prompt_name="query")
        same(path)


class TestOptions:
    @pytest.fixture
    def copy(self, plain, tmp_path):
        return lambda family: shutil.copytree(plain(family), tmp_path / family)

    @pytest.mark.parametrize("family", ["bert", "roberta", "camembert", "modernbert"])
    def test_lower_case(self, copy, family):
        path = copy(family)
        edit(path / "sentence_bert_config.json", do_lower_case=True)
        same(path, [*texts_for(path), "[SEP] İ [sep] <MASK> <mask>"])

    @pytest.mark.parametrize(
        ("file", "limit"), [("sentence_bert_config.json", 20), ("sentence_roberta_config.json", 5)]
    )
    def test_fewer_tokens_than_the_model_reads(self, copy, file, limit):
        path = copy("roberta")
        (path / "sentence_bert_config.json").unlink()
        (path / file).write_text(json.dumps({"max_seq_length": limit, "do_lower_case": False}))
        same(path, texts_for(path, limit=limit))

    def test_the_positions_limit_the_tokens(self, copy):
        path = copy("bert")
        edit(path / "tokenizer_config.json", model_max_length=None)
        same(path, texts_for(path, limit=80))

    def test_what_the_tokenizer_was_trained_with_is_not_taken(self, copy):
        path = copy("mpnet")
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        tokenizer.enable_truncation(9)
        tokenizer.enable_padding(length=12, pad_id=1, pad_token="<pad>")
        tokenizer.save(str(path / "tokenizer.json"))
        same(path)

    def test_the_end_is_kept_where_the_tokenizer_says_so(self, copy):
        path = copy("bert")
        edit(path / "tokenizer_config.json", truncation_side="left")
        same(path)

    @pytest.mark.parametrize(
        ("family", "setting"),
        [
            ("bert", {"do_lower_case": False}),
            ("bert", {"strip_accents": False}),
            ("roberta", {"add_prefix_space": True}),
        ],
    )
    def test_the_tokenizer_is_as_its_settings_say(self, copy, family, setting):
        path = copy(family)
        edit(path / "tokenizer_config.json", **setting)
        same(path)

    def test_a_bare_directory_reads_none_of_the_settings(self, families, tmp_path):
        path = shutil.copytree(families["bert"], tmp_path / "model")
        edit(path / "sentence_bert_config.json", max_seq_length=5)
        edit(path / "config_sentence_transformers.json", prompts=PROMPTS, truncate_dim=7)
        same(path)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("family", ["bert", "modernbert"])
    def test_weights_of_other_types(self, tmp_path, family, dtype):
        path = models.make(FAMILIES[family], tmp_path / "other", dtype=dtype)
        same(path)

    def test_old_names_of_tensors(self, plain, tmp_path):
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        tensors = {"embeddings.position_ids": torch.arange(80).unsqueeze(0)}
        for name, tensor in load_file(path / "model.safetensors").items():
            now = next((now for now in old if name.endswith(now)), name)
            tensors[f"bert.{name.replace(now, old.get(now, now))}"] = tensor
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        chosen = texts_for(path)
        expected = reference(plain("bert"), chosen)
        for engine in engines_of("bert"):
            check(by(engine, path, chosen), expected, what=engine)

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("bert", {"hidden_act": "gelu_new"}),
            ("bert", {"hidden_act": "silu", "num_attention_heads": 2, "num_hidden_layers": 1}),
            ("roberta", {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
            ("roberta", {"hidden_size": 80, "num_attention_heads": 5, "intermediate_size": 112}),
            ("distilbert", {"activation": "relu"}),
            ("distilbert", {"sinusoidal_pos_embds": True}),
            ("mpnet", {"hidden_act": "gelu_pytorch_tanh"}),
            ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
            ("modernbert", {"hidden_activation": "silu", "local_attention": 7, "norm_eps": 1e-3}),
            ("modernbert", {"global_attn_every_n_layers": 2}),
            ("modernbert", {"global_rope_theta": 500.0, "local_rope_theta": 90.0}),
        ],
        ids=str,
    )
    def test_what_config_json_says(self, tmp_path, family, changes):
        path = models.make(FAMILIES[family], tmp_path / "model", **changes)
        same(path)

    @pytest.mark.parametrize("theta", [{}, {"global_rope_theta": 500.0, "local_rope_theta": 90.0}])
    def test_modernbert_as_older_versions_wrote_it(self, families, tmp_path, theta):
        path = shutil.copytree(families["modernbert"], tmp_path / "model")
        new = {"rope_parameters": None, "layer_types": None}
        edit(path / "config.json", **new, **theta, global_attn_every_n_layers=2)
        same(path)

    def test_a_text_of_no_tokens(self, families, tmp_path):
        """Without special tokens an empty text is nothing: its mean is zeros, there too if it comes with others."""
        path = save(families["modernbert"], tmp_path / "model")
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        tokenizer.post_processor = None
        tokenizer.save(str(path / "tokenizer.json"))
        expected = reference(path, ["duck", "water and more", ""])
        for engine in engines_of("modernbert"):
            vectors = by(engine, path, ["duck", "water and more", ""])
            check(vectors[:2], expected[:2], what=engine)
            assert not vectors[2].any()
            assert not by(engine, path, [""]).any()

    def test_texts_of_a_modernbert_beyond_its_window(self, tmp_path):
        path = models.make(FAMILIES["modernbert"], tmp_path / "model", max_position_embeddings=2048)
        edit(path / "tokenizer_config.json", model_max_length=2000)
        same(path, ["water duck " * 300, "water and more ducks in the river " * 300, "one"])


class TestTheTextAlone:
    kinds = st.one_of(
        st.text(max_size=40),
        st.sampled_from(ODD),
        st.lists(st.sampled_from(" ".join(WORDS.values()).split()), max_size=60).map(" ".join),
    )

    @pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert", "electra"])
    @given(st.lists(kinds, min_size=1, max_size=24), st.randoms())
    @settings(max_examples=some(20), deadline=None)
    def test_decides_its_vector(self, plain, family, chosen, chance):
        encoder = LoadedEncoders(4, 4, precision="float32", engine="torch").get(str(plain(family)))
        together = encoder.encode(chosen)
        others = [*chosen[::2], *chance.choices(ODD, k=3)]
        chance.shuffle(others)
        alone = dict(zip(others, encoder.encode(others), strict=True))
        for text, vector in zip(chosen, together, strict=True):
            again = alone[text] if text in alone else encoder.encode([text])[0]
            assert vector == pytest.approx(again, abs=1e-6)


class TestRealModels:
    @pytest.mark.minilm
    @pytest.mark.parametrize("variant", [*TORCH, *(each for each in VARIANTS if each != SLOWEST)], ids="-".join)
    def test_all_minilm_l6_v2(self, variant):
        engine, precision = variant
        path = find(MINILM.name).path
        chosen, expected = case(path, 2000 if WHOLE else 40, 256)
        if engine == "plain":
            chosen, expected = chosen[:40], expected[:40]
        check(by(engine, path, chosen, precision=precision), expected, precision, f"MiniLM {engine}")

    @pytest.mark.mpnet
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_all_mpnet_base_v2(self, precision):
        """In bfloat16 a lone `</s>` or one word 384 times loses as much in sentence-transformers itself."""
        chosen, expected = case(REAL_MPNET, 500, 384, threads=2)
        vectors = by_torch(REAL_MPNET, chosen, precision=precision)
        ordinary = np.array([text.strip() not in SPECIAL and len(set(text)) > len(text) / 1000 for text in chosen])
        check(vectors[ordinary], expected[ordinary], precision)
        assert 480 < ordinary.sum() < 500
        assert (unit(vectors) * expected).sum(1).min() >= (0.997 if precision == "bfloat16" else LOWEST[precision])
