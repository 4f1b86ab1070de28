"""What a location's files must do: written whole or not at all, never overwritten, the same wherever they are.

`location.open_store` gives a `Store`: that of a disk (`local_store`), or of an object store (`object_store`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from jammi_duck.errors import DamagedError, JammiError, StorageError
from jammi_duck.fields import Amount, NoSha256, Record
from jammi_duck.redaction import redacted


@dataclass(frozen=True)
class Stored:
    """A file in a location: its size in bytes, and when it was last written (UTC)."""

    size: int
    modified: datetime


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
        """Every file by name, scratch files left out; nothing where the folder is not there yet."""
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

    def delete(self, file: str) -> None:
        """Remove a file; one that is gone already is no error."""
        ...

    def read(self, file: str) -> bytes:
        """A small file's bytes. Raises FileNotFoundError."""
        ...

    def checked(self, digest: Digest) -> Path:
        """A local path of exactly this file, its SHA-256 checked once per process. Raises DamagedError."""
        ...

    def found(self, file: str) -> tuple[Digest, Path]:
        """What a file is whose digest nobody knows, and a local path of it. Raises FileNotFoundError."""
        ...

    def abort_uploads(self, before: datetime) -> list[str]:
        """End uploads begun before then and never finished; returns what they were to become."""
        ...


def location_id(location: str) -> str:
    """A short name for a location, the same in every process: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(location.encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a local file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, digest: Digest) -> None:
    """Raise DamagedError where a local file is not what it must be."""
    try:
        size = os.stat(path).st_size
    except FileNotFoundError as error:
        raise DamagedError(f"'{digest.file}' is missing") from error
    if size != digest.size:
        raise DamagedError(f"'{digest.file}' has {size} bytes instead of {digest.size}")
    if sha256_of(path) != digest.sha256:
        raise DamagedError(f"'{digest.file}' is not the file that its manifest lists (its SHA-256 differs)")


def bare(file: str) -> str:
    """A file's name, if it is one and no path. Raises DamagedError."""
    if "/" in file or "\\" in file or file in ("", ".", ".."):
        raise DamagedError(f"'{file}' is not the name of a file in a location")
    return file


def list_folder(folder: str) -> Iterator[tuple[str, Stored]]:
    """The files of a local folder by name; none where it is not there."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(os.path.join(folder, name))
            yield name, Stored(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


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
