"""The names that the user gives to model folders: links in the user's own directory, so nothing is copied."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from jammi_duck.encoder.names import FOLDER_NAME, Found, find_published, own_directory
from jammi_duck.errors import InputError, NotFoundError, did_you_mean


def add_name(name: str, found: Found) -> Path | None:
    """Let `name` mean the model in a directory that was found; returns the directory that it meant before, if any.

    Raises:
        InputError: `name` is no name, or that of a published model or of a folder in the user's own directory.
    """
    if not FOLDER_NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be the name of a model; give one with --name that begins with a letter or a digit, and "
            "consists of at most 100 letters, digits, '.', '_' and '-'"
        )
    published = find_published(name)
    if published:
        raise InputError(f"'{name}' is the model '{published.name}' already; give another name with --name")
    link = own_directory() / name
    if link.exists() and not link.is_symlink():
        raise InputError(f"'{link}' is no link; move it, or give another name with --name")
    before = Path(os.path.realpath(link)) if link.is_symlink() else None
    link.parent.mkdir(parents=True, exist_ok=True)
    unfinished = link.with_name(f".{name}.{secrets.token_hex(8)}")
    unfinished.symlink_to(found.path)
    try:
        unfinished.replace(link)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
        raise
    return before


def remove_name(name: str) -> Path:
    """Forget a name that `add_name` has given; returns the directory that it meant, which stays.

    Raises:
        NotFoundError: there is no such name.
    """
    link = own_directory() / name
    if not FOLDER_NAME.fullmatch(name) or not link.is_symlink():
        known = [each.name for each in own_directory().glob("*") if each.is_symlink()]
        near = did_you_mean(name, known) or ";"
        raise NotFoundError(
            f"'{name}' is no name that `jammi-duck models add` has given{near} names: {', '.join(known)}"
        )
    path = Path(os.path.realpath(link))
    link.unlink()
    return path
