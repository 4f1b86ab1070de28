"""Runs in the environment of `tools.open_clip`, with open_clip and without anything of ours.

make ARCHITECTURE FOLDER writes a model with random weights; encode FOLDER PLACE has it encode what lies in PLACE.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from PIL import Image


def make(architecture: str, folder: Path) -> None:
    """Write what a repository of open_clip has, but for the tokenizer."""
    torch.manual_seed(11)
    model = open_clip.create_model(architecture)
    with torch.no_grad():
        # The usual beginning has no biases, and positions that hardly show.
        for name, each in model.named_parameters():
            if each.ndim == 1:
                each.add_(0.1 * torch.randn_like(each))
            elif "positional" in name or "embedding" in name:
                each.copy_(torch.randn_like(each) / math.sqrt(each.shape[-1]))
    folder.mkdir(parents=True)
    safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", open_clip.get_model_config(architecture))


def encode(folder: Path, place: Path) -> None:
    """Write the vectors of texts and pictures, the pixels and the tokens, to made.npz."""
    name = f"local-dir:{folder}"
    model: Any = open_clip.create_model(name, precision="fp32").eval()
    _, prepare = open_clip.create_model_from_pretrained(name, precision="fp32")
    ids = open_clip.get_tokenizer(name)(json.loads((place / "texts.json").read_text()))
    pixels = torch.stack([prepare(Image.open(path)) for path in sorted(place.glob("*.picture"))])
    with torch.inference_mode():
        texts, pictures = model.encode_text(ids, normalize=True), model.encode_image(pixels, normalize=True)
    made = {"texts": texts, "pictures": pictures, "pixels": pixels, "ids": ids}
    np.savez(place / "made.npz", **{key: each.numpy() for key, each in made.items()})


if __name__ == "__main__":
    _, task, first, second = sys.argv
    if task == "make":
        make(first, Path(second))
    else:
        encode(Path(first), Path(second))
