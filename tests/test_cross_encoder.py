"""Re-rankers score as CrossEncoder of sentence-transformers does, keep the query whole, and say what they cannot be."""

import functools
import json
import os
import random
import shutil

import duckdb
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, processors

import jammi_duck
from jammi_duck import ModelError
from jammi_duck.encoder import loaded
from jammi_duck.encoder.cross_encoder_description import describe_cross_encoder
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local.pairs import PairTokenization
from jammi_duck.errors import EncodingError, InputError, NoModelError
from tests.conftest import REAL_RERANKER, put_in_cache
from tests.effort import some
from tests.engines import NATIVE_FAMILIES, texts_by
from tests.models import FAMILIES, LIMIT, change_tensors, edit, make, save
from tests.stock_shell import folder, needs_extension, rows
from tests.test_generate import error_of
from tests.texts import ODD, WORDS

__all__ = ["folder"]

RERANKERS = NATIVE_FAMILIES
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity"}
# How far scores may be apart, in standard deviations of the scores.
NEAR = {"float32": 1e-4, "bfloat16": 0.2}


def make_reranker(family, path, **changes):
    """As transformers saves a cross-encoder. Its scores are those of the head: a sigmoid hides differences."""
    auto = transformers.AutoModelForSequenceClassification
    return make(FAMILIES[family], path, auto, **{"num_labels": 1, "sentence_transformers": IDENTITY, **changes})


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory):
    """Small cross-encoders: `rerankers("bert")` is a directory."""
    folder = tmp_path_factory.mktemp("rerankers")
    return functools.cache(lambda family: make_reranker(family, folder / family))


@pytest.fixture
def copy(rerankers, tmp_path):
    """A cross-encoder that may be changed."""
    return lambda family: shutil.copytree(rerankers(family), tmp_path / family)


def whole_tokenizer(path):
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def pairs_for(path, limit=LIMIT):
    """Short questions, and texts of every kind, many of them longer than the model reads."""
    return pairs_by((path / "tokenizer.json").read_text(), limit)


@functools.cache
def pairs_by(tokenizer, limit):
    chosen = texts_by(tokenizer, 120, limit)
    counted = Tokenizer.from_str(tokenizer)
    counted.no_padding()
    counted.no_truncation()
    short = [text for text in chosen if len(counted.encode(text).ids) < limit // 3]
    chance = random.Random(3)
    return [(chance.choice(short), chance.choice(chosen)) for _ in range(120)]


def expected(path, pairs):
    before = torch.get_num_threads()
    # The small models are too small for more than one thread.
    torch.set_num_threads(1)
    try:
        return CrossEncoder(str(path), device="cpu", model_kwargs={"dtype": torch.float32}).predict(pairs)
    finally:
        torch.set_num_threads(before)


def reranker(path, precision="float32", batch_size=32, engine="torch"):
    return LoadedEncoders(batch_size, 2, precision, engine=engine).reranker(str(path))


def same(path, precision="float32"):
    pairs = pairs_for(path)
    scores, theirs = reranker(path, precision).scores(pairs), expected(path, pairs)
    assert scores.shape == (len(pairs),)
    assert scores.dtype == np.float32
    assert theirs.std() > 0.01
    assert scores == pytest.approx(theirs, abs=NEAR[precision] * float(theirs.std()))


class TestScores:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("precision", NEAR)
    @pytest.mark.parametrize("family", RERANKERS)
    def test_are_those_of_sentence_transformers(self, rerankers, family, precision):
        same(rerankers(family), precision)

    @pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
    def test_of_a_directory_that_sentence_transformers_saved(self, rerankers, tmp_path, family):
        model = CrossEncoder(str(rerankers(family)), device="cpu", max_length=50, activation_fn=torch.nn.Tanh())
        model.save_pretrained(str(tmp_path / "saved"))
        same(tmp_path / "saved")
        description = describe_cross_encoder(tmp_path / "saved", "m")
        assert (description.max_tokens, description.activation) == (50, "torch.nn.modules.activation.Tanh")

    @pytest.mark.parametrize(
        "config",
        [
            {"sentence_transformers": None},
            {"sentence_transformers": {"version": "4.0.0"}},
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            {"sentence_transformers": None, "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        ],
        ids=str,
    )
    def test_have_the_activation_that_the_model_names(self, copy, config):
        path = copy("bert")
        edit(path / "config.json", **config)
        same(path)

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("bert", {"hidden_act": "relu", "type_vocab_size": 3}),
            ("roberta", {"hidden_act": "gelu_new"}),
            ("modernbert", {"classifier_pooling": "mean"}),
            ("modernbert", {"classifier_bias": True, "norm_bias": True, "classifier_activation": "silu"}),
        ],
        ids=str,
    )
    def test_follow_config_json(self, tmp_path, family, changes):
        same(make_reranker(family, tmp_path / "model", **changes))

    def test_do_without_token_types_where_the_tokenizer_has_none(self, copy):
        path = copy("bert")
        before = reranker(path).scores([("duck", "water")])
        edit(path / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
        same(path)
        assert reranker(path).scores([("duck", "water")]) != pytest.approx(before, abs=1e-3)

    def test_from_weights_of_half_the_size(self, tmp_path):
        same(make_reranker("bert", tmp_path / "half", dtype=torch.bfloat16))

    def test_of_nothing(self, rerankers):
        assert reranker(rerankers("bert")).scores([]).shape == (0,)


some_texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(ODD),
    st.lists(st.sampled_from(" ".join(WORDS.values()).split()), max_size=80).map(" ".join),
)


class TestThePairAlone:
    @pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
    @given(st.lists(st.tuples(some_texts, some_texts), min_size=1, max_size=16), st.randoms())
    @settings(max_examples=some(15), deadline=None)
    def test_decides_its_score(self, rerankers, family, pairs, chance):
        together = dict(zip(pairs, reranker(rerankers(family)).scores(pairs), strict=True))
        others = [*chance.sample(pairs, len(pairs)), *chance.choices(pairs, k=2)]
        again = reranker(rerankers(family), batch_size=1).scores(others)
        assert again == pytest.approx(np.array([together[pair] for pair in others]), abs=1e-6)


@pytest.fixture(scope="module")
def tokenizations(rerankers, tmp_path_factory):
    @functools.cache
    def of(family, side):
        path = shutil.copytree(rerankers(family), tmp_path_factory.mktemp("cut") / family)
        edit(path / "tokenizer_config.json", truncation_side=side)
        theirs = whole_tokenizer(path)
        theirs.enable_truncation(LIMIT, strategy="only_second", direction=side)
        return PairTokenization(describe_cross_encoder(path, "m")), theirs, whole_tokenizer(path)

    return of


class TestCutting:
    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("family", RERANKERS)
    @given(st.lists(st.tuples(some_texts, some_texts), min_size=1, max_size=8))
    @settings(max_examples=some(15), deadline=None)
    def test_a_query_is_whole_up_to_three_quarters_of_the_room(self, tokenizations, family, side, pairs):
        """The peer is the tokenizer itself, which cuts the second text only."""
        ours, theirs, whole = tokenizations(family, side)
        room = LIMIT - whole.num_special_tokens_to_add(is_pair=True)
        for (query, text), found in zip(pairs, ours.tokenize(pairs), strict=True):
            query_ids, text_ids = (whole.encode(each, add_special_tokens=False).ids for each in (query, text))
            together = whole.encode(query, text)
            if len(query_ids) <= room * 3 // 4:
                together = theirs.encode(query, text)
                assert (found.ids, found.types) == (together.ids, together.type_ids)
            elif len(query_ids) + len(text_ids) <= room:
                assert (found.ids, found.types) == (together.ids, together.type_ids)
            else:
                most = min(len(text_ids), room - room * 3 // 4)
                first = query_ids[-(room - most) :] if side == "left" else query_ids[: room - most]
                second = text_ids[len(text_ids) - most :] if side == "left" else text_ids[:most]
                assert len(found) == LIMIT
                assert " ".join(map(str, first)) in " ".join(map(str, found.ids))
                assert " ".join(map(str, second)) in " ".join(map(str, found.ids))

    def test_a_long_text_is_read_as_far_as_the_model_reads(self, rerankers):
        start = "water and ducks in the river at night " * 30
        scores = reranker(rerankers("bert")).scores([("duck", start), ("duck", start + "snow " * 200_000)])
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)

    def test_a_text_that_is_too_long_for_the_tokenizer(self, copy):
        path = copy("xlm-roberta")
        message = "the text 'a+a+.*' of 12000000 characters could not be scored for the query 'duck'"
        with pytest.raises(EncodingError, match=message.replace("+", r"\+")):
            reranker(path).scores([("duck", "water"), ("duck", "a+" * 6_000_000)])


def refusal(path):
    with pytest.raises(ModelError) as caught:
        reranker(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "PATH")


class TestRefusals:
    @pytest.mark.parametrize("kind", ["bare", "saved"])
    def test_an_embedding_model_re_ranks_nothing(self, families, tmp_path, kind):
        path = families["bert"] if kind == "bare" else save(families["bert"], tmp_path / "model")
        assert refusal(path) == (
            "the model 'PATH' is made for sentence embeddings (BertModel), and cannot re-rank; a re-ranker is a "
            "cross-encoder, such as 'cross-encoder/ms-marco-MiniLM-L6-v2'"
        )

    @pytest.mark.parametrize("kind", ["bare", "saved"])
    def test_a_cross_encoder_embeds_nothing(self, rerankers, tmp_path, kind):
        path = rerankers("bert")
        if kind == "saved":
            path = tmp_path / "saved"
            CrossEncoder(str(rerankers("bert")), device="cpu").save_pretrained(str(path))
        with pytest.raises(ModelError) as caught:
            LoadedEncoders(4, 1, "float32").get(str(path))
        assert str(caught.value) == (
            f"the model '{path}' is a CrossEncoder: it scores pairs of texts, and makes no vectors. It can re-rank "
            f"what a search finds, as rerank := '{path}'; a model := '...' has to be one for sentence embeddings"
        )

    def test_a_classifier_of_three_labels(self, tmp_path):
        path = make_reranker("bert", tmp_path / "model", num_labels=3)
        assert "has 3 outputs, as a classifier has; a re-ranker has one" in refusal(path)
        # As before: its vectors are those of its transformer.
        assert LoadedEncoders(4, 1, "float32").get(str(path)).encode(["duck"]).shape == (1, 48)

    def test_a_classifier_that_does_not_say_how_many_labels(self, copy):
        path = copy("bert")
        edit(path / "config.json", id2label=None, label2id=None)
        assert "has 2 outputs" in refusal(path)

    def test_a_family_without_a_head_of_ours(self, tmp_path):
        path = make_reranker("electra", tmp_path / "model")
        assert "is of the family 'electra'; supported as re-rankers are bert, roberta, camembert" in refusal(path)

    @pytest.mark.parametrize(
        ("family", "config", "message"),
        [
            ("bert", {"auto_map": {"AutoModel": "m.M"}}, "needs code of its own"),
            ("bert", {"is_decoder": True}, "only encoders are supported"),
            ("bert", {"num_hidden_layers": 10**12}, "has num_hidden_layers = 1000000000000"),
            ("bert", {"vocab_size": 10**9}, "they are smaller than vocab_size"),
            ("bert", {"hidden_act": "tanh"}, "a setting in its config.json that is not supported for a re-ranker"),
            ("bert", {"id2label": 7}, "a file there is malformed"),
            ("bert", {"sentence_transformers": {"activation_fn": "os.system"}}, "'os.system', which is not torch.nn's"),
            ("bert", {"sentence_transformers": {"activation_fn": "torch.nn.PReLU"}}, "which learns: not supported"),
            ("bert", {"sentence_transformers": ["x"]}, "a file there is malformed"),
            ("modernbert", {"classifier_pooling": "max"}, "has classifier_pooling = 'max': not supported"),
            ("modernbert", {"classifier_activation": "tanh"}, "has classifier_activation = 'tanh': not supported"),
        ],
        ids=str,
    )
    def test_settings(self, copy, family, config, message):
        path = copy(family)
        edit(path / "config.json", **config)
        assert message in refusal(path)

    def test_other_modules(self, families, tmp_path):
        path = save(families["bert"], tmp_path / "model")
        edit(path / "config_sentence_transformers.json", model_type="CrossEncoder")
        edit(path / "config.json", architectures=["BertForSequenceClassification"], id2label={"0": "score"})
        assert "has modules after its Transformer" in refusal(path)

    def test_another_kind_of_model(self, rerankers, tmp_path):
        path = tmp_path / "saved"
        CrossEncoder(str(rerankers("bert")), device="cpu").save_pretrained(str(path))
        edit(path / "config_sentence_transformers.json", model_type="SparseEncoder")
        assert "is a SparseEncoder, and cannot re-rank" in refusal(path)

    def test_a_default_prompt(self, rerankers, tmp_path):
        path = tmp_path / "saved"
        prompts = {"prompts": {"query": "search: "}, "default_prompt_name": "query"}
        CrossEncoder(str(rerankers("bert")), device="cpu", **prompts).save_pretrained(str(path))
        assert "has a default prompt, which is not supported" in refusal(path)

    @pytest.mark.parametrize(
        ("family", "tensor"),
        [
            ("bert", "bert.pooler.dense.weight"),
            ("bert", "classifier.weight"),
            ("distilbert", "pre_classifier.bias"),
            ("mpnet", "classifier.out_proj.weight"),
        ],
    )
    def test_a_head_that_is_not_there(self, copy, family, tensor):
        path = copy(family)
        change_tensors(path, lambda tensors: tensors.pop(tensor))
        assert f"do not fit its config.json: there is no '{tensor}'" in refusal(path)

    def test_a_head_of_another_size(self, copy):
        path = copy("bert")
        change_tensors(path, lambda tensors: tensors.update({"classifier.weight": torch.zeros(2, 48)}))
        assert "'classifier.weight' is [2, 48], not [1, 48]" in refusal(path)

    def test_scores_that_are_no_numbers(self, copy):
        path = copy("bert")
        change_tensors(path, lambda tensors: tensors["classifier.bias"].fill_(float("nan")))
        assert "its scores are not numbers (NaN)" in refusal(path)

    def test_a_tokenizer_that_does_not_fit(self, copy):
        path = copy("bert")
        tokenizer = whole_tokenizer(path)
        tokenizer.add_tokens([f"extra{number}" for number in range(9)])
        tokenizer.save(str(path / "tokenizer.json"))
        assert "does not fit its weights: it has token ids up to" in refusal(path)

    @pytest.mark.parametrize(
        ("pair", "message"),
        [
            ("$A $B $A", "does not put the two texts of a pair one after the other"),
            ("$B $A", "does not put the two texts of a pair one after the other"),
            ("$A", "does not put the two texts of a pair one after the other|cannot be read"),
            (f"$A $B{' [SEP]' * 80}", "adds 80 tokens to each pair"),
        ],
        ids=str,
    )
    def test_a_tokenizer_for_other_pairs(self, copy, pair, message):
        path = copy("bert")
        tokenizer = whole_tokenizer(path)
        rule = json.loads(tokenizer.to_str())
        special = [("[SEP]", tokenizer.token_to_id("[SEP]"))]
        try:
            tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=pair, special_tokens=special)
        except Exception:
            rule["post_processor"]["pair"] = [{"Sequence": {"id": "A", "type_id": 0}}]
            (path / "tokenizer.json").write_text(json.dumps(rule))
        else:
            tokenizer.save(str(path / "tokenizer.json"))
        with pytest.raises(ModelError, match=message):
            reranker(path)

    def test_a_model_that_is_too_short(self, copy):
        path = copy("bert")
        edit(path / "tokenizer_config.json", model_max_length=4)
        assert "it reads 4 tokens, and 3 of them are special tokens" in refusal(path)

    def test_what_is_no_file(self, copy):
        path = copy("bert")
        (path / "model.safetensors").unlink()
        os.mkfifo(path / "model.safetensors")
        assert "is no regular file" in refusal(path)

    def test_pickled_weights(self, copy):
        path = copy("bert")
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
        assert "others are never read, since loading them can run code" in refusal(path)


class TestLoading:
    def test_by_name(self, rerankers, families, hub_cache):
        put_in_cache(hub_cache, "cross-encoder/small", rerankers("bert"))
        put_in_cache(hub_cache, "acme/ranker", rerankers("mpnet"))
        put_in_cache(hub_cache, "sentence-transformers/plain", families["bert"])
        encoders = LoadedEncoders(4, 3, "float32")
        assert encoders.reranker("small").name == "cross-encoder/small"
        assert encoders.reranker("small") is encoders.reranker("cross-encoder/small")
        assert encoders.reranker("acme/ranker").name == "acme/ranker"
        with pytest.raises(ModelError, match="'sentence-transformers/plain' is made for sentence embeddings"):
            encoders.reranker("plain")
        with pytest.raises(
            NoModelError, match="no model 'cross-encoder/unknown'; .* hf download cross-encoder/unknown"
        ):
            encoders.reranker("unknown")
        with pytest.raises(InputError, match="is a URL"):
            encoders.reranker("https://host/acme/tiny")

    def test_encoders_and_re_rankers_share_what_stays_in_memory(self, copy, families):
        path = copy("bert")
        encoders = LoadedEncoders(4, 2, "float32", threads=2)
        first = encoders.reranker(str(path))
        assert LoadedEncoders(4, 2, "float32", threads=2).reranker(str(path)) is first
        for family in ("bert", "mpnet"):
            encoders.get(str(families[family]))
        assert len(loaded._loaded) == 2
        assert encoders.reranker(str(path)) is not first

    def test_a_model_that_was_replaced_is_loaded_again(self, copy):
        path = copy("bert")
        before = reranker(path).scores([("duck", "water")])
        change_tensors(path, lambda tensors: tensors["classifier.bias"].add_(1))
        assert reranker(path).scores([("duck", "water")]) == pytest.approx(before + 1, abs=1e-5)


class TestInSQL:
    @pytest.fixture
    def con(self, tiny_model, tmp_path):
        con = duckdb.connect()
        jammi_duck.install(con, storage=tmp_path / "artifacts", model=str(tiny_model), precision="float32")
        yield con
        con.close()

    @pytest.mark.parametrize("threads", [1, 4])
    def test_each_row_has_its_score(self, con, rerankers, threads):
        path = rerankers("bert")
        con.execute(f"SET threads = {threads}")
        con.execute(
            "CREATE TABLE t AS SELECT range AS id, 'duck ' || range % 7 AS query, "
            "repeat('water ', (range % 11)::INTEGER) || range AS text FROM range(5000)"
        )
        rows = con.execute("SELECT query, text, _jammi_rerank(query, text, $1) FROM t", [str(path)]).fetchall()
        assert len(rows) == 5000
        told = reranker(path, engine="auto").scores([row[:2] for row in rows])
        assert [row[2] for row in rows] == pytest.approx(told, abs=1e-6)

    def test_in_a_lateral_join(self, con, rerankers):
        path = rerankers("roberta")
        query = """SELECT q, max_by(text, score) FROM (VALUES ('duck'), ('snow')) q(q), LATERAL (
            SELECT text, _jammi_rerank(q, text, $1) AS score FROM (VALUES ('water'), ('night'), ('vector')) t(text))
            GROUP BY q ORDER BY q"""
        found = con.execute(query, [str(path)]).fetchall()
        of = {
            q: reranker(path, engine="auto").scores([(q, text) for text in ("water", "night", "vector")])
            for q in ("duck", "snow")
        }
        assert found == [(q, ("water", "night", "vector")[int(of[q].argmax())]) for q in ("duck", "snow")]

    @pytest.mark.parametrize(
        ("query", "text"), [("NULL", "'x'"), ("'x'", "NULL"), ("' '", "'x'"), ("'x'", "E'\\t\\n'"), ("''", "''")]
    )
    def test_no_text_no_score(self, con, rerankers, query, text):
        call = f"_jammi_rerank({query}, {text}, '{rerankers('bert')}')"
        assert con.execute(f"SELECT {call}, typeof({call})").fetchall() == [(None, "FLOAT")]

    def test_without_a_model_nothing_is_scored(self, con):
        assert con.execute("SELECT _jammi_rerank('a', 'b', NULL)").fetchall() == [(None,)]

    def test_two_models_in_one_query(self, con, rerankers):
        paths = [str(rerankers(family)) for family in ("bert", "distilbert")]
        con.execute("CREATE TABLE t AS SELECT unnest($1) AS model", [[*paths, None, *paths]])
        found = [row[0] for row in con.execute("SELECT _jammi_rerank('duck', 'water', model) FROM t").fetchall()]
        told = [float(reranker(path, engine="auto").scores([("duck", "water")])[0]) for path in paths]
        assert found == pytest.approx([*told, None, *told], abs=1e-6)
        assert found[0] != pytest.approx(found[1], abs=1e-3)

    @needs_extension
    def test_in_the_stock_shell(self, folder, rerankers):
        path = rerankers("bert")
        found = rows(f"SELECT id, _jammi_rerank('duck', text, '{path}') AS score FROM t ORDER BY id")
        told = reranker(path, "auto", engine="auto").scores([("duck", "the duck in water"), ("duck", "a loud dog")])
        assert [row["score"] for row in found] == [*(pytest.approx(score, abs=1e-5) for score in told), None]

    def test_mistakes(self, con, tiny_model):
        assert "no model at '/no/such/place'" in error_of(con, "SELECT _jammi_rerank(NULL, 'x', '/no/such/place')")
        message = error_of(con, f"SELECT _jammi_rerank('a', 'b', '{tiny_model}')")
        assert "is made for sentence embeddings (BertModel), and cannot re-rank" in message

    def test_a_cross_encoder_as_the_model(self, con, rerankers):
        assert "is a CrossEncoder: it scores pairs" in error_of(con, f"SELECT embed('x', '{rerankers('bert')}')")


@pytest.mark.ms_marco
class TestARealModel:
    def test_as_sentence_transformers_computes_it(self):
        pairs = pairs_for(REAL_RERANKER, 512)[:60]
        theirs = expected(REAL_RERANKER, pairs)
        for precision, near in {"float32": 1e-4, "bfloat16": 0.3}.items():
            assert reranker(REAL_RERANKER, precision).scores(pairs) == pytest.approx(theirs, abs=near)

    def test_as_onnx_runtime_computes_it_with_8_bits(self):
        """The weights are the same. It computes with activations of 8 bits, too, so its scores differ by up to 0.42."""
        rows = json.loads((REAL_RERANKER / "scores.json").read_text())
        theirs = np.array([score for *_, score in rows])
        scores = reranker(REAL_RERANKER).scores([(query, text) for query, text, _ in rows])
        assert theirs.std() > 4
        assert scores == pytest.approx(theirs, abs=0.5)
        assert np.corrcoef(scores, theirs)[0, 1] > 0.9998
