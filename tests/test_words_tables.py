"""Tables with words, without them, and with others: languages, jammi_index_words, imports, resumed builds, races."""

import json
import warnings

import pytest

from jammi_duck import JammiWarning
from jammi_duck.storage.tables import segment_words
from jammi_duck.storage.words.analyser import analyser
from jammi_duck.work.index_words import WordsIndexer
from jammi_duck.work.refresh import Refresher
from tests.races import interrupted_build
from tests.test_generate import error_of, generate
from tests.test_words_search import NOTES, ask, check

TEXT = {"k": 20, "mode": "text"}


@pytest.fixture
def source(fake):
    """A connection with the notes as a source, for segments of four rows."""
    con = fake(segment_rows=4).con
    con.execute("CREATE TABLE t (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", list(NOTES.items()))
    return con


def rows(con):
    return dict(con.execute("SELECT id, text FROM t").fetchall())


def matching(con, query, extra=""):
    """The keys of the rows that match, in their order."""
    rows = con.execute(f"SELECT _row_id FROM jammi_matches('t', $1, 20, mode := 'text'{extra})", [query]).fetchall()
    return sorted(int(key) for (key,) in rows)


def whole(con, query="broken +pipe engine"):
    """Both modes give what plain Python does over the rows of the source, which the table has."""
    for mode in ("text", "hybrid"):
        check(ask(con, query, {"k": 20, "mode": mode}), rows(con), lambda _: True, query, k=20, mode=mode)


def index_words(con, *languages, source="t"):
    asked = "".join(f", '{language}'" for language in languages)
    (row,) = con.execute(
        f"SELECT language, row_count, bytes > 0, advice FROM jammi_index_words('{source}'{asked})"
    ).fetchall()
    return row


def refresh(con, extra=""):
    return con.execute(f"SELECT added, changed, deleted, encoded FROM jammi_refresh('t'{extra})").fetchall()


def words_files(storage):
    return sorted(path.name for path in storage.rglob("*.words"))


class TestLanguages:
    @pytest.mark.parametrize(
        ("language", "text", "query", "not_found"),
        [
            ("german", "Die Häuser der Städte", "haus", "der"),
            ("french", "Les chevaux couraient", "courir", "les"),
            ("none", "Running the engines", "the", "engine"),
            ("russian", "Красивые дома", "дом", "и"),
        ],
    )
    def test_by_the_words_of_the_table(self, con, language, text, query, not_found):
        con.execute("CREATE TABLE t AS SELECT 1 AS id, $1 AS text", [text])
        con.execute(f"FROM jammi_generate('t', 'text', 'id', language := '{language}')").fetchall()
        assert matching(con, query) == [1]
        assert matching(con, not_found) == []

    @pytest.mark.parametrize("verb", ["generate", "sync"])
    def test_what_is_none(self, source, storage, verb):
        call = f"FROM jammi_{verb}('t', 'text', 'id', language := "
        assert "no language 'englich'; did you mean 'english'?" in error_of(source, f"{call}'englich')")
        assert "language is NULL" in error_of(source, f"{call}NULL)")
        assert not storage.exists() or not list(storage.rglob("*.parquet"))

    def test_the_manifest_says_which(self, source, storage):
        source.execute("FROM jammi_sync('t', 'text', 'id', language := 'german')").fetchall()
        (file,) = storage.rglob("*.manifest.json")
        document = json.loads(file.read_text())
        stemmer = analyser("german").analysis.stemmer
        assert document["definition"]["words"] == {"analyser": "words-1", "language": "german", "stemmer": stemmer}
        assert all(segment["words"]["file"].endswith(".words") for segment in document["segments"])


class TestWithoutWords:
    def test_vectors_answer_and_words_can_be_added(self, source, storage, jammi):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        assert words_files(storage) == []
        assert all(row[5] is None for row in ask(source, "broken pipe", {"k": 3}))
        assert index_words(source) == ("english", 6, True, None)
        assert len(words_files(storage)) == 2
        whole(source)
        assert source.execute("FROM jammi_recover()").fetchall() == []
        assert refresh(source) == [(0, 0, 0, 0)]
        source.execute("INSERT INTO t VALUES (7, 'another pipe')")
        assert refresh(source) == [(1, 0, 0, 1)]
        whole(source)

    def test_nothing_is_embedded_and_nothing_is_written_the_second_time(self, source, storage, fake):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        index_words(source)
        files = sorted(path.name for path in storage.rglob("*.*"))
        assert index_words(source) == ("english", 0, True, None)
        assert sorted(path.name for path in storage.rglob("*.*")) == files

    def test_in_another_language(self, source):
        generate(source, "t")
        assert matching(source, "engine") == [1, 4]
        assert index_words(source, "none") == ("none", 6, True, None)
        assert matching(source, "engine") == [1]
        assert matching(source, "the") == [1, 2, 5]
        source.execute("INSERT INTO t VALUES (7, 'the engine')")
        refresh(source)
        source.execute("FROM jammi_compact('t')").fetchall()
        assert matching(source, "the") == [1, 2, 5, 7]

    def test_rows_that_have_changed_since_have_none_until_the_refresh(self, source):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        source.execute("UPDATE t SET text = 'a green pipe' WHERE id = 5; DELETE FROM t WHERE id = 2")
        language, count, _, advice = index_words(source)
        assert (language, count) == ("english", 4)
        assert "rows that have changed since they were embedded have no words: " in advice
        assert matching(source, "pipe") == [3]
        assert refresh(source) == [(0, 1, 1, 1)]
        whole(source)

    def test_a_row_that_had_none_gets_them_even_if_its_text_is_what_it_was_again(self, source):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        source.execute("CREATE TABLE before AS FROM t; UPDATE t SET text = 'a green pipe' WHERE id = 5")
        index_words(source)
        source.execute("UPDATE t SET text = before.text FROM before WHERE t.id = before.id")
        assert refresh(source) == [(0, 0, 0, 0)]
        whole(source)

    def test_two_databases_at_once(self, source, fake, monkeypatch):
        """Each writes the words of all segments: the names of one are taken when the other is done."""
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        other = fake(segment_rows=4).con
        other.execute("CREATE TABLE t AS FROM (VALUES " + ", ".join(f"({i}, $t{i})" for i in NOTES) + ") t(id, text)",
                      {f"t{i}": text for i, text in NOTES.items()})  # fmt: skip
        write = segment_words.written

        def second(*arguments, **options):
            monkeypatch.setattr(segment_words, "written", write)
            assert index_words(other) == ("english", 6, True, None)
            return write(*arguments, **options)

        monkeypatch.setattr(segment_words, "written", second)
        assert index_words(source) == ("english", 6, True, None)
        whole(source)

    def test_an_older_table_by_its_name(self, source):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false, name := 'plain')").fetchall()
        generate(source, "t")
        source.execute("FROM jammi_index_words('t', 'none', embedding_table := 'plain')").fetchall()
        assert matching(source, "the", ", embedding_table := 'plain'") == [1, 2, 5]
        assert matching(source, "the") == []

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            ("'t', 'englis'", "no language 'englis'; did you mean 'english'?"), ("'t', NULL", "language is NULL"),
            ("'u'", "no embedding table for 'u'"), ("'x'", "x"),
        ],
    )  # fmt: skip
    def test_errors(self, source, call, message):
        generate(source, "t")
        source.execute("CREATE TABLE u AS FROM t")
        assert message in error_of(source, f"FROM jammi_index_words({call})")

    def test_keys_that_are_not_unique_any_more(self, source, storage):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        source.execute("INSERT INTO t VALUES (3, 'again')")
        assert "the key 'id' of 't' is not unique" in error_of(source, "FROM jammi_index_words('t')")
        assert words_files(storage) == []
        assert source.execute("SELECT DISTINCT stage FROM jammi_tables()").fetchall() == [(None,)]


class TestOtherWays:
    def test_an_import_with_columns(self, source, storage):
        source.execute("CREATE TABLE made AS SELECT id, embed(text) AS v FROM t WHERE id <> 2")
        imported = "FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/small'"
        source.execute(f"{imported}, cols := 'text', language := 'none')").fetchall()
        assert matching(source, "the") == [1, 5]
        source.execute(f"{imported}, cols := ['text'])").fetchall()
        assert matching(source, "pipe") == [3, 5]
        refresh(source)
        whole(source)

    def test_an_import_without_columns_or_words(self, source, storage):
        source.execute("CREATE TABLE made AS SELECT id, embed(text) AS v FROM t")
        imported = "FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/small'"
        source.execute(f"{imported}, cols := 'text', words := false)").fetchall()
        source.execute(f"{imported})").fetchall()
        assert words_files(storage) == []
        error = error_of(source, "FROM jammi_index_words('t')")
        assert "was imported without the columns of its text, so its words are not known" in error
        assert error_of(source, "FROM jammi_search('t', 'pipe', mode := 'text')")

    @pytest.mark.parametrize("by", ["generate", "refresh"])
    def test_a_build_that_goes_on(self, source, storage, by):
        """The words of whole segments are there still, by the SHA-256 of their Parquet files."""
        source.execute("INSERT INTO t SELECT 100 + range, 'a pipe number ' || range FROM range(7)")
        interrupted_build(source)
        kept = words_files(storage)
        assert kept
        source.execute("UPDATE t SET text = 'no more' WHERE id = 5; DELETE FROM t WHERE id = 3")
        if by == "generate":
            source.execute("FROM jammi_generate('t', 'text', 'id', resume := true)").fetchall()
        else:
            refresh(source)
        whole(source)
        assert set(kept) < set(words_files(storage))

    def test_sync_keeps_them_up_to_date(self, source):
        for action in ("generated", "unchanged", "refreshed"):
            if action == "refreshed":
                source.execute("INSERT INTO t VALUES (9, 'a broken engine'); DELETE FROM t WHERE id = 1")
            assert source.execute("SELECT action FROM jammi_sync('t', 'text', 'id')").fetchall() == [(action,)]
            whole(source)

    def test_several_columns_are_one_text(self, con):
        con.execute("CREATE TABLE t AS SELECT 1 AS id, 'broken' AS a, NULL AS b, 'pipe' AS c")
        generate(con, "t", ["a", "b", "c"])
        assert matching(con, '"broken pipe"') == [1]

    def test_methods(self, jammi, animals):
        jammi.generate("animals", "text", "id", words=False)
        indexed = jammi.index_words("animals", "none")
        assert (indexed.language, indexed.row_count, indexed.advice) == ("none", 5, None)
        assert jammi.search("animals", "in water", mode="text").project("id").fetchall() == [(3,), (4,)]
        jammi.generate("animals", "text", "id", language="german")
        jammi.sync("animals", "text", "id", language="german")
        assert jammi.matches("animals", "sleeps", mode="text").project("_row_id").fetchall() == [("1",)]


class TestRaces:
    """Of a change of the words and another of the rows, either may be first."""

    def test_words_are_indexed_while_a_refresh_runs(self, source, fake, before):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        source.execute("INSERT INTO t VALUES (7, 'a pipe line')")
        other = source.cursor()
        fake(other, segment_rows=4)
        before(Refresher, "finish", lambda: index_words(other))
        assert refresh(source) == [(1, 0, 0, 1)]
        mended(source)

    def test_in_another_language_while_a_refresh_mends_them(self, source, storage, fake, before):
        generate(source, "t")
        for path in storage.rglob("*.words"):
            path.unlink()
        source.execute("INSERT INTO t VALUES (7, 'a pipe line')")
        other = source.cursor()
        fake(other, segment_rows=4)
        before(Refresher, "finish", lambda: index_words(other, "none"))
        assert refresh(source) == [(1, 0, 0, 1)]
        mended(source)
        assert matching(source, "the") == [1, 2, 5]

    def test_a_refresh_while_words_are_indexed(self, source, fake, before):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        source.execute("INSERT INTO t VALUES (7, 'a pipe line'); DELETE FROM t WHERE id = 5")
        other = source.cursor()
        fake(other, segment_rows=4)
        before(WordsIndexer, "finish", lambda: refresh(other))
        language, count, _, advice = index_words(source)
        # A row was gone from the source before.
        assert (language, count) == ("english", 5)
        assert "have no words: SELECT * FROM jammi_refresh" in advice
        assert source.execute("SELECT current, new, changed, gone FROM jammi_status('t')").fetchall() == [(6, 0, 0, 0)]
        mended(source)

    def test_a_compaction_while_words_are_indexed(self, source, fake, before):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        source.execute("DELETE FROM t WHERE id IN (1, 6)")
        refresh(source)
        other = source.cursor()
        fake(other, segment_rows=4)
        before(WordsIndexer, "finish", lambda: other.execute("FROM jammi_compact('t')").fetchall())
        *_, advice = index_words(source)
        assert "rows that another change has written meanwhile have no words: SELECT * FROM jammi_refresh" in advice
        mended(source)

    def test_the_table_is_dropped_meanwhile(self, source, storage, fake, before):
        source.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
        other = source.cursor()
        fake(other, segment_rows=4)
        ((name,),) = other.execute("SELECT embedding_table FROM jammi_tables()").fetchall()
        before(WordsIndexer, "finish", lambda: other.execute("FROM jammi_drop(?)", [name]).fetchall())
        assert "was dropped" in error_of(source, "FROM jammi_index_words('t')")
        source.execute("FROM jammi_recover()").fetchall()
        assert list(storage.rglob("*.*")) == []


def mended(con):
    """A search goes by vectors, with a warning, where segments have no words yet; the next refresh indexes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JammiWarning)
        assert ask(con, "broken pipe", {"k": 3})
    assert refresh(con) == [(0, 0, 0, 0)]
    assert con.execute("FROM jammi_recover()").fetchall() == []
    for word in ("broken", "line", "pipe"):
        assert matching(con, word) == sorted(key for key, text in rows(con).items() if word in text)
