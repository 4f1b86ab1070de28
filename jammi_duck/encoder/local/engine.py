"""What computes the forward passes of a model: the native engine, or torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder.local.pairs import PairTokens
    from jammi_duck.types import Vectors

Tokens = Sequence[int]

# Messages of torch's allocator on the CPU, of CUDA, and of CUDA's matrix products.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Engine(Protocol):
    """The forward passes of an embedding model. Threads may share it.

    `name` is "native" or "torch", `precision` what it multiplies in: float32, bfloat16 or int8. Token ids are below
    `vocabulary`. A pass of more than `tokens_of_pass` tokens gains nothing, and a lone one of at least `spread_tokens`
    is faster on several cores.
    """

    name: str
    precision: str
    vocabulary: int
    tokens_of_pass: int
    spread_tokens: int

    def vectors(self, sequences: Sequence[Tokens], skipped: int) -> Vectors:
        """One pass: the unit vectors of sequences, float32 [n, dimensions], in their order.

        Pooling leaves out the first `skipped` tokens of each, which are the prompt; zeros where nothing is left.

        Raises:
            Exception: there is not enough memory, if `is_out_of_memory` says so of it.
        """
        ...


class PairEngine(Protocol):
    """The forward passes of a cross-encoder; see `Engine`."""

    name: str
    precision: str
    vocabulary: int
    tokens_of_pass: int

    def scores(self, pairs: Sequence[PairTokens]) -> NDArray[np.float32]:
        """One pass: the scores of pairs after the model's activation, float32 [n, 1], in their order.

        Raises:
            Exception: there is not enough memory, if `is_out_of_memory` says so of it.
        """
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of an engine or of Python says that there is not enough memory."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
