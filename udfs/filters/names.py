"""Resolves the names in a filter to macros, views and tables, by DuckDB's rules for the caller's search path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from jammi_duck.sql import folded
from jammi_duck.udfs.filters.definitions import DatabaseObjects, Macro, View

# A database and a schema.
Space: TypeAlias = tuple[str, str]


class Names:
    """The names that a caller sees, who is in a database and has these schemas on the search path."""

    def __init__(self, definitions: DatabaseObjects, database: str, schemas: Sequence[str]) -> None:
        """`definitions` are what the databases have by now."""
        self._definitions = definitions
        self._database = folded(database)
        self._schemas = [folded(schema) for schema in schemas] or ["main"]

    @property
    def home(self) -> Space:
        """Where a table is that no name of a schema stands before, and that is not found elsewhere."""
        return self._database, "main"

    def macros(self, name: str, spaces: Sequence[str], home: Space | None) -> list[Macro]:
        """The macros that a name means: DuckDB's own first, and else those where it is first found.

        `spaces` is what stands before the name: a schema, or a database and a schema. `home` is where the view or macro
        is that has the name in its text.
        """
        found = self._definitions.macros(name)
        own = [macro for macro in found if macro.database == "system"]
        if own and not spaces:
            return own
        return next((at for space in self._spaces(spaces, home) if (at := [m for m in found if at_of(m) == space])), [])

    def view(self, name: str, spaces: Sequence[str], home: Space | None) -> View | None:
        """The view that a name means, where it means one and no table."""
        tables, views = self._definitions.tables(folded(name)), self._definitions.views(folded(name))
        for space in self._spaces(spaces, home):
            if space in tables:
                return None
            for view in views:
                if at_of(view) == space and not view.internal and view.query:
                    return view
        return None

    def is_internal(self, name: str, spaces: Sequence[str], home: Space | None) -> bool:
        """Whether a name means no table, and a view of DuckDB's own has it."""
        is_table = any(space in self._definitions.tables(folded(name)) for space in self._spaces(spaces, home))
        return not is_table and any(view.internal for view in self._definitions.views(folded(name)))

    def table_space(self, name: str, home: Space | None) -> Space:
        """Where the table is that a name alone means: where it is first found, or else in the caller's `main`."""
        if home is not None or self._schemas != ["main"]:
            there = self._definitions.tables(folded(name))
            for space in self._spaces((), home):
                if space in there:
                    return space
        return home or self.home

    def _spaces(self, spaces: Sequence[str], home: Space | None) -> list[Space]:
        """The databases and schemas, in order, that a name may mean which stands in `spaces`."""
        if len(spaces) == 2:
            return [(folded(spaces[0]), folded(spaces[1]))]
        if spaces:
            space = folded(spaces[0])
            return [*([(home[0], space)] if home else []), (self._database, space), (space, "main")]
        return [*([home] if home else []), *((self._database, schema) for schema in self._schemas)]


def at_of(named: View | Macro) -> Space:
    """The database and the schema of a view or a macro."""
    return folded(named.database), folded(named.schema)
