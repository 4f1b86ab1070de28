import pandas as pd
import pytest

from tests.test_search import error_of


def generate(con, source, columns="text", key="id"):
    return con.execute("SELECT source, row_count FROM jammi_generate(?, ?, ?)", [source, columns, key]).fetchone()


def best(con, source, query="owl"):
    return con.execute("SELECT text FROM jammi_search(?, ?, 1)", [source, query]).fetchone()[0]


class TestNamesakes:
    """No table, and nothing that the session alone has, answers for another of its name."""

    @pytest.fixture
    def two(self, con, tmp_path):
        con.execute(f"ATTACH '{tmp_path}/a.db' AS a; ATTACH '{tmp_path}/b.db' AS b")
        con.execute("CREATE TABLE a.n AS FROM (VALUES (1, 'an owl'), (2, 'a cat')) t(id, text)")
        con.execute("CREATE TABLE b.n AS FROM (VALUES (1, 'a cat'), (2, 'an owl')) t(id, text)")
        return con

    def test_of_two_databases(self, two):
        generate(two, "a.n")
        assert "no embedding table for 'b.n'" in error_of(two, "FROM jammi_search('b.n', 'owl')")
        generate(two, "b.n")
        for name in ("a.n", "b.n", "A.main.N", "b.main.n"):
            assert best(two, name) == "an owl"
        two.execute("USE b")
        assert best(two, "n") == "an owl"
        two.execute("INSERT INTO b.n VALUES (3, 'an owl at night')")
        assert two.execute("SELECT added, changed FROM jammi_refresh('b.n')").fetchall() == [(1, 0)]
        for name in ("a.n", "b.n"):
            assert two.execute("SELECT new, changed, gone FROM jammi_status(?)", [name]).fetchall() == [(0, 0, 0)]

    def test_a_database_under_another_name(self, two, tmp_path):
        generate(two, "a.n")
        two.execute(f"DETACH a; ATTACH '{tmp_path}/a.db' AS c; ATTACH ':memory:' AS a; CREATE TABLE a.n AS FROM b.n")
        assert best(two, "c.n") == "an owl"
        assert "no embedding table for 'a.n'" in error_of(two, "FROM jammi_search('a.n', 'owl')")

    @pytest.mark.filterwarnings("ignore:'animals' has 1 rows now")
    @pytest.mark.parametrize("verb", ["search", "matches", "similar", "explain", "status", "refresh"])
    def test_a_temp_table(self, animals, verb):
        generate(animals, "animals")
        animals.execute("CREATE TEMP TABLE animals AS SELECT 1 AS id, 'x' AS name, 'temporary' AS text")
        rest = {"search": ", 'owl'", "matches": ", 'owl'", "explain": ", 'owl'", "similar": ", 1"}.get(verb, "")
        message = error_of(animals, f"FROM jammi_{verb}('animals'{rest})")
        assert 'write "memory"."main"."animals" for the table, temp."animals" for a TEMP table' in message
        assert animals.execute(f"FROM jammi_{verb}('memory.main.animals'{rest})").fetchall()
        assert "no embedding table for 'temp.animals'" in error_of(animals, f"FROM jammi_{verb}('temp.animals'{rest})")
        generate(animals, "temp.animals")
        assert animals.execute(f"SELECT count(*) FROM jammi_{verb}('temp.animals'{rest})").fetchone()
        assert best(animals, "temp.animals") == "temporary"

    def test_what_the_session_alone_has_does_not_answer_later(self, con):
        con.execute("CREATE TEMP TABLE t AS SELECT 1 AS id, 'temporary' AS text")
        assert generate(con, "t") == ("temp.t", 1)
        assert best(con, "t") == best(con, "temp.t") == "temporary"
        con.execute("DROP TABLE t; CREATE TABLE t AS SELECT 1 AS id, 'lasting' AS text")
        assert "is a table here" in error_of(con, "FROM jammi_search('t', 'owl')")
        generate(con, "t")
        assert best(con, "t") == "lasting"


class TestOtherNames:
    @pytest.mark.parametrize("written", ["c.csv", '"c.csv"', '"./c.csv"', "*.csv", '"*.csv"'])
    def test_a_file_of_another_directory(self, con, tmp_path, monkeypatch, written):
        for name, text in (("a", "an owl"), ("b", "a cat")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "c.csv").write_text(f"id,text\n1,{text}\n")
        monkeypatch.chdir(tmp_path / "a")
        name = written.strip('"').removeprefix("./")
        assert generate(con, written) == (name, 1)
        assert (
            best(con, f"./{name}") == best(con, f"{tmp_path}/b/../a/{name}") == best(con, f'"../a/{name}"') == "an owl"
        )
        monkeypatch.chdir(tmp_path / "b")
        assert "no embedding table for" in error_of(con, f"FROM jammi_search('{written}', 'owl')")
        assert best(con, f"../a/{name}") == "an owl"
        assert con.execute("SELECT source FROM jammi_tables()").fetchall() == [(f"{tmp_path}/a/{name}",)]

    def test_a_quoted_name_is_a_table_before_it_is_a_file(self, con, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "c.csv").write_text("id,text\n1,file\n")
        con.execute("""CREATE TABLE "c.csv" AS SELECT 1 AS id, 'table' AS text""")
        assert (generate(con, '"c.csv"'), best(con, '"c.csv"')) == (('"c.csv"', 1), "table")
        con.execute("""DROP TABLE "c.csv"; CREATE TEMP TABLE "other.csv" AS SELECT 1 AS id, 'temporary' AS text""")
        assert (generate(con, '"c.csv"'), best(con, '"c.csv"')) == (("c.csv", 1), "file")
        assert (generate(con, '"other.csv"'), best(con, '"other.csv"')) == (('temp."other.csv"', 1), "temporary")

    def test_a_file_and_a_table_of_one_name(self, con, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "main.csv").write_text("id,text\n1,file\n")
        con.execute("CREATE TABLE main.csv AS SELECT 1 AS id, 'table' AS text")
        message = error_of(con, "FROM jammi_generate('main.csv', 'text', 'id')")
        assert 'write ./main.csv for the file, or "main"."csv" for the table' in message
        assert generate(con, "./main.csv") == ("main.csv", 1)
        assert generate(con, '"main"."csv"') == ("csv", 1)
        assert (best(con, "./main.csv"), best(con, '"main"."csv"')) == ("file", "table")

    def test_a_table_of_an_open_transaction_in_another_schema(self, con):
        con.execute("CREATE SCHEMA s; USE s; BEGIN; CREATE TABLE n AS SELECT 1 AS id, 'an owl' AS text")
        assert generate(con, "n") == ("s.n", 1)
        con.execute("COMMIT")
        assert best(con, "n") == best(con, "s.n") == "an owl"

    def test_after_a_rename(self, animals):
        generate(animals, "animals")
        (name,) = animals.execute("SELECT embedding_table FROM jammi_tables()").fetchone()
        animals.execute("CREATE TABLE other AS FROM animals")
        call = f"FROM jammi_search('other', 'owl', 1, embedding_table := '{name}')"
        assert "is an embedding table of 'animals', not of 'other'" in error_of(animals, call)
        animals.execute("DROP TABLE other; ALTER TABLE animals RENAME TO other")
        assert animals.execute(f"SELECT id {call}").fetchall() == [(5,)]
        way = f"SELECT * FROM jammi_refresh('other', embedding_table := '{name}')"
        for call in ("search('other', 'owl')", "status('other')", "refresh('other')", "compact('other')"):
            message = error_of(animals, f"FROM jammi_{call}")
            assert "no embedding table for 'other'" in message
            assert f"If 'animals' was renamed: {way}" in message
        animals.execute(way).fetchall()
        assert best(animals, "other") == "an owl hunts at night"
        assert animals.execute("SELECT current, new FROM jammi_status('other')").fetchall() == [(5, 0)]
        assert animals.execute("SELECT source FROM jammi_tables()").fetchall() == [("other",)]

    def test_what_cannot_be_a_renamed_table_is_not_called_so(self, animals):
        generate(animals, "animals")
        animals.execute("CREATE TABLE other AS FROM animals; CREATE TABLE numbers AS SELECT 1 AS id")
        assert "was renamed" not in error_of(animals, "FROM jammi_search('other', 'owl')")
        animals.execute("DROP TABLE animals")
        for call in ("jammi_search('numbers', 'owl')", "jammi_status('no_table')", "jammi_refresh('numbers')"):
            assert "was renamed" not in error_of(animals, f"FROM {call}")
        assert "'animals' was renamed" in error_of(animals, "FROM jammi_search('other', 'owl')")
        animals.execute("CREATE TABLE second AS FROM other")
        generate(animals, "second")
        animals.execute("DROP TABLE second")
        assert "was renamed" not in error_of(animals, "FROM jammi_search('other', 'owl')")

    def test_a_dataframe_and_a_cte(self, con):
        # A column that is called as the database is.
        frame = pd.DataFrame({"id": [1], "text": ["an owl"], "memory": [2]})
        rows = con.execute("SELECT source FROM jammi_generate('frame', 'text', 'id')")
        assert rows.fetchall() == [("temp.frame",)]
        assert con.execute("SELECT text FROM jammi_search('frame', 'owl', 1)").fetchall() == [("an owl",)]
        assert len(frame) == 1
        rows = con.execute(
            "WITH c AS (SELECT 1 AS id, 'a cat' AS text) SELECT source FROM jammi_generate('c', 'text', 'id')"
        )
        assert rows.fetchall() == [("temp.c",)]

    def test_what_earlier_versions_called_by_its_bare_name(self, con):
        """They wrote down what a session had as a table of that name, which nobody has ever seen."""
        for name in ("frame", "common", "temporary"):
            con.execute(f"CREATE TABLE {name} AS FROM (VALUES (1, 'an owl'), (2, 'a cat')) t(id, text)")
            assert generate(con, name) == (name, 2)
            con.execute(f"ALTER TABLE {name} RENAME TO gone_{name}; DROP TABLE gone_{name}")
        frame = pd.DataFrame({"id": [1, 2], "text": ["an owl", "a cat"]})
        con.execute("CREATE TEMP TABLE temporary AS SELECT id, text FROM frame")
        assert con.execute("SELECT text FROM jammi_search('frame', 'owl', 1)").fetchall() == [("an owl",)]
        assert best(con, "temporary") == "an owl"
        common = "WITH common AS (FROM frame) SELECT text FROM jammi_search('common', 'owl', 1)"
        assert con.execute(common).fetchall() == [("an owl",)]
        frame.loc[2] = [3, "a dog"]
        assert con.execute("SELECT added FROM jammi_refresh('frame')").fetchall() == [(1,)]

    @pytest.mark.filterwarnings("ignore:'animals' has 1 rows now")
    def test_a_table_that_was_seen_and_is_gone(self, animals):
        generate(animals, "animals")
        assert best(animals, "animals")
        animals.execute("DROP TABLE animals; CREATE TEMP TABLE animals AS SELECT 1 AS id, 'temporary' AS text")
        message = error_of(animals, "FROM jammi_search('animals', 'owl')")
        assert 'is not the table "memory"."main"."animals" in this query' in message
