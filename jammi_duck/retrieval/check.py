"""Measures the recall of an index against exact search, for a sample of the table's own rows."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from jammi_duck.errors import InputError
from jammi_duck.retrieval.needs import need_vectors
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.table import Answers, Table
from jammi_duck.types import Integer, Vectors

_QUERIES = 200
_TIMED_EXACTLY = 20
_GOOD = 0.99


@dataclass(frozen=True)
class Checked:
    """The recall of `k` neighbours over a number of queries, and the time of one query both ways, in milliseconds."""

    embedding_table: str
    row_count: int
    segments: Integer
    k: Integer
    queries: Integer
    recall: float | None
    index_ms: float | None
    exact_ms: float | None
    advice: str


def check(tables: EmbeddingTables, entry: Entry, k: int | None) -> Checked:
    """Search for the neighbours of rows that are spread evenly over the table, by the index and exactly.

    Recall is the share of the exact answer's rows that the index finds; ties with the last of them count, too. Raises
    InputError for a `k` below 1, and for a table of words only.
    """
    if k is None or k < 1:
        raise InputError(f"k is {'NULL' if k is None else k}; it must be at least 1")
    need_vectors(tables, entry, "jammi_check")
    table = tables.table(entry)
    what = (entry.name, table.rows, len(table.segments), k)
    if table.damage:
        advice = f"the index cannot be used ({table.damage}); SELECT * FROM jammi_recover() builds it again"
        return Checked(*what, 0, None, None, None, advice)
    if table.rows < 2:
        return Checked(*what, 0, None, None, None, "nothing to compare")
    queries = table.sample(_QUERIES)
    # Each row finds itself and k others.
    exactly = table.search(queries, k + 1, exact=True)
    last = exactly.similarities[np.cumsum(exactly.counts) - 1]
    index_ms, found = _one_by_one(table, queries, k + 1, exact=False)
    exact_ms, _ = _one_by_one(table, queries[:_TIMED_EXACTLY], k + 1, exact=True)
    hits = sum(np.count_nonzero(one.similarities >= least) - 1 for one, least in zip(found, last, strict=True))
    recall = float(hits / (exactly.counts - 1).sum())
    advice = "the index is good"
    if recall < _GOOD:
        advice = f"the index misses rows; exact := true finds all of them, in about {exact_ms:.0f} ms a query"
    return Checked(*what, len(queries), recall, index_ms, exact_ms, advice)


def _one_by_one(table: Table, queries: Vectors, k: int, *, exact: bool) -> tuple[float, list[Answers]]:
    """The median milliseconds of a search, and the answers."""
    seconds, answers = [], []
    for query in queries:
        began = time.perf_counter()
        answers.append(table.search(query[None], k, exact=exact))
        seconds.append(time.perf_counter() - began)
    return round(float(np.median(seconds)) * 1000, 3), answers
