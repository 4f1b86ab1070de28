"""embed inside any query, with a real model of random weights."""

import duckdb
import numpy as np
import pytest

import jammi_duck
from tests.conftest import make_tiny_model
from tests.test_generate import error_of


@pytest.fixture(scope="module")
def model(tiny_model):
    return str(tiny_model)


@pytest.fixture
def con(model, tmp_path):
    con = duckdb.connect()
    jammi_duck.install(con, storage=tmp_path / "artifacts", model=model)
    yield con
    con.close()


def one(con, expression):
    return con.execute(f"SELECT {expression}").fetchall()[0][0]


def test_a_text_becomes_a_unit_vector(con):
    vector = one(con, "embed('the water duck')::FLOAT[32]")
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert con.execute("SELECT typeof(embed('x'))").fetchall() == [("FLOAT[]",)]


@pytest.mark.parametrize("text", ["NULL", "''", "'   '", "E'\\t\\n'", "NULL::VARCHAR"])
def test_no_text_no_vector(con, text):
    assert one(con, f"embed({text})") is None


def test_bytes_are_no_text(con):
    message = error_of(con, "SELECT embed('duck'::BLOB)")
    assert "embed needs a text, and this is a BLOB, which is bytes: write decode(...)" in message
    assert one(con, "embed(decode('duck'::BLOB)) = embed('duck')")
    con.execute("PREPARE asked AS SELECT embed($1) = embed('duck')")
    assert con.execute("EXECUTE asked('duck')").fetchall() == [(True,)]


def test_a_url_names_no_model(con):
    message = error_of(con, "SELECT embed('duck', 'https://me:hush@host/acme/tiny')")
    assert "InputError: the model 'https://host/acme/tiny' is a URL; a model is named by PROVIDER:NAME" in message


def test_other_types_are_embedded_as_their_text(con):
    assert one(con, "embed(42)") == one(con, "embed('42')")


def test_every_spelling_of_the_arguments(con, model):
    plain = one(con, "embed('duck')")
    for call in (f"embed('duck', '{model}')", f"embed('duck', model := '{model}')", "embed('duck', role := 'query')"):
        assert one(con, call) == plain
    assert con.execute("SELECT embed(?, ?)", ["duck", model]).fetchall()[0][0] == plain


def test_fewer_dimensions_are_renormalised(con):
    whole, short = one(con, "embed('duck')"), one(con, "embed('duck', dims := 8)")
    assert len(short) == 8
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-6)
    assert short == pytest.approx(np.array(whole[:8]) / np.linalg.norm(whole[:8]), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("embed('x', role := 'title')", "role is 'title'; it must be 'document' or 'query'"),
        ("embed('x', role := NULL)", "role is None"),
        ("embed('x', dims := 0)", "dims is 0; "),
        ("embed('x', dims := 33)", "has 1 to 32"),
        ("embed('x', '/no/such/place')", "no model at '/no/such/place'"),
        ("embed(NULL, '/no/such/place')", "no model at '/no/such/place'"),
    ],
)
def test_mistakes(con, call, message):
    assert message in error_of(con, f"SELECT {call}")


def test_two_models_in_one_query(con, model, tmp_path):
    other = make_tiny_model(tmp_path / "cls", pooling="cls")
    con.execute(f"CREATE TABLE t AS FROM (VALUES (1, '{model}'), (2, '{other}'), (3, NULL)) t(id, model)")
    rows = con.execute("SELECT embed('the water', model) FROM t ORDER BY id").fetchall()
    assert rows[0] == rows[2]
    assert rows[0] != rows[1]


@pytest.mark.parametrize("threads", [1, 4])
def test_right_in_any_query(con, threads):
    """100,000 rows, NULLs and blanks among them, through filters, joins, aggregates and CTAS, on several threads."""
    con.execute(f"SET threads = {threads}")
    con.execute(
        """CREATE TABLE words AS SELECT range AS id, CASE WHEN range % 10 = 3 THEN NULL WHEN range % 10 = 7 THEN ' '
        ELSE 'word ' || (range % 89) END AS text FROM range(100000)"""
    )
    con.execute("CREATE TABLE distinct_words AS SELECT DISTINCT text, embed(text) AS vector FROM words")
    con.execute("CREATE TABLE embedded AS SELECT id, text, embed(text)::FLOAT[32] AS vector FROM words")
    assert con.execute("SELECT count(*), count(vector) FROM embedded").fetchall() == [(100000, 80000)]
    wrong = con.execute(
        """SELECT count(*) FROM embedded e JOIN distinct_words d ON e.text = d.text
        WHERE e.text <> ' ' AND list_cosine_similarity(e.vector, d.vector) < 0.999999"""
    ).fetchall()
    assert wrong == [(0,)]
    filtered = con.execute("SELECT count(embed(text)) FROM words WHERE id % 100 = 1 AND embed(text) IS NOT NULL")
    assert filtered.fetchall() == [(1000,)]


def test_a_result_does_not_depend_on_the_batch(con):
    texts = [f"{'water ' * (i % 14)}duck {i}" for i in range(300)]
    alone = [one(con, f"embed('{text}')") for text in texts[:20]]
    con.execute("CREATE TABLE t AS SELECT unnest(?) AS text", [texts])
    together = dict(con.execute("SELECT text, embed(text) FROM t").fetchall())
    for text, vector in zip(texts, alone, strict=False):
        assert together[text] == pytest.approx(vector, abs=1e-6)


def test_explain_and_prepare(con):
    con.execute("EXPLAIN SELECT embed('x')")
    con.execute("PREPARE e AS SELECT embed($1)")
    assert con.execute("EXECUTE e('duck')").fetchall()[0][0] == one(con, "embed('duck')")
