"""Finds the rows of several segments nearest to queries: some segments by an index, all others in one exact scan.

The best rows of the indexes set the bar for the scan, so that it computes few similarities exactly.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jammi_duck.lifetime import at_work
from jammi_duck.storage.index import plan
from jammi_duck.storage.index.exact import LEAST, Block, Candidates, Mask, joined, scan
from jammi_duck.storage.index.segment import LEAST_ROWS, OpenSegment
from jammi_duck.threads import Threads
from jammi_duck.types import Stage, Vectors

_WIDER = 4


@dataclass(frozen=True)
class Part:
    """The part of a segment to search: `there` rows, which are the `allowed` ones, or all if that is None.

    `first` is the number of its first row in the table.
    """

    number: int
    segment: OpenSegment
    first: int
    allowed: Mask | None
    there: int

    def blocks(self, cores: int) -> Iterator[Block]:
        """Its vectors, for a scan on so many cores."""
        for start, vectors in self.segment.blocks(cores):
            allowed = None if self.allowed is None else self.allowed[start : start + len(vectors)]
            yield Block(self.first + start, vectors, allowed)


def nearest(parts: Sequence[Part], queries: Vectors, k: int, *, exact: bool) -> tuple[Candidates, list[Stage]]:
    """Candidates that include the `k` rows nearest to each query and all ties with the last, as far as indexes go.

    Compares every vector if `exact`. Raises DamagedError if rows can be read neither from a sidecar nor from the
    Parquet file.
    """
    found: list[Candidates] = []
    stages: list[Stage] = []
    rest: list[Part] = []
    plans: list[plan.Plan] = []
    for part in (part for part in parts if part.there):
        segment, count = part.segment, min(k, part.there)
        if exact or not segment.indexes:
            rest.append(part)
            continue
        chosen = plan.choose(
            segment.indexes, segment.rows, part.there, count, dimensions=queries.shape[1], queries=len(queries)
        )
        if not chosen.exact:
            began = time.perf_counter()
            candidates, stage = _by_index(part, queries, count, chosen)
            stage.seconds = time.perf_counter() - began
            found.append(candidates)
            stages.append(stage)
        else:
            rest.append(part)
            plans.append(chosen)
    if rest:
        began = time.perf_counter()
        found.append(_exactly(rest, queries, k, _bars(found, len(queries), k)))
        stage = _scanned(rest, "exact := true" if exact else _reason(rest, plans))
        stage.seconds = time.perf_counter() - began
        stages.append(stage)
    none = np.empty((len(queries), 0))
    return joined(found or [Candidates(none.astype(np.int64), none.astype(np.float32))]), stages


def _by_index(part: Part, queries: Vectors, k: int, chosen: plan.Plan) -> tuple[Candidates, Stage]:
    """Request more and more neighbours, for the queries that need them; compare every vector if that is faster."""
    index = chosen.index

    def asked(queries: Vectors, wanted: int) -> tuple[Candidates, NDArray[np.bool_]]:
        found, sure = index.search(queries, k, wanted, part.allowed)
        return Candidates(np.where(found.positions < 0, -1, found.positions + part.first), found.similarities), sure

    rows, wanted = part.segment.rows, chosen.wanted
    found, sure = asked(queries, wanted)
    detail = (
        f"segment {part.number}: {wanted:,} neighbours by the {index.name}: {chosen.index_ms:.2g} ms predicted, "
        f"{chosen.exact_ms:.2g} ms for {part.there:,} of {rows:,} vectors"
    )
    stage = Stage(index.name, detail, wanted)
    while not sure.all():
        open_ = np.flatnonzero(~sure)
        wanted = min(rows, wanted * _WIDER)
        exactly = plan.exact_ms(rows, part.there, queries.shape[1], len(open_))
        if wanted >= rows or exactly <= index.ms(wanted, k, len(open_)):
            more, now = _exactly([part], queries[open_], k, _bars([], len(open_), k)), np.ones(len(open_), bool)
            stage.detail += f"; exactly for {len(open_):,} queries, as their neighbours were too few"
        else:
            more, now = asked(queries[open_], wanted)
            stage.detail += f"; {wanted:,} neighbours for {len(open_):,} queries, as the first were too few"
            stage.rows = wanted
        found = _replaced(found, open_, more)
        sure[open_] = now
    return found, stage


def _exactly(parts: Sequence[Part], queries: Vectors, k: int, bars: NDArray[np.float32]) -> Candidates:
    """The best `k` rows of all parts for each query, with ties, among the rows that reach its bar."""
    # For one query, all cores read vectors if that is worth it; the product of many queries uses all cores anyway.
    alone = len(queries) > 1 or all(part.segment.rows <= LEAST_ROWS for part in parts)
    cores = 1 if alone else plan.CORES
    blocks = _Shared(itertools.chain.from_iterable(part.blocks(cores) for part in parts))

    def work() -> Candidates:
        with at_work():
            return scan(blocks, queries, k, bars)

    try:
        others = [_cores().submit(work) for _ in range(cores - 1)]
        mine = scan(blocks, queries, k, bars)
        return joined([mine, *(other.result() for other in others)])
    except BaseException:
        blocks.stop()
        raise


def _scanned(parts: Sequence[Part], reason: str) -> Stage:
    which = f"segment {parts[0].number}" if len(parts) == 1 else f"{len(parts):,} segments"
    there, rows = sum(part.there for part in parts), sum(part.segment.rows for part in parts)
    return Stage("exact", f"{which}: {there:,} of {rows:,} vectors: {reason}", there)


def _reason(parts: Sequence[Part], plans: Sequence[plan.Plan]) -> str:
    """Why these parts are scanned exactly; those without a plan have no index."""
    if not plans:
        return "there is no index"
    if len(plans) < len(parts):
        return f"{len(parts) - len(plans):,} of them without an index"
    exactly, indexed = sum(chosen.exact_ms for chosen in plans), sum(chosen.index_ms for chosen in plans)
    names = " and ".join(dict.fromkeys(chosen.index.name for chosen in plans))
    return f"{exactly:.2g} ms predicted, {indexed:.2g} ms by the {names}"


def _bars(found: Sequence[Candidates], queries: int, k: int) -> NDArray[np.float32]:
    """The smallest similarity to each query with which a row can be among the best `k`."""
    least = np.full((queries, 1), LEAST, np.float32)
    near = np.concatenate([least, *(each.similarities for each in found)], axis=1)
    if near.shape[1] <= k:
        return least[:, 0]
    last: NDArray[np.float32] = np.maximum(-np.partition(-near, k - 1, axis=1)[:, k - 1], least[:, 0])
    return last


def _replaced(found: Candidates, rows: NDArray[np.int64], by: Candidates) -> Candidates:
    width = max(found.positions.shape[1], by.positions.shape[1])
    positions = np.full((len(found.positions), width), -1)
    near = np.full(positions.shape, -np.inf, np.float32)
    for target, source, new in (
        (positions, found.positions, by.positions),
        (near, found.similarities, by.similarities),
    ):
        target[:, : source.shape[1]] = source
        target[rows] = -1 if target is positions else -np.inf
        target[rows, : new.shape[1]] = new
    return Candidates(positions, near)


class _Shared(Iterator[Block]):
    """Blocks that several threads take in turn; none are left after an error."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()

    def __next__(self) -> Block:
        with self._lock:
            try:
                return next(self._blocks)
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Leave nothing for the others."""
        self._blocks = iter(())


_scanning: Threads | None = None
_starting = threading.Lock()


def _cores() -> Threads:
    global _scanning
    with _starting:
        if _scanning is None:
            _scanning = Threads(plan.CORES, "jammi-search")
        return _scanning


def _after_fork() -> None:
    """A child has no threads of its parent."""
    global _scanning, _starting
    _scanning, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
