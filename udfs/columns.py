"""Converts between Arrow columns, Python rows and dataclasses, and writes their SQL types."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.arrays import lists, numbers
from jammi_duck.sql import Sql, joined, quoted, sql
from jammi_duck.types import Caller, Vectors

Column: TypeAlias = pa.ChunkedArray
T = TypeVar("T")

_ROWS_IN_TURN = 64
_ARROW = {
    "VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string()), "BIGINT": pa.int64(), "BIGINT[]": pa.list_(pa.int64()),
    "INTEGER": pa.int32(), "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "DOUBLE[]": pa.list_(pa.float64()),
    "TIMESTAMP": pa.timestamp("us"),
}  # fmt: skip
_PLAIN = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN", datetime: "TIMESTAMP"}


def rows_of(columns: Sequence[Column]) -> list[tuple[Any, ...]]:
    """The columns' values, row by row."""
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def rows_in_turn(columns: Sequence[Column]) -> Iterator[tuple[Any, ...]]:
    """The same, a few rows at a time: their texts may be long."""
    for start in range(0, len(columns[0]), _ROWS_IN_TURN):
        yield from rows_of([column.slice(start, _ROWS_IN_TURN) for column in columns])


@functools.cache
def fields_of(kind: type) -> dict[str, str]:
    """The columns of a table whose rows a dataclass stands for, or the fields of a STRUCT, with their SQL types.

    A field of type `int` is BIGINT, unless it is annotated with another type of SQL; None and a value is that value's.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    return {each.name: _sql_type(hints[each.name]) for each in dataclasses.fields(kind)}


def _sql_type(hint: Any) -> str:  # noqa: ANN401 - whatever a dataclass is annotated with
    arguments = [each for each in typing.get_args(hint) if each is not NoneType]
    if NoneType in typing.get_args(hint):
        return _sql_type(arguments[0])
    if typing.get_origin(hint) is typing.Annotated:
        return str(arguments[1])
    if typing.get_origin(hint) in (list, tuple, Sequence):
        return f"{_sql_type(arguments[0])}[]"
    return _PLAIN[hint] if hint in _PLAIN else struct_type(hint)


def records(column: Column, kind: type[T]) -> list[T]:
    """The values of a STRUCT column, each as the dataclass that it was packed from."""
    return [_record(kind, fields) for fields in column.to_pylist()]


def _record(kind: Callable[..., T], fields: Mapping[str, Any]) -> T:
    # A STRUCT within a STRUCT is a dict.
    nested = {name: _record(_hints(kind)[name], each) for name, each in fields.items() if isinstance(each, dict)}
    return kind(**{**fields, **nested})


@functools.cache
def _hints(kind: Callable[..., object]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def packed(kind: type, /, **fields: Sql) -> Sql:
    """SQL for a STRUCT of a dataclass's fields, each given as SQL. Raises TypeError where one is missing or unknown."""
    names = [each.name for each in dataclasses.fields(kind)]
    if set(fields) != set(names):
        raise TypeError(f"{kind.__name__} has the fields {', '.join(names)}, not {', '.join(fields)}")
    return sql("struct_pack({})", joined(", ", (sql("{} := {}", quoted(name), fields[name]) for name in names)))


def table(rows: Sequence[Sequence[object] | None], kind: type) -> pa.Array:
    """A column of lists of structs from dataclasses, whose fields are the columns of a table; NULL for None."""
    fields = fields_of(kind)
    struct = pa.struct([pa.field(name, _ARROW[sql_type]) for name, sql_type in fields.items()])
    return pa.array(
        [None if some is None else [{name: getattr(row, name) for name in fields} for row in some] for some in rows],
        pa.list_(struct),
    )


def caller_of(columns: Sequence[Column]) -> Caller:
    """Who calls, from the two columns that the macros give for it."""
    session, transaction = (column[0].as_py() for column in columns)
    return Caller(session, transaction)


def struct_type(kind: type) -> str:
    """The SQL type of a STRUCT with a dataclass's fields."""
    return f"STRUCT({', '.join(f'{name} {sql_type}' for name, sql_type in fields_of(kind).items())})"


def table_type(kind: type) -> str:
    """The SQL type of a list of them, which the macros make a table of."""
    return f"{struct_type(kind)}[]"


def vector_column(rows: int, parts: Sequence[tuple[Sequence[int], Vectors]]) -> pa.Array:
    """A column of vectors: each part's at its row numbers, NULL elsewhere. A single part is not copied."""
    lengths = np.zeros(rows, np.int32)
    for places, vectors in parts:
        lengths[places] = vectors.shape[1]
    offsets = offsets_of(lengths)
    if len(parts) == 1:
        flat = parts[0][1].reshape(-1)
    else:
        flat = np.empty(offsets[-1], np.float32)
        for places, vectors in parts:
            for place, vector in zip(places, vectors, strict=True):
                flat[offsets[place] : offsets[place + 1]] = vector
    return lists(offsets, numbers(flat), lengths > 0)


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int32]:
    """Where lists of these lengths begin and end."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
