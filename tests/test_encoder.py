"""The encoder: the vectors of sentence-transformers, out of memory, and where models are found."""

import functools
import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck import EncodingError
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local.batching import Passes, TokenBudget
from jammi_duck.threads import Task, Threads
from tests.conftest import make_tiny_model
from tests.effort import some

GOLDEN = Path(__file__).parent / "golden" / "minilm.json"


def nothing(_):
    pass


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return LoadedEncoders(batch_size=4, most_loaded=2, precision="float32").get(str(tiny_model))


@functools.cache
def several(count):
    return Threads(count, "passes")


def run(sequences, forward, dimensions, budget, at_once=1, chunk=7):
    """Passes over sequences in chunks, each on this thread as soon as it begins; or on others, at once."""
    vectors = np.zeros((len(sequences), dimensions), np.float32)
    numbered = list(enumerate(sequences))
    chunks = [numbered[i : i + chunk] for i in range(0, len(numbered), chunk)]
    done = []
    pool = several(at_once)

    def start(batch, landed):
        task = Task(lambda: forward(batch), landed)
        if at_once > 1:
            pool.start(task)
        else:
            task.run()
        return task

    passes = Passes(start, vectors, budget, is_memory_error, at_once=at_once)
    passes.run(chunks, done.append)
    assert sum(done) == len(sequences)
    return vectors, passes.failed


def by_hand(path, text, pooling):
    """A text's vector by transformers alone: no batch, no padding."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(16)
    model = BertModel.from_pretrained(path).eval()
    with torch.inference_mode():
        hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        vector = hidden[0] if pooling == "cls" else hidden.mean(0)
        return torch.nn.functional.normalize(vector, dim=0).numpy()


class TestParity:
    @pytest.mark.minilm
    def test_all_minilm_gives_the_vectors_of_sentence_transformers(self):
        golden = json.loads(GOLDEN.read_text())
        encoder = LoadedEncoders(32, 3, "float32").get(golden["model"])
        assert (encoder.description.max_tokens, encoder.description.pooling) == (256, "mean")
        texts = [case["text"] for case in golden["texts"].values()]
        expected = np.array([case["vector"] for case in golden["texts"].values()])
        for batch in (texts, texts[::-1][:5][::-1]):
            got = encoder.encode(batch)
            cosine = (got * expected[-len(batch) :]).sum(1) / np.linalg.norm(expected[-len(batch) :], axis=1)
            assert cosine.min() >= 0.999999

    @pytest.mark.parametrize("pooling", ["mean", "cls"])
    def test_pooling(self, tmp_path, pooling):
        path = make_tiny_model(tmp_path / pooling, pooling)
        encoder = LoadedEncoders(4, 2, "float32").get(str(path))
        texts = ["duck", "the water", "a " * 40, "héllo wörld", "x"]
        vectors = encoder.encode(texts)
        for text, vector in zip(texts, vectors, strict=True):
            assert vector == pytest.approx(by_hand(path, text, pooling), abs=1e-5)

    def test_prompts_of_each_role(self, tmp_path, tiny_model):
        path = tmp_path / "prompted"
        shutil.copytree(tiny_model, path)
        prompts = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}
        (path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
        plain, prompted = (LoadedEncoders(4, 3, "float32").get(str(p)) for p in (tiny_model, path))
        assert prompted.encode(["duck"], "query") == pytest.approx(plain.encode(["query: duck"]), abs=1e-6)
        assert prompted.encode(["duck"], "document") == pytest.approx(plain.encode(["passage: duck"]), abs=1e-6)


class TestBatches:
    @given(st.lists(st.text(max_size=40), min_size=1, max_size=30), st.randoms())
    @settings(max_examples=some(40), deadline=None)
    def test_a_vector_is_a_function_of_the_text_alone(self, encoder, texts, chance):
        vectors = dict(zip(texts, encoder.encode(texts), strict=True))
        shuffled = texts + chance.choices(texts, k=3)
        chance.shuffle(shuffled)
        for text, vector in zip(shuffled, encoder.encode(shuffled), strict=True):
            assert vector == pytest.approx(vectors[text], abs=1e-6)

    @given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200), st.integers(1, 3), st.integers(1, 60))
    @settings(deadline=None)
    def test_each_pass_is_within_the_budget_and_nothing_is_lost(self, lengths, tokens, at_once, chunk):
        passes = []

        def forward(batch):
            passes.append((len(batch), sum(map(len, batch))))
            return np.array([[len(sequence), sum(sequence)] for sequence in batch], np.float32)

        sequences = [[i] * length for i, length in enumerate(lengths)]
        vectors, failed = run(sequences, forward, 2, TokenBudget(tokens), at_once, chunk)
        assert vectors.tolist() == [[length, i * length] for i, length in enumerate(lengths)]
        assert not failed.any()
        assert all(rows == 1 or total <= tokens for rows, total in passes)

    def test_truncation_is_told(self, encoder):
        encodings = encoder.encode_rows(["duck", "a " * 14, "a " * 15], "document", nothing)
        assert encodings.truncated.tolist() == [False, False, True]

    def test_equal_texts_are_encoded_once(self, encoder, monkeypatch):
        sizes = []
        forward = type(encoder)._forward
        monkeypatch.setattr(type(encoder), "_forward", lambda self, s, k: sizes.append(len(s)) or forward(self, s, k))
        encoder.encode(["duck", "water"] * 50)
        assert sum(sizes) == 2

    def test_threads_may_share_it(self, encoder):
        texts = [f"word {i} duck" for i in range(40)]
        expected = encoder.encode(texts)
        outcomes = []

        def work():
            outcomes.append(np.abs(encoder.encode(texts) - expected).max())

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 6
        assert max(outcomes) < 1e-6

    def test_an_interrupt_is_heard_between_passes(self, encoder):
        class Stop(Exception):
            pass

        passes = []

        def progress(done):
            passes.append(done)
            if len(passes) == 3:
                raise Stop

        with pytest.raises(Stop):
            encoder.encode_rows([f"{i} text" for i in range(500)], "document", progress)
        assert len(passes) == 3
        assert sum(passes) < 100


class TestQueries:
    @pytest.fixture
    def passes(self, encoder, monkeypatch):
        """How many texts each pass had."""
        passes = []
        forward = type(encoder)._forward
        monkeypatch.setattr(type(encoder), "_forward", lambda self, s, k: passes.append(len(s)) or forward(self, s, k))
        return passes

    def test_recent_ones_are_remembered_and_documents_are_not(self, encoder, passes):
        first = encoder.encode(["remember me", "and me"], "query")
        again = encoder.encode(["and me", "remember me", "and me"], "query")
        assert (again == first[[1, 0, 1]]).all()
        assert sum(passes) == 2
        encoder.encode(["remember me"])
        encoder.encode(["remember me"])
        assert sum(passes) == 4

    def test_what_is_remembered_is_not_the_callers_to_change(self, encoder):
        first = encoder.encode(["mine"], "query")
        kept = first.copy()
        first[:] = 0
        assert (encoder.encode(["mine"], "query") == kept).all()

    def test_only_so_many_are_remembered(self, encoder, passes, monkeypatch):
        from jammi_duck.encoder.local import transformer

        monkeypatch.setattr(transformer, "_RECENT_QUERIES", 2)
        for text in ("one", "two", "one", "three"):
            encoder.encode([text], "query")
        done = sum(passes)
        encoder.encode(["one", "three"], "query")
        assert sum(passes) == done
        encoder.encode(["two"], "query")
        assert sum(passes) == done + 1

    def test_none_at_all(self, encoder):
        assert encoder.encode([], "query").shape == (0, 32)
        assert encoder.encode([]).shape == (0, 32)

    def test_one_goes_before_the_batches_that_wait(self, tiny_model, monkeypatch):
        """The query gets its turn as soon as the pass that runs is done."""
        encoder = LoadedEncoders(1, 3, "float32", threads=1).get(str(tiny_model))
        order, running, go_on = [], threading.Event(), threading.Event()
        forward = type(encoder)._forward

        def slow(self, sequences, skipped):
            order.append(len(sequences[0]))
            running.set()
            go_on.wait(30)
            return forward(self, sequences, skipped)

        monkeypatch.setattr(type(encoder), "_forward", slow)
        documents = threading.Thread(target=encoder.encode, args=([f"a b c d {i}" for i in range(300)],))
        documents.start()
        assert running.wait(30)
        query = threading.Thread(target=encoder.encode, args=(["x"], "query"))
        query.start()
        end = time.monotonic() + 30
        while not encoder._workers._each_on_a_core._urgent:
            assert time.monotonic() < end, "the query did not come to wait"
            time.sleep(0.001)
        go_on.set()
        query.join(30)
        documents.join(30)
        assert order.index(3) <= 2


def is_memory_error(error):
    return isinstance(error, MemoryError)


class TestOutOfMemory:
    def limited(self, most_tokens, passes):
        def forward(batch):
            size = sum(map(len, batch))
            passes.append(size)
            if size > most_tokens:
                raise MemoryError
            return np.array([[sum(sequence)] for sequence in batch], np.float32)

        return forward

    def test_the_budget_is_halved_and_stays_so(self):
        passes = []
        budget = TokenBudget(80)
        sequences = [[i] * 10 for i in range(16)]
        vectors, failed = run(sequences, self.limited(25, passes), 1, budget, chunk=99)
        assert (budget.tokens, budget.halvings_left) == (20, 1)
        assert passes[:3] == [80, 40, 20]
        assert vectors[:, 0].tolist() == [i * 10 for i in range(16)]
        passes.clear()
        run(sequences, self.limited(25, passes), 1, budget, chunk=99)
        assert passes == [20] * 8

    def test_then_text_by_text_and_what_does_not_fit_alone_has_failed(self):
        passes = []
        budget = TokenBudget(1600)
        sequences = [[1] * length for length in (100, 4, 90, 3, 2)]
        vectors, failed = run(sequences, self.limited(50, passes), 1, budget, chunk=99)
        assert failed.tolist() == [True, False, True, False, False]
        assert vectors[:, 0].tolist() == [0, 4, 0, 3, 2]
        assert budget.tokens == 49

    def test_other_errors_are_not_taken_for_it(self):
        def forward(batch):
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            run([[1]], forward, 1, TokenBudget(10))

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
            "torch.OutOfMemoryError",
        ],
    )
    def test_what_the_allocators_raise_is_known(self, encoder, monkeypatch, error):
        import torch

        error = torch.OutOfMemoryError("CUDA out of memory") if isinstance(error, str) else error
        real = type(encoder)._forward

        def forward(self, sequences, skipped):
            if len(sequences) > 1 or len(sequences[0]) > 8:
                raise error
            return real(self, sequences, skipped)

        monkeypatch.setattr(type(encoder), "_forward", forward)
        encodings = encoder.encode_rows(["duck", "water", "a " * 12], "document", nothing)
        assert encodings.failed.tolist() == [False, False, True]
        with pytest.raises(EncodingError, match="could not be embedded: there is not enough memory"):
            encoder.encode(["duck", "a " * 12])

    def test_a_build_goes_on_and_counts_what_failed(self, tiny_model, tmp_path, monkeypatch):
        import duckdb

        import jammi_duck
        from jammi_duck.encoder.local.transformer import TransformerEncoder

        real = TransformerEncoder._forward

        def forward(self, sequences, skipped):
            if len(sequences) * len(sequences[0]) > 40 or len(sequences[0]) > 12:
                raise MemoryError
            return real(self, sequences, skipped)

        monkeypatch.setattr(TransformerEncoder, "_forward", forward)
        con = duckdb.connect()
        jammi = jammi_duck.install(con, storage=tmp_path, model=str(tiny_model))
        con.execute("CREATE TABLE t AS SELECT range AS id, repeat('a ', 1 + range % 14) AS text FROM range(140)")
        built = jammi.generate("t", "text", "id")
        con.close()
        assert (built.row_count, built.failed_count, built.skipped_count) == (100, 40, 0)
