"""Writes rows and their vectors together: all that was added can be read and searched afterwards, or nothing of it.

The rows go into the table first, in a transaction that stays open: whatever DuckDB refuses is known before anything is
embedded. Then their vectors are made and stored, and the transaction is committed last. A process that dies before that
leaves vectors of rows that nobody has, by keys that never come again, and the next refresh removes them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.config.logs import log
from jammi_duck.embeddings.fitting import BadVectors, Rows
from jammi_duck.embeddings.layout import KEY, Place, texts_query
from jammi_duck.embeddings.stored import Fingerprint, as_column, cursor_of, given_vectors, in_turn
from jammi_duck.errors import EncodingError, JammiError
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql, quoted, sql
from jammi_duck.udfs.engine import Engine
from jammi_duck.work.adding import Addition, Made
from jammi_duck.work.text_buffer import ROWS

_ADDED = "_jammi_added"
_NEW = quoted(_ADDED)


@dataclass(frozen=True)
class Target:
    """An embedding table that gets vectors of rows, and the column in which rows may bring them."""

    addition: Addition
    vector: str | None


def _nothing() -> None:
    pass


@dataclass
class Writing:
    """Rows that are being added to a table, on a cursor of their own, with their vectors in `targets`.

    Rows get a key if the table `has_key`. `make` is a statement that makes the table, if it is new; `also` is called in
    the same transaction, when the rows are there.
    """

    engine: Engine
    con: duckdb.DuckDBPyConnection
    place: Place
    rows: Rows
    bad: BadVectors
    targets: Sequence[Target] = ()
    has_key: bool = True
    make: Sql | None = None
    also: Callable[[], None] = _nothing
    _dropped: list[int] = field(default_factory=list)
    _filled: dict[str, list[int]] = field(default_factory=dict)

    def write(self) -> int:
        """Add the rows; returns how many were added. On an error, nothing was.

        Raises:
            EncodingError: a vector cannot be made, and such rows are not accepted.
            JammiError: DuckDB does not take a row, or a model or the location cannot be used.
        """
        keys = new_keys(self.rows.table.num_rows)
        given = self.rows.table.append_column(KEY, pa.array(keys)) if self.has_key else self.rows.table
        try:
            with errors_of_ours():
                self.con.begin()
                if self.make is not None:
                    self.con.execute(self.make)
                self.con.register(_ADDED, given)
                self.con.execute(sql("INSERT INTO {} BY NAME SELECT * FROM {}", self.place.sql, _NEW))
                for start in range(0, len(keys) if self.targets else 0, ROWS):
                    self._embed(given.slice(start, ROWS), keys[start : start + ROWS], start)
                self._correct()
                self.also()
                self._commit(keys)
        except BaseException as error:
            for target in self.targets:
                target.addition.abandon(error)
                # There may be vectors of rows that are not.
                self.engine.fingerprints.pop(target.addition.build, None)
            # After some errors, DuckDB has ended the transaction itself.
            with contextlib.suppress(duckdb.Error):
                self.con.rollback()
            raise
        for target in self.targets:
            # The rows are there, whatever becomes of this.
            try:
                target.addition.tidy()
            except JammiError as error:
                log.warning("the segments of %s were not merged: %s", self.place.name, error)
        return len(keys) - len(self._dropped)

    def _embed(self, part: pa.Table, keys: NDArray[np.int64], start: int) -> None:
        """Make the vectors of some rows, and store those of rows that stay."""
        self.con.register(_ADDED, part)
        kept = np.ones(len(keys), np.bool_)
        made: list[tuple[Target, list[str | None], Made]] = []
        for target in self.targets:
            rows = self.con.execute(texts_query(target.addition.definition, _NEW)).fetchall()
            texts = {key: text for key, text, _ in rows}
            listed = [texts[key] for key in keys.tolist()]
            there = target.addition.make(listed, given_vectors(part, target.vector))
            if there.failed:
                self._settle(target, there, keys, start)
                kept[list(there.failed)] &= self.bad.policy != "drop"
            made.append((target, listed, there))
        self._dropped += keys[~kept].tolist()
        names = list(map(str, keys.tolist()))
        for target, listed, there in made:
            target.addition.write(names, listed, there, kept)

    def _settle(self, target: Target, there: Made, keys: NDArray[np.int64], start: int) -> None:
        """Refuse rows whose vectors could not be made, or fill them, as it is wanted."""
        if self.bad.policy == "error":
            place, reason = next(iter(there.failed.items()))
            definition = target.addition.definition
            raise EncodingError(
                f"row {self.rows.places[start + place]} of the data: '{', '.join(definition.columns)}' could not be "
                f"embedded by '{definition.model}': {reason}; on_bad_vectors='drop', 'fill' or 'null' accepts such rows"
            )
        if self.bad.policy == "fill" and target.vector:
            places = list(there.failed)
            self._filled.setdefault(target.vector, []).extend(keys[places].tolist())
            # A vector of zeros has no direction.
            there.has_vector[places] = self.bad.fill_value != 0
            there.vectors[places] = np.sign(self.bad.fill_value) / np.sqrt(there.vectors.shape[1])
            there.failed.clear()

    def _correct(self) -> None:
        """Take rows away, or fill them, whose vectors could not be made."""
        if self._dropped:
            self.con.register(_ADDED, pa.table({KEY: self._dropped}))
            delete = sql("DELETE FROM {} WHERE {key} IN (SELECT {key} FROM {})", self.place.sql, _NEW, key=quoted(KEY))
            self.con.execute(delete)
        for vector, keys in self._filled.items():
            width = self.rows.table.schema.field(vector).type.list_size
            filled = np.full((len(keys), width), self.bad.fill_value, np.float32)
            values = as_column(np.ones(len(keys), np.bool_), filled)
            self.con.register(_ADDED, pa.table({KEY: keys, "_jammi_vector": values}))
            update = sql(
                "UPDATE {place} AS t SET {vector} = a._jammi_vector FROM {added} a WHERE t.{key} = a.{key}",
                place=self.place.sql,
                vector=quoted(vector),
                added=_NEW,
                key=quoted(KEY),
            )
            self.con.execute(update)

    def _commit(self, keys: NDArray[np.int64]) -> None:
        with in_turn(self.engine, [target.addition.build for target in self.targets]):
            known = self._known(keys[~np.isin(keys, self._dropped)])
            for target in self.targets:
                target.addition.commit()
            self.con.commit()
            for name, rows in known.items():
                rows.note(self.engine, self.engine.tables.ready(name))

    def _known(self, keys: NDArray[np.int64]) -> dict[str, Fingerprint]:
        """Of embedding tables that have the vectors of all rows now, what is to be noted once these are there."""
        if not self.targets:
            return {}
        self.con.register(_ADDED, pa.table({KEY: keys}))
        more = Fingerprint.of(self.con, _NEW, KEY)
        if self.make is not None:
            return {target.addition.name: more for target in self.targets}
        with cursor_of(self.engine) as committed:
            before = Fingerprint.of(committed, self.place.sql, KEY)
        entries = [self.engine.tables.ready(target.addition.name) for target in self.targets]
        return {entry.name: before.with_more(more) for entry in entries if before.is_known(self.engine, entry)}


def new_keys(count: int) -> NDArray[np.int64]:
    """Keys that no row has: 62 bits at random, so that they never come again, whatever becomes of the rows."""
    return (np.frombuffer(os.urandom(8 * count), np.uint64) >> np.uint64(2)).astype(np.int64)
