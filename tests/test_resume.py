"""Builds that were interrupted go on, and tables that are up to date are used again."""

import pytest

from jammi_duck.errors import StorageError
from jammi_duck.storage.files import manifest
from jammi_duck.storage.files.local_store import LocalStore
from jammi_duck.storage.tables import snapshot as present
from jammi_duck.storage.tables.change import Change
from jammi_duck.work.refresh import Refresher
from tests.followed import status, table_of
from tests.races import ask, fill, found, generate, interrupted_build, refresh
from tests.test_generate import error_of


class TestReuseAndResume:
    def test_the_same_again_is_the_same_table(self, words, encoded):
        again = "SELECT embedding_table, row_count, status FROM jammi_generate('t', {}, 'id', reuse := true)"
        name = table_of(words)
        assert words.execute(again.format("'text'")).fetchall() == [(name, 10, "ready")]
        assert encoded() == []
        words.execute("UPDATE t SET text = 'other' WHERE id = 1")
        ((other, rows, _),) = words.execute(again.format("'text'")).fetchall()
        assert (other != name, rows, len(encoded())) == (True, 10, 10)
        words.execute("FROM jammi_generate('t', 'text', 'id', dims := 5)").fetchall()
        assert words.execute(again.format("'text'")).fetchall() == [(other, 10, "ready")]
        ((third, _, _),) = words.execute(again.format("['text', 'text']")).fetchall()
        assert third not in (name, other)

    def test_another_model_is_another_table(self, jammi, words, encoded):
        from tests.fakes import FakeEncoder

        name = table_of(words)
        jammi.encoders.loaded["fake/small"] = FakeEncoder("fake/small", weights="1" * 64)
        again = "SELECT embedding_table FROM jammi_generate('t', 'text', 'id', reuse := true)"
        assert words.execute(again).fetchall() != [(name,)]

    def test_nothing_to_resume_is_a_build(self, words, encoded):
        row = words.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id', resume := true)").fetchall()
        assert (row, len(encoded())) == ([(10,)], 10)


class TestResumed:
    @pytest.fixture
    def interrupted(self, fake):
        con = fake(segment_rows=4).con
        fill(con, range(10))
        interrupted_build(con)
        con.execute("DELETE FROM t WHERE id = 0")
        con.execute("UPDATE t SET text = 'other' WHERE id = 1")
        return con

    def test_by_two_at_once(self, fake, interrupted, before):
        other = interrupted.cursor()
        fake(other, segment_rows=4)
        before(Refresher, "begin", lambda: generate(interrupted, ", resume := true"))
        error = error_of(other, "FROM jammi_generate('t', 'text', 'id', resume := true)")
        assert "has changed since this query was planned; run it again" in error
        assert found(other) == list(range(1, 10))
        assert refresh(other) == [(0, 0, 0)]

    def test_while_another_is_at_it(self, interrupted, monkeypatch):
        begin = Refresher.begin

        def late(self, found, caller):
            monkeypatch.setattr(self._jobs, "settle", lambda caller: None)
            self._tables.catalog.mark_resumed(found.build, "another")
            return begin(self, found, caller)

        monkeypatch.setattr(Refresher, "begin", late)
        error = error_of(interrupted, "FROM jammi_generate('t', 'text', 'id', resume := true)")
        assert "is being built by another connection; wait until that is done" in error

    def test_after_a_vacuum_that_came_between(self, interrupted, fake, storage, before):
        other = interrupted.cursor()
        fake(other, segment_rows=4)

        def vacuum():
            for path in (storage / "jammi_db").glob("*.parquet"):
                path.unlink()

        before(Refresher, "begin", vacuum)
        error = error_of(interrupted, "FROM jammi_generate('t', 'text', 'id', resume := true)")
        assert "has changed since this query was planned; run it again" in error
        assert generate(interrupted, ", resume := true")[1] == 9
        assert found(interrupted) == list(range(1, 10))

    def test_not_where_a_newer_table_is_ready(self, interrupted):
        interrupted.execute("UPDATE jammi_catalog.embedding_tables SET started = started - INTERVAL 1 MINUTE")
        newer, _ = generate(interrupted)
        fill(interrupted, [77])
        resumed, rows = generate(interrupted, ", resume := true")
        ((searched,),) = ask(interrupted, "SELECT embedding_table FROM jammi_status('t')")
        assert (resumed, rows) == (searched, 10)
        assert resumed != newer


class TestLeft:
    """What a refresh has embedded before it failed is used by later ones, whatever came in between."""

    @pytest.fixture
    def left(self, fake, before):
        jammi = fake(segment_rows=10)
        con = jammi.con
        fill(con, range(10))
        generate(con)
        con.execute("DELETE FROM t WHERE id = 0")
        refresh(con)
        con.execute("CREATE TABLE later AS SELECT 100 + range AS id, 'later' || range AS text FROM range(15)")
        con.execute("INSERT INTO t FROM later")
        before(Change, "finish", lambda: 1 / 0)
        error_of(con, "FROM jammi_refresh('t')")
        con.execute("DELETE FROM t WHERE id >= 100")
        self.encoded = jammi.encoders.get("fake/small").encoded
        return con

    def comes_back(self, con):
        self.encoded.clear()
        con.execute("INSERT INTO t FROM later")
        assert refresh(con)[0][0] == 15
        assert sorted(self.encoded) == [f"later{i}" for i in range(10, 15)]

    def test_nothing(self, left):
        self.comes_back(left)

    def test_another_refresh(self, left):
        for key in (20, 21):
            fill(left, [key])
            assert refresh(left) == [(1, 0, 0)]
        self.comes_back(left)
        assert found(left) == [*range(1, 10), 20, 21, *range(100, 115)]

    def test_more_states_than_are_looked_at(self, left, monkeypatch):
        monkeypatch.setattr(present, "_LOOK_BACK", 3)
        looked_at = []
        read = manifest.read
        monkeypatch.setattr(manifest, "read", lambda store, file: looked_at.append(file) or read(store, file))
        for key in range(20, 24):
            fill(left, [key])
            assert refresh(left) == [(1, 0, 0)]
        self.encoded.clear()
        looked_at.clear()
        left.execute("INSERT INTO t FROM later")
        assert refresh(left) == [(15, 0, 0)]
        assert len(self.encoded) == 15
        assert len(looked_at) < 8

    def test_a_compaction(self, left):
        """Files of the states before it are not leftovers: a text that only these had is new."""
        assert ask(left, "SELECT segments FROM jammi_compact('t')") == [(1,)]
        fill(left, [0])
        assert refresh(left) == [(1, 0, 0)]
        assert self.encoded[-1] == "word0"
        self.comes_back(left)


class TestDamage:
    @pytest.fixture
    def damaged(self, words, storage):
        (path,) = (storage / "jammi_db").glob("*.parquet")
        path.write_bytes(path.read_bytes()[:-10])
        return words

    def test_the_way_out_is_told(self, damaged):
        name = damaged.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[0][0]
        for verb in ("refresh", "status"):
            error = error_of(damaged, f"FROM jammi_{verb}('t')")
            assert f"put it back, or drop '{name}' with jammi_drop and generate it again" in error

    def test_nothing_of_it_is_used_again(self, damaged, caplog):
        row = damaged.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id', reuse := true)").fetchall()
        assert row == [(10,)]
        assert "cannot be used again" in caplog.text
        assert status(damaged) == (10, 0, 0, 0)


def test_a_build_of_other_dimensions_is_not_resumed(fake):
    con = fake(segment_rows=4).con
    fill(con, range(10))
    interrupted_build(con, ", dims := 32")
    made = ask(con, "SELECT dimensions, row_count FROM jammi_generate('t', 'text', 'id', resume := true)")
    assert made == [(64, 10)]


def unreachable(*_):
    raise StorageError("cannot list the location")


def test_status_tells_of_a_build_that_was_interrupted(fake, storage, monkeypatch):
    con = fake(segment_rows=4).con
    fill(con, range(10))
    interrupted_build(con)
    way_out = "goes on with one that was interrupted, with resume := true"
    assert way_out in error_of(con, "FROM jammi_status('t')")
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "files", unreachable)
        error = error_of(con, "FROM jammi_status('t')")
        assert "no embedding table for 't'" in error
        assert way_out not in error
    for path in (storage / "jammi_db").iterdir():
        path.unlink()
    assert way_out not in error_of(con, "FROM jammi_status('t')")
