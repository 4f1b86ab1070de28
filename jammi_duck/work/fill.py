"""The story of a fill: rows that have no vector -> a batch of them encoded -> their vectors written beside the text.

A vector is written only where the row still has the text that it is of, and no vector. So whatever changes meanwhile,
no row gets the vector of another text, and a batch is there as a whole or not at all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from jammi_duck.encoder import Encoder, Encodings, for_stream
from jammi_duck.types import Vectors


@dataclass(frozen=True)
class Row:
    """A row whose text has no vector yet: where DuckDB has it now, its key as it is shown, and its text."""

    place: int
    key: str
    text: str


@dataclass(frozen=True)
class Filled:
    """How many rows got a vector, have no text, could not be embedded, and are left without a vector."""

    filled: int
    skipped: int
    failed: int
    left: int
    seconds: float


class Column(Protocol):
    """A column of vectors in a table of some database, beside one of texts."""

    def count(self, *, with_text: bool) -> int:
        """How many rows without a vector have a text, or have none."""
        ...

    def read(self, after: int, size: int) -> list[Row]:
        """Some rows that have a text and no vector, from a place on."""
        ...

    def write(self, rows: Sequence[Row], vectors: Vectors) -> int:
        """Write the vectors of rows, in one transaction, where their texts are still the same; how many those are."""
        ...


def fill(
    column: Column,
    encoder: Encoder,
    *,
    batch_size: int,
    batches: int,
    to_the_end: bool,
    began: Callable[[int, int, int], None],
    encoded: Callable[[int, Sequence[Row]], None],
) -> Filled:
    """Embed rows that have no vector: `batches` times `batch_size` of them, or all.

    While a batch is written, the next one is encoded. `began` gets the numbers of the run and of the batch, and how
    many rows it has; `encoded` gets the number of the batch, and those rows that have a vector now.
    """
    start = time.perf_counter()
    skipped = column.count(with_text=False)
    filled = failed = 0
    encoder = for_stream(encoder)
    waiting: tuple[int, list[Row], Future[Encodings]] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="jammi-columns") as pool:
        # The last one is not followed by another.
        for batch in itertools.chain(_batches(column, batch_size, batches, to_the_end=to_the_end), (None,)):
            before, waiting = waiting, None
            ready, vectors = _result(before, encoded) if before else ([], None)
            failed += len(before[1]) - len(ready) if before else 0
            if batch is not None:
                run, number, rows = batch
                began(run, number, len(rows))
                waiting = number, rows, pool.submit(_encode, encoder, rows)
            if vectors is not None:
                filled += column.write(ready, vectors)
    return Filled(filled, skipped, failed, column.count(with_text=True), time.perf_counter() - start)


def _batches(column: Column, size: int, most: int, *, to_the_end: bool) -> Iterator[tuple[int, int, list[Row]]]:
    """The rows of each batch, with the numbers of its run and of itself within that."""
    after, run = -1, 1
    while True:
        for number in range(1, most + 1):
            rows = column.read(after, size)
            if not rows:
                return
            after = rows[-1].place
            yield run, number, rows
        if not to_the_end:
            return
        run += 1


def _encode(encoder: Encoder, rows: Sequence[Row]) -> Encodings:
    return encoder.encode_rows([row.text for row in rows], "document", lambda _: None)


def _result(
    waiting: tuple[int, list[Row], Future[Encodings]], encoded: Callable[[int, Sequence[Row]], None]
) -> tuple[list[Row], Vectors]:
    """The rows of a batch that have a vector now, and these vectors."""
    number, rows, future = waiting
    found = future.result()
    ready = [row for row, is_failed in zip(rows, found.failed, strict=True) if not is_failed]
    encoded(number, ready)
    return ready, found.vectors[~found.failed]
