"""What every encoder keeps to, whatever makes its vectors."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jammi_duck.encoder import LocalEncoder, for_stream
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.types import Definition
from jammi_duck.work.generate import Request, define
from tests.fakes import FakeEncoder

TEXTS = ["the duck", "water", "the water of the duck", "duck 1, duck 2", "the duck"]


def ignore(done):
    pass


class EncoderContract:
    """A kind of encoder inherits this, and gives one as `encoder`; its vectors may differ by `tolerance`."""

    tolerance = 1e-5

    def test_says_what_decides_its_vectors(self, encoder):
        assert encoder.identity.name
        assert encoder.dimensions > 0
        definition = define(Request("t", ("text",), "id", "m"), encoder.identity, encoder.dimensions)
        assert Definition.from_json(definition.to_json()) == definition

    @pytest.mark.parametrize("role", ["document", "query"])
    def test_gives_unit_vectors_in_the_order_of_the_texts(self, encoder, role):
        vectors = encoder.encode(TEXTS, role)
        assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), encoder.dimensions))
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-4
        for text, vector in zip(TEXTS, vectors, strict=True):
            assert np.abs(encoder.encode([text], role)[0] - vector).max() <= self.tolerance

    def test_no_texts_are_no_vectors(self, encoder):
        assert encoder.encode([]).shape == (0, encoder.dimensions)

    def test_says_what_became_of_each_text(self, encoder):
        done = []
        encodings = encoder.encode_rows(TEXTS, "document", done.append)
        assert np.abs(encodings.vectors - encoder.encode(TEXTS)).max() <= self.tolerance
        assert encodings.failed.tolist() == [False] * len(TEXTS)
        assert encodings.truncated.shape == (len(TEXTS),)
        assert 1 <= sum(done) <= len(TEXTS)

    def test_a_progress_that_raises_ends_the_work(self, encoder):
        def stop(_):
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            encoder.encode_rows([f"duck {i}" for i in range(300)], "document", stop)
        assert encoder.encode(TEXTS).shape == (len(TEXTS), encoder.dimensions)

    def test_threads_share_it(self, encoder):
        stream = for_stream(encoder)
        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(stream.encode_rows, TEXTS, "document", ignore) for _ in range(12)]
        right = encoder.encode(TEXTS)
        assert all(np.abs(each.result().vectors - right).max() <= self.tolerance for each in work)


class TestFake(EncoderContract):
    @pytest.fixture
    def encoder(self):
        return FakeEncoder("fake/small")

    def test_is_none_of_files(self, encoder):
        assert not isinstance(encoder, LocalEncoder)
        assert for_stream(encoder) is encoder


class TestTransformer(EncoderContract):
    @pytest.fixture
    def encoder(self, tiny_model):
        return LoadedEncoders(4, 2, "float32").get(str(tiny_model))

    def test_each_stream_has_a_budget_of_its_own(self, encoder):
        one, other = for_stream(encoder), for_stream(encoder)
        one.budget.tokens //= 2
        assert one.budget.tokens < other.budget.tokens
        assert isinstance(encoder, LocalEncoder)
        assert encoder.budget is None
