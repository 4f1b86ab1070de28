"""What a drop and a vacuum remove, and what they leave, also of work that goes on meanwhile."""

from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest

from jammi_duck.storage.files import layout, local_store, manifest
from jammi_duck.storage.files import store as filesystem
from jammi_duck.storage.files.locks import SharedLocks
from jammi_duck.storage.files.parquet import SegmentWriter
from jammi_duck.storage.tables import ownership
from jammi_duck.storage.tables.build import Build
from jammi_duck.storage.tables.change import Change
from tests.later import put_file, with_metadata
from tests.races import ask, fill, found, generate, interrupt, interrupted_build, refresh
from tests.test_format import DEFINITION
from tests.test_generate import error_of
from tests.worlds import World, every_death


def test_a_vacuum_removes_what_nothing_names_and_only_what_is_old(fake, storage):
    con = fake(retention=timedelta(0)).con
    fill(con, range(10))
    generate(con)
    folder = storage / "jammi_db"
    stray = "x__embedding__m__20200101T000000.parquet"
    unfinished(folder / stray)
    (folder / f".{stray}.0a1b2c3d-0e0f.tmp").write_bytes(b"123")
    (folder / "notes.txt").write_text("not ours")
    (folder / "cut__embedding__m__20200101T000000.parquet").write_bytes(b"123")
    size = (folder / stray).stat().st_size
    removed = ask(con, "SELECT file, bytes FROM jammi_vacuum() WHERE reason NOT LIKE '%cache%' ORDER BY 1")
    assert removed == [(f".{stray}.0a1b2c3d-0e0f.tmp", 3), (stray, size)]
    assert (folder / "notes.txt").exists()
    # Nothing in it says whose it is.
    assert (folder / "cut__embedding__m__20200101T000000.parquet").exists()
    assert found(con) == list(range(10))


def files_after_drop(con, storage, name):
    ask(con, "FROM jammi_drop(?)", name)
    return sorted(path.name for path in (storage / "jammi_db").iterdir())


def test_a_connection_that_is_closed_holds_no_files(fake, storage):
    con = fake().con
    other = con.cursor()
    fake(other)
    fill(con, range(10))
    name, _ = generate(con)
    ask(other, "EXPLAIN FROM jammi_refresh('t')")
    other.close()
    assert files_after_drop(con, storage, name) == []


def test_a_table_that_was_used_again_can_be_dropped(fake, storage):
    con = fake().con
    fill(con, range(10))
    name, _ = generate(con)
    assert generate(con, ", reuse := true")[0] == name
    assert files_after_drop(con, storage, name) == []


def unfinished(path):
    """A whole segment of a build that never came to its last one."""
    writer = SegmentWriter(path, DEFINITION, "0" * 32)
    writer.write(["a"], np.eye(1, DEFINITION.dimensions, dtype=np.float32), [b"0" * 16])
    writer.close()


def test_a_vacuum_spares_what_is_young(fake, storage):
    con = fake().con
    (storage / "jammi_db").mkdir(parents=True)
    unfinished(storage / "jammi_db" / "x__embedding__m__20200101T000000.parquet")
    assert ask(con, "FROM jammi_vacuum()") == []


def test_a_vacuum_spares_a_state_that_another_database_has_made(fake, storage, tmp_path):
    con, other = (fake(retention=timedelta(0), cache_dir=tmp_path / side).con for side in ("one", "two"))
    fill(con, range(10))
    generate(con)
    ask(other, "FROM jammi_recover()")
    fill(other, range(3, 12))
    assert refresh(other) == [(2, 0, 3)]
    ask(con, "FROM jammi_vacuum()")
    other.close()
    there = fake(cache_dir=tmp_path / "two").con
    assert found(there) == list(range(3, 12))


@pytest.mark.parametrize("verb", ["generate", "refresh", "compact"])
def test_a_vacuum_spares_what_is_being_written(fake, before, verb):
    con = fake(retention=timedelta(0)).con
    other = con.cursor()
    fake(other, retention=timedelta(0))
    fill(con, range(10))
    if verb != "generate":
        generate(con)
        fill(con, range(100, 103))
    if verb == "compact":
        refresh(con)
    before(manifest, "commit", lambda: ask(other, "FROM jammi_vacuum()"))
    columns = ", 'text', 'id'" if verb == "generate" else ""
    ask(con, f"FROM jammi_{verb}('t'{columns})")
    assert found(con) == [*range(10), *(range(100, 103) if verb != "generate" else ())]
    assert ask(con, "FROM jammi_recover()") == []


@pytest.fixture
def failed(fake, tmp_path):
    """A world with a build that failed, and left whole segments."""
    world = World(fake, tmp_path, str(tmp_path / "world" / "artifacts"), segment_rows=2)
    con = world.open()
    fill(con, range(10))
    interrupted_build(con)
    ((world.name, _),) = ask(con, "SELECT embedding_table, status FROM jammi_tables()")
    con.close()
    return world


class TestFailed:
    def test_a_drop_that_dies_is_finished(self, failed, monkeypatch):
        outcomes, files = set(), len(failed.store().files())
        for death in every_death(failed, monkeypatch, lambda con: ask(con, "FROM jammi_drop(?)", failed.name)):
            con = failed.open()
            outcomes.add(len(failed.store().files()))
            is_there = ask(con, "SELECT status FROM jammi_tables()")
            assert (is_there, len(failed.store().files())) in (([], 0), ([("failed",)], files)), death.at
            con.close()
        assert outcomes == {0, files}

    def test_a_location_that_is_away(self, failed, monkeypatch):
        con = failed.open()
        with monkeypatch.context() as patch:
            patch.setattr(local_store.os, "listdir", away)
            patch.setattr(filesystem.os, "listdir", away)
            assert "cannot list" in error_of(con, f"FROM jammi_drop('{failed.name}')")
            assert ask(con, "FROM jammi_tables()") == []
        assert ask(con, "SELECT status, action FROM jammi_recover()") == [
            ("dropped", "removed the files that a drop had left")
        ]
        assert failed.store().files() == {}

    def test_another_database_takes_the_name_meanwhile(self, failed, before):
        """Files that come after the drop has looked are not its own."""
        con = failed.open()
        for file in failed.store().files():
            failed.store().delete(file)
        path = Path(failed.store().path(f"{failed.name}.parquet"))
        before(ownership, "remove_files", lambda: path.write_bytes(b"of another database"))
        ((action,),) = ask(con, "SELECT action FROM jammi_drop(?)", failed.name)
        left = f"left alone, which nothing shows to be of this table: {path.name}"
        assert action == f"removed 0 files; {left}"
        assert path.read_bytes() == b"of another database"


def away(*_):
    raise PermissionError(13, "Permission denied")


def test_a_build_that_failed_is_dropped(fake, storage):
    con = fake(segment_rows=4).con
    fill(con, range(10))
    interrupted_build(con)
    ((name, _),) = ask(con, "SELECT embedding_table, status FROM jammi_tables()")
    assert ask(con, "SELECT status, action FROM jammi_drop(?)", name) == [("dropped", "removed 4 files")]
    assert ask(con, "FROM jammi_tables()") == []
    assert list((storage / "jammi_db").iterdir()) == []
    assert f"no embedding table '{name}'" in error_of(con, f"FROM jammi_drop('{name}')")


def test_what_somebody_reads_is_left_for_later(fake, storage):
    con = fake().con
    fill(con, range(10))
    generate(con)
    (name,) = ask(con, "SELECT embedding_table FROM jammi_tables()")[0]
    parquet = storage / "jammi_db" / f"{name}.parquet"
    stray = storage / "jammi_db" / f"{name}.probe"
    stray.write_bytes(b"another index")
    reading = SharedLocks([parquet])
    ((action,),) = ask(con, "SELECT action FROM jammi_drop(?)", name)
    left = f"; left for jammi_recover(), since they are being read: {parquet.name}"
    alone = f"; left alone, which nothing shows to be of this table: {stray.name}"
    assert action == f"removed 5 files{left}{alone}"
    stray.unlink()
    assert ask(con, "SELECT action FROM jammi_recover()") == [
        (f"removed none of the files that a drop had left{left}",)
    ]
    reading.close()
    assert ask(con, "SELECT action FROM jammi_recover()") == [("removed the files that a drop had left",)]
    assert list((storage / "jammi_db").iterdir()) == []


def test_a_build_that_cannot_be_settled_is_dropped(fake, tmp_path, monkeypatch):
    world = World(fake, tmp_path, str(tmp_path / "world" / "artifacts"), segment_rows=4)
    con = world.open()
    fill(con, range(10))
    with monkeypatch.context() as patch:
        patch.setattr(Build, "finish", lambda *_: interrupt())
        with pytest.raises((KeyboardInterrupt, duckdb.Error)):
            generate(con)
    con.close()
    store = world.store()
    (name,) = {layout.parse(file).table for file in store.files()}
    later = layout.parquet(name, 50)
    put_file(store, later, with_metadata(store.read(layout.parquet(name, 0)), format_version=b"2"))
    con = world.open()
    assert ask(con, "SELECT status FROM jammi_tables()") == [("building",)]
    ((status, action),) = ask(con, "SELECT status, action FROM jammi_drop(?)", name)
    assert status == "dropped"
    assert action.startswith(f"removed 0 files; left {len(store.files())} files alone: '{later}' has format version 2")
    assert ask(con, "FROM jammi_tables()") == []
    store.delete(later)
    assert ask(con, "SELECT action FROM jammi_recover()") == [("removed the files that a drop had left",)]
    assert store.files() == {}


def test_a_build_that_runs_is_not_dropped(fake, before):
    con = fake().con
    other = con.cursor()
    fake(other)
    fill(con, range(10))
    said = []

    def drop():
        ((name,),) = ask(other, "SELECT embedding_table FROM jammi_tables() WHERE status = 'building'")
        said.append(error_of(other, f"FROM jammi_drop('{name}')"))

    before(manifest, "commit", drop)
    generate(con)
    assert "no embedding table" in said[0]
    assert found(con) == list(range(10))


class TestDropped:
    @pytest.fixture
    def gone(self, fake, storage):
        """Tells that nothing is left of the table."""

        def check(con):
            assert ask(con, "SELECT status FROM jammi_catalog.embedding_tables") == [("dropped",)]
            assert ask(con, "SELECT view_name FROM duckdb_views() WHERE database_name = 'jammi' AND NOT internal") == []
            assert [path.name for path in (storage / "jammi_db").iterdir()] == []

        return check

    @pytest.fixture
    def late(self, fake, tmp_path, before):
        """Two databases with sources of their own, of which the second refreshes before the first commits."""
        con, other = (fake(cache_dir=tmp_path / side).con for side in ("one", "two"))
        fill(con, range(10))
        name, _ = generate(con)
        ask(other, "FROM jammi_recover()")
        fill(other, range(9))
        con.execute("DELETE FROM t WHERE id = 0")
        before(manifest, "commit", lambda: refresh(other))
        return con, other, name

    def test_by_another_database_while_it_fits_itself(self, late, before):
        con, other, name = late
        before(Change, "_rebase", lambda: ask(other, "FROM jammi_drop(?)", name))
        assert f"'{name}' was dropped" in error_of(con, "FROM jammi_refresh('t')")

    def test_tombstones_by_a_vacuum_of_another_database(self, late, storage, before):
        """No manifest names them yet, and the table is there."""
        con, _, name = late
        fill(con, [77])
        before(Change, "_rebase", lambda: (storage / "jammi_db" / layout.deleted(name, 2)).unlink())
        assert "has changed since this query was planned; run it again" in error_of(con, "FROM jammi_refresh('t')")
        assert refresh(con) == [(2, 0, 1)]
        assert found(con) == [*range(1, 10), 77]

    @pytest.mark.parametrize("verb", ["refresh", "compact"])
    @pytest.mark.parametrize("moment", [(Change, "finish"), (manifest, "commit")])
    def test_while_it_is_changed(self, fake, before, gone, verb, moment):
        con = fake().con
        other = con.cursor()
        fake(other)
        fill(con, range(10))
        name, _ = generate(con)
        con.execute("DELETE FROM t WHERE id < 5")
        refresh(con)
        fill(con, range(100, 103))
        before(*moment, lambda: ask(other, "FROM jammi_drop(?)", name))
        assert f"'{name}' was dropped" in error_of(con, f"FROM jammi_{verb}('t')")
        gone(con)
