"""A column of vectors in a table of PostgreSQL or CockroachDB, beside the text that they are of."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from jammi_duck.doors.columns.catalogue import Kind, find_table, named_key, primary_key
from jammi_duck.doors.columns.connections import Connection, Connections, Statement
from jammi_duck.doors.columns.dialect import Dialect, dialect_of
from jammi_duck.doors.columns.statements import Statements
from jammi_duck.doors.columns.values import keep_strange_times
from jammi_duck.errors import InputError, JammiError, StorageError
from jammi_duck.types import Vectors
from jammi_duck.udfs.vector_column import Near, Size
from jammi_duck.work.fill import Row

_VERSION = sql.SQL("SELECT version()")
_VECTOR_TYPE = sql.SQL(
    "SELECT n.nspname, pg_type_is_visible(t.oid) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
    "WHERE t.typname = 'vector'"
)
_CREATE_EXTENSION = sql.SQL("CREATE EXTENSION IF NOT EXISTS vector")
_MAY_MAKE_TABLES = sql.SQL("SELECT has_database_privilege(current_database(), 'TEMPORARY')")
_INDEX_BYTES = sql.SQL(
    "SELECT coalesce(sum(pg_relation_size(indexrelid)), 0) FROM pg_index WHERE indrelid = {} AND {} = ANY(indkey)"
)
_LOOK_AT_MORE = sql.SQL(
    "SELECT set_config('hnsw.ef_search', {}, true), set_config('hnsw.iterative_scan', 'strict_order', true)"
)
# Keys and values are the same texts whenever they are read, and mean the same when they are written.
_PLAIN = sql.SQL(
    "SELECT set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'postgres', true), "
    "set_config('extra_float_digits', '1', true)"
)
_VECTOR = re.compile(r"(?:.+\.)?vector(?:\((?P<length>\d+)\))?")
_ANY_VECTOR = re.compile(r"(?:.+\.)?(?:half|sparse)?vec(?:tor)?(?:\(\d+\))?")
# Of how many rows an index of pgvector thinks by default, and at most.
_LOOKS_AT, _LOOKS_AT_MOST = 40, 1000
_COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_END = struct.pack(">h", -1)


@dataclass(frozen=True)
class _Place:
    """A row by its key, each part as a text, and the text that it had."""

    key: tuple[str, ...]
    was: str


class ServerColumn:
    """A table on a database server with a column of texts, and one of their vectors.

    It is used as `jammi_duck.udfs.vector_column.VectorColumn` is.
    """

    def __init__(
        self,
        connections: Connections,
        table: str,
        texts: str | None,
        vectors: str,
        *,
        key: Sequence[str] | None = None,
        any_type: bool = False,
        needs_key: bool = True,
        dialect: Dialect | None = None,
    ) -> None:
        """Find the table and its columns; that of vectors need not be there.

        `key` names the columns that tell rows apart, by default those of the primary key. With `any_type`, the column
        may have other values than texts. Without `texts`, only sizes are asked for. The server says what its `dialect`
        is, if it is not given.

        Raises:
            NotFoundError: there is no such table, or no such column.
            InputError: the name is that of a view, or the column has no texts, or there is no key.
            StorageError: the server cannot be reached, or refuses.
        """
        self._connections = connections
        ((version,),) = connections.rows(_VERSION)
        dialect = dialect or dialect_of(version)
        found = find_table(connections, table)
        values = found.column(texts) if texts is not None else None
        if values is not None and not values.is_text and not any_type:
            raise InputError(
                f"the column '{texts}' of '{table}' is {values.type}, and a model reads texts: name a column of texts, "
                "or by -m a wrapper, which takes values of any type"
            )
        self._with_values = any_type
        columns: Sequence[Kind] = ()
        if key:
            columns = named_key(connections, found, key)
        elif needs_key:
            columns = primary_key(connections, found)
        own = found.find(vectors)
        self._statements = Statements(dialect, found, columns, values, own.name if own else vectors)
        self._copies: bool | None = None if dialect.copies else False
        self._find_type()

    @property
    def dialect(self) -> Dialect:
        """What the server is."""
        return self._statements.dialect

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the key."""
        return tuple(kind.name for kind in self._statements.key)

    @property
    def key_type(self) -> str:
        """The types of the key's columns, as they are shown."""
        return ", ".join(kind.type for kind in self._statements.key)

    def create(self, dimensions: int) -> bool:
        """Add the column of vectors, if it is not there; whether it was not.

        Raises:
            InputError: there is a column of that name for something else.
            StorageError: the server has no vectors.
        """
        if self._own() is not None:
            self._need(dimensions)
            return False
        self._need_type()
        try:
            self._connections.run(self._statements.add_column(dimensions))
            is_new = True
        except InputError:
            # Another process may have added it just now.
            is_new = False
            self._look_again()
            if self._own() is None:
                raise
        self._look_again()
        self._need(dimensions)
        return is_new

    def clear_changed(self) -> int:
        """Nothing: the server's trigger sets vectors NULL itself."""
        return 0

    def count(self, *, with_text: bool) -> int:
        """How many rows without a vector have a text, or have none."""
        ((count,),) = self._connections.rows(self._statements.count(with_text=with_text))
        return int(count)

    def read(self, after: _Place | None, size: int) -> list[Row]:
        """Some rows that have a text and no vector, by their keys: those after a place, or the first."""
        place = None if after is None else after.key
        statement = self._statements.read(place, size, with_values=self._with_values)
        parts = len(self._statements.key)
        return [_row(row, parts) for row in self._connections.read(lambda con: self._found(con, statement))]

    def _found(self, con: Connection, statement: Statement) -> list[tuple[Any, ...]]:
        self._be_plain(con)
        keep_strange_times(con)
        return self._connections.execute(con, statement).fetchall()

    def write(self, rows: Sequence[Row], vectors: Vectors) -> int:
        """Write the vectors of rows, in one transaction, where their texts are still the same; how many those are."""
        if not rows:
            return 0
        if self._copies is None:
            ((self._copies,),) = self._connections.rows(_MAY_MAKE_TABLES)
        places: list[_Place] = [row.place for row in rows]
        if self._copies:
            content = b"".join(_copied(places, vectors))
            return self._connections.write(lambda con: self._copy(con, content))
        columns = [list(each) for each in zip(*((*place.key, place.was) for place in places), strict=True)]
        columns.append([str(vector) for vector in vectors.tolist()])
        update = self._statements.update(copied=False)

        def work(con: Connection) -> int:
            self._be_plain(con)
            return self._connections.execute(con, update, columns).rowcount

        return self._connections.write(work)

    def _be_plain(self, con: Connection) -> None:
        if self.dialect.has_extension:
            self._connections.execute(con, _PLAIN)

    def _copy(self, con: Connection, content: bytes) -> int:
        self._be_plain(con)
        create, copy, analyze = self._statements.copy()
        self._connections.execute(con, create)
        with con.cursor().copy(copy) as stream:
            stream.write(content)
        self._connections.execute(con, analyze)
        return self._connections.execute(con, self._statements.update(copied=True)).rowcount

    def nearest_sql(self, vector: Sequence[float], limit: int, where: str | None) -> str:
        """The statement that `nearest` runs.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: it has vectors of another length, or none at all.
        """
        self._need(len(vector))
        by_index = False
        if self.dialect.index_needs_no_condition and where is None:
            ((indexes,),) = self._connections.rows(self._statements.has_index())
            by_index = bool(indexes)
        return self._statements.nearest(vector, limit, where, by_index=by_index).as_string()

    def nearest(self, vector: Sequence[float], limit: int, where: str | None) -> list[Near]:
        """The rows whose vectors are nearest to one, nearest first; only those that meet a condition, if there is one.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: it has vectors of another length, or none at all.
        """
        statement = sql.SQL(self.nearest_sql(vector, limit, where))
        looks_at = min(max(limit, _LOOKS_AT), _LOOKS_AT_MOST)

        def found(con: Connection) -> list[tuple[Any, ...]]:
            if self.dialect.has_extension:
                # An old pgvector does not know all of it.
                with contextlib.suppress(psycopg.Error), con.transaction():
                    self._connections.execute(con, _LOOK_AT_MORE.format(sql.Literal(str(looks_at))))
            return self._connections.execute(con, statement).fetchall()

        return [Near(*row) for row in self._connections.read(found)]

    def size(self) -> Size:
        """What the vectors take.

        Raises:
            NotFoundError: there is no column of vectors.
        """
        own = self._need_vectors()
        try:
            ((filled, empty, dimensions, taken),) = self._connections.rows(self._statements.size(stale=True))
        except JammiError:
            # Some seconds ago, the column may not have been there.
            ((filled, empty, dimensions, taken),) = self._connections.rows(self._statements.size(stale=False))
        index = 0
        if self.dialect.has_extension:
            oid, number = sql.Literal(self._statements.table.oid), sql.Literal(own.number)
            ((index,),) = self._connections.rows(_INDEX_BYTES.format(oid, number))
        return Size(int(filled), int(empty), dimensions, int(taken), int(index))

    def instrument(self, *, index: bool) -> list[str]:
        """Have the server set vectors NULL whose texts change, and index the vectors; what was done.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: it has something else, or such vectors cannot be indexed.
            StorageError: the server refuses.
        """
        name = self._need_vectors().name
        self._all(self._statements.watch())
        done = [f"Trigger {self._statements.mark} sets {name} NULL when {self._texts} changes"]
        if index:
            try:
                self._connections.run(self._statements.create_index())
            except JammiError as error:
                raise type(error)(
                    f"the trigger was made, and the index was not: {error}; --no-index leaves it out"
                ) from None
            done.append(f"Index {self._statements.mark}_index finds vectors by their cosine distance")
        return done

    def cleanup(self) -> list[str]:
        """Undo `instrument`; what was done."""
        ((watched,),) = self._connections.rows(self._statements.is_watched())
        ((indexes,),) = self._connections.rows(self._statements.has_index())
        self._all([*self._statements.unwatch(), self._statements.drop_index()])
        return [
            f"Trigger {self._statements.mark} {'was dropped' if watched else 'is not there'}",
            f"Index {self._statements.mark}_index {'was dropped' if indexes else 'is not there'}",
        ]

    def _all(self, statements: Sequence[Statement]) -> None:
        """Run statements that change the schema, together where the server allows it."""
        if not self.dialect.has_extension:
            for statement in statements:
                self._connections.run(statement)
            return

        def work(con: Connection) -> None:
            for statement in statements:
                self._connections.execute(con, statement)

        self._connections.write(work)

    @property
    def _texts(self) -> str:
        return self._statements.values.name if self._statements.values else ""

    def _own(self) -> Kind | None:
        return self._statements.table.find(self._statements.vectors)

    def _look_again(self) -> None:
        table = find_table(self._connections, self._statements.table.shown)
        self._statements = dataclasses.replace(self._statements, table=table)

    def _need_vectors(self) -> Kind:
        """The column of vectors; raises an error where there is none, or it has something else."""
        table = self._statements.table
        own = table.column(self._statements.vectors)
        if _ANY_VECTOR.fullmatch(own.type) is None:
            raise InputError(f"the column '{own.name}' of '{table.shown}' is {own.type}: name one of vectors")
        return own

    def _need(self, dimensions: int) -> None:
        """Raises an error where the column has no vectors of that length."""
        shown = self._statements.table.shown
        own = self._statements.table.column(self._statements.vectors)
        match = _VECTOR.fullmatch(own.type)
        if match is None or (match["length"] or str(dimensions)) != str(dimensions):
            raise InputError(
                f"the column '{own.name}' of '{shown}' is {own.type}, and the model's vectors are "
                f"vector({dimensions}): name another column, or drop this one"
            )

    def _find_type(self) -> bool:
        """Whether the server has the type of vectors, whose schema is kept where it has to be named."""
        found = self._connections.rows(_VECTOR_TYPE)
        schema = None if not found or found[0][1] or not self.dialect.has_extension else found[0][0]
        self._statements = dataclasses.replace(self._statements, schema=schema)
        return bool(found)

    def _need_type(self) -> None:
        if not self.dialect.has_extension or self._find_type():
            return
        try:
            self._connections.run(_CREATE_EXTENSION)
        except JammiError as error:
            # Another process may have made it just now.
            if not self._find_type():
                raise StorageError(
                    f"this PostgreSQL has no type for vectors, and CREATE EXTENSION vector fails ({error}): install "
                    "pgvector on the server, and have an administrator of the database run CREATE EXTENSION vector"
                ) from None
        self._find_type()


def _row(found: tuple[Any, ...], parts: int) -> Row:
    """A row from its text, the parts of its key as texts, and perhaps its value and key as they are."""
    was, key, values = found[0], found[1 : parts + 1], found[parts + 1 :]
    value, primary = (values[0], values[1:]) if values else (was, (None,))
    return Row(_Place(key, was), ", ".join(key), value, primary[0] if len(primary) == 1 else tuple(primary))


def _copied(places: Sequence[_Place], vectors: Vectors) -> Iterator[bytes]:
    """The content of PostgreSQL's binary COPY: the parts of the key, the text and the vector of each row."""
    count, length = len(vectors), vectors.shape[1]
    numbers = vectors.astype(">f4").tobytes()
    size = 4 * length
    begin = struct.pack(">ihh", size + 4, length, 0)
    yield _COPY_BEGIN
    for at in range(count):
        texts = [text.encode() for text in (*places[at].key, places[at].was)]
        yield struct.pack(">h", len(texts) + 1)
        for text in texts:
            yield struct.pack(">i", len(text))
            yield text
        yield begin
        yield numbers[at * size : (at + 1) * size]
    yield _COPY_END
