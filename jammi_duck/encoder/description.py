"""The description of a model, read from its directory by the rules of sentence-transformers (6.2), without weights."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

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


def module_settings(module: Module, model: str) -> Mapping[str, Any]:
    """What the config.json of a module says, which takes a text's vector and gives one; `model` is its model's name.

    Raises:
        ModelError: it takes or gives something else.
    """
    settings: Mapping[str, Any] = read_json(module.path / "config.json")
    for key in ("module_input_name", "module_output_name"):
        if settings.get(key, "sentence_embedding") not in ("sentence_embedding", None):
            raise ModelError(f"the model '{model}' has a {module.kind} with {key} '{settings[key]}': not supported")
    return settings


@dataclass(frozen=True, kw_only=True)
class TransformerDescription:
    """What a model reads.

    `path` holds config.json, the safetensors weights and tokenizer.json, and `family` is the `model_type` there.
    `max_tokens` counts special tokens; longer texts are cut at their `cut_side`.
    """

    name: str
    revision: str | None
    path: Path
    family: str
    max_tokens: int
    lower_case: bool
    cut_side: str = "right"


@dataclass(frozen=True, kw_only=True)
class ModelDescription(TransformerDescription):
    """The facts about a model that determine its vectors.

    `pooling` is a mode of sentence-transformers, or several joined by `+`, with or without the prompt's tokens
    (`pools_prompt`); `modules` come after it. `dimensions` is the length of a vector. `weights` is the SHA-256 over the
    SHA-256s of the files that hold weights and tokenizer, and `precision` float32 or bfloat16: both are known once the
    model is loaded.
    """

    dimensions: int
    pooling: str
    document_prompt: str
    query_prompt: str
    weights: str = ""
    precision: str = "float32"
    pools_prompt: bool = True
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

    def deciding_files(self) -> list[Path]:
        """config.json, the weights, tokenizer.json, and the files of later modules."""
        files = [self.path / "config.json", *sorted(self.path.glob("*.safetensors")), self.path / "tokenizer.json"]
        for module in self.modules:
            files += [file for file in (module.path / "config.json", module.path / WEIGHTS) if file.is_file()]
        return files


@dataclass(frozen=True)
class ModelFolder:
    """What the files in a model's directory say, whatever kind of model it is.

    `settings` are those of config_sentence_transformers.json, and `tokenizer` those of tokenizer_config.json. `pooling`
    is the folder of a Pooling module, and `modules` come after it.
    """

    transformer: TransformerDescription
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    pooling: Path | None
    modules: tuple[Module, ...]

    @property
    def architecture(self) -> str:
        """The first of the `architectures` in config.json, such as BertModel."""
        return architecture(self.config)

    @property
    def outputs(self) -> int:
        """How many outputs a head for classification has, by the rules of transformers."""
        labels = self.config.get("id2label")
        return int(self.config.get("num_labels", 2 if labels is None else len(labels)))

    @property
    def is_cross_encoder(self) -> bool:
        """Whether it scores pairs of texts: its settings say so, or it is nothing but a classifier of one output."""
        kind = self.settings.get("model_type")
        classifies = self.architecture.endswith("ForSequenceClassification") and self.outputs == 1
        return kind == "CrossEncoder" or (kind is None and self.pooling is None and classifies)


def read_folder(path: Path, name: str, revision: str | None) -> ModelFolder:
    """Read what the files in a model's directory say, except weights and tokenizer; takes milliseconds.

    Raises:
        ModelError: a file is missing or cannot be read, or a part of the model is not supported.
    """
    check_files(path, name)
    transformer, pooling, modules = _modules(path, name)
    has_modules = (path / "modules.json").is_file()
    of_transformer = _settings(transformer, name) if has_modules else {}
    of_model = optional_json(path / "config_sentence_transformers.json") if has_modules else {}
    config = _config(transformer, name)
    of_tokenizer = optional_json(transformer / "tokenizer_config.json")
    _require_files(transformer, modules, name)
    description = TransformerDescription(
        name=name,
        revision=revision,
        path=transformer,
        family=config["model_type"],
        max_tokens=_max_tokens(of_tokenizer, of_transformer, config),
        lower_case=bool(of_transformer.get("do_lower_case", False)),
        cut_side="left" if of_tokenizer.get("truncation_side") == "left" else "right",
    )
    return ModelFolder(description, config, of_model, of_tokenizer, pooling, modules)


def describe(path: Path, name: str, revision: str | None = None) -> ModelDescription:
    """Read the description of the embedding model in a directory; takes milliseconds.

    Raises:
        ModelError: a file is missing or cannot be read, or a part of the model is not supported.
    """
    from jammi_duck.encoder.images.clip_description import describe_clip, is_clip
    from jammi_duck.encoder.static.description import describe_static, is_static

    if is_static(path):
        return describe_static(path, name, revision)
    if is_clip(path):
        return describe_clip(path, name, revision)
    folder = read_folder(path, name, revision)
    if folder.is_cross_encoder:
        raise ModelError(
            f"the model '{name}' is a CrossEncoder: it scores pairs of texts, and makes no vectors. It can re-rank "
            f"what a search finds, as rerank := '{name}'; a model := '...' has to be one for sentence embeddings"
        )
    if folder.settings.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        kind = folder.settings["model_type"]
        raise ModelError(f"the model '{name}' is a {kind}; only sentence embeddings are supported")
    of_pooling = read_json(folder.pooling / "config.json") if folder.pooling else {}
    prompts = prompts_of(folder.settings)
    modes = _pooling(of_pooling, name)
    return ModelDescription(
        **vars(folder.transformer),
        dimensions=_dimensions(folder.config, modes, folder.modules, folder.settings, name),
        pooling="+".join(modes),
        document_prompt=prompts["document"],
        query_prompt=prompts["query"],
        pools_prompt=of_pooling.get("include_prompt") is not False,
        modules=folder.modules,
    )


def weights_digest(description: ModelDescription) -> str:
    """The SHA-256 over the SHA-256s of the files that decide a model's vectors.

    Other settings that change vectors are included if they differ from the usual ones.
    """
    digest = hashlib.sha256(b"".join(bytes.fromhex(sha256(file)) for file in description.deciding_files()))
    unusual = (description.lower_case, description.cut_side == "left", not description.pools_prompt)
    if any(unusual):
        digest.update(bytes(unusual))
    return digest.hexdigest()


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """The length of a token's vector; each family has its own name for it in config.json."""
    size = config.get("hidden_size", config.get("dim"))
    return int(size) if size else None


def architecture(config: Mapping[str, Any]) -> str:
    """The first of the `architectures` in a config.json; empty if it names none."""
    return str((config.get("architectures") or [""])[0])


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
    kind = architecture(config)
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


def prompts_of(settings: Mapping[str, Any]) -> dict[Role, str]:
    """The prompt of each role, by config_sentence_transformers.json."""
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
        refuse_other_weights(transformer, name)
    if not (transformer / "tokenizer.json").is_file():
        raise ModelError(f"the model '{name}' has no tokenizer.json in '{transformer}'")
    for module in modules:
        if module.kind != "Normalize" and not (module.path / WEIGHTS).is_file():
            refuse_other_weights(module.path, name)


def refuse_other_weights(path: Path, name: str) -> NoReturn:
    """Raise ModelError: a folder has no safetensors weights; it says how to convert others."""
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


def optional_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file of a model; nothing if there is none. Raises ModelError."""
    return dict(read_json(path)) if path.is_file() else {}
