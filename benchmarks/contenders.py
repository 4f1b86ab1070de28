"""The systems that benchmarks.encode compares, each as a function from texts to L2-normalised vectors.

Nothing is imported before it is needed: what a contender imports is part of its start. The rivals are in
benchmarks/requirements.txt. Those that run an ONNX file all run the same one, with pooling and normalisation in its
graph, in batches of consecutive texts: who gives them texts sorted by length spares them the padding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.types import Role, Vectors

    Batch = tuple[NDArray[np.int64], NDArray[np.int64]]

BATCH = 32

Encode = Callable[[Sequence[str]], "Vectors"]


@cache
def default_model() -> ModelDescription:
    """What all contenders load."""
    from jammi_duck.config.options import DEFAULT_MODEL
    from jammi_duck.encoder.description import describe
    from jammi_duck.encoder.names import find

    found = find(DEFAULT_MODEL)
    return describe(found.path, found.name, found.revision)


class Own(NamedTuple):
    """How one of ours is set up; `kernels` are those that the native engine is held to."""

    engine: str
    precision: str
    kernels: str | None = None


AUTO = "auto"
NATIVE_BFLOAT16, NATIVE_FLOAT32, NATIVE_INT8 = "native bfloat16", "native float32", "native int8"
NATIVE_AVX2 = "native float32, AVX2"
TORCH_BFLOAT16, TORCH_FLOAT32 = "torch bfloat16", "torch float32"
OWN = {
    NATIVE_BFLOAT16: Own("native", "bfloat16"),
    NATIVE_FLOAT32: Own("native", "float32"),
    NATIVE_INT8: Own("native", "int8"),
    NATIVE_AVX2: Own("native", "float32", "avx2"),
    TORCH_BFLOAT16: Own("torch", "bfloat16"),
    TORCH_FLOAT32: Own("torch", "float32"),
    AUTO: Own("auto", "auto"),
}


def ours(name: str, role: Role = "document") -> Encode:
    """One of OWN: this project's encoder of its default model, on the CPU. The kernels are held for the whole process.

    Raises:
        JammiError: this engine, precision or these kernels cannot be had here.
    """
    from jammi_duck.config.options import DEFAULT_MODEL
    from jammi_duck.encoder.loaded import LoadedEncoders
    from jammi_duck.encoder.native.library import VARIABLE
    from jammi_duck.errors import ConfigError

    engine, precision, kernels = OWN[name]
    if kernels:
        os.environ[VARIABLE] = kernels
    encoder = LoadedEncoders(BATCH, 3, precision=precision, device=-1, engine=engine).get(DEFAULT_MODEL)
    found = encoder.identity.precision
    if precision not in (AUTO, found):
        raise ConfigError(f"it is computed in {found}")
    return lambda texts: encoder.encode(texts, role)


def sentence_transformers(model: ModelDescription | Path) -> Encode:
    """`SentenceTransformer.encode` in float32; it sorts by length itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    path = model if isinstance(model, Path) else model.path
    loaded = SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": torch.float32})

    def encode(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = loaded.encode(
            list(texts), batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True
        )
        return vectors

    return encode


def onnx_runtime(model: ModelDescription) -> Encode:
    """ONNX Runtime in float32, as it comes."""
    import onnxruntime

    from benchmarks.export import exported

    return _in_onnx_runtime(onnxruntime, exported(model) / "model.onnx", model)


def onnx_runtime_avx2(model: ModelDescription) -> Encode:
    """ONNX Runtime in float32, held to AVX2."""
    from benchmarks.export import exported
    from benchmarks.held import onnxruntime_of_avx2

    return _in_onnx_runtime(onnxruntime_of_avx2(), exported(model) / "model.onnx", model)


def onnx_runtime_int8(model: ModelDescription) -> Encode:
    """ONNX Runtime with dynamic int8."""
    import onnxruntime

    from benchmarks import quantized

    return _in_onnx_runtime(onnxruntime, quantized.dynamic(model), model)


def _in_onnx_runtime(onnxruntime: ModuleType, file: Path, model: ModelDescription) -> Encode:
    import numpy as np

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    tokenizer = model_tokenizer(model)

    def encode(texts: Sequence[str]) -> Vectors:
        pairs = _batches(tokenizer, texts)
        return np.concatenate([session.run(None, {"input_ids": ids, "attention_mask": mask})[0] for ids, mask in pairs])

    return encode


def fastembed(model: ModelDescription) -> Encode:
    """The library fastembed on the exported file, by its support for models of one's own."""
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    from benchmarks.export import exported

    name = "exported-for-the-benchmark"
    TextEmbedding.add_custom_model(
        name,
        pooling=PoolingType.DISABLED,
        normalization=False,
        sources=ModelSource(url="http://localhost/not-used"),
        dim=model.dimensions,
        model_file="model.onnx",
    )
    loaded = TextEmbedding(name, specific_model_path=str(exported(model)), providers=["CPUExecutionProvider"])

    def encode(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = np.array(list(loaded.embed(texts, batch_size=BATCH)))
        return vectors

    return encode


def openvino(
    model: ModelDescription, precision: Literal["f32", "bf16", "int8"], hint: Literal["LATENCY", "THROUGHPUT"]
) -> Encode:
    """OpenVINO: one batch at a time on all cores (LATENCY), or several batches side by side (THROUGHPUT).

    What is not in int8 is then in bfloat16, where that is faster.
    """
    import numpy as np
    from openvino import AsyncInferQueue, Core

    tokenizer = model_tokenizer(model)
    options: dict[str, str] = {"PERFORMANCE_HINT": hint}
    if precision == "int8":
        from benchmarks import quantized

        def inputs(texts: list[str]) -> dict[str, NDArray[np.int64]]:
            return dict(zip(("input_ids", "attention_mask"), next(_batches(tokenizer, texts)), strict=True))

        file = quantized.calibrated(model, inputs)
    else:
        from benchmarks.export import exported

        file = exported(model) / "model.onnx"
        options["INFERENCE_PRECISION_HINT"] = precision
    compiled = Core().compile_model(file, "CPU", options)
    # A queue of one request is the same as calling it in a loop.
    queue = AsyncInferQueue(compiled, 1 if hint == "LATENCY" else 0)

    def encode(texts: Sequence[str]) -> Vectors:
        outputs: dict[int, Vectors] = {}
        queue.set_callback(lambda request, at: outputs.update({at: request.get_output_tensor(0).data.copy()}))
        for at, (ids, mask) in enumerate(_batches(tokenizer, texts)):
            queue.start_async({0: ids, 1: mask}, at)
        queue.wait_all()
        return np.concatenate([outputs[at] for at in sorted(outputs)])

    return encode


def model_tokenizer(model: ModelDescription) -> Tokenizer:
    """The model's tokenizer, cutting where sentence-transformers cuts, and not padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_tokens)
    return tokenizer


def _batches(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Batch]:
    """Ids and mask of each batch, padded to its longest text."""
    import numpy as np

    sequences = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    for start in range(0, len(sequences), BATCH):
        batch = sequences[start : start + BATCH]
        ids = np.zeros((len(batch), max(map(len, batch))), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        yield ids, mask


SENTENCE_TRANSFORMERS = "sentence-transformers"
ONNX_AVX2, ONNX_INT8, OPENVINO_INT8 = "ONNX Runtime float32, AVX2", "ONNX Runtime dynamic int8", "OpenVINO int8"
RIVALS: dict[str, Callable[[ModelDescription], Encode]] = {
    SENTENCE_TRANSFORMERS: sentence_transformers,
    "ONNX Runtime float32": onnx_runtime,
    ONNX_AVX2: onnx_runtime_avx2,
    ONNX_INT8: onnx_runtime_int8,
    "fastembed float32": fastembed,
    "OpenVINO bfloat16": partial(openvino, precision="bf16", hint="LATENCY"),
    "OpenVINO bfloat16, hint THROUGHPUT": partial(openvino, precision="bf16", hint="THROUGHPUT"),
    "OpenVINO float32": partial(openvino, precision="f32", hint="LATENCY"),
    OPENVINO_INT8: partial(openvino, precision="int8", hint="LATENCY"),
    f"{OPENVINO_INT8}, hint THROUGHPUT": partial(openvino, precision="int8", hint="THROUGHPUT"),
}
