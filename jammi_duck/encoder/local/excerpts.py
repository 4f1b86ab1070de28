"""Finds a part of a long text that has the same tokens, as far as a model reads, as the whole text.

Most tokenizers split a text into words, and look at each word alone. Then the tokens of a part that ends between two
words are the first tokens of the text, and if they are more than a model reads, the rest of the text does not matter.
A tokenizer is known to work like this if all of its steps are known here; for any other, whole texts are tokenized.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer, models

# A part has so many characters for each token at first, which is enough for most texts, and then as many times more.
_CHARACTERS = 8
_WIDER = 8
# A tokenizer takes up to 200 bytes for each character of a text that it has to see whole.
MOST_CHARACTERS = 10_000_000
# No tokenizer that is used makes so many too many.
_CERTAINLY_SHORT = 200_000

# Letters that are unchanged in every normal form: none becomes a space, or joins the character before it.
_LETTERS = "0-9A-Za-zÀ-ÖØ-öø-ÿĀ-žΑ-ωЀ-џא-תء-غف-يऄ-हก-ฮぁ-ゖァ-ヺ가-힣"
_IDEOGRAPHS = "一-鿿"
_PICTURES = "\U0001f300-\U0001f3fa\U0001f400-\U0001f64f\U0001f900-\U0001f9ff"
_MARKS = r"!-/:-@\[-`{-~"
_SPACES = r"\s▁Ġ"

# Steps that change characters; none of these looks across a space between two letters.
_LOCAL_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "BertNormalizer", "Lowercase", "StripAccents", "Nmt", "Precompiled")
_PLAIN_NORMALIZERS = _LOCAL_NORMALIZERS[:-2]
_RUNS_OF_SPACES = {"Regex": " {2,}"}


class Excerpts:
    """Finds the parts of texts that are enough for a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, tokens: int, side: str) -> None:
        """`tokens` is the limit of the model; longer texts are cut on this `side`, "left" or "right"."""
        self._is_left = side == "left"
        self._first = _CHARACTERS * tokens
        # A text of at most so many characters is its only part.
        self.short = min(self._first, _CERTAINLY_SHORT, MOST_CHARACTERS)
        self._boundary = _boundary(tokenizer, is_left=self._is_left)
        self._normalizer = tokenizer.normalizer
        self._longest_word = _longest_word(tokenizer) if self._boundary else None

    @property
    def knows_borders(self) -> bool:
        """Whether it is known where a text can be cut so that both parts have the tokens of the whole."""
        return self._boundary is not None

    def of(self, text: str) -> Iterator[str]:
        """Longer and longer parts of a text. If a part has more tokens than the limit, they are those of the text.

        The last part is the whole text, unless that is too long. Characters without effect are left out of the parts:
        those of a word that is too long for the vocabulary, and all but one of many spaces.
        """
        size = self._first
        while self._boundary and size < len(text):
            # Python keeps what it has compiled.
            found = re.compile(self._boundary).search(text, len(text) - size if self._is_left else size)
            if found is None:
                break
            place = found.start() + 1
            part = text[place:] if self._is_left else text[:place]
            yield self._squeezed(part)
            size = max(size, len(part)) * _WIDER
        whole = self._squeezed(text)
        if len(whole) <= MOST_CHARACTERS and self._is_short(whole):
            yield whole

    def _is_short(self, text: str) -> bool:
        """Whether a text stays within the limit when its characters are normalised: each can become up to 18."""
        if self._normalizer is None or len(text) <= _CERTAINLY_SHORT or text.isascii():
            return True
        left = MOST_CHARACTERS
        for start in range(0, len(text), _CERTAINLY_SHORT):
            left -= len(self._normalizer.normalize_str(text[start : start + _CERTAINLY_SHORT]))
            if left < 0:
                return False
        return True

    def _squeezed(self, text: str) -> str:
        if not self._longest_word or len(text) <= self._first:
            return text
        # The whole word is unknown, whatever its length.
        end, more = f"([{_LETTERS}{_PICTURES}]{{{self._longest_word}}})", f"[{_LETTERS}{_PICTURES}]+"
        return _MANY_SPACES.sub(r"\1", re.sub(end + more + end, r"\1\2", text))


_MANY_SPACES = re.compile(r"([ \t\r\n])[ \t\r\n]{16,}")


def _boundary(tokenizer: Tokenizer, *, is_left: bool) -> str | None:
    """A pattern for the last character before a place where a text can be cut; None if that is not known."""
    normalizers = _steps(tokenizer.normalizer, "normalizers")
    splitters = _steps(tokenizer.pre_tokenizer, "pretokenizers")
    added = list(tokenizer.get_added_tokens_decoder().values())
    if not all(_is_local(step, is_left=is_left) for step in normalizers) or not _splits_at_spaces(splitters):
        return None
    # A special token that could lie across the boundary, or include the space after it.
    if any(re.search(f"[^{_SPACES}][{_SPACES}]", token.content) or (is_left and token.rstrip) for token in added):
        return None
    places = f"[{_LETTERS}{_IDEOGRAPHS}{_MARKS}](?= [{_LETTERS}{_IDEOGRAPHS}])"
    if _is_bert(normalizers, splitters):
        if not any(re.search(f"[{_MARKS}]{{2}}", token.content) for token in added):
            places += f"|[{_MARKS}](?=[{_MARKS}])"
        of_tokens = set().union(*(token.content for token in added))
        free = "".join(re.escape(mark) for mark in string.punctuation if mark not in of_tokens)
        if free:
            places += f"|[{free}](?=[{_LETTERS}])|[{_LETTERS}](?=[{free}])"
        is_spaced = any(step.get("handle_chinese_chars") for step in normalizers)
        if is_spaced and not any(re.search(f"[{_IDEOGRAPHS}]", token.content) for token in added):
            places += f"|[{_IDEOGRAPHS}](?=[{_IDEOGRAPHS}])"
    return places


def _longest_word(tokenizer: Tokenizer) -> int | None:
    """The number of letters at either end that are enough for a long word to be unknown; None if not known."""
    model, added = tokenizer.model, [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    normalizers = _steps(tokenizer.normalizer, "normalizers")
    splitters = _steps(tokenizer.pre_tokenizer, "pretokenizers")
    if not isinstance(model, models.WordPiece) or not _is_bert(normalizers, splitters):
        return None
    if any(re.search(r"\s", token) or re.fullmatch(f"[{_LETTERS}{_PICTURES}]*", token) for token in added):
        return None
    return int(model.max_input_chars_per_word) + max(map(len, added), default=0) + 1


def _steps(component: Any, of: str) -> list[dict[str, Any]]:  # noqa: ANN401 - a part of a tokenizer
    """The settings of a tokenizer's normalizer or pre-tokenizer, step by step."""
    if component is None:
        return []

    def flat(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if step["type"] != "Sequence":
            yield step
        for inner in step.get(of, ()):
            yield from flat(inner)

    return list(flat(json.loads(component.__getstate__())))


def _is_local(step: dict[str, Any], *, is_left: bool) -> bool:
    """Whether a normalizer treats both sides of a boundary as it treats the whole text."""
    if step["type"] == "Replace":
        pattern = step["pattern"]
        literal = pattern.get("String")
        if literal is None:
            return bool(pattern == _RUNS_OF_SPACES)
        return bool(literal) and not re.search(f"[{_SPACES}{_LETTERS}{_IDEOGRAPHS}]", literal)
    if step["type"] in ("Prepend", "Strip"):
        # Both depend on the ends of a text.
        return not is_left
    return step["type"] in _LOCAL_NORMALIZERS


def _splits_at_spaces(steps: list[dict[str, Any]]) -> bool:
    """Whether these steps split a text before each space between two words, and look no further."""
    kinds = [step["type"] for step in steps]
    while kinds and kinds[0] in ("Digits", "Punctuation"):
        kinds, steps = kinds[1:], steps[1:]
    if not kinds or any(kind not in _SPLITTERS for kind in kinds):
        return False
    first = steps[0]
    return bool(first.get("use_regex", True) if kinds[0] == "ByteLevel" else first.get("split", True))


_SPLITTERS = (
    "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "ByteLevel", "Digits", "Punctuation"
)  # fmt: skip


def _is_bert(normalizers: list[dict[str, Any]], splitters: list[dict[str, Any]]) -> bool:
    """Whether punctuation marks are words of their own, as in BERT."""
    plain = all(step["type"] in _PLAIN_NORMALIZERS for step in normalizers)
    return plain and [step["type"] for step in splitters] == ["BertPreTokenizer"]
