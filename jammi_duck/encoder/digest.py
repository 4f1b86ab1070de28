"""SHA-256 of files, cached by path, size and modification time."""

from __future__ import annotations

import hashlib
import mmap
from functools import cache
from pathlib import Path


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb", buffering=0) as file:
        if not size:
            return hashlib.sha256(file.read()).hexdigest()
        # In one step, since after each a thread waits for Python's lock: for milliseconds, if another computes.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.sha256(content).hexdigest()
