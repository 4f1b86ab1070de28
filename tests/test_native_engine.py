"""The engine in C: the same bits in any company, re-rankers, int8, what it does not cover, and its library.

test_parity.py compares its vectors with those of sentence-transformers. Each of the kernels of this CPU is forced.
"""

import concurrent.futures
import ctypes
import functools
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import types
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.base.modules import Normalize

from jammi_duck.encoder.cross_encoder_description import describe_cross_encoder
from jammi_duck.encoder.description import describe
from jammi_duck.encoder.local.pairs import PairTokenization
from jammi_duck.encoder.names import MINILM, find
from jammi_duck.encoder.native import families as native_families
from jammi_duck.encoder.native import library, proof
from jammi_duck.encoder.native.engine import NotCovered, native_engine, native_pair_engine
from jammi_duck.encoder.native.forward import Forward
from jammi_duck.encoder.native.int8_texts import TEXTS
from jammi_duck.errors import ConfigError, ModelError
from tests import models
from tests.conftest import REAL_RERANKER
from tests.engines import INT8, KERNELS, NATIVE_FAMILIES, VARIANTS, Native, refused, texts_for, unproven
from tests.models import FAMILIES, POOLING, change_tensors, dense, edit, layer_norm, save
from tests.test_cross_encoder import expected as scores_of_peer
from tests.test_cross_encoder import make_reranker, pairs_for

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no native engine: {library.why_not()}")

# In standard deviations of the scores.
NEAR = {"float32": 1e-4, "bfloat16": 0.2, "int8": 0.5}


@pytest.fixture
def force(monkeypatch):
    """Chooses the kernels."""
    return lambda kernels: monkeypatch.setenv(library.VARIABLE, kernels)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where proofs are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/jammi_duck/int8"


@pytest.fixture(name="unproven")
def _unproven():
    with unproven():
        yield


@pytest.fixture(scope="module")
def plain(families, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return functools.cache(lambda name: save(families[name], folder / name))


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rerankers")
    return functools.cache(lambda family: make_reranker(family, folder / family))


class TestAnyCompany:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("family", NATIVE_FAMILIES)
    def test_the_same_bits_in_any_company(self, plain, force, unproven, family):
        chance = random.Random(3)
        chosen = texts_for(plain(family), 300)
        for kernels, precision in VARIANTS:
            force(kernels)
            encoder = Native(plain(family), precision)
            together = encoder.encode(chosen, at_once=300)
            order = chance.sample(range(300), 300)
            others = encoder.encode([chosen[place] for place in order], at_once=7)
            assert np.array_equal(others, together[order]), (kernels, precision)
            for place in order[:20]:
                assert np.array_equal(encoder.encode([chosen[place]])[0], together[place]), (kernels, precision)

    def test_the_same_bits_after_modules(self, families, tmp_path):
        modules = (dense(48, 32), layer_norm(32), Normalize())
        path = save(families["bert"], tmp_path / "model", "mean", *modules)
        encoder, chosen = Native(path), texts_for(path)
        together = encoder.encode(chosen, at_once=120)
        assert np.array_equal(encoder.encode(chosen[::-1], at_once=7)[::-1], together)
        assert np.array_equal(encoder.encode(chosen, at_once=1), together)

    def test_where_nothing_is_left(self, families, force, tmp_path):
        path = save(families["bert"], tmp_path / "model", POOLING)
        for kernels in KERNELS:
            force(kernels)
            encoder = Native(path)
            found = encoder.engine.vectors([[2, 9, 3], [2, 9, 9, 3]], 3)
            assert not found[0].any()
            assert np.linalg.norm(found[1]) == pytest.approx(1, abs=1e-6)

    def test_many_threads_at_once(self, plain):
        encoder = Native(plain("bert"), library.best_precision())
        sequences = encoder.sequences(texts_for(plain("bert"), 200))
        passes = [sequences[first::11] for first in range(11)] * 4
        alone = [encoder.engine.vectors(each, 0) for each in passes]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for found, expected in zip(
                pool.map(lambda each: encoder.engine.vectors(each, 0), passes), alone, strict=True
            ):
                assert np.array_equal(found, expected)

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_after_a_fork(self, plain):
        encoder = Native(plain("bert"))
        before = encoder.encode(["water", "duck"])
        child = os.fork()
        if not child:
            os._exit(0 if np.array_equal(encoder.encode(["water", "duck"]), before) else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestCrossEncoders:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("family", NATIVE_FAMILIES)
    def test_scores_are_those_of_sentence_transformers(self, rerankers, force, unproven, family):
        self.same(rerankers(family), force, VARIANTS, family)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("bert", {"hidden_act": "relu", "type_vocab_size": 3}),
            ("bert", {"sentence_transformers": {"version": "4.0.0"}}),
            ("bert", {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}),
            ("roberta", {"hidden_act": "gelu_new"}),
            ("modernbert", {"classifier_pooling": "mean"}),
            ("modernbert", {"classifier_bias": True, "norm_bias": True, "classifier_activation": "silu"}),
            ("modernbert", {"classifier_activation": "gelu_new"}),
        ],
        ids=str,
    )
    def test_follow_config_json(self, tmp_path, force, family, changes):
        variants = [(kernels, "float32") for kernels in KERNELS]
        self.same(make_reranker(family, tmp_path / "model", **changes), force, variants, family)

    def test_do_without_token_types_where_the_tokenizer_has_none(self, rerankers, force, tmp_path):
        path = shutil.copytree(rerankers("bert"), tmp_path / "model")
        edit(path / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
        self.same(path, force, [(library.kernels(), "float32")], "bert")

    def test_in_any_company(self, rerankers, force, unproven):
        for family, (kernels, precision) in itertools.product(("bert", "modernbert"), VARIANTS):
            force(kernels)
            engine, pairs = self.load(rerankers(family), precision)
            together = engine.scores(pairs)
            alone = np.concatenate([engine.scores([pair]) for pair in pairs[::-1]])
            assert np.array_equal(alone[::-1], together), (family, kernels, precision)

    def test_a_type_that_the_weights_do_not_have(self, rerankers):
        engine, pairs = self.load(rerankers("bert"), "float32")
        wrong = [type(pairs[0])(pairs[0].ids, [7] * len(pairs[0].ids))]
        with pytest.raises(ModelError, match="token id or type is too high"):
            engine.scores(wrong)

    @staticmethod
    def load(path, precision):
        description = describe_cross_encoder(path, "m")
        return native_pair_engine(description, precision), PairTokenization(description).tokenize(pairs_for(path))

    def same(self, path, force, variants, what):
        theirs = scores_of_peer(path, pairs_for(path))
        spread = float(theirs.std())
        assert spread > 0.001
        for kernels, precision in variants:
            force(kernels)
            engine, pairs = self.load(path, precision)
            scores = engine.scores(pairs)
            assert (scores.shape, scores.dtype, engine.precision) == ((len(pairs), 1), np.float32, precision)
            furthest = np.abs(scores[:, 0] - theirs).max() / spread
            print(f"{what} {kernels} {precision}: furthest {furthest:.6f} standard deviations")
            assert furthest <= NEAR[precision], (kernels, precision)


def lossy(path):
    """One unit of each inner layer is enormous, and nothing comes of it: what is beside it gets no digits in 8 bits."""

    def change(tensors):
        for layer in range(3):
            tensors[f"encoder.layer.{layer}.intermediate.dense.bias"][5] = 1e5
            tensors[f"encoder.layer.{layer}.output.dense.weight"][:, 5] = 0

    change_tensors(path, change)


class TestInt8:
    def test_the_texts(self):
        assert len(TEXTS) == len(set(TEXTS)) == 64

    def test_is_refused_where_too_much_is_lost(self, plain, force, tmp_path, caplog):
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        lossy(path)
        for kernels in [kernels for kernels, precision in VARIANTS if precision == "int8"]:
            force(kernels)
            caplog.clear()
            encoder = Native(path, "int8")
            other = "bfloat16" if (kernels, "bfloat16") in VARIANTS else "float32"
            assert encoder.engine.precision == other
            [told] = [record.getMessage() for record in caplog.records]
            assert re.fullmatch(
                r"the model 'm' loses too much in int8: over 64 texts, the cosine to float32 is -?0\.\d{4} at least "
                rf"and -?0\.\d{{4}} on average, and has to be 0\.99 and 0\.995; it is computed in {other}",
                told,
            )
            chosen = texts_for(path, 50)
            assert np.array_equal(encoder.encode(chosen), Native(path, other).encode(chosen))

    def test_is_refused_for_a_cross_encoder(self, rerankers, force, tmp_path, caplog):
        path = shutil.copytree(rerankers("bert"), tmp_path / "model")

        def change(tensors):
            for layer in range(3):
                tensors[f"bert.encoder.layer.{layer}.intermediate.dense.bias"][5] = 1e5
                tensors[f"bert.encoder.layer.{layer}.output.dense.weight"][:, 5] = 0

        change_tensors(path, change)
        force(INT8)
        engine, _ = TestCrossEncoders.load(path, "int8")
        assert engine.precision != "int8"
        assert "loses too much in int8" in caplog.text

    def test_weights_that_are_no_numbers_are_told_as_such(self, plain, tmp_path):
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        models.not_a_number(path)
        for precision in ("float32", "int8"):
            if library.supports(precision):
                encoder = Native(path, precision)
                assert encoder.engine.precision != "int8"
                assert not np.isfinite(encoder.encode(["duck"])).all()

    def test_the_proof_is_kept(self, plain, force, monkeypatch, tmp_path, cache, caplog):
        """As long as the files and the kernels are the same, and what is kept can be read."""
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        compared = []

        def counted(description, make):
            def told():
                compared.append(description.name)
                return make()

            return proof.proof(description, told)

        monkeypatch.setattr("jammi_duck.encoder.native.engine.proof", counted)
        force(INT8)
        first = Native(path, "int8").encode(["duck"])
        [kept] = cache.iterdir()
        assert json.loads(kept.read_text()).keys() == {"lowest", "mean"}
        assert np.array_equal(Native(path, "int8").encode(["duck"]), first)
        assert len(compared) == 1
        damaged = [
            b"", b"[]", b'{"lowest": "x", "mean": 1}', b'{"lowest": NaN, "mean": 1}', b"\xff" * 2000, b"[" * 990,
            b'{"lowest": %s, "mean": 1.0}' % (b"1" * 400), b'{"lowest": 5.0, "mean": 7.0}',
            b'{"lowest": true, "mean": true}',
        ]  # fmt: skip
        for wrong in damaged:
            kept.write_bytes(wrong)
            Native(path, "int8")
        assert len(compared) == 1 + len(damaged)
        assert json.loads(kept.read_text())["mean"] > 0.9
        kept.write_text('{"lowest": 0.9, "mean": 0.999}')
        assert Native(path, "int8").engine.precision != "int8"
        assert "is 0.9000 at least and 0.9990 on average" in caplog.text
        os.utime(path / "model.safetensors", ns=(1, 1))
        assert Native(path, "int8").engine.precision == "int8"
        assert len(compared) == 2 + len(damaged)
        assert len(list(cache.iterdir())) == 2

    def test_where_nothing_can_be_kept(self, plain, force, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        force(INT8)
        assert Native(plain("bert"), "int8").engine.precision == "int8"

    def test_without_a_home_nothing_is_kept(self, plain, force, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-has-this-name/cache")
        force(INT8)
        assert Native(plain("bert"), "int8").engine.precision == "int8"
        assert list(tmp_path.glob("~*")) == []

    def test_the_two_precisions_are_never_loaded_together(self, plain, force, monkeypatch):
        force(INT8)
        alive, most = set(), []
        make, free = Forward.__init__, weakref.finalize

        def counted(self, planned, precision, model):
            make(self, planned, precision, model)
            alive.add(id(self))
            free(self, alive.discard, id(self))
            most.append(len(alive))

        monkeypatch.setattr(Forward, "__init__", counted)
        assert Native(plain("bert"), "int8").engine.precision == "int8"
        assert most == [1, 1, 1]

    def test_too_little_memory_for_the_comparison(self, plain, force, monkeypatch):
        force(INT8)
        make = Forward.__init__

        def limited(self, planned, precision, model):
            if precision == "float32":
                raise MemoryError("not enough")
            make(self, planned, precision, model)

        monkeypatch.setattr(Forward, "__init__", limited)
        with pytest.raises(
            ModelError, match="'m' cannot be computed in int8: it is compared with float32 once"
        ) as told:
            Native(plain("bert"), "int8")
        assert "precision = 'auto'" in str(told.value)

    @pytest.mark.parametrize(("inner", "told"), [(66_304, "DONE"), (66_320, "BAD_SHAPE")])
    def test_sums_fit_into_32_bits(self, force, inner, told):
        force(INT8)
        shape = library.CShape(
            hidden=16, heads=1, inner=inner, layers=1, vocabulary=1, positions=1, padding=-1, eps=1e-5
        )  # fmt: skip
        result = ctypes.c_int()
        made = library.functions().encoder_new(
            ctypes.byref(shape), library.PRECISIONS.index("int8"), library.kernels_number(), ctypes.byref(result)
        )
        library.functions().encoder_free(made)
        assert library.Result(result.value).name == told

    @pytest.mark.minilm
    def test_a_trained_model_proves_itself(self, force, caplog):
        for kernels in [kernels for kernels, precision in VARIANTS if precision == "int8" and kernels != "plain"]:
            force(kernels)
            assert native_engine(describe(find(MINILM.name).path, "m"), "int8").precision == "int8"
        assert not caplog.records


class TestRealModels:
    @pytest.mark.ms_marco
    def test_ms_marco_minilm(self, force):
        path = REAL_RERANKER
        pairs = pairs_for(path, 512)[:60]
        theirs = scores_of_peer(path, pairs)
        description = describe_cross_encoder(path, "m")
        tokens = PairTokenization(description).tokenize(pairs)
        for kernels, precision in VARIANTS:
            if kernels != "plain":
                force(kernels)
                scores = native_pair_engine(description, precision).scores(tokens)[:, 0]
                away = np.abs(scores - theirs)
                print(f"{kernels} {precision}: {away.max():.4f} at most, {away.mean():.4f} on average")
                # The scores reach from -11 to 10. In int8, a pair without words is 1.7 away.
                most, mean = {"float32": (1e-4, 1e-5), "bfloat16": (0.3, 0.03), "int8": (2.5, 0.2)}[precision]
                assert away.max() <= most
                assert away.mean() <= mean


class TestNotCovered:
    def test_attention_that_reaches_further_than_any_text_is_everywhere(self, plain, tmp_path):
        path = shutil.copytree(plain("modernbert"), tmp_path / "model")
        edit(path / "config.json", local_attention=1 << 31)
        far = Native(path, "float32").encode(["a duck", "two loud dogs"])
        edit(path / "config.json", local_attention=1000)
        assert np.array_equal(Native(path, "float32").encode(["a duck", "two loud dogs"]), far)

    def test_another_family(self, plain):
        assert "the family 'electra'" in refused(plain("electra"))

    @pytest.mark.parametrize(
        ("family", "changes", "words"),
        [
            ("bert", {"hidden_act": "tanh"}, "a setting"),
            ("bert", {"hidden_size": 40}, "hidden size is 40"),
            ("bert", {"intermediate_size": 100}, "inner layers is 100"),
            ("bert", {"num_attention_heads": 16}, "48 numbers cannot be shared by 16 heads"),
            ("modernbert", {"hidden_activation": "tanh"}, "a setting"),
        ],
        ids=str,
    )
    def test_settings(self, tmp_path, family, changes, words):
        assert words in refused(models.make(FAMILIES[family], tmp_path / "model", **changes))

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"position_embedding_type": "relative_key"}, "a setting"),
            ({"num_attention_heads": 7}, "cannot be shared by 7 heads"),
            ({"num_attention_heads": "four"}, "num_attention_heads is 'four'"),
            ({"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5"),
            ({"vocab_size": -4}, "vocab_size is -4"),
            ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
            ({"type_vocab_size": -1}, "type_vocab_size is -1"),
            ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ],
        ids=str,
    )
    def test_config_json_of_no_model(self, plain, tmp_path, changes, words):
        path = shutil.copytree(plain("bert"), tmp_path / "model")
        edit(path / "config.json", **changes)
        assert words in refused(path)

    def test_a_module_with_another_activation(self, families, tmp_path):
        path = save(families["bert"], tmp_path / "model", "mean", dense(48, 20, torch.nn.Softplus()))
        assert "torch.nn.modules.activation.Softplus" in refused(path)

    def test_a_module_that_names_code(self, families, tmp_path):
        path = save(families["bert"], tmp_path / "model", "mean", dense(48, 20))
        [config] = path.glob("2_Dense/config.json")
        edit(config, activation_function="os.system")
        assert "'os.system'" in refused(path)

    def test_more_positions_than_there_is_room_for(self, plain, tmp_path):
        path = shutil.copytree(plain("modernbert"), tmp_path / "model")
        edit(path / "sentence_bert_config.json", max_seq_length=50_000_000)
        assert "texts of 50000000 tokens" in refused(path)

    def test_a_head_of_another_kind(self, tmp_path):
        path = make_reranker("modernbert", tmp_path / "model", classifier_activation="tanh")
        with pytest.raises(NotCovered, match="with the activation 'tanh'"):
            native_pair_engine(describe_cross_encoder(path, "m"), "float32")

    def test_a_precision_that_the_kernels_do_not_have(self, plain, force):
        force("plain")
        assert not library.supports("bfloat16")
        assert refused(plain("bert"), "bfloat16") == "this CPU has no kernels for bfloat16 (it has plain)"

    def test_a_precision_that_there_is_not(self, plain):
        assert not library.supports("float8")
        assert "no kernels for float8" in refused(plain("bert"), "float8")


class TestTheLibrary:
    def test_the_numbers_are_those_of_the_header(self):
        header = Path(library.__file__).with_name("encoder.h").read_text()
        header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)

        def enum(name):
            [body] = re.findall(rf"enum {name} {{(.*?)}};", header, re.DOTALL)
            numbers, last = {}, -1
            for entry in filter(None, (entry.strip() for entry in body.split(","))):
                key, _, value = (part.strip() for part in entry.partition("="))
                last = numbers[value] if value else last + 1
                numbers[key] = last
            return numbers

        def of_ours(kind):
            return {each.name: each.value for each in kind}

        assert enum("result") == of_ours(library.Result)
        assert enum("activation") == {**of_ours(library.Activation), "ACTIVATIONS": 4}
        assert enum("matrix_slot") == {**of_ours(library.MatrixSlot), "MATRICES": 4}
        vectors = enum("vector_slot")
        assert vectors.pop("VECTORS") == 16
        assert vectors.pop("LAYER_VECTORS") == 8
        assert vectors == of_ours(library.VectorSlot)
        for name, ours, count in (
            ("precision", library.PRECISIONS, "PRECISIONS"),
            ("kernels", library.KERNELS, "KERNELS"),
        ):
            assert [key.lower() for key in enum(name)] == [*ours, count.lower()]
        assert list(enum("number")) == ["OF_FLOAT32", "OF_FLOAT16", "OF_BFLOAT16", "NUMBERS"]
        pooling = ["mean", "cls", "max", "last_token", "weighted_mean", "mean_sqrt_length", "poolings"]
        assert [key.lower() for key in enum("pooling")] == pooling
        [body] = re.findall(r"struct shape {(.*?)};", header, re.DOTALL)
        fields = re.findall(r"\w+(?=[,;])", body)
        assert fields == [name for name, _ in library.CShape._fields_]
        assert f"#define ENCODER_VERSION {library.functions().encoder_version()}\n" in header

    def test_kernels_by_their_names(self, force):
        fastest = library.kernels()
        assert fastest == KERNELS[-1]
        for kernels in KERNELS:
            force(kernels)
            assert library.kernels() == kernels
            assert {p for p in library.PRECISIONS if library.supports(p)} == {p for k, p in VARIANTS if k == kernels}
            assert library.supports(library.best_precision())
        force("")
        assert library.kernels() == fastest
        force("sse9")
        with pytest.raises(ConfigError, match=r"JAMMI_KERNELS is 'sse9'; on this CPU it can be plain"):
            library.kernels()

    @pytest.fixture
    def other_library(self, monkeypatch):
        def use(path):
            monkeypatch.setattr(library, "FILE", path)
            library._loaded.cache_clear()

        yield use
        library._loaded.cache_clear()

    def test_where_there_is_none(self, plain, other_library, tmp_path):
        other_library(tmp_path / "none.so")
        assert "it was not compiled when the package was installed" in library.why_not()
        assert not library.supports("float32")
        assert "not compiled" in refused(plain("bert"))
        with pytest.raises(ConfigError, match="the native engine cannot be used: it was not compiled"):
            library.kernels()

    def test_one_of_another_system(self, plain, other_library, tmp_path):
        (tmp_path / "other.so").write_bytes(b"MZ of another system")
        other_library(tmp_path / "other.so")
        assert "made for another system" in refused(plain("bert")) or "another system" in library.why_not()

    def test_one_of_another_version(self, plain, other_library, monkeypatch):
        monkeypatch.setattr(library, "_VERSION", 99)
        other_library(library.FILE)
        assert "version" in refused(plain("bert"))

    def test_memory_that_runs_out(self, plain):
        encoder = Native(plain("bert"))
        none_left = types.SimpleNamespace(encoder_forward=lambda *_: library.Result.NO_MEMORY)
        encoder.engine._forward._library = none_left
        with pytest.raises(MemoryError, match="not enough memory for the model 'm'"):
            encoder.encode(["duck"])

    def test_relative_positions_are_counted_as_torch_counts_them(self):
        from jammi_duck.encoder.torch_engine.families import _buckets

        distances = np.arange(-600, 601)
        theirs = _buckets(torch.from_numpy(distances)).numpy()
        assert np.array_equal(native_families.buckets(distances), theirs)

    @pytest.mark.parametrize(
        ("sequences", "skipped"), [([[2, 9999, 3]], 0), ([[2, -1, 3]], 0), ([[2] * 81], 0), ([[2, 1 << 40]], 0)]
    )
    def test_tokens_that_a_model_does_not_have(self, plain, force, sequences, skipped):
        for kernels in KERNELS:
            force(kernels)
            encoder = Native(plain("bert"))
            with pytest.raises(ModelError, match="the tokenizer of 'm' does not fit its weights"):
                encoder.engine.vectors(sequences, skipped)

    def test_no_sequences(self, plain):
        assert Native(plain("bert")).engine.vectors([], 0).shape == (0, 48)


ALONE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "pandas", "sentence_transformers"):
            raise ModuleNotFoundError(f"no {name} here")

sys.meta_path.insert(0, Hidden())
from pathlib import Path
from jammi_duck.encoder.cross_encoder_description import describe_cross_encoder
from jammi_duck.encoder.description import describe
from jammi_duck.encoder.local.pairs import PairTokenization
from jammi_duck.encoder.local.tokens import CuttingTokenizer, Tokenization
from jammi_duck.encoder.native.engine import native_engine, native_pair_engine
from jammi_duck.encoder.native.library import best_precision

description = describe(Path(sys.argv[1]), "m")
engine = native_engine(description, best_precision())
tokens = Tokenization(description, CuttingTokenizer(description)).tokenize(["duck"], "document")[0]
assert engine.vectors(tokens, 0).shape == (1, 48)
description = describe_cross_encoder(Path(sys.argv[2]), "m")
pairs = PairTokenization(description).tokenize([("duck", "water")])
assert native_pair_engine(description, best_precision()).scores(pairs).shape == (1, 1)
assert not {"torch", "transformers", "pandas"} & set(sys.modules)
"""


def test_without_torch(plain, rerankers):
    command = [sys.executable, "-c", ALONE, plain("modernbert"), rerankers("bert")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
