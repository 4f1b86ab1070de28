"""The files that the views of a database name: all that DuckDB may read for the clients of a server."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator

import duckdb

from jammi_duck.sql import sql
from jammi_duck.udfs.filters.definitions import query_of_view
from jammi_duck.udfs.filters.trees import Tree, nodes_of, text_of_constant

_VIEWS = sql("SELECT sql FROM duckdb_views() WHERE NOT internal")
_FILES = sql("SELECT file FROM glob(?)")
_PARSED = sql("SELECT json_serialize_sql(?)")
_LOOKS_LIKE_A_FILE = re.compile(r"[./\\]")


def expanded(con: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> list[str]:
    """These paths, and the files that patterns among them mean now: DuckDB asks for leave to read each."""
    found = set(paths)
    for path in filter(is_pattern, paths):
        with contextlib.suppress(duckdb.Error):
            found.update(name for (name,) in con.execute(_FILES, [path]).fetchall())
    return sorted(found)


def is_pattern(path: str) -> bool:
    """Whether a path means several files."""
    return any(sign in path for sign in "*?[{")


def allowed_files(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The paths, patterns and URLs in views: in calls such as `read_parquet('…')`, and in place of a table."""
    found: set[str] = set()
    for (text,) in con.execute(_VIEWS).fetchall():
        query = query_of_view(text)
        if query is None:
            continue
        ((parsed,),) = con.execute(_PARSED, [query]).fetchall()
        found.update(_paths(json.loads(parsed)))
    return sorted(found)


def _paths(tree: Tree) -> Iterator[str]:
    for node in nodes_of(tree):
        if node.get("type") == "TABLE_FUNCTION":
            texts = map(text_of_constant, nodes_of(node["function"]))
            yield from (text for text in texts if text is not None)
        elif node.get("type") == "BASE_TABLE" and _LOOKS_LIKE_A_FILE.search(node.get("table_name") or ""):
            yield str(node["table_name"])
