"""Exports the default model as an ONNX file, for the rivals that need one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
import transformers

from jammi_duck.encoder.description import ModelDescription


def exported(model: ModelDescription) -> Path:
    """A folder with the model as model.onnx and what fastembed reads beside it; written once, in the temporary folder.

    The exporter that traces, on plain attention: its graphs run a little faster in both runtimes than those of the
    newer exporter, or of fused attention.
    """
    versions = f"torch-{torch.__version__}-transformers-{transformers.__version__}"
    folder = Path(tempfile.gettempdir(), "jammi-duck-benchmark", f"{model.path.parent.name}-{versions}")
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    _export(model, unfinished / "model.onnx")
    for file in ("config.json", "tokenizer.json", "special_tokens_map.json"):
        shutil.copy(model.path / file, unfinished)
    settings = json.loads((model.path / "tokenizer_config.json").read_text())
    settings["model_max_length"] = model.max_tokens
    (unfinished / "tokenizer_config.json").write_text(json.dumps(settings))
    os.rename(unfinished, folder)
    return folder


def _export(model: ModelDescription, file: Path) -> None:
    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformers.AutoModel.from_pretrained(
                model.path, dtype=torch.float32, attn_implementation="eager"
            )

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)

    ids, mask = torch.randint(1000, 2000, (3, 17)), torch.ones(3, 17, dtype=torch.long)
    mask[1, 9:] = 0
    inputs = ["input_ids", "attention_mask"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Pooled().eval(),
            (ids, mask),
            file,
            input_names=inputs,
            output_names=["sentence_embedding"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in inputs},
            opset_version=17,
            dynamo=False,
        )
