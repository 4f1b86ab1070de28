"""The sources that are followed, in a table of the catalog, and the triggers that note which of their rows change.

A trigger is plain SQL, so any program may write to the table, and what is rolled back is not noted. What it calls the
table of changes is resolved by whoever writes: it names the schema, and not the database, whose file may be renamed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jammi_duck.sql import Sql, folded, folded_sql, joined, literal, quoted, sql
from jammi_duck.storage.tables.catalog import SCHEMA, Catalog
from jammi_duck.storage.tables.migrations import at_once
from jammi_duck.types import Host

# How the changes of a source are found.
BY_TRIGGERS, BY_COMPARISON = "triggers", "comparison"
_COLUMNS = {
    "source": sql("VARCHAR NOT NULL"),
    "changes": sql("VARCHAR"),
    "build": sql("VARCHAR"),
    "state": sql("VARCHAR"),
    "since": sql("TIMESTAMP"),
}
_KINDS = sql(
    "SELECT column_name, data_type FROM duckdb_columns() "
    "WHERE database_name = ? AND schema_name = ? AND lower(table_name) = 'followed'"
)
_CHANGES = re.compile("changes_[0-9a-f]{16}")
_TRIGGERS = ("jammi_follow_insert", "jammi_follow_update", "jammi_follow_delete")


@dataclass(frozen=True)
class Followed:
    """A source that is followed, by what its embeddings are known by.

    `changes` is the table in which triggers note the keys of rows that change; None if the source is compared. The
    embedding table of `build`, in this `state`, has all that is not noted there; neither is known at first. `database`
    is where all this is stored.
    """

    database: str
    source: str
    changes: str | None
    build: str | None = None
    state: str | None = None

    @property
    def changes_by(self) -> str:
        """How changes are found."""
        return BY_COMPARISON if self.changes is None else BY_TRIGGERS


@dataclass(frozen=True)
class Watched:
    """A table with triggers, by its full name, and the column of its key."""

    database: str
    schema: str
    name: str
    key: str

    @property
    def sql(self) -> Sql:
        """As it stands in a query."""
        return joined(".", map(quoted, (self.database, self.schema, self.name)))


@dataclass(frozen=True)
class Noted:
    """What the triggers of a table have noted: how many changes, of which transactions.

    `is_whole` says whether the key of each changed row is among them: that in the column that was asked for. `rows` are
    those of the table.
    """

    changes: int
    transactions: Sequence[int]
    is_whole: bool
    rows: int


class FollowedSources:
    """What is followed in one database. Threads may share it."""

    def __init__(self, host: Host, catalog: Catalog, home: str) -> None:
        """Of the database `home`; the catalog is elsewhere if that is read-only, and nothing is written there then."""
        self._host = host
        self._catalog = catalog
        self._home = home
        self._known: dict[str, Followed] | None = None
        self._apart: set[str] = set()
        self._lock = threading.RLock()

    def of(self, source: str) -> Followed | None:
        """The source of this identity, if it is followed."""
        known = self._known
        return (self._all() if known is None else known).get(source)

    def add(self, source: str, watched: Watched | None = None, *, keys: bool = False) -> Followed:
        """Follow a source from now on: by triggers, if a table is `watched`, or by comparing.

        The trigger on INSERT notes the `keys` of new rows, with which DuckDB refuses ON CONFLICT DO UPDATE; otherwise
        it notes only that there are some.
        """
        self._catalog.move_into_database()
        changes = None if watched is None else _changes_name(source, watched)
        followed = Followed(self._catalog.database, source, changes)
        with self._lock:
            known = self._all()
            columns = joined(", ", (sql("{} {}", quoted(name), kind) for name, kind in _COLUMNS.items()))
            before = known.get(source)
            triggers = [] if watched is None else self._made(watched, followed, keys=keys)
            if before and before.changes and before.changes != changes and self._is_writable(before):
                triggers.append(self._drop_changes(before))
            statements = [
                sql("CREATE TABLE IF NOT EXISTS {} ({})", self._table, columns),
                *triggers,
                sql("DELETE FROM {} WHERE source = {}", self._table, literal(source)),
                sql(
                    "INSERT INTO {} (source, changes, since) VALUES ({}, {}, current_timestamp::TIMESTAMP)",
                    self._table,
                    literal(source),
                    literal(changes),
                ),
            ]
            at_once(self._host, statements)
            self._known = {**known, source: followed}
        return followed

    def remove(self, source: str, watched: Watched | None = None) -> bool:
        """Follow a source no more: the triggers and the table of their changes are removed. Whether it was followed.

        `watched` is the table that may have triggers, if it is there.
        """
        with self._lock:
            known = self._all()
            followed = known.get(source)
            if followed is None:
                return False
            if self._is_writable(followed):
                dropped: list[Sql] = []
                if followed.changes is not None:
                    dropped = [*(self._dropped(watched) if watched else ()), self._drop_changes(followed)]
                at_once(self._host, [*dropped, sql("DELETE FROM {} WHERE source = {}", self._table, literal(source))])
            self._known = {name: each for name, each in known.items() if name != source}
        return True

    def note(self, followed: Followed, build: str | None, state: str | None, noted: Noted | None = None) -> None:
        """Note that a table has all changes of a source, but those that are noted and not among these.

        With None, it is not known which table has them.
        """
        statements = [
            sql(
                "UPDATE {} SET build = {}, state = {} WHERE source = {}",
                self._table,
                literal(build),
                literal(state),
                literal(followed.source),
            )
        ]
        if noted is not None and noted.transactions and followed.changes is not None:
            done = joined(", ", (sql("{}", number) for number in noted.transactions))
            statements.append(
                sql(
                    "DELETE FROM {} WHERE transaction_id IN ({})",
                    self.changes(followed),
                    done,
                )
            )
        with self._lock:
            if followed.source not in self._all():
                return
            if self._is_writable(followed):
                at_once(self._host, statements)
            self._known = {**self._all(), followed.source: replace(followed, build=build, state=state)}

    def noted(self, followed: Followed, watched: Watched) -> Noted | None:
        """What triggers have noted; None if there are none any more, since the table was made anew."""
        if followed.changes is None:
            return None
        self._set_apart(followed)
        names = joined(", ", map(literal, _TRIGGERS))
        text = sql(
            "SELECT (SELECT count(*) FROM duckdb_triggers() WHERE ({}, {}, {}) = ({}, {}, {}) "
            "AND trigger_name IN ({})), count(*), "
            "coalesce(list(DISTINCT transaction_id), list_value()), count(*) FILTER (key IS NULL) = 0, "
            "(SELECT count(*) FROM {}) FROM {}",
            *map(folded_sql, (sql("database_name"), sql("schema_name"), sql("table_name"))),
            *(literal(folded(name)) for name in (watched.database, watched.schema, watched.name)),
            names,
            watched.sql,
            self.changes(followed),
        )
        ((triggers, count, transactions, is_whole, rows),) = self._host.sql(text)
        if triggers != len(_TRIGGERS):
            return None
        # Embeddings that were made later may have another key.
        is_whole &= followed.changes == _changes_name(followed.source, watched)
        return Noted(count, transactions, is_whole, rows)

    def _set_apart(self, followed: Followed) -> None:
        """Once for each opened database: give transactions of earlier ones numbers that no other will have."""
        with self._lock:
            if followed.changes is None or followed.changes in self._apart or not self._is_writable(followed):
                return
            self._host.sql(
                sql(
                    "UPDATE {} SET transaction_id = -1 - transaction_id WHERE transaction_id >= 0",
                    self.changes(followed),
                )
            )
            self._apart.add(followed.changes)

    def changes(self, followed: Followed) -> Sql:
        """The table of changes, as it stands in a query: a key, and the number of the transaction."""
        assert followed.changes is not None
        return sql("{}.{}.{}", quoted(followed.database), quoted(SCHEMA), quoted(followed.changes))

    def _made(self, watched: Watched, followed: Followed, *, keys: bool) -> list[Sql]:
        """Statements that make triggers, and the table that they write to."""
        # By this name, the triggers find it in whatever file it is.
        here = sql("{}.{}", quoted(SCHEMA), quoted(followed.changes or ""))
        key = quoted(watched.key)
        note = sql("txid_current()::BIGINT")

        def trigger(name: str, event: Sql, rows: Sql) -> Sql:
            return sql(
                "CREATE TRIGGER {} AFTER {} FOR EACH STATEMENT INSERT INTO {} {}", quoted(name), event, here, rows
            )

        def on(verb: Sql, tables: Sql) -> Sql:
            return sql("{} ON {} {}", verb, watched.sql, tables)

        new, old = sql("NEW TABLE AS jammi_new"), sql("OLD TABLE AS jammi_old")
        from_new, from_old = (sql("SELECT {}, {} FROM {}", key, note, Sql(rows)) for rows in ("jammi_new", "jammi_old"))
        insert = (
            trigger(_TRIGGERS[0], on(sql("INSERT"), sql("REFERENCING {}", new)), from_new)
            if keys
            else trigger(_TRIGGERS[0], on(sql("INSERT"), sql("")), sql("SELECT NULL, {}", note))
        )
        both = sql("{} UNION ALL {}", from_new, from_old)
        return [
            *self._dropped(watched),
            self._drop_changes(followed),
            sql(
                "CREATE TABLE {} AS SELECT {} AS key, 0::BIGINT AS transaction_id FROM {} LIMIT 0",
                self.changes(followed),
                key,
                watched.sql,
            ),
            insert,
            trigger(_TRIGGERS[1], on(sql("UPDATE"), sql("REFERENCING {} {}", new, old)), both),
            trigger(_TRIGGERS[2], on(sql("DELETE"), sql("REFERENCING {}", old)), from_old),
        ]

    def _dropped(self, watched: Watched) -> list[Sql]:
        return [sql("DROP TRIGGER IF EXISTS {} ON {}", quoted(name), watched.sql) for name in _TRIGGERS]

    def _drop_changes(self, followed: Followed) -> Sql:
        return sql("DROP TABLE IF EXISTS {} CASCADE", self.changes(followed))

    @property
    def _table(self) -> Sql:
        return sql("{}.{}.followed", quoted(self._catalog.database), quoted(SCHEMA))

    def _is_writable(self, followed: Followed) -> bool:
        return followed.database == self._catalog.database

    def _all(self) -> dict[str, Followed]:
        with self._lock:
            if self._known is None:
                databases = dict.fromkeys((self._home, self._catalog.database))
                self._known = {each.source: each for database in databases for each in self._stored(database)}
            return self._known

    def _stored(self, database: str) -> list[Followed]:
        kinds = dict(self._host.sql(_KINDS, [database, SCHEMA]))
        if any(kinds.get(name) != "VARCHAR" for name in ("source", "changes", "build", "state")):
            return []
        text = sql("SELECT source, changes, build, state FROM {}.{}.followed", quoted(database), quoted(SCHEMA))
        rows = self._host.sql(text)
        return [Followed(database, *row) for row in rows if row[1] is None or _CHANGES.fullmatch(row[1])]


def _changes_name(source: str, watched: Watched) -> str:
    """The name of the table in which the keys of a source are noted, which stands for the column that they are in."""
    name = f"{source}\0{folded(watched.key)}"
    return f"changes_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
