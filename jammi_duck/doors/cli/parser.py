"""The parser of all commands, and how their errors become messages and exit codes."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import duckdb

from jammi_duck.config import logs
from jammi_duck.config.redaction import redacted
from jammi_duck.config.settings import load
from jammi_duck.doors.cli import (
    INTERRUPTED,
    column_upkeep,
    columns,
    configuration,
    connection,
    evaluating,
    following,
    model,
    models,
    serving,
    shell,
    sources,
    tables,
)
from jammi_duck.doors.cli.commands import FAILED, add_command
from jammi_duck.doors.demo import run as run_demo
from jammi_duck.errors import ConfigError, InputError, JammiError, NotFoundError
from jammi_duck.raised import errors_of_ours
from jammi_duck.version import __version__
from jammi_duck.work.interrupts import listen

WRONG_CALL = 2
FIRST_FREE = 3

_DESCRIPTION = """\
Embed, store and search text in DuckDB, in plain SQL.

  jammi-duck demo          try it on this machine
  jammi-duck generate patents.parquet --columns title,abstract --key id
  jammi-duck search patents.parquet "membrane that cleans water"
"""
_EPILOG = """\
More, with --help: passages, sql, size, instrument, cleanup, follow, unfollow. Exit codes:
0 done; 1 failed; 2 wrong call; 3 some rows not embedded; 4 rows have changed; 130 Ctrl-C.
"""
_DEMO = """\
Embed and search the docstrings of Python's standard library.

  jammi-duck demo --folder /tmp/pydoc
"""
_WRONG = (ConfigError, InputError, NotFoundError)


def open_streams() -> None:
    """Replace closed standard streams, before a database file gets their numbers, and never fail to print."""
    while (number := os.open(os.devnull, os.O_RDWR)) < FIRST_FREE:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(words: Sequence[str]) -> int:
    """Run a command line, given as its words; returns the exit code, which `jammi-duck --help` explains."""
    whole = parser()
    try:
        " ".join(words).encode()
    except UnicodeEncodeError:
        whole.error("an argument is not UTF-8")
    options = whole.parse_args(columns.named(words) or ["--help"])
    shown = _Shown()
    ctrl_c = _CtrlC()
    listen(ctrl_c)
    try:
        settings = load(connection.arguments(options))
        shown = _Shown(settings.config.secrets, settings.config.log_format == "json")
        logs.show_program(settings.config.log_level, settings.config.log_format, settings.is_set("log_level"))
        for line in settings.unused:
            logs.log.warning("%s", line)
        options.settings, options.ctrl_c = settings, ctrl_c
        with errors_of_ours():
            code: int | None = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has closed it; without this, Python would flush again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if ctrl_c.pressed:
            return INTERRUPTED
        if not isinstance(error, JammiError | duckdb.InterruptException | OSError):
            raise
        return shown.error(error)
    return code or 0


@dataclass(frozen=True)
class _Shown:
    """How errors are shown: without secrets, and as a line of the log if that is JSON."""

    secrets: frozenset[str] = frozenset()
    in_json: bool = False

    def error(self, error: Exception) -> int:
        """Show an error; returns the exit code."""
        message, code = redacted(str(error), self.secrets), WRONG_CALL if isinstance(error, _WRONG) else FAILED
        if self.in_json:
            logs.log.error(message, extra={"exit_code": code})
        else:
            print(f"jammi-duck: {message}", file=sys.stderr)
        return code


class _CtrlC:
    """Whether Ctrl-C was pressed: if DuckDB uses other threads, the interrupt may appear as another error."""

    pressed = False

    def ctrl_c(self) -> None:
        """See `jammi_duck.work.interrupts.Interruptible`."""
        self.pressed = True


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Puts what each command does beside its name: argparse indents these, and leaves no room for that."""

    def add_argument(self, action: argparse.Action) -> None:
        """See the class."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


class _Parser(argparse.ArgumentParser):
    """Shows no password that stands where none is expected."""

    def error(self, message: str) -> NoReturn:
        """See the class."""
        super().error(redacted(message))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole: argparse.ArgumentParser = _Parser(
        prog="jammi-duck",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Formatter,
    )
    whole.add_argument("--version", action="version", version=f"jammi-duck {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sources.add_to(commands)
    tables.add_to(commands)
    following.add_to(commands)
    evaluating.add_to(commands)
    columns.add_to(commands)
    column_upkeep.add_to(commands)
    model.add_to(commands)
    models.add_to(commands)
    serving.add_to(commands)
    configuration.add_to(commands)
    shell.add_to(commands)
    demo = add_command(commands, "demo", _DEMO, lambda options: run_demo(options.folder))
    demo.add_argument(
        "--folder", type=Path, default=Path("demo-data"), help="the folder it writes to (default: %(default)s)"
    )
    return whole
