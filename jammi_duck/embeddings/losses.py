"""Says which values Arrow or DuckDB would change silently, to make them fit a column."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from jammi_duck.embeddings.rows import is_list

_LARGEST = float(np.finfo(np.float32).max)
_MIDNIGHT = datetime.time()


def may_lose(kind: pa.DataType | None) -> bool:
    """Whether a column of this type has to be looked at."""
    if kind is None:
        return False
    if is_list(kind):
        return may_lose(kind.value_type)
    if pa.types.is_struct(kind):
        return any(may_lose(each.type) for each in kind)
    return bool(pa.types.is_integer(kind) or kind == pa.float32() or pa.types.is_date(kind))


def lost(value: Any, kind: pa.DataType) -> str | None:  # noqa: ANN401 - of any type
    """Why a value, or a part of it, would be changed; None if it stays as it is, or is refused anyway."""
    if is_list(kind) or pa.types.is_struct(kind):
        return next((reason for part, of in _parts(value, kind) if (reason := lost(part, of)) is not None), None)
    if pa.types.is_integer(kind) and isinstance(value, float | np.floating | Decimal) and not _is_whole(value):
        return "it is no whole number"
    if kind == pa.float32() and isinstance(value, int | float | np.number) and _is_too_large(value):
        return "it is too large for a FLOAT"
    if pa.types.is_date(kind) and isinstance(value, datetime.datetime) and value.time() != _MIDNIGHT:
        return "it has a time, which a DATE has not"
    return None


def _parts(value: Any, kind: pa.DataType) -> Iterator[tuple[Any, pa.DataType]]:  # noqa: ANN401 - as above
    if pa.types.is_struct(kind):
        if isinstance(value, Mapping):
            yield from ((value.get(each.name), each.type) for each in kind)
    elif isinstance(value, list | tuple | np.ndarray):
        yield from ((each, kind.value_type) for each in value)


def _is_too_large(value: Any) -> bool:  # noqa: ANN401 - a number
    return bool(_LARGEST < abs(value) < float("inf"))


def _is_whole(value: Any) -> bool:  # noqa: ANN401 - a number
    return bool(np.isfinite(float(value)) and value % 1 == 0)
