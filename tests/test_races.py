"""What others do in just the wrong moment: another connection, another database, or a process that died before.

Each moment is forced: a step of one is made to do what another does, and then goes on.
"""

import logging
import shutil
import threading
from datetime import datetime

import duckdb
import fsspec
import pytest

from jammi_duck.doors.host import ConnectionHost
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.local_store import LocalStore
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.files.object_store import ObjectStore
from jammi_duck.storage.tables import build, change, recovery
from jammi_duck.storage.tables.build import Build
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.table import Table
from jammi_duck.work.refresh import Refresher
from tests.races import ask, fill, found, generate, interrupt, refresh
from tests.test_generate import error_of
from tests.test_threads import run_all


@pytest.fixture
def memory(tmp_path):
    location = f"memory://{tmp_path.name}"
    yield location
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(f"/{tmp_path.name}"):
        filesystem.rm(f"/{tmp_path.name}", recursive=True)


def test_two_databases_delete_the_same_rows_at_once(fake, memory, tmp_path, before):
    """What both write is not the same file, although the rows are."""
    first, second = (fake(storage=memory, cache_dir=tmp_path / name).con for name in ("one", "two"))
    fill(first, range(10))
    generate(first)
    second.execute("FROM jammi_recover()").fetchall()
    fill(second, range(8))
    first.execute("DELETE FROM t WHERE id >= 8")
    before(ObjectStore, "create", lambda: refresh(second), when=lambda _, file, __: file.endswith(".deleted.parquet"))
    assert refresh(first) == [(0, 0, 2)]
    store = open_store(memory, tmp_path / "three")
    state = manifest.read(store, max(filter(layout.is_manifest, store.files())))
    assert len({each.parquet for each in state.tombstones}) == len(state.tombstones)
    for con in (first, second, fake(storage=memory, cache_dir=tmp_path / "three").con):
        con.execute("FROM jammi_recover()").fetchall()
        assert found(con) == list(range(8))


class TestOneNameTwice:
    """Two databases build the same source in the same second: none touches what the other has made."""

    @pytest.fixture
    def second(self, monkeypatch):
        class Stopped(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime(2026, 3, 25, 12, tzinfo=tz)

        monkeypatch.setattr(build, "datetime", Stopped)

    @pytest.fixture
    def open_first(self, fake, tmp_path):
        return lambda: fake(duckdb.connect(str(tmp_path / "first.duckdb"))).con

    def build_at_once(self, first, other, before, end):
        def theirs():
            self.name, _ = generate(other)
            end()

        fill(first, range(10))
        fill(other, range(10))
        before(Build, "finish", theirs)
        with pytest.raises((KeyboardInterrupt, duckdb.Error)):
            generate(first)

    def test_the_first_is_killed(self, fake, storage, open_first, second, before):
        first, other = open_first(), fake().con
        self.build_at_once(first, other, before, interrupt)
        files = {path.name for path in (storage / "jammi_db").iterdir() if not path.name.startswith(".")}
        first.close()
        first = open_first()
        assert {path.name for path in (storage / "jammi_db").iterdir()} == files
        assert ask(first, "SELECT status FROM jammi_tables()") == [("failed",)]
        assert ask(first, "SELECT action FROM jammi_drop(?)", self.name) == [("removed 0 files",)]
        assert found(fake().con) == found(other) == list(range(10))

    def test_the_first_fails(self, fake, open_first, second, before):
        first, other = open_first(), fake().con

        def fail():
            raise RuntimeError("the first fails")

        self.build_at_once(first, other, before, fail)
        assert ask(first, "SELECT table_name: embedding_table, action FROM jammi_recover()")[0][0] == self.name
        assert found(first) == found(other) == list(range(10))


def test_a_search_opens_a_table_while_a_refresh_commits(fake, before):
    jammi = fake()
    con, other = jammi.con, jammi.con.cursor()
    fake(other)
    fill(con, range(10))
    generate(con)
    fill(con, range(100, 105))
    before(Table, "open", lambda: refresh(con), after=True)
    assert len(ask(other, "FROM jammi_matches('t', 'word1', 100)")) == 10
    assert found(other) == found(con) == [*range(10), *range(100, 105)]


class TestRepair:
    @pytest.fixture
    def spoilt(self, fake, storage):
        """A connection whose table lost an index; a repair has died before its manifest was there."""
        con = fake().con
        fill(con, range(10))
        generate(con)
        (graph,) = (storage / "jammi_db").glob("*.usearch")
        graph.unlink()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recovery.manifest, "commit", lambda *_: interrupt())
            with pytest.raises((KeyboardInterrupt, duckdb.Error)):
                con.execute("FROM jammi_recover()").fetchall()
        fill(con, range(100, 105))
        return con

    def test_and_a_refresh_that_began_before(self, fake, spoilt, before):
        other = spoilt.cursor()
        fake(other)
        before(Change, "finish", lambda: ask(other, "FROM jammi_recover()"))
        assert refresh(spoilt) == [(5, 0, 0)]
        assert found(spoilt) == [*range(10), *range(100, 105)]

    def test_and_a_refresh_of_another_database_that_ends_first(self, fake, spoilt, before):
        other = fake().con
        fill(other, [*range(10), *range(100, 105)])
        before(recovery.manifest, "commit", lambda: refresh(other))
        assert ask(spoilt, "SELECT status, action FROM jammi_recover()") == [
            ("ready", "another process is changing it; SELECT * FROM jammi_recover() again")
        ]
        spoilt.execute("FROM jammi_recover()").fetchall()
        for con in (spoilt, other, fake().con):
            assert found(con) == [*range(10), *range(100, 105)]

    def test_of_a_table_whose_tombstones_are_damaged_says_so(self, fake, storage):
        con = fake().con
        fill(con, range(10))
        generate(con)
        con.execute("DELETE FROM t WHERE id = 1")
        refresh(con)
        (path,) = (storage / "jammi_db").glob("*.deleted.parquet")
        path.write_bytes(bytes(100))
        ((status, action),) = ask(con, "SELECT status, action FROM jammi_recover()")
        assert status == "ready"
        assert f"'{path.name}' has 100 bytes" in action
        assert "put it back, or jammi_drop it" in action

    def test_goes_on_where_a_location_cannot_be_reached(self, fake, storage, tmp_path, monkeypatch):
        con = duckdb.connect(str(tmp_path / "db.duckdb"))
        away = str(tmp_path / "away")
        jammi = fake(con, storage=away)
        fill(con, range(10))
        generate(con)
        con.close()
        del jammi
        con = fake(duckdb.connect(str(tmp_path / "db.duckdb"))).con
        near, _ = generate(con)
        (graph,) = (storage / "jammi_db").glob("*.usearch")
        graph.unlink()
        shutil.rmtree(away)
        (tmp_path / "away").write_text("no folder any more")
        actions = dict(ask(con, "SELECT embedding_table, action FROM jammi_recover()"))
        assert len(actions) == 2
        assert actions.pop(near) == "built 1 of 1 indexes and the manifest again"
        assert all("cannot" in action for action in actions.values())


def test_vectors_that_another_change_had_left_are_gone_meanwhile(fake, storage, before):
    con = fake(segment_rows=10).con
    other = con.cursor()
    fake(other, segment_rows=10)
    fill(con, range(10))
    generate(con)
    fill(con, range(100, 125))

    def second():
        before(Refresher, "renew", fail)
        error = error_of(other, "FROM jammi_refresh('t')")
        assert "which an interrupted change had left, is gone by now; run this again" in error

    def fail():
        for path in (storage / "jammi_db").glob("t__*.0*.parquet"):
            path.unlink()

    before(Change, "finish", second)
    error_of(con, "FROM jammi_refresh('t')")
    assert refresh(con) == [(25, 0, 0)]
    assert found(con) == [*range(10), *range(100, 125)]


def test_numbers_may_have_more_than_five_digits(fake, storage):
    con = fake().con
    fill(con, range(10))
    name, _ = generate(con)
    # Stands for what 50,000 refreshes have left.
    (storage / "jammi_db" / layout.deleted(name, 99_999)).write_bytes(b"")
    fill(con, [10])
    con.execute("DELETE FROM t WHERE id = 1")
    assert refresh(con) == [(1, 0, 1)]
    assert refresh(con) == [(0, 0, 0)]
    assert found(con) == [0, *range(2, 11)]
    assert layout.parquet(name, 100_000) in {path.name for path in (storage / "jammi_db").iterdir()}


def test_statements_of_the_catalog_wait_for_each_other(fake, monkeypatch):
    """Two that write one row at once would be in conflict in DuckDB."""
    jammi = fake()
    jammi.con.execute("CREATE VIEW t AS SELECT 1 AS id, coalesce(getvariable('mine'), 'a')::VARCHAR AS text")
    generate(jammi.con)
    real, inside, most = ConnectionHost.sql, [0], [0]

    def sql(self, text, parameters=(), rows=None):
        if not text.startswith("UPDATE"):
            return real(self, text, parameters, rows)
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        threading.Event().wait(0.02)
        inside[0] -= 1
        return real(self, text, parameters, rows)

    monkeypatch.setattr(ConnectionHost, "sql", sql)

    def work(number):
        con = jammi.con.cursor()
        fake(con)
        for turn in range(3):
            con.execute(f"SET VARIABLE mine = 'a{number} b{turn}'")
            refresh(con)

    run_all([lambda number=number: work(number) for number in range(3)])
    assert most == [1]


def test_files_that_moved_and_were_changed_there(fake, tmp_path):
    con = duckdb.connect(str(tmp_path / "db.duckdb"))
    fake(con, storage=str(tmp_path / "one"))
    fill(con, range(10))
    generate(con)
    con.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    there = fake(storage=str(tmp_path / "two")).con
    fill(there, range(3, 14))
    assert refresh(there) == [(4, 0, 3)]
    shutil.rmtree(tmp_path / "one")
    con = fake(duckdb.connect(str(tmp_path / "db.duckdb")), storage=str(tmp_path / "two")).con
    assert found(con) == list(range(3, 14))
    assert ask(con, "SELECT row_count, location FROM jammi_tables()") == [(11, str(tmp_path / "two"))]


def test_an_interrupted_refresh_leaves_nothing_half_written(fake, storage, before):
    """Also where another has ended meanwhile, so that the catalog does not say any more that one is under way."""
    con = fake(segment_rows=4).con
    other = con.cursor()
    fake(other, segment_rows=4)
    fill(con, range(4))
    generate(con)
    fill(con, range(100, 110))

    def theirs():
        other.execute("BEGIN; DELETE FROM t WHERE id >= 3")
        assert refresh(other) == [(0, 0, 1)]
        other.execute("ROLLBACK")
        interrupt()

    before(Change, "finish", theirs)
    with pytest.raises((KeyboardInterrupt, duckdb.Error)):
        refresh(con)
    assert refresh(con) == [(11, 0, 0)]
    assert not list((storage / "jammi_db").glob(".*"))


def test_a_compaction_that_begins_again_is_no_error(fake, before, caplog):
    con = fake().con
    other = con.cursor()
    fake(other)
    fill(con, range(10))
    generate(con)
    con.execute("DELETE FROM t WHERE id = 1")
    refresh(con)
    fill(con, [20])
    before(Change, "finish", lambda: refresh(other))
    with caplog.at_level(logging.INFO, "jammi_duck"):
        assert ask(con, "SELECT segments FROM jammi_compact('t')") == [(1,)]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "starting again" in caplog.text
    assert found(con) == [0, *range(2, 10), 20]


def test_vectors_whose_file_has_the_number_of_anothers_tombstones(fake, tmp_path, before):
    """Both took the same number; the one that died has embedded its texts all the same."""
    jammi = fake(segment_rows=10)
    con = jammi.con
    fill(con, range(10))
    generate(con)
    other = fake(segment_rows=10, cache_dir=tmp_path / "other").con
    fill(other, range(9))
    fill(con, range(100, 110))

    def theirs():
        assert refresh(other) == [(0, 0, 1)]
        before(Change, "_commit", interrupt)

    before(Change, "write", theirs)
    with pytest.raises((KeyboardInterrupt, duckdb.Error)):
        refresh(con)
    encoded = jammi.encoders.get("fake/small").encoded
    encoded.clear()
    assert refresh(con) == [(11, 0, 0)]
    assert encoded == ["word9"]
    assert found(con) == [*range(10), *range(100, 110)]


def test_a_number_that_was_given_back_is_anothers(fake, storage, tmp_path, before, monkeypatch):
    """A change that must fit deletes its tombstones; a third takes their name, and then this one fails."""
    first, second = (fake(cache_dir=tmp_path / name).con for name in ("one", "two"))
    fill(first, range(10))
    name, _ = generate(first)
    second.execute("FROM jammi_recover()").fetchall()
    fill(second, range(9))
    first.execute("DELETE FROM t WHERE id = 0")
    third = storage / "jammi_db" / layout.deleted(name, 1)

    def touched(*_):
        assert not third.exists()
        third.write_bytes(b"of a third database")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(change, "_touched", touched)
    before(manifest, "commit", lambda: refresh(second))
    assert "No space left on device" in error_of(first, "FROM jammi_refresh('t')")
    assert third.read_bytes() == b"of a third database"


def test_a_manifest_is_taken_back_where_a_file_went_just_before_it(fake, storage, monkeypatch):
    """Between the look at what is there and the manifest: no state names a file that is gone."""
    con = fake().con
    fill(con, range(4))
    generate(con)
    folder = storage / "jammi_db"
    manifests = sorted(folder.glob("*.manifest.json"))
    (first,) = (path for path in folder.glob("*.parquet") if not path.name.endswith(".deleted.parquet"))
    content, create = first.read_bytes(), LocalStore.create

    def late(store, file, scratch):
        if layout.is_manifest(file):
            first.unlink()
        return create(store, file, scratch)

    fill(con, range(100, 103))
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "create", late)
        with pytest.raises(duckdb.Error, match="is gone"):
            refresh(con)
    assert sorted(folder.glob("*.manifest.json")) == manifests
    first.write_bytes(content)
    assert found(con)[:4] == list(range(4))
