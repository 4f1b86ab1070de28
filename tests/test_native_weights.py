"""Weights that are damaged, foreign or hostile end in an error that names them, or in vectors, and never in a crash."""

import functools
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jammi_duck.encoder.description import describe
from jammi_duck.encoder.native import library, mapped_weights
from jammi_duck.encoder.native.engine import NotCovered, native_engine, why_not_covered
from jammi_duck.encoder.native.mapped_weights import MappedWeights
from jammi_duck.errors import ModelError
from tests import models
from tests.engines import VARIANTS, Native, forced, refused, texts_for
from tests.models import change_tensors, save

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no native engine: {library.why_not()}")


@pytest.fixture(scope="module")
def plain(families, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return functools.cache(lambda name: save(families[name], folder / name))


def damaged(path, precision="float32"):
    with pytest.raises(ModelError) as caught:
        native_engine(describe(path, "m"), precision)
    return str(caught.value)


class TestHostileWeights:
    @pytest.fixture
    def copy(self, plain, tmp_path):
        return shutil.copytree(plain("bert"), tmp_path / "model")

    @pytest.mark.parametrize("kind", ["cut short", "another shape", "without a tensor"])
    def test_is_told_as_torch_tells_it(self, copy, kind):
        from jammi_duck.encoder.torch_engine.engine import TorchEngine
        from jammi_duck.encoder.torch_engine.linear import Placement

        change, words = models.BROKEN[kind]
        change(copy)
        told = damaged(copy)
        assert re.search(words, told.lower())
        with pytest.raises(ModelError) as theirs:
            TorchEngine(describe(copy, "m"), Placement(torch.device("cpu"), torch.float32))
        assert told == str(theirs.value)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.uint8])
    def test_quantized(self, copy, dtype):
        change_tensors(copy, lambda tensors: tensors.update({models.TENSOR: tensors[models.TENSOR].to(dtype)}))
        assert damaged(copy) == f"the weights of 'm' are quantized ('{models.TENSOR}' is {dtype}): not supported"

    def test_a_type_that_is_not_read(self, copy):
        half = torch.float8_e4m3fn
        change_tensors(copy, lambda tensors: tensors.update({models.TENSOR: tensors[models.TENSOR].to(half)}))
        assert refused(copy) == f"'{models.TENSOR}' is F8_E4M3"

    def test_a_shard_that_is_missing(self, plain, tmp_path):
        path = shutil.copytree(plain("roberta"), tmp_path / "model")
        shard = min(path.glob("model-*.safetensors"))
        shard.unlink()
        assert damaged(path) == f"the weights of 'm' are not all there: '{shard.name}' is missing in '{path}'"

    @pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd"])
    def test_a_shard_elsewhere(self, plain, tmp_path, name):
        path = shutil.copytree(plain("roberta"), tmp_path / "model")
        index = json.loads((path / "model.safetensors.index.json").read_text())
        index["weight_map"] = dict.fromkeys(index["weight_map"], name)
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "are not all there" in damaged(path)

    def test_nothing_is_copied_to_see_whether_a_model_is_covered(self, copy, monkeypatch):
        change_tensors(copy, lambda tensors: tensors.update({name: each.double() for name, each in tensors.items()}))
        monkeypatch.setattr(mapped_weights.Tensor, "readable", lambda _: pytest.fail("copied"))
        assert why_not_covered(describe(copy, "m")) is None

    def test_tensors_at_odd_addresses(self, copy, plain):
        whole = (copy / "model.safetensors").read_bytes()
        size = int.from_bytes(whole[:8], "little")
        chosen = texts_for(copy, 40)
        for shift in (1, 2, 3):
            header = whole[8 : 8 + size] + b" " * shift
            (copy / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + size :])
            for precision in ("float32", library.best_precision()):
                found = Native(copy, precision).encode(chosen)
                assert np.array_equal(found, Native(plain("bert"), precision).encode(chosen))

    def test_another_file_than_the_one_that_was_checked(self, copy, monkeypatch):
        """It is replaced between the check and the mapping."""
        whole = (copy / "model.safetensors").read_bytes()
        opened = mapped_weights.safe_open

        def replacing(path, framework):
            file = opened(path, framework=framework)
            Path(path).write_bytes(whole[:-50_000])
            return file

        monkeypatch.setattr(mapped_weights, "safe_open", replacing)
        assert "does not lie within the file" in damaged(copy)

    def test_headers_of_no_sense(self, copy):
        """Bytes of the header are changed at random: what is refused is told, and what is taken is computed."""
        file = copy / "model.safetensors"
        whole, chance = file.read_bytes(), random.Random(9)
        size = int.from_bytes(whole[:8], "little")
        outcomes = {"taken": 0, "refused": 0}
        for _ in range(400):
            changed = bytearray(whole)
            for _ in range(chance.choice((1, 1, 2, 5))):
                place = chance.randrange(8 + size) if chance.random() < 0.95 else chance.randrange(8)
                changed[place] = chance.choice(b'0123456789[]{},":-FIBU') if place >= 8 else chance.randrange(256)
            file.write_bytes(changed)
            try:
                Native(copy).encode(["duck"])
                outcomes["taken"] += 1
            except (ModelError, NotCovered):
                outcomes["refused"] += 1
        assert outcomes["refused"] > 300

    def test_files_that_end_anywhere(self, copy):
        file = copy / "model.safetensors"
        whole, chance = file.read_bytes(), random.Random(9)
        for end in [0, 1, 7, 8, 9, *(chance.randrange(len(whole)) for _ in range(60))]:
            file.write_bytes(whole[:end])
            assert damaged(copy)

    def test_a_tensor_without_numbers(self, tmp_path):
        save_file({"none": torch.zeros(0, 4), "one": torch.zeros(())}, tmp_path / "model.safetensors")
        weights = MappedWeights(tmp_path, "m")
        assert weights.take("none", 0, 4).floats().shape == (0, 4)
        assert weights.take("one").floats().shape == ()

    @pytest.mark.parametrize("huge", [float("nan"), float("inf"), 1e38, -3e38, 1e-44])
    def test_numbers_of_no_sense(self, copy, huge):
        """They end in vectors that are no numbers, or in any vectors, and in no crash."""
        change_tensors(
            copy,
            lambda tensors: [
                tensor.view(-1)[::3].fill_(huge) for tensor in tensors.values() if tensor.is_floating_point()
            ],
        )
        for kernels, precision in VARIANTS:
            with forced(kernels):
                Native(copy, precision).encode(["duck", "water " * 50])
