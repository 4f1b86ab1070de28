"""What a user gives as rows: a list of dicts, or columns of Arrow, and the columns that a table of them needs."""

from __future__ import annotations

import enum
import io
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from jammi_duck.errors import InputError, enumerated
from jammi_duck.sql import folded

# Rows as dicts, or whole columns.
Given: TypeAlias = "list[Mapping[str, Any]] | pa.Table"

# What Arrow raises where a value does not fit.
REFUSED = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)
# The modes that Pillow writes to PNG as they are.
_OF_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
# What a column of vectors is called, where only its name can tell.
_VECTOR_NAMES = ("vector", "embedding")


def collected(data: Any) -> Given:  # noqa: ANN401 - whatever holds rows
    """What a user gives, as a list of dicts or as columns.

    Raises:
        InputError: it holds no rows.
    """
    module = type(data).__module__.partition(".")[0]
    if hasattr(data, "collect") and module == "polars":
        data = data.collect()
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pa.RecordBatchReader):
        return data.read_all()
    if isinstance(data, pa.Table):
        return data
    if module == "pandas" and hasattr(data, "columns"):
        return pa.Table.from_pandas(data, preserve_index=False).replace_schema_metadata()
    if hasattr(data, "to_arrow_table"):
        return data.to_arrow_table()
    if hasattr(data, "__arrow_c_stream__") and module != "pandas":
        return pa.table(data)
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable) or hasattr(data, "model_dump"):
        raise InputError(
            f"the data is of type {type(data).__name__}; give a list of dicts or of models, a DataFrame, or an Arrow "
            "table"
        )
    return _listed(data)


def _listed(data: Iterable[Any]) -> Given:
    rows: list[Mapping[str, Any]] = []
    parts: list[pa.Table] = []
    for place, each in enumerate(data):
        if isinstance(each, Mapping):
            rows.append(each)
        elif hasattr(each, "model_dump"):
            rows.append(each.model_dump())
        elif isinstance(each, list | pa.RecordBatch | pa.Table) or hasattr(each, "__arrow_c_stream__"):
            part = collected(each)
            if isinstance(part, pa.Table):
                parts.append(part)
            else:
                rows += part
        else:
            raise InputError(f"row {place} of the data is of type {type(each).__name__}; it must be a dict or a model")
    if rows and parts:
        raise InputError("the data has dicts and Arrow tables; give only one kind")
    return pa.concat_tables(parts, promote_options="default") if parts else rows


def inferred(data: Given, table: str) -> pa.Schema:
    """The columns that a new table needs for rows.

    Raises:
        InputError: the values of a column have no type in common, or there is nothing to infer from.
    """
    if isinstance(data, pa.Table):
        columns = {str(name): data.column(place) for place, name in enumerate(data.schema.names)}
        if len(columns) < data.num_columns:
            raise InputError(f"the data for '{table}' has two columns of one name: {enumerated(data.schema.names)}")
    else:
        names = dict.fromkeys(str(name) for row in data for name in row)
        columns = {name: _inferred_column([plain_value(row.get(name)) for row in data], name, table) for name in names}
    if not columns:
        raise InputError(f"the data for '{table}' has no columns; give schema=, or rows that are not empty")
    return pa.schema([pa.field(name, _kind(name, column)) for name, column in columns.items()])


def _inferred_column(values: list[Any], name: str, table: str) -> pa.Array:
    try:
        # Only its type is used: what pandas has for NULL is none.
        return pa.array(values, from_pandas=True)
    except REFUSED:
        low, high = 0, len(values)
        # The shortest beginning that has no type.
        while low + 1 < high:
            middle = (low + high) // 2
            try:
                pa.array(values[:middle], from_pandas=True)
                low = middle
            except REFUSED:
                high = middle
        raise InputError(
            f"row {high - 1} of the data for '{table}' has {shown(values[high - 1])} in '{name}', which has no type "
            "in common with the rows before; give schema="
        ) from None


def _kind(name: str, column: pa.Array | pa.ChunkedArray) -> pa.DataType:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return pa.string()
    if not is_list(kind) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return kind
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.float32(), kind.list_size) if pa.types.is_floating(kind.value_type) else kind
    if not any(part in folded(name) for part in _VECTOR_NAMES):
        return kind
    lengths = Counter(pc.list_value_length(column).drop_null().to_pylist())
    width = lengths.most_common(1)[0][0] if lengths else 0
    return pa.list_(pa.float32(), width) if width else kind


def is_picture(value: object) -> bool:
    """Whether a value is a picture of Pillow's, which need not be there."""
    return hasattr(value, "save") and hasattr(value, "tobytes")


def picture_bytes(picture: Any) -> bytes:  # noqa: ANN401 - an image of Pillow's
    """The bytes of a picture of Pillow's; those of a mode that PNG lacks as RGB, which is what models see.

    Raises:
        InputError: Pillow cannot convert it.
    """
    buffer = io.BytesIO()
    try:
        if picture.mode not in _OF_PNG:
            picture = picture.convert("RGBA" if picture.mode in ("RGBa", "La", "PA") else "RGB")
        picture.save(buffer, format="PNG")
    except (OSError, ValueError) as error:
        raise InputError(
            f"a picture of mode {picture.mode} cannot be saved as PNG ({error}); give its bytes"
        ) from error
    return buffer.getvalue()


def plain_value(value: Any) -> Any:  # noqa: ANN401 - of any type
    """A value that Arrow takes, for one that it does not know; None for those of pandas that stand for it."""
    if isinstance(value, enum.Enum):
        return value.value
    # Pandas need not be there.
    if type(value).__name__ in ("NAType", "NaTType") and type(value).__module__.startswith("pandas."):
        return None
    return str(value) if isinstance(value, uuid.UUID) else value


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def shown(value: object) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
