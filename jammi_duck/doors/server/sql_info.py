"""What the server says of itself in answer to GetSqlInfo, by the codes of Flight SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from jammi_duck.doors.server.statements import MOST_BYTES
from jammi_duck.version import __version__

_VALUES = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
    ]
)
SCHEMA = pa.schema([pa.field("info_name", pa.uint32(), nullable=False), pa.field("value", _VALUES, nullable=False)])
_TEXT, _FLAG, _NUMBER, _BITS, _TEXTS, _MAP = range(6)
_NO_LIMIT = 0
_NUMERIC = (
    "abs acos asin atan atan2 ceil cos cot degrees exp floor ln log log10 log2 mod pi pow radians random round sign "
    "sin sqrt tan trunc"
)
_STRINGS = (
    "ascii chr concat contains instr left length lower lpad ltrim position regexp_extract regexp_matches "
    "regexp_replace repeat replace reverse right rpad rtrim split_part starts_with strip_accents substring trim upper"
)
_SYSTEM = "coalesce current_database current_schema ifnull nullif version"
_DATES = (
    "current_date current_timestamp date_add date_diff date_part date_sub date_trunc dayname extract last_day "
    "make_date monthname now strftime strptime"
)


def _infos(keywords: Sequence[str]) -> dict[int, tuple[int, Any]]:
    """The kind and the value of each piece of information."""
    return {
        0: (_TEXT, "jammi-duck"),
        1: (_TEXT, __version__),
        2: (_TEXT, pa.__version__),
        # It only reads; SQL and no Substrait; no transactions; queries can be cancelled.
        3: (_FLAG, True),
        4: (_FLAG, True),
        5: (_FLAG, False),
        6: (_TEXT, ""),
        7: (_TEXT, ""),
        8: (_BITS, 0),
        9: (_FLAG, True),
        # No bulk ingestion, and no transactions for it.
        10: (_FLAG, False),
        11: (_FLAG, False),
        100: (_BITS, 0),
        101: (_BITS, 0),
        # No catalogs, schemas or tables can be made.
        500: (_FLAG, False),
        501: (_FLAG, False),
        502: (_FLAG, False),
        # Names are compared without regard to case, and stored as they were written.
        503: (_NUMBER, 1),
        504: (_TEXT, '"'),
        505: (_NUMBER, 1),
        506: (_FLAG, True),
        # NULLs come last unless the query says otherwise.
        507: (_NUMBER, 3),
        508: (_TEXTS, list(keywords)),
        509: (_TEXTS, _NUMERIC.split()),
        510: (_TEXTS, _STRINGS.split()),
        511: (_TEXTS, _SYSTEM.split()),
        512: (_TEXTS, _DATES.split()),
        513: (_TEXT, "\\"),
        514: (_TEXT, ""),
        515: (_FLAG, True),
        516: (_FLAG, True),
        517: (_MAP, []),
        518: (_FLAG, True),
        519: (_FLAG, False),
        520: (_FLAG, True),
        521: (_FLAG, True),
        522: (_BITS, 0b11),
        523: (_FLAG, True),
        524: (_FLAG, True),
        525: (_BITS, 0b111),
        526: (_BITS, 0b111),
        527: (_FLAG, False),
        528: (_BITS, 0b110),
        529: (_TEXT, "schema"),
        530: (_TEXT, "macro"),
        531: (_TEXT, "catalog"),
        532: (_NUMBER, 1),
        533: (_BITS, 0),
        534: (_BITS, 0),
        535: (_BITS, 0),
        536: (_FLAG, False),
        537: (_FLAG, False),
        538: (_BITS, 0b1111),
        539: (_FLAG, True),
        540: (_BITS, 0b11),
        **{code: (_NUMBER, _NO_LIMIT) for code in range(541, 562)},
        557: (_NUMBER, MOST_BYTES),
        562: (_NUMBER, 0),
        563: (_FLAG, False),
        564: (_BITS, 0b1),
        565: (_FLAG, False),
        566: (_FLAG, False),
        567: (_BITS, 0b10),
        568: (_BITS, 0b10),
        569: (_BITS, 0b10),
        570: (_BITS, 0),
        571: (_BITS, 0),
        572: (_FLAG, False),
        573: (_FLAG, False),
        574: (_FLAG, True),
        575: (_FLAG, False),
        576: (_FLAG, False),
    }


def sql_info(codes: Sequence[int], keywords: Sequence[str]) -> pa.Table:
    """The information for these codes, or all of it where there are none; unknown codes are left out.

    Columns: `info_name` and `value`, a union.
    """
    known = _infos(keywords)
    wanted = [code for code in codes if code in known] if codes else sorted(known)
    kinds = [known[code][0] for code in wanted]
    children: list[list[Any]] = [[] for _ in range(6)]
    offsets = []
    for code in wanted:
        kind, value = known[code]
        offsets.append(len(children[kind]))
        children[kind].append(value)
    union = pa.UnionArray.from_dense(
        pa.array(kinds, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(values, _VALUES.field(i).type) for i, values in enumerate(children)],
        [_VALUES.field(i).name for i in range(6)],
    )
    return pa.table([pa.array(wanted, pa.uint32()), union], schema=SCHEMA)


# Name, number of ODBC and JDBC, length, prefix, suffix, parameters, whether case counts, and whether it is a number:
# unsigned or not.
_TYPES: Sequence[tuple[str, int, int | None, str | None, str | None, list[str] | None, bool, bool | None]] = (
    ("BIT", -7, None, "'", "'", None, False, None),
    ("BOOLEAN", 16, 1, None, None, None, False, None),
    ("TINYINT", -6, 3, None, None, None, False, False),
    ("BIGINT", -5, 19, None, None, None, False, False),
    ("HUGEINT", 2, 38, None, None, None, False, False),
    ("BLOB", -4, None, "'", "'::BLOB", None, False, None),
    ("DECIMAL", 3, 38, None, None, ["precision", "scale"], False, False),
    ("INTEGER", 4, 10, None, None, None, False, False),
    ("SMALLINT", 5, 5, None, None, None, False, False),
    ("FLOAT", 7, 24, None, None, None, False, False),
    ("DOUBLE", 8, 53, None, None, None, False, False),
    ("VARCHAR", 12, None, "'", "'", None, True, None),
    ("UUID", 12, 36, "'", "'::UUID", None, False, None),
    ("DATE", 91, 10, "DATE '", "'", None, False, None),
    ("TIME", 92, 15, "TIME '", "'", None, False, None),
    ("TIMESTAMP", 93, 26, "TIMESTAMP '", "'", None, False, None),
    ("TIMESTAMP WITH TIME ZONE", 2014, 32, "TIMESTAMPTZ '", "'", None, False, None),
    ("INTERVAL", 1111, None, "INTERVAL '", "'", None, False, None),
    ("UTINYINT", -6, 3, None, None, None, False, True),
    ("USMALLINT", 5, 5, None, None, None, False, True),
    ("UINTEGER", 4, 10, None, None, None, False, True),
    ("UBIGINT", -5, 20, None, None, None, False, True),
)
TYPE_SCHEMA = pa.schema(
    [
        pa.field("type_name", pa.string(), nullable=False),
        pa.field("data_type", pa.int32(), nullable=False),
        pa.field("column_size", pa.int32()),
        pa.field("literal_prefix", pa.string()),
        pa.field("literal_suffix", pa.string()),
        pa.field("create_params", pa.list_(pa.field("item", pa.string(), nullable=False))),
        pa.field("nullable", pa.int32(), nullable=False),
        pa.field("case_sensitive", pa.bool_(), nullable=False),
        pa.field("searchable", pa.int32(), nullable=False),
        pa.field("unsigned_attribute", pa.bool_()),
        pa.field("fixed_prec_scale", pa.bool_(), nullable=False),
        pa.field("auto_increment", pa.bool_()),
        pa.field("local_type_name", pa.string()),
        pa.field("minimum_scale", pa.int32()),
        pa.field("maximum_scale", pa.int32()),
        pa.field("sql_data_type", pa.int32(), nullable=False),
        pa.field("datetime_subcode", pa.int32()),
        pa.field("num_prec_radix", pa.int32()),
        pa.field("interval_precision", pa.int32()),
    ]
)


def type_info(number: int | None) -> pa.Table:
    """The types of DuckDB, sorted by the numbers that ODBC has for them; those of one number where it is given."""
    rows = []
    for name, code, size, prefix, suffix, parameters, case, unsigned in sorted(_TYPES, key=lambda each: each[1]):
        if number is not None and code != number:
            continue
        scale = {"DECIMAL": (0, 38)}.get(name, (None, None))
        radix = None if unsigned is None else 10
        nullable, searchable = 1, 3
        facts = (parameters, nullable, case, searchable, unsigned, False, False)
        rows.append((name, code, size, prefix, suffix, *facts, name, *scale, code, None, radix, None))
    arrays = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(TYPE_SCHEMA)]
    return pa.table(arrays, schema=TYPE_SCHEMA)


def keywords() -> list[str]:
    """The reserved words of this DuckDB."""
    with duckdb.connect() as con:
        text = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved' ORDER BY 1"
        return [name for (name,) in con.execute(text).fetchall()]
