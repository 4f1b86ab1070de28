"""The contenders of benchmarks.search and benchmarks.words, and the interface of a contender.

Each runs in a process of its own (benchmarks.search_worker), builds below a folder, and opens what is there. Nothing is
imported before it is needed: what a contender imports is part of its first answer.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_data import Data

if TYPE_CHECKING:
    import duckdb

    from jammi_duck.types import Vectors

OURS = "jammi_search"
METHOD = "jammi.search"
PYTHON = "Table.search"
USEARCH = "USearch alone"
LANCEDB = "LanceDB IVF_HNSW_SQ"
LANCEDB_PQ = "LanceDB IVF_PQ"
VSS = "DuckDB vss"
LANCE_SQL = "DuckDB lance"
FAISS = "FAISS HNSW"
HNSWLIB = "hnswlib"
# Module and class of each, in the order in which they build: some build on others' files.
CONTENDERS = {
    OURS: "search_ours.Ours",
    METHOD: "search_ours.OursByMethod",
    PYTHON: "search_ours.OursInPython",
    USEARCH: "search_ours.Graph",
    LANCEDB: "search_rivals.LanceDB",
    LANCEDB_PQ: "search_rivals.LanceDBProducts",
    VSS: "search_extensions.Vss",
    LANCE_SQL: "search_extensions.LanceSql",
    FAISS: "search_rivals.Faiss",
    HNSWLIB: "search_rivals.Hnswlib",
}
# Those of benchmarks.words, and of benchmarks.quality.
OURS_WORDS = "jammi_search, words"
LANCEDB_WORDS = "LanceDB"
FTS = "DuckDB fts"
BM25S = "bm25s"
TANTIVY = "tantivy"
WORDS = {
    OURS_WORDS: "words_ours.OursByWords",
    LANCEDB_WORDS: "words_rivals.LanceDBWords",
    FTS: "words_extensions.Fts",
    BM25S: "words_rivals.Bm25s",
    TANTIVY: "words_rivals.Tantivy",
}
# Those that need the environment with the older DuckDB.
EXTENSIONS = (VSS, LANCE_SQL, FTS)

CORES = os.cpu_count() or 1
EXPANSIONS = (32, 48, 64, 96, 128, 192, 256, 384, 512)

# How much work a search is to do: numbers whose meaning is the contender's own, the least work first.
Setting = Sequence[int]
# Keys of the rows that were found, of each query.
Found = NDArray[np.int64]


class Contender:
    """A system that finds the rows nearest to a query. A subclass has what it can do of this."""

    settings: Sequence[Setting] = ((),)
    labels: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        """Of the data in a folder, where it keeps what it builds. Nothing is loaded yet."""
        self.folder = folder

    def prepare(self) -> None:
        """Do what comes before the build and is no part of it. Raises ImportError where a package is not there."""

    def build(self, connectivity: int, expansion: int) -> None:
        """Make everything that a search needs, on disk, from the vectors; graphs with these settings.

        One that searches what another has built does nothing.
        """

    def open(self) -> None:
        """Open what is on disk."""
        raise NotImplementedError

    def load(self) -> None:
        """Read the queries, as arrays."""
        self.queries: Vectors = np.load(self.folder / "queries.npy")

    def use(self, setting: Setting) -> None:
        """Search with this setting from now on."""

    def one(self, query: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for the query with this number, alone."""
        raise NotImplementedError

    def batch(self, count: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for the first `count` queries at once, on all cores."""
        raise NotImplementedError

    def filtered(self, query: int, column: str, below: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for a query among the rows whose `column` is less than this."""
        raise NotImplementedError

    def ids(self, found: Any) -> list[list[int]]:  # noqa: ANN401 - of its own kind
        """The numbers of the rows, of what a search gave: one list for each query."""
        ids: list[list[int]] = np.atleast_2d(found).tolist()
        return ids

    def sizes(self) -> list[int]:
        """Bytes on disk: of the index, and of all that a search reads."""
        raise NotImplementedError


def contender(name: str, folder: Path) -> Contender:
    """One of CONTENDERS or WORDS."""
    module, _, made = (CONTENDERS | WORDS)[name].partition(".")
    found: Contender = getattr(importlib.import_module(f"benchmarks.{module}"), made)(folder)
    return found


def write_tables(con: duckdb.DuckDBPyConnection, data: Data) -> None:
    """The source `t` (id, text, bucket, topic), and the queries `q` (n, v)."""
    import pyarrow as pa

    rows = len(data.documents)
    source = pa.table({"id": np.arange(rows), "bucket": data.bucket, "topic": data.topic})
    asked = vectors_table("n", data.queries)
    con.register("source", source)
    con.register("asked", asked)
    con.execute("CREATE TABLE t AS SELECT id, id::VARCHAR AS text, bucket, topic FROM source")
    con.execute(f"CREATE TABLE q AS SELECT n, vector::FLOAT[{data.queries.shape[1]:d}] AS v FROM asked")
    con.unregister("source")
    con.unregister("asked")


def vectors_table(number: str, vectors: Vectors, **columns: object) -> Any:  # noqa: ANN401 - of pyarrow
    """An Arrow table of numbered vectors, in the column `vector`, and of other columns."""
    import pyarrow as pa

    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])
    return pa.table({number: np.arange(len(vectors)), "vector": lists, **columns})


def grouped(queries: Found, ids: Found) -> list[list[int]]:
    """The ids of each query, of pairs in any order."""
    order = np.argsort(queries, kind="stable")
    ends = np.cumsum(np.bincount(queries))[:-1]
    return [part.tolist() for part in np.split(np.asarray(ids)[order], ends)]


def bytes_below(folder: Path) -> int:
    """What all files in a folder and in those below it take."""
    return sum(os.path.getsize(Path(root, name)) for root, _, names in os.walk(folder) for name in names)
