"""The description of a model, read from its directory by the rules of sentence-transformers (6.2), without weights."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jammi_duck.encoder import Identity
from jammi_duck.encoder.config_check import checked
from jammi_duck.encoder.digest import sha256
from jammi_duck.encoder.model_files import check_files, read_json
from jammi_duck.errors import ModelError
from jammi_duck.types import Role

# These may have a folder, but nothing in it is read.
_WITHOUT_FILES = ("Normalize", "Dropout")
# Files where sentence-transformers looks for a Transformer module's settings; the first existing one counts.
_SETTINGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_REFUSED_SETTINGS = (
    "query_length", "document_length", "query_expansion", "tokenizer_name_or_path", "processing_kwargs",
    "processor_kwargs", "tokenizer_args", "config_args", "config_kwargs",
)  # fmt: skip
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING_MODES = tuple(_POOLING_FLAGS.values())

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

# Settings for torch and transformers that do not change the vectors.
_MODEL_ARGUMENTS = {"dtype", "torch_dtype", "attn_implementation"}
# Their learned positions begin after that of the padding token, so fewer tokens fit.
_OFFSET_POSITIONS = ("roberta", "camembert", "xlm-roberta", "xlm-roberta-xl", "mpnet", "data2vec-text", "longformer")
# Their positions are computed, so the number is not limited.
_ENDLESS_POSITIONS = ("modernbert",)


@dataclass(frozen=True)
class Module:
    """A step after pooling: `Dense`, `LayerNorm` or `Normalize`, and the folder of its settings and weights."""

    kind: str
    path: Path


@dataclass(frozen=True)
class ModelDescription:
    """The facts about a model that determine its vectors.

    `path` holds config.json, the safetensors weights and tokenizer.json, and `family` is the `model_type` there.
    `pooling` is a mode of sentence-transformers, or several joined by `+`, with or without the prompt's tokens
    (`pools_prompt`); `modules` come after it. `dimensions` is the length of a vector. `max_tokens` counts special
    tokens; longer texts are cut at their `cut_side`. `weights` is the SHA-256 over the SHA-256s of the files that hold
    weights and tokenizer, and `precision` float32 or bfloat16: both are known once the model is loaded.
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
    weights: str = ""
    precision: str = "float32"
    family: str = ""
    pools_prompt: bool = True
    cut_side: str = "right"
    modules: tuple[Module, ...] = ()

    @property
    def identity(self) -> Identity:
        """The part of this that the definition of an embedding table records."""
        return Identity(
            name=self.name,
            revision=self.revision,
            weights=self.weights,
            pooling=self.pooling,
            prompt=self.prompt("document"),
            precision=self.precision,
            max_tokens=self.max_tokens,
        )

    def prompt(self, role: Role) -> str:
        """The prompt before each text of this role."""
        return self.query_prompt if role == "query" else self.document_prompt


def describe(path: Path, name: str, revision: str | None = None) -> ModelDescription:
    """Read the description of the model in a directory; takes milliseconds.

    Raises:
        ModelError: a file is missing or cannot be read, or a part of the model is not supported.
    """
    check_files(path, name)
    transformer, pooling, modules = _modules(path, name)
    is_sentence_transformer = (path / "modules.json").is_file()
    of_transformer = {} if not is_sentence_transformer else _settings(transformer, name)
    of_model = _optional(path / "config_sentence_transformers.json") if is_sentence_transformer else {}
    if of_model.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise ModelError(f"the model '{name}' is a {of_model['model_type']}; only sentence embeddings are supported")
    config = _config(transformer, name)
    of_tokenizer = _optional(transformer / "tokenizer_config.json")
    of_pooling = read_json(pooling / "config.json") if pooling else {}
    prompts = _prompts(of_model)
    modes = _pooling(of_pooling, name)
    _require_files(transformer, modules, name)
    return ModelDescription(
        name=name,
        revision=revision,
        path=transformer,
        dimensions=_dimensions(config, modes, modules, of_model, name),
        max_tokens=_max_tokens(of_tokenizer, of_transformer, config),
        pooling="+".join(modes),
        lower_case=bool(of_transformer.get("do_lower_case", False)),
        document_prompt=prompts["document"],
        query_prompt=prompts["query"],
        family=config["model_type"],
        pools_prompt=of_pooling.get("include_prompt") is not False,
        cut_side="left" if of_tokenizer.get("truncation_side") == "left" else "right",
        modules=modules,
    )


def weights_digest(description: ModelDescription) -> str:
    """The SHA-256 over the SHA-256s of config.json, the weights, tokenizer.json, and the files of later modules.

    Other settings that change vectors are included if they differ from the usual ones.
    """
    path = description.path
    files = [path / "config.json", *sorted(path.glob("*.safetensors")), path / "tokenizer.json"]
    for module in description.modules:
        files += [file for file in (module.path / "config.json", module.path / WEIGHTS) if file.is_file()]
    digest = hashlib.sha256(b"".join(bytes.fromhex(sha256(file)) for file in files))
    unusual = (description.lower_case, description.cut_side == "left", not description.pools_prompt)
    if any(unusual):
        digest.update(bytes(unusual))
    return digest.hexdigest()


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """The length of a token's vector; each family has its own name for it in config.json."""
    size = config.get("hidden_size", config.get("dim"))
    return int(size) if size else None


def _modules(path: Path, name: str) -> tuple[Path, Path | None, tuple[Module, ...]]:
    """The folders of the Transformer and of Pooling, and the modules after them. Others are refused by name."""
    if not (path / "modules.json").is_file():
        return path, None, ()
    entries = [(str(m["type"]).rsplit(".", 1)[-1], Path(m["path"])) for m in read_json(path / "modules.json")]
    listed = [Module(kind, path / folder) for kind, folder in entries]
    for module, (_, folder) in zip(listed, entries, strict=True):
        if module.kind not in ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"):
            raise ModelError(f"the model '{name}' has a module '{module.kind}', which is not supported")
        if folder.is_absolute() or ".." in folder.parts:
            raise ModelError(f"the model '{name}' names a folder outside itself: '{folder}'")
        if module.kind not in _WITHOUT_FILES:
            check_files(module.path, name, path)
    kinds = [module.kind for module in listed]
    if kinds[:1] != ["Transformer"] or "Transformer" in kinds[1:] or "Pooling" in kinds[2:]:
        raise ModelError(
            f"the model '{name}' has the modules {', '.join(kinds)}; supported are a Transformer, then a Pooling, "
            "then any of Dense, LayerNorm and Normalize"
        )
    pooling = listed[1].path if kinds[1:2] == ["Pooling"] else None
    after = listed[2:] if pooling else listed[1:]
    return listed[0].path, pooling, tuple(module for module in after if module.kind != "Dropout")


def _settings(path: Path, name: str) -> dict[str, Any]:
    settings: dict[str, Any] = next((read_json(path / file) for file in _SETTINGS if (path / file).is_file()), {})
    refused = [key for key in _REFUSED_SETTINGS if settings.get(key)]
    refused += [key for key in ("model_args", "model_kwargs") if set(settings.get(key) or ()) - _MODEL_ARGUMENTS]
    if refused:
        raise ModelError(f"the model '{name}' sets {', '.join(refused)} for its Transformer, which is not supported")
    return settings


def _config(path: Path, name: str) -> dict[str, Any]:
    config: dict[str, Any] = read_json(path / "config.json")
    if "auto_map" in config:
        raise ModelError(f"the model '{name}' needs code of its own (auto_map), which is never run")
    if not config.get("model_type"):
        raise ModelError(f"the model '{name}' is not supported: its config.json has no model_type")
    if config.get("quantization_config"):
        raise ModelError(f"the model '{name}' has quantized weights (quantization_config), which are not supported")
    kind = str((config.get("architectures") or [""])[0])
    if config.get("is_encoder_decoder") or config.get("is_decoder") or kind.endswith("ForCausalLM"):
        raise ModelError(f"the model '{name}' is a {kind or config['model_type']}; only encoders are supported")
    if hidden_size(config) is None:
        raise ModelError(f"the model '{name}' is not supported: its config.json has no hidden_size")
    return checked(config, name)


def _pooling(settings: Mapping[str, Any], name: str) -> Sequence[str]:
    mode = settings.get("pooling_mode")
    flagged = [mode for flag, mode in _POOLING_FLAGS.items() if settings.get(flag)]
    modes = [mode] if isinstance(mode, str) else list(mode or flagged) or ["mean"]
    for mode in modes:
        if mode not in POOLING_MODES:
            raise ModelError(f"the model '{name}' pools by '{mode}'; supported are {', '.join(POOLING_MODES)}")
    return modes


def _prompts(settings: Mapping[str, Any]) -> dict[Role, str]:
    prompts = settings.get("prompts") or {}
    default = prompts.get(settings.get("default_prompt_name") or "") or ""

    def first(*kinds: str) -> str:
        """The first prompt that is not empty; empty if all given ones are; the default if none is given."""
        given = [prompts[kind] or "" for kind in kinds if kind in prompts]
        return next(filter(None, given), "") if given else default

    return {"document": first(*_DOCUMENT_PROMPTS), "query": first("query")}


def _dimensions(
    config: Mapping[str, Any], modes: Sequence[str], modules: Sequence[Module], settings: Mapping[str, Any], name: str
) -> int:
    dimensions = (hidden_size(config) or 0) * len(modes)
    for module in modules:
        if module.kind == "Dense":
            sizes = read_json(module.path / "config.json")
            if sizes.get("in_features") != dimensions:
                raise ModelError(
                    f"the model '{name}' has a Dense for {sizes.get('in_features')} numbers after {dimensions} of them"
                )
            dimensions = int(sizes["out_features"])
    wanted = settings.get("truncate_dim")
    return min(int(wanted), dimensions) if wanted else dimensions


def _max_tokens(tokenizer: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    positions = config.get("max_position_embeddings")
    if positions and config["model_type"] in _OFFSET_POSITIONS:
        positions -= 1 + (1 if config["model_type"] == "mpnet" else config.get("pad_token_id", 1))
    asked = settings.get("max_seq_length")
    if asked and config["model_type"] in _ENDLESS_POSITIONS:
        positions = None
    limits = [
        int(limit) for limit in (positions, asked or tokenizer.get("model_max_length")) if limit and 0 < limit < 1e9
    ]
    return min(limits, default=512)


def _require_files(transformer: Path, modules: Sequence[Module], name: str) -> None:
    if not (transformer / WEIGHTS).is_file() and not (transformer / WEIGHTS_INDEX).is_file():
        _refuse_other_weights(transformer, name)
    if not (transformer / "tokenizer.json").is_file():
        raise ModelError(f"the model '{name}' has no tokenizer.json in '{transformer}'")
    for module in modules:
        if module.kind != "Normalize" and not (module.path / WEIGHTS).is_file():
            _refuse_other_weights(module.path, name)


def _refuse_other_weights(path: Path, name: str) -> None:
    pickled = path / "pytorch_model.bin"
    advice = "take a revision that has them"
    if pickled.is_file():
        script = (
            "import torch, safetensors.torch as s; "
            f"w = torch.load({str(pickled)!r}, weights_only=True, map_location='cpu'); "
            f"s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, {str(path / WEIGHTS)!r})"
        )
        advice = f"convert them: python -c {shlex.quote(script)}"
    raise ModelError(
        f"the model '{name}' has no safetensors weights ({WEIGHTS}) in '{path}'; others are never read, since loading "
        f"them can run code: {advice}"
    )


def _optional(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}
