"""Reads the options of one way to search, as an evaluation takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.retrieval.search import SearchOptions, search_options


@dataclass(frozen=True)
class Way:
    """One way to search: the options, and by which model, name or column the embedding table is chosen.

    `written` are the given options as JSON, without those that are NULL.
    """

    written: str
    options: SearchOptions
    model: str | None = None
    embedding_table: str | None = None
    column: str | None = None


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise InputError(f"{name} is {json.dumps(value)}; it must be a text")


def _flag(name: str, value: object) -> bool:
    flag = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    if isinstance(flag, bool):
        return flag
    raise InputError(f"{name} is {json.dumps(value)}; it must be true or false")


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"{name} is {json.dumps(value)}; it must be a number")
    return number


def _whole(name: str, value: object) -> int:
    number = _number(name, value)
    if number != math.floor(number):
        raise InputError(f"{name} is {json.dumps(value)}; it must be a whole number")
    return int(number)


# Options that choose an embedding table, and those of a search.
_CHOICE: Mapping[str, Callable[[str, object], Any]] = {
    "model": _text,
    "embedding_table": _text,
    "column": _text,
}
_OPTIONS: Mapping[str, Callable[[str, object], Any]] = {
    "exact": _flag,
    "min_similarity": _number,
    "mode": _text,
    "weight": _number,
    "fusion": _text,
    "k1": _number,
    "b": _number,
    "rerank": _text,
    "rerank_k": _whole,
}


def way_of(given: object, k: int) -> Way:
    """The way to search for `k` rows with the given options, a mapping; a NULL is as if it was not given.

    Numbers and truth values may be texts.

    Raises:
        InputError: it is no mapping, an option is unknown, or has a value that it cannot have.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"a way is {json.dumps(given)}; it must be a STRUCT of options, such as {{'exact': true}}")
    known = {**_CHOICE, **_OPTIONS}
    wanted = {name: value for name, value in given.items() if value is not None}
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known) or ";"
            raise InputError(f"a way has no option '{name}'{near} options: {enumerated(list(known))}")
    read = {name: known[name](name, value) for name, value in wanted.items()}
    options = search_options(k, **{name: value for name, value in read.items() if name in _OPTIONS})
    return Way(json.dumps(read), options, read.get("model"), read.get("embedding_table"), read.get("column"))
