"""Which borders of a text are kept, so that pieces are within a limit, and an edit moves only borders near it.

All borders are taken in turn, from the weakest to the strongest, and of equal ones by a hash of the text around them. A
border goes if what is on both its sides fits one passage together. So whether it stays depends on nothing that is
beyond the nearest stronger borders: most edits change one passage or two, wherever the text behind them moves to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jammi_duck.encoder.passages.levels import Level

if TYPE_CHECKING:
    from numpy.typing import NDArray

# So many characters after a border and before it. Those after it decide first: it stays where something is put in
# before it, or taken away.
_AFTER, _BEFORE = 32, 16
_BLOCK = 1 << 20
_FACTOR, _MIX = np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)


def order_of(text: str, places: NDArray[np.int32], levels: NDArray[np.int8]) -> NDArray[np.int64]:
    """The numbers of the borders between both ends in the order in which they are taken, the weakest first."""
    inner = places[1:-1]
    parts = [_hashes(text, block, inner) for block in range(0, len(text), _BLOCK)]
    after, before = (np.concatenate(part) for part in zip(*parts, strict=True))
    return np.lexsort((before, after, levels[1:-1])) + 1


def _hashes(text: str, block: int, places: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """What stands after and before each place of a block of the text, as numbers."""
    first = max(0, block - _BEFORE)
    part = text[first : block + _BLOCK + _AFTER].encode("utf-32-le", "surrogatepass")
    points = np.zeros(len(part) // 4 + _BEFORE + _AFTER, np.uint64)
    points[_BEFORE : len(points) - _AFTER] = np.frombuffer(part, np.uint32)
    start, end = np.searchsorted(places, np.array([block, block + _BLOCK], np.int32))
    mine = places[start:end] - (first - _BEFORE)
    return _hashed(points, mine, range(_AFTER)), _hashed(points, mine, range(-_BEFORE, 0))


def _hashed(points: NDArray[np.uint64], places: NDArray[np.int32], steps: range) -> NDArray[np.uint64]:
    hashes = np.zeros(len(places), np.uint64)
    for step in steps:
        hashes *= _FACTOR
        hashes ^= points[places + step]
    return (hashes * _MIX) >> np.uint64(32)


def kept_borders(
    order: NDArray[np.int64],
    levels: NDArray[np.int8],
    tokens: NDArray[np.int32],
    places: NDArray[np.int32],
    most: tuple[int, int],
) -> NDArray[np.int64]:
    """The numbers of the borders that stay, ascending.

    The first and the last border are the ends of the text, and stay. `tokens` counts the tokens before each border;
    `most` is how many tokens and how many characters a piece may have. The border before a heading stays unless all of
    what is between the next stronger borders fits.
    """
    most_tokens, most_characters = most
    count = len(places)
    before, after = _read(np.arange(-1, count - 1)), _read(np.arange(1, count + 1))
    token, place, level = _read(tokens), _read(places), _read(levels)
    # The ends of the text are stronger than all else.
    ranks = np.full(count, count)
    ranks[order] = np.arange(len(order))
    rank = _read(ranks)
    stays = np.ones(count, np.bool_)
    heading = int(Level.HEADING)
    for border in _read(order):
        left, right = before[border], after[border]
        if token[right] - token[left] > most_tokens or place[right] - place[left] > most_characters:
            continue
        if level[border] >= heading and (rank[left] < rank[border] or rank[right] < rank[border]):
            continue
        stays[border] = False
        after[left], before[right] = right, left
    return np.flatnonzero(stays)


def _read(column: NDArray[Any]) -> memoryview[int]:
    """The numbers of a column one by one, which numpy itself takes three times as long for; in little memory."""
    return memoryview(column.astype(np.int8 if column.dtype == np.int8 else np.int32))  # type: ignore[arg-type]
