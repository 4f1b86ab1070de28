"""What the methods for Python raise: the errors of this package, where DuckDB raises its own.

DuckDB makes a text of an exception that a function of Python's raises, and an exception of its own with that text in
it. So each call of a method keeps what is raised while it runs, on whichever thread, and finds its own by the text.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections import deque
from collections.abc import Iterable, Iterator

import duckdb

from jammi_duck.config.redaction import redacted
from jammi_duck.errors import InputError, JammiError, NoSourceError, StorageError, did_you_mean

# By the identity of the call. Kept with DuckDB, also when this module is loaded again.
_calls: dict[int, deque[BaseException]] = vars(duckdb).setdefault("_jammi_duck_calls", {})
_MOST = 100
_ASIDE = re.compile(r"(?:[\w ]+ Error: )?(?P<message>.*?)(?:\n\n(?:LINE \d+:|At:\n).*)?", re.DOTALL)
_NO_SOURCE = re.compile(
    r"(?:Table with name |No files found that match the pattern \")(?P<name>.+?)(?:\"$| does not exist)"
    r"(?:.*Did you mean \"(?P<near>[^\"]+)\")?",
    re.DOTALL,
)
_WRONG = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)


def keep(error: BaseException) -> None:
    """Keep what a function, or a file system, of ours has raised for the calls that run."""
    for raised in list(_calls.values()):
        raised.append(error)


@contextlib.contextmanager
def errors_of_ours() -> Iterator[None]:
    """Raise the errors of this package in place of DuckDB's, which are their causes; an interrupt stays DuckDB's."""
    raised: deque[BaseException] = deque(maxlen=_MOST)
    _calls[id(raised)] = raised
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        text = redacted(str(error))
        cause = error if text == str(error) else type(error)(text)
        # From here on, no other thread adds to them.
        _calls.pop(id(raised))
        raise _ours(error, tuple(raised)) from cause
    finally:
        _calls.pop(id(raised), None)
        # Whoever holds the error would hold these, with all that their functions worked on.
        raised.clear()


def _ours(error: duckdb.Error, raised: Iterable[BaseException]) -> BaseException:
    """The error of ours that DuckDB tells of, or what DuckDB's own means."""
    # Another thread may have raised one whose text is a part of this one's.
    told = sorted((each for each in raised if _text(each) in str(error)), key=lambda each: len(_text(each)))
    for each in reversed(told):
        if isinstance(each, JammiError | Warning | KeyboardInterrupt):
            return _redacted(copy.copy(each))
    for each in reversed(told):
        if not isinstance(each, duckdb.Error):
            return JammiError(redacted(_text(each)))
    return _of_duckdbs(told[0] if told else error)


def _text(error: BaseException) -> str:
    """An exception as DuckDB has it."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _redacted(error: BaseException) -> BaseException:
    """Without users and signatures of URLs, which a source may have."""
    error.args = tuple(redacted(each) if isinstance(each, str) else each for each in error.args)
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, redacted(value))
    return error


def _of_duckdbs(error: BaseException) -> JammiError:
    told = _ASIDE.fullmatch(redacted(str(error)))
    text = told["message"] if told else redacted(str(error))
    missing = _NO_SOURCE.match(text) if isinstance(error, duckdb.CatalogException | duckdb.IOException) else None
    if missing:
        name, near = missing["name"], missing["near"]
        # DuckDB's is the nearest of all, however far.
        meant = did_you_mean(name, [near]) if near else ""
        return NoSourceError(f"there is no table, view or file '{name}'{meant}", name)
    if isinstance(error, _WRONG):
        return InputError(text)
    return StorageError(text) if isinstance(error, duckdb.IOException) else JammiError(text)
