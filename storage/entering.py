"""How the catalog learns of the state of an embedding table that is committed."""

from __future__ import annotations

import contextlib

from jammi_duck.errors import StorageError
from jammi_duck.storage.catalog import Entry
from jammi_duck.storage.manifest import Manifest
from jammi_duck.storage.place import Place
from jammi_duck.storage.table import newest_manifest


def enter(place: Place, entry: Entry, present: Manifest) -> bool:
    """Enter the present state of a ready table in the catalog, show its view, and let go of the state that is open.

    Where a later one is there by now, that is entered: threads may enter theirs in another order than they committed.
    Where the table is not ready any more, there is nothing to enter, which False says.
    """
    with place.entering:
        with contextlib.suppress(StorageError):
            newest = newest_manifest(place.store_at(entry.location), entry)
            present = newest if newest.number > present.number else present
        # The view first: what dies in between is settled, as long as the catalog has not the new state.
        place.show(entry.name, entry.definition.dimensions, entry.location, present.segments, present.tombstones)
        is_ready = place.catalog.changed(present)
        if not is_ready:
            place.catalog.hide(entry.name)
        place.forget(entry.build)
    return is_ready


def catch_up(place: Place, entry: Entry, present: Manifest) -> bool:
    """Enter the present state of a ready table, if the catalog had another one; says so."""
    if present.finished.replace(tzinfo=None) == entry.finished:
        return False
    enter(place, entry, present)
    return True
