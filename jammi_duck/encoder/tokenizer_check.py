"""What a tokenizer may do to a text: no rule of it makes a text many times longer, or looks at it without an end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from jammi_duck.errors import ModelError

_LONGEST_CONTENT = 64
_LONGEST_WORD = 1_000
_MOST_GROWTH = 1024
_LONGEST_PATTERN = 2_000
# A class of letters, an escaped letter, the begin of a group, and what repeats without an end.
_PART = re.compile(r"\[(?:\\.|\[:\w+:\]|[^\]\\])*\]|\\.|\((?:\?[^)]{0,8}?[:=!>])?|\)|\+|\*|\{\d*,\d*\}|.", re.DOTALL)
_UNBOUNDED = re.compile(r"\+|\*|\{\d*,\}|\{\d*,\d{3,}\}|\{\d{3,},\d*\}")


def check_rules(tokenizer: Tokenizer, name: str) -> None:
    """Look at the rules of a tokenizer of the model `name`.

    Raises:
        ModelError: one may blow a text up, or has a pattern that may take time without a bound.
    """
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if longest > _LONGEST_WORD:
        raise _refused(name, f"looks at words of {longest} characters")
    growth = 1
    for part in (tokenizer.normalizer, tokenizer.pre_tokenizer):
        for rule in _rules(json.loads(part.__getstate__())) if part is not None else ():
            for content in (rule.get("content"), rule.get("prepend"), rule.get("replacement")):
                if isinstance(content, str) and len(content) > _LONGEST_CONTENT:
                    raise _refused(name, f"puts {len(content)} characters in the place of a few")
                growth *= max(len(content), 1) if isinstance(content, str) else 1
            pattern = rule.get("pattern")
            if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
                _check_pattern(pattern["Regex"], name)
    if growth > _MOST_GROWTH:
        raise _refused(name, f"may make a text {growth} times as long")


def _rules(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - of JSON
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _rules(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _rules(inner)


def _check_pattern(pattern: str, name: str) -> None:
    """Refuse a group that repeats without an end, and in which something does: that is tried in all combinations."""
    if len(pattern) > _LONGEST_PATTERN:
        raise _refused(name, f"has a pattern of {len(pattern)} characters")
    inside: list[bool] = []
    repeats, closed = False, None
    for part in _PART.findall(pattern):
        if _UNBOUNDED.fullmatch(part):
            if closed:
                raise _refused(name, f"has a pattern that may take without an end: {pattern[:100]!r}")
            repeats = True
        if part == "|" and inside:
            # Alternatives may fit one text in several ways, too.
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
