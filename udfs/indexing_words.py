"""The scalar functions that index the words of a table that is there: the query for it, and the calls that drive it."""

from __future__ import annotations

import dataclasses
import json
import time

import pyarrow as pa

from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.segment_words import without_words
from jammi_duck.storage.tables.snapshot import pin_snapshot
from jammi_duck.storage.words.analyser import analyser
from jammi_duck.types import Caller
from jammi_duck.udfs.arguments import parse_language
from jammi_duck.udfs.columns import Column, records, rows_of, table
from jammi_duck.udfs.disambiguation import proven
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.refreshing import CompareArguments, compared, comparison, rows_compared
from jammi_duck.udfs.renewing import words_pushed
from jammi_duck.udfs.sources import resolve
from jammi_duck.udfs.table_lookup import Choice, find_embeddings
from jammi_duck.work.index_words import WordsIndexed, WordsRequest


def index_words_plan(engine: Engine, choice: Choice, language: str | None, session: str) -> Sql:
    """The query that reads the texts of a table's rows, within the caller's own transaction."""
    language = parse_language(language)
    source = resolve(choice.source, choice.search_path, engine.host)
    caller = Caller(session, choice.transaction)
    engine.jobs.settle(caller)
    entry, meant = find_embeddings(engine, source, choice.model, choice.table, choice.column)
    if language is None:
        raise InputError("language is NULL; give the language of the texts, or 'none' for any")
    if entry.definition.pictures:
        raise InputError(f"'{entry.name}' is of pictures, which have no words; search it for texts by their meaning")
    words = analyser(language).analysis
    if not entry.definition.columns:
        raise InputError(
            f"'{entry.name}' was imported without the columns of its text, so its words are not known; import it "
            "again, with cols := [...] (columns=[...] in Python, --columns on the command line)"
        )
    if not are_placed(engine.tables, entry):
        raise InputError(
            f"'{entry.name}' was imported without the places of its passages, so their words are not known; import it "
            "again, with passages := {'start': ..., 'end': ...}"
        )
    engine.jobs.planned(caller)
    pinned = pin_snapshot(engine.tables, entry, caller)
    state = pinned.snapshot.manifest
    wanted = dataclasses.replace(state, definition=dataclasses.replace(state.definition, words=words))
    lacking = without_words(engine.tables.store_at(entry.location), wanted)
    request = WordsRequest(
        source=source.written,
        table=entry.name,
        build=entry.build,
        snapshot_token=pinned.token,
        began=time.monotonic(),
        language=language,
        without_words=[each.number for each in lacking],
    )
    asked = proven(json.dumps(dataclasses.asdict(request)), source, meant, entry.definition.key)
    pushed = words_pushed(entry, pinned, lacking) if lacking else sql("SELECT NULL AS pushed WHERE false")
    return sql(
        "WITH {comparison}, _jammi_begun AS MATERIALIZED (SELECT _jammi_index_words({compared}) AS token "
        "FROM _jammi_census c) SELECT unnest(_jammi_words_indexed(b.token, w.pushed), recursive := true) FROM "
        "(SELECT coalesce(sum(pushed), 0)::BIGINT AS pushed FROM ({pushed})) w, _jammi_begun b",
        comparison=comparison(rows_compared(source, entry), entry, pinned),
        compared=compared(asked, sql("0"), caller),
        pushed=pushed,
    )


def are_placed(tables: EmbeddingTables, entry: Entry) -> bool:
    """Whether it is known where in their texts the passages of a table are, if it has passages."""
    passages = [segment.passages for segment in tables.table(entry).segments]
    return not any(each.column("_start").null_count for each in passages if each is not None)


def begin(engine: Engine, asked: Column) -> pa.Array:
    """Start; gives tokens."""
    tokens = [
        engine.words_indexer.begin(WordsRequest(**json.loads(each.request)), each.census, each.caller)
        for each in records(asked, CompareArguments)
    ]
    return pa.array(tokens, pa.string())


def finish(engine: Engine, *columns: Column) -> pa.Array:
    """Commit the new state; gives what came of it."""
    return table([[engine.words_indexer.finish(*row)] for row in rows_of(columns)], WordsIndexed)
