"""`jammi_passages`: how the rows of an embedding table were cut, with the texts of passages that still hold."""

import duckdb
import pandas as pd
import pytest

from jammi_duck import InputError
from tests.test_generate import error_of

COLUMNS = [
    ("_row_id", "VARCHAR"), ("_passage", "INTEGER"), ("_start", "BIGINT"), ("_end", "BIGINT"),
    ("_passage_text", "VARCHAR"),
]  # fmt: skip
# A family of one character, a flag of two code points, letters with marks, and right to left.
STRANGE = (
    "👨‍👩‍👧‍👦 one 🇫🇷 two e\u0301 three ñ four\r\n\u05e9\u05dc\u05d5\u05dd five 漢字 six \U0001d518 seven end of it."
)
LONG = {
    1: ("the red book", "One two three four. Five six seven eight. Nine ten eleven twelve. Thirteen and more."),
    2: (None, STRANGE),
    3: ("a title alone", " \n"),
    4: ("the blue book", "short"),
}


@pytest.fixture
def books(con):
    """A connection with a table of long texts."""
    con.execute("CREATE TABLE books (id INTEGER, title VARCHAR, body VARCHAR)")
    con.executemany("INSERT INTO books VALUES (?, ?, ?)", [(key, *texts) for key, texts in LONG.items()])
    return con


def generate(con, columns="body", *, source="books", passages="true", **options):
    more = "".join(f", {name} := {value}" for name, value in options.items())
    ((name,),) = con.execute(
        f"SELECT embedding_table FROM jammi_generate('{source}', {columns!r}, 'id', passages := {passages}{more})"
    ).fetchall()
    return name


def passages(con, source="books", options=""):
    return con.execute(f"FROM jammi_passages('{source}'{options})").fetchall()


def slices(rows, texts):
    """The rows, checked: each passage is a slice of its row's text, and they are numbered."""
    numbers = {}
    for row_id, passage, start, end, text in rows:
        assert passage == numbers.setdefault(row_id, 0)
        numbers[row_id] += 1
        assert text == texts[int(row_id)][start:end]
    return numbers


class TestRows:
    def test_each_passage_is_a_slice_of_its_text(self, books):
        generate(books)
        rows = books.execute("FROM jammi_passages('books')")
        assert [(name, str(kind)) for name, kind, *_ in rows.description] == COLUMNS
        rows = rows.fetchall()
        counts = slices(rows, {key: body for key, (_, body) in LONG.items()})
        assert set(counts) == {"1", "2", "4"}
        assert counts["1"] > 1 < counts["2"]
        assert rows == sorted(rows)
        (count,) = books.execute("SELECT passages FROM jammi_status('books')").fetchall()[0]
        assert count == len(rows)

    def test_they_are_those_that_jammi_split_gives(self, books):
        generate(books, passages="{'overlap': 3, 'by': 'word'}")
        split = books.execute(
            "SELECT id::VARCHAR, unnest(jammi_split(body, overlap := 3, by := 'word'), recursive := true) FROM books "
            "ORDER BY 1, 2"
        ).fetchall()
        assert passages(books) == split

    def test_the_title_is_not_in_the_text(self, books):
        generate(books, ["title", "body"], passages="{'title': 'title'}")
        slices(passages(books), {key: body for key, (_, body) in LONG.items()})

    def test_several_columns_are_one_text(self, books):
        books.execute("ALTER TABLE books ADD COLUMN note VARCHAR DEFAULT 'see the notes'")
        generate(books, ["title", "note", "body"], passages="{'title': 'note'}")
        texts = {key: " ".join(text for text in texts if text is not None) for key, texts in LONG.items()}
        assert set(slices(passages(books), texts)) == {"1", "2", "3", "4"}

    def test_where_the_text_has_changed_it_is_not_shown(self, books):
        generate(books, ["title", "body"], passages="{'title': 'title'}")
        before = passages(books)
        books.execute("UPDATE books SET body = body || ' more' WHERE id = 1")
        # A passage is of another text if only the title has changed.
        books.execute("UPDATE books SET title = 'the green book' WHERE id = 4")
        books.execute("DELETE FROM books WHERE id = 2")
        books.execute("INSERT INTO books VALUES (5, 'new', 'not yet embedded')")
        assert passages(books) == [(*row[:4], None) for row in before]
        books.execute("FROM jammi_refresh('books')").fetchall()
        now = dict(books.execute("SELECT id, body FROM books").fetchall())
        assert set(slices(passages(books), now)) == {"1", "4", "5"}
        books.execute("FROM jammi_compact('books')").fetchall()
        slices(passages(books), now)

    def test_it_sees_what_the_transaction_sees(self, books):
        generate(books)
        before = passages(books)
        books.begin()
        books.execute("UPDATE books SET body = 'something else'")
        assert {row[-1] for row in passages(books)} == {None}
        books.rollback()
        assert passages(books) == before

    def test_a_prepared_statement_shows_the_newest_state(self, books):
        generate(books)
        books.execute("PREPARE shown AS SELECT DISTINCT _row_id FROM jammi_passages($1)")
        assert books.execute("EXECUTE shown('books')").fetchall() == [("1",), ("2",), ("4",)]
        books.execute("DELETE FROM books WHERE id < 4")
        books.execute("FROM jammi_refresh('books')").fetchall()
        assert books.execute("EXECUTE shown('books')").fetchall() == [("4",)]

    def test_a_condition_and_a_view(self, books):
        generate(books)
        wanted = [row for row in passages(books) if row[0] == "2"]
        assert books.execute("FROM jammi_passages('books') WHERE _row_id = '2'").fetchall() == wanted
        books.execute("CREATE TEMP VIEW cut AS FROM jammi_passages('books')")
        assert books.execute("FROM cut WHERE _row_id = '2'").fetchall() == wanted

    def test_columns_that_are_called_as_ours(self, con):
        con.execute(
            "CREATE TABLE odd AS SELECT 1 AS _row_id, 'a b c d e f g h i j' AS texts, 2 AS c0, 'x' AS _start, 3 AS r"
        )
        con.execute("FROM jammi_generate('odd', 'texts', '_row_id', passages := true)").fetchall()
        slices(passages(con, "odd"), {1: "a b c d e f g h i j"})

    def test_whatever_collation_is_set(self, books):
        books.execute("INSERT INTO books VALUES (10, 'x', 'Big'), (11, 'x', 'BIG')")
        generate(books)
        before = passages(books)
        books.execute("SET default_collation = 'nocase'")
        assert passages(books) == before
        books.execute("UPDATE books SET body = upper(body) WHERE id = 10")
        assert [row[-1] for row in passages(books) if row[0] == "10"] == [None]

    def test_no_rows(self, con):
        con.execute("CREATE TABLE none (id INTEGER, body VARCHAR)")
        generate(con, source="none")
        assert passages(con, "none") == []


class TestSources:
    def test_a_temp_table_a_cte_and_a_dataframe(self, con):
        body = LONG[1][1]
        con.execute("CREATE TEMP TABLE draft AS SELECT 1 AS id, $1 AS body", [body])
        generate(con, source="draft")
        slices(passages(con, "draft"), {1: body})
        frame = pd.DataFrame({"id": [1], "body": [body]})
        con.execute("FROM jammi_generate('frame', 'body', 'id', passages := true)").fetchall()
        slices(con.execute("FROM jammi_passages('frame')").fetchall(), {1: body})
        assert len(frame) == 1
        rows = con.execute(
            "WITH other AS (SELECT 1 AS id, $1 AS body) FROM jammi_generate('other', 'body', 'id', passages := true)",
            [body],
        ).fetchall()
        assert rows[0][13] > 1
        shown = con.execute(
            "WITH other AS (SELECT 1 AS id, $1 AS body) FROM jammi_passages('other')", [body]
        ).fetchall()
        slices(shown, {1: body})

    def test_a_name_that_means_something_else_is_refused(self, books):
        generate(books)
        books.execute("CREATE TEMP TABLE books AS FROM (VALUES (1, 'x', 'y')) t(id, title, body)")
        assert 'temp."books" for a TEMP table, or give the CTE another name' in error_of(
            books, "FROM jammi_passages('books')"
        )
        slices(passages(books, "memory.main.books"), {key: body for key, (_, body) in LONG.items()})

    def test_a_file(self, books, tmp_path):
        path = str(tmp_path / "books.parquet")
        books.execute(f"COPY books TO '{path}'")
        generate(books, source=path)
        slices(passages(books, path), {key: body for key, (_, body) in LONG.items()})

    def test_which_of_several(self, books):
        books.execute("FROM jammi_generate('books', {'a': 'body', 'b': 'title'}, 'id', passages := true)").fetchall()
        slices(passages(books, options=", \"column\" := 'a'"), {key: body for key, (_, body) in LONG.items()})
        slices(passages(books, options=", \"column\" := 'b'"), {key: title for key, (title, _) in LONG.items()})
        message = error_of(books, "FROM jammi_passages('books')")
        assert "has several embeddings: a, b; say which is meant, with \"column\" := 'a'" in message

    def test_a_newer_table_without_passages(self, books):
        name = generate(books)
        other = generate(books, passages="false", vectors="false")
        message = error_of(books, "FROM jammi_passages('books')")
        assert f"the texts of '{other}' were not cut into passages: generate with passages := true" in message
        assert passages(books, options=", model := 'fake/small'")
        assert passages(books, options=f", embedding_table := '{name}'")

    def test_a_column_that_is_gone(self, books):
        name = generate(books)
        books.execute("ALTER TABLE books RENAME body TO text")
        message = error_of(books, "FROM jammi_passages('books')")
        assert f"no column 'body' in 'books'; columns: id, title, text. '{name}' was made of it" in message

    def test_a_database_that_only_reads(self, fake, tmp_path):
        file = str(tmp_path / "books.duckdb")
        with duckdb.connect(file) as con:
            fake(con, storage=tmp_path / "artifacts")
            con.execute("CREATE TABLE books AS SELECT 1 AS id, $1 AS body", [LONG[1][1]])
            generate(con)
        with duckdb.connect(file, read_only=True) as con:
            fake(con, storage=tmp_path / "artifacts")
            slices(passages(con), {1: LONG[1][1]})


class TestImports:
    @pytest.fixture
    def vectors(self, books):
        books.execute(
            "CREATE TABLE vectors AS FROM (VALUES (1, 0, 19, embed('a')), (1, 20, 41, embed('b')), "
            "(4, NULL, NULL, embed('c'))) t(id, first, last, v)"
        )
        return books

    def test_places_that_were_given(self, vectors):
        vectors.execute(
            "FROM jammi_import('books', 'vectors', 'id', 'v', model := 'fake/small', cols := 'body', "
            "passages := {'start': 'first', 'end': 'last'})"
        ).fetchall()
        assert passages(vectors) == [
            ("1", 0, 0, 19, "One two three four."),
            ("1", 1, 20, 41, "Five six seven eight."),
            ("4", 0, None, None, None),
        ]

    @pytest.mark.parametrize("columns", ["", ", cols := 'body'"])
    def test_places_that_were_not(self, vectors, columns):
        vectors.execute(
            f"FROM jammi_import('books', 'vectors', 'id', 'v', model := 'fake/small'{columns}, passages := true)"
        ).fetchall()
        assert passages(vectors) == [(key, n, None, None, None) for key, n in (("1", 0), ("1", 1), ("4", 0))]


class TestFiles:
    def test_what_it_has_read_can_be_dropped(self, books):
        name = generate(books)
        passages(books)
        assert books.execute("SELECT status FROM jammi_drop(?)", [name]).fetchall() == [("dropped",)]
        books.execute("FROM jammi_vacuum()").fetchall()

    def test_the_method_has_the_rows_of_its_time(self, jammi, books):
        generate(books)
        relation = jammi.passages("books")
        before = relation.fetchall()
        books.execute("DELETE FROM books")
        assert jammi.passages("books").fetchall() != before
        assert relation.fetchall() == before

    def test_the_method_takes_a_dataframe(self, jammi):
        frame = pd.DataFrame({"id": [1], "body": [LONG[1][1]]})
        jammi.generate(frame, "body", "id", passages={"by": "word"})
        slices(jammi.passages(frame).fetchall(), {1: LONG[1][1]})

    def test_the_method_says_what_is_wrong(self, jammi, books):
        generate(books, "title", passages="false")
        with pytest.raises(InputError, match="passages=True in Python"):
            jammi.passages("books")
