"""The views `jammi."NAME"`, in an in-memory database of their own that every connection sees.

So they read the same after USE and beside a read-only database, and nothing of them is in an EXPORT DATABASE: their
files would have to be there when that is imported.
"""

from __future__ import annotations

import secrets

from jammi_duck.config.logs import log
from jammi_duck.sql import joined, quoted, sql
from jammi_duck.storage.tables.catalog import SCHEMA, VIEWS
from jammi_duck.types import Host


def views_of(host: Host, database: str, *, readonly: bool) -> tuple[str, tuple[str, str]]:
    """The database in memory that stands beside this one, and the database and schema that the views are in.

    Earlier versions had them in a schema of the database itself. They are taken out; where that cannot be, because
    something else is in the schema, they stay there, as two meanings of `jammi` would be none.
    """
    if not readonly:
        _take_out(host, database)
    has_own = has_schema(host, database, VIEWS)
    names = (VIEWS, f"{VIEWS}_memory", secrets.token_hex(8))
    found = host.sql(sql("SELECT database_name, path IS NULL AND NOT readonly FROM duckdb_databases()"))
    there = {name.lower(): may_be_ours for name, may_be_ours in found}
    ours = {name for name in names if name != database.lower() and there.get(name) and has_schema(host, name, SCHEMA)}
    free = (name for name in names if name in ours or name not in there)
    beside = next(name for name in free if not (has_own and name == VIEWS))
    if beside not in there:
        host.sql(sql("ATTACH ':memory:' AS {} (READ_WRITE)", quoted(beside)))
        # By this it is known again.
        host.sql(sql("CREATE SCHEMA {}.{}", quoted(beside), quoted(SCHEMA)))
    for view in _views(host, beside, "main"):
        # Of an earlier installation on this open database, and perhaps of an earlier state.
        host.sql(sql("DROP VIEW {}.main.{}", quoted(beside), quoted(view)))
    return beside, (database, VIEWS) if has_own and not readonly else (beside, "main")


def has_schema(host: Host, database: str, schema: str) -> bool:
    """Whether a database has a schema of this name."""
    text = sql("SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND lower(schema_name) = ?")
    return bool(host.sql(text, [database, schema]))


def _take_out(host: Host, database: str) -> None:
    schema = joined(".", (quoted(database), quoted(VIEWS)))
    try:
        for view in _views(host, database, VIEWS):
            host.sql(sql("DROP VIEW {}.{}", schema, quoted(view)))
        host.sql(sql("DROP SCHEMA IF EXISTS {}", schema))
    except Exception as error:
        log.info("the schema %s stays: %s", schema, error)


def _views(host: Host, database: str, schema: str) -> list[str]:
    """The views in a schema that are over files of embedding tables."""
    text = sql(
        "SELECT view_name FROM duckdb_views() WHERE database_name = ? AND lower(schema_name) = ? "
        "AND contains(view_name, '__embedding__') AND contains(sql, 'read_parquet')"
    )
    return [name for (name,) in host.sql(text, [database, schema])]
