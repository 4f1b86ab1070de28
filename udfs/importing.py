"""The scalar functions of imports: the query that one stands for, and the calls that drive it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jammi_duck.errors import InputError, enumerated
from jammi_duck.sql import NULL, Sql, literal, sql
from jammi_duck.types import Caller
from jammi_duck.udfs.arguments import parse_model
from jammi_duck.udfs.building import generated_rows, language_of, request_of, takes_pictures
from jammi_duck.udfs.columns import Column, packed, records, rows_of
from jammi_duck.udfs.cutting import Places, cutting_of, places_of, with_title
from jammi_duck.udfs.disambiguation import disambiguate_new, identified
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.refreshing import CENSUS, caller_sql
from jammi_duck.udfs.renewing import counted
from jammi_duck.udfs.rows import KEY, column_names, digest_of, packed_text_of, parts_of, picked, texts_picked
from jammi_duck.udfs.sources import SearchPath, resolve
from jammi_duck.work.generate import Census, Request
from jammi_duck.work.imported_passages import Place
from jammi_duck.work.importing import VectorCensus, Vectored


@dataclass(frozen=True)
class ImportArguments:
    """Arguments of `_jammi_import`: as `BeginArguments`, with the vectors' table and column, and a census of them."""

    request: str
    source: str
    census: Census
    vectors: str
    vector: str
    vector_census: Census
    found: VectorCensus
    caller: Caller


@dataclass(frozen=True)
class ImportCall:
    """The arguments of `jammi_import` as SQL gives them; `cols` and `passages` are JSON."""

    source: str | None
    search_path: SearchPath
    vectors: str | None
    key: str | None
    vector: str | None
    model: str | None
    cols: str | None
    words: bool | None
    language: str | None
    passages: str | None
    transaction: int
    session: str


# Of the rows `v` and `m` of an import's query.
_VECTOR_CENSUS = packed(
    VectorCensus,
    kind=sql("coalesce(v.kind, '')"),
    there=sql("v.there"),
    least=sql("v.least"),
    most=sql("v.most"),
    bad=sql("v.bad"),
    bad_key=sql("v.bad_key"),
    matched=sql("m.matched"),
    with_text=sql("m.with_text"),
    misplaced=sql("m.misplaced"),
    misplaced_key=sql("m.misplaced_key"),
)
# Whether a passage is nowhere in its text, though it is said where.
_IS_MISPLACED = sql(
    "(v.is_placed AND (v.start IS NOT NULL AND v.end_ IS NOT NULL AND v.start >= 0 AND v.start < v.end_ "
    "AND v.end_ <= k.characters AND v.is_whole) IS NOT TRUE)"
)
# The text of each passage. A long one of a row is gone through once, and not for each of them.
_PARTS = sql(
    "SELECT key, unnest(numbers) AS passage, unnest(slices) AS slice FROM (SELECT key, numbers, "
    "_jammi_slices(body, starts, ends) AS slices FROM (SELECT v.key, any_value(k.body) AS body, "
    "list(v.passage) AS numbers, list(v.start) AS starts, list(v.end_) AS ends "
    "FROM _jammi_vectors v JOIN _jammi_keys k USING (key) WHERE v.start IS NOT NULL GROUP BY v.key))"
)


def import_plan(engine: Engine, call: ImportCall) -> Sql:
    """The query that takes vectors that were made elsewhere, within the caller's own transaction."""
    key, vector = call.key, call.vector
    if call.source is None or call.vectors is None or key is None or vector is None:
        raise InputError("jammi_import needs a source, a table of vectors, its key and its vector: none may be NULL")
    model = parse_model(call.model)
    if not model:
        raise InputError("jammi_import needs the name of the model that made the vectors: model := '...'")
    columns = () if call.cols in (None, "null") else tuple(column_names(str(call.cols)))
    resolved, theirs = (resolve(each, call.search_path, engine.host) for each in (call.source, call.vectors))
    meant = disambiguate_new(engine, resolved)
    caller = Caller(call.session, call.transaction)
    engine.jobs.planned(caller)
    pictures = takes_pictures(engine, model, [columns])
    passages, places = cutting_of(call.passages, names_places=True), places_of(call.passages)
    if pictures and passages:
        raise InputError(f"passages are of texts, and the model '{model}' takes pictures: leave passages out")
    if passages:
        _check_places(columns, passages.title, places)
    if passages and columns:
        columns, passages = with_title(columns, passages)
    language = None if pictures or (passages and not places) else language_of(call.words, call.language)
    asked = Request(resolved.written, columns, key, model, language=language, pictures=pictures, passages=passages)
    title = passages.title if passages else ()
    parts = sql(" LEFT JOIN ({}) s ON s.key = v.key AND s.passage = v.passage", _PARTS) if places else sql("")
    request = json.dumps(dataclasses.asdict(asked))
    imported = packed(
        ImportArguments,
        request=literal(request),
        source=identified(resolved, meant, key),
        census=counted(sql("s"), sql("_jammi_rows")),
        vectors=literal(theirs.written),
        vector=literal(vector),
        vector_census=counted(sql("v"), sql("_jammi_theirs")),
        found=_VECTOR_CENSUS,
        caller=caller_sql(caller),
    )
    return sql(
        "WITH _jammi_rows AS NOT MATERIALIZED ({rows}), "
        "_jammi_keys AS MATERIALIZED (SELECT {key} AS key, {digest} AS digest, {text} AS text, {title} AS title, "
        "{body} AS body, length({body}) AS characters FROM _jammi_rows r), "
        "_jammi_theirs AS NOT MATERIALIZED ({theirs}), "
        "_jammi_vectors AS NOT MATERIALIZED (SELECT {key} AS key, "
        "CASE WHEN suffix(typeof(c1), ']') THEN TRY_CAST(c1 AS DOUBLE[]) END AS vector, {placed} "
        "FROM _jammi_theirs r), "
        "_jammi_squared AS NOT MATERIALIZED (SELECT key, vector, CASE WHEN list_aggr(vector, 'count') = len(vector) "
        "THEN list_aggr(list_transform(vector, lambda x: \"*\"(x, x)), 'sum') END AS square FROM _jammi_vectors), "
        "_jammi_build AS MATERIALIZED (SELECT _jammi_import({imported}) AS token FROM "
        "(SELECT {census} FROM _jammi_keys) s, "
        "(SELECT {census}, (SELECT any_value(typeof(c1)) FROM (SELECT c1 FROM _jammi_theirs LIMIT 1)) AS kind, "
        "count(vector) AS there, min(len(vector)) AS least, max(len(vector)) AS most, count(*) FILTER (is_bad) AS bad, "
        "arg_min(key, key) FILTER (is_bad) AS bad_key FROM "
        "(SELECT *, (square > 0 AND isfinite(square)) IS NOT TRUE AS is_bad FROM _jammi_squared)) v, "
        "(SELECT count(*) AS matched, count(k.digest) AS with_text, count(*) FILTER ({is_misplaced}) AS misplaced, "
        "arg_min(v.key, v.key) FILTER ({is_misplaced}) AS misplaced_key "
        "FROM _jammi_vectors v JOIN _jammi_keys k USING (key)) m) "
        "SELECT unnest(_jammi_imported(b.token, p.pushed), recursive := true) FROM "
        "(SELECT count(_jammi_take(b.token, v.key, v.vector, k.digest, {part}, v.passage, v.start, v.end_, "
        "v.passages, k.title)) AS pushed "
        "FROM _jammi_vectors v JOIN _jammi_keys k USING (key){parts}, _jammi_build b WHERE k.digest IS NOT NULL) p, "
        "_jammi_build b",
        rows=texts_picked(resolved, columns, key, pictures=pictures),
        key=KEY,
        digest=digest_of(columns, title, pictures=pictures),
        text=packed_text_of(columns) if columns and language and not passages else _NO_TEXT,
        title=parts_of(columns, title)[0] if passages and columns else _NO_TEXT,
        body=parts_of(columns, title)[1] if passages and places else _NO_TEXT,
        placed=_placed(is_cut=passages is not None, has_places=places is not None),
        is_misplaced=_IS_MISPLACED if places else sql("false"),
        part=sql("s.slice") if parts else _NO_TEXT if passages else sql("k.text"),
        parts=parts,
        theirs=picked(theirs, [vector, *(places or ())], key),
        imported=imported,
        census=CENSUS,
    )


_NO_TEXT = sql("NULL::VARCHAR")


def _check_places(columns: Sequence[str], title: Sequence[str], places: Places | None) -> None:
    """Raise InputError if it is said where passages are in texts that are not known, or what stands before these."""
    if title and not columns:
        raise InputError(
            f"title is {enumerated(title)}, and the columns of the texts are not known: name them with cols := [...] "
            "(columns=[...] in Python, --columns on the command line)"
        )
    if places and not columns:
        raise InputError(
            f"start and end ({places.start}, {places.end}) say where passages are in their texts: name the columns of "
            "these with cols := [...] (columns=[...] in Python, --columns on the command line)"
        )


def _placed(*, is_cut: bool, has_places: bool) -> Sql:
    """SQL for where a vector's passage is in its text, and its number among those of the text."""
    places = (sql("c2"), sql("c3")) if has_places else (NULL, NULL)
    start, end = (sql("TRY_CAST({} AS BIGINT)", place) for place in places)
    number, count = sql("NULL::INTEGER"), sql("NULL::BIGINT")
    if is_cut:
        # Of these, DuckDB gives the rows of a key one after another.
        order = sql("ORDER BY {} ASC NULLS LAST, {} ASC", start, end)
        number, count = (
            sql('"-"(row_number() OVER (PARTITION BY {} {}), 1)::INTEGER', KEY, order),
            sql("count(*) OVER (PARTITION BY {})", KEY),
        )
    # A number that is not whole is no place.
    is_placed, is_whole = sql("false"), sql("true")
    if has_places:
        is_placed = sql("(c2 IS NOT NULL OR c3 IS NOT NULL)")
        is_whole = sql("({} = TRY_CAST(c2 AS DOUBLE) AND {} = TRY_CAST(c3 AS DOUBLE))", start, end)
    return sql(
        "{} AS start, {} AS end_, {} AS passage, {} AS passages, {} AS is_placed, {} AS is_whole",
        start,
        end,
        number,
        count,
        is_placed,
        is_whole,
    )


def begin_import(engine: Engine, imported: Column) -> pa.Array:
    """Start imports; gives their tokens."""
    tokens = []
    for each in records(imported, ImportArguments):
        vectors = Vectored(each.vectors, each.vector, each.vector_census, each.found)
        request = request_of(json.loads(each.request), each.source)
        tokens.append(engine.importer.begin(request, each.census, vectors, each.caller))
    return pa.array(tokens, pa.string())


def take(
    engine: Engine, token: Column, keys: Column, vectors: Column, digests: Column, texts: Column, *places: Column
) -> pa.Array:
    """Take vectors, and which passages they are of, if they are of passages."""
    if len(token):
        # Imported late: it takes longer than a search takes.
        import pyarrow.compute as pc

        lists = vectors.combine_chunks()
        # A NULL among the numbers becomes a NaN.
        numbers = lists.flatten().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        placed = [Place(*row) for row in rows_of(places)]
        engine.importer.push(
            token[0].as_py(), keys.to_pylist(), numbers, lengths, digests.to_pylist(), texts.to_pylist(), placed
        )
    return pa.array(np.zeros(len(token), np.int32))


def finish_import(engine: Engine, *columns: Column) -> pa.Array:
    """End imports; gives what came of them."""
    return generated_rows(engine, [[engine.importer.finish(*row)] for row in rows_of(columns)])
