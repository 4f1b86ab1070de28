"""The format of database files: makes new ones that all supported DuckDBs read, and says where a shell reads none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# The oldest DuckDB that this package supports.
READ_BY_SHELLS = "v1.4.0"
_IN_MEMORY = ":memory:"
# What DuckDB leaves out before an absolute path.
_LOCAL = ("file://localhost", "file://", "file:")
# A file begins with a checksum of 8 bytes, these letters, and its format version.
_MAGIC = b"DUCK"
# The newest format that every supported shell can read.
_READ_BY_ALL = 67
_TOO_NEW = "Trying to read a database file with version number"


def create(database: str | Path, version: str = READ_BY_SHELLS) -> None:
    """Create a database file that this version of DuckDB can read, where there is none.

    It is closed again: a process can open a file only with one configuration, and others need not know this one. What
    is no local file is left to DuckDB.

    Raises:
        duckdb.Error: the file cannot be made, or DuckDB has no such format.
    """
    import duckdb

    name = expanded(database)
    is_file = name and not name.startswith(_IN_MEMORY) and "://" not in name and not name.startswith("md:")
    if is_file and not os.path.exists(name):
        duckdb.connect(name, config={"storage_compatibility_version": version}).close()


def expanded(database: str | Path) -> str:
    """The path of a database, as text, without `~` and without `file:`, both of which DuckDB reads, too."""
    name = os.fspath(database)
    for scheme in _LOCAL:
        if name.startswith(f"{scheme}/"):
            return name[len(scheme) :]
    return os.path.expanduser(name)


def refusal(program: str, words: Sequence[str]) -> str | None:
    """DuckDB's error for the first file in a format too new for `program`, with what to do; None if there is none.

    `words` are the arguments of the shell; any of them may be a file.
    """
    for word in words:
        if _format(word) > _READ_BY_ALL:
            told = _told(program, word)
            if _TOO_NEW in told:
                return f"{told.strip()}\n\n{_advice(program, word)}"
    return None


def _format(path: str) -> int:
    """The format version of a database file; 0 if it is not one."""
    if not os.path.isfile(path):
        return 0
    try:
        with open(path, "rb") as file:
            begin = file.read(20)
    except OSError:
        return 0
    return int.from_bytes(begin[12:20], "little") if begin[8:12] == _MAGIC else 0


def _told(program: str, path: str) -> str:
    """What the shell prints to standard error when it only opens the file."""
    import subprocess

    command = [program, "-init", os.devnull, "-readonly", path, "-c", ""]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stderr


def _advice(program: str, path: str) -> str:
    from jammi_duck.sql import literal

    return (
        f"jammi-duck: '{path}' is in a newer format than '{program}' reads; jammi_duck.connect makes new files\n"
        "that it does read. Put a newer duckdb on the PATH, or copy the database into a format that this one reads,\n"
        "by the DuckDB that wrote it, such as Python's:\n\n"
        f"  ATTACH {literal(path)} AS new;\n"
        f"  ATTACH {literal(f'{path}.1.4')} AS old (STORAGE_VERSION 'v1.4.0');\n"
        "  COPY FROM DATABASE new TO old;"
    )
