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
from jammi_duck.sql import Sql, joined, literal, quoted, sql
from jammi_duck.storage.files import layout
from jammi_duck.storage.files.manifest import Manifest, Segment, TableFile, Tombstones
from jammi_duck.storage.files.store import FileDigest
from jammi_duck.storage.tables import migrations
from jammi_duck.storage.tables.impostors import refuse_tables
from jammi_duck.types import Counts, Definition, Host, Shape

Status = Literal["building", "ready", "failed", "dropped", "gone"]

TRANSITIONS: dict[Status, tuple[Status, ...]] = {
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
        self._schema = _schema(database)
        self._tables = sql("{}.embedding_tables", self._schema)
        self._segments = sql("{}.segments", self._schema)
        self._views = views
        self._home = home
        # Every change of the catalog goes through this object, so what it has read stays true until it writes.
        self._read: dict[tuple[object, ...], list[Entry]] = {}
        self._gone: frozenset[str] = frozenset()
        # Two statements that change one row at once would be in conflict.
        self._writing = threading.RLock()
        self._view_schema = joined(".", map(quoted, views))

    def create(self) -> None:
        """Make the schemas and tables that are not there yet, and bring a catalog of an earlier version to this one.

        Raises UnsupportedError where a later version of jammi_duck has made it what it is.
        """
        migrations.migrate(self._host, self.database, SCHEMA, self._schema)
        self._host.sql(sql("CREATE SCHEMA IF NOT EXISTS {}", self._view_schema))

    def copy_ready(self, database: str) -> None:
        """Take over the ready tables of another database's catalog, where it has one, of whatever version."""
        other = _schema(database)
        is_ready = sql("build IN (SELECT build FROM {}.embedding_tables WHERE status = 'ready')", other)
        for table, columns in (("embedding_tables", migrations.BUILDS), ("segments", migrations.FILES)):
            known = sql(
                "SELECT column_name FROM duckdb_columns() "
                "WHERE database_name = ? AND schema_name = ? AND table_name = ?"
            )
            theirs = {name for (name,) in self._host.sql(known, [database, SCHEMA, table])}
            names = joined(", ", (quoted(name) for name in columns if name in theirs))
            if names:
                self._write(
                    sql(
                        "INSERT INTO {ours}.{table} BY NAME SELECT {names} FROM {other}.{table} WHERE {is_ready}",
                        ours=self._schema,
                        table=quoted(table),
                        names=names,
                        other=other,
                        is_ready=is_ready,
                    )
                )

    def move_into_database(self) -> None:
        """Move a catalog in memory into the database, unless that is read-only.

        It is merged with what an IMPORT DATABASE may have made there.
        """
        with self._writing:
            if self._home is None:
                return
            refuse_tables(self._host, self._home, SCHEMA, EXPECTED)
            home = Catalog(self._host, self._home, self._views)
            home.create()
            # The files first: a build without them would be taken for one that has none.
            for to, known in ((home._segments, self._segments), (home._tables, self._tables)):
                self._host.sql(
                    sql(
                        "INSERT INTO {to} BY NAME SELECT * FROM {known} WHERE build NOT IN (SELECT build FROM {to})",
                        to=to,
                        known=known,
                    )
                )
            self.database, self._schema = home.database, home._schema
            self._tables, self._segments = home._tables, home._segments
            self._home, self._read = None, {}

    def begin(
        self, build: str, name: str, definition: Definition, location: str, owner: str, started: datetime
    ) -> None:
        """Enter a new build in the state `building`."""
        self.move_into_database()
        begun = _utc(started)
        self._insert(Entry(build, name, definition, "building", None, Counts(), location, owner, begun, None, None))

    def note_stage(self, build: str, stage: str) -> None:
        """Note what a running build is doing."""
        self._update(build, {"stage": stage}, only="building")

    def rename(self, build: str, name: str) -> None:
        """Give a running build another name, because its own was taken in the shared location."""
        self._update(build, {"name": name}, only="building")

    def relocate(self, build: str, location: str) -> None:
        """Note that a table's files have moved."""
        with self._writing:
            self._gone -= {build}
            self._update(build, {"location": location})

    def mark_ready(self, manifest: Manifest) -> None:
        """Move a build from `building` to `ready`, as its manifest says. Raises StateError."""
        self._set_files(manifest)
        changes = {"stage": None, **_counts(manifest.counts), "finished": _utc(manifest.finished)}
        self._transition(manifest.build, "building", "ready", changes)

    def mark_failed(self, build: str, error: str) -> None:
        """Move a build from `building` to `failed`, with the reason. Raises StateError."""
        self._transition(build, "building", "failed", {"stage": None, "finished": _now(), "error": error})

    def mark_resumed(self, build: str, owner: str) -> None:
        """Move a build from `failed` back to `building`. Raises StateError."""
        self.move_into_database()
        self._transition(build, "failed", "building", {"owner": owner, "finished": None, "error": None})

    def note_change(self, build: str, stage: str | None, owner: str | None) -> None:
        """Note what is being done with a ready table, and who does it; nothing, if these are None."""
        if stage is not None:
            self.move_into_database()
        self._update(build, {"stage": stage, "owner": owner}, only="ready")

    def note_missing(self, looked_for: Set[str], gone: Set[str]) -> Set[str]:
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

    def set_state(self, manifest: Manifest, *, at_work: bool = False) -> bool:
        """Note the present state of a ready table, as its manifest says, and what is being done with it if `at_work`.

        Where the table is not ready any more, nothing is noted, which False says.
        """
        # The definition says how words are found, which may have changed.
        definition = manifest.definition
        changes = {
            **_counts(manifest.counts),
            "definition": definition.to_json(),
            "fingerprint": definition.fingerprint,
            "finished": _utc(manifest.finished),
        }
        if not at_work:
            changes |= {"stage": None, "owner": None}
        with self._writing:
            ready = sql("SELECT build FROM {} WHERE build = ? AND status = 'ready'", self._tables)
            if not self._host.sql(ready, [manifest.build]):
                return False
            # The files first: until `finished` is changed, the state counts as not recorded.
            self._set_files(manifest)
            self._update(manifest.build, changes, only="ready")
        return True

    def rename_source(self, build: str, source: str) -> None:
        """Note that a table's source is known by another name now."""
        self._update(build, {"source": source})

    def mark_dropped(self, entry: Entry) -> None:
        """Move a table that is ready, gone or failed to `dropped`. Raises StateError."""
        self.move_into_database()
        self._transition(
            entry.build, "ready" if entry.status == "gone" else entry.status, "dropped", {"finished": _now()}
        )

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
        now = {(each.number, each.rows, *_written(each.parquet)) for each in manifest.parquet_files}
        with self._writing:
            before = {(each.number, each.rows, *_written(each.parquet)) for each in self._parquet_files(manifest.build)}
            # What stays is not written again: a later version may have noted more of it.
            for _, _, file, _, _ in before - now:
                text = sql("DELETE FROM {} WHERE build = ? AND parquet = ?", self._segments)
                self._host.sql(text, [manifest.build, file])
            self._insert_into(
                self._segments, migrations.FILES, [(manifest.build, *row) for row in sorted(now - before)]
            )

    def _parquet_files(self, build: str) -> list[TableFile]:
        return [each for files in self.files(build) for each in files]

    def files(self, build: str) -> tuple[tuple[Segment, ...], tuple[Tombstones, ...]]:
        """A build's segments in order, without their sidecars, and its tombstones."""
        text = sql(
            "SELECT segment, row_count, parquet, bytes, sha256 FROM {} WHERE build = ? ORDER BY segment ASC",
            self._segments,
        )
        segments: list[Segment] = []
        tombstones: list[Tombstones] = []
        with self._writing:
            found = self._host.sql(text, [build])
        for number, rows, file, size, sha256 in found:
            name = layout.parse(file)
            if name and name.kind == "deleted.parquet":
                tombstones.append(Tombstones(number, rows, FileDigest(file, size, sha256)))
            else:
                segments.append(Segment(number, rows, FileDigest(file, size, sha256)))
        return tuple(segments), tuple(tombstones)

    def entries(self, *statuses: Status, source: str | None = None, name: str | None = None) -> Sequence[Entry]:
        """The builds in one of these states (all, if none is given), the newest first."""
        asked = (statuses, source, name)
        # A writer puts a new dictionary in place after its commit, so a late reader remembers in the discarded one.
        known = self._read
        if asked in known:
            return known[asked]
        conditions: list[Sql] = []
        values: list[object] = []
        stored = {"ready" if status == "gone" else status for status in statuses}
        if stored:
            conditions.append(sql("status IN ({})", _marks(len(stored))))
            values += stored
        for column, value in (("source", source), ("name", name)):
            if value is not None:
                conditions.append(sql("{} = ?", quoted(column)))
                values.append(value)
        rows = self._select(_COLUMNS, joined(" AND ", conditions or [sql("true")]), values)
        read = [each for row in rows if isinstance(each := _entry(row), Entry)]
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
        rows = self._select((*names, *_COLUMNS), sql("true"))
        read = [(row[: len(names)], _entry(row[len(names) :])) for row in rows]
        refused = [(dict(zip(names, row, strict=True)), why) for row, why in read if isinstance(why, str)]
        return [Refused(**{**row, **_times(row)}, error=why) for row, why in refused]

    def names(self) -> dict[str, str]:
        """The name of every table that there ever was, by its build, whether its row is understood or not."""
        return dict(self._host.sql(sql("SELECT build, name FROM {}", self._tables)))

    def create_view(
        self, name: str, shape: Shape, segments: Sequence[tuple[int, str]], tombstones: Sequence[str]
    ) -> None:
        """Make the view of a ready table over its Parquet files, given as paths or URLs that DuckDB can open.

        Segments come with their numbers. There is no column of vectors if they have no dimensions.
        """
        vector = sql("vector::FLOAT[{}] AS vector, ", shape.dimensions) if shape.dimensions else sql("")
        passages = sql("_passage, _start, _end, _row_digest, ") if shape.has_passages else sql("")
        columns = sql("_row_id, _source_id, _model_id, {}{}_text_digest", passages, vector)
        rows = live_rows(columns, segments, tombstones)
        self._host.sql(sql("CREATE OR REPLACE VIEW {}.{} AS {}", self._view_schema, quoted(name), rows))

    def drop_view(self, name: str) -> None:
        """Remove the view of a table that is ready no more."""
        self._host.sql(sql("DROP VIEW IF EXISTS {}.{}", self._view_schema, quoted(name)))

    def view_names(self) -> set[str]:
        """The names of the views that there are."""
        text = sql("SELECT view_name FROM duckdb_views() WHERE database_name = ? AND schema_name = ?")
        return {name for (name,) in self._host.sql(text, self._views)}

    def _select(self, columns: Sequence[str], condition: Sql, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        text = sql(
            "SELECT {} FROM {} WHERE {} ORDER BY started DESC, name DESC",
            joined(", ", map(quoted, columns)),
            self._tables,
            condition,
        )
        return self._host.sql(text, values)

    def _write(self, text: Sql, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._writing:
            try:
                return self._host.sql(text, parameters)
            finally:
                self._read = {}

    def _insert_into(self, table: Sql, columns: Iterable[str], rows: Sequence[Sequence[object]]) -> None:
        names = [quoted(name) for name in columns]
        marks = joined(", ", [sql("({})", _marks(len(names)))] * len(rows))
        text = sql("INSERT INTO {} ({}) VALUES {}", table, joined(", ", names), marks)
        if rows:
            self._write(text, [value for row in rows for value in row])

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
            **_counts(entry.counts),
            "location": entry.location,
            "owner": entry.owner,
            "started": entry.started,
            "finished": entry.finished,
        }
        self._insert_into(self._tables, row, [list(row.values())])

    def _transition(self, build: str, old: Status, new: Status, changes: dict[str, Any]) -> None:
        if new not in TRANSITIONS[old]:
            raise StateError(f"a build cannot go from '{old}' to '{new}'")
        if not self._update(build, {"status": new, **changes}, only=old):
            raise StateError(f"the build {build} is not '{old}' any more: another connection was first")

    def _update(self, build: str, changes: Mapping[str, object], *, only: Status | None = None) -> int:
        """Change columns of a build's row, where it has the status `only`, if that is given; returns how many rows."""
        sets = joined(", ", (sql("{} = ?", quoted(column)) for column in changes))
        condition = sql("build = ?") if only is None else sql("build = ? AND status = {}", literal(only))
        # The count of rows, not RETURNING: with that, DuckDB 1.4 moves a row once only while an older query runs.
        text = sql("UPDATE {} SET {} WHERE {}", self._tables, sets, condition)
        ((rows,),) = self._write(text, [*changes.values(), build])
        return int(rows)


_COLUMNS = (
    "build", "name", "definition", "status", "stage", "row_count", "skipped_count", "failed_count",
    "truncated_count", "location", "owner", "started", "finished", "error", "source",
)  # fmt: skip


def _entry(row: Iterable[Any]) -> Entry | str:
    """A build as a row says, or why the row is not understood."""
    fields = dict(zip(_COLUMNS, row, strict=True))
    counts = Counts(*(fields.pop(f"{kind}_count") or 0 for kind in _KINDS))
    try:
        definition = Definition.from_json(fields["definition"])
    except StorageError as error:
        return f"its definition in the catalog {error}"
    if fields["status"] not in TRANSITIONS:
        return f"it has the status '{fields['status']}', which this version of jammi_duck does not know"
    if _times(fields) != {name: fields[name] for name in _TIMES}:
        return "it has a time in the catalog that cannot be"
    source = fields.pop("source")
    renamed = source if source != definition.source else None
    return Entry(**{**fields, "definition": definition}, counts=counts, renamed=renamed)


_TIMES = ("started", "finished")
# Of the rows that are counted, in the order of `Counts`.
_KINDS = ("row", "skipped", "failed", "truncated")


def _times(fields: Mapping[str, Any]) -> dict[str, datetime | None]:
    """The times in a row; None for one that DuckDB has and Python has not, such as of a year before Christ."""
    return {name: each if isinstance(each := fields[name], datetime) else None for name in _TIMES}


def _counts(counts: Counts) -> dict[str, object]:
    """The columns of a build's counts."""
    numbers = (counts.rows, counts.skipped, counts.failed, counts.truncated)
    return {f"{kind}_count": number for kind, number in zip(_KINDS, numbers, strict=True)}


def _marks(number: int) -> Sql:
    return joined(", ", [sql("?")] * number)


def _schema(database: str) -> Sql:
    return joined(".", (quoted(database), quoted(SCHEMA)))


def _written(digest: FileDigest) -> tuple[str, int, str]:
    return digest.file, digest.size, digest.sha256


def live_rows(columns: Sql, segments: Sequence[tuple[int, str]], tombstones: Sequence[str]) -> Sql:
    """A query for the rows of segments that no tombstones list; `columns` may have `_segment` and `_place` in them."""
    if not tombstones and "_segment" not in columns:
        return sql("SELECT {} FROM {}", columns, _parquet(file for _, file in segments))
    rows = (
        sql(
            "SELECT *, {}::INTEGER AS _segment, file_row_number AS _place "
            "FROM read_parquet({}, file_row_number := true, hive_partitioning := false)",
            number,
            literal(file),
        )
        for number, file in segments
    )
    closed = sql(" ANTI JOIN {} USING (_segment, _place)", _parquet(tombstones)) if tombstones else sql("")
    return sql("SELECT {} FROM ({}){}", columns, joined(" UNION ALL ", rows), closed)


def _parquet(files: Iterable[str]) -> Sql:
    # A folder on the way may be called `vector=1`.
    return sql("read_parquet(list_value({}), hive_partitioning := false)", joined(", ", map(literal, files)))


def _now() -> datetime:
    return _utc(datetime.now(UTC))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
