"""How good an index is: what it finds of what exact search finds, for a sample of the table's own rows."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from jammi_duck.errors import InputError
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.place import Place
from jammi_duck.storage.table import Answers

_QUERIES = 200
_GOOD = 0.99


@dataclass(frozen=True)
class Checked:
    """The recall of `k` neighbours over so many queries, and how long one took either way, in milliseconds."""

    embedding_table: str
    row_count: int
    segments: int
    k: int
    queries: int
    recall: float | None
    index_ms: float | None
    exact_ms: float | None
    advice: str


def check(place: Place, entry: Entry, k: int) -> Checked:
    """Search for rows that are spread evenly over the table, by the index and exactly, each without itself.

    Recall is the share of the exact answer's rows that the index's has; a row as near as the last of them counts as
    one of them. Raises InputError for a `k` below 1.
    """
    if k < 1:
        raise InputError(f"k is {k}; it must be at least 1")
    table = place.table(entry)
    if table.rows < 2:
        return Checked(entry.name, table.rows, len(table.segments), k, 0, None, None, None, "nothing to compare")
    damage, queries = table.damage, table.sample(_QUERIES)
    found: list[float] = []
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for query in queries:
        pair = []
        for exact in (False, True):
            began = time.perf_counter()
            pair.append(table.search(query[None], k + 1, exact=exact))
            seconds[exact].append(time.perf_counter() - began)
        found.append(_share(*pair))
    recall = float(np.mean(found))
    index_ms, exact_ms = (float(np.median(seconds[exact])) * 1000 for exact in (False, True))
    advice = _advice(damage, recall, exact_ms)
    return Checked(entry.name, table.rows, len(table.segments), k, len(queries), recall, index_ms, exact_ms, advice)


def _share(found: Answers, exact: Answers) -> float:
    """What share of the exact answer was found, the row itself left out."""
    last = exact.similarities[-1]
    return (np.count_nonzero(found.similarities >= last) - 1) / (len(exact.similarities) - 1)


def _advice(damage: str | None, recall: float, exact_ms: float) -> str:
    if damage:
        return f"the index cannot be used ({damage}); SELECT * FROM jammi_recover() builds it again"
    if recall >= _GOOD:
        return "the index is good"
    return f"the index misses rows; exact := true finds all of them, in about {exact_ms:.0f} ms a query"
