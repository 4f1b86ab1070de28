"""A refresh, a compaction or a resumed build ends at any operation: the table is as before or as after, and goes on.

Every operation on files and on the catalog is tried as the process's last one, before and after it took effect, and as
one that fails once.
"""

import warnings
from datetime import timedelta

import numpy as np
import pytest

from jammi_duck.errors import JammiWarning
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.parquet import read_rows
from jammi_duck.storage.index import graph, plan
from jammi_duck.types import Shape
from jammi_duck.work.text_buffer import digest
from tests.fakes import text_vector
from tests.test_generate import error_of
from tests.worlds import PLACES, World, every_death, every_failure

SEGMENT_ROWS = 6
BEFORE = {key: f"word{key}" for key in range(10)}
# Two rows are gone, three have another text, of which two swap theirs, six are new, of which two have one text.
AFTER = {
    **{key: f"word{key}" for key in range(4)},
    4: "word5",
    5: "word4",
    6: "other 6",
    7: "word7",
    **{key: f"new{key}" for key in range(20, 24)},
    30: "twice",
    31: "twice",
}
MISSING = set(AFTER.values()) - set(BEFORE.values())


@pytest.fixture(params=PLACES)
def world(request, fake, tmp_path):
    place, step = request.param
    location = str(tmp_path / "world" / "artifacts") if place == "disk" else f"memory://{tmp_path.name}"
    world = World(fake, tmp_path, location, segment_rows=SEGMENT_ROWS, retention=timedelta(0))
    world.step = step
    yield world
    world.forget()


@pytest.fixture(params=["graph", "exact"])
def way(request, monkeypatch):
    monkeypatch.setattr(*((graph, "graph_ms") if request.param == "graph" else (plan, "exact_ms")), lambda *_: 0.0)


def embedded(world):
    """The digests of all texts that a whole segment in storage has a vector of."""
    store, found = world.store(), set()
    for file in store.files():
        name = layout.parse(file)
        if name and name.kind == "parquet":
            _, path = store.found(file)
            found.update(each for rows in read_rows(path, Shape(64)) for each in rows.digests.to_pylist())
    return found


def segments_of(world):
    """The segments that are there."""
    return set(filter(layout.is_parquet, world.store().files()))


def named_segments(world):
    """The segments that a state has, the present one or an earlier one."""
    store = world.store()
    states = [manifest.read(store, file) for file in store.files() if layout.is_manifest(file)]
    return {segment.parquet.file for state in states for segment in state.segments}


def only_vectors(files, before, at):
    """What has failed left nothing but whole segments, with their words."""
    assert before <= files, at
    left = [layout.parse(file) for file in files - before]
    assert {each.kind for each in left} <= {"parquet", "words"}, at
    segments = {each.number for each in left if each.kind == "parquet"}
    assert {each.number for each in left} == segments, at


def fill(con, rows):
    con.execute("CREATE OR REPLACE TABLE t (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", list(rows.items()))


def table_of(con):
    """The only embedding table that is ready."""
    ((name,),) = con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'ready'").fetchall()
    return name


def refresh(con):
    return con.execute("SELECT added, changed, deleted, encoded FROM jammi_refresh('t')").fetchall()


def compact(con):
    return con.execute("SELECT segments FROM jammi_compact('t')").fetchall()


def vacuum(con):
    return con.execute("SELECT file FROM jammi_vacuum()").fetchall()


def resume(con):
    return con.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id', resume := true)").fetchall()


def holds(con, *states, words=True):
    """Which of these the table holds, told by its view; it is whole, and a search finds what a fresh build would.

    The words of a build whose manifest was written by another process may be missing until it is refreshed.
    """
    found = con.execute(f'SELECT _row_id, vector FROM jammi."{table_of(con)}"').fetchall()
    assert len({key for key, _ in found}) == len(found)
    keys = {key for key, _ in found}
    vectors = {key: np.array(vector, np.float32) for key, vector in found}
    (state,) = [
        state
        for state in states
        if keys == {str(key) for key in state}
        and all(np.allclose(vectors[str(key)], text_vector(text), atol=1e-6) for key, text in state.items())
    ]
    for query in ("word4", "new21 word7"):
        wanted = text_vector(query).astype(np.float64)
        near = sorted((-float(text_vector(text).astype(np.float64) @ wanted), str(key)) for key, text in state.items())
        for exact in (False, True):
            hits = con.execute(
                "SELECT -_similarity, _row_id FROM jammi_matches('t', ?, 100, exact := ?, mode := 'vector')",
                [query, exact],
            ).fetchall()
            np.testing.assert_allclose([each for each, _ in hits], [each for each, _ in near], atol=1e-6)
            assert sorted(key for _, key in hits) == sorted(key for _, key in near)
            assert hits[0][1] == near[0][1]
    for word in ("word4", "new21", "twice") if words else ():
        hits = con.execute("SELECT _row_id FROM jammi_matches('t', ?, 100, mode := 'text')", [f"+{word}"]).fetchall()
        assert sorted(key for (key,) in hits) == sorted(str(key) for key, text in state.items() if word in text.split())
    counted = con.execute("SELECT row_count FROM jammi_tables() WHERE status = 'ready'").fetchall()
    assert counted == [(len(state),)]
    return state


@pytest.fixture
def behind(world):
    """A world whose table is behind its source."""
    con = world.open()
    fill(con, BEFORE)
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    fill(con, AFTER)
    con.close()
    return world


@pytest.fixture
def scattered(behind):
    """A world whose table has been refreshed, and is to be compacted."""
    con = behind.open()
    refresh(con)
    con.close()
    return behind


class TestDeath:
    def test_refresh(self, behind, monkeypatch):
        outcomes = []
        for death in every_death(behind, monkeypatch, refresh):
            kept = embedded(behind)
            con = behind.open()
            assert behind.store().scratches() == {}, death.at
            state = holds(con, BEFORE, AFTER)
            ((*differ, encoded),) = refresh(con)
            assert differ == ([0, 0, 0] if state == AFTER else [6, 3, 2]), death.at
            wanted = {text for text in MISSING if digest(text) not in kept}
            # A refresh of a whole state encodes nothing, and one that was interrupted not again what it has written.
            assert sorted(behind.encoded[-encoded:] if encoded else []) == sorted(wanted), death.at
            holds(con, AFTER)
            con.close()
            outcomes.append((state == AFTER, len(wanted)))
        assert {committed for committed, _ in outcomes} == {False, True}
        assert {len(MISSING), 0} < {wanted for _, wanted in outcomes}

    def test_compaction(self, scattered, monkeypatch):
        segments = set()
        for death in every_death(scattered, monkeypatch, compact):
            con = scattered.open()
            assert scattered.store().scratches() == {}, death.at
            assert segments_of(scattered) == named_segments(scattered), death.at
            holds(con, AFTER)
            segments.add(con.execute("SELECT segments FROM jammi_status('t')").fetchall()[0])
            assert compact(con) == [(3,)]
            holds(con, AFTER)
            assert refresh(con) == [(0, 0, 0, 0)]
            con.close()
        assert segments == {(3,), (4,)}

    def test_vacuum(self, scattered, monkeypatch):
        con = scattered.open()
        compact(con)
        name = table_of(con)
        con.close()
        store = scattered.store()
        state = manifest.read(store, layout.manifest(name, 3))
        for death in every_death(scattered, monkeypatch, vacuum):
            con = scattered.open()
            holds(con, AFTER)
            assert vacuum(con), death.at
            assert set(store.files()) == {state.file, *(file.file for file in state.files)}
            assert vacuum(con) == []
            holds(con, AFTER)
            con.close()


class TestFailure:
    def test_refresh(self, behind, monkeypatch):
        before = set(behind.store().files())
        outcomes, encoded = set(), set()
        for con, failed, at in every_failure(behind, monkeypatch, refresh):
            con.execute("FROM jammi_recover()").fetchall()
            state = holds(con, BEFORE, AFTER)
            outcomes.add((failed, state == AFTER))
            if state == BEFORE:
                assert failed
                only_vectors(set(behind.store().files()), before, at)
            assert behind.store().scratches() == {}, at
            wanted = {text for text in MISSING if digest(text) not in embedded(behind)}
            assert refresh(con)[0][-1] == len(wanted), at
            encoded.add(len(wanted))
            holds(con, AFTER)
        assert (True, False) in outcomes
        assert True in {committed for _, committed in outcomes}
        assert {0, len(MISSING)} < encoded

    def test_compaction(self, scattered, monkeypatch):
        before = set(scattered.store().files())
        outcomes = set()
        for con, failed, at in every_failure(scattered, monkeypatch, compact):
            con.execute("FROM jammi_recover()").fetchall()
            ((segments,),) = con.execute("SELECT segments FROM jammi_status('t')").fetchall()
            outcomes.add((failed, segments))
            if segments == 4:
                assert failed
                assert set(scattered.store().files()) == before, at
            assert scattered.store().scratches() == {}, at
            holds(con, AFTER)
            assert compact(con) == [(3,)]
            holds(con, AFTER)
        assert (True, 4) in outcomes
        assert 3 in {segments for _, segments in outcomes}


@pytest.fixture
def interrupted(world, monkeypatch):
    """A world with a build that died when its first segments were whole, and not all of them."""
    con = world.open()
    fill(con, AFTER)
    con.close()
    for _ in every_death(world, monkeypatch, lambda con: con.execute("FROM jammi_generate('t', 'text', 'id')"), 1):
        if len(embedded(world)) == 2 * SEGMENT_ROWS:
            break
    con = world.open()
    ((world.name, status, error),) = con.execute("SELECT embedding_table, status, error FROM jammi_tables()").fetchall()
    assert status == "failed"
    assert f"{2 * SEGMENT_ROWS} embedded rows are kept until jammi_vacuum(): jammi_refresh('t', " in error
    assert f"embedding_table := '{world.name}') goes on from there" in error
    con.close()
    return world


class TestResumed:
    def test_by_refresh(self, interrupted):
        wanted = {text for text in AFTER.values() if digest(text) not in embedded(interrupted)}
        con = interrupted.open()
        refreshed = con.execute("SELECT encoded FROM jammi_refresh('t', embedding_table := ?)", [interrupted.name])
        assert refreshed.fetchall() == [(len(wanted),)]
        assert sorted(interrupted.encoded) == sorted(wanted)
        assert table_of(con) == interrupted.name
        holds(con, AFTER)
        con.close()
        con = interrupted.open()
        holds(con, AFTER)

    def test_by_generate_after_the_source_has_changed(self, interrupted):
        """Of what was kept, a row is gone, another has a new text, and two have each other's."""
        con = interrupted.open()
        source = {**AFTER, 1: "word2", 2: "word1", 3: "other 3"}
        del source[0]
        fill(con, source)
        wanted = {text for text in source.values() if digest(text) not in embedded(interrupted)}
        assert resume(con) == [(len(source),)]
        assert sorted(interrupted.encoded) == sorted(wanted)
        assert "other 3" in wanted
        assert table_of(con) == interrupted.name
        holds(con, source)

    def test_dies_and_is_resumed_again(self, interrupted, monkeypatch):
        outcomes = set()
        for death in every_death(interrupted, monkeypatch, resume):
            wanted = {text for text in AFTER.values() if digest(text) not in embedded(interrupted)}
            con = interrupted.open()
            assert interrupted.store().scratches() == {}, death.at
            ((name, status),) = con.execute("SELECT embedding_table, status FROM jammi_tables()").fetchall()
            assert name == interrupted.name
            outcomes.add((status, len(wanted)))
            if status == "failed":
                assert resume(con) == [(len(AFTER),)], death.at
            else:
                assert status == "ready"
                assert refresh(con) == [(0, 0, 0, 0)]
            assert sorted(interrupted.encoded) == sorted(wanted), death.at
            assert table_of(con) == interrupted.name
            holds(con, AFTER)
            con.close()
        assert {status for status, _ in outcomes} == {"failed", "ready"}
        assert len({wanted for status, wanted in outcomes if status == "failed"}) > 1

    def test_fails_and_is_resumed_again(self, interrupted, monkeypatch):
        before = set(interrupted.store().files())
        statuses = set()
        for con, _, at in every_failure(interrupted, monkeypatch, resume):
            con.execute("FROM jammi_recover()").fetchall()
            ((status,),) = con.execute("SELECT status FROM jammi_tables()").fetchall()
            statuses.add(status)
            if status == "failed":
                only_vectors(set(interrupted.store().files()), before, at)
                resume(con)
            assert table_of(con) == interrupted.name
            assert interrupted.store().scratches() == {}, at
            holds(con, AFTER)
        assert statuses == {"failed", "ready"}


class TestLostManifest:
    """The newest state's manifest is gone, or no manifest any more, and older ones are there."""

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("refreshes", [1, 2])
    @pytest.mark.parametrize("is_there", [False, True])
    def test_a_search_finds_the_newest_rows(self, behind, way, refreshes, is_there):
        con = behind.open()
        refresh(con)
        state = dict(AFTER)
        if refreshes == 2:
            state |= {0: "word9", 40: "last"}
            fill(con, state)
            refresh(con)
        name = table_of(con)
        con.close()
        store = behind.store()
        file = layout.manifest(name, 1 + refreshes)
        whole = manifest.read(store, file)
        store.delete(file)
        if is_there:
            scratch = store.scratch(file, "0" * 32)
            scratch.write_bytes(whole.to_bytes()[:100])
            store.create(file, scratch)

        con = behind.open()
        vacuum(con)
        with pytest.warns(JammiWarning, match="cannot be used") as warned:
            holds(con, state, words=False)
        assert len(warned) == 1
        for verb in ("refresh", "status", "compact"):
            error = error_of(con, f"FROM jammi_{verb}('t')")
            assert file in error or layout.manifest(name, refreshes) in error
            assert "SELECT * FROM jammi_recover() writes it again" in error
        mended = con.execute("SELECT status, action FROM jammi_recover()").fetchall()
        segments = len(whole.segments)
        assert mended == [("ready", f"built {segments} of {segments} indexes and the manifest again")]
        assert con.execute("FROM jammi_recover()").fetchall() == []
        con.close()

        con = behind.open()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            holds(con, state)
        assert refresh(con) == [(0, 0, 0, 0)]
        con.close()
