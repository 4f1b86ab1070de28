"""A model's tensors, memory-mapped from safetensors files and checked when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from jammi_duck.encoder.config_check import check_size, checked
from jammi_duck.encoder.description import WEIGHTS, TransformerDescription, hidden_size
from jammi_duck.encoder.local.weight_files import misfit, name_in, weight_files
from jammi_duck.encoder.model_files import read_json
from jammi_duck.errors import ModelError


class Weights:
    """The tensors of one folder, in one file or in the shards that an index lists."""

    def __init__(self, folder: Path, model: str, name: str = WEIGHTS) -> None:
        """Open the file of this name, or its shards; `model` is the model's name in messages.

        Raises:
            ModelError: a file is missing, truncated, or not safetensors.
        """
        self._model = model
        self._files: dict[str, Any] = {}
        for path in weight_files(folder, model, name):
            try:
                file = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ModelError(f"the weights of '{model}' cannot be read: '{path}': {error}") from error
            self._files.update(dict.fromkeys(file.keys(), file))  # type: ignore[no-untyped-call]
        self._prefix = ""

    def below(self, prefix: str, sign: str) -> None:
        """Use the names after `prefix` if there is a tensor called `sign` there; otherwise those of the file."""
        self._prefix = prefix if prefix + sign in self._files else ""

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape in float32; if the file has float32, it is mapped and not copied.

        Raises:
            ModelError: it does not exist, or has another shape.
        """
        found = name_in(self._files, self._prefix + name)
        if found not in self._files:
            raise misfit(self._model, f"there is no '{name}'")
        tensor: Tensor = self._files[found].get_tensor(found)
        if tuple(tensor.shape) != shape:
            raise misfit(self._model, f"'{name}' is {list(tensor.shape)}, not {list(shape)}")
        if not tensor.is_floating_point():
            raise ModelError(
                f"the weights of '{self._model}' are quantized ('{name}' is {tensor.dtype}): not supported"
            )
        return tensor.float()


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
