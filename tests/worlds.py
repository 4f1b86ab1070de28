"""A database and a location that a test opens, ends, and brings back; and every way in which work there can end."""

import contextlib
import itertools
import shutil

import duckdb
import fsspec
import pytest

from jammi_duck.storage.files.location import open_store
from tests.faults import Failure, dying

# Where a world is, and each how many operations are tried: some, or all, which takes minutes, or every third in memory,
# where most is as on disk.
PLACES = [
    pytest.param(("disk", 6), id="disk-some"),
    pytest.param(("disk", 1), id="disk", marks=pytest.mark.long),
    pytest.param(("memory", 3), id="memory", marks=pytest.mark.long),
]


class World:
    """A database file and a location that a test opens, ends, and brings back to what they were."""

    def __init__(self, fake, folder, location, **options):
        self._fake = fake
        self._folder = folder / "world"
        self._location = location
        self._options = {"storage": location, "cache_dir": self._folder / "cache", **options}
        self._folder.mkdir()
        self._saved = 0
        # Each so many operations is tried.
        self.step = 1

    def open(self, database="db"):
        con = duckdb.connect(str(self._folder / f"{database}.duckdb"))
        try:
            jammi = self._fake(con, **self._options)
        except BaseException:
            con.close()
            raise
        self.encoded = jammi.encoders.get("fake/small").encoded
        return con

    def copy(self, database):
        """Another database that knows what this one does. None is open."""
        shutil.copy(self._folder / "db.duckdb", self._folder / f"{database}.duckdb")

    def store(self):
        return open_store(self._location, self._folder / "cache", self._options.get("storage_options"))

    def clear_cache(self):
        """Remove the copies of files of an object store, so that the files themselves are read."""
        shutil.rmtree(self._folder / "cache", ignore_errors=True)

    def save(self):
        """A copy of everything as it is, for `restore`. No database is open."""
        self._saved += 1
        copy = self._folder.with_name(f"saved {self._saved}")
        shutil.copytree(self._folder, copy)
        return copy, {path: file.getvalue() for path, file in self._in_memory().items()}

    def restore(self, saved):
        copy, objects = saved
        shutil.rmtree(self._folder)
        shutil.copytree(copy, self._folder)
        self.forget()
        for path, content in objects.items():
            fsspec.filesystem("memory").pipe_file(path, content)

    def forget(self):
        """Remove what is in memory."""
        for path in self._in_memory():
            fsspec.filesystem("memory").rm_file(path)

    def _in_memory(self):
        prefix = f"/{self._location.removeprefix('memory://')}/"
        return {path: file for path, file in fsspec.filesystem("memory").store.items() if path.startswith(prefix)}


def die(world, monkeypatch, work, last=None, after=False, *, reading=False):
    """Let `work` on the world end at its operation number `last`, or else at its end; tells how it went."""
    con = world.open()
    with dying(monkeypatch, last, after, reading=reading) as death:
        with contextlib.suppress(duckdb.Error, BaseException if death.last else ()):
            work(con)
        con.close()
    return death


def every_death(world, monkeypatch, work, step=None, *, also_reading=False):
    """Try each operation of `work` that changes something on the world as it is as the first that is not done.

    That is also each as the last one that is done: what lies between two of them changes nothing. Where it is
    `also_reading`, that is not believed: each operation is tried as the last one, before and after it took effect.
    """
    saved = world.save()
    for after in (False, True) if also_reading else (False,):
        for last in itertools.count(1, step or world.step):
            world.restore(saved)
            death = die(world, monkeypatch, work, last, after, reading=also_reading)
            if not death.dead:
                assert last > 5
                break
            yield death


def every_failure(world, monkeypatch, work, step=None, *, also_reading=False):
    """Let operations on files of `work` on the world as it is fail once: each that changes something, and some others.

    Gives the connection, still open, whether `work` failed, and which operation did.
    """
    saved = world.save()
    step = step or world.step
    for reading, stride in ((True, step),) if also_reading else ((False, step), (True, 9 * step)):
        for last in itertools.count(1, stride):
            world.restore(saved)
            con = world.open()
            with dying(monkeypatch, last, kind=Failure, reading=reading) as failure:
                try:
                    work(con)
                    failed = False
                except duckdb.Error:
                    failed = True
            assert failure.dead or not failed
            if not failure.dead:
                # All operations are counted, of which the shortest work has some ten.
                assert last > 8
                con.close()
                break
            yield con, failed, failure.at
            con.close()
