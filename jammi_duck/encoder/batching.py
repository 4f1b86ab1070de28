"""Which texts ride together in one forward pass, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder import TokenBudget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors

Tokens = Sequence[int]
Forward = Callable[[Sequence[Tokens]], "Vectors"]


def encode_in_batches(
    sequences: Sequence[Tokens],
    forward: Forward,
    dimensions: int,
    budget: TokenBudget,
    is_out_of_memory: Callable[[BaseException], bool],
    progress: Callable[[int], None],
) -> tuple[Vectors, NDArray[np.bool_]]:
    """Vectors of token sequences, float32 [n, dimensions], in their order, and which of them failed.

    Sequences of like length ride together, the longest first, each pass within the budget. Where memory runs out,
    the budget is halved, up to three times; then the texts of the pass go one by one, and one that does not fit
    alone is marked as failed. `progress` is told after each pass how many sequences are done, and may raise.
    """
    vectors = np.zeros((len(sequences), dimensions), np.float32)
    failed = np.zeros(len(sequences), np.bool_)
    waiting = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while waiting:
        batch = _first_batch(waiting, sequences, budget.tokens)
        try:
            vectors[batch] = forward([sequences[i] for i in batch])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1 and budget.halvings_left:
                budget.tokens = max(1, budget.tokens // 2)
                budget.halvings_left -= 1
                continue
            for i, vector in _one_by_one(batch, sequences, forward, is_out_of_memory):
                failed[i] = vector is None
                vectors[i] = 0 if vector is None else vector
        del waiting[: len(batch)]
        progress(len(batch))
    return vectors, failed


def _first_batch(waiting: Sequence[int], sequences: Sequence[Tokens], tokens: int) -> list[int]:
    """The longest waiting sequences that fit the budget padded to the longest; always at least one."""
    longest = max(1, len(sequences[waiting[0]]))
    return list(waiting[: max(1, tokens // longest)])


def _one_by_one(
    batch: Sequence[int],
    sequences: Sequence[Tokens],
    forward: Forward,
    is_out_of_memory: Callable[[BaseException], bool],
) -> Iterator[tuple[int, Vectors | None]]:
    for i in batch:
        try:
            yield i, forward([sequences[i]])[0]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            yield i, None
