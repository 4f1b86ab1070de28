"""What a client's SQL is: one statement that reads, its parameters, and the columns of its result."""

from __future__ import annotations

import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from jammi_duck.doors.server.database import Lent
from jammi_duck.doors.server.search_calls import SearchCall, search_call
from jammi_duck.doors.server.syntax import reading_tree, refuse_depths, shaping
from jammi_duck.errors import DeniedError, InputError, JammiError
from jammi_duck.sql import NULL, Sql, joined, quoted, sql

# DuckDB's parser ends the process where a statement is much longer and nested in itself.
MOST_BYTES = 128 << 10
_REMEMBERED = 1_000
# Some numbers in brackets, as a whole argument or cast; fewer are soon parsed.
_NUMBER = r"[ \t\r\n]*[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[ \t\r\n]*"
_VECTOR = re.compile(rf"\[{_NUMBER}(?:,{_NUMBER}){{15,}}\](?=[ \t\r\n]*(?:[,)]|::|[aA][sS]\b))")
_READING = {"SELECT", "EXPLAIN"}
_PIVOTED = re.compile(r"[^;]*\bPIVOT\b[^;]*;?\s*", re.IGNORECASE)
_EXPLAINED = pa.schema([("explain_key", pa.string()), ("explain_value", pa.string())])
_WRITES = (
    "a {} statement is refused: the server only reads. SELECT, EXPLAIN, SHOW and DESCRIBE are answered; change the "
    "database itself with jammi-duck or DuckDB"
)
_PIVOT = "PIVOT is refused without its values: write them, as in PIVOT t ON column IN ('a', 'b') USING sum(x)"


@dataclass(frozen=True)
class Statement:
    """One statement that reads: its text, and the names of its parameters, in their order.

    The columns of its result depend on the values of those that are `shaping`, and on the types of the others.
    `search` is its one search, where that is plain.
    """

    text: str
    parameters: tuple[str, ...]
    explains: bool
    shaping: frozenset[str] = frozenset()
    search: SearchCall | None = None

    @property
    def is_positional(self) -> bool:
        """Whether its parameters are numbered, as `?` and `$1` are."""
        return all(name.isdigit() for name in self.parameters)

    def bound(self, row: Sequence[Any]) -> Any:  # noqa: ANN401 - what DuckDB takes
        """Values for its parameters, as DuckDB takes them.

        Raises:
            InputError: there are more or fewer.
        """
        if len(row) != len(self.parameters):
            raise InputError(f"the statement has {len(self.parameters)} parameters, and {len(row)} values are given")
        return list(row) if self.is_positional else dict(zip(self.parameters, row, strict=True))


def statement_of(text: str) -> Statement:
    """The statement that a client sends.

    Raises:
        InputError: it is none, or several, or too long, or no SQL.
        DeniedError: it does not only read.
    """
    if len(text.encode(errors="surrogatepass")) > MOST_BYTES:
        raise InputError(f"the statement is longer than {MOST_BYTES:,} bytes")
    return _with_vector(text) or _parsed(text)


def _with_vector(text: str) -> Statement | None:
    """A statement whose search has a vector written out, which is parsed as a parameter: hundreds of numbers take long.

    None where it is no such statement.
    """
    found = list(_VECTOR.finditer(text))
    if len(found) != 1 or "?" in text or "$" in text:
        return None
    try:
        vector = [float(number) for number in found[0].group()[1:-1].split(",")]
        statement = _parsed(f"{text[: found[0].start()]}?{text[found[0].end() :]}")
    except (JammiError, ValueError):
        return None
    search = statement.search and statement.search.with_vector(vector)
    # Within a text or a comment, it is no parameter.
    return replace(statement, text=text, parameters=(), search=search) if search else None


@functools.lru_cache(_REMEMBERED)
def _parsed(text: str) -> Statement:
    refuse_depths(text)
    try:
        found = parser().extract_statements(text)
    except duckdb.Error as error:
        raise InputError(str(error)) from None
    if not found:
        raise InputError("the statement is empty")
    # DuckDB 1 makes two statements of it.
    if found[0].type.name == "MULTI" or (len(found) > 1 and _PIVOTED.match(text)):
        raise InputError(_PIVOT)
    if len(found) > 1:
        raise InputError(f"one statement at a time: these are {len(found)}")
    kind = found[0].type.name
    if kind not in _READING:
        raise DeniedError(_WRITES.format(kind))
    explains = kind == "EXPLAIN"
    tree = reading_tree(text, parser(), explains=explains)
    names = sorted(found[0].named_parameters, key=_place)
    search = None if explains else search_call(text, tree)
    return Statement(text, tuple(names), explains, frozenset(shaping(tree)), search)


def _place(parameter: str) -> tuple[int, str]:
    """Numbered parameters come by their numbers, named ones by their names."""
    return (int(parameter), "") if parameter.isdigit() else (0, parameter)


_local = threading.local()


def parser() -> duckdb.DuckDBPyConnection:
    """An empty database of this thread's, which only parses."""
    if not hasattr(_local, "parser"):
        _local.parser = duckdb.connect(config={"enable_external_access": "false", "threads": "1"})
    found: duckdb.DuckDBPyConnection = _local.parser
    return found


class Schemas:
    """The columns of statements' results, which DuckDB works out without running them."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._lock = threading.Lock()
        self._known: OrderedDict[object, pa.Schema] = OrderedDict()

    def known(self, key: object) -> pa.Schema | None:
        """What was worked out for this key; None where nothing was."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        return None

    def of(self, statement: Statement, lent: Lent, key: object, values: Sequence[Any] | None = None) -> pa.Schema:
        """The Arrow schema of a statement's result, with these values or NULL for its parameters.

        It is remembered by the key, which says all that it depends on.

        Raises:
            duckdb.Error: it cannot be bound.
        """
        if statement.explains:
            return _EXPLAINED
        try:
            schema = _schema(statement, lent, values)
        except duckdb.Error:
            if values is None and statement.shaping:
                # The columns are known once the parameters have values.
                return pa.schema([])
            raise
        with self._lock:
            self._known[key] = schema
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return schema


def shape(statement: Statement, values: Sequence[Any] | None, kinds: Sequence[str | None]) -> object:
    """What the columns depend on of the values of parameters: two of the same shape give the same columns.

    `kinds` are the types of the values; None where a value alone has the type.
    """
    if values is None:
        return None
    named = zip(statement.parameters, values, kinds or [None] * len(values), strict=False)
    return tuple(repr(value) if kind is None or name in statement.shaping else kind for name, value, kind in named)


def _schema(statement: Statement, lent: Lent, values: Sequence[Any] | None) -> pa.Schema:
    parameters = statement.bound([None] * len(statement.parameters) if values is None else values)
    try:
        columns = lent.rows(f"DESCRIBE {statement.text}", parameters)
    except duckdb.ParserException:
        # Of what is no SELECT itself, such as SHOW TABLES.
        columns = lent.rows(f"DESCRIBE SELECT * FROM ({statement.text.rstrip().rstrip(';')}\n)", parameters)
    nulls = [sql("{} AS {}", _null(kind), quoted(name)) for name, kind, *_ in columns]
    empty = lent.con.sql(sql("SELECT {} LIMIT 0", joined(", ", nulls)))
    schema: pa.Schema = empty.to_arrow_table().schema
    return schema


def _null(kind: str) -> Sql:
    """A NULL of a type; a parameter without a value has a type of its own, whose name is none in SQL."""
    return NULL if kind == '"NULL"' else sql("CAST(NULL AS {})", Sql(kind))


def parameter_schema(statement: Statement) -> pa.Schema:
    """A field for each parameter; DuckDB knows their types only once they have values, so they are texts."""
    return pa.schema([pa.field(name, pa.string()) for name in statement.parameters])
