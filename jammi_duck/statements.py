"""Runs the SQL of the methods for Python: with the caller's variables, and errors of ours in place of DuckDB's."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from jammi_duck.kept import kept, numbered
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql, Template, literal
from jammi_duck.udfs.arguments import plain
from jammi_duck.variables import named, with_variables


class Statements:
    """Statements on a connection, and on a cursor of its own in each other thread than the one that made this.

    A template gives a statement from SQL for each of the tables, and then of the values.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, equip: Callable[[duckdb.DuckDBPyConnection], object]) -> None:
        """`equip` gives a cursor the macros, which belong to one connection."""
        self._con = con
        self._equip = equip
        self._thread = threading.get_ident()
        # A thread that ends lets its cursor go, which is closed by that.
        self._cursors = threading.local()

    def con(self) -> duckdb.DuckDBPyConnection:
        """The connection of this thread."""
        if threading.get_ident() == self._thread:
            return self._con
        if not hasattr(self._cursors, "con"):
            self._cursors.con = self.cursor()
        cursor: duckdb.DuckDBPyConnection = self._cursors.con
        return cursor

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new cursor with the macros, which is closed with the connection."""
        with errors_of_ours():
            cursor = self._con.cursor()
            self._equip(cursor)
            return cursor

    def rows(self, text: Template, tables: Sequence[object], *values: object) -> list[tuple[Any, ...]]:
        """All rows of a statement, which runs once."""
        with errors_of_ours():
            con = self.con()
            names, given = named(con, tables)
            parameters = [*names, *map(plain, values)]
            call = functools.partial(con.execute, text(*numbered(parameters)), parameters)
            found: list[tuple[Any, ...]] = with_variables(call, given).fetchall()
            return found

    def kept(self, text: Template, tables: Sequence[object], *values: object) -> duckdb.DuckDBPyRelation:
        """All rows of a query, as a relation that does not run it again."""
        with errors_of_ours():
            con = self.con()
            names, given = named(con, tables)
            call = functools.partial(with_variables, given=given)
            return kept(con, text, [*names, *map(plain, values)], call)

    def planned(self, text: Template, tables: Sequence[object], *literals: Sql) -> duckdb.DuckDBPyRelation:
        """A query with literals as a relation, which runs it each time that it is looked at."""
        with errors_of_ours():
            con = self.con()
            names, given = named(con, tables)
            query = functools.partial(con.sql, text(*map(literal, names), *literals))
            relation: duckdb.DuckDBPyRelation = with_variables(query, given)
            return relation
