"""A table whose rows are embedded as they are added, and searched by what is asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jammi_duck.embeddings.fitting import BadVectors, OnBad, Rows, fitted
from jammi_duck.embeddings.layout import KEY, Layout, Place, columns_of, layout_of
from jammi_duck.embeddings.query import Query
from jammi_duck.embeddings.rows import Given, collected
from jammi_duck.embeddings.searching import QueryType, scanned
from jammi_duck.embeddings.stored import Upkeep, cursor_of, entries_of
from jammi_duck.embeddings.writing import Target, Writing
from jammi_duck.errors import EncodingError, InputError
from jammi_duck.sql import sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.udfs.engine import Engine
from jammi_duck.work.adding import Addition

if TYPE_CHECKING:
    from jammi_duck.jammi import Jammi


class Table:
    """A table of a `Connection`: its rows are a table of DuckDB, and its vectors embedding tables of that."""

    def __init__(self, jammi: Jammi, place: Place, *, is_view: bool = False) -> None:
        """The table at a place, which is there."""
        self.jammi = jammi
        self.place = place
        self._is_view = is_view

    @property
    def name(self) -> str:
        """Its name."""
        return self.place.name

    @property
    def schema(self) -> pa.Schema:
        """Its columns, as an Arrow schema, without the key."""
        return self.search().limit(1).to_arrow().schema

    def add(self, data: Any, on_bad_vectors: OnBad = "error", fill_value: float = 0.0) -> int:  # noqa: ANN401
        """Add rows, and embed what they bring no vector for. All of them are there afterwards, or none.

        A vector that is given stays as it is, and the row is found by it. A row without a text has no vector.

        Args:
            data: a list of dicts or of models, a DataFrame of pandas or polars, an Arrow table, or an iterator.
            on_bad_vectors: what becomes of a row whose vector has a wrong width or a number that is not finite, or
                whose text cannot be embedded: `error` refuses all rows, `drop` leaves this one out, `fill` gives it a
                vector of `fill_value`, and `null` none; a text whose vector was bad is embedded then.
            fill_value: a number.

        Returns:
            How many rows were added.

        Raises:
            InputError: a row does not fit the table; names the row and the field.
            NotFoundError: SQL has renamed the table or the source, or dropped the vectors; says what to do.
            EncodingError: a text could not be embedded, or the provider refuses.
            ModelError: a function cannot be had, or is not what it was; says what to set, import or install.
            StorageError: the files cannot be written.

        Example:
            >>> table.add([{"text": "hello world"}, {"text": "goodbye world"}])
            2
        """
        if self._is_view:
            raise InputError(f"'{self.name}' is a view; add rows to the table that it reads")
        bad = BadVectors(on_bad_vectors, fill_value)
        added: int = self.jammi._with_engine(self._added, collected(data), bad)
        return added

    def search(
        self,
        query: Any = None,  # noqa: ANN401 - a text, a vector, a picture
        vector_column_name: str | None = None,
        query_type: QueryType = "auto",
    ) -> Query:
        """Search the rows. Nothing runs before the rows are asked for, with `to_list()` or the like.

        Args:
            query: a text; a vector, as a list or an array; a picture, as bytes or one of Pillow's; None for all rows.
            vector_column_name: the column of vectors that is meant, if there are several.
            query_type: `vector`, `fts` (by the words of a text), `hybrid` (by both), or `auto`: a text is searched by
                its vector if the column has a function, and otherwise by its words.

        Returns:
            A query, to which `limit`, `where` and `select` may be added.

        Raises:
            InputError: there is no such type.

        Example:
            >>> table.search("greetings").where("length(text) < 20").limit(1).to_list()
        """
        return Query(self.jammi, self.place, query, vector_column_name, query_type)

    def refresh(self) -> None:
        """Bring the vectors up to date with the rows, after SQL has changed texts, or vectors that rows bring.

        A search does so by itself if the number of rows has changed; other changes it does not notice.

        Raises:
            ModelError: something is to be embedded, and a function cannot be had.
            NotFoundError: SQL has renamed the table or the source, or dropped the vectors; says what to do.
            StorageError: the files cannot be read or written.

        Example:
            >>> db.con.execute("UPDATE words SET text = 'good morning' WHERE text = 'hello world'")
            >>> table.refresh()
        """
        for entry in self._entries():
            Upkeep(self.jammi, self.place).refresh(entry)

    def count_rows(self, where: str | None = None) -> int:
        """How many rows there are.

        Args:
            where: a condition in SQL.

        Returns:
            Their number.

        Raises:
            InputError: the condition cannot be used.

        Example:
            >>> table.count_rows("text LIKE 'hello%'")
            1
        """
        return int(scanned(self.jammi, self.place, sql("count(*)"), where, None).column(0)[0].as_py())

    def to_arrow(self) -> pa.Table:
        """All rows.

        Returns:
            An Arrow table.

        Example:
            >>> table.to_arrow().num_rows
            2
        """
        return self.search().to_arrow()

    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas need not be there
        """All rows.

        Returns:
            A DataFrame of pandas.

        Example:
            >>> table.to_pandas()
        """
        return self.search().to_pandas()

    def to_polars(self) -> Any:  # noqa: ANN401 - polars need not be there
        """All rows.

        Returns:
            A DataFrame of polars.

        Example:
            >>> table.to_polars()
        """
        return self.search().to_polars()

    def __len__(self) -> int:
        """How many rows there are."""
        return self.count_rows()

    def __repr__(self) -> str:
        """Its name."""
        return f"Table({self.name!r})"

    def _entries(self) -> list[Entry]:
        def entries(engine: Engine) -> list[Entry]:
            with cursor_of(engine) as cursor:
                layout = layout_of(cursor, self.place)
            return [entry for entry in entries_of(engine, self.place, layout) if entry.definition.columns]

        found: list[Entry] = self.jammi._with_engine(entries)
        return found

    def _added(self, engine: Engine, data: Given, bad: BadVectors) -> int:
        with cursor_of(engine) as cursor:
            layout, columns = layout_of(cursor, self.place), columns_of(cursor, self.place)
        entries = [entry for entry in entries_of(engine, self.place, layout) if entry.definition.columns]
        rows = fitted(data, columns, self.name, bad)
        if not rows.table.num_rows:
            return 0
        others = [entry for entry in entries if entry.definition.key != KEY]
        targets = [self._target(engine, layout, entry, rows) for entry in entries if entry not in others]
        writing = functools.partial(
            Writing, engine, place=self.place, rows=rows, bad=bad, targets=targets, has_key=layout.has_key
        )
        if not others:
            with cursor_of(engine) as cursor:
                return writing(con=cursor).write()
        # These have a key of the user's, which may have been there before: so they are compared.
        jammi = self.jammi.cursor()
        try:
            return writing(con=jammi.con, also=functools.partial(self._compare, jammi, others, bad)).write()
        finally:
            jammi.con.close()

    def _target(self, engine: Engine, layout: Layout, entry: Entry, rows: Rows) -> Target:
        addition = Addition(engine.tables, engine.encoders, engine.jobs, entry, rows.table.num_rows)
        return Target(addition, layout.vector_of(entry))

    def _compare(self, jammi: Jammi, entries: list[Entry], bad: BadVectors) -> None:
        """Refresh embedding tables with what the transaction sees."""
        for entry in entries:
            failed = jammi.refresh(self.place.written, embedding_table=entry.name).failed - entry.counts.failed
            if failed > 0 and bad.policy == "error":
                raise EncodingError(
                    f"{failed} of the texts could not be embedded by '{entry.definition.model}'; on_bad_vectors='null' "
                    "accepts such rows"
                )
