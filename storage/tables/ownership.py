"""Decides from the content of files which of them may be deleted: the name alone is never enough.

Two databases that share a location may choose one name, until the first file is there; and a later version may have
written what this one does not understand, which is then left alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from jammi_duck.errors import DamagedError, StorageError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.parquet import Closing, Footer, State, read_footer, read_state
from jammi_duck.storage.files.store import FileDigest, Store, called
from jammi_duck.storage.files.table_files import files_of, remove_files


@dataclass(frozen=True)
class Origin:
    """What a manifest, a segment or tombstones say of themselves.

    `change` is the id of the change that wrote it, None for a build's own and for manifests. `counted` says that it is
    a build's last segment, and `closes` which state tombstones close.
    """

    build: str
    change: str | None = None
    counted: bool = False
    closes: State | None = None


@dataclass(frozen=True)
class Deletion:
    """How many files of a table were deleted, and which were `left` and why, as the end of a sentence, if any were."""

    files: int
    left: str


def origin(store: Store, file: str) -> Origin | None:
    """What a file says of itself; None where it is missing or damaged, or is a sidecar, which says nothing.

    Raises StorageError where it cannot be read now, or is not understood.
    """
    try:
        if layout.is_manifest(file):
            return Origin(manifest.read(store, file).build)
        if layout.is_parquet(file):
            _, footer = footer_of(store, file)
            return Origin(footer.build, footer.change, footer.counts is not None)
        if layout.is_tombstones(file):
            _, found = closing_of(store, file)
            return Origin(found.build, found.change, closes=found.state)
    except (FileNotFoundError, DamagedError):
        pass
    return None


def footer_of(store: Store, file: str) -> tuple[FileDigest, Footer]:
    """What a segment's Parquet is, and says of itself. Raises FileNotFoundError, or StorageError as `read_footer`."""
    digest, path = store.found(file)
    with called(file, path):
        return digest, read_footer(path)


def closing_of(store: Store, file: str) -> tuple[FileDigest, Closing]:
    """What tombstones are, and say of themselves. Raises as `footer_of` does."""
    digest, path = store.found(file)
    with called(file, path):
        return digest, read_state(path)


def owner_of(store: Store, files: Iterable[str]) -> str | None:
    """The build whose files these are, which all have the same table's name; None where none of them can tell.

    Raises StorageError where they cannot be read now, or are not understood.
    """
    for file in files:
        found = origin(store, file)
        if found:
            return found.build
    return None


def written_by(store: Store, files: Iterable[str], build: str, change: str | None = None) -> list[str]:
    """Those of these files that say that this build has written them, or this change of its table.

    Raises StorageError where one cannot be read now, or is not understood.
    """
    said = {file: origin(store, file) for file in filter(layout.is_truth, files)}
    return [file for file, found in said.items() if found and (found.build, found.change) == (build, change)]


def delete_table(store: Store, table: str, build: str, *, was_ready: bool) -> Deletion:
    """Delete the files of a table that is dropped.

    Where one is not understood, none is deleted: they are of a later version, which may know what they are. Of a table
    that `was_ready` a manifest was read once, so what is damaged goes, too. Raises StorageError where the location
    cannot be listed, or a file not be deleted.
    """
    files = files_of(store, table)
    try:
        said = _said(store, files)
    except StorageError as error:
        return Deletion(0, f"; left {len(files)} files alone: {error}")
    builds = {found.build for found in said.values() if found}
    if builds - {build}:
        # Another database has given the name to a table of its own.
        mine = [file for file in files if (f := said.get(file)) and f.build == build]
        return Deletion(remove_files(store, mine), _left(store, mine, mine))
    mine = files if was_ready or builds else []
    removed = remove_files(store, mine)
    return Deletion(removed, _left(store, mine, [file for file in store.files() if file.startswith(f"{table}.")]))


def _left(store: Store, mine: Container[str], files: Iterable[str]) -> str:
    """Which of these files are there still, of which those that are `mine` were to be deleted, and why."""
    there = store.files()
    left = sorted(file for file in files if file in there)
    held = [file for file in left if file in mine and there[file].is_file]
    others = [file for file in left if file not in held]
    reasons = (
        (held, "; left for jammi_recover(), since they are being read"),
        (others, "; left alone, which nothing shows to be of this table"),
    )
    return "".join(f"{why}: {', '.join(which)}" for which, why in reasons if which)


def superseded(store: Store, files: Sequence[str], old: Container[str], given_up: Container[str]) -> list[str]:
    """Those files of a table that may go: they are proven to be of a state that is over, or of none.

    `files` are all that it has, as `files_of` orders them, of which only the `old` go; `given_up` are builds of our own
    that failed or were dropped. Raises StorageError where something of the table is not understood, cannot be read
    now, or where its newest manifest is damaged: then all of it stays.
    """
    manifests = list(filter(layout.is_manifest, files))
    if not manifests:
        return [file for file in _of_no_state(store, files, given_up) if file in old]
    newest = manifest.read(store, manifests[-1])
    named = {newest.file, *(digest.file for digest in newest.files)}
    others = [file for file in files if file not in named]
    last = max(each.number for each in newest.parquet_files)
    said = _said(store, [file for file in others if file in old or layout.number_of(file) > last])
    # Its manifest may be away, or about to be written.
    later = [found.closes for found in said.values() if found and found.closes and found.closes.number > newest.number]
    needed = {number for state in later for number in (*state.segments, *state.deleted)}
    going = [
        file
        for file in others
        if file in old
        and _is_over(file, said.get(file), newest)
        and (layout.is_manifest(file) or layout.number_of(file) not in needed)
    ]
    # Manifests last: until then they say what the others were.
    return sorted(going, key=layout.is_manifest)


def _is_over(file: str, said: Origin | None, newest: manifest.Manifest) -> bool:
    """Whether a file that the newest state does not name is of an earlier one, or of none."""
    if said is None:
        # A damaged manifest before the newest one is over; a damaged Parquet file may be anybody's.
        return not layout.is_truth(file)
    return said.build == newest.build and not (said.closes and said.closes.number > newest.number)


def _of_no_state(store: Store, files: Sequence[str], given_up: Container[str]) -> list[str]:
    """Files of builds that never came to a state. One that is whole may have lost its manifest, and is none of them."""
    said = _said(store, files)
    whole = {found.build for found in said.values() if found and (found.counted or found.closes)}
    parquets = [file for file, found in said.items() if found and (found.build in given_up or found.build not in whole)]
    is_all = len(parquets) == len(said)
    return [*parquets, *(file for file in files if is_all and layout.is_sidecar(file))]


def _said(store: Store, files: Sequence[str]) -> dict[str, Origin | None]:
    """What manifests and Parquet files say of themselves, in this order, or one of these manifests of the others.

    So what a manifest names is not fetched, if it has the size that is told.
    """
    sizes, asked = store.files(), set(files)
    said: dict[str, Origin | None] = {}
    for file in filter(layout.is_manifest, files):
        try:
            found = manifest.read(store, file)
        except DamagedError:
            said[file] = None
        else:
            mine = [each.parquet for each in found.parquet_files if each.parquet.file in sizes]
            same = [digest.file for digest in mine if sizes[digest.file].size == digest.size]
            said |= dict.fromkeys([file, *(each for each in same if each in asked)], Origin(found.build))
    return said | {file: origin(store, file) for file in filter(layout.is_truth, files) if file not in said}
