"""How many threads share a lone pass: several, as long as that is faster.

It is not where other processes use the cores: a thread that is put off in the middle of a part makes all others wait
for milliseconds. So the time of shared passes is compared with that of others, and what was slower is tried later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# So many products are worth a thread of their own: it takes some 0.05 ms to start.
_PRODUCTS_OF_MEMBER = {"float32": 15_000_000, "bfloat16": 15_000_000, "int8": 45_000_000}
# After a slow pass, so many passes are not shared, and twice as many after the next one, up to the second number.
_LEAST_REST, _MOST_REST = 8, 256
# One pass of so many is not shared, to know how long that takes.
_EVERY = 32
# How much the newest pass counts in the usual time.
_NEWEST = 0.2


class Sharing:
    """Decides for the lone passes of a model. Threads may share it: what they note at once may be lost."""

    def __init__(self, precision: str, products: int) -> None:
        """A token takes `products` products."""
        self.least_tokens = max(1, 2 * _PRODUCTS_OF_MEMBER[precision] // products)
        # The usual time of a pass that is not shared, for each of its tokens.
        self._alone = math.nan
        self._rest_passes = 0
        self._next_rest = _LEAST_REST
        self._passes = 0

    def run(self, tokens: int, most: int, work: Callable[[int], T]) -> T:
        """Do a pass of so many tokens, which `work` does with a number of threads: `most`, where it is a lone one."""
        if most < 2:
            return work(1)
        members = self._members(tokens, most)
        began = time.perf_counter()
        result = work(members)
        self._note(tokens, members, time.perf_counter() - began)
        return result

    def _members(self, tokens: int, most: int) -> int:
        worth = min(most, 2 * tokens // self.least_tokens)
        if worth < 2:
            return 1
        self._passes += 1
        if self._rest_passes:
            self._rest_passes -= 1
            return 1
        return worth if self._passes % _EVERY and not math.isnan(self._alone) else 1

    def _note(self, tokens: int, members: int, seconds: float) -> None:
        each = seconds / tokens
        if members == 1:
            self._alone = each if math.isnan(self._alone) else self._alone + _NEWEST * (each - self._alone)
        elif each <= self._alone:
            self._next_rest = _LEAST_REST
        else:
            self._rest_passes, self._next_rest = self._next_rest, min(2 * self._next_rest, _MOST_REST)
