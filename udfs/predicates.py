"""Filters: a predicate that a user wrote, which becomes the condition of a query and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jammi_duck.errors import InputError
from jammi_duck.types import Host

_ACTING = ("jammi_generate", "jammi_drop", "jammi_recover", "jammi_vacuum", "nextval")


# The predicates that were found good; a query needs each twice.
_good: set[str] = set()
_MOST_KNOWN = 1000


def condition(predicate: str, host: Host) -> str:
    """The predicate in parentheses, as it may stand behind WHERE.

    DuckDB's own parser says whether it is one expression: in `SELECT 1 WHERE (...)` it may change nothing but the
    condition. Functions that are known to change something are refused, too. Raises InputError where it cannot be
    parsed or does more.
    """
    if not predicate.strip():
        raise InputError("the filter is empty; write a condition such as 'year > 2020', or NULL for none")
    closed = f"({predicate}\n)"
    if predicate in _good:
        return closed
    text = "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR, json_serialize_sql('SELECT 1 WHERE (true\n)')::VARCHAR"
    ((found, plain),) = host.sql(text, [f"SELECT 1 WHERE {closed}"])
    parsed = json.loads(found)
    if parsed["error"]:
        raise InputError(f"the filter '{predicate}' cannot be parsed: {parsed['error_message']}")
    acting = sorted({name for name in _functions(parsed) if name.startswith("_jammi_") or name in _ACTING})
    if acting:
        raise InputError(f"the filter '{predicate}' calls {acting[0]}, and a filter may change nothing")
    if _around_condition(parsed) != _around_condition(json.loads(plain)):
        raise InputError(
            f"the filter '{predicate}' is more than a condition; it must be one expression, without parameters"
        )
    if len(_good) >= _MOST_KNOWN:
        _good.clear()
    _good.add(predicate)
    return closed


def _functions(tree: Any) -> Iterator[str]:  # noqa: ANN401 - a tree of JSON
    """The names of all functions that are called somewhere in a parsed statement."""
    if isinstance(tree, dict):
        if isinstance(name := tree.get("function_name"), str):
            yield name.lower()
        for value in tree.values():
            yield from _functions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _functions(value)


def _around_condition(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    statements = parsed["statements"]
    for statement in statements:
        statement["node"].pop("where_clause", None)
    return list(statements)
