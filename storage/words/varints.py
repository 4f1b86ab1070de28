"""Numbers as bytes, the lowest seven bits first; the eighth bit of a byte says that more follow."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError

Numbers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# Of one of an array, and of a single number, which fit into 64 bits.
_MOST_BYTES, _MOST_BYTES_ALONE = 5, 9


def encode(values: Numbers) -> tuple[Bytes, Numbers]:
    """The bytes of numbers from 0 to 2^35 - 1, one after another, and how many bytes each takes."""
    lengths = np.ones(len(values), np.int64)
    if values.max(initial=0) < 128:
        return values.astype(np.uint8), lengths
    for more in range(1, _MOST_BYTES):
        lengths += values >= 1 << 7 * more
    ends = np.cumsum(lengths)
    starts = ends - lengths
    written = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for place in range(int(lengths.max(initial=0))):
        mine = slice(None) if not place else lengths > place
        more_follow = (lengths[mine] > place + 1).astype(np.uint8) << 7
        written[starts[mine] + place] = (values[mine] >> 7 * place & 127).astype(np.uint8) | more_follow
    return written, lengths


def decode(written: Bytes, count: int) -> Numbers:
    """The numbers in bytes that `encode` gave. Raises DamagedError if these are not so many."""
    if len(written) == count and (not count or written.max() < 128):
        return written.astype(np.int64)
    ends = np.flatnonzero(written < 128)
    if len(ends) != count or (count and ends[-1] != len(written) - 1):
        raise DamagedError("has other numbers than it says")
    starts = np.empty(count, np.int64)
    starts[:1] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    most = int(lengths.max(initial=0))
    if most > _MOST_BYTES:
        raise DamagedError("has numbers that are too large")
    values = written[starts].astype(np.int64) & 127
    for place in range(1, most):
        mine = np.flatnonzero(lengths > place)
        values[mine] |= (written[starts[mine] + place].astype(np.int64) & 127) << 7 * place
    return values


def append(written: bytearray, number: int) -> None:
    """Append a number from 0 to 2^63 - 1."""
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)


def number_at(written: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """The number that stands at a place, and where the next one is. Raises IndexError at the end."""
    byte = written[at]
    number, first = byte & 127, at
    while byte > 127:
        at += 1
        byte = written[at] if at - first < _MOST_BYTES_ALONE else 0
        number |= (byte & 127) << 7 * (at - first)
    return number, at + 1
