"""Every error that jammi_duck raises, and the one warning.

JammiError
├── ConfigError          an option has a value that cannot be used
├── InputError           an argument is wrong: a column, a key, a k, a role, a filter
├── ModelError           a model is not supported, or is not what it was
│   └── NoModelError     a model cannot be found
├── EncodingError        a text could not be embedded
├── NotFoundError        there is no such embedding table
│   └── NoSourceError    there is no such table, view or file
├── StorageError         a location cannot be read or written
│   ├── DamagedError     a file is missing, cut short, altered, or another build's
│   └── UnsupportedError a file holds what this version does not understand; it is left alone
└── BuildError           a build cannot go on
    └── StateError       a build is not in the state that a move needs

JammiWarning             a search took a slower way, or may not be what was meant
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence

_LONG_WORD = re.compile(r"(\S{200})\S{200,}")
_MOST_TOLD = 10_000


class JammiError(Exception):
    """The base of all errors of this package. Its text cuts names that are very long, and shows zero bytes."""

    def __str__(self) -> str:
        """What went wrong."""
        told = _LONG_WORD.sub(r"\1…", super().__str__()).replace("\x00", "\\0")
        return told if len(told) <= _MOST_TOLD else f"{told[: _MOST_TOLD // 2]} … {told[-_MOST_TOLD // 2 :]}"


class ConfigError(JammiError):
    """An option has a value that cannot be used."""


class InputError(JammiError):
    """An argument is wrong: a column, a key, a k, a role, a filter."""


class ModelError(JammiError):
    """A model is not supported, or is not what it was."""


class NoModelError(ModelError):
    """A model cannot be found."""


class EncodingError(JammiError):
    """A text could not be embedded."""


class NotFoundError(JammiError):
    """There is no such embedding table. `message` says so; `remedy` is what makes one, in SQL, where something does."""

    def __init__(self, message: str = "", remedy: str | None = None) -> None:
        super().__init__(f"{message}. {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class NoSourceError(NotFoundError):
    """There is no table, view or file of this `name`."""

    def __init__(self, message: str = "", name: str = "") -> None:
        super().__init__(message)
        self.name = name


class StorageError(JammiError):
    """A location cannot be read or written.

    What reads a file gives it whole and understood, or raises one of three: DamagedError, UnsupportedError, or this one
    itself, where the file cannot be read right now. Only DamagedError says anything against the file.
    """


class DamagedError(StorageError):
    """A file is missing, cut short, altered, or belongs to another build: that is proven."""


class UnsupportedError(StorageError):
    """A file may be whole, but holds what this version does not understand: nothing deletes or replaces it."""


class BuildError(JammiError):
    """A build cannot go on."""


class StateError(BuildError):
    """A build is not in the state that a move needs."""


class JammiWarning(UserWarning):
    """A search took a slower way, whose rows are the same, or it may not be what was meant."""


# A comparison of names takes some microseconds.
_MOST_LOOKED_AT = 10_000
_LONGEST_NAME = 200
_MOST_NAMES = 50


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `wrong`, or nothing where none is near."""
    near = nearest(wrong, known)
    return f"; did you mean '{near}'?" if near is not None else ""


def _shortened(name: str) -> str:
    """A name as an error shows it: the start of one that is very long."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def enumerated(names: Sequence[str]) -> str:
    """Names as an error lists them: the first of very many."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(_shortened, names[:_MOST_NAMES])) + more


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `wrong`, or None where none is near. Only so many are looked at, and none too long."""
    if len(wrong) > _LONGEST_NAME:
        return None
    some = itertools.islice(known, _MOST_LOOKED_AT)
    by_folded = {name.casefold(): name for name in some if len(name) <= _LONGEST_NAME}
    near = difflib.get_close_matches(wrong.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None
