"""Locks on files in use: no process deletes a file while another one reads or writes it.

A user of a file holds a shared lock on the file itself (`flock`). The lock ends with the process, however that ends,
and leaves nothing on the disk. If the file system has no such locks, nothing is held.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - there are none on Windows
    fcntl = None  # type: ignore[assignment]


class SharedLocks:
    """Holds locks on files, which are not deleted until this is closed."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        """Raises FileNotFoundError if one of the files is missing, or is being deleted."""
        self._handles: list[int] = []
        try:
            for path in paths:
                self.add(path)
        except BaseException:
            self.close()
            raise

    def add(self, path: Path) -> None:
        """Hold one more file. Raises FileNotFoundError."""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._handles.append(handle)
        if not _lock(handle, shared=True) or not os.fstat(handle).st_nlink:
            raise FileNotFoundError(os.fspath(path))

    def __del__(self) -> None:
        """Release the files of an object that nobody can close any more."""
        self.close()

    def close(self) -> None:
        """Release the files."""
        while self._handles:
            with contextlib.suppress(OSError):
                os.close(self._handles.pop())


def is_locked(path: str | Path) -> bool:
    """Whether a file is held, in this process or another one."""
    with exclusive_lock(path) as is_free:
        return not is_free


@contextlib.contextmanager
def exclusive_lock(path: str | Path) -> Iterator[bool]:
    """Whether nobody holds a file. If so, nobody can hold it until the context ends.

    Raises FileNotFoundError if it is missing.
    """
    handle = None
    # On a network file system, an exclusive lock needs write access.
    for access in (os.O_RDWR, os.O_RDONLY):
        try:
            handle = os.open(path, access | os.O_NONBLOCK)
            break
        except FileNotFoundError:
            raise
        except OSError:
            continue
    if handle is None:
        # Locks cannot be checked; whether the file can be deleted is another question.
        yield True
        return
    try:
        yield _lock(handle, shared=False)
    finally:
        os.close(handle)


def _lock(handle: int, *, shared: bool) -> bool:
    """Whether a file was locked, or its file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
