"""Whose files they are: two databases that share a location may choose one name, until the first file is there."""

from __future__ import annotations

from collections.abc import Iterable

from jammi_duck.errors import DamagedError
from jammi_duck.storage import layout, manifest
from jammi_duck.storage.filesystem import Store
from jammi_duck.storage.parquet import read_footer, read_state


def owner_of(store: Store, files: Iterable[str]) -> str | None:
    """The build whose files these are, which all have the same table's name; None where none of them can tell.

    Raises StorageError where they cannot be read now.
    """
    for file in files:
        try:
            if layout.is_manifest(file):
                return manifest.read(store, file).build
            if layout.is_parquet(file):
                return read_footer(store.found(file)[1]).build
            if layout.is_tombstones(file):
                return read_state(store.found(file)[1])[0]
        except (FileNotFoundError, DamagedError):
            continue
    return None
