"""The parts of a forward pass: layers with and without torch's private operators, attention at its extremes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck.encoder.loaded import LoadedEncoders, _loaded
from jammi_duck.encoder.torch_engine import linear as kernels
from jammi_duck.encoder.torch_engine.attention import LOG2E, attend, query_scale
from jammi_duck.encoder.torch_engine.linear import ACTIVATIONS, PackedLinear, PlainLinear, packs
from tests.conftest import make_tiny_model
from tests.effort import some

TYPES = [torch.float32, torch.bfloat16]
needs_packing = pytest.mark.skipif(not packs(torch.float32), reason="this torch has no oneDNN operators")


def close(ours, theirs, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(ours.float(), theirs.float(), atol=tolerance, rtol=tolerance)


class TestLinear:
    @needs_packing
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("with_bias", [True, False])
    @given(rows=st.integers(1, 70), inputs=st.integers(1, 40), outputs=st.integers(1, 40))
    @settings(max_examples=some(15), deadline=None)
    def test_packed_layers_give_what_plain_ones_give(self, dtype, with_bias, rows, inputs, outputs):
        if not packs(dtype):
            pytest.skip("not on this CPU")
        random = torch.Generator().manual_seed(rows * 1000 + inputs)
        weight = torch.randn(outputs, inputs, generator=random).to(dtype) / math.sqrt(inputs)
        bias = torch.randn(outputs, generator=random).to(dtype) if with_bias else None
        x = torch.randn(rows, inputs, generator=random).to(dtype)
        other = torch.randn(rows, outputs, generator=random).to(dtype)
        packed, plain = PackedLinear(weight, bias), PlainLinear(weight, bias)
        close(packed(x), plain(x), dtype)
        close(packed.plus(x, other), plain.plus(x, other), dtype)
        close(packed.times(x, other), plain.times(x, other), dtype)
        for activation in ACTIVATIONS:
            close(packed.activated(x, activation), plain.activated(x, activation), dtype)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_without_torchs_private_operators_the_vectors_are_the_same(self, tmp_path, monkeypatch, precision):
        model = str(make_tiny_model(tmp_path / "tiny"))
        texts = ["duck", "the water", "a " * 40, "héllo"]
        usual = LoadedEncoders(4, 2, precision, engine="torch").get(model).encode(texts)
        _loaded.clear()
        kernels.packs.cache_clear()
        tried = []

        class Missing:
            def __init__(self, *_):
                tried.append(1)
                raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

        monkeypatch.setattr(kernels, "PackedLinear", Missing)
        try:
            assert not packs(torch.float32)
            plain = LoadedEncoders(4, 2, precision, engine="torch").get(model).encode(texts)
            assert 1 <= len(tried) <= 2
        finally:
            kernels.packs.cache_clear()
            _loaded.clear()
        assert (usual * plain).sum(1).min() >= (0.999999 if precision == "float32" else 0.9995)


def softmax_attention(qkv, count, length, heads, bias=None):
    """Attention as its formula says, in float64."""
    split = qkv.double().view(count, length, 3, heads, -1)
    q, k, v = (split[:, :, part].transpose(1, 2) for part in range(3))
    scores = q @ k.transpose(2, 3) / LOG2E
    if bias is not None:
        scores = scores + bias.double() / LOG2E
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(count * length, -1)


def random_qkv(random, rows, hidden, width, size, dtype):
    """Queries, keys and values whose scores grow with the square of `size`."""
    qkv = torch.randn(rows, 3 * hidden, generator=random)
    qkv[:, : 2 * hidden] *= size
    qkv[:, :hidden] *= query_scale(width)
    return qkv.to(dtype)


class TestAttention:
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("size", [0.5, 3, 60])
    @pytest.mark.parametrize("biased", [False, True])
    def test_is_softmax_attention_also_where_powers_overflow(self, dtype, size, biased):
        count, length, heads, width = 3, 9, 2, 8
        random = torch.Generator().manual_seed(1)
        qkv = random_qkv(random, count * length, heads * width, width, size, dtype)
        bias = torch.randn(heads, length, length, generator=random).to(dtype) if biased else None
        out = torch.empty(count * length, heads * width, dtype=dtype)
        attend(qkv, count, length, heads, out, bias=bias)
        expected = softmax_attention(qkv, count, length, heads, bias)
        assert torch.isfinite(out).all()
        if dtype == torch.float32:
            torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-3)
        elif size < 60:
            # Scores of thousands in bfloat16 are too coarse to compare; those must only be numbers.
            torch.testing.assert_close(out.double(), expected, atol=0.08, rtol=0.08)

    @pytest.mark.parametrize("dtype", TYPES)
    @given(length=st.integers(1, 70), reach=st.integers(1, 9), count=st.integers(1, 3))
    @settings(max_examples=some(60), deadline=None)
    def test_a_reach_is_a_window(self, dtype, length, reach, count):
        heads, width = 2, 8
        random = torch.Generator().manual_seed(length)
        qkv = random_qkv(random, count * length, heads * width, width, 1, dtype)
        place = torch.arange(length)
        far = (place[None] - place[:, None]).abs() > reach
        window = torch.zeros(1, length, length).masked_fill(far, -math.inf)
        out = torch.empty(count * length, heads * width, dtype=dtype)
        attend(qkv, count, length, heads, out, reach=reach)
        tolerance = 1e-4 if dtype == torch.float32 else 0.08
        expected = softmax_attention(qkv, count, length, heads, window)
        torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)

    def test_long_sequences_take_torchs_own_way_and_agree(self):
        random = torch.Generator().manual_seed(2)
        length = 1100
        qkv = torch.randn(length, 3 * 16, generator=random)
        qkv[:, :16] *= query_scale(8)
        expected = softmax_attention(qkv, 1, length, 2)
        for dtype in TYPES:
            out = torch.empty(length, 16, dtype=dtype)
            attend(qkv.to(dtype), 1, length, 2, out)
            assert np.abs((out.double() - expected).numpy()).max() < (1e-4 if dtype == torch.float32 else 0.05)
