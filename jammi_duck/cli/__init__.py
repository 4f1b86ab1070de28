"""The command line: `jammi-duck`. Data go to standard output; progress, the log and errors to standard error."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

import duckdb

from jammi_duck import logs
from jammi_duck.cli import configuration, connection, models, sources, tables
from jammi_duck.cli.commands import add_command
from jammi_duck.demo import run as run_demo
from jammi_duck.errors import ConfigError, InputError, JammiError, NotFoundError
from jammi_duck.interrupts import listen
from jammi_duck.redaction import redacted
from jammi_duck.settings import load
from jammi_duck.version import __version__

FAILED, WRONG_CALL, INCOMPLETE, INTERRUPTED = 1, 2, 3, 130

_DESCRIPTION = """\
Embed, store and search text in DuckDB, in plain SQL.

  jammi-duck demo                                         see it work on this machine
  jammi-duck sources add patents --path patents.parquet   give a file a name
  jammi-duck generate patents --columns title,abstract --key id
  jammi-duck search patents "membrane that cleans water"
"""
_EPILOG = """\
Every command has --help. Exit codes: 0 done, 1 failed, 2 the call or the configuration
is wrong and trying again will not help, 3 done but for rows that could not be embedded,
130 interrupted by Ctrl-C.
"""
_DEMO = """\
Embed and search the docstrings of Python's standard library.

  jammi-duck demo --folder /tmp/pydoc
"""
_OURS = re.compile(r"(?:.*executing the UDF: )(?P<kind>\w+): (?P<message>.*?)(?:\n\n(?:At:\n|LINE \d+:).*)?", re.DOTALL)
_DUCKDBS = re.compile(r"(?:[\w ]+ Error: )?(?P<message>.*?)(?:\n\nLINE \d+:.*)?", re.DOTALL)
_WRONG = (
    ConfigError,
    InputError,
    NotFoundError,
    duckdb.CatalogException,
    duckdb.BinderException,
    duckdb.ParserException,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, which `jammi-duck --help` explains."""
    options = parser().parse_args(arguments)
    secrets: frozenset[str] = frozenset()
    in_json = False
    ctrl_c = _CtrlC()
    listen(ctrl_c)
    try:
        settings = load(connection.arguments(options))
        secrets, in_json = settings.config.secrets, settings.config.log_format == "json"
        logs.show_program(settings.config.log_level, settings.config.log_format, settings.is_set("log_level"))
        options.settings = settings
        code: int | None = options.run(options)
        sys.stdout.flush()
    except (JammiError, duckdb.Error, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # Whoever reads the output has seen enough; Python would flush it once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        if ctrl_c.pressed:
            return INTERRUPTED
        message, code = _told(error)
        message = redacted(message, secrets)
        if in_json:
            logs.log.error(message, extra={"exit_code": code})
        else:
            print(f"jammi-duck: {message}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    return code or 0


class _CtrlC:
    """Whether Ctrl-C was pressed: where DuckDB runs other threads, it may end the work as an error of another kind."""

    pressed = False

    def interrupt(self) -> None:
        """See `jammi_duck.interrupts.Interruptible`."""
        self.pressed = True


def _told(error: Exception) -> tuple[str, int]:
    """What an error says, without DuckDB's words around it, and the exit code."""
    text = str(error)
    ours = _OURS.fullmatch(text) if isinstance(error, duckdb.Error) else None
    if ours:
        is_wrong = ours["kind"] in {kind.__name__ for kind in _WRONG}
        return ours["message"], WRONG_CALL if is_wrong else FAILED
    match = _DUCKDBS.fullmatch(text) if isinstance(error, duckdb.Error) else None
    return match["message"] if match else text, WRONG_CALL if isinstance(error, _WRONG) else FAILED


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="jammi-duck",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"jammi-duck {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sources.add_to(commands)
    tables.add_to(commands)
    models.add_to(commands)
    configuration.add_to(commands)
    demo = add_command(commands, "demo", _DEMO, lambda options: run_demo(options.folder))
    demo.add_argument("--folder", default="demo-data", help="where it writes (default: %(default)s)")
    return whole
