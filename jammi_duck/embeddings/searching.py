"""Runs a search of a table: says which vectors or words are meant, has them searched, and gives the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from jammi_duck.embeddings.layout import KEY, Layout, Place, columns_of, layout_of
from jammi_duck.embeddings.stored import Upkeep, as_column, cursor_of, entries_of, vectors_in
from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.raised import errors_of_ours
from jammi_duck.sql import Sql, folded, joined, quoted, sql
from jammi_duck.udfs.filters.trees import parse

if TYPE_CHECKING:
    from jammi_duck.jammi import Jammi
    from jammi_duck.storage.tables.catalog import Entry
    from jammi_duck.types import Vectors
    from jammi_duck.udfs.engine import Engine

QueryType: TypeAlias = Literal["auto", "vector", "fts", "hybrid"]
QUERY_TYPES = ("auto", "vector", "fts", "hybrid")
_LIMIT = 10
# The modes of jammi_search; and what ranks, in its columns and here.
_MODES = {"vector": "vector", "fts": "text", "hybrid": "hybrid"}
_SCORES = {"vector": ("_distance", "_distance"), "fts": ("_score", "_score"), "hybrid": ("_score", "_relevance_score")}
_PLACE = "_jammi_place"
# How versions of DuckDB refuse one value for all rows beside one for each.
_OF_AGGREGATES = ("GROUP BY", "Aggregates cannot be present")
# After the columns of the table come these.
_OURS = ("_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25")


@dataclass
class Asked:
    """What is asked for: a text, a vector or bytes; None for all rows."""

    query: Any
    column: str | None
    query_type: str
    limit: int | None = None
    where: str | None = None


@dataclass(frozen=True)
class _Target:
    """A column of vectors, and the embedding table that has them, if a function makes them."""

    name: str
    entry: Entry | None


@dataclass(frozen=True)
class Search:
    """A search of the table at a place."""

    jammi: Jammi
    place: Place
    asked: Asked

    def found(self) -> Found:
        """The rows that the query finds, or all rows.

        Raises:
            InputError: the query does not fit the table, or the condition cannot be used.
            ModelError: the function that embeds the query cannot be had.
        """
        if self.asked.query is None:
            return self._all()
        kind, target = self._meant()
        if target is not None and target.entry is None:
            return self._in_column(target.name)
        return self._in_embedding_table(kind, target.entry if target and target.entry else self._words())

    def _all(self) -> Found:
        if self.asked.query_type != "auto":
            raise InputError(
                f"query_type is '{self.asked.query_type}', and there is no query; give a text, a vector or a picture"
            )
        rows = scanned(self.jammi, self.place, sql("*"), self.asked.where, self.asked.limit)
        ids = rows.column(KEY).cast(pa.string()).to_pylist() if KEY in rows.column_names else None
        return Found(self, rows, ids)

    def _in_column(self, column: str) -> Found:
        """Compare all vectors of a column, which no function makes."""
        found = self.jammi.search_column(
            self.place.written,
            column,
            self.asked.query,
            self.asked.limit or _LIMIT,
            filter=self.asked.where,
            key=KEY if self.layout.has_key else None,
        )
        return self._given_back("vector", found)

    def _in_embedding_table(self, kind: str, entry: Entry) -> Found:
        Upkeep(self.jammi, self.place).make_current(entry)
        found = self.jammi.search(
            self.place.written,
            self.asked.query,
            self.asked.limit or _LIMIT,
            filter=self.asked.where,
            mode=_MODES[kind],
            embedding_table=entry.name,
        )
        return self._given_back(kind, found)

    def _given_back(self, kind: str, found: Any) -> Found:  # noqa: ANN401 - a relation
        with errors_of_ours():
            rows = found.to_arrow_table()
        theirs, name = _SCORES[kind]
        ours = rows.num_columns - len(_OURS)
        # A column that is called like one of ours has got another name.
        own = rows.select(range(ours)).rename_columns(list(self.layout.names))
        return Found(self, own, rows.column(ours).to_pylist(), (name, rows.column(theirs)))

    @cached_property
    def layout(self) -> Layout:
        """The columns of the table."""

        def layout(engine: Engine) -> Layout:
            with cursor_of(engine) as cursor:
                return layout_of(cursor, self.place)

        found: Layout = self.jammi._with_engine(layout)
        return found

    @cached_property
    def _entries(self) -> Sequence[Entry]:
        found: Sequence[Entry] = self.jammi._with_engine(entries_of, self.place, self.layout)
        return found

    @cached_property
    def targets(self) -> Sequence[_Target]:
        """The columns of vectors, in their order, and after them what SQL has embedded besides."""
        made = []
        for entry in self._entries:
            if entry.definition.has_vectors:
                columns = ", ".join(entry.definition.columns)
                made.append(_Target(self.layout.vector_of(entry) or entry.definition.embedding or columns, entry))
        of_columns = {target.name: target for target in made}
        own = [of_columns.pop(name, _Target(name, None)) for name in self.layout.vectors]
        return [*own, *of_columns.values()]

    def _meant(self) -> tuple[str, _Target | None]:
        """What kind of a search this is, and of which column; None for the words of all columns of text.

        Raises:
            InputError: there is no such column, or several and it is not said which.
        """
        kind, is_text = self.asked.query_type, isinstance(self.asked.query, str)
        if kind == "vector" or (kind == "auto" and not is_text):
            target = self._one_of(self.targets)
            if is_text and target.entry is None:
                raise InputError(
                    f"'{target.name}' of '{self.place.name}' has no function that makes a vector of a text; give a "
                    "vector, or query_type='fts' for its words"
                )
            return "vector", target
        if not is_text:
            raise InputError(f"query_type is '{kind}', which searches for a text; a vector needs query_type='vector'")
        made = [target for target in self.targets if target.entry]
        if self.asked.column is None and not made and kind != "hybrid":
            return "fts", None
        target = self._one_of(self.targets if self.asked.column else made)
        if target.entry is None:
            if kind == "hybrid":
                raise InputError(
                    f"'{target.name}' of '{self.place.name}' has no function, and a hybrid search needs the vector "
                    "of the text; query_type='fts' goes by its words"
                )
            return "fts", None
        return "vector" if kind == "auto" else kind, target

    def _one_of(self, targets: Sequence[_Target]) -> _Target:
        """The column that is meant, by its name or that of its source, or the only one."""
        names, table = [target.name for target in targets], f"'{self.place.name}'"
        if self.asked.column is None:
            if len(targets) == 1:
                return targets[0]
            if not targets:
                raise InputError(f"{table} has no column of vectors that can be searched for this")
            raise InputError(
                f"{table} has several columns of vectors: {enumerated(names)}; say which is meant, with "
                f"vector_column_name={names[0]!r}"
            )
        wanted = folded(str(self.asked.column))
        sources = ((target, target.entry.definition.columns) for target in targets if target.entry)
        named = [target for target in targets if folded(target.name) == wanted]
        named += [target for target, columns in sources if [*map(folded, columns)] == [wanted]]
        if not named:
            near = did_you_mean(str(self.asked.column), names) or ";"
            there = enumerated(names) or "none"
            raise InputError(f"{table} has no column of vectors '{self.asked.column}'{near} there are: {there}")
        return named[0]

    def _words(self) -> Entry:
        """The embedding table that has the words of all columns of text; it is made, if there is none.

        Raises:
            InputError: there are no such columns, or the table has no key.
        """
        known = [entry for entry in self._entries if entry.definition.words]
        if known and (not self.layout.has_key or any(entry.definition.has_vectors for entry in self._entries)):
            return known[0]
        table = self.place.name
        if not self.layout.has_key:
            raise InputError(
                f"'{table}' has no embeddings; SELECT * FROM jammi_generate('{table}', columns, key) makes some"
            )
        columns = self.jammi._with_engine(self._text_columns)
        if not columns:
            raise InputError(f"'{table}' has no column of text, and no function that makes vectors of texts")
        # A column of text may have come since.
        same = [entry for entry in known if {*map(folded, entry.definition.columns)} == {*map(folded, columns)}]
        if same:
            return same[0]
        made = self.jammi.generate(self.place.written, columns, KEY, vectors=False)
        entry: Entry = self.jammi._with_engine(lambda engine: engine.tables.ready(made.embedding_table))
        return entry

    def _text_columns(self, engine: Engine) -> list[str]:
        with cursor_of(engine) as cursor:
            return [each.name for each in columns_of(cursor, self.place) if each.kind == pa.string()]

    def stored(self, entry: Entry, row_ids: Sequence[str]) -> Mapping[str, Vectors]:
        """Vectors of rows, by their keys."""
        found: Mapping[str, Vectors] = self.jammi._with_engine(
            lambda engine: engine.tables.table(engine.tables.ready(entry.name)).vectors(row_ids)
        )
        return found


@dataclass(frozen=True)
class Found:
    """Rows with their keys as texts, if they have any, and what ranks them, if anything does."""

    search: Search
    rows: pa.Table
    row_ids: list[str] | None
    score: tuple[str, pa.ChunkedArray] | None = None

    def selected(self, select: Sequence[str] | Mapping[str, str] | None, *, with_key: bool) -> pa.Table:
        """Some columns of the rows, or expressions over them, with what ranks them.

        Raises:
            InputError: there is no such column, or an expression cannot be used.
        """
        names, places = self.rows.column_names, pa.array(range(self.rows.num_rows), pa.int64())
        if isinstance(select, Mapping):
            chosen, places = self._worked_out(self._with_vectors(names), select)
        else:
            wanted = [name for name in names if name != KEY] if select is None else self._checked(select)
            chosen = self._with_vectors(wanted).select(wanted)
        if self.score and self.score[0] not in chosen.column_names:
            chosen = chosen.append_column(self.score[0], self.score[1].take(places))
        if with_key and self.row_ids is not None and KEY not in chosen.column_names:
            key = self.rows.column(KEY) if KEY in names else pa.array(self.row_ids, pa.string())
            chosen = chosen.append_column(KEY, key.take(places))
        return chosen

    def _checked(self, select: Sequence[str]) -> list[str]:
        """Those of the names that are columns of the table; what ranks the rows may be named, too."""
        names = self.rows.column_names
        for name in select:
            if name not in names and not (self.score and name == self.score[0]):
                shown = [each for each in names if each != KEY]
                near = did_you_mean(str(name), shown) or ";"
                raise InputError(f"no column '{name}' in '{self.search.place.name}'{near} columns: {enumerated(shown)}")
        return [name for name in select if name in names]

    def _worked_out(self, rows: pa.Table, expressions: Mapping[str, str]) -> tuple[pa.Table, pa.ChunkedArray]:
        """What expressions are, best first, and from which of the rows: one may give several rows for each, or none."""
        placed = rows.append_column(_PLACE, pa.array(range(rows.num_rows), pa.int64()))

        def project(engine: Engine) -> pa.Table:
            columns = [sql("{} AS {}", _expression(engine, each), quoted(name)) for name, each in expressions.items()]
            # DuckDB takes a subclass of str for the name of a column.
            text = str(joined(", ", [*columns, quoted(_PLACE)]))
            with cursor_of(engine) as cursor:
                return cursor.from_arrow(placed).project(text).to_arrow_table()

        try:
            found: pa.Table = self.search.jammi._with_engine(project)
        except InputError as error:
            if not any(words in str(error) for words in _OF_AGGREGATES):
                raise
            raise InputError(
                "select has an expression that is one value for all rows, as count(*) is; each must be worked out for "
                "a row: count_rows() counts rows, and SQL does the rest"
            ) from error
        last = found.num_columns - 1
        # A window of DuckDB's changes the order.
        found = found.take(np.argsort(found.column(last).to_numpy(), kind="stable"))
        return found.select(range(last)), found.column(last)

    def _with_vectors(self, names: Sequence[str]) -> pa.Table:
        """The rows, with the vectors that functions have made in those of their columns that are wanted."""
        rows = self.rows
        if not self.row_ids or self.search.layout.vectors.keys().isdisjoint(names):
            return rows
        for target in self.search.targets:
            if target.entry and target.name in names and target.name in self.search.layout.vectors:
                there, matrix = vectors_in(rows.column(target.name).combine_chunks())
                absent = [self.row_ids[place] for place in np.flatnonzero(~there)]
                stored = self.search.stored(target.entry, absent) if absent else {}
                for place in np.flatnonzero(~there):
                    vector = stored.get(self.row_ids[place])
                    if vector is not None:
                        matrix[place], there[place] = vector, True
                rows = rows.set_column(rows.column_names.index(target.name), target.name, as_column(there, matrix))
        return rows


def _expression(engine: Engine, expression: object) -> Sql:
    """An expression of a user's, if it is one and nothing more. Raises InputError."""
    if not isinstance(expression, str):
        raise InputError(f"select has {expression!r}, which is no expression in SQL; give a text")
    tree, plain = parse(engine.host, f"SELECT ({expression}\n)"), parse(engine.host, "SELECT (true\n)")
    if tree["error"]:
        raise InputError(f"the expression '{expression}' cannot be parsed: {tree['error_message']}")
    around = [[{**each["node"], "select_list": len(each["node"]["select_list"])} for each in t["statements"]]
              for t in (tree, plain)]  # fmt: skip
    if around[0] != around[1]:
        raise InputError(f"the expression '{expression}' is more than one expression")
    return Sql(f"({expression}\n)")


def check_condition(where: object) -> None:
    """Raise InputError where a condition is no text."""
    if not isinstance(where, str):
        raise InputError(f"where is of type {type(where).__name__}; it must be a condition in SQL, as a text")


def scanned(jammi: Jammi, place: Place, wanted: Sql, where: str | None, limit: int | None) -> pa.Table:
    """What is `wanted` of the rows that meet a condition, in the order in which they came.

    Raises:
        InputError: the condition cannot be used: it must be one, and can change nothing.
    """
    if where is not None:
        check_condition(where)

    def scan(engine: Engine) -> pa.Table:
        text = sql("SELECT {} FROM {} AS {}", wanted, place.sql, quoted(place.name))
        with cursor_of(engine) as cursor:
            if where is not None:
                ((transaction,),) = cursor.execute(sql("SELECT txid_current()")).fetchall()
                condition = engine.conditions.of(where, place.name, place.database, ["main"], transaction)
                if condition.parameters:
                    raise InputError(f"the condition '{where}' has parameters; write the values in their places")
                text = sql("{} WHERE {}", text, condition.proven())
            if limit is not None:
                text = sql("{} LIMIT {}", text, limit)
            return cursor.sql(text).to_arrow_table()

    return jammi._with_engine(scan)
