"""Checks that a whole Parquet file is one of ours: the size of its footer, its columns and its values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jammi_duck.errors import UnsupportedError
from jammi_duck.storage.files.store import MOST_READ, open_regular

if TYPE_CHECKING:
    from jammi_duck.types import Shape, Vectors


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32() and kind.list_size)


_TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "_row_id": pa.string().equals,
    "_source_id": pa.string().equals,
    "_model_id": pa.string().equals,
    "vector": _is_vector,
    "_text_digest": pa.binary(16).equals,
    "_passage": pa.int32().equals,
    "_start": pa.int64().equals,
    "_end": pa.int64().equals,
    "_row_digest": pa.binary(16).equals,
    "_segment": pa.int32().equals,
    "_place": pa.int64().equals,
}
# Of a table whose rows are passages: which one of its text it is, where it begins and ends, and the text's digest.
PASSAGES = ("_passage", "_start", "_end", "_row_digest")
# These may be NULL: an import may not know them.
_MAY_LACK = ("_start", "_end")
TOMBSTONES = ("_row_id", "_segment", "_place")


def check_footer(path: Path) -> None:
    """Raise UnsupportedError if a footer is encrypted, or larger than any that we would write."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read(8)
    if end[4:] == b"PARE":
        raise UnsupportedError(f"'{path.name}' is encrypted")
    if end[4:] == b"PAR1" and MOST_READ < int.from_bytes(end[:4], "little") < size:
        raise UnsupportedError(f"'{path.name}' has a footer of more than {MOST_READ:,} bytes")


def check_columns(found: pa.Schema, columns: Iterable[str]) -> None:
    """Raise UnsupportedError if a column does not exist exactly once, or has another type."""
    for name in columns:
        types = [field.type for field in found if field.name == name]
        if len(types) != 1 or not _TYPES[name](types[0]):
            what = ", ".join(map(str, types)) or "not there"
            raise UnsupportedError(f"is not a Parquet file of ours as we know it: its column {name} is {what}")


def segment_columns(shape: Shape) -> tuple[str, ...]:
    """The columns of a segment."""
    vector = ("vector",) if shape.dimensions else ()
    passages = PASSAGES if shape.has_passages else ()
    return "_row_id", "_source_id", "_model_id", *passages, *vector, "_text_digest"


def check_values(batch: pa.RecordBatch) -> None:
    """Raise UnsupportedError if a value is missing."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if (column.null_count and name not in _MAY_LACK) or (name == "vector" and column.flatten().null_count):
            raise UnsupportedError(f"has rows without a value in {name}")


def check_numbers(vectors: Vectors, file: str) -> None:
    """Raise UnsupportedError if a vector contains NaN or a number too large for a vector of length 1."""
    flat = vectors.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(np.vdot(flat, flat)):
            raise UnsupportedError(
                f"'{file}' has vectors with NaN or infinite numbers, which nothing is near to: put the right file "
                "back, or drop the table with jammi_drop and generate it again"
            )
