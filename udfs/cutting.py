"""Reads the option `passages`: whether texts are cut, and how."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jammi_duck.errors import InputError, did_you_mean, enumerated
from jammi_duck.sql import folded
from jammi_duck.udfs.rows import column_names
from jammi_duck.work.generate import Cutting

_FIELDS = ("tokens", "overlap", "by", "title")
_PLACES = ("start", "end")
_EXAMPLE = "{'tokens': 200, 'overlap': 30, 'by': 'paragraph', 'title': 'title'}"


@dataclass(frozen=True)
class Places:
    """The columns of imported vectors that say where in their texts the passages are."""

    start: str
    end: str

    def __iter__(self) -> Iterator[str]:
        """Both names."""
        return iter((self.start, self.end))


def places_of(passages: str | None) -> Places | None:
    """The columns that an import reads places from, by the option as JSON; None if it names none. Raises InputError."""
    asked = None if passages is None else json.loads(passages)
    names = [asked.get(name) for name in _PLACES] if isinstance(asked, dict) else [None, None]
    if names == [None, None]:
        return None
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            f"start and end are {json.dumps(names[0])} and {json.dumps(names[1])}; give both, each the name of a "
            "column of the vectors' table, or neither"
        )
    return Places(*map(str, names))


def cutting_of(passages: str | None, *, names_places: bool = False) -> Cutting | None:
    """How texts are to be cut, by the option as JSON; None if they are not. Raises InputError.

    For an import it may also say which columns have the places of passages; see `places_of`.
    """
    fields = (*_FIELDS, *_PLACES) if names_places else _FIELDS
    asked = None if passages is None else json.loads(passages)
    if asked is None or asked is False:
        return None
    if asked is True:
        return Cutting()
    if not isinstance(asked, dict):
        raise InputError(f"passages is {json.dumps(asked)}; give true, or how texts are cut: {_EXAMPLE}")
    for name in asked:
        if name not in fields:
            hint = did_you_mean(name, fields) or ";"
            raise InputError(f"passages has no '{name}'{hint} it has {enumerated(fields)}: {_EXAMPLE}")
    numbers = {name: _whole(name, asked.get(name)) for name in ("tokens", "overlap")}
    by, title = asked.get("by"), asked.get("title")
    if by is not None and not isinstance(by, str):
        raise InputError(f"by is {json.dumps(by)}; it must be a text, such as 'paragraph'")
    titles = () if title is None else tuple(column_names(json.dumps(title), "the columns in title"))
    return Cutting(**numbers, by=by, title=titles)


def _whole(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InputError(f"{name} is {json.dumps(value)}; it must be a whole number of tokens, such as 200")


def with_title(columns: Sequence[str], cutting: Cutting | None) -> tuple[tuple[str, ...], Cutting | None]:
    """The columns, with those of the title, and how they are cut, which names the title as the columns do.

    Raises InputError if there is nothing beside the title.
    """
    if cutting is None or not cutting.title:
        return tuple(columns), cutting
    spelt = {folded(name): name for name in (*reversed(cutting.title), *columns)}
    title = tuple(dict.fromkeys(spelt[folded(name)] for name in cutting.title))
    if set(columns) <= set(title):
        raise InputError(
            f"title is {enumerated(title)}, and there is no other column whose text is to be cut: name the columns "
            "with the text as well"
        )
    every = (*(name for name in title if name not in columns), *columns)
    return every, dataclasses.replace(cutting, title=title)
