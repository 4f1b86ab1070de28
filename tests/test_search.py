"""jammi_search and jammi_matches: the right rows, always all of them, whatever became of the sidecars."""

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.errors import JammiWarning
from tests.effort import some
from tests.fakes import DIMENSIONS, text_vector
from tests.test_generate import error_of, generate

WORDS = "red green blue cat dog owl fish duck water night tree stone light road bread glass".split()


def fill(con, texts, table="t"):
    con.execute(f"CREATE OR REPLACE TABLE {table} (id BIGINT, text VARCHAR)")
    if texts:
        con.execute(f"INSERT INTO {table} SELECT unnest(range(len($1))), unnest($1)", [texts])


def oracle(texts, query, k):
    """Exact search in plain numpy: ids, best first, ties by the id as text."""
    vector = text_vector(query).astype(np.float64)
    near = [(-np.float32(text_vector(text).astype(np.float64) @ vector), str(i)) for i, text in enumerate(texts)]
    return [int(i) for _, i in sorted(near)[:k]]


def ids(con, query, k, **options):
    """What is found by the vector, or by `mode`, best first."""
    options = {"mode": "'vector'", **options}
    extra = "".join(f", {name} := {value}" for name, value in options.items())
    rows = con.execute(f"SELECT id FROM jammi_search('t', ?, ?{extra}) ORDER BY _rank", [query, k]).fetchall()
    return [i for (i,) in rows]


class TestAnswers:
    def test_columns_and_ranks(self, animals):
        generate(animals, "animals", ["name", "text"])
        rows = animals.execute("SELECT * FROM jammi_search('animals', 'a duck in water', 2)")
        names = [column[0] for column in rows.description]
        ours = ["_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25"]
        assert names == ["id", "name", "text", *ours]
        first, second = (dict(zip(names, row, strict=True)) for row in rows.fetchall())
        assert (first["name"], first["_row_id"], first["_rank"]) == ("duck", "3", 1)
        assert second["_rank"] == 2
        assert first["_score"] >= second["_score"]
        assert first["_bm25"] > second["_bm25"] > 0
        assert first["_distance"] == pytest.approx(1 - first["_similarity"])

    @pytest.mark.parametrize("query", ["'a duck in water', 2, mode := 'vector'", "embed('a duck in water'), 2"])
    def test_a_vector_alone_has_a_similarity_for_its_score(self, animals, query):
        generate(animals, "animals", ["name", "text"])
        rows = animals.execute(f"SELECT _score, _similarity, _bm25 FROM jammi_search('animals', {query})").fetchall()
        assert [score for score, _, _ in rows] == [similarity for _, similarity, _ in rows]
        assert rows[0][0] > rows[1][0]
        assert [bm25 for _, _, bm25 in rows] == [None, None]

    def test_similarity_is_the_inner_product_of_the_stored_vectors(self, animals):
        generate(animals, "animals")
        (name,) = animals.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        rows = animals.execute(
            f"""WITH q AS (SELECT embed('duck water')::FLOAT[{DIMENSIONS}] AS vector)
            SELECT max(abs(s._similarity - array_cosine_similarity(v.vector, (SELECT vector FROM q))))
            FROM jammi_search('animals', 'duck water') s JOIN jammi."{name}" v USING (_row_id)"""
        )
        assert rows.fetchone()[0] < 1e-6

    def test_matches_needs_no_source(self, animals):
        generate(animals, "animals")
        animals.execute("DROP TABLE animals")
        rows = animals.execute("SELECT * FROM jammi_matches('animals', 'duck', 1)")
        names = [column[0] for column in rows.description]
        assert names == ["_row_id", "_source_id", "_rank", "_score", "_similarity", "_distance", "_bm25"]
        assert rows.fetchall()[0][:3] == ("3", "animals", 1)

    @pytest.mark.parametrize("kind", ["FLOAT[64]", "FLOAT[]", "DOUBLE[]", "DOUBLE[64]"])
    def test_a_vector_asks_as_well_as_a_text(self, animals, kind):
        generate(animals, "animals")
        by_text = animals.execute(
            "SELECT id, _similarity FROM jammi_search('animals', 'owl night', mode := 'vector')"
        ).fetchall()
        by_vector = animals.execute(
            f"SELECT id, _similarity FROM jammi_search('animals', embed('owl night', role := 'query')::{kind})"
        ).fetchall()
        assert by_vector == by_text
        scaled = animals.execute(
            "SELECT id FROM jammi_search('animals', [x * 5 for x in embed('owl night')])"
        ).fetchall()
        assert scaled == [(i,) for i, _ in by_text]

    def test_an_enum_and_a_number_ask_as_their_text(self, animals):
        generate(animals, "animals")
        animals.execute("CREATE TYPE animal AS ENUM ('duck', 'owl')")
        assert animals.execute("SELECT id FROM jammi_search('animals', 'owl'::animal, 1)").fetchall() == [(5,)]
        assert len(animals.execute("FROM jammi_search('animals', 42, 1)").fetchall()) == 1

    @pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
    def test_columns_with_the_names_of_ours(self, con):
        names = [
            "t",
            "s",
            "query",
            "source",
            "k",
            "model",
            "exact",
            "key",
            "build",
            "c0",
            "token",
            "text",
        ]
        columns = ", ".join(f"'x{i} {name}' AS {name}" for i, name in enumerate(names))
        con.execute(f"CREATE TABLE w AS SELECT range AS id, {columns}, {{'id': 100}} AS struct FROM range(3)")
        con.execute("CREATE TABLE v AS SELECT id, struct AS t, 'word' || id AS text FROM w")
        assert generate(con, "w", names) == [(3, 0, 0)]
        assert len(con.execute("FROM jammi_search('w', 'x1 s')").fetchall()) == 3
        generate(con, "v")
        assert con.execute("SELECT id FROM jammi_search('v', 'word1', 1)").fetchall() == [(1,)]

    def test_a_table_that_is_built_in_the_same_query_does_not_mix_keys(self, con):
        con.execute(
            "CREATE TABLE n AS SELECT range AS id, 99 - range AS other, 'word' || range AS text FROM range(100)"
        )
        generate(con, "n")
        rows = con.execute(
            "SELECT s.id, s.text, g.status FROM jammi_generate('n', 'text', 'other') g, "
            "jammi_search('n', 'word7' || left(g.status, 0), 1) s"
        )
        assert rows.fetchall() == [(7, "word7", "ready")]
        assert con.execute("SELECT id FROM jammi_search('n', 'word7', 1)").fetchall() == [(7,)]

    def test_null_gives_no_rows(self, animals):
        generate(animals, "animals")
        assert animals.execute("SELECT * FROM jammi_search('animals', NULL)").fetchall() == []
        assert animals.execute("SELECT * FROM jammi_matches('animals', NULL::FLOAT[])").fetchall() == []

    def test_lateral_answers_each_question_and_encodes_a_chunk_at_once(self, animals, jammi):
        generate(animals, "animals")
        animals.execute("CREATE TABLE questions AS SELECT range AS n, 'water ' || range AS text FROM range(3000)")
        rows = animals.execute(
            "SELECT q.n, list(s.id ORDER BY s._rank) "
            "FROM questions q, jammi_search('animals', q.text, 2, mode := 'vector') s GROUP BY q.n"
        ).fetchall()
        assert len(rows) == 3000
        assert {len(found) for _, found in rows} == {2}
        texts = [
            "a small cat sleeps",
            "a loud dog barks",
            "a duck swims in water",
            "a fish lives in water",
            "an owl hunts at night",
        ]
        assert all(sorted(found) == sorted(i + 1 for i in oracle(texts, f"water {n}", 2)) for n, found in rows[:50])

    def test_lateral_with_nulls_and_a_k_of_each_row(self, animals):
        generate(animals, "animals")
        animals.execute("CREATE TABLE q AS FROM (VALUES (1, 'cat', 1), (2, NULL, 3), (3, 'dog', 3)) q(n, text, many)")
        rows = animals.execute(
            "SELECT q.n, count(*) FROM q, jammi_search('animals', q.text, q.many) s GROUP BY q.n ORDER BY q.n"
        ).fetchall()
        assert rows == [(1, 1), (3, 3)]

    def test_in_a_view_a_cte_and_a_prepared_statement(self, animals):
        generate(animals, "animals")
        animals.execute("CREATE TEMP VIEW wet AS SELECT id FROM jammi_search('animals', 'water', 2)")
        assert len(animals.execute("FROM wet").fetchall()) == 2
        animals.execute("PREPARE find AS SELECT id FROM jammi_search('animals', $1, $2)")
        assert animals.execute("EXECUTE find('owl', 1)").fetchall() == [(5,)]
        assert animals.execute("EXECUTE find('cat', 1)").fetchall() == [(1,)]
        with pytest.warns(JammiWarning, match="'animals' has 1 rows now, and had 5"):
            rows = animals.execute(
                "WITH animals AS (SELECT 5 AS id, 'shadow' AS name) SELECT name FROM jammi_search('animals', 'owl')"
            )
        assert rows.fetchall() == [("shadow",)]

    def test_rows_that_are_gone_from_the_source_are_not_found(self, animals):
        generate(animals, "animals")
        animals.execute("DELETE FROM animals WHERE id = 3")
        with pytest.warns(JammiWarning, match="leaves out the rows that are gone"):
            assert 3 not in [row[0] for row in animals.execute("FROM jammi_search('animals', 'duck')").fetchall()]

    def test_python_gives_a_relation(self, animals, jammi):
        built = jammi.generate("animals", ["name", "text"], "id")
        assert (built.status, built.row_count) == ("ready", 5)
        assert jammi.search("animals", "owl", 1).project("id").fetchall() == [(5,)]
        vector = text_vector("owl")
        assert jammi.search("animals", vector, 1, embedding_table=built.embedding_table).project("id").fetchall() == [
            (5,)
        ]
        assert jammi.tables().project("embedding_table").fetchall() == [(built.embedding_table,)]


class TestChoice:
    def test_the_newest_ready_one_is_searched_and_others_can_be_picked(self, animals):
        generate(animals, "animals", "name")
        (old,) = animals.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        animals.execute("UPDATE animals SET name = 'owl' WHERE id = 1")
        generate(animals, "animals", "name")
        animals.execute("SELECT * FROM jammi_generate('animals', 'text', 'id', model := 'fake/other')")
        query = "SELECT _row_id FROM jammi_matches('animals', 'owl', 2, {}) WHERE _similarity > 0.999 ORDER BY 1"
        assert animals.execute(query.format("model := 'fake/small'")).fetchall() == [("1",), ("5",)]
        assert animals.execute(query.format(f"embedding_table := '{old}'")).fetchall() == [("5",)]
        newest = animals.execute("SELECT model FROM jammi_tables() ORDER BY started DESC LIMIT 1").fetchone()
        assert newest == ("fake/other",)

    @pytest.mark.parametrize(
        "name", ["animals", "ANIMALS", "main.animals", "memory.animals", "memory.main.Animals", '"animals"']
    )
    def test_one_source_has_many_spellings(self, animals, name):
        generate(animals, "Main.Animals")
        assert animals.execute("SELECT id FROM jammi_search(?, 'owl', 1)", [name]).fetchall() == [(5,)]

    def test_names_that_only_python_would_fold_are_two_sources(self, con):
        for name, text in (("Ä", "upper"), ("ä", "lower"), ("straße", "sharp"), ("strasse", "double")):
            con.execute(f"CREATE TABLE {name} AS SELECT 1 AS id, '{text}' AS text")
            generate(con, name)
        sources = con.execute("SELECT count(DISTINCT source) FROM jammi_tables()").fetchall()
        assert sources == [(4,)]
        assert con.execute("SELECT text FROM jammi_search('ä', 'x')").fetchall() == [("lower",)]

    def test_schemas_of_the_search_path_and_of_an_open_transaction(self, animals):
        animals.execute("CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE two.herd AS FROM animals")
        animals.execute("SET search_path = 'one,two'")
        generate(animals, "herd")
        animals.execute("SET search_path = 'main'; BEGIN; CREATE SCHEMA fresh; CREATE TABLE fresh.herd AS FROM animals")
        generate(animals, "fresh.herd")
        animals.execute("COMMIT; CREATE TABLE main.json AS FROM animals")
        generate(animals, "main.json")
        sources = animals.execute("SELECT source FROM jammi_tables() ORDER BY 1").fetchall()
        assert sources == [("fresh.herd",), ("json",), ("two.herd",)]
        assert animals.execute("SELECT id FROM jammi_search('json', 'owl', 1)").fetchall() == [(5,)]

    def test_use_of_another_schema_or_database(self, animals):
        generate(animals, "animals")
        animals.execute("CREATE SCHEMA s; USE s")
        assert animals.execute("SELECT id FROM jammi_search('animals', 'owl', 1)").fetchall() == [(5,)]
        animals.execute("CREATE TABLE s.animals AS SELECT 1 AS id, 'other' AS text")
        generate(animals, "animals")
        assert animals.execute("SELECT source FROM jammi_tables() ORDER BY 1").fetchall() == [
            ("animals",),
            ("s.animals",),
        ]
        assert animals.execute("SELECT text FROM jammi_search('animals', 'x')").fetchall() == [("other",)]
        animals.execute("ATTACH ':memory:' AS other; USE other")
        assert animals.execute("SELECT count(*) FROM jammi_matches('animals', 'owl')").fetchone() == (5,)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("'animals', 'x', 0", "k is 0; it must be at least 1"),
            ("'animals', 'x', -3", "k is -3"),
            ("'animals', 'x', NULL", "k is NULL"),
            ("'animals', [1.0, 2.0]", "has 2 dimensions"),
            ("'animals', ['a', 'b']", "has 2 dimensions"),
            ("'animals', [[1.0]]", "the query"),
            ("'animals', [CASE WHEN x > 0 THEN 1.0 END for x in range(64)]", "has a NULL"),
            ("'animals', ['inf'::FLOAT for x in range(64)]", "an infinity"),
            ("'animals', 'x', model := 'fake/other'", "of the model 'fake/other'; there are: fake/small"),
            (
                "'animals', 'x', embedding_table := 'nope'",
                "no embedding table 'nope'; ready are: animals__embedding__small",
            ),
            ("'others', 'x'", "no embedding table for 'others'; there are some for: animals"),
            ("'animal', 'x'", "no embedding table for 'animal'; did you mean 'animals'?"),
        ],
    )
    def test_mistakes(self, animals, call, message):
        generate(animals, "animals")
        animals.execute("CREATE TABLE others AS FROM animals")
        assert message in error_of(animals, f"SELECT * FROM jammi_search({call})")

    @pytest.mark.parametrize("name", ["", ".", "a.", "a..b", "a.b.c.d", '"a', '"a"b'])
    def test_names_of_nothing(self, con, name):
        with pytest.raises(duckdb.Error, match="names no table, view or file"):
            con.execute("FROM jammi_matches(?, 'x')", [name])

    def test_a_source_with_nothing_built_says_how(self, animals):
        assert "there are none yet. SELECT * FROM jammi_generate('animals'" in error_of(
            animals, "SELECT * FROM jammi_search('animals', 'x')"
        )
        assert "did you mean 'animals'?" in error_of(
            animals, "FROM jammi_generate('animals', 'text', 'id'); FROM jammi_matches('animal', 'x')"
        )

    def test_a_model_that_changed_is_not_compared(self, animals, jammi):
        generate(animals, "animals")
        from tests.fakes import FakeEncoder

        jammi.encoders.loaded["fake/small"] = FakeEncoder("fake/small", weights="1" * 64)
        assert "its files have changed" in error_of(animals, "FROM jammi_search('animals', 'x')")


class TestExactness:
    @given(
        texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), max_size=40),
        query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
        k=st.integers(1, 50),
        segment_rows=st.sampled_from([1, 7, 1000]),
    )
    @settings(max_examples=some(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_small_tables_with_ties_and_duplicates(self, fake, texts, query, k, segment_rows):
        jammi = fake(duckdb.connect(), segment_rows=segment_rows)
        fill(jammi.con, texts)
        generate(jammi.con, "t")
        assert ids(jammi.con, query, k) == oracle(texts, query, k)
        assert ids(jammi.con, query, k, exact="true") == oracle(texts, query, k)
        jammi.con.close()

    @pytest.mark.parametrize("segment_rows", [300, 10_000])
    def test_the_index_finds_what_exact_search_finds(self, fake, segment_rows):
        con = fake(segment_rows=segment_rows).con
        rng = np.random.default_rng(1)
        texts = [" ".join(rng.choice(WORDS, 4)) + f" w{i}" for i in range(2000)]
        fill(con, texts)
        generate(con, "t")
        hits = 0
        for query in ("red cat", "night road water", "w7 bread", "stone"):
            exact = ids(con, query, 10, exact="true")
            assert exact == oracle(texts, query, 10)
            hits += len(set(exact) & set(ids(con, query, 10)))
        assert hits >= 38

    def test_k_larger_than_the_table_gives_the_whole_table(self, fake):
        con = fake(segment_rows=400).con
        fill(con, [f"word{i}" for i in range(1000)])
        generate(con, "t")
        assert len(ids(con, "word5", 999)) == 999
        assert sorted(ids(con, "word5", 100_000)) == list(range(1000))
