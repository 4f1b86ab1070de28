"""A folder on a local disk as a store: a scratch file is fsynced, and gets its final name by a hard link.

A link cannot overwrite a file, and the folder is fsynced after it, so a file exists completely or not at all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from jammi_duck.errors import DamagedError
from jammi_duck.storage.files import layout, locks
from jammi_duck.storage.files.store import (
    MOST_READ,
    FileDigest,
    Stored,
    bare,
    check,
    check_size,
    explained,
    fsync,
    list_folder,
    make_folder,
    open_regular,
    regular,
    sha256_of,
)


class LocalStore:
    """A folder on a local disk."""

    is_remote = False

    def __init__(self, path: str) -> None:
        """`path` may be relative, or begin with `~`."""
        self.location = os.path.abspath(os.path.expanduser(path))
        self._folder = os.path.join(self.location, layout.FOLDER)
        # Digests of files that were read before, by name, inode, times and size.
        self._known: dict[tuple[str, int, int, int], FileDigest] = {}

    @property
    def local_folder(self) -> str:
        """See `Store.local_folder`."""
        return self.location

    def change_token(self) -> object:
        """See `Store.change_token`: the folder, and when an entry of it last changed."""
        with explained("look at", self._folder), contextlib.suppress(FileNotFoundError):
            status = os.stat(self._folder)
            return status.st_dev, status.st_ino, status.st_mtime_ns
        return None

    def names(self) -> set[str]:
        """See `Store.names`."""
        with explained("list", self._folder), contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(self._folder) if not name.startswith(".")}
        return set()

    def files(self) -> dict[str, Stored]:
        """See `Store.files`."""
        return {name: stored for name, stored in self._listing() if not name.startswith(".")}

    def scratches(self) -> dict[str, Stored]:
        """See `Store.scratches`."""
        return {name: stored for name, stored in self._listing() if stored.is_file and layout.is_scratch(name)}

    def _listing(self) -> Iterator[tuple[str, Stored]]:
        with explained("list", self._folder):
            yield from list_folder(self._folder)

    def scratch(self, file: str, build: str) -> Path:
        """See `Store.scratch`."""
        make_folder(self._folder)
        return Path(self._folder, layout.scratch(file, build))

    def discard(self, scratch: str) -> None:
        """See `Store.discard`."""
        path = self.path(scratch)
        with explained("delete", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def create(self, file: str, scratch: Path) -> FileDigest:
        """See `Store.create`."""
        path = self.path(file)
        with explained("write", path):
            fsync(scratch)
            digest = FileDigest(file, os.stat(scratch).st_size, sha256_of(scratch))
            os.link(scratch, path)
            try:
                fsync(self._folder)
                os.unlink(scratch)
            except OSError:
                # Remove the name again, unless others may have acted on it already.
                if not layout.is_manifest(file):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                raise
        return digest

    def delete(self, file: str) -> bool:
        """See `Store.delete`."""
        path = self.path(file)
        with explained("delete", path), contextlib.suppress(FileNotFoundError):
            regular(path)
            with locks.exclusive_lock(path) as is_free:
                if is_free:
                    os.unlink(path)
            return is_free
        return True

    def is_locked(self, scratch: str) -> bool:
        """See `Store.is_locked`."""
        with contextlib.suppress(FileNotFoundError):
            return locks.is_locked(self.path(scratch))
        return False

    def read(self, file: str) -> bytes:
        """See `Store.read`."""
        path = self.path(file)
        with explained("read", path), open_regular(path) as stream:
            content = stream.read(MOST_READ + 1)
        check_size(file, len(content))
        return content

    def checked(self, digest: FileDigest) -> Path:
        """See `Store.checked`."""
        path = Path(self.path(digest.file))
        with explained("read", path):
            try:
                identity = _identity(path)
            except FileNotFoundError as error:
                raise DamagedError(f"'{digest.file}' is missing") from error
            if self._known.get(identity) != digest:
                check(path, digest)
                self._known[identity] = digest
        return path

    def found(self, file: str) -> tuple[FileDigest, Path]:
        """See `Store.found`."""
        path = Path(self.path(file))
        with explained("read", path):
            identity = _identity(path)
            if identity not in self._known:
                self._known[identity] = FileDigest(file, identity[-1], sha256_of(path))
        return self._known[identity], path

    def abort_uploads(self, before: datetime) -> list[str]:
        """See `Store.abort_uploads`: a disk has none."""
        return []

    def path(self, file: str) -> str:
        """The absolute path of a file."""
        return os.path.join(self._folder, bare(file))


def _identity(path: Path) -> tuple[str, int, int, int]:
    status = regular(path)
    return path.name, status.st_ino, status.st_mtime_ns, status.st_size
