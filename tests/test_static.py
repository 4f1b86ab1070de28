"""Look-up models: their vectors against model2vec, sentence-transformers and wordllama, in SQL, and hostile files."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from model2vec import StaticModel
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

import jammi_duck
from jammi_duck import ModelError
from jammi_duck.doors.cli import main
from jammi_duck.embeddings import get_registry
from jammi_duck.encoder.listing import look_at
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local import excerpts
from jammi_duck.encoder.names import Found
from tests.conftest import put_in_cache
from tests.effort import some
from tests.models import BYTE_LEVEL, byte_level, unigram, word_piece
from tests.test_encoder_contract import EncoderContract
from tests.texts import ODD, corpus

needs_wordllama = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None, reason="the package wordllama is not installed"
)
HOSTILE = (
    *ODD,
    "[UNK] [UNK]",
    "\U0010fffd",
    "hello \U0010fffd world",
    "a" * 100_000,
    "water " * 20_000,
    "a." * 50_000,
    " a" + " " * 100_000 + "b",
    "\U0001f986" * 3_000,
    "\u00e9" * 300,
    "\ufdfa" * 1_000,
    "\u6c34" * 3_000,
    "x" * 101 + " y",
    # Longer than any limit, and another text after each.
    " ".join(corpus()),
)


def bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(word_piece(), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Neither library that reads such models pads, and only sentence-transformers cuts by this.
    tokenizer.enable_padding(length=20)
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]", "[PAD]"], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


TOKENIZERS = {
    "word piece": bert, "byte level": lambda: byte_level(BYTE_LEVEL), "unigram": unigram, "word level": word_level
}  # fmt: skip


def random(*shape, dtype="f4", seed=7):
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return (numbers * 30).clip(-127, 127).astype(dtype) if dtype == "i1" else numbers.astype(dtype)


def make(path, tokenizer=None, *, rows=None, dtype="f4", **options):
    """A folder that model2vec writes, with random vectors of 32 dimensions."""
    tokenizer = tokenizer or bert()
    vectors = random(rows or tokenizer.get_vocab_size(), 32, dtype=dtype)
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "seq_length": 1_000_000}
    StaticModel(vectors, tokenizer, config=config, **options).save_pretrained(path)
    return path


def change(path, **tensors):
    """Put tensors into a model's file; None takes one away."""
    both = {**load_file(path / "model.safetensors"), **tensors}
    save_file({name: each for name, each in both.items() if each is not None}, path / "model.safetensors")


def load(path):
    return LoadedEncoders(4, 2, "float32").get(str(path))


def check_same(encodings, reference, texts, least=0.99999):
    """The vectors have the directions of others, and texts fail whose vector is one of zeros or NaN there."""
    exact = np.asarray(reference, np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    with np.errstate(invalid="ignore"):
        known = lengths > 0
    assert [texts[i][:20] for i in np.flatnonzero(known == encodings.failed)] == []
    assert known.sum() > len(texts) / 2
    assert set(encodings.reasons) == set(np.flatnonzero(~known).tolist())
    assert (encodings.vectors[~known] == 0).all()
    cosines = (encodings.vectors[known] * exact[known]).sum(1) / lengths[known]
    assert cosines.min() > least
    assert np.abs(np.linalg.norm(encodings.vectors[known], axis=1) - 1).max() < 1e-5


def ignore(done):
    pass


@pytest.fixture(scope="session")
def potion(tmp_path_factory):
    return make(tmp_path_factory.mktemp("static") / "potion", normalize=True)


@pytest.fixture
def model(potion, tmp_path):
    """A small model that may be spoilt."""
    return shutil.copytree(potion, tmp_path / "model")


class TestContract(EncoderContract):
    @pytest.fixture(params=["potion", pytest.param("wordllama", marks=needs_wordllama)])
    def encoder(self, request, potion):
        return LoadedEncoders(4, 2).get(str(potion) if request.param == "potion" else "wordllama")


class TestModel2Vec:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("kind", TOKENIZERS)
    @pytest.mark.parametrize("max_length", [512, 5, None])
    def test_tokenizers_and_lengths(self, tmp_path, kind, max_length):
        path = make(tmp_path / "m", TOKENIZERS[kind](), max_length=max_length)
        texts = [*corpus(), *HOSTILE]
        encodings = load(path).encode_rows(texts, "document", ignore)
        check_same(encodings, StaticModel.from_pretrained(path).encode(texts), texts)
        assert encodings.truncated.any() == (max_length is not None)

    @pytest.mark.parametrize("dtype", ["f2", "f8", "i1"])
    def test_types(self, tmp_path, dtype):
        texts = [*corpus(), *HOSTILE]
        path = make(tmp_path / "m", dtype=dtype)
        check_same(
            load(path).encode_rows(texts, "query", ignore), StaticModel.from_pretrained(path).encode(texts), texts
        )

    @pytest.mark.parametrize("dtype", ["f4", "i1"])
    @pytest.mark.parametrize("of_weights", [None, "f8", "f2"])
    @pytest.mark.parametrize("of_mapping", [None, "i4", "i8"])
    def test_weights_and_mapping(self, tmp_path, dtype, of_weights, of_mapping):
        tokenizer = bert()
        tokens, rows = tokenizer.get_vocab_size(), 90 if of_mapping else None
        weights = None if of_weights is None else np.abs(random(tokens, dtype=of_weights))
        mapping = None if of_mapping is None else np.arange(tokens).astype(of_mapping) * 7 % 90
        path = make(tmp_path / "m", tokenizer, rows=rows, dtype=dtype, weights=weights, token_mapping=mapping)
        texts = list(corpus())
        check_same(
            load(path).encode_rows(texts, "document", ignore), StaticModel.from_pretrained(path).encode(texts), texts
        )

    @pytest.mark.parametrize("config", [{}, {"max_length": 4}, {"max_length": None}, {"normalize": True}])
    def test_a_configuration_of_few_words(self, model, config):
        (model / "config.json").write_text(json.dumps(config))
        texts = [*corpus(), *HOSTILE]
        encodings = load(model).encode_rows(texts, "document", ignore)
        check_same(encodings, StaticModel.from_pretrained(model).encode(texts), texts)

    def test_without_modules(self, model):
        """As the first versions of model2vec wrote it."""
        before = load(model).encode(["the duck"])
        (model / "modules.json").unlink()
        assert (load(model).encode(["the duck"]) == before).all()

    def test_settings_for_transformers_do_not_count(self, model):
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 2}
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        texts = ["WATER Water", "the duck in the water"]
        encodings = load(model).encode_rows(texts, "document", ignore)
        check_same(encodings, StaticModel.from_pretrained(model).encode(texts), texts)

    def test_a_text_is_cut_at_a_number_of_characters_too(self, tmp_path):
        encoder = load(make(tmp_path / "m", max_length=5))
        encodings = encoder.encode_rows(["water" + " " * 1_000 + "duck", "water"], "document", ignore)
        assert encodings.truncated.tolist() == [True, False]
        assert (encodings.vectors[0] == encodings.vectors[1]).all()

    @pytest.mark.shared_data
    @pytest.mark.parametrize("max_length", [512, 12])
    def test_real_texts(self, tmp_path, shared_data, max_length):
        path = make(tmp_path / "m", max_length=max_length)
        texts = pq.read_table(shared_data / "packages.parquet").column("description").to_pylist()[: some(4_000)]
        texts += pq.read_table(shared_data / "patents.parquet").column("abstract").to_pylist()[: some(1_500)]
        check_same(
            load(path).encode_rows(texts, "document", ignore), StaticModel.from_pretrained(path).encode(texts), texts
        )


class TestSentenceTransformers:
    @pytest.fixture
    def make_one(self, tmp_path):
        """`make_one(modules after it, tokenizer, **options)` gives a folder with a StaticEmbedding."""
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding

        def make_one(*after, tokenizer=None, dtype="float32", truncation=None, **options):
            tokenizer = tokenizer or bert()
            if truncation:
                tokenizer.enable_truncation(**truncation)
            weights = torch.from_numpy(random(tokenizer.get_vocab_size(), 32)).to(getattr(torch, dtype))
            whole = SentenceTransformer(
                modules=[StaticEmbedding(tokenizer, embedding_weights=weights), *after], device="cpu", **options
            )
            whole.save(str(tmp_path / "m"), create_model_card=False)
            return tmp_path / "m"

        return make_one

    @staticmethod
    def check(path, texts=None, **options):
        from sentence_transformers import SentenceTransformer

        texts = texts or [*corpus(), *HOSTILE]
        whole, encoder = SentenceTransformer(str(path), device="cpu"), load(path)
        of_documents = encoder.encode_rows(texts, "document", ignore)
        check_same(of_documents, whole.encode_document(list(texts)), texts, **options)
        check_same(encoder.encode_rows(texts, "query", ignore), whole.encode_query(list(texts)), texts, **options)
        return of_documents

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("kind", TOKENIZERS)
    def test_tokenizers(self, make_one, kind):
        # Unlike with model2vec, the token for unknown words counts.
        assert not self.check(make_one(tokenizer=TOKENIZERS[kind]())).truncated.any()

    @pytest.mark.parametrize("truncation", [{"max_length": 5}, {"max_length": 5, "direction": "left"}])
    def test_the_tokenizer_cuts(self, make_one, truncation):
        assert self.check(make_one(truncation=truncation)).truncated.any()

    def test_normalize_prompts_and_fewer_dimensions(self, make_one):
        from sentence_transformers.sentence_transformer.modules import Normalize

        path = make_one(Normalize(), prompts={"query": "the question: ", "document": "the text: "}, truncate_dim=12)
        self.check(path)
        encoder = load(path)
        assert encoder.dimensions == 12
        assert encoder.identity.prompt == "the text: "
        assert encoder.encode(["water"]) @ encoder.encode(["water"], "query").T < 0.999

    @pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.999), ("float16", 0.9999)])
    def test_halves(self, make_one, dtype, least):
        # sentence-transformers adds up in this precision, too.
        self.check(make_one(dtype=dtype), list(corpus()), least=least)

    def test_in_a_folder_of_its_own(self, make_one):
        path = make_one()
        before = load(path)
        (path / "0_StaticEmbedding").mkdir()
        for file in ("model.safetensors", "tokenizer.json"):
            (path / file).rename(path / "0_StaticEmbedding" / file)
        edit_module(path, 0, path="0_StaticEmbedding")
        self.check(path)
        assert load(path).identity.weights == before.identity.weights


def edit_module(folder, place, **changes):
    modules = json.loads((folder / "modules.json").read_text())
    modules[place].update(changes)
    (folder / "modules.json").write_text(json.dumps(modules))


# Of "hello world", by wordllama 0.4.0.post1.
GOLDEN = [0.087173, 0.071858, 0.014429, -0.071306, 0.011641]
_REFERENCE = """
import json, sys, warnings
from pathlib import Path
import numpy
import wordllama
folder = Path(wordllama.__file__).parent
model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
warnings.simplefilter("ignore")
texts = json.loads(sys.stdin.buffer.read())
# One by one: it pads all texts to the longest.
numpy.save(sys.argv[1], numpy.concatenate([model.embed([text], norm=True) for text in texts]))
"""


@needs_wordllama
class TestWordllama:
    @staticmethod
    def check(tmp_path, texts):
        subprocess.run(
            [sys.executable, "-c", _REFERENCE, str(tmp_path / "vectors.npy")],
            input=json.dumps(texts).encode(),
            check=True,
            capture_output=True,
        )
        encodings = load("wordllama").encode_rows(texts, "document", ignore)
        check_same(encodings, np.load(tmp_path / "vectors.npy"), texts)
        assert not encodings.truncated.any()

    def test_texts_of_every_kind(self, tmp_path):
        self.check(tmp_path, [*corpus(), *HOSTILE])

    @pytest.mark.shared_data
    def test_real_texts(self, tmp_path, shared_data):
        texts = pq.read_table(shared_data / "packages.parquet").column("description").to_pylist()[: some(4_000)]
        texts += pq.read_table(shared_data / "patents.parquet").column("abstract").to_pylist()[: some(1_500)]
        self.check(tmp_path, texts)

    def test_its_vectors_stay_what_they_are(self):
        found = load("wordllama").encode(["hello world"])[0, :5]
        assert found == pytest.approx(GOLDEN, abs=1e-6)

    def test_in_sql(self, con_static):
        con_static.execute(
            "CREATE TABLE news AS FROM (VALUES (1, 'a cat sleeps on the sofa'), (2, 'interest rates rise')) t(id, body)"
        )
        (made,) = con_static.sql("FROM jammi_generate('news', 'body', 'id', model := 'static:wordllama')").fetchall()
        assert made[3:5] == ("ready", 2)
        search = "SELECT id FROM jammi_search('news', 'the central bank', 1, mode := 'vector', model := ?)"
        for name in ("wordllama", "static:wordllama", "static:"):
            assert con_static.execute(search, [name]).fetchall() == [(2,)]
        (row,) = (
            con_static.sql("FROM jammi_models() WHERE name = 'wordllama'")
            .project("family, dimensions, max_tokens, pooling, origin, error")
            .fetchall()
        )
        assert row == ("wordllama", 256, None, "static", "package", None)

    def test_no_code_of_the_package_and_no_torch(self, potion, tmp_path):
        """In a process of its own."""
        code = (
            "import sys, jammi_duck\n"
            f"con = jammi_duck.connect(storage={str(tmp_path)!r})\n"
            f"for model in ('static:wordllama', {str(potion)!r}):\n"
            "    print(con.execute(\"SELECT len(embed('a duck', ?))\", [model]).fetchall())\n"
            "print(sorted({'wordllama', 'model2vec', 'torch', 'transformers'} & set(sys.modules)))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.stdout.splitlines() == ["[(256,)]", "[(32,)]", "[]"], done.stderr


def test_wordllama_that_is_not_installed(monkeypatch, con_static):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "wordllama" else real(name, *more)
    )
    for name in ("wordllama", "static:wordllama"):
        with pytest.raises(duckdb.Error, match=r"pip install 'jammi-duck\[wordllama\]'"):
            con_static.execute("SELECT embed('a', ?)", [name])
    assert con_static.sql("FROM jammi_models() WHERE name = 'wordllama'").fetchall() == []


@pytest.fixture
def con_static(tmp_path):
    con = jammi_duck.connect(storage=str(tmp_path / "artifacts"), precision="float32")
    texts = "(VALUES (1, 'the duck'), (2, 'water'), (3, '\U0010fffd'), (4, 'night water'), (5, ''))"
    con.execute(f"CREATE TABLE t AS FROM {texts} t(id, text)")
    yield con
    con.close()


class TestNames:
    @pytest.mark.parametrize("prefix", ["", "static:"])
    def test_the_hub(self, hub_cache, con_static, potion, prefix):
        put_in_cache(hub_cache, "acme/potion", potion)
        con_static.execute(f"FROM jammi_generate('t', 'text', 'id', model := '{prefix}acme/potion')").fetchall()
        assert con_static.sql("SELECT model FROM jammi_tables()").fetchall() == [("acme/potion",)]
        search = "SELECT id FROM jammi_search('t', 'night water', 1, mode := 'vector', model := ?)"
        for name in ("acme/potion", "static:acme/potion"):
            assert con_static.execute(search, [name]).fetchall() == [(4,)]

    def test_a_model_folder(self, tmp_path, potion):
        (tmp_path / "models").mkdir()
        shutil.copytree(potion, tmp_path / "models" / "ours")
        con = jammi_duck.connect(storage=str(tmp_path / "artifacts"), models_path=[str(tmp_path / "models")])
        listed = con.sql("FROM jammi_models() WHERE name = 'ours'").project("family, dimensions, max_tokens, pooling")
        assert listed.fetchall() == [("model2vec", 32, 512, "static")]
        assert con.sql("SELECT embed('water', 'ours') = embed('water', 'static:ours')").fetchall() == [(True,)]
        con.close()

    def test_it_is_the_same_model_with_and_without_static(self, potion):
        encoders = LoadedEncoders(4, 2)
        assert encoders.names(f"static:{potion}") > encoders.names(str(potion)) - {f"sentence-transformers/{potion}"}
        assert encoders.weights_and_pooling(f"static:{potion}") == encoders.weights_and_pooling(str(potion))
        assert encoders.get(f"static:{potion}") is encoders.get(str(potion))

    def test_the_registry(self, potion):
        function = get_registry().get("static").create(name=str(potion))
        assert function.ndims() == 32
        assert np.abs(function.compute_source_embeddings(["water"])[0] - load(potion).encode(["water"])[0]).max() < 1e-6
        assert function.spec == f"static:{potion}"

    @needs_wordllama
    def test_the_command_line(self, capsys):
        assert main(["models", "desc", "wordllama"]) == 0
        told = capsys.readouterr().out
        assert "maximum tokens   no maximum" in told
        assert "wordllama" in told.splitlines()[-1]


class TestSql:
    def test_a_directory_with_and_without_static(self, con_static, potion):
        right = load(potion).encode(["the duck"])[0]
        for name in (str(potion), f"static:{potion}"):
            ((vector,),) = con_static.execute("SELECT embed('the duck', ?)", [name]).fetchall()
            assert np.abs(np.array(vector) - right).max() < 1e-6

    def test_a_table(self, con_static, potion):
        made = con_static.sql(f"FROM jammi_generate('t', 'text', 'id', model := 'static:{potion}')")
        counts = made.project("row_count, skipped_count, failed_count, dimensions")
        assert counts.fetchall() == [(3, 1, 1, 32)]
        for model in ("", f", model := '{potion}'", f", model := 'static:{potion}'"):
            search = f"SELECT id FROM jammi_search('t', 'night water', 2, mode := 'vector'{model})"
            assert con_static.sql(search).fetchall() == [(4,), (2,)]
        # A directory is recorded by its path alone.
        assert con_static.sql("SELECT model FROM jammi_tables()").fetchall() == [(str(potion),)]
        assert con_static.sql(f"SELECT new, changed FROM jammi_status('t', model := 'static:{potion}')").fetchall() == [
            (1, 0)
        ]

    def test_fewer_dimensions(self, con_static, potion):
        con_static.execute(f"FROM jammi_generate('t', 'text', 'id', model := '{potion}', dims := 8)").fetchall()
        search = "SELECT id, round(_similarity, 4) FROM jammi_search('t', 'night water', 1, mode := 'vector')"
        assert con_static.sql(search).fetchall() == [(4, 1.0)]

    def test_rows_without_a_known_word(self, con_static, potion):
        infer = f"SELECT vector, _error FROM jammi_infer('t', 'text', 'id', model := '{potion}') WHERE _row_id = '3'"
        assert con_static.sql(infer).fetchall() == [(None, "the model has no vector for any of its words")]
        with pytest.raises(duckdb.Error, match="could not be embedded: the model has no vector for any of its words"):
            con_static.execute("SELECT embed('\U0010fffd', ?)", [str(potion)])

    def test_a_model_that_was_moved(self, con_static, model, tmp_path):
        con_static.execute(f"FROM jammi_generate('t', 'text', 'id', model := '{model}')").fetchall()
        model.rename(tmp_path / "elsewhere")
        search = "SELECT id FROM jammi_search('t', 'night water', 1, mode := 'vector', model := ?)"
        assert con_static.execute(search, [f"static:{tmp_path / 'elsewhere'}"]).fetchall() == [(4,)]

    def test_a_model_that_was_replaced(self, con_static, model):
        con_static.execute(f"FROM jammi_generate('t', 'text', 'id', model := '{model}')").fetchall()
        change(model, embeddings=-load_file(model / "model.safetensors")["embeddings"])
        with pytest.raises(duckdb.Error, match="is not what it was .*weights differ"):
            con_static.execute("FROM jammi_search('t', 'night water', 1, mode := 'vector')")

    def test_a_model_of_another_kind(self, con_static, tiny_model):
        with pytest.raises(duckdb.Error, match="is no look-up model: it has no table of vectors; leave 'static:' out"):
            con_static.execute("SELECT embed('a', ?)", [f"static:{tiny_model}"])


class TestTexts:
    """What becomes of texts that a model can do little with."""

    def test_vectors_do_not_depend_on_the_others(self, tmp_path):
        encoder = load(make(tmp_path / "m", max_length=None))
        texts = [*list(corpus())[:300], "water duck " * 5_000, "the " * 9_000, "the", "water"]
        together = encoder.encode_rows(texts, "document", ignore).vectors
        alone = np.concatenate([encoder.encode_rows([text], "document", ignore).vectors for text in texts])
        assert (together == alone).all()
        assert (encoder.encode_rows(texts[::-1], "document", ignore).vectors[::-1] == alone).all()

    def test_more_texts_than_are_tokenized_together(self, potion):
        told = []
        texts = [f"water {number}" for number in range(2_500)]
        texts[1_700] = "\U0010fffd"
        encodings = load(potion).encode_rows(texts, "document", told.append)
        assert set(encodings.reasons) == set(np.flatnonzero(encodings.failed)) == {1_700}
        assert (sum(told), len(told) > 1) == (2_500, True)

    def test_a_word_many_times_has_the_vector_of_the_word(self, tmp_path):
        encoder = load(make(tmp_path / "m", max_length=None))
        once, many = encoder.encode(["water", "water " * 300_000])
        assert np.abs(once - many).max() < 1e-6

    def test_a_text_that_is_too_long(self, tmp_path, monkeypatch):
        monkeypatch.setattr(excerpts, "MOST_CHARACTERS", 5_000)
        unlimited, limited = load(make(tmp_path / "m", max_length=None)), load(make(tmp_path / "n"))
        texts = ["water", "water " * 1_000]
        encodings = unlimited.encode_rows(texts, "document", ignore)
        assert encodings.reasons == {1: "it is too long for this model, which reads texts whole"}
        assert not limited.encode_rows(texts, "document", ignore).failed.any()

    def test_a_tokenizer_that_fails_at_unknown_characters(self, tmp_path):
        tokenizer = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], None))
        encoder = load(make(tmp_path / "m", tokenizer))
        encodings = encoder.encode_rows(["ab", "abz", "b"], "document", ignore)
        assert encodings.failed.tolist() == [False, True, False]
        assert "its tokenizer failed: Encountered an unknown token" in encodings.reasons[1]

    def test_vectors_of_zeros_and_of_great_numbers(self, model):
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        vectors = np.zeros((tokenizer.get_vocab_size(), 32), np.float32)
        water, duck = tokenizer.token_to_id("water"), tokenizer.token_to_id("duck")
        vectors[water], vectors[duck] = 1e38, 1e-40
        change(model, embeddings=vectors)
        encodings = load(model).encode_rows(["the", "water", "duck", "water " * 4], "document", ignore)
        assert encodings.reasons == {0: "the vectors of its words add up to zeros, which have no direction"}
        assert np.abs(encodings.vectors[1:] - 1 / math.sqrt(32)).max() < 1e-6

    def test_opposite_vectors(self, model):
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        vectors = random(tokenizer.get_vocab_size(), 32)
        vectors[tokenizer.token_to_id("water")] = -vectors[tokenizer.token_to_id("duck")]
        change(model, embeddings=vectors)
        assert load(model).encode_rows(["water duck"], "document", ignore).reasons == {
            0: "the vectors of its words add up to zeros, which have no direction"
        }

    def test_threads_share_the_file_and_another_process_may_replace_it(self, model):
        encoder = load(model)
        before = encoder.encode(["the duck"])
        other = model / "new.safetensors"
        save_file({"embeddings": -load_file(model / "model.safetensors")["embeddings"]}, other)
        other.replace(model / "model.safetensors")
        assert (encoder.encode(["the duck"]) == before).all()
        assert np.abs(load(model).encode(["the duck"]) + before).max() < 1e-6


TOKENS = bert().get_vocab_size()


def spoilt(number, dtype):
    vectors = random(TOKENS, 32, dtype=dtype)
    vectors[5, 7] = number
    return vectors


TENSORS = {
    "one dimension": ({"embeddings": random(TOKENS)}, "are no table of vectors: 'embeddings' has the shape"),
    "three dimensions": ({"embeddings": random(TOKENS, 4, 8)}, "are no table of vectors"),
    "no dimensions": ({"embeddings": random(TOKENS, 0)}, "are no table of vectors"),
    "no rows": ({"embeddings": random(0, 32)}, "are no table of vectors"),
    "too many dimensions": ({"embeddings": random(1, 65_537)}, "are no table of vectors.* at most 65,536"),
    "whole numbers": ({"embeddings": np.ones((TOKENS, 32), np.int64)}, "'embeddings' in I64, which is not supported"),
    "other names": ({"embeddings": None, "x": random(TOKENS, 32)}, "neither 'embeddings' nor 'embedding.weight'.* x"),
    "too few rows": ({"embeddings": random(TOKENS - 1, 32)}, "does not fit its weights: it has token ids up to"),
    "too few weights": ({"weights": random(TOKENS - 1)}, "does not fit its weights"),
    "no weights": ({"weights": random(0)}, "does not fit its weights"),
    "weights in a matrix": ({"weights": random(TOKENS, 1)}, "'weights' has the shape .* one number for each token"),
    "weights of texts": ({"weights": np.ones(TOKENS, np.uint8)}, "'weights' in U8"),
    "too short a mapping": ({"mapping": np.zeros(TOKENS - 1, np.int32)}, "does not fit its weights"),
    "a mapping below": ({"mapping": np.full(TOKENS, -1)}, "'mapping' names rows from -1 to -1"),
    "a mapping above": ({"mapping": np.full(TOKENS, TOKENS)}, f"'embeddings' has {TOKENS}"),
    "a mapping in a matrix": ({"mapping": np.zeros((TOKENS, 1), np.int32)}, "'mapping' has the shape"),
    "a mapping of fractions": ({"mapping": np.zeros(TOKENS, np.float32)}, "'mapping' in F32"),
    "NaN": ({"embeddings": spoilt(np.nan, "f4")}, "are damaged"),
    "infinite": ({"embeddings": spoilt(-np.inf, "f2")}, "are damaged"),
    "too large": ({"embeddings": np.full((TOKENS, 32), 1e300)}, "are damaged.* too large"),
    "NaN among weights": ({"weights": np.full(TOKENS, np.nan, np.float32)}, "'weights' has numbers that are none"),
}  # fmt: skip


class TestHostile:
    """Each is refused when it is loaded; what the header says shows in a listing, too."""

    @pytest.mark.parametrize("kind", TENSORS)
    def test_tensors(self, model, kind):
        tensors, message = TENSORS[kind]
        change(model, **tensors)
        with pytest.raises(ModelError, match=f"(?s){message}"):
            load(model)

    @pytest.mark.parametrize("max_length", [0, -1, 1.5, True, "512", [5], 1 << 40])
    def test_max_length(self, model, max_length):
        (model / "config.json").write_text(json.dumps({"max_length": max_length}))
        with pytest.raises(ModelError, match="has max_length = .* must be a whole number above 0"):
            load(model)
        assert look_at(Found("m", None, model, "directory")).error

    @pytest.mark.parametrize(
        ("modules", "message"),
        [
            ([{"path": "."}, {"type": "x.Dense", "path": "1_Dense"}], "has the modules StaticEmbedding, Dense; after"),
            ([{"path": ".."}], "names a folder outside itself"),
            ([{"path": "/etc"}], "names a folder outside itself"),
            ([{"path": "nowhere"}], "has no folder"),
            ([{"path": "out"}], "is a link that leads out of the model"),
            ([{}], "malformed"),
            ([{"path": "."}, {}], "malformed"),
            ([{"path": "."}, "Normalize"], "malformed"),
        ],
    )
    def test_modules(self, model, tmp_path, modules, message):
        shutil.copytree(model, tmp_path / "elsewhere")
        (model / "out").symlink_to(tmp_path / "elsewhere")
        modules[0]["type"] = "sentence_transformers.models.StaticEmbedding"
        (model / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ModelError, match=message):
            load(model)
        assert look_at(Found("m", None, model, "directory")).error

    @pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "modules.json"])
    def test_no_files(self, model, tmp_path, file):
        elsewhere = (model / file).rename(tmp_path / "elsewhere")
        for spoil in (os.mkfifo, lambda path: path.symlink_to(elsewhere), lambda path: path.write_text("[" * 100_000)):
            spoil(model / file)
            with pytest.raises(ModelError):
                load(model)
            (model / file).unlink()

    @pytest.mark.parametrize("size", [0, 7, 100, -1_000, 1 << 40])
    def test_a_file_of_another_size(self, model, size):
        with (model / "model.safetensors").open("r+b") as file:
            file.truncate(size if size >= 0 else file.seek(0, os.SEEK_END) + size)
        with pytest.raises(ModelError, match="cannot be read|and more than"):
            load(model)
        assert look_at(Found("m", None, model, "directory")).error

    @pytest.mark.parametrize(
        "entry",
        [
            {"dtype": "F32", "shape": [1 << 40, 32], "data_offsets": [0, 1 << 47]},
            {"dtype": "F32", "shape": [TOKENS, 32], "data_offsets": [-128, TOKENS * 128]},
            {"dtype": "F32", "shape": [TOKENS, 32], "data_offsets": [1 << 62, 1 << 63]},
            {"dtype": "F32", "shape": [TOKENS, -32], "data_offsets": [0, TOKENS * 128]},
            {"dtype": "F99", "shape": [TOKENS, 32], "data_offsets": [0, TOKENS * 128]},
        ],
    )
    def test_a_header_that_lies(self, model, entry):
        header = json.dumps({"embeddings": entry}).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(TOKENS * 128)
        (model / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            load(model)

    def test_only_pickled_weights(self, model):
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
        with pytest.raises(ModelError, match="no safetensors weights .* convert them: python -c"):
            load(model)

    def test_a_tokenizer_that_explodes(self, model):
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        tokenizer.normalizer = normalizers.Replace(Regex("(a+)+$"), "b")
        tokenizer.save(str(model / "tokenizer.json"))
        with pytest.raises(ModelError, match="may take unbounded time"):
            load(model)

    def test_a_tokenizer_without_tokens(self, model):
        Tokenizer(models.BPE()).save(str(model / "tokenizer.json"))
        with pytest.raises(ModelError, match="has no tokens"):
            load(model)

    def test_a_pattern_that_takes_too_long_fails_its_text(self, model):
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        tokenizer.normalizer = normalizers.Replace(Regex("a?" * 30 + "a" * 30 + "b"), "b")
        tokenizer.save(str(model / "tokenizer.json"))
        encodings = load(model).encode_rows(["water", "a" * 1000], "document", ignore)
        assert encodings.failed.tolist() == [False, True]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"truncate_dim": -5}, "has truncate_dim = -5"),
            ({"truncate_dim": "8"}, "has truncate_dim = '8'"),
            ({"prompts": {"query": 5}}, "has prompts that are no texts"),
            ({"prompts": ["a"]}, "malformed"),
        ],
    )
    def test_settings(self, model, settings, message):
        change(model, embeddings=None, **{"embedding.weight": random(TOKENS, 32)})
        (model / "config_sentence_transformers.json").write_text(json.dumps(settings))
        with pytest.raises(ModelError, match=message):
            load(model)

    @pytest.mark.parametrize("truncation", [{"max_length": 0}, {"max_length": -1}, {"max_length": 1 << 62}])
    def test_a_tokenizer_that_cuts_everything(self, model, truncation):
        change(model, embeddings=None, **{"embedding.weight": random(TOKENS, 32)})
        whole = json.loads((model / "tokenizer.json").read_text())
        whole["truncation"] = {"direction": "Right", "strategy": "LongestFirst", "stride": 0, **truncation}
        (model / "tokenizer.json").write_text(json.dumps(whole))
        with pytest.raises(ModelError, match="has max_length"):
            load(model)
