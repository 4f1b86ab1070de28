"""What goes wrong around passages: work that ends half-way, sources that change between two looks, mistakes."""

import threading

import duckdb
import numpy as np
import pytest
from duckdb.sqltypes import VARCHAR

from jammi_duck.encoder import Encodings
from jammi_duck.encoder.passages import Cuts, Cutter, resolve_rule
from jammi_duck.errors import ModelError, StorageError
from jammi_duck.storage.tables import build
from jammi_duck.types import Definition, PassageRule
from jammi_duck.work.cut_texts import CutText, PassageBuffer
from tests.fakes import FakeEncoder, text_vector
from tests.test_generate import error_of

ONE, TWO = "red green blue grey pink.", "one two three four five."
GENERATE = "FROM jammi_generate('t', 'body', 'id', passages := {'tokens': 8})"


def stored(con):
    ((name,),) = con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'ready'").fetchall()
    return con.execute(
        f'SELECT _row_id, _passage, _start, _end, lower(hex(_row_digest)), vector FROM jammi."{name}" ORDER BY ALL'
    ).fetchall()


def test_an_import_that_ends_half_way_leaves_whole_texts(fake, monkeypatch):
    """More passages of a text come than DuckDB gives at a time, and a segment ends within one."""
    con = fake(segment_rows=2048).con
    con.execute("SET threads = 1")
    con.execute("CREATE TABLE t AS SELECT i AS id, repeat('word ', 3000) AS body FROM range(3) r(i)")
    con.execute(
        "CREATE TABLE made AS SELECT id, 5 * x AS s, 5 * x + 4 AS e, [1.0, x] || list_transform(range(62), "
        "lambda y: 0.0) AS v FROM t, range(3000) r(x)"
    )

    def full(*_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(build.Build, "finish", full)
        options = "cols := 'body', passages := {'start': 's', 'end': 'e', 'tokens': 8}"
        call = f"jammi_import('t', 'made', 'id', 'v', model := 'fake/small', {options})"
        assert "the disk is full" in error_of(con, f"FROM {call}")
    ((added, unchanged),) = con.execute("SELECT added, unchanged FROM jammi_refresh('t')").fetchall()
    assert added + unchanged == 3
    assert unchanged
    counts = np.unique([key for key, *_ in stored(con)], return_counts=True)[1].tolist()
    # What was imported is whole, and the rest was cut by the rule.
    assert counts.count(3000) == unchanged
    assert con.execute("SELECT current, new, changed FROM jammi_status('t')").fetchall() == [(3, 0, 0)]


@pytest.mark.parametrize("order", ["AAB", "ABA", "ABB", "BAA", "BAB", "BBA"])
def test_a_source_that_changes_between_two_looks_is_refused(fake, order):
    """Keys are read first, then texts to be cut, then texts again: no passage gets the vector of another."""
    con = fake().con
    con.execute("SET threads = 1")
    texts = {"A": f"{ONE}\n\n{TWO}", "B": f"{TWO}\n\n{ONE}"}
    looks, is_changing = [], threading.Event()

    def text_of(_):
        looks.append(True)
        if not is_changing.is_set():
            return f"another text\n\n{texts['B']}"
        return texts[order[min(len(looks), 3) - 1]]

    con.create_function("text_of", text_of, [VARCHAR], VARCHAR, side_effects=True)
    con.execute("CREATE TABLE k AS SELECT 1 AS id")
    con.execute("CREATE VIEW t AS SELECT id, text_of(id::VARCHAR) AS body FROM k")
    con.execute(GENERATE).fetchall()
    before = stored(con)
    is_changing.set()
    looks.clear()
    assert "did not give the same rows when it was read again" in error_of(con, "FROM jammi_refresh('t')")
    assert stored(con) == before


def test_no_thread_forgets_that_a_passage_has_failed():
    rule = PassageRule("jammi 1", 8, 0, "paragraph")
    definition = Definition("t", ("body",), "id", "m", None, "", "", "", "float32", 8, 4, passages=rule)
    buffer = PassageBuffer(FakeEncoder("m"), definition, Cutter(FakeEncoder("m"), rule))
    written = []

    class Sink:
        def write(self, row_ids, *_):
            written.append(row_ids)

    for _ in range(50):
        text = CutText(["1"], "a b", "", "a b", Cuts(np.array([0, 2]), np.array([1, 3])), 4)
        start = threading.Barrier(2)

        def embed(passage, text=text, start=start):
            batch = buffer._new_batch()
            batch.add([(text, passage)], "ab"[passage])
            encodings = Encodings(np.eye(1, 4, dtype=np.float32), np.array([False]), np.array([passage == 0]))
            start.wait()
            buffer._take(batch, encodings, Sink())

        threads = [threading.Thread(target=embed, args=[passage]) for passage in (0, 1)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert text.has_failed
    assert written == []


def test_one_title_in_other_spellings_is_one_table(con):
    con.execute("CREATE TABLE t AS SELECT 1 AS id, 'about' AS title, 'more' AS note, 'a text' AS body")

    def synced(columns, title):
        call = f"jammi_sync('t', {columns}, 'id', passages := {{'tokens': 8, 'title': {title}}})"
        return con.execute(f"SELECT action FROM {call}").fetchall()[0][0]

    assert synced("'body'", "'title'") == "generated"
    for columns, title in (("'BODY'", "'Title'"), ("['title', 'body']", "'title'"), ("['body', 'title']", "['TITLE']")):
        assert synced(columns, title) == "unchanged"
    assert synced("'body'", "['title', 'note']") == "generated"
    assert synced("['note', 'body', 'title']", "['title', 'note', 'Title']") == "unchanged"
    assert synced("'body'", "['note', 'title']") == "generated"


def test_equal_passages_are_embedded_once(jammi, con):
    con.execute(f"CREATE TABLE t AS SELECT i AS id, '{ONE}\n\n{TWO} ' || i AS body FROM range(20) r(i)")
    encoded = jammi.encoders.get("fake/small").encoded
    con.execute(GENERATE).fetchall()
    assert len(encoded) == len(set(encoded))
    con.execute("UPDATE t SET body = replace(body, 'pink', 'white')")
    assert con.execute("SELECT changed, encoded FROM jammi_refresh('t')").fetchall() == [(20, 1)]


def test_keys_are_checked_before_texts_are_cut(con, monkeypatch):
    con.execute(f"CREATE TABLE t AS SELECT i AS id, '{ONE}' AS body FROM range(3) r(i)")
    con.execute(GENERATE).fetchall()
    con.execute("INSERT INTO t VALUES (1, 'another'), (9, 'a third')")
    monkeypatch.setattr(Cutter, "cut", lambda *_: pytest.fail("cut"))
    assert "is not unique" in error_of(con, "FROM jammi_refresh('t')")


def test_an_import_without_columns(con):
    con.execute(f"CREATE TABLE t AS SELECT i AS id, '{ONE}' AS body FROM range(3) r(i)")
    con.execute("CREATE TABLE made AS SELECT id, embed(body) AS v FROM t")
    call = "jammi_import('t', 'made', 'id', 'v', model := 'fake/small', passages := {})"
    assert "the columns of the texts are not known" in error_of(con, f"FROM {call.format({'title': 'title'})}")
    con.execute(f"FROM {call.format('true')}").fetchall()
    con.execute("INSERT INTO t VALUES (9, 'a text')")
    assert "imported without the columns of its text" in error_of(con, "FROM jammi_refresh('t')")


@pytest.mark.parametrize("tokens", [2**31, 2**63, 10**20])
def test_too_many_tokens_are_refused_before_anything_is_built(con, tokens):
    con.execute("CREATE TABLE t AS SELECT 1 AS id, 'a text' AS body")
    options = f"vectors := false, passages := {{'tokens': {tokens}}}"
    assert f"tokens is {tokens}; it must be from 16 to 1,000,000" in error_of(
        con, f"FROM jammi_generate('t', 'body', 'id', {options})"
    )
    assert con.execute("FROM jammi_tables()").fetchall() == []


def test_a_fresh_search_that_fails_leaves_nothing_at_work(jammi, con, monkeypatch):
    con.execute(f"CREATE TABLE t AS SELECT 1 AS id, '{ONE}' AS body")
    con.execute(GENERATE).fetchall()
    con.execute("UPDATE t SET body = 'poison'")

    def fail(*_):
        raise ModelError("the tokenizer fails at it")

    monkeypatch.setattr(Cutter, "cut", fail)
    vector = text_vector(ONE).tolist()
    with pytest.raises(duckdb.Error, match="the tokenizer fails at it"):
        con.execute("FROM jammi_search('t', ?, fresh := true)", [vector]).fetchall()
    assert con.execute("SELECT stage FROM jammi_catalog.embedding_tables").fetchall() == [(None,)]


def test_words_of_passages_need_no_model(fake, monkeypatch):
    jammi = fake()
    con = jammi.con
    con.execute(f"CREATE TABLE t AS SELECT i AS id, '{ONE} ' || i AS body FROM range(3) r(i)")
    con.execute(f"{GENERATE[:-1]}, words := false)").fetchall()
    jammi.encoders.loaded.clear()
    assert con.execute("SELECT row_count FROM jammi_index_words('t')").fetchall() == [(3,)]
    assert resolve_rule(FakeEncoder("m"), None, None, None).tokens == 8


@pytest.mark.parametrize("collation", ["NOCASE", "NOACCENT", "C"])
def test_keys_are_compared_letter_by_letter(fake, collation):
    """Whatever collation there is, rows whose keys are equal by it are rows of their own."""
    con = fake().con
    con.execute(f"PRAGMA default_collation = '{collation}'")
    texts = {"A": f"{ONE}\n\n{TWO}", "a": "eleven twelve", "á": "thirteen fourteen"}
    con.execute("CREATE TABLE t (id VARCHAR, body VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", list(texts.items()))
    con.execute(f"{GENERATE[:-1]}, words := false)").fetchall()

    def cut():
        return con.execute("SELECT _row_id, _passage_text FROM jammi_passages('t')").fetchall()

    assert sorted(cut()) == [("A", TWO), ("A", ONE), ("a", "eleven twelve"), ("á", "thirteen fourteen")]
    con.execute("FROM jammi_index_words('t')").fetchall()
    for word, key in (("eleven", "a"), ("three", "A"), ("fourteen", "á")):
        hits = con.execute("SELECT _row_id FROM jammi_matches('t', ?, mode := 'text')", [word]).fetchall()
        assert hits == [(key,)]
    con.execute("UPDATE t SET body = 'fifteen' WHERE body = 'eleven twelve'")
    assert con.execute("SELECT changed, encoded FROM jammi_refresh('t')").fetchall() == [(1, 1)]
    assert sorted(cut()) == [("A", TWO), ("A", ONE), ("a", "fifteen"), ("á", "thirteen fourteen")]
