"""Writes SQL: quotes names and texts, and calls functions by their full names.

A macro in a database file takes precedence over a function of the same name, unless the full name is written.
"""

from __future__ import annotations

import functools
import re

# The functions that our SQL calls. A test defines a macro for every name that DuckDB has, and calls all verbs.
_FUNCTIONS = frozenset((
    "any_value", "arg_min", "bool_or", "cast_to_type", "concat_ws", "contains", "count", "current_database",
    "current_setting", "duckdb_columns", "duckdb_constraints", "duckdb_databases", "duckdb_extensions",
    "duckdb_functions", "duckdb_indexes", "duckdb_schemas", "duckdb_tables", "duckdb_triggers", "duckdb_types",
    "duckdb_views", "hash", "hex", "isfinite", "json_deserialize_sql", "json_keys", "json_serialize_sql", "len",
    "list", "list_aggr", "list_filter", "list_transform", "list_value", "lower", "max", "md5", "min", "nullif",
    "pragma_collations", "query", "query_table", "range", "read_csv", "read_json", "read_parquet", "regexp_matches",
    "row", "row_number", "sha256", "string_agg", "struct_extract", "struct_pack", "suffix", "sum", "to_json",
    "to_seconds", "translate", "trim", "txid_current", "typeof", "unhex", "unnest",
))  # fmt: skip
# After a sub-query or AS, this is a list of column names.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|(?<![\w.])(?<!\) )(?<!AS )(?P<called>"[+*]"|[a-z_]\w*)(?=\()|"(?:[^"]|"")*\"""")
# The text of a filter can have any length.
_LONG = 20_000


def quoted(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def qualified(text: str) -> str:
    """A statement of ours with the full names of its functions; texts and quoted names are unchanged."""
    return _known(text) if len(text) < _LONG else _TOKEN.sub(_full_name, text)


@functools.lru_cache(1000)
def _known(text: str) -> str:
    return _TOKEN.sub(_full_name, text)


def _full_name(token: re.Match[str]) -> str:
    name = token["called"]
    is_ours = name is not None and (name in _FUNCTIONS or name[0] == '"' or name.startswith("_jammi_"))
    return f"system.main.{name}" if is_ours else token[0]
