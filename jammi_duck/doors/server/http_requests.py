"""What requests for JSON say: the keys of their bodies, and what the values must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from jammi_duck.errors import InputError, did_you_mean

MOST_TEXTS = 2_048
MOST_ROWS = 1_000
MOST_DIMENSIONS = 65_536
_MOST_DEPTH = 8
_MOST_WHOLE = 2**63 - 1
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Kind:
    """What the value of a key must be: in words, and whether a value is that."""

    words: str
    holds: Callable[[Any], bool]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_WHOLE


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_count(value: Any) -> bool:  # noqa: ANN401
    return _is_whole(value) and 1 <= value <= MOST_ROWS


def _is_vector(value: object) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST_DIMENSIONS and all(map(_is_number, value))


def _is_shallow(value: object, depth: int = _MOST_DEPTH) -> bool:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_shallow(each, depth - 1) for each in inner)
    return not isinstance(value, int) or abs(value) <= _MOST_WHOLE


def _are_parameters(value: object) -> bool:
    return isinstance(value, dict) and all(map(_PARAMETER.fullmatch, value)) and _is_shallow(value)


_TEXT = Kind("a text", lambda value: isinstance(value, str))
_NUMBER = Kind("a number", _is_number)
_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_COUNT = Kind(f"a whole number from 1 to {MOST_ROWS:,}", _is_count)
_NAMES = Kind("a list of names", lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value))
# In the order in which the statement has them.
SEARCH_OPTIONS = {
    "k": _COUNT,
    "filter": _TEXT,
    "mode": _TEXT,
    "weight": _NUMBER,
    "fusion": _TEXT,
    "k1": _NUMBER,
    "b": _NUMBER,
    "min_similarity": _NUMBER,
    "model": _TEXT,
    "embedding_table": _TEXT,
    "column": _TEXT,
    "exact": _FLAG,
    "rerank": _TEXT,
    "rerank_k": _COUNT,
    "per_row": _COUNT,
}
SEARCH = {
    "source": _TEXT,
    "query": Kind("a text, or a vector: a list of numbers", lambda value: isinstance(value, str) or _is_vector(value)),
    **SEARCH_OPTIONS,
    "parameters": Kind(
        f"an object of the filter's parameters: their names, and values of at most {_MOST_DEPTH - 1} levels",
        _are_parameters,
    ),
    "columns": _NAMES,
}
EMBEDDINGS = {
    "input": Kind("a text, or a list of texts", lambda value: isinstance(value, str | list)),
    "model": _TEXT,
    "encoding_format": Kind("'float' or 'base64'", lambda value: value in ("float", "base64")),
    "dimensions": Kind("a whole number", _is_whole),
    "input_type": Kind("'query' or 'document'", lambda value: value in ("query", "document")),
    "user": _TEXT,
}


def asked_in(content: bytes, keys: Mapping[str, Kind], *required: str) -> dict[str, Any]:
    """The values in a request's body; null is as good as none. Raises InputError where they are none of these."""
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise InputError("the body is nested too deeply") from None
    if not isinstance(body, dict):
        raise InputError(f"the body must be a JSON object with {' and '.join(map(repr, required))}")
    for key, value in body.items():
        if key not in keys:
            known = "" if (near := did_you_mean(key, keys)) else f"; there are: {', '.join(keys)}"
            raise InputError(f"there is no key '{key}'{near}{known}")
        if value is not None and not keys[key].holds(value):
            raise InputError(f"'{key}' must be {keys[key].words}")
    for key in required:
        if body.get(key) is None:
            raise InputError(f"'{key}' is missing: it must be {keys[key].words}")
    return {key: value for key, value in body.items() if value is not None}
