"""A column of vectors in a table of DuckDB's, beside the text that they are of."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from jammi_duck.encoder.blanks import VISIBLE
from jammi_duck.errors import InputError, NotFoundError, did_you_mean, enumerated
from jammi_duck.sql import NULL, Sql, folded, joined, literal, quoted, sql
from jammi_duck.types import GIVEN, Host, Vectors
from jammi_duck.udfs.column_queue import ColumnQueue, Watched
from jammi_duck.udfs.sources import name_parts
from jammi_duck.work.fill import Row

_TABLES = sql(
    "SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE NOT internal "
    "AND database_name = current_database() AND schema_name <> 'jammi_catalog' "
    "ORDER BY schema_name <> 'main', table_name"
)
_VIEWS = sql("SELECT 1 FROM duckdb_views() WHERE database_name = current_database() AND lower(view_name) = lower(?)")
_COLUMNS = sql(
    "SELECT column_name, data_type FROM duckdb_columns() "
    "WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index"
)
_KEY = sql(
    "SELECT constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' "
    "AND database_name = ? AND schema_name = ? AND table_name = ?"
)
_VECTORS = re.compile(r"(FLOAT|DOUBLE)\[\d*\]")


@dataclass(frozen=True)
class Near:
    """A row near to a text: its cosine distance, its key as it is shown, and its own text."""

    distance: float
    key: str
    text: str | None


@dataclass(frozen=True)
class Size:
    """What vectors take: rows that have one and rows that have none, the numbers of a vector, and bytes."""

    filled: int
    empty: int
    dimensions: int | None
    bytes: int
    index_bytes: int = 0


class VectorColumn:
    """A table of a DuckDB database with a column of texts, and one of their vectors."""

    def __init__(
        self,
        host: Host,
        table: str | tuple[str, str, str],
        texts: str | None,
        vectors: str,
        *,
        key: Sequence[str] | None = None,
        any_type: bool = False,
    ) -> None:
        """Find the table and its columns; that of vectors need not be there.

        `table` is a name in the current database, or a database, a schema and a name. `key` names the columns that
        tell rows apart, by default those of the primary key, or the rowid. With `any_type`, the column may have other
        values than texts. Without `texts`, only sizes are asked for.

        Raises:
            NotFoundError: there is no such table, or no such column.
            InputError: the name is that of a view, or the column has no texts, or the key is none.
        """
        self._host = host
        self._name = table if isinstance(table, str) else table[-1]
        self._full = _table(host, table) if isinstance(table, str) else table
        self._table = joined(".", map(quoted, self._full))
        self._types = {folded(name): (name, kind) for name, kind in host.sql(_COLUMNS, self._full)}
        self._texts, kind = self._column(texts) if texts is not None else ("", "VARCHAR")
        self._is_text = kind == "VARCHAR"
        if not self._is_text and not any_type:
            raise InputError(
                f"the column '{texts}' of '{self._name}' is {kind}, and a model reads texts: name a column of type "
                "VARCHAR, or a wrapper as the model, which takes values of any type"
            )
        self._gives_keys = any_type
        self._vectors = vectors
        found = host.sql(_KEY, self._full)
        self.key = self._unique(key) if key else tuple(found[0][0]) if found else ("rowid",)
        self._key_text = sql("concat_ws(', ', {})", joined(", ", [sql("t.{}::VARCHAR", quoted(k)) for k in self.key]))
        watched = Watched(self._full, self.key, self._texts, self._spelt(vectors))
        self._queue = ColumnQueue(host, watched)

    @property
    def key_type(self) -> str:
        """The types of the key's columns, as they are shown."""
        kinds = (self._types[folded(name)][1] if self.key != ("rowid",) else "BIGINT" for name in self.key)
        return ", ".join(kind.lower() for kind in kinds)

    def create(self, dimensions: int) -> bool:
        """Add the column of vectors, if it is not there; whether it was not.

        Raises:
            InputError: there is a column of that name for something else, or one that hides the rowid.
        """
        if "rowid" in self._types:
            raise InputError(
                f"'{self._name}' has a column rowid, which hides DuckDB's own, by which rows are found again: rename it"
            )
        kind = f"FLOAT[{dimensions}]"
        found = self._types.get(folded(self._vectors))
        if found is not None:
            if found[1] not in (kind, "FLOAT[]"):
                raise InputError(
                    f"the column '{self._vectors}' of '{self._name}' is {found[1]}, and the model's vectors are "
                    f"{kind}: name another column, or drop this one"
                )
            return False
        self._host.sql(sql("ALTER TABLE {} ADD COLUMN {} {}", self._table, quoted(self._vectors), Sql(kind)))
        self._types[folded(self._vectors)] = (self._vectors, kind)
        return True

    def clear_changed(self) -> int:
        """Set the vectors of rows NULL whose texts were noted as changed (see `instrument`); how many those are."""
        with self._foreign_keys():
            return self._queue.clear_changed()

    def count(self, *, with_text: bool) -> int:
        """How many rows without a vector have a text, or have none."""
        text = sql(
            "SELECT count(*) FROM {} t WHERE {} IS NULL AND coalesce({}, false) = {}",
            self._table,
            quoted(self._vectors),
            self._has_text,
            Sql(str(with_text).lower()),
        )
        ((count,),) = self._host.sql(text)
        return int(count)

    def read(self, after: _Place | None, size: int) -> list[Row]:
        """Some rows that have a text and no vector, by their rowid: those after a place, or the first."""
        names = [sql("t.{}", quoted(name)) for name in self.key] if self._gives_keys else [NULL]
        text = sql(
            "SELECT t.rowid, t.{texts}::VARCHAR, {key}, t.{texts}, {names} FROM {table} t WHERE t.{vectors} IS NULL "
            "AND {has_text} AND t.rowid > {after} ORDER BY t.rowid ASC LIMIT {size}",
            texts=quoted(self._texts),
            key=self._key_text,
            names=joined(", ", names),
            table=self._table,
            vectors=quoted(self._vectors),
            has_text=self._has_text,
            after=-1 if after is None else after.rowid,
            size=size,
        )
        return [
            Row(_Place(rowid, was), key, value, names[0] if len(names) == 1 else tuple(names))
            for rowid, was, key, value, *names in self._host.sql(text)
        ]

    def write(self, rows: Sequence[Row], vectors: Vectors) -> int:
        """Write the vectors of rows, in one transaction, where their texts are still the same; how many those are."""
        if not rows:
            return 0
        places: list[_Place] = [row.place for row in rows]
        rowids, texts = [place.rowid for place in places], [place.was for place in places]
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        text = sql(
            "UPDATE {} AS t SET {} = v.vector FROM {} v WHERE t.rowid = v.place AND t.rowid BETWEEN {} AND {} "
            'AND t.{}::VARCHAR COLLATE "C" = v.was AND t.{} IS NULL',
            self._table,
            quoted(self._vectors),
            quoted(GIVEN),
            min(rowids),
            max(rowids),
            quoted(self._texts),
            quoted(self._vectors),
        )
        with self._foreign_keys():
            ((count,),) = self._host.sql(text, rows=pa.table({"place": rowids, "was": texts, "vector": values}))
        return int(count)

    def nearest_sql(self, vector: Sequence[float], limit: int, where: str | None) -> Sql:
        """The statement that `nearest` runs.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: it has vectors of another length, or none at all.
        """
        name, kind = self._column(self._vectors)
        size = f"FLOAT[{len(vector)}]"
        if kind not in (size, "FLOAT[]"):
            raise InputError(f"the column '{name}' of '{self._name}' is {kind}, and the model's vectors are {size}")
        return sql(
            "SELECT array_cosine_distance(t.{vectors}::{size}, {vector}::{size}) AS distance, {key} AS key, "
            "t.{texts}::VARCHAR AS text\nFROM {table} t\nWHERE t.{vectors} IS NOT NULL{condition}\n"
            "ORDER BY distance ASC, key ASC\nLIMIT {limit}",
            vectors=quoted(name),
            size=Sql(size),
            vector=Sql(str(list(vector))),
            key=self._key_text,
            texts=quoted(self._texts),
            table=joined(".", map(quoted, self._full[1:])),
            condition=sql("") if where is None else sql(" AND ({}\n)", Sql(where)),
            limit=limit,
        )

    def nearest(self, vector: Sequence[float], limit: int, where: str | None) -> list[Near]:
        """The rows whose vectors are nearest to one, nearest first; only those that meet a condition, if there is one.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: it has vectors of another length, or none at all.
        """
        return [Near(*row) for row in self._host.sql(self.nearest_sql(vector, limit, where))]

    def size(self) -> Size:
        """What the vectors take.

        Raises:
            NotFoundError: there is no column of vectors.
        """
        name = self._need_vectors()
        text = sql(
            "SELECT count(t.{0}), count(*) - count(t.{0}), max(len(t.{0})), coalesce(sum(len(t.{0})) * 4, 0) "
            "FROM {1} t",
            quoted(name),
            self._table,
        )
        ((filled, empty, dimensions, taken),) = self._host.sql(text)
        return Size(int(filled), int(empty), dimensions, int(taken))

    def instrument(self, *, index: bool) -> list[str]:
        """Have DuckDB note changes of texts from now on; what was done. It has no index of vectors that lasts.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: that has no vectors, or the table has no key, or this database cannot have triggers.
        """
        self._need_vectors()
        if self.key == ("rowid",):
            raise InputError(f"'{self._name}' has no primary key, by which changes are noted: name one with --key")
        return [f"Changes of {self._texts} {'are' if self._queue.make() else 'were already'} noted"]

    def cleanup(self) -> list[str]:
        """Undo `instrument`; what was done."""
        # Vectors whose texts have changed would look like those of the new texts.
        cleared = self.clear_changed() if folded(self._vectors) in self._types else 0
        done = [f"Vectors of changed texts that were set NULL: {cleared:,}"] if cleared else []
        return [*done, f"Changes of {self._texts} {'are no longer' if self._queue.remove() else 'were not'} noted"]

    @property
    def _has_text(self) -> Sql:
        if not self._is_text:
            return sql("t.{} IS NOT NULL", quoted(self._texts))
        return sql("regexp_matches(t.{}, {})", quoted(self._texts), literal(VISIBLE))

    def _need_vectors(self) -> str:
        """The name of the column of vectors; raises an error where there is none, or it has something else."""
        name, kind = self._column(self._vectors)
        if not _VECTORS.fullmatch(kind):
            raise InputError(
                f"the column '{name}' of '{self._name}' is {kind}: name one of vectors, FLOAT[n] or FLOAT[]"
            )
        return name

    @contextlib.contextmanager
    def _foreign_keys(self) -> Iterator[None]:
        """Say what it means that rows cannot be written anew; the host's errors are of its own kinds."""
        try:
            yield
        except Exception as error:
            if "foreign key constraint" not in str(error):
                raise
            raise InputError(
                f"rows of '{self._name}' are referred to by a foreign key of another table, and DuckDB writes a row "
                "anew to change its vector, which it refuses then: keep texts and vectors in a table that none refers "
                f"to, or leave out the foreign key ({error})"
            ) from error

    def _spelt(self, name: str) -> str:
        """A column's name as the table has it."""
        return str(self._types.get(folded(name), (name, ""))[0])

    def _unique(self, key: Sequence[str]) -> tuple[str, ...]:
        """The columns of a key that the caller names.

        Raises:
            NotFoundError: there is no such column.
            InputError: they do not tell all rows apart.
        """
        names = tuple(self._column(name)[0] for name in key)
        columns = [sql("t.{}", quoted(name)) for name in names]
        text = sql(
            "SELECT count(*), count(*) FILTER ({}) FROM (SELECT {} FROM {} t GROUP BY ALL HAVING count(*) > 1 OR {})",
            joined(" OR ", [sql("{} IS NULL", quoted(name)) for name in names]),
            joined(", ", columns),
            self._table,
            joined(" OR ", [sql("{} IS NULL", name) for name in columns]),
        )
        ((several, null),) = self._host.sql(text)
        if several:
            why = "is NULL in some rows" if null else "is the same in several rows"
            raise InputError(
                f"the key {', '.join(names)} of '{self._name}' {why}: name columns that tell all rows apart"
            )
        return names

    def _column(self, name: str) -> tuple[str, str]:
        if folded(name) not in self._types:
            known = [own for own, _ in self._types.values()]
            near = did_you_mean(name, known) or ";"
            raise NotFoundError(f"no column '{name}' in '{self._name}'{near} columns: {', '.join(known)}")
        return self._types[folded(name)]


@dataclass(frozen=True)
class _Place:
    """Where DuckDB has a row now, and the text that it had: a rowid may mean another row later."""

    rowid: int
    was: str


def several_tables(name: str, schemas: Sequence[str]) -> str:
    """What is said where these schemas have a table of that name, and nothing says which one is meant."""
    return (
        f"several schemas have a table '{name}': {enumerated(list(schemas))}; name one before it, as in "
        f"-t {schemas[0]}.{name}"
    )


def _table(host: Host, name: str) -> tuple[str, str, str]:
    """The database, the schema and the name of a table."""
    parts = [folded(part) for part in name_parts(name)]
    tables = [(str(database), str(schema), str(table)) for database, schema, table in host.sql(_TABLES)]
    same = [each for each in tables if [folded(part) for part in each][-len(parts) :] == parts]
    if len(same) > 1 and folded(same[0][1]) != "main":
        raise InputError(several_tables(name, [schema for _, schema, _ in same]))
    if same:
        return same[0]
    if host.sql(_VIEWS, [name_parts(name)[-1]]):
        raise InputError(f"'{name}' is a view, and vectors are stored in tables: name the table that it reads")
    near = did_you_mean(name, [table for _, _, table in tables]) or ";"
    raise NotFoundError(
        f"there is no table '{name}' in the database{near} `jammi-duck sources list` shows what there is"
    )
