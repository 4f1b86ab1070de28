"""A location's files: written whole or not at all, never overwritten, the same on disk and on object stores.

`open_store(location)` gives a `Store`. `LocalStore` writes a hidden scratch file in the same folder, fsyncs it, and
gives it its name by a hard link, which cannot overwrite. `ObjectStore` writes the scratch file to the local cache and
uploads it in one conditional request, so that readers never see a part; what was uploaded stays in the cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

from jammi_duck.errors import DamagedError, JammiError, StorageError
from jammi_duck.redaction import public_url, redacted, secrets_of
from jammi_duck.storage import layout

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class Stored:
    """A file in a location: its size in bytes, and when it was last written (UTC)."""

    size: int
    modified: datetime


@dataclass(frozen=True)
class Digest:
    """What a file must be: its name, its size in bytes, and its SHA-256 in hexadecimal."""

    file: str
    size: int
    sha256: str


class Store(Protocol):
    """The files of one location. Names are those of `layout`; nothing else is read or written."""

    location: str

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

    def unchecked(self, file: str, build: str) -> contextlib.AbstractContextManager[Path]:
        """A local path of a file whose digest nobody knows, for `build` to read while the context lasts."""
        ...

    def abort_uploads(self, before: datetime) -> list[str]:
        """End uploads begun before then and never finished; returns what they were to become."""
        ...


def open_store(location: str, cache_dir: Path, options: Mapping[str, Any] | None = None) -> Store:
    """The store at a local path or an fsspec URL; nothing is created or contacted yet.

    Raises:
        StorageError: the protocol is unknown, or its package is not installed.
    """
    protocol, _, rest = location.partition("://")
    if not rest and "://" not in location:
        return LocalStore(location)
    if protocol in ("file", "local"):
        if not os.path.isabs(rest):
            raise StorageError(f"the location '{location}' is not absolute; write {protocol}:///path, or a plain path")
        return LocalStore(rest)
    import fsspec

    secrets = secrets_of(options or {})
    extra = {"use_listings_cache": False, "skip_instance_cache": True} if protocol == "s3" else {}
    try:
        filesystem, root = fsspec.core.url_to_fs(location, **{**extra, **(options or {})})
    except (ImportError, ValueError, TypeError, OSError) as error:
        cure = "pip install 'jammi-duck[s3]'" if protocol == "s3" else "use a local path, s3:// or memory://"
        reason = redacted(str(error), secrets)
        raise StorageError(f"cannot open the location '{public_url(location)}': {reason}; {cure}") from None
    name = filesystem.unstrip_protocol(root).rstrip("/")
    return ObjectStore(name, filesystem, root, cache_dir, secrets)


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


class LocalStore:
    """A folder on a local disk."""

    def __init__(self, path: str) -> None:
        """`path` may be relative, or begin with `~`."""
        self.location = os.path.abspath(os.path.expanduser(path))
        self._folder = os.path.join(self.location, layout.FOLDER)
        self._checked: dict[tuple[Digest, int, int], Path] = {}

    def files(self) -> dict[str, Stored]:
        """See `Store.files`."""
        return {name: stored for name, stored in self._listing() if not name.startswith(".")}

    def scratches(self) -> dict[str, Stored]:
        """See `Store.scratches`."""
        return {name: stored for name, stored in self._listing() if layout.is_scratch(name)}

    def _listing(self) -> Iterator[tuple[str, Stored]]:
        with _explained("list", self._folder):
            yield from _list_folder(self._folder)

    def scratch(self, file: str, build: str) -> Path:
        """See `Store.scratch`."""
        _make_folder(self._folder)
        return Path(self._folder, layout.scratch(file, build))

    def discard(self, scratch: str) -> None:
        """See `Store.discard`."""
        self.delete(scratch)

    def create(self, file: str, scratch: Path) -> Digest:
        """See `Store.create`."""
        path = self.path(file)
        with _explained("write", path):
            fsync(scratch)
            digest = Digest(file, os.stat(scratch).st_size, sha256_of(scratch))
            os.link(scratch, path)
            try:
                fsync(self._folder)
                os.unlink(scratch)
            except OSError:
                # The name is taken back, unless others may have acted on it already.
                if not layout.is_manifest(file):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                raise
        return digest

    def delete(self, file: str) -> None:
        """See `Store.delete`."""
        path = self.path(file)
        with _explained("delete", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def read(self, file: str) -> bytes:
        """See `Store.read`."""
        path = self.path(file)
        with _explained("read", path), open(path, "rb") as stream:
            return stream.read()

    def checked(self, digest: Digest) -> Path:
        """See `Store.checked`."""
        path = Path(self.path(digest.file))
        with _explained("read", path):
            try:
                status = os.stat(path)
            except FileNotFoundError as error:
                raise DamagedError(f"'{digest.file}' is missing") from error
            seen = (digest, status.st_ino, status.st_mtime_ns)
            if seen not in self._checked:
                check(path, digest)
                self._checked[seen] = path
        return path

    @contextlib.contextmanager
    def unchecked(self, file: str, build: str) -> Iterator[Path]:
        """See `Store.unchecked`."""
        yield Path(self.path(file))

    def abort_uploads(self, before: datetime) -> list[str]:
        """See `Store.abort_uploads`: a disk has none."""
        return []

    def path(self, file: str) -> str:
        """The absolute path of a file."""
        return os.path.join(self._folder, _bare(file))


class ObjectStore:
    """A prefix of an object store, through fsspec, with a local cache for what is memory-mapped."""

    def __init__(
        self,
        location: str,
        filesystem: AbstractFileSystem,
        root: str,
        cache_dir: Path,
        secrets: frozenset[str] = frozenset(),
    ) -> None:
        """`root` is the location as `filesystem` names it; files that were read stay under `cache_dir`.

        None of the `secrets` is shown in an error.
        """
        self.location = location
        self.filesystem = filesystem
        self._folder = f"{root.rstrip('/')}/{layout.FOLDER}"
        self._cache = os.path.join(cache_dir, "files")
        self._scratch = os.path.join(cache_dir, "scratch", hashlib.sha256(location.encode()).hexdigest()[:16])
        self.is_memory = "memory" in filesystem.protocol
        self._secrets = secrets
        self._checked: set[str] = set()
        self._creating = threading.Lock()

    def files(self) -> dict[str, Stored]:
        """See `Store.files`."""
        found = {}
        with self._explained("list", self._url()):
            try:
                listing = self.filesystem.ls(self._folder, detail=True)
            except FileNotFoundError:
                return {}
            for info in listing:
                name = str(info["name"]).rsplit("/", 1)[-1]
                if info["type"] == "file" and name:
                    found[name] = Stored(int(info["size"]), _moment(info.get("LastModified", info.get("created"))))
        return found

    def scratches(self) -> dict[str, Stored]:
        """See `Store.scratches`."""
        with self._explained("list", self._scratch):
            return {name: stored for name, stored in _list_folder(self._scratch) if layout.is_scratch(name)}

    def scratch(self, file: str, build: str) -> Path:
        """See `Store.scratch`."""
        _make_folder(self._scratch)
        return Path(self._scratch, layout.scratch(file, build))

    def discard(self, scratch: str) -> None:
        """See `Store.discard`."""
        path = os.path.join(self._scratch, _bare(scratch))
        with self._explained("delete", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def create(self, file: str, scratch: Path) -> Digest:
        """See `Store.create`."""
        digest = Digest(file, os.stat(scratch).st_size, sha256_of(scratch))
        with self._explained("write", self._url(file)), self._creating:
            try:
                self.filesystem.put_file(os.fspath(scratch), self.url_path(file), mode="create")
            except OSError as error:
                # Some servers' 412 (the name is taken) reaches us as EINVAL: look before calling it so.
                if not isinstance(error, FileExistsError) and not self.filesystem.exists(self.url_path(file)):
                    raise
                # An upload that was tried again, because its first answer was lost, finds itself.
                if not self._is_there(digest):
                    raise FileExistsError(file) from error
        # The file has its name now, whether or not there is room for a copy of it here.
        try:
            os.makedirs(self._cache, exist_ok=True)
            os.replace(scratch, os.path.join(self._cache, digest.sha256))
            self._checked.add(digest.sha256)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
        return digest

    def _is_there(self, digest: Digest) -> bool:
        """Whether exactly this file has its name."""
        if self.filesystem.size(self.url_path(digest.file)) != digest.size:
            return False
        content = self.filesystem.cat_file(self.url_path(digest.file))
        return hashlib.sha256(content).hexdigest() == digest.sha256

    def delete(self, file: str) -> None:
        """See `Store.delete`."""
        with self._explained("delete", self._url(file)), contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.url_path(file))

    def read(self, file: str) -> bytes:
        """See `Store.read`."""
        with self._explained("read", self._url(file)):
            return bytes(self.filesystem.cat_file(self.url_path(file)))

    def checked(self, digest: Digest) -> Path:
        """See `Store.checked`: the file comes from the cache, which knows it by its SHA-256."""
        path = Path(self._cache, digest.sha256)
        if digest.sha256 in self._checked and os.path.exists(path):
            return path
        with contextlib.suppress(DamagedError):
            check(path, digest)
            self._checked.add(digest.sha256)
            return path
        with self._explained("read", self._url(digest.file)):
            os.makedirs(self._cache, exist_ok=True)
            arriving = Path(f"{path}.{token_hex(4)}.tmp")
            try:
                self._download(digest.file, arriving)
                check(arriving, digest)
                os.replace(arriving, path)
            except FileNotFoundError as error:
                raise DamagedError(f"'{digest.file}' is missing") from error
            finally:
                arriving.unlink(missing_ok=True)
        self._checked.add(digest.sha256)
        return path

    @contextlib.contextmanager
    def unchecked(self, file: str, build: str) -> Iterator[Path]:
        """See `Store.unchecked`."""
        arriving = self.scratch(file, build)
        try:
            with self._explained("read", self._url(file)):
                self._download(file, arriving)
            yield arriving
        finally:
            self.discard(arriving.name)

    def _download(self, file: str, path: Path) -> None:
        if not self.filesystem.exists(self.url_path(file)):
            raise FileNotFoundError(file)
        self.filesystem.get_file(self.url_path(file), os.fspath(path))

    def abort_uploads(self, before: datetime) -> list[str]:
        """See `Store.abort_uploads`: S3's multipart uploads."""
        if not hasattr(self.filesystem, "list_multipart_uploads"):
            return []
        bucket, _, prefix = self._folder.partition("/")
        ended = []
        with self._explained("list unfinished uploads of", self._url()):
            for upload in self.filesystem.list_multipart_uploads(bucket):
                if upload["Key"].startswith(prefix + "/") and upload["Initiated"] < before:
                    key, upload_id = upload["Key"], upload["UploadId"]
                    self.filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
                    ended.append(key.rsplit("/", 1)[-1])
        return ended

    def url_path(self, file: str) -> str:
        """A file as `filesystem` names it."""
        return f"{self._folder}/{_bare(file)}"

    def _explained(self, action: str, path: str) -> contextlib.AbstractContextManager[None]:
        return _explained(action, path, self._secrets)

    def _url(self, file: str = "") -> str:
        return f"{self.location}/{layout.FOLDER}/{file}"


def _moment(moment: Any) -> datetime:  # noqa: ANN401 - each file system of fsspec has its own
    return datetime.fromtimestamp(moment, UTC) if isinstance(moment, float) else moment


def _bare(file: str) -> str:
    if "/" in file or "\\" in file or file in ("", ".", ".."):
        raise DamagedError(f"'{file}' is not the name of a file in a location")
    return file


def _list_folder(folder: str) -> Iterator[tuple[str, Stored]]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(os.path.join(folder, name))
            yield name, Stored(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _make_folder(folder: str) -> None:
    with _explained("create the folder", folder):
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
def _explained(action: str, path: str | Path, secrets: frozenset[str] = frozenset()) -> Iterator[None]:
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
