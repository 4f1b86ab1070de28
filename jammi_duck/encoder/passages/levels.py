"""How strong the borders of a text are, from the weakest to the strongest. A text is cut at strong ones first."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Level(IntEnum):
    """What a border is between, or within. What is weaker than `WORD` is only cut where nothing else fits."""

    CODE_POINT = 0  # within what a reader sees as one character, if that alone is over the limit
    CHARACTER = 1  # within a word
    WORD_KEPT = 2  # words of a table or of code
    LINE_KEPT = 3  # lines of a table or of code
    BLANK_KEPT = 4  # lines of code with a blank line between them
    HEADED = 5  # a heading, and what it is the heading of
    WORD = 6
    LINE = 7
    SENTENCE = 8
    LINE_END = 9  # sentences, of which the first ends with its line
    PARAGRAPH = 10
    HEADING = 11  # before a heading of the sixth rank; up to 16, of the first


Rank = TypeVar("Rank", int, "NDArray[np.int8]")


def heading(rank: Rank) -> Rank:
    """The level of the border before a heading of a rank, 1 to 6, or of several."""
    return int(Level.HEADING) + 6 - rank
