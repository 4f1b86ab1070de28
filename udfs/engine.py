"""The engine that scalar functions work with, and the description of a scalar function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jammi_duck.encoder import Encoders
from jammi_duck.retrieval.selection import Selections
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.followed import FollowedSources
from jammi_duck.types import Host
from jammi_duck.udfs.columns import Column, rows_of
from jammi_duck.udfs.filters.conditions import Conditions
from jammi_duck.udfs.sources import Relation
from jammi_duck.work.freshen import Freshener
from jammi_duck.work.generate import Generator
from jammi_duck.work.importing import Importer
from jammi_duck.work.index_words import WordsIndexer
from jammi_duck.work.jobs import Jobs
from jammi_duck.work.refresh import Refresher


@dataclass(frozen=True)
class Engine:
    """What the functions of one database work with."""

    host: Host
    tables: EmbeddingTables
    encoders: Encoders
    jobs: Jobs
    generator: Generator
    refresher: Refresher
    freshener: Freshener
    followed: FollowedSources
    importer: Importer
    words_indexer: WordsIndexer
    selections: Selections
    conditions: Conditions
    default_model: str
    # Tables and views that were found in the database, whatever became of them.
    seen: set[Relation] = field(default_factory=set)
    # Views that stand for a source, and that source, both as embeddings know them.
    stand_ins: dict[str, str] = field(default_factory=dict)
    # Of followed sources that are compared: a build, its state, and what stands for the rows that it was made of.
    fingerprints: dict[str, tuple[str, str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ScalarFunction:
    """One SQL function.

    `call` gets the engine and a column for each parameter, and gives a column of as many rows; one that is called
    `by_row`, for a single row while a query is bound, gets and gives a value instead, which spares it the columns.
    """

    name: str
    parameters: tuple[str, ...]
    returns: str
    volatile: bool
    call: Callable[..., Any]
    by_row: bool = False

    def answer(self, engine: Engine, *columns: Column) -> pa.Array:
        """Call it with columns, whichever way it wants to be called."""
        if self.by_row:
            return pa.array([self.call(engine, *row) for row in rows_of(columns)], pa.string())
        column: pa.Array = self.call(engine, *columns)
        return column
