"""SHA-256 of files, cached by path, size and modification time."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

# After each part, a thread waits for Python's lock: for milliseconds, if another one loads the model meanwhile.
_PART = 1 << 25


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    digest = hashlib.sha256()
    part = memoryview(bytearray(min(size, _PART) or 1))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(part):
            digest.update(part[:count])
    return digest.hexdigest()
