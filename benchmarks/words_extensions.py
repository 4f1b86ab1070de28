"""DuckDB's extension fts in benchmarks.words. It needs an older DuckDB: see benchmarks.search_extensions."""

from __future__ import annotations

from pathlib import Path

from benchmarks.search_extensions import connected
from benchmarks.words_contenders import WordsContender


class Fts(WordsContender):
    """The extension through SQL, with its own list of stop words; its k and b are those of all."""

    def prepare(self) -> None:
        """Write the source into a database."""
        con = connected(self._database, "fts")
        con.execute("CREATE TABLE t AS FROM read_parquet($1)", [str(self.folder / "texts.parquet")])
        con.execute("CHECKPOINT")
        (self.folder / "fts.before").write_text(str(Path(self._database).stat().st_size))
        con.close()

    def build(self, connectivity: int, expansion: int) -> None:
        """Index the texts."""
        con = connected(self._database, "fts")
        con.execute("PRAGMA create_fts_index('t', 'id', 'text', stemmer = 'english', stopwords = 'english')")
        con.execute("CHECKPOINT")
        con.close()

    def open(self) -> None:
        """See `Contender`."""
        self._con = connected(self._database, "fts")

    def sizes(self) -> list[int]:
        """By how much the index made the database grow, and the database."""
        whole = Path(self._database).stat().st_size
        return [whole - int((self.folder / "fts.before").read_text()), whole]

    @property
    def _database(self) -> str:
        return str(self.folder / "fts.duckdb")

    def _by_words(self, text: str) -> list[int]:
        query = (
            "SELECT id FROM (SELECT id, fts_main_t.match_bm25(id, $1, k := 1.2, b := 0.75) AS score FROM t) "
            f"WHERE score IS NOT NULL ORDER BY score DESC LIMIT {self.k:d}"
        )
        return [row[0] for row in self._con.execute(query, [text]).fetchall()]
