"""The store of a location's files: files are written completely or not at all, and never overwritten.

`location.open_store` returns a `Store` for a disk (`local_store`) or an object store (`object_store`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

from jammi_duck.config.redaction import redacted
from jammi_duck.errors import DamagedError, JammiError, StorageError, UnsupportedError
from jammi_duck.fields import Amount, NoSha256, Record

# The largest file that is read at once, in bytes: a manifest of about 30,000 segments.
MOST_READ = 32 << 20


@dataclass(frozen=True)
class Stored:
    """A file in a location: its size in bytes, and when it was last written (UTC).

    `is_file` is false for anything but a regular file (a folder, a link, a FIFO), which is never read or deleted.
    """

    size: int
    modified: datetime
    is_file: bool = True


@dataclass(frozen=True)
class FileDigest(Record):
    """The identity of a file: its name, its size in bytes, and its SHA-256 in hexadecimal."""

    file: str
    size: Amount
    sha256: NoSha256
    # Unknown fields in a manifest do not make it another file.
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False, kw_only=True)


class Store(Protocol):
    """The files of one location. Only files with names from `layout` are read or written."""

    location: str
    # Whether answers come over a network, and may take long.
    is_remote: bool

    @property
    def local_folder(self) -> str:
        """The folder of this machine from which its files are read."""
        ...

    def change_token(self) -> object:
        """A value that changes when a file is created or deleted, cheaper than `names`; None if there is none."""
        ...

    def names(self) -> set[str]:
        """The names of `files`."""
        ...

    def files(self) -> dict[str, Stored]:
        """The files by name, without scratch files; empty if the folder does not exist yet."""
        ...

    def scratches(self) -> dict[str, Stored]:
        """The existing scratch files, by name."""
        ...

    def scratch(self, file: str, build: str) -> Path:
        """A new local path where a build writes `file` before `create`."""
        ...

    def discard(self, scratch: str) -> None:
        """Remove a scratch file by name; it may be missing."""
        ...

    def create(self, file: str, scratch: Path) -> FileDigest:
        """Give a written scratch file its final name, durably. Raises FileExistsError if the name is taken."""
        ...

    def delete(self, file: str) -> bool:
        """Remove a file, which may be missing. Returns False if the file stays because somebody holds it.

        Raises UnsupportedError if it is not a regular file.
        """
        ...

    def is_locked(self, scratch: str) -> bool:
        """Whether somebody holds a scratch file, that is, a process is still working on its build or change."""
        ...

    def read(self, file: str) -> bytes:
        """A small file's bytes. Raises FileNotFoundError, and UnsupportedError if it has more than `MOST_READ`."""
        ...

    def checked(self, digest: FileDigest) -> Path:
        """A local path of exactly this file; its SHA-256 is checked once per process.

        Raises DamagedError, and UnsupportedError if it is not a regular file.
        """
        ...

    def found(self, file: str) -> tuple[FileDigest, Path]:
        """The digest of a file, and a local path of it.

        Raises FileNotFoundError, and UnsupportedError if it is not a regular file.
        """
        ...

    def abort_uploads(self, before: datetime) -> list[str]:
        """Abort unfinished uploads that started before then; returns the names of their files."""
        ...


def location_id(location: str) -> str:
    """A short name for a location, the same in every process: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(location.encode()).hexdigest()[:16]


def regular(path: str | Path) -> os.stat_result:
    """The status of a local file. Raises UnsupportedError if it is not a regular file, and FileNotFoundError."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise not_regular(os.path.basename(path))
    return status


def not_regular(file: str) -> UnsupportedError:
    """The error for a link, a folder, a FIFO or a device in the place of a file."""
    return UnsupportedError(f"'{file}' is no regular file: it is neither read nor removed; move it away")


def open_regular(path: str | Path) -> BufferedReader:
    """Open a local file to read, unless it is a link, a FIFO, a device or a folder. Raises as `regular` does."""
    regular(path)
    # The path may have changed meanwhile, so check the open file again; O_NONBLOCK never waits for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise not_regular(os.path.basename(path))
    return os.fdopen(handle, "rb")


def check_size(file: str, size: int) -> None:
    """Raise UnsupportedError if a file is too large to be read at once."""
    if size > MOST_READ:
        raise UnsupportedError(f"'{file}' has {size:,} bytes; {MOST_READ:,} are the most that are read")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a local file, in hexadecimal. Raises as `regular` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, digest: FileDigest) -> None:
    """Raise DamagedError if a local file has another digest, and UnsupportedError if it is not a regular file."""
    try:
        size = regular(path).st_size
    except FileNotFoundError as error:
        raise DamagedError(f"'{digest.file}' is missing") from error
    if size != digest.size:
        raise wrong_size(digest, size)
    if sha256_of(path) != digest.sha256:
        raise DamagedError(f"'{digest.file}' is not the file that its manifest lists (its SHA-256 differs)")


@contextlib.contextmanager
def called(file: str, path: Path) -> Iterator[None]:
    """Show in errors the name of a file in its location, although its copy in the cache has another name."""
    try:
        yield
    except StorageError as error:
        if path.name == file:
            raise
        raise type(error)(str(error).replace(path.name, file)) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into a StorageError that names its folder."""
    try:
        yield
    except JammiError:
        raise
    except (OSError, RuntimeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise StorageError(f"cannot write '{path.parent}': {reason}; check that there is room on the disk") from error


def wrong_size(digest: FileDigest, size: int) -> DamagedError:
    """The error for a file of the wrong size."""
    return DamagedError(f"'{digest.file}' has {size} bytes instead of {digest.size}")


def bare(file: str) -> str:
    """Return a file's name, if it is not a path. Raises DamagedError."""
    if "/" in file or "\\" in file or file in ("", ".", ".."):
        raise DamagedError(f"'{file}' is not the name of a file in a location")
    return file


def list_folder(folder: str) -> Iterator[tuple[str, Stored]]:
    """The entries of a local folder, with their names; none if it does not exist."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(os.path.join(folder, name))
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            yield name, Stored(status.st_size, modified, stat.S_ISREG(status.st_mode))


def make_folder(folder: str) -> None:
    """Create a local folder, unless it exists. Raises StorageError."""
    with explained("create the folder", folder):
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


def fsync(path: str | Path) -> None:
    """Wait until a local file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def explained(action: str, path: str | Path, secrets: frozenset[str] = frozenset()) -> Iterator[None]:
    """Turn errors of a file system into a StorageError that names the file, except for missing or taken names."""
    try:
        yield
    except (JammiError, FileExistsError, FileNotFoundError):
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        shown = redacted(reason, secrets)
        raise StorageError(
            f"cannot {action} '{path}': {shown}; check that the location exists, has room, and can be written"
        ) from (error if shown == reason else None)
