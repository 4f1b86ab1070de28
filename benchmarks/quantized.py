"""The exported model in int8, as the tools of the rivals make it; written once, beside it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import packages
from benchmarks.export import exported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder.description import ModelDescription

    Inputs = dict[str, NDArray[np.int64]]

CALIBRATED_ON = 300


def dynamic(model: ModelDescription) -> Path:
    """For ONNX Runtime, by its `quantize_dynamic`: products in int8, weights by channel, the rest in float32."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = exported(model) / "model.onnx"

    def make(target: Path) -> None:
        quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)

    return _kept(source.with_name("dynamic-int8"), "model.onnx", make)


def calibrated(model: ModelDescription, tokenize: Callable[[list[str]], Inputs]) -> Path:
    """For OpenVINO, by nncf as for transformers, with activations as a seeded sample of descriptions has them.

    `tokenize` gives the ids and the mask of some texts.
    """
    import nncf
    import openvino

    source = exported(model) / "model.onnx"

    def make(target: Path) -> None:
        texts = random.Random(3).sample(sorted(set(packages("description"))), CALIBRATED_ON)
        sample = nncf.Dataset([tokenize([text]) for text in texts])
        whole = openvino.Core().read_model(source)
        kind = nncf.ModelType.TRANSFORMER
        with contextlib.redirect_stdout(sys.stderr):
            made = nncf.quantize(whole, sample, model_type=kind, subset_size=CALIBRATED_ON)
        openvino.save_model(made, target, compress_to_fp16=False)

    return _kept(source.with_name(f"nncf-{nncf.__version__}-int8"), "model.xml", make)


def _kept(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A file in a folder, which is made if it is not there."""
    if not folder.exists():
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
        make(unfinished / name)
        os.rename(unfinished, folder)
    return folder / name
