"""Writes SQL for the passages that a search has found: their columns, and their texts, cut from the source's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jammi_duck.sql import Sql, sql, template
from jammi_duck.types import Definition
from jammi_duck.udfs.rows import packed_text_of, text_of

# A column with text, by its place in the definition.
Placed = Callable[[int], Sql]
# The names of the columns of passages, without the underscore.
NAMES = "passage|start|end|passage_text"
# A row's text with the title before it is known by its digest: the passage is of no other text.
_IS_SAME = template("md5({packed}) = _jammi_row_digest")
_CUT = template('substring({text}, "+"(_jammi_start, 1), "-"(_jammi_end, _jammi_start))')


def passage_text(definition: Definition, column: Placed) -> Sql:
    """The text of a hit's passage: NULL where it is not known where it is, or the row's text has changed."""
    if not definition.columns:
        return sql("NULL::VARCHAR")
    return sql("CASE WHEN {} THEN {} END", _is_same(definition, column), _CUT(text=_text(definition, column)))


def text_to_rerank(definition: Definition, column: Placed) -> Sql:
    """What a re-ranker reads of a hit's row: its title and passage, or all of its text where that is not known."""
    every = text_of(definition.columns, column)
    if not definition.passages:
        return every
    cut = _CUT(text=_text(definition, column))
    if definition.title_columns:
        cut = sql("concat_ws(' ', {}, {})", _text_among(definition, definition.title_columns, column), cut)
    is_known = sql("_jammi_start IS NOT NULL AND {}", _is_same(definition, column))
    return sql("CASE WHEN {} THEN {} ELSE {} END", is_known, cut, every)


def passage_columns(text: Sql) -> Sql:
    """The columns of a passage in a result, after the others."""
    return sql(
        ", _jammi_passage AS _passage, _jammi_start AS _start, _jammi_end AS _end, {} AS _passage_text",
        text,
    )


def _is_same(definition: Definition, column: Placed) -> Sql:
    return _IS_SAME(packed=packed_text_of(definition.columns, definition.title_columns, column))


def _text(definition: Definition, column: Placed) -> Sql:
    """The text that passages are cut from."""
    return _text_among(definition, definition.text_columns, column)


def _text_among(definition: Definition, names: Sequence[str], column: Placed) -> Sql:
    places = [definition.columns.index(name) + 1 for name in names]
    return text_of(names, lambda place: column(places[place - 1]))
