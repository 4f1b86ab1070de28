"""The catalog's version, and the migrations from earlier versions, each run once in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from jammi_duck.errors import UnsupportedError
from jammi_duck.types import Host

BUILDS = {
    "build": "VARCHAR PRIMARY KEY",
    "name": "VARCHAR NOT NULL",
    "source": "VARCHAR NOT NULL",
    "columns": "VARCHAR[] NOT NULL",
    "key": "VARCHAR NOT NULL",
    "model": "VARCHAR NOT NULL",
    "dimensions": "INTEGER NOT NULL",
    "definition": "VARCHAR NOT NULL",
    "fingerprint": "VARCHAR NOT NULL",
    "status": "VARCHAR NOT NULL",
    "stage": "VARCHAR",
    "row_count": "BIGINT",
    "skipped_count": "BIGINT",
    "failed_count": "BIGINT",
    "truncated_count": "BIGINT",
    "location": "VARCHAR NOT NULL",
    "owner": "VARCHAR",
    "started": "TIMESTAMP NOT NULL",
    "finished": "TIMESTAMP",
    "error": "VARCHAR",
}
FILES = {
    "build": "VARCHAR NOT NULL",
    "segment": "INTEGER NOT NULL",
    "row_count": "BIGINT NOT NULL",
    "parquet": "VARCHAR NOT NULL",
    "bytes": "BIGINT NOT NULL",
    "sha256": "VARCHAR NOT NULL",
}


def with_a_version(schema: str) -> Sequence[str]:
    """From nothing, or from a catalog that was made before there were versions, which has the tables already."""
    builds, files = (", ".join(f"{name} {kind}" for name, kind in columns.items()) for columns in (BUILDS, FILES))
    return (
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"CREATE TABLE IF NOT EXISTS {schema}.embedding_tables ({builds})",
        f"CREATE TABLE IF NOT EXISTS {schema}.segments ({files})",
        f"CREATE TABLE {schema}.version AS SELECT 0 AS version",
    )


# Each gives the statements that make of a catalog of the version before it one of its own: the first, version 1.
MIGRATIONS: tuple[Callable[[str], Sequence[str]], ...] = (with_a_version,)
VERSION = len(MIGRATIONS)


def version_of(host: Host, database: str, schema: str, version_table: str) -> int:
    """The version of a database's catalog; 0 where it has none. Raises UnsupportedError where it is no number."""
    named = "lower(schema_name) = ? AND lower(table_name) = 'version'"
    there = f"SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND {named}"
    if not host.sql(there, [database, schema]):
        return 0
    rows = host.sql(f"SELECT * FROM {version_table}")
    if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 1:
        raise UnsupportedError(f"the catalog in '{database}' has no version that this jammi_duck understands")
    return rows[0][0]


def migrate(host: Host, database: str, schema: str, quoted_schema: str) -> None:
    """Bring a database's catalog to this version, or make it.

    Raises:
        UnsupportedError: a later version of jammi_duck has made it what it is.
    """
    version = version_of(host, database, schema, f"{quoted_schema}.version")
    if version > VERSION:
        raise UnsupportedError(
            f"the catalog in '{database}' has version {version}, and this jammi_duck knows {VERSION}: "
            "install a later one, or open the database read-only to search it"
        )
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        _at_once(host, [*migration(quoted_schema), f"UPDATE {quoted_schema}.version SET version = {number}"])


def _at_once(host: Host, statements: Sequence[str]) -> None:
    try:
        host.sql("; ".join(["BEGIN TRANSACTION", *statements, "COMMIT"]))
    except Exception:
        # Where all statements run on one connection, it is still in the transaction.
        with contextlib.suppress(Exception):
            host.sql("ROLLBACK")
        raise
