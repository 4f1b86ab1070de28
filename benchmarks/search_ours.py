"""Our contenders in benchmarks.search: through SQL, in Python without SQL, and the bare index."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search_contenders import CORES, EXPANSIONS, Contender, Found, Setting, grouped, write_tables
from benchmarks.search_data import Data, K


class Ours(Contender):
    """This project through SQL: `jammi_search`, joined to its source by an integer key."""

    def prepare(self) -> None:
        """Write the source and the queries into a database."""
        import duckdb

        con = duckdb.connect(self._database)
        write_tables(con, Data.load(self.folder))
        con.close()

    def build(self, connectivity: int, expansion: int) -> None:
        """Run `jammi_generate`, with vectors that are there at once."""
        import duckdb

        from benchmarks.search_prepared import PreparedEncoders
        from jammi_duck.doors.installation import equip

        con = duckdb.connect(self._database)
        equip(con, config(self.folder), PreparedEncoders(Data.load(self.folder).documents))
        con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        con.close()

    def open(self) -> None:
        """Install on the database."""
        import duckdb

        import jammi_duck

        self._con = duckdb.connect(self._database)
        chosen = config(self.folder)
        self._jammi = jammi_duck.install(self._con, storage=chosen.storage, cache_dir=chosen.cache_dir)

    def load(self) -> None:
        """The queries are in the database."""

    def one(self, query: int) -> Found:
        """See `Contender`."""
        return self._searched(query, "")

    def filtered(self, query: int, column: str, below: int) -> Found:
        """See `Contender`."""
        return self._searched(query, f", filter := '{column} < {below:d}'")

    def exact(self, query: int) -> Found:
        """Search by looking at every vector."""
        return self._searched(query, ", exact := true")

    def batch(self, count: int) -> dict[str, Any]:
        """By LATERAL."""
        text = f"SELECT q.n, s.id FROM (FROM q WHERE n < {count:d}) q, jammi_search('t', q.v, {K}) s"
        found: dict[str, Any] = self._con.execute(text).fetchnumpy()
        return found

    def ids(self, found: Any) -> list[list[int]]:  # noqa: ANN401 - see Contender
        """See `Contender`."""
        return grouped(found["n"], found["id"]) if isinstance(found, dict) else super().ids(found)

    def sizes(self) -> list[int]:
        """The graphs, and all sidecars: a search does not read the Parquet."""
        return [bytes_of(self.folder, "usearch"), bytes_of(self.folder, "usearch", "rowmap", "vectors")]

    @property
    def _database(self) -> str:
        return str(self.folder / "ours.duckdb")

    def _searched(self, query: int, options: str) -> Found:
        text = f"SELECT id FROM jammi_search('t', (SELECT v FROM q WHERE n = {query:d}), {K}{options})"
        return np.array(self._con.execute(text).fetchall(), np.int64).reshape(-1)


class OursByMethod(Ours):
    """This project through `jammi.search`, with an array; on a copy of the database, which one process can open."""

    def prepare(self) -> None:
        """The database is there."""

    def build(self, connectivity: int, expansion: int) -> None:
        """Copy the database; the embedding table is that of `Ours`."""
        shutil.copy(super()._database, self._database)

    def load(self) -> None:
        """See `Contender`."""
        Contender.load(self)

    @property
    def _database(self) -> str:
        return str(self.folder / "method.duckdb")

    def _searched(self, query: int, options: str) -> Found:
        if options:
            return super()._searched(query, options)
        found = self._jammi.search("t", self.queries[query], K)
        return np.array([row[0] for row in found.fetchall()], np.int64)


class OursInPython(Contender):
    """This project below its SQL; its setting is the graph's expansion, which SQL does not let users choose."""

    settings = tuple((expansion,) for expansion in EXPANSIONS)
    labels = ("expansion",)

    def open(self) -> None:
        """Open the table as a database that does not know it does."""
        import duckdb

        from jammi_duck.doors.composition import loaded_encoders, open_engine
        from jammi_duck.doors.host import ConnectionHost

        chosen = config(self.folder)
        self._con = duckdb.connect()
        host = ConnectionHost()
        host.add(self._con)
        tables = open_engine(host, chosen, loaded_encoders(chosen)).tables
        (entry,) = tables.catalog.entries("ready")
        self._table = tables.table(entry)
        maps = [np.memmap(path, "<f4", "r") for path in _files(self.folder, "vectors")]
        self._vectors = [np.asarray(each).reshape(-1, entry.definition.dimensions) for each in maps]

    def use(self, setting: Setting) -> None:
        """Every graph's expansion."""
        for segment in self._table.segments:
            for index in segment.indexes:
                index._graph.expansion_search = setting[0]  # type: ignore[attr-defined]

    def one(self, query: int) -> list[str]:
        """See `Contender`."""
        row_ids: list[str] = self._table.search(self.queries[query : query + 1], K).row_ids.to_pylist()
        return row_ids

    def batch(self, count: int) -> list[list[str]]:
        """See `Contender`."""
        answers = self._table.search(self.queries[:count], K)
        parts = np.split(answers.row_ids.to_numpy(zero_copy_only=False), np.cumsum(answers.counts)[:-1])
        return [part.tolist() for part in parts]

    def exact(self, query: int) -> list[str]:
        """Search by looking at every vector."""
        row_ids: list[str] = self._table.search(self.queries[query : query + 1], K, exact=True).row_ids.to_pylist()
        return row_ids

    def ids(self, found: Any) -> list[list[int]]:  # noqa: ANN401 - see Contender
        """See `Contender`."""
        lists = found if isinstance(found[0], list) else [found]
        return [[int(row_id) for row_id in row_ids] for row_ids in lists]

    def product(self, query: int) -> None:
        """What exact search cannot do without: the product of all vectors and a query."""
        for vectors in self._vectors:
            vectors @ self.queries[query]

    def reading(self, times: int = 5) -> float:
        """The seconds in which all cores read the vectors' bytes: the best of several, by the better of two ways."""
        parts = [part for each in self._vectors for part in np.array_split(each.reshape(-1), CORES)]
        best = float("inf")
        with ThreadPoolExecutor(CORES) as cores:
            for read in (np.max, np.add.reduce):
                for _ in range(times):
                    started = time.perf_counter()
                    list(cores.map(read, parts))
                    best = min(best, time.perf_counter() - started)
        return best


class Graph(Contender):
    """The files of our index, opened with USearch and nothing else, and asked for as many neighbours as we ask for."""

    labels = ("expansion", "neighbours")

    def open(self) -> None:
        """Map the files."""
        from usearch.index import Index

        self._graphs = [Index.restore(str(path), view=True) for path in _files(self.folder, "usearch")]

    def use(self, setting: Setting) -> None:
        """The graphs' expansion, and how many neighbours to ask for."""
        expansion, self._wanted = setting
        for graph in self._graphs:
            graph.expansion_search = expansion

    def one(self, query: int) -> list[Any]:
        """See `Contender`."""
        return [graph.search(self.queries[query], self._wanted, threads=1) for graph in self._graphs]

    def batch(self, count: int) -> list[Any]:
        """See `Contender`."""
        return [graph.search(self.queries[:count], self._wanted, threads=0) for graph in self._graphs]

    def ids(self, found: list[Any]) -> list[list[int]]:
        """Those nearest by the graphs' own distances."""
        import pyarrow as pa

        keys, distances = [], []
        for path, matches in zip(_files(self.folder, "rowmap"), found, strict=True):
            row_ids = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("_row_id")
            keys.append(row_ids.cast(pa.int64()).to_numpy()[np.atleast_2d(matches.keys).astype(np.int64)])
            distances.append(np.atleast_2d(matches.distances))
        order = np.argsort(np.concatenate(distances, axis=1), axis=1, kind="stable")[:, :K]
        ids: list[list[int]] = np.take_along_axis(np.concatenate(keys, axis=1), order, 1).tolist()
        return ids

    def sizes(self) -> list[int]:
        """The graphs."""
        return [bytes_of(self.folder, "usearch")] * 2


def config(folder: Path) -> Any:  # noqa: ANN401 - imported late
    """Our options: all that is kept is below a folder."""
    from jammi_duck.config.options import Config

    return Config(storage=str(folder / "artifacts"), cache_dir=folder / "cache")


def _files(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "artifacts").rglob(f"*.{kind}"))


def bytes_of(folder: Path, *kinds: str) -> int:
    """What our sidecars of these kinds take."""
    return sum(path.stat().st_size for kind in kinds for path in _files(folder, kind))
