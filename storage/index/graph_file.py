"""Checks an index file of USearch before it is mapped, because a wrong number in it would crash the process.

A file is, little-endian: the vectors (two uint32, rows and bytes of a row, then the rows), a head of 64 bytes, five
uint64 (slots, connectivity, that of the lowest level, the highest level, the slot to start at), an int16 for each slot
(its level), and the slots one after another. A slot is its key (uint64), its level (int16), and for each level from 0 a
count (uint32) and room for as many neighbours (uint32) as the connectivity says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError

_MATRIX = struct.Struct("<II")
# Magic, three numbers of the version, the kinds of metric, scalar, key and slot, rows present and removed, dimensions.
_HEAD = struct.Struct("<7s3H4sQQQ?")
_HEAD_SIZE = 64
_GRAPH = struct.Struct("<5Q")
_VERSION = 2
# Cosine, bfloat16, keys of 64 bits, slots of 32.
_KINDS = b"c\x04\x0e\x0f"
_BYTES_PER_SCALAR = 2
_KEY, _NODE = 8, 10
_REMOVED = 2**64 - 1
_MOST_CONNECTED, _HIGHEST = 1024, 64


@dataclass(frozen=True)
class _Nodes:
    """The slots of a mapped file: `starts` are their positions in `words`, its 16-bit words."""

    words: NDArray[np.uint16]
    starts: NDArray[np.int64]
    levels: NDArray[np.int16]

    def read(self, slots: NDArray[np.int64] | slice, offset: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes (an even number) of each of these slots, from an even offset, as rows."""
        windows = np.lib.stride_tricks.sliding_window_view(self.words, size // 2)
        return np.ascontiguousarray(windows[self.starts[slots] + offset // 2]).view(np.uint8)


def check_graph(path: Path, rows: int, dimensions: int) -> None:
    """Check an index file, whose SHA-256 is right, before it is mapped.

    Raises:
        DamagedError: its header, sizes, levels, keys or neighbours are not those of a graph of so many rows.
    """
    try:
        _check(np.memmap(path, np.uint8, "r").data, rows, dimensions)
    except (ValueError, IndexError, OverflowError, struct.error, OSError) as error:
        raise DamagedError(f"'{path.name}' is no index of this segment: {error}") from error


def _check(content: memoryview, rows: int, dimensions: int) -> None:
    slots, width = _MATRIX.unpack_from(content)
    place = _MATRIX.size + slots * width
    magic, version, _, _, kinds, present, removed, told, several = _HEAD.unpack_from(content, place)
    _require((magic, version, kinds, several) == (b"usearch", _VERSION, _KINDS, False), "it is of another kind")
    _require((present, removed) == (rows, slots - rows), "it has other rows")
    _require((told, width) == (dimensions, dimensions * _BYTES_PER_SCALAR), "it has other dimensions")
    place += _HEAD_SIZE
    count, connectivity, lowest, highest, entry = _GRAPH.unpack_from(content, place)
    place += _GRAPH.size
    _require(count == slots, "its parts have other sizes")
    _require(max(connectivity, lowest) <= _MOST_CONNECTED and highest <= _HIGHEST, "its graph is of another shape")
    levels = np.frombuffer(content, "<i2", slots, place)
    place += 2 * slots
    _require(entry < slots and levels.min() >= 0 and levels.max() == highest == levels[entry], "its levels are wrong")
    sizes = _NODE + 4 + 4 * lowest + levels.astype(np.int64) * (4 + 4 * connectivity)
    ends = place + np.cumsum(sizes)
    _require(int(ends[-1]) == len(content), "its size is wrong")
    # All sizes are even, including that of the matrix.
    words = np.frombuffer(content, "<u2", len(content) // 2)
    nodes = _Nodes(words, (ends - sizes) // 2, levels)
    _check_keys(nodes, rows)
    for level in range(highest + 1):
        there = np.flatnonzero(levels >= level) if level else slice(None)
        offset = _NODE + (4 + 4 * lowest + (level - 1) * (4 + 4 * connectivity) if level else 0)
        _check_neighbours(nodes, there, level, nodes.read(there, offset, 4 + 4 * (connectivity if level else lowest)))


def _check_keys(nodes: _Nodes, rows: int) -> None:
    """Check that each row is the key of exactly one slot, and that all other slots are removed."""
    heads = nodes.read(slice(None), 0, _NODE)
    keys = np.ascontiguousarray(heads[:, :_KEY]).view("<u8")[:, 0]
    _require(np.array_equal(heads[:, _KEY:].view("<i2")[:, 0], nodes.levels), "its levels are wrong")
    keys = keys[keys != _REMOVED]
    _require(len(keys) == rows and int(keys.max(initial=0)) < max(rows, 1), "its keys are not the rows")
    _require(bool(np.bincount(keys.astype(np.int64), minlength=rows).max(initial=1) == 1), "its keys are not the rows")


def _check_neighbours(nodes: _Nodes, slots: NDArray[np.int64] | slice, level: int, read: NDArray[np.uint8]) -> None:
    """Check that no slot has too many neighbours, or a neighbour that does not exist on this level."""
    lists = read.view("<u4")
    counts, neighbours = lists[:, 0], lists[:, 1:]
    _require(int(counts.max(initial=0)) <= neighbours.shape[1], "it has too many neighbours")
    if level or int(neighbours.max(initial=0)) >= len(nodes.levels):
        # Entries beyond the count can have any value; the check for all entries is faster, and usually enough.
        neighbours = neighbours[np.arange(neighbours.shape[1]) < counts[:, None]]
    _require(int(neighbours.max(initial=0)) < len(nodes.levels), "a neighbour is not there")
    if level:
        _require(int(nodes.levels[neighbours].min(initial=level)) >= level, "a neighbour is on another level")


def _require(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise ValueError(otherwise)
