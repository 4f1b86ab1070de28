"""Converts arguments to plain values: numpy numbers, paths, and whole numbers of any SQL type."""

from __future__ import annotations

import contextlib
import operator
import os
from decimal import Decimal, InvalidOperation
from typing import Any

from jammi_duck.errors import InputError


def plain(value: Any) -> Any:  # noqa: ANN401 - an argument of any type
    """A path as text, numpy's scalars and other whole numbers as Python's own; everything else as it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    with contextlib.suppress(TypeError):
        return operator.index(value)
    return value


def parse_model(text: str | None) -> str | None:
    """The name of a model.

    Raises:
        InputError: it is what SQL makes of a comparison, such as `filter = '...'` in place of `filter := '...'`.
    """
    _refuse_comparison(text, "model")
    return text


def parse_language(text: str | None) -> str | None:
    """The name of a language.

    Raises:
        InputError: it is what SQL makes of a comparison.
    """
    _refuse_comparison(text, "language")
    return text


def _refuse_comparison(text: str | None, option: str) -> None:
    if text in ("true", "false"):
        raise InputError(
            f"{option} is {text}: an optional argument is written name := value, and what stands in its place is a "
            "comparison, name = value"
        )


def parse_int(text: str | None, option: str) -> int | None:
    """The whole number that an option has, as DuckDB writes it: of any type, such as 10, 10.00 or 1e3.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    _refuse_comparison(text, option)
    try:
        number = Decimal(text)
        if number.is_finite() and number == number.to_integral_value() and number.adjusted() < 100:
            return int(number)
    except InvalidOperation:
        pass
    raise InputError(f"{option} is {text}; it must be a whole number")


def parse_float(text: str | None, option: str) -> float | None:
    """The number that an option has, as DuckDB writes it.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return float(text)
    raise InputError(f"{option} is {text}; it must be a number")
