"""The embedding tables of a table: which there are, whether they are up to date, and how they come to be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jammi_duck.doors.host import ConnectionHost
from jammi_duck.embeddings.layout import KEY, Layout, Place, layout_of, texts_query
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import folded, quoted, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import SearchPath, resolve
from jammi_duck.work.adding import Addition
from jammi_duck.work.text_buffer import ROWS

if TYPE_CHECKING:
    from jammi_duck.jammi import Jammi
    from jammi_duck.types import Vectors


@contextlib.contextmanager
def cursor_of(engine: Engine) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor of the database for one thread, closed at the end; what DuckDB raises becomes an error of ours."""
    with errors_of_ours(), cast("ConnectionHost", engine.host).cursor() as cursor:
        yield cursor


def identity_of(engine: Engine, place: Place) -> str:
    """What embedding tables record as their source."""
    return resolve(place.written, SearchPath(place.database, "main"), engine.host).candidates[0].identity


def entries_of(engine: Engine, place: Place, layout: Layout) -> list[Entry]:
    """The newest ready embedding table for each label, or for the same columns of text, whose columns are there."""
    newest: dict[object, Entry] = {}
    names = {folded(name) for name in layout.names}
    for entry in engine.tables.catalog.entries("ready", source=identity_of(engine, place)):
        definition = entry.definition
        if {*map(folded, (definition.key, *definition.columns))} <= names:
            newest.setdefault(folded(definition.embedding) if definition.embedding else definition.columns, entry)
    return list(newest.values())


@contextlib.contextmanager
def in_turn(engine: Engine, builds: Sequence[str]) -> Iterator[None]:
    """Let no search or refresh of a table here compare these embedding tables with their rows meanwhile."""
    with contextlib.ExitStack() as turns:
        for build in sorted(set(builds)):
            turns.enter_context(engine.freshener.turn(build))
        yield


@dataclass(frozen=True)
class Upkeep:
    """Brings the embedding tables of a table up to date."""

    jammi: Jammi
    place: Place

    def make_current(self, entry: Entry) -> None:
        """Refresh an embedding table if the table has not as many rows as it knows of."""
        with_engine = self.jammi._with_engine
        if not with_engine(self._is_current, entry):
            with_engine(self._refresh, entry, False)

    def refresh(self, entry: Entry) -> None:
        """Refresh an embedding table."""
        self.jammi._with_engine(self._refresh, entry, True)

    def _is_current(self, engine: Engine, entry: Entry) -> bool:
        now = engine.tables.ready(entry.name)
        if engine.followed.of(now.source) is not None:
            # A search brings in by itself what has changed.
            return True
        counts = now.counts
        with cursor_of(engine) as cursor:
            ((rows,),) = cursor.execute(sql("SELECT count(*) FROM {}", self.place.sql)).fetchall()
        return bool(rows == counts.rows + counts.skipped + counts.failed)

    def _refresh(self, engine: Engine, entry: Entry, always: bool) -> None:
        with in_turn(engine, [entry.build]):
            # Another thread may have been adding rows, or have refreshed it.
            if not always and self._is_current(engine, entry):
                return
            with cursor_of(engine) as cursor:
                layout = layout_of(cursor, self.place)
            vector = layout.vector_of(entry) if entry.definition.key == KEY else None
            if vector:
                self._take_given(engine, entry, vector)
            self.jammi.refresh(self.place.written, embedding_table=entry.name)
            if vector:
                # A refresh takes away rows that have a vector, but no text.
                self._take_given(engine, entry, vector, were_skipped=True)

    def _take_given(self, engine: Engine, entry: Entry, vector: str, *, were_skipped: bool = False) -> None:
        """Take the vectors of rows that have one, and that the embedding table lacks: SQL may have added them."""
        entry = engine.tables.ready(entry.name)
        query = texts_query(
            entry.definition,
            sql("(SELECT * FROM {} WHERE {} IS NOT NULL)", self.place.sql, quoted(vector)),
            vector,
        )
        with cursor_of(engine) as cursor:
            rows = cursor.sql(query).to_arrow_table()
        every = rows.column("_jammi_key").cast(pa.string()).combine_chunks()
        known = [part for _, part, _ in engine.tables.table(entry).find(every)]
        is_new = pc.invert(pc.is_in(every, value_set=pa.concat_arrays([every[:0], *known])))
        rows, keys = rows.filter(is_new), every.filter(is_new).to_pylist()
        addition = Addition(engine.tables, engine.encoders, engine.jobs, entry, len(keys))
        for start in range(0, len(keys), ROWS):
            part = rows.slice(start, ROWS)
            texts = part.column("_jammi_text").to_pylist()
            made = addition.make(texts, given_vectors(part, "_jammi_given"))
            addition.write(keys[start : start + ROWS], texts, made, made.has_vector)
        addition.commit(were_skipped=were_skipped)


def given_vectors(rows: pa.Table, vector: str | None) -> dict[int, NDArray[np.float64]]:
    """The vectors that rows bring, by their places."""
    if vector is None:
        return {}
    there, matrix = vectors_in(rows.column(vector).combine_chunks())
    places = np.flatnonzero(there)
    return dict(zip(places.tolist(), matrix[places].astype(np.float64), strict=True))


def vectors_in(column: pa.FixedSizeListArray) -> tuple[NDArray[np.bool_], Vectors]:
    """Which rows of a column have a vector, and the vectors: zeros where there is none."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    matrix = np.zeros((len(column), column.type.list_size), np.float32)
    numbers = column.filter(column.is_valid()).flatten().to_numpy(zero_copy_only=False)
    matrix[there] = numbers.reshape(-1, matrix.shape[1])
    return there, matrix


def as_column(there: NDArray[np.bool_], matrix: Vectors) -> pa.FixedSizeListArray:
    """The reverse."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1], mask=pa.array(~there))
