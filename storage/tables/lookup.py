"""Finds the embedding table to use: by its own name, or the newest of a source and a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from jammi_duck.errors import InputError, JammiWarning, NotFoundError, did_you_mean, enumerated
from jammi_duck.sql import folded, literal
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.types import Definition


class Models(Protocol):
    """What the user's name of a model stands for."""

    def names(self, name: str) -> AbstractSet[str]:
        """The names that an embedding table may record for it."""
        ...

    def weights_and_pooling(self, name: str) -> tuple[str, str] | None:
        """What a table records of it beside the name, if its files are on this machine; they may have to be read."""
        ...


def find_table(
    tables: EmbeddingTables,
    models: Models,
    source: str,
    model: str | None,
    table: str | None,
    *,
    column: str | None = None,
    called: str | None = None,
    is_any: bool = False,
) -> Entry:
    """The embedding table that a search means: `table`, or the newest of `source`, of `model` if one is given.

    `column` is which of several embeddings of the source is meant; where it `is_any`, that need not be said. The source
    is `called` something else by the user, perhaps.

    Raises:
        InputError: there are several, and it is not said which is meant.
        ModelError: the files of the model cannot be read.
        NotFoundError: there is none; says which there are.
    """
    follow_others(tables)
    if table is not None:
        if column is not None:
            raise InputError(
                f"embedding_table is '{table}' and column is '{column}' (--table and --column on the command line): "
                "each says which embedding table is meant; leave out one of them"
            )
        entry = tables.called(table, source)
        if entry.source != source:
            raise NotFoundError(f"'{entry.name}' is an embedding table of '{entry.source}', not '{called or source}'")
        if not of_model([entry], models, model):
            if not entry.definition.has_vectors:
                raise NotFoundError(f"'{entry.name}' has words only, and no vectors of a model; leave model out")
            described = _described(entry.definition, models.weights_and_pooling(model) if model else None)
            raise NotFoundError(f"'{entry.name}' is an embedding table of the model {described}, not '{model}'")
        return entry
    known = tables.catalog.entries("ready", "gone", source=source)
    meant = of_model(known, models, model)
    if column is not None:
        of_this = of_column(meant, column)
        if meant and not of_this:
            raise _none_of_column(meant, column, called or source)
        meant = of_this
    elif not is_any:
        check_is_one(meant, called or source)
    found = [entry for entry in meant if entry.status == "ready"]
    if not found:
        raise _none_for(tables, models, source, model, known, meant, called=called or source)
    if meant[0].status == "gone":
        _warn_of_gone(tables, meant[0], found[0])
    if column is None and not is_any:
        _warn_of_other_columns(tables, found, called or source)
    return found[0]


def of_model(entries: Sequence[Entry], models: Models, model: str | None) -> Sequence[Entry]:
    """The tables of a model, or all if it is None.

    These are the tables that record one of its names. If none does, or if models with other weights have had that name,
    they are the tables that record its weights. Tables of words only have no model.

    Raises:
        ModelError: the files of the model cannot be read.
    """
    if model is None:
        return entries
    entries = [entry for entry in entries if entry.definition.has_vectors]
    if not entries:
        return entries
    names = models.names(model)
    named = [entry for entry in entries if entry.definition.model in names]
    if len({(entry.definition.weights, entry.definition.pooling) for entry in named}) == 1:
        return named
    now = models.weights_and_pooling(model)
    same = [entry for entry in entries if (entry.definition.weights, entry.definition.pooling) == now]
    return same or named


def of_column(entries: Sequence[Entry], column: str) -> Sequence[Entry]:
    """The tables of the embedding that has this label, or else those that are of this one column."""
    wanted = folded(column)
    labelled = [entry for entry in entries if folded(entry.definition.embedding or "") == wanted]
    return labelled or [entry for entry in entries if _folded_columns(entry) == (wanted,)]


def check_is_one(entries: Sequence[Entry], called: str) -> None:
    """Raise InputError where the newest of these tables is one of several embeddings, so that another may be meant."""
    labels = _labels(entries)
    if len(labels) > 1 and entries[0].definition.embedding is not None:
        raise InputError(
            f"'{called}' has several embeddings: {enumerated(labels)}; say which is meant, with "
            f'"column" := {literal(labels[0])} (column= in Python, --column on the command line)'
        )


def _labels(entries: Sequence[Entry]) -> list[str]:
    """The labels of embeddings, as the newest table of each spells it, in the order in which these were begun."""
    newest = {folded(name): name for each in reversed(entries) if (name := each.definition.embedding) is not None}
    return list(newest.values())


def _none_of_column(entries: Sequence[Entry], column: str, called: str) -> NotFoundError:
    """That none of these tables is of the embedding that is meant, and which may be."""
    others = {_folded_columns(each): each for each in reversed(entries) if each.definition.embedding is None}
    names = [*_labels(entries), *(_columns(each) for columns, each in others.items() if len(columns) == 1)]
    tables = [f"'{each.name}' of {_columns(each)}" for columns, each in others.items() if len(columns) > 1]
    left = [f"there are: {enumerated(names)}"] if names else []
    if tables:
        left.append(f"{enumerated(tables)} is meant by embedding_table := '...' (--table on the command line)")
    near = did_you_mean(column, names) or ";"
    return NotFoundError(f"'{called}' has no embedding '{column}'{near} {'; '.join(left) or 'no columns are known'}")


def _none_for(
    tables: EmbeddingTables,
    models: Models,
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
        now = models.weights_and_pooling(model) if model else None
        there = ", ".join(sorted({_described(entry.definition, now) for entry in known}))
        return NotFoundError(f"{none} of the model '{model}'; there are: {there}")
    for refused in tables.catalog.refused():
        if (refused.source, refused.status) == (source, "ready"):
            return NotFoundError(f"{none}: '{refused.name}' cannot be used, {refused.error}")
    for entry in tables.catalog.entries("ready", "gone", name=called):
        return NotFoundError(
            f"'{called}' is an embedding table, and no source; name its source, '{entry.source}', and this one as "
            "embedding_table (--table on the command line)"
        )
    sources = sorted({entry.source for entry in tables.catalog.entries("ready")})
    others = f"there are some for: {', '.join(sources)}" if sources else "there are none yet"
    return NotFoundError(
        f"{none}{did_you_mean(called, sources) or ';'} {others}",
        f"SELECT * FROM jammi_generate('{called}', columns, key) makes one",
    )


def _warn_of_other_columns(tables: EmbeddingTables, found: Sequence[Entry], called: str) -> None:
    """Warn once where the newest of several tables is used, and others are known to be of other columns."""
    used, *_ = found
    newest = {_folded_columns(entry): entry for entry in reversed(found) if entry.definition.columns}
    others = [entry for columns, entry in newest.items() if columns != _folded_columns(used)]
    if not used.definition.columns or not others or used.build in tables.warned:
        return
    tables.warned.add(used.build)
    listed = "; ".join(f"'{each.name}' of {_columns(each)}" for each in others)
    warnings.warn(
        f"'{called}' has embedding tables of different columns: '{used.name}' of {_columns(used)} is used, the newest. "
        f"Left are {listed}. embedding_table := '...', or --table on the command line, chooses one",
        JammiWarning,
        stacklevel=2,
    )


def _folded_columns(entry: Entry) -> tuple[str, ...]:
    return tuple(map(folded, entry.definition.columns))


def _columns(entry: Entry) -> str:
    return ", ".join(entry.definition.columns)


def _described(recorded: Definition, now: tuple[str, str] | None) -> str:
    """The model of a table, and in what a model differs from it that now has these weights and this pooling."""
    if not recorded.has_vectors:
        return "words only, without a model"
    then = recorded.weights, recorded.pooling
    parts = zip(("weights", "pooling"), then, now if now and recorded.weights else then, strict=True)
    differing = " and ".join(name for name, old, new in parts if old != new)
    return f"{recorded.model} ({differing} differ)" if differing else recorded.model


def _warn_of_gone(tables: EmbeddingTables, gone: Entry, taken: Entry) -> None:
    """Warn once that an older table is taken since the newest is gone."""
    if gone.build in tables.warned:
        return
    tables.warned.add(gone.build)
    warnings.warn(
        f"'{gone.name}' cannot be used: {gone.error}; '{taken.name}', an older embedding table of "
        f"'{taken.source}', is taken instead",
        JammiWarning,
        stacklevel=2,
    )
