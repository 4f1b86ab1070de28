"""Finds the embedding table to use: by its own name, or the newest of a source and a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from jammi_duck.errors import JammiWarning, NotFoundError, did_you_mean
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables

Names = Callable[[str], AbstractSet[str]]


def find_table(
    tables: EmbeddingTables,
    names: Names,
    source: str,
    model: str | None,
    table: str | None,
    *,
    called: str | None = None,
) -> Entry:
    """The embedding table that a search means: `table`, or the newest of `source`, of `model` if one is given.

    `names` gives all names of a model. The source is `called` something else by the user, perhaps.

    Raises:
        NotFoundError: there is none; says which there are.
    """
    follow_others(tables)
    if table is not None:
        entry = tables.ready(table, source)
        if entry.source != source:
            raise NotFoundError(f"'{entry.name}' is an embedding table of '{entry.source}', not '{called or source}'")
        return entry
    known = tables.catalog.entries("ready", "gone", source=source)
    meant = [entry for entry in known if model is None or entry.definition.model in names(model)]
    found = [entry for entry in meant if entry.status == "ready"]
    if not found:
        raise _none_for(tables, source, model, known, meant, called=called or source)
    if meant[0].status == "gone":
        _tell(tables, meant[0], found[0])
    _tell_of_others(tables, found, called or source)
    return found[0]


def _none_for(
    tables: EmbeddingTables,
    source: str,
    model: str | None,
    known: Sequence[Entry],
    meant: Sequence[Entry],
    *,
    called: str,
) -> NotFoundError:
    """Why there is no embedding table for a source: of all that are known, and those of the wanted model."""
    none = f"no embedding table for '{called}'"
    if meant:
        return NotFoundError(f"{none}: '{meant[0].name}' cannot be used, {meant[0].error}")
    if known:
        models = ", ".join(sorted({entry.definition.model for entry in known}))
        return NotFoundError(f"{none} of the model '{model}'; there are: {models}")
    for refused in tables.catalog.refused():
        if (refused.source, refused.status) == (source, "ready"):
            return NotFoundError(f"{none}: '{refused.name}' cannot be used, {refused.error}")
    sources = sorted({entry.source for entry in tables.catalog.entries("ready")})
    others = f"there are some for: {', '.join(sources)}" if sources else "there are none yet"
    return NotFoundError(
        f"{none}{did_you_mean(called, sources) or ';'} {others}",
        f"SELECT * FROM jammi_generate('{called}', columns, key) makes one",
    )


def _tell_of_others(tables: EmbeddingTables, found: Sequence[Entry], called: str) -> None:
    """Warn once where the newest of several tables is used, and others are of other columns."""
    used, *_ = found
    newest = {entry.definition.columns: entry for entry in reversed(found)}
    others = [entry for columns, entry in newest.items() if columns != used.definition.columns]
    if not others or used.build in tables.told:
        return
    tables.told.add(used.build)
    listed = "; ".join(f"'{each.name}' of {_columns(each)}" for each in others)
    warnings.warn(
        f"'{called}' has embedding tables of different columns: '{used.name}' of {_columns(used)} is used, the newest. "
        f"Left are {listed}. embedding_table := '...' chooses one",
        JammiWarning,
        stacklevel=2,
    )


def _columns(entry: Entry) -> str:
    return ", ".join(entry.definition.columns) or "vectors that were imported"


def _tell(tables: EmbeddingTables, gone: Entry, taken: Entry) -> None:
    """Warn once that an older table is taken since the newest is gone."""
    if gone.build in tables.told:
        return
    tables.told.add(gone.build)
    warnings.warn(
        f"'{gone.name}' cannot be used: {gone.error}; '{taken.name}', an older embedding table of "
        f"'{taken.source}', is taken instead",
        JammiWarning,
        stacklevel=2,
    )
