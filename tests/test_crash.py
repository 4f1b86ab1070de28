"""A process may die at any operation: what `install` then finds is settled, whole, and complete.

Operations on files and on the catalog are tried in turn as the last one, before and after they took effect; and
real processes are killed at random moments.
"""

import contextlib
import itertools
import random
import signal
import subprocess
import sys
import time
import warnings

import duckdb
import pytest

from jammi_duck.storage.files.parquet import read_footer
from tests.faults import dying
from tests.test_generate import generate
from tests.worlds import PLACES, World, die, every_death, every_failure

ROWS = 25


@pytest.fixture(params=PLACES)
def world(request, fake, tmp_path):
    """A world with two sources, of which one is embedded."""
    place, step = request.param
    location = str(tmp_path / "world" / "artifacts") if place == "disk" else f"memory://{tmp_path.name}"
    world = World(fake, tmp_path, location, segment_rows=10)
    world.step = step
    con = world.open()
    con.execute(f"CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range({ROWS})")
    con.execute("CREATE TABLE u AS FROM t LIMIT 7")
    generate(con, "u")
    con.close()
    yield world
    world.forget()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.long)], ids=["changes", "everything"])
def also_reading(request):
    return request.param


def whole_parquets(world):
    store = world.store()
    found = {}
    for file in store.files():
        if file.endswith(".parquet"):
            found[file] = read_footer(store.found(file)[1]).rows
    return found


def check(world, kept=()):
    """What must hold whatever happened; returns the ready tables as {source: number of tables}."""
    con = world.open()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = con.execute("SELECT embedding_table, source, status, row_count FROM jammi_tables()").fetchall()
        assert "building" not in {row[2] for row in rows}
        files = world.store().files()
        ready = {}
        for name, source, status, count in rows:
            if status == "ready":
                ready[source] = ready.get(source, 0) + 1
                expected = con.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
                assert count == expected
                assert con.execute(f'SELECT count(DISTINCT _row_id) FROM jammi."{name}"').fetchone()[0] == expected
                matches = "SELECT _row_id FROM jammi_matches(?, ?, 100, mode := ?)"
                found = con.execute(matches, [source, "word3", "vector"]).fetchall()
                assert len(found) == expected
                assert found[0] == ("3",)
                assert f"{name}.manifest.json" in files
                # A process that died after it wrote the last vectors has not written the words of these.
                lost = [action for table, _, action in recover(con) if table == name]
                if lost:
                    assert "words of a segment are missing or damaged" in lost[0]
                    encoded = con.execute("SELECT encoded FROM jammi_refresh(?)", [source]).fetchall()
                    assert encoded == [(0,)]
                    assert recover(con) == []
                assert len(con.execute(matches, [source, "word*", "text"]).fetchall()) == expected
    assert world.store().scratches() == {}
    assert set(kept) <= set(files)
    con.close()
    return ready


class TestEveryOperation:
    def test_generate(self, world, monkeypatch, also_reading):
        outcomes = set()
        for death in every_death(world, monkeypatch, build, also_reading=also_reading):
            kept = whole_parquets(world)
            ready = check(world, kept)
            assert ready["u"] == 1, death.at
            if sum(kept.values()) == ROWS + 7:
                assert ready.get("t") == 1, f"all vectors were whole at {death.at}, and the table is not ready"
            outcomes.add(ready.get("t", 0))
        assert outcomes == {0, 1}

    def test_drop(self, world, monkeypatch, also_reading):
        con = world.open()
        name = generate_name(con, "t")
        con.close()

        def drop(con):
            con.execute("FROM jammi_drop(?)", [name]).fetchall()

        outcomes = set()
        for death in every_death(world, monkeypatch, drop, also_reading=also_reading):
            ready = check(world)
            assert ready["u"] == 1, death.at
            outcomes.add(ready.get("t", 0))
            if not ready.get("t"):
                assert not [
                    file for file in world.store().files() if file.endswith("manifest.json") and file.startswith("t_")
                ]
        assert outcomes == {0, 1}

    def test_recover(self, world, monkeypatch, also_reading):
        con = world.open()
        name = generate_name(con, "t")
        con.close()
        for kind in ("usearch", "manifest.json"):
            world.store().delete(f"{name}.{kind}")

        for _ in every_death(world, monkeypatch, recover, also_reading=also_reading):
            con = world.open()
            recover(con)
            assert recover(con) == []
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert len(con.execute("FROM jammi_matches('t', 'word3', 100)").fetchall()) == ROWS
            con.close()

    def test_install_that_settles(self, world, monkeypatch, also_reading):
        """The recovery itself dies, and the next one still settles everything."""
        begun, count = world.save(), die(world, monkeypatch, build).count
        for last_of_build in range(count - 12, count + 1, 4):
            world.restore(begun)
            assert die(world, monkeypatch, build, last_of_build).dead
            kept, saved = whole_parquets(world), world.save()
            for last in itertools.count(1, world.step):
                world.restore(saved)
                with dying(monkeypatch, last, reading=also_reading) as death, contextlib.suppress(BaseException):
                    world.open().close()
                if not death.dead:
                    break
                check(world, kept)


def test_a_disk_that_fails_once_leaves_the_reason_and_whole_segments(world, monkeypatch, also_reading):
    before = set(world.store().files())
    outcomes, kept = set(), set()
    for con, _, at in every_failure(world, monkeypatch, build, also_reading=also_reading):
        recover(con)
        query = "SELECT status, error FROM jammi_catalog.embedding_tables WHERE source = 't'"
        ((status, error),) = con.execute(query).fetchall()
        outcomes.add(status)
        if status == "failed":
            assert "No space left on device" in error, at
            files = set(world.store().files())
            assert before <= files, at
            left = sum(rows for file, rows in whole_parquets(world).items() if file not in before)
            kept.add(left)
            assert (f"{left} embedded rows are kept" in error) == bool(left), at
        assert world.store().scratches() == {}, at
        con.close()
        check(world)
    assert outcomes == {"failed", "ready"}
    assert {0, ROWS} <= kept


def build(con):
    return generate(con, "t")


def recover(con):
    return con.execute("FROM jammi_recover()").fetchall()


def generate_name(con, source):
    rows = con.execute("SELECT embedding_table FROM jammi_generate(?, 'text', 'id')", [source]).fetchall()
    return rows[0][0]


CHILD = """
import sys, duckdb
from pathlib import Path
from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from tests.fakes import FakeEncoders

con = duckdb.connect(sys.argv[1])
config = Config(storage=sys.argv[2], model="fake/small", cache_dir=Path(sys.argv[3]), segment_rows=1000)
equip(con, config, FakeEncoders())
print("ready", flush=True)
while True:
    for statement in sys.argv[4:]:
        con.execute(statement).fetchall()
        print("done", flush=True)
"""


def killed(fake, tmp_path, *statements):
    """Connections to a database, each after a process was killed that repeated these statements.

    Each comes with the number of statements that the process had done. About half of the processes do all of them once,
    however busy the machine is.
    """
    database, storage = str(tmp_path / "db.duckdb"), str(tmp_path / "artifacts")
    chance, longest = random.Random(20260325), 1.2
    while True:
        command = [sys.executable, "-c", CHILD, database, storage, str(tmp_path / "cache"), *statements]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, longest))
        child.send_signal(signal.SIGKILL)
        done = child.stdout.read().count("done")
        longest *= 1.15 if done < len(statements) else 1 / 1.15
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        con = duckdb.connect(database)
        fake(con, segment_rows=1000)
        assert not list((tmp_path / "artifacts").rglob(".*"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield con, done
        con.close()


KILLED_ROWS = 3500


@pytest.fixture
def many(tmp_path):
    con = duckdb.connect(str(tmp_path / "db.duckdb"))
    con.execute(f"CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range({KILLED_ROWS})")
    con.close()


def test_processes_that_are_killed_while_they_build(many, fake, tmp_path):
    statuses = set()
    for kills, (con, _) in enumerate(killed(fake, tmp_path, "FROM jammi_generate('t', 'text', 'id')"), 1):
        assert kills < 100, statuses
        tables = con.execute("SELECT embedding_table, status, row_count FROM jammi_tables()").fetchall()
        for name, status, count in tables:
            statuses.add(status)
            if status == "ready":
                matches = "jammi_matches('t', 'word7', 10000, embedding_table := ?, mode := 'vector')"
                found = con.execute(f"SELECT count(*) FROM {matches}", [name]).fetchone()
                assert found == (KILLED_ROWS,) == (count,)
                assert con.execute(f'SELECT count(*) FROM jammi."{name}"').fetchone() == (KILLED_ROWS,)
        if kills >= 6 and statuses == {"ready", "failed"}:
            break


def test_processes_that_are_killed_while_they_refresh_and_compact(many, fake, tmp_path):
    con = duckdb.connect(str(tmp_path / "db.duckdb"))
    fake(con, segment_rows=1000)
    name = generate_name(con, "t")
    con.close()
    statements = (
        "UPDATE t SET text = 'word' || (random() * 5000)::INTEGER WHERE random() < 0.2",
        "DELETE FROM t WHERE random() < 0.1",
        f"INSERT INTO t SELECT range, 'new' || range FROM range({KILLED_ROWS}) ANTI JOIN t ON range = id",
        "FROM jammi_refresh('t')",
        "FROM jammi_compact('t')",
    )
    behind, most = set(), 0
    for kills, (con, done) in enumerate(killed(fake, tmp_path, *statements), 1):
        assert kills < 100, (behind, most)
        most = max(most, done)
        counts = {
            con.execute(f"SELECT count(DISTINCT _row_id) FROM {rows}").fetchone()
            for rows in (f'jammi."{name}"', "jammi_matches('t', 'word7', 10000)")
        }
        assert counts == set(con.execute("SELECT row_count FROM jammi_tables()").fetchall())
        ((new, changed, gone),) = con.execute("SELECT new, changed, gone FROM jammi_status('t')").fetchall()
        behind.add(new + changed + gone > 0)
        con.execute("FROM jammi_refresh('t')").fetchall()
        wrong = f"""FROM t FULL JOIN jammi."{name}" v ON t.id::VARCHAR = v._row_id
            WHERE (array_cosine_similarity(v.vector, embed(t.text)::FLOAT[64]) > 0.999) IS NOT TRUE"""
        assert con.execute(wrong).fetchall() == []
        if kills >= 4 and behind == {False, True} and most >= len(statements):
            break
