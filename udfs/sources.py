"""What a source is: how its name is read in the caller's own query, and the one name by which its embeddings are known.

DuckDB takes a name for a CTE, then for a TEMP table, then for a table of the search path, then for a variable of Python
or a file. What is settled here while a query is bound is looked at again when it runs: `udfs/disambiguation.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jammi_duck.config.redaction import public_url
from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, folded, joined, quoted, sql
from jammi_duck.storage.tables.catalog import SCHEMA
from jammi_duck.types import Host

_FILE = re.compile(r".*\.(parquet|csv|tsv|txt|json|jsonl|ndjson|xlsx|arrow|feather)(\.(gz|zst|bz2))?", re.IGNORECASE)
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_NAME = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern})){{0,2}}")
_PLAIN = re.compile(r"[^\"./\\:]+")
_SYSTEM_SCHEMAS = ("information_schema", "pg_catalog")

_DATABASES = sql("SELECT database_name, path FROM duckdb_databases() WHERE NOT internal")
RELATIONS = sql(
    "(SELECT database_name, schema_name, table_name AS name FROM duckdb_tables() "
    "UNION ALL SELECT database_name, schema_name, view_name FROM duckdb_views())"
)


@dataclass(frozen=True)
class Relation:
    """A table or a view, in lower case: the name of its database here, its schema, its own name."""

    database: str
    schema: str
    name: str

    @property
    def sql(self) -> Sql:
        """As it stands in a query, whatever the search path is."""
        return joined(".", map(quoted, (self.database, self.schema, self.name)))


@dataclass(frozen=True)
class SourceCandidate:
    """Something that a source may be, and `identity`, by which its embeddings are known.

    `relation` is the table or view that it is then; None for a file, and for what only the caller's session has.
    """

    identity: str
    relation: Relation | None = None


@dataclass(frozen=True)
class Source:
    """What a user's text may name.

    `written` is how the user calls it, without what may be secret. `sql` stands behind FROM in the user's own query.
    `alias` is what a filter may call its rows. `candidates` are in the order in which DuckDB looks. `session`
    is a TEMP table or view, a registered object, a CTE or a variable of Python of this name, where it may be one.
    `legacy` is what earlier versions called it, where no other is called so.
    """

    written: str
    sql: Sql
    alias: str
    candidates: tuple[SourceCandidate, ...]
    session: SourceCandidate | None = None
    legacy: tuple[SourceCandidate, ...] = ()

    @property
    def relations(self) -> list[Relation]:
        """The tables and views that it may be, in the order in which DuckDB looks."""
        return [each.relation for each in self.candidates if each.relation]

    @property
    def all_candidates(self) -> tuple[SourceCandidate, ...]:
        """All that it may be: what the session alone has is last."""
        return self.candidates if self.session is None else (*self.candidates, self.session)

    @property
    def is_file(self) -> bool:
        """Whether it is a file, or files."""
        return self.session is None and self.candidates[0].relation is None


@dataclass(frozen=True)
class SearchPath:
    """By what a caller's names are resolved: the current database, and DuckDB's setting `search_path` as a text."""

    database: str
    setting: str


def resolve(
    written: str | None, search_path: SearchPath, host: Host, databases: Mapping[str, str | None] | None = None
) -> Source:
    """What a name or a path means to a caller with this search path.

    `databases` are what `attached` gives, where that is known.

    Raises:
        InputError: it is NULL or empty, is not a name that DuckDB could read, or is both a table's and a file's.
    """
    if written is None:
        raise InputError("the source is NULL; name a table, a view or a file")
    if folded(written).startswith("_jammi_"):
        raise InputError(f"'{written}' is a name of jammi_duck's own; give it another, such as that of a view")
    if _looks_like_file(written):
        source = _file(written, host.directory())
        if "/" in written or "\\" in written or not _NAME.fullmatch(written):
            return source
        table = _table(written, search_path, host, databases)
        if not _present(table, host):
            return source
        if not os.path.exists(os.path.join(host.directory(), written)):
            return table
        name = ".".join(quoted(part) for part in name_parts(written))
        raise InputError(f"'{written}' is a file and a table: write ./{written} for the file, or {name} for the table")
    table = _table(written, search_path, host, databases)
    is_file = written.startswith('"') and _PART.fullmatch(written) and _names_file(table.alias, host.directory())
    return _file(table.alias, host.directory()) if is_file and not _present(table, host) else table


def name_parts(source: str) -> list[str]:
    """The parts of a name as SQL has it: `a."b.c"` is `a` and `b.c`. Raises InputError where it is none."""
    if not _NAME.fullmatch(source):
        raise InputError(f"'{source}' names no table, view or file; write table, schema.table, or a path")
    parts = _PART.findall(source)
    return [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in parts]


def found(relations: Sequence[Relation], host: Host) -> list[Relation]:
    """Those of the tables and views that are there, as far as they are committed, in the order given."""
    if not relations:
        return []
    text = sql("SELECT * FROM {} WHERE lower(name) = lower(?)", RELATIONS)
    rows = host.sql(text, [relations[0].name])
    there = {Relation(*map(folded, row)) for row in rows}
    return [relation for relation in relations if relation in there]


def has_relations(host: Host) -> bool:
    """Whether the database has any table or view of its user's, as far as they are committed."""
    text = sql("SELECT 1 FROM {} WHERE database_name = current_database() AND schema_name <> ? LIMIT 1", RELATIONS)
    return bool(host.sql(text, [SCHEMA]))


def schemas_of(search_path: SearchPath) -> list[str]:
    """The schemas of a caller's search path."""
    return [schema for _, schema in _entries(search_path.setting, search_path.database)] or ["main"]


def shown(identity: str, host: Host) -> str:
    """What a source is known by, as it is shown: a file of the directory one is in, without that."""
    return identity.removeprefix(os.path.join(os.path.realpath(host.directory()), "")) or identity


def still_there(identity: str, host: Host) -> bool:
    """Whether what embeddings are known by is there now: a committed table or view, or a file on this machine."""
    if os.path.isabs(identity):
        return os.path.exists(identity)
    if not _NAME.fullmatch(identity) or identity.startswith("temp."):
        return False
    parts = name_parts(identity)
    if len(parts) < 3:
        database, schema, name = host.home(), *["main", *parts][-2:]
    else:
        database, schema, name = parts
        database = _by_path(attached(host)).get(database, database)
    return bool(found([Relation(folded(database), folded(schema), folded(name))], host))


def _looks_like_file(written: str) -> bool:
    if written.startswith('"'):
        return False
    return any(mark in written for mark in "/\\*") or _FILE.fullmatch(written) is not None


def _names_file(name: str, directory: str) -> bool:
    """Whether DuckDB takes a quoted name for a file, or for files, where there is no such table."""
    if _FILE.fullmatch(name) is None:
        return False
    return "://" in name or any(mark in name for mark in "*?[") or os.path.exists(os.path.join(directory, name))


def _file(written: str, directory: str) -> Source:
    """A file is known by where it is: with the links of its folder resolved, but not its own."""
    name = re.split(r"[/\\]", public_url(written))[-1]
    alias = name.split(".")[0] or "_jammi_source"
    if "://" in written and not written.startswith("file://"):
        return Source(public_url(written), quoted(written), alias, (SourceCandidate(public_url(written)),))
    path = re.sub(r"^file://(localhost)?(?=/)", "", written)
    folder, name = os.path.split(os.path.join(directory, os.path.expanduser(path)))
    identity = os.path.join(os.path.realpath(folder), name)
    # Of a name without a folder, DuckDB would think of tables first.
    read = quoted(written if "/" in written or "\\" in written else f"./{written}")
    return Source(
        written,
        read,
        alias,
        (SourceCandidate(identity),),
        legacy=(SourceCandidate(written),) if written != identity else (),
    )


def _table(written: str, search_path: SearchPath, host: Host, known: Mapping[str, str | None] | None) -> Source:
    parts = name_parts(written)
    home, current = folded(host.home()), folded(search_path.database)
    schemas = [*_entries(search_path.setting, current), (current, "main")]
    databases: Mapping[str, str | None] = {home: None}
    first = folded(parts[0]) if len(parts) > 1 else home
    if {first, *(database for database, _ in schemas)} - {home, "main", "temp"}:
        databases = known or attached(host)
    relations = list(dict.fromkeys(_relations(list(map(folded, parts)), parts[0], schemas, databases)))
    name = folded(parts[-1])
    session = SourceCandidate(f"temp.{_part(name)}") if _may_be_temp(parts) else None
    candidates = [SourceCandidate(_identity(each, home, databases), each) for each in relations]
    legacy = [SourceCandidate(_identity(each, each.database, {}), each) for each in relations if each.database != home]
    if len(parts) == 1 and legacy:
        legacy.append(SourceCandidate(_part(name), Relation(home, "main", name)))
    named = relations[0].sql if len(parts) == 3 and relations else joined(".", map(quoted, parts))
    return Source(written, named, parts[-1], tuple(candidates), session, tuple(legacy))


def _relations(
    parts: Sequence[str], first: str, schemas: Sequence[tuple[str, str]], databases: Mapping[str, str | None]
) -> Iterator[Relation]:
    """What a name may be among tables and views, in DuckDB's order, and perhaps more, which does no harm."""
    name = parts[-1]
    if len(parts) == 3:
        yield Relation(_by_path(databases).get(first, parts[0]), parts[1], name)
    elif len(parts) == 1:
        yield from (Relation(database, schema, name) for database, schema in schemas if database != "temp")
    elif parts[0] != "temp":
        if parts[0] in databases:
            inside = [schema for database, schema in schemas if database == parts[0]]
            yield from (Relation(parts[0], schema, name) for schema in (*inside, "main"))
        yield from (Relation(database, parts[0], name) for database, _ in schemas if database != "temp")
        if parts[0] in _SYSTEM_SCHEMAS:
            yield Relation("system", parts[0], name)


def _may_be_temp(parts: Sequence[str]) -> bool:
    """Whether a name may be of what only the session has, whose schema is called `main`, too."""
    before = tuple(map(folded, parts[:-1]))
    return before in ((), ("main",), ("temp",), ("temp", "main"))


def _identity(relation: Relation, home: str, databases: Mapping[str, str | None]) -> str:
    """The database's own tables are known without it, since its file may get another name.

    Another database is known by its file, which may be attached under any name, or else by its name.
    """
    schema, name = _part(relation.schema), _part(relation.name)
    if relation.database in (home, "system"):
        # Not what a TEMP table is known by.
        schema = '"temp"' if schema == "temp" else schema
        return name if schema == "main" else f"{schema}.{name}"
    path = databases.get(relation.database)
    return f"{_part(public_url(path) if path else relation.database)}.{schema}.{name}"


def _part(name: str) -> str:
    """A part of an identity. Of those that are old, only a dot was ever quoted."""
    if "." not in name and "/" not in name:
        return name
    return f'"{name}"' if '"' not in name else quoted(name)


def _entries(text: str, current: str) -> list[tuple[str, str]]:
    """The databases and schemas of DuckDB's setting `search_path`."""
    found = []
    for entry in re.findall(r'(?:"(?:[^"]|"")*"|[^",])+', text):
        *database, schema = map(folded, name_parts(entry.strip()))
        found.append((database[0] if database else current, schema))
    return found


def attached(host: Host) -> dict[str, str | None]:
    """The attached databases and their files."""
    return {folded(name): path for name, path in host.sql(_DATABASES)}


def _by_path(databases: Mapping[str, str | None]) -> dict[str, str]:
    """The names of databases by their files."""
    return {public_url(path): name for name, path in databases.items() if path}


def _present(source: Source, host: Host) -> bool:
    return bool(found(source.relations, host))
