"""The protocol of an index kind: how it is built from a segment's rows, verified, opened and searched."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.storage.index.exact import Candidates, Mask
from jammi_duck.types import Vectors

Opened = TypeVar("Opened", covariant=True)


class Builder(Protocol):
    """Builds an index from all rows of a segment, which are added once and in order."""

    def add(self, start: int, row_ids: pa.StringArray, vectors: Vectors) -> int:
        """Add rows, the first at position `start`; returns how many of them had to be indexed."""
        ...

    def save(self) -> None:
        """Write the file."""
        ...


class IndexKind(Protocol[Opened]):
    """A kind of index, one file for each segment.

    The interface of an open index depends on the kind: an index that answers queries by a vector is a `VectorIndex`.
    Words, which a Parquet file does not have, are no such kind: `segment_words` writes their files.
    """

    @property
    def sidecar(self) -> str:
        """The ending of its files, and their name in manifests: one of `layout.SIDECARS`."""
        ...

    def build(self, path: Path, rows: int, dimensions: int) -> Builder:
        """Start to build the index of a segment of so many rows, to be written to `path`."""
        ...

    def verify(self, path: Path, rows: int, dimensions: int) -> None:
        """Check a file before it is opened: its SHA-256 is right, but somebody may have forged both.

        Raises:
            DamagedError: it does not belong to a segment of so many rows, or could do harm.
        """
        ...

    def open(self, path: Path, vectors: Vectors) -> Opened:
        """Verify and open the index of the segment that has these vectors, float32 [rows, dimensions].

        Raises:
            DamagedError: as `verify`, or it cannot be read.
        """
        ...


class VectorIndex(Protocol):
    """An open index that finds the rows nearest to vectors. Threads may share it."""

    @property
    def name(self) -> str:
        """Its name in `jammi_explain`."""
        ...

    def neighbours(self, allowed: int, k: int) -> int:
        """How many neighbours to request, so that they are likely to include `k` of the `allowed` rows."""
        ...

    def ms(self, wanted: int, k: int, queries: int) -> float:
        """The predicted time to request `wanted` neighbours, in milliseconds for one of so many queries."""
        ...

    def search(
        self, queries: Vectors, k: int, wanted: int, allowed: Mask | None
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """The `allowed` rows among the `wanted` neighbours of each query, with exact similarities.

        The second array says for which queries they are sure to include the best `k` and all ties with the last, as far
        as the index finds them.
        """
        ...
