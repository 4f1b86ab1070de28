"""What a source is called: by its name as DuckDB resolves it, without the database, case-insensitively."""

from __future__ import annotations

import re

from jammi_duck.errors import InputError
from jammi_duck.types import Host

_FILE = re.compile(r".*\.(parquet|csv|tsv|txt|json|jsonl|ndjson|xlsx|arrow|feather)(\.(gz|zst|bz2))?", re.IGNORECASE)
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_NAME = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern})){{0,2}}")


def source_id(source: str, schema: str, host: Host) -> str:
    """The one name of a source, however it was written.

    `schema` is the caller's current schema. A file path is itself, a URL loses its query string (which may be a
    signature). `patents`, `Main.Patents` and `db.main.patents` are `patents`; another schema stands before the name.

    Raises:
        InputError: the name is empty, or is not one that DuckDB could read.
    """
    if _is_file(source):
        return source.split("?", 1)[0] if "://" in source else source
    parts = [part.casefold() for part in _parts(source)]
    if len(parts) == 1:
        space = schema.casefold() if schema.casefold() != "main" and _has(host, schema, parts[0]) else "main"
    elif len(parts) == 2:
        space = parts[0] if _is_schema(host, parts[0]) else "main"
    else:
        space = parts[-2]
    names = [parts[-1]] if space == "main" else [space, parts[-1]]
    return ".".join(f'"{name}"' if "." in name else name for name in names)


def _is_file(source: str) -> bool:
    return not source.startswith('"') and (
        any(mark in source for mark in "/\\*") or _FILE.fullmatch(source) is not None
    )


def _parts(source: str) -> list[str]:
    if not _NAME.fullmatch(source):
        raise InputError(f"'{source}' names no table, view or file; write table, schema.table, or a path")
    parts = _PART.findall(source)
    return [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts]


def _has(host: Host, schema: str, table: str) -> bool:
    text = (
        "SELECT 1 FROM (SELECT schema_name, table_name FROM duckdb_tables() "
        "UNION ALL SELECT schema_name, view_name FROM duckdb_views()) "
        "WHERE lower(schema_name) = lower(?) AND lower(table_name) = ?"
    )
    return bool(host.sql(text, [schema, table]))


def _is_schema(host: Host, name: str) -> bool:
    text = "SELECT 1 FROM duckdb_schemas() WHERE NOT internal AND lower(schema_name) = ?"
    return bool(host.sql(text, [name]))
