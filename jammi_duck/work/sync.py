"""What came of a sync: the first generates a table, or goes on with an interrupted one; the later ones refresh it."""

from __future__ import annotations

from dataclasses import dataclass

from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.types import Integer
from jammi_duck.work.generate import Generated
from jammi_duck.work.refresh import Refreshed


@dataclass(frozen=True)
class Synced:
    """What came of a sync; `action` is generated, resumed, refreshed or unchanged."""

    embedding_table: str
    action: str
    row_count: int
    added: int
    changed: int
    deleted: int
    unchanged: int
    skipped_count: int
    failed_count: int
    seconds: float
    advice: str | None
    requests: Integer | None = None
    tokens: int | None = None


def generated(done: Generated, way: str) -> Synced:
    """What a build came to, which was a `generate` or a `resume`."""
    return Synced(
        embedding_table=done.embedding_table,
        action="generated" if way == "generate" else "resumed",
        row_count=done.row_count,
        added=done.row_count,
        changed=0,
        deleted=0,
        unchanged=0,
        skipped_count=done.skipped_count,
        failed_count=done.failed_count,
        seconds=done.seconds,
        advice=done.advice,
        requests=done.requests,
        tokens=done.tokens,
    )


def refreshed(done: Refreshed, entry: Entry) -> Synced:
    """What a refresh came to, after which the table is as `entry` says."""
    return Synced(
        embedding_table=done.embedding_table,
        action="refreshed" if done.added + done.changed + done.deleted else "unchanged",
        row_count=entry.counts.rows,
        added=done.added,
        changed=done.changed,
        deleted=done.deleted,
        unchanged=done.unchanged,
        skipped_count=entry.counts.skipped,
        failed_count=done.failed,
        seconds=done.seconds,
        advice=done.advice,
        requests=done.requests,
        tokens=done.tokens,
    )
