"""The words that all rooms share: roles, definitions, counts, and the host that runs SQL."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from jammi_duck.fields import Amount, Dimensions, NoSha256, Number, Record, Text, canonical, parsed, record

Vectors = NDArray[np.float32]
Role = Literal["document", "query"]
# A whole number that is an INTEGER in SQL; others are BIGINT.
Integer = Annotated[int, "INTEGER"]


class Host(Protocol):
    """Where the catalog's SQL runs: a connection of Python's DuckDB, or the command line's."""

    def sql(self, text: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, committed by itself, and return all of its rows."""
        ...

    def untouched(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement on a database that nobody has added functions to, if there is one to be had."""
        ...

    def home(self) -> str:
        """The database that was opened, which a connection is in before any USE."""
        ...

    def directory(self) -> str:
        """The directory in which DuckDB looks for files."""
        ...


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who runs a query: a session's id, and the number of its transaction.

    A session is a connection of Python, or the whole of a stock shell: it runs one query at a time.
    """

    session: str
    transaction: int


@dataclasses.dataclass
class Stage:
    """A part of a search: what was done, with how many rows, in how many seconds."""

    name: str
    detail: str
    rows: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Definition(Record):
    """All that decides what vectors an embedding table holds.

    `weights` is the SHA-256 of the model's weights and tokenizer; `prompt` is what stands before each
    document; `max_tokens` is where longer texts are cut.
    """

    source: Text
    columns: tuple[Text, ...]
    key: Text
    model: Text
    revision: Text | None
    weights: NoSha256
    pooling: Text
    prompt: Text
    precision: Text
    max_tokens: Number
    dimensions: Dimensions

    @property
    def label(self) -> str:
        """The source's name, of a file without its folder, and of another database's table without that."""
        return label_of(self.source)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the definition as canonical JSON (sorted names, no spaces), in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The definition as canonical JSON."""
        return canonical(self.as_fields())

    @classmethod
    def from_json(cls, text: str) -> Definition:
        """Read what `to_json` wrote.

        Raises:
            DamagedError: it is something else, or a field has a value that it cannot have.
            UnsupportedError: it needs a feature that this version does not know.
        """
        return record(cls, parsed(text))


def label_of(source: str) -> str:
    """What a source is known by, of a file without its folder, and of another database's table without that."""
    if os.path.isabs(source):
        return os.path.basename(source) or source
    return re.sub(r'^"[^"]*/[^"]*"\.(?:main\.)?', "", source)


@dataclasses.dataclass(frozen=True)
class Counts(Record):
    """What became of a source's rows.

    `rows` were embedded, `skipped` had no text, `failed` did not fit the encoder's memory, `truncated` of
    the embedded ones were longer than the model reads.
    """

    rows: Amount = 0
    skipped: Amount = 0
    failed: Amount = 0
    truncated: Amount = 0

    def __add__(self, other: Counts) -> Counts:
        """The counts of both together, without what is not known of them."""
        mine, others = ((each.rows, each.skipped, each.failed, each.truncated) for each in (self, other))
        return Counts(*(a + b for a, b in zip(mine, others, strict=True)))
