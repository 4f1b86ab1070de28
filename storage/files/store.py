"""What a location's files must do: written whole or not at all, never overwritten, the same wherever they are.

`location.open_store` gives a `Store`: that of a disk (`local_store`), or of an object store (`object_store`).
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

# The most bytes that are read of a file at once: a manifest of some 30,000 segments.
MOST_READ = 32 << 20


@dataclass(frozen=True)
class Stored:
    """What has a name in a location: its size in bytes, and when it was last written (UTC).

    What is no regular file (a folder, a link, a FIFO) is not `is_file`: it has the name, and is not read or deleted.
    """

    size: int
    modified: datetime
    is_file: bool = True


@dataclass(frozen=True)
class Digest(Record):
    """What a file must be: its name, its size in bytes, and its SHA-256 in hexadecimal."""

    file: str
    size: Amount
    sha256: NoSha256
    # What else a manifest says of a file makes it no other file.
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False, kw_only=True)


class Store(Protocol):
    """The files of one location. Names are those of `layout`; nothing else is read or written."""

    location: str
    # Whether an answer may take long: it comes over a network.
    is_far: bool

    def mark(self) -> object:
        """What differs after a file came or went, and costs less than `names`; None where nothing does."""
        ...

    def names(self) -> set[str]:
        """The names of `files`."""
        ...

    def files(self) -> dict[str, Stored]:
        """What is there by name, scratch files left out; nothing where the folder is not there yet."""
        ...

    def scratches(self) -> dict[str, Stored]:
        """The scratch files that are lying about, by name."""
        ...

    def scratch(self, file: str, build: str) -> Path:
        """A new local path for a build to write `file` to, before `create`."""
        ...

    def discard(self, scratch: str) -> None:
        """Remove a scratch file by name; one that is gone already is no error."""
        ...

    def create(self, file: str, scratch: Path) -> Digest:
        """Give a written scratch file its name, durably. Raises FileExistsError where the name is taken."""
        ...

    def delete(self, file: str) -> bool:
        """Remove a file; one that is gone already is no error. One that somebody holds stays, which False says.

        Raises UnsupportedError where it is no regular file.
        """
        ...

    def is_held(self, scratch: str) -> bool:
        """Whether somebody holds a scratch file: the work that it belongs to is under way, in whichever process."""
        ...

    def read(self, file: str) -> bytes:
        """A small file's bytes. Raises FileNotFoundError, and UnsupportedError where it has more than `MOST_READ`."""
        ...

    def checked(self, digest: Digest) -> Path:
        """A local path of exactly this file, its SHA-256 checked once per process.

        Raises DamagedError, and UnsupportedError where it is no regular file.
        """
        ...

    def found(self, file: str) -> tuple[Digest, Path]:
        """What a file is whose digest nobody knows, and a local path of it.

        Raises FileNotFoundError, and UnsupportedError where it is no regular file.
        """
        ...

    def abort_uploads(self, before: datetime) -> list[str]:
        """End uploads begun before then and never finished; returns what they were to become."""
        ...


def location_id(location: str) -> str:
    """A short name for a location, the same in every process: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(location.encode()).hexdigest()[:16]


def regular(path: str | Path) -> os.stat_result:
    """What a local file is. Raises UnsupportedError where it is no regular file, and FileNotFoundError."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise not_regular(os.path.basename(path))
    return status


def not_regular(file: str) -> UnsupportedError:
    """What is said of a link, a folder, a FIFO or a device in a file's place."""
    return UnsupportedError(f"'{file}' is no regular file: it is neither read nor removed; move it away")


def open_regular(path: str | Path) -> BufferedReader:
    """Open a local file to read, unless it is a link, a FIFO, a device or a folder. Raises as `regular` does."""
    regular(path)
    # It may have become something else since: what is opened is looked at again, and nothing waits for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise not_regular(os.path.basename(path))
    return os.fdopen(handle, "rb")


def check_size(file: str, size: int) -> None:
    """Raise UnsupportedError where a file is too large to be read at once."""
    if size > MOST_READ:
        raise UnsupportedError(f"'{file}' has {size:,} bytes; {MOST_READ:,} are the most that are read")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a local file, in hexadecimal. Raises as `regular` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, digest: Digest) -> None:
    """Raise DamagedError where a local file is not what it must be, UnsupportedError where it is no regular file."""
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
    """Call a file in errors as it is called in its location, where its copy in the cache has another name."""
    try:
        yield
    except StorageError as error:
        if path.name == file:
            raise
        raise type(error)(str(error).replace(path.name, file)) from error


def wrong_size(digest: Digest, size: int) -> DamagedError:
    """What is said of a file that has another size than it must have."""
    return DamagedError(f"'{digest.file}' has {size} bytes instead of {digest.size}")


def bare(file: str) -> str:
    """A file's name, if it is one and no path. Raises DamagedError."""
    if "/" in file or "\\" in file or file in ("", ".", ".."):
        raise DamagedError(f"'{file}' is not the name of a file in a location")
    return file


def list_folder(folder: str) -> Iterator[tuple[str, Stored]]:
    """What is in a local folder, by name; nothing where it is not there."""
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
    """Make a local folder, unless it is there. Raises StorageError."""
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
    """Turn what a file system raises into a StorageError that names the file; a missing or taken name passes."""
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
