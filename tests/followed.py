"""What tests ask of a table that follows its source."""

import numpy as np

from tests.fakes import text_vector

COUNTS = "added, changed, deleted, unchanged, failed, encoded"


def refresh(con, source="t", **options):
    extra = "".join(f", {name} := '{value}'" for name, value in options.items())
    (row,) = con.execute(f"SELECT {COUNTS} FROM jammi_refresh('{source}'{extra})").fetchall()
    return row


def status(con, source="t"):
    (row,) = con.execute(f"SELECT current, new, changed, gone FROM jammi_status('{source}')").fetchall()
    return row


def table_of(con, source="t"):
    return con.execute(f"SELECT embedding_table FROM jammi_status('{source}')").fetchall()[0][0]


def holds(con, texts, table=None):
    """Whether the table holds just these texts by key, in its view and in what searches find."""
    name = table or table_of(con)
    rows = con.execute(f'SELECT _row_id, vector FROM jammi."{name}"').fetchall()
    assert sorted(key for key, _ in rows) == sorted(map(str, texts))
    for key, vector in rows:
        assert np.allclose(vector, text_vector(texts[int(key)]), atol=1e-6)
    query = "SELECT _row_id, _similarity FROM jammi_matches('t', ?, 1000, embedding_table := ?, exact := ?, mode := ?)"
    found = [con.execute(query, ["word3 of all", name, exact, "vector"]).fetchall() for exact in (True, False)]
    near = {str(key): float(text_vector(text) @ text_vector("word3 of all")) for key, text in texts.items()}
    for answer in found:
        assert {key for key, _ in answer} == set(near)
        assert all(abs(similarity - near[key]) < 1e-5 for key, similarity in answer)
    by_words = con.execute(query, ["+word3", name, False, "text"]).fetchall()
    assert {key for key, _ in by_words} == {str(key) for key, text in texts.items() if "word3" in text.split()}
