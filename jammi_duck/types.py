"""The words that all rooms share: roles, definitions, counts, and the host that runs SQL."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Role = Literal["document", "query"]


class Host(Protocol):
    """Where the catalog's SQL runs: a connection of Python's DuckDB, or the command line's."""

    def sql(self, text: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, committed by itself, and return all of its rows."""
        ...


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who runs a query: a connection's id, and the number of its transaction."""

    connection: str
    transaction: int


@dataclasses.dataclass
class Stage:
    """A part of a search: what was done, with how many rows, in how many seconds."""

    name: str
    detail: str
    rows: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Definition:
    """All that decides what vectors an embedding table holds.

    `weights` is the SHA-256 of the model's weights and tokenizer; `prompt` is what stands before each
    document; `max_tokens` is where longer texts are cut.
    """

    source: str
    columns: tuple[str, ...]
    key: str
    model: str
    revision: str | None
    weights: str
    pooling: str
    prompt: str
    precision: str
    max_tokens: int
    dimensions: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the definition as canonical JSON (sorted names, no spaces), in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The definition as canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Definition:
        """Read what `to_json` wrote. Raises TypeError, KeyError or ValueError for anything else."""
        fields = json.loads(text)
        return cls(**{**fields, "columns": tuple(fields["columns"])})


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of a source's rows.

    `rows` were embedded, `skipped` had no text, `failed` did not fit the encoder's memory, `truncated` of
    the embedded ones were longer than the model reads.
    """

    rows: int = 0
    skipped: int = 0
    failed: int = 0
    truncated: int = 0

    def __add__(self, other: Counts) -> Counts:
        """The counts of both together."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))
