"""Prints the results of commands: rows as a table or as JSON, and single facts one per line."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping

import duckdb

_UNLIMITED = 1_000_000


def print_rows(rows: duckdb.DuckDBPyRelation) -> None:
    """Print a table as wide as the terminal, or of full width if there is no terminal, so that nothing is cut off."""
    drawn = io.StringIO()
    with contextlib.redirect_stdout(drawn):
        if sys.__stdout__ is not None and sys.__stdout__.isatty():
            rows.show(max_width=shutil.get_terminal_size().columns, max_rows=_UNLIMITED)
        else:
            rows.show(max_width=_UNLIMITED, max_rows=_UNLIMITED, max_col_width=_UNLIMITED)
    print(drawn.getvalue().rstrip())


def print_json(rows: duckdb.DuckDBPyRelation) -> None:
    """Print a JSON list with an object for each row; NaN and infinity become null."""
    _print_list(_strict(text) for (text,) in rows.set_alias("r").project("system.main.to_json(r)::VARCHAR").fetchall())


def print_objects(objects: Iterable[Mapping[str, object]]) -> None:
    """Print a JSON list of objects."""
    _print_list(json.dumps(each, ensure_ascii=False) for each in objects)


def _print_list(texts: Iterable[str]) -> None:
    lines = ",\n".join(texts)
    if (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8":
        lines = "".join(letter if letter.isascii() else json.dumps(letter)[1:-1] for letter in lines)
    print(f"[\n{lines}\n]" if lines else "[]")


def _strict(text: str) -> str:
    if "NaN" not in text and "Infinity" not in text:
        return text
    return json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)


def fact_lines(facts: Mapping[str, object]) -> Iterator[str]:
    """One line for each fact: its name and its value."""
    width = max(map(len, facts)) + 2
    yield from (f"{name:<{width}}{value}" for name, value in facts.items())
