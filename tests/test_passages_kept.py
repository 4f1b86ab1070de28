"""An embedding table of passages through its life: after each change it holds what a fresh build would hold.

Whatever changes, only passages are embedded whose texts the table does not have; and a text is there whole or not.
"""

import hashlib
import itertools
from datetime import timedelta

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jammi_duck.encoder.passages import Cutter, embedded_text, resolve_rule
from tests.effort import some
from tests.fakes import FakeEncoder, text_vector
from tests.test_generate import error_of
from tests.worlds import World, every_death, every_failure

OPTIONS = "passages := {'tokens': 8, 'overlap': 2, 'title': 'title'}"
RULE = resolve_rule(FakeEncoder("fake/small"), 8, 2, None, ("title",))
_WORDS = itertools.permutations(("red", "green", "blue", "grey"), 3)
PARAGRAPHS = [f"{a} {b} {c} here. {b} {a} there." for a, b, c in _WORDS]
GENERATE = f"FROM jammi_generate('t', ['title', 'body'], 'id', {OPTIONS})"


def rows_of(title, body):
    """What a table holds of a row: of each passage its place, what was embedded, and the digest of the whole."""
    title, body = title or "", body or ""
    if not body.strip():
        return []
    cutter = Cutter(FakeEncoder("fake/small"), RULE)
    cut_title = cutter.title(title)
    cuts = cutter.cut(body, cut_title)
    whole = hashlib.md5(f"{len(title)}:{title}{body}".encode()).hexdigest()
    return [
        (passage, start, end, embedded_text(cut_title, body[start:end]), whole)
        for passage, (start, end) in enumerate(zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True))
    ]


def expected(source):
    return {
        (str(key), passage): (start, end, text, whole)
        for key, (title, body) in source.items()
        for passage, start, end, text, whole in rows_of(title, body)
    }


def put(con, source):
    con.execute("CREATE OR REPLACE TABLE t (id INTEGER, title VARCHAR, body VARCHAR)")
    if source:
        con.executemany("INSERT INTO t VALUES (?, ?, ?)", [(key, *texts) for key, texts in source.items()])


def check_holds(con, *sources):
    """Which of these sources the table holds; its files and its counts agree."""
    ((name, counted),) = con.execute(
        "SELECT embedding_table, row_count FROM jammi_tables() WHERE status = 'ready'"
    ).fetchall()
    found = con.execute(
        "SELECT _row_id, _passage, _start, _end, lower(hex(_text_digest)), lower(hex(_row_digest)), vector "
        f'FROM jammi."{name}"'
    ).fetchall()
    there = {(key, passage): rest for key, passage, *rest in found}
    assert len(there) == len(found)
    wanted = [expected(source) for source in sources]
    places = {key: (start, end, digest, whole) for key, (start, end, digest, whole, _) in there.items()}
    told = [
        {
            key: (start, end, hashlib.md5(text.encode()).hexdigest(), whole)
            for key, (start, end, text, whole) in each.items()
        }
        for each in wanted
    ]
    assert places in told
    place = told.index(places)
    for key, (_, _, text, _) in wanted[place].items():
        np.testing.assert_allclose(np.array(there[key][-1], np.float32), text_vector(text), atol=1e-6)
    assert counted == len({key for key, _ in wanted[place]})
    return sources[place]


def refresh(con):
    return con.execute("SELECT added, changed, deleted, encoded FROM jammi_refresh('t')").fetchall()


TEXTS = st.lists(st.sampled_from(PARAGRAPHS), max_size=6).map("\n\n".join)
TITLES = st.sampled_from([None, "one", "a title of many many words indeed"])
SOURCES = st.dictionaries(st.integers(0, 6), st.tuples(TITLES, TEXTS), max_size=6)


@settings(max_examples=some(25))
@given(
    sources=st.lists(SOURCES, min_size=2, max_size=4), acts=st.lists(st.sampled_from(["compact", "words", "fresh", ""]))
)
def test_after_any_change_a_table_holds_what_a_fresh_build_would(tmp_path_factory, sources, acts):
    from jammi_duck.config.options import Config
    from jammi_duck.doors.installation import equip
    from tests.fakes import FakeEncoders

    folder = tmp_path_factory.mktemp("kept")
    con, encoders = duckdb.connect(), FakeEncoders()
    try:
        config = Config(storage=str(folder), model="fake/small", cache_dir=folder / "cache", segment_rows=5)
        equip(con, config, encoders, {})
        put(con, sources[0])
        con.execute(GENERATE).fetchall()
        check_holds(con, sources[0])
        encoded = encoders.get("fake/small").encoded
        ever = {text for *_, text, _ in expected(sources[0]).values()}
        for source, act in itertools.zip_longest(sources[1:], acts[: len(sources) - 1], fillvalue=""):
            before = {text for *_, text, _ in expected(sources[0]).values()}
            put(con, source)
            encoded.clear()
            if act == "fresh":
                con.execute(
                    "FROM jammi_search('t', [1.0] || list_transform(range(63), lambda x: 0.0), fresh := true)"
                ).fetchall()
            else:
                refresh(con)
            wanted = {text for *_, text, _ in expected(source).values()} - before
            # A text that an earlier state had may still be stored.
            assert wanted - ever <= set(encoded) <= wanted
            ever |= wanted
            if act == "compact":
                con.execute("FROM jammi_compact('t')").fetchall()
            if act == "words":
                con.execute("FROM jammi_index_words('t', language := 'german')").fetchall()
            check_holds(con, source)
            assert con.execute("SELECT new, changed, gone, passages FROM jammi_status('t')").fetchall() == [
                (0, 0, 0, len(expected(source)))
            ]
            sources = [source, *sources[1:]]
    finally:
        con.close()


BEFORE = {key: ("one", "\n\n".join(PARAGRAPHS[key : key + 3])) for key in range(6)}
AFTER = {
    **{key: BEFORE[key] for key in (0, 1)},
    2: ("one", BEFORE[2][1].replace("here", "nowhere", 1)),
    3: ("another", BEFORE[3][1]),
    8: ("one", BEFORE[0][1]),
    9: ("new", "\n\n".join(PARAGRAPHS[10:16])),
}


@pytest.fixture
def world(fake, tmp_path):
    world = World(fake, tmp_path, str(tmp_path / "world" / "artifacts"), segment_rows=7, retention=timedelta(0))
    yield world
    world.forget()


@pytest.fixture
def behind(world):
    con = world.open()
    put(con, BEFORE)
    con.execute(GENERATE).fetchall()
    put(con, AFTER)
    con.close()
    return world


@pytest.mark.parametrize("step", [9, pytest.param(2, marks=pytest.mark.long)])
class TestFaults:
    def test_a_refresh_ends_anywhere(self, behind, monkeypatch, step):
        outcomes = set()
        for death in every_death(behind, monkeypatch, refresh, step):
            con = behind.open()
            state = check_holds(con, BEFORE, AFTER)
            ((*differ, _),) = refresh(con)
            assert differ == ([0, 0, 0] if state == AFTER else [2, 2, 2]), death.at
            check_holds(con, AFTER)
            con.close()
            outcomes.add(state == AFTER)
        assert outcomes == {False, True}

    def test_an_operation_of_a_refresh_fails(self, behind, monkeypatch, step):
        outcomes = set()
        for con, failed, _ in every_failure(behind, monkeypatch, refresh, step):
            con.execute("FROM jammi_recover()").fetchall()
            outcomes.add((failed, check_holds(con, BEFORE, AFTER) == AFTER))
            refresh(con)
            check_holds(con, AFTER)
        assert (True, False) in outcomes

    def test_a_build_goes_on(self, world, monkeypatch, step):
        con = world.open()
        put(con, AFTER)
        con.close()

        def generate(con):
            con.execute(GENERATE).fetchall()

        left = set()
        for _ in every_death(world, monkeypatch, generate, step):
            con = world.open()
            world.encoded.clear()
            con.execute(GENERATE.replace(OPTIONS, f"{OPTIONS}, resume := true")).fetchall()
            left.add(len(world.encoded))
            con.execute(
                "SELECT count(jammi_drop) FROM (SELECT embedding_table AS jammi_drop FROM jammi_tables())"
            ).fetchall()
            names = con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'ready'").fetchall()
            for (name,) in names[:-1]:
                con.execute("FROM jammi_drop(?)", [name]).fetchall()
            check_holds(con, AFTER)
            con.close()
        assert len(left) > 2

    def test_a_compaction_ends_anywhere(self, behind, monkeypatch, step):
        con = behind.open()
        refresh(con)
        con.close()

        def compact(con):
            con.execute("FROM jammi_compact('t')").fetchall()

        for _ in every_death(behind, monkeypatch, compact, step):
            con = behind.open()
            check_holds(con, AFTER)
            compact(con)
            check_holds(con, AFTER)
            con.close()


def test_another_was_first(behind, monkeypatch):
    """Two databases refresh at once: what both have done is there, and each text is counted once."""
    from jammi_duck.storage.tables import change

    behind.copy("other")
    first, second = behind.open(), behind.open("other")
    real, done = change.Change._commit, []

    def late(self, counts):
        if not done:
            done.append(True)
            put(second, {**AFTER, 2: ("one", "quite another text")})
            refresh(second)
        return real(self, counts)

    monkeypatch.setattr(change.Change, "_commit", late)
    refresh(first)
    check_holds(first, AFTER)
    refresh(first)
    check_holds(first, AFTER)
    first.close()
    second.close()


def test_a_text_that_fails_is_there_whole_or_not_at_all(jammi, con):
    put(con, {1: ("t", "\n\n".join([*PARAGRAPHS[:3], "unencodable words here"])), 2: ("t", PARAGRAPHS[0])})
    assert con.execute(f"SELECT row_count, failed_count, passage_count {GENERATE}").fetchall() == [(1, 1, 2)]
    check_holds(con, {2: ("t", PARAGRAPHS[0])})
    con.execute("UPDATE t SET body = replace(body, 'unencodable', 'encodable')")
    assert con.execute("SELECT added, failed FROM jammi_refresh('t')").fetchall() == [(1, 0)]


def test_titles_alone_are_no_texts(con):
    put(con, {1: ("title", "  "), 2: ("title", None), 3: (None, "a text")})
    assert con.execute(f"SELECT row_count, skipped_count, passage_count {GENERATE}").fetchall() == [(1, 2, 1)]
    check_holds(con, {3: (None, "a text")})
    con.execute("UPDATE t SET title = 'another' WHERE id < 3")
    assert refresh(con) == [(0, 0, 0, 0)]
    con.execute("UPDATE t SET title = 'another' WHERE id = 3")
    assert refresh(con) == [(0, 1, 0, 1)]


def test_one_table_for_each_way_to_cut(con):
    put(con, BEFORE)

    def sync(passages):
        text = f"SELECT embedding_table, action FROM jammi_sync('t', ['title', 'body'], 'id', passages := {passages})"
        return con.execute(text).fetchall()[0]

    options = ("", ", 'by': 'sentence'", ", 'title': 'title'", ", 'by': 'word'")
    ways = [*(f"{{'tokens': 8{each}}}" for each in options), "false"]
    with pytest.warns(match="passages := true"):
        made = [sync(way)[0] for way in ways]
    assert len(set(made)) == len(ways)
    assert [sync(way) for way in ways] == [(name, "unchanged") for name in made]
    again = f"SELECT embedding_table {GENERATE}".replace("'overlap': 2, ", "").replace(")", ", reuse := true)")
    assert con.execute(again).fetchall() == [(made[2],)]


def test_a_followed_source(con):
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, title VARCHAR, body VARCHAR)")
    con.executemany("INSERT INTO t VALUES (?, ?, ?)", [(key, *texts) for key, texts in BEFORE.items()])
    con.execute(GENERATE).fetchall()
    con.execute("FROM jammi_follow('t')").fetchall()
    con.execute("UPDATE t SET body = 'purple words alone' WHERE id = 1")
    con.execute("INSERT INTO t VALUES (20, 'one', 'orange words alone')")
    con.execute("DELETE FROM t WHERE id = 2")
    found = con.execute("SELECT id FROM jammi_search('t', 'orange words alone', 1)").fetchall()
    assert found == [(20,)]
    now = {key: texts for key, texts in BEFORE.items() if key != 2}
    check_holds(con, {**now, 1: ("one", "purple words alone"), 20: ("one", "orange words alone")})


class TestImports:
    @pytest.fixture
    def made(self, con):
        """Vectors of every passage of a table, as another program may have made them."""
        put(con, BEFORE)
        rows = [
            (key, start, end, text_vector(text).tolist())
            for key, texts in BEFORE.items()
            for _, start, end, text, _ in rows_of(*texts)
        ]
        con.execute("CREATE TABLE made (id INTEGER, s BIGINT, e BIGINT, v FLOAT[])")
        con.executemany("INSERT INTO made VALUES (?, ?, ?, ?)", rows)
        return con

    def imported(self, con, options):
        call = f"jammi_import('t', 'made', 'id', 'v', model := 'fake/small', {options})"
        return con.execute(f"SELECT row_count, passage_count FROM {call}").fetchall()

    def test_with_their_places(self, made):
        options = (
            "cols := ['body'], passages := {'tokens': 8, 'overlap': 2, 'title': 'title', 'start': 's', 'end': 'e'}"
        )
        assert self.imported(made, options) == [(len(BEFORE), len(expected(BEFORE)))]
        check_holds(made, BEFORE)
        put(made, AFTER)
        assert refresh(made)[0][:3] == (2, 2, 2)
        check_holds(made, AFTER)

    def test_without(self, made):
        assert self.imported(made, "passages := true") == [(len(BEFORE), len(expected(BEFORE)))]
        found = made.execute("SELECT id FROM jammi_search('t', ?, 3)", [text_vector("one " + PARAGRAPHS[2]).tolist()])
        assert len(set(found.fetchall())) == 3

    def test_where_some_places_are_not_known(self, made):
        made.execute("UPDATE made SET s = NULL, e = NULL WHERE id = 1")
        options = "cols := ['body'], passages := {'tokens': 8, 'title': 'title', 'start': 's', 'end': 'e'}"
        assert self.imported(made, options) == [(len(BEFORE), len(expected(BEFORE)))]
        found = made.execute("SELECT id, _passage_text IS NULL FROM jammi_search('t', 'one red green', 10)").fetchall()
        assert sorted(found) == [(key, key == 1) for key in BEFORE]
        found = made.execute("SELECT id FROM jammi_search('t', 'here', 10, mode := 'text')").fetchall()
        assert sorted(found) == [(key,) for key in BEFORE if key != 1]
        made.execute("FROM jammi_refresh('t')").fetchall()
        assert made.execute("SELECT advice FROM jammi_status('t')").fetchall() == [(None,)]

    def test_mistakes(self, made):
        for options, message in {
            "cols := 'body'": "the key 'id' of 'made' is not unique.*passages := true",
            "passages := {'start': 's'}": 'start and end are "s" and null; give both',
            "passages := {'start': 's', 'end': 'e'}": "name the columns",
            "cols := 'body', passages := {'start': 'e', 'end': 's'}": "are not in the text of their row",
            "cols := 'body', passages := {'begin': 's'}": "passages has no 'begin'",
        }.items():
            with pytest.raises(duckdb.Error, match=message):
                self.imported(made, options)

    def test_words_need_places(self, made):
        self.imported(made, "cols := 'body', passages := true")
        assert "places" in error_of(made, "FROM jammi_index_words('t')")
