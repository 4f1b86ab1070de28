"""The scalar function of `fresh := true`, and the query that finds for it what has changed in a source."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.sql import NULL, Sql, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.snapshot import PinnedSnapshot, pin_snapshot
from jammi_duck.types import Caller
from jammi_duck.udfs.arguments import parse_int
from jammi_duck.udfs.columns import Column, records
from jammi_duck.udfs.disambiguation import proven
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.refreshing import CompareArguments, compared, comparison, rows_compared
from jammi_duck.udfs.rows import KEY, packed_text_of
from jammi_duck.udfs.sources import Source, SourceCandidate
from jammi_duck.work.freshen import TEXTS, Candidates

_MOST_TEXTS = 100_000
# Rows that may have changed: their keys, and the texts that they have now.
CANDIDATES = "STRUCT(key VARCHAR, text VARCHAR)[]"


def texts_wanted(text: str | None) -> int:
    """How many texts a search may embed. Raises InputError."""
    wanted = TEXTS if text is None else parse_int(text, "fresh_rows")
    if wanted is None or not 1 <= wanted <= _MOST_TEXTS:
        raise InputError(
            f"fresh_rows is {text}; it must be from 1 to {_MOST_TEXTS:,}, and jammi_refresh brings in any number"
        )
    return wanted


def fresh_query(
    engine: Engine, source: Source, meant: SourceCandidate, entry: Entry, limit: int, caller: Caller
) -> Sql:
    """A query that brings what has changed into a table, in the caller's transaction: its build as `_jammi_build`.

    Raises DeniedError where the caller only reads.
    """
    engine.jobs.planned(caller)
    pinned = pin_snapshot(engine.tables, entry, caller)
    request = {
        "table": entry.name,
        "snapshot_token": pinned.token,
        "build": entry.build,
        "source": source.written,
        "limit": limit,
    }
    asked = proven(json.dumps(request), source, meant, entry.definition.key)
    return sql(
        "WITH {changes} SELECT _jammi_freshen({compared}, {candidates}) AS _jammi_build FROM _jammi_census c",
        changes=changes(rows_compared(source, entry), entry, pinned, limit),
        compared=compared(asked, sql("0"), caller),
        candidates=FOUND,
    )


# The candidates of `changes`, as a list.
FOUND = sql("(SELECT list(struct_pack(key := key::VARCHAR, text := text)) FROM _jammi_candidates)")


def changes(rows: Sql, entry: Entry, pinned: PinnedSnapshot, limit: int) -> Sql:
    """Common table expressions: those of a `comparison`, and `_jammi_candidates`, which are the rows that differ.

    `rows` are those of the source. Of the new and changed ones, there are `limit` at most.
    """
    columns, title = entry.definition.columns, entry.definition.title_columns
    return sql(
        "{comparison}, "
        "_jammi_chosen AS MATERIALIZED (SELECT key FROM _jammi_changes WHERE key IS NOT NULL LIMIT {limit}), "
        "_jammi_candidates AS (SELECT _row_id AS key, NULL::VARCHAR AS text FROM _jammi_changes WHERE key IS NULL "
        "UNION ALL SELECT {key}, {text} FROM _jammi_rows r JOIN _jammi_chosen n ON {key} = n.key)",
        comparison=comparison(rows, entry, pinned),
        limit=limit,
        key=KEY,
        text=packed_text_of(columns, title, pictures=entry.definition.pictures) if columns else NULL,
    )


def freshen(engine: Engine, found: Column, candidates: Column) -> pa.Array:
    """Bring what a comparison has found into a table; gives its build."""
    builds = []
    for each, rows in zip(records(found, CompareArguments), candidates.to_pylist(), strict=True):
        request = json.loads(each.request)
        entry = _entry(engine, request)
        engine.tables.pins.release(request["snapshot_token"])
        there = Candidates(
            request["source"],
            _texts(rows or []),
            each.census,
            max(0, each.added + each.changed - request["limit"]),
        )
        now, _ = engine.freshener.freshen(entry, there, request["limit"], each.caller)
        builds.append(now.build)
    return pa.array(builds, pa.string())


def _texts(rows: list[Mapping[str, str | None]]) -> dict[str, str | None]:
    return {str(row["key"]): row["text"] for row in rows}


def _entry(engine: Engine, request: Mapping[str, str]) -> Entry:
    for entry in engine.tables.catalog.entries("ready", name=request["table"]):
        if entry.build == request["build"]:
            return entry
    raise NotFoundError("the embedding table was replaced or dropped while this query was planned; run it again")
