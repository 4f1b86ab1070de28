"""The log of jammi_duck on standard error: one line for each build, each stage of a build, and each error.

In Python the records go to the logger `jammi_duck`, as with any library; `show` is for programs that have no logging of
their own, and for users who asked for a log in the configuration.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal

log = logging.getLogger("jammi_duck")
log.addHandler(logging.NullHandler())


class _OneLine(logging.Formatter):
    """Time in UTC, level and message; a line break in a name stays within the line."""

    converter = time.gmtime  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n")


def show_program(level: str, form: Literal["text", "json"], is_set: bool) -> None:
    """As `show`, for a program: on a terminal, if no level was set, only warnings and errors, without the time."""
    if sys.stderr.isatty() and not is_set and form == "text":
        _write(logging.WARNING, logging.Formatter("jammi-duck: %(message)s"))
    else:
        show(level, form)


def show(level: str, form: Literal["text", "json"]) -> None:
    """Write the log to standard error from now on, unless the program has its own logging.

    `level` is debug, info, warning or error. In `json`, a line is an object with time, level, message, and the contents
    of the message as fields: stage, source, embedding_table, rows, seconds and the like.
    """
    if logging.getLogger().handlers or any(not isinstance(each, logging.NullHandler) for each in log.handlers):
        return
    _write(level.upper(), _json() if form == "json" else _OneLine("%(asctime)s %(levelname)s %(message)s"))


def _write(level: str | int, formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    log.addHandler(handler)
    log.setLevel(level)
    # Otherwise logging that the program sets up later would write each line a second time.
    log.propagate = False


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Json(JsonFormatter):
        converter = _OneLine.converter  # type: ignore[assignment]
        default_time_format, default_msec_format = _OneLine.default_time_format, _OneLine.default_msec_format

    names = {"asctime": "time", "levelname": "level"}
    return Json("%(asctime)s %(levelname)s %(message)s", rename_fields=names, json_ensure_ascii=False)
