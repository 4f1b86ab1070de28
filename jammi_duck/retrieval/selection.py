"""The rows that a search may find: those that pass its filter, or that the source still has.

DuckDB computes them once for a query, in the caller's own transaction, and passes their row ids. The result is a short
token, which identifies the selection in every call of that query.
"""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from jammi_duck.errors import InputError, JammiWarning, NotFoundError
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.table import RowSubset, Table
from jammi_duck.types import Caller, Stage

# A session runs one query at a time, with at most this many searches.
_MOST_KEPT = 64
_MOST_SESSIONS = 256
_REFUSALS = (InputError, NotFoundError)


@dataclass
class Selection:
    """A table to search, and a mask of the rows of one of its states that may be found: `chosen`; None means all rows.

    Threads share it, so a state and its mask are exchanged together. `filtering` is the stage that selected these rows.
    A search that is `traced` stores its stages here until they are read; `ended` is its end by `time.perf_counter`, and
    `reranking` the stage that came after it, if its rows are re-ranked.
    """

    build: str
    chosen: tuple[Table, RowSubset] | None = None
    filtering: Stage | None = None
    traced: bool = False
    stages: list[Stage] = field(default_factory=list)
    ended: float = 0.0
    reranking: Stage | None = None


@dataclass(frozen=True)
class SourceRows:
    """Rows of a source, by their ids as texts or whole numbers, and the current type of its key.

    No ids at all means all rows. `source_row_count` is the number of rows in the source, if its change is why they are
    listed.
    """

    row_ids: Sequence[pa.Array] = ()
    key_type: str | None = None
    source_row_count: int | None = None


class Selections:
    """The selections of searches on one database; a session's are kept until it selects in another transaction."""

    def __init__(self, tables: EmbeddingTables) -> None:
        """For searches of the tables in `tables`."""
        self._tables = tables
        self._kept: OrderedDict[str, tuple[int, OrderedDict[str, Selection]]] = OrderedDict()
        self._warned: set[tuple[str, datetime | None]] = set()
        self._number = itertools.count()
        self._lock = threading.Lock()

    def keep(
        self,
        caller: Caller,
        build: str,
        there: SourceRows,
        began: float | None = None,
        *,
        traced: bool = False,
    ) -> str:
        """Keep a selection for the query that `caller` runs; returns its token.

        `there` contains the rows that may be found. `began` is the time when DuckDB started to select, by
        `time.perf_counter`. Raises NotFoundError if the table no longer exists.
        """
        if not there.row_ids and not traced:
            return build
        table = opened(self._tables, build)
        selected = Selection(build, traced=traced)
        if there.row_ids:
            subset = table.subset(there.row_ids, there.key_type)
            selected.chosen = table, subset
            if there.source_row_count is not None:
                self._warn_of_lost_rows(table.entry, there.source_row_count)
            what = "the rows that pass" if there.source_row_count is None else "the rows that the source still has"
            seconds = time.perf_counter() - began if began else 0.0
            selected.filtering = Stage("filter", what, subset.rows, seconds)
        token = f"{build}/{caller.session}/{next(self._number)}"
        with self._lock:
            transaction, kept = self._kept.get(caller.session, (None, OrderedDict()))
            if transaction != caller.transaction:
                kept = OrderedDict()
            kept[token] = selected
            while len(kept) > _MOST_KEPT:
                kept.popitem(last=False)
            self._kept[caller.session] = caller.transaction, kept
            self._kept.move_to_end(caller.session)
            while len(self._kept) > _MOST_SESSIONS:
                self._kept.popitem(last=False)
        return token

    def drop(self, sessions: Iterable[str]) -> None:
        """Let go of what sessions have selected which have ended."""
        with self._lock:
            for session in sessions:
                self._kept.pop(session, None)

    def of(self, token: str) -> Selection:
        """The selection that a token identifies. Raises the error of a `refusal`."""
        for kind in _REFUSALS:
            if token.startswith(kind.__name__):
                raise kind(token.removeprefix(f"{kind.__name__}: "))
        build, _, rest = token.partition("/")
        if not rest:
            return Selection(build)
        with self._lock:
            _, kept = self._kept.get(rest.partition("/")[0], (0, OrderedDict()))
            if token in kept:
                return kept[token]
        raise InputError(f"a query can hold {_MOST_KEPT} searches with a filter, and this one holds more; split it")

    def traced(self, caller: Caller) -> Selection:
        """The last search in the caller's query that is still traced."""
        nothing = Selection("", traced=True)
        with self._lock:
            transaction, kept = self._kept.get(caller.session, (0, OrderedDict()))
            if transaction != caller.transaction:
                return nothing
            return next((selected for selected in reversed(kept.values()) if selected.traced), nothing)

    def _warn_of_lost_rows(self, entry: Entry, source_row_count: int) -> None:
        state = entry.build, entry.finished
        with self._lock:
            is_known = state in self._warned
            self._warned.add(state)
        if not is_known:
            warnings.warn(
                f"'{entry.source}' has {source_row_count:,} rows now, and had "
                f"{entry.counts.source_rows:,} when '{entry.name}' was generated: a search leaves "
                "out the rows that are gone, and cannot find new or changed ones; SELECT * FROM "
                f"jammi_refresh('{entry.source}') brings it up to date",
                JammiWarning,
                stacklevel=2,
            )


def refusal(why: InputError | NotFoundError) -> str:
    """A token for no table, with which a search raises the error `why`."""
    return f"{type(why).__name__}: {why}"


def opened(tables: EmbeddingTables, build: str) -> Table:
    """The ready table that `build` made, open for search. Raises NotFoundError."""
    table = tables.table(_ready(tables, build))
    if table.damage:
        # Perhaps its files are missing because it was dropped meanwhile.
        _ready(tables, build)
    return table


def _ready(tables: EmbeddingTables, build: str) -> Entry:
    for entry in tables.catalog.entries("ready"):
        if entry.build == build:
            return entry
    raise NotFoundError("the embedding table was replaced or dropped while this query was planned; run it again")
