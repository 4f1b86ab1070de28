"""Where a model's weights are, and what their tensors are called: the same for every engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from jammi_duck.encoder.description import WEIGHTS_INDEX
from jammi_duck.encoder.model_files import read_json
from jammi_duck.errors import ModelError

# The names of a norm's tensors in older checkpoints.
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def weight_files(folder: Path, model: str, name: str) -> list[Path]:
    """The file of this name, or the shards that the index lists; `model` is the model's name in messages.

    Raises:
        ModelError: a shard is missing, or the index cannot be read.
    """
    if (folder / name).is_file():
        return [folder / name]
    try:
        names = sorted(set(read_json(folder / WEIGHTS_INDEX)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"'{folder / WEIGHTS_INDEX}' cannot be read: {error}") from error
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise ModelError(f"the weights of '{model}' are not all there: '{name}' is missing in '{folder}'")
    return [folder / name for name in names]


def name_in(tensors: Collection[str], name: str) -> str:
    """What a tensor is called among those of a model: as it is today, or as older checkpoints have it."""
    if name not in tensors:
        for new, old in _OLD_NAMES.items():
            if name.endswith(new) and name.removesuffix(new) + old in tensors:
                return name.removesuffix(new) + old
    return name


def misfit(model: str, what: str) -> ModelError:
    """The error that the weights of a model are not those that its config.json says."""
    return ModelError(f"the weights of '{model}' do not fit its config.json: {what}")
