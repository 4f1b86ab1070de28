"""A column of vectors in a table of DuckDB's, beside the text that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from jammi_duck.encoder.blanks import VISIBLE
from jammi_duck.errors import InputError, NotFoundError, did_you_mean
from jammi_duck.sql import Sql, folded, joined, literal, quoted, sql
from jammi_duck.types import GIVEN, Host, Vectors
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


@dataclass(frozen=True)
class Near:
    """A row near to a text: its cosine distance, its key as it is shown, and its own text."""

    distance: float
    key: str
    text: str | None


class VectorColumn:
    """A table of a DuckDB database with a column of texts, and one of their vectors."""

    def __init__(self, host: Host, table: str, texts: str, vectors: str) -> None:
        """Find the table and its columns; that of vectors need not be there.

        Raises:
            NotFoundError: there is no such table, or no such column.
            InputError: the name is that of a view, or the column has no texts.
        """
        self._host = host
        self._name = table
        full = _table(host, table)
        self._table = joined(".", map(quoted, full))
        self._types = {folded(name): (name, kind) for name, kind in host.sql(_COLUMNS, full)}
        self._texts, kind = self._column(texts)
        if kind != "VARCHAR":
            raise InputError(
                f"the column '{texts}' of '{table}' is {kind}, and a model reads texts: name a column of type VARCHAR"
            )
        self._vectors = vectors
        found = host.sql(_KEY, full)
        self.key = tuple(found[0][0]) if found else ("rowid",)
        self._key_text = sql("concat_ws(', ', {})", joined(", ", [sql("t.{}::VARCHAR", quoted(k)) for k in self.key]))

    @property
    def key_type(self) -> str:
        """The types of the key's columns, as they are shown."""
        kinds = (self._types[folded(name)][1] if self.key != ("rowid",) else "BIGINT" for name in self.key)
        return ", ".join(kind.lower() for kind in kinds)

    def create(self, dimensions: int) -> bool:
        """Add the column of vectors, if it is not there; whether it was not.

        Raises:
            InputError: there is a column of that name for something else.
        """
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

    def read(self, after: int, size: int) -> list[Row]:
        """Some rows that have a text and no vector, from a place on."""
        text = sql(
            "SELECT t.rowid, {}, t.{} FROM {} t WHERE t.{} IS NULL AND {} AND t.rowid > {} "
            "ORDER BY t.rowid ASC LIMIT {}",
            self._key_text,
            quoted(self._texts),
            self._table,
            quoted(self._vectors),
            self._has_text,
            after,
            size,
        )
        return [Row(*row) for row in self._host.sql(text)]

    def write(self, rows: Sequence[Row], vectors: Vectors) -> int:
        """Write the vectors of rows, in one transaction, where their texts are still the same; how many those are."""
        if not rows:
            return 0
        places, texts = [row.place for row in rows], [row.text for row in rows]
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        text = sql(
            "UPDATE {} AS t SET {} = v.vector FROM {} v WHERE t.rowid = v.place AND t.rowid BETWEEN {} AND {} "
            'AND t.{}::VARCHAR COLLATE "C" = v.was AND t.{} IS NULL',
            self._table,
            quoted(self._vectors),
            quoted(GIVEN),
            min(places),
            max(places),
            quoted(self._texts),
            quoted(self._vectors),
        )
        ((count,),) = self._host.sql(text, rows=pa.table({"place": places, "was": texts, "vector": values}))
        return int(count)

    def nearest(self, vector: Sequence[float], limit: int, where: str | None) -> list[Near]:
        """The rows whose vectors are nearest to one, nearest first; only those that meet a condition, if there is one.

        Raises:
            NotFoundError: there is no column of vectors.
            InputError: it has vectors of another length, or none at all.
        """
        name, kind = self._column(self._vectors)
        size = f"FLOAT[{len(vector)}]"
        if kind not in (size, "FLOAT[]"):
            raise InputError(f"the column '{name}' of '{self._name}' is {kind}, and the model's vectors are {size}")
        condition = sql("") if where is None else sql(" AND ({}\n)", Sql(where))
        text = sql(
            "SELECT array_cosine_distance(t.{vectors}::{size}, $1::{size}) AS distance, {key}, t.{texts} "
            "FROM {table} t WHERE t.{vectors} IS NOT NULL{condition} ORDER BY distance ASC, {key} ASC LIMIT {limit}",
            vectors=quoted(name),
            size=Sql(size),
            key=self._key_text,
            texts=quoted(self._texts),
            table=self._table,
            condition=condition,
            limit=limit,
        )
        return [Near(*row) for row in self._host.sql(text, [list(vector)])]

    @property
    def _has_text(self) -> Sql:
        return sql("regexp_matches(t.{}, {})", quoted(self._texts), literal(VISIBLE))

    def _column(self, name: str) -> tuple[str, str]:
        if folded(name) not in self._types:
            known = [own for own, _ in self._types.values()]
            near = did_you_mean(name, known) or ";"
            raise NotFoundError(f"no column '{name}' in '{self._name}'{near} columns: {', '.join(known)}")
        return self._types[folded(name)]


def _table(host: Host, name: str) -> tuple[str, str, str]:
    """The database, the schema and the name of a table."""
    parts = [folded(part) for part in name_parts(name)]
    tables = [tuple(map(str, row)) for row in host.sql(_TABLES)]
    for database, schema, table in tables:
        if [folded(each) for each in (database, schema, table)][-len(parts) :] == parts:
            return database, schema, table
    if host.sql(_VIEWS, [name_parts(name)[-1]]):
        raise InputError(f"'{name}' is a view, and vectors are stored in tables: name the table that it reads")
    near = did_you_mean(name, [table for _, _, table in tables]) or ";"
    raise NotFoundError(
        f"there is no table '{name}' in the database{near} `jammi-duck sources list` shows what there is"
    )
