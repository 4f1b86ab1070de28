"""Every error that jammi_duck raises, and the one warning.

JammiError
├── ConfigError          an option has a value that cannot be used
├── InputError           an argument is wrong: a column, a key, a k, a role, a filter
├── ModelError           a model is not supported, or its files have changed
│   └── NoModelError     a model cannot be found
├── EncodingError        a text could not be embedded
├── NotFoundError        there is no such embedding table
│   └── NoSourceError    there is no such table, view or file
├── StorageError         a location cannot be read or written
│   ├── DamagedError     a file is missing, truncated, altered, or belongs to another build
│   └── UnsupportedError this version does not understand a file, and leaves it alone
├── BuildError           a build cannot continue
│   └── StateError       a build or a table has changed meanwhile
└── DeniedError          a client of the server may not do that

JammiWarning             a search was slower than usual, or may not do what was meant
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

_LONG_WORD = re.compile(r"(\S{200})\S{200,}")
_MOST_TOLD = 10_000


class JammiError(Exception):
    """The base of all errors of this package. Very long names are cut in its text, and zero bytes are shown."""

    def __str__(self) -> str:
        """What went wrong."""
        told = _LONG_WORD.sub(r"\1…", super().__str__()).replace("\x00", "\\0")
        return told if len(told) <= _MOST_TOLD else f"{told[: _MOST_TOLD // 2]} … {told[-_MOST_TOLD // 2 :]}"


class ConfigError(JammiError):
    """An option has a value that cannot be used."""


class InputError(JammiError):
    """An argument is wrong: a column, a key, a k, a role, a filter."""


class ModelError(JammiError):
    """A model is not supported, or its files have changed."""


class NoModelError(ModelError):
    """A model cannot be found."""


class EncodingError(JammiError):
    """A text could not be embedded."""


class NotFoundError(JammiError):
    """There is no such embedding table. `message` says so; `remedy` is the SQL that makes one, if there is any."""

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

    A function that reads a file returns it whole and understood, or raises one of three errors: DamagedError,
    UnsupportedError, or StorageError itself if the file cannot be read right now. Only DamagedError proves damage.
    """


class DamagedError(StorageError):
    """A file is proven to be missing, truncated, altered, or of another build."""


class UnsupportedError(StorageError):
    """A file may be whole, but this version does not understand it. It is never deleted or replaced."""


class BuildError(JammiError):
    """A build cannot continue."""


class StateError(BuildError):
    """A build or a table has changed meanwhile, so that the operation does not apply."""


class DeniedError(JammiError):
    """A client of the server may not do that."""


class JammiWarning(UserWarning):
    """A search was slower than usual, with the same rows, or may not do what was meant."""


# A comparison of names takes a few microseconds.
_MOST_LOOKED_AT = 10_000
_LONGEST_NAME = 200
_MOST_NAMES = 50


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `wrong`, or an empty text if none is near."""
    near = nearest(wrong, known)
    return f"; did you mean '{near}'?" if near is not None else ""


def _shortened(name: str) -> str:
    """A name as an error shows it: only the start if it is very long."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def enumerated(names: Sequence[str]) -> str:
    """Names as an error lists them: only the first if there are very many."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(_shortened, names[:_MOST_NAMES])) + more


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `wrong`, or None if none is near. Checks a limited number of names, none too long."""
    if len(wrong) > _LONGEST_NAME:
        return None
    some = itertools.islice(known, _MOST_LOOKED_AT)
    by_folded = {name.casefold(): name for name in some if len(name) <= _LONGEST_NAME}
    # Imported here, because an installation does without.
    import difflib

    near = difflib.get_close_matches(wrong.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None
