"""The caller's variables, in which DuckDB looks for DataFrames: also when a method of ours stands between the two."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb

from jammi_duck.errors import InputError
from jammi_duck.sql import quoted, sql
from jammi_duck.udfs.arguments import plain

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    Source: TypeAlias = (
        str | os.PathLike[str] | duckdb.DuckDBPyRelation | pd.DataFrame | pl.DataFrame | pl.LazyFrame | pa.Table
    )

# DuckDB looks in the frame of Python that calls it, so one is made that has just the variables that are meant.
_CALL = compile("_jammi_call()", "<a source of jammi_duck>", "eval")
_PACKAGE = __name__.partition(".")[0]
_PLAIN = re.compile(r"[^\W\d]\w*")
_RELATIONS = sql("""
    SELECT 1 FROM (SELECT table_name AS name FROM duckdb_tables() WHERE NOT internal
        UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal)
    WHERE lower(name) = lower(?) LIMIT 1
""")


def with_variables(call: Callable[[], Any], given: Mapping[str, object]) -> Any:  # noqa: ANN401 - what the call gives
    """Call DuckDB where it finds the variables that are `given`, and no others.

    `call` must not be a function of Python's, which would have a frame of its own.
    """
    return eval(_CALL, {**given, "_jammi_call": call})


def named(con: duckdb.DuckDBPyConnection, tables: Sequence[object]) -> tuple[list[str | None], dict[str, object]]:
    """What tables are called in SQL, and the variables that DuckDB is to find under these names.

    A table is a name, a path, or an object that a variable of the caller's holds, by whose name it goes.

    Raises:
        InputError: it is something else, no variable holds it, or a table of the database has the same name.
    """
    names: list[str | None] = []
    given: dict[str, object] = {}
    for table in tables:
        if table is None or isinstance(table, str | os.PathLike):
            written = plain(table)
            names.append(written)
            name = _unquoted(str(written))
            held = _value(name)
            # DuckDB would take the table, and a reader has its rows once only.
            held = None if hasattr(held, "read_all") and _is_in(con, name) else _readable(con, held)
        else:
            held = _readable(con, table)
            if held is None:
                raise InputError(
                    f"a {type(table).__name__} is no source: give the name of a table, a view or a variable, a path, "
                    "a DataFrame, an Arrow table, or a relation"
                )
            name = _variable(con, table)
            names.append(name if _PLAIN.fullmatch(name) else quoted(name))
        if held is not None:
            given[name] = held
    return names, given


def _unquoted(written: str) -> str:
    return written[1:-1].replace('""', '"') if written.startswith('"') else written


def _caller() -> FrameType:
    """The frame of the code that called this package."""
    frame = sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame


def _scopes() -> Iterator[dict[str, Any]]:
    frame = _caller()
    yield frame.f_locals
    yield frame.f_globals


def _value(name: str) -> object:
    """What DuckDB would find under this name."""
    return next((scope[name] for scope in _scopes() if name in scope), None)


def _variable(con: duckdb.DuckDBPyConnection, table: object) -> str:
    """The name of the first variable that holds an object. Notebooks keep what they showed in `_` and the like."""
    names = (name for scope in _scopes() for name, held in list(scope.items()) if held is table and name[0] != "_")
    name = next(names, None)
    kind = type(table).__name__
    if name is None:
        raise InputError(
            f"a {kind} is known by the name of the variable that holds it, and none does here: put it into one, "
            "or give it a name with con.register(name, table), and pass the name"
        )
    if _is_in(con, name):
        raise InputError(
            f"the {kind} is known by the name of its variable, '{name}', and the database has a table or view of that "
            "name: give the variable another name, or pass the table's name as a text"
        )
    return name


def _is_in(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether the database has a table or a view of this name, in any schema."""
    return bool(con.sql(_RELATIONS, params=[name]).fetchall())


def _readable(con: duckdb.DuckDBPyConnection, table: Any) -> object:  # noqa: ANN401 - whatever a variable holds
    """The same rows, to be read more than once; None for what has none.

    DuckDB 1 frees an Arrow table that it has found as a variable, and reads it nevertheless.
    """
    module = type(table).__module__.partition(".")[0]
    if module == "polars" and hasattr(table, "collect"):
        table = table.collect()
    if isinstance(table, duckdb.DuckDBPyRelation) or (module == "pandas" and hasattr(table, "columns")):
        return table
    if module == "pyarrow" and hasattr(table, "schema"):
        return con.from_arrow(table.read_all() if hasattr(table, "read_all") else table)
    if hasattr(table, "__arrow_c_stream__") and module not in ("pandas", "pyarrow"):
        import pyarrow as pa

        return con.from_arrow(pa.table(table))
    return None
