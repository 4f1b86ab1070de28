"""Lets DuckDB read s3:// if its own extension httpfs is not installed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
from fsspec import AbstractFileSystem

from jammi_duck.errors import StorageError
from jammi_duck.raised import keep
from jammi_duck.sql import sql
from jammi_duck.storage.files.object_store import is_without_bucket, no_bucket


def read_s3_through_fsspec(con: duckdb.DuckDBPyConnection, options: Mapping[str, Any]) -> None:
    """Register s3:// with the options of the location, unless the user has installed httpfs."""
    text = sql("SELECT installed FROM duckdb_extensions() WHERE extension_name = 'httpfs'")
    if (True,) not in con.execute(text).fetchall():
        con.register_filesystem(S3Files(options))


class S3Files(AbstractFileSystem):  # type: ignore[misc]
    """Reads `s3://BUCKET/KEY`; s3fs is imported at the first use."""

    protocol = "s3"
    cachable = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` go to s3fs."""
        super().__init__()
        self._options = options

    @functools.cached_property
    def _files(self) -> AbstractFileSystem:
        try:
            import s3fs
        except ImportError as error:
            raise StorageError("reading s3:// needs s3fs; pip install 'jammi-duck[s3]'") from error
        return s3fs.S3FileSystem(**{"skip_instance_cache": True, **self._options})

    def info(self, path: str, **_: Any) -> Any:  # noqa: ANN401 - as fsspec has it
        """Name, size and type of a file."""
        with _explained(path):
            return self._files.info(path)

    def modified(self, path: str) -> Any:  # noqa: ANN401
        """When the file was written."""
        with _explained(path):
            return self._files.modified(path)

    def glob(self, path: str, **_: Any) -> Any:  # noqa: ANN401
        """The files that a pattern means."""
        with _explained(path):
            found = self._files.glob(path)
            # A pattern in a bucket that does not exist means no files, and is no error to s3fs.
            if not found and not self._files.exists(_bare(path).partition("/")[0]):
                raise no_bucket(_url(path))
            return found

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:  # noqa: ANN401
        """The files in a folder."""
        with _explained(path):
            return self._files.ls(path, detail=detail)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ANN401
        if mode != "rb":
            raise PermissionError(f"'{path}' is only read")
        with _explained(path):
            return self._files.open(path, "rb")


def _bare(path: str) -> str:
    return path.removeprefix("s3://")


def _url(path: str) -> str:
    return f"s3://{_bare(path)}"


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageError):
            told = error
        elif not isinstance(error, FileNotFoundError):
            told = StorageError(
                f"cannot read '{_url(path)}' ({error}); check the path, and the keys and the endpoint_url in "
                "storage.options"
            )
        elif is_without_bucket(error):
            told = no_bucket(_url(path))
        else:
            raise
        keep(told)
        raise told from None
