"""A model as its directory describes it, read by the rules of sentence-transformers (6.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jammi_duck.errors import ModelError
from jammi_duck.types import Role

# Where sentence-transformers looks for a Transformer module's settings; the first that is there counts.
_SETTINGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_SUPPORTED_POOLING = ("mean", "cls")


@dataclass(frozen=True)
class ModelDescription:
    """The facts about a model that decide its vectors.

    `path` holds config.json, the safetensors weights and tokenizer.json. `weights` is the SHA-256 over the SHA-256s
    of those. `max_tokens` counts special tokens. `family` is the `model_type` of config.json.
    """

    name: str
    revision: str | None
    path: Path
    dimensions: int
    max_tokens: int
    pooling: str
    lower_case: bool
    document_prompt: str
    query_prompt: str
    weights: str
    precision: str = "float32"
    family: str = ""

    def prompt(self, role: Role) -> str:
        """What stands before each text of this role."""
        return self.query_prompt if role == "query" else self.document_prompt


def describe(path: Path, name: str, revision: str | None = None) -> ModelDescription:
    """Read a model directory.

    Raises:
        ModelError: a file is missing, the weights are no safetensors, or a part of the model is not supported.
    """
    modules = _modules(path, name)
    transformer = path / modules.get("Transformer", "")
    settings: dict[str, Any] = next(
        (_json(transformer / file) for file in _SETTINGS if (transformer / file).is_file()), {}
    )
    config = _config(transformer, name)
    pooling = _pooling(_json(path / modules["Pooling"] / "config.json"), name) if "Pooling" in modules else "mean"
    prompts = _prompts(_optional(path / "config_sentence_transformers.json"))
    return ModelDescription(
        name=name,
        revision=revision,
        path=transformer,
        dimensions=int(config["hidden_size"]),
        max_tokens=_max_tokens(transformer, settings, config),
        pooling=pooling,
        lower_case=bool(settings.get("do_lower_case", False)),
        document_prompt=prompts["document"],
        query_prompt=prompts["query"],
        weights=_digest(transformer, name),
        family=str(config.get("model_type", "")),
    )


def _modules(path: Path, name: str) -> dict[str, str]:
    """The model's modules by class name, each with its folder; those that cannot be honoured are refused by name."""
    if not (path / "modules.json").is_file():
        return {"Transformer": ""}
    modules = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in _json(path / "modules.json")}
    for kind in modules:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelError(f"the model '{name}' has a module '{kind}', which is not supported yet")
    for folder in modules.values():
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ModelError(f"the model '{name}' names a folder outside itself: '{folder}'")
    return modules


def _config(path: Path, name: str) -> dict[str, Any]:
    config: dict[str, Any] = _json(path / "config.json")
    if "auto_map" in config:
        raise ModelError(f"the model '{name}' needs code of its own (auto_map), which is never run")
    if "hidden_size" not in config:
        raise ModelError(f"the model '{name}' is not supported: its config.json has no hidden_size")
    return config


def _pooling(settings: Mapping[str, Any], name: str) -> str:
    mode = settings.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else [mode for flag, mode in _POOLING_FLAGS.items() if settings.get(flag)]
    modes = modes or ["mean"]
    if len(modes) > 1 or modes[0] not in _SUPPORTED_POOLING:
        supported = " or ".join(_SUPPORTED_POOLING)
        raise ModelError(
            f"the model '{name}' pools by {' + '.join(modes)}, which is not supported yet: only {supported}"
        )
    if settings.get("include_prompt") is False:
        raise ModelError(f"the model '{name}' pools without its prompt (include_prompt), which is not supported yet")
    return str(modes[0])


def _prompts(settings: Mapping[str, Any]) -> dict[Role, str]:
    prompts = settings.get("prompts") or {}
    default = prompts.get(settings.get("default_prompt_name") or "", "")
    document = next((prompts[kind] for kind in _DOCUMENT_PROMPTS if prompts.get(kind)), default)
    return {"document": document, "query": prompts.get("query") or default}


def _max_tokens(path: Path, settings: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    if settings.get("max_seq_length"):
        return int(settings["max_seq_length"])
    positions = config.get("max_position_embeddings")
    tokenizer = _optional(path / "tokenizer_config.json").get("model_max_length")
    limits = [int(limit) for limit in (positions, tokenizer) if limit and limit < 1e9]
    return min(limits, default=512)


def _digest(path: Path, name: str) -> str:
    tokenizer = path / "tokenizer.json"
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"the model '{name}' has no safetensors weights in '{path}'; others are never read, since loading them "
            "can run code: convert them with safetensors, or take a revision that has them"
        )
    if not tokenizer.is_file():
        raise ModelError(f"the model '{name}' has no tokenizer.json in '{path}'")
    digest = hashlib.sha256()
    for file in (path / "config.json", *weights, tokenizer):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _optional(path: Path) -> dict[str, Any]:
    return dict(_json(path)) if path.is_file() else {}


def _json(path: Path) -> Any:  # noqa: ANN401 - what a file holds is checked by those who read it
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"'{path}' is missing") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' cannot be read: {error}") from error
