"""Rows of Arrow as values for the parameters of a statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from jammi_duck.doors.server.statements import Statement
from jammi_duck.errors import InputError

MOST_BYTES = 16 << 20
MOST_ROWS = 10_000
# Numbers that Python has but one type for.
_NUMBERS = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
}
# Those whose values have one type in SQL.
_PLAIN = (
    pa.types.is_boolean, pa.types.is_float64, pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
    pa.types.is_date, pa.types.is_timestamp,
)  # fmt: skip


def kinds_of(table: pa.Table, statement: Statement) -> tuple[str | None, ...]:
    """The type of each parameter, in the order of `rows_of`; None where each value has one of its own."""
    return tuple(_kind(column.type) for column in _in_order(table, statement).columns)


def _kind(kind: pa.DataType) -> str | None:
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _kind(kind.value_type) if not pa.types.is_integer(kind.value_type) else None
        return inner and f"{inner}[]"
    is_plain = kind in _NUMBERS or any(test(kind) for test in _PLAIN)
    return str(kind) if is_plain else None


def _in_order(table: pa.Table, statement: Statement) -> pa.Table:
    """The columns in the order of the parameters, where they have their names."""
    if not statement.is_positional and set(table.column_names) == set(statement.parameters):
        return table.select(list(statement.parameters))
    return table


def rows_of(table: pa.Table, statement: Statement) -> list[Sequence[Any]]:
    """The rows of a table, each as values for a statement's parameters, in its order of them.

    The columns are in the order of the parameters, or have their names.

    Raises:
        InputError: there are too many, or not as many columns as parameters.
    """
    if table.num_rows > MOST_ROWS:
        raise InputError(f"{table.num_rows:,} rows of parameters, and {MOST_ROWS:,} at most may be sent at a time")
    if not table.num_columns and not statement.parameters:
        return [()]
    if table.num_columns != len(statement.parameters):
        raise InputError(
            f"the statement has {len(statement.parameters)} parameters, and {table.num_columns} columns are given"
        )
    columns = [_values(column) for column in _in_order(table, statement).columns]
    return [tuple(row) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_duration(kind) and kind.unit == "ns":
        column = column.cast(pa.duration("us"), safe=False)
    elif pa.types.is_time64(kind) and kind.unit == "ns":
        column = column.cast(pa.time64("us"), safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"a parameter of the type {kind} cannot be read: {error}") from None
    if kind in _NUMBERS:
        return [None if value is None else duckdb.Value(value, duckdb.sqltype(_NUMBERS[kind])) for value in values]
    return values
