"""The scalar functions that list tables and models, mend them, drop them, and remove files."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from jammi_duck.encoder.listing import ModelRow
from jammi_duck.errors import InputError
from jammi_duck.storage.tables.catalog import Entry, Refused
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.storage.tables.recovery import Action
from jammi_duck.storage.tables.removal import Removed, drop, vacuum
from jammi_duck.types import Integer
from jammi_duck.udfs.columns import Column, caller_of, table
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import shown

_NOTHING = (
    "there is nothing at {}; it may not be mounted, or was moved: once the files are back, the table is ready again"
)


@dataclass(frozen=True)
class TableRow:
    """What is told of an embedding table; `age` is the seconds since its present state, or since it was begun."""

    embedding_table: str
    source: str | None
    columns: list[str] | None = None
    key: str | None = None
    model: str | None = None
    dimensions: Integer | None = None
    _: KW_ONLY
    status: str
    stage: str | None = None
    row_count: int | None = None
    skipped_count: int | None = None
    failed_count: int | None = None
    truncated_count: int | None = None
    location: str
    started: datetime | None
    finished: datetime | None
    age: float
    error: str | None


def tables(engine: Engine, *caller: Column) -> pa.Array:
    """All embedding tables that are not dropped."""
    engine.jobs.settle(caller_of(caller), wait=False)
    follow_others(engine.tables)
    now = datetime.now(UTC).replace(tzinfo=None)
    catalog = engine.tables.catalog
    rows = [_row(entry, engine, now) for entry in catalog.entries("building", "ready", "gone", "failed")]
    rows += [_refused(each, now) for each in catalog.refused() if each.status != "dropped"]
    return table([rows], TableRow)


def _refused(refused: Refused, now: datetime) -> TableRow:
    return TableRow(
        embedding_table=refused.name,
        source=refused.source,
        key=refused.key,
        model=refused.model or None,
        dimensions=refused.dimensions or None,
        status="refused",
        location=refused.location,
        started=refused.started,
        finished=refused.finished,
        age=_age(now, refused.finished, refused.started),
        error=refused.error,
    )


def _age(now: datetime, *moments: datetime | None) -> float:
    return max(0.0, (now - next(filter(None, moments), now)).total_seconds())


def _row(entry: Entry, engine: Engine, now: datetime) -> TableRow:
    is_missing = entry.status == "ready" and engine.tables.watch.is_missing(entry.location, entry.name)
    return TableRow(
        embedding_table=entry.name,
        source=shown(entry.source, engine.host),
        columns=list(entry.definition.columns),
        key=entry.definition.key,
        model=entry.definition.model or None,
        dimensions=entry.definition.dimensions or None,
        status="missing" if is_missing else entry.status,
        stage=entry.stage,
        row_count=entry.counts.rows,
        skipped_count=entry.counts.skipped,
        failed_count=entry.counts.failed,
        truncated_count=entry.counts.truncated,
        location=entry.location,
        started=entry.started,
        finished=entry.finished,
        age=_age(now, entry.finished, entry.started),
        error=entry.error or (_NOTHING.format(entry.location) if is_missing else _unseen(engine, entry)),
    )


def _unseen(engine: Engine, entry: Entry) -> str | None:
    """Why the row of a ready table may not be its newest state."""
    failure = engine.tables.watch.failure(entry.location) if entry.status == "ready" else None
    return failure and f"what other processes do is not seen at {entry.location}: {failure}"


def models(engine: Engine, _: Column) -> pa.Array:
    """The models that can be used without a download."""
    return table([engine.encoders.available(engine.default_model)], ModelRow)


def recover(engine: Engine, *caller: Column) -> pa.Array:
    """Settle what dead processes left, and mend what can be mended."""
    engine.jobs.refuse_readers(caller_of(caller))
    return table([engine.jobs.recover(caller_of(caller))], Action)


def drop_tables(engine: Engine, names: Column, *caller: Column) -> pa.Array:
    """Drop embedding tables."""
    if len(names):
        engine.jobs.refuse_readers(caller_of(caller))
        # What the caller's earlier queries have read is not in use any more.
        engine.jobs.settle(caller_of(caller), wait=False)
    if any(name is None for name in names.to_pylist()):
        raise InputError("jammi_drop needs the name of an embedding table; SELECT * FROM jammi_tables() lists them")
    return table([[drop(engine.tables, name, engine.jobs.at_work())] for name in names.to_pylist()], Action)


def vacuum_files(engine: Engine, *caller: Column) -> pa.Array:
    """Remove files of ours that nothing names."""
    engine.jobs.refuse_readers(caller_of(caller))
    engine.jobs.settle(caller_of(caller), wait=False)
    return table([vacuum(engine.tables, engine.jobs.at_work())], Removed)
