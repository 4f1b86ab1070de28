"""Looks up a database's tables, views and macros, and which functions are still DuckDB's own."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from jammi_duck.sql import Template, folded, folded_sql, joined, literal, sql, template
from jammi_duck.types import Host
from jammi_duck.udfs.filters.allowed import NAMES

_SIGNATURES = sql("""
    SELECT function_name, md5(string_agg(signature, ';' ORDER BY hash(signature) ASC)) FROM (
        SELECT function_name, concat_ws('|', parameter_types::VARCHAR, varargs, return_type) AS signature,
            coalesce(has_side_effects, false) OR coalesce(stability, '') = 'VOLATILE' AS acts
        FROM duckdb_functions() WHERE database_name = 'system' AND schema_name = 'main'
            AND function_type IN ('scalar', 'aggregate', 'window')
    ) GROUP BY function_name HAVING NOT bool_or(acts)
""")
# Each with the names that are looked for, which are folded.
_VIEWS = template(
    "SELECT database_name, schema_name, view_name, sql, internal FROM duckdb_views() "
    "WHERE {folded} IN ({names}) AND database_name <> 'temp' ORDER BY ALL",
    folded=folded_sql(sql("view_name")),
)
_TABLES = template(
    "SELECT database_name, schema_name, table_name FROM duckdb_tables() "
    "WHERE {folded} IN ({names}) AND database_name <> 'temp' ORDER BY ALL",
    folded=folded_sql(sql("table_name")),
)
_MACROS = template(
    "SELECT database_name, schema_name, function_name, function_type, to_json(parameters)::VARCHAR, "
    "to_json(parameter_types)::VARCHAR, macro_definition FROM duckdb_functions() "
    "WHERE macro_definition IS NOT NULL AND {folded} IN ({names}) AND database_name <> 'temp' ORDER BY ALL",
    folded=folded_sql(sql("function_name")),
)
_TYPES = template(
    "SELECT DISTINCT database_name, type_name FROM duckdb_types() WHERE {folded} IN ({names})",
    folded=folded_sql(sql("type_name")),
)
_COLLATIONS = sql("SELECT collname FROM pragma_collations()")
# A Python function may be added to one of DuckDB's by the same name; that is looked for this often.
_SECONDS = 1.0
_HEAD = re.compile(
    r'CREATE (?:OR REPLACE )?(?:TEMP(?:ORARY)? )?VIEW (?:IF NOT EXISTS )?(?:"(?:[^"]|"")*"|[^\s("])+'
    r'(?: \((?P<columns>(?:"(?:[^"]|"")*"|[^()"])*)\))? AS\s*(?P<query>.*?);?\s*',
    re.DOTALL | re.IGNORECASE,
)
_COLUMN = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
_Rows: TypeAlias = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class View:
    """A view that everybody sees: where it is, its names for its columns, and its query."""

    database: str
    schema: str
    name: str
    columns: tuple[str, ...]
    query: str
    internal: bool


@dataclass(frozen=True)
class Macro:
    """One definition of a macro that everybody sees."""

    database: str
    schema: str
    name: str
    is_table: bool
    parameters: tuple[str, ...]
    types: tuple[str | None, ...]
    body: str


class DatabaseObjects:
    """What was looked up for one decision, which holds for as long as the same is found again."""

    def __init__(self, host: Host) -> None:
        """Looks things up by `host`, each name once."""
        self._host = host
        self._tables: _Rows = {}
        self._views: _Rows = {}
        self._macros: _Rows = {}
        self._types: _Rows = {}
        self._functions: set[str] = set()
        self._subscripts: list[tuple[str, str, str]] | None = None
        self._collations: set[str] = set()

    def tables(self, name: str) -> list[tuple[str, str]]:
        """The databases and schemas, folded, that have a table of this name, which is folded."""
        if name not in self._tables:
            self._tables[name] = self._found(_TABLES, [name])
        return [(folded(database), folded(schema)) for database, schema, _ in self._tables[name]]

    def views(self, name: str) -> list[View]:
        """The views of this name, which is folded, in every database and schema."""
        if name not in self._views:
            self._views[name] = self._found(_VIEWS, [name])
        return [_view(*row) for row in self._views[name]]

    def macros(self, name: str) -> list[Macro]:
        """The macros of this name, which is folded, DuckDB's own included."""
        if name not in self._macros:
            self._macros[name] = self._found(_MACROS, [name])
        return [
            Macro(database, schema, each, kind == "table_macro", tuple(json.loads(names)), _types(names, types), body)
            for database, schema, each, kind, names, types, body in self._macros[name]
        ]

    def harmless(self, name: str) -> bool:
        """Whether this is a function of DuckDB's that does nothing but give a value."""
        if name not in as_duckdb_has_them(self._host):
            return False
        self._functions.add(name)
        return True

    def subscript_macros(self) -> list[tuple[str, str, str]]:
        """The macros that DuckDB would call for `values['name']`: their databases, schemas and names."""
        self._subscripts = subscript_macros(self._host)
        return self._subscripts

    def has_type(self, name: str) -> bool:
        """Whether there is a type of this name, which is folded, in any database and schema."""
        if name not in self._types:
            self._types[name] = self._found(_TYPES, [name])
        return bool(self._types[name])

    def has_collation(self, name: str) -> bool:
        """Whether DuckDB has a collation of this name."""
        if not self._collations:
            self._collations = {folded(each) for (each,) in self._host.sql(_COLLATIONS)}
        return folded(name) in self._collations

    def hold(self) -> bool:
        """Whether everything that was looked up is still as it was."""
        if self._subscripts is not None and self._subscripts != subscript_macros(self._host):
            return False
        may_change = ((_MACROS, _users(self._macros)), (_TYPES, _users(self._types)))
        looked = ((_TABLES, self._tables), (_VIEWS, self._views), *may_change)
        return self._functions <= as_duckdb_has_them(self._host) and all(
            self._found(text, sorted(names)) == sorted(row for rows in names.values() for row in rows)
            for text, names in looked
            if names
        )

    def _found(self, text: Template, names: Sequence[str]) -> list[tuple[Any, ...]]:
        return self._host.sql(text(names=joined(", ", map(literal, names))))


def _users(rows: _Rows) -> _Rows:
    """What was looked up and is not DuckDB's own, which stays."""
    return {name: found for name, found in rows.items() if not any(row[0] == "system" for row in found)}


def _types(names: str, types: str | None) -> tuple[str | None, ...]:
    """The types of a macro's parameters, where they have one; DuckDB 1.4 does not tell."""
    found = json.loads(types) if types else []
    return tuple(found) if len(found) == len(json.loads(names)) else (None,) * len(json.loads(names))


# What DuckDB calls by its bare name for `values['name']`.
_SUBSCRIPTS = ("array_extract", "map_extract", "map_extract_value", "struct_extract")
_ATTACHED = sql("SELECT database_name, database_oid FROM duckdb_databases() WHERE NOT internal ORDER BY ALL")
_subscripts: WeakKeyDictionary[Host, tuple[float, list[tuple[Any, ...]], list[tuple[Any, ...]]]] = WeakKeyDictionary()


def subscript_macros(host: Host) -> list[tuple[str, str, str]]:
    """The macros that DuckDB would call for `values['name']`: their databases, schemas and names.

    To look through all functions takes longer than a search. So a new one is seen within a second, and at once where
    a database was attached since.
    """
    attached = host.sql(_ATTACHED)
    looked, then, macros = _subscripts.get(host, (0.0, [], []))
    if not looked or then != attached or time.monotonic() - looked >= _SECONDS:
        found = host.sql(_MACROS(names=joined(", ", map(literal, _SUBSCRIPTS))))
        macros = [row[:3] for row in found if row[0] != "system"]
        _subscripts[host] = time.monotonic(), attached, macros
    return [(str(database), str(schema), str(name)) for database, schema, name in macros]


_known: WeakKeyDictionary[Host, tuple[float, frozenset[str]]] = WeakKeyDictionary()
_untouched: dict[str, str] = {}


def as_duckdb_has_them(host: Host) -> frozenset[str]:
    """The functions that are known to be harmless, and that nobody has added a definition to."""
    looked, names = _known.get(host, (0.0, frozenset()))
    if looked and time.monotonic() - looked < _SECONDS:
        return names
    if not _untouched:
        _untouched.update(host.untouched(_SIGNATURES))
    now = dict(host.sql(_SIGNATURES))
    names = frozenset(name for name in NAMES if name in now and now[name] == _untouched.get(name))
    _known[host] = time.monotonic(), names
    return names


def query_of_view(text: str) -> str | None:
    """The query of a view, from the statement that makes it as DuckDB shows it; None if that is not understood."""
    head = _HEAD.fullmatch(text)
    return None if head is None else head["query"]


def _view(database: str, schema: str, name: str, text: str, internal: bool) -> View:
    head = _HEAD.fullmatch(text)
    if head is None:
        return View(database, schema, name, (), "", internal)
    columns = [a.replace('""', '"') or b for a, b in _COLUMN.findall(head["columns"] or "")]
    return View(database, schema, name, tuple(columns), head["query"], internal)
