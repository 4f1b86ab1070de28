"""Texts that are embedded by passages: cut, embedded a passage at a time, and written once all passages have vectors.

A text is written whole or not at all, so that an embedding table never has a part of one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from jammi_duck.encoder import Encoder, Encodings
from jammi_duck.encoder.dimensions import cut
from jammi_duck.encoder.passages import Cuts, Cutter, embedded_text
from jammi_duck.errors import BuildError
from jammi_duck.storage.files.parquet import PASSAGE_SCHEMA, Passages
from jammi_duck.types import Counts, Definition, Vectors
from jammi_duck.work.text_buffer import ROWS, Batch, Buffer, Room, Sink, TextBuffer, digest


def unpacked(text: str, *, has_title: bool) -> tuple[str, str]:
    """The title and the text, which SQL gives as one: with the length of the title, and a colon, before both.

    Raises BuildError if it is something else.
    """
    if not has_title:
        return "", text
    length, colon, rest = text.partition(":")
    if not colon or not length.isdecimal() or int(length) > len(rest):
        raise BuildError("the text of a row does not begin with the length of its title")
    return rest[: int(length)], rest[int(length) :]


class CutText:
    """A text that is embedded by its passages. Threads may embed some of them each."""

    def __init__(self, keys: Sequence[str], packed: str, title: str, text: str, cuts: Cuts, dimensions: int) -> None:
        """Of the rows with these keys; `packed` is title and text as SQL gives them."""
        self.keys = keys
        self.cuts = cuts
        self.vectors: Vectors = np.empty((len(cuts.starts), dimensions), np.float32)
        self.digests = [b""] * len(cuts.starts)
        self.row_digest = digest(packed)
        self.has_failed = self.is_truncated = False
        self.title, self._text = title, text
        self._left = len(cuts.starts)
        self._counting = threading.Lock()

    def __len__(self) -> int:
        """How many passages it has."""
        return len(self.digests)

    def embedded(self, passage: int) -> str:
        """What the model embeds of a passage."""
        return embedded_text(self.title, self._text[self.cuts.starts[passage] : self.cuts.ends[passage]])

    def take(
        self,
        passages: Sequence[int],
        vectors: Vectors,
        digests: Sequence[bytes],
        *,
        has_failed: bool = False,
        is_truncated: bool = False,
    ) -> bool:
        """Take the vectors of passages, which may have failed; returns whether these were the last of the text."""
        self.vectors[passages] = vectors
        for passage, each in zip(passages, digests, strict=True):
            self.digests[passage] = each
        with self._counting:
            self.has_failed |= has_failed
            self.is_truncated |= is_truncated
            self._left -= len(passages)
            return self._left == 0


# Passages of texts, by their numbers, that are embedded as one since they are equal.
Part: TypeAlias = tuple[CutText, int]
Parts: TypeAlias = list[Part]
# The same for one of the rows that have the text, by its key.
Row: TypeAlias = tuple[str, CutText, int]


class PassageBatch(Batch[Parts]):
    """Passages to be embedded together; equal ones are embedded once."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[str, Parts] = {}

    def add(self, owner: Parts, text: str) -> None:
        """One more passage."""
        if text in self._parts:
            self._parts[text] += owner
            self.characters += len(text)
        else:
            self._parts[text] = owner
            super().add(owner, text)


class PassageBuffer(Buffer[Parts]):
    """Of texts that are embedded by their passages; a text is written once all of these have come to their end."""

    def __init__(self, encoder: Encoder, definition: Definition, cutter: Cutter, room: Room | None = None) -> None:
        """For a table of this definition."""
        super().__init__(encoder, definition.dimensions, room)
        # How many passages the encoder was given.
        self.encoded = 0
        self._has_title = bool(definition.title_columns)
        self._cutter = cutter

    def cut(self, keys: Sequence[str], packed: str) -> CutText:
        """The text of rows with these keys, cut into passages. Raises BuildError."""
        title, text = unpacked(packed, has_title=self._has_title)
        title = self._cutter.title(title)
        return CutText(keys, packed, title, text, self._cutter.cut(text, title), self._dimensions)

    def _new_batch(self) -> PassageBatch:
        return PassageBatch()

    def _take(self, batch: Batch[Parts], encodings: Encodings, sink: Sink) -> Counts:
        vectors = cut(encodings.vectors, self._dimensions)
        whole = []
        for i, parts in enumerate(batch.owners):
            flags = {"has_failed": bool(encodings.failed[i]), "is_truncated": bool(encodings.truncated[i])}
            of = [digest(batch.texts[i])]
            whole += [text for text, passage in parts if text.take([passage], vectors[i : i + 1], of, **flags)]
        with self._gathering:
            self.encoded += len(batch.texts)
        return write_whole(whole, sink)

    def _share(self, owners: Sequence[Parts]) -> float:
        return sum(1 / len(text) for parts in owners for text, _ in parts) / len(owners)


def write_whole(texts: Sequence[CutText], sink: Sink) -> Counts:
    """Write texts all of whose passages have come to their end; those that failed are counted only."""
    failed = sum(len(each.keys) for each in texts if each.has_failed)
    whole = [each for each in texts if not each.has_failed]
    written = 0
    for block in _blocks(whole):
        written += len(block)
        _write(block, sink)
    truncated = sum(len(each.keys) for each in whole if each.is_truncated)
    return Counts(sum(len(each.keys) for each in whole), 0, failed, truncated, written)


def _blocks(texts: Sequence[CutText]) -> Iterator[list[Row]]:
    """The rows of texts, each key with each passage, so many at a time; all passages of a text in one block."""
    block: list[Row] = []
    for text in texts:
        for key in text.keys:
            block += ((key, text, passage) for passage in range(len(text)))
            if len(block) >= ROWS:
                yield block
                block = []
    if block:
        yield block


def _write(block: Sequence[Row], sink: Sink) -> None:
    sink.write(
        [key for key, _, _ in block],
        np.stack([text.vectors[passage] for _, text, passage in block]),
        [text.digests[passage] for _, text, passage in block],
        [text.embedded(passage) for _, text, passage in block],
        _columns(block),
    )


def _columns(block: Sequence[Row]) -> Passages:
    """Which passages the rows are."""
    columns = (
        [passage for _, _, passage in block],
        [int(text.cuts.starts[passage]) for _, text, passage in block],
        [int(text.cuts.ends[passage]) for _, text, passage in block],
        [text.row_digest for _, text, _ in block],
    )
    arrays = [pa.array(each, field.type) for each, field in zip(columns, PASSAGE_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=PASSAGE_SCHEMA)


def buffer_of(encoder: Encoder, definition: Definition, room: Room | None = None) -> TextBuffer | PassageBuffer:
    """The buffer for the texts of a table. Raises UnsupportedError if they are cut in an unknown way."""
    if definition.passages is None:
        return TextBuffer(encoder.stream(), definition.dimensions, room)
    return PassageBuffer(encoder.stream(), definition, Cutter(encoder, definition.passages), room)


def add_texts(
    buffer: TextBuffer | PassageBuffer,
    rows: Iterable[tuple[Sequence[str], str]],
    sink: Sink,
    progress: Callable[[float], None],
) -> Counts:
    """Let texts wait in a buffer, each with the keys of the rows that have it, whole or cut, as the buffer wants them.

    See `Buffer.add`.
    """
    if isinstance(buffer, TextBuffer):
        return buffer.add(rows, sink, progress)
    cut_texts = (buffer.cut(keys, packed) for keys, packed in rows)
    parts = (part for text in cut_texts for part in parts_of(text, range(len(text))))
    return buffer.add(parts, sink, progress)


def parts_of(text: CutText, passages: Iterable[int]) -> Iterator[tuple[Parts, str]]:
    """Passages of a text for a `PassageBuffer`."""
    return (([(text, passage)], text.embedded(passage)) for passage in passages)
