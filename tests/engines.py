"""A model in each of our engines and in sentence-transformers, and how far their vectors may differ."""

import contextlib
import functools
import itertools
import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from jammi_duck.encoder.description import describe
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local.tokens import CuttingTokenizer, Tokenization
from jammi_duck.encoder.native import library, proof
from jammi_duck.encoder.native.engine import NotCovered, native_engine
from tests import models
from tests.models import FAMILIES
from tests.texts import texts

# The families that the native engine computes.
NATIVE_FAMILIES = [family for family in FAMILIES if family != "electra"]
# The lowest cosine to sentence-transformers, and the lowest mean.
LOWEST = {"float32": 0.999999, "bfloat16": 0.9998, "int8": 0.98}
MEAN = {"float32": 0.999999, "bfloat16": 0.9998, "int8": 0.995}
# A cosine does not see what moves a unit vector by less than a thousandth, as another form of GELU does.
DISTANCE = 1e-5

TORCH = [("torch", "float32"), ("torch", "bfloat16")]


def _variants():
    """The kernels and precisions of the native engine that this CPU has."""
    if library.why_not() is None:
        for kernels, precision in itertools.product(enumerate(library.KERNELS), enumerate(library.PRECISIONS)):
            if library.functions().encoder_supports(kernels[0], precision[0]):
                yield kernels[1], precision[1]


VARIANTS = list(_variants())
KERNELS = list(dict.fromkeys(kernels for kernels, _ in VARIANTS))
# The fastest kernels that compute in 8 bits.
INT8 = next((kernels for kernels, precision in VARIANTS[::-1] if precision == "int8"), "")


@contextlib.contextmanager
def forced(kernels):
    """The native engine computes by these kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.VARIABLE, kernels)
        yield


@contextlib.contextmanager
def unproven():
    """No model is refused in int8: models of random weights lose more than trained ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "LEAST_COSINE", -1)
        patch.setattr(proof, "LEAST_MEAN", -1)
        yield


class Native:
    """A model in the native engine, and the tokens of texts."""

    def __init__(self, path, precision="float32"):
        self.description = describe(path, "m")
        self.engine = native_engine(self.description, precision)
        self.tokens = Tokenization(self.description, CuttingTokenizer(self.description))

    def sequences(self, texts, role="document"):
        return self.tokens.tokenize(texts, role)[0]

    def encode(self, texts, role="document", at_once=64):
        sequences = self.sequences(texts, role)
        vectors = np.zeros((len(texts), self.description.dimensions), np.float32)
        places = [place for place, tokens in enumerate(sequences) if tokens]
        for some in (places[first : first + at_once] for first in range(0, len(places), at_once)):
            vectors[some] = self.engine.vectors([sequences[place] for place in some], self.tokens.prompt_tokens(role))
        assert vectors.dtype == np.float32
        return vectors


def by_torch(path, chosen, role="document", precision="float32", batch_size=32):
    """Vectors of the torch engine."""
    vectors = LoadedEncoders(batch_size, 2, precision=precision, engine="torch").get(str(path)).encode(chosen, role)
    assert vectors.dtype == np.float32
    return vectors


def by(engine, path, chosen, role="document", precision="float32"):
    """Vectors of torch, or of the native engine by these kernels."""
    if engine == "torch":
        return by_torch(path, chosen, role, precision)
    with forced(engine), unproven():
        encoder = Native(path, precision)
        assert (encoder.engine.precision, encoder.engine.kernels) == (precision, engine)
        return encoder.encode(chosen, role)


def engines_of(family):
    """Those that compute this family in float32."""
    return ["torch", *(KERNELS if family in NATIVE_FAMILIES else ())]


def load(path):
    """The reference, in float32 whatever the checkpoint is in."""
    return SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": torch.float32})


def reference(path, chosen, role="document", prompt_name=None, threads=1):
    """The vectors of sentence-transformers, made unit vectors as ours are. `prompt_name` goes to `encode`; "" is none.

    The small models are too small for more than one thread, and two wait for each other on a busy machine.
    """
    model = load(path)
    encode = model.encode_query if role == "query" else model.encode_document
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        vectors = encode(chosen) if prompt_name is None else model.encode(chosen, prompt_name=prompt_name or None)
    finally:
        torch.set_num_threads(before)
    return unit(vectors)


def unit(vectors):
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def check(vectors, expected, precision="float32", what=""):
    """They are unit vectors, and as near as this precision allows."""
    assert vectors.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = (unit(vectors) * expected).sum(1)
    print(f"{what} {precision}: lowest {cosines.min():.6f}, mean {cosines.mean():.6f}")
    assert cosines.min() >= LOWEST[precision], what
    assert cosines.mean() >= MEAN[precision], what
    if precision == "float32":
        assert np.linalg.norm(vectors - expected, axis=1).max() <= DISTANCE, what


def same(path, chosen=None, role="document", prompt_name=None):
    """In float32, every engine that computes this family gives what sentence-transformers gives."""
    chosen = texts_for(path) if chosen is None else chosen
    expected = reference(path, chosen, role, prompt_name)
    for engine in engines_of(json.loads((path / "config.json").read_text())["model_type"]):
        check(by(engine, path, chosen, role), expected, what=engine)


def refused(path, precision="float32"):
    """Why the native engine does not cover a model."""
    with pytest.raises(NotCovered) as caught:
        native_engine(describe(path, "m"), precision)
    return str(caught.value)


def texts_for(path, count=120, limit=models.LIMIT):
    """Texts of every kind, many of them longer than the model reads."""
    return texts_by((path / "tokenizer.json").read_text(), count, limit)


@functools.cache
def texts_by(tokenizer, count, limit):
    tokenizer = Tokenizer.from_str(tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return texts(count, lambda text: len(tokenizer.encode(text).ids), limit)


@functools.cache
def case(path, count, limit=models.LIMIT, threads=1):
    """Texts, and what is expected of them."""
    chosen = texts_for(path, count, limit)
    return chosen, reference(path, chosen, threads=threads)
