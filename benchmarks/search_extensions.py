"""Rivals in benchmarks.search that are extensions of DuckDB: vss and lance.

They need a DuckDB older than ours, and so an environment of their own, which has the packages of
benchmarks/requirements-search-extensions.txt and nothing of ours.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.search_contenders import (
    CORES,
    EXPANSIONS,
    Contender,
    Found,
    Setting,
    bytes_below,
    grouped,
    vectors_table,
    write_tables,
)
from benchmarks.search_data import Data, K

if TYPE_CHECKING:
    import duckdb

_LATERAL = (
    f"SELECT q.n, s.id FROM q, LATERAL (SELECT v.id FROM v ORDER BY array_cosine_distance(q.v, v.vector) LIMIT {K}) s"
)


class Vss(Contender):
    """DuckDB's own extension vss, through SQL, with the index in the database."""

    labels = ("ef",)
    settings = tuple((expansion,) for expansion in EXPANSIONS)
    extension = "vss"
    # Where DuckDB 1.5 does not use the index for LATERAL, this brings it back (duckdb-vss, issue 80).
    _options: tuple[str, ...] = (
        "hnsw_enable_experimental_persistence = true",
        "disabled_optimizers = 'top_n_window_elimination'",
    )

    def prepare(self) -> None:
        """Write the queries and the rows' other columns."""
        con = self._connect()
        write_tables(con, Data.load(self.folder))
        con.close()

    def build(self, connectivity: int, expansion: int) -> None:
        """Write the vectors, and index them."""
        con = self._connect()
        documents = Data.load(self.folder).documents
        con.register("given", vectors_table("id", documents))
        con.execute(f"CREATE TABLE v AS SELECT id, vector::FLOAT[{documents.shape[1]:d}] AS vector FROM given")
        con.execute("CHECKPOINT")
        (self.folder / "vss.before").write_text(str(Path(self._database).stat().st_size))
        options = f"metric = 'cosine', M = {connectivity}, ef_construction = {expansion}"
        con.execute(f"CREATE INDEX graph ON v USING HNSW (vector) WITH ({options})")
        con.execute("CHECKPOINT")
        con.close()

    def open(self) -> None:
        """See `Contender`."""
        self._con = self._connect()

    def use(self, setting: Setting) -> None:
        """The breadth of the search."""
        self._con.execute(f"SET GLOBAL hnsw_ef_search = {setting[0]:d}")

    def one(self, query: int) -> Found:
        """By a variable: a sub-query, which is no constant, has DuckDB look at every vector."""
        return self._one(self._con, query)

    def batch(self, count: int) -> Any:  # noqa: ANN401 - a dict, or an array
        """By LATERAL where the index serves that, else one by one on all cores."""
        if "HNSW_INDEX_JOIN" in str(self._con.execute(f"EXPLAIN {_LATERAL}").fetchall()):
            # All of the queries, which are so many: with a condition on them the index is not used.
            return self._con.execute(_LATERAL).fetchnumpy()
        return self._one_by_one(count)

    def ids(self, found: Any) -> list[list[int]]:  # noqa: ANN401 - see Contender
        """See `Contender`."""
        return grouped(found["n"], found["id"]) if isinstance(found, dict) else super().ids(found)

    def sizes(self) -> list[int]:
        """By how much the index made the database grow, and the database."""
        whole = Path(self._database).stat().st_size
        return [whole - int((self.folder / "vss.before").read_text()), whole]

    @property
    def _database(self) -> str:
        return str(self.folder / f"{self.extension}.duckdb")

    def _one(self, con: duckdb.DuckDBPyConnection, query: int) -> Found:
        con.execute(f"SET VARIABLE asked = (SELECT v FROM q WHERE n = {query:d})")
        rows = con.execute(self._text()).fetchall()
        return np.array(rows, np.int64).reshape(-1)

    def _one_by_one(self, count: int) -> Found:
        cursors = [self._con.cursor() for _ in range(CORES)]

        def share(core: int) -> list[Found]:
            return [self._one(cursors[core], query) for query in range(core, count, CORES)]

        with ThreadPoolExecutor(CORES) as cores:
            parts = list(cores.map(share, range(CORES)))
        return np.array([parts[query % CORES][query // CORES] for query in range(count)])

    def _text(self) -> str:
        return f"SELECT id FROM v ORDER BY array_cosine_distance(vector, getvariable('asked')) LIMIT {K}"

    def _connect(self) -> duckdb.DuckDBPyConnection:
        con = connected(self._database, self.extension)
        for option in self._options:
            con.execute(f"SET {option}")
        return con


class LanceSql(Vss):
    """DuckDB's extension lance, through SQL, over the files that LanceDB made."""

    labels = ("refine",)
    settings = ((1,), (2,), (5,), (10,), (20,), (50,))
    extension = "lance"
    _options = ()

    def build(self, connectivity: int, expansion: int) -> None:
        """LanceDB built it. Raises ImportError where it did not."""
        if not self._dataset.exists():
            raise ImportError("its files are LanceDB's, which is not there")

    def use(self, setting: Setting) -> None:
        """How many times `k` rows are ranked by their exact vectors; the breadth cannot be chosen."""
        self._refine = setting[0]

    def sizes(self) -> list[int]:
        """LanceDB's."""
        return [bytes_below(self._dataset / "_indices"), bytes_below(self._dataset)]

    @property
    def _dataset(self) -> Path:
        return self.folder / "lancedb-IVF_HNSW_SQ" / "t.lance"

    def batch(self, count: int) -> Any:  # noqa: ANN401 - an array
        """One by one on all cores: the function takes no column."""
        return self._one_by_one(count)

    def _text(self) -> str:
        options = f"k := {K}, nprobs := 1, refine_factor := {self._refine:d}"
        return f"SELECT id FROM lance_vector_search('{self._dataset}', 'vector', getvariable('asked'), {options})"


def connected(database: str, extension: str) -> duckdb.DuckDBPyConnection:
    """A connection with an extension. Raises ImportError where that is not installed."""
    import duckdb

    path = _extension(extension)
    con = duckdb.connect(database)
    try:
        con.execute(f"LOAD '{path}'")
    except duckdb.Error as error:
        raise ImportError(f"{extension} does not load: {str(error).splitlines()[0]}") from error
    return con


def _extension(name: str) -> Path:
    """The extension's file in the package that brings it. Raises ImportError where that is not installed."""
    return next(
        Path(str(file.locate()))
        for file in files(f"duckdb-extension-{name}") or ()
        if file.name == f"{name}.duckdb_extension"
    )
