"""The story of a fill: rows that have no vector -> a batch of them encoded -> their vectors written beside the text.

A vector is written only where the row still has the text that it is of, and no vector. So whatever changes meanwhile,
no row gets the vector of another text, and a batch is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from jammi_duck.encoder import Encoder
from jammi_duck.encoder.wrapper_encoder import WrapperEncoder
from jammi_duck.lifetime import at_work
from jammi_duck.threads import Task, Threads
from jammi_duck.types import Vectors

# After so many vectors that could not be written, or did not stay, a row is left to a later run.
_MOST_TRIES = 3
_NO_MEMORY = "there is not enough memory for it even alone, or the model's numbers for it overflow"


@dataclass(frozen=True)
class Row:
    """A row that has no vector yet: where the database finds it again, its key as it is shown, and what to embed.

    `primary` is the key as it is: a value, or a tuple of several.
    """

    place: Any
    key: str
    value: Any
    primary: Any = None


@dataclass(frozen=True)
class Filled:
    """How many rows got a vector, have no text, could not be embedded, and are left without a vector."""

    filled: int
    skipped: int
    failed: int
    left: int
    seconds: float


class Column(Protocol):
    """A column of vectors in a table of some database, beside one of texts, or of other values."""

    def clear_changed(self) -> int:
        """Set the vectors of rows NULL whose texts were noted as changed; how many those are."""
        ...

    def count(self, *, with_text: bool) -> int:
        """How many rows without a vector have a text, or have none."""
        ...

    def read(self, after: Any, size: int) -> list[Row]:  # noqa: ANN401 - a place of its own kind
        """Some rows that have a text and no vector, in the order of their places: those after one, or the first."""
        ...

    def write(self, rows: Sequence[Row], vectors: Vectors) -> int:
        """Write the vectors of rows, in one transaction, where their texts are still the same; how many those are."""
        ...


class Tried:
    """Rows that are not tried again with the same text: they failed, or their vectors did not stay several times."""

    def __init__(self) -> None:
        """Nothing was tried yet."""
        self._failed: set[bytes] = set()
        self._missed: Counter[bytes] = Counter()

    def is_due(self, row: Row) -> bool:
        """Whether to try this row."""
        mark = _mark(row)
        return mark not in self._failed and self._missed[mark] < _MOST_TRIES

    def failed(self, row: Row) -> None:
        """Note that this row could not be embedded."""
        self._failed.add(_mark(row))

    def missed(self, rows: Sequence[Row]) -> None:
        """Note that not all of these rows could be written, or that they had no vector again."""
        self._missed.update(map(_mark, rows))


@dataclass(frozen=True)
class _Encoded:
    """What came of a batch: rows with their vectors, and rows with the reason why they have none."""

    ready: list[Row]
    vectors: Vectors
    failed: list[tuple[Row, str]]


def _nothing(*_: object) -> None:
    pass


def fill(
    column: Column,
    encoder: Encoder,
    *,
    batch_size: int,
    batches: int,
    to_the_end: bool,
    began: Callable[[int, int, int], None],
    encoded: Callable[[int, Sequence[Row]], None],
    failed: Callable[[int, Row, str], None] = _nothing,
    written: Callable[[int], None] = _nothing,
    workers: int = 1,
    verbose: bool = False,
    tried: Tried | None = None,
) -> Filled:
    """Embed rows that have no vector: `batches` times `batch_size` of them, or all.

    While a batch is written, the next one is encoded. `began` gets the numbers of the run and of the batch, and how
    many rows it has; `encoded` gets the number of the batch, and those rows that have a vector now; `failed` gets the
    number, a row and the reason why it has none; `written` gets how many rows have a vector in the table now. A wrapper
    encodes on `workers` threads, and is told `verbose`. `tried` remembers the rows that are not tried again.

    An error waits for the batch that is being encoded, which may be paid for; Ctrl-C does not.
    """
    start = time.perf_counter()
    tried = Tried() if tried is None else tried
    column.clear_changed()
    skipped = column.count(with_text=False)
    filled = missing = 0
    encode = _encoding(encoder, workers, verbose)
    waiting: tuple[int, bool, Task[_Encoded]] | None = None
    pool = Threads(1, "jammi-columns")
    try:
        for batch in _batches(column, tried, batch_size, batches, to_the_end=to_the_end):
            before, waiting = waiting, None
            made, was_again = None, False
            if before is not None:
                number, was_again, encoding = before
                made = encoding.result()
                encoded(number, made.ready)
                for row, reason in made.failed:
                    tried.failed(row)
                    failed(number, row, reason)
                missing += len(made.failed)
            if batch is not None:
                run, number, is_again, rows = batch
                began(run, number, len(rows))
                waiting = number, is_again, pool.submit(partial(encode, number, rows))
            if made is not None and made.ready:
                count = column.write(made.ready, made.vectors)
                # A trigger of the table may take away what was written.
                if was_again or count < len(made.ready):
                    tried.missed(made.ready)
                filled += count
                written(count)
    except Exception:
        if waiting is not None:
            with suppress(Exception):
                waiting[2].result()
        raise
    finally:
        pool.close()
    return Filled(filled, skipped, missing, column.count(with_text=True), time.perf_counter() - start)


def _batches(
    column: Column, tried: Tried, size: int, most: int, *, to_the_end: bool
) -> Iterator[tuple[int, int, bool, list[Row]] | None]:
    """The rows of each batch, with the numbers of its run and of itself within that; None: write all that you have.

    To the end, the table is read again and again until there is nothing to do: rows have changed or come meanwhile.
    Each batch has, too, whether the table was read before.
    """
    run, number, is_again = 1, 0, False
    while True:
        after, found = None, False
        while rows := column.read(after, size):
            after = rows[-1].place
            due = [row for row in rows if tried.is_due(row)]
            if not due:
                continue
            found = True
            number += 1
            if number > most:
                run, number = run + 1, 1
            yield run, number, is_again, due
            if number == most and not to_the_end:
                break
        yield None
        if not to_the_end or not found:
            return
        is_again = True


def _encoding(encoder: Encoder, workers: int, verbose: bool) -> Callable[[int, Sequence[Row]], _Encoded]:
    steady = encoder.stream()

    def encode(number: int, rows: Sequence[Row]) -> _Encoded:
        # An exit waits for it: a thread that ends within a wrapper's C++ would abort the process.
        with at_work():
            if isinstance(encoder, WrapperEncoder):
                return _by_wrapper(encoder, number, rows, workers, verbose)
            return _by_model(steady, rows)

    return encode


def _by_model(encoder: Encoder, rows: Sequence[Row]) -> _Encoded:
    found = encoder.encode_rows([row.value for row in rows], "document", _nothing)
    ready = [row for row, is_failed in zip(rows, found.failed, strict=True) if not is_failed]
    places = np.flatnonzero(found.failed).tolist()
    return _Encoded(
        ready,
        found.vectors[~found.failed],
        [(rows[place], found.reasons.get(place, _NO_MEMORY)) for place in places],
    )


def _by_wrapper(encoder: WrapperEncoder, number: int, rows: Sequence[Row], workers: int, verbose: bool) -> _Encoded:
    """The vectors of a wrapper, as they are; it gets the keys and values as they are."""
    wrapper = encoder.wrapper
    size = -(-len(rows) // max(workers, 1))
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]

    def encode(part: Sequence[Row]) -> list[Any]:
        return wrapper.encode_batch(number, [(row.primary, row.value) for row in part], verbose=verbose)

    if len(parts) == 1:
        made = encode(parts[0])
    else:
        with ThreadPoolExecutor(len(parts), thread_name_prefix="jammi-wrapper") as pool:
            made = [each for found in pool.map(encode, parts) for each in found]
    ready, vectors, failed = [], [], []
    for row, each in zip(rows, made, strict=True):
        if not isinstance(each, str) and np.any(each):
            ready.append(row)
            vectors.append(each)
        else:
            reason = each if isinstance(each, str) else "it gave a vector of zeros, which has no direction"
            failed.append((row, f"the wrapper '{wrapper.name}' failed: {reason}"))
    found = np.stack(vectors) if vectors else np.zeros((0, encoder.dimensions), np.float32)
    return _Encoded(ready, found, failed)


def _mark(row: Row) -> bytes:
    """What stands for a row with its text."""
    return hashlib.blake2b(repr((row.key, row.value)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
