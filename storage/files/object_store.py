"""A prefix of an object store as a store: a scratch file in the local cache is uploaded in one conditional request.

So readers never see an incomplete file. Uploaded and downloaded files stay in the cache under their SHA-256, and can be
memory-mapped there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from jammi_duck.config import cache
from jammi_duck.errors import DamagedError, StorageError, UnsupportedError
from jammi_duck.fields import is_sha256
from jammi_duck.storage.files import layout, locks
from jammi_duck.storage.files.store import (
    FileDigest,
    Stored,
    bare,
    check,
    check_size,
    explained,
    list_folder,
    location_id,
    not_regular,
    sha256_of,
    wrong_size,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class ObjectStore:
    """A prefix of an object store, through fsspec, with a local cache for memory-mapped files."""

    def __init__(
        self,
        location: str,
        filesystem: AbstractFileSystem,
        root: str,
        cache_dir: Path,
        secrets: frozenset[str] = frozenset(),
    ) -> None:
        """`root` is the location in the notation of `filesystem`; downloaded files stay under `cache_dir`.

        Errors never show any of the `secrets`.
        """
        self.location = location
        self.filesystem = filesystem
        self._folder = f"{root.rstrip('/')}/{layout.FOLDER}"
        self._cache = os.path.join(cache_dir, "files")
        self._scratch = os.path.join(cache_dir, "scratch", location_id(location))
        self.is_memory = "memory" in filesystem.protocol
        self.is_remote = not self.is_memory
        self._secrets = secrets
        self._checked: set[str] = set()
        # Digests of files that were read before, by name, size, and the store's own version of the content.
        self._known: dict[tuple[str, int, str], FileDigest] = {}
        self._creating = threading.Lock()

    @property
    def local_folder(self) -> str:
        """See `Store.local_folder`: the cache."""
        return self._cache

    def change_token(self) -> object:
        """See `Store.change_token`: an object store has none."""
        return None

    def names(self) -> set[str]:
        """See `Store.names`."""
        return set(self.files())

    def files(self) -> dict[str, Stored]:
        """See `Store.files`."""
        found = {}
        with contextlib.suppress(FileNotFoundError), self._explained("list", self._url()):
            for info in self.filesystem.ls(self._folder, detail=True):
                name = str(info["name"]).rsplit("/", 1)[-1]
                if info["type"] == "file" and name:
                    found[name] = Stored(int(info["size"]), _moment(info.get("LastModified", info.get("created"))))
        return found

    def scratches(self) -> dict[str, Stored]:
        """See `Store.scratches`."""
        if not cache.is_ours(self._scratch):
            return {}
        with self._explained("list", self._scratch):
            listing = list_folder(self._scratch)
            return {name: stored for name, stored in listing if stored.is_file and layout.is_scratch(name)}

    def scratch(self, file: str, build: str) -> Path:
        """See `Store.scratch`."""
        with self._explained("create the folder", self._scratch):
            cache.make(self._scratch)
        return Path(self._scratch, layout.scratch(file, build))

    def discard(self, scratch: str) -> None:
        """See `Store.discard`."""
        path = os.path.join(self._scratch, bare(scratch))
        with self._explained("delete", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def create(self, file: str, scratch: Path) -> FileDigest:
        """See `Store.create`."""
        digest = FileDigest(file, os.stat(scratch).st_size, sha256_of(scratch))
        with self._explained("write", self._url(file)), self._creating:
            try:
                self.filesystem.put_file(os.fspath(scratch), self.url_path(file), mode="create")
            except OSError as error:
                # The status 412 (the name is taken) of some servers becomes EINVAL, so check whether the file exists.
                if not isinstance(error, FileExistsError) and not self.filesystem.exists(self.url_path(file)):
                    raise
                # If the first answer was lost, a repeated upload finds its own file.
                if not self._is_there(digest):
                    raise FileExistsError(file) from error
        # The file is uploaded, even if there is no room for a copy in the cache.
        try:
            cache.make(self._cache)
            os.replace(scratch, os.path.join(self._cache, digest.sha256))
            self._checked.add(digest.sha256)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
        return digest

    def _is_there(self, digest: FileDigest) -> bool:
        """Whether the file of this name in the store has this digest."""
        if self.filesystem.size(self.url_path(digest.file)) != digest.size:
            return False
        content = self.filesystem.cat_file(self.url_path(digest.file))
        return hashlib.sha256(content).hexdigest() == digest.sha256

    def delete(self, file: str) -> bool:
        """See `Store.delete`: readers use a copy, so nobody holds the file."""
        with self._explained("delete", self._url(file)), contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.url_path(file))
        return True

    def is_locked(self, scratch: str) -> bool:
        """See `Store.is_locked`: scratch files are in the local cache."""
        with contextlib.suppress(FileNotFoundError):
            return locks.is_locked(os.path.join(self._scratch, bare(scratch)))
        return False

    def read(self, file: str) -> bytes:
        """See `Store.read`."""
        with self._explained("read", self._url(file)):
            check_size(file, self._info(file)[0])
            return bytes(self.filesystem.cat_file(self.url_path(file)))

    def checked(self, digest: FileDigest) -> Path:
        """See `Store.checked`: the file is in the cache, under its SHA-256."""
        path = Path(self._cache, digest.sha256)
        # Only a SHA-256 can be the name of a file in the cache.
        if is_sha256(digest.sha256):
            if digest.sha256 in self._checked and os.path.exists(path):
                return path
            with contextlib.suppress(DamagedError, UnsupportedError):
                check(path, digest)
                self._checked.add(digest.sha256)
                return path
        try:
            with self._arriving(digest.file, digest) as arriving:
                check(arriving, digest)
                os.replace(arriving, path)
        except FileNotFoundError as error:
            raise DamagedError(f"'{digest.file}' is missing") from error
        self._checked.add(digest.sha256)
        return path

    def found(self, file: str) -> tuple[FileDigest, Path]:
        """See `Store.found`: the file is downloaded to the cache."""
        with self._explained("read", self._url(file)):
            identity = (file, *self._info(file))
        if identity not in self._known:
            with self._arriving(file) as arriving:
                digest = FileDigest(file, os.stat(arriving).st_size, sha256_of(arriving))
                os.replace(arriving, os.path.join(self._cache, digest.sha256))
            self._checked.add(digest.sha256)
            self._known[identity] = digest
        return self._known[identity], self.checked(self._known[identity])

    @contextlib.contextmanager
    def _arriving(self, file: str, wanted: FileDigest | None = None) -> Iterator[Path]:
        """A copy of a file in the cache, under a temporary name that exists until the context ends.

        A file of another size than `wanted` is not downloaded.
        """
        with self._explained("read", self._url(file)):
            size, _ = self._info(file)
            if wanted is not None and size != wanted.size:
                raise wrong_size(wanted, size)
            cache.make(self._cache)
            arriving = Path(self._cache, f"{token_hex(8)}.tmp")
            try:
                self.filesystem.get_file(self.url_path(file), os.fspath(arriving))
                yield arriving
            finally:
                arriving.unlink(missing_ok=True)

    def _info(self, file: str) -> tuple[int, str]:
        """A file's size, and the store's own version of its content. Raises as `found` does."""
        info = self.filesystem.info(self.url_path(file))
        if info["type"] != "file":
            raise not_regular(file)
        return int(info["size"]), str(info.get("ETag") or info.get("LastModified") or info.get("created"))

    def abort_uploads(self, before: datetime) -> list[str]:
        """See `Store.abort_uploads`: S3's multipart uploads."""
        if not hasattr(self.filesystem, "list_multipart_uploads"):
            return []
        bucket, _, prefix = self._folder.partition("/")
        ended = []
        with self._explained("list unfinished uploads of", self._url()):
            for upload in self.filesystem.list_multipart_uploads(bucket):
                folder, _, file = upload["Key"].rpartition("/")
                if folder == prefix and layout.parse(file) and upload["Initiated"] < before:
                    key, upload_id = upload["Key"], upload["UploadId"]
                    self.filesystem.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
                    ended.append(file)
        return ended

    def url_path(self, file: str) -> str:
        """The path of a file in the notation of `filesystem`."""
        return f"{self._folder}/{bare(file)}"

    @contextlib.contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        with explained(action, path, self._secrets):
            try:
                yield
            except FileNotFoundError as error:
                if is_without_bucket(error):
                    raise no_bucket(self.location) from error
                raise

    def _url(self, file: str = "") -> str:
        return f"{self.location}/{layout.FOLDER}/{file}"


def is_without_bucket(error: FileNotFoundError) -> bool:
    """Whether S3 did not find a file because there is no such bucket."""
    response = getattr(error.__cause__, "response", {})
    return bool(response.get("Error", {}).get("Code") == "NoSuchBucket")


def no_bucket(url: str) -> StorageError:
    """The error for a URL in a bucket that does not exist."""
    bucket = url.partition("://")[2].partition("/")[0]
    return StorageError(
        f"there is no bucket '{bucket}' for '{url}', or these keys cannot see it; check its name, and the keys and the "
        "endpoint_url in storage.options"
    )


def _moment(moment: Any) -> datetime:  # noqa: ANN401 - each file system of fsspec has its own
    return datetime.fromtimestamp(moment, UTC) if isinstance(moment, float) else moment
