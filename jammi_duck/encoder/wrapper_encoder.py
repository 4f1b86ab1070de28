"""The encoder around a wrapper: the user's own Python makes the vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jammi_duck.config.logs import log
from jammi_duck.encoder import Encoder, Encodings, Identity
from jammi_duck.encoder.wrappers import Wrapper
from jammi_duck.types import Role

_BATCH = 256


class WrapperEncoder(Encoder):
    """Calls a wrapper for batches of texts, and scales its vectors to length 1.

    `wrapper` itself takes values of any type, and gives vectors as they are. The SHA-256 of its file stands for its
    weights: another version of the file is another model.
    """

    def __init__(self, wrapper: Wrapper) -> None:
        self.wrapper = wrapper
        self.identity = Identity(wrapper.name, weights=wrapper.digest)
        self.dimensions = wrapper.dimensions

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`. A query is no other text than a document; a wrapper is not told."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        reasons: dict[int, str] = {}
        for number, start in enumerate(range(0, len(texts), _BATCH), 1):
            batch = list(enumerate(texts[start : start + _BATCH], start))
            for (place, _), made in zip(batch, self.wrapper.encode_batch(number, batch), strict=True):
                if isinstance(made, str):
                    reasons[place] = made
                elif (length := float(np.linalg.norm(made.astype(np.float64)))) > 0:
                    vectors[place] = made / length
                else:
                    reasons[place] = "it gave a vector of zeros, which has no direction"
            progress(len(batch))
        told = {place: f"the wrapper '{self.wrapper.name}' failed: {reason}" for place, reason in reasons.items()}
        for place, reason in list(told.items())[:1]:
            log.warning("%d texts could not be embedded, the first is '%s': %s", len(told), texts[place][:40], reason)
        failed = np.zeros(len(texts), np.bool_)
        failed[list(told)] = True
        return Encodings(vectors, np.zeros(len(texts), np.bool_), failed, told)
