"""Refuses what an embedding table lacks: vectors where it has words only, passages where its texts are whole."""

from __future__ import annotations

from jammi_duck.errors import InputError
from jammi_duck.sql import joined, literal, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables


def need_vectors(tables: EmbeddingTables, entry: Entry, what: str) -> None:
    """Raise InputError if a table has words only; `what` compares vectors."""
    if entry.definition.has_vectors:
        return
    others = tables.catalog.entries("ready", source=entry.source)
    chosen = next((each.name for each in others if each.definition.has_vectors), None)
    if chosen:
        cure = f"embedding_table := {literal(chosen)} (--table on the command line) has vectors of the same source"
    else:
        columns = joined(", ", map(literal, entry.definition.columns))
        call = sql("jammi_generate({}, [{}], {})", literal(entry.source), columns, literal(entry.definition.key))
        cure = f"SELECT * FROM {call} makes a table with vectors"
    raise InputError(f"'{entry.name}' has words only: it is searched for a text, and {what} needs vectors; {cure}")


def need_passages(tables: EmbeddingTables, entry: Entry) -> None:
    """Raise InputError if the rows of a table are no passages, of which several of a row are wanted."""
    if entry.definition.passages:
        return
    others = tables.catalog.entries("ready", source=entry.source)
    chosen = next((each.name for each in others if each.definition.passages), None)
    if chosen:
        cure = f"embedding_table := {literal(chosen)} (--table on the command line) has passages of the same source"
    else:
        columns = joined(", ", map(literal, entry.definition.columns))
        key = literal(entry.definition.key)
        call = sql("jammi_generate({}, [{}], {}, passages := true)", literal(entry.source), columns, key)
        cure = f"SELECT * FROM {call} makes a table with passages"
    raise InputError(f"per_row gives several passages of a row, and '{entry.name}' has each text as a whole; {cure}")
