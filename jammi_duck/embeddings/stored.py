"""The embedding tables of a table: which there are, whether they are up to date, and how they come to be."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jammi_duck.doors.host import ConnectionHost
from jammi_duck.embeddings.layout import KEY, Layout, Place, label_of, layout_of, texts_query
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.errors import InputError, JammiError, JammiWarning, NotFoundError, enumerated
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql, folded, literal, quoted, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import SearchPath, resolve
from jammi_duck.work.adding import Addition
from jammi_duck.work.jobs import InterruptedJobError
from jammi_duck.work.text_buffer import ROWS

if TYPE_CHECKING:
    from jammi_duck.jammi import Jammi


# Numbers of a FLOAT that are farther apart belong to two vectors.
_ROUNDING = 1e-6


@contextlib.contextmanager
def cursor_of(engine: Engine) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor of the database for one thread, closed at the end; what DuckDB raises becomes an error of ours."""
    with errors_of_ours(), cast("ConnectionHost", engine.host).cursor() as cursor:
        yield cursor


def identity_of(engine: Engine, place: Place) -> str:
    """What embedding tables record as their source."""
    return resolve(place.written, SearchPath(place.database, "main"), engine.host).candidates[0].identity


def entries_of(engine: Engine, place: Place, layout: Layout) -> list[Entry]:
    """The embedding tables of a table whose columns are there.

    Those that columns of vectors record come first, and then the newest ready one for each other label, or for the same
    columns of text.

    Raises:
        NotFoundError: one that a column records is not there for this table any more.
        InputError: one has the label of a column of vectors of another width.
    """
    names = {folded(name) for name in layout.names}
    known = engine.tables.catalog.entries("ready", source=identity_of(engine, place))
    usable = [each for each in known if {*map(folded, (each.definition.key, *each.definition.columns))} <= names]
    newest: dict[object, Entry] = {}
    for entry in [*(_recorded(engine, place, layout, vector, usable) for vector in layout.records), *usable]:
        definition = entry.definition
        label = folded(definition.embedding) if definition.embedding else definition.columns
        if newest.setdefault(label, entry) is entry:
            _check_width(layout, entry)
    return list(newest.values())


def _recorded(engine: Engine, place: Place, layout: Layout, vector: str, usable: Sequence[Entry]) -> Entry:
    """The embedding table that makes a column of vectors; one that SQL has made in its place, once it is dropped."""
    record, width = layout.records[vector], layout.vectors[vector]
    for entry in usable:
        if entry.name == record.embedding_table:
            return entry
    is_renamed = record.source not in layout.names
    for entry in usable:
        made = entry.definition
        fits = made.dimensions == width and made.key == KEY and (is_renamed or made.columns == (record.source,))
        if fits and layout.vector_of(entry) == vector:
            return entry
    raise NotFoundError(
        f"'{vector}' of '{place.name}' is made by '{record.model}' from '{record.source}', in the embedding table "
        f"'{record.embedding_table}', {_trouble(engine, place, layout, vector)}"
    )


def _trouble(engine: Engine, place: Place, layout: Layout, vector: str) -> str:
    """Why an embedding table is not that of a table any more, and what to do."""
    record = layout.records[vector]
    source, table = record.source if record.source in layout.names else "COLUMN", literal(place.written)
    cols = f"{{{literal(label_of(vector))}: {literal(source)}}}"
    again = f"FROM jammi_generate({table}, {cols}, '{KEY}', model := {literal(record.model)}) makes it anew"
    found = engine.tables.catalog.entries("ready", name=record.embedding_table)
    if not found:
        return f"which is not there: it was dropped, or its files are gone. {again}"
    if found[0].source != identity_of(engine, place):
        assign = f"FROM jammi_refresh({table}, embedding_table := {literal(record.embedding_table)}) assigns it"
        return (
            f"which is of '{found[0].source}': the table was renamed. {assign}, if there is no such table; or {again}"
        )
    gone = enumerated([each for each in (KEY, *found[0].definition.columns) if each not in layout.names])
    return f"and there is no column '{gone}': it was renamed or dropped. Rename it back, or {again}"


def _check_width(layout: Layout, entry: Entry) -> None:
    vector = layout.vector_of(entry)
    if vector and entry.definition.has_vectors and entry.definition.dimensions != layout.vectors[vector]:
        raise InputError(
            f"the embedding table '{entry.name}' has the label of the column '{vector}', whose vectors have "
            f"{layout.vectors[vector]} numbers, and has vectors of {entry.definition.dimensions}; drop it: "
            f"FROM jammi_drop({literal(entry.name)}), and give it another label"
        )


def belonging(engine: Engine, con: duckdb.DuckDBPyConnection, place: Place) -> list[str]:
    """The embedding tables that are surely of this table's rows: others may be of a table that is called the same.

    Another database may have one, or one that was called so before. A key that this table has is in no other table.
    """
    layout = layout_of(con, place)
    recorded = {record.embedding_table for record in layout.records.values()}
    keys = (
        con.execute(sql("SELECT {}::VARCHAR FROM {} LIMIT 10000", quoted(KEY), place.sql)) if layout.has_key else None
    )
    ids = pa.array([key for (key,) in keys.fetchall()] if keys else [], pa.string())

    def is_of_these(entry: Entry) -> bool:
        if entry.definition.key == KEY:
            # A damaged one is nobody's.
            with contextlib.suppress(JammiError):
                return any(len(found) for _, found, _ in engine.tables.table(entry).find(ids))
        return False

    known = engine.tables.catalog.entries("ready")
    identity = identity_of(engine, place)
    return [each.name for each in known if each.name in recorded or (each.source == identity and is_of_these(each))]


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
        """Take the vectors of rows that have one, and that the embedding table lacks: SQL may have written them."""
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
        self._replace_given(engine, entry, rows.filter(pc.invert(is_new)), every.filter(pc.invert(is_new)).to_pylist())
        entry = engine.tables.ready(entry.name)
        rows, keys = rows.filter(is_new), every.filter(is_new).to_pylist()
        addition = Addition(engine.tables, engine.encoders, engine.jobs, entry, len(keys))
        for start in range(0, len(keys), ROWS):
            part = rows.slice(start, ROWS)
            texts = part.column("_jammi_text").to_pylist()
            made = addition.make(texts, given_vectors(part, "_jammi_given"))
            addition.write(keys[start : start + ROWS], texts, made, made.has_vector)
        addition.commit(were_skipped=were_skipped)

    def _replace_given(self, engine: Engine, entry: Entry, rows: pa.Table, keys: list[str]) -> None:
        """Take the vectors of rows that the embedding table has with others: SQL has changed one, or the text."""
        table = engine.tables.table(entry)
        addition = Addition(engine.tables, engine.encoders, engine.jobs, entry, len(keys), replaces=True)
        for start in range(0, len(keys), ROWS):
            part, names = rows.slice(start, ROWS), keys[start : start + ROWS]
            texts = part.column("_jammi_text").to_pylist()
            made = addition.make(texts, given_vectors(part, "_jammi_given"))
            stored = table.vectors(names)
            others = np.abs(np.array([stored[name] for name in names]) - made.vectors).max(axis=1) > _ROUNDING
            gone = pa.array([names[place] for place in np.flatnonzero(others)], pa.string())
            for segment, row_ids, positions in table.find(gone):
                if len(row_ids):
                    addition.forget(row_ids, segment, positions)
            addition.write(names, texts, made, others)
        addition.commit()


def given_vectors(rows: pa.Table, vector: str | None) -> dict[int, NDArray[np.float64]]:
    """The vectors that rows bring, by their places."""
    if vector is None:
        return {}
    there, matrix = vectors_in(rows.column(vector).combine_chunks())
    places = np.flatnonzero(there)
    return dict(zip(places.tolist(), matrix[places].astype(np.float64), strict=True))


def vectors_in(column: pa.FixedSizeListArray) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Which rows of a column have a vector, and the vectors of its type: zeros where there is none."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    matrix = np.zeros((len(column), column.type.list_size), column.type.value_type.to_pandas_dtype())
    numbers = column.filter(column.is_valid()).flatten().to_numpy(zero_copy_only=False)
    matrix[there] = numbers.reshape(-1, matrix.shape[1])
    return there, matrix


def as_column(there: NDArray[np.bool_], matrix: NDArray[Any]) -> pa.FixedSizeListArray:
    """The reverse."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1], mask=pa.array(~there))
