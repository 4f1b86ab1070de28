"""The queue of a column of vectors: a trigger of DuckDB's notes there which rows have another text now.

It calls no function of ours, so every program that writes to the table can do that still. An entry has the vector that
the row had: whoever gives the row another one has answered the entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, folded, joined, quoted, sql
from jammi_duck.types import Host

_PREFIX = "_jammi_column_"
_KNOWS_TRIGGERS = sql("SELECT count(*) FROM duckdb_functions() WHERE function_name = 'duckdb_triggers'")
# In memory, it is NULL.
_FORMAT = sql("SELECT tags['storage_version'], path IS NULL FROM duckdb_databases() WHERE database_name = ?")
_QUEUES = sql("SELECT count(*) FROM duckdb_tables() WHERE database_name = ? AND schema_name = ? AND table_name = ?")
_TRIGGERS = sql(
    "SELECT count(*) FROM duckdb_triggers() WHERE database_name = ? AND schema_name = ? AND trigger_name = ?"
)
_COLUMNS = sql(
    "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ? "
    "ORDER BY column_index"
)
_FIRST_WITH_TRIGGERS = 2
# What the names of columns of the key begin with, in the queue.
_OF_KEY = "key_"


@dataclass(frozen=True)
class Watched:
    """What is watched: a table by its database, schema and name, its key, the column of texts and that of vectors."""

    table: tuple[str, str, str]
    key: Sequence[str]
    texts: str
    vectors: str


class ColumnQueue:
    """The queue of one column of vectors, if there is one."""

    def __init__(self, host: Host, watched: Watched) -> None:
        """Nothing is looked up yet."""
        self._host = host
        self._watched = watched
        self._database, self._schema, table = watched.table
        names = "\0".join(map(folded, (self._schema, table, watched.texts, watched.vectors)))
        # Each column of vectors has a queue of its own.
        self._trigger = _PREFIX + hashlib.sha256(names.encode()).hexdigest()[:16]
        self._name = f"{self._trigger}_queue"
        self._table = joined(".", map(quoted, watched.table))
        self._queue = joined(".", map(quoted, (self._database, self._schema, self._name)))

    @property
    def is_there(self) -> bool:
        """Whether there is a queue."""
        return self._has(_QUEUES, self._name)

    def clear_changed(self) -> int:
        """Set the vectors of the rows NULL that have entries, and remove those; how many rows these are."""
        if not self.is_there:
            return 0
        vectors = quoted(self._watched.vectors)
        is_of_row = sql(
            "{} AND t.{} IS NOT DISTINCT FROM q.vector",
            joined(" AND ", [sql("t.{} = q.{}", quoted(name), _key(name)) for name in self._key()]),
            vectors,
        )
        text = sql("UPDATE {} AS t SET {} = NULL FROM {} q WHERE {}", self._table, vectors, self._queue, is_of_row)
        ((cleared,),) = self._host.sql(text)
        # An entry that was committed between the two stays, because its row still has the vector.
        text = sql("DELETE FROM {} AS q WHERE NOT EXISTS (FROM {} t WHERE {})", self._queue, self._table, is_of_row)
        self._host.sql(text)
        return int(cleared)

    def make(self) -> bool:
        """Note changes of texts from now on; whether that is new.

        Raises:
            InputError: this database cannot have triggers.
        """
        self._need_triggers()
        if self._has(_TRIGGERS, self._trigger):
            return False
        key = [quoted(name) for name in self._watched.key]
        names = joined(", ", [_key(name) for name in self._watched.key])
        vectors, texts = quoted(self._watched.vectors), quoted(self._watched.texts)
        text = sql(
            "CREATE TABLE IF NOT EXISTS {} AS SELECT {}, t.{} AS vector FROM {} t WHERE false",
            self._queue,
            joined(", ", [sql("t.{} AS {}", quoted(name), _key(name)) for name in self._watched.key]),
            vectors,
            self._table,
        )
        self._host.sql(text)
        text = sql(
            "CREATE TRIGGER {name} AFTER UPDATE ON {table} REFERENCING NEW TABLE AS n OLD TABLE AS o "
            "FOR EACH STATEMENT INSERT INTO {queue} ({names}, vector) SELECT {keys}, n.{vectors} "
            "FROM n JOIN o ON {same_key} WHERE n.{vectors} IS NOT NULL "
            "AND n.{vectors} IS NOT DISTINCT FROM o.{vectors} "
            'AND n.{texts}::VARCHAR COLLATE "C" IS DISTINCT FROM o.{texts}::VARCHAR COLLATE "C"',
            name=quoted(self._trigger),
            table=self._table,
            # Without the database, which has another name when the file has.
            queue=joined(".", map(quoted, (self._schema, self._name))),
            names=names,
            keys=joined(", ", [sql("n.{}", name) for name in key]),
            vectors=vectors,
            texts=texts,
            same_key=joined(" AND ", [sql("n.{} = o.{}", name, name) for name in key]),
        )
        self._host.sql(text)
        return True

    def remove(self) -> bool:
        """Note no changes any more; whether they were noted."""
        if self._knows_triggers and self._has(_TRIGGERS, self._trigger):
            self._host.sql(sql("DROP TRIGGER {} ON {}", quoted(self._trigger), self._table))
        was_there = self.is_there
        self._host.sql(sql("DROP TABLE IF EXISTS {}", self._queue))
        return was_there

    def _key(self) -> list[str]:
        """The columns of the key that changes are noted by, which the caller need not name again."""
        found = self._host.sql(_COLUMNS, (self._database, self._schema, self._name))
        return [name.removeprefix(_OF_KEY) for (name,) in found if name.startswith(_OF_KEY)]

    @property
    def _knows_triggers(self) -> bool:
        ((count,),) = self._host.sql(_KNOWS_TRIGGERS)
        return bool(count)

    def _need_triggers(self) -> None:
        if not self._knows_triggers:
            raise InputError(
                "this DuckDB has no triggers, which note changes: install DuckDB 2.0 or later, or set the vector NULL "
                "in each statement that changes the text"
            )
        ((version, is_in_memory),) = self._host.sql(_FORMAT, (self._database,))
        if not is_in_memory and _major(version) < _FIRST_WITH_TRIGGERS:
            raise InputError(
                f"the file is in the format {version}, which has no triggers: copy it into one of v2.0.0, by "
                "ATTACH 'new.duckdb' AS new (STORAGE_VERSION 'v2.0.0') and COPY FROM DATABASE, or set the vector NULL "
                "in each statement that changes the text"
            )

    def _has(self, query: Sql, name: str) -> bool:
        ((count,),) = self._host.sql(query, (self._database, self._schema, name))
        return bool(count)


def _key(name: str) -> Sql:
    return quoted(f"{_OF_KEY}{name}")


def _major(version: str | None) -> int:
    """The first number of a format, such as v1.4.0+."""
    digits = (version or "").lstrip("v").partition(".")[0]
    return int(digits) if digits.isdigit() else 0
