"""Embedding tables follow their source: status, refresh, compaction, and builds that go on or are used again."""

import threading
from datetime import timedelta

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.errors import JammiWarning
from jammi_duck.storage.files.parquet import SegmentWriter
from jammi_duck.work.text_buffer import ROWS
from tests.effort import some
from tests.fakes import text_vector
from tests.followed import COUNTS, holds, refresh, status, table_of
from tests.test_generate import error_of, generate
from tests.test_threads import run_all


class TestRefresh:
    def test_what_is_new_changed_or_gone_and_nothing_else(self, words, encoded):
        words.execute("INSERT INTO t VALUES (10, 'ten'), (11, 'ten'), (12, NULL), (13, ' \u3000\xa0')")
        words.execute("UPDATE t SET text = 'other' WHERE id IN (1, 2); DELETE FROM t WHERE id > 7 AND id < 10")
        words.execute("UPDATE t SET text = '' WHERE id = 0")
        assert status(words) == (5, 2, 2, 3)
        assert refresh(words) == (2, 2, 3, 5, 0, 2)
        assert encoded() == ["other", "ten"]
        assert status(words) == (9, 0, 0, 0)
        texts = {i: f"word{i}" for i in range(3, 8)} | {1: "other", 2: "other", 10: "ten", 11: "ten"}
        holds(words, texts)
        row = words.execute("SELECT row_count, skipped_count, status, stage FROM jammi_tables()").fetchall()
        assert row == [(9, 3, "ready", None)]
        assert refresh(words) == (0, 0, 0, 9, 0, 0)
        assert words.execute("SELECT segments FROM jammi_status('t')").fetchall() == [(2,)]

    def test_columns_and_advice(self, words):
        words.execute("DELETE FROM t WHERE id > 2")
        shown = words.execute("SELECT * FROM jammi_status('t')")
        assert [column[0] for column in shown.description] == [
            "embedding_table", "current", "new", "changed", "gone", "coverage", "segments", "bytes", "age", "advice",
            "followed", "passages",
        ]  # fmt: skip
        (row,) = shown.fetchall()
        assert (row[5], row[9]) == (1.0, "SELECT * FROM jammi_refresh('t') brings it up to date")
        shown = words.execute("SELECT * FROM jammi_refresh('t')")
        assert [column[0] for column in shown.description] == [
            "embedding_table", "added", "changed", "deleted", "unchanged", "failed", "encoded", "seconds", "advice",
            "requests", "tokens",
        ]  # fmt: skip
        assert shown.fetchall()[0][8] is None

    def test_advice_names_the_table_and_quotes_the_source(self, con):
        con.execute("""CREATE TABLE "it's" AS SELECT range AS id, 'word' || range AS text FROM range(6000)""")
        first = con.execute("SELECT embedding_table FROM jammi_generate('it''s', 'text', 'id')").fetchall()[0][0]
        con.execute("""INSERT INTO "it's" VALUES (6001, 'word')""")
        generate(con, "it's")
        con.execute("""DELETE FROM "it's" WHERE id % 4 = 0 OR id = 6001""")
        status_of = "SELECT advice FROM jammi_status('it''s', embedding_table := {})"
        ((newest,),) = con.execute(status_of.format("NULL")).fetchall()
        assert newest == "SELECT * FROM jammi_refresh('it''s') brings it up to date"
        ((older,),) = con.execute(status_of.format(f"'{first}'")).fetchall()
        call = f"('it''s', embedding_table := '{first}')"
        assert older == f"SELECT * FROM jammi_refresh{call} brings it up to date"
        ((advice,),) = con.execute(f"SELECT advice FROM jammi_refresh{call}").fetchall()
        assert (
            advice
            == f"1 segments, 1,500 rows in them are gone: SELECT * FROM jammi_compact{call} makes searches faster"
        )
        con.execute(f"FROM jammi_compact{call}").fetchall()
        assert con.execute(status_of.format(f"'{first}'")).fetchall() == [(None,)]

    def test_texts_that_moved_are_not_encoded_again(self, words, encoded):
        words.execute("UPDATE t SET text = CASE id WHEN 1 THEN 'word2' ELSE 'word1' END WHERE id IN (1, 2)")
        words.execute("UPDATE t SET id = 100 WHERE id = 3; INSERT INTO t VALUES (101, 'word4')")
        assert refresh(words) == (2, 2, 1, 7, 0, 0)
        assert encoded() == []
        texts = {i: f"word{i}" for i in (0, 4, 5, 6, 7, 8, 9)} | {1: "word2", 2: "word1", 100: "word3", 101: "word4"}
        holds(words, texts)

    def test_other_columns_do_not_count(self, con, encoded):
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text, 0 AS price FROM range(10)")
        generate(con, "t")
        con.execute("UPDATE t SET price = 7")
        assert refresh(con) == (0, 0, 0, 10, 0, 0)

    def test_several_columns_and_quoted_names(self, con, encoded):
        con.execute(
            """CREATE TABLE "a 'b" AS SELECT range AS "i d", 'x' || range AS "te""xt", 'y' AS u FROM range(5)"""
        )
        con.execute("""FROM jammi_generate('"a ''b"', ['te"xt', 'u'], 'i d')""").fetchall()
        encoded()
        con.execute("""UPDATE "a 'b" SET u = NULL WHERE "i d" = 2""")
        (row,) = con.execute(f"""SELECT {COUNTS} FROM jammi_refresh('"a ''b"')""").fetchall()
        assert row == (0, 1, 0, 4, 0, 1)
        assert encoded() == ["x2"]

    def test_it_sees_the_callers_transaction(self, words, encoded):
        words.begin()
        words.execute("INSERT INTO t VALUES (10, 'ten')")
        assert status(words) == (10, 1, 0, 0)
        assert refresh(words) == (1, 0, 0, 10, 0, 1)
        words.rollback()
        with pytest.warns(JammiWarning, match="'t' has 10 rows now"):
            assert words.execute("SELECT id FROM jammi_search('t', 'ten', 1)").fetchall() != [(10,)]
        assert refresh(words) == (0, 0, 1, 10, 0, 0)

    def test_views_temp_tables_files_and_registered_frames(self, con, encoded, tmp_path):
        con.execute("CREATE TABLE base AS SELECT range AS id, 'word' || range AS text FROM range(4)")
        con.execute("CREATE VIEW shown AS FROM base; CREATE TEMP TABLE draft AS FROM base")
        path = str(tmp_path / "it's.parquet")
        con.execute(f"COPY base TO '{path.replace(chr(39), chr(39) * 2)}'")
        con.register("frame", pa.table({"id": [1, 2], "text": ["one", "two"]}))
        for source in ("shown", "draft", path.replace("'", "''"), "frame"):
            con.execute(f"FROM jammi_generate('{source}', 'text', 'id')").fetchall()
        encoded()
        con.execute("DELETE FROM base WHERE id = 0; DELETE FROM draft WHERE id = 0")
        con.register("frame", pa.table({"id": [1, 3], "text": ["one", "three"]}))
        assert refresh(con, "shown") == (0, 0, 1, 3, 0, 0)
        assert refresh(con, "draft") == (0, 0, 1, 3, 0, 0)
        assert refresh(con, path.replace("'", "''")) == (0, 0, 0, 4, 0, 0)
        assert refresh(con, "frame") == (1, 0, 1, 1, 0, 1)

    def test_a_prepared_statement_refreshes_each_time(self, words):
        words.execute(f"PREPARE again AS SELECT {COUNTS} FROM jammi_refresh('t')")
        for i in (20, 21):
            words.execute(f"INSERT INTO t VALUES ({i}, 'number {i}')")
            assert words.execute("EXECUTE again").fetchall() == [(1, 0, 0, i - 10, 0, 1)]
        words.execute("EXPLAIN FROM jammi_refresh('t')").fetchall()
        words.execute("DESCRIBE FROM jammi_refresh('t')").fetchall()
        assert words.execute("SELECT segments FROM jammi_status('t')").fetchall() == [(3,)]

    def test_rows_that_cannot_be_embedded_lose_their_old_vector(self, words, encoded):
        words.execute("UPDATE t SET text = 'unencodable' WHERE id = 4")
        assert refresh(words) == (0, 1, 0, 9, 1, 1)
        assert words.execute("SELECT row_count, failed_count FROM jammi_tables()").fetchall() == [(9, 1)]
        assert status(words) == (9, 1, 0, 0)
        words.execute("UPDATE t SET text = 'fine' WHERE id = 4")
        assert refresh(words) == (1, 0, 0, 9, 0, 1)

    def test_everything_goes_and_comes(self, words, encoded):
        words.execute("CREATE TABLE kept AS FROM t; DELETE FROM t")
        assert refresh(words) == (0, 0, 10, 0, 0, 0)
        holds(words, {})
        words.execute("INSERT INTO t FROM kept")
        assert refresh(words) == (10, 0, 0, 0, 0, 10)
        holds(words, {i: f"word{i}" for i in range(10)})

    def test_more_rows_than_a_chunk_and_a_segment_hold(self, fake, encoded):
        con = fake(segment_rows=3000).con
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(2500)")
        generate(con, "t")
        con.execute("UPDATE t SET text = text || ' more' WHERE id % 2 = 0")
        con.execute("INSERT INTO t SELECT range, 'new' || (range % 3000) FROM range(3000, 10000)")
        assert refresh(con) == (7000, 1250, 0, 1250, 0, 1250 + 3000)
        assert con.execute("SELECT segments FROM jammi_status('t')").fetchall() == [(4,)]
        assert refresh(con) == (0, 0, 0, 9500, 0, 0)
        assert con.execute("SELECT id FROM jammi_search('t', 'word8 more', 1)").fetchall() == [(8,)]

    def test_searches_that_are_open_follow(self, words, encoded):
        other = words.cursor()
        assert words.execute("SELECT id FROM jammi_search('t', 'word3', 1)").fetchall() == [(3,)]
        words.execute("DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (33, 'word3')")
        refresh(words)
        assert words.execute("SELECT id FROM jammi_search('t', 'word3', 1)").fetchall() == [(33,)]
        assert words.execute("SELECT id FROM jammi_search('t', 'word3', 1, filter := 'id < 20')").fetchall() != [(33,)]
        assert len(words.execute("FROM jammi_similar('t', 33, 100)").fetchall()) == 9
        assert words.execute("FROM jammi_similar('t', 3, 100)").fetchall() == []
        assert words.execute("SELECT recall FROM jammi_check('t')").fetchall() == [(1.0,)]
        other.close()

    def test_a_search_tells_when_a_refresh_is_due_and_again_after_it(self, words):
        for i in (1, 2):
            words.execute("DELETE FROM t WHERE id = ?", [i])
            with pytest.warns(JammiWarning, match=r"SELECT \* FROM jammi_refresh\('t'\) brings it up to date"):
                words.execute("FROM jammi_search('t', 'word3', 3)").fetchall()
            refresh(words)

    def test_two_at_once_both_count(self, jammi, fake, words):
        """Whichever is second makes its state fit the first's, and the next refresh finds nothing to do."""
        words.execute("INSERT INTO t SELECT range, 'more' || range FROM range(100, 3000)")
        words.execute("DELETE FROM t WHERE id < 5")
        cursors = [words.cursor() for _ in range(3)]
        for cursor in cursors:
            fake(cursor)
        for turn in range(3):
            words.execute(f"UPDATE t SET text = text || ' {turn}' WHERE id % 3 = {turn}")
            run_all([lambda con=con: refresh(con) for con in cursors])
            assert refresh(words) == (0, 0, 0, 2905, 0, 0)
        name = table_of(words)
        rows = words.execute(f'SELECT count(*), count(DISTINCT _row_id) FROM jammi."{name}"').fetchall()
        assert rows == [(2905, 2905)]


class TestRefusals:
    def test_keys(self, words):
        words.execute("INSERT INTO t VALUES (1, 'twice'), (NULL, 'none')")
        for function in ("jammi_refresh", "jammi_status"):
            assert "is NULL in 1 of 12 rows" in error_of(words, f"FROM {function}('t')")
        words.execute("DELETE FROM t WHERE id IS NULL")
        for function in ("jammi_refresh", "jammi_status"):
            assert "is not unique: 1 of 11 rows repeat another's" in error_of(words, f"FROM {function}('t')")
        words.execute("DELETE FROM t WHERE text = 'twice'")
        assert status(words) == (10, 0, 0, 0)

    def test_what_is_not_there(self, words):
        for function in ("jammi_refresh", "jammi_status", "jammi_compact"):
            assert "no embedding table for 'q'" in error_of(words, f"FROM {function}('q')")
            assert "no embedding table 'q'" in error_of(words, f"FROM {function}('t', embedding_table := 'q')")
            assert "the source is NULL" in error_of(words, f"FROM {function}(NULL)")

    def test_a_column_that_is_gone(self, words):
        words.execute("ALTER TABLE t RENAME text TO texts")
        assert "no column 'text' in 't'; did you mean 'texts'?" in error_of(words, "FROM jammi_refresh('t')")

    def test_a_column_that_became_bytes(self, words):
        words.execute("ALTER TABLE t ALTER text TYPE BLOB USING encode(text)")
        for function in ("jammi_refresh", "jammi_status"):
            message = error_of(words, f"FROM {function}('t')")
            assert "the column 'text' of 't' is a BLOB, which is bytes and no text; name a view that" in message
        words.execute("ALTER TABLE t ALTER text TYPE VARCHAR USING decode(text)")
        assert refresh(words) == (0, 0, 0, 10, 0, 0)

    def test_another_model_under_the_same_name(self, jammi, words, encoded):
        from tests.fakes import FakeEncoder

        words.execute("INSERT INTO t VALUES (10, 'ten')")
        jammi.encoders.loaded["fake/small"] = FakeEncoder("fake/small", weights="1" * 64)
        error = error_of(words, "FROM jammi_refresh('t')")
        assert "the model 'fake/small' is not what it was" in error
        assert "weights differ" in error
        assert "jammi_generate('t', ...)" in error
        words.execute("DELETE FROM t WHERE id > 8")
        assert refresh(words) == (0, 0, 1, 9, 0, 0)

    def test_a_source_that_gives_its_rows_only_once(self, con):
        table = pa.table({"id": [1, 2], "text": ["one", "two"]})
        con.register("frame", table)
        con.execute("FROM jammi_generate('frame', 'text', 'id')").fetchall()
        rows = pa.table({"id": [1, 3], "text": ["one", "three"]})
        con.register("frame", rows.to_reader())
        try:
            refreshed = refresh(con, "frame")
        except duckdb.Error:
            refreshed = None  # older versions of DuckDB read it once
        con.register("frame", table)
        assert refreshed in (None, (1, 0, 1, 1, 0, 1))
        assert status(con, "frame") == ((1, 1, 0, 1) if refreshed else (2, 0, 0, 0))


class TestCompaction:
    def test_many_segments_become_one(self, words, encoded):
        for i in range(4):
            words.execute(f"INSERT INTO t VALUES ({10 + i}, 'word{10 + i}'); DELETE FROM t WHERE id = {i}")
            refresh(words)
        encoded()
        texts = dict(words.execute("SELECT id, text FROM t").fetchall())
        shown = words.execute("SELECT * FROM jammi_compact('t')")
        assert [column[0] for column in shown.description] == [
            "embedding_table", "segments_before", "segments", "rows_removed", "bytes_before", "bytes", "seconds",
        ]  # fmt: skip
        (row,) = shown.fetchall()
        assert row[1:4] == (5, 1, 4)
        assert row[5] < row[4]
        assert encoded() == []
        holds(words, texts)
        assert status(words) == (10, 0, 0, 0)
        assert refresh(words) == (0, 0, 0, 10, 0, 0)
        assert words.execute("SELECT segments_before, segments FROM jammi_compact('t')").fetchall() == [(1, 1)]

    @settings(max_examples=some(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_any_history(self, fake, tmp_path_factory, data):
        """Whatever was added and deleted, in segments of whatever size: the same rows, in as few segments as can be."""
        size = data.draw(st.sampled_from([3, 7, 1000]))
        con = fake(duckdb.connect(), storage=str(tmp_path_factory.mktemp("any")), segment_rows=size).con
        con.execute(
            "CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(?)",
            [data.draw(st.integers(0, 30))],
        )
        generate(con, "t")
        for turn in range(data.draw(st.integers(1, 4))):
            gone = data.draw(st.sets(st.integers(0, 40)))
            con.execute("DELETE FROM t WHERE list_contains(?, id)", [sorted(gone)])
            first = 100 * (turn + 1)
            con.execute(
                "INSERT INTO t SELECT range, 'add' || range FROM range(?, ?)",
                [first, first + data.draw(st.integers(0, 12))],
            )
            refresh(con)
        before = table_of(con)
        con.execute("FROM jammi_compact('t')").fetchall()
        texts = dict(con.execute("SELECT id, text FROM t").fetchall())
        holds(con, texts, before)
        (segments,) = con.execute("SELECT segments FROM jammi_status('t')").fetchall()[0]
        assert segments == max(1, -(-len(texts) // size))
        assert refresh(con)[:3] == (0, 0, 0)
        con.close()

    def test_vacuum_removes_the_old_files_and_nothing_that_is_used(self, fake, storage):
        con = fake(retention=timedelta(0)).con
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
        generate(con, "t")
        con.execute("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (11, 'word11')")
        refresh(con)
        con.execute("FROM jammi_compact('t')").fetchall()
        assert len(list(storage.rglob("*.manifest.json"))) == 3
        con.execute("FROM jammi_vacuum()").fetchall()
        assert len(list(storage.rglob("*.manifest.json"))) == 1
        assert len(list(storage.rglob("*.*"))) == 7
        holds(con, dict(con.execute("SELECT id, text FROM t").fetchall()))
        con.execute("INSERT INTO t VALUES (12, 'word12')")
        assert refresh(con) == (1, 0, 0, 10, 0, 1)


def test_an_old_state_is_seen_whole_while_a_new_one_is_made(fake, words):
    """Searches in other threads find the texts of one turn, and never some of one and some of another."""
    cursors = [words.cursor() for _ in range(2)]
    for cursor in cursors:
        fake(cursor)
    states = [
        {str(key): text_vector(f"turn{turn} word{key}") @ text_vector("word5") for key in range(10)}
        for turn in range(16)
    ]
    words.execute("CREATE TABLE u AS SELECT id, 'turn0 word' || id AS text FROM t")
    words.execute("FROM jammi_generate('u', 'text', 'id')").fetchall()
    seen, done = set(), threading.Event()

    def change():
        try:
            for turn in range(1, 16):
                words.execute(f"UPDATE u SET text = 'turn{turn} word' || id")
                assert refresh(words, "u") == (0, 10, 0, 0, 0, 10)
                words.execute("FROM jammi_compact('u')").fetchall() if turn % 5 == 4 else None
        finally:
            done.set()

    def search(con):
        while not done.is_set():
            found = dict(con.execute("SELECT _row_id, _similarity FROM jammi_matches('u', 'word5', 100)").fetchall())
            (turn,) = [turn for turn, state in enumerate(states) if found == pytest.approx(state, abs=1e-5)]
            seen.add(turn)

    run_all([change, *(lambda con=con: search(con) for con in cursors)])
    assert len(seen) > 1


class TestAdvice:
    def test_it_names_the_source_as_the_caller_wrote_it(self, con):
        con.execute("ATTACH ':memory:' AS o; CREATE TABLE o.main.d AS SELECT 1 AS id, 'a' AS text")
        con.execute("FROM jammi_generate('o.main.d', 'text', 'id')").fetchall()
        con.execute("INSERT INTO o.main.d VALUES (2, 'b')")
        ((told,),) = con.execute("SELECT advice FROM jammi_status('o.main.d')").fetchall()
        con.execute(told.split(" brings")[0])
        assert status(con, "o.main.d") == (2, 0, 0, 0)

    def test_a_table_that_was_imported_without_its_columns(self, words):
        words.execute("CREATE TABLE made AS SELECT id, [id + 1, 2, 3] AS v FROM t")
        words.execute("FROM jammi_import('t', 'made', 'id', 'v', model := 'a/model')").fetchall()
        words.execute("INSERT INTO t VALUES (12, 'new')")
        assert "import it again, with cols" in words.execute("SELECT advice FROM jammi_status('t')").fetchall()[0][0]

    def test_a_column_that_has_another_name_now(self, words):
        name = table_of(words)
        words.execute("ALTER TABLE t RENAME text TO txt")
        for verb in ("refresh", "status"):
            error = error_of(words, f"FROM jammi_{verb}('t')")
            assert f"did you mean 'txt'? columns: id, txt. '{name}' was made of it" in error
            assert "generate anew" in error

    def test_a_key_that_repeats_itself_now(self, words):
        words.execute("INSERT INTO t VALUES (3, 'again')")
        assert "make it so, or generate anew with another key" in error_of(words, "FROM jammi_refresh('t')")

    def test_a_source_that_is_no_text(self, con):
        assert "no embedding table for '42'" in error_of(con, "FROM jammi_refresh(42)")


def test_a_folder_whose_name_looks_like_a_column(fake, tmp_path):
    con = fake(storage=str(tmp_path / "_row_id=1" / "vector=2")).con
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con, "t")
    con.execute("DELETE FROM t WHERE id = 1")
    assert refresh(con) == (0, 0, 1, 9, 0, 0)
    holds(con, dict(con.execute("SELECT id, text FROM t").fetchall()))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("known", [False, True])
def test_many_rows_with_one_text_are_written_a_part_at_a_time(con, words, encoded, known, monkeypatch):
    most = []
    real = SegmentWriter.write

    def write(writer, row_ids, *columns):
        most.append(len(row_ids))
        real(writer, row_ids, *columns)

    monkeypatch.setattr(SegmentWriter, "write", write)
    con.execute("INSERT INTO t SELECT range, $1 FROM range(100, 10_100)", ["word3" if known else "n/a"])
    assert refresh(con) == (10_000, 0, 0, 10, 0, 0 if known else 1)
    assert sum(most) == 10_000
    assert max(most) <= ROWS
    assert status(con) == (10_010, 0, 0, 0)
