"""Writes SQL for the texts that an embedding table lacks: whole, or cut into passages; and the calls that take them.

Each text comes once, with the keys of all rows that have it; where the table has its vector, or that of a passage of
it, with the place of that vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jammi_duck.encoder.passages import Cutter, embedded_text
from jammi_duck.encoder.recorded import DOCUMENT, recorded_encoder
from jammi_duck.errors import BuildError
from jammi_duck.sql import NULL, Sql, literal, sql
from jammi_duck.storage.files.manifest import Segment
from jammi_duck.storage.tables.catalog import Entry, live_rows
from jammi_duck.storage.tables.snapshot import PinnedSnapshot
from jammi_duck.types import Definition
from jammi_duck.udfs.columns import Column, packed, records, rows_in_turn, table
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.rows import KEY, digest_of, packed_text_of
from jammi_duck.work.cut_texts import unpacked
from jammi_duck.work.generate import GENERATE_ANEW, SOURCE_CHANGED, Census, check_keys
from jammi_duck.work.refresh import Renewed
from jammi_duck.work.text_buffer import digest


@dataclass(frozen=True)
class NewTexts:
    """Common table expressions, how many texts are to be embedded, and a query that pushes all that the table lacks."""

    expressions: Sql
    to_embed: Sql
    pushed: Sql


@dataclass(frozen=True)
class CutRow:
    """How a text is cut: its title, the numbers of its passages, where they begin and end, and their digests."""

    title: str
    numbers: list[int]
    starts: list[int]
    ends: list[int]
    digests: list[str]


# Of rows of the table, or spare ones.
_PLACES = sql("_text_digest, _segment, _place")


def new_texts(entry: Entry, pinned: PinnedSnapshot, *, has_words: bool) -> NewTexts:
    """What `_jammi_changes` says that the table lacks. With words, the texts of all are read."""
    definition = entry.definition
    pool = live_of(entry, pinned, _PLACES)
    if pinned.spare:
        spare = live_rows(_PLACES, [(number, str(path)) for number, path in pinned.spare], ())
        pool = sql("{} UNION ALL {}", pool, spare)
    if definition.passages and definition.columns:
        return _cut(entry, pool)
    return _whole(definition, pool, has_words=has_words)


def live_of(entry: Entry, pinned: PinnedSnapshot, columns: Sql, only: Sequence[int] | None = None) -> Sql:
    """A query for these columns of the rows of a table, of some of its segments only if their numbers are given."""
    return live_rows(
        columns,
        [(number, str(path)) for number, path in pinned.segments if only is None or number in only],
        [str(path) for path in pinned.tombstones],
    )


# Not min(key): DuckDB 1.4 would call whatever is named arg_min for it, as the keys have a collation.
_WANTED = sql(
    "_jammi_wanted AS MATERIALIZED (SELECT digest, list(key) AS keys, arg_min(key, key) AS key FROM _jammi_changes "
    "WHERE key IS NOT NULL GROUP BY digest)"
)


def _whole(definition: Definition, pool: Sql, *, has_words: bool) -> NewTexts:
    text = packed_text_of(definition.columns, pictures=definition.pictures) if definition.columns else NULL
    known = sql(
        "SELECT _text_digest AS digest, unnest(any_value(struct_pack(_segment := _segment, _place := _place))) "
        "FROM ({}) WHERE _text_digest IN (SELECT digest FROM _jammi_wanted) GROUP BY 1",
        pool,
    )
    read = sql(
        "SELECT n.keys, n.digest, {text} AS text, {place} FROM _jammi_rows r JOIN _jammi_new n ON {key} = n.key{only}",
        text=text,
        place=sql("n._segment, n._place") if has_words else sql("NULL, NULL"),
        key=KEY,
        only=sql("") if has_words else sql(" AND n._place IS NULL"),
    )
    if not has_words:
        read = sql(
            "SELECT keys, digest, NULL::VARCHAR AS text, _segment, _place FROM _jammi_new WHERE _place IS NOT NULL "
            "UNION ALL {}",
            read,
        )
    return NewTexts(
        expressions=sql(
            "{}, _jammi_new AS MATERIALIZED (SELECT lower(hex(w.digest)) AS digest, w.keys, w.key, k._segment, "
            "k._place FROM _jammi_wanted w LEFT JOIN ({}) k USING (digest))",
            _WANTED,
            known,
        ),
        to_embed=sql("(SELECT count(*) FROM _jammi_new WHERE _place IS NULL)"),
        pushed=sql(
            "SELECT _jammi_renew(b.token, n.keys, n.digest, n.text, n._segment, n._place) AS pushed FROM ({}) n, "
            "_jammi_begun b",
            read,
        ),
    )


def _cut(entry: Entry, pool: Sql) -> NewTexts:
    """The texts are read and cut first, since that says which passages there are; then they are read again."""
    definition = entry.definition
    text = packed_text_of(definition.columns, definition.title_columns)
    return NewTexts(
        expressions=sql(
            "{wanted}, _jammi_cuts AS MATERIALIZED (SELECT w.digest, w.keys, w.key, "
            "_jammi_cut({table}, {build}, lower(hex(w.digest)), {text}, {census}) AS parts "
            "FROM _jammi_rows r JOIN _jammi_wanted w ON {key} = w.key, _jammi_census c), "
            "_jammi_parts AS MATERIALIZED (SELECT digest, unnest(struct_extract(parts, 'numbers')) AS number, "
            "unhex(unnest(struct_extract(parts, 'digests'))) AS part FROM _jammi_cuts), "
            "_jammi_known AS (SELECT _text_digest AS part, "
            "unnest(any_value(struct_pack(_segment := _segment, _place := _place))) FROM ({pool}) "
            "WHERE _text_digest IN (SELECT part FROM _jammi_parts) GROUP BY 1), "
            "_jammi_new AS MATERIALIZED (SELECT lower(hex(c.digest)) AS digest, c.keys, c.key, c.parts, k.segments, "
            "k.places, k.missing FROM _jammi_cuts c JOIN (SELECT p.digest, "
            "list(_segment ORDER BY number ASC) AS segments, list(_place ORDER BY number ASC) AS places, "
            "count(*) FILTER (_place IS NULL) AS missing FROM _jammi_parts p LEFT JOIN _jammi_known k USING (part) "
            "GROUP BY p.digest) k USING (digest))",
            wanted=_WANTED,
            table=literal(entry.name),
            build=literal(entry.build),
            text=text,
            census=counted(sql("c"), sql("_jammi_rows")),
            key=KEY,
            pool=pool,
        ),
        to_embed=sql("coalesce((SELECT sum(missing)::BIGINT FROM _jammi_new), 0)"),
        pushed=sql(
            "SELECT _jammi_renew_passages(b.token, n.keys, n.digest, {text}, struct_extract(n.parts, 'title'), "
            "struct_extract(n.parts, 'starts'), struct_extract(n.parts, 'ends'), n.segments, n.places) AS pushed "
            "FROM _jammi_rows r JOIN _jammi_new n ON {key} = n.key, _jammi_begun b",
            text=text,
            key=KEY,
        ),
    )


def counted(rows: Sql, of: Sql) -> Sql:
    """SQL for the census of a table `of` keys as `c0`, whose counts the row `rows` has."""
    return packed(
        Census,
        rows=sql("{}.row_count", rows),
        non_null_keys=sql("{}.non_null_keys", rows),
        distinct_keys=sql("{}.distinct_keys", rows),
        key_type=sql("coalesce((SELECT any_value(typeof(c0)) FROM (SELECT c0 FROM {} LIMIT 1)), '')", of),
    )


def words_pushed(entry: Entry, pinned: PinnedSnapshot, lacking: Sequence[Segment]) -> Sql:
    """The query that pushes the texts of the rows of segments that lack their words, beside a comparison.

    `pushed` is how many rows each call takes.
    """
    definition = entry.definition
    numbers = [segment.number for segment in lacking]
    columns, title = definition.columns, definition.title_columns
    if not definition.passages:
        call = sql("_jammi_word(b.token, l._segment, l._place, {})", packed_text_of(columns))
        live = live_of(entry, pinned, sql("_row_id, _text_digest AS digest, _segment, _place"), numbers)
    else:
        call = sql(
            "_jammi_words(b.token, {}, {}, l.segments, l.places, l.starts, l.ends, {})",
            literal(entry.name),
            literal(entry.build),
            packed_text_of(columns, title),
        )
        each = live_of(entry, pinned, sql("_row_id, _row_digest, _segment, _place, _start, _end"), numbers)
        live = sql(
            'SELECT _row_id COLLATE "C" AS _row_id, any_value(_row_digest) AS digest, list(_segment) AS segments, '
            "list(_place) AS places, list(_start) AS starts, list(_end) AS ends FROM ({}) WHERE _start IS NOT NULL "
            'GROUP BY _row_id COLLATE "C"',
            each,
        )
    return sql(
        "SELECT {call} AS pushed FROM _jammi_rows r JOIN ({live}) l "
        "ON {key} = l._row_id AND unhex({digest}) = l.digest, _jammi_begun b",
        call=call,
        digest=digest_of(columns, title),
        key=KEY,
        live=live,
    )


def _entry(engine: Engine, name: str, build: str) -> Entry:
    entries = engine.tables.catalog.entries("building", "failed", "ready", name=name)
    return next((entry for entry in entries if entry.build == build), None) or engine.tables.ready(name)


def _cutter(engine: Engine, name: str, build: str) -> tuple[Cutter, Definition]:
    """What cuts the texts of a table, whether it is ready or not. Raises as `recorded_encoder` does."""
    entry = _entry(engine, name, build)
    encoder = recorded_encoder(engine.encoders, entry.name, entry.definition, DOCUMENT)
    assert entry.definition.passages is not None
    return Cutter(encoder, entry.definition.passages), entry.definition


def cut(engine: Engine, name: Column, build: Column, of: Column, texts: Column, censuses: Column) -> pa.Array:
    """How texts of a table are cut, which must be `of` these digests; once all rows of the source can be told apart."""
    rows = []
    if len(name):
        cutter, definition = _cutter(engine, name[0].as_py(), build[0].as_py())
        check_keys(definition.source, definition.key, records(censuses.slice(0, 1), Census)[0], GENERATE_ANEW)
        for digested, packed in rows_in_turn((of, texts)):
            if digest(packed).hex() != digested:
                raise BuildError(SOURCE_CHANGED)
            title, text = unpacked(packed, has_title=bool(definition.title_columns))
            title = cutter.title(title)
            cuts = cutter.cut(text, title)
            starts, ends = cuts.starts.tolist(), cuts.ends.tolist()
            parts = (embedded_text(title, text[start:end]) for start, end in zip(starts, ends, strict=True))
            digests = [digest(part).hex() for part in parts]
            rows.append([CutRow(title, list(range(len(starts))), starts, ends, digests)])
    return table(rows, CutRow).flatten()


def renew_passages(engine: Engine, token: Column, *columns: Column) -> pa.Array:
    """Take texts that a table lacks, and their passages."""
    if len(token):
        engine.refresher.renew_passages(token[0].as_py(), (Renewed(*row) for row in rows_in_turn(columns)))
    return pa.array(np.zeros(len(token), np.int32))


def add_words(engine: Engine, token: Column, *columns: Column) -> pa.Array:
    """Take the texts of rows whose words are indexed."""
    if len(token):
        engine.refresher.add_words(token[0].as_py(), rows_in_turn(columns))
    return pa.array(np.ones(len(token), np.int32))


def add_words_of_passages(engine: Engine, token: Column, name: Column, build: Column, *columns: Column) -> pa.Array:
    """Take the texts of rows of passages whose words are indexed; gives how many passages these are."""
    taken = []
    if len(token):
        definition = _entry(engine, name[0].as_py(), build[0].as_py()).definition
        has_title = bool(definition.title_columns)
        # The model's tokenizer says how much of a title is embedded, and is not needed for anything else here.
        cutter = _cutter(engine, name[0].as_py(), build[0].as_py())[0] if has_title else None
        for segments, positions, starts, ends, packed in rows_in_turn(columns):
            title, text = unpacked(packed, has_title=has_title)
            title = cutter.title(title) if cutter else title
            parts = (embedded_text(title, text[start:end]) for start, end in zip(starts, ends, strict=True))
            engine.refresher.add_words(token[0].as_py(), zip(segments, positions, parts, strict=True))
            taken.append(len(segments))
    return pa.array(taken, pa.int32())
