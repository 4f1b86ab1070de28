"""Rows of a query as a relation of DuckDB's: the query runs once, and looking at the relation does not run it again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import duckdb

from jammi_duck.sql import NULL, Sql, Template, joined, literal, quoted, sql

# Makes a call of DuckDB that looks for variables.
Call: TypeAlias = Callable[[Callable[[], Any]], Any]
_HANGS = int(duckdb.__version__.split(".")[0]) < 2
# What comes back from Arrow as it was, after a cast at most. An INTERVAL of 300 years does not, nor do times of a zone.
_PLAIN = frozenset((
    "boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "hugeint",
    "float", "double", "decimal", "varchar", "blob", "date", "time", "timestamp", "timestamp_s", "timestamp_ms",
    "timestamp_ns", "timestamp with time zone", "uuid", "enum",
))  # fmt: skip
_NESTED = ("list", "array", "struct", "map")


def kept(
    con: duckdb.DuckDBPyConnection, text: Template, values: Sequence[object], call: Call
) -> duckdb.DuckDBPyRelation:
    """The rows of the query that `text` gives from SQL for each of the `values`.

    DuckDB 1 has no relation of rows that has every type: there, one with a type that Arrow lacks runs again.
    """
    found = _planned(con, text, values, call)
    if not all(map(_is_plain, found.types)):
        if _HANGS:
            call(found.execute)  # type: ignore[arg-type]  # DuckDB's stub takes it for a property
            return found
        rows: duckdb.DuckDBPyRelation = call(found.materialize)
        return rows
    rows = con.from_arrow(call(found.to_arrow_table))
    if list(map(str, rows.types)) == list(map(str, found.types)):
        return rows
    casts = (
        sql("{name}::{kind} AS {name}", name=quoted(name), kind=Sql(kind))
        for name, kind in zip(found.columns, found.types, strict=True)
    )
    # DuckDB takes a subclass of str for the name of a column.
    return rows.project(str(joined(", ", casts)))


def numbered(values: Sequence[object]) -> list[Sql]:
    """The parameter of each value."""
    return [sql("${}", number) for number in range(1, len(values) + 1)]


def _planned(
    con: duckdb.DuckDBPyConnection, text: Template, values: Sequence[object], call: Call
) -> duckdb.DuckDBPyRelation:
    """A query with values, which has not run yet.

    DuckDB 1 keeps Python's lock while it collects the rows of `con.sql(…, params=…)`. A function of Python's that
    runs in another thread waits for that lock, and DuckDB waits for the function: for ever. So the values become
    literals there.
    """
    if _HANGS:
        found = call(functools.partial(con.sql, text(*literals(con, values))))
    else:
        found = call(functools.partial(con.sql, text(*numbered(values)), params=list(values)))
    relation: duckdb.DuckDBPyRelation = found
    return relation


def _is_plain(kind: Any) -> bool:  # noqa: ANN401 - a type of DuckDB's, for which its stubs have no name
    if kind.id in _NESTED:
        return all(_is_plain(child) for name, child in kind.children if name != "size")
    return kind.id in _PLAIN


def literals(con: duckdb.DuckDBPyConnection, values: Sequence[object]) -> list[Sql]:
    """Values as SQL of the types that DuckDB gives them."""
    if not values:
        return []
    asked = (sql("typeof({value}), CAST({value} AS VARCHAR)", value=value) for value in numbered(values))
    (row,) = con.sql(sql("SELECT {}", joined(", ", asked)), params=list(values)).fetchall()
    return [
        NULL if text is None else sql("CAST({} AS {})", _text(text), Sql(kind))
        for kind, text in zip(row[::2], row[1::2], strict=True)
    ]


def _text(text: str) -> Sql:
    # A statement ends at a zero byte.
    parts = joined(", chr(0), ", map(literal, text.split("\x00")))
    return sql("concat({})", parts) if "\x00" in text else parts
