"""What the parsed tree of a client's statement may have in it.

Transactions that cannot write, and a DuckDB that opens no files, hold all of this, too; here it is refused by name,
before anything is planned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from jammi_duck.errors import DeniedError, InputError
from jammi_duck.sql import sql

_PARSED = sql("SELECT json_serialize_sql(?)")
_EXPLAIN = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*EXPLAIN(?:\s+ANALYZE)?(?:\s*\([^()]*\))?\s", re.IGNORECASE | re.DOTALL
)
# Of these names, or with these beginnings: what reads files, runs a text as SQL, or is ours and no macro.
_REFUSED = {
    "glob", "sniff_csv", "query", "query_table", "json_execute_serialized_sql", "duckdb_secrets", "which_secret",
    "getenv", "checkpoint", "force_checkpoint", "write_log", "nextval", "seq_scan", "arrow_scan", "pandas_scan",
    "python_map_function",
}  # fmt: skip
_BEGINNINGS = ("read_", "parquet_", "_jammi_", "enable_", "disable_", "truncate_", "set_", "load_")


def refuse_others(text: str, parser: duckdb.DuckDBPyConnection, *, explains: bool) -> None:
    """Refuse a statement that does more than read what the database has.

    Raises:
        InputError: it is no query.
        DeniedError: it calls a function that no client may call, or changes data in a WITH clause.
    """
    if explains:
        head = _EXPLAIN.match(text)
        text = text[head.end() :] if head else ""
    ((parsed,),) = parser.execute(_PARSED, [text]).fetchall()
    tree = json.loads(parsed)
    if tree.get("error"):
        raise InputError(f"the server answers queries, and this is none: {tree.get('error_message')}")
    for kind, name in _found(tree):
        if kind.endswith("_QUERY_NODE"):
            raise DeniedError(f"a {kind.removesuffix('_QUERY_NODE')} within a query is refused: the server only reads")
        if name in _REFUSED or name.startswith(_BEGINNINGS):
            raise DeniedError(
                f"the function {name} is refused: clients of the server query the sources and the embedding tables of "
                "its database, and read no files"
            )


def _found(tree: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - what JSON holds
    """The kind of each node, and the name of the function that it calls, in lower case."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            kind, name = node.get("type"), node.get("function_name")
            yield str(kind) if isinstance(kind, str) else "", str(name).lower() if isinstance(name, str) else ""
