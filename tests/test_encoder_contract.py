"""What every encoder keeps to, whatever makes its vectors."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jammi_duck.embeddings import get_registry
from jammi_duck.encoder import LocalEncoder
from jammi_duck.encoder.images.places import PictureLimits
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.passages import Cutter, embedded_text, resolve_rule
from jammi_duck.types import Definition
from jammi_duck.work.generate import Request, define
from tests.clip_models import data, picture
from tests.endpoint import Endpoint
from tests.fakes import FakeEncoder

TEXTS = ["the duck", "water", "the water of the duck", "duck 1, duck 2", "the duck"]


def ignore(done):
    pass


class EncoderContract:
    """A kind of encoder inherits this, and gives one as `encoder`; its vectors may differ by `tolerance`."""

    tolerance = 1e-5
    texts = TEXTS

    def test_says_what_decides_its_vectors(self, encoder):
        assert encoder.identity.name
        assert encoder.dimensions > 0
        definition = define(Request("t", ("text",), "id", "m"), encoder.identity, encoder.dimensions)
        assert Definition.from_json(definition.to_json()) == definition

    @pytest.mark.parametrize("role", ["document", "query"])
    def test_gives_unit_vectors_in_the_order_of_the_texts(self, encoder, role):
        vectors = encoder.encode(self.texts, role)
        assert (vectors.dtype, vectors.shape) == (np.float32, (len(self.texts), encoder.dimensions))
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-4
        for text, vector in zip(self.texts, vectors, strict=True):
            assert np.abs(encoder.encode([text], role)[0] - vector).max() <= self.tolerance

    def test_no_texts_are_no_vectors(self, encoder):
        assert encoder.encode([]).shape == (0, encoder.dimensions)

    def test_says_what_became_of_each_text(self, encoder):
        done = []
        encodings = encoder.encode_rows(self.texts, "document", done.append)
        assert np.abs(encodings.vectors - encoder.encode(self.texts)).max() <= self.tolerance
        assert encodings.failed.tolist() == [False] * len(self.texts)
        assert encodings.truncated.shape == (len(self.texts),)
        assert 1 <= sum(done) <= len(self.texts)

    def test_reads_all_of_each_passage(self, encoder):
        if encoder.takes_images:
            pytest.skip("pictures are not cut")
        text = "".join(f"The duck {i} of the water, duck. " + "\n\n" * (i % 3) for i in range(60))
        rule = resolve_rule(encoder, None, None, None)
        for title in ("", "the water " * 300):
            cutter = Cutter(encoder, rule)
            cuts = cutter.cut(text, title)
            passages = [text[start:end] for start, end in zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True)]
            assert "".join("".join(passages).split()) == "".join(text.split())
            read = [embedded_text(cutter.title(title), passage) for passage in passages]
            assert not encoder.encode_rows(read, "document", ignore).truncated.any()

    def test_a_progress_that_raises_ends_the_work(self, encoder):
        def stop(_):
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            encoder.encode_rows([f"duck {i}" for i in range(300)], "document", stop)
        assert encoder.encode(self.texts).shape == (len(self.texts), encoder.dimensions)

    def test_threads_share_it(self, encoder):
        stream = encoder.stream()
        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(stream.encode_rows, self.texts, "document", ignore) for _ in range(12)]
        right = encoder.encode(self.texts)
        assert all(np.abs(each.result().vectors - right).max() <= self.tolerance for each in work)


class TestFake(EncoderContract):
    @pytest.fixture
    def encoder(self):
        return FakeEncoder("fake/small")

    def test_is_none_of_files(self, encoder):
        assert not isinstance(encoder, LocalEncoder)
        assert encoder.stream() is encoder


class TestTransformer(EncoderContract):
    @pytest.fixture
    def encoder(self, tiny_model):
        return LoadedEncoders(4, 2, "float32").get(str(tiny_model))

    def test_each_stream_has_a_budget_of_its_own(self, encoder):
        one, other = encoder.stream(), encoder.stream()
        one.budget.tokens //= 2
        assert one.budget.tokens < other.budget.tokens
        assert isinstance(encoder, LocalEncoder)
        assert encoder.budget is None


class TestClip(EncoderContract):
    texts = tuple(data(picture(seed=seed, width=60 + seed)) for seed in (1, 2, 3, 4, 1))

    @pytest.fixture
    def encoder(self, clip, tmp_path):
        return LoadedEncoders(4, 2, "float32", images=PictureLimits([str(tmp_path)])).get(str(clip))

    def test_each_stream_has_a_budget_of_its_own(self, encoder):
        one, other = encoder.stream(), encoder.stream()
        one.budget.tokens //= 2
        assert one.budget.tokens < other.budget.tokens
        assert isinstance(encoder, LocalEncoder)


class TestFunction(EncoderContract):
    @pytest.fixture
    def encoder(self, monkeypatch):
        monkeypatch.setattr(get_registry(), "_own", {})
        get_registry().register_function("sizes", lambda texts: [[1.0, len(text), hash(text) % 7] for text in texts], 3)
        return LoadedEncoders(4, 2).get("sizes")

    def test_is_none_of_files(self, encoder):
        assert not isinstance(encoder, LocalEncoder)
        assert encoder.usage is None


class TestProvider(EncoderContract):
    @pytest.fixture(params=["cached", "not cached"])
    def encoder(self, request, tmp_path):
        path = tmp_path / "vectors.sqlite" if request.param == "cached" else None
        with Endpoint(key=None) as endpoint:
            model = f"openai:any?base_url={endpoint.url('openai')}&batch_size=2&dimensions=16"
            yield LoadedEncoders(4, 2, vectors_path=path).get(model)

    def test_each_stream_counts_for_itself(self, encoder):
        one, other = encoder.stream(), encoder.stream()
        one.encode(["new", "texts", "three"])
        assert (one.usage.requests, other.usage.requests, encoder.usage.requests) == (2, 0, 0)
        other.encode(["new", "texts"])
        assert other.usage.requests == (0 if encoder._cache else 1)
