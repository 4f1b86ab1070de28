"""The command `shell`: the stock DuckDB shell with jammi in it. It imports little, and becomes that program."""

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
from jammi_duck.doors.cli.database_file import refusal
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
# What the prepared files are made from: they are made again when one of these changes.
_MADE_FROM = ("udfs/*.py", "sql.py", "version.py")
_OLDEST = (1, 4)
_CONNECTION = "shell"
# The statements are /dev/fd/9 to the shell, says the help above.
_INIT = 9
_FAILED, _WRONG_CALL = 1, 2


def add_to(commands: Commands) -> None:
    """Add the command, for its help; it is run before there is a parser."""
    from jammi_duck.doors.cli.commands import add_command

    shell = add_command(commands, "shell", _SHELL, lambda options: become_shell(options.words))
    shell.add_argument("--print", action="store_true", help="print an alias for your shell's profile instead")
    shell.add_argument(
        "words", nargs="*", metavar="ARGUMENT", help="arguments for duckdb: a database file, -c, -json, ..."
    )


def become_shell(words: Sequence[str]) -> int:
    """Replace this process by the DuckDB shell, with `words` as its arguments; returns only where that fails."""
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
    os.environ["_JAMMI_ANNOUNCEMENT"] = str(prepared / "announcement")
    init = prepared / "init.sql"
    _keep_open(init)
    os.execv(program, [program, "-unsigned", "-cmd", f'.read "{init}"', *words])


def _keep_open(init: Path) -> None:
    """Give the file a short name for as long as the shell runs: after `.open`, its user must have it read again."""
    os.dup2(os.open(init, os.O_RDONLY), _INIT)
    os.set_inheritable(_INIT, True)


def _alias() -> str:
    """One that stays right when jammi-duck or DuckDB changes: it names neither a version nor a prepared file."""
    import shlex

    # -P, as Python would look for modules in the working directory first.
    return f"alias duckdb={shlex.quote(shlex.join([sys.executable, '-P', '-m', 'jammi_duck.doors.cli', 'shell']))}"


class _CannotStartError(Exception):
    """Something that the shell needs is not there."""


def _duckdb() -> str:
    """The program."""
    found = shutil.which("duckdb")
    if found is None or Path(found).parent == Path(sys.executable).parent:
        # There is a script in Python, which would start the program that it carries only after a while.
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
    """The program that the package duckdb-cli carries."""
    import importlib.util

    package = importlib.util.find_spec("duckdb_cli")
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "duckdb"
    return str(program) if program.is_file() else None


def _prepared(program: str) -> Path:
    """A folder with what the extension reads when it is loaded, and the statements that load it and make the macros.

    Where there is one, `program` was of a version that can be used when it was made.
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
        # -P, as the working directory is the user's, and no place for modules of the worker.
        command = [sys.executable, "-P", "-m", "jammi_duck.doors.worker"]
        (made / "announcement").write_bytes(announcement(command, FUNCTIONS))
        statements = [f"LOAD {literal(str(_EXTENSION))}", *macros(_CONNECTION)]
        (made / "init.sql").write_text("".join(f"{statement};\n" for statement in statements))
        try:
            made.rename(folder)
        except OSError:
            # Another process was first, with the same.
            if not folder.is_dir():
                raise
