"""The same models on a CUDA device. Skipped where torch has none."""

import numpy as np
import pytest
import torch

from jammi_duck import ConfigError
from jammi_duck.encoder.loaded import LoadedEncoders
from tests.conftest import make_tiny_model

TEXTS = ["duck", "the water", "a " * 40, "héllo wörld", "x", *(f"{'water ' * (i % 14)}duck {i}" for i in range(100))]


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.9995), ("auto", 0.9995)])
def test_a_gpu_gives_the_vectors_of_the_cpu(tmp_path, pooling, precision, least):
    model = str(make_tiny_model(tmp_path / "tiny", pooling))
    on_cpu = LoadedEncoders(32, 3, "float32", device=-1).get(model).encode(TEXTS)
    encoder = LoadedEncoders(32, 3, precision, device=0).get(model)
    assert (encoder.encode(TEXTS) * on_cpu).sum(1).min() >= least
    assert encoder.description.precision == ("bfloat16" if precision == "auto" else precision)


@pytest.mark.gpu
def test_a_real_shortage_of_memory_on_a_gpu_is_borne(tmp_path):
    model = str(make_tiny_model(tmp_path / "tiny", max_seq_length=64))
    expected = LoadedEncoders(32, 3, "float32", device=-1).get(model).encode(TEXTS)
    encoder = LoadedEncoders(4096, 3, "float32", device=0).get(model)
    _, total = torch.cuda.mem_get_info(0)
    used = torch.cuda.memory_reserved(0)
    torch.cuda.set_per_process_memory_fraction((used + 4_000_000) / total, 0)
    stream = encoder.stream()
    try:
        encodings = stream.encode_rows(TEXTS, "document", lambda _: None)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert stream.budget.halvings_left < 3
    assert not encodings.failed.any()
    assert np.abs(encodings.vectors - expected).max() < 1e-4


def test_a_device_that_is_not_there_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="device is 99, and there are CUDA devices: "):
        LoadedEncoders(4, 2, device=99).get(str(tiny_model))
