"""An import ends at any operation: it is ready and whole, or failed, and then the next one makes it good."""

from datetime import timedelta

import pytest

from jammi_duck.storage.files import layout
from tests.test_refresh_faults import AFTER, SEGMENT_ROWS, fill, holds, refresh, resume
from tests.worlds import PLACES, World, every_death, every_failure

COLUMNS = ", cols := ['text']"


@pytest.fixture(params=PLACES)
def world(request, fake, tmp_path):
    """A world with a source, and vectors of its texts in a table."""
    place, step = request.param
    location = str(tmp_path / "world" / "artifacts") if place == "disk" else f"memory://{tmp_path.name}"
    world = World(fake, tmp_path, location, segment_rows=SEGMENT_ROWS, retention=timedelta(0))
    world.step = step
    con = world.open()
    fill(con, AFTER)
    con.execute("CREATE TABLE made AS SELECT id, embed(text) AS v FROM t")
    con.close()
    yield world
    world.forget()


def take(con, columns=""):
    query = f"SELECT row_count FROM jammi_import('t', 'made', 'id', 'v', model := 'fake/small'{columns})"
    return con.execute(query).fetchall()


def statuses(con):
    return [status for (status,) in con.execute("SELECT status FROM jammi_tables()").fetchall()]


def is_whole(con, world, at, *, keeps):
    """The import is ready, or failed and leaves nothing but whole segments, if it `keeps` these; tells which."""
    assert world.store().scratches() == {}, at
    found = statuses(con)
    assert found in ([], ["failed"], ["ready"]), at
    if found == ["ready"]:
        holds(con, AFTER, words=False)
    else:
        left = {layout.parse(file).kind for file in world.store().files()}
        assert left <= ({"parquet", "words"} if keeps else set()), at
    return found == ["ready"]


@pytest.mark.parametrize("columns", [pytest.param("", marks=pytest.mark.long), COLUMNS], ids=["no columns", "columns"])
class TestImport:
    def test_dies(self, world, monkeypatch, columns):
        """With columns it goes on as a build: its vectors are of the same model and texts."""
        outcomes, encoded = set(), set()
        for death in every_death(world, monkeypatch, lambda con: take(con, columns)):
            con = world.open()
            is_ready = is_whole(con, world, death.at, keeps=bool(columns))
            outcomes.add(is_ready)
            if not is_ready:
                world.encoded.clear()
                assert (resume(con) if columns else take(con)) == [(len(AFTER),)], death.at
                encoded.add(len(world.encoded))
            assert refresh(con) == [(0, 0, 0, 0)] or not columns
            holds(con, AFTER, words=bool(columns))
            con.close()
        assert outcomes == {False, True}
        # Nothing was left of the import, one segment, or two: two rows of the last one have one text.
        assert encoded == ({len(AFTER), len(AFTER) - SEGMENT_ROWS - 1, 1} if columns else {0})

    def test_fails(self, world, monkeypatch, columns):
        outcomes = set()
        for con, failed, at in every_failure(world, monkeypatch, lambda con: take(con, columns)):
            con.execute("FROM jammi_recover()").fetchall()
            is_ready = is_whole(con, world, at, keeps=bool(columns))
            outcomes.add((failed, is_ready))
            if not is_ready:
                assert failed
                assert take(con, columns) == [(len(AFTER),)], at
            holds(con, AFTER, words=bool(columns))
        assert (True, False) in outcomes
        assert True in {is_ready for _, is_ready in outcomes}
