"""SQL as a type of its own: made of templates, quoted names and literals, and never of a plain text.

    sql("SELECT {key} FROM t WHERE source = {source}", key=quoted("id"), source=literal("it's"))

A macro in a database file takes precedence over a function of the same name, unless the full name is written. So
templates call functions by their short names, and the SQL has the full ones.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Iterable
from typing import LiteralString, TypeAlias

# The functions that our SQL calls. A test defines a macro for every name that DuckDB has, and calls all verbs.
_FUNCTIONS = frozenset((
    "any_value", "arg_min", "array_cosine_distance", "bit_xor", "bool_or", "cast_to_type", "chr", "concat",
    "concat_ws", "contains", "count", "count_star", "current_database", "current_setting", "dense_rank",
    "duckdb_columns", "duckdb_constraints", "duckdb_databases", "duckdb_extensions", "duckdb_functions",
    "duckdb_indexes", "duckdb_schemas", "duckdb_table_sample", "duckdb_tables", "duckdb_triggers", "duckdb_types",
    "duckdb_views", "error", "hash", "hex", "isfinite", "json_deserialize_sql", "json_keys", "json_serialize_sql",
    "len", "length", "list", "list_aggr", "list_cosine_similarity", "list_extract", "list_filter",
    "list_inner_product", "list_transform", "list_value", "lower", "max", "md5", "min", "nullif",
    "pragma_collations", "query", "query_table", "range", "read_csv", "read_json", "read_parquet", "regexp_matches",
    "row", "row_number", "sha256", "string_agg", "struct_extract", "struct_pack", "substring", "suffix", "sum",
    "to_json", "to_seconds", "translate", "trim", "txid_current", "typeof", "unhex", "unnest",
))  # fmt: skip
# After a sub-query or AS, this is a list of column names.
_TOKEN = re.compile(r"""'(?:[^']|'')*'|(?<![\w.])(?<!\) )(?<!AS )(?P<called>"[-+*]"|[a-z_]\w*)(?=\()|"(?:[^"]|"")*\"""")

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Sql(str):
    """Text that may run as SQL. `sql`, `quoted`, `literal` and `joined` make it; `Sql(text)` trusts a text."""

    __slots__ = ()


# Gives SQL from the parts of a template.
Template: TypeAlias = Callable[..., Sql]


def sql(text: LiteralString, /, *parts: Sql | int, **named: Sql | int) -> Sql:
    """A template with its parts in place of `{}` and `{name}`, and the full names of its functions.

    Raises TypeError where a part is a plain text, which must be made a name or a literal first.
    """
    for part in (*parts, *named.values()):
        # Not by the class: when this module is loaded again, there are two.
        if type(part) is str or not isinstance(part, str | int):
            raise TypeError(f"{part!r} is no SQL: pass it through literal() or quoted()")
    return Sql(_full(text).format(*parts, **named))


def template(text: LiteralString, /, **named: Sql) -> Template:
    """A template for later, with some of its named parts."""
    return functools.partial(sql, text, **named)


def quoted(name: str) -> Sql:
    """A name as a quoted SQL identifier."""
    return Sql('"' + name.replace('"', '""') + '"')


def folded(name: str) -> str:
    """A name as DuckDB compares it: ASCII letters in lower case, others as they are."""
    return name.translate(_LOWER)


def folded_sql(name: Sql) -> Sql:
    """SQL for a name as DuckDB compares it."""
    return sql("translate({}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')", name)


NULL = Sql("NULL")


def literal(value: str | None) -> Sql:
    """A text as a SQL literal; None as NULL."""
    return NULL if value is None else Sql("'" + value.replace("'", "''") + "'")


def joined(separator: LiteralString, parts: Iterable[Sql]) -> Sql:
    """Several pieces of SQL with a separator between them, which is a template without parts."""
    return Sql(_full(separator).join(parts))


def with_full_names(text: str) -> Sql:
    """SQL that was not made of a template, with the full names of its functions; texts and quoted names stay."""
    return Sql(_TOKEN.sub(_full_name, text))


# Templates are constants of the code, and so not many.
_full = functools.cache(with_full_names)


def _full_name(token: re.Match[str]) -> str:
    name = token["called"]
    is_ours = name is not None and (name in _FUNCTIONS or name[0] == '"' or name.startswith("_jammi_"))
    return f"system.main.{name}" if is_ours else token[0]
