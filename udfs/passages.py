"""Writes the query that shows how the rows of an embedding table were cut into passages."""

from __future__ import annotations

from jammi_duck.errors import InputError
from jammi_duck.sql import NULL, Sql, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.snapshot import pin_snapshot
from jammi_duck.types import Caller
from jammi_duck.udfs.disambiguation import proven
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.refreshing import rows_compared
from jammi_duck.udfs.renewing import live_of
from jammi_duck.udfs.rows import KEY, digest_of, parts_of
from jammi_duck.udfs.sources import Source, resolve
from jammi_duck.udfs.table_lookup import Choice, find_embeddings


def passages_plan(engine: Engine, choice: Choice, session: str) -> Sql:
    """The query for the passages of a table, with their texts where the source has these still.

    The passages of a row are gathered first, so that its text is looked through once for all of them.
    """
    source = resolve(choice.source, choice.search_path, engine.host)
    entry, meant = find_embeddings(engine, source, choice.model, choice.table, choice.column)
    definition = entry.definition
    if not definition.passages:
        raise InputError(
            f"the texts of '{entry.name}' were not cut into passages: generate with passages := true (passages=True "
            "in Python, --passages on the command line)"
        )
    pinned = pin_snapshot(engine.tables, entry, Caller(session, choice.transaction))
    return sql(
        'WITH _jammi_cuts AS NOT MATERIALIZED (SELECT _row_id COLLATE "C" AS _row_id, '
        "any_value(_row_digest) AS digest, "
        "list(_passage ORDER BY _passage ASC) AS numbers, list(_start ORDER BY _passage ASC) AS starts, "
        'list(_end ORDER BY _passage ASC) AS ends FROM ({live}) GROUP BY _row_id COLLATE "C") '
        "SELECT _row_id, _passage, _start, _end, _passage_text FROM (SELECT _row_id, unnest(numbers) AS _passage, "
        "unnest(starts) AS _start, unnest(ends) AS _end, unnest(texts) AS _passage_text FROM ({cut})), "
        "(SELECT {proof} AS proof) WHERE proof IS NOT NULL ORDER BY _row_id ASC, _passage ASC",
        live=live_of(entry, pinned, sql("_row_id, _passage, _start, _end, _row_digest")),
        cut=_cut(entry, source),
        proof=proven(entry.name, source, meant, definition.key),
    )


def _cut(entry: Entry, source: Source) -> Sql:
    """The rows of `_jammi_cuts`, each with the texts of its passages: NULL where its text is not what was cut."""
    definition = entry.definition
    every, title = definition.columns, definition.title_columns
    if not every:
        return sql("SELECT *, {}::VARCHAR[] AS texts FROM _jammi_cuts", NULL)
    return sql(
        "SELECT c._row_id, c.numbers, c.starts, c.ends, "
        "_jammi_slices(CASE WHEN r.c0 IS NOT NULL THEN {text} END, c.starts, c.ends) AS texts "
        "FROM _jammi_cuts c LEFT JOIN ({rows}) r ON {key} = c._row_id AND unhex({digest}) = c.digest",
        text=parts_of(every, title)[1],
        rows=rows_compared(source, entry),
        key=KEY,
        digest=digest_of(every, title),
    )
