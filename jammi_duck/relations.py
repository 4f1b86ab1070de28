"""A query with values, as a relation of DuckDB's."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from jammi_duck.sql import literal

_HANGS = int(duckdb.__version__.split(".")[0]) < 2


def relation(con: duckdb.DuckDBPyConnection, text: str, values: Sequence[object]) -> duckdb.DuckDBPyRelation:
    """The result of the query `text`, whose `{}` stand for `values` in turn; the query runs here and now.

    DuckDB 1 keeps Python's lock while it collects the rows of `con.sql(…, params=…)`. A function of Python's that
    runs in another thread waits for that lock, and DuckDB waits for the function: for ever. So the values become
    literals there, and a relation that is made of this one runs the query again.
    """
    if not _HANGS:
        return con.sql(text.format(*(f"${number}" for number in range(1, len(values) + 1))), params=list(values))
    found = con.sql(text.format(*_literals(con, values)))
    found.execute()  # type: ignore[operator]  # DuckDB's stub takes it for a property
    return found


def _literals(con: duckdb.DuckDBPyConnection, values: Sequence[object]) -> list[str]:
    numbers = range(1, len(values) + 1)
    asked = ", ".join(f"system.main.typeof(${number}), CAST(${number} AS VARCHAR)" for number in numbers)
    (row,) = con.sql(f"SELECT {asked}", params=list(values)).fetchall()
    return [
        "NULL" if text is None else f"CAST({_text(text)} AS {kind})"
        for kind, text in zip(row[::2], row[1::2], strict=True)
    ]


def _text(text: str) -> str:
    # A statement ends at a zero byte.
    parts = ", system.main.chr(0), ".join(map(literal, text.split("\x00")))
    return f"system.main.concat({parts})" if "\x00" in text else parts
