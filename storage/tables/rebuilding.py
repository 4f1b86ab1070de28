"""Works out what a table holds from its Parquet files alone, if its manifest cannot be read.

Tombstones close a state: they say its number, its segments, its earlier tombstones and its counts. The last segment of
a build closes the first state. So the newest state is known without a manifest; an older one never takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from jammi_duck.errors import DamagedError, StorageError
from jammi_duck.storage.files import layout, manifest
from jammi_duck.storage.files.manifest import Manifest, Segment, TableFile, Tombstones
from jammi_duck.storage.files.parquet import Closing, Footer, State, read_tombstones
from jammi_duck.storage.files.store import FileDigest, Store, called
from jammi_duck.storage.files.table_files import files_of
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.ownership import closing_of, footer_of

Said = TypeVar("Said", Footer, Closing)


@dataclass(frozen=True)
class _Closed:
    """A state, and the tombstones that say it; None, where a build's last segment does."""

    state: State
    by: Tombstones | None
    last: int

    @property
    def listing(self) -> tuple[int, ...]:
        """The numbers of its tombstones, its own left out where they list nothing."""
        own = (self.by.number,) if self.by and self.by.rows else ()
        return (*self.state.deleted, *own)


def rebuilt(store: Store, entry: Entry, known: Sequence[TableFile] = ()) -> Manifest | None:
    """The newest state of a table that was committed, without sidecars; None where no file says of one what it holds.

    Where the newest manifest is there and is damaged, that is the state with its number; where it is missing, the
    newest that is closed. `known` are the files that the catalog has of the table: what it says of them must hold,
    and no state from before them is taken.

    Raises:
        DamagedError: files of the state are missing or damaged, or two changes say that they made it.
        StorageError: files cannot be read now, or are not understood, so that nobody can tell.
    """
    found = _Files(store, entry, known)
    closed = _newest(found, found.damaged_manifest())
    return None if closed is None else found.manifest(closed)


def _newest(found: _Files, wanted: int | None) -> _Closed | None:
    """The closed state with the number that is wanted, or the newest. Raises as `rebuilt` does."""
    eligible = [each for each in found.closed() if wanted is None or each.state.number <= wanted]
    number = max((each.state.number for each in eligible), default=0)
    best = [each for each in eligible if each.state.number == number]
    if len({(each.state.segments, each.listing) for each in best}) > 1:
        best = found.witnessed(best)
    closed = max(best, key=lambda each: each.last, default=None)
    if closed is None or number != wanted:
        found.raise_unread(closed.last if closed else -1)
    if closed is None:
        return None
    # A repair by an earlier version wrote a manifest alone. Whatever else made a state wrote files beyond these.
    if wanted is not None and number < wanted and found.last > closed.last:
        raise DamagedError(f"the tombstones that close state {wanted} of '{found.table}' are missing")
    if max((each.number for each in found.known), default=0) > closed.last:
        raise DamagedError(f"files of the newest state of '{found.table}', which the catalog has, are missing")
    return closed


class _Files:
    """The files of one table."""

    def __init__(self, store: Store, entry: Entry, known: Sequence[TableFile]) -> None:
        self.table = entry.name
        self.known = known
        self._store = store
        self._entry = entry
        self._files = files_of(store, entry.name)
        self._unread: dict[int, StorageError] = {}
        self._digests = {each.parquet.file: each.parquet for each in known}

    @property
    def last(self) -> int:
        """The highest number that a segment or tombstones have."""
        return max((layout.number_of(file) for file in self._files if layout.is_truth(file)), default=-1)

    def damaged_manifest(self) -> int | None:
        """The number of the newest manifest, if that is damaged; None where it is whole, or there is none."""
        files = list(filter(layout.is_manifest, self._files))
        if not files:
            return None
        try:
            found = manifest.read(self._store, files[-1])
        except DamagedError:
            return layout.number_of(files[-1])
        if found.build != self._entry.build:
            raise DamagedError(f"'{files[-1]}' is another build's manifest")
        return None

    def closed(self) -> list[_Closed]:
        """The states that files close; `raise_unread` tells of those that cannot be read."""
        found = []
        for file in filter(layout.is_tombstones, self._files):
            try:
                digest, said = closing_of(self._store, file)
            except FileNotFoundError:
                continue
            except StorageError as error:
                self._unread[layout.number_of(file)] = error
                continue
            if said.build == self._entry.build:
                by = Tombstones(layout.number_of(file), said.rows, digest)
                found.append(_Closed(said.state, by, max(by.number, *said.state.segments)))
        own = self._build()
        return [*found, own] if own and not any(each.state.number == 1 for each in found) else found

    def _build(self) -> _Closed | None:
        """The state that the build itself made, if its last segment says that it is whole."""
        own, counts = [], None
        for file in filter(layout.is_parquet, self._files):
            try:
                _, footer = footer_of(self._store, file)
            except (FileNotFoundError, DamagedError):
                continue
            if (footer.build, footer.change) == (self._entry.build, None):
                own.append(layout.number_of(file))
                counts = footer.counts
        if not own or counts is None or own != list(range(len(own))):
            return None
        return _Closed(State(1, tuple(own), (), counts), None, own[-1])

    def witnessed(self, closed: Sequence[_Closed]) -> list[_Closed]:
        """The one of several states with one number that the damaged manifest names, or the catalog.

        A build that is resumed has no rivals: of what it has written, the last is right.
        """
        manifests = list(filter(layout.is_manifest, self._files))
        content = self._store.read(manifests[-1]) if manifests else b""
        tombstones = [each.parquet for each in self.known]
        by = [each for each in closed if each.by and each.by.parquet.sha256.encode() in content]
        by = by or [each for each in closed if each.by and each.by.parquet in tombstones]
        if len(by) == 1 or not (manifests or self.known):
            return by or list(closed)
        state = f"state {closed[0].state.number} of '{self.table}'"
        raise DamagedError(f"two changes have written {state}, and nothing says which was first")

    def raise_unread(self, last: int) -> None:
        """Raise what is wrong with tombstones that may close a later state than one whose last file has this number."""
        for number, error in self._unread.items():
            if number > last:
                raise error

    def manifest(self, closed: _Closed) -> Manifest:
        """The manifest of a state, without sidecars. Raises as `rebuilt` does."""
        state = closed.state
        tombstones = [self._tombstones(number) for number in state.deleted]
        found = Manifest(
            table=self.table,
            build=self._entry.build,
            number=state.number,
            definition=self._entry.definition,
            counts=state.counts,
            started=self._entry.started.replace(tzinfo=UTC),
            finished=datetime.now(UTC),
            segments=tuple(map(self._segment, state.segments)),
            tombstones=(*tombstones, closed.by) if closed.by else (),
        )
        if found.rows != state.counts.stored:
            wanted = state.counts.stored
            raise DamagedError(f"the files of '{self.table}' hold {found.rows:,} rows instead of {wanted:,}")
        return found

    def _segment(self, number: int) -> Segment:
        digest, footer = self._found(layout.parquet(self.table, number), footer_of)
        self._check_build(digest.file, footer.build)
        return Segment(number, footer.rows, digest)

    def _tombstones(self, number: int) -> Tombstones:
        digest, said = self._found(layout.deleted(self.table, number), closing_of)
        self._check_build(digest.file, said.build)
        path = self._store.checked(digest)
        with called(digest.file, path):
            for _ in read_tombstones(path):
                pass
        return Tombstones(number, said.rows, digest)

    def _found(self, file: str, read: Callable[[Store, str], tuple[FileDigest, Said]]) -> tuple[FileDigest, Said]:
        try:
            digest, said = read(self._store, file)
        except FileNotFoundError as error:
            raise DamagedError(f"'{file}' is missing") from error
        if self._digests.get(file, digest) != digest:
            raise DamagedError(f"'{file}' is not the file that the catalog lists (its SHA-256 differs)")
        return digest, said

    def _check_build(self, file: str, build: str) -> None:
        if build != self._entry.build:
            raise DamagedError(f"'{file}' is another build's")
