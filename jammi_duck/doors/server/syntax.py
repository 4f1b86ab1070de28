"""What the parsed tree of a client's statement may have in it.

Transactions that cannot write, and a DuckDB that opens no files, hold all of this, too; here it is refused by name,
before anything is planned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import duckdb

from jammi_duck.errors import DeniedError, InputError
from jammi_duck.sql import sql
from jammi_duck.udfs.filters.trees import Tree, arguments_of, nodes_of

_PARSED = sql("SELECT json_serialize_sql(?)")
# Without comments, which DuckDB nests and this would not.
_EXPLAIN = re.compile(r"[ \t\r\n]*EXPLAIN(?:[ \t\r\n]+ANALYZE)?(?=[ \t\r\n(])", re.IGNORECASE)
_MOST_DEPTH = 200
# Of the name of a column, for which DuckDB looks part by part.
_MOST_PARTS = 100
_TOO_DEEP = (
    f"the statement is nested too deeply, or is too long a chain: {_MOST_DEPTH} brackets stand in each other at most"
)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
# Of these names, or with these beginnings: what reads files, runs a text as SQL, or is ours and no macro.
_REFUSED = {
    "glob", "sniff_csv", "query", "query_table", "json_execute_serialized_sql", "duckdb_secrets", "which_secret",
    "getenv", "checkpoint", "force_checkpoint", "write_log", "nextval", "seq_scan", "arrow_scan", "pandas_scan",
    "python_map_function", "arrow_scan_dumb", "python_arrow_scan", "json_serialize_plan", "currval", "setval",
    "setseed", "sleep_ms", "pg_sleep", "add_parquet_key", "import_database", "copy_database", "verify_parallelism",
    "duckdb_logs", "duckdb_logs_parsed", "duckdb_log_contexts", "duckdb_live_query_metrics",
    "duckdb_prepared_statements", "duckdb_variables", "storage_info", "pragma_storage_info",
}  # fmt: skip
_FILE = re.compile(
    r"^[/~]|://|\.(duckdb|ddb|db|sqlite|csv|tsv|txt|parquet|json|jsonl|ndjson|xlsx|arrow|avro)(\.(gz|zst|bz2))?$"
)
# The arguments of a search that change its rows, and not its columns.
_ASKED = {
    "jammi_search": {1, 2}, "jammi_similar": {1, 2}, "jammi_matches": {1, 2}, "jammi_explain": {1, 2},
    "jammi_search_column": {2, 3},
}  # fmt: skip
_ASKED_BY_NAME = {
    "query",
    "key",
    "k",
    "filter",
    "mode",
    "weight",
    "fusion",
    "exact",
    "min_similarity",
    "k1",
    "b",
    "parameters",
    "per_row",
    "fresh",
    "fresh_rows",
}
_BEGINNINGS = (
    "read_", "parquet_", "_jammi_", "enable_", "disable_", "truncate_", "set_", "load_", "create_",
    "register_", "deregister_", "destroy_", "remove_", "add_grammar",
)  # fmt: skip


def refuse_depths(text: str) -> None:
    """Raise InputError where brackets stand too deep in each other, for which the parser would take minutes."""
    depth = 0
    for sign in _QUOTED.sub("", text):
        if sign in "([{":
            depth += 1
            if depth > _MOST_DEPTH:
                raise InputError(_TOO_DEEP)
        elif sign in ")]}":
            depth = max(0, depth - 1)


def reading_tree(text: str, parser: duckdb.DuckDBPyConnection, *, explains: bool) -> Tree:
    """The tree of a statement, or of the query that it explains; one that does more than read is refused.

    Raises:
        InputError: it is no query.
        DeniedError: it calls a function that no client may call, or changes data in a WITH clause.
    """
    if explains:
        _, text = explained(text)
        if not text.strip():
            raise InputError("write EXPLAIN or EXPLAIN ANALYZE before the query, without comments or options")
    tree = tree_of(text, parser)
    if tree.get("error"):
        raise InputError(f"the server answers queries, and this is none: {tree.get('error_message')}")
    for kind, name in _found(tree):
        if kind.endswith("_QUERY_NODE"):
            raise DeniedError(f"a {kind.removesuffix('_QUERY_NODE')} within a query is refused: the server only reads")
        if kind == "BASE_TABLE" and _FILE.search(name):
            raise DeniedError(f"the file {name} is not read: clients of the server query what its database has")
        if kind != "BASE_TABLE" and (name in _REFUSED or name.startswith(_BEGINNINGS)):
            raise DeniedError(
                f"the function {name} is refused: clients of the server query the sources and the embedding tables of "
                "its database, and read no files"
            )
    return tree


def tree_of(text: str, parser: duckdb.DuckDBPyConnection) -> Tree:
    """What DuckDB's parser makes of a text. Raises InputError where that is nested too deeply."""
    try:
        ((parsed,),) = parser.execute(_PARSED, [text]).fetchall()
        return json.loads(parsed)
    except (RecursionError, duckdb.Error) as error:
        raise InputError(_TOO_DEEP if isinstance(error, RecursionError) else str(error)) from None


def shaping(tree: Tree) -> Iterator[str]:
    """The parameters whose values the columns depend on: those of table functions, but for what is searched for."""
    for node in nodes_of(tree):
        if node.get("type") == "TABLE_FUNCTION":
            call = node["function"]
            asked = _ASKED.get(str(call.get("function_name", "")).lower())
            for i, (name, argument) in enumerate(arguments_of(call)):
                if asked is None or not (i in asked or name.lower() in _ASKED_BY_NAME):
                    parts = nodes_of(argument)
                    yield from (str(part["identifier"]) for part in parts if part.get("class") == "PARAMETER")


def cte_names(tree: Tree) -> Iterator[str]:
    """The names that a statement gives to parts of itself by WITH."""
    for node in nodes_of(tree):
        found = node.get("cte_map")
        if isinstance(found, dict):
            yield from (str(each["key"]) for each in found.get("map", []))
        if node.get("type") == "RECURSIVE_CTE_NODE" and isinstance(node.get("cte_name"), str):
            yield node["cte_name"]


def explained(text: str) -> tuple[str, str]:
    """An EXPLAIN, and the query that it explains, which is empty where it is not understood."""
    head = _EXPLAIN.match(text)
    return (text[: head.end()], text[head.end() :]) if head else (text, "")


def _found(tree: Tree) -> Iterator[tuple[str, str]]:
    """The kind of each node, and the name of the function that it calls or of the table, in lower case.

    Raises InputError for a name of very many parts.
    """
    for node in nodes_of(tree):
        if len(node.get("column_names") or ()) > _MOST_PARTS:
            raise InputError(_TOO_DEEP)
        kind = node.get("type")
        name = node.get("table_name" if kind == "BASE_TABLE" else "function_name")
        yield str(kind) if isinstance(kind, str) else "", str(name).lower() if isinstance(name, str) else ""
