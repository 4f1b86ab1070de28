"""Refuses a database file with views or macros in place of our tables and functions, before anything runs.

A view would run its SQL where we read a table, and a macro would be called where our function is not there. What is
asked here are lists of DuckDB's own, which run nothing of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from jammi_duck.errors import StorageError
from jammi_duck.sql import Sql, sql
from jammi_duck.types import Host

_CONSTANT = re.compile(r"NULL|true|false|-?\d+|'[^']*'", re.IGNORECASE)


def refuse_macros(host: Host, names: Collection[str]) -> None:
    """Look at the macros of all open databases; `names` are those that we give.

    Raises:
        StorageError: one has the name of a function of ours.
    """
    text = sql(
        "SELECT database_name, schema_name, function_name FROM duckdb_functions() "
        "WHERE database_name NOT IN ('temp', 'system') AND function_type IN ('macro', 'table_macro')"
    )
    found = host.sql(text)
    for database, schema, name in found:
        if name.lower() in names or name.lower().startswith("_jammi_"):
            raise StorageError(
                f"the database '{database}' has a macro {schema}.{name}, which would take the place of a function: "
                f'DROP MACRO {schema}."{name}" (or DROP MACRO TABLE), and install again'
            )


def refuse_tables(host: Host, database: str, schema: str, expected: Mapping[str, Mapping[str, str]]) -> None:
    """Look at the tables of a catalog. `expected` are types, by column and table; others may stand beside them.

    Raises:
        StorageError: something else than a table that only keeps rows is there, or a column is missing or another.
    """

    def rows(text: Sql) -> list[tuple[str, ...]]:
        return host.sql(sql("{} WHERE database_name = ? AND lower(schema_name) = ?", text), [database, schema])

    def refuse(what: str) -> StorageError:
        return StorageError(
            f"the database '{database}' has {what}, which jammi_duck does not make: nothing of its catalog is read or "
            f"written. If the file is yours, DROP SCHEMA {schema} CASCADE: tables in the location are found again"
        )

    if not rows(sql("SELECT schema_name FROM duckdb_schemas()")):
        return
    for (view,) in rows(sql("SELECT view_name FROM duckdb_views()")):
        raise refuse(f"a view {schema}.{view}")
    for table, kind in rows(sql("SELECT table_name, constraint_type FROM duckdb_constraints()")):
        if kind not in ("PRIMARY KEY", "NOT NULL", "UNIQUE"):
            raise refuse(f"a {kind} on {schema}.{table}")
    for table, index in rows(sql("SELECT table_name, index_name FROM duckdb_indexes()")):
        raise refuse(f"an index {index} on {schema}.{table}")
    for table, trigger in _triggers(rows):
        raise refuse(f"a trigger {trigger} on {schema}.{table}")
    found: dict[str, dict[str, str]] = {}
    text = sql("SELECT table_name, column_name, data_type, column_default FROM duckdb_columns()")
    for table, column, kind, default in rows(text):
        if default is not None and not _CONSTANT.fullmatch(default):
            raise refuse(f"a column {schema}.{table}.{column} that is computed")
        found.setdefault(table.lower(), {})[column.lower()] = kind
    for table, columns in expected.items():
        # A version is noted together with all tables; before there were versions, one may have come without the other.
        if "version" in found and table not in found:
            raise refuse(f"a catalog without the table {schema}.{table}")
        for column, kind in columns.items():
            if table in found and found[table].get(column) != kind:
                raise refuse(f"a table {schema}.{table} in which '{column}' is no {kind}")


def _triggers(rows: Callable[[Sql], list[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    try:
        return rows(sql("SELECT table_name, trigger_name FROM duckdb_triggers()"))
    except Exception as error:
        # Before 2.0, DuckDB has none, and no list of them.
        if "duckdb_triggers does not exist" not in str(error):
            raise
        return []
