"""An encoder with precomputed vectors, so that a build is measured without encoding."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.memory import RandomEncoder, RandomEncoders
from jammi_duck.types import Vectors


class PreparedEncoder(RandomEncoder):
    """Gives rows of a matrix: a text is the number of its row."""

    def __init__(self, vectors: Vectors) -> None:
        """`vectors` are the rows."""
        super().__init__()
        self._vectors = vectors

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """The rows with these numbers."""
        rows: Vectors = self._vectors[[int(text) for text in texts]]
        return rows


class PreparedEncoders(RandomEncoders):
    """Any model is the prepared one."""

    def __init__(self, vectors: Vectors) -> None:
        """One encoder for all names."""
        super().__init__()
        self._encoder = PreparedEncoder(vectors)
