"""What a source is called: by its name as DuckDB resolves it, without the database, case-insensitively."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from jammi_duck.errors import InputError
from jammi_duck.redaction import public_url
from jammi_duck.types import Host

_FILE = re.compile(r".*\.(parquet|csv|tsv|txt|json|jsonl|ndjson|xlsx|arrow|feather)(\.(gz|zst|bz2))?", re.IGNORECASE)
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_NAME = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern})){{0,2}}")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def source_id(source: str, schemas: Sequence[str], host: Host) -> str:
    """The one name of a source, however it was written.

    `schemas` are those of the caller's search path. A file path is itself; a URL loses its user and its query string,
    which may be secrets. `patents`, `Main.Patents` and `db.main.patents` are `patents`; another schema stands before
    the name.

    Raises:
        InputError: the name is empty, or is not one that DuckDB could read.
    """
    if _is_file(source, host):
        return public_url(source)
    if folded(source).startswith("_jammi_"):
        raise InputError(f"'{source}' is a name of jammi_duck's own; give it another, such as that of a view")
    parts = [folded(part) for part in name_parts(source)]
    if len(parts) == 1:
        space = next((s for s in map(folded, schemas) if s != "main" and _has(host, s, parts[0])), "main")
    elif len(parts) == 2:
        is_database = _exists(host, "databases", parts[0]) and not _exists(host, "schemas", parts[0])
        space = "main" if is_database else parts[0]
    else:
        space = parts[1]
    names = [parts[-1]] if space == "main" else [space, parts[-1]]
    return ".".join(f'"{name}"' if "." in name else name for name in names)


def folded(name: str) -> str:
    """A name as DuckDB compares it: ASCII letters in lower case, others as they are."""
    return name.translate(_LOWER)


def _is_file(source: str, host: Host) -> bool:
    if source.startswith('"'):
        return False
    if any(mark in source for mark in "/\\*"):
        return True
    first = folded(source.split(".", 1)[0])
    known = ("schemas", "databases")
    return _FILE.fullmatch(source) is not None and not any(_exists(host, kind, first) for kind in known)


def name_parts(source: str) -> list[str]:
    """The parts of a name as SQL has it: `a."b.c"` is `a` and `b.c`. Raises InputError where it is none."""
    if not _NAME.fullmatch(source):
        raise InputError(f"'{source}' names no table, view or file; write table, schema.table, or a path")
    parts = _PART.findall(source)
    return [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts]


def _has(host: Host, schema: str, table: str) -> bool:
    text = (
        "SELECT 1 FROM (SELECT schema_name, table_name FROM duckdb_tables() "
        "UNION ALL SELECT schema_name, view_name FROM duckdb_views()) "
        "WHERE lower(schema_name) = ? AND lower(table_name) = ?"
    )
    return bool(host.sql(text, [schema, table]))


def _exists(host: Host, kind: str, name: str) -> bool:
    """Whether there is one of the `schemas`, or of the `databases`, of this name."""
    text = f"SELECT 1 FROM duckdb_{kind}() WHERE (NOT internal OR ? = 'main') AND lower({kind[:-1]}_name) = ?"
    return bool(host.sql(text, [name, name]))
