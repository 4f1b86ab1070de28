"""The scalar functions `jammi_split`, which cuts texts, and `_jammi_slices`, for passages that are known.

Both count in code points.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from jammi_duck.encoder.passages import Cutter, resolve_rule
from jammi_duck.errors import InputError
from jammi_duck.udfs.arguments import parse_int, parse_model
from jammi_duck.udfs.columns import Column, rows_in_turn, table
from jammi_duck.udfs.engine import Engine


@dataclass(frozen=True)
class PassageOfText:
    """A passage of a text: its number, where it starts and ends, in characters, and itself."""

    _passage: Annotated[int, "INTEGER"]
    _start: int
    _end: int
    _passage_text: str


def split(engine: Engine, texts: Column, tokens: Column, overlap: Column, by: Column, models: Column) -> pa.Array:
    """The passages of texts, NULL for a NULL; each row may have other options."""

    @functools.cache
    def cutter(tokens: str | None, overlap: str | None, by: str | None, model: str | None) -> Cutter:
        name = parse_model(model) or engine.default_model
        encoder = engine.encoders.get(name)
        if encoder.takes_images:
            raise InputError(f"'{name}' takes pictures, which are not cut into passages: give a model for texts")
        rule = resolve_rule(encoder, parse_int(tokens, "tokens"), parse_int(overlap, "overlap"), by)
        return Cutter(encoder, rule)

    found: list[list[PassageOfText] | None] = []
    for text, *options in rows_in_turn([texts, tokens, overlap, by, models]):
        mine = cutter(*options)
        found.append(None if text is None else _passages(mine, text))
    return table(found, PassageOfText)


def _passages(cutter: Cutter, text: str) -> list[PassageOfText]:
    cuts = cutter.cut(text)
    places = zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True)
    return [PassageOfText(number, start, end, text[start:end]) for number, (start, end) in enumerate(places)]


def slices(_engine: Engine, texts: Column, starts: Column, ends: Column) -> pa.Array:
    """The slices of texts between places that are counted in code points; NULL where a place is NULL."""
    found: list[list[str | None] | None] = []
    for text, firsts, lasts in rows_in_turn([texts, starts, ends]):
        if text is None or firsts is None or lasts is None:
            found.append(None)
            continue
        places = zip(firsts, lasts, strict=True)
        found.append([None if start is None or end is None else text[start:end] for start, end in places])
    return pa.array(found, pa.list_(pa.string()))
