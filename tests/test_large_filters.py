"""Filters with very many keys: they work up to a limit, and what is remembered of them is bounded."""

import gc

import duckdb
import pytest

from jammi_duck import sql
from jammi_duck.udfs.filters import conditions
from tests.test_generate import error_of

KEYS = 5_000
IS_NEW = int(duckdb.__version__.split(".")[0]) > 1


@pytest.fixture
def rows(con):
    con.execute("CREATE TABLE t AS SELECT i AS id, 'text ' || i AS text FROM range(50) r(i)")
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    return con


def found(con, predicate, more="", given=()):
    text = f"SELECT id FROM jammi_search('t', 'text', 100, filter := ?{more})"
    return sorted(id for (id,) in con.execute(text, [predicate, *given]).fetchall())


@pytest.mark.parametrize("written", [str, "'{}'::BIGINT".format, "{}.0".format])
def test_many_keys_in_a_list(rows, written):
    keys = ", ".join(map(written, range(40, 40 + KEYS)))
    assert found(rows, f"id IN ({keys})") == list(range(40, 50))
    assert found(rows, f"id NOT IN ({keys})") == list(range(40))


@pytest.mark.parametrize("predicate", ["id IN $ids", "id IN (SELECT unnest($ids))"])
def test_many_keys_as_a_parameter(rows, predicate):
    # DuckDB 1 copies the list beside each of its values in a sub-query.
    count = 200_000 if "unnest" not in predicate or IS_NEW else 1_000
    keys = list(range(40, 40 + count))
    assert found(rows, predicate, ", parameters := {'ids': ?}", [keys]) == list(range(40, 50))


@pytest.mark.parametrize(
    ("predicate", "size"),
    [
        (f"id IN ({'1, ' * 200_000}1)", "400,005 names, values and signs, and may have 400,000"),
        (f"text = '{'a' * 10_000_000}'", "10,000,009 characters, and may have 10,000,000"),
    ],
)
def test_one_that_is_too_large_is_refused_and_told_what_to_do(rows, monkeypatch, predicate, size):
    monkeypatch.setattr(conditions, "parse", None)
    said = error_of(rows, f"FROM jammi_search('t', 'x', filter := $f${predicate}$f$)")
    assert f"the filter has {size}: put many keys into a table" in said
    assert "filter := 'id IN (SELECT id FROM wanted)'" in said


def test_a_long_text_is_one_value(rows):
    assert found(rows, f"text = '{'a ' * 500_000}' OR id = 3") == [3]


def known():
    """How many filters are remembered, of all installations."""
    gc.collect()
    return sum(type(each) is conditions.Condition for each in gc.get_objects())


def test_what_is_remembered_has_a_bound(rows, monkeypatch):
    monkeypatch.setattr(conditions, "_MOST_KNOWN_CHARACTERS", 50_000)
    before = known()
    for number in range(60):
        assert found(rows, f"id = {number % 50} AND text <> '{'a' * 1000}{number}'") == [number % 50]
    assert 10 < known() - before < 30
    assert found(rows, f"id = 3 AND text <> '{'a' * 60_000}'") == [3]
    assert known() - before == 1


def test_long_statements_are_not_remembered(rows):
    found(rows, "id = 3")
    before = sql._full.cache_info().currsize
    for number in range(3):
        found(rows, f"id = 3 AND text <> '{'a' * 20_000}{number}'")
    assert sql._full.cache_info().currsize == before
