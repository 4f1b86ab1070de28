"""Filters: a predicate that a user wrote, which becomes the condition of a query and nothing else."""

from __future__ import annotations

import json
from typing import Any

from jammi_duck.errors import InputError
from jammi_duck.types import Host


def condition(predicate: str, host: Host) -> str:
    """The predicate in parentheses, as it may stand behind WHERE.

    DuckDB's own parser says whether it is one expression: in `SELECT 1 WHERE (...)` it may change nothing but the
    condition. Raises InputError where it cannot be parsed or does more.
    """
    if not predicate.strip():
        raise InputError("the filter is empty; write a condition such as 'year > 2020', or NULL for none")
    closed = f"({predicate}\n)"
    text = "SELECT json_serialize_sql(?::VARCHAR)::VARCHAR, json_serialize_sql('SELECT 1 WHERE (true\n)')::VARCHAR"
    ((found, plain),) = host.sql(text, [f"SELECT 1 WHERE {closed}"])
    parsed = json.loads(found)
    if parsed["error"]:
        raise InputError(f"the filter '{predicate}' cannot be parsed: {parsed['error_message']}")
    if _around_condition(parsed) != _around_condition(json.loads(plain)):
        raise InputError(
            f"the filter '{predicate}' is more than a condition; it must be one expression, without parameters"
        )
    return closed


def _around_condition(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    statements = parsed["statements"]
    for statement in statements:
        statement["node"].pop("where_clause", None)
    return list(statements)
