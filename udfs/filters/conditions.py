"""Turns a predicate that a user wrote into the condition of a query, and into nothing else.

DuckDB parses it. Of what it finds only known kinds are let through, every name is settled, and the tree is written back
as SQL: so what was looked at is what runs, whatever a name stands for later, or on the caller's connection.
"""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, folded, joined, literal, sql, with_full_names
from jammi_duck.types import Host
from jammi_duck.udfs.filters.check import PARAMETERS, Parsed, RefusedError
from jammi_duck.udfs.filters.definitions import DatabaseObjects
from jammi_duck.udfs.filters.trees import Tree, parse, written

# Of the filters that are remembered, with what they became.
_MOST_KNOWN_CHARACTERS = 10_000_000
# Some 200,000 keys, with which a search takes a gigabyte and a half.
_MOST_CHARACTERS, _MOST_WORDS = 10_000_000, 400_000
_WORD = re.compile(r"'(?:[^']|'')*'|\w+|[^\w\s]")
_BEFORE = "SELECT 1 WHERE "
_VALUES = "valueslist"
_LIKE_OURS = re.compile("_+jammi_", re.IGNORECASE)
_OPPOSITES = (
    ("COMPARE_EQUAL", "COMPARE_NOTEQUAL"),
    ("COMPARE_LESSTHAN", "COMPARE_GREATERTHANOREQUALTO"),
    ("COMPARE_GREATERTHAN", "COMPARE_LESSTHANOREQUALTO"),
    ("COMPARE_IN", "COMPARE_NOT_IN"),
    ("COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"),
)
_JUNCTIONS = ("CONJUNCTION_AND", "CONJUNCTION_OR")
_NEGATED = dict(_OPPOSITES) | {there: here for here, there in _OPPOSITES}


@dataclass
class Condition:
    """A filter that may run: its SQL text, the tables that it reads, and the parameters that it names.

    `beside_hits` is the text where the source's columns that are called like ours have one more underscore.
    """

    text: Sql
    beside_hits: Sql
    tables: tuple[str, ...]
    parameters: tuple[str, ...]
    definitions: DatabaseObjects
    transaction: int

    def proven(self, *, beside_hits: bool = False) -> Sql:
        """The text, or that beside hits, behind a proof that the tables are tables.

        DuckDB binds the proof first, and no view passes it.
        """
        proofs = [
            sql("(SELECT count_star() FROM duckdb_table_sample({}) WHERE false) = 0", literal(table))
            for table in self.tables
        ]
        return sql("({})", joined(" AND ", [*proofs, self.beside_hits if beside_hits else self.text]))


class Conditions:
    """The filters of one database that were looked at, as long as what they use is as it was."""

    def __init__(self, host: Host, is_known: Callable[[str], bool]) -> None:
        """Names are looked up by `host`; `is_known` says whether a model is one that `embed` may use."""
        self._host, self._is_known = host, is_known
        self._known: OrderedDict[tuple[Any, ...], Condition] = OrderedDict()
        self._characters = 0

    def of(self, predicate: str, alias: str, database: str, schemas: Sequence[str], transaction: int) -> Condition:
        """The condition that a predicate stands for, over rows that are called `alias`.

        `database` and `schemas` are where the caller's names are looked for. In one transaction it is looked at once.
        Raises InputError where it cannot be parsed, is more than a condition, or may do or read more; says what.
        """
        key = predicate, alias, database, tuple(schemas)
        known = self._known.get(key)
        if known is None or (known.transaction != transaction and not known.definitions.hold()):
            known = self._looked_at(*key, transaction)
        known.transaction = transaction
        self._keep(key, known)
        return known

    def _keep(self, key: tuple[Any, ...], condition: Condition) -> None:
        """Remember a condition, at least until the next: a search asks for it twice."""
        if old := self._known.pop(key, None):
            self._characters -= len(key[0]) + len(old.text)
        self._known[key] = condition
        self._characters += len(key[0]) + len(condition.text)
        while self._characters > _MOST_KNOWN_CHARACTERS and len(self._known) > 1:
            (predicate, *_), old = self._known.popitem(last=False)
            self._characters -= len(predicate) + len(old.text)

    def _looked_at(
        self, predicate: str, alias: str, database: str, schemas: tuple[str, ...], transaction: int
    ) -> Condition:
        definitions = DatabaseObjects(self._host)
        parsed = Parsed(self._host, definitions, alias, database, schemas, is_known=self._is_known)
        try:
            tree = _condition_of(self._host, predicate)
            (statement,) = tree["statements"]
            statement["node"]["where_clause"] = parsed.checked(statement["node"]["where_clause"])
            statement["named_param_map"] = []
            beside_hits = _beside_hits(tree, folded(alias))
            text = self._text_of(tree, predicate)
            other = text if beside_hits == tree else self._text_of(beside_hits, predicate)
        except RefusedError as refused:
            raise InputError(f"the filter '{predicate}' {refused}") from None
        except RecursionError:
            raise InputError(f"the filter '{predicate[:100]}' is nested too deeply") from None
        return Condition(text, other, tuple(parsed.tables), tuple(parsed.parameters), definitions, transaction)

    def _text_of(self, tree: Tree, predicate: str) -> Sql:
        """The condition of a tree as SQL, which DuckDB reads as the same tree again."""
        text = written(self._host, tree)
        again = parse(self._host, text)
        if (again != tree and _bare(again) != _bare(tree)) or not text.startswith(_BEFORE):
            raise InputError(f"the filter '{predicate}' cannot be written as DuckDB has read it; write it otherwise")
        return sql("({})", with_full_names(text.removeprefix(_BEFORE)))


def check_parameters(given: Sequence[str] | None, wanted: Sequence[str]) -> None:
    """Raise InputError where a filter names a parameter that was not given, or one was given that it does not name."""
    if missing := [name for name in wanted if name not in (given or ())]:
        known = f"there are: {', '.join(given)}" if given else f"write parameters := {{'{missing[0]}': value}}"
        raise InputError(f"the filter names ${missing[0]}, and no parameter '{missing[0]}' was given; {known}")
    if given is not None and not any(given):
        raise InputError("parameters have no names; write parameters := {'name': value}")
    if unused := [name for name in given or () if name not in wanted]:
        raise InputError(f"the parameter '{unused[0]}' was given, and the filter does not name ${unused[0]}")


def _condition_of(host: Host, predicate: str) -> Tree:
    if not predicate.strip():
        raise InputError("the filter is empty; write a condition such as 'year > 2020', or NULL for none")
    _check_size(predicate)
    tree, plain = parse(host, f"{_BEFORE}({predicate}\n)"), parse(host, f"{_BEFORE}(true\n)")
    if tree["error"]:
        raise InputError(f"the filter '{predicate}' cannot be parsed: {tree['error_message']}")
    # Alone as well: `a) OR (b` is one expression only between parentheses.
    alone = parse(host, f"{_BEFORE}{predicate}\n")
    if alone["error"] or _around_condition(tree) != _around_condition(plain):
        raise InputError(f"the filter '{predicate}' is more than a condition; it must be one expression")
    return tree


def _around_condition(tree: Tree) -> list[Tree]:
    """A statement without its condition and parameters."""
    return [
        {**statement, "named_param_map": [], "node": {**statement["node"], "where_clause": None}}
        for statement in tree["statements"]
    ]


def _check_size(predicate: str) -> None:
    if len(predicate) <= _MOST_WORDS:
        return
    words = sum(1 for _ in _WORD.finditer(predicate)) if len(predicate) <= _MOST_CHARACTERS else 0
    if words > _MOST_WORDS or len(predicate) > _MOST_CHARACTERS:
        size = f"{words:,} names, values and signs" if words else f"{len(predicate):,} characters"
        most = _MOST_WORDS if words else _MOST_CHARACTERS
        raise InputError(
            f"the filter has {size}, and may have {most:,}: put many keys into a table, and write "
            "filter := 'id IN (SELECT id FROM wanted)'"
        )


def _beside_hits(tree: Tree, alias: str) -> Tree:
    """The tree with columns of `alias`, and unqualified ones, renamed as in the join with a search's hits."""
    if isinstance(tree, list):
        return [_beside_hits(each, alias) for each in tree]
    if not isinstance(tree, dict):
        return tree
    names = tree.get("column_names")
    if tree.get("class") != "COLUMN_REF" or not names or names == [PARAMETERS]:
        return {key: _beside_hits(value, alias) for key, value in tree.items()}
    place = 1 if len(names) > 1 and folded(names[0]) == alias else 0
    if _LIKE_OURS.match(names[place]):
        return {**tree, "column_names": [*names[:place], f"_{names[place]}", *names[place + 1 :]]}
    return tree


def _bare(tree: Tree) -> Tree:
    """A tree without empty values, and in the form that DuckDB reads it in again.

    What a macro stands for gets other things around it than it had when it was read.
    """
    if isinstance(tree, list):
        return [_bare(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("type") == "SUBQUERY" and tree.get("alias") == _VALUES:
        # DuckDB puts a list of values into a query of its own when it writes one.
        return _bare(tree["subquery"]["node"]["from_table"])
    if tree.get("name") and "expression" in tree:
        # The name of an argument becomes its alias, too, when it is read.
        tree = {**tree, "expression": {**tree["expression"], "alias": ""}}
    bare = {key: _bare(value) for key, value in tree.items() if value not in ("", None, [], {}, False)}
    kind = bare.get("type")
    if kind == "OPERATOR_NOT" and (negated := _NEGATED.get(bare["children"][0].get("type"))):
        # DuckDB 1 reads NOT (a < b) as a >= b.
        return {**bare["children"][0], "type": negated}
    if kind in _JUNCTIONS:
        # And a AND (b AND c) as a AND b AND c.
        parts = [each["children"] if each.get("type") == kind else [each] for each in bare["children"]]
        bare["children"] = list(itertools.chain.from_iterable(parts))
    if "name" in bare and "expression" in bare:
        # The name of an argument is its alias, too, but where DuckDB 2 makes calls of a list comprehension.
        bare["expression"]["alias"] = bare["name"]
    return bare
