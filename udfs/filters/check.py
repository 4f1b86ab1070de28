"""Checks a parsed condition: resolves every name, and refuses everything that could have side effects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jammi_duck.sql import folded, literal, quoted
from jammi_duck.types import Host
from jammi_duck.udfs.filters.allowed import BY_NAME, WINDOWS
from jammi_duck.udfs.filters.definitions import DatabaseObjects, Macro, View
from jammi_duck.udfs.filters.names import Names, at_of
from jammi_duck.udfs.filters.trees import (
    Tree,
    arguments_of,
    called,
    column_named,
    is_null,
    options_of,
    parse,
    substituted,
    text_of_constant,
    types_in,
    variables_of,
    with_first,
)

PARAMETERS = "_jammi_parameters"
_EMBED = ("text", "model", "role", "dims")
_EMBED_DEFAULTS = {"model": "NULL", "role": "'document'", "dims": "NULL"}
_EMBED_BODY = "system.main._jammi_embed(text::VARCHAR, model::VARCHAR, role::VARCHAR, dims::VARCHAR)"

# What is in these needs no more than that everything within it is allowed.
_EXPRESSIONS = {"BETWEEN", "CASE", "COMPARISON", "CONJUNCTION", "OPERATOR", "SUBQUERY"}
_PARTS = {
    "SUBQUERY", "JOIN", "EXPRESSION_LIST", "EMPTY", "ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER",
    "DISTINCT_MODIFIER", "ORDER_DEFAULT", "ASCENDING", "DESCENDING",
}  # fmt: skip
_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
# Names without parentheses that DuckDB takes for a function where there is no such column.
_TIMES = {
    "current_date": "current_date", "current_time": "get_current_time", "current_timestamp": "get_current_timestamp",
    "localtime": "current_localtime", "localtimestamp": "current_localtimestamp",
}  # fmt: skip
_SESSION = {"user", "current_user", "session_user", "current_role", "current_catalog", "current_schema"}
# What a view may read files with: its owner named them, not the filter.
_READERS = {
    "read_parquet", "parquet_scan", "read_csv", "read_csv_auto", "read_json", "read_json_auto", "read_json_objects",
    "read_json_objects_auto", "read_ndjson", "read_ndjson_auto", "read_ndjson_objects",
}  # fmt: skip
_BY_ENDING = {
    "parquet": "read_parquet", "csv": "read_csv_auto", "tsv": "read_csv_auto", "json": "read_json_auto",
    "jsonl": "read_json_auto", "ndjson": "read_json_auto",
}  # fmt: skip
_MOST_NODES = 100_000


class RefusedError(Exception):
    """Something in a condition that a filter may not hold; says what, as the end of a sentence about the filter."""


@dataclass(frozen=True)
class Scope:
    """Where in a condition something stands: which names mean something there, and what it was reached through.

    `home` is the database and schema of the view that it was reached through, and `reads` whether it is that view's own
    text, which may name files.
    """

    tables: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    arguments: Mapping[str, Tree] | None = None
    path: tuple[str, ...] = ()
    home: tuple[str, str] | None = None
    reads: bool = False
    nested: bool = False


class Parsed:
    """A condition that is checked; afterwards, the parameters that it names and the tables that it reads."""

    def __init__(
        self,
        host: Host,
        definitions: DatabaseObjects,
        alias: str,
        database: str,
        schemas: Sequence[str],
        *,
        is_known: Callable[[str], bool],
    ) -> None:
        """The source's rows are called `alias`; names are the caller's, in this database and these schemas.

        `is_known` says whether a model is one that `embed` may use.
        """
        self._host, self._is_known = host, is_known
        self._definitions = definitions
        self._names = Names(definitions, database, schemas)
        self._alias = alias
        self._nodes = 0
        # A macro may be called thousands of times, each of which looks at its body.
        self._trees: dict[str, Tree] = {}
        self.parameters: list[str] = []
        self.tables: list[str] = []

    def checked(self, tree: Tree, scope: Scope = Scope()) -> Tree:
        """The same tree with all its names settled. Raises RefusedError."""
        if isinstance(tree, list):
            return [self.checked(each, scope) for each in tree]
        if not isinstance(tree, dict):
            return tree
        if scope.path:
            self._nodes += 1
            if self._nodes > _MOST_NODES:
                raise RefusedError(f"{_uses(scope)}, which is too large to be looked through")
        if isinstance(tree.get("class"), str):
            return self._expression(tree, scope)
        if isinstance(tree.get("type"), str):
            return self._part(tree, scope)
        return self._fields(tree, scope)

    def _fields(self, tree: Tree, scope: Scope, **changed: Tree) -> Tree:
        return {key: changed[key] if key in changed else self.checked(value, scope) for key, value in tree.items()}

    def _expression(self, tree: Tree, scope: Scope) -> Tree:
        kind = tree["class"]
        special: Mapping[str, Callable[[Tree, Scope], Tree]] = {
            "CAST": self._cast, "COLLATE": self._collate, "COLUMN_REF": self._column, "CONSTANT": self._constant,
            "FUNCTION": self._function,
            "LAMBDA": self._lambda, "PARAMETER": self._parameter, "STAR": self._star, "TYPE": self._constant,
            "WINDOW": self._window,
        }  # fmt: skip
        if kind in special:
            return special[kind](tree, scope)
        if kind not in _EXPRESSIONS:
            raise _unknown(kind, scope)
        return self._fields(tree, replace(scope, nested=True) if kind == "SUBQUERY" else scope)

    def _part(self, tree: Tree, scope: Scope) -> Tree:
        kind = tree["type"]
        if tree.get("sample"):
            raise RefusedError(f"{_uses(scope)}samples rows, which gives others each time")
        if kind == "BASE_TABLE":
            return self._table(tree, scope)
        if kind == "TABLE_FUNCTION":
            return self._table_function(tree, scope)
        if kind in _QUERIES:
            return self._query(tree, scope)
        if kind not in _PARTS:
            raise _unknown(kind, scope)
        return self._fields(tree, scope)

    def _cast(self, tree: Tree, scope: Scope) -> Tree:
        if "cast_type" in tree:
            self._opaque(tree["cast_type"], scope)
            return self._fields(tree, scope, cast_type=tree["cast_type"])
        return self._fields(tree, scope)

    def _collate(self, tree: Tree, scope: Scope) -> Tree:
        """A collation. DuckDB would fetch an extension for one that it does not have."""
        if missing := [name for name in tree["collation"].split(".") if not self._definitions.has_collation(name)]:
            raise RefusedError(f"{_uses(scope)}has a collation {missing[0]}, which is not there")
        return self._fields(tree, scope)

    def _constant(self, tree: Tree, scope: Scope) -> Tree:
        """A constant, or the name of a type with constants or other types in it."""
        value = tree.get("value")
        kind = value["type"]["id"] if isinstance(value, dict) and not value["is_null"] else None
        if kind == "DOUBLE":
            # DuckDB 1 writes 1.5e0 as 1.5, which it would read as a DECIMAL.
            return {**self._expression_of(f"'{value['value']!r}'::DOUBLE"), "alias": tree["alias"]}
        if kind == "BOOLEAN":
            # DuckDB 1 has a constant in `x IS TRUE`, and writes it as `true`, which it would read as a cast.
            return {**self._expression_of(str(value["value"])), "alias": tree["alias"]}
        inner = tree.get("children", [])
        self._opaque({key: value for key, value in tree.items() if key not in ("class", "children")}, scope)
        for each in inner:
            if each.get("class") not in ("CONSTANT", "TYPE"):
                raise _unknown(each.get("class"), scope)
        return {**tree, "children": self.checked(inner, scope)} if inner else tree

    def _opaque(self, tree: Tree, scope: Scope) -> None:
        """Look at what should be a value or a type, without an expression in it, and with the names of types only.

        DuckDB would fetch an extension for a type that it does not have.
        """
        if within := _expression_in(tree):
            raise _unknown(within, scope)
        if missing := [name for name in types_in(tree) if not self._definitions.has_type(folded(name))]:
            raise RefusedError(f"{_uses(scope)}casts to {missing[0]}, and there is no such type here")

    def _column(self, tree: Tree, scope: Scope) -> Tree:
        names = tree["column_names"]
        first = folded(names[0])
        if first in scope.variables:
            return tree
        if scope.arguments is not None and first in scope.arguments:
            return _argument(tree, scope.arguments[first], scope)
        if len(names) == 1 and first in _TIMES:
            return {**self._expression_of(f"system.main.{_TIMES[first]}()"), "alias": tree["alias"]}
        if len(names) == 1 and first in _SESSION:
            if scope.nested or scope.path:
                raise RefusedError(f"{_uses(scope)}has '{names[0]}' in it; write table.{names[0]} if it is a column")
            return {**tree, "column_names": [self._alias, *names]}
        return tree

    def _lambda(self, tree: Tree, scope: Scope) -> Tree:
        """A lambda, or JSON's arrow, which the parser cannot tell apart."""
        inner = replace(scope, variables=scope.variables | set(variables_of(tree["lhs"])))
        if tree.get("syntax_type") == "LAMBDA_KEYWORD":
            # Several variables stand there as a call of `row`, which is none.
            return self._fields(tree, inner, lhs=tree["lhs"])
        if scope.arguments is not None:
            inner = scope if set(variables_of(tree["lhs"])) & set(scope.arguments) else inner
        return self._fields(tree, inner)

    def _star(self, tree: Tree, scope: Scope) -> Tree:
        if tree.get("expr") and tree["expr"].get("class") != "CONSTANT":
            raise RefusedError(f"{_uses(scope)}picks columns by an expression, COLUMNS(...); name them")
        return self._fields(tree, scope)

    def _parameter(self, tree: Tree, scope: Scope) -> Tree:
        name = str(tree["identifier"])
        if name.isdigit() or scope.path:
            raise RefusedError(
                f"{_uses(scope)}has a parameter without a name; write $name, and parameters := {{'name': value}}"
            )
        for macro in self._definitions.subscript_macros():
            where = ".".join(map(quoted, macro))
            raise RefusedError(f"has parameters, for which a macro would be called: DROP MACRO {where}")
        if name not in self.parameters:
            self.parameters.append(name)
        value = f"{PARAMETERS}[{literal(name)}]"
        # DuckDB 1, whose trees have no literals, confuses the rows of a LATERAL join there. Lambdas take no sub-query.
        if scope.nested and not scope.variables and "literal" in self._expression_of("1"):
            value = f"(SELECT {value} FROM _jammi_values)"
        return {**self._expression_of(value), "alias": tree["alias"]}

    def _function(self, tree: Tree, scope: Scope) -> Tree:
        """A call of a function or a macro, also one that is written as a column's method."""
        name, spaces = folded(tree["function_name"]), [tree[key] for key in ("catalog", "schema") if tree.get(key)]
        ours = [folded(space) for space in spaces] in ([], ["main"], ["pg_catalog"], ["system", "main"])
        if spaces and not ours and not self._names.macros(name, spaces, scope.home):
            method = called(tree, "", "", tree["function_name"])
            return self._function(with_first(method, column_named(spaces)), scope)
        if name == "unnest" and ours:
            return self._fields(tree, scope)
        if ours and self._definitions.harmless(name):
            whole = self._fields(called(tree, "system", "main", name), scope)
            return self._by_name(whole, scope) if name in BY_NAME else whole
        if name == "embed" and not spaces:
            return self._embed(tree, scope)
        macro = self._macro(name, spaces, tree, scope, table=False)
        body = self._expression_of(macro.body)
        return {**self.checked(body, self._within(macro, tree, scope)), "alias": tree["alias"]}

    def _by_name(self, call: Tree, scope: Scope) -> Tree:
        """A call of a function that calls another one, whose name is its second argument.

        DuckDB would fetch an extension for one that it does not have.
        """
        given = arguments_of(call)
        name = text_of_constant(given[1][1]) if len(given) > 1 else None
        if name is None or any(named for named, _ in given):
            raise RefusedError(
                f"{_uses(scope)}calls {call['function_name']} without writing out which function it calls"
            )
        if not self._definitions.harmless(folded(name)):
            raise _acting(name, scope)
        return call

    def _embed(self, tree: Tree, scope: Scope) -> Tree:
        """A call of `embed`, with a model in use: another may have to be fetched, or be in a folder of anybody's."""
        given = self._arguments("embed", tree, _EMBED, scope, _EMBED_DEFAULTS)
        model = text_of_constant(given["model"])
        if not is_null(given["model"]) and (model is None or not self._is_known(model)):
            named = f"the model '{model}'" if model else "a model that is not written out"
            raise RefusedError(
                f"{_uses(scope)}calls embed with {named}; it may use the default model, and those of embedding tables"
            )
        return {**substituted(self._expression_of(_EMBED_BODY), given), "alias": tree["alias"]}

    def _window(self, tree: Tree, scope: Scope) -> Tree:
        """A window function, in whose place DuckDB takes no macro. Those of its grammar DuckDB 1 does not list."""
        name = folded(tree["function_name"])
        if tree.get("schema") or not (name in WINDOWS or self._definitions.harmless(name)):
            raise RefusedError(f"{_uses(scope)}calls {name} as a window function, and it is none of DuckDB's own")
        return self._fields(tree, scope)

    def _table_function(self, tree: Tree, scope: Scope) -> Tree:
        call = tree["function"]
        if call.get("class") != "FUNCTION":
            raise _unknown(call.get("class"), scope)
        name, spaces = folded(call["function_name"]), [call[key] for key in ("catalog", "schema") if call.get(key)]
        reads = name in _READERS and scope.reads
        if not spaces and (name == "unnest" or reads):
            if keeps := [option for option in options_of(call) if "rejects" in folded(option)]:
                raise RefusedError(f"{_uses(scope)}reads a file with {keeps[0]}, which makes tables")
            inner = self._fields(call, scope)
            return self._fields(tree, scope, function=called(inner, "system", "main", name) if reads else inner)
        macro = self._macro(name, spaces, call, scope, table=True)
        query = self.checked(self._query_of(macro.body), self._within(macro, call, scope))
        return self._derived(tree, query, macro.name, ())

    def _macro(self, name: str, spaces: Sequence[str], call: Tree, scope: Scope, *, table: bool) -> Macro:
        count = len(arguments_of(call))
        macros = [macro for macro in self._names.macros(name, spaces, scope.home) if macro.is_table == table]
        fitting = [macro for macro in macros if len(macro.parameters) == count]
        if not macros:
            raise _acting(name, scope)
        if call.get("filter") or call.get("distinct") or call["order_bys"]["orders"]:
            raise RefusedError(f"{_uses(scope)}calls the macro {name} as if it were an aggregate")
        if len(fitting) != 1:
            many = "has several definitions" if fitting else f"takes {len(macros[0].parameters)} arguments"
            raise RefusedError(f"{_uses(scope)}calls the macro {name} with {count} arguments, which {many}; give all")
        return fitting[0]

    def _within(self, macro: Macro, call: Tree, scope: Scope) -> Scope:
        """The scope of a macro's body. Raises RefusedError where it calls itself."""
        step = f"macro {macro.name}"
        if step in scope.path:
            raise RefusedError(f"{_uses(scope)}calls {macro.name} again, without an end")
        given = self._arguments(macro.name, call, macro.parameters, scope, {})
        for parameter, kind in zip(map(folded, macro.parameters), macro.types, strict=True):
            if kind is not None:
                cast = self.checked(self._expression_of(f"CAST(NULL AS {kind})"), scope)
                given[parameter] = {**cast, "child": given[parameter]}
        return Scope(arguments=given, path=(*scope.path, step), home=scope.home, nested=True)

    def _arguments(
        self, name: str, call: Tree, parameters: Sequence[str], scope: Scope, defaults: Mapping[str, str]
    ) -> dict[str, Tree]:
        given = {parameter: self._expression_of(text) for parameter, text in defaults.items()}
        for place, (named, argument) in enumerate(arguments_of(call)):
            known = [folded(parameter) for parameter in parameters]
            if (named and folded(named) not in known) or place >= len(known):
                raise RefusedError(f"{_uses(scope)}calls {name} with an argument that it does not have")
            given[folded(named) if named else known[place]] = {**self.checked(argument, scope), "alias": ""}
        if missing := [parameter for parameter in parameters if folded(parameter) not in given]:
            raise RefusedError(f"{_uses(scope)}calls {name} without {missing[0]}")
        return given

    def _query(self, tree: Tree, scope: Scope) -> Tree:
        """A query, whose CTEs see those before them."""
        inner, ctes = scope, []
        for cte in tree.get("cte_map", {}).get("map", []):
            ctes.append({**cte, "value": self.checked(cte["value"], inner)})
            inner = replace(inner, tables=inner.tables | {folded(cte["key"])})
        changed: dict[str, Tree] = {"cte_map": {**tree.get("cte_map", {}), "map": ctes}}
        if tree["type"] == "RECURSIVE_CTE_NODE":
            itself = replace(inner, tables=inner.tables | {folded(tree["cte_name"])})
            changed["right"] = self.checked(tree["right"], itself)
        if tree["type"] == "CTE_NODE":
            changed["query"] = self.checked(tree["query"], scope)
        return self._fields(tree, inner, **changed)

    def _table(self, tree: Tree, scope: Scope) -> Tree:
        """A table, as itself; a view, as its query."""
        parts = [tree[key] for key in ("catalog_name", "schema_name") if tree.get(key)]
        name = tree["table_name"]
        if not parts and folded(name) in scope.tables:
            return self._fields(tree, scope)
        if view := self._names.view(name, parts, scope.home):
            return self._derived(tree, self._query_of_view(view, scope), view.name, view.columns)
        if self._names.is_internal(name, parts, scope.home):
            raise RefusedError(f"{_uses(scope)}reads {name}, which belongs to DuckDB")
        ending = folded(name).removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
        if not parts and ("/" in name or ("." in name and ending in _BY_ENDING)):
            return self._file(tree, name, ending, scope)
        if not parts:
            # A schema's name keeps a CTE of the caller's query out; `main` finds a TEMP table first.
            space = self._names.table_space(name, scope.home)
            parts = ["main"] if space == self._names.home else list(space)
        self.tables.append(".".join(quoted(part) for part in (*parts, name)))
        whole = {"catalog_name": parts[0] if len(parts) == 2 else "", "schema_name": parts[-1], "alias": tree["alias"]}
        if "qualified_name" in tree:
            whole["qualified_name"] = {"path": [*parts, name]}
        return {**self._fields(tree, scope), **whole}

    def _file(self, tree: Tree, name: str, ending: str, scope: Scope) -> Tree:
        if not scope.reads or ending not in _BY_ENDING:
            raise RefusedError(f"{_uses(scope)}reads the file '{name}'; make a view or a table of it and read that")
        stem = name.rpartition("/")[2].partition(".")[0]
        query = self._query_of(f"FROM system.main.{_BY_ENDING[ending]}({literal(name)})")
        return self._derived(tree, query, stem, ())

    def _query_of_view(self, view: View, scope: Scope) -> Tree:
        step = f"view {view.name}"
        if step in scope.path:
            raise RefusedError(f"{_uses(scope)}reads {view.name} again, without an end")
        inner = Scope(path=(*scope.path, step), home=at_of(view), reads=True, nested=True)
        return self.checked(self._query_of(view.query), inner)

    def _derived(self, tree: Tree, query: Tree, name: str, columns: Sequence[str]) -> Tree:
        """A sub-query in the place of a table, by the same name and with the same names of columns."""
        whole = self._parsed("FROM (SELECT 1) AS x")["from_table"]
        given = list(tree.get("column_name_alias", []))
        whole = {**whole, "subquery": {**whole["subquery"], "node": query}}
        return {**whole, "alias": tree["alias"] or name, "column_name_alias": given + list(columns)[len(given) :]}

    def _expression_of(self, text: str) -> Tree:
        return self._parsed(f"SELECT {text}")["select_list"][0]

    def _query_of(self, text: str) -> Tree:
        return self._parsed(text)

    def _parsed(self, text: str) -> Tree:
        if text not in self._trees:
            self._trees[text] = parse(self._host, text)["statements"][0]["node"]
        return self._trees[text]


def _uses(scope: Scope) -> str:
    return f"uses {', which uses '.join(scope.path)}, which " if scope.path else ""


def _unknown(kind: object, scope: Scope) -> RefusedError:
    name = str(kind).replace("_", " ").lower()
    return RefusedError(f"{_uses(scope)}has a part of a kind that no filter may have: {name}")


def _argument(tree: Tree, argument: Tree, scope: Scope) -> Tree:
    rest = tree["column_names"][1:]
    if rest and argument.get("class") != "COLUMN_REF":
        raise RefusedError(f"{_uses(scope)}takes {'.'.join(rest)} of an argument that is no column")
    whole = copy.deepcopy(argument)
    return {**whole, "column_names": [*whole["column_names"], *rest]} if rest else {**whole, "alias": tree["alias"]}


def _acting(name: str, scope: Scope) -> RefusedError:
    return RefusedError(
        f"{_uses(scope)}calls {name}, and a filter may change nothing: it may call what is built into DuckDB "
        "and has no side effects, embed, and macros of these"
    )


def _expression_in(tree: Tree) -> object:
    """The kind of an expression within what should have none; None where there is none."""
    if isinstance(tree, dict) and isinstance(tree.get("class"), str):
        return tree["class"]
    if not isinstance(tree, dict | list):
        return None
    inner = tree.values() if isinstance(tree, dict) else tree
    return next((found for each in inner if (found := _expression_in(each))), None)
