"""Files that somebody reads or writes just now: no process deletes them meanwhile.

A shared lock on the file itself (`flock`) says so: it ends with the process, however that ends, and leaves nothing on
the disk. Where a file system has no such locks, nothing is held.
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


class Held:
    """Files that are not deleted until this is closed."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        """Raises FileNotFoundError where one of them is gone, or is being deleted."""
        self._handles: list[int] = []
        try:
            for path in paths:
                self.add(path)
        except BaseException:
            self.close()
            raise

    def add(self, path: Path) -> None:
        """Hold one more. Raises FileNotFoundError."""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._handles.append(handle)
        if not _lock(handle, shared=True) or not os.fstat(handle).st_nlink:
            raise FileNotFoundError(os.fspath(path))

    def __del__(self) -> None:
        """Let go of what nobody can close any more."""
        self.close()

    def close(self) -> None:
        """Let them go."""
        while self._handles:
            with contextlib.suppress(OSError):
                os.close(self._handles.pop())


def is_held(path: str | Path) -> bool:
    """Whether somebody holds a file, here or in another process."""
    with alone(path) as is_free:
        return not is_free


@contextlib.contextmanager
def alone(path: str | Path) -> Iterator[bool]:
    """Whether nobody holds a file; then nobody comes to hold it, either, before the context ends.

    Raises FileNotFoundError where it is gone.
    """
    handle = None
    # On a network's file system, only who may write may lock others out.
    for access in (os.O_RDWR, os.O_RDONLY):
        try:
            handle = os.open(path, access | os.O_NONBLOCK)
            break
        except FileNotFoundError:
            raise
        except OSError:
            continue
    if handle is None:
        # Nobody else can be asked; whether it can be deleted is another question.
        yield True
        return
    try:
        yield _lock(handle, shared=False)
    finally:
        os.close(handle)


def _lock(handle: int, *, shared: bool) -> bool:
    """Whether a file could be locked, or has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
