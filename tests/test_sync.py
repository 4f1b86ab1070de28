"""jammi_sync, tables with names, and relations that run a generate again."""

import warnings

import duckdb
import pytest

from jammi_duck import InputError, JammiWarning, NotFoundError
from tests.fakes import FakeEncoder
from tests.followed import holds
from tests.test_generate import error_of

COLUMNS = (
    "embedding_table, action, row_count, added, changed, deleted, unchanged, skipped_count, failed_count, seconds, "
    "advice, requests, tokens"
)


def sync(con, columns="['text']", **options):
    told = "action, row_count, added, changed, deleted, unchanged"
    given = "".join(f", {name} := '{value}'" for name, value in options.items())
    return con.execute(f"SELECT {told} FROM jammi_sync('t', {columns}, 'id'{given})").fetchall()


@pytest.fixture
def rows(con):
    con.execute(
        "CREATE TABLE t AS SELECT range AS id, 'word' || range AS text, 'title' || range AS title FROM range(4)"
    )
    return con


def tables(con):
    return [name for (name,) in con.execute("SELECT embedding_table FROM jammi_tables() ORDER BY started").fetchall()]


class TestSync:
    def test_it_generates_once_and_refreshes_afterwards(self, rows, encoded):
        assert sync(rows) == [("generated", 4, 4, 0, 0, 0)]
        assert sync(rows) == [("unchanged", 4, 0, 0, 0, 4)]
        rows.execute("DELETE FROM t WHERE id = 0; UPDATE t SET text = 'other' WHERE id = 1")
        rows.execute("INSERT INTO t VALUES (9, 'nine', ''), (10, NULL, '')")
        encoded()
        assert sync(rows) == [("refreshed", 4, 1, 1, 1, 2)]
        assert encoded() == ["nine", "other"]
        assert len(tables(rows)) == 1
        holds(rows, {1: "other", 2: "word2", 3: "word3", 9: "nine"})
        assert rows.execute("SELECT skipped_count FROM jammi_sync('t', 'text', 'id')").fetchall() == [(1,)]

    def test_its_columns(self, rows):
        done = rows.execute("SELECT * FROM jammi_sync('t', 'text', 'id')")
        assert ", ".join(column[0] for column in done.description) == COLUMNS

    def test_another_definition_is_another_table(self, rows):
        sync(rows)
        assert sync(rows, "['title', 'text']") == [("generated", 4, 4, 0, 0, 0)]
        assert sync(rows, "['title', 'text']") == [("unchanged", 4, 0, 0, 0, 4)]
        assert sync(rows, dims=8) == [("generated", 4, 4, 0, 0, 0)]
        assert sync(rows) == [("unchanged", 4, 0, 0, 0, 4)]
        assert len(tables(rows)) == 3

    def test_the_case_of_letters_makes_no_other_table(self, rows):
        sync(rows, "['Title', 'text']")
        assert sync(rows, "['title', 'TEXT']") == [("unchanged", 4, 0, 0, 0, 4)]
        done = "SELECT action FROM jammi_sync('t', ['title', 'text'], 'ID')"
        assert rows.execute(done).fetchall() == [("unchanged",)]
        again = "SELECT embedding_table FROM jammi_generate('t', ['TITLE', 'text'], 'Id', reuse := true)"
        assert [name for (name,) in rows.execute(again).fetchall()] == tables(rows)
        rows.execute("UPDATE t SET title = 'new' WHERE id = 0")
        assert sync(rows, "['TITLE', 'Text']") == [("refreshed", 4, 0, 1, 0, 3)]
        assert len(tables(rows)) == 1

    def test_another_model_is_another_table(self, jammi, rows):
        sync(rows)
        jammi.encoders.loaded["fake/new"] = FakeEncoder("fake/new", weights="1" * 64)
        # A model is known by its weights, whatever its name.
        jammi.encoders.loaded["fake/again"] = FakeEncoder("fake/again")
        assert sync(rows, model="fake/new") == [("generated", 4, 4, 0, 0, 0)]
        assert sync(rows, model="fake/again") == [("unchanged", 4, 0, 0, 0, 4)]
        assert len(tables(rows)) == 2

    def test_an_interrupted_build_goes_on(self, fake):
        jammi = fake(segment_rows=1000)
        con = jammi.con
        con.execute("CREATE TABLE flag AS SELECT true AS broken")
        con.execute(
            "CREATE VIEW t AS SELECT range AS id, CASE WHEN range = 8500 AND (SELECT broken FROM flag) "
            "THEN error('broken') ELSE 'word' || range END AS text FROM range(9000)"
        )
        with pytest.raises(duckdb.Error, match="broken"):
            sync(con)
        con.execute("UPDATE flag SET broken = false")
        ((action, row_count, added, *_),) = sync(con)
        assert (action, row_count, added) == ("resumed", 9000, 9000)
        assert len(tables(con)) == 1

    def test_a_table_of_another_process_is_refreshed(self, rows, fake):
        """Its catalog is another one, and the location the same."""
        sync(rows)
        other = fake().con
        other.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(5)")
        assert sync(other) == [("refreshed", 5, 1, 0, 0, 4)]

    def test_mistakes(self, rows):
        assert "jammi_sync needs a source, its columns and its key" in error_of(
            rows, "FROM jammi_sync('t', NULL, 'id')"
        )
        assert "did you mean 'text'?" in error_of(rows, "FROM jammi_sync('t', 'txt', 'id')")
        rows.execute("INSERT INTO t VALUES (0, 'again', '')")
        assert "is not unique" in error_of(rows, "FROM jammi_sync('t', 'text', 'id')")
        assert tables(rows) == []

    def test_a_renamed_column_says_so(self, rows):
        sync(rows)
        rows.execute("ALTER TABLE t RENAME text TO body")
        assert "no column 'text'" in error_of(rows, "FROM jammi_sync('t', 'text', 'id')")

    def test_the_method(self, rows, jammi):
        done = jammi.sync("t", "text", "id")
        assert (done.action, done.row_count, done.added) == ("generated", 4, 4)
        assert jammi.sync("t", ["text"], "id").action == "unchanged"
        with pytest.raises(InputError, match="did you mean 'text'"):
            jammi.sync("t", "txt", "id")

    def test_in_a_transaction(self, rows):
        rows.execute("BEGIN")
        rows.execute("INSERT INTO t VALUES (4, 'word4', '')")
        assert sync(rows) == [("generated", 5, 5, 0, 0, 0)]
        rows.execute("ROLLBACK")
        assert sync(rows) == [("refreshed", 4, 0, 0, 1, 4)]


class TestNames:
    def test_a_table_is_found_by_the_name_that_it_was_given(self, rows):
        rows.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        rows.execute("FROM jammi_generate('t', 'title', 'id', name := 'titles')").fetchall()
        assert [name.partition("__")[0] for name in tables(rows)] == ["t", "titles"]
        for table, best in (("titles", "title2"), ("t", "word2")):
            found = f"SELECT id, _similarity FROM jammi_search('t', '{best}', 1, embedding_table := '{table}')"
            ((row, similarity),) = rows.execute(found).fetchall()
            assert (row, round(similarity, 3)) == (2, 1)
        rows.execute("UPDATE t SET title = 'new' WHERE id = 0")
        for verb, changed in (("status", 1), ("refresh", 1), ("refresh", 0)):
            assert rows.execute(f"SELECT changed FROM jammi_{verb}('t', embedding_table := 'titles')").fetchall() == [
                (changed,)
            ]
        rows.execute("FROM jammi_check('t', embedding_table := 'titles')").fetchall()
        rows.execute("FROM jammi_compact('t', embedding_table := 'titles')").fetchall()

    def test_the_newest_of_a_name_is_meant(self, rows):
        names = []
        for text in ("one", "two"):
            rows.execute("UPDATE t SET text = ?", [text])
            made = "SELECT embedding_table FROM jammi_generate('t', 'text', 'id', name := 'mine')"
            names += rows.execute(made).fetchall()
        assert rows.execute("SELECT embedding_table FROM jammi_status('t', embedding_table := 'mine')").fetchall() == [
            names[-1]
        ]

    def test_a_name_is_of_a_source(self, rows):
        rows.execute("CREATE TABLE other AS FROM t")
        rows.execute("FROM jammi_generate('t', 'text', 'id', name := 'mine')").fetchall()
        rows.execute("FROM jammi_generate('other', 'text', 'id', name := 'mine')").fetchall()
        found = rows.execute("SELECT embedding_table, current FROM jammi_status('t', embedding_table := 'mine')")
        assert found.fetchall() == [(tables(rows)[0], 4)]
        error = error_of(rows, "FROM jammi_search('other', 'x', 1, embedding_table := 't')")
        assert "'t' is a source, and no embedding table; its embedding tables: mine__" in error
        error = error_of(rows, "FROM jammi_drop('mine')")
        assert "'mine' is not the whole name of an embedding table: mine__" in error

    def test_sync_keeps_to_a_name(self, rows):
        assert sync(rows, name="a")[0][0] == "generated"
        assert sync(rows, name="b")[0][0] == "generated"
        assert sync(rows, name="a")[0][0] == "unchanged"
        assert len(tables(rows)) == 2

    @pytest.mark.parametrize(
        "name", ["", "a b", "../x", ".x", "a/b", "x__embedding__y", "a" * 65, "é", "a\nb", "C:", "a''b"]
    )
    def test_other_names_are_refused(self, rows, name):
        for verb in ("generate", "sync"):
            error = error_of(rows, f"FROM jammi_{verb}('t', 'text', 'id', name := '{name}')")
            assert "cannot be the name of an embedding table: give 1 to 64 letters" in error
        assert tables(rows) == []

    def test_the_method(self, rows, jammi):
        made = jammi.generate("t", "text", "id", name="mine")
        assert made.embedding_table.startswith("mine__embedding__")
        assert jammi.status("t", embedding_table="mine").project("current").fetchall() == [(4,)]
        with pytest.raises(NotFoundError, match="no embedding table 'yours'"):
            jammi.search("t", "x", 1, embedding_table="yours")


class TestDifferentColumns:
    def test_a_search_that_names_none_warns_once(self, rows):
        rows.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows.execute("FROM jammi_search('t', 'x', 1)").fetchall()
        rows.execute("FROM jammi_generate('t', 'title', 'id', name := 'titles')").fetchall()
        told = "'t' has embedding tables of different columns: 'titles__.*' of title is used.* Left are 't__.*' of text"
        with pytest.warns(JammiWarning, match=told):
            rows.execute("FROM jammi_search('t', 'x', 1)").fetchall()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                rows.execute("FROM jammi_search('t', 'x', 1)").fetchall()
            rows.execute("FROM jammi_search('t', 'x', 1, embedding_table := 't')").fetchall()

    def test_the_case_of_letters_is_no_difference(self, rows):
        for column in ("Text", "text"):
            rows.execute("FROM jammi_generate('t', ?, 'id')", [column]).fetchall()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows.execute("FROM jammi_search('t', 'x', 1)").fetchall()

    def test_a_refresh_says_which_it_leaves(self, rows):
        sync(rows)
        sync(rows, "['title']", name="titles")
        with pytest.warns(JammiWarning, match="'titles__.*' of title is used.* Left are 't__.*' of text"):
            rows.execute("FROM jammi_refresh('t')").fetchall()

    def test_tables_of_the_same_columns_say_nothing(self, rows):
        sync(rows)
        rows.execute("DELETE FROM t WHERE id = 3")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
            rows.execute("FROM jammi_search('t', 'x', 1)").fetchall()
        assert len(tables(rows)) == 2


class TestLazyRelations:
    def test_looks_at_a_relation_make_one_table(self, rows):
        made = rows.sql("SELECT * FROM jammi_generate('t', 'text', 'id')")
        repr(made)
        # DuckDB 1 keeps the rows of some looks.
        with pytest.warns(JammiWarning, match="already made 't__.*' from the same rows.* con.sql runs"):
            for look in (made.fetchall, lambda: len(made), lambda: repr(made), made.df):
                look()
        assert len(tables(rows)) == 1

    @pytest.mark.skipif(duckdb.__version__ < "2", reason="this DuckDB does not tell a look from a query")
    def test_execute_makes_another_each_time(self, rows, jammi):
        for _ in range(2):
            rows.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
        jammi.generate("t", "text", "id")
        assert len(tables(rows)) == 3

    def test_a_source_that_has_changed_makes_another(self, rows):
        made = rows.sql("SELECT embedding_table, row_count FROM jammi_generate('t', 'text', 'id')")
        ((first, _),) = made.fetchall()
        rows.execute("DELETE FROM t WHERE id = 0")
        ((second, count),) = made.fetchall()
        assert (first != second, count) == (True, 3)

    def test_another_connection_makes_another(self, rows, fake):
        query = "FROM jammi_generate('t', 'text', 'id')"
        rows.execute(query).fetchall()
        other = fake(rows.cursor()).con
        other.execute(query).fetchall()
        assert len(tables(rows)) == 2

    def test_what_was_dropped_is_made_again(self, rows):
        query = "FROM jammi_generate('t', 'text', 'id')"
        rows.execute(query).fetchall()
        rows.execute("FROM jammi_drop(?)", tables(rows)).fetchall()
        rows.execute(query).fetchall()
        assert len(tables(rows)) == 1

    def test_another_model_columns_or_name_make_another(self, rows):
        for options in ("'text', 'id'", "'title', 'id'", "'text', 'id', dims := 8", "'text', 'id', name := 'n'"):
            rows.execute(f"FROM jammi_generate('t', {options})").fetchall()
        assert len(tables(rows)) == 4
