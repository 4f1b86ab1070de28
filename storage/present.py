"""What a change of an embedding table starts from: its present state, or what an interrupted build has left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from jammi_duck.errors import DamagedError
from jammi_duck.storage import layout, manifest
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.filesystem import Digest, Store, sha256_of
from jammi_duck.storage.manifest import Manifest, Segment
from jammi_duck.storage.parquet import Footer, read_footer
from jammi_duck.storage.place import Place, files_of
from jammi_duck.storage.table import newest_manifest


@dataclass(frozen=True)
class Present:
    """A state of a table, whose number is 0 where it was never committed, and segments that no state has.

    These are `spare`: of a change that was interrupted, and as good as any other for the vector of a text.
    """

    manifest: Manifest
    spare: tuple[Segment, ...] = ()


def present(place: Place, entry: Entry, number: int | None = None) -> Present:
    """The present state of a table, or the one with this number.

    Raises:
        DamagedError: a ready table has no manifest, or nothing is left of a build that failed.
    """
    store = place.store_at(entry.location)
    if entry.status == "ready":
        try:
            found = newest_manifest(store, entry, *place.catalog.files(entry.build))
        except DamagedError as error:
            raise DamagedError(f"{error}; SELECT * FROM jammi_recover() writes it again") from error
        if number is not None and number != found.number:
            found = manifest.read(store, layout.manifest(entry.name, number))
        highest = max(each.number for each in found.truth)
        return Present(found, tuple(segment for segment, _ in whole_segments(store, entry, after=highest)))
    whole = whole_segments(store, entry)
    kept = tuple(segment for segment, footer in whole if footer.change is None)
    if not kept:
        raise DamagedError(f"nothing is left of '{entry.name}'; generate it again")
    started = entry.started.replace(tzinfo=UTC)
    built = Manifest(entry.name, entry.build, 0, entry.definition, entry.counts, started, started, kept)
    return Present(built, tuple(segment for segment, footer in whole if footer.change is not None))


def whole_segments(store: Store, entry: Entry, after: int = -1) -> list[tuple[Segment, Footer]]:
    """The Parquet files of a build's segments that are whole, in order, those with a number beyond `after`."""
    names = {file: layout.parse(file) for file in files_of(store, entry.name)}
    mine = sorted((name.number, file) for file, name in names.items() if name and name.kind == "parquet")
    whole = []
    for number, file in mine:
        if number <= after:
            continue
        try:
            with store.unchecked(file, entry.build) as path:
                footer = read_footer(path)
                if footer.build == entry.build:
                    digest = Digest(file, path.stat().st_size, sha256_of(path))
                    whole.append((Segment(number, footer.rows, digest), footer))
        except (FileNotFoundError, DamagedError):
            continue
    return whole


def paths(store: Store, present: Present) -> tuple[list[tuple[int, Path]], list[tuple[int, Path]], list[Path]]:
    """Local paths of the Parquet files, those of segments with their numbers: the state's, the spare ones, tombstones.

    Remote files come to the cache. Raises DamagedError.
    """

    def local(segments: tuple[Segment, ...]) -> list[tuple[int, Path]]:
        return [(segment.number, store.checked(segment.parquet)) for segment in segments]

    state = present.manifest
    return local(state.segments), local(present.spare), [store.checked(each.parquet) for each in state.tombstones]
