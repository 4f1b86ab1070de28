"""Checks a config.json: it may not name code or cause a download, or ask for more memory than its weights need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jammi_duck.errors import ModelError

# jammi_duck decides which code computes the attention: transformers would download the code that is named here from the
# hub.
_CODE = (
    "_attn_implementation", "_attn_implementation_internal", "_commit_hash", "_experts_implementation",
    "_name_or_path", "attn_implementation", "auto_map", "custom_generate", "custom_pipelines", "dtype",
    "experts_implementation", "hub_kernels", "kernel_config", "torch_dtype", "use_kernels",
)  # fmt: skip
# With these, transformers loads another model from the hub.
_OTHERS = ("backbone", "use_timm_backbone", "use_pretrained_backbone", "timm_config", "quantization_config")
_MOST_LAYERS = 1_000
_MOST_NUMBER = 1 << 31


def checked(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A config.json of the model `name`, without the settings that name code.

    Raises:
        ModelError: it has a number out of the range of real models, or names another model.
    """
    for key, value in _items(config):
        if key in _OTHERS and value:
            raise ModelError(f"the model '{name}' has {key} in its config.json, which is not supported")
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(key, value, name)
    return {key: _without(value) for key, value in config.items() if key not in _CODE}


def check_size(config: Mapping[str, Any], bytes_of_weights: int, name: str) -> None:
    """Raise ModelError if weights of this size cannot contain so many words or layers."""
    hidden = int(config.get("hidden_size", config.get("dim")) or 1)
    for key, each in (("vocab_size", hidden), ("num_hidden_layers", 1), ("intermediate_size", 1), ("hidden_size", 1)):
        size = config.get(key, 0)
        if isinstance(size, int) and size * each > bytes_of_weights:
            raise ModelError(
                f"the weights of '{name}' do not fit its config.json: they are smaller than {key} = {size}"
            )


def _check_number(key: str, value: float, name: str) -> None:
    is_layers = key in ("num_hidden_layers", "n_layers", "num_layers", "n_layer", "encoder_layers", "decoder_layers")
    most = _MOST_LAYERS if is_layers else _MOST_NUMBER
    if not -_MOST_NUMBER <= value <= most:
        raise ModelError(f"the model '{name}' has {key} = {value} in its config.json; at most {most} can be used")


def _items(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of JSON
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _items(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _items(inner)


def _without(value: Any) -> Any:  # noqa: ANN401 - of JSON
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in _CODE}
    return [_without(inner) for inner in value] if isinstance(value, list) else value
