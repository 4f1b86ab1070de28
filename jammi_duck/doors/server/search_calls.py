"""A statement's one search, where it is plain: it runs first, and its rows stand in the statement where it stood.

DuckDB plans such a statement sooner than the macro; see `udfs.plain_search`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from jammi_duck.doors.server.syntax import cte_names
from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, folded, sql
from jammi_duck.udfs.filters.trees import Tree, arguments_of, is_null, nodes_of, text_of_constant
from jammi_duck.udfs.plain_search import Question, question_of
from jammi_duck.udfs.sources import name_parts

_NAME = re.compile(rb'(jammi_search|"jammi_search")[ \t\r\n]*\(', re.IGNORECASE)
_PLACES = ("source", "query", "k")
_CHOICE = ("model", "embedding_table", "column")
_OPTIONS = {"mode", "weight", "fusion", "k1", "b", "exact", "min_similarity", "per_row", *_CHOICE, *_PLACES}
_FLOATS = {"FLOAT", "DOUBLE", "REAL", "FLOAT4", "FLOAT8"}
_ASCII = re.compile("[\x00-\x7f]+")
# Where expressions stand by whose text a column is called, if they have no alias.
_NAMING = {"select_list", "aggregates", "pivots"}


@dataclass(frozen=True)
class Parameter:
    """An argument whose value comes later; `is_list` if it is cast to a list of numbers, perhaps of a `size`."""

    name: str
    is_list: bool = False
    size: int | None = None

    def fits(self, value: object) -> bool:
        """Whether a value is left as it is by the cast."""
        return not self.is_list or (isinstance(value, list) and self.size in (None, len(value)))


@dataclass(frozen=True)
class SearchCall:
    """A call of jammi_search: the text of the statement before it and after it, and its arguments by their names.

    `hidden` are the names that the statement gives to parts of itself, which hide tables.
    """

    before: str
    after: str
    arguments: Mapping[str, object]
    hidden: frozenset[str] = frozenset()

    @property
    def shape(self) -> object:
        """What the columns of the statement depend on: not on what is searched for, nor on how many rows."""
        others = (item for item in self.arguments.items() if item[0] not in ("query", "k"))
        return self.before, self.after, tuple(sorted(others, key=lambda item: item[0]))

    def with_vector(self, vector: Sequence[float]) -> SearchCall | None:
        """The call with its one parameter, the vector that is asked for, given; None if that is not its only one."""
        own = [(name, each) for name, each in self.arguments.items() if isinstance(each, Parameter)]
        if len(own) != 1 or own[0][0] != "query" or not own[0][1].fits(list(vector)):
            return None
        return replace(self, arguments={**self.arguments, "query": list(vector)})

    def question(self, values: Mapping[str, object]) -> Question | None:
        """What is asked for with these values for parameters; None where that is not plain."""
        given: dict[str, Any] = {}
        for name, argument in self.arguments.items():
            value = argument
            if isinstance(argument, Parameter):
                value = values[argument.name]
                value = value.object if isinstance(value, duckdb.Value) else value
                if not argument.fits(value):
                    return None
            if value is not None or name in _PLACES:
                given[name] = value
        source, texts = given.pop("source", None), ("mode", "fusion", *_CHOICE)
        numbers = ("weight", "k1", "b")
        if not isinstance(source, str) or not all(isinstance(given.get(name, ""), str) for name in texts):
            return None
        if self.hidden and self._is_hidden(source):
            return None
        if "query" not in given or not all(type(given.get(name, 0)) in (int, float) for name in numbers):
            return None
        return question_of(source, given.pop("query"), **given)

    def _is_hidden(self, source: str) -> bool:
        try:
            return folded(name_parts(source)[-1]) in self.hidden
        except InputError:
            return True

    def with_rows(self, rows: Sql) -> Sql:
        """The statement with a query for the rows of the search."""
        return sql("{}({}){}", Sql(self.before), rows, Sql(self.after))


def search_call(text: str, tree: Tree) -> SearchCall | None:
    """The search in a statement with this tree; None if there is none, or another one, or it is not plain."""
    # Of a text with other spaces than ASCII's, DuckDB 1 tells places as if these were shorter.
    if not text.isascii() and not _ASCII.sub("", text).isprintable():
        return None
    nodes = list(nodes_of(tree))
    searches = [node for node in nodes if node.get("type") == "TABLE_FUNCTION" and _is_search(node["function"])]
    if len(searches) != 1 or _names_column(tree, searches[0]):
        return None
    (node,) = searches
    if node.get("sample") or node.get("with_ordinality", "WITHOUT_ORDINALITY") != "WITHOUT_ORDINALITY":
        return None
    arguments = _arguments(node["function"])
    if arguments is None:
        return None
    # A parameter that stands elsewhere too would be missed there.
    own = [argument.name for argument in arguments.values() if isinstance(argument, Parameter)]
    if len(own) != sum(each.get("class") == "PARAMETER" for each in nodes):
        return None
    written = text.encode()
    start = node["query_location"]
    named = _NAME.match(written, start)
    end = _end(text, written, start, named.end()) if named else None
    if end is None:
        return None
    # Not the name that DuckDB would give to a sub-query.
    alias = "" if node.get("alias") else " AS _jammi_search"
    hidden = frozenset(map(folded, cte_names(tree)))
    return SearchCall(written[:start].decode(), alias + written[end:].decode(), arguments, hidden)


def _names_column(tree: Tree, search: Tree) -> bool:
    """Whether a column is called by the text of an expression that has the search in it."""
    waiting = [(tree, False)]
    while waiting:
        each, names = waiting.pop()
        if each is search:
            return names
        if isinstance(each, list):
            waiting += ((item, names) for item in each)
        elif isinstance(each, dict):
            for key, value in each.items():
                if key in _NAMING and isinstance(value, list):
                    waiting += ((item, names or not (isinstance(item, dict) and item.get("alias"))) for item in value)
                else:
                    waiting.append((value, names))
    return False


def _is_search(call: Tree) -> bool:
    is_qualified = (
        call.get("schema") or call.get("catalog") or len((call.get("qualified_name") or {}).get("path", [])) > 1
    )
    return str(call.get("function_name", "")).lower() == "jammi_search" and not is_qualified


def _arguments(call: Tree) -> dict[str, object] | None:
    found: dict[str, object] = {}
    for place, (name, tree) in enumerate(arguments_of(call)):
        if not name and place >= len(_PLACES):
            return None
        key = name.lower() or _PLACES[place]
        if key not in _OPTIONS or key in found:
            return None
        try:
            found[key] = _argument(tree)
        except (ValueError, KeyError):
            return None
    return found


def _argument(tree: Tree) -> object:
    """The value of an argument, or its parameter. Raises ValueError or KeyError where it is neither."""
    if tree.get("class") == "PARAMETER":
        return Parameter(str(tree["identifier"]))
    if tree.get("class") == "CAST" and tree["child"].get("class") == "PARAMETER":
        return Parameter(str(tree["child"]["identifier"]), is_list=True, size=_size(tree))
    if is_null(tree):
        return None
    # DuckDB 1 writes them as casts.
    if tree.get("class") == "CAST" and tree.get("cast_type", {}).get("id") == "BOOLEAN":
        return {"t": True, "f": False}[text_of_constant(tree["child"]) or ""]
    text = text_of_constant(tree)
    if text is not None:
        return text
    if tree.get("class") != "CONSTANT":
        raise ValueError
    if "literal" in tree:
        kind, text = tree["literal"]["kind"], tree["literal"]["text"]
        if kind == "BOOLEAN":
            return text == "true"
        return int(text) if kind == "INTEGER" else float(text)
    value, kind = tree["value"]["value"], tree["value"]["type"]["id"]
    if kind == "DECIMAL":
        return float(value) / 10 ** int(tree["value"]["type"]["type_info"]["scale"])
    if type(value) not in (int, float, bool):
        raise ValueError
    return value


def _size(cast: Tree) -> int | None:
    """The size of the list of numbers with a fraction that a cast is to, if it has one.

    Raises ValueError or KeyError where it is to something else.
    """
    if cast.get("try_cast"):
        raise ValueError
    if "cast_type" in cast:
        # DuckDB 1
        kind, info = cast["cast_type"]["id"], cast["cast_type"]["type_info"] or {}
        inner, size = info["child_type"]["id"], info.get("size")
    else:
        kind, children = cast["type_expr"]["type_name"], cast["type_expr"]["children"]
        inner = children[0]["type_name"] if children else ""
        size = children[1]["literal"]["text"] if len(children) > 1 else None
    if kind.upper() not in ("LIST", "ARRAY") or inner.upper() not in _FLOATS:
        raise ValueError
    return None if size is None else int(size)


def _end(text: str, written: bytes, name: int, start: int) -> int | None:
    """Where the bracket that opened before `start` is closed; None where no `name` stands before it."""
    depth = 1
    with contextlib.suppress(duckdb.Error):
        tokens = duckdb.tokenize(text)
        if not {name, start - 1} <= {place for place, _ in tokens}:
            return None
        for place, _ in tokens:
            if place >= start and written[place : place + 1] in (b"(", b")"):
                depth += 1 if written[place : place + 1] == b"(" else -1
                if not depth:
                    return place + 1
    return None
