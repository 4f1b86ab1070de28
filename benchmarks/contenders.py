"""The systems that benchmarks.encode compares, each as a function from texts to L2-normalised vectors.

Nothing is imported before it is needed: what a contender imports is part of its start. The rivals are in
benchmarks/requirements.txt. Those that run an ONNX file all run the same one, with pooling and normalisation in its
graph, in batches of consecutive texts: who gives them texts sorted by length spares them the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
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


def ours(precision: str, role: Role = "document") -> Encode:
    """This project's encoder of its default model, on the CPU."""
    from jammi_duck.config.options import DEFAULT_MODEL
    from jammi_duck.encoder.loaded import LoadedEncoders

    encoder = LoadedEncoders(BATCH, 3, precision=precision, device=-1).get(DEFAULT_MODEL)
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
    import numpy as np
    import onnxruntime

    from benchmarks.export import exported

    session = onnxruntime.InferenceSession(exported(model) / "model.onnx", providers=["CPUExecutionProvider"])
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
    model: ModelDescription, precision: Literal["f32", "bf16"], hint: Literal["LATENCY", "THROUGHPUT"]
) -> Encode:
    """OpenVINO: one batch at a time on all cores (LATENCY), or several batches side by side (THROUGHPUT)."""
    import numpy as np
    from openvino import AsyncInferQueue, Core

    from benchmarks.export import exported

    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": hint}
    compiled = Core().compile_model(exported(model) / "model.onnx", "CPU", options)
    # A queue of one request is the same as calling it in a loop.
    queue = AsyncInferQueue(compiled, 1 if hint == "LATENCY" else 0)
    tokenizer = model_tokenizer(model)

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
RIVALS: dict[str, Callable[[ModelDescription], Encode]] = {
    SENTENCE_TRANSFORMERS: sentence_transformers,
    "ONNX Runtime float32": onnx_runtime,
    "fastembed float32": fastembed,
    "OpenVINO bfloat16": partial(openvino, precision="bf16", hint="LATENCY"),
    "OpenVINO bfloat16, hint THROUGHPUT": partial(openvino, precision="bf16", hint="THROUGHPUT"),
    "OpenVINO float32": partial(openvino, precision="f32", hint="LATENCY"),
}
