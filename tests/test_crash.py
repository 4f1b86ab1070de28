"""A process may die at any operation: what `install` then finds is settled, whole, and complete.

Every operation on files and on the catalog is tried in turn as the last one, before and after it took effect; and
real processes are killed at random moments.
"""

import contextlib
import random
import signal
import subprocess
import sys
import time
import warnings

import duckdb
import fsspec
import pytest

from jammi_duck.storage.location import open_store
from jammi_duck.storage.parquet import read_footer
from tests.faults import Failure, dying
from tests.test_generate import generate

ROWS = 25


@pytest.fixture(params=["disk", "memory"])
def world(request, fake, tmp_path):
    """A database file and a location that a test opens, kills and opens again."""
    location = str(tmp_path / "artifacts") if request.param == "disk" else f"memory://crash-{tmp_path.name}"
    yield World(fake, tmp_path, location)
    if request.param == "memory":
        filesystem = fsspec.filesystem("memory")
        for path in filesystem.ls("/", detail=False):
            filesystem.rm(path, recursive=True)


class World:
    def __init__(self, fake, folder, location):
        self.fake = fake
        self.folder = folder
        self.location = location
        self.rounds = 0

    def new(self):
        """A fresh database and location."""
        self.rounds += 1
        self.database = str(self.folder / f"db{self.rounds}.duckdb")
        self.place = f"{self.location}/{self.rounds}"
        con = duckdb.connect(self.database)
        con.execute(f"CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range({ROWS})")
        con.execute("CREATE TABLE u AS FROM t LIMIT 7")
        con.close()

    def open(self):
        con = duckdb.connect(self.database)
        try:
            self.fake(con, storage=self.place, segment_rows=10, cache_dir=self.folder / f"cache{self.rounds}")
        except BaseException:
            con.close()
            raise
        return con

    def store(self):
        return open_store(self.place, self.folder / f"cache{self.rounds}")

    def whole_parquets(self):
        store = self.store()
        found = {}
        for file in store.files():
            if file.endswith(".parquet"):
                found[file] = read_footer(store.found(file)[1]).rows
        return found


def die(world, monkeypatch, work, last, after):
    """Run `work` on an open connection until its last operation; returns whether it died."""
    con = world.open()
    with dying(monkeypatch, last, after) as death:
        with contextlib.suppress(duckdb.Error, BaseException if death.last else ()):
            work(con)
        con.close()
    return death


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
                found = con.execute("SELECT _row_id FROM jammi_matches(?, 'word3', 100)", [source]).fetchall()
                assert len(found) == expected
                assert found[0] == ("3",)
                assert f"{name}.manifest.json" in files
    assert world.store().scratches() == {}
    assert set(kept) <= set(files)
    con.close()
    return ready


def every_death(world, monkeypatch, prepare, work):
    """Try each operation of `work` as the last one; yields after each death, before anything is opened again."""
    for after in (False, True):
        last = 0
        while True:
            last += 1
            world.new()
            prepare()
            death = die(world, monkeypatch, work, last, after)
            if not death.dead:
                assert last > 5
                break
            yield death


class TestEveryOperation:
    def test_generate(self, world, monkeypatch):
        def prepare():
            con = world.open()
            generate(con, "u")
            con.close()

        outcomes = set()
        for death in every_death(world, monkeypatch, prepare, lambda con: generate(con, "t")):
            kept = world.whole_parquets()
            ready = check(world, kept)
            assert ready["u"] == 1, death.at
            if sum(kept.values()) == ROWS + 7:
                assert ready.get("t") == 1, f"all vectors were whole at {death.at}, and the table is not ready"
            outcomes.add(ready.get("t", 0))
        assert outcomes == {0, 1}

    def test_drop(self, world, monkeypatch):
        def prepare():
            con = world.open()
            generate(con, "u")
            self.name = generate_name(con, "t")
            con.close()

        outcomes = set()
        for death in every_death(
            world, monkeypatch, prepare, lambda con: con.execute("FROM jammi_drop(?)", [self.name]).fetchall()
        ):
            ready = check(world)
            assert ready["u"] == 1, death.at
            outcomes.add(ready.get("t", 0))
            if not ready.get("t"):
                assert not [
                    file for file in world.store().files() if file.endswith("manifest.json") and file.startswith("t_")
                ]
        assert outcomes == {0, 1}

    def test_recover(self, world, monkeypatch):
        def prepare():
            con = world.open()
            self.name = generate_name(con, "t")
            con.close()
            for kind in ("usearch", "manifest.json"):
                world.store().delete(f"{self.name}.{kind}")

        for _ in every_death(world, monkeypatch, prepare, lambda con: con.execute("FROM jammi_recover()").fetchall()):
            con = world.open()
            con.execute("FROM jammi_recover()").fetchall()
            assert con.execute("FROM jammi_recover()").fetchall() == []
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert len(con.execute("FROM jammi_matches('t', 'word3', 100)").fetchall()) == ROWS
            con.close()

    def test_install_that_settles(self, world, monkeypatch):
        """The recovery itself dies, and the next one still settles everything."""

        def prepare():
            die(world, monkeypatch, lambda con: generate(con, "t"), last=self.last_of_build, after=True)
            self.kept = world.whole_parquets()

        self.last_of_build = 10**6
        world.new()
        death = die(world, monkeypatch, lambda con: generate(con, "t"), self.last_of_build, after=True)
        for last_of_build in range(death.count - 40, death.count, 13):
            self.last_of_build = last_of_build
            last = 0
            while True:
                last += 3
                world.new()
                prepare()
                with dying(monkeypatch, last, after=bool(last % 2)) as death, contextlib.suppress(BaseException):
                    world.open().close()
                if not death.dead:
                    break
                check(world, self.kept)


def test_a_disk_that_fails_once_leaves_the_reason_and_whole_segments(world, monkeypatch):
    outcomes, kept = set(), set()
    last = 0
    while True:
        last += 1
        world.new()
        con = world.open()
        generate(con, "u")
        before = set(world.store().files())
        with dying(monkeypatch, last, kind=Failure) as failure, contextlib.suppress(duckdb.Error):
            generate(con, "t")
        if not failure.dead:
            break
        con.execute("FROM jammi_recover()").fetchall()
        query = "SELECT status, error FROM jammi_catalog.embedding_tables WHERE source = 't'"
        ((status, error),) = con.execute(query).fetchall()
        outcomes.add(status)
        if status == "failed":
            assert "No space left on device" in error, failure.at
            files = set(world.store().files())
            assert before <= files, failure.at
            left = sum(world.whole_parquets()[file] for file in files - before)
            kept.add(left)
            assert (f"{left} embedded rows are kept" in error) == bool(left), failure.at
        assert world.store().scratches() == {}, failure.at
        con.close()
        check(world)
    assert outcomes == {"failed", "ready"}
    assert {0, ROWS} <= kept


def generate_name(con, source):
    rows = con.execute("SELECT embedding_table FROM jammi_generate(?, 'text', 'id')", [source]).fetchall()
    return rows[0][0]


CHILD = """
import sys, duckdb
from pathlib import Path
from jammi_duck.config import Config
from jammi_duck.installation import equip
from tests.fakes import FakeEncoders

con = duckdb.connect(sys.argv[1])
config = Config(storage=sys.argv[2], model="fake/small", cache_dir=Path(sys.argv[3]), segment_rows=1000)
equip(con, config, FakeEncoders())
print("ready", flush=True)
while True:
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
    print("built", flush=True)
"""


def test_processes_that_are_killed(fake, tmp_path):
    database, storage = str(tmp_path / "db.duckdb"), str(tmp_path / "artifacts")
    rows = 3500
    con = duckdb.connect(database)
    con.execute(f"CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range({rows})")
    con.close()
    chance = random.Random(20260325)
    statuses = set()
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, database, storage, str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 1.2))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        con = duckdb.connect(database)
        fake(con, segment_rows=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tables = con.execute("SELECT embedding_table, status, row_count FROM jammi_tables()").fetchall()
            for name, status, count in tables:
                statuses.add(status)
                if status == "ready":
                    matches = "jammi_matches('t', 'word7', 10000, embedding_table := ?)"
                    assert con.execute(f"SELECT count(*) FROM {matches}", [name]).fetchone() == (rows,) == (count,)
                    assert con.execute(f'SELECT count(*) FROM jammi."{name}"').fetchone() == (rows,)
        assert not list((tmp_path / "artifacts").rglob(".*"))
        con.close()
    assert statuses == {"ready", "failed"}
