"""The tokens of a text that a look-up model looks up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder.local.tokens import CuttingTokenizer
from jammi_duck.encoder.static.description import MODEL2VEC, StaticDescription
from jammi_duck.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.encoder.local.engine import Tokens

_TOO_LONG = "it is too long for this model, which reads texts whole"


class LookUpTokenizer(CuttingTokenizer):
    """A look-up model's tokenizer, which adds no special tokens. Threads may share it."""

    def __init__(self, description: StaticDescription) -> None:
        """Read the tokenizer.

        Raises:
            ModelError: it cannot be read.
        """
        super().__init__(description, adds_special_tokens=False, file=description.tokenizer)
        is_model2vec = description.family == MODEL2VEC
        self._unknown = self._unknown_token() if is_model2vec else None
        if is_model2vec and description.max_tokens:
            self._most_characters = description.max_tokens * self._middle_length()

    def looked_up(self, texts: Sequence[str]) -> tuple[list[Tokens | str], NDArray[np.bool_]]:
        """The ids of each text's tokens, or the reason why it has none, and which texts were cut."""
        shortened = [text[: self._most_characters] for text in texts]
        found, cut = self._tokens_or_reasons(shortened)
        cut |= [len(short) < len(text) for short, text in zip(shortened, texts, strict=True)]
        return [self._without_unknown(each) for each in found], cut

    def _tokens_or_reasons(self, texts: Sequence[str]) -> tuple[list[Tokens | str], NDArray[np.bool_]]:
        try:
            sequences, cut = self.tokenize(texts)
        except Exception as error:
            # Some tokenizers fail at a character that they do not know. Only the text that has it is to fail.
            if len(texts) == 1:
                return [f"its tokenizer failed: {error}"], np.zeros(1, np.bool_)
            each = [self._tokens_or_reasons([text]) for text in texts]
            return [found for (found,), _ in each], np.concatenate([cut for _, cut in each])
        return [_TOO_LONG if tokens is None else tokens for tokens in sequences], cut

    def _without_unknown(self, tokens: Tokens | str) -> Tokens | str:
        if isinstance(tokens, str) or self._unknown not in tokens:
            return tokens
        return [token for token in tokens if token != self._unknown]

    def _unknown_token(self) -> int | None:
        """The id of the token that stands for what is in no vocabulary."""
        model = self._tokenizer.model
        if hasattr(model, "unk_token"):
            return None if model.unk_token is None else self._tokenizer.token_to_id(model.unk_token)
        # Unigram; only its JSON has it.
        found: int | None = json.loads(model.__getstate__()).get("unk_id")
        return found

    def _middle_length(self) -> int:
        """The median of the lengths of all tokens, in characters."""
        lengths = [len(token) for token in self._tokenizer.get_vocab(with_added_tokens=True)]
        if not lengths:
            raise ModelError(f"the tokenizer of '{self._name}' has no tokens")
        return int(np.median(lengths))
