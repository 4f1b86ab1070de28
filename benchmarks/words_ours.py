"""Our contender in benchmarks.words: the three modes of `jammi_search`, from SQL."""

from __future__ import annotations

from benchmarks.search_contenders import vectors_table
from benchmarks.search_ours import Ours, bytes_of, config
from benchmarks.words_contenders import WordsContender


class OursByWords(WordsContender, Ours):
    """This project through SQL, joined to its source by an integer key. Each query is a text in every mode."""

    def prepare(self) -> None:
        """Write the source into a database, and the vectors into a file."""
        import duckdb
        import numpy as np
        import pyarrow.parquet as pq

        documents = np.load(self.folder / "documents.npy", mmap_mode="r")
        pq.write_table(vectors_table("id", documents), self._vectors, compression="none")
        con = duckdb.connect(self._database)
        con.execute("CREATE TABLE t AS FROM read_parquet($1)", [str(self.folder / "texts.parquet")])
        con.close()

    def build(self, connectivity: int, expansion: int) -> None:
        """Run `jammi_import`, which indexes the words as `jammi_generate` does."""
        import duckdb

        import jammi_duck
        from jammi_duck.config.options import DEFAULT_MODEL

        chosen = config(self.folder)
        con = duckdb.connect(self._database)
        jammi_duck.install(con, storage=chosen.storage, cache_dir=chosen.cache_dir)
        con.execute(
            "FROM jammi_import('t', $1, 'id', 'vector', model := $2, cols := 'text')", [self._vectors, DEFAULT_MODEL]
        ).fetchall()
        con.close()

    def vector(self, query: int) -> list[int]:
        """See `WordsContender`."""
        return self._found(self.asked.queries[query], "vector")

    def hybrid(self, query: int) -> list[int]:
        """See `WordsContender`."""
        return self._found(self.asked.queries[query], "hybrid")

    def sizes(self) -> list[int]:
        """The words, and all sidecars."""
        return [bytes_of(self.folder, "words"), bytes_of(self.folder, "usearch", "rowmap", "vectors", "words")]

    @property
    def _vectors(self) -> str:
        return str(self.folder / "vectors.parquet")

    def _by_words(self, text: str) -> list[int]:
        return self._found(text, "text")

    def _found(self, text: str, mode: str) -> list[int]:
        query = f"SELECT id FROM jammi_search('t', $1, {self.k:d}, mode := '{mode}')"
        return [row[0] for row in self._con.execute(query, [text]).fetchall()]
