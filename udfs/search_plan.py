"""The SQL text that a search is planned with: which of the rows may be found, and the source's rows beside the hits."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.retrieval.selection import refusal
from jammi_duck.sql import NULL, Sql, joined, literal, quoted, sql, template
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.types import Caller, Definition
from jammi_duck.udfs.columns import packed
from jammi_duck.udfs.disambiguation import proven_in_search
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.filters.conditions import Condition
from jammi_duck.udfs.following import bring_in
from jammi_duck.udfs.freshening import fresh_query, texts_wanted
from jammi_duck.udfs.passage_columns import NAMES, passage_columns, passage_text, text_to_rerank
from jammi_duck.udfs.rows import are_texts, text_of
from jammi_duck.udfs.searching import SelectArguments
from jammi_duck.udfs.sources import Source, found, has_relations, resolve, schemas_of
from jammi_duck.udfs.table_lookup import Choice, find_embeddings

# The names of the columns of a search, and of one for passages, without the underscore.
OURS = "row_id|rank|score|similarity|distance|bm25|rerank"
OURS_OF_PASSAGES = f"{OURS}|{NAMES}"
# Columns of the source with a name of ours get one more underscore, so that both are there: first what our queries use,
# then, once the filter was asked, what the search gives; without a filter both at once.
INNER, OUTER, _ALL, _OUTER_OF_PASSAGES, _ALL_OF_PASSAGES = (
    sql("COLUMNS({}) AS '\\1\\1\\2\\3'", literal(f"(?is)^(?:(_)(_*(?:{names}))|(.*))$"))
    for names in ("jammi_.*", OURS, f"jammi_.*|{OURS}", OURS_OF_PASSAGES, f"jammi_.*|{OURS_OF_PASSAGES}")
)
# A column with text, by its place, of a row `r` and of a row that was found, and the hits of a search.
_TEXT, _FOUND_TEXT, _HITS = template("r._jammi_c{}"), template("_jammi_c{}"), sql("_jammi_hits")
# The columns of a hit, and of the search, in a query for the rows that were found. Ranks leave out the rows that the
# source lost.
_OWN = sql(
    "_jammi_token, _jammi_parameters, _jammi_query, _jammi_k, _jammi_row_id, _jammi_source_id, _jammi_rank, "
    "_jammi_score, _jammi_similarity, _jammi_distance, _jammi_bm25, _jammi_passage, _jammi_start, _jammi_end, "
    "_jammi_row_digest"
)
_ANSWER = template(
    "SELECT {rows}, _jammi_row_id AS _row_id, ({rank} OVER (ORDER BY _jammi_rank ASC))::INTEGER AS _rank, "
    "_jammi_score AS _score, _jammi_similarity AS _similarity, _jammi_distance AS _distance, _jammi_bm25 AS _bm25"
    "{more} FROM {found} ORDER BY _jammi_rank ASC{then}",
)
_RERANK_COLUMN = sql(", _jammi_rerank AS _rerank")
# Passages of one row have one rank, and stand in their order.
RANK, RANK_OF_PASSAGES = sql("row_number()"), sql("dense_rank()")
THEN = sql(", _jammi_score DESC NULLS LAST, _jammi_passage ASC")
# Types in which two texts of one value are equal, whichever of the types that are cast to them the value had.
_EXACT = (sql("DOUBLE"), sql("TIMESTAMP"))
# The keys as a list of texts, and as one of whole numbers, of which the other is NULL or empty. The
# usual whole numbers need no text. The type of a column is known when a query is bound, and so DuckDB works out one of
# the two only.
_KEYS = sql(
    "list(CASE WHEN {whole} THEN NULL ELSE _jammi_key::VARCHAR END) FILTER (WHERE NOT {whole}), "
    "coalesce(list(CASE WHEN {whole} THEN TRY_CAST(_jammi_key AS BIGINT) END) FILTER (WHERE {whole}), "
    "list_value())",
    whole=sql("typeof(_jammi_key) IN ('BIGINT', 'INTEGER')"),
)
# The same where the source has lost rows: texts, whatever their type.
_KEYS_LEFT = sql("list(_jammi_key::VARCHAR), NULL")
_KEY_TYPE = sql("any_value(typeof(_jammi_key))")


def rows_query(engine: Engine, choice: Choice) -> Sql:
    """The keys of the source's rows, as `_jammi_key`, of which `found_query` has said that there is such a column."""
    source = resolve(choice.source, choice.search_path, engine.host)
    try:
        entry = find_embeddings(engine, source, choice.model, choice.table, choice.column)[0]
    except NotFoundError:
        return sql("SELECT NULL::VARCHAR AS _jammi_key LIMIT 0")
    return _keys(quoted(entry.definition.key), source)


def _keys(key: Sql, source: Source) -> Sql:
    return sql("SELECT {} AS _jammi_key FROM {} AS {}", key, source.sql, quoted(source.alias))


def answer_query(engine: Engine, choice: Choice, predicate: str | None, rerank: str | None) -> Sql:
    """The source's rows that a search has found, with the columns of a search, best first."""
    there = _joined(engine, choice, predicate, rerank)
    more = sql("") if rerank is None else _RERANK_COLUMN
    own = [sql("_jammi_found"), *there.own]
    if predicate is None and rerank is None:
        # Of fewer sub-queries, which DuckDB plans sooner.
        table, found = sql("_jammi_there"), there.sql
    else:
        own += [_OWN] if rerank is None else [_OWN, sql("_jammi_rerank")]
        table, found = sql("_jammi_row"), sql("({}) _jammi_row", _found(there, predicate, rerank))
    rows = sql("{}.* EXCLUDE ({})", table, joined(", ", own))
    if there.passages is None:
        return _ANSWER(rows=rows, rank=RANK, more=more, found=found, then=sql(""))
    more = sql("{}{}", more, passage_columns(passage_text(there.passages, _FOUND_TEXT)))
    return _ANSWER(rows=rows, rank=RANK_OF_PASSAGES, more=more, found=found, then=THEN)


def found_query(engine: Engine, choice: Choice, predicate: str | None, rerank: str | None) -> Sql:
    """The source's rows that a search has found, each with its hit and the search's token.

    With a re-ranker they are ranked by its scores, `_jammi_rerank`, and only the best `k` of them are given.

    Raises:
        InputError: it is not known which columns a re-ranker is to read.
        ModelError: there is no such re-ranker.
    """
    return _found(_joined(engine, choice, predicate, rerank), predicate, rerank)


def matches_query(engine: Engine, choice: Choice) -> Sql:
    """The hits of a search without the source's rows, best first."""
    source = resolve(choice.source, choice.search_path, engine.host)
    passages, then = sql(""), sql("")
    # Where there is no table, the search says so.
    with contextlib.suppress(NotFoundError):
        entry = find_embeddings(engine, source, choice.model, choice.table, choice.column)[0]
        if entry.definition.passages:
            passages, then = sql(", _jammi_passage AS _passage, _jammi_start AS _start, _jammi_end AS _end"), THEN
    return sql(
        "SELECT _jammi_row_id AS _row_id, _jammi_source_id AS _source_id, _jammi_rank AS _rank, "
        "_jammi_score AS _score, _jammi_similarity AS _similarity, _jammi_distance AS _distance, _jammi_bm25 AS _bm25"
        "{} FROM {} ORDER BY _jammi_rank ASC{}",
        passages,
        _HITS,
        then,
    )


@dataclass(frozen=True)
class _Joined:
    """The source's rows joined with the hits: what stands after FROM, and the columns of texts there, by their names.

    `definition` is that of the embedding table, if there is one.
    """

    sql: Sql
    source: Source
    texts: Sequence[str]
    definition: Definition | None

    @property
    def passages(self) -> Definition | None:
        """The definition, if the hits are passages."""
        return self.definition if self.definition and self.definition.passages else None

    @property
    def own(self) -> list[Sql]:
        """The names that the columns of texts have there."""
        return [_FOUND_TEXT(place) for place in range(1, len(self.texts) + 1)]


def _found(there: _Joined, predicate: str | None, rerank: str | None) -> Sql:
    renamed = OUTER if there.passages is None else _OUTER_OF_PASSAGES
    found = sql("SELECT {} FROM {}", sql("*") if predicate is None else renamed, there.sql)
    return found if rerank is None else _reranked(there, found, rerank)


def _joined(engine: Engine, choice: Choice, predicate: str | None, rerank: str | None) -> _Joined:
    """The source's rows, as `_jammi_there` where there is no filter, joined with the hits.

    A key may have been doubled in the source meanwhile, so the filter is there once more. It is asked of the rows that
    were found only: since it waits for a hit's rank, DuckDB cannot ask it of the others first.
    """
    source = resolve(choice.source, choice.search_path, engine.host)
    texts: Mapping[str, Sql] = {}
    definition = None
    try:
        entry = find_embeddings(engine, source, choice.model, choice.table, choice.column)[0]
        definition, key_column = entry.definition, _key_column(entry)
        if rerank is not None:
            texts = text_columns(engine, entry, rerank)
        elif definition.passages:
            texts = _columns_of(entry, f"from whose text the passages of '{entry.name}' are cut")
    except NotFoundError as error:
        _check_there(engine, source, error)
        # Not NULL, with which DuckDB would not even look for hits, and not say that there is no table.
        key_column, texts = sql("''::VARCHAR"), {} if rerank is None else {"": sql("NULL::VARCHAR")}
    every = _ALL_OF_PASSAGES if definition and definition.passages else _ALL
    alias, renamed = (sql("_jammi_there"), every) if predicate is None else (quoted(source.alias), INNER)
    columns = sql("{}, {}", _placed(texts), renamed) if texts else renamed
    joins = beside_hits(source, alias, key_column, columns)
    if predicate is not None and definition:
        condition = _condition(engine, choice, source, predicate).beside_hits
        joins = sql("{} WHERE CASE WHEN _jammi_rank IS NULL THEN false ELSE {}::BOOLEAN END", joins, condition)
    return _Joined(joins, source, list(texts), definition)


def _reranked(there: _Joined, found: Sql, model: str) -> Sql:
    """The best `k` of the rows that were found, by a re-ranker; a row without a text comes last.

    A row of passages is ranked by its best one. Which passages are of one row is known by the rank that it had.
    """
    scored = sql(
        "(SELECT r.*, _jammi_rerank_hits(_jammi_token, _jammi_query::VARCHAR, {text}, {model}) AS _jammi_rerank "
        "FROM ({found}) r WHERE {are_texts})",
        text=text_to_rerank(there.passages, _TEXT) if there.passages else text_of(there.texts, _TEXT),
        model=literal(model),
        found=found,
        are_texts=are_texts(there.source, there.texts, _TEXT),
    )
    kept, by = sql(""), sql("row_number() OVER (ORDER BY _jammi_rerank DESC NULLS LAST, _jammi_rank ASC)")
    if there.passages:
        scored = sql("(SELECT *, max(_jammi_rerank) OVER (PARTITION BY _jammi_rank) AS _jammi_best FROM {})", scored)
        kept = sql(" EXCLUDE (_jammi_best)")
        by = sql("dense_rank() OVER (ORDER BY _jammi_best DESC NULLS LAST, _jammi_rank ASC)")
    return sql(
        "SELECT * FROM (SELECT *{} REPLACE (_jammi_rerank AS _jammi_score, {} AS _jammi_rank) FROM {}) "
        "WHERE _jammi_rank <= _jammi_k::DOUBLE",
        kept,
        by,
        scored,
    )


def scored_hits(engine: Engine, choice: Choice, hits: Sql, model: str) -> Sql:
    """Hits, each with the score of a re-ranker, `_jammi_rerank`, for the source's row and the hit's `_jammi_query`.

    `hits` is a query.

    Raises:
        NotFoundError: there is no embedding table.
        InputError: it is not known which columns a re-ranker is to read.
        ModelError: there is no such re-ranker.
    """
    source = resolve(choice.source, choice.search_path, engine.host)
    entry, _ = find_embeddings(engine, source, choice.model, choice.table, choice.column)
    texts = text_columns(engine, entry, model)
    joins = beside_hits(source, sql("_jammi_there"), _key_column(entry), _placed(texts), sql("({}) _jammi_hits", hits))
    return sql(
        "SELECT *, _jammi_rerank(_jammi_query, {}, {}) AS _jammi_rerank FROM (SELECT * FROM {}) r WHERE {}",
        text_to_rerank(entry.definition, _TEXT),
        literal(model),
        joins,
        are_texts(source, list(texts), _TEXT),
    )


def beside_hits(source: Source, alias: Sql, key_column: Sql, columns: Sql, hits: Sql = _HITS) -> Sql:
    """A source's rows joined with `hits`, as what stands after FROM: its key as `_jammi_found`, and these columns.

    A row id is the key's text of the time when it was embedded, and the key may have another type now. Then the cast
    finds the row, if that is of the same value: 2 is not the row that was 1.5.
    """
    key = sql("{}._jammi_found", alias)
    same = (
        sql("TRY_CAST(_jammi_row_id AS {kind}) = TRY_CAST({key}::VARCHAR AS {kind}),", key=key, kind=kind)
        for kind in _EXACT
    )
    # Whatever collation the column or the session has, a text is its own row only.
    return sql(
        "(SELECT {key_column} AS _jammi_found, {columns} FROM {source} AS {alias}) AS {alias} "
        "JOIN {hits} ON {key} = TRY(cast_to_type(_jammi_row_id, {key})) AND coalesce({same} true) "
        "AND (typeof({key}) <> 'VARCHAR' OR {key}::VARCHAR COLLATE \"C\" = _jammi_row_id)",
        key_column=key_column,
        columns=columns,
        source=source.sql,
        alias=alias,
        hits=hits,
        key=key,
        same=joined(" ", same),
    )


def text_columns(engine: Engine, entry: Entry, rerank: str) -> dict[str, Sql]:
    """By their names, the columns of a source whose texts a re-ranker reads.

    Raises:
        InputError: the table was made without them.
        ModelError: there is no such re-ranker.
    """
    engine.encoders.reranker(rerank)
    names = entry.definition.columns
    if not names:
        raise InputError(
            f"rerank reads the rows' texts, and '{entry.name}' was imported without its columns: import it with cols"
        )
    return _columns_of(entry, f"whose text rerank reads: '{entry.name}' was made of it")


def _columns_of(entry: Entry, what: str) -> dict[str, Sql]:
    """The columns that an embedding table was made of, by their names; `what` says what is the matter with them."""
    advice = f"in '{entry.source}', {what}; if it was renamed, generate anew"
    return {name: _column_or(name, f"no column '{name}' {advice}") for name in entry.definition.columns}


def _placed(columns: Mapping[str, Sql]) -> Sql:
    """Columns by their places."""
    placed = enumerate(columns.values(), start=1)
    return joined(", ", (sql("{} AS _jammi_c{}", column, place) for place, column in placed))


def selection_query(
    engine: Engine,
    choice: Choice,
    session: str,
    predicate: str | None,
    is_joined: bool,
    traced: bool,
    fresh: bool | None = None,
    fresh_rows: str | None = None,
) -> Sql:
    """A token for the rows that a search may find, as one row, and the parameters that its filter names.

    If it is to be `fresh`, what has changed in the source comes into the embedding table first; by default, if the
    source is followed. At most `fresh_rows` texts are embedded for that.

    With a filter they are those of the source's rows that pass. Without one, where the source is joined and its
    number of rows has changed, they are all of the source's, since rows that are gone may not take others' places.
    Otherwise they are all of the table's. Where there is no table, that is said when it is searched: a view that
    searches is made before, when a database is imported.
    """
    source = resolve(choice.source, choice.search_path, engine.host)
    try:
        entry, meant = find_embeddings(engine, source, choice.model, choice.table, choice.column)
    except NotFoundError as error:
        return sql("SELECT {} AS _jammi_token, NULL AS _jammi_named", literal(refusal(error)))
    caller = Caller(session, choice.transaction)
    limit = texts_wanted(fresh_rows)
    build, brought = literal(entry.build), sql("")
    if fresh:
        build = sql("(SELECT _jammi_build FROM _jammi_fresh)")
        brought = sql(
            "WITH _jammi_fresh AS MATERIALIZED ({}) ", fresh_query(engine, source, meant, entry, limit, caller)
        )
    elif fresh is None:
        entry = bring_in(engine, source, meant, entry, limit, caller)
    began, clock = NULL, sql("")
    if traced:
        began, clock = sql("min(_jammi_began)"), sql('(SELECT _jammi_clock(0)) "_jammi_clocked"(_jammi_began), ')

    def kept(row_ids: Sql, key_type: Sql = _KEY_TYPE, source_row_count: Sql = NULL, start: Sql = began) -> Sql:
        arguments = packed(
            SelectArguments,
            caller=packed(Caller, session=literal(session), transaction=sql("txid_current()::BIGINT")),
            traced=sql("{}", traced),
            build=build,
            key_type=key_type,
            source_row_count=source_row_count,
            began=start,
        )
        return sql("_jammi_select({}, {})", arguments, row_ids)

    everything = kept(sql("NULL, NULL"), NULL, start=NULL) if traced else build
    # Where the source is joined, `found_query` is bound first, and has said that there is such a column.
    keys = _keys(quoted(entry.definition.key) if is_joined else _key_column(entry), source)
    names, rows = sql("NULL::VARCHAR[]"), sql("")
    if predicate is not None:
        condition = _condition(engine, choice, source, predicate)
        names = sql("list_value({})::VARCHAR[]", joined(", ", map(literal, condition.parameters)))
        token, rows = kept(_KEYS), sql(" FROM {}({} WHERE {})", clock, keys, condition.proven())
    elif is_joined and not fresh:
        # Others may write to a source that is followed: that is nothing to be told of.
        is_told = fresh is not None or engine.followed.of(meant.identity) is None
        token = sql(
            "CASE WHEN max(_jammi_now) IS NULL THEN {} ELSE {} END",
            everything,
            kept(_KEYS_LEFT, source_row_count=sql("max(_jammi_now)") if is_told else NULL),
        )
        rows = sql(
            " FROM {clock}(SELECT count(*) FROM {source} HAVING count(*) <> {then}) "
            '"_jammi_changed"(_jammi_now), ({keys})',
            clock=clock,
            source=source.sql,
            then=entry.counts.source_rows,
            keys=keys,
        )
    else:
        token = everything
    reads = is_joined or predicate is not None
    token = proven_in_search(token, source, meant, entry.definition.key, is_read=reads)
    return sql("{}SELECT {} AS _jammi_token, {} AS _jammi_named{}", brought, token, names, rows)


def _condition(engine: Engine, choice: Choice, source: Source, predicate: str) -> Condition:
    path = choice.search_path
    return engine.conditions.of(predicate, source.alias, path.database, schemas_of(path), choice.transaction)


def _check_there(engine: Engine, source: Source, error: NotFoundError) -> None:
    """Raise an error at once where DuckDB would only say, and not so well, that there is no such table.

    Where there is none at all, an IMPORT DATABASE that is not committed yet may be making a view that searches.
    """
    if source.session and not found(source.relations, engine.host) and has_relations(engine.host):
        raise error


def _key_column(entry: Entry) -> Sql:
    """The key's column of a source, chosen by its name.

    Where there is none, DuckDB says that nothing matches the pattern, and with it what that means: the key was renamed.
    To ask `_jammi_column` takes longer than the rest of such a query.
    """
    return _column_or(
        entry.definition.key,
        f"no column '{entry.definition.key}' in '{entry.source}', and it is the key of '{entry.name}'; if it was "
        "renamed, generate anew",
    )


@functools.lru_cache(1000)
def _column_or(key: str, message: str) -> Sql:
    # DuckDB takes ASCII letters alone for the same in both cases.
    letters = "".join(f"[{c.lower()}{c.upper()}]" if c.isascii() and c.isalpha() else _exactly(c) for c in key)
    return sql("COLUMNS({})", literal(f"^({letters})$|^({_exactly(message)})$"))


def _exactly(text: str) -> str:
    """A pattern for this text only."""
    return "".join(f"\\{c}" if c in r"\.+*?()|[]{}^$" else c for c in text)
