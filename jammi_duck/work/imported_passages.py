"""Gathers imported vectors of passages until all of a text are there, since a text is written whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.encoder.passages import Cutter, embedded_text
from jammi_duck.storage.files.parquet import PASSAGE_SCHEMA
from jammi_duck.work.text_buffer import Sink, digest

_NO_DIGEST = bytes(16)


class Place(NamedTuple):
    """Which passage of its text a vector is of: its number, where it begins and ends, and how many there are.

    `title` stands before the text, as the source has it.
    """

    passage: int
    start: int | None
    end: int | None
    passages: int
    title: str | None


class Given(NamedTuple):
    """The vector of a passage; `text` is None where it is not known, and `row_digest` that of the whole text."""

    vector: NDArray[np.float32]
    text: str | None
    row_digest: bytes
    place: Place


class ImportedPassages:
    """The passages that have come so far. Threads may share it."""

    def __init__(self, cutter: Cutter | None) -> None:
        """`cutter` says what is embedded of a title; None if the model is not here."""
        self.texts = 0
        self._cutter = cutter
        self._waiting: dict[str, list[Given]] = {}
        self._lock = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether all texts were written that passages came of."""
        return not self._waiting

    def add(self, rows: Iterable[tuple[str, Given]], sink: Sink) -> None:
        """Take passages with the keys of their rows, and write the texts that they complete."""
        whole: list[tuple[str, list[Given]]] = []
        with self._lock:
            for key, given in rows:
                there = self._waiting.setdefault(key, [])
                there.append(given)
                if len(there) == given.place.passages:
                    whole.append((key, self._waiting.pop(key)))
            self.texts += len(whole)
        if whole:
            self._write(whole, sink)

    def _write(self, whole: Sequence[tuple[str, list[Given]]], sink: Sink) -> None:
        keys = [key for key, passages in whole for _ in passages]
        given = [each for _, passages in whole for each in sorted(passages, key=lambda each: each.place.passage)]
        texts = [self._embedded(each) for each in given]
        columns = (
            [each.place.passage for each in given],
            [each.place.start for each in given],
            [each.place.end for each in given],
            [each.row_digest for each in given],
        )
        arrays = [pa.array(each, field.type) for each, field in zip(columns, PASSAGE_SCHEMA, strict=True)]
        sink.write(
            keys,
            np.stack([each.vector for each in given]),
            [_NO_DIGEST if text is None else digest(text) for text in texts],
            # A passage that is nobody knows where has no words.
            [text or "" for text in texts],
            pa.RecordBatch.from_arrays(arrays, schema=PASSAGE_SCHEMA),
        )

    def _embedded(self, given: Given) -> str | None:
        if given.text is None:
            return None
        title = given.place.title or ""
        return embedded_text(self._cutter.title(title) if self._cutter else title.strip(), given.text)
