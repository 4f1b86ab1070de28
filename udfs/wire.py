"""Encodes functions, chunks and answers for the protocol between extension and worker: docs/worker-protocol.md."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jammi_duck.errors import JammiError
from jammi_duck.udfs.engine import ScalarFunction

MAGIC = b"jammi 1\n"
CALL, RESULT, ANSWER, FAILURE, SQL = 1, 2, 3, 4, 5
HEAD = struct.Struct("<QB")
MOST_BYTES = 1 << 33

_BOOLEAN, _TIMESTAMP, _VARCHAR, _LIST, _STRUCT = 1, 12, 17, 24, 25
_KINDS = {
    "BOOLEAN": _BOOLEAN, "INTEGER": 4, "BIGINT": 5, "FLOAT": 10, "DOUBLE": 11, "TIMESTAMP": _TIMESTAMP,
    "VARCHAR": _VARCHAR,
}  # fmt: skip
_FIXED = {4: ("<i4", pa.int32()), 5: ("<i8", pa.int64()), 10: ("<f4", pa.float32()), 11: ("<f8", pa.float64())}
_FIXED[_TIMESTAMP] = ("<i8", pa.timestamp("us"))
_FIELD = re.compile(r"\s*(\w+) ")


class WireError(JammiError):
    """Bytes that are no frame, or not the one that must come now."""


class Type:
    """A type of DuckDB by its number; a list has one child, a struct as many as it has names."""

    def __init__(self, kind: int, children: Sequence[Type] = (), names: Sequence[str] = ()) -> None:
        self.kind = kind
        self.children = tuple(children)
        self.names = tuple(names)

    @classmethod
    @functools.cache
    def parse(cls, text: str) -> Type:
        """From its SQL text, such as `STRUCT(a VARCHAR, b FLOAT[])[]`."""
        if text.endswith("[]"):
            return cls(_LIST, [cls.parse(text[:-2])])
        if not text.startswith("STRUCT("):
            return cls(_KINDS[text])
        inner, names, children, depth, begin = text[7:-1], [], [], 0, 0
        for end, letter in enumerate(inner + ","):
            depth += (letter == "(") - (letter == ")")
            if letter == "," and depth == 0:
                field = _FIELD.match(inner, begin)
                assert field is not None
                names.append(field[1])
                children.append(cls.parse(inner[field.end() : end]))
                begin = end + 1
        return cls(_STRUCT, children, names)

    def to_bytes(self) -> bytes:
        """As the extension reads it."""
        if self.kind == _LIST:
            return bytes([_LIST]) + self.children[0].to_bytes()
        if self.kind == _STRUCT:
            fields = (_text(name) + child.to_bytes() for name, child in zip(self.names, self.children, strict=True))
            return bytes([_STRUCT]) + struct.pack("<I", len(self.names)) + b"".join(fields)
        return bytes([self.kind])


def announcement(command: Sequence[str], functions: Sequence[ScalarFunction]) -> bytes:
    """What the extension reads when it is loaded: how the worker is started, and which functions it has."""
    parts = [MAGIC, struct.pack("<I", len(command)), *map(_text, command), struct.pack("<I", len(functions))]
    for function in functions:
        parts += [_text(function.name), bytes([function.volatile]), Type.parse(function.returns).to_bytes()]
        parts.append(struct.pack("<I", len(function.parameters)))
        parts += [Type.parse(parameter).to_bytes() for parameter in function.parameters]
    return b"".join(parts)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded


class Reader:
    """Reads a frame's bytes from front to back."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._left = memoryview(content)

    def take(self, size: int) -> memoryview:
        """So many bytes. Raises WireError where there are fewer."""
        if size > len(self._left):
            raise WireError(f"a frame ends {size - len(self._left)} bytes too early")
        found, self._left = self._left[:size], self._left[size:]
        return found

    def numbers(self, kind: str, count: int) -> np.ndarray[Any, Any]:
        """So many numbers of numpy's type `kind`."""
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind)

    def number(self, kind: str) -> int:
        """One of them."""
        return int(self.numbers(kind, 1)[0])

    def end(self) -> None:
        """Raises WireError where something is left."""
        if self._left:
            raise WireError(f"a frame has {len(self._left)} bytes too many")

    def column(self, of: Type, rows: int) -> pa.Array:
        """A column of so many rows."""
        valid = self.numbers("u1", rows) != 0 if self.number("u1") else None
        bits = None if valid is None else _bits(valid)
        if of.kind == _VARCHAR:
            lengths = self.numbers("<u4", rows)
            offsets = _offsets(lengths)
            text = pa.py_buffer(self.take(int(offsets[-1])))
            return pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets), text, bits)
        if of.kind == _LIST:
            offsets = _offsets(self.numbers("<u4", rows))
            inner = self.column(of.children[0], int(offsets[-1]))
            kind = pa.large_list(inner.type)
            return pa.Array.from_buffers(kind, rows, [bits, pa.py_buffer(offsets)], children=[inner])
        if of.kind == _STRUCT:
            columns = [self.column(child, rows) for child in of.children]
            kind = pa.struct([pa.field(name, column.type) for name, column in zip(of.names, columns, strict=True)])
            return pa.Array.from_buffers(kind, rows, [bits], children=columns)
        if of.kind == _BOOLEAN:
            return pa.Array.from_buffers(pa.bool_(), rows, [bits, _bits(self.numbers("u1", rows) != 0)])
        kind, arrow = _FIXED[of.kind]
        return pa.Array.from_buffers(arrow, rows, [bits, pa.py_buffer(self.numbers(kind, rows).copy())])


def _offsets(lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _bits(values: np.ndarray[Any, Any]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def column_parts(column: pa.Array, of: Type) -> list[bytes | memoryview]:
    """A column as bytes, in parts."""
    # From Arrow's buffers: what computes on them, pyarrow.compute, takes longer to import than a search takes.
    rows = len(column)
    valid = _bits_of(column, 0) if column.null_count else None
    parts: list[bytes | memoryview] = [b"\0" if valid is None else b"\1" + valid.tobytes()]
    if of.kind == _VARCHAR:
        offsets, content = _offsets_of(column), column.buffers()[2]
        return [*parts, _lengths(offsets), memoryview(content or b"")[offsets[0] : offsets[-1]]]
    if of.kind == _LIST:
        offsets = _offsets_of(column)
        if valid is not None and np.diff(offsets)[~valid].any():
            return column_parts(pa.array(column.to_pylist(), column.type), of)
        inner = column.values[int(offsets[0]) : int(offsets[-1])]
        return [*parts, _lengths(offsets), *column_parts(inner, of.children[0])]
    if of.kind == _STRUCT:
        for child, inside in zip(column.flatten(), of.children, strict=True):
            parts += column_parts(child, inside)
        return parts
    if of.kind == _BOOLEAN:
        return [*parts, _bits_of(column, 1).tobytes()]
    kind, arrow = _FIXED[of.kind]
    plain = column if column.type == arrow else column.cast(arrow)
    numbers = np.frombuffer(plain.buffers()[1] or b"", kind)[plain.offset : plain.offset + rows]
    return [*parts, numbers.tobytes()]


def _bits_of(column: pa.Array, place: int) -> np.ndarray[Any, Any]:
    packed = np.frombuffer(column.buffers()[place] or b"", np.uint8)
    return np.unpackbits(packed, bitorder="little")[column.offset : column.offset + len(column)].view(np.bool_)


def _offsets_of(column: pa.Array) -> np.ndarray[Any, Any]:
    if not len(column):
        return np.zeros(1, np.int64)
    is_large = pa.types.is_large_string(column.type) or pa.types.is_large_list(column.type)
    offsets = np.frombuffer(column.buffers()[1], np.int64 if is_large else np.int32)
    return offsets[column.offset : column.offset + len(column) + 1]


def _lengths(offsets: np.ndarray[Any, Any]) -> bytes:
    return np.diff(offsets).astype("<u4").tobytes()
