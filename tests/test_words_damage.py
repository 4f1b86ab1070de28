"""Files of words that are missing, damaged or forged, and changes that end while words are written.

The Parquet files hold no text: a search goes by vectors meanwhile, jammi_recover() says so, and the source mends it.
"""

import hashlib
import warnings
from dataclasses import replace
from datetime import timedelta

import pytest

from jammi_duck.errors import JammiWarning
from jammi_duck.storage.files import manifest
from tests.test_words_file import content, sealed
from tests.test_words_search import NOTES, ask, check
from tests.worlds import World, every_death, every_failure

QUERY = "broken +pipe engine"


def fill(con, notes):
    con.execute("CREATE OR REPLACE TABLE t (id INTEGER, text VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?)", list(notes.items()))


def put(world, file, content):
    """Write a file in the place of the one that is there."""
    lose(world, file)
    store = world.store()
    scratch = store.scratch(file, "0" * 32)
    scratch.write_bytes(content)
    store.create(file, scratch)
    world.clear_cache()


def lose(world, file):
    world.store().delete(file)
    world.clear_cache()


def state_of(world):
    """The newest manifest of the only table."""
    store = world.store()
    (file,) = manifest.newest(store.files()).values()
    return manifest.read(store, file)


def whole(con, source):
    """Searches by words, and by both, find what plain Python does; a warning would be an error."""
    for mode in ("text", "hybrid"):
        for query in (QUERY, '"broken pipe" report*', "E-1047 -windows"):
            hits = ask(con, query, {"k": 20, "mode": mode}, "jammi_matches")
            check(hits, source, lambda _: True, query, k=20, mode=mode)


SPOILT = {
    "cut short": lambda whole, other: whole[: len(whole) // 2],
    "empty": lambda whole, other: b"",
    "altered": lambda whole, other: whole[:20] + bytes([whole[20] ^ 1]) + whole[21:],
    "that of another segment": lambda whole, other: other,
    "a later version's": lambda whole, other: sealed(*content(whole), format_version=2),
}


def without_rows(whole):
    """A file that can be opened, and whose postings cannot be read: no row comes after the one before."""
    body, header = content(whole)
    first = 8 + header["rows"] * header["length_bytes"]
    last = first + header["postings_bytes"]
    return sealed(body[:first] + bytes(last - first) + body[last:], header)


# What the manifest has the right SHA-256 of, which whoever writes to a location can forge.
FORGED = {
    "of other rows": lambda whole, other: sealed(*content(whole), parquet="c" * 64),
    "of another language": lambda whole, other: sealed(
        *content(whole), analysis={**content(whole)[1]["analysis"], "language": "german"}
    ),
    "a later version's": lambda whole, other: sealed(*content(whole), format_version=2),
    "no file of words": lambda whole, other: b"words",
    "of no rows": lambda whole, other: without_rows(whole),
}


def place(request, tmp_path):
    """A location of this kind, and what fsspec needs for it."""
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        bucket = server.bucket(f"words-{abs(hash(request.node.name)) % 10**9}")
        return f"s3://{bucket}/x", {"storage_options": server.options()}
    return str(tmp_path / "world" / "artifacts") if request.param == "disk" else f"memory://{tmp_path.name}", {}


MEMORY, S3 = pytest.param("memory", marks=pytest.mark.long), pytest.param("s3", marks=pytest.mark.s3)


@pytest.fixture(params=["disk", MEMORY, pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.long])])
def world(request, fake, tmp_path):
    """A world with a source of six rows, for segments of four."""
    location, options = place(request, tmp_path)
    world = World(fake, tmp_path, location, segment_rows=4, retention=timedelta(0), **options)
    con = world.open()
    fill(con, NOTES)
    con.close()
    yield world
    world.forget()


@pytest.fixture
def built(world):
    """The same with its table."""
    con = world.open()
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    con.close()
    return world


def refresh(con):
    return con.execute("SELECT added, changed, deleted, encoded FROM jammi_refresh('t')").fetchall()


def mended(world, con, by):
    """Searches go by vectors with one warning, which is in the answer of jammi_recover(), and the source mends it."""
    with pytest.warns(JammiWarning, match="the words of '.*' cannot be used .*; searching by vectors alone") as caught:
        for mode in ("text", "hybrid", "auto"):
            hits = ask(con, QUERY, {"k": 20, "mode": mode}, "jammi_matches")
            assert len(hits) == len(NOTES)
            assert all(score == near and own is None for _, _, score, near, _, own in hits)
    assert len(caught) == 1
    said = [tuple(row) for row in con.execute("SELECT status, action FROM jammi_recover()").fetchall()]
    assert [status for status, _ in said] == ["ready"]
    assert "words of a segment are missing or damaged: SELECT * FROM jammi_refresh(" in said[0][1]
    assert con.execute("SELECT status, action FROM jammi_recover()").fetchall() == said
    if by == "refresh":
        assert refresh(con) == [(0, 0, 0, 0)]
    else:
        assert con.execute("SELECT row_count FROM jammi_index_words('t')").fetchall() == [(4,)]
    assert con.execute("FROM jammi_recover()").fetchall() == []
    whole(con, NOTES)
    con.close()
    # Another process has no memory of what it has checked.
    con = world.open()
    whole(con, NOTES)
    con.execute("FROM jammi_vacuum()").fetchall()
    state = state_of(world)
    assert set(world.store().files()) == {state.file, *(file.file for file in state.files)}
    whole(con, NOTES)
    con.close()


class TestDamage:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("world", ["memory", S3], indirect=True)
    @pytest.mark.parametrize("how", ["missing", "altered"])
    def test_a_damaged_file_in_an_object_store(self, built, how):
        self.test_a_damaged_file(built, how, "refresh")

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("by", ["refresh", "index_words"])
    @pytest.mark.parametrize("how", ["missing", *SPOILT])
    def test_a_damaged_file(self, built, how, by):
        store = built.store()
        first, second = (segment.sidecars["words"].file for segment in state_of(built).segments)
        if how == "missing":
            lose(built, first)
        else:
            put(built, first, SPOILT[how](store.read(first), store.read(second)))
        mended(built, built.open(), by)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("by", ["refresh", "index_words"])
    @pytest.mark.parametrize("how", FORGED)
    def test_a_forged_file_whose_sha256_fits(self, built, how, by):
        """A manifest is not signed."""
        store, state = built.store(), state_of(built)
        digest = state.segments[0].sidecars["words"]
        forged = FORGED[how](store.read(digest.file), b"")
        put(built, digest.file, forged)
        fits = replace(digest, size=len(forged), sha256=hashlib.sha256(forged).hexdigest())
        first = replace(state.segments[0], sidecars={**state.segments[0].sidecars, "words": fits})
        put(built, state.file, replace(state, segments=(first, *state.segments[1:])).to_bytes())
        mended(built, built.open(), by)

    def test_one_that_the_manifest_does_not_name_is_found_by_its_parquet_file(self, built):
        """The manifest is lost; what it said is in the Parquet files, and words say which of these they are of."""
        state = state_of(built)
        lose(built, state.file)
        con = built.open()
        with pytest.warns(JammiWarning, match="the search index of '.*' cannot be used"):
            whole(con, NOTES)
        ((action,),) = con.execute("SELECT action FROM jammi_recover()").fetchall()
        assert action == "built 2 of 2 indexes and the manifest again"
        assert [each.sidecars["words"] for each in state_of(built).segments] == [
            each.sidecars["words"] for each in state.segments
        ]
        whole(con, NOTES)
        con.close()

    def test_a_lost_manifest_and_lost_words(self, built):
        state = state_of(built)
        lose(built, state.file)
        lose(built, state.segments[1].sidecars["words"].file)
        con = built.open()
        ((action,),) = con.execute("SELECT action FROM jammi_recover()").fetchall()
        assert "indexes and the manifest again; words of a segment are missing or damaged: " in action
        refresh(con)
        whole(con, NOTES)
        con.close()

    @pytest.mark.parametrize("how", [*SPOILT, "of other rows"])
    def test_a_lost_manifest_and_damaged_words_are_not_taken(self, built, how):
        """There is no SHA-256 of them then but their own."""
        store, state = built.store(), state_of(built)
        first, second = (segment.sidecars["words"].file for segment in state.segments)
        put(built, first, {**SPOILT, **FORGED}[how](store.read(first), store.read(second)))
        lose(built, state.file)
        con = built.open()
        con.execute("FROM jammi_recover()").fetchall()
        assert ["words" in segment.sidecars for segment in state_of(built).segments] == [False, True]
        refresh(con)
        whole(con, NOTES)
        con.close()

    def test_an_index_and_words_that_are_lost_together(self, built):
        state = state_of(built)
        for kind in ("usearch", "words"):
            lose(built, state.segments[0].sidecars[kind].file)
        con = built.open()
        ((action,),) = con.execute("SELECT action FROM jammi_recover()").fetchall()
        assert action.startswith("built 1 of 2 indexes and the manifest again; words of a segment are missing")
        refresh(con)
        whole(con, NOTES)
        con.close()

    def test_a_compaction_of_damaged_words_leaves_the_segment_without(self, built):
        con = built.open()
        con.execute("DELETE FROM t WHERE id = 1")
        refresh(con)
        con.close()
        state = state_of(built)
        lose(built, state.segments[1].sidecars["words"].file)
        con = built.open()
        con.execute("FROM jammi_compact('t')").fetchall()
        left = {key: text for key, text in NOTES.items() if key != 1}
        assert "are missing or damaged" in con.execute("SELECT action FROM jammi_recover()").fetchall()[0][0]
        refresh(con)
        whole(con, left)
        con.close()


AFTER = {**{key: text for key, text in NOTES.items() if key not in (1, 2)}, 5: "A pipe that was broken", 9: "pipe line"}


def generate(con):
    return con.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id')").fetchall()


def index_words(con):
    return con.execute("SELECT language FROM jammi_index_words('t')").fetchall()


def compact(con):
    return con.execute("SELECT segments FROM jammi_compact('t')").fetchall()


def settled(world, con, source):
    """What must hold whatever happened: after a refresh, all is whole, and a vacuum leaves what the state names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JammiWarning)
        assert len(ask(con, QUERY, {"k": 20}, "jammi_matches")) >= 1
    assert world.store().scratches() == {}
    con.execute("FROM jammi_refresh('t')").fetchall()
    whole(con, source)
    con.execute("FROM jammi_vacuum()").fetchall()
    state = state_of(world)
    assert all("words" in segment.sidecars for segment in state.segments if segment.rows)
    assert set(world.store().files()) == {state.file, *(file.file for file in state.files)}
    whole(con, source)


@pytest.fixture
def behind(built):
    """A world whose table lacks the words of a segment, and is behind its source."""
    con = built.open()
    fill(con, AFTER)
    con.close()
    lose(built, state_of(built).segments[1].sidecars["words"].file)
    return built


@pytest.fixture
def without(world):
    """A world with a table without words."""
    con = world.open()
    con.execute("FROM jammi_generate('t', 'text', 'id', words := false)").fetchall()
    con.close()
    return world


@pytest.fixture
def scattered(built):
    """A world whose table has segments to merge."""
    con = built.open()
    fill(con, AFTER)
    refresh(con)
    con.close()
    return built


@pytest.fixture(params=[9, pytest.param(1, marks=pytest.mark.long)])
def step(request):
    """Every so many operations are tried."""
    return request.param


# A real server is not brought back to what it was.
FILES = pytest.mark.parametrize("world", ["disk", pytest.param("memory", marks=pytest.mark.long)], indirect=True)


@FILES
class TestEveryOperation:
    """Each operation that changes something is the last one of a process, or fails once."""

    def test_a_refresh_that_indexes_words_again_dies(self, behind, monkeypatch, step):
        for _ in every_death(behind, monkeypatch, refresh, step):
            con = behind.open()
            settled(behind, con, AFTER)
            con.close()

    def test_words_are_indexed_and_the_process_dies(self, without, monkeypatch, step):
        outcomes = set()
        for death in every_death(without, monkeypatch, index_words, step):
            con = without.open()
            assert without.store().scratches() == {}, death.at
            has_words = state_of(without).definition.words is not None
            outcomes.add(has_words)
            if has_words:
                whole(con, NOTES)
            assert index_words(con) == [("english",)]
            settled(without, con, NOTES)
            con.close()
        assert outcomes == {False, True}

    def test_a_build_dies_and_is_resumed(self, world, monkeypatch, step):
        for _ in every_death(world, monkeypatch, generate, step):
            con = world.open()
            con.execute("FROM jammi_generate('t', 'text', 'id', reuse := true)").fetchall()
            for (name,) in con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'failed'").fetchall():
                con.execute("FROM jammi_drop(?)", [name]).fetchall()
            settled(world, con, NOTES)
            con.close()

    def test_a_compaction_dies(self, scattered, monkeypatch, step):
        for _ in every_death(scattered, monkeypatch, compact, step):
            con = scattered.open()
            whole(con, AFTER)
            settled(scattered, con, AFTER)
            con.close()

    def test_a_refresh_fails(self, behind, monkeypatch, step):
        for con, _, _ in every_failure(behind, monkeypatch, refresh, step):
            con.execute("FROM jammi_recover()").fetchall()
            settled(behind, con, AFTER)

    def test_indexing_words_fails(self, without, monkeypatch, step):
        before = set(without.store().files())
        outcomes = set()
        for con, failed, at in every_failure(without, monkeypatch, index_words, step):
            con.execute("FROM jammi_recover()").fetchall()
            has_words = state_of(without).definition.words is not None
            outcomes.add((failed, has_words))
            if not has_words:
                assert failed
                assert set(without.store().files()) == before, at
            assert index_words(con) == [("english",)]
            settled(without, con, NOTES)
        assert (True, False) in outcomes

    def test_a_compaction_fails(self, scattered, monkeypatch, step):
        for con, _, _ in every_failure(scattered, monkeypatch, compact, step):
            con.execute("FROM jammi_recover()").fetchall()
            whole(con, AFTER)
            settled(scattered, con, AFTER)
