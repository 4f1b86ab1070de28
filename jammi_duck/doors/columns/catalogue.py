"""What a database server says of a table: its name, its columns, and its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.sql import Composable

from jammi_duck.doors.columns.connections import Connections
from jammi_duck.errors import InputError, NotFoundError, did_you_mean, enumerated
from jammi_duck.udfs.sources import name_parts
from jammi_duck.udfs.vector_column import several_tables

_TABLES = sql.SQL(
    "SELECT c.oid, current_database(), n.nspname, c.relname, c.relkind, pg_table_is_visible(c.oid) FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') "
    "AND left(n.nspname, 3) <> 'pg_' AND n.nspname NOT IN ('information_schema', 'crdb_internal') "
    "ORDER BY pg_table_is_visible(c.oid) DESC, n.nspname, c.relname"
)
_COLUMNS = sql.SQL(
    "SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory = 'S' FROM pg_attribute a "
    "JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped "
    "ORDER BY a.attnum"
)
_KEY = sql.SQL("SELECT conkey FROM pg_constraint WHERE conrelid = {} AND contype = 'p'")
_NOT_TABLES = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True)
class Kind:
    """A column: its name, its type as SQL, and whether it has texts."""

    number: int
    name: str
    type: str
    is_text: bool

    @property
    def sql(self) -> Composable:
        """The name, quoted, of the table that queries call t."""
        return sql.SQL("t.{}").format(sql.Identifier(self.name))

    @property
    def type_sql(self) -> Composable:
        """The type; the server has quoted what needs it."""
        return sql.SQL(self.type)


@dataclass(frozen=True)
class Table:
    """A table, and its columns by their names; `shown` is how the user calls it."""

    oid: int
    schema: str
    name: str
    shown: str
    columns: dict[str, Kind]

    @property
    def sql(self) -> Composable:
        """The full name, quoted."""
        return sql.Identifier(self.schema, self.name)

    def find(self, name: str) -> Kind | None:
        """The column of a name: as it is written, or else in small letters, as the server reads names."""
        return self.columns.get(name) or self.columns.get(name.lower())

    def column(self, name: str) -> Kind:
        """The column of a name.

        Raises:
            NotFoundError: there is none.
        """
        found = self.find(name)
        if found is None:
            near = did_you_mean(name, self.columns) or ";"
            raise NotFoundError(f"no column '{name}' in '{self.shown}'{near} columns: {enumerated(list(self.columns))}")
        return found


def find_table(connections: Connections, name: str) -> Table:
    """The table of a name, which may have a schema and a database before it.

    Raises:
        NotFoundError: there is none.
        InputError: it is a view, or there are several, of which the server's search path finds none.
    """
    parts = name_parts(name)
    known = connections.rows(_TABLES)
    for wanted in (parts, [part.lower() for part in parts]):
        same = [each for each in known if list(each[1:4])[-len(wanted) :] == wanted]
        if not same:
            continue
        oid, _, schema, own_name, kind, is_visible = same[0]
        if len(same) > 1 and not is_visible:
            raise InputError(several_tables(name, [each[2] for each in same]))
        if kind in _NOT_TABLES:
            raise InputError(
                f"'{name}' is {_NOT_TABLES[kind]}, and vectors are stored in tables: name the one that it reads"
            )
        found = connections.rows(_COLUMNS.format(sql.Literal(oid)))
        columns = {kind.name: kind for kind in (Kind(*each) for each in found)}
        return Table(oid, schema, own_name, name, columns)
    near = did_you_mean(name, [each[3] for each in known]) or ";"
    raise NotFoundError(
        f"there is no table '{name}' in the database{near} tables: {enumerated([each[3] for each in known]) or 'none'}"
    )


def primary_key(connections: Connections, table: Table) -> list[Kind]:
    """The columns of a table's primary key.

    Raises:
        InputError: it has none.
    """
    found = connections.rows(_KEY.format(sql.Literal(table.oid)))
    if not found:
        raise InputError(
            f"'{table.shown}' has no primary key, by which its rows are found again: name columns that tell all rows "
            "apart, as in --key id or --key a,b"
        )
    by_number = {kind.number: kind for kind in table.columns.values()}
    return [by_number[number] for number in found[0][0]]


def named_key(connections: Connections, table: Table, names: Sequence[str]) -> list[Kind]:
    """The columns of a key that the user names.

    Raises:
        NotFoundError: there is no such column.
        InputError: they do not tell all rows apart.
    """
    key = [table.column(name) for name in names]
    columns = sql.SQL(", ").join(kind.sql for kind in key)
    is_null = sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(kind.sql) for kind in key)
    null = sql.SQL("SELECT 1 FROM {} t WHERE {} LIMIT 1").format(table.sql, is_null)
    several = sql.SQL("SELECT 1 FROM {} t GROUP BY {} HAVING count(*) > 1 LIMIT 1").format(table.sql, columns)
    for query, why in ((null, "is NULL in some rows"), (several, "is the same in several rows")):
        if connections.rows(query):
            shown = ", ".join(kind.name for kind in key)
            raise InputError(f"the key {shown} of '{table.shown}' {why}: name columns that tell all rows apart")
    return key
