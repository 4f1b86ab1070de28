"""The files of embedding tables in a location, by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from jammi_duck.errors import UnsupportedError
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.store import Store


def names_in(store: Store) -> set[str]:
    """The names of all embedding tables that have files in a location, complete or not."""
    return {name.table for name in map(layout.parse, store.files()) if name}


def by_table(files: Iterable[str]) -> dict[str, list[str]]:
    """Files grouped by embedding table.

    In each group, manifests come first and Parquet files last, each kind in the order of its numbers.
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


def free_number(files: Iterable[str]) -> int:
    """The number after those of all segments and tombstones among the files of one table."""
    names = filter(None, map(layout.parse, files))
    return 1 + max((name.number for name in names if name.kind != "manifest.json"), default=-1)


def remove_files(store: Store, files: Iterable[str]) -> int:
    """Delete files of a table, in the order of `files_of`; returns how many were deleted. Only regular files are.

    In this order, nobody finds an incomplete table, and the rest of an interrupted deletion tells which table it was.
    """
    removed = 0
    for file in files:
        with contextlib.suppress(UnsupportedError):
            removed += store.delete(file)
    return removed
