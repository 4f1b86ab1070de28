"""Text to token ids, with the tokenizer in a model's directory."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers, pre_tokenizers

from jammi_duck.encoder.description import ModelDescription, TransformerDescription
from jammi_duck.encoder.local.excerpts import Excerpts
from jammi_duck.encoder.local.tokenizer_check import check_rules
from jammi_duck.encoder.local.uncut import UncutTokens
from jammi_duck.encoder.model_files import read_json
from jammi_duck.errors import EncodingError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.encoder.local.engine import Tokens
    from jammi_duck.types import Role


class CuttingTokenizer:
    """A model's tokenizer, which cuts texts at the model's limit. Threads may share it."""

    # How many characters of a text are read, where a model counts these, too.
    _most_characters: int | None = None

    def __init__(
        self, description: TransformerDescription, *, adds_special_tokens: bool = True, file: Path | None = None
    ) -> None:
        """Read tokenizer.json, or another `file` like it, which no tokenizer_config.json overrides.

        If the description has no limit (`max_tokens` is 0), no text is cut.

        Raises:
            ModelError: it cannot be read.
        """
        self._name = description.name
        self._most_tokens = description.max_tokens
        self._adds_special_tokens = adds_special_tokens
        try:
            self._tokenizer = Tokenizer.from_file(str(file or description.path / "tokenizer.json"))
        except Exception as error:
            raise ModelError(f"the tokenizer of '{description.name}' cannot be read: {error}") from error
        check_rules(self._tokenizer, description.name)
        if file is None:
            _as_configured(self._tokenizer, description.path / "tokenizer_config.json")
        # Truncation and padding in tokenizer.json are settings of the training, not of the model.
        self._tokenizer.no_padding()
        if description.max_tokens:
            self._tokenizer.enable_truncation(
                description.max_tokens, strategy="longest_first", direction=description.cut_side
            )
        else:
            self._tokenizer.no_truncation()
        if description.lower_case:
            lower, given = normalizers.Lowercase(), self._tokenizer.normalizer
            self._tokenizer.normalizer = normalizers.Sequence([lower, given]) if given else lower
        self._excerpts = Excerpts(self._tokenizer, description.max_tokens or _NO_LIMIT, description.cut_side)

    def counts(self, prompt: str) -> UncutTokens:
        """Counts tokens, however many, with this `prompt` before documents.

        It has a second tokenizer, since that texts are cut is a setting of this one.
        """
        return UncutTokens(
            Tokenizer.from_str(self._tokenizer.to_str()),
            self._name,
            limit=self._most_tokens,
            prompt=prompt,
            adds_special_tokens=self._adds_special_tokens,
            is_local=self._excerpts.knows_borders,
            most_characters=self._most_characters or 0,
        )

    @functools.cached_property
    def highest_id(self) -> int:
        """The highest token id. To look at all of them takes 20 ms."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def check_fits(self, vocabulary: int) -> None:
        """Raise ModelError if there are more tokens than the `vocabulary` rows of the weights."""
        if self.highest_id >= vocabulary:
            raise ModelError(
                f"the tokenizer of '{self._name}' does not fit its weights: it has token ids up to {self.highest_id}, "
                f"they have {vocabulary} tokens"
            )

    def tokenize(self, texts: Sequence[str]) -> tuple[list[Tokens | None], NDArray[np.bool_]]:
        """The token ids of each text, and which texts were cut.

        A text has no ids if it would have to be tokenized whole, and is too long for that.
        """
        if max(map(len, texts), default=0) <= self._excerpts.short and sum(map(len, texts)) <= _BATCH_CHARACTERS:
            # What needs no excerpts is told apart once for all: a look-up model embeds a text in 20 microseconds.
            encodings = self._encoded(list(texts))
            return [each.ids for each in encodings], np.array([bool(each.overflowing) for each in encodings], np.bool_)
        longer = {i: self._excerpts.of(text) for i, text in enumerate(texts)}
        sequences: list[Tokens | None] = [None] * len(texts)
        cut = np.zeros(len(texts), np.bool_)
        while longer:
            for parts in _batches(longer):
                for i, encoding in zip(parts, self._encoded(list(parts.values())), strict=True):
                    sequences[i], cut[i] = encoding.ids, bool(encoding.overflowing)
            # If a part was not cut, a longer one is needed, until there is none.
            longer = {i: rest for i, rest in longer.items() if not cut[i]}
        return sequences, cut

    def encoding(self, text: str) -> Encoding:
        """A text's tokens with all facts about them."""
        return self._tokenizer.encode(text, add_special_tokens=self._adds_special_tokens)

    def uncut(self, first: str, second: str) -> tuple[Encoding, Encoding, Encoding]:
        """Two texts alone, and as a pair with its special tokens, however long. Not for several threads."""
        limit = self._tokenizer.truncation or {}
        self._tokenizer.no_truncation()
        parts = self.encoding(first), self.encoding(second)
        pair = self._tokenizer.encode(first, second)
        self._tokenizer.enable_truncation(**limit)
        return *parts, pair

    def _encoded(self, texts: list[str]) -> list[Encoding]:
        try:
            return self._tokenizer.encode_batch_fast(texts, add_special_tokens=self._adds_special_tokens)
        except BaseException as error:
            # tokenizers is written in Rust, and panics if a pattern takes too long; a panic is not an Exception.
            if type(error).__name__ != "PanicException":
                raise
            raise EncodingError(f"the tokenizer of '{self._name}' failed at a text: {error}") from error


class Tokenization:
    """The tokens of texts with a model's prompts."""

    def __init__(self, description: ModelDescription, tokenizer: CuttingTokenizer) -> None:
        """Nothing is read."""
        self._description = description
        self._tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str], role: Role) -> tuple[list[Tokens | None], NDArray[np.bool_]]:
        """See `CuttingTokenizer.tokenize`; each text has its role's prompt before it."""
        prompt = self._description.prompt(role)
        return self._tokenizer.tokenize([prompt + text for text in texts])

    @functools.cached_property
    def counts(self) -> UncutTokens:
        """Counts the tokens of documents, however many."""
        return self._tokenizer.counts(self._description.prompt("document"))

    def prompt_tokens(self, role: Role) -> int:
        """How many tokens at the start pooling leaves out: those of the prompt alone, except a closing token."""
        prompt = self._description.prompt(role)
        if self._description.pools_prompt or not prompt:
            return 0
        alone = self._tokenizer.encoding(prompt)
        return len(alone.ids) - (1 if alone.special_tokens_mask[-1:] == [1] else 0)


def _batches(longer: dict[int, Iterator[str]]) -> Iterator[dict[int, str]]:
    """The next part of each text, a few texts at a time; texts without a further part are removed.

    A tokenizer needs about 50 bytes for each character, so the characters in a batch are limited.
    """
    batch: dict[int, str] = {}
    size = 0
    for i, parts in list(longer.items()):
        part = next(parts, None)
        if part is None:
            del longer[i]
            continue
        if batch and size + len(part) > _BATCH_CHARACTERS:
            yield batch
            batch, size = {}, 0
        batch[i] = part
        size += len(part)
    if batch:
        yield batch


def _as_configured(tokenizer: Tokenizer, file: Path) -> None:
    """Let tokenizer_config.json override tokenizer.json, as transformers 5 does for the families' own classes."""
    settings = read_json(file) if file.is_file() else {}
    if settings.get("tokenizer_class") in _GENERAL_CLASSES:
        return
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        for setting, attribute in _OF_BERT_NORMALIZER.items():
            if setting in settings:
                setattr(normalizer, attribute, settings[setting])
        tokenizer.normalizer = normalizer
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel) and "add_prefix_space" in settings:
        pre_tokenizer.add_prefix_space = bool(settings["add_prefix_space"])
        tokenizer.pre_tokenizer = pre_tokenizer


_BATCH_CHARACTERS = 500_000
_NO_LIMIT = 1 << 40
# Classes that use tokenizer.json unchanged.
_GENERAL_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_OF_BERT_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
