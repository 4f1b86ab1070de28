"""The description of a look-up model, read from its directory by the rules of the library that it was made for.

- model2vec (0.10): the tensor `embeddings`, maybe with `mapping` and `weights`. A text is cut at `max_length` tokens of
  config.json, and before that at as many characters as so many tokens of the middle length have. The token for unknown
  words is left out.
- sentence-transformers (6.2), a first module StaticEmbedding: the tensor `embedding.weight`. A text is cut as
  tokenizer.json says, and each token counts.
- wordllama (0.4), the files of its package: no text is cut, and each token counts.

None of them adds special tokens to a text. The vector of a text is the mean of the vectors of its tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jammi_duck.encoder.description import (
    WEIGHTS,
    ModelDescription,
    optional_json,
    prompts_of,
    refuse_other_weights,
)
from jammi_duck.encoder.model_files import check_files, read_json
from jammi_duck.encoder.static.table import check_table, read_header
from jammi_duck.errors import ModelError

MODEL2VEC = "model2vec"
POOLING = "static"
_STATIC_EMBEDDING = "static-embedding"
_WORDLLAMA = "wordllama"
# The files of the package wordllama.
_WORDLLAMA_TABLE = Path("weights", "l2_supercat_256.safetensors")
_WORDLLAMA_TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")

_MAX_LENGTH = 512
_MOST = 1 << 31


@dataclass(frozen=True, kw_only=True)
class StaticDescription(ModelDescription):
    """What a look-up model reads; `table` holds its vectors in `tensor`, and `tokenizer` is a tokenizer.json.

    `family` is that of the rules. `max_tokens` is 0 if no text is cut.
    """

    table: Path
    tensor: str
    tokenizer: Path

    def deciding_files(self) -> list[Path]:
        """The table and the tokenizer; which rules apply shows in the table."""
        return [self.table, self.tokenizer]


def is_static(path: Path) -> bool:
    """Whether a directory holds a look-up model."""
    # Whoever reads the files says what is wrong with them.
    with contextlib.suppress(ModelError, LookupError, TypeError, AttributeError):
        if is_wordllama(path):
            return True
        if (path / "modules.json").is_file():
            return _kind(read_json(path / "modules.json")[0]) == "StaticEmbedding"
        return (path / "config.json").is_file() and read_json(path / "config.json").get("model_type") == MODEL2VEC
    return False


def is_wordllama(path: Path) -> bool:
    """Whether a directory is that of the package wordllama."""
    return (path / _WORDLLAMA_TABLE).is_file() and (path / _WORDLLAMA_TOKENIZER).is_file()


def describe_static(path: Path, name: str, revision: str | None = None) -> StaticDescription:
    """Read the description of the look-up model in a directory; of the weights, only the header is read.

    Raises:
        ModelError: a file is missing or cannot be read, or a part of the model is not supported.
    """
    check_files(path, name)
    if is_wordllama(path):
        folder, table, tokenizer = path, path / _WORDLLAMA_TABLE, path / _WORDLLAMA_TOKENIZER
    else:
        folder = _folder(path, name)
        table, tokenizer = folder / WEIGHTS, folder / "tokenizer.json"
    if not table.is_file():
        refuse_other_weights(folder, name)
    if not tokenizer.is_file():
        raise ModelError(f"the model '{name}' has no tokenizer.json in '{folder}'")
    tensor, dimensions = _tensor(table, name)
    family = _family(path, tensor)
    settings = optional_json(path / "config_sentence_transformers.json") if family == _STATIC_EMBEDDING else {}
    max_tokens, cut_side = _limit(family, folder, name)
    prompts = prompts_of(settings)
    if not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelError(f"the model '{name}' has prompts that are no texts in its config_sentence_transformers.json")
    return StaticDescription(
        name=name,
        revision=revision,
        path=folder,
        family=family,
        max_tokens=max_tokens,
        cut_side=cut_side,
        lower_case=False,
        dimensions=min(_whole(settings, "truncate_dim", name) or dimensions, dimensions),
        pooling=POOLING,
        document_prompt=prompts["document"],
        query_prompt=prompts["query"],
        table=table,
        tensor=tensor,
        tokenizer=tokenizer,
    )


def _kind(module: Mapping[str, Any]) -> str:
    return str(module["type"]).rsplit(".", 1)[-1]


def _folder(path: Path, name: str) -> Path:
    """The folder of the table and the tokenizer: that of the first module, if there are modules."""
    if not (path / "modules.json").is_file():
        return path
    modules = read_json(path / "modules.json")
    kinds = [_kind(module) for module in modules]
    if any(kind not in ("Normalize", "Dropout") for kind in kinds[1:]):
        raise ModelError(
            f"the model '{name}' has the modules {', '.join(kinds)}; after a StaticEmbedding, only Normalize is "
            "supported"
        )
    folder = Path(modules[0]["path"])
    if folder.is_absolute() or ".." in folder.parts:
        raise ModelError(f"the model '{name}' names a folder outside itself: '{folder}'")
    check_files(path / folder, name, path)
    return path / folder


def _tensor(table: Path, name: str) -> tuple[str, int]:
    """The name of the tensor with the vectors, and their dimensions."""
    tensors = read_header(table, name)
    tensor = next((each for each in ("embeddings", "embedding.weight") if each in tensors), None)
    if tensor is None:
        raise ModelError(
            f"the weights of '{name}' have neither 'embeddings' nor 'embedding.weight', so it is no look-up model; "
            f"they have: {', '.join(sorted(tensors)[:10])}"
        )
    check_table(tensors[tensor], tensor, name)
    return tensor, tensors[tensor].shape[1]


def _family(path: Path, tensor: str) -> str:
    if is_wordllama(path):
        return _WORDLLAMA
    return MODEL2VEC if tensor == "embeddings" else _STATIC_EMBEDDING


def _limit(family: str, folder: Path, name: str) -> tuple[int, str]:
    """The number of tokens at which texts are cut, 0 if they are not, and the side."""
    if family == _WORDLLAMA:
        return 0, "right"
    if family == MODEL2VEC:
        config = {"max_length": _MAX_LENGTH, **optional_json(folder / "config.json")}
        return _whole(config, "max_length", name), "right"
    truncation = read_json(folder / "tokenizer.json").get("truncation") or {}
    side = "left" if truncation.get("direction") == "Left" else "right"
    return _whole(truncation, "max_length", name), side


def _whole(settings: Mapping[str, Any], key: str, name: str) -> int:
    """A number of the settings, 0 if there is none."""
    number = settings.get(key)
    if number is None:
        return 0
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < _MOST:
        raise ModelError(f"the model '{name}' has {key} = {number!r}; it must be a whole number above 0, or null")
    return int(number)
