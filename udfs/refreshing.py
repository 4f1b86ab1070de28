"""The scalar functions of refreshes: the comparison of a source with its embedding table, and what acts on it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from jammi_duck.errors import NotFoundError, StorageError
from jammi_duck.sql import Sql, literal, sql
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.manifest import Manifest
from jammi_duck.storage.files.table_files import files_of
from jammi_duck.storage.tables import snapshot
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.catalog_sync import catch_up, follow_others
from jammi_duck.storage.tables.segment_words import without_words
from jammi_duck.storage.tables.snapshot import PinnedSnapshot, pin_snapshot
from jammi_duck.types import Caller, Integer
from jammi_duck.udfs.arguments import parse_model
from jammi_duck.udfs.columns import Column, packed, records, rows_in_turn, rows_of, table
from jammi_duck.udfs.disambiguation import disambiguate, disambiguate_new, proven
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.renewing import counted, live_of, new_texts, words_pushed
from jammi_duck.udfs.rows import KEY, digest_of, texts_picked
from jammi_duck.udfs.sources import Source, SourceCandidate, resolve
from jammi_duck.udfs.table_lookup import Choice, find_embeddings, telling_renames
from jammi_duck.work.compact import Compacted, advice, call, compact, size
from jammi_duck.work.generate import GENERATE_ANEW, Census, check_keys
from jammi_duck.work.refresh import Comparison, Refreshed, choose_refreshable


@dataclass(frozen=True)
class CompareArguments:
    """Arguments of `_jammi_refresh` and `_jammi_status`: the request as JSON, a census, and how many rows differ."""

    request: str
    census: Census
    added: int
    changed: int
    deleted: int
    texts: int
    caller: Caller


@dataclass(frozen=True)
class TableStatus:
    """How an embedding table differs from its source; `age` is in seconds.

    `followed` is how changes are found, if the source is followed. `passages` is how many passages the table has, if
    texts are cut into some.
    """

    embedding_table: str
    current: int
    new: int
    changed: int
    gone: int
    coverage: float
    segments: Integer
    bytes: int
    age: float
    advice: str | None
    followed: str | None
    passages: int | None


# Of a table: its rows, those with a key, and the distinct keys.
CENSUS = sql("count(*) AS row_count, count(key) AS non_null_keys, count(DISTINCT key) AS distinct_keys")
_FINISH = sql("_jammi_refreshed(b.token, f.pushed, t.pushed)")


def refresh_plan(engine: Engine, choice: Choice, session: str) -> Sql:
    """The query that refreshes a table within the caller's own transaction."""
    model = parse_model(choice.model)
    source = resolve(choice.source, choice.search_path, engine.host)
    caller = Caller(session, choice.transaction)
    # A build that this session has left is not over before.
    engine.jobs.settle(caller)
    meant = disambiguate(engine, source, choice.table, failed=True)
    with telling_renames(engine, source):
        entry = choose_refreshable(
            engine.tables,
            engine.encoders,
            meant.identity,
            model,
            choice.table,
            column=choice.column,
            called=source.written,
        )
    is_renamed = meant not in (*source.all_candidates, *source.legacy)
    now = disambiguate_new(engine, source) if is_renamed else None
    new_source_name = now.identity if now else None
    return refresh_query(engine, source, now or meant, entry, caller, new_source_name=new_source_name)


def refresh_query(
    engine: Engine,
    source: Source,
    meant: SourceCandidate,
    entry: Entry,
    caller: Caller,
    *,
    finish: Sql = _FINISH,
    new_source_name: str | None = None,
) -> Sql:
    """The query that compares a source with a table, and pushes what differs; the call `finish` gives its result.

    Each text that the table lacks comes once, with the keys of all rows that have it; where a row of the table has
    that text already, with the place of its vector, and else with the text itself, read in a second look at the source.
    """
    engine.jobs.planned(caller)
    pinned = pin_snapshot(engine.tables, entry, caller, spare=True)
    state = pinned.snapshot.manifest
    lacking = without_words(engine.tables.store_at(entry.location), state)
    request = {
        "table": entry.name,
        "build": entry.build,
        "snapshot_token": pinned.token,
        "source": source.written,
        "began": time.monotonic(),
        "new_source_name": new_source_name,
        "without_words": [each.number for each in lacking],
    }
    asked = proven(json.dumps(request), source, meant, entry.definition.key)
    new = new_texts(entry, pinned, has_words=state.definition.words is not None)
    return sql(
        "WITH {comparison}, {new}, "
        "_jammi_begun AS MATERIALIZED (SELECT _jammi_refresh({compared}) AS token FROM _jammi_census c) "
        "SELECT unnest({finish}, recursive := true) FROM "
        "(SELECT count(_jammi_forget(b.token, c._row_id, c._segment, c._place)) AS pushed "
        "FROM ({gone}) c, _jammi_begun b) f, "
        "(SELECT count(pushed) AS pushed FROM ({pushed}{words})) t, _jammi_begun b",
        comparison=comparison(rows_compared(source, entry), entry, pinned),
        new=new.expressions,
        compared=compared(asked, new.to_embed, caller),
        finish=finish,
        gone=_gone(entry, pinned),
        pushed=new.pushed,
        words=sql(" UNION ALL {}", words_pushed(entry, pinned, lacking)) if lacking else sql(""),
    )


def _gone(entry: Entry, pinned: PinnedSnapshot) -> Sql:
    """The rows of a table that are gone from the source, or replaced."""
    if not entry.definition.passages:
        return sql("SELECT _row_id, _segment, _place FROM _jammi_changes WHERE _row_id IS NOT NULL")
    return sql(
        "SELECT l._row_id, l._segment, l._place FROM ({}) l JOIN _jammi_changes c "
        'ON l._row_id COLLATE "C" = c._row_id COLLATE "C"',
        live_of(entry, pinned, sql("_row_id, _segment, _place")),
    )


def status_plan(engine: Engine, choice: Choice, session: str) -> Sql:
    """The query that says how a table differs from its source."""
    source = resolve(choice.source, choice.search_path, engine.host)
    follow_others(engine.tables, at_once=True)
    try:
        entry, meant = find_embeddings(engine, source, choice.model, choice.table, choice.column, failed=True)
    except NotFoundError as error:
        known = disambiguate(engine, source, choice.table, failed=True).identity
        failed = engine.tables.catalog.entries("failed", source=known) if choice.table is None else ()
        if not any(_has_segments(engine, entry) for entry in failed):
            raise
        first = f"{error.remedy}, or" if error.remedy else "jammi_generate"
        resumed = f"{first} goes on with one that was interrupted, with resume := true"
        raise NotFoundError(error.message, resumed) from error
    caller = Caller(session, choice.transaction)
    pinned = pin_snapshot(engine.tables, entry, caller)
    # What is told is what a search finds.
    catch_up(engine.tables, entry, pinned.snapshot.manifest, at_work=True)
    request = {"table": entry.name, "snapshot_token": pinned.token, "source": source.written}
    asked = proven(json.dumps(request), source, meant, entry.definition.key)
    return sql(
        "WITH {} SELECT * REPLACE (to_seconds(age) AS age) FROM "
        "(SELECT unnest(_jammi_status({}), recursive := true) FROM _jammi_census c)",
        comparison(rows_compared(source, entry), entry, pinned),
        compared(asked, sql("0"), caller),
    )


def _has_segments(engine: Engine, entry: Entry) -> bool:
    """Whether something is left of a build that failed, as far as the names of files tell."""
    with contextlib.suppress(StorageError):
        return any(map(layout.is_parquet, files_of(engine.tables.store_at(entry.location), entry.name)))
    return False


def comparison_of(engine: Engine, source: Source, entry: Entry, caller: Caller) -> Sql:
    """The common table expressions that compare a source with a table."""
    return comparison(rows_compared(source, entry), entry, pin_snapshot(engine.tables, entry, caller))


def rows_compared(source: Source, entry: Entry) -> Sql:
    """The rows of a source that are compared with a table."""
    definition = entry.definition
    return texts_picked(source, definition.columns, definition.key, entry.name, pictures=definition.pictures)


def comparison(rows: Sql, entry: Entry, pinned: PinnedSnapshot) -> Sql:
    """Common table expressions: the source's rows and keys, the table's rows, `_jammi_changes` and `_jammi_census`.

    `rows` are those of the source, as `rows_compared` has them.
    A change has a key, and the digest of its text, where the source has such a row with a text; and the place of the
    table's row, where that has one. Only keys and digests are kept, which DuckDB writes to disk where they are many.
    """
    definition = entry.definition
    live = live_of(entry, pinned, sql("_row_id, _text_digest, _segment, _place"))
    if definition.passages:
        # The digest of the whole text, once for each.
        passages = live_of(entry, pinned, sql("_row_id, _row_digest AS _text_digest, _segment, _place, _passage"))
        live = sql("SELECT _row_id, _text_digest, _segment, _place FROM ({}) WHERE _passage = 0", passages)
    return sql(
        "_jammi_rows AS NOT MATERIALIZED ({rows}), "
        "_jammi_keys AS MATERIALIZED (SELECT {key} AS key, unhex({digest}) AS digest FROM _jammi_rows r), "
        "_jammi_live AS NOT MATERIALIZED ({live}), "
        "_jammi_changes AS MATERIALIZED (SELECT key, digest, _row_id, _segment, _place FROM "
        "(SELECT * FROM _jammi_keys WHERE digest IS NOT NULL) FULL JOIN _jammi_live ON key = _row_id "
        "WHERE digest IS DISTINCT FROM _text_digest), "
        "_jammi_census AS MATERIALIZED (SELECT * FROM (SELECT {census} FROM _jammi_keys), "
        "(SELECT count(*) FILTER (_row_id IS NULL) AS added, "
        "count(*) FILTER (key IS NOT NULL AND _row_id IS NOT NULL) AS changed, "
        "count(*) FILTER (key IS NULL) AS deleted FROM _jammi_changes))",
        rows=rows,
        key=KEY,
        digest=digest_of(definition.columns, definition.title_columns, pictures=definition.pictures),
        live=live,
        census=CENSUS,
    )


def compact_plan(engine: Engine, choice: Choice, session: str) -> Sql:
    """The query that compacts a table."""
    source = resolve(choice.source, choice.search_path, engine.host)
    entry, _ = find_embeddings(engine, source, choice.model, choice.table, choice.column)
    engine.jobs.planned(Caller(session, choice.transaction))
    return sql(
        "SELECT unnest(_jammi_compact({}, {}, {}), recursive := true)",
        literal(entry.name),
        literal(session),
        choice.transaction,
    )


def begin(engine: Engine, compared: Column) -> pa.Array:
    """Start a refresh; gives its token."""
    tokens = []
    for each in records(compared, CompareArguments):
        found = Comparison(
            **json.loads(each.request),
            census=each.census,
            added=each.added,
            changed=each.changed,
            deleted=each.deleted,
            texts=each.texts,
        )
        tokens.append(engine.refresher.begin(found, each.caller))
    return pa.array(tokens, pa.string())


def forget(engine: Engine, token: Column, row_ids: Column, segments: Column, positions: Column) -> pa.Array:
    """Take rows that are gone or replaced."""
    if len(token):
        engine.refresher.forget(token[0].as_py(), *(each.to_pylist() for each in (row_ids, segments, positions)))
    return pa.array(np.zeros(len(token), np.int32))


def renew(engine: Engine, token: Column, *columns: Column) -> pa.Array:
    """Take texts that the table lacks."""
    if len(token):
        engine.refresher.renew(token[0].as_py(), rows_in_turn(columns))
    return pa.array(np.zeros(len(token), np.int32))


def finish(engine: Engine, token: Column, *_: Column) -> pa.Array:
    """Commit the new state."""
    return table([[engine.refresher.finish(each)] for each in token.to_pylist()], Refreshed)


def status(engine: Engine, compared: Column) -> pa.Array:
    """What a comparison found, in a row."""
    told = []
    for found in records(compared, CompareArguments):
        added, changed, deleted = found.added, found.changed, found.deleted
        request = json.loads(found.request)
        entry = engine.tables.ready(request["table"])
        definition = entry.definition
        check_keys(definition.source, definition.key, found.census, GENERATE_ANEW)
        state = snapshot.pinned_snapshot(engine.tables, entry, request["snapshot_token"]).manifest
        engine.tables.pins.release(request["snapshot_token"])
        current = state.texts - changed - deleted
        wanted = current + added + changed
        now = datetime.now(UTC)
        followed = engine.followed.of(entry.source)
        row = TableStatus(
            embedding_table=entry.name,
            current=current,
            new=added,
            changed=changed,
            gone=deleted,
            coverage=current / wanted if wanted else 1.0,
            segments=len(state.segments),
            bytes=size(state),
            age=max(0.0, (now - state.finished).total_seconds()),
            advice=_advice(engine, state, request["source"], added, changed + deleted),
            followed=followed.changes_by if followed else None,
            passages=state.rows if definition.passages else None,
        )
        told.append([row])
    return table(told, TableStatus)


def _advice(engine: Engine, state: Manifest, source: str, added: int, others: int) -> str | None:
    if added and not state.definition.columns:
        return (
            "import it again, with cols := [...] (columns=[...] in Python, --columns on the command line): "
            "without them, a refresh cannot embed what is new"
        )
    if added + others:
        return f"{call('jammi_refresh', engine.tables, state, source)} brings it up to date"
    if without_words(engine.tables.store_at(engine.tables.ready(state.table).location), state):
        return f"words are missing or damaged: {call('jammi_refresh', engine.tables, state, source)} indexes them again"
    return advice(engine.tables, state, source)


def compact_tables(engine: Engine, *columns: Column) -> pa.Array:
    """Merge the segments of tables."""
    done = []
    for name, session, transaction in rows_of(columns):
        entry = engine.tables.ready(name)
        done.append([compact(engine.tables, engine.jobs, entry, Caller(session, transaction))])
    return table(done, Compacted)


def caller_sql(caller: Caller) -> Sql:
    """SQL for who calls."""
    return packed(Caller, session=literal(caller.session), transaction=sql("{}", caller.transaction))


def compared(request: Sql, texts: Sql, caller: Caller) -> Sql:
    """SQL for what a comparison found, beside its row `c`."""
    return packed(
        CompareArguments,
        request=request,
        census=counted(sql("c"), sql("_jammi_rows")),
        added=sql("c.added"),
        changed=sql("c.changed"),
        deleted=sql("c.deleted"),
        texts=texts,
        caller=caller_sql(caller),
    )
