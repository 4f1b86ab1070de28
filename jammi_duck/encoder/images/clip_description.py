"""The description of a CLIP model, read from the directory that transformers or open_clip wrote, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jammi_duck.encoder.config_check import checked
from jammi_duck.encoder.description import WEIGHTS, WEIGHTS_INDEX, ModelDescription, refuse_other_weights
from jammi_duck.encoder.images.preprocessing import Preprocessing, of_open_clip, of_transformers
from jammi_duck.encoder.model_files import check_files, read_json
from jammi_duck.errors import ModelError

OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_FAMILY = "clip"
# The vector of a text is that of its end token.
_POOLING = "eot"
# Files of transformers with the settings for pictures; the first that is there counts.
_PICTURES = ("preprocessor_config.json", "processor_config.json")
_ACTIVATIONS = ("quick_gelu", "gelu")
# In configurations of before 2023, this stands for the end token, whose id it is not.
_WRONG_END = 2
_TEXT = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}  # fmt: skip
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
# What open_clip may have in a configuration, and does not change the vectors as long as it has these values.
_USUAL = {
    "pool_type": ("argmax", "tok"), "pos_embed_type": ("learnable",), "proj_type": ("linear",),
    "block_type": ("default",),
}  # fmt: skip
_READ = {
    "layers",
    "width",
    "heads",
    "head_width",
    "mlp_ratio",
    "patch_size",
    "image_size",
    "context_length",
    "vocab_size",
}
_PASSING = {"patch_dropout", "pad_id", "eos_id", "init_logit_scale", "cast_dtype", "tokenizer_kwargs"}


@dataclass(frozen=True)
class TowerShape:
    """The sizes of a tower."""

    hidden: int
    layers: int
    heads: int
    inner: int
    activation: str
    eps: float

    @property
    def products(self) -> int:
        """About how many products a token takes."""
        return self.layers * self.hidden * (4 * self.hidden + 2 * self.inner)


@dataclass(frozen=True, kw_only=True)
class ClipDescription(ModelDescription):
    """The facts about a CLIP model that determine its vectors.

    `format` says whose files it has. `end` is the id of the token at which a text ends; None if that is the highest id.
    """

    format: Literal["transformers", "open_clip"]
    text: TowerShape
    vision: TowerShape
    vocabulary: int
    end: int | None
    image_size: int
    patch_size: int
    preprocessing: Preprocessing

    @property
    def picture_tokens(self) -> int:
        """How many tokens a picture has: a patch each, and one for the whole."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def weights_file(self) -> str:
        """The name of the file of weights, which may be in shards."""
        return OPEN_CLIP_WEIGHTS if self.format == "open_clip" else WEIGHTS

    def deciding_files(self) -> list[Path]:
        """See `ModelDescription.deciding_files`: also the settings for pictures."""
        if self.format == "open_clip":
            return [self.path / name for name in (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, "tokenizer.json")]
        return [*super().deciding_files(), *(self.path / name for name in _PICTURES if (self.path / name).is_file())]


def is_clip(path: Path) -> bool:
    """Whether the files in a directory say that they are a CLIP model's, as far as they can be read."""
    if _is_of_open_clip(path):
        return True
    try:
        config = read_json(path / "config.json")
    except ModelError:
        return False
    return isinstance(config, dict) and config.get("model_type") == _FAMILY


def describe_clip(path: Path, name: str, revision: str | None = None) -> ClipDescription:
    """Read the description of the CLIP model in a directory; takes milliseconds. Files of open_clip come first.

    Raises:
        ModelError: a file is missing or cannot be read, or a part of the model is not supported.
    """
    check_files(path, name)
    of_open_clip = _is_of_open_clip(path)
    if not (path / "tokenizer.json").is_file():
        raise ModelError(f"the model '{name}' has no tokenizer.json in '{path}'")
    found = _of_open_clip(path, name, revision) if of_open_clip else _of_transformers(path, name, revision)
    for tower in (found.text, found.vision):
        if min(tower.layers, tower.heads, tower.hidden) < 1:
            raise ModelError(
                f"the model '{name}' has {tower.layers} layers with {tower.heads} heads for {tower.hidden} numbers"
            )
        if tower.hidden % tower.heads or tower.activation not in _ACTIVATIONS:
            raise ModelError(
                f"the model '{name}' has {tower.heads} heads for {tower.hidden} numbers and the activation "
                f"'{tower.activation}', which is not supported"
            )
    if not 0 < found.patch_size <= found.image_size:
        raise ModelError(f"the model '{name}' has patches of {found.patch_size} in pictures of {found.image_size}")
    return found


def _is_of_open_clip(path: Path) -> bool:
    has_config = (path / OPEN_CLIP_CONFIG).is_file()
    return has_config and ((path / OPEN_CLIP_WEIGHTS).is_file() or not (path / "config.json").is_file())


def _of_transformers(path: Path, name: str, revision: str | None) -> ClipDescription:
    config = checked(read_json(path / "config.json"), name)
    if not (path / WEIGHTS).is_file() and not (path / WEIGHTS_INDEX).is_file():
        refuse_other_weights(path, name)
    text, vision = _part(config, "text_config", _TEXT), _part(config, "vision_config", _VISION)
    size, patch = vision["image_size"], vision["patch_size"]
    if vision["num_channels"] != 3 or not isinstance(size, int) or not isinstance(patch, int):
        raise ModelError(f"the model '{name}' takes pictures that are not square or not in RGB, which is not supported")
    end = text["eos_token_id"]
    return ClipDescription(
        name=name,
        revision=revision,
        path=path,
        family=_FAMILY,
        max_tokens=int(text["max_position_embeddings"]),
        lower_case=False,
        dimensions=int(config.get("projection_dim") or 512),
        pooling=_POOLING,
        document_prompt="",
        query_prompt="",
        format="transformers",
        text=_shape(text),
        vision=_shape(vision),
        vocabulary=int(text["vocab_size"]),
        end=None if end == _WRONG_END else int(end),
        image_size=size,
        patch_size=patch,
        preprocessing=of_transformers(_picture_settings(path), size, name),
    )


def _part(config: Mapping[str, Any], key: str, usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a tower. Older files have them twice, and then the second ones count, with their defaults."""
    older = config.get(f"{key}_dict")
    given = {**(config.get(key) or {}), **({**usual, **older} if older else {})}
    return {**usual, **{name: value for name, value in given.items() if value is not None}}


def _shape(settings: Mapping[str, Any]) -> TowerShape:
    return TowerShape(
        hidden=int(settings["hidden_size"]),
        layers=int(settings["num_hidden_layers"]),
        heads=int(settings["num_attention_heads"]),
        inner=int(settings["intermediate_size"]),
        activation=str(settings["hidden_act"]),
        eps=float(settings["layer_norm_eps"]),
    )


def _picture_settings(path: Path) -> dict[str, Any]:
    for name in _PICTURES:
        if (path / name).is_file():
            settings: dict[str, Any] = read_json(path / name)
            return settings.get("image_processor") or settings
    return {}


def _of_open_clip(path: Path, name: str, revision: str | None) -> ClipDescription:
    settings = checked(read_json(path / OPEN_CLIP_CONFIG), name)
    if not (path / OPEN_CLIP_WEIGHTS).is_file():
        raise ModelError(
            f"the model '{name}' has no {OPEN_CLIP_WEIGHTS} in '{path}'; other weights are never read, since loading "
            "them can run code: take a repository or a revision that has them"
        )
    model = settings.get("model_cfg") or {}
    text, vision = model.get("text_cfg") or {}, model.get("vision_cfg") or {}
    _check_usual({key: value for key, value in model.items() if key not in _TOP}, name)
    _check_usual(text, name)
    _check_usual(vision, name)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    size = int(vision.get("image_size", 224))
    return ClipDescription(
        name=name,
        revision=revision,
        path=path,
        family=_FAMILY,
        max_tokens=int(text.get("context_length", 77)),
        lower_case=False,
        dimensions=int(model.get("embed_dim", 512)),
        pooling=_POOLING,
        document_prompt="",
        query_prompt="",
        format="open_clip",
        text=_open_clip_shape(text, 512, 12, int(text.get("heads", 8)), activation),
        vision=_open_clip_shape(
            vision, 768, 12, int(vision.get("width", 768)) // int(vision.get("head_width", 64)), activation
        ),
        vocabulary=int(text.get("vocab_size", 49408)),
        end=None,
        image_size=size,
        patch_size=int(vision.get("patch_size", 16)),
        preprocessing=of_open_clip(settings.get("preprocess_cfg") or {}, size, name),
    )


_TOP = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "init_logit_scale", "cast_dtype"}


def _check_usual(settings: Mapping[str, Any], name: str) -> None:
    """Refuse settings that make another model of it."""
    for key, value in settings.items():
        is_read = key in _READ and isinstance(value, int | float)
        if not is_read and key not in _PASSING and value and value not in _USUAL.get(key, ()):
            raise ModelError(f"the model '{name}' sets {key} = {value} in {OPEN_CLIP_CONFIG}, which is not supported")


def _open_clip_shape(settings: Mapping[str, Any], hidden: int, layers: int, heads: int, activation: str) -> TowerShape:
    width = int(settings.get("width", hidden))
    inner = int(width * float(settings.get("mlp_ratio", 4.0)))
    return TowerShape(width, int(settings.get("layers", layers)), heads, inner, activation, eps=1e-5)
