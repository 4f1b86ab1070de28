"""What a token sees that is limited to some sources: those, their embedding tables, and nothing of the others.

A statement is allowed only if every table, function and option in its parsed tree is known to be harmless. What lists
tables is narrowed to those that are granted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import duckdb

from jammi_duck.doors.server.syntax import cte_names, tree_of
from jammi_duck.errors import DeniedError, InputError
from jammi_duck.sql import Sql, folded, joined, literal, sql
from jammi_duck.udfs.filters.trees import Tree, arguments_of, is_null, text_of_constant, types_in
from jammi_duck.udfs.sources import name_parts

# Of each of our table functions, how many of the first arguments are sources, and how many may stand without names.
_OURS = {
    "jammi_search": (1, 3), "jammi_similar": (1, 3), "jammi_matches": (1, 3), "jammi_explain": (1, 3),
    "jammi_status": (1, 1), "jammi_check": (1, 2), "jammi_eval": (3, 4), "jammi_eval_queries": (3, 4),
    "jammi_tune": (3, 4), "jammi_search_column": (1, 4), "jammi_passages": (1, 1),
}  # fmt: skip
# Options that name nothing.
_OPTIONS = {
    "k", "model", "exact", "min_similarity", "parameters", "mode", "weight", "fusion", "k1", "b", "rerank", "rerank_k",
    "per_row", "fresh", "fresh_rows", "key", "metric", "question_columns", "judgement_columns", "column",
}  # fmt: skip
_HARMLESS_TABLES = {"range", "generate_series", "unnest"}
# Where files are is nothing that it may read.
_NOWHERE = sql("* REPLACE (NULL::VARCHAR AS location)")
_HARMLESS = {"embed", "jammi_snippet", "jammi_split"}
_INFORMATION = "information_schema"
# The views of the information schema that are narrowed, each with its columns for the catalog, the schema and the name.
_NARROWED = {
    "tables": ("table_catalog", "table_schema", "table_name"),
    "columns": ("table_catalog", "table_schema", "table_name"),
    "views": ("table_catalog", "table_schema", "table_name"),
    "schemata": ("catalog_name", "schema_name", None),
}
_WRITTEN = sql("SELECT json_deserialize_sql(?::JSON)")
# Those that look into the catalog are macros with a query.
_BUILT_IN = sql(
    "SELECT DISTINCT function_name FROM duckdb_functions() WHERE internal AND (function_type IN ('scalar', "
    "'aggregate', 'window') OR function_type = 'macro' AND NOT contains(lower(macro_definition), 'select'))"
)
_TYPES = sql("SELECT type_name FROM duckdb_types() UNION SELECT logical_type FROM duckdb_types()")
_TELLING = ("pg_", "has_", "current_setting", "getvariable", "in_search_path")


@dataclass(frozen=True)
class Granted:
    """The names, folded, by which a token reaches tables: as catalog, schema and name, and those that stand alone.

    `others` are the names of other tables, and `macros` those of the database's macros, which may read any.
    """

    sources: frozenset[str]
    embedded: frozenset[str]
    tables: frozenset[tuple[str, str, str]]
    others: frozenset[str]
    macros: frozenset[str]

    def has(self, catalog: str, schema: str, name: str) -> bool:
        """Whether a table of this full name may be seen."""
        return (folded(catalog), folded(schema), folded(name)) in self.tables


def granted(
    home: str,
    beside: str,
    sources: Collection[str],
    embedded: Collection[str],
    known: Collection[str],
    macros: Collection[str],
) -> Granted:
    """What these sources of the database `home` grant.

    `embedded` are their embedding tables, `known` the names of all tables that there are, `macros` those of the
    database's macros, and `beside` the database in memory that has the names of embedding tables.
    """
    own = {folded(name) for name in sources}
    tables = {(folded(home), "main", name) for name in own} | {(name, "public", name) for name in own}
    theirs = {folded(name) for name in embedded}
    tables |= {(folded(beside), "jammi", name) for name in theirs} | {("jammi", "main", name) for name in theirs}
    reached = own | theirs | {f"jammi.{name}" for name in theirs}
    others = {folded(name) for name in known} - reached
    return Granted(
        frozenset(own), frozenset(theirs), frozenset(tables), frozenset(others), frozenset(map(folded, macros))
    )


@dataclass(frozen=True)
class Later:
    """A parameter whose value names something: the source, the filter or the embedding table of a function."""

    parameter: str
    function: str
    of: str


class Narrowing:
    """Checks a statement for what is granted, and narrows what lists tables."""

    def __init__(self, grant: Granted, home: str, parser: duckdb.DuckDBPyConnection) -> None:
        """`parser` is an empty database, which only parses."""
        self._grant = grant
        self._home = folded(home)
        self._parser = parser
        self._ctes: set[str] = set()
        self._later: list[Later] = []
        self._functions, self._types = _built_in(parser, _BUILT_IN), _built_in(parser, _TYPES)

    def narrowed(self, text: str) -> tuple[str, tuple[Later, ...]]:
        """The statement, which reads only what is granted, and what is to be checked of its parameters.

        Raises:
            DeniedError: it names something else, or something of which that is not known.
        """
        tree = self._tree(text)
        self._later = []
        self._ctes = {folded(name) for name in cte_names(tree)}
        hidden = self._ctes & self._grant.others
        if hidden:
            raise DeniedError(f"the name '{min(hidden)}' cannot be given to a part of the query: choose another")
        strange = {folded(name) for name in types_in(tree)} - self._types
        if strange:
            raise DeniedError(f"this token has no type '{min(strange)}'")
        try:
            checked = json.dumps(self._checked(tree))
        except RecursionError:
            raise InputError("the statement is nested too deeply") from None
        ((written,),) = self._parser.execute(_WRITTEN, [checked]).fetchall()
        return str(written), tuple(self._later)

    def check(self, later: Later, value: object) -> None:
        """Check the value of a parameter. Raises DeniedError where it names something else."""
        if value is None:
            return
        if not isinstance(value, str):
            raise DeniedError(f"with this token, the {later.of} of {later.function} must be a text")
        self._named(later.function, later.of, value)

    def _tree(self, text: str) -> Tree:
        tree = tree_of(text, self._parser)
        if tree.get("error"):
            raise DeniedError(f"this token may send queries, and this is none: {tree.get('error_message')}")
        return tree

    def _checked(self, node: Tree) -> Tree:
        """A tree in which every part is allowed."""
        if isinstance(node, list):
            return [self._checked(each) for each in node]
        if not isinstance(node, dict):
            return node
        kind = node.get("type")
        if kind == "BASE_TABLE":
            return self._table(node)
        if kind == "SHOW_REF" and not node.get("query"):
            raise DeniedError(
                "this token cannot SHOW tables: SELECT * FROM information_schema.tables lists those it may see"
            )
        if kind == "TABLE_FUNCTION":
            replaced = self._table_function(node)
            if replaced is not None:
                return replaced
            # Its name has been looked at, and is none of a scalar function.
            function = {key: self._checked(value) for key, value in node["function"].items()}
            return {key: function if key == "function" else self._checked(value) for key, value in node.items()}
        if "function_name" in node:
            self._function(node)
        return {key: self._checked(value) for key, value in node.items()}

    def _table(self, node: Tree) -> Tree:
        catalog, schema, name = (str(node.get(key) or "") for key in ("catalog_name", "schema_name", "table_name"))
        low = folded(name)
        if not catalog and not schema:
            if low in self._ctes or low in self._grant.sources or low.removeprefix("jammi.") in self._grant.embedded:
                return node
        elif folded(schema) == _INFORMATION and folded(catalog) in ("", self._home, "system") and low in _NARROWED:
            return self._listing(node, low)
        elif any(self._grant.has(*full, name) for full in self._places(catalog, schema)):
            return node
        raise DeniedError(f"this token has no table '{'.'.join(filter(None, (catalog, schema, name)))}'")

    def _places(self, catalog: str, schema: str) -> Iterator[tuple[str, str]]:
        if catalog:
            yield catalog, schema
        else:
            # One name before the table's is a schema, or a database.
            yield self._home, schema
            yield schema, "main"

    def _listing(self, node: Tree, view: str) -> Tree:
        catalog, schema, name = _NARROWED[view]
        allowed = sorted(self._grant.tables)
        if name is None:
            pairs = sorted({(a, b) for a, b, _ in allowed})
            condition = _is_one_of([catalog, schema], pairs)
        else:
            condition = _is_one_of([catalog, schema, name], allowed)
        text = sql("SELECT * FROM (SELECT * FROM information_schema.{} WHERE {}) AS x", Sql(view), condition)
        return self._in_place_of(node, view, text)

    def _in_place_of(self, node: Tree, name: str, text: Sql) -> Tree:
        """A sub-query where a table stands, by the table's name in the query."""
        inner = self._tree(text)["statements"][0]["node"]["from_table"]
        return {**inner, "alias": node.get("alias") or name}

    def _table_function(self, node: Tree) -> Tree | None:
        """Check a table function; what to put in its place, or None where it may stay."""
        call = node["function"]
        name = str(call.get("function_name", "")).lower()
        self._refuse_qualified(call, name)
        if name == "jammi_models" and not arguments_of(call):
            return self._in_place_of(node, name, sql("SELECT * FROM (SELECT {} FROM jammi_models()) AS x", _NOWHERE))
        if name == "jammi_tables" and not arguments_of(call):
            sources = joined(", ", map(literal, sorted(self._grant.sources)))
            condition = sql("lower(source) IN ({})", sources) if self._grant.sources else sql("false")
            inner = sql("SELECT {} FROM jammi_tables() WHERE {}", _NOWHERE, condition)
            return self._in_place_of(node, name, sql("SELECT * FROM ({}) AS x", inner))
        if name in _HARMLESS_TABLES:
            return None
        if name not in _OURS:
            raise DeniedError(f"this token cannot call {name}")
        own, most = _OURS[name]
        for i, (option, value) in enumerate(arguments_of(call)):
            if value.get("type") == "COMPARE_EQUAL":
                raise DeniedError(f"with this token, {name} takes its options by :=")
            if not option:
                if i >= most:
                    raise DeniedError(f"with this token, {name} takes {most} arguments, and then options by :=")
                if i < own:
                    self._text(name, "source", value)
            elif i < own:
                raise DeniedError(f"with this token, {name} takes its sources first, without names")
            else:
                self._option(name, option.lower(), value)
        return None

    def _option(self, function: str, option: str, value: Tree) -> None:
        if option in ("embedding_table", "filter"):
            if not is_null(value):
                self._text(function, option, value)
        elif option not in _OPTIONS:
            raise DeniedError(f"with this token, {function} has no option {option}")

    def _text(self, function: str, of: str, value: Tree) -> None:
        """Check an argument that names something: now, or once its parameter has a value."""
        written = text_of_constant(value)
        if written is not None:
            self._named(function, of, written)
        elif value.get("class") == "PARAMETER":
            self._later.append(Later(str(value["identifier"]), function, of))
        else:
            raise DeniedError(f"with this token, {function} needs its {of} as a text or a parameter, and no expression")

    def _named(self, function: str, of: str, written: str) -> None:
        if of == "filter":
            self._checked(self._tree(f"SELECT 1 WHERE ({written}\n)"))
        elif of == "embedding_table":
            if folded(written) not in self._grant.embedded:
                raise DeniedError(f"this token has no embedding table '{written}'")
        else:
            if not self._has_source(written):
                raise DeniedError(f"this token has no source '{written}'")

    def _has_source(self, written: str) -> bool:
        try:
            *before, name = name_parts(written)
        except InputError:
            return False
        if not before:
            return folded(name) in self._grant.sources
        catalog, schema = before if len(before) > 1 else ("", before[0])
        return any(self._grant.has(*full, name) for full in self._places(catalog, schema))

    def _function(self, call: Tree) -> None:
        name = str(call.get("function_name", "")).lower()
        self._refuse_qualified(call, name)
        is_known = name in self._functions or name in _HARMLESS
        if not is_known or name.startswith(_TELLING) or name in self._grant.macros:
            raise DeniedError(f"this token cannot call {name}")

    def _refuse_qualified(self, call: Tree, name: str) -> None:
        parts = [call.get("catalog"), call.get("schema"), *(call.get("qualified_name") or {}).get("path", [])[:-1]]
        # DuckDB 1 writes `[1, 2]` as a call of main.list_value.
        if set(filter(None, parts)) - {"main", "system"}:
            raise DeniedError(f"with this token, write {name} without a database or a schema before it")


def _is_one_of(columns: Sequence[str | None], rows: Sequence[Sequence[str]]) -> Sql:
    if not rows:
        return sql("false")
    names = [sql("lower({})", Sql(column)) for column in columns if column]
    options = [
        joined(" AND ", [sql("{} = {}", a, literal(b)) for a, b in zip(names, row, strict=True)]) for row in rows
    ]
    return sql("({})", joined(" OR ", options))


_known: dict[str, frozenset[str]] = {}


def _built_in(parser: duckdb.DuckDBPyConnection, query: Sql) -> frozenset[str]:
    """The names, folded, of what DuckDB has itself; functions that act are refused for everybody."""
    if query not in _known:
        _known[query] = frozenset(folded(str(name)) for (name,) in parser.execute(query).fetchall())
    return _known[query]
