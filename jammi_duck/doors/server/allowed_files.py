"""The files that the views of a database name: all that DuckDB may read for the clients of a server."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator

import duckdb

from jammi_duck.sql import sql
from jammi_duck.udfs.filters.definitions import query_of_view
from jammi_duck.udfs.filters.trees import Tree, text_of_constant

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


def _paths(node: Tree) -> Iterator[str]:
    if isinstance(node, list):
        for each in node:
            yield from _paths(each)
    elif isinstance(node, dict):
        kind = node.get("type")
        if kind == "TABLE_FUNCTION":
            yield from _texts(node.get("function"))
        elif kind == "BASE_TABLE" and _LOOKS_LIKE_A_FILE.search(node.get("table_name") or ""):
            yield str(node["table_name"])
        for each in node.values():
            yield from _paths(each)


def _texts(node: Tree) -> Iterator[str]:
    """The constant texts among a function's arguments."""
    if isinstance(node, list):
        for each in node:
            yield from _texts(each)
    elif isinstance(node, dict):
        if node.get("class") == "CONSTANT":
            text = text_of_constant(node)
            if text is not None:
                yield text
            return
        for each in node.values():
            yield from _texts(each)
