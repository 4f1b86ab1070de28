"""The SQL text: the macros that users call, and what a call of `jammi_generate` or `jammi_infer` stands for."""

from __future__ import annotations

from collections.abc import Sequence

from jammi_duck.storage.catalog import literal

_TEXT_OR_VECTOR = (
    "CASE WHEN typeof(query) NOT LIKE '%]' THEN query::VARCHAR END, "
    "CASE WHEN typeof(query) LIKE '%]' THEN TRY_CAST(query AS FLOAT[]) END, query IS NOT NULL"
)
# Which table is searched is settled while the query is bound, once for its key and for its hits; the transaction's
# number is there to have a prepared statement bound again each time.
_CHOICE = "_jammi_choose(source, current_schemas(false), model, embedding_table, txid_current()::BIGINT)"
_HITS = f"SELECT unnest(_jammi_search({_CHOICE}, {_TEXT_OR_VECTOR}, k, exact), recursive := true)"
_SEARCH = "(source, query, k := 10, model := NULL, exact := false, embedding_table := NULL)"
_KEY = f"_jammi_row[{_CHOICE}.key]"


def macros(connection: str) -> list[str]:
    """The statements that give a connection its macros; `connection` is its id, a hexadecimal text.

    They are TEMP, so that nothing of ours stays in a database file.
    """
    caller = f"{literal(connection)}, txid_current()::BIGINT"
    bodies = {
        "embed(text, model := NULL, role := 'document', dims := NULL)": (
            "_jammi_embed(text::VARCHAR, model::VARCHAR, role::VARCHAR, dims::BIGINT)"
        ),
        "jammi_generate(source, cols, key, model := NULL, dims := NULL)": (
            "TABLE SELECT * FROM query(_jammi_plan(source::VARCHAR, current_schemas(false), to_json(cols)::VARCHAR, "
            f"key::VARCHAR, model::VARCHAR, dims::BIGINT, {literal(connection)}))"
        ),
        "jammi_infer(source, cols, key, model := NULL, task := 'text_embedding', dims := NULL)": (
            "TABLE SELECT * FROM query(_jammi_plan_inference(source::VARCHAR, current_schemas(false), "
            "to_json(cols)::VARCHAR, key::VARCHAR, model::VARCHAR, task::VARCHAR, dims::BIGINT))"
        ),
        f"jammi_search{_SEARCH}": (
            "TABLE SELECT _jammi_row.*, _jammi_hit._row_id, _jammi_hit._rank, _jammi_hit._similarity, "
            f"_jammi_hit._distance FROM ({_HITS}) _jammi_hit JOIN query_table(source) _jammi_row "
            f"ON {_KEY} = cast_to_type(_jammi_hit._row_id, {_KEY}) ORDER BY _jammi_hit._rank"
        ),
        f"jammi_matches{_SEARCH}": (
            f"TABLE SELECT _row_id, _source_id, _rank, _similarity, _distance FROM ({_HITS}) ORDER BY _rank"
        ),
        "jammi_tables()": (
            f"TABLE SELECT * REPLACE (to_seconds(age) AS age) FROM "
            f"(SELECT unnest(_jammi_tables({caller}), recursive := true))"
        ),
        "jammi_models()": "TABLE SELECT unnest(_jammi_models(txid_current()::BIGINT), recursive := true)",
        "jammi_recover()": f"TABLE SELECT unnest(_jammi_recover({caller}), recursive := true)",
        "jammi_drop(embedding_table)": "TABLE SELECT unnest(_jammi_drop(embedding_table::VARCHAR), recursive := true)",
        "jammi_vacuum()": f"TABLE SELECT unnest(_jammi_vacuum({caller}), recursive := true)",
    }
    return [f"CREATE OR REPLACE TEMP MACRO {head} AS {body}" for head, body in bodies.items()]


def generate_query(source: str, name: str, request: str, columns: Sequence[str], key: str, connection: str) -> str:
    """The query that embeds a source's rows within the caller's own transaction.

    `_jammi_begin` runs once and makes the token, `_jammi_push` takes every row, and `_jammi_finish` runs once at the
    end, also when there are no rows. `request` is passed through to `_jammi_begin`.
    """
    return (
        f"WITH _jammi_rows AS NOT MATERIALIZED ({_picked(source, name, columns, key)}), "
        f"_jammi_build AS MATERIALIZED (SELECT _jammi_begin({literal(request)}, count(*), count(c0), "
        f"count(DISTINCT c0), any_value(typeof(c0)), {literal(connection)}, txid_current()::BIGINT) AS token "
        "FROM _jammi_rows) "
        "SELECT unnest(_jammi_finish(b.token, p.pushed), recursive := true) FROM ("
        f"SELECT count(_jammi_push(b.token, r.c0::VARCHAR, {_text(columns)})) AS pushed "
        "FROM _jammi_rows r, _jammi_build b) p, _jammi_build b"
    )


def infer_query(source: str, name: str, columns: Sequence[str], key: str, model: str, dims: int | None) -> str:
    """The query that embeds a source's rows as they are read, so that a LIMIT or a condition spares the others.

    There is no `unnest` in it: DuckDB moves a LIMIT, and a condition on the key, to below a projection only.
    """
    cut = "NULL" if dims is None else f"{dims:d}"
    return (
        f"SELECT _row_id, {literal(name)} AS _source, inferred.* FROM (SELECT r.c0::VARCHAR AS _row_id, "
        f"_jammi_infer({_text(columns)}, {literal(model)}, {cut}::BIGINT) AS inferred "
        f"FROM ({_picked(source, name, columns, key)}) r)"
    )


def _picked(source: str, name: str, columns: Sequence[str], key: str) -> str:
    """The key of a source as `c0`, its columns as `c1` and so on.

    `_jammi_column` sees the columns that the source really has, whatever it is, and so says best which one is missing;
    it calls the source `name`.
    """
    picked = ", ".join(
        f"COLUMNS(lambda c: _jammi_column(c, {literal(column)}, {literal(name)})) AS c{place}"
        for place, column in enumerate([key, *columns])
    )
    return f"SELECT {picked} FROM query_table({literal(source)})"


def _text(columns: Sequence[str]) -> str:
    """The text of a row `r` of what `_picked` gives."""
    texts = ", ".join(f"r.c{place}::VARCHAR" for place in range(1, len(columns) + 1))
    return f"concat_ws(' ', {texts})"
