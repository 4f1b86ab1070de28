"""What a kind of index is: how it is built of a segment's rows, verified, opened and asked."""

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
    """An index in the making, which takes all rows of a segment once, in their order."""

    def add(self, start: int, row_ids: pa.StringArray, vectors: Vectors) -> int:
        """Take rows, the first of them at position `start`; returns how many of them had to be indexed."""
        ...

    def save(self) -> None:
        """Write the file."""
        ...


class IndexKind(Protocol[Opened]):
    """A kind of index, one file for each segment.

    What it is made of beside the row ids and vectors (texts, for words) it has from its constructor. What its open
    index is asked differs from kind to kind: one that answers queries by a vector opens as a `VectorIndex`.
    """

    @property
    def sidecar(self) -> str:
        """How its files end, and what manifests list them as: one of `layout.SIDECARS`."""
        ...

    def build(self, path: Path, rows: int, dimensions: int) -> Builder:
        """Begin the index of a segment of so many rows, to be written to `path`."""
        ...

    def verify(self, path: Path, rows: int, dimensions: int) -> None:
        """Check a file whose SHA-256 fits, and that somebody may have forged, before it is opened.

        Raises:
            DamagedError: it is not of a segment of so many rows, or could make trouble.
        """
        ...

    def open(self, path: Path, vectors: Vectors) -> Opened:
        """Verify and open the index of the segment that has these vectors, float32 [rows, dimensions].

        Raises:
            DamagedError: as `verify`, or it cannot be read.
        """
        ...


class VectorIndex(Protocol):
    """An open index that finds rows near to vectors. Threads may share it."""

    @property
    def name(self) -> str:
        """What `jammi_explain` calls it."""
        ...

    def neighbours(self, allowed: int, k: int) -> int:
        """How many neighbours to ask for, so that of the rows, of which so many are allowed, `k` are likely found."""
        ...

    def ms(self, wanted: int, k: int, queries: int) -> float:
        """What it takes to ask for so many neighbours for one of so many queries, in milliseconds, as predicted."""
        ...

    def search(
        self, queries: Vectors, k: int, wanted: int, allowed: Mask | None
    ) -> tuple[Candidates, NDArray[np.bool_]]:
        """What `wanted` neighbours of each query hold of the rows that are `allowed`, with exact similarities.

        The second array says for which queries the best `k`, and all that tie with the last, are sure to be among
        them, as far as the index finds them.
        """
        ...
