"""Types shared by all packages: roles, definitions, counts, and the host that runs SQL."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jammi_duck.errors import DamagedError
from jammi_duck.fields import (
    ELSEWHERE,
    PASSAGES,
    WORDS_ONLY,
    Amount,
    Dimensions,
    NoSha256,
    Number,
    Record,
    Text,
    canonical,
    parsed,
    record,
)
from jammi_duck.sql import Sql

Vectors = NDArray[np.float32]
Role = Literal["document", "query"]
# What rows are called that the engine gives to a statement.
GIVEN = "_jammi_given"
# A whole number that is an INTEGER in SQL; others are BIGINT.
Integer = Annotated[int, "INTEGER"]
Float = Annotated[float, "FLOAT"]


class Host(Protocol):
    """Runs the engine's SQL: on a connection in Python, or in the stock shell."""

    def sql(self, text: Sql, parameters: Sequence[object] = (), rows: pa.Table | None = None) -> list[tuple[Any, ...]]:
        """Run one statement, committed by itself, and return all of its rows.

        It reads `rows`, of whole numbers, texts and vectors, by the name GIVEN.
        """
        ...

    def untouched(self, text: Sql) -> list[tuple[Any, ...]]:
        """Run a statement on a database to which nobody has added functions, if one is available."""
        ...

    def home(self) -> str:
        """The name of the main database, which a connection uses before any USE."""
        ...

    def directory(self) -> str:
        """The directory in which DuckDB looks for files."""
        ...

    def may_be_look(self) -> bool:
        """Whether the query that is being planned may be a look at a relation, which runs its query at each look."""
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
    """A stage of a search: what was done, with how many rows, in how many seconds."""

    name: str
    detail: str
    rows: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Analysis(Record):
    """How texts become terms: the analyser's name, the language, and the library of the stemmer with its version."""

    analyser: Text
    language: Text
    stemmer: Text


@dataclasses.dataclass(frozen=True)
class PassageRule(Record):
    """How texts are cut into passages: by which `cutter`, of at most so many `tokens` of the model's.

    A passage begins with at most `overlap` tokens of the one before. `by` is the border that is kept where it can be:
    "paragraph", "sentence" or "word". The texts of the columns in `title` stand before each passage of the row, and are
    not cut.
    """

    cutter: Text
    tokens: Number
    overlap: Number
    by: Text
    title: tuple[Text, ...] = ()


class Shape(NamedTuple):
    """What the rows of an embedding table have: vectors of so many dimensions, if any, and places in their texts."""

    dimensions: int
    has_passages: bool = False


@dataclasses.dataclass(frozen=True)
class Definition(Record):
    """Everything that determines the vectors of an embedding table, and how its words are found, if they are indexed.

    `weights` is the SHA-256 of the model's weights and tokenizer, `prompt` the prompt before each document, and
    `max_tokens` the limit at which longer texts are cut. That of a table of words only has the feature `WORDS_ONLY`, no
    model, and no dimensions. `embedding` is the label of one of several embeddings of the source.
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
    # Of no concern for the vectors, so definitions that differ in these are equal.
    words: Analysis | None = dataclasses.field(default=None, compare=False, metadata=ELSEWHERE)
    embedding: Text | None = dataclasses.field(default=None, compare=False, metadata=ELSEWHERE)
    # How its texts are cut; None if each is embedded whole.
    passages: PassageRule | None = dataclasses.field(default=None, metadata=ELSEWHERE)
    # Whether its texts stand for pictures.
    pictures: bool = dataclasses.field(default=False, compare=False, metadata=ELSEWHERE)

    @property
    def has_vectors(self) -> bool:
        """Whether there are vectors, and not words only."""
        return self.dimensions > 0

    @property
    def shape(self) -> Shape:
        """What the stored rows have."""
        return Shape(self.dimensions, self.passages is not None)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns whose texts are cut, or embedded whole: those that are no title."""
        return tuple(name for name in self.columns if name not in self.title_columns)

    @property
    def title_columns(self) -> tuple[str, ...]:
        """The columns whose texts stand before each passage."""
        return self.passages.title if self.passages else ()

    @property
    def label(self) -> str:
        """The short name of the source, as `label_of` gives it, and after it the embedding's, where that has one."""
        source = label_of(self.source)
        return source if self.embedding is None else f"{source}.{self.embedding}"

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
            DamagedError: it is something else, or a field has an impossible value.
            UnsupportedError: it needs a feature that this version does not know.
        """
        return cls.from_fields(parsed(text))

    @classmethod
    def from_fields(cls, fields: object) -> Definition:
        """The same from the fields of a JSON object."""
        if not isinstance(fields, Mapping):
            return record(cls, fields)
        elsewhere = ("words", "embedding", "pictures", "passages")
        given = {name: fields[name] for name in elsewhere if fields.get(name) is not None}
        others = {name: value for name, value in fields.items() if name not in given}
        words = record(Analysis, given["words"]) if "words" in given else None
        embedding, pictures = given.get("embedding"), given.get("pictures", False)
        passages = record(PassageRule, given["passages"]) if "passages" in given else None
        found = record(cls, others, words=words, embedding=embedding, pictures=pictures, passages=passages)
        features = found.unknown.get("features") or ()
        has_words_only = WORDS_ONLY in features
        has_text = passages is None or not passages.title or set(passages.title) < set(found.columns)
        if (passages is None) == (PASSAGES in features) or not has_text:
            raise DamagedError("says how texts are cut into passages, which contradicts its features or its columns")
        if found.has_vectors == has_words_only or (has_words_only and words is None):
            raise DamagedError(f"has {found.dimensions} dimensions, which contradicts its features or its words")
        return found

    def _others(self) -> dict[str, Any]:
        words = {} if self.words is None else {"words": self.words.as_fields()}
        embedding = {} if self.embedding is None else {"embedding": self.embedding}
        passages = {} if self.passages is None else {"passages": self.passages.as_fields()}
        return {**words, **embedding, **passages, **({"pictures": True} if self.pictures else {})}


def label_of(source: str) -> str:
    """The short name of a source: of a file without its folder, of another database's table without the database."""
    if os.path.isabs(source):
        return os.path.basename(source) or source
    return re.sub(r'^"[^"]*/[^"]*"\.(?:main\.)?', "", source)


@dataclasses.dataclass(frozen=True)
class Counts(Record):
    """How many rows of a source were embedded (`rows`), had no text (`skipped`), or did not fit into memory (`failed`).

    `truncated` counts embedded rows whose text was longer than the model reads. `passages` is how many passages the
    texts were cut into; 0 where they are embedded whole.
    """

    rows: Amount = 0
    skipped: Amount = 0
    failed: Amount = 0
    truncated: Amount = 0
    passages: Amount = dataclasses.field(default=0, metadata=ELSEWHERE)

    @property
    def stored(self) -> int:
        """How many rows the embedding table has: one for each passage, or for each text."""
        return self.passages or self.rows

    @property
    def source_rows(self) -> int:
        """How many rows the source had."""
        return self.rows + self.skipped + self.failed

    def __add__(self, other: Counts) -> Counts:
        """The sum of both counts, without their unknown fields."""
        mine, others = ((each.rows, each.skipped, each.failed, each.truncated, each.passages) for each in (self, other))
        return Counts(*(a + b for a, b in zip(mine, others, strict=True)))

    @classmethod
    def from_fields(cls, fields: object) -> Counts:
        """Read the counts of a file. Raises as `record` does."""
        if not isinstance(fields, Mapping) or "passages" not in fields:
            return record(cls, fields)
        others = {name: value for name, value in fields.items() if name != "passages"}
        return record(cls, others, passages=fields["passages"])

    def _others(self) -> dict[str, Any]:
        return {"passages": self.passages} if self.passages else {}
