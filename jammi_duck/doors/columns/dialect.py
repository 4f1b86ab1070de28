"""In what the statements for PostgreSQL and for CockroachDB differ; tests/golden has all of them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from jammi_duck.encoder.blanks import RANGES, VISIBLE

_LAST_OF_BASIC = 0xFFFF


@dataclass(frozen=True)
class Dialect:
    """How a server wants its statements."""

    name: str
    # Of a text: it compares by its bytes, whatever the column's collation.
    by_bytes: sql.SQL
    # Where queries may read a state that is some seconds old, so that they wait for nobody.
    stale: sql.SQL
    # A visible character, as a regular expression.
    visible: str
    # A temporary table takes the vectors by COPY.
    copies: bool
    # The type is that of an extension.
    has_extension: bool
    create_index: sql.SQL
    drop_index: sql.SQL
    # Its index of vectors serves only queries without a condition.
    index_needs_no_condition: bool


def _postgresql(character: int) -> str:
    return f"\\u{character:04X}" if character <= _LAST_OF_BASIC else f"\\U{character:08X}"


POSTGRESQL = Dialect(
    name="PostgreSQL",
    by_bytes=sql.SQL('{}::text COLLATE "C"'),
    stale=sql.SQL(""),
    # No text has a zero character.
    visible="[^" + "".join(f"{_postgresql(max(first, 1))}-{_postgresql(last)}" for first, last in RANGES) + "]",
    copies=True,
    has_extension=True,
    create_index=sql.SQL(
        "CREATE INDEX IF NOT EXISTS {name} ON {table} USING hnsw ({vectors} {schema}vector_cosine_ops)"
    ),
    drop_index=sql.SQL("DROP INDEX IF EXISTS {schema}.{name}"),
    index_needs_no_condition=False,
)
COCKROACHDB = Dialect(
    name="CockroachDB",
    # Without its collation, a text compares so.
    by_bytes=sql.SQL("{}::text"),
    stale=sql.SQL(" AS OF SYSTEM TIME follower_read_timestamp()"),
    visible=VISIBLE,
    copies=False,
    has_extension=False,
    create_index=sql.SQL("CREATE VECTOR INDEX IF NOT EXISTS {name} ON {table} ({vectors} {schema}vector_cosine_ops)"),
    drop_index=sql.SQL("DROP INDEX IF EXISTS {table}@{name}"),
    index_needs_no_condition=True,
)


def dialect_of(version: str) -> Dialect:
    """The dialect of a server, by what it says of its version."""
    return COCKROACHDB if "cockroach" in version.lower() else POSTGRESQL
