"""Groups texts into forward passes, and makes the passes smaller when memory runs out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from jammi_duck.threads import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.types import Vectors

# The tokens of a text, or of a pair of texts.
S = TypeVar("S", bound=Sized)
# A number for each sequence, and the sequence.
Numbered = tuple[int, S]


@dataclass
class TokenBudget:
    """How many tokens one forward pass may hold.

    A stream of texts has one budget: when memory runs out, it shrinks for the rest of the stream.
    """

    tokens: int
    halvings_left: int = 3


# Texts that are tokenized together, while passes over the previous ones are running.
_CHUNK_TEXTS = 1024
_CHUNK_TOKENS = 1024 * 512


def longest_first(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """The numbers of texts with these lengths, in chunks that are tokenized together, to `max_tokens` each at most."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    size = max(1, min(_CHUNK_TEXTS, _CHUNK_TOKENS // max_tokens))
    for first in range(0, len(order), size):
        yield order[first : first + size]


# Passes of fewer tokens than this are not worth it, even if cores are idle.
_LEAST_TOKENS = 256


class Passes(Generic[S]):
    """Runs the forward passes of one stream: several at once, each within the budget, until all texts are done."""

    def __init__(
        self,
        start: Callable[[Sequence[S], SimpleQueue[Task[Vectors]]], Task[Vectors]],
        vectors: Vectors,
        budget: TokenBudget,
        is_out_of_memory: Callable[[BaseException], bool],
        *,
        at_once: int,
    ) -> None:
        """`start` begins a pass over sequences, and the queue gets its task when it is done.

        `vectors`, [n, dimensions], takes the result of sequence i at row i.

        `at_once` passes are running or queued, as long as there are sequences.
        """
        self.failed: NDArray[np.bool_] = np.zeros(len(vectors), np.bool_)
        self._start = start
        self._vectors = vectors
        self._budget = budget
        self._is_out_of_memory = is_out_of_memory
        self._at_once = at_once
        self._waiting: deque[Numbered[S]] = deque()
        self._alone: list[Numbered[S]] = []
        self._flying: dict[Task[Vectors], list[Numbered[S]]] = {}
        self._landed: SimpleQueue[Task[Vectors]] = SimpleQueue()

    def run(self, chunks: Iterable[list[Numbered[S]]], progress: Callable[[int], None]) -> None:
        """Encode all sequences of all chunks; the next chunk is read when the waiting sequences fill only few passes.

        Sequences of similar length share a pass, the longest first. If memory runs out, the budget is halved, up to
        three times; then the texts of the pass are encoded one by one, and one that does not fit alone has `failed`.
        `progress` is called with the number of sequences that are done, and may raise.
        """
        rest = iter(chunks)
        try:
            while self._take_off(rest):
                progress(self._land(self._landed.get()))
            for numbered in self._alone:
                self._begin([numbered])
                progress(self._land(self._landed.get(), is_alone=True))
        finally:
            for task in self._flying:
                task.cancel()

    def _take_off(self, rest: Iterator[list[Numbered[S]]]) -> bool:
        """Start passes until enough are running; False if nothing is left to do."""
        while len(self._flying) < self._at_once:
            if self._waiting_tokens() < self._at_once * self._budget.tokens and (chunk := next(rest, None)) is not None:
                self._wait(chunk)
            elif self._waiting:
                self._begin(self._next_batch())
            else:
                break
        return bool(self._flying)

    def _begin(self, batch: list[Numbered[S]]) -> None:
        self._flying[self._start([sequence for _, sequence in batch], self._landed)] = batch

    def _waiting_tokens(self) -> int:
        return sum(len(sequence) for _, sequence in self._waiting)

    def _wait(self, sequences: Iterable[Numbered[S]]) -> None:
        self._waiting = deque(sorted([*self._waiting, *sequences], key=lambda numbered: -len(numbered[1])))

    def _next_batch(self) -> list[Numbered[S]]:
        """The longest waiting sequences that fit the budget; at least one. At the end, each core's fair share."""
        fair = self._waiting_tokens() // max(1, self._at_once - 1)
        room = min(self._budget.tokens, max(_LEAST_TOKENS, fair))
        batch: list[Numbered[S]] = []
        while self._waiting and (not batch or len(self._waiting[0][1]) <= room):
            room -= len(self._waiting[0][1])
            batch.append(self._waiting.popleft())
        return batch

    def _land(self, landed: Task[Vectors], *, is_alone: bool = False) -> int:
        """Store the result of a pass; returns how many sequences are finished."""
        batch = self._flying.pop(landed)
        error = landed.exception()
        if error is None:
            self._vectors[[number for number, _ in batch]] = landed.result()
            return len(batch)
        if not self._is_out_of_memory(error):
            raise error
        # The traceback keeps alive all tensors that the pass had made until memory ran out.
        error.__traceback__ = None
        if is_alone:
            self.failed[batch[0][0]] = True
            return 1
        self._after_out_of_memory(batch)
        return 0

    def _after_out_of_memory(self, batch: list[Numbered[S]]) -> None:
        tokens = sum(len(sequence) for _, sequence in batch)
        # If another pass has halved the budget since this one began, only divide this one again.
        if len(batch) > 1 and tokens <= self._budget.tokens:
            if not self._budget.halvings_left:
                self._alone += batch
                return
            self._budget.tokens = max(1, min(self._budget.tokens, tokens) // 2)
            self._budget.halvings_left -= 1
        if len(batch) > 1:
            self._wait(batch)
        else:
            self._alone += batch
