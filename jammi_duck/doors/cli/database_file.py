"""Whether the DuckDB shell can read a database file: it may be older than the DuckDB that wrote it."""

from __future__ import annotations

import os
from collections.abc import Sequence

# A file begins with a checksum of 8 bytes, these letters, and the number of its format.
_MAGIC = b"DUCK"
# What every shell reads that we start.
_READ_BY_ALL = 67
_TOO_NEW = "Trying to read a database file with version number"


def refusal(program: str, words: Sequence[str]) -> str | None:
    """What DuckDB says of the first of these files that is in a newer format than `program` reads, and what to do.

    `words` are the arguments of a shell, of which any may be a file.
    """
    for word in words:
        if _format(word) > _READ_BY_ALL:
            told = _told(program, word)
            if _TOO_NEW in told:
                return f"{told.strip()}\n\n{_advice(program, word)}"
    return None


def _format(path: str) -> int:
    """The number of a database file's format; 0 where it is none."""
    if not os.path.isfile(path):
        return 0
    try:
        with open(path, "rb") as file:
            begin = file.read(20)
    except OSError:
        return 0
    return int.from_bytes(begin[12:20], "little") if begin[8:12] == _MAGIC else 0


def _told(program: str, path: str) -> str:
    """What the shell says when it only opens the file."""
    import subprocess

    command = [program, "-init", os.devnull, "-readonly", path, "-c", ""]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stderr


def _advice(program: str, path: str) -> str:
    from jammi_duck.sql import literal

    return (
        f"jammi-duck: '{path}' is in a newer format than '{program}' reads. Put a newer duckdb on the PATH,\n"
        "or copy the database into a format that this one reads, by the DuckDB that wrote it, such as Python's:\n\n"
        f"  ATTACH {literal(path)} AS new;\n"
        f"  ATTACH {literal(f'{path}.1.4')} AS old (STORAGE_VERSION 'v1.4.0');\n"
        "  COPY FROM DATABASE new TO old;"
    )
