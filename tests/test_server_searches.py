"""A statement's one search runs before the statement: to the macro's rows and columns, wherever it stands."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.doors.server.identity import Visitor
from jammi_duck.doors.server.service import Query
from jammi_duck.doors.server.statements import statement_of
from jammi_duck.errors import JammiError
from tests.serving import config_of, in_process, make_database

pytestmark = [
    pytest.mark.minilm,
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
]
VISITOR = Visitor("somebody", "reader")
VECTOR = np.random.default_rng(3).standard_normal(384).astype(np.float32).tolist()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    file = make_database(tmp_path_factory.mktemp("served"))
    with in_process(config_of(file)) as (service, _):
        yield service


def rows_of(served, statement, row=()):
    query = Query(statement, VISITOR, rows=[row])
    with served.answer(query, lambda: False) as (schema, batches):
        return pa.Table.from_batches(batches, schema)


def both(served, text, row=()):
    """What a statement gives with its search before it, and by the macro."""
    statement = statement_of(text)
    assert statement.search is not None, text
    by_macro = rows_of(served, dataclasses.replace(statement, search=None), row)
    noted = []
    plan = served._database.with_engine
    served._database.with_engine = lambda work, *rest: noted.append(plan(work, *rest)) or noted[-1]
    try:
        first = rows_of(served, statement, row)
    finally:
        del served._database.with_engine
    return first, by_macro, len(noted) == 2 and None not in noted


STATEMENTS = [
    "SELECT id, title, _similarity FROM jammi_search('patents', 'clean water', 3)",
    "SELECT * FROM jammi_search('patents', 'clean water')",
    "FROM jammi_search('patents', 'clean water', 2)",
    "select ID, _rank FROM Jammi_Search ( 'PATENTS' , 'clean water', k := 2)",
    "SELECT s.id FROM \"jammi_search\"('patents', 'clean water', 2) AS s WHERE s.year > 2000 ORDER BY s._score LIMIT 1",
    "SELECT a, b FROM jammi_search('patents', 'clean water', 2) s(a, b)",
    "SELECT n.note, s.title FROM jammi_search('patents', 'wind', 3) s JOIN notes n USING (id) ORDER BY n.id",
    "WITH s AS (SELECT * FROM jammi_search('patents', 'wind', 3)) SELECT count(*), max(s._score) FROM s, s AS other",
    "SELECT (SELECT title FROM jammi_search('patents', 'wind', 1)) AS best, id FROM notes ORDER BY id LIMIT 2",
    "SELECT title, jammi_snippet(abstract, 'water') FROM jammi_search('patents', 'water', 5, mode := 'text')",
    "SELECT * FROM jammi_search('patents', 'water', 5, mode => 'hybrid', weight := 0.25, k1 := 1, b := 0.5)",
    "SELECT * FROM jammi_search('patents', 'water', 5, mode := 'vector', exact := true, min_similarity := -1)",
    "SELECT * FROM jammi_search('patents', 'water (a pump) '' or so', 5, fusion := 'rrf', model := NULL) -- )",
    "/* é ( */ SELECT 'ß)' AS c, id FROM jammi_search('patents', 'é) wind', (3)) /* ) */ WHERE title <> ')'",
    "SELECT * FROM jammi_search('patents.public.patents', 'water', 2)",
    "SELECT * FROM jammi_search('main.patents', 'water', 2);",
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_the_same_as_the_macro(served, text):
    first, by_macro, is_plain = both(served, text)
    assert is_plain
    assert first.schema.equals(by_macro.schema)
    assert first.to_pylist() == by_macro.to_pylist()


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("SELECT * FROM jammi_search('patents', ?, ?)", ("clean water", 3)),
        ("SELECT * FROM jammi_search('patents', $1, $2, mode := $3)", ("clean water", 3, "text")),
        ("SELECT * FROM jammi_search($source, $q, k := $k)", (2, "clean water", "patents")),
        ("SELECT id FROM jammi_search('patents', ?::FLOAT[], 3)", (VECTOR,)),
        ("SELECT id FROM jammi_search('patents', CAST(? AS DOUBLE[]), 3)", (VECTOR,)),
        ("SELECT id FROM jammi_search('patents', ?, 3)", (VECTOR,)),
        ("SELECT id FROM jammi_search('patents', ?::FLOAT[384], 3)", (VECTOR,)),
        (f"SELECT id FROM jammi_search('patents', {VECTOR}::FLOAT[], 3)", ()),
        (f"SELECT id FROM jammi_search('patents', {VECTOR}::DOUBLE[384], 3) WHERE year > 2000", ()),
        (f"SELECT id, '[1, 2]' FROM jammi_search('patents', query := {VECTOR}, k := 3)", ()),
    ],
)
def test_parameters(served, text, row):
    first, by_macro, is_plain = both(served, text, row)
    assert is_plain
    assert first.equals(by_macro)
    assert len(first)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text("water wind \"'-+*()é", min_size=1, max_size=30), k=st.integers(-1, 7))
def test_whatever_is_asked_for(served, query, k):
    statement = statement_of("SELECT * FROM jammi_search('patents', ?, ?)")

    def outcome(chosen):
        try:
            return rows_of(served, chosen, (query, k)).to_pylist()
        except JammiError as error:
            return str(error)

    assert outcome(statement) == outcome(dataclasses.replace(statement, search=None))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "EXPLAIN SELECT * FROM jammi_search('patents', 'x')",
        "SELECT * FROM jammi_search('patents', 'x'), jammi_search('patents', 'y')",
        "SELECT * FROM jammi_search('patents', 'x') WHERE year > ?",
        "SELECT * FROM jammi_search('patents', $1) WHERE title > $1",
        "SELECT * FROM jammi_search('patents', 'x', filter := 'year > 2020')",
        "SELECT * FROM jammi_search('patents', 'x', rerank := 'm')",
        "SELECT * FROM jammi_search('patents', 'x', 1, NULL)",
        "SELECT * FROM jammi_search('patents', 'x' || 'y')",
        "SELECT * FROM jammi_search('patents', ?::VARCHAR)",
        "SELECT * FROM jammi_search('patents', ?::INTEGER[])",
        "SELECT * FROM jammi_search('patents', TRY_CAST(? AS FLOAT[]))",
        "SELECT * FROM jammi_search('patents', 'x') TABLESAMPLE 50%",
        "SELECT * FROM temp.main.jammi_search('patents', 'x')",
        "SELECT * FROM jammi_similar('patents', 1)",
        "SELECT * FROM notes n, jammi_search('patents', n.note)",
        "SELECT * FROM jammi_search('patents', 'x', query := 'y')",
        f"SELECT * FROM jammi_search('patents', 'x', k := {VECTOR})",
        f"SELECT * FROM jammi_search('patents', {VECTOR}) WHERE year > ?",
        f"SELECT * FROM jammi_search('patents', {VECTOR}), (SELECT {VECTOR})",
        f"SELECT * FROM jammi_search('patents', {VECTOR}::INTEGER[])",
    ],
)
def test_what_is_left_to_the_macro(text):
    assert statement_of(text).search is None


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("SELECT * FROM jammi_search('nothing', 'x')", ()),
        ("SELECT * FROM jammi_search('patents', 'x', 0)", ()),
        ("SELECT * FROM jammi_search('patents', 'x', mode := 'best')", ()),
        ("SELECT * FROM jammi_search('patents', 'x', weight := '1')", ()),
        ("SELECT * FROM jammi_search('patents', 'x', model := 'none')", ()),
        ("SELECT nothing FROM jammi_search('patents', 'x')", ()),
        ("SELECT * FROM jammi_search('patents', ?::FLOAT[])", ([1.0, 2.0],)),
        ("SELECT * FROM jammi_search('patents', ?::FLOAT[])", ("water",)),
        ("SELECT * FROM jammi_search('patents', ?)", (None,)),
        ("SELECT * FROM jammi_search('patents', ?::FLOAT[3])", (VECTOR,)),
        (f"SELECT * FROM jammi_search('patents', {VECTOR[:20]})", ()),
        (f"SELECT * FROM jammi_search('patents', {['1e400', *VECTOR[1:]]})".replace("'1e400'", "1e400"), ()),
        ("SELECT * FROM jammi_search(?, 'x')", (None,)),
    ],
)
def test_errors_are_those_of_the_macro(served, text, row):
    statement = statement_of(text)
    outcomes = []
    for chosen in (statement, dataclasses.replace(statement, search=None)):
        try:
            outcomes.append(rows_of(served, chosen, row).to_pylist())
        except Exception as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]


def test_a_text_that_looks_like_a_vector_is_one_text():
    listed = str([1, 2] * 20)
    for text in (
        f"SELECT * FROM jammi_search('patents', 'a {listed}')",
        f"FROM jammi_search('patents', 'a') -- {listed}",
    ):
        statement = statement_of(text)
        assert statement.parameters == ()
        assert statement.search.arguments["query"] in (f"a {listed}", "a")
    long = "[" + "1" * 100_000
    with pytest.raises(JammiError):
        statement_of(f"SELECT {long}")


def test_columns_are_worked_out_once_whatever_is_asked_for(served):
    def schema(text):
        return served.schema(Query(statement_of(text), VISITOR))

    with served.lend(VISITOR) as lent:
        described = len(lent.rows("DESCRIBE SELECT * FROM jammi_search('patents', 'x')"))
    before = len(served.schemas._known)
    for query in ("water", "wind", "sun"):
        assert len(schema(f"SELECT * FROM jammi_search('patents', '{query}', 3)")) == described
    assert len(served.schemas._known) == before + 1
    with pytest.raises(JammiError, match="nothing"):
        schema("SELECT * FROM jammi_search('nothing', 'water', 3)")
