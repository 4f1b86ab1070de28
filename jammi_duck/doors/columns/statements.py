"""Every statement about a column of vectors on a database server; tests/golden has them as they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from jammi_duck.doors.columns.catalogue import Kind, Table
from jammi_duck.doors.columns.connections import Statement
from jammi_duck.doors.columns.dialect import Dialect

GIVEN = sql.Identifier("pg_temp", "_jammi_given")
_PREFIX = "_jammi_column_"
_BODY = sql.SQL(
    "BEGIN IF {new_text} IS DISTINCT FROM {old_text} THEN "
    "IF (NEW).{vectors}::text IS NOT DISTINCT FROM (OLD).{vectors}::text THEN NEW.{vectors} := NULL; END IF; "
    "END IF; RETURN NEW; END"
)


@dataclass(frozen=True)
class Statements:
    """The statements for a table with its key, a column of values and one of their vectors.

    `schema` is what stands before the names of the vectors' type, functions and operators: a name and a dot, or
    nothing.
    """

    dialect: Dialect
    table: Table
    key: Sequence[Kind]
    values: Kind | None
    vectors: str
    schema: str | None = None

    def add_column(self, dimensions: int) -> Statement:
        """Adds the column of vectors."""
        return sql.SQL("ALTER TABLE {} ADD COLUMN {} {}vector({})").format(
            self.table.sql, sql.Identifier(self.vectors), self._schema, sql.Literal(dimensions)
        )

    def count(self, *, with_text: bool) -> Statement:
        """Counts the rows without a vector that have a text, or have none."""
        return sql.SQL("SELECT count(*) FROM {} t WHERE {} IS NULL AND ({}) IS {}TRUE").format(
            self.table.sql, self._vector, self._has_text, sql.SQL("" if with_text else "NOT ")
        )

    def read(self, after: Sequence[str] | None, size: int, *, with_values: bool) -> Statement:
        """Reads a page of rows with a text and without a vector, in the order of the key: no cursor has to stay open.

        The columns are the text, the parts of the key as texts, and `with_values` the value and the key as they are.
        """
        keys = [kind.sql for kind in self.key]
        wanted = [_as_text(each) for each in (self._value, *keys)]
        wanted += [self._value, *keys] if with_values else []
        further: sql.Composable = sql.SQL("")
        if after is not None:
            values = zip(after, self.key, strict=True)
            place = [sql.SQL("{}::{}").format(sql.Literal(value), kind.type_sql) for value, kind in values]
            further = sql.SQL(" AND ({}) > ({})").format(_listed(keys), _listed(place))
        return sql.SQL("SELECT {} FROM {} t WHERE {} IS NULL AND {}{} ORDER BY {} LIMIT {}").format(
            _listed(wanted),
            self.table.sql,
            self._vector,
            self._has_text,
            further,
            _listed(keys),
            sql.Literal(size),
        )

    def copy(self) -> tuple[Statement, Statement, Statement]:
        """Make a temporary table, copy vectors into it, and have it looked at: or the server takes it for long."""
        columns = [sql.SQL("{} text").format(name) for name in self._given[:-1]]
        create = sql.SQL("CREATE TEMPORARY TABLE {} ({}, vector {}vector) ON COMMIT DROP")
        return (
            create.format(GIVEN, _listed(columns), self._schema),
            sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(GIVEN),
            sql.SQL("ANALYZE {} ({})").format(GIVEN, _listed(self._given[:-2])),
        )

    def update(self, *, copied: bool) -> Statement:
        """Writes vectors where the texts are still the same, and no other vectors are.

        They come from the temporary table, or as lists of texts in $1 and so on.
        """
        given: sql.Composable = GIVEN
        if not copied:
            lists = [sql.SQL(f"${place}::text[]") for place in range(1, len(self._given) + 1)]
            given = sql.SQL("unnest({})").format(_listed(lists))
        names = sql.SQL("") if copied else sql.SQL(" ({})").format(_listed(self._given))
        pairs = zip(self.key, self._given[: len(self.key)], strict=True)
        return sql.SQL(
            "UPDATE {table} AS t SET {name} = g.vector::{schema}vector FROM {given} AS g{names} "
            "WHERE {same_key} AND {text} = g.was AND {vector} IS NULL"
        ).format(
            table=self.table.sql,
            name=sql.Identifier(self.vectors),
            schema=self._schema,
            given=given,
            names=names,
            same_key=sql.SQL(" AND ").join(
                sql.SQL("{} = g.{}::{}").format(kind.sql, name, kind.type_sql) for kind, name in pairs
            ),
            text=self.dialect.by_bytes.format(self._value),
            vector=self._vector,
        )

    def nearest(self, vector: Sequence[float], limit: int, where: str | None, *, by_index: bool = False) -> Statement:
        """Finds the rows nearest to a vector; `where` is the user's own SQL.

        `by_index` has the server's index find them, if it is one that no condition may stand beside.
        """
        distance = sql.SQL("{} {} {}::{}vector").format(
            self._vector,
            sql.SQL("OPERATOR({}<=>)").format(self._schema) if self.schema else sql.SQL("<=>"),
            sql.Literal(str(list(vector))),
            self._schema,
        )
        conditions = [] if by_index and where is None else [sql.SQL("{} IS NOT NULL").format(self._vector)]
        conditions += [] if where is None else [sql.SQL("({}\n)").format(sql.SQL(where))]
        return sql.SQL(
            "SELECT distance, key, text FROM (\n"
            "SELECT {distance} AS distance, concat_ws(', ', {key}) AS key, {text} AS text\n"
            "FROM {table} t{where}\nORDER BY {distance}\nLIMIT {limit}\n"
            ") AS nearest\nWHERE distance IS NOT NULL\nORDER BY distance, key"
        ).format(
            distance=distance,
            key=_listed([_as_text(kind.sql) for kind in self.key]),
            text=_as_text(self._value),
            table=self.table.sql,
            where=sql.SQL("\nWHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL(""),
            limit=sql.Literal(limit),
        )

    def size(self, *, stale: bool) -> Statement:
        """Counts the rows with and without a vector, its numbers, and the bytes of all vectors."""
        return sql.SQL(
            "SELECT count({vector}), count(*) - count({vector}), max({schema}vector_dims({vector})), "
            "coalesce(sum(pg_column_size({vector})), 0) FROM {table} t{stale}"
        ).format(
            vector=self._vector,
            schema=self._schema,
            table=self.table.sql,
            stale=self.dialect.stale if stale else sql.SQL(""),
        )

    def watch(self) -> list[Statement]:
        """Make a trigger that sets the vector NULL where a statement changes the text, and gives no other vector."""
        body = _BODY.format(
            new_text=self.dialect.by_bytes.format(sql.SQL("(NEW).{}").format(self._value_name)),
            old_text=self.dialect.by_bytes.format(sql.SQL("(OLD).{}").format(self._value_name)),
            vectors=sql.Identifier(self.vectors),
        )
        create = sql.SQL("CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}")
        trigger = sql.SQL("CREATE TRIGGER {} BEFORE UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION {}()")
        return [
            *self.unwatch(),
            create.format(self._function, sql.Literal(body.as_string())),
            trigger.format(sql.Identifier(self.mark), self.table.sql, self._function),
        ]

    def unwatch(self) -> list[Statement]:
        """Drop the trigger."""
        return [
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(self.mark), self.table.sql),
            sql.SQL("DROP FUNCTION IF EXISTS {}()").format(self._function),
        ]

    def is_watched(self) -> Statement:
        """Counts the trigger."""
        return sql.SQL("SELECT count(*) FROM pg_trigger WHERE tgrelid = {} AND tgname = {}").format(
            sql.Literal(self.table.oid), sql.Literal(self.mark)
        )

    def create_index(self) -> Statement:
        """Makes the index of vectors."""
        return self.dialect.create_index.format(
            name=self._index, table=self.table.sql, vectors=sql.Identifier(self.vectors), schema=self._schema
        )

    def drop_index(self) -> Statement:
        """Drops the index of vectors."""
        return self.dialect.drop_index.format(
            name=self._index, table=self.table.sql, schema=sql.Identifier(self.table.schema)
        )

    def has_index(self) -> Statement:
        """Counts the index of vectors."""
        return sql.SQL("SELECT count(*) FROM pg_indexes WHERE schemaname = {} AND indexname = {}").format(
            sql.Literal(self.table.schema), sql.Literal(f"{self.mark}_index")
        )

    @property
    def mark(self) -> str:
        """The name of what is made for this column, and begins the names of the rest."""
        names = "\0".join((self.table.schema, self.table.name, self._value_name_text, self.vectors))
        return _PREFIX + hashlib.sha256(names.encode()).hexdigest()[:16]

    @property
    def _function(self) -> sql.Composable:
        return sql.Identifier(self.table.schema, self.mark)

    @property
    def _index(self) -> sql.Composable:
        return sql.Identifier(f"{self.mark}_index")

    @property
    def _given(self) -> list[sql.Identifier]:
        """The columns that vectors are given in."""
        return [sql.Identifier(name) for name in (*(f"key{at}" for at in range(len(self.key))), "was", "vector")]

    @property
    def _schema(self) -> sql.Composable:
        return sql.SQL("") if self.schema is None else sql.SQL("{}.").format(sql.Identifier(self.schema))

    @property
    def _vector(self) -> sql.Composable:
        return sql.SQL("t.{}").format(sql.Identifier(self.vectors))

    @property
    def _value(self) -> sql.Composable:
        return sql.SQL("t.{}").format(self._value_name)

    @property
    def _value_name(self) -> sql.Identifier:
        return sql.Identifier(self._value_name_text)

    @property
    def _value_name_text(self) -> str:
        return "" if self.values is None else self.values.name

    @property
    def _has_text(self) -> sql.Composable:
        if self.values is None or not self.values.is_text:
            return sql.SQL("{} IS NOT NULL").format(self._value)
        return sql.SQL("{} ~ {}").format(self.dialect.by_bytes.format(self._value), sql.Literal(self.dialect.visible))


def _as_text(value: sql.Composable) -> sql.Composable:
    return sql.SQL("{}::text").format(value)


def _listed(parts: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)
