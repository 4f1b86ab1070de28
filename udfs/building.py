"""The scalar functions of builds and imports: the query that each stands for, and the calls that drive it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.errors import DamagedError, InputError
from jammi_duck.sql import NULL, Sql, Template, joined, literal, sql, template
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.words.analyser import analyser
from jammi_duck.types import Caller
from jammi_duck.udfs.arguments import parse_int, parse_language, parse_model
from jammi_duck.udfs.columns import Column, packed, records, rows_in_turn, rows_of, table
from jammi_duck.udfs.cutting import cutting_of, with_title
from jammi_duck.udfs.disambiguation import disambiguate, disambiguate_new, identified
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.labels import check_name, labelled_columns
from jammi_duck.udfs.refreshing import caller_sql, comparison_of, refresh_query
from jammi_duck.udfs.rows import (
    KEY,
    check_pictures,
    text_among,
    texts_picked,
)
from jammi_duck.udfs.sources import SearchPath, Source, SourceCandidate, resolve, shown
from jammi_duck.work.generate import Census, Cutting, Generated, Request, find_reusable
from jammi_duck.work.refresh import find_resumable
from jammi_duck.work.sync import Synced, generated, refreshed


@dataclass(frozen=True)
class BeginArguments:
    """Arguments of `_jammi_begin`: the requests as JSON, the source's canonical name, and a census of its rows.

    `differing_rows` is how many rows differ from a table that may be used again, for each request.
    """

    requests: str
    source: str
    census: Census
    differing_rows: list[int | None]
    caller: Caller


# Of all builds of a query, and of one table that is there.
_FINISH = template("_jammi_finish(b.tokens, {})")
_FINISH_SYNC = template("_jammi_synced('generate', b.tokens, {}, 0)")
_SYNCED = template("_jammi_synced({}, list_value(b.token), list_value(f.pushed), t.pushed)")
_RESUMED = sql("_jammi_resumed(b.token, f.pushed, t.pushed)")
# Texts are compared letter by letter, whatever collation the column or the session has; numbers need no text for that.
_DIFFERENT = sql(
    '"+"(count(DISTINCT {}) FILTER ({is_text}), count(DISTINCT r.c0) FILTER (NOT {is_text}))',
    KEY,
    is_text=sql("typeof(r.c0) = 'VARCHAR'"),
)


@dataclass(frozen=True)
class SyncCall:
    """The arguments of `jammi_sync` as SQL gives them; `cols` and `passages` are JSON."""

    source: str | None
    search_path: SearchPath
    cols: str | None
    key: str | None
    model: str | None
    dims: str | None
    name: str | None
    words: bool | None
    language: str | None
    vectors: bool | None
    passages: str | None
    transaction: int
    session: str

    @property
    def caller(self) -> Caller:
        """Who calls."""
        return Caller(self.session, self.transaction)


@dataclass(frozen=True)
class GenerateCall(SyncCall):
    """The arguments of `jammi_generate`."""

    reuse: bool | None
    resume: bool | None


def generate_plan(engine: Engine, call: GenerateCall) -> Sql:
    """The query that embeds a source, or goes on with what is left of a build of the same."""
    caller = call.caller
    if call.resume:
        # A build that this session has left is not over before.
        engine.jobs.settle(caller)
    if call.reuse:
        follow_others(engine.tables, at_once=True)
    asked = _asked(engine, call, "jammi_generate")
    resumed: dict[int, Sql] = {}
    anew: dict[int, _Build] = {}
    for place, request in enumerate(asked.requests):
        if call.resume and (left := find_resumable(engine.tables, engine.encoders, request)):
            resumed[place] = refresh_query(engine, asked.source, asked.meant, left, caller, finish=_RESUMED)
        else:
            anew[place] = _compared(engine, call, asked.source, request)
    return _united(resumed, asked, anew, caller, _FINISH)


def _compared(engine: Engine, call: GenerateCall, source: Source, request: Request) -> _Build:
    """The build of a request, and the comparison with a table that may be used again in its place."""
    made = None
    if call.reuse:
        made = find_reusable(engine.tables, engine.encoders, request)
    elif not call.resume and engine.host.may_be_look():
        made = engine.generator.made_before(request, call.caller)
    if made:
        try:
            comparison = comparison_of(engine, source, made, call.caller)
            return _Build(dataclasses.replace(request, reuse=made.name, again=not call.reuse), comparison)
        except DamagedError as error:
            log.warning("%s cannot be used again: %s; building anew", made.name, error)
    return _Build(request)


def sync_plan(engine: Engine, call: SyncCall) -> Sql:
    """The query that refreshes what a source was embedded as, or embeds it, if that was never done."""
    caller = call.caller
    engine.jobs.settle(caller)
    follow_others(engine.tables, at_once=True)
    asked = _asked(engine, call, "jammi_sync")
    there: dict[int, Sql] = {}
    for place, request in enumerate(asked.requests):
        for way, find in (("refresh", find_reusable), ("resume", find_resumable)):
            if place not in there and (made := find(engine.tables, engine.encoders, request)):
                finish = _SYNCED(literal(way))
                there[place] = refresh_query(engine, asked.source, asked.meant, made, caller, finish=finish)
    anew = {place: _Build(request) for place, request in enumerate(asked.requests) if place not in there}
    return _united(there, asked, anew, caller, _FINISH_SYNC)


@dataclass(frozen=True)
class _Asked:
    """What is to be embedded: `new` is what the source will be, where nothing was made of it yet."""

    source: Source
    meant: SourceCandidate
    new: SourceCandidate | None
    requests: Sequence[Request]


@dataclass(frozen=True)
class _Build:
    """A build that a query begins, and its `comparison` with a table that may be used again."""

    request: Request
    comparison: Sql | None = None


def _asked(engine: Engine, call: SyncCall, function: str) -> _Asked:
    if call.source is None or call.cols is None or call.key is None:
        raise InputError(f"{function} needs a source, its columns and its key: none of them may be NULL")
    columns = labelled_columns(call.cols)
    check_name(call.name)
    engine.jobs.planned(call.caller)
    source = resolve(call.source, call.search_path, engine.host)
    new = disambiguate_new(engine, source)
    meant = disambiguate(engine, source, failed=True)
    if new and meant.relation != new.relation:
        meant = new
    dims, model = parse_int(call.dims, "dims"), parse_model(call.model)
    language = language_of(call.words, call.language)
    if call.vectors is False:
        _check_words_only(model, dims, language)
    model = "" if call.vectors is False else model or engine.default_model
    pictures = takes_pictures(engine, model, columns.values())
    # A picture has no words.
    language = None if pictures else language
    passages = cutting_of(call.passages)
    if pictures and passages:
        raise InputError(f"passages are of texts, and the model '{model}' takes pictures: leave passages out")
    cut = [with_title(names, passages) for names in columns.values()]
    requests = [
        Request(
            meant.identity,
            names,
            call.key,
            model,
            dims,
            call.name if call.name is None or label is None else f"{call.name}.{label}",
            language,
            embedding=label,
            pictures=pictures,
            passages=rule,
        )
        for label, (names, rule) in zip(columns, cut, strict=True)
    ]
    return _Asked(source, meant, new, requests)


def takes_pictures(engine: Engine, model: str, columns: Iterable[Sequence[str]]) -> bool:
    """Whether a model takes pictures. Raises InputError if several columns are to be one."""
    takes = bool(model) and engine.encoders.takes_images(model)
    if takes:
        for each in columns:
            check_pictures(each, model)
    return takes


def language_of(words: bool | None, language: str | None) -> str | None:
    """The language of the words that are to be indexed, if they are. Raises InputError."""
    if words is False:
        return None
    language = parse_language(language)
    if language is None:
        raise InputError("language is NULL; give the language of the texts, 'none' for any, or words := false")
    return analyser(language).language


def _check_words_only(model: str | None, dims: int | None, language: str | None) -> None:
    """Raise InputError if a table without vectors is to have something of them, or no words either."""
    if language is None:
        raise InputError(
            "vectors := false and words := false (--no-vectors and --no-words on the command line) leave nothing to "
            "store; leave one of them out"
        )
    for option, value in (("model", model), ("dims", dims)):
        if value is not None:
            raise InputError(
                f"{option} is {value}, and vectors := false (--no-vectors on the command line) makes a table of words "
                "only, which has none; leave out one of them"
            )


def _united(
    there: Mapping[int, Sql], asked: _Asked, anew: Mapping[int, _Build], caller: Caller, finish: Template
) -> Sql:
    """The query for all embeddings, in the order of their places: of tables that are there, and of builds.

    The builds are one query, which reads the source for all of them.
    """
    parts: dict[tuple[int, ...], Sql] = {(place,): query for place, query in there.items()}
    if anew:
        parts[tuple(anew)] = _generate_query(asked, list(anew.values()), caller, finish)
    if len(parts) == 1:
        (query,) = parts.values()
        return query
    placed = (
        sql(
            "SELECT list_extract(list_value({}), row_number() OVER ()) AS _jammi_place, * FROM ({})",
            joined(", ", (sql("{}", place) for place in places)),
            query,
        )
        for places, query in parts.items()
    )
    return sql("SELECT * EXCLUDE (_jammi_place) FROM ({}) ORDER BY _jammi_place ASC", joined(" UNION ALL ", placed))


def _generate_query(asked: _Asked, builds: Sequence[_Build], caller: Caller, finish: Template) -> Sql:
    """The query that embeds a source's rows within the caller's own transaction.

    `_jammi_begin` runs once and makes a token for each build, `_jammi_push` takes every row for each of them, and
    `_jammi_finish` runs once at the end, also when there are no rows. `_jammi_begin` is told how many rows differ from
    a table that may be used again. The call `finish` gives the result.
    """
    requests = [build.request for build in builds]
    key = requests[0].key
    names = list(dict.fromkeys(name for request in requests for name in request.columns))
    is_compared = any(build.comparison for build in builds)
    differing = (
        sql('(WITH {} SELECT "+"("+"(added, changed), deleted) FROM _jammi_census)', build.comparison)
        if build.comparison
        else NULL
        for build in builds
    )
    begun = packed(
        BeginArguments,
        requests=literal(json.dumps(list(map(dataclasses.asdict, requests)))),
        source=identified(asked.source, asked.new or (asked.meant if is_compared else None), key),
        census=packed(
            Census,
            rows=sql("count(*)"),
            non_null_keys=sql("count(c0)"),
            distinct_keys=_DIFFERENT,
            key_type=sql("coalesce(any_value(typeof(c0)), '')"),
        ),
        differing_rows=sql("list_value({})::BIGINT[]", joined(", ", differing)),
        caller=caller_sql(caller),
    )
    pushed = (
        sql(
            "count(_jammi_push(list_extract(b.tokens, {}), r.c0::VARCHAR, {}))",
            place,
            text_among(
                request.columns,
                names,
                request.passages.title if request.passages else (),
                pictures=request.pictures,
            ),
        )
        for place, request in enumerate(requests, start=1)
    )
    return sql(
        "WITH _jammi_rows AS NOT MATERIALIZED ({rows}), "
        "_jammi_build AS MATERIALIZED (SELECT _jammi_begin({begun}) AS tokens FROM _jammi_rows r) "
        "SELECT unnest({finish}, recursive := true) FROM "
        "(SELECT list_value({pushed}) AS pushed FROM _jammi_rows r, _jammi_build b) p, _jammi_build b",
        rows=texts_picked(asked.source, names, key, pictures=requests[0].pictures),
        begun=begun,
        finish=finish(sql("p.pushed")),
        pushed=joined(", ", pushed),
    )


def begin(engine: Engine, begun: Column) -> pa.Array:
    """Start builds; gives their tokens."""
    tokens = [
        engine.generator.begin(
            [request_of(fields, each.source) for fields in json.loads(each.requests)],
            each.census,
            each.differing_rows,
            each.caller,
        )
        for each in records(begun, BeginArguments)
    ]
    return pa.array(tokens, pa.list_(pa.string()))


def request_of(fields: Mapping[str, Any], source: str) -> Request:
    """A request of its fields, which JSON has brought, for a source."""
    passages = fields["passages"]
    cutting = None if passages is None else Cutting(**{**passages, "title": tuple(passages["title"])})
    return Request(**{**fields, "source": source, "columns": tuple(fields["columns"]), "passages": cutting})


def push(engine: Engine, token: Column, keys: Column, texts: Column) -> pa.Array:
    """Take rows of a build."""
    if len(token):
        engine.generator.push(token[0].as_py(), rows_in_turn((keys, texts)))
    return pa.array(np.zeros(len(token), np.int32))


def finish(engine: Engine, tokens: Column, pushed: Column) -> pa.Array:
    """End builds; gives what came of them."""
    return generated_rows(engine, [engine.generator.finish(*row) for row in rows_of((tokens, pushed))])


def finish_resumed(engine: Engine, token: Column, *_: Column) -> pa.Array:
    """End builds that went on with what an interrupted one had left; gives what came of them."""
    return generated_rows(engine, [[engine.refresher.finish_build(each)] for each in token.to_pylist()])


def finish_sync(engine: Engine, *columns: Column) -> pa.Array:
    """End syncs, each in its way; gives what came of them."""
    done = []
    for way, tokens, pushed, _ in rows_of(columns):
        if way == "generate":
            done.append([generated(each, way) for each in engine.generator.finish(tokens, pushed)])
        elif way == "resume":
            done.append([generated(engine.refresher.finish_build(each), way) for each in tokens])
        else:
            found = map(engine.refresher.finish, tokens)
            done.append([refreshed(each, engine.tables.ready(each.embedding_table)) for each in found])
    return table(done, Synced)


def generated_rows(engine: Engine, done: Sequence[Sequence[Generated]]) -> pa.Array:
    """What became of builds, with their sources as users write them."""
    return table(
        [[dataclasses.replace(each, source=shown(each.source, engine.host)) for each in some] for some in done],
        Generated,
    )
