"""Wrappers: modules of Python that make vectors in their own way, which the user has written.

The file `NAME.py` in a directory of the option `models.path` is the wrapper NAME, if it has the functions in
`FUNCTIONS`; those in `examples/` come with this package. Nothing of a wrapper is run until it is asked for by name, or
listed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.abc
import importlib.util
import os
import re
import sys
import threading
import traceback
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from jammi_duck.errors import ModelError
from jammi_duck.regular_files import read_regular

FUNCTIONS = (
    "embedding_label",
    "embedding_description",
    "embedding_dim",
    "embedding_encode",
    "embedding_encode_batch",
)
# A vector as the wrapper gives it, or the reason why there is none.
Made: TypeAlias = NDArray[np.float32] | str

T = TypeVar("T")
_NAME = re.compile(r"(?!__init__$)[A-Za-z_][A-Za-z0-9_]{0,99}")
_EXAMPLES = Path(__file__).parent / "examples"
_MOST_BYTES = 1 << 20
_MOST_TOLD = 200
_loaded: dict[Path, Wrapper] = {}
_loading = threading.RLock()


def _after_fork() -> None:
    global _loading
    _loading = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class WrapperFile:
    """The file of a wrapper: the name that it gives, its path and its content."""

    name: str
    path: Path
    content: bytes

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class Wrapper:
    """A wrapper that is loaded. Threads may share it: its functions are then called by several at once.

    `label` and `description` are the wrapper's own texts, and `dimensions` is the length of its vectors.
    """

    def __init__(self, file: WrapperFile, module: types.ModuleType) -> None:
        """Check that the functions are there, and ask for what does not change.

        Raises:
            ModelError: a function is missing, raises, or returns what it may not; the message names the file.
        """
        self.name = file.name
        self.path = file.path
        self.digest = file.digest
        functions = [getattr(module, name, None) for name in FUNCTIONS]
        missing = [name for name, found in zip(FUNCTIONS, functions, strict=True) if not callable(found)]
        if missing:
            raise ModelError(f"the wrapper '{file.path}' lacks {', '.join(f'{name}()' for name in missing)}; add to it")
        self._module = module
        self.label = " ".join(self._text("embedding_label").split())
        self.description = self._text("embedding_description")
        self.dimensions = self._dimensions()

    def encode_batch(self, number: int, rows: Sequence[tuple[Any, Any]], *, verbose: bool = False) -> list[Made]:
        """A vector, or the reason why there is none, for each row of a primary key and a value, in their order.

        `number` is that of the batch, for the wrapper's messages. Keys and values reach the wrapper as they are. If it
        raises for the batch, each row is tried alone.
        """
        if not rows:
            return []
        try:
            given = _call(self.path, lambda: list(self._module.embedding_encode_batch(number, list(rows), verbose)))
        except _WrapperError:
            return [self._alone(value, verbose) for _, value in rows]
        return self._matched(rows, given)

    def _alone(self, value: object, verbose: bool) -> Made:
        try:
            return self._vector(_call(self.path, lambda: self._module.embedding_encode(value, verbose)))
        except _WrapperError as error:
            return f"embedding_encode raised {error}"

    def _matched(self, rows: Sequence[tuple[Any, Any]], given: Sequence[Any]) -> list[Made]:
        """What a batch has given, by the keys of its rows."""
        by_key: defaultdict[object, list[Any]] = defaultdict(list)
        strange = []
        asked = {_hashable(key) for key, _ in rows}
        for each in given:
            try:
                key, vector = each
            except (TypeError, ValueError):
                strange.append(f"{_shown(each)}, which is no pair of a key and a vector")
                continue
            by_key[_hashable(key)].append(vector)
            if _hashable(key) not in asked:
                strange.append(f"a vector for the key {_shown(key)}, which it did not get")
        also = f"; it gave {strange[0]}" if strange else ""
        made: list[Made] = []
        for key, _ in rows:
            vectors = by_key[_hashable(key)]
            if len(vectors) == 1:
                made.append(self._vector(vectors[0]))
            else:
                count = f"{len(vectors)} vectors" if vectors else "no vector"
                made.append(f"embedding_encode_batch gave {count} for the key {_shown(key)}{also}")
        return made

    def _vector(self, given: object) -> Made:
        try:
            numbers = np.asarray(given)
            with np.errstate(all="ignore"):
                vector = numbers.astype(np.float32) if numbers.dtype.kind in "iufO" else None
        except Exception as error:
            return f"it gave {_shown(given)} instead of a vector: {_told(error)}"
        if vector is None or vector.ndim != 1:
            return f"it gave {_shown(given)} instead of a vector"
        if len(vector) != self.dimensions:
            return f"it gave {len(vector)} numbers, and embedding_dim() is {self.dimensions}"
        finite = np.isfinite(vector)
        if not finite.all():
            place = int(finite.argmin())
            return f"it gave {numbers[place]} as number {place + 1} of the vector, which is no finite FLOAT"
        return vector

    def _text(self, name: str) -> str:
        text = self._answer(name)
        if not isinstance(text, str) or not text.strip():
            raise self._wrong(name, text, "a text that is not empty")
        return text

    def _dimensions(self) -> int:
        dimensions = self._answer("embedding_dim")
        if not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 1:
            raise self._wrong("embedding_dim", dimensions, "a whole number of at least 1")
        return dimensions

    def _answer(self, name: str) -> object:
        function: Callable[[], object] = getattr(self._module, name)
        try:
            return _call(self.path, function)
        except _WrapperError as error:
            raise ModelError(f"{name}() of the wrapper '{self.path}' raised {error}; correct it there") from error

    def _wrong(self, name: str, value: object, must: str) -> ModelError:
        return ModelError(f"{name}() of the wrapper '{self.path}' returned {_shown(value)}; it must return {must}")


class Wrappers:
    """Finds wrappers by their names, and loads each version of a file once per process."""

    def __init__(self, path: Sequence[str] = (), allowed: Sequence[str] | None = None) -> None:
        """`path` lists directories with wrappers, and `allowed` the names of those that may run; None is all."""
        self._path = tuple(Path(os.path.abspath(os.path.expanduser(each))) for each in path)
        self._allowed = allowed

    def find(self, name: str) -> WrapperFile | None:
        """The file of the wrapper of a name, if there is one; nothing of it is run.

        Raises:
            ModelError: it cannot be read.
        """
        if not _NAME.fullmatch(name):
            return None
        files = (_read(folder / f"{name}.py") for folder in (*self._path, _EXAMPLES))
        return next(filter(None, files), None)

    def get(self, name: str) -> Wrapper | None:
        """The wrapper of a name, loaded, if there is one.

        Raises:
            ModelError: it may not run here, or cannot be loaded, or is not what a wrapper has to be.
        """
        file = self.find(name)
        return None if file is None else self._load(file)

    def of_digest(self, digest: str, name: str) -> Wrapper | None:
        """The wrapper whose file has this SHA-256, if there is one; of several, that of this name.

        Raises:
            ModelError: as `get`.
        """
        file = self.find(name)
        if file is None or file.digest != digest:
            file = next((each for each in self._files() if each.digest == digest), None)
        return None if file is None else self._load(file)

    def listed(self, *, examples: bool = True) -> Iterator[tuple[str, Wrapper | ModelError]]:
        """Every wrapper by its name, sorted, or the reason why it cannot be used; with the examples of this package."""
        for name in self._names(examples):
            try:
                found = self.get(name)
            except ModelError as error:
                yield name, error
            else:
                if found is not None:
                    yield name, found

    def _files(self) -> Iterator[WrapperFile]:
        for name in self._names(examples=True):
            with contextlib.suppress(ModelError):
                file = self.find(name)
                if file is not None:
                    yield file

    def _names(self, examples: bool) -> list[str]:
        folders = (*self._path, _EXAMPLES) if examples else self._path
        files = (file for folder in folders for file in folder.glob("*.py"))
        return sorted({file.stem for file in files if _NAME.fullmatch(file.stem)})

    def _load(self, file: WrapperFile) -> Wrapper:
        is_ours = file.path.parent == _EXAMPLES
        if self._allowed is not None and file.name not in self._allowed and not is_ours:
            raise ModelError(
                f"'{file.path}' is Python code, which is not run here: its folder has to be named by models_path=, "
                "--models, JAMMI_MODELS__PATH or your own jammi.toml, not by that of the working directory, and a "
                "server runs only its default model and those of [server] preload_models"
            )
        with _loading:
            found = _loaded.get(file.path)
            if found is None or found.digest != file.digest:
                found = _loaded[file.path] = Wrapper(file, _imported(file))
        return found


class _Loader(importlib.abc.ExecutionLoader):
    """Loads the content whose digest is known, whatever the file has by now, and writes no file beside it."""

    def __init__(self, file: WrapperFile) -> None:
        self._file = file

    def get_filename(self, fullname: str) -> str:
        return str(self._file.path)

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._file.content)


class _WrapperError(Exception):
    """What a wrapper's own code raised, as a text."""


def _imported(file: WrapperFile) -> types.ModuleType:
    # A name that no import statement has; classes of the module are pickled by it.
    name = f"_jammi_duck_wrapper_{file.name}_{hashlib.sha256(str(file.path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file.path, loader=_Loader(file))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        _call(file.path, lambda: _Loader(file).exec_module(module))
    except BaseException as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        if isinstance(error, _WrapperError):
            raise ModelError(f"the wrapper '{file.path}' cannot be loaded: {error}; correct it there") from error
        raise
    return module


def _call(path: Path, function: Callable[[], T]) -> T:
    """What a wrapper's function returns. Raises _WrapperError for whatever it raises, but for Ctrl-C."""
    try:
        return function()
    except KeyboardInterrupt:
        raise
    # SystemExit, and panics of extensions, are no subclasses of Exception.
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f" (line {lines[-1]})" if lines else ""
        raise _WrapperError(f"{_told(error)}{line}") from error


def _read(path: Path) -> WrapperFile | None:
    """The wrapper in a file; None if it is not there, or is another program: names none of the functions."""
    try:
        content = read_regular(path, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise ModelError(f"cannot read the wrapper '{path}': {error.strerror or error}") from error
    names_one = any(function.encode() in content for function in FUNCTIONS)
    return WrapperFile(path.stem, path, content) if names_one else None


def _hashable(key: object) -> object:
    """What stands for a key in a dict: a primary key may be a list."""
    try:
        hash(key)
    except TypeError:
        return type(key).__name__, repr(key)
    return key


def _told(error: BaseException) -> str:
    return _cut(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _shown(value: object) -> str:
    return _cut(f"{type(value).__name__} {value!r}" if value is not None else "None")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}…"
