"""The macros that users call, as SQL."""

from __future__ import annotations

from jammi_duck.sql import literal, qualified

# The text or the vector that is asked for, or the row, with the type that its key has now.
_QUERY = (
    "_jammi_search(_jammi_token, CASE WHEN NOT _jammi_listed THEN _jammi_query::VARCHAR END, "
    "CASE WHEN _jammi_listed THEN TRY_CAST(_jammi_query AS FLOAT[]) END, _jammi_query IS NOT NULL"
)
_LIKE = "_jammi_search_like(_jammi_token, struct_extract(_jammi_query, 'id'), struct_extract(_jammi_query, 'type')"
# By which the caller's names are resolved.
_PATH = "current_database(), current_setting('search_path')"
# Which table is searched is settled while the query is bound; the transaction's number is there to have a prepared
# statement bound again each time.
_CHOICE = f"source::VARCHAR, {_PATH}, model, embedding_table, txid_current()::BIGINT"
# The key as the source writes it, however the caller does: 7.0 or '07' for 7. The cast finds the row, and alone would
# take 7.4 for 7, too. Where a collation makes several keys equal, that of the same letters comes first.
_KEY = (
    "(SELECT arg_min(struct_pack(id := _jammi_row._jammi_key::VARCHAR, type := typeof(_jammi_row._jammi_key)), "
    '_jammi_row._jammi_key::VARCHAR COLLATE "C" <> _jammi_given::VARCHAR) FROM '
    f'(SELECT key) "_jammi_a"(_jammi_given), (SELECT _jammi_key FROM query(_jammi_rows({_CHOICE}))) _jammi_row '
    "WHERE _jammi_row._jammi_key = TRY(cast_to_type(_jammi_given, _jammi_row._jammi_key)) "
    "AND TRY(_jammi_row._jammi_key = _jammi_given))"
)
_OPTIONS = (
    "model := NULL, filter := NULL, exact := false, embedding_table := NULL, min_similarity := NULL, parameters := NULL"
)
_TABLE = "(source, model := NULL, embedding_table := NULL)"
_SEARCH = f"(source, query, k := 10, {_OPTIONS})"
_SIMILAR = f"(source, key, k := 10, {_OPTIONS})"


def _hits(session: str, query: str, asked: str = _QUERY, *, joined: bool = True, traced: bool = False) -> str:
    """A query for the hits of a search: row ids with their ranks.

    What the caller has written comes first and alone, where none of its columns can be taken for one of ours or of the
    source (an alias in the same SELECT would do as well), and in a row of its own, since DuckDB plans a sub-query anew
    wherever a macro repeats it. The filter's parameters have a row of their own, so that it is asked once for each.
    """
    selection = f"query(_jammi_selection({_CHOICE}, {session}, filter::VARCHAR, {joined}, {traced}))"
    return (
        f"SELECT _jammi_token, _jammi_parameters, unnest({asked}, "
        "_jammi_k, _jammi_exact, _jammi_least, json_keys(to_json(_jammi_parameters)), "
        f"_jammi_named), recursive := true) FROM (SELECT *, suffix(typeof(_jammi_query), ']') AS _jammi_listed FROM "
        f"(SELECT {query}, k::VARCHAR, exact::BOOLEAN, min_similarity::DOUBLE) "
        '"_jammi_asked"(_jammi_query, _jammi_k, _jammi_exact, _jammi_least)), '
        f'(SELECT parameters) "_jammi_bound"(_jammi_parameters), {selection}'
    )


def _found(hits: str, wanted: str) -> str:
    """What is wanted of the source's rows, each with its hit, which the query that joins them reads by name."""
    rows = f"query(_jammi_found({_CHOICE}, filter::VARCHAR))"
    return f"TABLE WITH {_VALUES}, {_HITS} AS NOT MATERIALIZED ({hits}) {wanted.format(rows=rows)}"


# The filter's parameters, for its sub-queries.
_VALUES = '"_jammi_values"(_jammi_parameters) AS (SELECT parameters)'
# A hit's columns are called so, where the source's own may have their names.
_HITS = (
    '"_jammi_hits"(_jammi_token, _jammi_parameters, _jammi_row_id, _jammi_source_id, _jammi_rank, _jammi_similarity, '
    "_jammi_distance)"
)
# Ranks leave out the rows that the source lost.
_ROWS = (
    "SELECT _jammi_row.* EXCLUDE (_jammi_token, _jammi_parameters, _jammi_row_id, _jammi_source_id, _jammi_rank, "
    "_jammi_similarity, _jammi_distance, _jammi_found), _jammi_row_id AS _row_id, "
    "(row_number() OVER (ORDER BY _jammi_rank ASC))::INTEGER AS _rank, _jammi_similarity AS _similarity, "
    "_jammi_distance AS _distance FROM {rows} _jammi_row ORDER BY _jammi_rank ASC"
)


def macros(session: str) -> list[str]:
    """The statements that give a session its macros; `session` is its id, a hexadecimal text.

    They are TEMP, so that nothing of ours stays in a database file.
    """
    me = literal(session)
    caller = f"{me}, txid_current()::BIGINT"
    caller_of = f"txid_current()::BIGINT, {me}"
    bodies = {
        "embed(text, model := NULL, role := 'document', dims := NULL)": (
            "_jammi_embed(text::VARCHAR, model::VARCHAR, role::VARCHAR, dims::VARCHAR)"
        ),
        "jammi_generate(source, cols, key, model := NULL, dims := NULL, reuse := false, resume := false)": (
            f"TABLE SELECT * FROM query(_jammi_plan(source::VARCHAR, {_PATH}, to_json(cols)::VARCHAR, "
            f"key::VARCHAR, model::VARCHAR, dims::VARCHAR, reuse::BOOLEAN, resume::BOOLEAN, {caller_of}))"
        ),
        "jammi_import(source, vectors, key, vector, model := NULL, cols := NULL)": (
            f"TABLE SELECT * FROM query(_jammi_import_plan(source::VARCHAR, {_PATH}, vectors::VARCHAR, "
            f"key::VARCHAR, vector::VARCHAR, model::VARCHAR, to_json(cols)::VARCHAR, {caller_of}))"
        ),
        f"jammi_refresh{_TABLE}": f"TABLE SELECT * FROM query(_jammi_refresh_plan({_CHOICE}, {me}))",
        f"jammi_status{_TABLE}": f"TABLE SELECT * FROM query(_jammi_status_plan({_CHOICE}, {me}))",
        f"jammi_compact{_TABLE}": f"TABLE SELECT * FROM query(_jammi_compact_plan({_CHOICE}, {me}))",
        "jammi_infer(source, cols, key, model := NULL, task := 'text_embedding', dims := NULL)": (
            f"TABLE SELECT * FROM query(_jammi_plan_inference(source::VARCHAR, {_PATH}, "
            "to_json(cols)::VARCHAR, key::VARCHAR, model::VARCHAR, task::VARCHAR, dims::VARCHAR))"
        ),
        f"jammi_search{_SEARCH}": _found(_hits(me, "query"), _ROWS),
        f"jammi_similar{_SIMILAR}": _found(_hits(me, _KEY, _LIKE), _ROWS),
        f"jammi_matches{_SEARCH}": (
            f"TABLE WITH {_VALUES} SELECT _row_id, _source_id, _rank, _similarity, _distance "
            f"FROM ({_hits(me, 'query', joined=False)}) ORDER BY _rank ASC"
        ),
        f"jammi_explain{_SEARCH}": _found(
            _hits(me, "query", traced=True),
            f"SELECT unnest(_jammi_stages(_jammi_token, {caller}, _jammi_fetched), recursive := true) FROM "
            "(SELECT any_value(_jammi_token) AS _jammi_token, count(*) AS _jammi_fetched FROM {rows})",
        ),
        "jammi_check(source, k := 10, model := NULL, embedding_table := NULL)": (
            f"TABLE SELECT unnest(_jammi_check({_CHOICE}, k::VARCHAR), recursive := true)"
        ),
        "jammi_tables()": (
            f"TABLE SELECT * REPLACE (to_seconds(age) AS age) FROM "
            f"(SELECT unnest(_jammi_tables({caller}), recursive := true))"
        ),
        "jammi_models()": "TABLE SELECT unnest(_jammi_models(txid_current()::BIGINT), recursive := true)",
        "jammi_recover()": f"TABLE SELECT unnest(_jammi_recover({caller}), recursive := true)",
        "jammi_drop(embedding_table)": (
            f"TABLE SELECT unnest(_jammi_drop(embedding_table::VARCHAR, {caller}), recursive := true)"
        ),
        "jammi_vacuum()": f"TABLE SELECT unnest(_jammi_vacuum({caller}), recursive := true)",
    }
    return [f"CREATE OR REPLACE TEMP MACRO {head} AS {qualified(body)}" for head, body in bodies.items()]


def reserved() -> set[str]:
    """The names of our macros that no stored one may have. `embed` may be a user's, too: ours goes before it."""
    heads = (statement.partition(" MACRO ")[2] for statement in macros(""))
    return {head.partition("(")[0] for head in heads} - {"embed"}
