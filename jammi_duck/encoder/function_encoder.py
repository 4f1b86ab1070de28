"""The encoder around a function of the user's own Python: calls are made again, and bad rows are found out."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encodings, Identity
from jammi_duck.encoder.blobs import value_of
from jammi_duck.encoder.functions import EmbeddingFunction
from jammi_duck.encoder.given_vectors import checked, shown
from jammi_duck.encoder.waits import interruptible, pause, sleep
from jammi_duck.errors import EncodingError, ModelError
from jammi_duck.types import Role, Vectors

_BATCH = 256
_LONGEST_PAUSE = 60.0
_MOST_DIMENSIONS = 65_536
# What fails in the same way again: no reason to wait.
_LASTING = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError, ValueError)
_DENIED = (401, 403)


def identity_of(function: EmbeddingFunction, dimensions: int | None = None) -> Identity:
    """What an embedding table records of a function: its `spec`, and a digest of all that decides its vectors.

    `dimensions` are given where the arguments do not decide them.

    Raises:
        InputError: its arguments cannot be stored.
    """
    passing = {"name", *function.passing_keys()}
    defaults = function.arguments()
    deciding = {key: value for key, value in function.given.items() if key not in passing and defaults[key] != value}
    told = json.dumps([function.id, function.name, sorted(deciding.items()), dimensions], default=str)
    return Identity(function.spec, weights=hashlib.sha256(told.encode()).hexdigest())


class FunctionEncoder(Encoder):
    """Calls a function for batches of values, one at a time, and scales its vectors to length 1.

    A call that fails is made again after a pause, `max_retries` times, unless it would fail again. Then its batch is
    halved, until the values are found that it fails for.
    """

    def __init__(self, function: EmbeddingFunction) -> None:
        """Ask the function for its dimensions.

        Raises:
            ModelError: it has none, or cannot tell them.
        """
        self.function = function
        self.dimensions = _dimensions(function)
        self.identity = identity_of(function, self.dimensions)
        self.takes_images = function.takes_values
        self._calling = threading.Lock()

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`."""
        progress = interruptible(progress)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        reasons: dict[int, str] = {}
        while not self._calling.acquire(timeout=0.1):
            progress(0)
        try:
            for start in range(0, len(texts), _BATCH):
                batch = range(start, min(start + _BATCH, len(texts)))
                for place, made in self._made(batch, texts, role, progress):
                    _put(made, place, vectors, reasons)
                progress(len(batch))
        finally:
            self._calling.release()
        if reasons:
            first = min(reasons)
            log.warning("%d texts could not be embedded, the first: %s", len(reasons), reasons[first])
        failed = np.zeros(len(texts), np.bool_)
        failed[list(reasons)] = True
        return Encodings(vectors, np.zeros(len(texts), np.bool_), failed, reasons)

    def _made(
        self, batch: Sequence[int], texts: Sequence[str], role: Role, progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Any]]:
        """What the function makes of a batch: a vector, or the reason why there is none, for each place."""
        given = [texts[place] for place in batch]
        values = list(map(value_of, given)) if self.takes_images else given
        made = self._called(values, role, progress)
        if not isinstance(made, str):
            yield from ((place, checked(each, self.dimensions)) for place, each in zip(batch, made, strict=True))
        elif len(batch) == 1:
            yield batch[0], made
        else:
            middle = len(batch) // 2
            yield from self._made(batch[:middle], texts, role, progress)
            yield from self._made(batch[middle:], texts, role, progress)

    def _called(self, values: list[Any], role: Role, progress: Callable[[int], None]) -> list[Any] | str:
        """What the function gives for values, or the reason why it gives nothing."""
        for attempt in range(self.function.max_retries + 1):
            progress(0)
            try:
                made = self._call(values, role)
            except Exception as error:
                told = f"'{self.function.id}' raised {type(error).__name__}: {error}"
                if getattr(error, "status_code", None) in _DENIED:
                    raise EncodingError(f"{told}; it was not asked again") from error
                if isinstance(error, _LASTING) or attempt == self.function.max_retries:
                    return told
                seconds = pause(attempt, _LONGEST_PAUSE)
                log.warning("%s; again in %.1f s (%d of %d)", told, seconds, attempt + 1, self.function.max_retries)
                sleep(seconds, progress)
            else:
                if len(made) == len(values):
                    return made
                return f"'{self.function.id}' gave {len(made)} vectors for {len(values)} values"
        return f"'{self.function.id}' was not asked: max_retries is {self.function.max_retries}"

    def _call(self, values: list[Any], role: Role) -> list[Any]:
        function = self.function
        if role == "query":
            return [_only(function.compute_query_embeddings(value)) for value in values]
        given = function.compute_source_embeddings(values)
        # A matrix of numpy is as good as a list of rows.
        return list(given)


def _put(made: Any, place: int, vectors: Vectors, reasons: dict[int, str]) -> None:  # noqa: ANN401 - a vector or a text
    if isinstance(made, str):
        reasons[place] = made
    else:
        vectors[place] = made


def _only(given: Any) -> Any:  # noqa: ANN401 - what the user's function gives
    found = list(given)
    if len(found) != 1:
        raise ValueError(f"compute_query_embeddings gave {len(found)} vectors for one query; give a list of one")
    return found[0]


def _dimensions(function: EmbeddingFunction) -> int:
    try:
        dimensions = function.ndims()
    except Exception as error:
        raise ModelError(f"ndims() of '{function.id}' raised {type(error).__name__}: {error}; correct it") from error
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise ModelError(
            f"ndims() of '{function.id}' returned {shown(dimensions)}; it must return a whole number from 1 to "
            f"{_MOST_DIMENSIONS:,}"
        )
    return dimensions
