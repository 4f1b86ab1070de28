"""The scalar function `jammi_snippet`: the passage of a text that answers a query best."""

from __future__ import annotations

import functools

import pyarrow as pa

from jammi_duck.errors import InputError
from jammi_duck.retrieval.snippets import snippet
from jammi_duck.retrieval.text_query import TextQuery, parse
from jammi_duck.storage.words.analyser import ENGLISH, analyser
from jammi_duck.udfs.arguments import parse_int
from jammi_duck.udfs.columns import Column, rows_in_turn
from jammi_duck.udfs.engine import Engine

_WORDS, _MARK = 30, "**"


def snippets(
    _engine: Engine, texts: Column, queries: Column, words: Column, marks: Column, languages: Column
) -> pa.Array:
    """The snippets of texts, NULL for a text or a query that is NULL; each row may have other options."""

    @functools.cache
    def parsed(query: str, language: str) -> TextQuery:
        return parse(query, analyser(language))

    found: list[str | None] = []
    for text, query, most, mark, language in rows_in_turn([texts, queries, words, marks, languages]):
        count, read_as = _parse_words(most), analyser(language or ENGLISH)
        if text is None or query is None:
            found.append(None)
        else:
            asked = parsed(query, read_as.language)
            found.append(snippet(text, asked, read_as, count, _MARK if mark is None else mark))
    return pa.array(found, pa.string())


def _parse_words(text: str | None) -> int:
    words = parse_int(text, "words")
    if words is not None and words < 1:
        raise InputError(f"words is {words}; it must be at least 1")
    return _WORDS if words is None else words
