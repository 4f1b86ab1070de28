"""The embedding tables of one database: its catalog, its location, and the tables that are open."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from jammi_duck.config.logs import log
from jammi_duck.config.redaction import public_url
from jammi_duck.errors import NotFoundError, StorageError, UnsupportedError, did_you_mean, enumerated
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.local_store import LocalStore
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.files.manifest import Segment, Tombstones
from jammi_duck.storage.files.store import Store, location_id, regular
from jammi_duck.storage.tables.catalog import Catalog, Entry
from jammi_duck.storage.tables.pins import Pins
from jammi_duck.storage.tables.table import Table
from jammi_duck.storage.tables.watch import Watch
from jammi_duck.types import Shape

PROTOCOL = "jammi"

_MOST_OPEN = 32
# Locations that are opened whoever names them: on this machine, or at the one server for S3 that the options are for.
_ANYWHERE = ("file", "local", "memory", "s3")


class EmbeddingTables:
    """A catalog and the stores it speaks of. New builds go to `store`; older tables may lie elsewhere."""

    def __init__(
        self,
        catalog: Catalog,
        location: str,
        *,
        cache_dir: Path,
        segment_rows: int,
        retention: timedelta,
        watch: Watch,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open `location`; nothing is created there yet. `options` go to fsspec.

        Raises:
            StorageError: the location is no path and no URL that can be opened.
        """
        self.catalog = catalog
        self.cache_dir = cache_dir
        self.segment_rows = segment_rows
        self.retention = retention
        self.watch = watch
        self._options = dict(options or {})
        self.store = open_store(location, cache_dir, self._options)
        self._stores = {self.store.location: self.store}
        # The tables of which a warning has said that another is used, or that they are used and others are not.
        self.warned: set[str] = set()
        self._open: OrderedDict[str, Table] = OrderedDict()
        self._forgotten: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.pins = Pins()
        # For each build, the number of the state that the catalog has, where that is known.
        self.recorded: dict[str, int] = {}
        # Held while a state is recorded.
        self.recording = threading.Lock()

    def store_at(self, location: str) -> Store:
        """The store of a location, which a catalog entry names."""
        with self._lock:
            if location not in self._stores:
                self._stores[location] = self._open_elsewhere(location)
            return self._stores[location]

    def _open_elsewhere(self, location: str) -> Store:
        """A location that the catalog names, and so whoever made the database file.

        The options go there only where they would send the same to the same server. Otherwise, nothing is contacted.
        """
        kind, _, rest = location.partition("://")
        ours, _, home = self.store.location.partition("://")
        is_at_home = (kind, _host(rest)) == (ours, _host(home))
        if rest and ("::" in rest or not (kind in _ANYWHERE or is_at_home)):
            raise StorageError(
                f"the catalog names the location '{public_url(location)}', which is not opened, since it is not at "
                f"'{self.store.location}'; if it is yours, install with it as storage"
            )
        # Beside a location on this disk, options are for S3.
        return open_store(location, self.cache_dir, self._options if kind == ours or not home else {})

    def table(self, entry: Entry) -> Table:
        """A ready table, open for search; the most recently used ones stay open."""
        with self._lock:
            if entry.build in self._open:
                self._open.move_to_end(entry.build)
                return self._open[entry.build]
            forgotten = self._forgotten[entry.build]
        table = Table.open(self.store_at(entry.location), entry, *self.catalog.files(entry.build))
        with self._lock:
            # What has become an earlier state meanwhile serves this search, and no other.
            if self._forgotten[entry.build] == forgotten:
                self._open[entry.build] = table
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return table

    def evict(self, build: str) -> None:
        """Let an open table go, because it was dropped or its files have changed."""
        with self._lock:
            self._open.pop(build, None)
            self._forgotten[build] += 1

    def called(self, name: str, source: str) -> Entry:
        """The ready table of this name, or the newest of a source that was given it. Raises as `ready`."""
        entries = self.catalog.entries("ready", source=source)
        return next((entry for entry in entries if layout.is_called(entry.name, name)), None) or self.ready(name)

    def ready(self, name: str) -> Entry:
        """The ready table with this name. Raises NotFoundError, or UnsupportedError where the catalog's row is that."""
        found = self.catalog.entries("ready", name=name)
        if found:
            return found[0]
        for entry in self.catalog.entries("gone", name=name):
            raise NotFoundError(f"'{name}' cannot be used: {entry.error}")
        for refused in self.catalog.refused():
            if refused.name == name:
                raise UnsupportedError(f"'{name}' cannot be used: {refused.error}")
        if made := [entry.name for entry in self.catalog.entries("ready", source=name)]:
            raise NotFoundError(
                f"'{name}' is a source, and no embedding table; its embedding tables: {enumerated(made)}"
            )
        names = [entry.name for entry in self.catalog.entries("ready")]
        if called := [each for each in names if layout.is_called(each, name)]:
            raise NotFoundError(f"'{name}' is not the whole name of an embedding table: {enumerated(called)}")
        known = f"ready are: {enumerated(names)}" if names else "none is ready"
        raise NotFoundError(f"no embedding table '{name}'{did_you_mean(name, names) or ';'} {known}")

    def show(
        self,
        entry_name: str,
        shape: Shape,
        location: str,
        segments: Sequence[Segment],
        tombstones: Sequence[Tombstones],
    ) -> None:
        """Make the view `jammi."NAME"` over a table's Parquet files, where DuckDB can read them."""
        try:
            store = self.store_at(location)

            def url(file: str) -> str:
                if isinstance(store, LocalStore):
                    # DuckDB would wait for whoever writes to a FIFO.
                    regular(store.path(file))
                    return store.path(file)
                return f"{PROTOCOL}://{location_id(location)}/{file}"

            rows = [(segment.number, url(segment.parquet.file)) for segment in segments]
            self.catalog.create_view(
                entry_name, shape, rows, [url(each.parquet.file) for each in tombstones if each.rows]
            )
        except Exception as error:
            # The table is as good without its view, which DuckDB refuses where it cannot read the files right now; one
            # of an earlier state would not be.
            log.warning("no view jammi.%s: %s", entry_name, error)
            with contextlib.suppress(Exception):
                # Another thing of that name, which somebody has put there, stays.
                self.catalog.drop_view(entry_name)

    def stores(self) -> dict[str, Store]:
        """Every open store by the id that stands for its location in the URLs of views."""
        with self._lock:
            return {location_id(location): store for location, store in self._stores.items()}


def _host(rest: str) -> str:
    return rest.partition("/")[0]
