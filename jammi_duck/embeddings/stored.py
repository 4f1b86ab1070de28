"""The embedding tables of a table: which there are, whether they are up to date, and how they come to be."""

from __future__ import annotations

import contextlib
import warnings
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
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.errors import JammiError, JammiWarning
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql, folded, quoted, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import SearchPath, resolve
from jammi_duck.work.adding import Addition
from jammi_duck.work.jobs import InterruptedJobError
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
class Fingerprint:
    """What stands for the rows of a table, whatever is in them: their number, and their keys together."""

    rows: int
    keys: int

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, source: Sql, key: str) -> Fingerprint:
        """That of the rows that a connection sees."""
        text = sql("SELECT count(*), coalesce(bit_xor(hash({key})), 0) FROM {source}", key=quoted(key), source=source)
        return cls(*con.execute(text).fetchall()[0])

    def with_more(self, more: Fingerprint) -> Fingerprint:
        """That of the rows with others."""
        return Fingerprint(self.rows + more.rows, self.keys ^ more.keys)

    def is_known(self, engine: Engine, entry: Entry) -> bool:
        """Whether an embedding table is known to have the vectors of just these rows."""
        return engine.fingerprints.get(entry.build) == self._known(entry)

    def note(self, engine: Engine, entry: Entry) -> None:
        """Note that an embedding table has the vectors of just these rows."""
        engine.fingerprints[entry.build] = self._known(entry)

    def _known(self, entry: Entry) -> tuple[str, str, str]:
        return entry.build, str(entry.finished), f"{self.rows} {self.keys}"


@dataclass(frozen=True)
class Upkeep:
    """Brings the embedding tables of a table up to date."""

    jammi: Jammi
    place: Place

    def make_current(self, entry: Entry) -> None:
        """Bring an embedding table up to date if rows have come or gone, or if nobody has looked in this process.

        If that fails, a warning says why, and a search is of what there was.
        """
        try:
            if not self.jammi._with_engine(self._is_known, entry):
                self.jammi._with_engine(self._refresh, entry, False)
        except InterruptedJobError:
            raise
        except JammiError as error:
            warnings.warn(
                f"the vectors of '{self.place.name}' cannot be brought up to date with its rows, so this search is of "
                f"what they were: {error}",
                JammiWarning,
                stacklevel=2,
            )

    def refresh(self, entry: Entry) -> None:
        """Refresh an embedding table."""
        self.jammi._with_engine(self._refresh, entry, True)

    def _fingerprint(self, engine: Engine, entry: Entry) -> Fingerprint:
        with cursor_of(engine) as cursor:
            return Fingerprint.of(cursor, self.place.sql, entry.definition.key)

    def _is_known(self, engine: Engine, entry: Entry) -> bool:
        now = engine.tables.ready(entry.name)
        if engine.followed.of(now.source) is not None:
            # A search brings in by itself what has changed.
            return True
        return self._fingerprint(engine, now).is_known(engine, now)

    def _refresh(self, engine: Engine, entry: Entry, always: bool) -> None:
        with in_turn(engine, [entry.build]):
            # Another thread may have been adding rows, or have refreshed it.
            if not always and self._is_known(engine, entry):
                return
            # Before they are compared: rows that come meanwhile make another one.
            rows = self._fingerprint(engine, entry)
            with cursor_of(engine) as cursor:
                layout = layout_of(cursor, self.place)
            vector = layout.vector_of(entry) if entry.definition.key == KEY else None
            if always or not self._is_current(engine, entry, vector):
                if vector:
                    self._take_given(engine, entry, vector)
                self.jammi.refresh(self.place.written, embedding_table=entry.name)
                if vector:
                    # A refresh takes away rows that have a vector, but no text.
                    self._take_given(engine, entry, vector, were_skipped=True)
            rows.note(engine, engine.tables.ready(entry.name))

    def _is_current(self, engine: Engine, entry: Entry, vector: str | None) -> bool:
        """Whether a comparison finds nothing to do: texts that could not be embedded are not tried again."""
        compared = self.jammi.status(self.place.written, embedding_table=entry.name)
        ((new, changed, gone),) = compared.project('"new", changed, gone').fetchall()
        failed = engine.tables.ready(entry.name).counts.failed
        return bool(new <= failed and not changed and (not gone or gone == self._without_text(engine, entry, vector)))

    def _without_text(self, engine: Engine, entry: Entry, vector: str | None) -> int:
        """How many rows are in an embedding table by the vector that they have, and without a text."""
        if vector is None:
            return 0
        given = sql("(SELECT * FROM {} WHERE {} IS NOT NULL)", self.place.sql, quoted(vector))
        with cursor_of(engine) as cursor:
            rows = cursor.execute(texts_query(entry.definition, given)).fetchall()
        blank = [key for key, text, _ in rows if is_blank(text or "")]
        found = engine.tables.table(engine.tables.ready(entry.name)).find(pa.array(map(str, blank), pa.string()))
        return sum(len(keys) for _, keys, _ in found)

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
