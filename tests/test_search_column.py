"""`jammi_search_column`: an exact search over vectors in a column of any source."""

import json

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck import InputError, JammiWarning, NoModelError, NoSourceError
from tests.effort import some
from tests.fakes import text_vector
from tests.stock_shell import folder, needs_extension, rows  # noqa: F401 - a fixture

TEXTS = ["a small cat sleeps", "a loud dog barks", "a duck swims in water", "a fish lives in water", None]
COLUMNS = "_row_id, _rank, round(_similarity, 4)"


@pytest.fixture
def filled(animals):
    """A table `animals` with a primary key and the vectors of its texts, but for one."""
    animals.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, name VARCHAR, text VARCHAR, v FLOAT[64])")
    animals.execute("INSERT INTO a SELECT id, name, text, embed(text)::FLOAT[64] FROM animals")
    animals.execute("UPDATE a SET v = NULL WHERE name = 'owl'")
    animals.execute("DROP TABLE animals; ALTER TABLE a RENAME TO animals")
    return animals


def asked(con, arguments, columns="_row_id", more=""):
    return con.execute(f"SELECT {columns} FROM jammi_search_column({arguments}) {more}").fetchall()


def keys(con, arguments):
    return [key for (key,) in asked(con, arguments)]


def cosines(vectors, query):
    """The cosine of each vector that has a direction, as NumPy has it; NaN for the others."""
    vectors, query = np.asarray(vectors, np.float64), np.asarray(query, np.float64)
    with np.errstate(all="ignore"):
        found = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))
    return np.where(np.isfinite(vectors).all(axis=1), found, np.nan)


class TestColumns:
    def test_are_the_sources_and_those_of_a_search(self, filled, jammi):
        jammi.generate("animals", "text", "id")
        of_search = filled.execute("DESCRIBE FROM jammi_search('animals', 'a fish')").fetchall()
        assert filled.execute("DESCRIBE FROM jammi_search_column('animals', 'v', 'a fish')").fetchall() == of_search

    def test_the_best_come_first(self, filled):
        found = asked(
            filled, "'animals', 'v', 'a fish', 2", "name, _row_id, _rank, _score, _similarity, _distance, _bm25"
        )
        near = cosines([text_vector("a fish lives in water"), text_vector("a small cat sleeps")], text_vector("a fish"))
        for (name, key, rank, score, similarity, distance, bm25), *wanted, cosine in zip(
            found, ("fish", "cat"), ("4", "1"), (1, 2), near, strict=True
        ):
            assert [name, key, rank] == wanted
            assert score == similarity == pytest.approx(cosine, abs=1e-6)
            assert distance == pytest.approx(1 - cosine, abs=1e-6)
            assert bm25 is None

    def test_the_order_stays_where_the_query_goes_on(self, filled):
        assert asked(filled, "'animals', 'v', 'a fish'", "name", "WHERE id < 9")[0] == ("fish",)
        assert [rank for (rank,) in asked(filled, "'animals', 'v', 'a fish'", "_rank")] == [1, 2, 3, 4]

    def test_those_of_the_source_with_a_name_of_ours_get_an_underscore(self, con):
        con.execute("CREATE TABLE t AS SELECT 7 AS _score, 8 AS _Rank, 9 AS _jammi_near, 5 AS _jammi_asked, [1.0] AS v")
        found = con.execute("FROM jammi_search_column('t', 'v', [1.0], filter := '_score = 7 AND _jammi_near = 9')")
        names = ["__score", "__Rank", "__jammi_near", "__jammi_asked", "v", "_row_id", "_rank", "_score"]
        assert [column[0] for column in found.description][:8] == names
        assert found.fetchall()[0][:8] == (7, 8, 9, 5, [1.0], "0", 1, 1.0)


class TestRowIds:
    @pytest.mark.parametrize(
        ("source", "wanted"),
        [
            ("CREATE TABLE s (a INTEGER, k VARCHAR PRIMARY KEY, v FLOAT[2])", ["x", "y"]),
            ("CREATE TABLE s (k VARCHAR, a INTEGER, v FLOAT[2], PRIMARY KEY (a, k))", ["1, x", "2, y"]),
            ("CREATE TABLE s (a INTEGER, k VARCHAR, v FLOAT[2])", ["0", "1"]),
            ("CREATE TEMP TABLE s (a INTEGER, k VARCHAR, v FLOAT[2])", ["0", "1"]),
        ],
    )
    def test_are_the_primary_key_or_the_rowid(self, con, source, wanted):
        con.execute(source)
        con.execute("INSERT INTO s (a, k, v) VALUES (1, 'x', [1, 0]), (2, 'y', [1, 1])")
        assert keys(con, "'s', 'v', [1, 0]") == wanted
        assert keys(con, "'s', 'v', [1, 0], key := 'k'") == ["x", "y"]
        assert keys(con, "'s', 'v', [1, 0], key := ['k', 'A']") == ["x, 1", "y, 2"]

    def test_are_null_where_rows_have_no_number(self, con):
        con.execute("CREATE VIEW s AS SELECT 'x' AS k, [1.0, 2.0] AS v")
        assert keys(con, "'s', 'v', [1, 0]") == [None]
        assert keys(con, "'s', 'v', [1, 0], key := 'k'") == ["x"]

    def test_break_ties(self, con):
        con.execute("CREATE TABLE s (k INTEGER PRIMARY KEY, v FLOAT[2])")
        con.execute("INSERT INTO s SELECT range, [1, 0] FROM range(20)")
        assert keys(con, "'s', 'v', [1, 0], 5") == sorted(map(str, range(20)))[:5]


class TestSources:
    def test_every_type_of_a_vector(self, filled, tmp_path):
        wanted = asked(filled, "'animals', 'v', 'a fish'", COLUMNS)
        for kind in ("FLOAT[64]", "FLOAT[]", "DOUBLE[]", "DOUBLE[64]"):
            filled.execute(f"CREATE OR REPLACE TABLE s AS SELECT id, v::{kind} AS v FROM animals")
            assert asked(filled, "'s', 'v', 'a fish', key := 'id'", COLUMNS) == wanted
        filled.execute("CREATE OR REPLACE TABLE s AS SELECT [1, 2] AS v, [1.5, 2.5] AS d, [1, 2]::UTINYINT[] AS u")
        assert [len(keys(filled, f"'s', '{name}', [1, 2]")) for name in "vdu"] == [1, 1, 1]

    def test_views_ctes_temp_tables_files_and_what_is_not_committed(self, filled, tmp_path):
        wanted = asked(filled, "'animals', 'v', 'a fish', 2", "name")
        filled.execute("CREATE VIEW seen AS FROM animals; CREATE TEMP TABLE brief AS FROM animals")
        filled.execute(f"COPY (SELECT name, v::FLOAT[] AS v FROM animals) TO '{tmp_path / 'a.parquet'}'")
        for source in ("seen", "brief", "temp.brief", "main.animals", str(tmp_path / "a.parquet")):
            assert asked(filled, f"'{source}', 'v', 'a fish', 2", "name") == wanted
        query = "SELECT name FROM jammi_search_column('c', 'v', 'a fish', 1)"
        assert filled.execute(f"WITH c AS (FROM animals WHERE id < 4) {query}").fetchall() == [("cat",)]
        filled.execute("BEGIN; CREATE TABLE new AS FROM animals WHERE id = 2")
        assert asked(filled, "'new', 'v', 'a fish'", "name") == [("dog",)]
        filled.execute("DELETE FROM animals WHERE name = 'fish'")
        assert asked(filled, "'animals', 'v', 'a fish', 1", "name") == [("cat",)]
        filled.execute("ROLLBACK")

    def test_a_cte_in_the_place_of_a_table_with_a_key(self, filled):
        query = "SELECT name, _row_id FROM jammi_search_column('animals', 'v', 'a fish', 1)"
        assert filled.execute(f"WITH animals AS (SELECT name, v FROM animals) {query}").fetchall() == [("fish", None)]

    def test_python(self, filled, jammi):
        frame = filled.sql("SELECT id, name, v::FLOAT[] AS v FROM animals").to_arrow_table()
        assert jammi.search_column(frame, "v", "a fish", 1).project("name").fetchall() == [("fish",)]
        near = jammi.search_column("animals", "v", text_vector("a fish"), 9, min_similarity=0.6)
        assert near.project("name").fetchall() == [("fish",)]
        chosen = jammi.search_column(
            "animals", "v", "a fish", filter="id < $n", parameters={"n": 3}, key=["id", "name"]
        )
        assert chosen.project("_row_id").fetchall() == [("1, cat",), ("2, dog",)]
        assert jammi.search_column("animals", "v", None).fetchall() == []
        with pytest.raises(InputError, match="the query is an empty text"):
            jammi.search_column("animals", "v", " ")
        with pytest.raises(NoSourceError, match="'nowhere'"):
            jammi.search_column("nowhere", "v", "a fish")


class TestVectors:
    def test_without_a_direction_are_left_out(self, con):
        con.execute("CREATE TABLE s (id INTEGER PRIMARY KEY, v FLOAT[2])")
        con.execute(
            "INSERT INTO s VALUES (1, [1, 0]), (2, NULL), (3, [0, 0]), (4, ['nan'::FLOAT, 1]), (5, ['inf'::FLOAT, 1])"
        )
        con.execute("INSERT INTO s VALUES (6, [NULL, 1]), (7, [-2, 0]), (8, ['-inf'::FLOAT, 0])")
        for kind in ("FLOAT[2]", "FLOAT[]", "DOUBLE[]"):
            con.execute(f"ALTER TABLE s ALTER v TYPE {kind}")
            assert asked(con, "'s', 'v', [1, 0]", "id, _similarity") == [(1, 1.0), (7, -1.0)]
        assert keys(con, "'s', 'v', [1, 0], min_similarity := 0.5") == ["1"]

    @pytest.mark.parametrize("query", ["NULL", "' '", "''", "[0, 0]", "NULL::FLOAT[]"])
    def test_to_which_none_is_near(self, con, query):
        con.execute("CREATE TABLE s AS SELECT [1.0, 0.0] AS v")
        assert keys(con, f"'s', 'v', {query}") == []

    @settings(max_examples=some(40))
    @given(
        st.integers(1, 5).flatmap(
            lambda width: st.tuples(
                st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=width, max_size=width), max_size=30),
                st.lists(st.floats(-1e6, 1e6, width=32), min_size=width, max_size=width),
            )
        ),
        st.integers(1, 12),
        st.sampled_from(["FLOAT[]", "DOUBLE[]", "FLOAT[n]"]),
    )
    def test_the_answer_is_that_of_numpy(self, vectors_and_query, k, kind):
        vectors, query = vectors_and_query
        con = self.shared
        kind = kind.replace("n", str(len(query)))
        con.execute(f"CREATE OR REPLACE TABLE s (i INTEGER PRIMARY KEY, v {kind})")
        if vectors:
            con.execute(f"INSERT INTO s SELECT unnest(range({len(vectors)})), unnest($1)", [vectors])
        found = con.execute(
            "SELECT i, _similarity, _rank FROM jammi_search_column('s', 'v', $1, $2)", [query, k]
        ).fetchall()
        wanted = cosines(np.reshape(vectors, (-1, len(query))), query)
        there = np.flatnonzero(np.isfinite(wanted))
        assert len(found) == min(k, len(there))
        assert [rank for *_, rank in found] == list(range(1, len(found) + 1))
        for i, similarity, _ in found:
            assert similarity == pytest.approx(wanted[i], abs=1e-6)
        best = np.sort(wanted[there])[::-1][: len(found)]
        assert [similarity for _, similarity, _ in found] == pytest.approx(best, abs=1e-6)

    @pytest.fixture(autouse=True)
    def one_for_all_examples(self, con):
        TestVectors.shared = con


class TestFilters:
    def test_come_before_the_ranking(self, filled):
        assert keys(filled, "'animals', 'v', 'a fish', 2, filter := 'id <> 4'") == ["1", "2"]
        assert keys(filled, "'animals', 'v', 'a fish', filter := 'animals.id = 3 AND name LIKE ''d%'''") == ["3"]
        filter = "'id IN (SELECT id FROM animals WHERE name = $n)'"
        assert keys(filled, f"'animals', 'v', 'a fish', filter := {filter}, parameters := {{'n': 'dog'}}") == ["2"]
        assert keys(filled, "'animals', 'v', 'a fish', filter := 'false'") == []
        assert keys(filled, "'animals', 'v', 'a fish', filter := NULL")[0] == "4"

    def test_choose_among_vectors_of_many_lengths(self, con):
        con.execute("CREATE TABLE s AS FROM (VALUES (1, [1.0]), (2, [1.0, 2.0])) t(id, v)")
        assert asked(con, "'s', 'v', [1, 1], filter := 'len(v) = 2'", "id") == [(2,)]
        with pytest.raises(duckdb.Error, match="has 2 dimensions, and a vector in the column 'v' of 's' has 1"):
            asked(con, "'s', 'v', [1, 1]")

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ("filter := 'random() < 1'", "calls random, and a filter may change nothing"),
            ("filter := 'id <'", "cannot be parsed"),
            ("filter := ' '", "the filter is empty"),
            ("filter := 'id = 1) OR (true'", "cannot be parsed|more than a condition"),
            ("filter := 'nothing = 1'", "nothing"),
            ("parameters := {'a': 1}", "the parameter 'a' was given, and the filter does not name"),
            ("filter := 'id = $a'", "the filter names .a, and no parameter 'a' was given"),
        ],
    )
    def test_that_are_wrong(self, filled, options, error):
        if "$a" in options and duckdb.__version__ < "1.5":
            # A NULL in a CTE is an INTEGER there, and no parameter can be taken of that.
            error = "array_extract"
        with pytest.raises(duckdb.Error, match=error):
            asked(filled, f"'animals', 'v', 'a fish', {options}")


class TestManyQuestions:
    def test_each_has_its_own_answer(self, filled):
        filled.execute(
            "CREATE TABLE q AS FROM (VALUES ('a dog', 1), ('a fish', 3), (NULL, 1), (' ', 1)) t(text, least)"
        )
        query = (
            "SELECT q.text, s.name, s._rank FROM q, jammi_search_column('animals', 'v', q.text, 2{}) s ORDER BY 1, 3"
        )
        found = filled.execute(query.format("")).fetchall()
        assert found == [("a dog", "dog", 1), ("a dog", "cat", 2), ("a fish", "fish", 1), ("a fish", "cat", 2)]
        filter = ", filter := 'id > $least', parameters := {'least': q.least}"
        found = filled.execute(query.format(filter)).fetchall()
        assert [(text, name) for text, name, rank in found if rank == 1] == [("a dog", "dog"), ("a fish", "fish")]
        assert len(found) == 3

    def test_prepared(self, filled):
        filled.execute("PREPARE p AS SELECT id FROM jammi_search_column('animals', 'v', $1, $2, filter := $3)")
        assert filled.execute("EXECUTE p('a fish', 1, NULL)").fetchall() == [(4,)]
        assert filled.execute("EXECUTE p('a dog', 2, 'id < 4')").fetchall() == [(2,), (1,)]
        filled.execute("UPDATE animals SET v = NULL WHERE id = 2")
        assert filled.execute("EXECUTE p('a dog', 1, NULL)").fetchall() == [(1,)]


class TestMistakes:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("'animals', 'w', 'a fish'", "no column 'w' in 'animals'; columns: id, name, text, v"),
            ("'animals', NULL, 'a fish'", "needs a source and its column of vectors"),
            ("NULL, 'v', 'a fish'", "the source is NULL"),
            ("'animals', 'name', 'a fish'", "'name' of 'animals' is VARCHAR, which is no vector"),
            ("'animals', 'id', 'a fish'", "'id' of 'animals' is INTEGER, which is no vector"),
            ("'animals', 'v', 'a fish', model := 'fake/other'",
             "'fake/other' gives vectors of 8 dimensions, and a vector in the column 'v' of 'animals' has 64"),
            ("'animals', 'v', [1, 2]", "the query vector has 2 dimensions, and a vector in the column 'v'"),
            ("'animals', 'v', ['nan'::FLOAT]", "the query vector has a NULL, a NaN or an infinity in it"),
            ("'animals', 'v', [NULL, 1]", "the query vector has a NULL, a NaN or an infinity in it"),
            ("'animals', 'v', ['a']", "the query vector has a NULL, a NaN or an infinity in it"),
            ("'animals', 'v', 'a fish', 0", "k is 0; it must be at least 1"),
            ("'animals', 'v', 'a fish', NULL", "k is NULL; it must be at least 1"),
            ("'animals', 'v', 'a fish', 1.5", "k is 1.5; it must be a whole number"),
            ("'animals', 'v', 'a fish', min_similarity := 'nan'", "min_similarity is not a number"),
            ("'animals', 'v', 'a fish', key := 'idd'", "no column 'idd' in 'animals'; did you mean 'id'\\?"),
            ("'animals', 'v', 'a fish', model := 'nowhere'", "no model 'nowhere'"),
            ("'animals', 'v', 'a fish', model = 'x'", "model"),
        ],
    )  # fmt: skip
    def test_are_told(self, filled, arguments, error):
        with pytest.raises(duckdb.Error, match=error):
            asked(filled, arguments)

    def test_are_errors_of_ours_in_python(self, filled, jammi):
        with pytest.raises(InputError, match="2 dimensions, and a vector in the column 'v' of 'animals' has 64"):
            jammi.search_column("animals", "v", [1, 2])
        with pytest.raises(NoModelError):
            jammi.search_column("animals", "v", "a fish", model="nowhere")

    def test_a_text_that_looks_like_a_vector(self, filled):
        with pytest.warns(JammiWarning, match="looks like a vector"):
            asked(filled, "'animals', 'v', '[0.1, 0.2]'")

    def test_explain_encodes_nothing(self, filled, encoded):
        encoded()
        filled.execute("EXPLAIN FROM jammi_search_column('animals', 'v', 'a fish', model := 'nowhere')").fetchall()
        assert encoded() == []
        asked(filled, "'animals', 'v', 'a fish'")
        assert encoded() == ["a fish"]


@needs_extension
class TestShell:
    def test_it_searches(self, folder):  # noqa: F811
        rows("CREATE TABLE s AS SELECT id, text, embed(text)::FLOAT[32] AS v FROM t")
        found = rows("SELECT id, _row_id, _rank, _bm25 FROM jammi_search_column('s', 'v', 'the duck in water', 1)")
        assert found == [{"id": 1, "_row_id": "0", "_rank": 1, "_bm25": None}]
        assert (
            json.loads(json.dumps(rows("SELECT id FROM jammi_search_column('s', 'v', [1], 1, filter := 'false')")))
            == []
        )
