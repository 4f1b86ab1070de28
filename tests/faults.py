"""A process that dies at a chosen operation: every one on files and on the catalog is counted, and one is the last."""

import contextlib
import errno
import importlib
import os
import pkgutil
from pathlib import Path

from jammi_duck import storage
from jammi_duck.doors.host import ConnectionHost
from jammi_duck.storage.files.parquet import SegmentWriter, TombstoneWriter
from jammi_duck.storage.index import sidecars as index

FILE_OPERATIONS = ("link", "unlink", "fsync", "makedirs", "replace", "listdir", "stat", "lstat", "open")
READING = ("fsync", "listdir", "stat", "lstat", "open", "ls", "cat_file", "info", "exists", "get_file", "SELECT")
REMOTE_OPERATIONS = ("put_file", "rm_file", "ls", "cat_file", "info", "exists", "get_file")


class Killed(BaseException):
    """The process is dead: no handler may do anything more."""


class Death:
    """Dies before, or just after, the operation number `last`; from then on each operation fails."""

    def __init__(self, last: int | None, after: bool, reading: bool = True) -> None:
        self.last = last
        self.after = after
        self.reading = reading
        self.count = 0
        self.dead = False
        self.at = ""

    def during(self, label, operation, *arguments, **options):
        self._check()
        if not self.reading and self._changes_nothing(label, arguments):
            return operation(*arguments, **options)
        self.count += 1
        mine = self.count == self.last
        if mine and not self.after:
            self._die(label)
        outcome = operation(*arguments, **options)
        if mine:
            self._die(label)
        return outcome

    def _changes_nothing(self, label, arguments):
        """Whether it only reads, or makes a folder that is there."""
        return label.rpartition(".")[2] in READING or (label == "makedirs" and os.path.isdir(arguments[0]))

    def _check(self):
        if self.dead:
            raise Killed(f"dead since {self.at}")

    def _die(self, label):
        self.dead, self.at = True, label
        raise Killed(label)


class Failure(Death):
    """The disk or the network fails once, at the operation number `last`; the process goes on."""

    def _changes_nothing(self, label, arguments):
        return label.rpartition(".")[2] in READING

    def _check(self):
        pass

    def _die(self, label):
        self.dead, self.at = True, label
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Os:
    def __init__(self, death):
        self._death = death

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in FILE_OPERATIONS:
            return real
        return lambda *arguments, **options: self._death.during(name, real, *arguments, **options)


def _using_os():
    """All modules of storage that call the operating system, so that none of its operations goes uncounted."""
    rooms = pkgutil.walk_packages(storage.__path__, f"{storage.__name__}.")
    return [module for each in rooms if vars(module := importlib.import_module(each.name)).get("os") is os]


@contextlib.contextmanager
def dying(monkeypatch, last=None, after=False, kind=Death, reading=True):
    """Within the context, the operation number `last` is the process's last one; gives the `Death`.

    Unless `reading`, operations that change nothing are not counted; then the end of one is the beginning of the next.

    A `Failure` strikes operations on files only, and before they take effect.
    """
    death = kind(last, after, reading)

    def counted(owner, name):
        real = getattr(owner, name)

        def during(*arguments, **options):
            return death.during(f"{owner.__name__}.{name}", real, *arguments, **options)

        patch.setattr(owner, name, during)

    def half_written(self, content):
        half = len(content) // 2
        death.during("write half", real_write_bytes, self, content[:half])
        return death.during("write all", real_write_bytes, self, content)

    def queried(self, text, parameters=()):
        return death.during(text.split(None, 1)[0], real_sql, self, text, parameters)

    real_write_bytes, real_sql = Path.write_bytes, ConnectionHost.sql
    with monkeypatch.context() as patch:
        for module in _using_os():
            patch.setattr(module, "os", _Os(death))
        patch.setattr(Path, "write_bytes", half_written)
        if kind is Death:
            patch.setattr(ConnectionHost, "sql", queried)
        writers = [(SegmentWriter, ["write", "close"]), (TombstoneWriter, ["write", "close"])]
        for owner, names in (*writers, (index, ["build"])):
            for name in names:
                counted(owner, name)
        from fsspec.implementations.memory import MemoryFileSystem

        for name in REMOTE_OPERATIONS:
            counted(MemoryFileSystem, name)
        yield death
