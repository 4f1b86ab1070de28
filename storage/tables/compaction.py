"""Merges segments: the largest take the rows of the others, in the positions of deleted rows.

A row that stays in its segment keeps its position, and so its node in the graph: only rows that come from elsewhere
are put into it, which is most of what an index costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError, UnsupportedError
from jammi_duck.storage.files.manifest import Manifest, Segment
from jammi_duck.storage.files.store import Store
from jammi_duck.storage.index.exact import Mask
from jammi_duck.storage.index.graph import Graph, Grown
from jammi_duck.storage.tables.change import Change, StoredRows, stored_rows
from jammi_duck.storage.tables.segment_files import ProgressCallback
from jammi_duck.types import Shape

# Where more of a segment's rows are gone, its graph is built anew.
_MOST_GONE = 1 / 3
# A segment is merged with smaller ones if it has at most so many times their rows.
_MOST_LARGER = 4


@dataclass(frozen=True)
class Merger:
    """A segment that takes so many rows of others. `gone` says which rows of its own are not there any more."""

    segment: Segment
    gone: Mask
    taken: int

    @property
    def rows(self) -> int:
        """How many rows it will have."""
        return self.segment.rows - int(self.gone.sum()) + self.taken


@dataclass(frozen=True)
class Compaction:
    """What is to be done: segments that stay as they are, those that take rows, and those whose rows are taken."""

    kept: tuple[Segment, ...] = ()
    mergers: tuple[Merger, ...] = ()
    others: tuple[tuple[Segment, Mask], ...] = field(default=())


def segments_needed(rows: int, segment_rows: int) -> int:
    """How many segments so many rows need."""
    return max(1, math.ceil(rows / segment_rows))


def plan_compaction(state: Manifest, live: dict[int, Mask], segment_rows: int) -> Compaction:
    """What to do so that there are as few segments as the rows need, and no row in them is gone.

    `live` says which rows are there, for the segments that have lost some.
    """
    masks = {each.number: live.get(each.number, np.ones(each.rows, bool)) for each in state.segments}
    there = {number: int(mask.sum()) for number, mask in masks.items()}
    largest = sorted(state.segments, key=lambda each: (-there[each.number], each.number))
    count = segments_needed(sum(there.values()), segment_rows)
    left = sum(there[each.number] for each in largest[count:])
    kept, mergers = [], []
    for position, segment in enumerate(largest[:count]):
        room = max(0, segment_rows - there[segment.number])
        taken = left if position == count - 1 else min(room, left)
        left -= taken
        if not taken and there[segment.number] == segment.rows:
            kept.append(segment)
        else:
            mergers.append(Merger(segment, ~masks[segment.number], taken))
    return Compaction(tuple(kept), tuple(mergers), tuple((each, masks[each.number]) for each in largest[count:]))


def plan_tidying(state: Manifest, live: dict[int, Mask], segment_rows: int) -> Compaction:
    """What to do so that there are few small segments; large ones stay, and the rows in them that are gone.

    A segment is merged with smaller ones that have a fourth of its rows together. So a row is copied a few times only,
    however many changes there are.
    """
    there = {each.number: int(live[each.number].sum()) if each.number in live else each.rows for each in state.segments}
    small: list[Segment] = []
    rows = 0
    for segment in sorted(state.segments, key=lambda each: (there[each.number], each.number)):
        if len(small) > 1 and there[segment.number] > _MOST_LARGER * rows:
            break
        small.append(segment)
        rows += there[segment.number]
    todo = plan_compaction(replace(state, segments=tuple(small)), live, segment_rows)
    numbers = {each.number for each in small}
    large = (each for each in state.segments if each.number not in numbers)
    return replace(todo, kept=(*large, *todo.kept))


def merge(change: Change, store: Store, todo: Compaction, segment_rows: int, progress: ProgressCallback) -> int:
    """Write the new segments; returns how many rows their indexes will take. `progress` is told of each row written.

    Raises:
        DamagedError: a Parquet file is not what it must be.
    """
    shape = change.definition.shape
    others = _Rows(rows for segment, mask in todo.others for rows in stored_rows(store, segment, shape, mask))
    indexed = 0
    for each in todo.mergers:
        grown = _grown(store, each, segment_rows, shape.dimensions)
        there = stored_rows(store, each.segment, shape, ~each.gone)
        for rows in _filled(store, each, shape, others) if grown else chain(there, others.take(each.taken)):
            change.write(*rows)
            progress(len(rows.row_ids))
        change.end_segment(grown)
        indexed += int(grown.new.sum()) if grown else each.rows
    return indexed


def _grown(store: Store, merger: Merger, segment_rows: int, dimensions: int) -> Grown | None:
    """How the graph of a segment becomes that of the new one; None where it is to be built anew."""
    segment, rows, gone = merger.segment, merger.rows, np.flatnonzero(merger.gone)
    usearch = segment.sidecars.get(Graph.sidecar)
    if usearch is None or not 0 < rows <= segment_rows or len(gone) > _MOST_GONE * segment.rows:
        return None
    try:
        graph = store.checked(usearch)
        Graph().verify(graph, segment.rows, dimensions)
    except (DamagedError, UnsupportedError):
        return None
    holes, tail = gone[gone < rows], _tail(merger)
    new = np.zeros(rows, bool)
    new[holes[: merger.taken]] = True
    new[segment.rows :] = True
    return Grown(graph, segment.rows, gone, tail, holes[merger.taken :], new)


def _tail(merger: Merger) -> NDArray[np.int64]:
    """The positions of rows that stand beyond the new segment's end, and so move into holes."""
    return merger.rows + np.flatnonzero(~merger.gone[merger.rows :])


def _filled(store: Store, merger: Merger, shape: Shape, others: _Rows) -> Iterator[StoredRows]:
    """The new segment's rows: those that stay in their positions, others in the holes, and after the last."""
    moving = np.zeros(merger.segment.rows, bool)
    moving[_tail(merger)] = True
    tail = _Rows(stored_rows(store, merger.segment, shape, moving))
    start, left = 0, merger.taken
    for rows in stored_rows(store, merger.segment, shape, None):
        end = min(start + len(rows.row_ids), merger.rows)
        holes = np.flatnonzero(merger.gone[start:end])
        from_others = min(left, len(holes))
        left -= from_others
        fill = [*others.take(from_others), *tail.take(len(holes) - from_others)]
        yield _replaced(rows.slice(slice(end - start)), holes, fill)
        start += len(rows.row_ids)
        if start >= merger.rows:
            break
    yield from others.take(left)


def _replaced(rows: StoredRows, positions: NDArray[np.int64], by: Sequence[StoredRows]) -> StoredRows:
    if not len(positions):
        return rows
    count = len(rows.row_ids)
    order = np.arange(count)
    order[positions] = count + np.arange(len(positions))
    return StoredRows.joined([rows, *by]).take(order)


class _Rows:
    """Rows that come in blocks, to be taken as many at a time as are wanted."""

    def __init__(self, blocks: Iterator[StoredRows]) -> None:
        self._blocks = blocks
        self._rest: StoredRows | None = None

    def take(self, count: int) -> Iterator[StoredRows]:
        """The next `count` rows, in blocks."""
        while count:
            block = self._rest or next(self._blocks)
            rows = len(block.row_ids)
            here = min(count, rows)
            yield block.slice(slice(here))
            self._rest = block.slice(slice(here, None)) if here < rows else None
            count -= here
