"""Rivals in benchmarks.words and benchmarks.quality: LanceDB, bm25s and tantivy, of benchmarks/requirements-search.txt.

All take English stop words out and stem by Snowball's rules for English. bm25s and tantivy have BM25's k1 of 1.2 and b
of 0.75, as ours and as LanceDB.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from benchmarks.search_contenders import bytes_below, vectors_table
from benchmarks.search_rivals import LanceDB
from benchmarks.words_contenders import WordsContender
from benchmarks.words_data import texts_in


class LanceDBWords(WordsContender, LanceDB):
    """LanceDB's full-text search, and its hybrid one with the re-ranker that it has by itself."""

    def build(self, connectivity: int, expansion: int) -> None:
        """The vectors' index, and that of the texts, as LanceDB makes it if it is told nothing."""
        import lancedb
        from lancedb.index import FTS

        super().build(connectivity, expansion)
        lancedb.connect(self._path).open_table("t").create_index("text", config=FTS())

    def vector(self, query: int) -> Any:  # noqa: ANN401 - of pyarrow
        """See `WordsContender`."""
        return self.one(query)

    def hybrid(self, query: int) -> Any:  # noqa: ANN401 - of pyarrow
        """See `WordsContender`."""
        search = self._table.search(query_type="hybrid").vector(self.queries[query]).text(self.asked.queries[query])
        return self._broad(search.distance_type("cosine").refine_factor(self._refine)).limit(self.k).to_arrow()

    def _by_words(self, text: str) -> Any:  # noqa: ANN401 - of pyarrow
        return self._table.search(text, query_type="fts").select(["id", "_score"]).limit(self.k).to_arrow()

    def _rows(self) -> Any:  # noqa: ANN401 - of pyarrow
        return vectors_table("id", np.load(self.folder / "documents.npy", mmap_mode="r"), text=texts_in(self.folder))


class Bm25s(WordsContender):
    """bm25s, with the scores of all terms computed while it is built."""

    def prepare(self) -> None:
        """See `Contender`."""
        import bm25s  # noqa: F401
        import Stemmer  # noqa: F401

    def build(self, connectivity: int, expansion: int) -> None:
        """See `Contender`."""
        import bm25s

        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        index.index(self._tokens(texts_in(self.folder)), show_progress=False)
        index.save(self._path)

    def open(self) -> None:
        """See `Contender`."""
        import bm25s

        self._index = bm25s.BM25.load(self._path)

    def sizes(self) -> list[int]:
        """All of it."""
        return [bytes_below(self.folder / "bm25s")] * 2

    @property
    def _path(self) -> str:
        return str(self.folder / "bm25s")

    def _by_words(self, text: str) -> list[int]:
        rows, scores = self._index.retrieve(self._tokens([text]), k=self.k, show_progress=False)
        # It fills up with rows that have none of the words.
        found: list[int] = rows[0][scores[0] > 0].tolist()
        return found

    def _tokens(self, texts: list[str]) -> Any:  # noqa: ANN401 - of bm25s
        import bm25s
        import Stemmer

        return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)


class Tantivy(WordsContender):
    """tantivy, which is what many search engines in Rust are made of."""

    def prepare(self) -> None:
        """See `Contender`."""
        import tantivy  # noqa: F401

        shutil.rmtree(self._path, ignore_errors=True)
        (self.folder / "tantivy").mkdir()

    def build(self, connectivity: int, expansion: int) -> None:
        """See `Contender`."""
        import tantivy

        index = self._opened()
        writer = index.writer(256 << 20)
        for number, text in enumerate(texts_in(self.folder)):
            writer.add_document(tantivy.Document(id=number, text=text))
        writer.commit()
        writer.wait_merging_threads()

    def open(self) -> None:
        """See `Contender`."""
        self._index = self._opened()
        self._searcher = self._index.searcher()

    def sizes(self) -> list[int]:
        """All of it, which has the ids in it, and not the texts."""
        return [bytes_below(self.folder / "tantivy")] * 2

    @property
    def _path(self) -> str:
        return str(self.folder / "tantivy")

    def _opened(self) -> Any:  # noqa: ANN401 - of tantivy
        from tantivy import Filter, Index, SchemaBuilder, TextAnalyzerBuilder, Tokenizer

        schema = SchemaBuilder().add_integer_field("id", stored=True)
        schema = schema.add_text_field("text", tokenizer_name="english", index_option="freq").build()
        index = Index(schema, self._path)
        analyser = TextAnalyzerBuilder(Tokenizer.simple())
        for each in (Filter.lowercase(), Filter.stopword("english"), Filter.stemmer("english")):
            analyser = analyser.filter(each)
        self._analyser = analyser.build()
        index.register_tokenizer("english", self._analyser)
        return index

    def _by_words(self, text: str) -> list[int]:
        from tantivy import Occur, Query

        # Any of the words: its language for queries has signs of its own.
        terms = self._analyser.analyze(text)
        schema = self._index.schema
        query = Query.boolean_query([(Occur.Should, Query.term_query(schema, "text", term)) for term in terms])
        hits = self._searcher.search(query, self.k).hits
        return [self._searcher.doc(address)["id"][0] for _, address in hits]
