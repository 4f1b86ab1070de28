"""The files of embedding tables in a location, by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from jammi_duck.errors import UnsupportedError
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.store import Store


def names_in(store: Store) -> set[str]:
    """The names of embedding tables that a location's files use, whole or not."""
    return {name.table for name in map(layout.parse, store.files()) if name}


def by_table(files: Iterable[str]) -> dict[str, list[str]]:
    """Files by the embedding table that they are of.

    Each has its manifests first, the newest of them last, and its Parquet files last, each kind by its numbers.
    """
    names = {file: name for file in files if (name := layout.parse(file))}

    def order(file: str) -> tuple[bool, bool, int, str]:
        kind = names[file].kind
        return kind != "manifest.json", kind.endswith("parquet"), names[file].number, file

    tables: dict[str, list[str]] = {}
    for file in sorted(names, key=order):
        tables.setdefault(names[file].table, []).append(file)
    return tables


def files_of(store: Store, table: str) -> list[str]:
    """All files of an embedding table, in the order of `by_table`."""
    return by_table(store.files()).get(table, [])


def remove_files(store: Store, files: Iterable[str]) -> int:
    """Delete files of a table, in the order of `files_of`; how many were deleted. What is no regular file stays.

    So nobody finds it half gone, and what a deletion that is cut short has left tells whose it was.
    """
    removed = 0
    for file in files:
        with contextlib.suppress(UnsupportedError):
            removed += store.delete(file)
    return removed
