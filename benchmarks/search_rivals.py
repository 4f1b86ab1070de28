"""Rivals in benchmarks.search: LanceDB, FAISS and hnswlib, of benchmarks/requirements-search.txt.

Their graphs get the connectivity of ours, and the breadth that it is built with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
)
from benchmarks.search_data import Data, K


class LanceDB(Contender):
    """LanceDB with HNSW of all rows in one partition, and the exact vectors to rank what that gives."""

    labels: tuple[str, ...] = ("ef", "refine")
    settings: Sequence[Setting] = ((32, 2), (48, 3), (64, 4), (96, 5), (128, 5), (192, 10), (256, 20), (512, 30))
    index = "IVF_HNSW_SQ"

    def __init__(self, folder: Path) -> None:
        """See `Contender`."""
        super().__init__(folder)
        self._path = folder / f"lancedb-{self.index}"

    def prepare(self) -> None:
        """See `Contender`."""
        import lancedb  # noqa: F401

    def build(self, connectivity: int, expansion: int) -> None:
        """A table, and its index."""
        import lancedb

        rows = self._rows()
        table = lancedb.connect(self._path).create_table("t", rows)
        dimensions = rows.schema.field("vector").type.list_size
        table.create_index("vector", config=self._config(dimensions, connectivity, expansion))

    def open(self) -> None:
        """See `Contender`."""
        import lancedb

        self._table = lancedb.connect(self._path).open_table("t")

    def index_columns(self) -> None:
        """Make the indexes that quicken filters."""
        from lancedb.index import BTree

        for column in ("bucket", "topic"):
            self._table.create_index(column, config=BTree())

    def use(self, setting: Setting) -> None:
        """The breadth of the search, and how many times `k` rows are ranked by their exact vectors."""
        self._breadth, self._refine = setting

    def one(self, query: int) -> Any:  # noqa: ANN401 - of pyarrow
        """See `Contender`."""
        return self._search(self.queries[query]).to_arrow()

    def batch(self, count: int) -> Any:  # noqa: ANN401 - of pyarrow
        """In one call, which is several times as fast as threads with a query each."""
        return self._search(list(self.queries[:count])).to_arrow()

    def filtered(self, query: int, column: str, below: int) -> Any:  # noqa: ANN401 - of pyarrow
        """See `Contender`."""
        return self._search(self.queries[query]).where(f"{column} < {below:d}", prefilter=True).to_arrow()

    def ids(self, found: Any) -> list[list[int]]:  # noqa: ANN401 - of pyarrow
        """See `Contender`."""
        ids = found["id"].to_numpy()
        return (
            grouped(found["query_index"].to_numpy(), ids) if "query_index" in found.column_names else super().ids(ids)
        )

    def sizes(self) -> list[int]:
        """The folder of the indexes, and that of the table."""
        table = self._path / "t.lance"
        return [bytes_below(table / "_indices"), bytes_below(table)]

    def _rows(self) -> Any:  # noqa: ANN401 - of pyarrow
        data = Data.load(self.folder)
        return vectors_table("id", data.documents, bucket=data.bucket, topic=data.topic)

    def _search(self, query: Any) -> Any:  # noqa: ANN401 - of lancedb
        # LanceDB warns about each search that leaves out the distance.
        search = self._table.search(query).select(["id", "_distance"]).limit(K).refine_factor(self._refine)
        return self._broad(search)

    def _config(self, dimensions: int, connectivity: int, expansion: int) -> Any:  # noqa: ANN401 - of lancedb
        from lancedb.index import HnswSq

        return HnswSq(distance_type="cosine", num_partitions=1, m=connectivity, ef_construction=expansion)

    def _broad(self, search: Any) -> Any:  # noqa: ANN401 - of lancedb
        return search.nprobes(1).ef(self._breadth)


class LanceDBProducts(LanceDB):
    """LanceDB with product quantisation, a byte for four dimensions."""

    labels = ("nprobes", "refine")
    settings = ((20, 10), (40, 20), (80, 30), (160, 50))
    index = "IVF_PQ"

    def _config(self, dimensions: int, connectivity: int, expansion: int) -> Any:  # noqa: ANN401 - of lancedb
        from lancedb.index import IvfPq

        return IvfPq(distance_type="cosine", num_sub_vectors=dimensions // 4)

    def _broad(self, search: Any) -> Any:  # noqa: ANN401 - of lancedb
        return search.nprobes(self._breadth)


class Faiss(Contender):
    """FAISS's HNSW over float32 vectors."""

    labels = ("ef",)
    settings = tuple((expansion,) for expansion in EXPANSIONS)

    def prepare(self) -> None:
        """See `Contender`."""
        import faiss  # noqa: F401

    def build(self, connectivity: int, expansion: int) -> None:
        """See `Contender`."""
        import faiss

        documents = np.ascontiguousarray(Data.load(self.folder).documents)
        graph = faiss.IndexHNSWFlat(documents.shape[1], connectivity, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = expansion
        graph.add(documents)
        faiss.write_index(graph, str(self.folder / "faiss.index"))

    def open(self) -> None:
        """See `Contender`."""
        import faiss

        self._faiss = faiss
        self._graph = faiss.read_index(str(self.folder / "faiss.index"))

    def use(self, setting: Setting) -> None:
        """The breadth of the search."""
        self._graph.hnsw.efSearch = setting[0]

    def one(self, query: int) -> Found:
        """See `Contender`."""
        self._faiss.omp_set_num_threads(1)
        found: Found = self._graph.search(self.queries[query : query + 1], K)[1]
        return found

    def batch(self, count: int) -> Found:
        """See `Contender`."""
        self._faiss.omp_set_num_threads(CORES)
        found: Found = self._graph.search(self.queries[:count], K)[1]
        return found

    def sizes(self) -> list[int]:
        """One file, which has the vectors in it."""
        return [(self.folder / "faiss.index").stat().st_size] * 2


class Hnswlib(Contender):
    """hnswlib over float32 vectors."""

    labels = ("ef",)
    settings = tuple((expansion,) for expansion in EXPANSIONS)

    def prepare(self) -> None:
        """See `Contender`."""
        import hnswlib  # noqa: F401

    def build(self, connectivity: int, expansion: int) -> None:
        """See `Contender`."""
        documents = Data.load(self.folder).documents
        graph = self._empty(documents.shape[1])
        graph.init_index(len(documents), M=connectivity, ef_construction=expansion)
        graph.add_items(documents, num_threads=CORES)
        graph.save_index(str(self.folder / "hnswlib.index"))

    def open(self) -> None:
        """See `Contender`."""
        self._graph = self._empty(np.load(self.folder / "queries.npy", mmap_mode="r").shape[1])
        self._graph.load_index(str(self.folder / "hnswlib.index"))

    def use(self, setting: Setting) -> None:
        """The breadth of the search."""
        self._graph.set_ef(setting[0])

    def one(self, query: int) -> Found:
        """See `Contender`."""
        found: Found = self._graph.knn_query(self.queries[query], K, num_threads=1)[0]
        return found

    def batch(self, count: int) -> Found:
        """See `Contender`."""
        found: Found = self._graph.knn_query(self.queries[:count], K, num_threads=CORES)[0]
        return found

    def sizes(self) -> list[int]:
        """One file, which has the vectors in it."""
        return [(self.folder / "hnswlib.index").stat().st_size] * 2

    def _empty(self, dimensions: int) -> Any:  # noqa: ANN401 - of hnswlib
        import hnswlib

        return hnswlib.Index("ip", dimensions)
