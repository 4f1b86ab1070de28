"""SHA-256 of files, cached by path, size and modification time."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
