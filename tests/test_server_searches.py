"""A statement's one search runs before the statement: to the macro's rows and columns, wherever it stands."""

import contextlib
import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jammi_duck
from jammi_duck.doors.server.identity import Visitor
from jammi_duck.doors.server.service import Query
from jammi_duck.doors.server.statements import statement_of
from jammi_duck.errors import JammiError
from tests.effort import some
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
    folder = file.parent
    con = jammi_duck.connect(file, storage=str(folder / "artifacts"), cache_dir=str(folder / "cache"))
    con.execute(
        "CREATE TABLE manuals AS SELECT id, repeat(note || ' on how pumps move water. ', id) AS body FROM notes"
    )
    con.execute("FROM jammi_generate('manuals', 'body', 'id', passages := {'tokens': 20})").fetchall()
    con.close()
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
    "SELECT unnamed_subquery.id FROM jammi_search('patents', 'water', 2), (SELECT 77 AS id)",
    "PIVOT jammi_search('patents', 'water', 3) ON year IN (2019, 2022) USING count(*) GROUP BY title",
    "WITH other AS (SELECT 1 AS id) SELECT id FROM other JOIN jammi_search('patents', 'water', 3) USING (id)",
    "SELECT id FROM notes WHERE id IN (SELECT id FROM jammi_search('patents', 'water', 3)) ORDER BY id",
    "SELECT * FROM jammi_search('manuals', 'how to move water', 5)",
    "SELECT * FROM jammi_search('manuals', 'how to move water', 5, per_row := 3)",
    "SELECT id, _passage_text FROM jammi_search('manuals', 'note 7', 2, per_row := 2, mode := 'text') s ORDER BY _rank",
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


@settings(max_examples=some(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        "SELECT (SELECT id FROM jammi_search('patents', 'x', 1))",
        "SELECT s FROM (SELECT 1 + (SELECT id FROM jammi_search('patents', 'x', 1))) s",
        "PIVOT notes ON id IN (1) USING max((SELECT id FROM jammi_search('patents', 'x', 1)))",
        "SELECT\u3000* FROM jammi_search('patents', 'x')",
        f"SELECT * FROM jammi_search('patents', {VECTOR}::FLOAT[383])",
        f"SELECT * FROM jammi_search('patents', {[1] * 384})".replace("1", "\u0661"),
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


@pytest.mark.filterwarnings("ignore::jammi_duck.errors.JammiWarning")
def test_parts_of_a_statement_hide_tables(served):
    for hides in (
        "patents AS (SELECT 5::BIGINT AS id, 'mine' AS title)",
        'RECURSIVE "PATENTS" AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM "PATENTS" WHERE id < 3)',
    ):
        first, by_macro, is_plain = both(served, f"WITH {hides} SELECT id FROM jammi_search('patents', 'water', 1)")
        assert not is_plain
        assert len(first) == 1
        assert first.equals(by_macro)


def test_other_spaces_do_not_move_the_search_into_a_text(served):
    # DuckDB 1 tells places as if each of these were one byte.
    evil = ") AS b; SELECT 1; SELECT $1, $2, $3, $4, $5, $6 --"
    rest = f"('a jammi_search( b') AS b FROM jammi_search(query := '{evil}', source := 'patents', k := 1)"
    moved = rest.rindex("jammi_search") - rest.index("jammi_search")
    text = "SELECT" + "\u3000" * (moved // 2) + " " * (moved % 2) + rest
    assert rows_of(served, statement_of(text)).to_pylist() == [{"b": "a jammi_search( b"}]
    assert moved % 2 == 0


def test_a_vector_with_a_rest_is_refused():
    for rest in ("1", "a", " 1", "[1]"):
        with contextlib.suppress(JammiError):
            assert statement_of(f"SELECT * FROM jammi_search('patents', {VECTOR}{rest})").search is None


def test_databases_whose_sources_get_no_catalog(tmp_path):
    file = make_database(tmp_path)
    con = jammi_duck.connect(file, storage=str(tmp_path / "artifacts"), cache_dir=str(tmp_path / "cache"))
    con.execute("CREATE VIEW searching AS SELECT id FROM jammi_search('patents', 'clean water', 1)")
    con.execute("CREATE TABLE main AS SELECT 7 AS seven")
    con.execute(f"COPY (SELECT 1 AS x) TO '{tmp_path}/gone.parquet'")
    con.execute(f"CREATE VIEW gone AS FROM '{tmp_path}/gone.parquet'")
    con.close()
    (tmp_path / "gone.parquet").unlink()
    with in_process(config_of(file)) as (service, _):
        assert rows_of(service, statement_of("FROM searching")).to_pylist() == [{"id": 1}]
        assert rows_of(service, statement_of("FROM main")).to_pylist() == [{"seven": 7}]
        assert len(rows_of(service, statement_of("FROM patents.public.patents"))) == 5


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
