"""The macros that users call, as SQL."""

from __future__ import annotations

from collections.abc import Iterable

from jammi_duck.encoder.blobs import BLOB
from jammi_duck.sql import NULL, Sql, literal, sql, template
from jammi_duck.storage.words.analyser import ENGLISH
from jammi_duck.udfs.rows import picture_of

_QUERY_COLUMN = sql("query")
# A picture is a text, too. Of a NULL, it does not matter which.
_ASKED = sql(
    "CASE WHEN typeof(_jammi_query) = 'BLOB' THEN concat({}, base64(TRY_CAST(_jammi_query AS BLOB))) "
    "ELSE _jammi_query::VARCHAR END",
    literal(BLOB),
)
# The text or the vector that is asked for, or the row, with the type that its key has now.
_SEARCH_CALL = sql(
    "_jammi_search(_jammi_token, CASE WHEN NOT _jammi_listed THEN {} END, "
    "CASE WHEN _jammi_listed THEN TRY_CAST(_jammi_query AS FLOAT[]) END, _jammi_query IS NOT NULL",
    _ASKED,
)
_SEARCH_LIKE_CALL = sql(
    "_jammi_search_like(_jammi_token, struct_extract(_jammi_query, 'id'), struct_extract(_jammi_query, 'type')"
)
# By which the caller's names are resolved.
_PATH = sql("current_database(), current_setting('search_path')")
# Which table is searched is settled while the query is bound; the transaction's number is there to have a prepared
# statement bound again each time.
_CHOICE_ARGUMENTS = sql(
    'source::VARCHAR, {}, model::VARCHAR, embedding_table::VARCHAR, "column"::VARCHAR, txid_current()::BIGINT', _PATH
)
# A reserved word: whoever calls a macro with it writes it in quotes, too.
_EMBEDDING_PARAMETER = sql('"column" := NULL')
# The key as the source writes it, however the caller does: 7.0 or '07' for 7. The cast finds the row, and alone would
# take 7.4 for 7, too. Where a collation makes several keys equal, that of the same letters comes first.
_KEY = sql(
    "(SELECT arg_min(struct_pack(id := _jammi_row._jammi_key::VARCHAR, type := typeof(_jammi_row._jammi_key)), "
    '_jammi_row._jammi_key::VARCHAR COLLATE "C" <> _jammi_given::VARCHAR) FROM '
    '(SELECT key) "_jammi_a"(_jammi_given), (SELECT _jammi_key FROM query(_jammi_rows({choice}))) _jammi_row '
    "WHERE _jammi_row._jammi_key = TRY(cast_to_type(_jammi_given, _jammi_row._jammi_key)) "
    "AND TRY(_jammi_row._jammi_key = _jammi_given))",
    choice=_CHOICE_ARGUMENTS,
)
_EMBED_ARGUMENTS = sql(
    "source::VARCHAR, {}, to_json(cols)::VARCHAR, key::VARCHAR, model::VARCHAR, dims::VARCHAR, name::VARCHAR, "
    "words::BOOLEAN, language::VARCHAR, vectors::BOOLEAN, to_json(passages)::VARCHAR",
    _PATH,
)
_WORDS_PARAMETERS = sql("words := true, language := {}", literal(ENGLISH))
_STORED_PARAMETERS = sql("{}, vectors := true, passages := false", _WORDS_PARAMETERS)
_TABLE_PARAMETERS = sql("(source, model := NULL, embedding_table := NULL, {})", _EMBEDDING_PARAMETER)
_OPTION_PARAMETERS = sql(
    "model := NULL, filter := NULL, exact := false, embedding_table := NULL, min_similarity := NULL, parameters := NULL"
)
_RANKING_PARAMETERS = sql(
    "mode := NULL, weight := NULL, fusion := NULL, k1 := NULL, b := NULL, rerank := NULL, rerank_k := NULL"
)
# What ranks, in the order in which `_jammi_search` takes it.
_RANKING_OF = template(
    "list_value(mode::VARCHAR, weight::VARCHAR, fusion::VARCHAR, k1::VARCHAR, b::VARCHAR, {}, rerank_k::VARCHAR, "
    "per_row::VARCHAR)"
)
_RANKING = _RANKING_OF(sql("rerank::VARCHAR"))
_RANKING_WITHOUT_TEXTS = _RANKING_OF(
    sql(
        "CASE WHEN rerank IS NOT NULL THEN _jammi_refuse({}, '') END",
        literal("jammi_matches does not read the rows' texts, which rerank needs: use jammi_search"),
    )
)
_RANKING_BY_VECTORS = sql("list_value(NULL::VARCHAR, NULL, NULL, NULL, NULL, NULL, NULL, per_row::VARCHAR)")
_NO_RERANK = sql("NULL::VARCHAR")
_PER_ROW_PARAMETER = sql("per_row := NULL")
_FRESH_PARAMETERS = sql("fresh := NULL, fresh_rows := NULL")
_SEARCH_PARAMETERS = sql(
    "(source, query, k := 10, {}, {}, {}, {}, {})",
    _OPTION_PARAMETERS,
    _RANKING_PARAMETERS,
    _PER_ROW_PARAMETER,
    _FRESH_PARAMETERS,
    _EMBEDDING_PARAMETER,
)
_SIMILAR_PARAMETERS = sql(
    "(source, key, k := 10, {}, {}, {}, {})",
    _OPTION_PARAMETERS,
    _PER_ROW_PARAMETER,
    _FRESH_PARAMETERS,
    _EMBEDDING_PARAMETER,
)


def _hits(
    session: Sql,
    query: Sql = _QUERY_COLUMN,
    asked: Sql = _SEARCH_CALL,
    ranking: Sql = _RANKING,
    *,
    is_joined: bool = True,
    traced: bool = False,
) -> Sql:
    """A query for the hits of a search: row ids with their ranks.

    What the caller has written comes first and alone, where none of its columns can be taken for one of ours or of the
    source (an alias in the same SELECT would do as well), and in a row of its own, since DuckDB plans a sub-query anew
    wherever a macro repeats it. The filter's parameters have a row of their own, so that it is asked once for each.
    """
    return sql(
        "SELECT _jammi_token, _jammi_parameters, _jammi_query, _jammi_k, unnest({asked}, "
        "_jammi_k, _jammi_exact, _jammi_least, _jammi_ranking, json_keys(to_json(_jammi_parameters)), "
        "_jammi_named), recursive := true) FROM (SELECT *, suffix(typeof(_jammi_query), ']') AS _jammi_listed FROM "
        "(SELECT {query}, k::VARCHAR, exact::BOOLEAN, min_similarity::DOUBLE, {ranking}) "
        '"_jammi_asked"(_jammi_query, _jammi_k, _jammi_exact, _jammi_least, _jammi_ranking)), '
        '(SELECT parameters) "_jammi_bound"(_jammi_parameters), '
        "query(_jammi_selection({choice}, {session}, filter::VARCHAR, {is_joined}, {traced}, fresh::BOOLEAN, "
        "fresh_rows::VARCHAR))",
        asked=asked,
        query=query,
        ranking=ranking,
        choice=_CHOICE_ARGUMENTS,
        session=session,
        is_joined=is_joined,
        traced=traced,
    )


# Where the hits are joined with the source's rows; the query that does so reads them by name.
_RERANK = sql("rerank::VARCHAR")
# The filter's parameters, for its sub-queries.
_VALUES = sql('"_jammi_values"(_jammi_parameters) AS (SELECT parameters)')
# A hit's columns are called so, where the source's own may have their names.
_HITS = sql(
    '"_jammi_hits"(_jammi_token, _jammi_parameters, _jammi_query, _jammi_k, _jammi_row_id, _jammi_source_id, '
    "_jammi_rank, _jammi_score, _jammi_similarity, _jammi_distance, _jammi_bm25, _jammi_passage, _jammi_start, "
    "_jammi_end, _jammi_row_digest)"
)


def _rows(rerank: Sql = _RERANK) -> Sql:
    """The source's rows that a search has found, with the columns of a search."""
    return sql("FROM query(_jammi_answer({}, filter::VARCHAR, {}))", _CHOICE_ARGUMENTS, rerank)


def _beside(hits: Sql, wanted: Sql) -> Sql:
    """What is `wanted` of the source's rows with the hits."""
    return sql("TABLE WITH {}, {} AS NOT MATERIALIZED ({}) {}", _VALUES, _HITS, hits, wanted)


def _stages(caller: Sql) -> Sql:
    """What a traced search did, once its rows were fetched."""
    return sql(
        "SELECT unnest(_jammi_stages(_jammi_token, {}, _jammi_fetched), recursive := true) FROM "
        "(SELECT any_value(_jammi_token) AS _jammi_token, count(*) AS _jammi_fetched "
        "FROM query(_jammi_found({}, filter::VARCHAR, {})))",
        caller,
        _CHOICE_ARGUMENTS,
        _RERANK,
    )


_NO_TEXT = literal(
    "embed needs a text, and this is a BLOB, which is bytes: write decode(...), or ...::VARCHAR if they are no UTF-8"
)
_SNIPPET_NO_TEXT = literal(
    "jammi_snippet needs a text, and this is a BLOB, which is bytes: write decode(...), or ...::VARCHAR if they are no "
    "UTF-8"
)
_SPLIT_NO_TEXT = literal(
    "jammi_split needs a text, and this is a BLOB, which is bytes: write decode(...), or ...::VARCHAR if they are no "
    "UTF-8"
)
# What a column of vectors is searched for, by names that no column of the source has.
_QUESTION = sql(
    '"_jammi_question"(_jammi_text, _jammi_numbers, _jammi_given, _jammi_model, _jammi_k, _jammi_least, '
    "_jammi_parameters) AS NOT MATERIALIZED (SELECT CASE WHEN NOT _jammi_listed THEN {} END, "
    "CASE WHEN _jammi_listed THEN TRY_CAST(_jammi_query AS DOUBLE[]) END, _jammi_query IS NOT NULL, _jammi_model, "
    "_jammi_k, _jammi_least, _jammi_parameters FROM (SELECT *, suffix(typeof(_jammi_query), ']') AS _jammi_listed FROM "
    "(SELECT query, model::VARCHAR, k::VARCHAR, min_similarity::DOUBLE, parameters) "
    '"_jammi_asked"(_jammi_query, _jammi_model, _jammi_k, _jammi_least, _jammi_parameters)))',
    _ASKED,
)
# Those that do not ask who calls. To ask for the type of a prepared statement's parameter itself ends DuckDB 1.
_FOR_ALL = (
    sql(
        "embed(text, model := NULL, role := 'document', dims := NULL) AS "
        "(_jammi_embed(CASE WHEN typeof(coalesce(text, NULL)) <> 'BLOB' THEN text::VARCHAR "
        "WHEN _jammi_takes_images(model::VARCHAR) THEN {} ELSE _jammi_refuse({}, '') END, "
        "model::VARCHAR, role::VARCHAR, dims::VARCHAR))",
        picture_of(sql("coalesce(text, NULL)")),
        _NO_TEXT,
    ),
    sql(
        "jammi_snippet(text, query, words := 30, mark := '**', language := 'english') AS "
        "(_jammi_snippet(CASE WHEN typeof(coalesce(text, NULL)) = 'BLOB' THEN _jammi_refuse({}, '') "
        "ELSE text::VARCHAR END, query::VARCHAR, words::VARCHAR, mark::VARCHAR, language::VARCHAR))",
        _SNIPPET_NO_TEXT,
    ),
    sql(
        "jammi_split(text, tokens := NULL, overlap := NULL, by := 'paragraph', model := NULL) AS "
        "(_jammi_split(CASE WHEN typeof(coalesce(text, NULL)) = 'BLOB' THEN _jammi_refuse({}, '') "
        'ELSE text::VARCHAR END, tokens::VARCHAR, overlap::VARCHAR, "by"::VARCHAR, model::VARCHAR))',
        _SPLIT_NO_TEXT,
    ),
    sql(
        "jammi_infer(source, cols, key, model := NULL, task := 'text_embedding', dims := NULL) AS "
        "TABLE SELECT * FROM query(_jammi_infer_plan(source::VARCHAR, {}, "
        "to_json(cols)::VARCHAR, key::VARCHAR, model::VARCHAR, task::VARCHAR, dims::VARCHAR))",
        _PATH,
    ),
    sql(
        "jammi_search_column(source, vector, query, k := 10, model := NULL, filter := NULL, key := NULL, "
        "min_similarity := NULL, parameters := NULL) AS TABLE WITH {}, {} FROM query(_jammi_column_search("
        "source::VARCHAR, {}, vector::VARCHAR, to_json(key)::VARCHAR, k::VARCHAR, filter::VARCHAR, "
        "txid_current()::BIGINT))",
        _VALUES,
        _QUESTION,
        _PATH,
    ),
    sql(
        "jammi_check(source, k := 10, model := NULL, embedding_table := NULL, {}) AS "
        "TABLE SELECT unnest(_jammi_check({}, k::VARCHAR), recursive := true)",
        _EMBEDDING_PARAMETER,
        _CHOICE_ARGUMENTS,
    ),
    sql("jammi_models() AS TABLE SELECT unnest(_jammi_models(txid_current()::BIGINT), recursive := true)"),
)


def _changes(session: Sql) -> Iterable[Sql]:
    """Of the verbs that read or write an embedding table through a plan."""
    who = sql("txid_current()::BIGINT, {}", session)
    yield sql(
        "jammi_generate(source, cols, key, model := NULL, dims := NULL, name := NULL, reuse := false, resume := false, "
        "{}) AS TABLE SELECT * FROM query(_jammi_generate_plan({}, {}, reuse::BOOLEAN, resume::BOOLEAN))",
        _STORED_PARAMETERS,
        _EMBED_ARGUMENTS,
        who,
    )
    yield sql(
        "jammi_sync(source, cols, key, model := NULL, dims := NULL, name := NULL, {}) AS "
        "TABLE SELECT * FROM query(_jammi_sync_plan({}, {}))",
        _STORED_PARAMETERS,
        _EMBED_ARGUMENTS,
        who,
    )
    yield sql(
        "jammi_import(source, vectors, key, vector, model := NULL, cols := NULL, {}, passages := false) AS "
        "TABLE SELECT * FROM query(_jammi_import_plan(source::VARCHAR, {}, vectors::VARCHAR, "
        "key::VARCHAR, vector::VARCHAR, model::VARCHAR, to_json(cols)::VARCHAR, "
        "words::BOOLEAN, language::VARCHAR, to_json(passages)::VARCHAR, {}))",
        _WORDS_PARAMETERS,
        _PATH,
        who,
    )
    yield sql(
        "jammi_index_words(source, language := {}, model := NULL, embedding_table := NULL, {}) AS "
        "TABLE SELECT * FROM query(_jammi_index_words_plan({}, language::VARCHAR, {}))",
        literal(ENGLISH),
        _EMBEDDING_PARAMETER,
        _CHOICE_ARGUMENTS,
        session,
    )
    yield sql(
        "jammi_fill(source, text, vector, key := NULL, model := NULL) AS TABLE SELECT * FROM query(_jammi_fill_plan("
        "source::VARCHAR, {}, text::VARCHAR, vector::VARCHAR, to_json(key)::VARCHAR, model::VARCHAR, {}))",
        _PATH,
        who,
    )
    for macro in (
        template("jammi_refresh{} AS TABLE SELECT * FROM query(_jammi_refresh_plan({}, {}))"),
        template("jammi_status{} AS TABLE SELECT * FROM query(_jammi_status_plan({}, {}))"),
        template("jammi_compact{} AS TABLE SELECT * FROM query(_jammi_compact_plan({}, {}))"),
        template("jammi_passages{} AS TABLE SELECT * FROM query(_jammi_passages_plan({}, {}))"),
    ):
        yield macro(_TABLE_PARAMETERS, _CHOICE_ARGUMENTS, session)
    yield sql(
        "jammi_follow(source, triggers := NULL, model := NULL, embedding_table := NULL, {}) AS "
        "TABLE SELECT unnest(_jammi_follow({}, {}, triggers::BOOLEAN), recursive := true)",
        _EMBEDDING_PARAMETER,
        _CHOICE_ARGUMENTS,
        session,
    )
    yield sql(
        "jammi_unfollow(source) AS TABLE SELECT unnest(_jammi_unfollow(source::VARCHAR, {}, txid_current()::BIGINT, "
        "{}), recursive := true)",
        _PATH,
        session,
    )


def _searches(session: Sql, caller: Sql) -> Iterable[Sql]:
    yield sql("jammi_search{} AS {}", _SEARCH_PARAMETERS, _beside(_hits(session), _rows()))
    yield sql(
        "jammi_similar{} AS {}",
        _SIMILAR_PARAMETERS,
        _beside(_hits(session, _KEY, _SEARCH_LIKE_CALL, _RANKING_BY_VECTORS), _rows(_NO_RERANK)),
    )
    yield sql(
        "jammi_matches{} AS {}",
        _SEARCH_PARAMETERS,
        _beside(
            _hits(session, ranking=_RANKING_WITHOUT_TEXTS, is_joined=False),
            sql("FROM query(_jammi_matched({}))", _CHOICE_ARGUMENTS),
        ),
    )
    yield sql("jammi_explain{} AS {}", _SEARCH_PARAMETERS, _beside(_hits(session, traced=True), _stages(caller)))


# The options of a way to search, and the columns of the two sources that evaluate it.
_WAY_PARAMETERS = sql("model := NULL, exact := false, embedding_table := NULL, min_similarity := NULL")
_WAY_OF = template(
    "struct_pack(model := model::VARCHAR, exact := exact::BOOLEAN, embedding_table := embedding_table::VARCHAR, "
    'min_similarity := min_similarity::DOUBLE, k1 := k1::VARCHAR, b := b::VARCHAR, "column" := "column"::VARCHAR{})'
)
_WAY = _WAY_OF(
    sql(
        ", mode := mode::VARCHAR, weight := weight::VARCHAR, fusion := fusion::VARCHAR, rerank := rerank::VARCHAR, "
        "rerank_k := rerank_k::VARCHAR"
    )
)
# What is tuned is the weight of a hybrid search.
_TUNED_PARAMETERS, _TUNED_WAY = sql("{}, k1 := NULL, b := NULL", _WAY_PARAMETERS), _WAY_OF(sql(""))
_COLUMN_PARAMETERS = sql("question_columns := NULL, judgement_columns := NULL")


def _evaluations(session: Sql) -> Iterable[Sql]:
    """Of the verbs that say how good a search is."""

    def plan(verb: Sql, ways: Sql, metric: Sql) -> Sql:
        return sql(
            "TABLE SELECT * FROM query(_jammi_eval_plan(source::VARCHAR, {path}, questions::VARCHAR, "
            "judgements::VARCHAR, to_json({ways})::VARCHAR, k::VARCHAR, {metric}, to_json(question_columns)::VARCHAR, "
            "to_json(judgement_columns)::VARCHAR, txid_current()::BIGINT, {session}, {verb}))",
            path=_PATH,
            ways=ways,
            metric=metric,
            session=session,
            verb=verb,
        )

    metric = sql("metric::VARCHAR")
    for macro, verb in (
        (template("jammi_eval(source, questions, judgements, k := 10, {}, {}, {}, {}) AS {}"), "metrics"),
        (template("jammi_eval_queries(source, questions, judgements, k := 10, {}, {}, {}, {}) AS {}"), "questions"),
    ):
        yield macro(
            _WAY_PARAMETERS,
            _RANKING_PARAMETERS,
            _COLUMN_PARAMETERS,
            _EMBEDDING_PARAMETER,
            plan(literal(verb), _WAY, NULL),
        )
    yield sql(
        "jammi_eval_compare(source, questions, judgements, ways, k := 10, metric := 'ndcg', {}) AS {}",
        _COLUMN_PARAMETERS,
        plan(literal("compare"), sql("ways"), metric),
    )
    yield sql(
        "jammi_tune(source, questions, judgements, k := 10, metric := 'ndcg', {}, {}, {}) AS {}",
        _TUNED_PARAMETERS,
        _COLUMN_PARAMETERS,
        _EMBEDDING_PARAMETER,
        plan(literal("tune"), _TUNED_WAY, metric),
    )


def _upkeep(caller: Sql) -> Iterable[Sql]:
    yield sql(
        "jammi_tables() AS TABLE SELECT * REPLACE (to_seconds(age) AS age) FROM "
        "(SELECT unnest(_jammi_tables({}), recursive := true))",
        caller,
    )
    yield sql("jammi_recover() AS TABLE SELECT unnest(_jammi_recover({}), recursive := true)", caller)
    yield sql(
        "jammi_drop(embedding_table) AS "
        "TABLE SELECT unnest(_jammi_drop(embedding_table::VARCHAR, {}), recursive := true)",
        caller,
    )
    yield sql("jammi_vacuum() AS TABLE SELECT unnest(_jammi_vacuum({}), recursive := true)", caller)


def macros(session: str) -> list[Sql]:
    """The statements that give a session its macros; `session` is its id, a hexadecimal text.

    They are TEMP, so that nothing of ours stays in a database file.
    """
    me = literal(session)
    caller = sql("{}, txid_current()::BIGINT", me)
    definitions = (*_FOR_ALL, *_changes(me), *_searches(me, caller), *_evaluations(me), *_upkeep(caller))
    return [sql("CREATE OR REPLACE TEMP MACRO {}", each) for each in definitions]


def reserved() -> set[str]:
    """The names of our macros that no stored one may have. `embed` may be a user's, too: ours goes before it."""
    heads = (statement.partition(" MACRO ")[2] for statement in macros(""))
    return {head.partition("(")[0] for head in heads} - {"embed"}
