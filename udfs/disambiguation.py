"""Which of the things that a name may be is meant, by the embeddings that there are, and the proof of it.

Nobody can ask DuckDB, while it binds a query, what a name is to the caller: CTEs, TEMP tables and what is not committed
yet are seen in the caller's own query only. So a query that depends on it carries a proof with it, which is looked at
when it runs and before anything is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from jammi_duck.errors import InputError, NotFoundError
from jammi_duck.retrieval.selection import refusal
from jammi_duck.sql import Sql, folded, folded_sql, joined, literal, quoted, sql
from jammi_duck.storage.tables.catalog import Status
from jammi_duck.storage.tables.catalog_sync import follow_others
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import (
    RELATIONS,
    Relation,
    Source,
    SourceCandidate,
    found,
    name_parts,
    still_there,
)

# A type that no key has.
_ELSEWHERE = sql("ENUM('_jammi_elsewhere')")
_READY: tuple[Status, ...] = ("ready", "gone")
_FAILED: tuple[Status, ...] = ("failed",)


def disambiguate(engine: Engine, source: Source, table: str | None = None, *, failed: bool = False) -> SourceCandidate:
    """What of the things that a source may be is meant: of those that have embeddings, what DuckDB would take first.

    An embedding `table` that the user names is that of its own source, or of one that is gone: that was renamed.
    Builds that failed count where no table is ready and they are asked for. Earlier versions knew what only a session
    has by its bare name, as a table: it is found by that as long as no such table was ever seen.

    Raises:
        NotFoundError: the table is of another source, which is there.
    """
    follow_others(engine.tables)
    if table is not None:
        return _named(engine, source, table)
    for statuses in _READY, *([_FAILED] if failed else []):
        embedded = [
            each for each in source.all_candidates if engine.tables.catalog.entries(*statuses, source=each.identity)
        ]
        if len(embedded) > 1:
            there = found([each.relation for each in embedded if each.relation], engine.host)
            return next((each for each in embedded if each.relation in there[:1]), embedded[-1])
        if embedded:
            return _if_it_was_there(engine, source, embedded[0])
        for each in source.legacy:
            if engine.tables.catalog.entries(*statuses, source=each.identity) and is_only(engine, each):
                return each
    return source.all_candidates[0]


def disambiguate_new(engine: Engine, source: Source) -> SourceCandidate | None:
    """The candidate that new embeddings are known by; None if only the caller's own query can tell."""
    if source.is_file:
        return source.candidates[0]
    if not source.candidates:
        return source.session
    there = found(source.relations, engine.host)
    return next((each for each in source.candidates if each.relation in there[:1]), None)


def proven(text: str, source: Source, meant: SourceCandidate, key: str) -> Sql:
    """A text as SQL, with an error in its place where the source is not what is meant in the caller's own query."""
    proof = _proof(source, meant, key)
    if proof is None:
        return literal(text)
    # What was seen is an argument, or the error would end the planning of the query.
    return sql(
        "(SELECT CASE WHEN p.seen {is_meant} THEN {text} ELSE _jammi_refuse({refusal}, p.seen) END "
        "FROM (SELECT {seen} AS seen) p)",
        seen=proof.seen,
        is_meant=proof.is_meant,
        text=literal(text),
        refusal=literal(_refusal(source, meant)),
    )


def proven_in_search(token: Sql, source: Source, meant: SourceCandidate, key: str, *, is_read: bool) -> Sql:
    """The token of a search as SQL, with a refusal in its place where the source is not what is meant.

    A CTE of the source's name may be in its place: a search finds those of its rows that the source's embeddings have.
    Where the query does not read the source, it need not be there.
    """
    proof = _proof_in_search(source, meant, key) if is_read else _proof_beside(source, meant)
    if proof is None:
        return token
    return sql(
        "CASE WHEN {seen} {is_meant} THEN {token} ELSE {refusal} END",
        seen=proof.seen,
        is_meant=proof.is_meant,
        token=token,
        refusal=literal(refusal(InputError(_refusal(source, meant)))),
    )


def identified(source: Source, meant: SourceCandidate | None, key: str) -> Sql:
    """SQL for what embeddings are to be known by, with an error in its place where that cannot be said."""
    if meant is not None:
        return proven(meant.identity, source, meant, key)
    seen = looked_up(source)
    if source.session:
        return sql("coalesce((SELECT {}), {})", seen, literal(source.session.identity))
    missing = literal(f"there is no table, view or file {source.written} here")
    return sql("(SELECT coalesce(p.seen, _jammi_refuse({}, p.seen)) FROM (SELECT {}) p)", missing, seen)


def is_only(engine: Engine, meant: SourceCandidate) -> bool:
    """Whether a name that earlier versions gave to a table of any database can be of this one only."""
    relation = meant.relation
    if relation is None:
        return True
    text = sql("SELECT database_name FROM {} WHERE (lower(schema_name), lower(name)) = (lower(?), lower(?))", RELATIONS)
    others = engine.host.sql(text, [relation.schema, relation.name])
    return all(folded(database) == relation.database for (database,) in others)


def _if_it_was_there(engine: Engine, source: Source, meant: SourceCandidate) -> SourceCandidate:
    """What is meant: a table or a view if one was ever seen under that name, or else what the session has."""
    relation = meant.relation
    bare = source.session and source.session.identity.removeprefix("temp.")
    if relation is None or meant.identity != bare or relation in engine.seen:
        return meant
    if not found([relation], engine.host):
        return SourceCandidate(meant.identity)
    engine.seen.add(relation)
    return meant


def _named(engine: Engine, source: Source, table: str) -> SourceCandidate:
    for entry in engine.tables.catalog.entries("ready", "gone", "failed", "building", name=table)[:1]:
        own = entry.source
        for meant in source.all_candidates:
            if meant.identity == own:
                return meant
        for meant in source.legacy:
            if meant.identity == own and is_only(engine, meant):
                return meant
        if still_there(own, engine.host):
            raise NotFoundError(f"'{table}' is an embedding table of '{own}', not of '{source.written}'")
        return SourceCandidate(own)
    return source.all_candidates[0]


@dataclass(frozen=True)
class _Proof:
    """What DuckDB takes a source's name for, as SQL that stands in a query, and the end of the condition on it."""

    seen: Sql
    is_meant: Sql


def _proof(source: Source, meant: SourceCandidate, key: str) -> _Proof | None:
    if meant.relation is None:
        return _proof_of_session(source, meant)
    return _proof_by_key(source.sql, meant.relation, key)


def _proof_in_search(source: Source, meant: SourceCandidate, key: str) -> _Proof | None:
    """The same, for a query in which a CTE may be in the source's place."""
    if meant.relation is None or not source.session:
        return _proof(source, meant, key)
    if (source.relations[0], meant.relation.schema) != (meant.relation, "main"):
        return _Proof(sql("(SELECT {})", looked_up(source)), sql("= {}", literal(meant.identity)))
    # A CTE is never called `main.name`, and a TEMP table is.
    return _proof_by_key(sql("main.{}", quoted(meant.relation.name)), meant.relation, key)


def _proof_beside(source: Source, meant: SourceCandidate) -> _Proof | None:
    """The same, for a query that does not read the source."""
    if not source.session or not meant.relation:
        return None
    return _Proof(sql("(SELECT {})", _temporary(source.session)), sql("IS NULL"))


def _proof_of_session(source: Source, meant: SourceCandidate) -> _Proof | None:
    if meant != source.session or not source.candidates:
        return None
    identity = literal(meant.identity)
    return _Proof(sql("coalesce((SELECT {}), {})", looked_up(source), identity), sql("= {}", identity))


def _proof_by_key(named: Sql, relation: Relation, key: str) -> _Proof:
    """By the type of a relation's key where `named` is that relation, and otherwise one that no key has.

    A column that is called by database, schema and table is found only in that table. For all others there is another
    column of that name: a field of a field of a STRUCT that is called as the database is. DuckDB knows a type once it
    has bound a query, and so plans nothing of this one.
    """
    other = sql("STRUCT({} {})", quoted(key), _ELSEWHERE)
    for name in (relation.name, relation.schema):
        other = sql("STRUCT({} {})", quoted(name), other)
    seen = sql(
        "typeof((SELECT {relation}.{key} FROM (SELECT NULL::{other} AS {database}) p, {named} LIMIT 0))",
        relation=relation.sql,
        key=quoted(key),
        other=other,
        database=quoted(relation.database),
        named=named,
    )
    return _Proof(seen, sql("<> {}", literal(_ELSEWHERE)))


def looked_up(source: Source) -> Sql:
    """What the source is among the tables and views that the caller sees, as SQL: what it is known by, or NULL."""
    places = [each for each in source.candidates if each.relation]
    if source.session:
        name = name_parts(source.session.identity)[-1]
        places.insert(0, SourceCandidate(source.session.identity, Relation("temp", "main", name)))
    rows = (
        sql("({}, {})", number, joined(", ", map(literal, (each.identity, *_names(each)))))
        for number, each in enumerate(places)
    )
    return sql(
        "arg_min(c.identity, c.place) AS seen FROM (VALUES {rows}) "
        "c(place, identity, database_name, schema_name, name) JOIN {relations} r ON "
        "{folded_database} = c.database_name AND {folded_schema} = c.schema_name AND {folded_name} = c.name",
        rows=joined(", ", rows),
        relations=RELATIONS,
        folded_database=folded_sql(sql("r.database_name")),
        folded_schema=folded_sql(sql("r.schema_name")),
        folded_name=folded_sql(sql("r.name")),
    )


def _temporary(session: SourceCandidate) -> Sql:
    """The TEMP table or view of a name that the caller sees, as SQL, or NULL: less than all that the name may be."""
    return sql(
        "any_value(name) AS seen FROM (SELECT table_name AS name FROM duckdb_tables() WHERE database_name = 'temp' "
        "AND lower(table_name) = lower({name}) UNION ALL SELECT view_name FROM duckdb_views() "
        "WHERE database_name = 'temp' AND lower(view_name) = lower({name}))",
        name=literal(name_parts(session.identity)[-1]),
    )


def _names(meant: SourceCandidate) -> tuple[str, str, str]:
    assert meant.relation is not None
    return meant.relation.database, meant.relation.schema, meant.relation.name


def _refusal(source: Source, meant: SourceCandidate) -> str:
    written = source.written
    if meant.relation is None:
        table = source.candidates[0].relation
        assert table is not None
        return (
            f"'{written}' is a table here, and its embeddings are of a TEMP table, a DataFrame or a CTE of that name: "
            f"write temp.{quoted(table.name)} for a TEMP table, or generate those of the table"
        )
    return (
        f"'{written}' is not the table {meant.relation.sql} in this query, but a CTE, a TEMP table, or one that is "
        f"nearer on the search path: write {meant.relation.sql} for the table, temp.{quoted(meant.relation.name)} "
        "for a TEMP table, or give the CTE another name"
    )
