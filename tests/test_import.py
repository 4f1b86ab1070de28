"""jammi_import: vectors that were made elsewhere become an embedding table like any other."""

import logging

import pytest

from jammi_duck.errors import ModelError
from tests.followed import holds, refresh, status
from tests.test_generate import error_of


@pytest.fixture
def made(words):
    words.execute("CREATE TABLE made AS SELECT id, [sin(id), cos(id), 2] AS v FROM t")
    return words


def test_searched_and_refreshed_like_any_other(made, encoded):
    row = made.execute(
        "SELECT model, status, row_count, dimensions FROM jammi_import('t', 'made', 'id', 'v', model := 'a/model', "
        "cols := 'text')"
    ).fetchall()
    assert row == [("a/model", "ready", 10, 3)]
    found = made.execute("SELECT id, _similarity FROM jammi_search('t', [sin(4), cos(4), 2], 1)").fetchall()
    assert found == [(4, pytest.approx(1, abs=1e-6))]
    assert status(made) == (10, 0, 0, 0)
    made.execute("DELETE FROM t WHERE id = 4; UPDATE t SET id = 44 WHERE id = 5")
    assert refresh(made, model="a/model") == (1, 0, 2, 8, 0, 0)
    found = made.execute("SELECT id FROM jammi_search('t', [sin(5), cos(5), 2], 1)").fetchall()
    assert found == [(44,)]
    made.execute("INSERT INTO t VALUES (12, 'new')")
    assert "no model 'a/model'" in error_of(made, "FROM jammi_refresh('t', model := 'a/model')")


def test_a_model_at_hand_answers_texts_and_embeds_what_is_new(jammi, words, encoded):
    words.execute("CREATE TABLE made AS SELECT id, embed(text) AS v FROM t")
    words.execute("FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/small', cols := ['text'])").fetchall()
    assert words.execute("SELECT id FROM jammi_search('t', 'word3', 1)").fetchall() == [(3,)]
    words.execute("INSERT INTO t VALUES (12, 'new')")
    encoded()
    assert refresh(words) == (1, 0, 0, 10, 0, 1)
    holds(words, dict(words.execute("SELECT id, text FROM t").fetchall()))


def test_without_columns_it_forgets_and_refuses_new_rows(made):
    made.execute("FROM jammi_import('t', 'made', 'id', 'v', model := 'a/model')").fetchall()
    made.execute("DELETE FROM t WHERE id = 4")
    assert refresh(made) == (0, 0, 1, 9, 0, 0)
    made.execute("INSERT INTO t VALUES (12, 'new')")
    assert "import it again, with cols := [...]" in error_of(made, "FROM jammi_refresh('t')")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("UPDATE made SET v = NULL WHERE id = 1", "the vector is NULL, or holds no numbers, in 1 of 10 rows of 'made'"),
        ("ALTER TABLE made ALTER v TYPE VARCHAR", "the column 'v' of 'made' is a VARCHAR; it must be a list"),
        ("UPDATE made SET v = []", "10 of 10 vectors of 'made'"),
        ("UPDATE made SET v = [1e200, 0, 0] WHERE id = 1", "numbers too large or small to be squared"),
        ("UPDATE made SET v = [1e-200, 0, 0] WHERE id = 1", "numbers too large or small to be squared"),
        ("INSERT INTO t VALUES (3, 'again')", "the key 'id' of 't' is not unique: 1 of 11 rows"),
        ("INSERT INTO t VALUES (NULL, 'none')", "the key 'id' of 't' is NULL in 1 of 11 rows"),
        ("ALTER TABLE t ALTER id TYPE TIMESTAMPTZ USING TIMESTAMPTZ '2024-01-01' + INTERVAL 1 DAY * id", "ZONE"),
        ("UPDATE made SET v = [1, 2] WHERE id = 1", "have from 2 to 3 dimensions"),
        ("UPDATE made SET v = [0, 0, 0] WHERE id = 1", "1 of 10 vectors of 'made', such as that of '1'"),
        (
            "UPDATE made SET v = [1, 'nan'::DOUBLE, 0] WHERE id = 1",
            "1 of 10 vectors of 'made', such as that of '1'",
        ),
        (
            "UPDATE made SET v = [1, 'inf'::DOUBLE, 0] WHERE id = 1",
            "1 of 10 vectors of 'made', such as that of '1'",
        ),
        ("UPDATE made SET v = [1, NULL, 0] WHERE id = 1", "1 of 10 vectors of 'made', such as that of '1'"),
        ("UPDATE made SET id = 2 WHERE id = 1", "is not unique"),
        ("UPDATE made SET id = id + 1000", "none of the 10 keys of 'made' is one of 't'"),
        ("DELETE FROM made", "'made' has no vectors"),
    ],
)
def test_what_is_refused_leaves_nothing(made, storage, spoil, reason):
    made.execute(spoil)
    before, rows = set(storage.rglob("*")), "SELECT count(*) FROM jammi_tables()"
    assert reason in error_of(made, "FROM jammi_import('t', 'made', 'id', 'v', model := 'a/model')")
    assert set(storage.rglob("*")) == before
    assert made.execute(rows).fetchall() == [(1,)]


def test_names(made):
    assert "no column 'w' in 'made'" in error_of(made, "FROM jammi_import('t', 'made', 'id', 'w', model := 'm')")
    assert "no column 'ie' in" in error_of(made, "FROM jammi_import('t', 'made', 'ie', 'v', model := 'm')")
    assert "model := '...'" in error_of(made, "FROM jammi_import('t', 'made', 'id', 'v')")
    made.execute("UPDATE made SET v = range(9)::DOUBLE[]")
    error = error_of(made, "FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/other')")
    assert "the vectors have 9 dimensions; 'fake/other' gives 8" in error


def test_vectors_of_rows_that_the_source_does_not_have_are_left_out(made):
    made.execute("DELETE FROM t WHERE id < 3; INSERT INTO t VALUES (77, 'no vector')")
    counts = made.execute(
        "SELECT row_count, skipped_count FROM jammi_import('t', 'made', 'id', 'v', model := 'a/model', cols := 'text')"
    )
    assert counts.fetchall() == [(7, 1)]
    assert status(made) == (7, 1, 0, 0)
    found = made.execute("SELECT id FROM jammi_search('t', [sin(1), cos(1), 2], 2)").fetchall()
    assert len(found) == 2


@pytest.mark.parametrize("lengths", [None, (3, 4), (3, 2), (2, 4), (4, 4), (2, 2)])
def test_vectors_that_change_while_they_are_read_are_refused(made, storage, lengths):
    """One row more is gone by each look, or vectors have other lengths by the second."""
    seen = []

    def vector(key):
        seen.append(key)
        return [1.0] * (3 if len(seen) <= 10 else lengths[key % 2])

    def is_there(key):
        seen.append(key)
        return key >= (len(seen) - 1) // 10

    made.create_function("vector_of", vector, ["BIGINT"], "DOUBLE[]", side_effects=True)
    made.create_function("is_there", is_there, ["BIGINT"], "BOOLEAN", side_effects=True)
    rows = "vector_of(id) AS v FROM t" if lengths else "v FROM made WHERE is_there(id)"
    made.execute(f"CREATE VIEW changing AS SELECT id, {rows}")
    before = set(storage.rglob("*"))
    error = error_of(made, "FROM jammi_import('t', 'changing', 'id', 'v', model := 'a/model')")
    # DuckDB may take the vectors before it counts them.
    mixed = lengths is not None and lengths[0] != lengths[1] and "the vectors of 'changing' have from " in error
    assert mixed or "did not give the same rows when it was read again" in error
    assert set(storage.rglob("*")) == before


@pytest.mark.parametrize("kind", ["FLOAT[3]", "FLOAT[]", "DOUBLE[3]", "INTEGER[]", "DECIMAL(9, 3)[]"])
def test_numbers_of_any_type(made, kind):
    made.execute(f"CREATE TABLE others AS SELECT id, [id + 1, 2, 3]::{kind} AS v FROM t")
    made.execute("FROM jammi_import('t', 'others', 'id', 'v', model := 'a/model')").fetchall()
    found = made.execute("SELECT id, _similarity FROM jammi_search('t', [5, 2, 3], 1)").fetchall()
    assert found == [(4, pytest.approx(1, abs=1e-6))]


def test_a_model_that_is_not_here_is_told_and_one_that_is_broken_is_refused(made, jammi, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING, "jammi_duck"):
        made.execute("FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/smal')").fetchall()
    assert "no model 'fake/smal'" in caplog.text
    assert "model := '...'" in error_of(made, "FROM jammi_import('t', 'made', 'id', 'v', model := '')")

    def broken(name):
        raise ModelError(f"the model '{name}' is broken")

    monkeypatch.setattr(jammi.encoders, "get", broken)
    assert "'fake/small' is broken" in error_of(
        made, "FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/small')"
    )


def test_a_source_may_not_bear_a_name_of_our_own(made):
    made.execute("CREATE TABLE _jammi_rows AS FROM t")
    error = error_of(made, "FROM jammi_import('_jammi_rows', 'made', 'id', 'v', model := 'a/model')")
    assert "'_jammi_rows' is a name of jammi_duck's own" in error


def test_rows_whose_text_is_blank_are_left_out(made):
    made.execute("UPDATE t SET text = ' ' WHERE id < 3")
    counts = "SELECT row_count, skipped_count FROM jammi_import('t', 'made', 'id', 'v', model := 'a/model'"
    assert made.execute(f"{counts}, cols := 'text')").fetchall() == [(7, 3)]
    assert status(made) == (7, 0, 0, 0)
    assert made.execute(f"{counts})").fetchall() == [(10, 0)]
    made.execute("UPDATE t SET text = ''")
    error = error_of(made, f"{counts}, cols := 'text')")
    assert "no row of 't' that has a vector has a text in text" in error
    made.execute("DELETE FROM t")
    assert "'t' has no rows" in error_of(made, f"{counts})")


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("DOUBLE", "it is DOUBLE in 'others' and BIGINT in 't': cast one of them"),
        ("SMALLINT", "is 'id' its key?"),
        ("VARCHAR", "is 'id' its key?"),
    ],
)
def test_keys_of_two_types(made, kind, hint):
    made.execute(f"CREATE TABLE others AS SELECT (id + 1000)::{kind} AS id, v FROM made")
    error = error_of(made, "FROM jammi_import('t', 'others', 'id', 'v', model := 'a/model')")
    assert f"none of the 10 keys of 'others' is one of 't'; {hint}" in error
