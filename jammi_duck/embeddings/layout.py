"""What a table looks like: where it is, its columns, and which of these hold vectors."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jammi_duck.embeddings.fitting import BY_DUCKDB, Column
from jammi_duck.errors import InputError
from jammi_duck.sql import Sql, folded, joined, literal, quoted, sql
from jammi_duck.storage.tables.catalog import Entry
from jammi_duck.udfs.labels import can_be_typed
from jammi_duck.udfs.rows import text_of

if TYPE_CHECKING:
    import duckdb

    from jammi_duck.types import Definition

# The key of a table that is made here. Rows of a user's have none, and DuckDB's rowid changes when others are deleted.
KEY = "_rowid"
# At random, so that a key never comes again; whole numbers of 19 digits at most are found soonest.
_KEY_DEFAULT = sql('(">>"(hash(system.main.uuid()), 2))::BIGINT')
_SCHEMA = "main"
# Arrow has no such type, or another one for it.
_ONLY_DUCKDBS = re.compile(
    r"\b(U?HUGEINT|BIGNUM|VARINT|UUID|INTERVAL|BIT|ENUM|UNION|GEOMETRY|TUPLE|MAP|VARIANT|JSON|TIME WITH TIME ZONE)\b"
)
_RECORD = "jammi_duck"
_WHOLE = ("HUGEINT", "UHUGEINT", "BIGNUM", "VARINT")
_VECTOR = re.compile(r"(?:FLOAT|DOUBLE)\[(\d+)\]")
_CONSTANT = re.compile(r"-?\d[\d.e+-]*|'(?:[^']|'')*'|true|false|CAST\('(?:[^']|'')*' AS \"?\w+\"?\)", re.IGNORECASE)
_COLUMNS = sql(
    "SELECT column_name, data_type, is_nullable, column_default, comment FROM duckdb_columns() "
    "WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index ASC"
)


@dataclass(frozen=True)
class Place:
    """Where a table is."""

    database: str
    name: str

    @property
    def sql(self) -> Sql:
        """The full name as it stands in a query."""
        return joined(".", map(quoted, (self.database, _SCHEMA, self.name)))

    @property
    def written(self) -> str:
        """The full name as the functions of jammi_duck take it: whatever else is called so, this means the table."""
        # A name that begins with a quote is never a file's.
        return ".".join((quoted(self.database), _SCHEMA, _part(self.name)))


@dataclass(frozen=True)
class Record:
    """What makes a column of vectors, as its comment in DuckDB says, whatever is renamed or dropped since."""

    embedding_table: str
    source: str
    model: str

    @classmethod
    def of(cls, comment: str | None) -> Record | None:
        """What a comment says, if it is one of these."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return cls(**json.loads(comment or "")[_RECORD])
        return None

    def comment(self, place: Place, vector: str) -> Sql:
        """The statement that writes it."""
        text = json.dumps({_RECORD: dataclasses.asdict(self)})
        return sql("COMMENT ON COLUMN {}.{} IS {}", place.sql, quoted(vector), literal(text))


@dataclass(frozen=True)
class Layout:
    """The names of all columns, the widths of those that hold vectors, and what makes these, if it is recorded."""

    names: Sequence[str]
    vectors: Mapping[str, int]
    records: Mapping[str, Record] = field(default_factory=dict)

    @property
    def has_key(self) -> bool:
        """Whether the table was made here."""
        return KEY in self.names

    def vector_of(self, entry: Entry) -> str | None:
        """The column of vectors that an embedding table is for, if there is one."""
        recorded = (name for name, record in self.records.items() if record.embedding_table == entry.name)
        wanted = folded(entry.definition.embedding or "")
        labelled = (name for name in self.vectors if folded(label_of(name)) == wanted)
        return next(recorded, None) or next(labelled, None)


def layout_of(con: duckdb.DuckDBPyConnection, place: Place) -> Layout:
    """The columns of a table or a view, as far as a search needs to know them."""
    told = con.execute(_COLUMNS, [place.database, _SCHEMA, place.name]).fetchall()
    widths = {name: _VECTOR.fullmatch(kind) for name, kind, *_ in told}
    vectors = {name: int(match[1]) for name, match in widths.items() if match}
    records = {name: Record.of(comment) for name, *_, comment in told if name in vectors}
    return Layout(list(widths), vectors, {name: record for name, record in records.items() if record})


def columns_of(con: duckdb.DuckDBPyConnection, place: Place) -> list[Column]:
    """The columns of a table, without the key that it got here, as far as rows have to fit them."""
    told = con.execute(_COLUMNS, [place.database, _SCHEMA, place.name]).fetchall()
    kinds = con.sql(sql("SELECT * FROM {} LIMIT 0", place.sql)).to_arrow_table().schema
    return [
        Column(
            name,
            None if _ONLY_DUCKDBS.search(kind) else kinds.field(i).type,
            nullable,
            _default(con, default),
            is_whole=kind in _WHOLE,
        )
        for i, (name, kind, nullable, default, _) in enumerate(told)
        if name != KEY
    ]


def _default(con: duckdb.DuckDBPyConnection, expression: str | None) -> Any:  # noqa: ANN401 - of any type
    if expression is None or folded(expression) == "null":
        return None
    # Anything else may be another value for each row.
    is_constant = _CONSTANT.fullmatch(expression) is not None
    return con.execute(Sql(f"SELECT {expression}")).fetchall()[0][0] if is_constant else BY_DUCKDB


def creation(
    con: duckdb.DuckDBPyConnection, place: Place, schema: pa.Schema, defaults: Mapping[str, Any], *, replace: bool
) -> Sql:
    """The statement that makes a table with the columns of a schema, and a key.

    Raises:
        InputError: a column cannot be called so, or has a type that DuckDB lacks.
    """
    known: dict[str, str] = {}
    for name in schema.names:
        if not name or "\x00" in name:
            raise InputError(f"a column of '{place.name}' cannot be called {name!r}; give it another name")
        if folded(name) == KEY:
            raise InputError(f"'{name}' is the name of the key that each table gets; call the column something else")
        if folded(name) in known:
            raise InputError(
                f"'{known[folded(name)]}' and '{name}' are the same name to DuckDB; call one of them something else"
            )
        known[folded(name)] = name
    columns = [_column(con, each, defaults.get(each.name)) for each in schema]
    key = sql("{} BIGINT NOT NULL DEFAULT {}", quoted(KEY), _KEY_DEFAULT)
    create = sql("CREATE OR REPLACE TABLE") if replace else sql("CREATE TABLE")
    return sql("{} {} ({})", create, place.sql, joined(", ", [*columns, key]))


def _column(con: duckdb.DuckDBPyConnection, wanted: pa.Field, default: object) -> Sql:
    import duckdb

    try:
        (kind,) = con.from_arrow(pa.schema([wanted]).empty_table()).types
    except duckdb.Error as error:
        raise InputError(
            f"the column '{wanted.name}' is of the Arrow type {wanted.type}, which DuckDB lacks"
        ) from error
    null = sql("") if wanted.nullable else sql(" NOT NULL")
    value = sql("") if default is None else sql(" DEFAULT {}::{}", literal(str(default)), Sql(str(kind)))
    return sql("{} {}{}{}", quoted(wanted.name), Sql(str(kind)), null, value)


def texts_query(definition: Definition, rows: Sql, vector: str | None = None) -> Sql:
    """The keys of rows, their texts as each refresh reads them, and the vectors that a column has."""
    columns = [sql("{} AS c{}", quoted(name), i) for i, name in enumerate(definition.columns, start=1)]
    given = sql("{} AS _jammi_given", sql("NULL") if vector is None else quoted(vector))
    return sql(
        "SELECT _jammi_key, {text} AS _jammi_text, _jammi_given FROM "
        "(SELECT {key} AS _jammi_key, {inner} FROM {rows}) r",
        text=text_of(definition.columns, pictures=definition.pictures),
        key=quoted(KEY),
        inner=joined(", ", [given, *columns]),
        rows=rows,
    )


def label_of(vector: str) -> str:
    """The label of the embedding that makes a column of vectors: the column's name, or what can stand for it."""
    if can_be_typed(vector):
        return vector
    return f"vector-{hashlib.sha256(vector.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _part(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else str(quoted(name))
