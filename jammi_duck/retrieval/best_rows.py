"""Ranks rows by their best passage: passages are asked for until they are of enough rows, and each row is kept once.

The passages that a search gives are the first in an order of all: by their scores, then by row id and number. So the
first passage of a row among them is its best, and rows come in the order of these.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.storage.tables.table import Answers, RowSubset, Table, no_answers
from jammi_duck.types import Stage

# How many times as many passages are asked for where the first were of too few rows.
_WIDER = 4
# So many more are asked for at first, since some rows have more passages than others.
_SPARE = 16

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Wanted:
    """How many `rows` are wanted of each query, and at most how many passages of a row.

    `itself` has the ids of rows that are left out, by the numbers of their queries.
    """

    rows: int
    per_row: int = 1
    itself: Mapping[int, str] = field(default_factory=dict)


class Ask(Protocol):
    """Gives the first `count` stored rows for some queries, by their numbers, and fewer only if there are no more.

    With rows `within`, it gives all of these that may be found, with the scores that they have in such a search.
    """

    def __call__(self, queries: Numbers, count: int, within: RowSubset | None, /) -> Answers:
        """See the class."""
        ...


def best_rows(table: Table, ask: Ask, queries: int, wanted: Wanted, subset: RowSubset | None = None) -> Answers:
    """The best rows for each of so many queries, whose stored rows `ask` gives; of these `subset`, or all, are found.

    The best passage of a row stands for it. With `per_row`, its next best ones follow it.
    """
    if not wanted.itself and not table.entry.definition.passages:
        return ask(np.arange(queries), wanted.rows, None)
    most = table.rows + 1
    wanted = dataclasses.replace(wanted, rows=min(wanted.rows, most), per_row=min(wanted.per_row, most))
    best, asked = _widened(table, ask, queries, wanted)
    if not table.entry.definition.passages or wanted.per_row == 1:
        return best
    began = time.perf_counter()
    several = _with_others(table, ask, asked, wanted.per_row, best, subset)
    detail = f"up to {wanted.per_row:,} of each row, of all that it has"
    stage = Stage("passages", detail, len(several.row_ids), time.perf_counter() - began)
    return dataclasses.replace(several, stages=[*best.stages, stage])


def _widened(table: Table, ask: Ask, queries: int, wanted: Wanted) -> tuple[Answers, Numbers]:
    """The best rows for each query, and how many stored rows were asked for until there were enough."""
    has_passages = table.entry.definition.passages is not None
    count = wanted.rows + bool(wanted.itself)
    if has_passages:
        count = math.ceil(count * table.passages_per_row) + _SPARE
    open_, asked = np.arange(queries), np.zeros(queries, np.int64)
    parts: list[tuple[Numbers, Answers]] = []
    stages, seconds, detail = [], 0.0, f"the best {count:,} passages asked for"
    while len(open_):
        asked[open_] = count
        answers = ask(open_, count, None)
        began = time.perf_counter()
        kept, found = _first_of_rows(answers, wanted, open_)
        is_done = (found >= wanted.rows) | (answers.counts < count) | (count >= table.rows)
        parts.append((open_[is_done], answers.take(kept[np.repeat(is_done, found)], found[is_done])))
        stages += answers.stages
        open_, count = open_[~is_done], min(count * _WIDER, table.rows)
        seconds += time.perf_counter() - began
        if len(open_):
            detail += f"; {count:,} for {len(open_):,} queries, as the first were of too few rows"
    best = in_order(parts, queries)
    if has_passages:
        stages.append(Stage("passages", f"{detail}: each row by its best", len(best.row_ids), seconds))
    return dataclasses.replace(best, stages=stages), asked


def _first_of_rows(answers: Answers, wanted: Wanted, queries: Numbers) -> tuple[Numbers, Numbers]:
    """Where the first passages of the first rows are among answers, and how many each query has."""
    of_query = np.repeat(np.arange(len(answers.counts)), answers.counts)
    rows = _numbered(answers.row_ids)
    firsts = np.unique(of_query * (len(rows) + 1) + rows, return_index=True)[1]
    firsts.sort()
    if wanted.itself:
        names = answers.row_ids.take(pa.array(firsts)).to_pylist()
        asked = queries[of_query[firsts]].tolist()
        is_other = [wanted.itself.get(query) != name for query, name in zip(asked, names, strict=True)]
        firsts = firsts[np.array(is_other, bool)]
    found = np.bincount(of_query[firsts], minlength=len(answers.counts))
    places = np.arange(len(firsts)) - np.repeat(np.cumsum(found) - found, found)
    return firsts[places < wanted.rows], np.minimum(found, wanted.rows)


def _numbered(row_ids: pa.StringArray) -> Numbers:
    """A number for each row, the same for equal ids."""
    numbers: Numbers = row_ids.dictionary_encode().indices.to_numpy().astype(np.int64)
    return numbers


def _with_others(
    table: Table, ask: Ask, asked: Numbers, per_row: int, best: Answers, subset: RowSubset | None
) -> Answers:
    """The rows of `best`, each with the best of all its passages that may be found."""
    there = table.mask(subset)
    stored, names = table.stored(best.row_ids.unique())
    stored, names = stored[there[stored]], names.filter(pa.array(there[stored]))
    passages_of: dict[str, list[int]] = {}
    for name, position in zip(names.to_pylist(), stored.tolist(), strict=True):
        passages_of.setdefault(name, []).append(position)
    row_ids = iter(best.row_ids.to_pylist())
    parts: list[tuple[Numbers, Answers]] = []
    for query, count in enumerate(best.counts.tolist()):
        mine = list(itertools.chain.from_iterable(passages_of[name] for name in itertools.islice(row_ids, count)))
        if not mine:
            continue
        mask = np.zeros(len(there), bool)
        mask[mine] = True
        chosen = np.array([query])
        answers = ask(chosen, int(asked[query]), table.narrowed(mask))
        parts.append((chosen, _by_rows(answers, per_row)))
    return in_order(parts, len(best.counts))


def _by_rows(answers: Answers, per_row: int) -> Answers:
    """The answers to a query, row by row, each by its best passage, with so many of its passages at most."""
    rows = _numbered(answers.row_ids)
    # Numbers rise in the order in which rows come first.
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows)
    places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[places < per_row]
    return answers.take(kept, np.array([len(kept)]))


def in_order(parts: Sequence[tuple[Sequence[int] | Numbers, Answers]], queries: int) -> Answers:
    """The answers of several parts of the queries, each by the numbers of its queries, in the order of all."""
    if not parts:
        return no_answers(queries)
    together = concatenated([answers for _, answers in parts])
    if len(parts) == 1 and len(parts[0][0]) == queries:
        return together
    of_query = np.repeat(np.concatenate([np.asarray(mine, np.int64) for mine, _ in parts]), together.counts)
    return together.take(np.argsort(of_query, kind="stable"), np.bincount(of_query, minlength=queries))


def concatenated(answers: Sequence[Answers]) -> Answers:
    """The answers of one after another, without their stages."""
    row_ids = pa.concat_arrays([each.row_ids for each in answers])
    counts, scores, near, bm25, positions = (
        np.concatenate([getattr(each, name) for each in answers])
        for name in ("counts", "scores", "similarities", "bm25", "positions")
    )
    return Answers(counts, row_ids, scores, near, bm25, positions)
