"""Arguments that are far too many or too long are refused at once, in words that can be read."""

import duckdb
import pytest

from jammi_duck.errors import InputError, nearest

LONG = "n" * 1_000_000
MANY = [f"column{i}" for i in range(100_000)]
CALLS = {
    "a model": ("SELECT embed('x', ?)", LONG),
    "a table": ("FROM jammi_search('words', 'x', 2, embedding_table := ?)", LONG),
    "a table to drop": ("FROM jammi_drop(?)", LONG),
    "a role": ("SELECT embed('x', role := ?)", LONG),
    "a task": ("FROM jammi_infer('t', 'text', 'id', task := ?)", LONG),
    "a key": ("FROM jammi_generate('t', 'text', ?)", LONG),
    "a column": ("FROM jammi_generate('t', ?, 'id')", LONG),
    "many columns": ("FROM jammi_generate('t', ?, 'id')", MANY),
    "many columns to infer": ("FROM jammi_infer('t', ?, 'id')", MANY),
    "many dimensions": ("SELECT embed('x', dims := ?)", 10**9),
    "a long vector": ("FROM jammi_search('t', ?::FLOAT[], 2)", [0.5] * 1_000_000),
}


@pytest.mark.parametrize("what", CALLS)
def test_an_error_can_be_read(words, what):
    query, argument = CALLS[what]
    with pytest.raises(duckdb.Error) as raised:
        words.execute(query, [argument]).fetchall()
    # DuckDB 1 puts where in Python it was behind what is said.
    assert len(str(raised.value).partition("\n\nAt:")[0]) < 3000


def test_k_may_be_any_number(words):
    for exact in (True, False):
        query = "SELECT count(*) FROM jammi_search('t', 'word1', 1000000000, exact := ?)"
        assert words.execute(query, [exact]).fetchall() == [(10,)]


def test_a_list_of_names_is_cut(words):
    columns = ", ".join(f"{i} AS c{i}" for i in range(500))
    words.execute(f"CREATE TABLE wide AS SELECT {columns}")
    with pytest.raises(duckdb.Error, match="no column 'd1'.* c49 and 450 more"):
        words.execute("FROM jammi_generate('wide', 'd1', 'c0')").fetchall()


def test_many_names_and_long_ones_are_not_compared():
    assert nearest("colum7", MANY) == "column7"
    assert nearest(LONG, [LONG + "n"]) is None
    assert len(str(InputError(f"no column '{LONG}' in '{LONG}'; columns: id"))) < 1000
    assert str(InputError("x " * 100_000)).endswith("x x ")
