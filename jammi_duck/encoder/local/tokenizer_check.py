"""Checks that a tokenizer's rules cannot make a text many times longer, or run for an unbounded time."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from tokenizers import Tokenizer

from jammi_duck.errors import ModelError

_MOST_RULES = 64
_LONGEST_PREPENDED = 64
_LONGEST_AFFIX = 16
_LONGEST_WORD = 1_000
_MOST_ADDED = 64
# Published models reach 18 at most: the length of the normal form of one character, U+FDFA.
_MOST_GROWTH = 40
_LONGEST_PATTERN = 2_000
# A character class, an escaped character, the start of a group, and an unbounded repetition.
_PART = re.compile(r"\[(?:\\.|\[:\w+:\]|[^\]\\])*\]|\\.|\((?:\?[^)]{0,8}?[:=!>])?|\)|\+|\*|\{\d*,\d*\}|.", re.DOTALL)
_UNBOUNDED = re.compile(r"\+|\*|\{\d*,\}|\{\d*,\d{3,}\}|\{\d{3,},\d*\}")
# A pattern that matches at least one character: letters, escapes and classes, none of them optional.
_TAKES_ONE = re.compile(
    r"(?:(?:\[(?:\\.|[^\[\]\\])+\]|\\[sSdDwWnrt]|[^\[\](){}*+?.|^$\\])(?:\+|\{[1-9]\d*(?:,\d*)?\})?)+"
)
# Represents all characters that no rule names.
_ANY = "\U0010fffd"

_Lengths = Callable[[str], int]


def check_rules(tokenizer: Tokenizer, name: str) -> None:
    """Check the rules of a tokenizer of the model `name`.

    Raises:
        ModelError: a rule may make a text many times longer, or has a pattern that may take unbounded time.
    """
    _check_words(tokenizer.model, name)
    rules = _rules(tokenizer.normalizer), _rules(tokenizer.pre_tokenizer), _rules(tokenizer.post_processor)
    if sum(map(len, rules)) > _MOST_RULES:
        raise _refused(name, f"has {sum(map(len, rules))} rules")
    changing = [*rules[0], *rules[1]]
    for rule in changing:
        pattern = rule.get("pattern")
        if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            _check_pattern(pattern["Regex"], name)
    growth = _growth(changing)
    if growth > _MOST_GROWTH:
        raise _refused(name, f"may make a text {growth} times as long")
    for rule in changing:
        if rule["type"] == "Prepend" and len(rule["prepend"]) > _LONGEST_PREPENDED:
            raise _refused(name, f"puts {len(rule['prepend'])} characters before a text")
    _check_frame(tokenizer, rules[2], name)


def _check_words(model: Any, name: str) -> None:  # noqa: ANN401 - models of tokenizers have no common attributes
    longest = getattr(model, "max_input_chars_per_word", 0)
    if longest > _LONGEST_WORD:
        raise _refused(name, f"looks at words of {longest} characters")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        length = len(getattr(model, affix, None) or "")
        if length > _LONGEST_AFFIX:
            raise _refused(name, f"adds {length} characters to each part of a word")


def _check_frame(tokenizer: Tokenizer, rules: Sequence[dict[str, Any]], name: str) -> None:
    """Refuse a template that contains the text several times, or many tokens around it."""
    for rule in rules:
        pieces = [piece for piece in rule.get("single", ()) if "Sequence" in piece]
        if len(pieces) > 1:
            raise _refused(name, f"contains each text {len(pieces)} times")
    added = tokenizer.num_special_tokens_to_add(is_pair=False)
    if added > _MOST_ADDED:
        raise _refused(name, f"adds {added} tokens to each text")


def _rules(part: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a part of a tokenizer
    """The rules of a tokenizer's normalizer, pre-tokenizer or post-processor, in their order."""

    def flat(rule: dict[str, Any]) -> Iterator[dict[str, Any]]:
        inner = next((rule[of] for of in ("normalizers", "pretokenizers", "processors") if of in rule), None)
        if inner is None:
            yield rule
        else:
            for each in inner:
                yield from flat(each)

    return list(flat(json.loads(part.__getstate__()))) if part is not None else []


def _growth(rules: Sequence[dict[str, Any]]) -> int:
    """The largest number of characters that the rules can make of one character.

    Computed from the last rule back: the output of a rule is as long as the next rules make it.
    """
    spoken_of = {_ANY, *_spoken_of(rules)}
    lengths: _Lengths = lambda _: 1  # noqa: E731 - what is wrapped from here on
    for rule in reversed(rules):
        lengths = _before(rule, lengths, max(map(lengths, spoken_of)))
    return max(map(lengths, spoken_of))


def _before(rule: dict[str, Any], after: _Lengths, most: int) -> _Lengths:
    """The lengths of characters after a rule and those after it, which make at most `most` of one character."""
    kind = rule["type"]
    if kind == "Replace":
        return _replaced(rule["pattern"], sum(map(after, rule["content"])), after)
    if kind == "ByteLevel":
        # One character for each byte; all of these but ASCII characters have several bytes again.
        return cache(lambda each: after(each) if each.isascii() else len(each.encode()) * most)
    if kind == "Precompiled":
        longest = _longest_mapping(rule)
        return cache(lambda each: max(after(each), longest * most))
    if kind in _FORMS:
        return cache(lambda each: max(after(each), sum(map(after, unicodedata.normalize("NFKD", each).lower()))))
    return after


_FORMS = ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer")


def _replaced(pattern: dict[str, str], length: int, after: _Lengths) -> _Lengths:
    literal = pattern.get("String")
    if literal:
        shared = -(-length // len(literal))
        return cache(lambda each: max(after(each), shared) if each in literal else after(each))
    if _TAKES_ONE.fullmatch(pattern.get("Regex", "")):
        return cache(lambda each: max(after(each), length))
    # It may match between two characters, too.
    return cache(lambda each: after(each) + length)


def _spoken_of(rules: Sequence[dict[str, Any]]) -> set[str]:
    """The characters that rules name."""
    texts = [rule["pattern"].get("String", "") + rule["content"] for rule in rules if rule["type"] == "Replace"]
    return set("".join(texts))


def _longest_mapping(rule: dict[str, Any]) -> int:
    """The longest text in SentencePiece's compiled character map: the size of a trie, the trie, zero-ended texts."""
    compiled = base64.b64decode(rule["precompiled_charsmap"])
    texts = compiled[4 + int.from_bytes(compiled[:4], "little") :].split(b"\0")
    return max(len(text.decode(errors="replace")) for text in texts) or 1


def _check_pattern(pattern: str, name: str) -> None:
    """Refuse an unbounded repetition within an unbounded repetition: it is tried in all combinations."""
    if len(pattern) > _LONGEST_PATTERN:
        raise _refused(name, f"has a pattern of {len(pattern)} characters")
    inside: list[bool] = []
    repeats, closed = False, None
    for part in _PART.findall(pattern):
        if _UNBOUNDED.fullmatch(part):
            if closed:
                raise _refused(name, f"has a pattern that may take unbounded time: {pattern[:100]!r}")
            repeats = True
        if part == "|" and inside:
            # Alternatives may match one text in several ways, too.
            repeats = True
        if part.startswith("("):
            inside.append(repeats)
            repeats = False
        closed = None
        if part == ")":
            closed = repeats
            repeats = repeats or (inside.pop() if inside else False)


def _refused(name: str, why: str) -> ModelError:
    return ModelError(f"the tokenizer of '{name}' {why}; no published model's does, and it is not used")
