"""The story of an inference: texts -> vectors, with a status for each. Nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jammi_duck.encoder import Encoder
from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.dimensions import cut, resolve_dims
from jammi_duck.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TASKS = ("text_embedding",)
NO_TEXT = "Empty or null text input"


@dataclass(frozen=True)
class Inferred:
    """What became of one text: its vector, or an error. `latency_ms` is its share of its batch's wall time."""

    vector: NDArray[np.float32] | None
    error: str | None
    latency_ms: float


def check_task(task: str | None) -> None:
    """Refuse a task that cannot be done.

    Raises:
        InputError: names the task and those that there are.
    """
    if task not in TASKS:
        near = did_you_mean(str(task), TASKS) or ";"
        raise InputError(f"the task '{task}' is not supported{near} supported: {', '.join(TASKS)}")


def infer(encoder: Encoder, texts: Sequence[str | None], dims: int | None) -> list[Inferred]:
    """The vectors of a batch of texts, cut to `dims` where that is given; a text that fails does not stop the others.

    Raises:
        InputError: the model has not so many dimensions.
    """
    dimensions = resolve_dims(dims, encoder)
    inferred = [Inferred(None, NO_TEXT, 0.0)] * len(texts)
    batch = {i: text for i, text in enumerate(texts) if text is not None and not is_blank(text)}
    if not batch:
        return inferred
    started = time.perf_counter()
    encodings = encoder.encode_rows(list(batch.values()), "document", lambda _: None)
    vectors = cut(encodings.vectors, dimensions)
    share = (time.perf_counter() - started) * 1000 / len(batch)
    for place, ((i, text), vector, failed) in enumerate(zip(batch.items(), vectors, encodings.failed, strict=True)):
        usual = f"Not enough memory for this text of {len(text)} characters, even alone; shorten it"
        error = encodings.reasons.get(place, usual) if failed else None
        inferred[i] = Inferred(None if failed else vector, error, share)
    return inferred
