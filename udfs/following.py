"""Sources that are followed: the functions that begin and end it, and what each search of one does first.

What is committed is brought in before the search is planned, on a connection of ours: the caller may only read, and the
transaction may be old. Triggers say what has changed, where there are any; otherwise the source is compared.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC

import pyarrow as pa

from jammi_duck.config.logs import log
from jammi_duck.errors import InputError, JammiError, JammiWarning, NoSourceError, StateError
from jammi_duck.sql import Sql, folded, folded_sql, joined, quoted, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.storage.tables.followed import BY_COMPARISON, BY_TRIGGERS, Followed, Noted, Watched
from jammi_duck.storage.tables.snapshot import pin_snapshot
from jammi_duck.types import Caller
from jammi_duck.udfs.columns import Column, rows_of, table
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.freshening import FOUND, changes
from jammi_duck.udfs.rows import is_text, packed_text_of
from jammi_duck.udfs.sources import Relation, SearchPath, Source, SourceCandidate, found, resolve
from jammi_duck.udfs.table_lookup import find_embeddings
from jammi_duck.work.freshen import Candidates
from jammi_duck.work.generate import Census
from jammi_duck.work.jobs import InterruptedJobError

# If more changes are noted, the source is compared.
_MOST_NOTED = 10_000
# As the names of a `Relation` are.
_FOLDED = joined(", ", map(folded_sql, (sql("database_name"), sql("schema_name"), sql("table_name"))))
_TABLE = sql(
    "SELECT 1 FROM duckdb_tables() WHERE ({}) = (?, ?, ?)",
    _FOLDED,
)
_UNIQUE = sql(
    "SELECT 1 FROM (SELECT database_name, schema_name, table_name FROM duckdb_constraints() "
    "WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE') UNION ALL "
    "SELECT database_name, schema_name, table_name FROM duckdb_indexes() WHERE is_unique) "
    "WHERE ({}) = (?, ?, ?)",
    _FOLDED,
)
_KEY_TEXT = sql("r.c0::VARCHAR")
# What DuckDB says if a transaction that is not over has changed a table or its triggers.
_CONFLICT = "write-write conflict"


@dataclass(frozen=True)
class FollowedRow:
    """What is told of a source that is followed: how its changes are found, and what that means."""

    source: str
    embedding_table: str
    changes_by: str
    detail: str


@dataclass(frozen=True)
class UnfollowedRow:
    """What is told of a source that is followed no more: whether it was before."""

    source: str
    action: str


def follow(engine: Engine, *columns: Column) -> pa.Array:
    """Follow sources."""
    told = []
    for written, database, path, model, name, column, transaction, session, triggers in rows_of(columns):
        engine.jobs.refuse_readers(Caller(session, transaction))
        source = resolve(written, SearchPath(database, path), engine.host)
        # Each search is current, whichever of several embeddings it uses.
        entry, meant = find_embeddings(engine, source, model, name, column, is_any=True)
        _check_followable(engine, source, meant, entry)
        with _telling_conflicts(source):
            told.append([_follow(engine, source, meant, entry, triggers)])
    return table(told, FollowedRow)


def unfollow(engine: Engine, *columns: Column) -> pa.Array:
    """Follow sources no more."""
    told = []
    for written, database, path, transaction, session in rows_of(columns):
        engine.jobs.refuse_readers(Caller(session, transaction))
        source = resolve(written, SearchPath(database, path), engine.host)
        was_followed = False
        with _telling_conflicts(source):
            for meant in source.all_candidates:
                was_followed |= _unfollow(engine, meant)
        action = "followed no more" if was_followed else "was not followed"
        told.append([UnfollowedRow(source.written, action)])
    return table(told, UnfollowedRow)


def bring_in(engine: Engine, source: Source, meant: SourceCandidate, entry: Entry, limit: int, caller: Caller) -> Entry:
    """Bring what is committed into an embedding table, if its source is followed; the table as it is then.

    If that fails, a warning says why, and the table stays as it is.
    """
    followed = engine.followed.of(meant.identity)
    if followed is None:
        return entry
    try:
        return _brought_in(engine, followed, source, meant, entry, limit, caller)
    except (InterruptedJobError, JammiWarning):
        raise
    except Exception as error:
        if meant.relation and not found([meant.relation], engine.host):
            # The search says so.
            return entry
        message = str(error) if isinstance(error, JammiError) else str(error).partition("\n")[0]
        warnings.warn(
            f"'{source.written}' is followed, and its changes cannot be brought in, so this search is of what it was: "
            f"{message}",
            JammiWarning,
            stacklevel=2,
        )
        ready = engine.tables.catalog.entries("ready", name=entry.name)
        return next((each for each in ready if each.build == entry.build), entry)


def _check_followable(engine: Engine, source: Source, meant: SourceCandidate, entry: Entry) -> None:
    if meant is source.session or meant.identity.startswith("temp."):
        raise InputError(
            f"'{source.written}' is there for this connection only, and what is followed must be there for all: "
            "use fresh := true in its searches"
        )
    if meant.relation and not found([meant.relation], engine.host):
        raise NoSourceError(f"there is no committed table or view '{source.written}'; COMMIT first", source.written)
    _check_columns(entry)


def _check_columns(entry: Entry) -> None:
    if not entry.definition.columns:
        raise InputError(
            f"'{entry.name}' was imported without the columns of its text, so nothing new can be embedded: import it "
            "again, with cols := [...]"
        )


@contextlib.contextmanager
def _telling_conflicts(source: Source) -> Iterator[None]:
    """Say what to do if a transaction of somebody is in the way."""
    try:
        yield
    except Exception as error:
        if _CONFLICT not in str(error):
            raise
        raise StateError(
            f"a transaction that is not over has changed '{source.written}', so its triggers cannot be made or dropped "
            "now: COMMIT or ROLLBACK that, and run this again"
        ) from error


def _follow(engine: Engine, source: Source, meant: SourceCandidate, entry: Entry, triggers: bool | None) -> FollowedRow:
    watched = _watched(engine, meant, entry)
    why_not = "each search compares the source with its embeddings"
    if triggers is not False and watched is not None:
        keys = bool(triggers) or not engine.host.sql(_UNIQUE, _full_name(watched))
        try:
            engine.followed.add(meant.identity, watched, keys=keys)
            how = "a search costs what has changed; DuckDB refuses MERGE INTO and RENAME for a table with triggers"
            if keys:
                how += ", and ON CONFLICT DO UPDATE"
            else:
                how += ". After an INSERT, a search compares the table, which keeps ON CONFLICT DO UPDATE possible"
            return FollowedRow(source.written, entry.name, BY_TRIGGERS, how)
        except Exception as error:
            if _CONFLICT in str(error):
                raise
            if triggers:
                reason = str(error).partition("\n")[0]
                raise InputError(
                    f"no triggers can be made on '{source.written}': {reason}. Leave triggers out, and searches compare"
                ) from error
            log.debug("no triggers on %s: %s", source.written, error)
            why_not += "; triggers need DuckDB 2.0 and a file of its storage version that may be written"
    elif triggers:
        raise InputError(
            f"'{source.written}' can have no triggers, as it is no table of this database: leave triggers out, and "
            "searches compare"
        )
    _unfollow(engine, meant)
    engine.followed.add(meant.identity)
    return FollowedRow(source.written, entry.name, BY_COMPARISON, why_not)


def _unfollow(engine: Engine, meant: SourceCandidate) -> bool:
    relation = meant.relation
    watched = None
    if relation and engine.host.sql(_TABLE, [relation.database, relation.schema, relation.name]):
        watched = Watched(relation.database, relation.schema, relation.name, "")
    return engine.followed.remove(meant.identity, watched)


def _watched(engine: Engine, meant: SourceCandidate, entry: Entry) -> Watched | None:
    """The table, if it is one that may have triggers: they write to the database that they are in."""
    relation = meant.relation
    if relation is None or relation.database != folded(engine.host.home()):
        return None
    watched = _named(relation, entry)
    return watched if engine.host.sql(_TABLE, _full_name(watched)) else None


def _named(relation: Relation, entry: Entry) -> Watched:
    return Watched(relation.database, relation.schema, relation.name, entry.definition.key)


def _full_name(watched: Watched) -> Sequence[str]:
    return watched.database, watched.schema, watched.name


def _brought_in(
    engine: Engine,
    followed: Followed,
    source: Source,
    meant: SourceCandidate,
    entry: Entry,
    limit: int,
    caller: Caller,
) -> Entry:
    _check_columns(entry)
    search = _Search(engine, source, meant, limit, caller)
    if search.is_current(followed, entry):
        return entry
    # What others bring in meanwhile is not to be brought in again.
    with engine.freshener.turn(entry.build):
        return search.brought_in(engine.followed.of(meant.identity) or followed, engine.tables.ready(entry.name))


@dataclass(frozen=True)
class _Search:
    """A search of a followed source, before it is planned."""

    engine: Engine
    source: Source
    meant: SourceCandidate
    limit: int
    caller: Caller

    def is_current(self, followed: Followed, entry: Entry) -> bool:
        """Whether an embedding table is known to have all that is committed."""
        if followed.changes is None:
            known = self.engine.fingerprints.get(followed.source)
            return known is not None and known == (entry.build, _state(entry), self._fingerprint(entry))
        noted = self._noted(followed, entry)
        return noted is not None and not noted.changes and self._is_known(followed, entry, noted)

    def brought_in(self, followed: Followed, entry: Entry) -> Entry:
        """Bring in what is committed."""
        if followed.changes is None:
            return self._compared(followed, entry, None)
        noted = self._noted(followed, entry)
        if noted is None:
            # The table was made anew, without its triggers.
            _follow(self.engine, self.source, self.meant, entry, None)
            followed = self.engine.followed.of(self.meant.identity) or followed
            noted = self._noted(followed, entry)
        is_known = noted is not None and (followed.build, followed.state) == (entry.build, _state(entry))
        if noted is None or not is_known or not noted.is_whole or not 0 < noted.changes <= _MOST_NOTED:
            return self._compared(followed, entry, noted)
        now, is_whole = self._freshened(
            entry, _noted_rows(self.engine, followed, self._rows(entry), self.source, entry)
        )
        self._note(followed, now, noted, is_whole=is_whole)
        return now

    def _noted(self, followed: Followed, entry: Entry) -> Noted | None:
        if followed.changes is None or self.meant.relation is None:
            return None
        return self.engine.followed.noted(followed, _named(self.meant.relation, entry))

    def _is_known(self, followed: Followed, entry: Entry, noted: Noted) -> bool:
        counts = entry.counts
        is_same = (followed.build, followed.state) == (entry.build, _state(entry))
        return is_same and noted.rows == counts.source_rows

    def _compared(self, followed: Followed, entry: Entry, noted: Noted | None) -> Entry:
        """Compare all rows."""
        pinned = pin_snapshot(self.engine.tables, entry, self.caller)
        text = sql(
            "WITH {changes} SELECT c.row_count, c.non_null_keys, c.distinct_keys, "
            "coalesce((SELECT any_value(typeof(c0)) FROM (SELECT c0 FROM _jammi_rows LIMIT 1)), ''), "
            "c.added + c.changed, {fingerprint}, {found} FROM _jammi_census c",
            changes=changes(self._rows(entry), entry, pinned, self.limit),
            fingerprint=_fingerprint(entry),
            found=FOUND,
        )
        ((count, non_null, distinct, key_type, wanted, seen, differ),) = self.engine.host.sql(text)
        self.engine.tables.pins.release(pinned.token)
        candidates = Candidates(
            self.source.written,
            {str(row["key"]): row["text"] for row in differ or ()},
            Census(count, non_null, distinct, key_type),
            max(0, wanted - self.limit),
            pinned.snapshot.manifest.finished.astimezone(UTC).replace(tzinfo=None),
        )
        fresh, is_whole = self._freshened(entry, candidates)
        if noted is not None:
            self._note(followed, fresh, noted, is_whole=is_whole)
        elif is_whole:
            self.engine.fingerprints[followed.source] = fresh.build, _state(fresh), seen
        return fresh

    def _freshened(self, entry: Entry, candidates: Candidates) -> tuple[Entry, bool]:
        return self.engine.freshener.freshen(entry, candidates, self.limit, self.caller, is_ours=True)

    def _note(self, followed: Followed, now: Entry, noted: Noted, *, is_whole: bool) -> None:
        if is_whole:
            self.engine.followed.note(followed, now.build, _state(now), noted)
        else:
            self.engine.followed.note(followed, None, None)

    def _fingerprint(self, entry: Entry) -> str:
        rows = sql("WITH _jammi_rows AS NOT MATERIALIZED ({}) SELECT {}", self._rows(entry), _fingerprint(entry))
        return str(self.engine.host.sql(rows)[0][0])

    def _rows(self, entry: Entry) -> Sql:
        """The source's rows on a connection of ours: its key as `c0`, its columns as `c1` and so on."""
        names = (entry.definition.key, *entry.definition.columns)
        picked = joined(", ", (sql("{} AS c{}", quoted(name), place) for place, name in enumerate(names)))
        return sql("SELECT {} FROM {}", picked, self.meant.relation.sql if self.meant.relation else self.source.sql)


def _fingerprint(entry: Entry) -> Sql:
    """What stands for all rows of a source, in whatever order; letter by letter, whatever collation there is."""
    return sql(
        "(SELECT row(count(*), bit_xor(hash({key}, {text})), sum(hash({text}, {key})))::VARCHAR FROM _jammi_rows r)",
        key=sql('{} COLLATE "C"', _KEY_TEXT),
        text=sql('{} COLLATE "C"', _text(entry)),
    )


def _text(entry: Entry) -> Sql:
    definition = entry.definition
    return packed_text_of(definition.columns, definition.title_columns, pictures=definition.pictures)


def _noted_rows(engine: Engine, followed: Followed, rows: Sql, source: Source, entry: Entry) -> Candidates:
    """The rows whose keys triggers have noted, as they are now."""
    text = _text(entry)
    query = sql(
        "WITH _jammi_rows AS NOT MATERIALIZED ({rows}), _jammi_there AS (SELECT any_value(q.key) AS key, "
        "count(r.c0) AS times, any_value(CASE WHEN r.c0 IS NOT NULL AND {is_text} THEN {text} "
        'END) AS text FROM (SELECT DISTINCT key::VARCHAR COLLATE "C" AS key FROM {changes}) q '
        'LEFT JOIN _jammi_rows r ON {key} COLLATE "C" = q.key GROUP BY q.key) '
        "SELECT (SELECT count(*) FROM _jammi_rows), "
        "coalesce((SELECT any_value(typeof(c0)) FROM (SELECT c0 FROM _jammi_rows LIMIT 1)), ''), "
        "(SELECT coalesce(sum(times - 1) FILTER (times > 1), 0)::BIGINT FROM _jammi_there), "
        "(SELECT list(struct_pack(key := key::VARCHAR, text := text)) FROM _jammi_there)",
        rows=rows,
        text=text,
        is_text=is_text(entry.definition.columns, entry.definition.title_columns, pictures=entry.definition.pictures),
        changes=engine.followed.changes(followed),
        key=_KEY_TEXT,
    )
    ((count, key_type, repeated, there),) = engine.host.sql(query)
    texts = {str(row["key"]): row["text"] for row in there or ()}
    census = Census(count, count, count - repeated, key_type)
    return Candidates(source.written, texts, census, since=entry.finished)


def _state(entry: Entry) -> str:
    """What stands for a state of an embedding table: no two of them end at one time."""
    return str(entry.finished)
