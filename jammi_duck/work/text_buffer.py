"""Collects texts to embed together: enough to sort by length, few enough to keep memory small and steady."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from jammi_duck.encoder import Encoder, Encodings, Usage
from jammi_duck.encoder.dimensions import cut
from jammi_duck.storage.files.parquet import Passages
from jammi_duck.threads import Task, beside
from jammi_duck.types import Counts, Vectors

# What a text is of, as whoever takes its vector needs it.
Owner = TypeVar("Owner")
ROWS = 4096
CHARACTERS = 4_000_000
# So many batches are embedded at a time: while one waits for its encoder or is written, another is at work.
IN_FLIGHT = 2
_SECONDS_BETWEEN_LOOKS = 0.1


class Sink(Protocol):
    """Where rows go that have their vectors, whoever has made these. Threads may write at once."""

    def write(
        self,
        row_ids: Sequence[str],
        vectors: Vectors,
        digests: Sequence[bytes],
        texts: Sequence[str] | None,
        passages: Passages | None = None,
    ) -> None:
        """Append rows. `vectors` is float32 [n, dimensions], L2-normalised; `texts` are there if words are indexed.

        `passages` is given where the rows are passages.
        """
        ...


class Room:
    """The memory that the texts of one query may take: several buffers share it, so that it is no more for many."""

    def __init__(self, buffers: int = 1) -> None:
        """For so many buffers."""
        self.buffers = buffers
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(IN_FLIGHT):
            self.leave()

    def enter(self, seconds: float) -> bool:
        """Wait so long for a place among the batches under way; whether there is one."""
        try:
            self._places.get(timeout=seconds)
        except Empty:
            return False
        return True

    def leave(self) -> None:
        """Let the next batch have the place."""
        self._places.put(None)

    def is_full(self, batch: Batch[Any]) -> bool:
        """Whether it is time to embed."""
        return len(batch.texts) >= ROWS or batch.characters * self.buffers >= CHARACTERS


@dataclass
class Batch(Generic[Owner]):
    """Texts to be embedded together, each with what it is of."""

    owners: list[Owner] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    characters: int = 0

    def add(self, owner: Owner, text: str) -> None:
        """One more text."""
        self.owners.append(owner)
        self.texts.append(text)
        self.characters += len(text)


class Buffer(ABC, Generic[Owner]):
    """Gathers texts, and embeds them into a sink, a full batch at a time. Threads may share it.

    Subclasses say what becomes of the vectors of a batch.

    `progress` is told how many texts are done, and ends the work by raising; it is asked while a thread waits, too.
    """

    def __init__(self, encoder: Encoder, dimensions: int, room: Room | None = None) -> None:
        """Vectors are cut to so many dimensions. The `room` is this buffer's own, unless others share it."""
        self._encoder = encoder
        self._dimensions = dimensions
        self._waiting = self._new_batch()
        self._gathering = threading.Lock()
        self._room = room or Room()
        # What other threads embed: while a provider is waited for, the next batch is gathered.
        self._elsewhere = 0
        self._landed: SimpleQueue[Task[Counts]] = SimpleQueue()

    def add(self, rows: Iterable[tuple[Owner, str]], sink: Sink, progress: Callable[[float], None]) -> Counts:
        """Let texts wait, each with what it is of, and embed each batch that they fill.

        What fills no batch waits for `flush`. Returns what became of the rows that this thread has embedded.
        """
        counts, rest = Counts(), iter(rows)
        while self._fill(rest):
            counts += self._embed_next(sink, progress, only_full=True)
        return counts

    def flush(self, sink: Sink, progress: Callable[[float], None]) -> Counts:
        """Embed what waits still."""
        counts = self._embed_next(sink, progress, only_full=False)
        while self._elsewhere:
            progress(0)
            counts += self._settled(_SECONDS_BETWEEN_LOOKS)
        return counts

    @property
    def usage(self) -> Usage | None:
        """What was asked of a provider for these texts."""
        return self._encoder.usage

    def _new_batch(self) -> Batch[Owner]:
        return Batch()

    @abstractmethod
    def _take(self, batch: Batch[Owner], encodings: Encodings, sink: Sink) -> Counts:
        """Write what has its vectors, which are not cut to the dimensions yet; returns what became of the rows."""
        ...

    def _share(self, owners: Sequence[Owner]) -> float:
        """How much of a row is done with each of these texts."""
        return 1

    def _fill(self, rows: Iterator[tuple[Owner, str]]) -> bool:
        """Let rows wait until a batch is full; False where they have come to their end before."""
        with self._gathering:
            while not self._room.is_full(self._waiting):
                row = next(rows, None)
                if row is None:
                    return False
                self._waiting.add(*row)
        return True

    def _embed_next(self, sink: Sink, progress: Callable[[float], None], *, only_full: bool) -> Counts:
        """Embed the batch that waits, once fewer than so many are under way; till then it stays where it is."""
        counts = self._settled()
        while not self._room.enter(_SECONDS_BETWEEN_LOOKS):
            progress(0)
            counts += self._settled()
        progress(0)
        with self._gathering:
            # Another thread may have taken it.
            is_wanted = not only_full or self._room.is_full(self._waiting)
            batch, rest = self._waiting, self._new_batch()
            batch, self._waiting = (batch, rest) if is_wanted else (rest, batch)
        if not batch.texts:
            self._room.leave()
            return counts
        if self._encoder.usage is None:
            return counts + self._embed_and_release(batch, sink, progress)
        with self._gathering:
            self._elsewhere += 1
        beside(lambda: self._embed_and_release(batch, sink, progress), self._landed)
        return counts

    def _settled(self, seconds: float = 0) -> Counts:
        """What other threads have done since the last look, or do in so long. Raises what one of them has raised."""
        counts = Counts()
        try:
            while True:
                done, seconds = self._landed.get(block=seconds > 0, timeout=seconds), 0
                with self._gathering:
                    self._elsewhere -= 1
                counts += done.result()
        except Empty:
            return counts

    def _embed_and_release(self, batch: Batch[Owner], sink: Sink, progress: Callable[[float], None]) -> Counts:
        counts = self._embed(batch, sink, progress)
        # Not after an error: it ends the work, and nobody is to begin another batch before that is known.
        self._room.leave()
        return counts

    def _embed(self, batch: Batch[Owner], sink: Sink, progress: Callable[[float], None]) -> Counts:
        told, share = 0, self._share(batch.owners)

        def tell(done: int) -> None:
            nonlocal told
            told += done
            progress(done * share)

        encodings = self._encoder.encode_rows(batch.texts, "document", tell)
        counts = self._take(batch, encodings, sink)
        progress((len(batch.texts) - told) * share)
        return counts


class TextBuffer(Buffer[Sequence[str]]):
    """Of texts that are embedded whole, each with the keys of the rows that have it."""

    def _take(self, batch: Batch[Sequence[str]], encodings: Encodings, sink: Sink) -> Counts:
        keys, texts = batch.owners, batch.texts
        lengths = np.array([len(each) for each in keys], np.int64)
        done = np.flatnonzero(~encodings.failed)
        vectors = cut(encodings.vectors if len(done) == len(texts) else encodings.vectors[done], self._dimensions)
        kept = [texts[i] for i in done]
        written = write_repeated(sink, [keys[i] for i in done], vectors, list(map(digest, kept)), kept)
        truncated = int(lengths[encodings.truncated & ~encodings.failed].sum())
        return Counts(rows=written, failed=int(lengths[encodings.failed].sum()), truncated=truncated)


def write_repeated(
    sink: Sink,
    keys: Sequence[Sequence[str]],
    vectors: Vectors,
    digests: Sequence[bytes],
    texts: Sequence[str] | None,
) -> int:
    """Write vectors, each for all the rows that have it, by their keys; returns how many rows these are.

    Only so many rows at a time as fill a batch, however many have one vector.
    """
    row_ids = list(chain.from_iterable(keys))
    if len(row_ids) == len(keys) <= ROWS:
        sink.write(row_ids, vectors, digests, texts)
        return len(row_ids)
    of_row = np.repeat(np.arange(len(keys)), [len(each) for each in keys])
    for start in range(0, len(row_ids), ROWS):
        part = of_row[start : start + ROWS]
        mine = [digests[i] for i in part], None if texts is None else [texts[i] for i in part]
        sink.write(row_ids[start : start + ROWS], vectors[part], *mine)
    return len(row_ids)


def digest(text: str) -> bytes:
    """The MD5 of a text as UTF-8, which SQL's md5() gives as well."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()
