"""The cache folders, for files that can be made again; only files that are known to be ours are ever removed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_MARK = "CACHEDIR.TAG"
# The first line is that of the Cache Directory Tagging Specification: backup programs skip the folder.
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by jammi_duck, which deletes what it has put here.\n"
_CACHED = re.compile(r"[0-9a-f]{64}|[0-9a-f]{16}\.tmp")


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jammi_duck`, or `~/.cache/jammi_duck`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "jammi_duck"


def make(folder: str | Path) -> None:
    """Create a cache folder, marked as ours from the start; an existing folder stays as it is."""
    folder = Path(folder)
    if os.path.lexists(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    unfinished.mkdir()
    try:
        (unfinished / _MARK).write_bytes(_TAG)
        # If another process was first, its folder is not empty and stays.
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
            return
        (unfinished / _MARK).unlink()
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.rmdir()


def is_ours(folder: str | Path) -> bool:
    """Whether `make` created a folder: not a link to one, and not a folder that existed before."""
    try:
        with _opened(folder) as handle:
            return _is_marked(handle, folder)
    except OSError:
        return False


def remove_cached(folder: str | Path, is_old: Callable[[str, os.stat_result], bool]) -> Iterator[tuple[str, int]]:
    """Delete old cached copies in a folder of ours; yields the name and the size of each.

    A copy is a regular file whose name is a digest, or a download that was not finished. Everything else stays.
    """
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(_opened(folder))
        except OSError:
            return
        if not _is_marked(handle, folder):
            return
        for name in sorted(filter(_CACHED.fullmatch, os.listdir(handle))):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=handle, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and is_old(name, status):
                    os.unlink(name, dir_fd=handle)
                    yield name, status.st_size


@contextlib.contextmanager
def _opened(folder: str | Path) -> Iterator[int]:
    """An open handle of a folder, so that nobody can replace the folder by a link meanwhile."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _is_marked(handle: int, folder: str | Path) -> bool:
    # Earlier versions set no mark; of their folders, only the default one is certainly ours.
    if Path(folder).is_relative_to(default_cache_dir()):
        return True
    try:
        mark = os.open(_MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except OSError:
        return False
    with os.fdopen(mark, "rb") as file:
        return stat.S_ISREG(os.fstat(mark).st_mode) and file.read(len(_TAG) + 1) == _TAG
