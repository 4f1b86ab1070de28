"""A model's tensors, memory-mapped from safetensors files and checked when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from jammi_duck.encoder.config_check import check_size, checked
from jammi_duck.encoder.description import WEIGHTS, WEIGHTS_INDEX, TransformerDescription, hidden_size
from jammi_duck.encoder.model_files import read_json
from jammi_duck.errors import ModelError

# The names of a norm's tensors in older checkpoints.
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


class Weights:
    """The tensors of one folder, in one file or in the shards that an index lists."""

    def __init__(self, folder: Path, model: str, name: str = WEIGHTS) -> None:
        """Open the file of this name, or its shards; `model` is the model's name in messages.

        Raises:
            ModelError: a file is missing, truncated, or not safetensors.
        """
        self._model = model
        self._files: dict[str, Any] = {}
        for path in _files(folder, model, name):
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ModelError(f"the weights of '{model}' cannot be read: '{path}': {error}") from error
            self._files.update(dict.fromkeys(file.keys(), file))  # type: ignore[no-untyped-call]
        self._prefix = ""

    def below(self, prefixes: tuple[str, ...], sign: str) -> None:
        """Use the first of `prefixes` that has a tensor called `sign`, or no prefix if none has."""
        self._prefix = next((prefix for prefix in prefixes if prefix + sign in self._files), "")

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape in float32; if the file has float32, it is mapped and not copied.

        Raises:
            ModelError: it does not exist, or has another shape.
        """
        found = self._found(name)
        if found not in self._files:
            raise ModelError(f"the weights of '{self._model}' do not fit its config.json: there is no '{name}'")
        tensor: Tensor = self._files[found].get_tensor(found)
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"the weights of '{self._model}' do not fit its config.json: '{name}' is {list(tensor.shape)}, "
                f"not {list(shape)}"
            )
        if not tensor.is_floating_point():
            raise ModelError(
                f"the weights of '{self._model}' are quantized ('{name}' is {tensor.dtype}): not supported"
            )
        return tensor.float()

    def _found(self, name: str) -> str:
        found = self._prefix + name
        if found not in self._files:
            for new, old in _OLD_NAMES.items():
                if found.endswith(new) and found.removesuffix(new) + old in self._files:
                    return found.removesuffix(new) + old
        return found


def products_of_token(config: Mapping[str, Any]) -> int:
    """About how many products a token takes in the layers, which have some 12 weights for each pair of hidden units."""
    layers = config.get("num_hidden_layers") or config.get("n_layers") or 1
    return 12 * (hidden_size(config) or 1) ** 2 * int(layers)


def read_model(description: TransformerDescription) -> tuple[dict[str, Any], Weights]:
    """The config.json of a model, and its weights, which are large enough for it.

    Raises:
        ModelError: they cannot be read, or do not fit each other.
    """
    path, name = description.path, description.name
    config = checked(read_json(path / "config.json"), name)
    weights = Weights(path, name)
    check_size(config, sum(file.stat().st_size for file in path.glob("*.safetensors")), name)
    return config, weights


def _files(folder: Path, model: str, name: str) -> list[Path]:
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
