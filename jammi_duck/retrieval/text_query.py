"""Reads what people type into a search box."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from jammi_duck.storage.words.analyser import Analyser, tokens
from jammi_duck.storage.words.bm25 import Clause


@dataclass(frozen=True)
class TextQuery:
    """Clauses with their weights in the score, clauses that a row must match, and clauses that it must not.

    `plain` is the text for the model.
    """

    scored: tuple[tuple[Clause, float], ...]
    must: tuple[Clause, ...]
    without: tuple[Clause, ...]
    plain: str


def parse(text: str, analyser: Analyser) -> TextQuery:
    """The clauses of a text."""
    weights: Counter[Clause] = Counter()
    for token in tokens(text):
        for term in analyser.token(token).terms:
            weights[Clause(((term.text, 0),))] += 1.0 if term.is_own else 0.5  # type: ignore[assignment]
    return TextQuery(tuple(weights.items()), (), (), text)
