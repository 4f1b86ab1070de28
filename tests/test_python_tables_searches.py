"""Searches of tables in Python, by vectors and by words, and what SQL does beside them."""

import re

import numpy as np
import pytest

import jammi_duck
from jammi_duck import EncodingError, InputError, JammiWarning, StorageError
from jammi_duck.embeddings import connect, get_registry
from jammi_duck.work.adding import Addition
from tests.python_tables import WithTables, embedded_as, embedding_tables, states, texts


class TestWithoutAFunction(WithTables):
    @pytest.fixture
    def points(self, db):
        return db.create_table(
            "points",
            data=[
                {"vector": [3.1, 4.1], "item": "a red bicycle", "price": 10.0},
                {"vector": [-5.9, 26.5], "item": "a blue car", "price": 20.0},
            ],
        )

    def test_vectors_are_searched_as_they_are(self, points):
        (found,) = points.search([3.0, 4.0]).limit(1).to_list()
        assert found == {
            "vector": pytest.approx([3.1, 4.1]),
            "item": "a red bicycle",
            "price": 10.0,
            "_distance": pytest.approx(0, abs=1e-4),
        }
        with pytest.raises(InputError, match="dimensions"):
            points.search([1.0, 2.0, 3.0]).to_list()

    def test_a_text_is_searched_by_its_words(self, points):
        points.add([{"item": "a red car", "price": 1.0, "vector": None}])
        found = points.search("red car").to_list()
        assert found[0]["item"] == "a red car"
        assert found[0]["_score"] > found[1]["_score"]
        points.add([{"item": "a green boat", "price": 2.0}])
        assert [row["item"] for row in points.search("boats", query_type="fts").to_list()] == ["a green boat"]
        assert [row["item"] for row in points.search("boats", "vector").to_list()] == ["a green boat"]
        with pytest.raises(InputError, match="has no function"):
            points.search("boats", query_type="vector").to_list()
        with pytest.raises(InputError, match="no column of vectors|has no function"):
            points.search("boats", query_type="hybrid").to_list()

    def test_a_column_of_text_that_sql_adds_is_searched(self, db, points):
        assert points.search("bicycle").limit(1).to_list()[0]["price"] == 10.0
        db.con.execute("ALTER TABLE points ADD COLUMN note VARCHAR; UPDATE points SET note = 'sold' WHERE price = 20")
        for _ in ("made", "found again"):
            assert [row["price"] for row in points.search("sold").to_list()] == [20.0]
        points.add([{"item": "a boat", "note": "sunk", "price": 1.0}])
        assert [row["item"] for row in points.search("sunk").to_list()] == ["a boat"]
        assert len(embedding_tables(db)) == 2

    def test_bad_vectors_in_a_first_batch(self, db):
        rows = [{"vector": [1, 2]}, {"vector": [1, 2, 3]}, {"vector": [3, 4]}, {"vector": None}]
        with pytest.raises(InputError, match="row 1 of the data has a vector of 3 numbers in 'vector', where 2 belong"):
            db.create_table("t", rows)
        assert db.create_table("t", rows, on_bad_vectors="drop").count_rows() == 3

    def test_several_columns_of_vectors(self, db):
        table = db.create_table(
            "t", [{"a_vector": [1, 0], "b_vector": [1, 0, 0]}, {"a_vector": [0, 1], "b_vector": None}]
        )
        assert table.search([1, 0], "a_vector").limit(1).to_list()[0]["b_vector"] == [1, 0, 0]
        assert len(table.search([1, 0, 0], "b_vector").to_list()) == 1
        with pytest.raises(InputError, match="several columns of vectors: a_vector, b_vector"):
            table.search([1, 0]).to_list()

    def test_no_text_and_no_vector(self, db):
        table = db.create_table("t", [{"n": 1}])
        with pytest.raises(InputError, match="'t' has no column of text"):
            table.search("x").to_list()
        with pytest.raises(InputError, match="no column of vectors"):
            table.search([1.0]).to_list()
        assert table.search().to_list() == [{"n": 1}]


class TestQueries(WithTables):
    @pytest.fixture
    def filled(self, table):
        table.add([{"text": f"word{number} same", "number": number} for number in range(20)])
        return table

    def test_limit(self, filled):
        assert len(filled.search("same").to_list()) == 10
        assert len(filled.search("same").limit(3).to_list()) == 3
        assert len(filled.search("same").limit(np.int64(30)).to_list()) == 20
        assert len(filled.search().to_list()) == 20
        assert len(filled.search().limit(4).to_list()) == 4
        for limit in (0, -1, 1.5, True, "3"):
            with pytest.raises(InputError, match="limit is .*; it must be a whole number from 1 on"):
                filled.search("same").limit(limit)

    def test_where(self, filled):
        assert [row["number"] for row in filled.search("word3").where("number > 3").limit(3).to_list()] != [3]
        assert len(filled.search("same").where("number < 5").to_list()) == 5
        assert [row["number"] for row in filled.search().where("number % 10 = 3").to_list()] == [3, 13]
        assert filled.count_rows("text LIKE 'word1%'") == 11
        assert len(filled.search("same", query_type="fts").where("number IN (1, 2)").to_list()) == 2

    @pytest.mark.parametrize(
        "where", ["1=1); DROP TABLE words; --", "random() > 0", "nosuch = 1", "", "number >", "a = $a"]
    )
    def test_conditions_that_are_none(self, filled, where):
        for query in (filled.search("same"), filled.search(), filled.search("same", query_type="fts")):
            with pytest.raises(InputError):
                query.where(where).to_list()
        with pytest.raises(InputError):
            filled.count_rows(where)
        with pytest.raises(InputError, match="where is of type int"):
            filled.search("same").where(3)
        assert filled.count_rows() == 20

    def test_select(self, filled):
        (row,) = filled.search("word3").select(["number"]).limit(1).to_list()
        assert row == {"number": 3, "_distance": pytest.approx(row["_distance"])}
        (row,) = filled.search("word3").select({"loud": "upper(text)", "n": "number + 1"}).limit(1).to_list()
        assert (row["loud"], row["n"]) == ("WORD3 SAME", 4)
        assert filled.search().select(["vector"]).limit(1).to_list()[0]["vector"] == embedded_as("word0 same")
        for select in (
            ["nosuch"],
            {"x": "nosuch"},
            {"x": "1; DROP TABLE words"},
            {"x": "1) FROM words; --"},
            "text",
            3,
        ):
            with pytest.raises(InputError):
                filled.search("word3").select(select).to_list()
        assert filled.count_rows() == 20

    def test_expressions_that_change_the_number_or_the_order_of_rows(self, filled):
        plain = filled.search("word3").with_row_id().limit(3).to_list()
        ranks = [(row["number"], row["_distance"], row["_rowid"]) for row in plain]
        for select, repeated in (
            ({"n": "number", "each": "unnest([1, 2])"}, 2),
            ({"n": "number", "last": "row_number() OVER (ORDER BY number DESC)"}, 1),
            ({"n": "number", "none": "unnest([]::INT[])"}, 0),
        ):
            found = filled.search("word3").select(select).with_row_id().limit(3).to_list()
            expected = [rank for rank in ranks for _ in range(repeated)]
            assert [(row["n"], row["_distance"], row["_rowid"]) for row in found] == expected
        for select in ({"n": "count(*)"}, {"n": "number", "most": "max(number)"}):
            with pytest.raises(InputError, match=r"one value for all rows.*count_rows\(\)"):
                filled.search("word3").select(select).to_list()
            with pytest.raises(InputError, match="one value for all rows"):
                filled.search().select(select).to_list()

    def test_what_ranks(self, filled):
        for kind, name in (
            ("auto", "_distance"),
            ("vector", "_distance"),
            ("fts", "_score"),
            ("hybrid", "_relevance_score"),
        ):
            found = filled.search("word3", query_type=kind).limit(3).to_list()
            assert found[0]["number"] == 3
            assert list(found[0]) == ["text", "vector", "number", name]
            ranked = [row[name] for row in found]
            assert ranked == sorted(ranked, reverse=name != "_distance")
            assert found[0]["vector"] == embedded_as("word3 same")

    def test_the_key_is_given_when_it_is_asked_for(self, db, filled):
        (row,) = filled.search("word3").with_row_id().select(["number"]).limit(1).to_list()
        assert db.con.execute("SELECT number FROM words WHERE _rowid = ?", [row["_rowid"]]).fetchall() == [(3,)]
        assert "_rowid" not in filled.search().to_list()[0]
        assert len({row["_rowid"] for row in filled.search().with_row_id().to_list()}) == 20

    def test_forms_of_the_result(self, filled, words):
        query = filled.search("word3").limit(2)
        assert query.to_arrow().column_names == ["text", "vector", "number", "_distance"]
        assert query.to_pandas()["number"][0] == 3
        assert query.to_polars()["number"][0] == 3
        assert query.to_pydantic(words)[0].number == 3
        assert len(filled.to_pandas()) == len(filled.to_polars()) == len(filled) == 20
        assert filled.schema.names == ["text", "vector", "number"]

    @pytest.mark.parametrize("query", [3, {"a": 1}, ["a"], [float("nan")] * 16, [1.0], "", "  ", b"bytes"])
    def test_queries_that_are_none(self, filled, query):
        with pytest.raises(InputError):
            filled.search(query).to_list()

    def test_types_that_do_not_fit_the_query(self, filled):
        with pytest.raises(InputError, match="query_type is 'text'.*auto, vector, fts, hybrid"):
            filled.search("same", query_type="text")
        for kind in ("fts", "hybrid"):
            with pytest.raises(InputError, match="a vector needs query_type='vector'"):
                filled.search([0.1] * 16, query_type=kind).to_list()
        with pytest.raises(InputError, match="there is no query"):
            filled.search(query_type="vector").to_list()


class TestBesideSql(WithTables):
    def test_rows_that_sql_adds_and_deletes(self, db, table, told):
        table.add([{"text": "first"}, {"text": "second"}])
        told.clear()
        db.con.execute("INSERT INTO words (text) VALUES ('third')")
        assert texts(table.search("third").limit(1)) == ["third"]
        db.con.execute("DELETE FROM words WHERE text = 'first'")
        assert sorted(texts(table.search("first"))) == ["second", "third"]
        assert (told, states(db)) == (["third", "third", "first"], [(0, 0, 0)])

    def test_as_many_rows_as_before_are_not_the_same_rows(self, db, table, told):
        table.add([{"text": "first"}, {"text": "second"}])
        db.con.execute("DELETE FROM words WHERE text = 'first'; INSERT INTO words (text) VALUES ('third')")
        assert texts(table.search("third").limit(1)) == ["third"]
        assert states(db) == [(0, 0, 0)]

    def test_vectors_that_cannot_be_made_are_warned_of(self, db, table):
        table.add([{"text": "first"}, {"text": "second"}])
        get_registry()._own.pop("tests-told")
        db.con.execute("INSERT INTO words (text) VALUES ('third')")
        with pytest.warns(JammiWarning) as warned:
            assert len(table.search([0.1] * 16).to_list()) == 2
        assert re.search("cannot be brought up to date with its rows.*@register", str(warned[0].message))

    def test_texts_that_sql_changes(self, db, table, told):
        table.add([{"text": "first"}, {"text": "second"}])
        db.con.execute("UPDATE words SET text = 'third' WHERE text = 'first'")
        told.clear()
        table.refresh()
        assert told == ["third"]
        assert texts(table.search("third").limit(1)) == ["third"]

    def test_given_vectors_that_sql_changes(self, db, table, told):
        one, other, third = (np.eye(16)[place] for place in range(3))
        table.add([{"text": "first", "vector": one, "number": 1}, {"text": "second", "vector": one, "number": 2}])
        table.add([{"text": None, "vector": one, "number": 3}, {"text": "fourth", "number": 4}])
        db.con.execute("UPDATE words SET text = 'changed', vector = $v WHERE number = 1", {"v": other.tolist()})
        db.con.execute("UPDATE words SET vector = $v WHERE number IN (3, 4)", {"v": third.tolist()})
        db.con.execute("UPDATE words SET text = 'only the text' WHERE number = 2")
        for _ in ("at once", "and once more"):
            table.refresh()
            for vector, numbers in ((one, [2]), (other, [1]), (third, [3, 4])):
                found = table.search(vector).where("number > 0").to_list()
                near = [row["number"] for row in found if row["_distance"] < 1e-6]
                assert sorted(near) == numbers
        assert embedding_tables(db)[0][1:] == ("ready", 4)
        assert texts(table.search("changed", query_type="fts")) == ["changed"]
        assert table.add([{"text": "more"}]) == 1
        assert texts(table.search("more").limit(1)) == ["more"]
        told.clear()
        table.refresh()
        assert told == []

    def test_a_given_vector_that_sql_makes_one_of_zeros(self, db, table):
        table.add([{"text": "first", "vector": np.eye(16)[0]}, {"text": "second"}])
        db.con.execute("UPDATE words SET vector = $v WHERE text = 'first'", {"v": [0.0] * 16})
        table.refresh()
        assert texts(table.search(np.eye(16)[0])) == ["second"]

    def test_a_followed_table_takes_given_vectors_with_a_refresh(self, db, table):
        table.add([{"text": "first"}])
        db.jammi.follow("words", triggers=False)
        db.con.execute("INSERT INTO words (text, vector) VALUES ('given', $v)", {"v": np.eye(16)[5].tolist()})
        table.search("first").to_list()
        table.refresh()
        found = table.search(np.eye(16)[5]).limit(1).to_list()[0]
        assert (found["text"], found["_distance"]) == ("given", pytest.approx(0, abs=1e-6))

    def test_a_followed_table(self, db, table):
        table.add([{"text": "first"}])
        db.jammi.follow("words", triggers=False)
        db.con.execute("UPDATE words SET text = 'third'")
        assert texts(table.search("third")) == ["third"]
        table.add([{"text": "fourth"}, {"text": "fifth", "vector": np.eye(16)[0]}])
        assert texts(table.search("fourth").limit(1)) == ["fourth"]
        assert texts(table.search(np.eye(16)[0]).limit(1)) == ["fifth"]

    def test_a_table_that_sql_has_embedded(self, db, func, told):
        db.con.execute("CREATE TABLE notes AS FROM (VALUES (1, 'a cat'), (2, 'a dog')) t(id, body)")
        db.con.execute(f"FROM jammi_generate('notes', 'body', 'id', model := '{func.spec}')").fetchall()
        table = db.open_table("notes")
        told.clear()
        assert table.search("cat").limit(1).to_list() == [
            {"id": 1, "body": "a cat", "_distance": pytest.approx(0.3, abs=0.3)}
        ]
        assert table.search("dog", query_type="fts").select(["id"]).to_list()[0]["id"] == 2
        told.clear()
        assert table.add([{"id": 3, "body": "a fish"}]) == 1
        assert told == ["a fish"]
        assert table.search("fish", "body").limit(1).select(["id"]).to_list()[0]["id"] == 3

    def test_such_a_table_takes_all_rows_or_none(self, db, func):
        db.con.execute("CREATE TABLE notes AS FROM (VALUES (1, 'a cat'), (2, 'a dog')) t(id, body)")
        db.jammi.generate("notes", "body", "id", func.spec)
        table = db.open_table("notes")
        with pytest.raises(InputError, match="the key 'id' of 'notes' is not unique"):
            table.add([{"id": 3, "body": "a fish"}, {"id": 2, "body": "twice"}])
        with pytest.raises(EncodingError, match="1 of the texts could not be embedded"):
            table.add([{"id": 3, "body": "none"}])
        assert table.count_rows() == 2
        assert table.add([{"id": 3, "body": "none"}], on_bad_vectors="null") == 1
        assert table.search("cat").limit(1).select(["id"]).to_list()[0]["id"] == 1

    def test_a_table_without_embeddings_says_what_makes_some(self, db):
        db.con.execute("CREATE TABLE notes AS SELECT 1 AS id, 'a cat' AS body")
        with pytest.raises(InputError, match=r"SELECT \* FROM jammi_generate\('notes', columns, key\) makes some"):
            db.open_table("notes").search("cat").to_list()

    def test_a_view_is_searched_and_takes_no_rows(self, db, table, func):
        table.add([{"text": "first"}])
        db.con.execute("CREATE VIEW looking AS SELECT _rowid, upper(text) AS loud FROM words")
        db.jammi.generate("looking", "loud", "_rowid", func.spec)
        view = db.open_table("looking")
        assert view.search("first").to_list()[0]["loud"] == "FIRST"
        with pytest.raises(InputError, match="'looking' is a view; add rows to the table that it reads"):
            view.add([{"loud": "X"}])
        with pytest.raises(InputError, match="'looking' is a view; DROP VIEW"):
            db.drop_table("looking")
        assert db.table_names() == ["words"]

    def test_other_embeddings_of_the_table_are_kept_up_with(self, db, table, told):
        table.add([{"text": "first"}])
        db.jammi.generate("words", {"small": "text"}, "_rowid", "tests-told:?dimensions=4")
        told.clear()
        table.add([{"text": "second"}])
        assert told == ["second", "second"]
        assert db.jammi.search("words", "second", 1, column="small").project("text").fetchall() == [("second",)]
        assert texts(table.search("second", "small").limit(1)) == ["second"]

    def test_an_addition_embeds_its_own_rows_only(self, db, table, told):
        for batch in range(30):
            told.clear()
            table.add([{"text": f"batch {batch} row {row}"} for row in range(3)])
            assert told == [f"batch {batch} row {row}" for row in range(3)]
        assert embedding_tables(db)[0][1:] == ("ready", 90)
        (segments,) = db.jammi.status("words").project("segments").fetchall()[0]
        assert segments < 12
        assert texts(table.search("batch 7 row 1").limit(1)) == ["batch 7 row 1"]

    def test_rows_are_there_even_if_small_segments_cannot_be_merged(self, table, before):
        def fail():
            raise StorageError("the disk is full")

        before(Addition, "tidy", fail)
        assert table.add([{"text": "first"}]) == 1
        assert texts(table.search("first")) == ["first"]

    def test_a_commit_that_fails_leaves_nothing(self, db, table, before):
        db.con.execute("CREATE UNIQUE INDEX numbers ON words (number)")
        table.add([{"text": "first", "number": 1}])
        other = db.con.cursor()
        other.begin()
        other.execute("INSERT INTO words (text, number) VALUES ('of another', 2)")
        before(Addition, "commit", other.commit)
        with pytest.raises(jammi_duck.JammiError, match="[Dd]uplicate key"):
            table.add([{"text": "second", "number": 2, "vector": np.eye(16)[0]}])
        assert sorted(texts(table.search("first"))) == ["first", "of another"]
        assert states(db) == [(0, 0, 0)]

    def test_a_creation_whose_commit_fails_leaves_nothing(self, db, words, before):
        def fail():
            raise StorageError("the disk is full")

        db.create_table("words", data=[{"text": "first"}], schema=words)
        known = embedding_tables(db)
        before(Addition, "commit", fail, after=True)
        with pytest.raises(StorageError, match="the disk is full"):
            db.create_table("words", data=[{"text": "second"}], schema=words, mode="overwrite")
        assert texts(db.open_table("words").search("first")) == ["first"]
        assert embedding_tables(db) == known

    def test_a_connection_of_ones_own(self, tmp_path, words):
        con = jammi_duck.connect(tmp_path / "my.duckdb", storage=tmp_path / "vectors")
        with connect(con) as db:
            db.create_table("words", data=[{"text": "hello"}], schema=words)
        assert con.execute("SELECT text FROM jammi_search('words', 'hello')").fetchall() == [("hello",)]
        con.close()
