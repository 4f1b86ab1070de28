"""Reads the files of an untrusted model directory: only regular files, within it, and of a plausible size."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jammi_duck.errors import ModelError
from jammi_duck.regular_files import read_regular

_MOST_JSON = 1 << 20
# The vocabulary, and the index of shards.
_MOST = {"tokenizer.json": 1 << 26, "model.safetensors.index.json": 1 << 24}
_MOST_WEIGHTS = 1 << 36
_MOST_FILES = 10_000
_READ = (".json", ".safetensors", ".txt", ".model", ".md")


def check_files(folder: Path, name: str, model: Path | None = None) -> None:
    """Check the files of the model `name` in its directory, or in a folder of one of its modules, without opening any.

    Raises:
        ModelError: a file is a FIFO, a device or the like, a link that leads out of the model, or too large for a
            model; or the folder is outside of the model, or is not a folder.
    """
    home = _home(model or folder)
    if not Path(os.path.realpath(folder)).is_relative_to(home):
        raise ModelError(f"'{folder}' is a link that leads out of the model '{name}'; put the folder in its place")
    if not folder.is_dir():
        raise ModelError(f"the model '{name}' has no folder '{folder}', which its modules.json names")
    for number, path in enumerate(_files(folder)):
        if number >= _MOST_FILES:
            raise ModelError(f"the model '{name}' has more than {_MOST_FILES} files in '{folder}'")
        if path.name == "adapter_config.json":
            raise ModelError(f"the model '{name}' is an adapter of another one (adapter_config.json): not supported")
        if path.suffix not in _READ:
            continue
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(home):
            raise ModelError(f"'{path}' is a link that leads out of the model '{name}'; put the file in its place")
        try:
            status = os.stat(target)
        except OSError:
            # The code that needs the file reports that it is missing.
            continue
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ModelError(f"'{path}' is no regular file, so the model '{name}' cannot be used")
        most = _MOST_WEIGHTS if path.suffix == ".safetensors" else _MOST.get(path.name, 1 << 27)
        if status.st_size > most:
            raise ModelError(f"'{path}' has {status.st_size} bytes, and more than {most} are no part of a model")


def state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """The names, sizes and times of the files that are read of a model: if one is replaced, it is another state."""
    found = []
    with contextlib.suppress(OSError):
        for path in _files(folder):
            if path.suffix in _READ:
                status = os.stat(path)
                found.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


def read_json(path: Path) -> Any:  # noqa: ANN401 - what a file holds is checked by those who read it
    """The content of a JSON file of a model. Raises ModelError."""
    try:
        return json.loads(read_regular(path, _MOST.get(path.name, _MOST_JSON)).decode("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"'{path}' is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _files(folder: Path) -> Iterator[Path]:
    """The files in a model's folder and its subfolders (modules are no deeper); links count as files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with os.scandir(entry) as inner:
                    yield from (Path(each.path) for each in inner if not each.is_dir(follow_symlinks=False))
            else:
                yield Path(entry.path)


def _home(folder: Path) -> Path:
    """The folder that links may lead to: the folder itself or, in Hugging Face's cache, its repository."""
    real = Path(os.path.realpath(folder))
    is_cached = real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--")
    return real.parent.parent if is_cached else real
