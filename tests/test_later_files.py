"""Two databases on one location, and a later version's files: nothing is deleted that is not understood and over.

A's process dies or fails at any operation while it recovers, builds, refreshes, drops and vacuums, with no retention;
B, which shares a table with A, has refreshed it since, and finds each row that it committed.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from datetime import timedelta

import duckdb
import pytest

from jammi_duck import JammiWarning, fields
from jammi_duck.errors import DamagedError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.parquet import State, TombstoneWriter
from jammi_duck.storage.index import sidecars as index
from jammi_duck.storage.tables import recovery
from jammi_duck.storage.tables.change import Change
from tests.later import check_all_there, lie_about, needing, put_file, replaced, with_metadata
from tests.races import ask, interrupted_build
from tests.test_format import sealed
from tests.test_generate import error_of
from tests.worlds import World, every_death, every_failure

BEFORE = list(range(10))
AFTER = [0, 1, 2, *range(5, 10), 77]


@pytest.fixture(params=["disk", pytest.param("memory", marks=pytest.mark.long)])
def world(request, fake, tmp_path):
    location = str(tmp_path / "world" / "artifacts") if request.param == "disk" else f"memory://{tmp_path.name}"
    world = World(fake, tmp_path, location, segment_rows=4, retention=timedelta(0))
    yield world
    world.forget()


@pytest.fixture
def shared(world):
    """Two databases, of which the second, `b`, has refreshed the table that both know; its name is `world.name`."""
    con = world.open()
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    con.execute("CREATE TABLE u AS FROM t")
    ((world.name,),) = ask(con, "SELECT embedding_table FROM jammi_generate('t', 'text', 'id')")
    con.close()
    world.copy("b")
    con = world.open("b")
    con.execute("DELETE FROM t WHERE id IN (3, 4)")
    con.execute("INSERT INTO t VALUES (77, 'a violet submarine')")
    assert ask(con, "SELECT added, deleted FROM jammi_refresh('t')") == [(1, 2)]
    assert found(con) == AFTER
    con.close()
    world.newest = layout.manifest(world.name, 2)
    return world


def flip(store, file):
    content = bytearray(store.read(file))
    content[40] ^= 1
    replaced(store, file, bytes(content))


def need(store, file):
    replaced(store, file, needing(manifest.read(store, file), "sections"))


def nothing(store, file):
    pass


def cut(store, file):
    replaced(store, file, store.read(file)[:100])


def lose(store, file):
    store.delete(file)


def found(con):
    """The keys that the view of t's table, a search by graph, an exact one and one by words find: all the same."""
    ((name,),) = ask(con, "SELECT embedding_table FROM jammi_tables() WHERE (source, status) = ('t', 'ready')")
    ways = [f'SELECT _row_id FROM jammi."{name}"']
    by_vectors = "SELECT _row_id FROM jammi_matches('t', 'word1', 1000, mode := 'vector', exact := {})"
    ways += [by_vectors.format(exact) for exact in (False, True)]
    view, graph, exact = (sorted(int(key) for (key,) in ask(con, query)) for query in ways)
    assert view == graph == exact
    assert words_found(con) == view
    return view


def words_found(con):
    """The keys that a search by words finds: each text has one of these."""
    matched = ask(con, "SELECT _row_id FROM jammi_matches('t', 'word* submarine another', 1000, mode := 'text')")
    return sorted(int(key) for (key,) in matched)


def recovered(con):
    return dict(ask(con, "SELECT embedding_table, action FROM jammi_recover()"))


def vacuumed(con):
    return {file for (file,) in ask(con, "SELECT file FROM jammi_vacuum() WHERE reason NOT LIKE '%cached%'")}


def work_of_a(con):
    """All that A does, with tables of its own, in a location where B's lie, too."""
    recovered(con)
    ask(con, "FROM jammi_generate('u', 'text', 'id')")
    con.execute("DELETE FROM u WHERE id > 5")
    ask(con, "FROM jammi_refresh('u')")
    vacuumed(con)
    ask(con, "FROM jammi_drop((SELECT embedding_table FROM jammi_tables() WHERE source = 'u'))")
    vacuumed(con)


def check_b(world, at, damage):
    """B has each row that it committed, or the bytes that say it are those that were there."""
    con = world.open("b")
    recovered(con)
    if damage is need:
        message = error_of(con, "FROM jammi_refresh('t')")
        assert "needs the feature 'sections'" in message, at
    else:
        assert found(con) == AFTER, at
        assert ask(con, "SELECT added, changed, deleted FROM jammi_refresh('t')") == [(0, 0, 0)], at
    con.close()


DAMAGES = [nothing, flip, need]


def sweep(world, monkeypatch, damage, step):
    store = world.store()
    laid = lie_about(store, world.name)
    damage(store, world.newest)
    # What is not understood is not touched, whatever happens; the rest may be repaired.
    laid |= {file: store.read(file) for file in store.files() if layout.is_truth(file)}
    laid |= {world.newest: store.read(world.newest)} if damage is need else {}
    deaths = 0
    for death in every_death(world, monkeypatch, work_of_a, step):
        check_all_there(store, laid, death.at)
        con = world.open()
        recovered(con)
        vacuumed(con)
        con.close()
        check_all_there(store, laid, death.at)
        check_b(world, death.at, damage)
        deaths += 1
    assert deaths > 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_process_dies_beside_them(shared, monkeypatch, damage):
    sweep(shared, monkeypatch, damage, 61)


@pytest.mark.long
@pytest.mark.parametrize("damage", [*DAMAGES, cut])
def test_a_process_dies_beside_them_at_every_operation(shared, monkeypatch, damage):
    sweep(shared, monkeypatch, damage, 1)


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_disk_fails_beside_them(shared, monkeypatch, damage):
    store = shared.store()
    laid = lie_about(store, shared.name)
    damage(store, shared.newest)
    laid |= {file: store.read(file) for file in store.files() if layout.is_truth(file)}
    failures = 0
    for con, failed, at in every_failure(shared, monkeypatch, work_of_a, 3):
        recovered(con)
        vacuumed(con)
        con.close()
        check_all_there(store, laid, at)
        check_b(shared, at, damage)
        failures += failed
    assert failures


class TestNewestState:
    """What A makes of a table whose newest state, which B has committed, has no manifest that can be read."""

    @pytest.mark.parametrize("damage", [flip, cut])
    def test_is_rebuilt_from_the_parquet_files(self, shared, damage):
        store = shared.store()
        damage(store, shared.newest)
        con = shared.open()
        assert recovered(con) == {shared.name: "built 4 of 4 indexes and the manifest again"}
        assert found(con) == AFTER
        assert ask(con, "SELECT row_count FROM jammi_tables()") == [(len(AFTER),)]
        state = manifest.read(store, layout.manifest(shared.name, 3))
        assert (state.rows, state.counts.rows) == (len(AFTER), len(AFTER))
        vacuumed(con)
        assert recovered(con) == {}
        con.close()
        check_b(shared, "", damage)

    @pytest.mark.parametrize("damage", [flip, cut])
    def test_is_searched_and_no_earlier_one_before_it_is_rebuilt(self, shared, damage):
        damage(shared.store(), shared.newest)
        con = shared.open()
        with pytest.warns(JammiWarning, match="jammi_recover"):
            matched = ask(con, "SELECT _row_id FROM jammi_matches('t', 'word1', 1000)")
        assert sorted(int(key) for (key,) in matched) == AFTER

    @pytest.mark.parametrize("kind", ["deleted.parquet", "00003.parquet"])
    def test_of_which_a_file_is_missing_is_not_searched(self, shared, kind):
        store = shared.store()
        flip(store, shared.newest)
        (gone,) = (file for file in store.files() if file.endswith(kind) and layout.parse(file).number)
        store.delete(gone)
        con = shared.open()
        assert shared.name in error_of(con, "FROM jammi_matches('t', 'word1', 1000)")
        assert ask(con, "SELECT count(*) FROM jammi_tables()") == [(1,)]

    def test_is_rebuilt_again_after_a_rebuilt_one_is_damaged(self, shared):
        store = shared.store()
        for number in (2, 3, 4):
            flip(store, layout.manifest(shared.name, number))
            con = shared.open()
            recovered(con)
            vacuumed(con)
            con.close()
        assert manifest.read(store, layout.manifest(shared.name, 5)).rows == len(AFTER)
        check_b(shared, "", flip)

    def test_is_spared_until_it_is_rebuilt(self, shared):
        store = shared.store()
        flip(store, shared.newest)
        con = shared.open()
        before = set(store.files())
        vacuumed(con)
        assert set(store.files()) == before

    def test_whose_manifest_is_away_is_spared(self, shared):
        """A has never seen it: the table is what its manifests say, and the files beyond that are left alone."""
        store = shared.store()
        content = store.read(shared.newest)
        store.delete(shared.newest)
        con = shared.open()
        assert found(con) == BEFORE
        recovered(con)
        vacuumed(con)
        con.close()
        put_file(store, shared.newest, content)
        check_b(shared, "", nothing)

    @pytest.mark.parametrize("kind", ["deleted.parquet", "00003.parquet"])
    def test_of_which_a_file_is_missing_is_refused(self, shared, kind):
        store = shared.store()
        flip(store, shared.newest)
        (gone,) = (file for file in store.files() if file.endswith(kind) and layout.parse(file).number)
        content = store.read(gone)
        store.delete(gone)
        con = shared.open()
        before = {file: store.read(file) for file in store.files()}
        action = recovered(con)[shared.name]
        assert action.startswith("cannot be searched: ")
        assert "missing" in action
        ask(con, "FROM jammi_generate('u', 'text', 'id')")
        assert ask(con, "SELECT id FROM jammi_search('u', 'word3', 1)") == [(3,)]
        vacuumed(con)
        check_all_there(store, before)
        put_file(store, gone, content)
        assert recovered(con) == {shared.name: "built 4 of 4 indexes and the manifest again"}
        con.close()
        check_b(shared, "", flip)

    def test_whose_tombstones_a_later_version_wrote_is_refused(self, shared):
        store = shared.store()
        flip(store, shared.newest)
        (closing,) = filter(layout.is_tombstones, store.files())
        replaced(store, closing, with_metadata(store.read(closing), format_version=b"2"))
        con = shared.open()
        before = {file: store.read(file) for file in store.files()}
        action = recovered(con)[shared.name]
        assert action.startswith("left alone: ")
        assert "has format version 2" in action
        vacuumed(con)
        check_all_there(store, before)

    def rival(self, shared):
        """A change that was not first, and died before it deleted its tombstones, which close the same state."""
        store = shared.store()
        state = manifest.read(store, shared.newest)
        scratch = store.scratch(layout.deleted(shared.name, 9), "d" * 32)
        writer = TombstoneWriter(scratch, state.definition, state.build, "d" * 32)
        writer.write(["0"], [0], [0])
        counts = dataclasses.replace(state.counts, rows=9)
        writer.close(State(2, tuple(range(3)), (), counts))
        store.create(layout.deleted(shared.name, 9), scratch)

    def test_that_two_changes_say_they_made_is_what_the_damaged_manifest_names(self, shared):
        self.rival(shared)
        flip(shared.store(), shared.newest)
        con = shared.open()
        recovered(con)
        assert found(con) == AFTER

    def test_that_two_changes_say_they_made_is_refused_where_nothing_names_it(self, shared):
        self.rival(shared)
        store = shared.store()
        replaced(store, shared.newest, b"\0" * 100)
        con = shared.open()
        before = {file: store.read(file) for file in store.files()}
        assert "two changes have written state 2" in recovered(con)[shared.name]
        vacuumed(con)
        check_all_there(store, before)
        con.close()
        # Its own catalog says which it was.
        check_b(shared, "", flip)

    def test_is_repaired_by_two_at_once(self, shared, before):
        store = shared.store()
        flip(store, shared.newest)
        con = shared.open()

        def first():
            other = shared.open("b")
            recovered(other)
            other.close()

        before(recovery.manifest, "commit", first)
        assert "another process is changing it" in recovered(con)[shared.name]
        recovered(con)
        assert recovered(con) == {}
        assert found(con) == AFTER
        states = [manifest.read(store, layout.manifest(shared.name, number)) for number in (1, 3)]
        named = {each.parquet.file for state in states for each in state.parquet_files}
        assert set(filter(layout.is_truth, store.files())) == named

    def test_that_is_damaged_when_a_change_fails_is_not_deleted(self, shared, before):
        """The manifest of the change is there, and cannot be read: its files are not those of a change that failed."""
        store = shared.store()
        con = shared.open("b")
        con.execute("INSERT INTO t VALUES (78, 'another')")
        commit = manifest.commit

        def lost(*arguments):
            commit(*arguments)
            flip(store, layout.manifest(shared.name, 3))
            raise OSError(5, "Input/output error")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest, "commit", lost)
            error_of(con, "FROM jammi_refresh('t')")
        recovered(con)
        assert found(con) == [*AFTER, 78]


class TestDrop:
    def test_leaves_a_table_that_is_not_understood_and_names_it(self, shared, monkeypatch):
        store = shared.store()
        need(store, shared.newest)
        con = shared.open()
        before = {file: store.read(file) for file in store.files()}
        ((status, action),) = ask(con, "SELECT status, action FROM jammi_drop(?)", shared.name)
        assert status == "dropped"
        assert action.startswith(
            f"removed 0 files; left {len(before)} files alone: '{shared.newest}' needs the feature"
        )
        assert ask(con, "FROM jammi_tables()") == []
        assert recovered(con)[shared.name].endswith(action.removeprefix("removed 0 files"))
        vacuumed(con)
        check_all_there(store, before)
        monkeypatch.setattr(fields, "FEATURES", frozenset({"sections"}))
        assert recovered(con) == {shared.name: "removed the files that a drop had left"}
        assert store.files() == {}

    def test_leaves_parquet_files_of_a_later_version(self, shared):
        store = shared.store()
        con = shared.open("b")
        file = layout.parquet(shared.name, 50)
        put_file(store, file, with_metadata(store.read(layout.parquet(shared.name, 0)), format_version=b"2"))
        before = {each: store.read(each) for each in store.files()}
        ((action,),) = ask(con, "SELECT action FROM jammi_drop(?)", shared.name)
        assert f"left {len(before)} files alone: '{file}' has format version 2" in action
        check_all_there(store, before)

    def test_leaves_sidecars_of_kinds_that_are_not_known(self, shared):
        store = shared.store()
        put_file(store, f"{shared.name}.probe", b"another index")
        con = shared.open("b")
        ((action,),) = ask(con, "SELECT action FROM jammi_drop(?)", shared.name)
        assert action.endswith(f"; left alone, which nothing shows to be of this table: {shared.name}.probe")
        assert set(store.files()) == {f"{shared.name}.probe"}

    def test_takes_what_is_damaged_of_a_table_that_was_ready(self, shared):
        store = shared.store()
        cut(store, layout.parquet(shared.name, 0))
        con = shared.open("b")
        ask(con, "FROM jammi_drop(?)", shared.name)
        assert store.files() == {}


def test_a_kind_of_sidecar_that_is_not_known_stays_where_the_manifest_has_it(shared, tmp_path):
    store = shared.store()
    new = {"probe": {"file": f"{shared.name}.probe", "cells": 8}, "sidecars": {"of": "a later version"}}
    document = json.loads(store.read(shared.newest))
    document["segments"][0].update(new)
    document["tombstones"] = "another field"
    replaced(store, shared.newest, sealed(document))
    put_file(store, f"{shared.name}.probe", b"another index")
    con = shared.open("b")
    con.execute("INSERT INTO t VALUES (78, 'a red submarine')")
    assert ask(con, "SELECT added, deleted FROM jammi_refresh('t')") == [(1, 0)]
    con.close()
    store.delete(f"{shared.name}.usearch")
    # There may be a copy of it.
    shutil.rmtree(tmp_path / "world" / "cache", ignore_errors=True)
    con = shared.open("b")
    assert recovered(con) == {shared.name: "built 1 of 5 indexes and the manifest again"}
    vacuumed(con)
    document = json.loads(store.read(manifest.newest(store.files())[shared.name]))
    assert document["number"] == 4
    assert document["segments"][0]["usearch"]["file"] == f"{shared.name}.r00004.usearch"
    assert {name: document["segments"][0][name] for name in new} == new
    assert document["tombstones"] == "another field"
    assert f"{shared.name}.probe" in store.files()
    assert found(con) == sorted([*AFTER, 78])


class TestVacuum:
    def test_goes_on_where_one_table_is_not_understood(self, shared):
        store = shared.store()
        laid = lie_about(store, shared.name)
        con = shared.open("b")
        gone = vacuumed(con)
        assert layout.manifest(shared.name, 1) in gone
        check_all_there(store, laid)
        assert vacuumed(con) == set()
        assert found(con) == AFTER

    def test_spares_a_table_beside_whose_files_a_later_one_lies(self, shared):
        store = shared.store()
        late = with_metadata(store.read(layout.parquet(shared.name, 0)), format_version=b"2")
        put_file(store, layout.parquet(shared.name, 60), late)
        con = shared.open("b")
        before = {file: store.read(file) for file in store.files()}
        assert vacuumed(con) == set()
        check_all_there(store, before)
        assert ask(con, "SELECT added FROM jammi_refresh('t')") == [(0,)]

    def test_removes_what_its_own_failed_build_has_left(self, shared):
        con = shared.open()
        con.execute("DROP TABLE t")
        con.execute("CREATE TABLE t AS FROM u")
        interrupted_build(con)
        ((name,),) = ask(con, "SELECT embedding_table FROM jammi_tables() WHERE status = 'failed'")
        assert {layout.parquet(name, 0), layout.parquet(name, 1)} <= vacuumed(con)

    def test_of_another_database_while_a_change_is_written_loses_nothing(self, shared, before):
        """Its segments stay, although no manifest names them yet."""
        con = shared.open("b")
        con.execute("INSERT INTO t VALUES (78, 'another')")

        def vacuum():
            other = shared.open()
            assert layout.parquet(shared.name, 5) not in vacuumed(other)
            other.close()

        before(Change, "_close", vacuum)
        assert ask(con, "SELECT added FROM jammi_refresh('t')") == [(1,)]
        assert found(con) == [*AFTER, 78]

    @pytest.mark.parametrize("step", [(index, "build"), (recovery, "_commit")])
    def test_of_another_database_while_a_table_is_repaired_deletes_nothing_of_it(self, shared, before, step):
        store = shared.store()
        for file in sorted(store.files()):
            if file.endswith(".vectors"):
                store.delete(file)
        if getattr(store, "is_memory", False):
            # Copies of sidecars are in the cache.
            flip(store, shared.newest)
        con = shared.open()

        def vacuum():
            other = shared.open("b")
            assert not vacuumed(other)
            other.close()

        before(*step, vacuum)
        assert recovered(con)[shared.name] == "built 4 of 4 indexes and the manifest again"
        assert found(con) == AFTER
        assert recovered(con) == {}

    def test_of_another_machine_while_a_change_is_written_loses_nothing(self, shared, before):
        """Its segments are deleted before a manifest names them: the change is refused, and works when run again."""
        con = shared.open("b")
        con.execute("INSERT INTO t VALUES (78, 'another')")
        before(Change, "_close", lambda: shared.store().delete(layout.parquet(shared.name, 5)))
        assert "run this again" in error_of(con, "FROM jammi_refresh('t')")
        assert found(con) == AFTER
        assert ask(con, "SELECT added FROM jammi_refresh('t')") == [(1,)]
        assert found(con) == [*AFTER, 78]


class TestDamagedBuild:
    @pytest.fixture
    def half(self, world):
        """A database with a build that died when two segments were whole."""
        con = world.open()
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
        interrupted_build(con)
        ((world.name,),) = ask(con, "SELECT embedding_table FROM jammi_tables()")
        con.close()
        return world

    def test_a_file_that_is_cut_short_stays_and_is_named(self, half):
        store = half.store()
        cut(store, layout.parquet(half.name, 1))
        con = half.open()
        con.execute("UPDATE jammi_catalog.embedding_tables SET status = 'building', owner = 'a dead process'")
        con.close()
        con = half.open()
        ((error,),) = ask(con, "SELECT error FROM jammi_tables() WHERE status = 'failed'")
        assert f"'{layout.parquet(half.name, 1)}' is not a whole Parquet file of ours" in error
        assert "it was left where it is; 4 embedded rows are kept" in error
        vacuumed(con)
        assert layout.parquet(half.name, 1) in store.files()

    def test_a_page_that_is_damaged_does_not_keep_it_from_going_on(self, half):
        store = half.store()
        file = layout.parquet(half.name, 0)
        content = bytearray(store.read(file))
        content[len(content) // 3] ^= 0x55
        replaced(store, file, bytes(content))
        con = half.open()
        assert ask(con, "SELECT row_count FROM jammi_generate('t', 'text', 'id', resume := true)") == [(10,)]
        assert found(con) == BEFORE

    def test_a_later_versions_segment_leaves_it_as_it_is(self, half):
        store = half.store()
        file = layout.parquet(half.name, 2)
        put_file(store, file, with_metadata(store.read(layout.parquet(half.name, 1)), format_version=b"2"))
        before = {each: store.read(each) for each in store.files()}
        con = half.open()
        con.execute("UPDATE jammi_catalog.embedding_tables SET status = 'building', owner = 'a dead process'")
        con.close()
        con = half.open()
        assert "has format version 2" in recovered(con)[half.name]
        assert ask(con, "SELECT status FROM jammi_tables()") == [("building",)]
        check_all_there(store, before)


def test_what_a_dead_change_has_closed_is_deleted_by_its_own_database(shared, monkeypatch):
    """Its tombstones are there, and no manifest: another vacuum spares them, since the manifest might be away."""
    store = shared.store()
    con = shared.open("b")
    con.execute("INSERT INTO t VALUES (78, 'another')")

    def die(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "commit", die)
        with pytest.raises((KeyboardInterrupt, duckdb.Error)):
            con.execute("FROM jammi_refresh('t')").fetchall()
    con.close()
    closing = {file for file in store.files() if layout.is_tombstones(file)}
    other = shared.open()
    vacuumed(other)
    other.close()
    assert closing <= set(store.files())
    con = shared.open("b")
    assert found(con) == AFTER
    assert len([file for file in store.files() if layout.is_tombstones(file)]) == 1


def test_unknown_counters_of_a_whole_build_are_no_damage(world):
    """A build whose process died before it wrote its manifest, written by a later version that counts more."""
    con = world.open()
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(3)")
    ((name,),) = ask(con, "SELECT embedding_table FROM jammi_generate('t', 'text', 'id')")
    con.execute("UPDATE jammi_catalog.embedding_tables SET status = 'building', owner = 'a dead process'")
    con.close()
    store = world.store()
    for file in store.files():
        if not layout.is_parquet(file):
            store.delete(file)
    counts = json.dumps({"rows": 3, "skipped": 0, "failed": 0, "truncated": 0, "deduplicated": 1}).encode()
    file = layout.parquet(name, 0)
    replaced(store, file, with_metadata(store.read(file), counts=counts))
    con = world.open()
    assert manifest.read(store, layout.manifest(name, 1)).counts.unknown == {"deduplicated": 1}
    assert "words of a segment are missing or damaged" in recovered(con)[name]
    assert ask(con, "SELECT added, changed, deleted, encoded FROM jammi_refresh('t')") == [(0, 0, 0, 0)]
    assert found(con) == [0, 1, 2]


def test_a_manifest_of_another_build_is_never_rebuilt_over(shared):
    store = shared.store()
    con = shared.open()
    con.execute("UPDATE jammi_catalog.embedding_tables SET build = ?", ["a" * 32])
    con.execute("UPDATE jammi_catalog.segments SET build = ?", ["a" * 32])
    con.close()
    before = {file: store.read(file) for file in store.files()}
    con = shared.open()
    assert "is another build's manifest" in recovered(con)[shared.name]
    vacuumed(con)
    check_all_there(store, {file: before[file] for file in before if file != layout.manifest(shared.name, 1)})
    with pytest.raises(duckdb.Error, match=DamagedError.__name__):
        con.execute("FROM jammi_refresh('t')").fetchall()


@pytest.mark.parametrize("kind", ["manifest.json", "parquet", "deleted.parquet", "usearch"])
def test_a_file_with_the_highest_number_keeps_others_from_no_table(shared, kind):
    store = shared.store()
    highest = f"{shared.name}.{2**31 - 1}.{kind}"
    put_file(store, highest, b"{}")
    con = shared.open()
    con.execute("DELETE FROM t WHERE id = 5")
    con.execute("INSERT INTO t VALUES (78, 'a green submarine')")
    names = set(store.files())
    for call in ("recover()", "vacuum()", "refresh('t')", "compact('t')", "recover()"):
        with contextlib.suppress(duckdb.Error):
            ask(con, f"FROM jammi_{call}")
    if kind != "usearch":
        assert all(layout.parse(file) for file in set(store.files()) - names)
        assert "the highest; move that file away" in recovered(con).get(shared.name, "") + error_of(
            con, "FROM jammi_refresh('t')"
        )
    with contextlib.suppress(FileNotFoundError):
        store.delete(highest)
    recovered(con)
    ask(con, "FROM jammi_refresh('t')")
    ask(con, "FROM jammi_compact('t')")
    con.execute("INSERT INTO t VALUES (3, 'word3'), (4, 'word4')")
    con.close()
    con = shared.open("b")
    ask(con, "FROM jammi_refresh('t')")
    assert found(con) == AFTER


def test_words_of_a_later_analyser_are_left_alone(shared):
    store = shared.store()
    document = json.loads(store.read(shared.newest))
    document["definition"]["words"]["analyser"] = "words-99"
    plain = json.dumps(document["definition"], sort_keys=True, separators=(",", ":"))
    document["fingerprint"] = hashlib.sha256(plain.encode()).hexdigest()
    replaced(store, shared.newest, sealed(document))
    con = shared.open("b")
    before = {file: store.read(file) for file in store.files()}
    with pytest.warns(JammiWarning, match="by the analyser 'words-99', which a later version may know"):
        matched = ask(con, "SELECT _row_id, _bm25 FROM jammi_matches('t', 'word1', 1000)")
    assert sorted(matched) == sorted((str(key), None) for key in AFTER)
    con.execute("INSERT INTO t VALUES (78, 'another')")
    for verb in ("refresh", "compact"):
        assert "the analyser 'words-99', which a later version may know" in error_of(con, f"FROM jammi_{verb}('t')")
    recovered(con)
    check_all_there(store, before)
    assert store.scratches() == {}
