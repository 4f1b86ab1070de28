"""Reads what is to be embedded of a source: the columns of one embedding, or of several by their labels."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from jammi_duck.errors import InputError, enumerated
from jammi_duck.sql import folded, literal
from jammi_duck.udfs.rows import MOST_COLUMNS, column_names

# The columns of each embedding by its label, which is None for one alone.
Labelled: TypeAlias = Mapping[str | None, Sequence[str]]

# The texts of one query share the memory of one embedding, and the files of each are open.
MOST_LABELS = 32
_TYPED = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_LETTERS = "give 1 to 64 letters, digits, or any of . _ - (not a dot first), without __embedding__"
_SUCH_AS = "such as {'title': 'title', 'body': ['body', 'summary']}"


def labelled_columns(cols: str) -> Labelled:
    """The columns in `cols`, which is JSON: a name, a list of names, or an object of these by their labels.

    Raises:
        InputError: it is something else, or two of the embeddings would be the same.
    """
    parsed = json.loads(cols)
    if not isinstance(parsed, dict):
        return {None: column_names(cols)}
    if not parsed:
        raise InputError(f"columns are empty; give a label and its columns for each embedding, {_SUCH_AS}")
    if len(parsed) > MOST_LABELS:
        raise InputError(f"{len(parsed):,} embeddings are too many for one call: give {MOST_LABELS} at most")
    named = {label: column_names(json.dumps(names), f"the columns of '{label}'") for label, names in parsed.items()}
    _check_labels(list(named))
    _check_different(named)
    every = dict.fromkeys(name for names in named.values() for name in names)
    if len(every) > MOST_COLUMNS:
        raise InputError(f"{len(every):,} columns are too many for one call: name {MOST_COLUMNS:,} at most")
    return dict(named)


def check_name(name: str | None) -> None:
    """Raise InputError where an embedding table cannot be called so."""
    if name is not None and not can_be_typed(name):
        raise InputError(f"name := {literal(name)} cannot be the name of an embedding table: {_LETTERS}")


def can_be_typed(name: str) -> bool:
    """Whether a name needs no quotes, wherever it stands."""
    return _TYPED.fullmatch(name) is not None and "__embedding__" not in name


def _check_labels(labels: Sequence[str]) -> None:
    for label in labels:
        if not can_be_typed(label):
            raise InputError(
                f"{literal(label)} cannot be the label of an embedding: {_LETTERS}. It need not be the name of a "
                f"column, {_SUCH_AS}"
            )
    known: dict[str, str] = {}
    for label in labels:
        if (other := known.setdefault(folded(label), label)) != label:
            raise InputError(f"'{other}' and '{label}' are the same label; call one of them something else")


def _check_different(named: Mapping[str, Sequence[str]]) -> None:
    known: dict[tuple[str, ...], str] = {}
    for label, names in named.items():
        columns = tuple(map(folded, names))
        if repeated := [name for place, name in enumerate(names) if columns[place] in columns[:place]]:
            raise InputError(f"the column '{repeated[0]}' is there twice for '{label}'; name it once")
        if (other := known.setdefault(columns, label)) != label:
            raise InputError(
                f"'{other}' and '{label}' are both of {enumerated(names)}, and would be the same embedding; leave out "
                "one of them"
            )
