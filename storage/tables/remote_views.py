"""Lets DuckDB read remote Parquet files through a protocol of our own, so that the user's s3:// stays as it is."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from fsspec import AbstractFileSystem

from jammi_duck.storage.files.object_store import ObjectStore
from jammi_duck.storage.files.store import Store
from jammi_duck.storage.tables.embedding_tables import PROTOCOL


class StoredFiles(AbstractFileSystem):  # type: ignore[misc]
    """`jammi://LOCATION/FILE`: the files of the locations that are open, to be read only."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, stores: Callable[[], dict[str, Store]]) -> None:
        """`stores` gives the open stores by the id of their location."""
        super().__init__()
        self._stores = stores

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and type of a file, as fsspec has it."""
        store, file = self._locate(path)
        return {**store.filesystem.info(store.url_path(file)), "name": self._strip_protocol(path)}

    def modified(self, path: str) -> Any:  # noqa: ANN401
        """When the file was written."""
        store, file = self._locate(path)
        return store.filesystem.modified(store.url_path(file))

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself: views name their files."""
        return [path]

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The one file."""
        return [self.info(path) if detail else path]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:  # noqa: ANN401
        if mode != "rb":
            raise PermissionError(f"'{path}' is the storage of jammi_duck, and is only read")
        store, file = self._locate(path)
        if store.is_memory:
            return io.BytesIO(store.filesystem.cat_file(store.url_path(file)))
        return store.filesystem.open(store.url_path(file), "rb")

    def _locate(self, path: str) -> tuple[ObjectStore, str]:
        location, _, file = self._strip_protocol(path).strip("/").partition("/")
        store = self._stores().get(location)
        if not isinstance(store, ObjectStore):
            raise FileNotFoundError(path)
        return store, file
