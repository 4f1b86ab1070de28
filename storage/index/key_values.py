"""One text for each value of a key, such as 1 for 1, 1.0 and 01, because the type of a key may change over time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation

import pyarrow as pa

# Enough for every number of DuckDB.
_DIGITS = Context(prec=800)
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\)")
_TIMES = re.compile(r"DATE|TIMESTAMP(_S|_MS|_NS| WITH TIME ZONE)?")
# Keys had no time zone when they were embedded, and DuckDB reads them in the session's time zone.
_MOMENT = re.compile(r"(\d{4,}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[+-]\d\d(?::\d\d)*)?")
_BOOLEANS = dict.fromkeys(("1", "t", "y", "yes"), "true") | dict.fromkeys(("0", "f", "n", "no"), "false")


@dataclass(frozen=True)
class Form:
    """A common text form for values of related types; texts that match `plain` have it already."""

    plain: str
    of: Callable[[str], str]

    def texts(self, texts: pa.StringArray) -> pa.StringArray:
        """The texts in this form; texts that cannot be converted stay as they are."""
        # Imported late, because a search without a filter does not need it.
        import pyarrow.compute as pc

        plain = pc.match_substring_regex(texts, self.plain)
        if pc.all(plain, min_count=0).as_py():
            return texts
        return pa.array([None if text is None else self.of(text) for text in texts.to_pylist()], texts.type)


def form_of(key_type: str | None) -> Form | None:
    """The form for keys of an SQL type; None for a type whose values have only one text."""
    if key_type is None:
        return None
    if _NUMBERS.fullmatch(key_type):
        return _NUMBER
    return _TIME if _TIMES.fullmatch(key_type) else _BY_TYPE.get(key_type)


def _number(text: str) -> str:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return text
    if not value.is_finite():
        return str(value)
    return format(value.normalize(_DIGITS), "f") if value else "0"


def _time(text: str) -> str:
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        return text
    day, clock, fraction = found.groups()
    parts = (fraction or "").rstrip("0")
    return day if clock == "00:00:00" and not parts else f"{day} {clock}" + (f".{parts}" if parts else "")


_NUMBER = Form(r"^-?[1-9][0-9]*$|^0$", _number)
_TIME = Form(r"^[0-9]+-[0-9]+-[0-9]+$", _time)
_BY_TYPE = {
    "UUID": Form(r"^[0-9a-f-]+$", str.lower),
    "BOOLEAN": Form(r"^true$|^false$", lambda text: _BOOLEANS.get(text.strip().lower(), text.lower())),
}
