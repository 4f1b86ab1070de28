"""The names that clients of a server know: `patents.public.patents`, the schema `jammi`, and `"jammi.NAME"`.

Each source is also a catalog with one schema `public`, and each embedding table is a view in the schema `jammi`, and
one whose single name begins with `jammi.`. All of that is in memory, beside the database.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import duckdb

from jammi_duck.config.logs import log
from jammi_duck.sql import Sql, folded, literal, quoted, sql
from jammi_duck.types import Host
from jammi_duck.udfs.sources import SearchPath, resolve

# The schema of embedding tables, and that of views whose names begin with it.
TABLES, DOTTED = "jammi", "names"
_BESIDE = "jammi_server"
_MOST_SOURCES = 1_000
_DATABASES = sql("SELECT database_name FROM duckdb_databases()")
_SOURCES = sql(
    "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'main' "
    "UNION ALL SELECT view_name FROM duckdb_views() WHERE database_name = ? AND schema_name = 'main' AND NOT internal "
    "ORDER BY 1 ASC"
)
# Where the engine has its views over embedding tables; see `storage.tables.views`.
_EMBEDDED = sql(
    "SELECT database_name, schema_name, view_name FROM duckdb_views() WHERE contains(view_name, '__embedding__') "
    "AND contains(sql, 'read_parquet') AND NOT (database_name = ? AND schema_name IN ({}, {}))",
    literal(TABLES),
    literal(DOTTED),
)


class Names:
    """Views in memory, for the names that are known elsewhere."""

    def __init__(self, host: Host) -> None:
        """Beside the main database of this host."""
        self._host = host
        self.home = host.home()
        # DuckDB has no database that is called as the schema.
        self._taken = {"main", *(folded(name) for (name,) in host.sql(_DATABASES))}
        self.beside = _BESIDE if _BESIDE not in self._taken else f"{_BESIDE}_{secrets.token_hex(4)}"
        self._attach(self.beside)
        for schema in (TABLES, DOTTED):
            host.sql(sql("CREATE SCHEMA {}.{}", quoted(self.beside), quoted(schema)))
        self._embedded: set[str] = set()
        self.sources: tuple[str, ...] = ()
        self._catalogs: list[str] = []

    def _attach(self, name: str) -> None:
        self._host.sql(sql("ATTACH ':memory:' AS {} (READ_WRITE)", quoted(name)))
        self._taken.add(folded(name))

    @property
    def search_path(self) -> str:
        """Where an unqualified name is looked for: in the database, then among names that begin with `jammi.`."""
        return f"{quoted(self.home)}.main,{quoted(self.beside)}.{quoted(DOTTED)}"

    def add_sources(self) -> None:
        """Make each source of the main schema a catalog, if no database has its name."""
        found = [name for (name,) in self._host.sql(_SOURCES, [self.home, self.home])]
        for name in found[:_MOST_SOURCES]:
            if folded(name) in self._taken:
                log.info("no catalog '%s' for the source of that name: a database is called so", name)
                continue
            self._attach(name)
            self._host.sql(sql("CREATE SCHEMA {}.public", quoted(name)))
            source = sql("{}.main.{}", quoted(self.home), quoted(name))
            try:
                self._host.sql(sql("CREATE VIEW {0}.public.{0} AS FROM {1}", quoted(name), source))
            except duckdb.Error as error:
                # A view that searches, or over files that are gone.
                log.info("no catalog '%s' for the source of that name: %s", name, error)
                self._host.sql(sql("DETACH {}", quoted(name)))
                continue
            self._catalogs.append(name)
        self.sources = tuple(found)

    def stand_ins(self, databases: Mapping[str, str | None]) -> dict[str, str]:
        """For the view in each catalog what it is known by, and what the source is known by for which it stands."""
        path = SearchPath(self.home, "main")

        def identity(name: Sql) -> str:
            return resolve(name, path, self._host, databases).candidates[0].identity

        return {identity(sql("{0}.public.{0}", quoted(name))): identity(quoted(name)) for name in self._catalogs}

    def follow(self) -> bool:
        """Add views for embedding tables that are new, and remove those of tables that are gone; whether any were."""
        now: dict[str, Sql] = {}
        for database, schema, view in self._host.sql(_EMBEDDED, [self.beside]):
            now[view] = sql("{}.{}.{}", quoted(database), quoted(schema), quoted(view))
        for name in sorted(self._embedded - set(now)):
            for view in self._views(name):
                self._host.sql(sql("DROP VIEW IF EXISTS {}", view))
        for name in sorted(set(now) - self._embedded):
            for view in self._views(name):
                self._host.sql(sql("CREATE OR REPLACE VIEW {} AS FROM {}", view, now[name]))
        has_changed = self._embedded != set(now)
        self._embedded = set(now)
        return has_changed

    def _views(self, name: str) -> tuple[Sql, ...]:
        beside = quoted(self.beside)
        return (
            sql("{}.{}.{}", beside, quoted(TABLES), quoted(name)),
            sql("{}.{}.{}", beside, quoted(DOTTED), quoted(f"{TABLES}.{name}")),
        )
