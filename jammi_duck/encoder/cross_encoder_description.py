"""The description of a cross-encoder, read from its directory by the rules of sentence-transformers (6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jammi_duck.encoder.description import ModelFolder, TransformerDescription, read_folder
from jammi_duck.errors import ModelError

_SIGMOID = "torch.nn.modules.activation.Sigmoid"


@dataclass(frozen=True, kw_only=True)
class CrossEncoderDescription(TransformerDescription):
    """The facts about a cross-encoder that determine its scores.

    `activation` is the dotted name of the function of torch.nn that makes the score, and `has_types` says whether the
    tokens of a pair tell the model which of the two texts they belong to.
    """

    activation: str
    has_types: bool


def describe_cross_encoder(path: Path, name: str, revision: str | None = None) -> CrossEncoderDescription:
    """Read the description of the cross-encoder in a directory; takes milliseconds.

    Raises:
        ModelError: it is another kind of model, or a file is missing or cannot be read, or a part of the model is not
            supported.
    """
    folder = read_folder(path, name, revision)
    _check_kind(folder, name)
    prompt = (folder.settings.get("prompts") or {}).get(folder.settings.get("default_prompt_name") or "")
    if prompt:
        raise ModelError(f"the model '{name}' has a default prompt, which is not supported for a cross-encoder")
    return CrossEncoderDescription(
        **vars(folder.transformer),
        activation=_activation(folder),
        has_types=folder.transformer.family == "bert"
        and "token_type_ids" in folder.tokenizer.get("model_input_names", ["token_type_ids"]),
    )


def _check_kind(folder: ModelFolder, name: str) -> None:
    kind = folder.settings.get("model_type", "CrossEncoder")
    if kind != "CrossEncoder" or not folder.architecture.endswith("ForSequenceClassification"):
        what = f"made for sentence embeddings ({folder.architecture or folder.transformer.family})"
        what = f"a {kind}" if kind not in ("CrossEncoder", "SentenceTransformer") else what
        raise ModelError(
            f"the model '{name}' is {what}, and cannot re-rank; a re-ranker is a cross-encoder, such as "
            "'cross-encoder/ms-marco-MiniLM-L6-v2'"
        )
    if folder.pooling or folder.modules:
        raise ModelError(
            f"the model '{name}' has modules after its Transformer; supported as re-rankers are cross-encoders with a "
            "head of transformers (…ForSequenceClassification)"
        )
    if folder.outputs != 1:
        raise ModelError(
            f"the model '{name}' has {folder.outputs} outputs, as a classifier has; a re-ranker has one, the score "
            "(num_labels in its config.json)"
        )


def _activation(folder: ModelFolder) -> str:
    """The one of the settings, or of config.json as versions 4 and 3 of sentence-transformers wrote it, or Sigmoid."""
    of_config = folder.config.get("sentence_transformers") or {}
    older = folder.config.get("sbert_ce_default_activation_function")
    return str(folder.settings.get("activation_fn") or of_config.get("activation_fn", older) or _SIGMOID)
