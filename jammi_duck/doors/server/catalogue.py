"""Answers to the questions of Flight SQL about catalogs, schemas, tables, keys and types."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa

from jammi_duck.doors.server import sql_info
from jammi_duck.doors.server.database import Lent
from jammi_duck.doors.server.identity import Visitor
from jammi_duck.doors.server.names import DOTTED
from jammi_duck.doors.server.service import Service
from jammi_duck.doors.server.streams import schema_bytes
from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, folded, joined, quoted, sql

_TYPES = {"BASE TABLE": "TABLE", "VIEW": "VIEW"}
# What is listed: neither DuckDB's own, nor our catalog, nor the names that stand for others.
_LISTED = sql(
    "SELECT table_catalog, table_schema, table_name, CASE table_type WHEN 'BASE TABLE' THEN 'TABLE' ELSE table_type "
    "END AS table_type FROM information_schema.tables WHERE table_catalog NOT IN ('system', 'temp') "
    "AND table_schema <> 'jammi_catalog' AND NOT (table_catalog = $beside AND table_schema = $dotted) "
    "AND NOT list_contains($hidden, table_catalog)"
)
_SCHEMAS = sql(
    "SELECT catalog_name, schema_name FROM information_schema.schemata WHERE catalog_name NOT IN ('system', 'temp') "
    "AND schema_name NOT IN ('jammi_catalog', 'information_schema', 'pg_catalog') "
    "AND NOT (catalog_name = $beside AND schema_name IN ($dotted, 'main')) "
    "AND NOT list_contains($hidden, catalog_name) AND (schema_name <> 'main' OR catalog_name = $home)"
)
# The databases that the engine keeps in memory.
_HIDDEN = sql("SELECT database_name FROM duckdb_schemas() WHERE schema_name = 'jammi_catalog' AND database_name <> ?")
_CONSTRAINTS = sql(
    "SELECT database_name, schema_name, table_name, constraint_type, constraint_column_names, referenced_table, "
    "referenced_column_names, constraint_index FROM duckdb_constraints() "
    "WHERE constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY') ORDER BY ALL"
)


def _schema(*fields: tuple[str, pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=may_be_null) for name, kind, may_be_null in fields])


_TEXT = pa.string()
_CATALOGS = _schema(("catalog_name", _TEXT, False))
_DB_SCHEMAS = _schema(("catalog_name", _TEXT, True), ("db_schema_name", _TEXT, False))
_TABLES = _schema(
    ("catalog_name", _TEXT, True),
    ("db_schema_name", _TEXT, True),
    ("table_name", _TEXT, False),
    ("table_type", _TEXT, False),
)
_TABLES_WITH_SCHEMA = _TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
_TABLE_TYPES = _schema(("table_type", _TEXT, False))
_PRIMARY = _schema(
    ("catalog_name", _TEXT, True),
    ("db_schema_name", _TEXT, True),
    ("table_name", _TEXT, False),
    ("column_name", _TEXT, False),
    ("key_name", _TEXT, True),
    ("key_sequence", pa.int32(), False),
)
_FOREIGN = _schema(
    ("pk_catalog_name", _TEXT, True),
    ("pk_db_schema_name", _TEXT, True),
    ("pk_table_name", _TEXT, False),
    ("pk_column_name", _TEXT, False),
    ("fk_catalog_name", _TEXT, True),
    ("fk_db_schema_name", _TEXT, True),
    ("fk_table_name", _TEXT, False),
    ("fk_column_name", _TEXT, False),
    ("key_sequence", pa.int32(), False),
    ("fk_key_name", _TEXT, True),
    ("pk_key_name", _TEXT, True),
    ("update_rule", pa.uint8(), False),
    ("delete_rule", pa.uint8(), False),
)
_NO_ACTION = 3


class Catalogue:
    """What there is in the database, as Flight SQL's clients ask for it."""

    def __init__(self, service: Service) -> None:
        """Of one service's database."""
        self._service = service
        self._answers: dict[str, tuple[Callable[[Any], pa.Schema], Callable[[Any, Visitor], pa.Table]]] = {
            "CommandGetSqlInfo": (lambda _: sql_info.SCHEMA, self._sql_info),
            "CommandGetXdbcTypeInfo": (lambda _: sql_info.TYPE_SCHEMA, self._type_info),
            "CommandGetCatalogs": (lambda _: _CATALOGS, self._catalogs),
            "CommandGetDbSchemas": (lambda _: _DB_SCHEMAS, self._schemas),
            "CommandGetTables": (
                lambda command: _TABLES_WITH_SCHEMA if command.include_schema else _TABLES,
                self._tables,
            ),
            "CommandGetTableTypes": (lambda _: _TABLE_TYPES, self._table_types),
            "CommandGetPrimaryKeys": (lambda _: _PRIMARY, self._primary_keys),
            "CommandGetExportedKeys": (lambda _: _FOREIGN, functools.partial(self._foreign_keys, exported=True)),
            "CommandGetImportedKeys": (lambda _: _FOREIGN, functools.partial(self._foreign_keys, exported=False)),
            "CommandGetCrossReference": (lambda _: _FOREIGN, self._cross_reference),
        }

    def schema(self, command: Any) -> pa.Schema:  # noqa: ANN401
        """The columns of the answer to a command. Raises InputError for one that asks for nothing of the catalog."""
        return self._answer(command)[0](command)

    def table(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        """The answer to a command."""
        return self._answer(command)[1](command, visitor)

    def _answer(self, command: Any) -> tuple[Callable[[Any], pa.Schema], Callable[[Any, Visitor], pa.Table]]:  # noqa: ANN401
        name = command.DESCRIPTOR.name
        if name not in self._answers:
            raise InputError(f"a {name} is no question that has rows for an answer")
        return self._answers[name]

    def has(self, visitor: Visitor, catalog: str | None, schema: str | None) -> bool:
        """Whether a visitor sees such a catalog and schema; None is any."""
        rows = self._listed_schemas(visitor)
        return any(catalog in (None, a) and schema in (None, b) for a, b in rows)

    def path(self, catalog: str | None, schema: str | None) -> str:
        """The search path for these: what they have, then what is found without them."""
        database = self._service.database
        home = database.names.home
        catalog = catalog or home
        schema = schema or ("main" if catalog == home else "public")
        return f"{quoted(catalog)}.{quoted(schema)},{database.names.search_path}"

    def _rows(self, visitor: Visitor, text: Sql, parameters: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
        with self._service.lend(visitor) as lent:
            return lent.rows(text, parameters)

    def _names(self, visitor: Visitor) -> dict[str, Any]:
        names = self._service.database.names
        hidden = [name for (name,) in self._rows(visitor, _HIDDEN, [names.home])]
        return {"beside": names.beside, "dotted": DOTTED, "hidden": hidden, "home": names.home}

    def _listed_schemas(self, visitor: Visitor) -> list[tuple[str, str]]:
        found = self._rows(visitor, sql("{} ORDER BY ALL", _SCHEMAS), self._names(visitor))
        return self._seen_schemas(visitor, [(catalog, schema) for catalog, schema in found])

    def _seen_schemas(self, visitor: Visitor, rows: list[Any]) -> list[Any]:
        """Of rows that begin with a catalog and a schema, those that a visitor may see."""
        grant = self._service.grant(visitor)
        if grant is None:
            return rows
        pairs = {(catalog, schema) for catalog, schema, _ in grant.tables}
        return [row for row in rows if (folded(row[0]), folded(row[1])) in pairs]

    def _seen(self, visitor: Visitor, rows: list[Any], start: int = 0) -> list[Any]:
        """Of rows that have a table's full name from a column on, those that a visitor may see."""
        grant = self._service.grant(visitor)
        return rows if grant is None else [row for row in rows if grant.has(*row[start : start + 3])]

    def _sql_info(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        return sql_info.sql_info(list(command.info), _keywords())

    def _type_info(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        return sql_info.type_info(command.data_type if command.HasField("data_type") else None)

    def _catalogs(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        names = sorted({catalog for catalog, _ in self._listed_schemas(visitor)})
        return pa.table([pa.array(names, _TEXT)], schema=_CATALOGS)

    def _schemas(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        conditions, values = _conditions(
            command, ("catalog", "catalog_name", "="), ("db_schema_filter_pattern", "schema_name", "LIKE")
        )
        text = sql("SELECT * FROM ({}) WHERE {} ORDER BY ALL", _SCHEMAS, conditions)
        rows = self._rows(visitor, text, {**self._names(visitor), **values})
        return _table(self._seen_schemas(visitor, rows), _DB_SCHEMAS)

    def _tables(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        conditions, values = _conditions(
            command,
            ("catalog", "table_catalog", "="),
            ("db_schema_filter_pattern", "table_schema", "LIKE"),
            ("table_name_filter_pattern", "table_name", "LIKE"),
        )
        text = sql(
            "SELECT * FROM ({}) WHERE {} AND (len($types) = 0 OR list_contains($types, table_type)) "
            "ORDER BY table_type, table_catalog, table_schema, table_name",
            _LISTED,
            conditions,
        )
        names = self._names(visitor)
        del names["home"]
        found = self._rows(visitor, text, {**names, **values, "types": list(command.table_types)})
        rows = self._seen(visitor, found)
        if not command.include_schema:
            return _table(rows, _TABLES)
        with self._service.lend(visitor) as lent:
            with_schemas = [(*row, schema_bytes(_columns(lent, *row[:3]))) for row in rows]
        return _table(with_schemas, _TABLES_WITH_SCHEMA)

    def _table_types(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        return _table([(kind,) for kind in sorted(_TYPES.values())], _TABLE_TYPES)

    def _primary_keys(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        wanted = _wanted(command, "catalog", "db_schema", "table")
        rows = []
        for catalog, schema, table, kind, columns, *_ in self._rows(visitor, _CONSTRAINTS, []):
            if kind == "PRIMARY KEY" and _is_wanted(wanted, catalog, schema, table):
                rows += [(catalog, schema, table, name, None, i) for i, name in enumerate(columns, 1)]
        return _table(self._seen(visitor, rows), _PRIMARY)

    def _foreign_keys(self, command: Any, visitor: Visitor, *, exported: bool) -> pa.Table:  # noqa: ANN401
        wanted = _wanted(command, "catalog", "db_schema", "table")
        rows = self._all_foreign_keys(visitor)
        start = 0 if exported else 4
        return _table([row for row in rows if _is_wanted(wanted, *row[start : start + 3])], _FOREIGN)

    def _cross_reference(self, command: Any, visitor: Visitor) -> pa.Table:  # noqa: ANN401
        primary = _wanted(command, "pk_catalog", "pk_db_schema", "pk_table")
        foreign = _wanted(command, "fk_catalog", "fk_db_schema", "fk_table")
        rows = self._all_foreign_keys(visitor)
        return _table(
            [row for row in rows if _is_wanted(primary, *row[:3]) and _is_wanted(foreign, *row[4:7])], _FOREIGN
        )

    def _all_foreign_keys(self, visitor: Visitor) -> list[tuple[Any, ...]]:
        rows = []
        for catalog, schema, table, kind, columns, other, theirs, _ in self._rows(visitor, _CONSTRAINTS, []):
            if kind != "FOREIGN KEY":
                continue
            for i, (column, their) in enumerate(zip(columns, theirs, strict=True), 1):
                ends = (catalog, schema, other, their, catalog, schema, table, column)
                rows.append((*ends, i, None, None, _NO_ACTION, _NO_ACTION))
        return self._seen(visitor, self._seen(visitor, rows), 4)


@functools.cache
def _keywords() -> tuple[str, ...]:
    return tuple(sql_info.keywords())


def _conditions(command: Any, *filters: tuple[str, str, str]) -> tuple[Sql, dict[str, str]]:  # noqa: ANN401
    """The conditions of a command's filters, those that are set, and their values."""
    conditions, values = [sql("true")], {}
    for field, column, operator in filters:
        if not command.HasField(field):
            continue
        values[field] = getattr(command, field)
        if operator == "=":
            conditions.append(sql("{} = {}", Sql(column), Sql(f"${field}")))
        else:
            conditions.append(sql("{} LIKE {} ESCAPE '\\'", Sql(column), Sql(f"${field}")))
    return joined(" AND ", conditions), values


def _wanted(command: Any, *fields: str) -> list[str | None]:  # noqa: ANN401
    *optional, table = fields
    return [*(getattr(command, each) if command.HasField(each) else None for each in optional), getattr(command, table)]


def _is_wanted(wanted: list[str | None], *names: str) -> bool:
    return all(each is None or each == name for each, name in zip(wanted, names, strict=True))


def _columns(lent: Lent, catalog: str, schema: str, table: str) -> pa.Schema:
    """The columns of a table, with the names of their types; none where a view cannot be read now."""
    name = joined(".", map(quoted, (catalog, schema, table)))
    try:
        described = lent.rows(sql("DESCRIBE {}", name))
        found = lent.con.sql(sql("SELECT * FROM {} LIMIT 0", name)).to_arrow_table().schema
    except duckdb.Error:
        return pa.schema([])
    fields = []
    for field, (_, kind, *_) in zip(found, described, strict=True):
        facts = {"CATALOG_NAME": catalog, "SCHEMA_NAME": schema, "TABLE_NAME": table, "TYPE_NAME": kind}
        fields.append(field.with_metadata({f"ARROW:FLIGHT:SQL:{key}": value for key, value in facts.items()}))
    return pa.schema(fields)


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)]
    return pa.table(arrays, schema=schema)
