"""Statements as the trees that DuckDB's parser writes, in the shape of each version."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from jammi_duck.sql import folded, sql
from jammi_duck.types import Host

Tree: TypeAlias = Any
# Where in a text something stood. A quote within a value has a backslash before it.
_PLACE = re.compile(r'"query_location(?:_length)?":\d+')


def parse(host: Host, text: str) -> Tree:
    """What DuckDB's parser makes of a statement, as a tree with `error`, or with `statements`; without any places."""
    ((found,),) = host.sql(sql("SELECT json_serialize_sql(?::VARCHAR)::VARCHAR"), [text])
    return json.loads(_PLACE.sub('"query_location":0', found))


def written(host: Host, tree: Tree) -> str:
    """The SQL text of a tree."""
    ((text,),) = host.sql(sql("SELECT json_deserialize_sql(?::JSON)"), [json.dumps(tree)])
    return str(text)


def nodes_of(tree: Tree) -> Iterator[dict[str, Any]]:
    """Every node of a tree, however deep it stands."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def variables_of(tree: Tree) -> list[str]:
    """The variables of a lambda: one column, or several in a row."""
    if isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF":
            return [folded(tree["column_names"][0])] if len(tree["column_names"]) == 1 else []
        return [name for each in tree.values() for name in variables_of(each)]
    return [name for each in tree for name in variables_of(each)] if isinstance(tree, list) else []


def column_named(names: Sequence[str]) -> Tree:
    """A column that is called so."""
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": list(names)}


def substituted(tree: Tree, given: Mapping[str, Tree]) -> Tree:
    """A tree with what is given for each of its columns."""
    if isinstance(tree, list):
        return [substituted(each, given) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("class") == "COLUMN_REF":
        return given[tree["column_names"][0]]
    return {key: substituted(value, given) for key, value in tree.items()}


def arguments_of(call: Tree) -> list[tuple[str, Tree]]:
    """The arguments of a call, each with its name or none; DuckDB 1 keeps a name as the alias."""
    if "arguments" in call:
        return [(each["name"], each["expression"]) for each in call["arguments"]]
    return [(each.get("alias", ""), each) for each in call.get("children", [])]


def options_of(call: Tree) -> list[str]:
    """The names of a table function's options, which may be written as comparisons, too."""
    compared = [each["left"] for _, each in arguments_of(call) if each.get("type") == "COMPARE_EQUAL"]
    return [name for name, _ in arguments_of(call)] + [
        each["column_names"][-1] for each in compared if "column_names" in each
    ]


def with_first(call: Tree, argument: Tree) -> Tree:
    """The same call with one more argument, the first."""
    if "arguments" in call:
        return {**call, "arguments": [{"name": "", "expression": argument}, *call["arguments"]]}
    return {**call, "children": [argument, *call["children"]]}


def called(call: Tree, catalog: str, schema: str, name: str) -> Tree:
    """The same call of a function that is named in full."""
    whole = {**call, "function_name": name, "schema": schema, "catalog": catalog}
    if "is_operator" in call:
        whole["is_operator"] = False
    if "qualified_name" in call:
        whole["qualified_name"] = {"path": [part for part in (catalog, schema, name) if part]}
    return whole


def text_of_constant(tree: Tree) -> str | None:
    """The text that a constant is; None for everything else."""
    if tree.get("class") != "CONSTANT":
        return None
    if "literal" in tree:
        return tree["literal"]["text"] if tree["literal"]["kind"] == "STRING" else None
    value = tree["value"]
    return value["value"] if value["type"]["id"] == "VARCHAR" and not value["is_null"] else None


def is_null(tree: Tree) -> bool:
    """Whether a tree is the constant NULL."""
    if tree.get("class") != "CONSTANT":
        return False
    return bool(tree["literal"]["kind"] == "NULL_LITERAL" if "literal" in tree else tree["value"]["is_null"])


def types_in(tree: Tree) -> Iterator[str]:
    """The names in a type that the parser has left for later to look up."""
    if isinstance(tree, dict):
        for key in ("type_name", "user_type_name"):
            if isinstance(tree.get(key), str):
                yield tree[key]
        if tree.get("type") == "UNBOUND_TYPE_INFO" and "name" in tree:
            yield tree["name"]
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from types_in(each)
