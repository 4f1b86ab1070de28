"""The verbs for vectors in a column of the user's own table, as methods for Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from jammi_duck.encoder.blanks import is_blank
from jammi_duck.errors import InputError
from jammi_duck.sql import NULL, Sql, joined, quoted, sql, template
from jammi_duck.udfs import arguments
from jammi_duck.udfs.filling import ColumnFilled

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.statements import Statements
    from jammi_duck.variables import Source

    Vector: TypeAlias = Sequence[float] | NDArray[np.float32] | NDArray[np.float64]


class ColumnMethods:
    """The methods of `Jammi` that work on a column of vectors."""

    _statements: Statements

    def fill(
        self,
        source: str,
        text: str,
        vector: str,
        *,
        key: str | Sequence[str] | None = None,
        model: str | None = None,
    ) -> ColumnFilled:
        """Embed the rows of a table that have no vector, into a column beside the text: SQL's `jammi_fill`.

        The column is added, if it is not there. The vectors are written in batches, each committed as a whole.

        Args:
            source: the name of a table of a DuckDB database, which is committed.
            text: its column with the text.
            vector: its column for the vectors. A row that has one there stays as it is.
            key: the column that tells rows apart, or several; by default the primary key, or the rowid.
            model: a name, or a directory; by default that of `install`.

        Returns:
            What was done: source str, model str, row_count int (rows that got a vector), skipped_count int (rows
            without a text), failed_count int, left_count int (rows with a text that have no vector still), dimensions
            int, seconds float.

        Raises:
            NoSourceError: there is no such table. NotFoundError: a column is not there.
            InputError: the source is no table, the transaction has changed it, it cannot be written to, or the column
                has vectors of another length.
            ModelError: the model cannot be used; NoModelError where it cannot be found.
            BuildError: the work was interrupted; StateError where others write to the same rows.

        Example:
            >>> jammi.fill("animals", "text", "vector").row_count
            5
            >>> con.execute("UPDATE animals SET text = 'a cat purrs', vector = NULL WHERE id = 1") and None
            >>> jammi.fill("animals", "text", "vector").row_count
            1
        """
        names = None if key is None else [key] if isinstance(key, str) else list(key)
        text_of = template("SELECT * FROM jammi_fill({}, {}, {}, key := {}, model := {})")
        (row,) = self._statements.rows(text_of, (source,), text, vector, names, model)
        return ColumnFilled(*row)

    def search_column(
        self,
        source: Source,
        vector: str,
        query: str | bytes | Vector | None,
        k: int = 10,
        *,
        model: str | None = None,
        filter: str | None = None,
        key: str | Sequence[str] | None = None,
        min_similarity: float | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The rows whose vectors in a column are nearest to a question, best first: SQL's `jammi_search_column`.

        All vectors are compared; there is no embedding table and no index. Rows without a vector are left out.

        Args:
            source: what has the column.
            vector: the column: FLOAT[n], FLOAT[] or DOUBLE[].
            query: a text, or a vector; None finds nothing.
            k: how many rows.
            model: what has made the vectors, for a text; by default that of `install`.
            filter: a condition in SQL over the columns of the source, which can change nothing.
            key: the column that names a row, or several; by default the primary key, or the rowid.
            min_similarity: leave out rows whose cosine is less.
            parameters: values for each `$name` in the filter.

        Returns:
            A relation: the source's columns, then _row_id VARCHAR, _rank INTEGER, _score FLOAT, _similarity FLOAT,
            _distance FLOAT, _bm25 FLOAT, of which there is none here.

        Raises:
            NoSourceError: the source is not there.
            InputError: the query is blank, or has another length than the vectors, there is no such column of vectors,
                or an argument or the filter is wrong.
            ModelError: the model cannot be used; NoModelError where it cannot be found.

        Example:
            >>> jammi.fill("animals", "text", "vector") and None
            >>> jammi.search_column("animals", "vector", "a fish", 2).project("id, name").fetchall()
            [(4, 'fish'), (1, 'cat')]
        """
        if isinstance(query, str) and is_blank(query):
            raise InputError("the query is an empty text; give some words, or a vector")
        values = arguments.parameters(parameters)
        names = None if key is None else [key] if isinstance(key, str) else list(key)

        def text(
            source: Sql, vector: Sql, query: Sql, k: Sql, model: Sql, filter: Sql, key: Sql, least: Sql, *given: Sql
        ) -> Sql:
            packed = joined(
                ", ", (sql("{} := {}", quoted(name), each) for name, each in zip(values, given, strict=True))
            )
            return sql(
                "SELECT * FROM jammi_search_column({}, {}, {}, {}, model := {}, filter := {}, key := {}, "
                "min_similarity := {}, parameters := {})",
                source,
                vector,
                query,
                k,
                model,
                filter,
                key,
                least,
                sql("struct_pack({})", packed) if values else NULL,
            )

        asked = (vector, arguments.query(query), k, model, filter, names, min_similarity)
        return self._statements.kept(text, (source,), *asked, *values.values())
