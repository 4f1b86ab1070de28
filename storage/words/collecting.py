"""Collects the words of a segment's rows in bounded memory: sorted runs in files, which are merged at the end.

The same merge makes the words of a segment from those of the segments whose rows it takes.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from jammi_duck.storage.words.analyser import Analyser, tokens_in
from jammi_duck.storage.words.varints import Numbers
from jammi_duck.storage.words.words_file import Entries, Postings, WordsFile, WordsWriter

# A run ends at so many tokens, or when its texts have so many characters.
_RUN_TOKENS = 1 << 17
_RUN_CHARACTERS = 8 << 20
_TOKENS_AT_ONCE = 1 << 16
_POSTINGS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 20
# So many runs are merged at a time, so that each gives many postings at a time.
_RUNS_AT_ONCE = 16
_EMPTY = np.empty(0, np.int64)


@dataclass(frozen=True)
class Source:
    """Words of other rows that are taken: row i becomes row `places[i]`, or is left out where that is -1."""

    words: WordsFile
    places: Numbers


class Collector:
    """The words of one segment: `add` texts, then `save`, or `discard`. One thread at a time."""

    def __init__(self, analyser: Analyser, scratch: Callable[[], Path]) -> None:
        """`scratch` gives the path of a new file for a run; `save` and `discard` remove these files."""
        self.analyser = analyser
        self._scratch = scratch
        # Runs that were merged from none, from `_RUNS_AT_ONCE` runs, from as many of these, and so on.
        self._runs: list[list[Path]] = [[]]
        self._lengths: list[tuple[Numbers, Numbers]] = []
        # The row whose text the last run cut, and how many words came before.
        self._cut = (-1, 0)
        self._begin_run()

    def add(self, row: int, text: str) -> None:
        """Take the text of a row by its number in the segment. Each row comes at most once, in any order."""
        found, known = tokens_in(text), self._known
        while piece := list(islice(found, _TOKENS_AT_ONCE)):
            self._tokens += [known.setdefault(token, len(known)) for token in piece]
            self._pieces.append((row, len(piece)))
            if len(self._tokens) >= _RUN_TOKENS:
                self._end_run()
                known = self._known
        self._characters += len(text)
        if self._characters >= _RUN_CHARACTERS:
            self._end_run()

    def save(
        self, path: Path, rows: int, parquet: str, taken: Sequence[Source] = (), *, lacks_rows: bool = False
    ) -> None:
        """Write the file of a segment of so many rows, whose Parquet file has this SHA-256.

        `taken` are the words of other rows of the segment; `lacks_rows` says that those of some rows are not known.
        Raises DamagedError if one of their files is damaged.
        """
        self._end_run()
        lengths = np.zeros(rows, np.int64)
        for mine, counts in self._lengths:
            np.add.at(lengths, mine, counts)
        for source in taken:
            there = np.flatnonzero(source.places >= 0)
            lengths[source.places[there]] = source.words.lengths[there]
        identity = np.arange(rows)
        # In the order of the texts: what was merged more often came before. A text may be in several runs.
        runs = [run for level in reversed(self._runs) for run in level]
        sources = [*(Source(WordsFile(run), identity) for run in runs), *taken]
        try:
            self._write(path, lengths, _merged(sources), parquet, lacks_rows=lacks_rows)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the runs."""
        for runs in self._runs:
            _remove(runs)

    def _begin_run(self) -> None:
        self._known: dict[str, int] = {}
        self._tokens: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        self._characters = 0

    def _end_run(self) -> None:
        if not self._tokens:
            return
        terms, table = self._vocabulary()
        tokens = np.array(self._tokens, np.int64)
        rows, sizes = (np.array(column) for column in zip(*self._pieces, strict=True))
        self._begin_run()
        firsts = np.cumsum(sizes) - sizes
        row_of = np.repeat(rows, sizes)
        words = table.words[tokens]
        before = np.cumsum(words) - words
        # Within a row, positions go on from piece to piece.
        new_row = np.flatnonzero(np.diff(rows, prepend=-1))
        starts = before[firsts[new_row]]
        if rows[0] == self._cut[0]:
            starts[0] -= self._cut[1]
        last = before[-1] + words[-1] - starts[-1]
        self._cut = int(rows[-1]), int(last)
        row_sizes = np.add.reduceat(sizes, new_row)
        positions = before - np.repeat(starts, row_sizes)
        self._lengths.append((rows, np.add.reduceat(table.own[tokens], firsts)))
        sizes = table.ends[tokens] - table.starts[tokens]
        of_token = np.repeat(np.arange(len(tokens)), sizes)
        places = np.arange(len(of_token)) + np.repeat(table.starts[tokens] - (np.cumsum(sizes) - sizes), sizes)
        occurrences = Postings(
            table.terms[places],
            row_of[of_token],
            np.ones(len(places), np.int64),
            positions[of_token] + table.positions[places],
        )
        self._add_run(0, int(rows.max()) + 1, _in_parts(terms, _grouped(occurrences)))

    def _add_run(self, level: int, rows: int, parts: Iterator[tuple[Sequence[bytes], Postings]]) -> None:
        run = self._scratch()
        self._runs[level].append(run)
        self._write(run, np.zeros(rows, np.int64), parts)
        if len(self._runs[level]) >= _RUNS_AT_ONCE:
            if level + 1 == len(self._runs):
                self._runs.append([])
            files = list(map(WordsFile, self._runs[level]))
            most = max(each.rows for each in files)
            identity = np.arange(most)
            self._add_run(level + 1, most, _merged([Source(each, identity) for each in files]))
            _remove(self._runs[level])

    def _write(
        self,
        path: Path,
        lengths: Numbers,
        parts: Iterator[tuple[Sequence[bytes], Postings]],
        parquet: str = "0" * 64,
        *,
        lacks_rows: bool = False,
    ) -> None:
        writer = WordsWriter(path, lengths)
        try:
            for terms, postings in parts:
                writer.write(terms, postings)
            writer.close(parquet, self.analyser.analysis, lacks_rows=lacks_rows)
        finally:
            writer.discard()

    def _vocabulary(self) -> tuple[list[bytes], _TokenTable]:
        """The terms of the run in order, and which of them each token has."""
        known: dict[str, int] = {}
        found = [self.analyser.token(token) for token in self._known]
        flat = [term for token in found for term in sorted(token.terms, key=lambda term: term.position)]
        numbers = np.array([known.setdefault(term.text, len(known)) for term in flat], np.int64)
        names = [text.encode() for text in known]
        order = sorted(range(len(names)), key=names.__getitem__)
        ranks = np.empty(len(names), np.int64)
        ranks[order] = np.arange(len(names))
        ends = np.cumsum([len(token.terms) for token in found])
        table = _TokenTable(
            words=np.array([token.words for token in found], np.int64),
            own=np.array([sum(term.is_own for term in token.terms) for token in found], np.int64),
            starts=np.concatenate([[0], ends[:-1]]),
            ends=ends,
            terms=ranks[numbers],
            positions=np.array([term.position for term in flat], np.int64),
        )
        return [names[place] for place in order], table


@dataclass(frozen=True)
class _TokenTable:
    """Of each token how many words it has, how many of these have a term, and the places of its terms in the rest."""

    words: Numbers
    own: Numbers
    starts: Numbers
    ends: Numbers
    terms: Numbers
    positions: Numbers


def _remove(runs: list[Path]) -> None:
    while runs:
        with contextlib.suppress(OSError):
            runs.pop().unlink()


def _merged(sources: Sequence[Source]) -> Iterator[tuple[Sequence[bytes], Postings]]:
    """The terms of all sources in order, with their postings, some at a time. Raises DamagedError."""
    readers = [_Reader(source) for source in sources]
    while readers := [reader for reader in readers if reader.fill(_POSTINGS_AT_ONCE // len(readers))]:
        # No reader has more terms up to this one than are read.
        last = _few(readers, min(reader.waiting.terms[-1] for reader in readers))
        parts = [(reader, reader.take(last)) for reader in readers]
        terms = sorted({term for _, entries in parts for term in entries.terms})
        numbers = {term: number for number, term in enumerate(terms)}
        found = []
        for reader, entries in parts:
            if len(entries.terms):
                of_mine = np.array([numbers[term] for term in entries.terms], np.int64)
                found.append(_moved(reader.source, entries, of_mine))
        postings = _grouped(_joined(found))
        there = np.unique(postings.terms)
        renumbered = np.full(len(terms), -1)
        renumbered[there] = np.arange(len(there))
        yield (
            [terms[number] for number in there],
            Postings(renumbered[postings.terms], postings.rows, postings.counts, postings.positions),
        )


def _few(readers: Sequence[_Reader], last: bytes) -> bytes:
    """The last of the terms up to this one whose postings are not too many at a time."""
    waiting = [reader.waiting[: bisect_right(reader.waiting.terms, last)] for reader in readers]
    if sum(int(entries.sizes.sum()) for entries in waiting) <= _BYTES_AT_ONCE:
        return last
    sizes: Counter[bytes] = Counter()
    for entries in waiting:
        for term, size in zip(entries.terms, entries.sizes.sum(axis=1).tolist(), strict=True):
            sizes[term] += size
    terms = sorted(sizes)
    totals = np.cumsum([sizes[term] for term in terms])
    return terms[max(0, int(np.searchsorted(totals, _BYTES_AT_ONCE, side="right")) - 1)]


class _Reader:
    """Reads the entries of a source in order."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.waiting = Entries([], _EMPTY, np.empty((0, 3), np.int64), 0)
        self._rest: Iterator[Entries] | None = None

    def fill(self, least: int) -> bool:
        """Read on, if nothing waits; False at the end."""
        if self._rest is None:
            self._rest = self.source.words.entries(least)
        if not self.waiting.terms:
            self.waiting = next(self._rest, self.waiting)
        return bool(self.waiting.terms)

    def take(self, last: bytes) -> Entries:
        """What waits up to a term, and that term."""
        count = bisect_right(self.waiting.terms, last)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


def _moved(source: Source, entries: Entries, numbers: Numbers) -> Postings:
    """The postings of a source's terms, with other numbers of terms and rows."""
    postings = source.words.postings(entries)
    rows = source.places[postings.rows]
    kept = rows >= 0
    return Postings(
        numbers[postings.terms[kept]],
        rows[kept],
        postings.counts[kept],
        postings.positions[np.repeat(kept, postings.counts)],
    )


def _joined(parts: Sequence[Postings]) -> Postings:
    if len(parts) == 1:
        return parts[0]
    return Postings(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("terms", "rows", "counts", "positions"))
    )


def _grouped(postings: Postings) -> Postings:
    """Postings in order of terms and rows, in which several of one term and row become one."""
    key = postings.terms << 32 | postings.rows
    if np.all(key[1:] > key[:-1]):
        return postings
    order = np.argsort(key, kind="stable")
    key, counts = key[order], postings.counts[order]
    starts = (np.cumsum(postings.counts) - postings.counts)[order]
    # Where the positions of each posting stood.
    places = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    places += np.arange(len(places))
    firsts = np.flatnonzero(np.diff(key, prepend=-1))
    key = key[firsts]
    return Postings(key >> 32, key & 0xFFFFFFFF, np.add.reduceat(counts, firsts), postings.positions[places])


def _in_parts(terms: Sequence[bytes], postings: Postings) -> Iterator[tuple[Sequence[bytes], Postings]]:
    """The terms of a run and their postings, some at a time."""
    firsts = np.searchsorted(postings.terms, np.arange(len(terms) + 1))
    starts = np.concatenate([[0], np.cumsum(postings.counts)])
    first = 0
    while first < len(terms):
        end = int(np.searchsorted(firsts, firsts[first] + _POSTINGS_AT_ONCE, side="right")) - 1
        end = min(max(end, first + 1), len(terms))
        here = slice(int(firsts[first]), int(firsts[end]))
        places = slice(int(starts[here.start]), int(starts[here.stop]))
        part = Postings(
            postings.terms[here] - first, postings.rows[here], postings.counts[here], postings.positions[places]
        )
        yield terms[first:end], part
        first = end
