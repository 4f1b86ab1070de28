"""Opens a database file that another process may have open: DuckDB lets one process write it, or several read it."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from pathlib import Path

import duckdb

from jammi_duck.config.logs import log
from jammi_duck.errors import StorageError

# DuckDB puts the file's name, which may be anything, before the process.
_HELD = re.compile(r"Could not set lock on file (?:.*\(PID (\d+)\))?", re.DOTALL)
_PAUSE = 0.1


def connect_waiting(file: str, *, read_only: bool, wait: timedelta) -> duckdb.DuckDBPyConnection:
    """Connect to a database file; while another process has it open, try again until `wait` is over.

    Raises:
        StorageError: it is still open there; the message says in which process, and what to do.
    """
    end, is_told = time.monotonic() + wait.total_seconds(), False
    while True:
        try:
            return duckdb.connect(file, read_only=read_only)
        except duckdb.IOException as error:
            found = _HELD.search(str(error))
            if found is None:
                raise
            held = f"the database '{file}' is open in {_process(found[1])}"
            if time.monotonic() >= end:
                raise StorageError(
                    f"{held}, and DuckDB lets one process write a file, or several read it; end that process, or wait "
                    "for it: --wait '5 minutes'"
                ) from error
            if not is_told:
                log.warning("%s; waiting for it, up to %s", held, wait)
                is_told = True
            time.sleep(_PAUSE)


def _process(number: str | None) -> str:
    """A process as a message names it: by its program alone, since its arguments may hold secrets."""
    if number is None:
        return "another process"
    try:
        program = Path(f"/proc/{number}/comm").read_text(errors="replace").strip()
    except OSError:
        return f"the process {number}"
    return f"the process {number} ({program})"
