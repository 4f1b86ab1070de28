"""Converts arguments to plain values: numpy numbers, paths, and whole numbers of any SQL type."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Mapping, Set
from decimal import Decimal, InvalidOperation
from typing import Any

from jammi_duck.encoder.blobs import blob_of
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


def texts(text: object) -> list[str | None]:
    """The texts that Python gives: one or None, or several.

    Raises:
        InputError: it is neither, or one of several is no text.
    """
    if text is None or isinstance(text, str):
        return [text]
    found = _listed(text)
    if found is None:
        raise InputError(f"text is of type {type(text).__name__}; it must be a text (str), or a list of texts")
    for i, each in enumerate(found):
        if each is not None and not isinstance(each, str):
            raise InputError(f"text[{i}] is of type {type(each).__name__}; each must be a text (str), or None")
    return found


def query(asked: object) -> str | list[float] | None:
    """What Python asks a search for: a text, a picture, or a vector.

    Raises:
        InputError: it is neither.
    """
    if asked is None or isinstance(asked, str):
        return asked
    if isinstance(asked, bytes | bytearray | memoryview):
        return blob_of(bytes(asked))
    found = _listed(asked)
    if found is not None and not any(isinstance(each, str) for each in found):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return [float(number) for number in found]
    what = f"of type {type(asked).__name__}" if found is None else "a list, and not of numbers alone"
    raise InputError(f"the query is {what}; it must be a text (str), a vector: a list of numbers, or a picture (bytes)")


def parameters(given: object) -> Mapping[str, object]:
    """The values that Python gives for the names in a filter.

    Raises:
        InputError: they are no dict with names as its keys.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return given
    what = "a dict with a key that is no text" if isinstance(given, Mapping) else f"of type {type(given).__name__}"
    raise InputError(f"parameters is {what}; it must be a dict such as {{'center': 'ARC'}}, for $center in the filter")


def _listed(value: Any) -> list[Any] | None:  # noqa: ANN401 - an argument of any type
    """The elements of a list, an array or a column; None if it is none."""
    if not isinstance(value, str | bytes | bytearray | Mapping | Set):
        with contextlib.suppress(TypeError):
            return list(value)
    return None


def parse_model(text: str | None) -> str | None:
    """The name of a model.

    Raises:
        InputError: it is what SQL makes of a comparison, such as `filter = '...'` in place of `filter := '...'`.
    """
    refuse_comparison(text, "model")
    return text


def parse_language(text: str | None) -> str | None:
    """The name of a language.

    Raises:
        InputError: it is what SQL makes of a comparison.
    """
    refuse_comparison(text, "language")
    return text


def refuse_comparison(text: str | None, option: str) -> None:
    """Raise InputError where an option has what SQL makes of a comparison."""
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
    refuse_comparison(text, option)
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
