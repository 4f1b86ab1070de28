"""Asks a connection the small queries of a plain search; see `udfs.plain_search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb

from jammi_duck.sql import Template
from jammi_duck.udfs.plain_search import Look, Question, answer_of, look_of
from jammi_duck.udfs.sources import SearchPath


def plainly_found(
    seen: Callable[[Look], tuple[list[tuple[Any, ...]], Sequence[str]]],
    with_engine: Callable[..., Any],
    search_path: SearchPath,
    question: Question,
    databases: Mapping[str, str | None] | None = None,
) -> tuple[Template, list[list[Any]]] | None:
    """The query for the rows that a search finds in a plain table, from SQL for each value, and these values.

    None where it is no plain table, or the macro must say what is wrong. `seen` asks the caller's
    connection, whose search path this is, for the rows of `Look.state` and the names of the columns of `Look.columns`;
    `with_engine` calls with the engine first. `databases` are those
    attached, where nobody attaches others.

    Raises:
        duckdb.Error: in the caller's transaction, nothing can be asked any more.
    """
    try:
        look = with_engine(look_of, search_path, question, databases)
        if look is None:
            return None
        ((rows, key_type, *path),), columns = seen(look)
        if SearchPath(*path) != search_path:
            return None
        found: tuple[Template, list[list[Any]]] | None = with_engine(answer_of, question, look, columns, rows, key_type)
        return found
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
        return None
    except duckdb.Error:
        raise
    except Exception:
        # What it is, the macro says, in which it is raised again.
        return None
