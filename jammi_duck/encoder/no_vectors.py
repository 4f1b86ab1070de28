"""The encoder of a table of words only: its vectors have no dimensions, and it needs no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jammi_duck.encoder import Encoder, Encodings, Identity
from jammi_duck.types import Role


class NoVectors(Encoder):
    """Gives vectors of no dimensions, and fails for no text."""

    identity = Identity("")
    dimensions = 0

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `Encoder.encode_rows`."""
        progress(len(texts))
        neither = np.zeros(len(texts), np.bool_)
        return Encodings(np.empty((len(texts), 0), np.float32), truncated=neither, failed=neither)


NO_VECTORS = NoVectors()
