"""The verbs of the SQL as methods for Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb

from jammi_duck.config.redaction import redacted
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.relations import relation
from jammi_duck.sql import literal, quoted
from jammi_duck.udfs.arguments import plain
from jammi_duck.work.compact import Compacted
from jammi_duck.work.generate import Generated
from jammi_duck.work.refresh import Refreshed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = Sequence[float] | NDArray[np.float32] | NDArray[np.float64]


class Jammi:
    """What `install` returns: the verbs of the SQL as methods, on the connection that was equipped."""

    def __init__(self, con: duckdb.DuckDBPyConnection, location: str) -> None:
        """`location` is where the embedding tables are."""
        self.con = con
        self.location = location

    def generate(
        self,
        source: str,
        columns: str | Sequence[str],
        key: str,
        model: str | None = None,
        *,
        dims: int | None = None,
        reuse: bool = False,
        resume: bool = False,
    ) -> Generated:
        """Embed the text of `columns` for every row of `source` and persist it; says what came of it.

        With `reuse`, an embedding table that is just what this would make is given instead. With `resume`, a build of
        the same that was interrupted goes on where it was.

        Raises:
            duckdb.Error: anything that SQL's `jammi_generate` refuses, with the reason.
        """
        text = "SELECT * FROM jammi_generate(?, ?, ?, model := ?, dims := ?, reuse := ?, resume := ?)"
        return Generated(*self._row(text, source, _listed(columns), key, model, dims, reuse, resume))

    def status(
        self, source: str, *, model: str | None = None, embedding_table: str | None = None
    ) -> duckdb.DuckDBPyRelation:
        """How the embedding table of `source` differs from it, and what to do, as a DuckDB relation of one row.

        Raises:
            duckdb.Error: anything that SQL's `jammi_status` refuses, with the reason.
        """
        text = "SELECT * FROM jammi_status({}, model := {}, embedding_table := {})"
        return self._relation(text, source, model, embedding_table)

    def refresh(self, source: str, *, model: str | None = None, embedding_table: str | None = None) -> Refreshed:
        """Make the embedding table of `source` follow it: only texts that are new are embedded.

        Raises:
            duckdb.Error: anything that SQL's `jammi_refresh` refuses, with the reason.
        """
        text = "SELECT * FROM jammi_refresh(?, model := ?, embedding_table := ?)"
        return Refreshed(*self._row(text, source, model, embedding_table))

    def compact(self, source: str, *, model: str | None = None, embedding_table: str | None = None) -> Compacted:
        """Merge the segments of the embedding table of `source`, without the rows that are gone; nothing is embedded.

        Raises:
            duckdb.Error: anything that SQL's `jammi_compact` refuses, with the reason.
        """
        text = "SELECT * FROM jammi_compact(?, model := ?, embedding_table := ?)"
        return Compacted(*self._row(text, source, model, embedding_table))

    def import_vectors(
        self,
        source: str,
        vectors: str,
        key: str,
        vector: str,
        model: str,
        columns: str | Sequence[str] | None = None,
    ) -> Generated:
        """Make an embedding table of `source` from vectors that `model` has made elsewhere; nothing is embedded.

        `vectors` is a table that has them in its column `vector`; its column `key` has the same values as the one of
        the same name in `source`. `columns` have the text that they stand for; only with them can the table follow.

        Raises:
            duckdb.Error: anything that SQL's `jammi_import` refuses, with the reason.
        """
        names = None if columns is None else _listed(columns)
        text = "SELECT * FROM jammi_import(?, ?, ?, ?, model := ?, cols := ?)"
        return Generated(*self._row(text, source, vectors, key, vector, model, names))

    def infer(
        self,
        source: str,
        columns: str | Sequence[str],
        key: str,
        model: str | None = None,
        *,
        task: str = "text_embedding",
        dims: int | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The vector of each row of `source`, as a DuckDB relation; nothing is persisted.

        Raises:
            duckdb.Error: anything that SQL's `jammi_infer` refuses, with the reason.
        """
        names = ", ".join(map(literal, _listed(columns)))
        chosen = "NULL" if model is None else literal(model)
        cut = "NULL" if dims is None else literal(str(plain(dims)))
        # Not as parameters: with those, older versions of DuckDB would run the whole query here and now.
        with _redacted():
            return self.con.sql(
                f"SELECT * FROM jammi_infer({literal(plain(source))}, system.main.list_value({names}), {literal(key)}, "
                f"model := {chosen}, task := {literal(task)}, dims := {cut})"
            )

    def search(
        self,
        source: str,
        query: str | Vector | None,
        k: int = 10,
        *,
        model: str | None = None,
        filter: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The `k` rows of `source` nearest to a text or a vector, as a DuckDB relation, best first; none for None.

        `filter` is a condition in SQL over the columns of `source`, which can change nothing. `parameters` are the
        values of its `$name`s: they stay values, whatever is in them. `min_similarity` is a cosine.

        Raises:
            duckdb.Error: anything that SQL's `jammi_search` refuses, with the reason.
        """
        return self._searched(
            "jammi_search",
            source,
            _plain(query),
            k,
            model,
            filter,
            exact,
            embedding_table,
            min_similarity,
            parameters=parameters,
        )

    def similar(
        self,
        source: str,
        key: object,
        k: int = 10,
        *,
        model: str | None = None,
        filter: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The `k` rows of `source` nearest to its row with this key, without that row; otherwise as `search`."""
        return self._searched(
            "jammi_similar",
            source,
            key,
            k,
            model,
            filter,
            exact,
            embedding_table,
            min_similarity,
            parameters=parameters,
        )

    def explain(
        self,
        source: str,
        query: str | Vector | None,
        k: int = 10,
        *,
        model: str | None = None,
        filter: str | None = None,
        exact: bool = False,
        embedding_table: str | None = None,
        min_similarity: float | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """How such a search is done, a row for each stage: what, why, with how many rows, and in how many ms."""
        return self._searched(
            "jammi_explain",
            source,
            _plain(query),
            k,
            model,
            filter,
            exact,
            embedding_table,
            min_similarity,
            parameters=parameters,
        )

    def check(
        self, source: str, k: int = 10, *, model: str | None = None, embedding_table: str | None = None
    ) -> duckdb.DuckDBPyRelation:
        """The recall of the index of `source` for `k` neighbours, and how long a search takes with it and without.

        Raises:
            duckdb.Error: anything that SQL's `jammi_check` refuses, with the reason.
        """
        text = "SELECT * FROM jammi_check({}, {}, model := {}, embedding_table := {})"
        return self._relation(text, source, k, model, embedding_table)

    def tables(self) -> duckdb.DuckDBPyRelation:
        """Every embedding table, as a DuckDB relation."""
        return self.con.sql("SELECT * FROM jammi_tables()")

    def models(self) -> duckdb.DuckDBPyRelation:
        """Every model that can be used here without a download, as a DuckDB relation."""
        return self.con.sql("SELECT * FROM jammi_models()")

    def _row(self, text: str, *arguments: object) -> tuple[Any, ...]:
        with _redacted():
            (row,) = self.con.execute(text, [plain(each) for each in arguments]).fetchall()
        return row

    def _searched(
        self, function: str, *arguments: object, parameters: Mapping[str, object] | None
    ) -> duckdb.DuckDBPyRelation:
        query = arguments[1]
        if function != "jammi_similar" and isinstance(query, str) and is_blank(query):
            raise duckdb.InvalidInputException("InputError: the query is an empty text; give some words, or a vector")
        names = [quoted(name).replace("{", "{{").replace("}", "}}") for name in parameters or {}]
        values = f"system.main.struct_pack({', '.join(f'{name} := {{}}' for name in names)})" if names else "NULL"
        text = (
            f"SELECT * FROM {function}({{}}, {{}}, {{}}, model := {{}}, filter := {{}}, exact := {{}}, "
            f"embedding_table := {{}}, min_similarity := {{}}, parameters := {values})"
        )
        return self._relation(text, *arguments, *(parameters or {}).values())

    def _relation(self, text: str, *arguments: object) -> duckdb.DuckDBPyRelation:
        with _redacted():
            return relation(self.con, text, [plain(each) for each in arguments])


def _listed(columns: str | Sequence[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns)


def _plain(query: str | Vector | None) -> str | list[float] | None:
    return query if query is None or isinstance(query, str) else [float(number) for number in query]


@contextlib.contextmanager
def _redacted() -> Iterator[None]:
    """Take users and signatures of URLs, which a source may be, out of what DuckDB says."""
    try:
        yield
    except duckdb.Error as error:
        if redacted(str(error)) == str(error):
            raise
        raise type(error)(redacted(str(error))) from None
