"""The catalog: a row for each embedding table with its status, in two DuckDB tables, changed one statement at a time.

    building ── ready ─── dropped
        └────── failed ── dropped, or building, when it is resumed

A move is one compare-and-swap on the build's row, so that of two that try one wins. Searches see `ready` only.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from jammi_duck.errors import StateError, StorageError
from jammi_duck.sql import literal, quoted
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.manifest import Manifest, Segment, Tombstones, Truth
from jammi_duck.storage.files.store import Digest
from jammi_duck.storage.tables import migrations
from jammi_duck.storage.tables.impostors import refuse_tables
from jammi_duck.types import Counts, Definition, Host

Status = Literal["building", "ready", "failed", "dropped", "gone"]

MOVES: dict[Status, tuple[Status, ...]] = {
    "building": ("ready", "failed"),
    "ready": ("dropped",),
    "failed": ("building", "dropped"),
    "dropped": (),
    # Of a ready table, as long as this process finds none of its files; the catalog's row says `ready`.
    "gone": ("dropped",),
}

SCHEMA = "jammi_catalog"
VIEWS = "jammi"

_MOST_READ = 1000

# What the tables of a catalog must be to be read: the types of their columns.
EXPECTED = {
    table: {name: kind.split(" ")[0] for name, kind in columns.items()}
    for table, columns in (("embedding_tables", migrations.BUILDS), ("segments", migrations.FILES))
}


@dataclass(frozen=True)
class Entry:
    """A build as the catalog knows it. Times are UTC."""

    build: str
    name: str
    definition: Definition
    status: Status
    stage: str | None
    counts: Counts
    location: str
    owner: str | None
    started: datetime
    finished: datetime | None
    error: str | None
    renamed: str | None = None

    @property
    def source(self) -> str:
        """What the source is known by: as it was called at first, or as it was `renamed` since."""
        return self.renamed or self.definition.source


@dataclass(frozen=True)
class Refused:
    """A row of the catalog that is not understood, as it stands there, and why: nothing is done with that table."""

    build: str
    name: str
    source: str
    key: str
    model: str
    dimensions: int
    status: str
    location: str
    started: datetime | None
    finished: datetime | None
    error: str


class Catalog:
    """The catalog of one database."""

    def __init__(self, host: Host, database: str, views: tuple[str, str], home: str | None = None) -> None:
        """`database` is where the catalog stands; `views` is the database and the schema of the views.

        `home` is where it goes before the first change that is made here, rather than found in storage.
        """
        self._host = host
        self.database = database
        self._database = quoted(database)
        self._tables = f"{self._database}.{SCHEMA}.embedding_tables"
        self._segments = f"{self._database}.{SCHEMA}.segments"
        self._views = views
        self._home = home
        # Every change of the catalog goes through this object, so what it has read stays true until it writes.
        self._read: dict[tuple[object, ...], list[Entry]] = {}
        self._gone: frozenset[str] = frozenset()
        # Two statements that change one row at once would be in conflict.
        self._writing = threading.RLock()
        self._view_schema = f"{quoted(views[0])}.{quoted(views[1])}"

    def create(self) -> None:
        """Make the schemas and tables that are not there yet, and bring a catalog of an earlier version to this one.

        Raises UnsupportedError where a later version of jammi_duck has made it what it is.
        """
        migrations.migrate(self._host, self.database, SCHEMA, f"{self._database}.{SCHEMA}")
        self._host.sql(f"CREATE SCHEMA IF NOT EXISTS {self._view_schema}")

    def copy_ready(self, database: str) -> None:
        """Take over the ready tables of another database's catalog, where it has one, of whatever version."""
        other = f"{quoted(database)}.{SCHEMA}"
        ready = f"SELECT build FROM {other}.embedding_tables WHERE status = 'ready'"
        for table, columns, which in (
            ("embedding_tables", migrations.BUILDS, "status = 'ready'"),
            ("segments", migrations.FILES, f"build IN ({ready})"),
        ):
            where = "database_name = ? AND schema_name = ? AND table_name = ?"
            known = f"SELECT column_name FROM duckdb_columns() WHERE {where}"
            theirs = {name for (name,) in self._host.sql(known, [database, SCHEMA, table])}
            names = ", ".join(name for name in columns if name in theirs)
            if names:
                self._write(
                    f"INSERT INTO {self._database}.{SCHEMA}.{table} BY NAME "
                    f"SELECT {names} FROM {other}.{table} WHERE {which}"
                )

    def _go_home(self) -> None:
        """Go home: what is known goes along, and meets what an IMPORT DATABASE may have brought there."""
        with self._writing:
            if self._home is None:
                return
            refuse_tables(self._host, self._home, SCHEMA, EXPECTED)
            home = Catalog(self._host, self._home, self._views)
            home.create()
            # The files first: a build without them would be taken for one that has none.
            for to, known in ((home._segments, self._segments), (home._tables, self._tables)):
                new = f"SELECT * FROM {known} WHERE build NOT IN (SELECT build FROM {to})"
                self._host.sql(f"INSERT INTO {to} BY NAME {new}")
            self.database, self._database = home.database, home._database
            self._tables, self._segments = home._tables, home._segments
            self._home, self._read = None, {}

    def begin(
        self, build: str, name: str, definition: Definition, location: str, owner: str, started: datetime
    ) -> None:
        """Enter a new build in the state `building`."""
        self._go_home()
        begun = _utc(started)
        self._insert(Entry(build, name, definition, "building", None, Counts(), location, owner, begun, None, None))

    def stage(self, build: str, stage: str) -> None:
        """Note what a running build is doing."""
        self._write(f"UPDATE {self._tables} SET stage = ? WHERE build = ? AND status = 'building'", [stage, build])

    def rename(self, build: str, name: str) -> None:
        """Give a running build another name, because its own was taken in the shared location."""
        self._write(f"UPDATE {self._tables} SET name = ? WHERE build = ? AND status = 'building'", [name, build])

    def relocate(self, build: str, location: str) -> None:
        """Note that a table's files have moved."""
        with self._writing:
            self._gone -= {build}
            self._write(f"UPDATE {self._tables} SET location = ? WHERE build = ?", [location, build])

    def ready(self, manifest: Manifest) -> None:
        """Move a build from `building` to `ready`, as its manifest says. Raises StateError."""
        self._set_files(manifest)
        counts = manifest.counts
        self._move(
            manifest.build,
            "building",
            "ready",
            {
                "stage": None,
                "row_count": counts.rows,
                "skipped_count": counts.skipped,
                "failed_count": counts.failed,
                "truncated_count": counts.truncated,
                "finished": _utc(manifest.finished),
            },
        )

    def failed(self, build: str, error: str) -> None:
        """Move a build from `building` to `failed`, with the reason. Raises StateError."""
        self._move(build, "building", "failed", {"stage": None, "finished": _now(), "error": error})

    def resumed(self, build: str, owner: str) -> None:
        """Move a build from `failed` back to `building`. Raises StateError."""
        self._go_home()
        self._move(build, "failed", "building", {"owner": owner, "finished": None, "error": None})

    def note(self, build: str, stage: str | None, owner: str | None) -> None:
        """Note what is being done with a ready table, and who does it; nothing, if these are None."""
        if stage is not None:
            self._go_home()
        self._write(
            f"UPDATE {self._tables} SET stage = ?, owner = ? WHERE build = ? AND status = 'ready'",
            [stage, owner, build],
        )

    def lose(self, looked_for: Set[str], gone: Set[str]) -> Set[str]:
        """Note for which builds, of those that were `looked_for`, no file was found; gives those that are new."""
        with self._writing:
            before = self._gone
            self._gone = before - looked_for | gone
            if self._gone != before:
                self._read = {}
            return self._gone - before

    def is_ready(self, build: str) -> bool:
        """Whether a build is ready."""
        return any(entry.build == build for entry in self.entries("ready"))

    def changed(self, manifest: Manifest, *, at_work: bool = False) -> bool:
        """Note the present state of a ready table, as its manifest says, and what is being done with it if `at_work`.

        Where the table is not ready any more, nothing is noted, which False says.
        """
        counts = manifest.counts
        noted = "" if at_work else ", stage = NULL, owner = NULL"
        values = [counts.rows, counts.skipped, counts.failed, counts.truncated, _utc(manifest.finished), manifest.build]
        with self._writing:
            ready = f"SELECT build FROM {self._tables} WHERE build = ? AND status = 'ready'"
            if not self._host.sql(ready, [manifest.build]):
                return False
            # The files first: by the time of its end, a state that is not entered as a whole is told from one that is.
            self._set_files(manifest)
            self._write(
                f"UPDATE {self._tables} SET row_count = ?, skipped_count = ?, failed_count = ?, truncated_count = ?, "
                f"finished = ?{noted} WHERE build = ? AND status = 'ready'",
                values,
            )
        return True

    def attach(self, build: str, source: str) -> None:
        """Note that a table's source is known by another name now."""
        self._write(f"UPDATE {self._tables} SET source = ? WHERE build = ?", [source, build])

    def dropped(self, entry: Entry) -> None:
        """Move a table that is ready, gone or failed to `dropped`. Raises StateError."""
        self._go_home()
        self._move(entry.build, "ready" if entry.status == "gone" else entry.status, "dropped", {"finished": _now()})

    def adopt(self, manifest: Manifest, location: str) -> None:
        """Enter a ready table that was found in storage."""
        self._set_files(manifest)
        self._insert(
            Entry(
                manifest.build,
                manifest.table,
                manifest.definition,
                "ready",
                None,
                manifest.counts,
                location,
                None,
                _utc(manifest.started),
                _utc(manifest.finished),
                None,
            )
        )

    def _set_files(self, manifest: Manifest) -> None:
        """Note a build's Parquet files, in place of what was noted before, at once."""
        now = {(each.number, each.rows, *_written(each.parquet)) for each in manifest.truth}
        with self._writing:
            before = {(each.number, each.rows, *_written(each.parquet)) for each in self._truth(manifest.build)}
            # What stays is not written again: a later version may have noted more of it.
            for _, _, file, _, _ in before - now:
                self._host.sql(f"DELETE FROM {self._segments} WHERE build = ? AND parquet = ?", [manifest.build, file])
            rows = [(manifest.build, *row) for row in sorted(now - before)]
            if rows:
                marks = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(rows))
                names = ", ".join(migrations.FILES)
                values = [value for row in rows for value in row]
                self._host.sql(f"INSERT INTO {self._segments} ({names}) VALUES {marks}", values)

    def _truth(self, build: str) -> list[Truth]:
        return [each for files in self.files(build) for each in files]

    def files(self, build: str) -> tuple[tuple[Segment, ...], tuple[Tombstones, ...]]:
        """A build's segments in order, without their sidecars, and its tombstones."""
        columns = "segment, row_count, parquet, bytes, sha256"
        text = f"SELECT {columns} FROM {self._segments} WHERE build = ? ORDER BY segment ASC"
        segments: list[Segment] = []
        tombstones: list[Tombstones] = []
        with self._writing:
            found = self._host.sql(text, [build])
        for number, rows, file, size, sha256 in found:
            name = layout.parse(file)
            if name and name.kind == "deleted.parquet":
                tombstones.append(Tombstones(number, rows, Digest(file, size, sha256)))
            else:
                segments.append(Segment(number, rows, Digest(file, size, sha256)))
        return tuple(segments), tuple(tombstones)

    def entries(self, *statuses: Status, source: str | None = None, name: str | None = None) -> Sequence[Entry]:
        """The builds in one of these states (all, if none is given), the newest first."""
        asked = (statuses, source, name)
        # A writer puts a new dictionary in place after its commit, so a late reader remembers in the discarded one.
        known = self._read
        if asked in known:
            return known[asked]
        conditions: list[str] = []
        values: list[object] = []
        stored = {"ready" if status == "gone" else status for status in statuses}
        if stored:
            conditions.append(f"status IN ({', '.join('?' * len(stored))})")
            values += stored
        for column, value in (("source", source), ("name", name)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        text = f"SELECT {', '.join(_READ)} FROM {self._tables}{where} ORDER BY started DESC, name DESC"
        read = [each for row in self._host.sql(text, values) if isinstance(each := _entry(row), Entry)]
        # A session's collation may have found more.
        meant = [each for each in read if source in (None, each.source) and name in (None, each.name)]
        found = [entry for entry in map(self._as_seen, meant) if not statuses or entry.status in statuses]
        if len(known) < _MOST_READ:
            known[asked] = found
        return found

    def _as_seen(self, entry: Entry) -> Entry:
        if entry.status != "ready" or entry.build not in self._gone:
            return entry
        why = f"every file of it is gone from {entry.location}: another database has dropped it, or they were moved"
        return replace(entry, status="gone", error=why)

    def refused(self) -> list[Refused]:
        """The rows that are not understood, which `entries` leaves out, those that were dropped with them."""
        names = [each.name for each in dataclasses.fields(Refused) if each.name != "error"]
        text = f"SELECT {', '.join((*names, *_READ))} FROM {self._tables} ORDER BY started DESC, name DESC"
        read = [(row[: len(names)], _entry(row[len(names) :])) for row in self._host.sql(text)]
        refused = [(dict(zip(names, row, strict=True)), why) for row, why in read if isinstance(why, str)]
        return [Refused(**{**row, **_times(row)}, error=why) for row, why in refused]

    def names(self) -> dict[str, str]:
        """The name of every table that there ever was, by its build, whether its row is understood or not."""
        return dict(self._host.sql(f"SELECT build, name FROM {self._tables}"))

    def show(self, name: str, dimensions: int, segments: Sequence[tuple[int, str]], tombstones: Sequence[str]) -> None:
        """Make the view of a ready table over its Parquet files, given as paths or URLs that DuckDB can open.

        Segments come with their numbers.
        """
        columns = f"_row_id, _source_id, _model_id, vector::FLOAT[{dimensions:d}] AS vector, _text_digest"
        self._host.sql(
            f"CREATE OR REPLACE VIEW {self._view_schema}.{quoted(name)} AS {live_rows(columns, segments, tombstones)}"
        )

    def hide(self, name: str) -> None:
        """Remove the view of a table that is ready no more."""
        self._host.sql(f"DROP VIEW IF EXISTS {self._view_schema}.{quoted(name)}")

    def shown(self) -> set[str]:
        """The names of the views that there are."""
        text = "SELECT view_name FROM duckdb_views() WHERE database_name = ? AND schema_name = ?"
        return {name for (name,) in self._host.sql(text, self._views)}

    def _write(self, text: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._writing:
            try:
                return self._host.sql(text, parameters)
            finally:
                self._read = {}

    def _insert(self, entry: Entry) -> None:
        definition = entry.definition
        row = {
            "build": entry.build,
            "name": entry.name,
            "source": definition.source,
            "columns": list(definition.columns),
            "key": definition.key,
            "model": definition.model,
            "dimensions": definition.dimensions,
            "definition": definition.to_json(),
            "fingerprint": definition.fingerprint,
            "status": entry.status,
            "row_count": entry.counts.rows,
            "skipped_count": entry.counts.skipped,
            "failed_count": entry.counts.failed,
            "truncated_count": entry.counts.truncated,
            "location": entry.location,
            "owner": entry.owner,
            "started": entry.started,
            "finished": entry.finished,
        }
        marks = ", ".join("?" * len(row))
        self._write(f"INSERT INTO {self._tables} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    def _move(self, build: str, old: Status, new: Status, changes: dict[str, Any]) -> None:
        if new not in MOVES[old]:
            raise StateError(f"a build cannot go from '{old}' to '{new}'")
        sets = ", ".join(f"{column} = ?" for column in ("status", *changes))
        text = f"UPDATE {self._tables} SET {sets} WHERE build = ? AND status = ?"
        # The count of rows, not RETURNING: with that, DuckDB 1.4 moves a row once only while an older query runs.
        ((moved,),) = self._write(text, [new, *changes.values(), build, old])
        if not moved:
            raise StateError(f"the build {build} is not '{old}' any more: another connection was first")


_READ = (
    "build", "name", "definition", "status", "stage", "row_count", "skipped_count", "failed_count",
    "truncated_count", "location", "owner", "started", "finished", "error", "source",
)  # fmt: skip


def _entry(row: Iterable[Any]) -> Entry | str:
    """A build as a row says, or why the row is not understood."""
    fields = dict(zip(_READ, row, strict=True))
    counts = Counts(*(fields.pop(f"{kind}_count") or 0 for kind in ("row", "skipped", "failed", "truncated")))
    try:
        definition = Definition.from_json(fields["definition"])
    except StorageError as error:
        return f"its definition in the catalog {error}"
    if fields["status"] not in MOVES:
        return f"it has the status '{fields['status']}', which this version of jammi_duck does not know"
    if _times(fields) != {name: fields[name] for name in _TIMES}:
        return "it has a time in the catalog that cannot be"
    source = fields.pop("source")
    renamed = source if source != definition.source else None
    return Entry(**{**fields, "definition": definition}, counts=counts, renamed=renamed)


_TIMES = ("started", "finished")


def _times(fields: Mapping[str, Any]) -> dict[str, datetime | None]:
    """The times in a row; None for one that DuckDB has and Python has not, such as of a year before Christ."""
    return {name: each if isinstance(each := fields[name], datetime) else None for name in _TIMES}


def _written(digest: Digest) -> tuple[str, int, str]:
    return digest.file, digest.size, digest.sha256


def live_rows(columns: str, segments: Sequence[tuple[int, str]], tombstones: Sequence[str]) -> str:
    """A query for the rows of segments that no tombstones list; `columns` may have `_segment` and `_place` in them."""
    if not tombstones and "_segment" not in columns:
        return f"SELECT {columns} FROM {_parquet(file for _, file in segments)}"
    rows = " UNION ALL ".join(
        f"SELECT *, {number:d}::INTEGER AS _segment, file_row_number AS _place "
        f"FROM read_parquet({literal(file)}, file_row_number := true, hive_partitioning := false)"
        for number, file in segments
    )
    gone = f" ANTI JOIN {_parquet(tombstones)} USING (_segment, _place)" if tombstones else ""
    return f"SELECT {columns} FROM ({rows}){gone}"


def _parquet(files: Iterable[str]) -> str:
    # A folder on the way may be called `vector=1`.
    return f"read_parquet(list_value({', '.join(map(literal, files))}), hive_partitioning := false)"


def _now() -> datetime:
    return _utc(datetime.now(UTC))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
