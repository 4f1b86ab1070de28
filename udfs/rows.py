"""Writes SQL for a source's rows: the key and columns by name, the text of a row, and its digest."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import pyarrow as pa

from jammi_duck.encoder.blanks import VISIBLE
from jammi_duck.encoder.blobs import BLOB, JSON
from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.sql import Sql, Template, folded, joined, literal, quoted, sql, template
from jammi_duck.udfs.arguments import refuse_comparison
from jammi_duck.udfs.columns import Column
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.sources import Source

# The key of a row `r`. Keys are compared letter by letter, whatever collation the column or the session has.
KEY = sql('r.c0::VARCHAR COLLATE "C"')
# A column of a row `r`, by its place.
_COLUMN = template("r.c{}")
# The bytes of a picture as a text; NULL where there are none. What is no text either is JSON. DuckDB knows a column's
# type while it plans.
_PICTURE = template(
    "CASE WHEN typeof({column}) = 'BLOB' THEN CASE WHEN octet_length(TRY_CAST({column} AS BLOB)) > 0 "
    "THEN concat({blob}, base64(TRY_CAST({column} AS BLOB))) END WHEN typeof({column}) = 'VARCHAR' OR {column} IS NULL "
    "THEN {column}::VARCHAR ELSE concat({json}, to_json({column})::VARCHAR) END",
    blob=literal(BLOB),
    json=literal(JSON),
)
# In place of a text's digest where the text is not known.
_NO_DIGEST = "00" * 16
# Each column of a text takes an expression over all columns of the source.
MOST_COLUMNS = 1000


def picked(source: Source, columns: Sequence[str], key: str, table: str = "", *, advice: str = "") -> Sql:
    """The key of a source as `c0`, its columns as `c1` and so on.

    `_jammi_column` sees the columns that the source really has, whatever it is, and so says best which one is missing;
    it tells of the embedding `table` whose columns these are, or gives an `advice`.
    """
    if table:
        advice = f"'{table}' was made of it: if it has another name now, generate anew"
    column = template(
        "COLUMNS(list_filter(*, lambda c: _jammi_column(c, {name}, {source}, {advice}))) AS c{place}",
        source=literal(source.written),
        advice=literal(advice),
    )
    picked = (column(name=literal(name), place=place) for place, name in enumerate([key, *columns]))
    return sql("SELECT {} FROM {}", joined(", ", picked), source.sql)


def texts_picked(
    source: Source, columns: Sequence[str], key: str, table: str = "", *, advice: str = "", pictures: bool = False
) -> Sql:
    """As `picked`, and refuses columns that hold bytes and no text, unless these are `pictures`.

    DuckDB knows a column's type while it plans, and leaves the condition out.
    """
    rows = picked(source, columns, key, table, advice=advice)
    if not columns or pictures:
        return rows
    return sql("SELECT * FROM ({}) r WHERE {}", rows, are_texts(source, columns))


def are_texts(source: Source, columns: Sequence[str], column: Template = _COLUMN) -> Sql:
    """A condition on a row `r`, whose columns `column` names by their places: it refuses those that hold bytes."""
    is_text = template("CASE WHEN typeof({column}) = 'BLOB' THEN _jammi_refuse({refusal}, '') IS NULL ELSE true END")
    checks = (
        is_text(column=column(place), refusal=literal(_not_text(name, source.written)))
        for place, name in enumerate(columns, start=1)
    )
    return joined(" AND ", checks)


def _not_text(column: str, source: str) -> str:
    return (
        f"the column '{column}' of '{source}' is a BLOB, which is bytes and no text; name a view that has "
        f"decode({quoted(column)}) in its place, or {quoted(column)}::VARCHAR if the bytes are no UTF-8"
    )


def text_of(columns: Sequence[str], column: Template = _COLUMN, *, pictures: bool = False) -> Sql:
    """The text of a row `r`, whose columns `column` names by their places, as `picked` gives them.

    Of `pictures`, there is one column.
    """
    if pictures:
        return picture_of(column(1))
    texts = (sql("{}::VARCHAR", column(place)) for place in range(1, len(columns) + 1))
    return sql("concat_ws(' ', {})", joined(", ", texts))


def packed_text_of(
    columns: Sequence[str], title: Sequence[str] = (), column: Template = _COLUMN, *, pictures: bool = False
) -> Sql:
    """The same, with what stands before each passage: the text of the `title`, and its length before that.

    So it is one text still, and both are known from it.
    """
    if not title:
        return text_of(columns, column, pictures=pictures)
    before, text = parts_of(columns, title, column)
    return sql("concat(length({title}), ':', {title}, {text})", title=before, text=text)


def parts_of(columns: Sequence[str], title: Sequence[str], column: Template = _COLUMN) -> tuple[Sql, Sql]:
    """The texts of the `title` of a row `r`, empty where it has none, and of its other columns."""
    before = _text_of_some(columns, title, column, is_in=True) if title else literal("")
    return before, _text_of_some(columns, title, column, is_in=False)


def _text_of_some(columns: Sequence[str], names: Sequence[str], column: Template, *, is_in: bool) -> Sql:
    """The text of the columns of these names, in their order, or of the others."""
    places = [columns.index(name) + 1 for name in (names if is_in else (each for each in columns if each not in names))]
    return sql("concat_ws(' ', {})", joined(", ", (sql("{}::VARCHAR", column(place)) for place in places)))


def picture_of(value: Sql) -> Sql:
    """The text that stands for a picture: its bytes as a text, or its path or URL."""
    return _PICTURE(column=value)


def text_among(
    columns: Sequence[str], every: Sequence[str], title: Sequence[str] = (), *, pictures: bool = False
) -> Sql:
    """As `packed_text_of`, of some of the columns that `picked` has given: of `every` one."""
    places = [every.index(name) + 1 for name in columns]
    return packed_text_of(columns, title, lambda place: _COLUMN(places[place - 1]), pictures=pictures)


def check_pictures(columns: Sequence[str], model: str) -> None:
    """Raise InputError if several columns are to be one picture."""
    if len(columns) > 1:
        raise InputError(
            f"the model '{model}' takes pictures, and {enumerated(columns)} are {len(columns)} columns: name the one "
            "with the picture"
        )


def digest_of(columns: Sequence[str], title: Sequence[str] = (), *, pictures: bool = False) -> Sql:
    """The MD5 of the text of a row `r`, in hexadecimal, as SQL: NULL for a blank one. Without columns, that of none.

    With a `title`, of the packed text, and NULL where all but the title is blank.
    """
    if not columns:
        return literal(_NO_DIGEST)
    text = packed_text_of(columns, title, pictures=pictures)
    return sql("CASE WHEN {} THEN md5({}) END", is_text(columns, title, pictures=pictures), text)


def is_text(columns: Sequence[str], title: Sequence[str] = (), *, pictures: bool = False) -> Sql:
    """Whether the text of a row `r` is not blank; the title alone is no text."""
    seen = text_of(columns, pictures=pictures) if not title else _text_of_some(columns, title, _COLUMN, is_in=False)
    return sql("regexp_matches({}, {})", seen, literal(VISIBLE))


def column_names(cols: str, option: str = "columns") -> list[str]:
    """The names in `cols`, which is JSON: of a name, or of a list of them. An error says which `option` these are."""
    parsed = json.loads(cols)
    names = [parsed] if isinstance(parsed, str) else parsed
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{option} are {_as_sql(parsed)}; give a name, or a list of names that is not empty")
    if len(names) > MOST_COLUMNS:
        raise InputError(
            f"{len(names):,} columns are too many for one text: {enumerated(names[:3])} and so on; name "
            f"{MOST_COLUMNS:,} at most, or make them one column of the source"
        )
    return names


def key_columns(key: str | None) -> tuple[str, ...]:
    """The names in an optional `key`, which is JSON, too; none where it is not given. Raises InputError."""
    if key is None or key == "null":
        return ()
    refuse_comparison(key, "key")
    return tuple(column_names(key))


def _as_sql(value: object) -> str:
    """A value of JSON as somebody would write it in SQL."""
    if isinstance(value, list):
        return f"[{enumerated([_as_sql(each) for each in value])}]"
    return "NULL" if value is None else str(literal(value)) if isinstance(value, str) else json.dumps(value)


# DuckDB asks of so many columns at a time. Of a wider source, those that came before, by thread and what is asked.
_AT_ONCE = 2048
_before: dict[tuple[int, str, str, str], list[str]] = {}


def which_column(engine: Engine, column: Column, wanted: Column, source: Column, advice: Column) -> pa.Array:
    """Which of a source's columns is the wanted one. DuckDB asks for all of them at once, while it binds.

    `advice` is what to do where there is none, or empty.
    """
    names, name, of, advised = column.to_pylist(), *(each[0].as_py() for each in (wanted, source, advice))
    asked = threading.get_ident(), name, of, advised
    before = _before.pop(asked, [])
    every = names if names[0] in before else before + names
    if len(names) == _AT_ONCE:
        _before[asked] = every
    elif not any(_is_called(name, every)):
        near = _as_list(name, every) or did_you_mean(name, every) or ";"
        known = f"no column '{name}' in '{of}'{near} columns: {enumerated(every)}"
        raise InputError(f"{known}. {advised}" if advised else known)
    return pa.array(_is_called(name, names))


def _as_list(name: str, every: Sequence[str]) -> str:
    """What to write in place of several columns in one text, as DuckDB writes a list, too; empty if it is no such."""
    names = [each.strip() for each in name.removeprefix("[").removesuffix("]").split(",")]
    if names == [name] or not all(any(_is_called(each, every)) for each in names):
        return ""
    return f"; write the columns with text as a list, {_as_sql(names)}, and one column as the key;"


def _is_called(name: str, names: Sequence[str]) -> list[bool]:
    return [n == name for n in names] if name in names else [folded(n) == folded(name) for n in names]
