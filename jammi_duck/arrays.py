"""Arrow's arrays of values of Python and numpy, without pandas.

`pyarrow.array` imports pandas where that is installed, to know its types, which takes half a second, and masks of lists
import all that Arrow computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray


def numbers(values: NDArray[Any], *, nan_is_null: bool = False) -> pa.Array:
    """The numbers of a vector, which is not copied if it is contiguous; with `nan_is_null`, NULL in place of NaN."""
    flat = np.ascontiguousarray(values)
    missing = np.isnan(flat) if nan_is_null else np.zeros(0, np.bool_)
    there = _bits(~missing) if missing.any() else None
    return pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [there, pa.py_buffer(flat)])


def flags(values: Iterable[bool]) -> pa.BooleanArray:
    """Truth values."""
    bits = values if isinstance(values, np.ndarray) else np.fromiter(values, np.bool_)
    return pa.Array.from_buffers(pa.bool_(), len(bits), [None, _bits(bits)])


def texts(values: Iterable[str]) -> pa.StringArray:
    """Texts; none is NULL. Together they have 2 GB at most."""
    encoded = [value.encode() for value in values]
    ends = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(each) for each in encoded], out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def lists(offsets: NDArray[np.int32], values: pa.Array, there: NDArray[np.bool_]) -> pa.ListArray:
    """Lists of values, each from one offset to the next; NULL where none is `there`."""
    missing = None if there.all() else _bits(there)
    buffers = [missing, pa.py_buffer(np.ascontiguousarray(offsets))]
    return pa.Array.from_buffers(pa.list_(values.type), len(there), buffers, children=[values])


def values_of(array: pa.Array) -> NDArray[Any]:
    """The numbers or truth values of an array without NULL; numbers are not copied, and cannot be changed.

    Raises:
        ValueError: there is a NULL.
    """
    if array.null_count:
        raise ValueError("there is a NULL among the values")
    start, end = array.offset, array.offset + len(array)
    buffer = array.buffers()[1]
    if pa.types.is_boolean(array.type):
        bits = np.frombuffer(buffer or b"", np.uint8)
        return np.unpackbits(bits, count=end, bitorder="little")[start:].view(np.bool_)
    return np.frombuffer(buffer or b"", array.type.to_pandas_dtype(), end if buffer else 0)[start:]


def _bits(values: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
