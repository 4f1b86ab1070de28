"""What tables in Python keep when SQL renames, drops or replaces something beside them."""

import re

import pytest

import jammi_duck
from jammi_duck import InputError, NotFoundError
from jammi_duck.embeddings import connect
from tests.python_tables import WithTables, embedded_as, embedding_tables, texts


class TestWhatBelongsToOthers(WithTables):
    @pytest.fixture
    def both(self, tmp_path, words):
        """Two databases with one storage, and a table of one name in each."""
        first = connect(jammi_duck.connect(tmp_path / "a.db", storage=tmp_path / "vectors"))
        first.create_table("words", [{"text": "of the first"}], schema=words)
        # It finds what is there, and enters it in its own catalog.
        second = connect(jammi_duck.connect(tmp_path / "b.db", storage=tmp_path / "vectors"))
        assert len(embedding_tables(second)) == 1
        second.create_table("words", [{"text": "of the second"}], schema=words)
        yield first, second
        first.con.close()
        second.con.close()

    def test_tables_of_one_name_in_two_databases_keep_their_own_vectors(self, both, told):
        told.clear()
        for db, text in zip(both, ("of the first", "of the second"), strict=True):
            table = db.open_table("words")
            assert texts(table.search(text)) == [text]
            table.add([{"text": "more"}])
            assert sorted(texts(table.search("more"))) == ["more", text]
        assert sorted(told) == ["more", "more", "more", "more", "of the first", "of the second"]

    @pytest.mark.parametrize("how", ["overwrite", "drop"])
    def test_neither_replacing_nor_dropping_one_takes_those_of_the_other(self, both, words, how):
        first, second = both
        if how == "drop":
            second.drop_table("words")
        else:
            second.create_table("words", [{"text": "again"}], schema=words, mode="overwrite")
        assert texts(first.open_table("words").search("of the first")) == ["of the first"]
        assert len(embedding_tables(second)) == (1 if how == "drop" else 2)

    def test_a_free_name_takes_nothing_of_a_table_that_was_called_so(self, db, table, words, told):
        table.add([{"text": "the old"}])
        db.con.execute("ALTER TABLE words RENAME TO old_words")
        db.create_table("words", [{"text": "the new"}], schema=words)
        assert len(embedding_tables(db)) == 2
        db.create_table("words", [{"text": "the newest"}], schema=words, mode="overwrite")
        assert len(embedding_tables(db)) == 2
        db.con.execute("DROP TABLE words; ALTER TABLE old_words RENAME TO words")
        told.clear()
        assert texts(db.open_table("words").search([0.5] * 16)) == ["the old"]
        assert told == []

    def test_what_sql_has_embedded_goes_with_its_rows(self, db, table, func):
        table.add([{"text": "there"}])
        db.jammi.generate("words", {"other": "text"}, "_rowid", func.spec)
        db.drop_table("words")
        assert embedding_tables(db) == []


class TestRecords(WithTables):
    @pytest.fixture
    def filled(self, table):
        table.add([{"text": "first"}, {"text": "second"}])
        return table

    def refused(self, table, told_of):
        count = table.count_rows()
        for ask in (
            lambda: table.add([{"number": 3}]),
            lambda: table.search("first").to_list(),
            lambda: table.search("first", query_type="fts").to_list(),
            lambda: table.search([0.1] * 16).to_list(),
            table.refresh,
        ):
            with pytest.raises(NotFoundError, match=told_of) as error:
                ask()
        assert table.count_rows() == count
        assert len(table.search().select(["number"]).to_list()) == count
        return re.search(r"FROM jammi_generate\(.*?\) (?=makes)", str(error.value))[0]

    def test_a_text_that_was_renamed_is_named(self, db, filled):
        db.con.execute("ALTER TABLE words RENAME text TO body")
        again = self.refused(filled, "there is no column 'text': it was renamed or dropped. Rename it back")
        db.con.execute(again.replace("COLUMN", "body")).fetchall()
        filled.add([{"body": "third"}])
        assert filled.search("third").limit(1).to_list()[0]["body"] == "third"

    def test_a_table_that_was_renamed_is_named(self, db, filled):
        db.con.execute("ALTER TABLE words RENAME TO others")
        table = db.open_table("others")
        self.refused(table, r"is of 'words': the table was renamed. FROM jammi_refresh\(")
        ((name, *_),) = embedding_tables(db)
        db.con.execute(f"FROM jammi_refresh('others', embedding_table := '{name}')").fetchall()
        assert texts(table.search("second").limit(1)) == ["second"]

    def test_vectors_that_were_dropped_are_made_anew_by_the_statement_of_the_error(self, db, filled):
        db.jammi.drop(embedding_tables(db)[0][0])
        again = self.refused(filled, "which is not there: it was dropped")
        db.con.execute(again).fetchall()
        assert filled.add([{"text": "third"}]) == 1
        assert texts(filled.search("third").limit(1)) == ["third"]

    def test_a_vector_that_was_renamed_is_still_made(self, db, filled, told):
        db.con.execute("ALTER TABLE words RENAME vector TO other")
        told.clear()
        assert filled.add([{"text": "third"}]) == 1
        assert told == ["third"]
        assert filled.search("third", "other").limit(1).to_list()[0]["other"] is not None


class TestEmbeddingsOfSqlWithTheLabelOfAVector(WithTables):
    def test_another_width_or_source_is_not_taken_for_the_functions(self, db, table, words):
        table.add([{"text": "first"}, {"text": "second"}])
        db.jammi.generate("words", {"vector": "text"}, "_rowid", "tests-told:?dimensions=4")
        assert texts(table.search("second").limit(1)) == ["second"]
        assert len(table.search("second").limit(1).to_list()[0]["vector"]) == 16
        assert table.add([{"text": "third"}]) == 1
        assert texts(table.search("third").limit(1)) == ["third"]

    def test_another_column_is_not_embedded_for_the_functions(self, db, table, told, func):
        table.add([{"text": "first"}])
        db.con.execute("ALTER TABLE words ADD COLUMN note VARCHAR; UPDATE words SET note = 'a note'")
        db.jammi.generate("words", {"vector": "note"}, "_rowid", func.spec)
        told.clear()
        table.add([{"text": "second", "note": "unlike"}])
        assert told == ["second"]
        assert table.search("second").limit(1).to_list()[0]["vector"] == embedded_as("second")
        db.jammi.drop(next(name for name, _, _ in embedding_tables(db) if self.source(db, name) == ["text"]))
        with pytest.raises(NotFoundError, match="'vector' of 'words' is made by .* from 'text', .* it was dropped"):
            table.add([{"text": "third"}])

    def source(self, db, name):
        found = db.jammi.tables().filter(f"embedding_table = '{name}'").project("columns").fetchall()
        return found[0][0]

    def test_another_width_is_refused_where_no_function_makes_the_column(self, db, func):
        table = db.create_table("t", [{"vector": [1.0, 0.0], "text": "first"}])
        made = db.jammi.generate("t", {"vector": "text"}, "_rowid", func.spec)
        for ask in (lambda: table.search("first").to_list(), lambda: table.add([{"text": "second"}])):
            with pytest.raises(InputError, match="label of the column 'vector'.* 2 numbers, .*vectors of 16; drop it"):
                ask()
        db.jammi.drop(made["vector"].embedding_table)
        assert table.add([{"text": "second"}]) == 1
