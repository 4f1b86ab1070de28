"""A search of a table, which runs when its rows are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pyarrow as pa

from jammi_duck.embeddings.rows import is_picture, picture_bytes
from jammi_duck.embeddings.searching import QUERY_TYPES, Asked, Search, check_condition
from jammi_duck.embeddings.stored import cursor_of
from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.udfs.arguments import plain

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from jammi_duck.embeddings.layout import Place
    from jammi_duck.jammi import Jammi
    from jammi_duck.udfs.engine import Engine

    M = TypeVar("M", bound=BaseModel)


class Query:
    """A search: `limit`, `where` and `select` change it and give it back, and `to_list` and the like run it."""

    def __init__(self, jammi: Jammi, place: Place, query: Any, column: str | None, query_type: str) -> None:  # noqa: ANN401
        """See `Table.search`."""
        if query_type not in QUERY_TYPES:
            near = did_you_mean(str(query_type), QUERY_TYPES) or ";"
            raise InputError(f"query_type is {query_type!r}{near} it must be one of {enumerated(QUERY_TYPES)}")
        self._jammi = jammi
        self._place = place
        self._asked = Asked(picture_bytes(query) if is_picture(query) else query, column, query_type)
        self._select: Sequence[str] | Mapping[str, str] | None = None
        self._with_row_id = False

    def limit(self, limit: int | None) -> Self:
        """Give so many rows: by default 10, and all rows without a query.

        Args:
            limit: a whole number from 1 on.

        Returns:
            The query.

        Raises:
            InputError: it is something else.

        Example:
            >>> table.search("greetings").limit(3).to_list()
        """
        number = plain(limit)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise InputError(f"limit is {limit!r}; it must be a whole number from 1 on")
        self._asked.limit = number
        return self

    def where(self, where: str) -> Self:
        """Search only rows that meet a condition.

        Args:
            where: a condition in SQL over the columns of the table, as `jammi_search` takes it for its filter: it can
                change nothing.

        Returns:
            The query.

        Raises:
            InputError: it is no text.

        Example:
            >>> table.search("greetings").where("text <> 'goodbye world'").to_list()
        """
        check_condition(where)
        self._asked.where = where
        return self

    def select(self, columns: Sequence[str] | Mapping[str, str]) -> Self:
        """Give only some columns, and what ranks the rows.

        Args:
            columns: the names, or a dict of expressions in SQL by the names that they get.

        Returns:
            The query.

        Raises:
            InputError: it is neither.

        Example:
            >>> table.search("greetings").select({"loud": "upper(text)"}).to_list()
        """
        if isinstance(columns, str) or not isinstance(columns, Sequence | Mapping):
            raise InputError(f"select is {columns!r}; give a list of columns, or a dict of expressions by their names")
        self._select = columns
        return self

    def with_row_id(self, with_row_id: bool = True) -> Self:
        """Give the key of each row, too, as `_rowid`.

        Args:
            with_row_id: whether.

        Returns:
            The query.

        Example:
            >>> table.search("greetings").with_row_id().to_list()
        """
        self._with_row_id = with_row_id
        return self

    def to_arrow(self) -> pa.Table:
        """Run it.

        Returns:
            The rows as an Arrow table, best first: the columns of the table, and `_distance` (1 - the cosine of the
            vectors), `_score` (the BM25 of a search by words) or `_relevance_score` (of a hybrid search).

        Raises:
            InputError: the query does not fit the table, or the condition or a column cannot be used.
            NotFoundError: SQL has renamed the table or the source, or dropped the vectors; says what to do.
            ModelError: the function that embeds the query cannot be had; says what to set, import or install.
            StorageError: the vectors cannot be read.

        Example:
            >>> table.search("greetings").limit(1).to_arrow().column_names
            ['text', 'vector', '_distance']
        """
        search = Search(self._jammi, self._place, self._asked)
        return search.found().selected(self._select, with_key=self._with_row_id)

    def to_list(self) -> list[dict[str, Any]]:
        """Run it.

        Returns:
            The rows as dicts; for their columns, and for errors, see `to_arrow`.

        Example:
            >>> table.search("greetings").limit(1).to_list()[0]["text"]
            'hello world'
        """
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas need not be there
        """Run it.

        Returns:
            The rows as a DataFrame of pandas; see `to_arrow`.

        Example:
            >>> table.search("greetings").to_pandas()
        """
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:  # noqa: ANN401 - polars need not be there
        """Run it.

        Returns:
            The rows as a DataFrame of polars; see `to_arrow`.

        Example:
            >>> table.search("greetings").to_polars()
        """
        rows = self.to_arrow()

        def polars(engine: Engine) -> Any:  # noqa: ANN401 - as above
            with cursor_of(engine) as cursor:
                return cursor.from_arrow(rows).pl()

        return self._jammi._with_engine(polars)

    def to_pydantic(self, model: type[M]) -> list[M]:
        """Run it.

        Args:
            model: a model of pydantic; it gets the columns that it has fields for.

        Returns:
            The rows as models; see `to_arrow`.

        Raises:
            pydantic.ValidationError: a row does not fit the model.

        Example:
            >>> table.search("greetings").limit(1).to_pydantic(Words)[0].text
            'hello world'
        """
        names = {name: _called(name, info) for name, info in model.model_fields.items()}
        rows = self.to_list()
        return [model(**{called: row[name] for name, called in names.items() if name in row}) for row in rows]


def _called(name: str, info: FieldInfo) -> str:
    """What a model calls a field when it is made."""
    return next((alias for alias in (info.validation_alias, info.alias) if isinstance(alias, str)), name)
