"""The file of one segment's words: for each term the rows that have it, how often, and where. See docs/format.md."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError
from jammi_duck.fields import ELSEWHERE, Amount, Number, Record, Sha256, check_understood, naming, parsed, record
from jammi_duck.storage.words.varints import Bytes, Numbers, append, decode, encode, number_at
from jammi_duck.types import Analysis

MAGIC = b"JAMMIWRD"
FORMAT_VERSION = 1
_BLOCK_TERMS = 16
_MOST_POSITION = (1 << 32) - 1
_END = 4 + len(MAGIC)
_READ_AT_ONCE = 1 << 20
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Header(Record):
    """What a file says of itself, in JSON at its end.

    `parquet` is the SHA-256 of the segment's Parquet file, and `content` that of all bytes before. The sections follow
    each other: `MAGIC`, the rows' lengths, the postings, the dictionary and the blocks, which take so many bytes.
    """

    format_version: int
    rows: Number
    terms: Amount
    length_bytes: Number
    postings_bytes: Amount
    dictionary_bytes: Amount
    parquet: Sha256
    analysis: Analysis
    content: Sha256
    # Whether it has the words of all rows that were live. Written only where it has not.
    lacks_rows: bool = field(default=False, metadata=ELSEWHERE)

    def _others(self) -> dict[str, Any]:
        return {"lacks_rows": True} if self.lacks_rows else {}


@dataclass(frozen=True)
class Postings:
    """The rows that have terms: `rows[i]` has the term with the number `terms[i]`, `counts[i]` times.

    Ordered by term, then by row. `positions` are those of the words in a row, posting after posting.
    """

    terms: Numbers
    rows: Numbers
    counts: Numbers
    positions: Numbers


@dataclass(frozen=True)
class Entries:
    """Consecutive terms of a dictionary, and for each the number of rows that have it, and the bytes of its postings.

    `start` is where those of the first begin. `sizes` has a column each for rows, counts and positions.
    """

    terms: Sequence[bytes]
    row_counts: Numbers
    sizes: Numbers
    start: int

    def __getitem__(self, part: slice) -> Entries:
        """Some of them."""
        first = part.indices(len(self.terms))[0]
        start = self.start + int(self.sizes[:first].sum())
        return Entries(self.terms[part], self.row_counts[part], self.sizes[part], start)


class WordsWriter:
    """Writes a file: the terms in rising order, then `close`."""

    def __init__(self, path: Path, lengths: NDArray[np.int64]) -> None:
        """`lengths` are how many words each row of the segment has, without stop words."""
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`, and `discard`
        self._digest = hashlib.sha256()
        self._rows = len(lengths)
        self._length_bytes = next(size for size in (1, 2, 4) if lengths.max(initial=0) < 1 << 8 * size)
        self._dictionary = bytearray()
        self._blocks: list[tuple[int, int]] = []
        self._terms = self._postings = 0
        self._last = b""
        self._write(MAGIC)
        self._write(lengths.astype(f"<u{self._length_bytes}").tobytes())

    def write(self, terms: Sequence[bytes], postings: Postings) -> None:
        """Append terms that come after all before, with their postings; `postings.terms` count from 0 here."""
        row_counts = np.bincount(postings.terms, minlength=len(terms))
        firsts = np.cumsum(row_counts) - row_counts
        gaps = np.diff(postings.rows, prepend=0)
        gaps[firsts] = postings.rows[firsts] + 1
        repeated = postings.counts > 1
        steps = np.diff(postings.positions, prepend=0)
        starts = np.cumsum(postings.counts) - postings.counts
        steps[starts] = postings.positions[starts]
        streams = [
            (gaps << 1 | repeated, postings.terms),
            (postings.counts[repeated] - 2, postings.terms[repeated]),
            (steps, np.repeat(postings.terms, postings.counts) if len(terms) > 1 else _NONE),
        ]
        parts: list[Bytes] = []
        sizes = np.empty((len(terms), len(streams)), np.int64)
        for i, (numbers, of_term) in enumerate(streams):
            written, lengths = encode(numbers)
            parts.append(written)
            sizes[:, i] = np.bincount(of_term, lengths, len(terms)) if len(terms) > 1 else len(written)
        self._add_entries(terms, row_counts, sizes)
        self._write(_woven(parts, sizes).data)
        self._postings += int(sizes.sum())

    def close(self, parquet: str, analysis: Analysis, *, lacks_rows: bool = False) -> None:
        """Write the rest: the dictionary, and what the file is."""
        self._write(self._dictionary)
        self._write(np.array(self._blocks, "<u8").reshape(-1, 2).tobytes())
        header = Header(
            format_version=FORMAT_VERSION,
            rows=self._rows,
            terms=self._terms,
            length_bytes=self._length_bytes,
            postings_bytes=self._postings,
            dictionary_bytes=len(self._dictionary),
            parquet=parquet,
            analysis=analysis,
            content=self._digest.hexdigest(),
            lacks_rows=lacks_rows,
        )
        text = json.dumps(header.as_fields()).encode()
        self._file.write(text + len(text).to_bytes(4, "little") + MAGIC)
        self._file.close()

    def discard(self) -> None:
        """Close what is not whole."""
        self._file.close()

    def _write(self, content: bytes | bytearray | memoryview) -> None:
        self._digest.update(content)
        self._file.write(content)

    def _add_entries(self, terms: Sequence[bytes], row_counts: Numbers, sizes: Numbers) -> None:
        starts = self._postings + np.cumsum(sizes.sum(axis=1)) - sizes.sum(axis=1)
        numbers = np.column_stack([row_counts, sizes]).tolist()
        for term, start, of_term in zip(terms, starts.tolist(), numbers, strict=True):
            if self._terms % _BLOCK_TERMS == 0:
                self._blocks.append((len(self._dictionary), start))
                shared = 0
            else:
                shared = _shared(self._last, term)
            for number in (shared, len(term) - shared):
                append(self._dictionary, number)
            self._dictionary += term[shared:]
            for number in of_term:
                append(self._dictionary, number)
            self._last = term
            self._terms += 1


class WordsFile:
    """An open file, memory-mapped. Threads may share it."""

    def __init__(self, path: Path, name: str = "") -> None:
        """Map the file, which errors call by a name of its own if it has one.

        Raises:
            DamagedError: it is not whole, or contradicts itself.
            UnsupportedError: a later version wrote it.
        """
        self.name = name or path.name
        with naming(self.name), open(path, "rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise DamagedError("is empty") from error
            self.header = header = self._read_header()
        self.rows = header.rows
        self.terms = header.terms
        # No number of a dictionary is larger.
        self._most = max(header.rows, header.postings_bytes)
        at = len(MAGIC)
        self.lengths = np.frombuffer(self._map, f"<u{header.length_bytes}", header.rows, at)
        self._postings = np.frombuffer(
            self._map, np.uint8, header.postings_bytes, at + header.rows * header.length_bytes
        )
        self._dictionary = at + header.rows * header.length_bytes + header.postings_bytes
        self._blocks = np.frombuffer(
            self._map, "<u8", 2 * _blocks_of(header.terms), self._dictionary + header.dictionary_bytes
        ).reshape(-1, 2)
        for starts, end in zip(self._blocks.T, (header.dictionary_bytes, header.postings_bytes), strict=True):
            if len(starts) and (starts[0] > 0 or starts[-1] > end or (starts[1:] < starts[:-1]).any()):
                raise self._damaged("blocks that do not follow each other")

    @property
    def analysis(self) -> Analysis:
        """How the texts were analysed."""
        return self.header.analysis

    def find(self, term: bytes) -> Entries | None:
        """The entry of a term, if it is there. Raises DamagedError."""
        block = self._block_of(term)
        if block < 0:
            return None
        start = int(self._blocks[block, 1])
        for each, numbers in self._read_terms(block, block + 1):
            if each >= term:
                table = np.array([numbers], np.int64)
                return Entries([each], table[:, 0], table[:, 1:], start) if each == term else None
            start += sum(numbers[1:])
        return None

    def beginning(self, prefix: bytes) -> Entries:
        """The entries of all terms that begin so. Raises DamagedError."""
        # Every byte of UTF-8 is below this.
        last = self._block_of(prefix + b"\xff")
        entries = self._read_blocks(max(0, self._block_of(prefix)), last + 1)
        places = [place for place, term in enumerate(entries.terms) if term.startswith(prefix)]
        return entries[places[0] : places[-1] + 1] if places else entries[:0]

    def entries(self, least: int) -> Iterator[Entries]:
        """All entries in order, at a time some blocks with so many bytes of postings or more. Raises DamagedError."""
        first, last = 0, b""
        while first < len(self._blocks):
            end = int(np.searchsorted(self._blocks[:, 1], self._blocks[first, 1] + least))
            end = min(max(end, first + 1), len(self._blocks))
            found = self._read_blocks(first, end)
            if first and found.terms[0] <= last:
                raise self._damaged("terms that are not in order")
            yield found
            first, last = end, found.terms[-1]

    def postings(self, entries: Entries, *, positions: bool = True) -> Postings:
        """The postings of terms; without their positions where these are not wanted. Raises DamagedError."""
        total = int(entries.sizes.sum())
        if entries.start + total > len(self._postings):
            raise self._damaged("postings beyond its end")
        written = self._postings[entries.start : entries.start + total]
        with naming(self.name):
            return self._decoded(entries, written, positions=positions)

    def _decoded(self, entries: Entries, written: Bytes, *, positions: bool) -> Postings:
        gaps, counts, steps = _unwoven(written, entries.sizes)
        numbers = decode(gaps, int(entries.row_counts.sum()))
        terms = _repeated(entries.row_counts)
        firsts = np.cumsum(entries.row_counts) - entries.row_counts
        gaps_to = numbers >> 1
        rows = _summed(gaps_to, firsts, entries.row_counts) - 1
        found = np.ones(len(rows), np.int64)
        repeated = np.flatnonzero(numbers & 1)
        found[repeated] = decode(counts, len(repeated)) + 2
        if len(rows) and (gaps_to.min() < 1 or rows.max() >= self.rows):
            raise DamagedError("has postings of rows that are not there")
        places = np.empty(0, np.int64)
        if positions:
            starts = np.cumsum(found) - found
            places = _summed(decode(steps, int(found.sum())), starts, found)
            if places.max(initial=0) > _MOST_POSITION:
                raise DamagedError("has positions that are too high")
        return Postings(terms, rows, found, places)

    def read_through(self) -> None:
        """Read all of it. Raises DamagedError: its SHA-256 may fit, and somebody have forged both."""
        for entries in self.entries(_READ_AT_ONCE):
            self.postings(entries)

    def check(self) -> None:
        """Compare the content with its SHA-256. Raises DamagedError."""
        digest = hashlib.sha256()
        end = self._dictionary + self.header.dictionary_bytes + self._blocks.nbytes
        for start in range(0, end, _READ_AT_ONCE):
            digest.update(self._map[start : min(end, start + _READ_AT_ONCE)])
        if digest.hexdigest() != self.header.content:
            raise DamagedError(f"'{self.name}' was altered: its SHA-256 differs")

    def _damaged(self, what: str) -> DamagedError:
        return DamagedError(f"'{self.name}' has {what}")

    def _read_header(self) -> Header:
        size = len(self._map)
        if size < len(MAGIC) + _END or self._map[: len(MAGIC)] != MAGIC or self._map[size - len(MAGIC) :] != MAGIC:
            raise DamagedError("is not a whole file of words")
        length = int.from_bytes(self._map[size - _END : size - len(MAGIC)], "little")
        end = size - _END - length
        fields = parsed(self._map[max(0, end) : size - _END])
        check_understood(fields, FORMAT_VERSION)
        others = {name: value for name, value in fields.items() if name != "lacks_rows"}
        lacks_rows = fields.get("lacks_rows", False)
        header = record(Header, others, analysis=record(Analysis, fields.get("analysis")), lacks_rows=lacks_rows)
        sizes = header.rows * header.length_bytes + header.postings_bytes + header.dictionary_bytes
        if header.length_bytes not in (1, 2, 4) or len(MAGIC) + sizes + 16 * _blocks_of(header.terms) != end:
            raise DamagedError("contradicts itself: its sections have other sizes")
        return header

    def _block_of(self, term: bytes) -> int:
        """The last block whose first term is not after this one; -1 if there is none."""
        low, high = 0, len(self._blocks)
        while low < high:
            middle = (low + high) // 2
            if self._first_term(middle) <= term:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _first_term(self, block: int) -> bytes:
        at = self._dictionary + int(self._blocks[block, 0])
        length, at = number_at(self._map, at + 1)
        return self._map[at : at + length]

    def _read_blocks(self, first: int, end: int) -> Entries:
        start = int(self._blocks[first, 1]) if first < end else 0
        entries = list(self._read_terms(first, end))
        table = np.array([numbers for _, numbers in entries], np.int64).reshape(-1, 4)
        self._check_entries(table, start, first, end)
        return Entries([term for term, _ in entries], table[:, 0], table[:, 1:], start)

    def _read_terms(self, first: int, end: int) -> Iterator[tuple[bytes, list[int]]]:
        """The terms of some blocks, each with its number of rows and the sizes of its postings."""
        if first >= end:
            return
        last = int(self._blocks[end, 0]) if end < len(self._blocks) else self.header.dictionary_bytes
        written = self._map[self._dictionary + int(self._blocks[first, 0]) : self._dictionary + last]
        term, at, size = b"", 0, len(written)
        try:
            while at < size:
                shared, at = number_at(written, at)
                length, at = number_at(written, at)
                before, term = term, term[:shared] + written[at : at + length]
                if term <= before and before:
                    raise self._damaged("terms that are not in order")
                at += length
                numbers = []
                for _ in range(4):
                    number = written[at]
                    at += 1
                    if number > 127:
                        number, at = number_at(written, at - 1)
                    numbers.append(number)
                if max(numbers) > self._most:
                    raise self._damaged("a dictionary of other postings")
                yield term, numbers
        except IndexError as error:
            raise self._damaged("a dictionary that is cut off") from error

    def _check_entries(self, table: Numbers, start: int, first: int, end: int) -> None:
        """Raise DamagedError unless the numbers of these blocks' entries are those of their postings."""
        wanted = min(end * _BLOCK_TERMS, self.terms) - first * _BLOCK_TERMS
        next_start = int(self._blocks[end, 1]) if end < len(self._blocks) else self.header.postings_bytes
        most = [self.rows, *(self.header.postings_bytes,) * 3]
        if first < end and (
            len(table) != wanted or (table > most).any() or int(table[:, 1:].sum()) != next_start - start
        ):
            raise self._damaged("a dictionary of other postings")


def _blocks_of(terms: int) -> int:
    return -(-terms // _BLOCK_TERMS)


def _shared(before: bytes, term: bytes) -> int:
    """How many bytes two terms have in common at their beginning."""
    most = min(len(before), len(term))
    return next((place for place in range(most) if before[place] != term[place]), most)


def _summed(steps: Numbers, firsts: Numbers, lengths: Numbers) -> Numbers:
    """The running sums of steps, each list of so many steps from its own first on."""
    sums = np.cumsum(steps)
    if len(firsts) == 1:
        return sums
    there = lengths > 0
    firsts, lengths = firsts[there], lengths[there]
    return sums - np.repeat(sums[firsts] - steps[firsts], lengths)


def _repeated(counts: Numbers) -> Numbers:
    """The number of each term, so many times."""
    return np.zeros(counts[0], np.int64) if len(counts) == 1 else np.repeat(np.arange(len(counts)), counts)


def _places(sizes: Numbers) -> list[NDArray[np.int64]]:
    """Where the bytes of each stream stand, if each term's stand together: stream after stream, then the next term."""
    starts = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
    places = []
    for stream, mine in zip(starts.T, sizes.T, strict=True):
        own = np.cumsum(mine) - mine
        places.append(np.repeat(stream - own, mine) + np.arange(int(mine.sum())))
    return places


def _woven(parts: Sequence[Bytes], sizes: Numbers) -> Bytes:
    if len(sizes) == 1:
        return np.concatenate(parts)
    woven = np.empty(int(sizes.sum()), np.uint8)
    for part, places in zip(parts, _places(sizes), strict=True):
        woven[places] = part
    return woven


def _unwoven(written: Bytes, sizes: Numbers) -> list[Bytes]:
    if len(sizes) == 1:
        return np.split(written, np.cumsum(sizes[0])[:-1])
    return [written[places] for places in _places(sizes)]
