"""The encoder around a function of the user's own Python: calls are made again, and bad rows are found out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encodings, Identity
from jammi_duck.encoder.blobs import value_of
from jammi_duck.encoder.functions import EmbeddingFunction
from jammi_duck.encoder.given_vectors import checked, encodings_of, shown
from jammi_duck.encoder.waits import interruptible, pause, renewed_after_fork, sleep
from jammi_duck.errors import EncodingError, ModelError
from jammi_duck.types import Role, Vectors

_BATCH = 256
_LONGEST_PAUSE = 60.0
_MOST_DIMENSIONS = 65_536
# What may pass: of others, a second call would fail in the same way.
_PASSING = (OSError, TimeoutError)
_PASSING_NAMES = ("Timeout", "RateLimit", "Connect", "Unavailable", "Overloaded")
_DENIED = (401, 403)
# After so many values alone have failed, and none has not, it is the function that is wrong.
_PATIENCE = 8


def identity_of(function: EmbeddingFunction, dimensions: int | None = None) -> Identity:
    """What an embedding table records of a function: its `spec`, and a digest of all that decides its vectors.

    `dimensions` are given where the arguments do not decide them.

    Raises:
        InputError: its arguments cannot be stored.
    """
    passing = {"name", *function.passing_keys(), *function.unrecorded_keys()}
    defaults = function.arguments()
    # What placeholders stand for decides, but for a URL, which may move.
    values = {**vars(function).get("_values", vars(function)), "base_url": function.given.get("base_url")}
    deciding = {key: values[key] for key in function.given if key not in passing and defaults[key] != values[key]}
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
        self._has_worked, self._failed_alone = False, 0
        # Of the function: there may be several encoders around it.
        vars(function).setdefault("_calling", threading.Lock())
        renewed_after_fork(self)

    def after_fork(self) -> None:
        """A thread of the parent may have been calling it."""
        vars(self.function)["_calling"] = threading.Lock()

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`."""
        progress = interruptible(progress)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        reasons: dict[int, str] = {}
        calling = vars(self.function)["_calling"]
        while not calling.acquire(timeout=0.1):
            progress(0)
        try:
            for start in range(0, len(texts), _BATCH):
                batch = range(start, min(start + _BATCH, len(texts)))
                for place, made in self._made(batch, texts, role, progress, self.function.max_retries):
                    _put(made, place, vectors, reasons)
                progress(len(batch))
        finally:
            calling.release()
        return encodings_of(vectors, reasons)

    def _made(
        self, batch: Sequence[int], texts: Sequence[str], role: Role, progress: Callable[[int], None], retries: int
    ) -> Iterator[tuple[int, Any]]:
        """What the function makes of a batch: a vector, or the reason why there is none, for each place.

        Raises:
            EncodingError: it fails for every value.
        """
        given = [texts[place] for place in batch]
        values = list(map(value_of, given)) if self.takes_images else given
        made = self._called(values, role, progress, retries)
        self._has_worked = self._has_worked or not isinstance(made, str)
        if not isinstance(made, str):
            yield from ((place, checked(each, self.dimensions)) for place, each in zip(batch, made, strict=True))
        elif len(batch) == 1:
            self._failed_alone += 1
            if not self._has_worked and self._failed_alone >= _PATIENCE:
                raise EncodingError(f"{made}; so it was for each of the first {_PATIENCE} values: correct the function")
            yield batch[0], made
        else:
            middle = len(batch) // 2
            for part in (batch[:middle], batch[middle:]):
                yield from self._made(part, texts, role, progress, min(retries, 1))

    def _called(self, values: list[Any], role: Role, progress: Callable[[int], None], retries: int) -> list[Any] | str:
        """What the function gives for values, or the reason why it gives nothing."""
        for attempt in range(retries + 1):
            progress(0)
            try:
                # Whatever it does with the list, the next call gets all of it.
                made = self._call(list(values), role)
            except Exception as error:
                told = f"'{self.function.id}' raised {type(error).__name__}: {error}"
                if getattr(error, "status_code", None) in _DENIED:
                    raise EncodingError(f"{told}; it was not asked again") from error
                if not _may_pass(error) or attempt == retries:
                    return told
                seconds = pause(attempt, _LONGEST_PAUSE)
                log.warning("%s; again in %.1f s (%d of %d)", told, seconds, attempt + 1, retries)
                sleep(seconds, progress)
            else:
                if len(made) == len(values):
                    return made
                return f"'{self.function.id}' gave {len(made)} vectors for {len(values)} values"
        raise AssertionError("unreachable")

    def _call(self, values: list[Any], role: Role) -> list[Any]:
        function = self.function
        if role == "query":
            return [_only(function.compute_query_embeddings(value)) for value in values]
        given = function.compute_source_embeddings(values)
        # A matrix of numpy is as good as a list of rows.
        return list(given)


def _may_pass(error: Exception) -> bool:
    """Whether a call may succeed that has failed so: the network, or a server that is busy."""
    status = getattr(error, "status_code", None)
    is_busy = isinstance(status, int) and (status in (408, 409, 425, 429) or status >= 500)
    named = any(word in type(error).__name__ for word in _PASSING_NAMES)
    return is_busy or named or isinstance(error, _PASSING)


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
    number = None
    if not isinstance(dimensions, bool):
        with contextlib.suppress(TypeError):
            number = operator.index(dimensions)
    if number is None or not 1 <= number <= _MOST_DIMENSIONS:
        raise ModelError(
            f"ndims() of '{function.id}' returned {shown(dimensions)}; it must return a whole number from 1 to "
            f"{_MOST_DIMENSIONS:,}"
        )
    return number
