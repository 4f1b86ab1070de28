"""Random histories of a table that follows its source: after each step it holds what a fresh build would hold.

Two databases share a location, each with a source of its own. A plain dict says what each source has, and another what
the table must hold, for both: what one has changed, compacted, vacuumed or dropped, the other sees without a new
install. A process may die at any operation, a change may find that another was first, clocks jump, and files of a later
version lie about.
"""

import contextlib
import shutil
import tempfile
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jammi_duck import JammiWarning
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.index import graph, plan
from jammi_duck.storage.tables import change
from tests.fakes import text_vector
from tests.faults import Failure, dying
from tests.histories import SEGMENT_ROWS, Database, ask, embedded, has_text, nearest, to_encode
from tests.later import check_all_there, lie_about
from tests.test_others import jump

BLANK = [None, "", " \t", "\u2003"]
# A text that the encoder fails at has no vector; capital letters are another text with the same vector.
TEXTS = [*BLANK, "unencodable one", "unencodable two", "Cat", *(f"{a} {b}" for a in ("cat", "dog") for b in "abcd")]
QUERIES = ["cat", "dog b", "cat a dog c"]
WORDS = ["cat", "dog"]

KEYS = st.integers(0, 23)
SIDES = st.sampled_from(["left", "right"])
RIVALS = st.sampled_from(["refresh", "compact"])
OPERATIONS = st.sampled_from(["refresh", "compact"])


class History(RuleBasedStateMachine):
    """`location_in` says where the table is."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="history-"))
        self.location = self.location_in(self.folder)
        self.databases = {side: Database(self.folder, side, self.location) for side in ("left", "right")}
        # What the newest state holds, and whether vectors that no state has may lie about, which spare encoding.
        self.table = {}
        self.spare = False
        self.later = {}
        self.patch = pytest.MonkeyPatch()
        self.quiet = contextlib.ExitStack()
        self.quiet.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")

    @initialize(texts=st.lists(st.sampled_from(TEXTS), max_size=14), by_graph=st.booleans())
    def build(self, texts, by_graph):
        self.patch.setattr(*((graph, "graph_ms") if by_graph else (plan, "exact_ms")), lambda *_: 0.0)
        left, right = self.databases["left"], self.databases["right"]
        left.open()
        left.put(dict(enumerate(texts)))
        self.name = ask(left.con, "FROM jammi_generate('t', 'text', 'id')")["embedding_table"]
        self.table = embedded(left.source)
        self.newest = 1
        right.open()
        right.put(dict(enumerate(texts)))
        self.later = lie_about(left.store(), self.name)

    # What happens to a source.

    @rule(side=SIDES, key=KEYS, text=st.sampled_from(TEXTS))
    def put(self, side, key, text):
        self.databases[side].put({key: text})

    @rule(side=SIDES, keys=st.sets(KEYS, min_size=2, max_size=12), text=st.sampled_from(TEXTS))
    def give_the_same_text(self, side, keys, text):
        self.databases[side].put(dict.fromkeys(sorted(keys), text))

    @rule(side=SIDES, first=KEYS, texts=st.lists(st.sampled_from(TEXTS), min_size=3, max_size=12))
    def put_many(self, side, first, texts):
        self.databases[side].put(dict(enumerate(texts, first)))

    @rule(side=SIDES, keys=st.sets(KEYS, min_size=1, max_size=8))
    def delete(self, side, keys):
        self.databases[side].delete(sorted(keys))

    @rule(side=SIDES, pair=st.data())
    def swap(self, side, pair):
        source = self.databases[side].source
        if len(source) > 1:
            keys = st.sampled_from(sorted(source))
            a = pair.draw(keys)
            b = pair.draw(keys)
            self.databases[side].put({a: source[b], b: source[a]})

    # What happens to the table.

    @rule(side=SIDES)
    def refresh(self, side):
        self.refreshes(side, self.databases[side].con)

    @rule(side=SIDES)
    def refresh_twice(self, side):
        database = self.databases[side]
        self.refreshes(side, database.con)
        files = database.store().files()
        self.refreshes(side, database.con)
        assert database.store().files() == files

    @rule(side=SIDES)
    def compact(self, side):
        self.compacts(self.databases[side].con)

    @rule(side=SIDES, operation=OPERATIONS, rivals=st.lists(st.tuples(SIDES, RIVALS), min_size=1, max_size=2))
    def another_is_first(self, side, operation, rivals):
        """Just before a change commits, others do: of the other database, or of another connection to this one."""
        database = self.databases[side]
        commit, waiting = manifest.commit, list(rivals)

        def late(*arguments):
            if not waiting:
                return commit(*arguments)
            theirs, what = waiting.pop(0)
            left, waiting[:] = waiting[:], []
            rival = self.databases[theirs]
            if what == "refresh":
                self.refreshes(theirs, rival.other, exactly=False)
            else:
                self.compacts(rival.other)
            waiting[:] = left
            return commit(*arguments)

        base = dict(self.table)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(change.manifest, "commit", late)
            if operation == "refresh":
                self.refreshes(side, database.con, base, exactly=side not in {theirs for theirs, _ in rivals})
            else:
                self.compacts(database.con)

    @rule(side=SIDES, recover=st.booleans())
    def vacuum(self, side, recover):
        database = self.databases[side]
        if recover:
            database.con.execute("FROM jammi_recover()").fetchall()
        database.con.execute("FROM jammi_vacuum()").fetchall()
        store = database.store()
        state = manifest.read(store, layout.manifest(self.name, self.newest))
        assert set(store.files()) == {state.file, *(file.file for file in state.files), *self.later}
        assert store.scratches() == {}
        self.spare = False

    @rule(sides=st.permutations(["left", "right"]), both=st.booleans())
    def drop_another(self, sides, both):
        """A newer table of the source is made, known to both or to one, and dropped: what was there before is there."""
        one, other = (self.databases[side] for side in sides)
        made = ask(one.con, "FROM jammi_generate('t', 'text', 'id', name := 'another')")["embedding_table"]
        assert self.chosen(one.con) == made
        if both:
            other.con.execute("FROM jammi_recover()").fetchall()
            assert self.chosen(other.other) == made
        one.con.execute("FROM jammi_drop(?)", [made]).fetchall()
        if both:
            with pytest.warns(JammiWarning, match="is taken instead"):
                assert self.chosen(other.con) == self.name
            rows = other.con.execute("SELECT embedding_table FROM jammi_tables() WHERE status = 'gone'").fetchall()
            assert (made,) in rows
            other.con.execute("FROM jammi_drop(?)", [made]).fetchall()

    @rule(seconds=st.sampled_from([-31_536_000, -3600, 0, 3600, 31_536_000]))
    def jump(self, seconds):
        """The clock goes to another time."""
        jump(self.patch, timedelta(seconds=seconds))

    @rule(side=SIDES)
    def open_again(self, side):
        database = self.databases[side]
        database.close()
        self.opens(side)

    # What goes wrong.

    @rule(side=SIDES, operation=OPERATIONS, last=st.integers(1, 60), after=st.booleans(), again=st.integers(0, 12))
    def die(self, side, operation, last, after, again):
        """The process dies at an operation, and where `again` is not 0, the next one dies while it settles that."""
        database = self.databases[side]
        with pytest.MonkeyPatch.context() as patch, dying(patch, last, after) as death:
            with contextlib.suppress(duckdb.Error, BaseException):
                database.con.execute(f"FROM jammi_{operation}('t')").fetchall()
            database.close()
        if again:
            with pytest.MonkeyPatch.context() as patch, dying(patch, again, after):
                with contextlib.suppress(duckdb.Error, BaseException):
                    database.open()
                    database.close()
        self.opens(side, either=operation == "refresh")
        if operation == "refresh" and not death.dead:
            assert self.table == embedded(database.source)
        self.spare = True

    @rule(side=SIDES, operation=OPERATIONS, last=st.integers(1, 40))
    def fail(self, side, operation, last):
        """The disk fails once. If the change ends with that, it leaves vectors at most, or it was committed."""
        database = self.databases[side]
        before = set(database.store().files())
        newest = self.newest
        with pytest.MonkeyPatch.context() as patch, dying(patch, last, kind=Failure) as failure:
            try:
                database.con.execute(f"FROM jammi_{operation}('t')").fetchall()
                failed = False
            except duckdb.Error:
                assert failure.dead
                failed = True
        database.con.execute("FROM jammi_recover()").fetchall()
        self.newest = self.number()
        if operation == "refresh":
            self.either(side)
        left = set(database.store().files()) - before
        if self.newest == newest and left:
            assert operation == "refresh"
            assert {"parquet"} <= {layout.parse(file).kind for file in left} <= {"parquet", "words"}, failure.at
            self.spare = True
        if not failed and operation == "refresh":
            assert self.table == embedded(database.source)
        assert database.store().scratches() == {}

    # What must hold.

    def refreshes(self, side, con, base=None, exactly=True):
        database = self.databases[side]
        base = dict(self.table) if base is None else base
        start = len(database.encoded)
        done = ask(con, "FROM jammi_refresh('t')")
        encoded, wanted = database.encoded[start:], to_encode(database.source, base)
        texts = {key: text for key, text in database.source.items() if has_text(text)}
        changed = {key for key in base.keys() & texts.keys() if base[key] != texts[key]}
        told = {name: done[name] for name in ("added", "changed", "deleted", "unchanged", "failed")}
        assert told == {
            "added": len(texts.keys() - base.keys()),
            "changed": len(changed),
            "deleted": len(base.keys() - texts.keys()),
            "unchanged": len(base.keys() & texts.keys()) - len(changed),
            "failed": sum("unencodable" in text for text in texts.values()),
        }
        if exactly:
            assert done["encoded"] == len(encoded)
            assert max(Counter(encoded).values(), default=1) == 1
        if exactly and not self.spare:
            assert set(encoded) == wanted
        assert set(encoded) <= wanted or not exactly
        assert done["encoded"] <= len(wanted)
        self.table = embedded(database.source)
        self.newest = self.number()

    def compacts(self, con):
        done = ask(con, "FROM jammi_compact('t')")
        self.newest = self.number()
        assert done["segments"] == max(1, -(-len(self.table) // SEGMENT_ROWS))

    def number(self):
        """The number of the newest manifest."""
        files = self.databases["left"].store().files()
        return layout.parse(manifest.newest(files)[self.name]).number

    def opens(self, side, either=False):
        database = self.databases[side]
        database.open()
        assert database.store().scratches() == {}
        self.newest = self.number()
        if either:
            self.either(side)

    def either(self, side):
        """The table holds what it held, or what the source of this side wants."""
        database = self.databases[side]
        found, wanted = self.rows(database), embedded(database.source)
        if found.keys() == {str(key) for key in wanted} and all(
            np.array_equal(found[str(key)], text_vector(text)) for key, text in wanted.items()
        ):
            self.table = wanted

    def chosen(self, con):
        """The embedding table that a search is of, and a status."""
        con.execute("FROM jammi_matches('t', 'cat', 1)").fetchall()
        return ask(con, "FROM jammi_status('t')")["embedding_table"]

    def rows(self, database):
        database.con.execute("FROM jammi_tables()").fetchall()
        rows = database.con.execute(f'SELECT _row_id, vector FROM jammi."{self.name}"').fetchall()
        assert len({key for key, _ in rows}) == len(rows)
        return {key: np.array(vector, np.float32) for key, vector in rows}

    @invariant()
    @precondition(lambda self: hasattr(self, "name"))
    def both_are_right(self):
        for database in self.databases.values():
            self.check(database)
        check_all_there(self.databases["left"].store(), self.later)

    def check(self, database):
        con = database.con
        for query in QUERIES:
            for k, exact in ((3, False), (100, True)):
                hits = con.execute(
                    "SELECT _row_id, _similarity FROM jammi_matches('t', ?, ?, exact := ?, mode := 'vector')",
                    [query, k, exact],
                ).fetchall()
                expected = nearest(self.table, query, k)
                assert [key for key, _ in hits] == [key for key, _ in expected]
                np.testing.assert_allclose([s for _, s in hits], [s for _, s in expected], atol=1e-6)
        for word in WORDS:
            hits = con.execute("SELECT _row_id FROM jammi_matches('t', ?, 100, mode := 'text')", [word]).fetchall()
            having = {str(key) for key, text in self.table.items() if word in text.lower().split()}
            assert {key for (key,) in hits} == having
        counted = con.execute("SELECT status, row_count FROM jammi_tables()").fetchall()
        assert counted == [("ready", len(self.table))]
        found = self.rows(database)
        assert found.keys() == {str(key) for key in self.table}
        for key, text in self.table.items():
            np.testing.assert_allclose(found[str(key)], text_vector(text), atol=1e-6)
        texts = {key: text for key, text in database.source.items() if has_text(text)}
        both = texts.keys() & self.table.keys()
        changed = sum(texts[key] != self.table[key] for key in both)
        told = ask(con, "FROM jammi_status('t')")
        assert told["segments"] >= -(-len(self.table) // SEGMENT_ROWS)
        assert {name: told[name] for name in ("current", "new", "changed", "gone", "coverage")} == {
            "current": len(both) - changed,
            "new": len(texts) - len(both),
            "changed": changed,
            "gone": len(self.table) - len(both),
            "coverage": (len(both) - changed) / len(texts) if texts else 1.0,
        }

    def teardown(self):
        for database in self.databases.values():
            database.close()
        self.quiet.close()
        self.patch.undo()
        shutil.rmtree(self.folder)
        filesystem = fsspec.filesystem("memory")
        if filesystem.exists(f"/{self.folder.name}"):
            filesystem.rm(f"/{self.folder.name}", recursive=True)


class OnDisk(History):
    def location_in(self, folder):
        return str(folder / "artifacts")


class InMemory(History):
    def location_in(self, folder):
        return f"memory://{folder.name}"


LONG = {"stateful_step_count": 16, "deadline": None, "print_blob": True}
OnDisk.TestCase.settings = settings(max_examples=3, **LONG)
InMemory.TestCase.settings = settings(max_examples=2, **LONG)
TestOnDisk = OnDisk.TestCase
TestInMemory = InMemory.TestCase


@pytest.mark.long
class TestMoreOnDisk(OnDisk.TestCase):
    settings = settings(max_examples=40, **LONG)


@pytest.mark.long
class TestMoreInMemory(InMemory.TestCase):
    settings = settings(max_examples=15, **LONG)


@pytest.fixture
def history():
    """A history that a test writes itself."""
    machine = OnDisk()
    yield machine
    machine.teardown()


def test_a_change_that_finds_nothing_to_do_shows_what_another_database_has_done(history):
    history.build(["cat a", "cat b"], by_graph=True)
    history.put_many("left", 0, ["dog a", "dog b", "dog c", "cat a", "cat b", "cat c"])
    history.put_many("right", 0, ["dog a", "dog b", "dog c", "cat a", "cat b", "cat c"])
    history.refresh("left")
    history.refresh("right")
    history.both_are_right()
    history.compact("left")
    history.compact("right")
    history.both_are_right()
    assert history.newest == 3


def test_a_row_that_another_changed_and_this_one_deleted_is_gone(history):
    """Another is first twice: what it did to rows that this one leaves alone is undone, and nothing else comes back."""
    history.build(["cat a", "cat b", "cat c", "cat d"], by_graph=True)
    history.put_many("right", 0, ["dog a", "dog b", "dog c", "dog a"])
    history.delete("left", [0, 1])
    history.another_is_first("left", "refresh", [("right", "refresh"), ("right", "compact")])
    history.both_are_right()
    assert history.table == {2: "cat c", 3: "cat d"}


def test_files_of_an_earlier_state_are_not_taken_for_left_over_ones(history):
    """A compaction of nothing writes no segment, so theirs are the highest numbers."""
    history.build([], by_graph=False)
    history.put_many("right", 0, ["Cat"])
    history.refresh("right")
    history.refresh("left")
    history.compact("left")
    history.refresh("right")
    history.both_are_right()
