"""Arrow columns, and the rows that Python makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.types import Caller, Vectors

Column: TypeAlias = pa.ChunkedArray

_ROWS_IN_TURN = 64
_ARROW = {
    "VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string()), "BIGINT": pa.int64(), "INTEGER": pa.int32(),
    "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us"),
}  # fmt: skip


def rows_of(columns: Sequence[Column]) -> list[tuple[Any, ...]]:
    """The columns' values, row by row."""
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def rows_in_turn(columns: Sequence[Column]) -> Iterator[tuple[Any, ...]]:
    """The same, a few rows at a time: their texts may be long."""
    for start in range(0, len(columns[0]), _ROWS_IN_TURN):
        yield from rows_of([column.slice(start, _ROWS_IN_TURN) for column in columns])


def caller_of(columns: Sequence[Column]) -> Caller:
    """Who calls, from the two columns that the macros give for it."""
    connection, transaction = (column[0].as_py() for column in columns)
    return Caller(connection, transaction)


def structs(rows: list[list[dict[str, Any]]], shape: Mapping[str, str]) -> pa.Array:
    """A column of lists of structs, whose fields and SQL types `shape` has."""
    struct = pa.struct([pa.field(name, _ARROW[kind]) for name, kind in shape.items()])
    return pa.array(rows, pa.list_(struct))


def struct_type(shape: Mapping[str, str]) -> str:
    """The SQL type of one such struct."""
    return f"STRUCT({', '.join(f'{name} {kind}' for name, kind in shape.items())})"


def table_type(shape: Mapping[str, str]) -> str:
    """The SQL type of a list of such structs, which the macros make a table of."""
    return f"{struct_type(shape)}[]"


def vector_column(rows: int, parts: Sequence[tuple[Sequence[int], Vectors]]) -> pa.Array:
    """A column of vectors: each part's at its row numbers, NULL elsewhere. A single part is not copied."""
    lengths = np.zeros(rows, np.int32)
    for numbers, vectors in parts:
        lengths[numbers] = vectors.shape[1]
    offsets = offsets_of(lengths)
    if len(parts) == 1:
        flat = parts[0][1].reshape(-1)
    else:
        flat = np.empty(offsets[-1], np.float32)
        for numbers, vectors in parts:
            for number, vector in zip(numbers, vectors, strict=True):
                flat[offsets[number] : offsets[number + 1]] = vector
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=pa.array(lengths == 0))


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int32]:
    """Where lists of these lengths begin and end."""
    return np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
