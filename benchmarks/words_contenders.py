"""The interface of a contender that finds rows by their words, for benchmarks.words and benchmarks.quality."""

from __future__ import annotations

from typing import Any

from benchmarks.search_contenders import Contender
from benchmarks.search_data import K
from benchmarks.words_data import Asked


class WordsContender(Contender):
    """A system that finds rows by their words, and perhaps by their words and their vectors."""

    # How many rows are asked for.
    k = K

    def load(self) -> None:
        """Read the queries."""
        super().load()
        self.asked = Asked.load(self.folder)

    def text(self, query: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for the words of the query with this number."""
        return self._by_words(self.asked.queries[query])

    def frequent(self, query: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for the frequent words with this number."""
        return self._by_words(self.asked.frequent[query])

    def vector(self, query: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for the vector of the query with this number."""
        raise NotImplementedError

    def hybrid(self, query: int) -> Any:  # noqa: ANN401 - of its own kind
        """Search for words and vector of the query with this number."""
        raise NotImplementedError

    def _by_words(self, text: str) -> Any:  # noqa: ANN401 - of its own kind
        raise NotImplementedError
