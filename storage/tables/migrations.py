"""The catalog's version, and the migrations from earlier versions, each run once in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from jammi_duck.errors import UnsupportedError
from jammi_duck.sql import Sql, joined, quoted, sql
from jammi_duck.types import Host

BUILDS = {
    "build": sql("VARCHAR PRIMARY KEY"),
    "name": sql("VARCHAR NOT NULL"),
    "source": sql("VARCHAR NOT NULL"),
    "columns": sql("VARCHAR[] NOT NULL"),
    "key": sql("VARCHAR NOT NULL"),
    "model": sql("VARCHAR NOT NULL"),
    "dimensions": sql("INTEGER NOT NULL"),
    "definition": sql("VARCHAR NOT NULL"),
    "fingerprint": sql("VARCHAR NOT NULL"),
    "status": sql("VARCHAR NOT NULL"),
    "stage": sql("VARCHAR"),
    "row_count": sql("BIGINT"),
    "skipped_count": sql("BIGINT"),
    "failed_count": sql("BIGINT"),
    "truncated_count": sql("BIGINT"),
    "location": sql("VARCHAR NOT NULL"),
    "owner": sql("VARCHAR"),
    "started": sql("TIMESTAMP NOT NULL"),
    "finished": sql("TIMESTAMP"),
    "error": sql("VARCHAR"),
}
FILES = {
    "build": sql("VARCHAR NOT NULL"),
    "segment": sql("INTEGER NOT NULL"),
    "row_count": sql("BIGINT NOT NULL"),
    "parquet": sql("VARCHAR NOT NULL"),
    "bytes": sql("BIGINT NOT NULL"),
    "sha256": sql("VARCHAR NOT NULL"),
}


def with_a_version(schema: Sql) -> Sequence[Sql]:
    """From nothing, or from a catalog that was made before there were versions, which has the tables already."""
    builds, files = (
        joined(", ", (sql("{} {}", quoted(name), kind) for name, kind in columns.items()))
        for columns in (BUILDS, FILES)
    )
    return (
        sql("CREATE SCHEMA IF NOT EXISTS {}", schema),
        sql("CREATE TABLE IF NOT EXISTS {}.embedding_tables ({})", schema, builds),
        sql("CREATE TABLE IF NOT EXISTS {}.segments ({})", schema, files),
        sql("CREATE TABLE {}.version AS SELECT 0 AS version", schema),
    )


# Each gives the statements that make of a catalog of the version before it one of its own: the first, version 1.
MIGRATIONS: tuple[Callable[[Sql], Sequence[Sql]], ...] = (with_a_version,)
VERSION = len(MIGRATIONS)


def version_of(host: Host, database: str, schema: str, version_table: Sql) -> int:
    """The version of a database's catalog; 0 where it has none. Raises UnsupportedError where it is no number."""
    there = sql(
        "SELECT 1 FROM duckdb_tables() "
        "WHERE database_name = ? AND lower(schema_name) = ? AND lower(table_name) = 'version'"
    )
    if not host.sql(there, [database, schema]):
        return 0
    rows = host.sql(sql("SELECT * FROM {}", version_table))
    if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 1:
        raise UnsupportedError(f"the catalog in '{database}' has no version that this jammi_duck understands")
    return rows[0][0]


def migrate(host: Host, database: str, schema: str, quoted_schema: Sql) -> None:
    """Bring a database's catalog to this version, or make it.

    Raises:
        UnsupportedError: a later version of jammi_duck has made it what it is.
    """
    version = version_of(host, database, schema, sql("{}.version", quoted_schema))
    if version > VERSION:
        raise UnsupportedError(
            f"the catalog in '{database}' has version {version}, and this jammi_duck knows {VERSION}: "
            "install a later one, or open the database read-only to search it"
        )
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        at_once(host, [*migration(quoted_schema), sql("UPDATE {}.version SET version = {}", quoted_schema, number)])


def at_once(host: Host, statements: Sequence[Sql]) -> None:
    """Run statements in one transaction."""
    try:
        host.sql(joined("; ", [sql("BEGIN TRANSACTION"), *statements, sql("COMMIT")]))
    except Exception:
        # Where all statements run on one connection, it is still in the transaction.
        with contextlib.suppress(Exception):
            host.sql(sql("ROLLBACK"))
        raise
