"""Finds the embedding table of a source, and suggests the one that a renamed source had."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from jammi_duck.errors import NotFoundError
from jammi_duck.sql import folded, literal, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.lookup import find_table
from jammi_duck.udfs.arguments import parse_model
from jammi_duck.udfs.disambiguation import disambiguate
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import Relation, SearchPath, Source, SourceCandidate, found, still_there

_COLUMNS = sql(
    "SELECT column_name FROM duckdb_columns() "
    "WHERE (lower(database_name), lower(schema_name), lower(table_name)) = (lower(?), lower(?), lower(?))"
)


@dataclass(frozen=True)
class Choice:
    """How a query chooses an embedding table: by its source, and perhaps by a model or the table's name.

    `column` is which of several embeddings of the source is meant. `search_path` is that by which the source is read.
    """

    source: str | None
    search_path: SearchPath
    model: str | None
    table: str | None
    column: str | None
    transaction: int


def find_embeddings(
    engine: Engine,
    source: Source,
    model: str | None,
    table: str | None,
    column: str | None,
    *,
    failed: bool = False,
    is_any: bool = False,
) -> tuple[Entry, SourceCandidate]:
    """The embedding table that is meant, and what the source must be for it; see `lookup.find_table`.

    Raises:
        InputError: the model is no name, or it is not said which of several embeddings is meant.
        NotFoundError: there is none.
    """
    model = parse_model(model)
    source = _stood_for(engine, source)
    meant = disambiguate(engine, source, table, failed=failed)
    with telling_renames(engine, source):
        entry = find_table(
            engine.tables,
            engine.encoders,
            meant.identity,
            model,
            table,
            column=column,
            called=source.written,
            is_any=is_any,
        )
    return entry, meant


def _stood_for(engine: Engine, source: Source) -> Source:
    """A source, known as the one that it stands for."""
    if not any(each.identity in engine.stand_ins for each in source.candidates):
        return source
    known = (replace(each, identity=engine.stand_ins.get(each.identity, each.identity)) for each in source.candidates)
    return replace(source, candidates=tuple(known))


@contextlib.contextmanager
def telling_renames(engine: Engine, source: Source) -> Iterator[None]:
    """Have the error that a source has no embeddings say which may be its own, and how they come to be found."""
    try:
        yield
    except NotFoundError as error:
        made = _made_before(engine, source)
        if made is None:
            raise
        renamed = (
            f"If '{made.source}' was renamed: SELECT * FROM "
            f"jammi_refresh({literal(source.written)}, embedding_table := {literal(made.name)})"
        )
        raise NotFoundError(error.message, ". ".join(filter(None, (error.remedy, renamed)))) from error


def _made_before(engine: Engine, source: Source) -> Entry | None:
    """The newest table of the one source that is gone, and whose columns a source without embeddings has."""
    entries = engine.tables.catalog.entries("ready", "gone")
    if {each.source for each in entries} & {each.identity for each in source.all_candidates}:
        return None
    there = found(source.relations, engine.host)
    has = _columns(engine, there[0]) if there else set()
    fitting = [each for each in entries if each.status == "ready" and _needs(each) <= has]
    gone = [each for each in fitting if not still_there(each.source, engine.host)]
    return gone[0] if len({each.source for each in gone}) == 1 else None


def _needs(entry: Entry) -> set[str]:
    return {folded(name) for name in (entry.definition.key, *entry.definition.columns)}


def _columns(engine: Engine, relation: Relation) -> set[str]:
    rows = engine.host.sql(_COLUMNS, [relation.database, relation.schema, relation.name])
    return {folded(name) for (name,) in rows}
