"""The SQL text that a search is planned with: which of the rows may be found, and the source's rows beside the hits."""

from __future__ import annotations

import functools

from jammi_duck.errors import NotFoundError
from jammi_duck.retrieval.selection import refusal
from jammi_duck.sql import NULL, Sql, joined, literal, quoted, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.types import Caller
from jammi_duck.udfs.columns import packed
from jammi_duck.udfs.disambiguation import proven_in_search
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.filters.conditions import Condition
from jammi_duck.udfs.searching import SelectArguments
from jammi_duck.udfs.sources import Source, found, has_relations, resolve, schemas_of
from jammi_duck.udfs.table_lookup import Choice, find_embeddings

# The names of the columns of a search, without the underscore.
OURS = "row_id|rank|score|similarity|distance|bm25|rerank"
# Columns of the source with a name of ours get one more underscore, so that both are there: first what our queries use,
# then, once the filter was asked, what the search gives; without a filter both at once.
_INNER, _OURS, _ALL = (
    sql("COLUMNS({}) AS '\\1\\1\\2\\3'", literal(f"(?is)^(?:(_)(_*(?:{names}))|(.*))$"))
    for names in ("jammi_.*", OURS, f"jammi_.*|{OURS}")
)
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
        entry = find_embeddings(engine, source, choice.model, choice.table)[0]
    except NotFoundError:
        return sql("SELECT NULL::VARCHAR AS _jammi_key LIMIT 0")
    return _keys(quoted(entry.definition.key), source)


def _keys(key: Sql, source: Source) -> Sql:
    return sql("SELECT {} AS _jammi_key FROM {} AS {}", key, source.sql, quoted(source.alias))


def found_query(engine: Engine, choice: Choice, predicate: str | None) -> Sql:
    """The source's rows that a search has found, each with its hit and the search's token.

    A key may have been doubled in the source meanwhile, so the filter is there once more. It is asked of the rows that
    were found only: since it waits for a hit's rank, DuckDB cannot ask it of the others first.

    A row id is the key's text of the time when it was embedded, and the key may have another type now. Then the cast
    finds the row, if that is of the same value: 2 is not the row that was 1.5.
    """
    source = resolve(choice.source, choice.search_path, engine.host)
    try:
        key_column = _key_column(find_embeddings(engine, source, choice.model, choice.table)[0])
    except NotFoundError as error:
        _check_there(engine, source, error)
        # Not NULL, with which DuckDB would not even look for hits, and not say that there is no table.
        key_column, predicate = sql("''::VARCHAR"), None
    alias, renamed = (sql("_jammi_there"), _ALL) if predicate is None else (quoted(source.alias), _INNER)
    key = sql("{}._jammi_found", alias)
    same = (
        sql("TRY_CAST(_jammi_row_id AS {kind}) = TRY_CAST({key}::VARCHAR AS {kind}),", key=key, kind=kind)
        for kind in _EXACT
    )
    # Whatever collation the column or the session has, a text is its own row only.
    joins = sql(
        "{columns} FROM (SELECT {key_column} AS _jammi_found, {renamed} FROM {source} AS {alias}) AS {alias} "
        "JOIN _jammi_hits ON {key} = TRY(cast_to_type(_jammi_row_id, {key})) AND coalesce({same} true) "
        "AND (typeof({key}) <> 'VARCHAR' OR {key}::VARCHAR COLLATE \"C\" = _jammi_row_id)",
        columns=sql("SELECT *") if predicate is None else sql("SELECT {}", _OURS),
        key_column=key_column,
        renamed=renamed,
        source=source.sql,
        alias=alias,
        key=key,
        same=joined(" ", same),
    )
    if predicate is None:
        return joins
    condition = _condition(engine, choice, source, predicate).beside_hits
    return sql("{} WHERE CASE WHEN _jammi_rank IS NULL THEN false ELSE {}::BOOLEAN END", joins, condition)


def selection_query(
    engine: Engine, choice: Choice, session: str, predicate: str | None, is_joined: bool, traced: bool
) -> Sql:
    """A token for the rows that a search may find, as one row, and the parameters that its filter names.

    With a filter they are those of the source's rows that pass. Without one, where the source is joined and its
    number of rows has changed, they are all of the source's, since rows that are gone may not take others' places.
    Otherwise they are all of the table's. Where there is no table, that is said when it is searched: a view that
    searches is made before, when a database is imported.
    """
    source = resolve(choice.source, choice.search_path, engine.host)
    try:
        entry, meant = find_embeddings(engine, source, choice.model, choice.table)
    except NotFoundError as error:
        return sql("SELECT {} AS _jammi_token, NULL AS _jammi_named", literal(refusal(error)))
    build = literal(entry.build)
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
    names, rows = NULL, sql("")
    if predicate is not None:
        condition = _condition(engine, choice, source, predicate)
        names = sql("list_value({})::VARCHAR[]", joined(", ", map(literal, condition.parameters)))
        token, rows = kept(_KEYS), sql(" FROM {}({} WHERE {})", clock, keys, condition.proven())
    elif is_joined:
        counts = entry.counts
        token = sql(
            "CASE WHEN max(_jammi_now) IS NULL THEN {} ELSE {} END",
            everything,
            kept(_KEYS_LEFT, source_row_count=sql("max(_jammi_now)")),
        )
        rows = sql(
            " FROM {clock}(SELECT count(*) FROM {source} HAVING count(*) <> {then}) "
            '"_jammi_changed"(_jammi_now), ({keys})',
            clock=clock,
            source=source.sql,
            then=counts.rows + counts.skipped + counts.failed,
            keys=keys,
        )
    else:
        token = everything
    reads = is_joined or predicate is not None
    token = proven_in_search(token, source, meant, entry.definition.key, is_read=reads)
    return sql("SELECT {} AS _jammi_token, {} AS _jammi_named{}", token, names, rows)


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
