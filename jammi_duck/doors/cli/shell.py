"""The command `shell`: starts the stock DuckDB shell with jammi_duck. It imports little, and replaces its process."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jammi_duck
from jammi_duck.config.cache import default_cache_dir
from jammi_duck.doors.database_file import refusal
from jammi_duck.version import __version__

if TYPE_CHECKING:
    from jammi_duck.doors.cli.commands import Commands

_SHELL = """\
Start the stock DuckDB shell with the jammi functions.

  jammi-duck shell patents.duckdb
  jammi-duck shell patents.duckdb -c "FROM jammi_search('patents', 'robot arm', 3)"
  jammi-duck shell --print    prints an alias that does the same

Runs the duckdb on the PATH, or that of the package duckdb-cli, in version 1.4 or later,
and passes all other arguments to it. After `.open other.duckdb`, the functions are
missing: run `.read /dev/fd/9`.
"""
_PACKAGE = Path(jammi_duck.__file__).parent
_EXTENSION = _PACKAGE / "udfs" / "native" / "jammi.duckdb_extension"
# The prepared files are made from these, and are made again when one of them changes.
_MADE_FROM = ("udfs/*.py", "sql.py", "version.py")
_OLDEST = (1, 4)
_CONNECTION = "shell"
# The help above and the banner tell users to read the statements from /dev/fd/9.
_INIT = 9
_BANNER = "jammi-duck: the functions are here. After .open FILE, type .read /dev/fd/9 to have them again."
# Options with which the DuckDB shell asks for no statements.
_ENDS = ("c", "s", "f", "no-stdin", "h", "help", "version")
_FAILED, _WRONG_CALL = 1, 2


def add_to(commands: Commands) -> None:
    """Add the command for its help only; `shell` runs before a parser is made."""
    from jammi_duck.doors.cli.commands import add_command

    shell = add_command(commands, "shell", _SHELL, lambda options: become_shell(options.words))
    shell.add_argument("--print", action="store_true", help="print an alias for your shell's profile instead")
    shell.add_argument(
        "words", nargs="*", metavar="ARGUMENT", help="arguments for duckdb: a database file, -c, -json, ..."
    )


def become_shell(words: Sequence[str]) -> int:
    """Replace this process by the DuckDB shell, with `words` as its arguments; returns only if that fails."""
    if words[:1] in (["-h"], ["--help"]):
        from jammi_duck.doors.cli import main

        return main(["shell", "--help"])
    if words[:1] == ["--print"]:
        print(_alias())
        return 0
    try:
        program = _duckdb()
        prepared = _prepared(program)
    except _CannotStartError as error:
        print(f"jammi-duck: {error}", file=sys.stderr)
        return _WRONG_CALL
    refused = refusal(program, words)
    if refused:
        print(refused, file=sys.stderr)
        return _FAILED
    if _is_interactive(words):
        print(_BANNER)
        sys.stdout.flush()
    os.environ["_JAMMI_ANNOUNCEMENT"] = str(prepared / "announcement")
    init = prepared / "init.sql"
    _keep_open(init)
    os.execv(program, [program, "-unsigned", "-cmd", f'.read "{init}"', *words])


def _is_interactive(words: Sequence[str]) -> bool:
    """Whether somebody is going to type statements: with -c and the like, the shell does one thing and ends."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not any(word.lstrip("-") in _ENDS for word in words)


def _keep_open(init: Path) -> None:
    """Give the file a short name while the shell runs, because its user must read it again after `.open`."""
    os.dup2(os.open(init, os.O_RDONLY), _INIT)
    os.set_inheritable(_INIT, True)


def _alias() -> str:
    """An alias that stays valid after upgrades of jammi-duck or DuckDB: it names no version and no prepared file."""
    import shlex

    # -P, because Python would look for modules in the working directory first.
    return f"alias duckdb={shlex.quote(shlex.join([sys.executable, '-P', '-m', 'jammi_duck.doors.cli', 'shell']))}"


class _CannotStartError(Exception):
    """Something that the shell needs is missing."""


def _duckdb() -> str:
    """The path of the duckdb program."""
    found = shutil.which("duckdb")
    if found is None or Path(found).parent == Path(sys.executable).parent:
        # There is only the Python script of duckdb-cli; starting the program in the package directly is faster.
        found = _carried() or found
    if found is None:
        raise _CannotStartError("there is no duckdb on the PATH; pip install duckdb-cli")
    return found


def _check_version(program: str) -> None:
    import subprocess

    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v?(\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        raise _CannotStartError(f"'{program}' is DuckDB {told.strip() or 'of no version'}; 1.4 or later is needed")


def _carried() -> str | None:
    """The program in the package duckdb-cli."""
    import importlib.util

    package = importlib.util.find_spec("duckdb_cli")
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "duckdb"
    return str(program) if program.is_file() else None


def _prepared(program: str) -> Path:
    """A folder with the extension's announcement, and the statements that load the extension and create the macros.

    If the folder exists, the version of `program` was checked when it was made.
    """
    if not _EXTENSION.is_file():
        raise _CannotStartError(
            "the extension for DuckDB is not there, as no C compiler was found when jammi-duck was installed; "
            "install one, such as gcc, and jammi-duck once more: pip install --force-reinstall --no-deps jammi-duck"
        )
    sources = [path.stat().st_mtime_ns for pattern in _MADE_FROM for path in sorted(_PACKAGE.glob(pattern))]
    file = os.stat(program)
    shell = (os.path.realpath(program), file.st_size, file.st_mtime_ns)
    made_from = repr((__version__, sys.executable, str(_EXTENSION), sources, shell))
    folder = default_cache_dir() / "shell" / hashlib.sha256(made_from.encode()).hexdigest()[:16]
    if not folder.is_dir():
        _check_version(program)
        _prepare(folder)
    return folder


def _prepare(folder: Path) -> None:
    import tempfile

    from jammi_duck.sql import literal
    from jammi_duck.udfs.functions import FUNCTIONS
    from jammi_duck.udfs.macros import macros
    from jammi_duck.udfs.wire import announcement

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        made = Path(unfinished) / "made"
        made.mkdir()
        # -P, because the worker must not import modules from the user's working directory.
        command = [sys.executable, "-P", "-m", "jammi_duck.doors.worker"]
        (made / "announcement").write_bytes(announcement(command, FUNCTIONS))
        statements = [f"LOAD {literal(str(_EXTENSION))}", *macros(_CONNECTION)]
        (made / "init.sql").write_text("".join(f"{statement};\n" for statement in statements))
        try:
            made.rename(folder)
        except OSError:
            # Another process was first, and made the same.
            if not folder.is_dir():
                raise
