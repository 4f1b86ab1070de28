"""Cuts texts into passages that a model reads whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder.blanks import is_blank
from jammi_duck.encoder.passages.rule import CUTTER
from jammi_duck.errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jammi_duck.encoder import Encoder
    from jammi_duck.types import PassageRule


@dataclass(frozen=True)
class Cuts:
    """Where the passages of a text start and end, in code points, in their order: `text[start:end]` is a passage."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def embedded_text(title: str, passage: str) -> str:
    """What a model embeds of a passage: after a title, as `Cutter.title` gives it, and a space, if there is one."""
    return f"{title} {passage}" if title else passage


class Cutter:
    """Cuts texts by a rule, with the tokens of a model. Threads may share it.

    The same text, rule and tokenizer give the same passages anywhere.
    """

    def __init__(self, encoder: Encoder, rule: PassageRule) -> None:
        """Cut by a rule, as `resolve_rule` makes it.

        Raises:
            UnsupportedError: another version's cutter made these passages.
        """
        if rule.cutter != CUTTER:
            raise UnsupportedError(
                f"these passages were cut by '{rule.cutter}', and this version cuts by '{CUTTER}': generate the "
                "embedding table anew, or use the version that has made it"
            )
        self._counts = encoder.token_counts
        self._rule = rule

    def title(self, title: str) -> str:
        """What is embedded of a title: at most half of what the model reads, cut between words."""
        title = title.strip()
        counts = self._counts
        most = (counts.limit - counts.fixed) // 2
        if not counts.limit or not title:
            return title
        # Where texts may be cut is imported when the first one is cut: its patterns take time to compile.
        from jammi_duck.encoder.passages.borders import LONGEST_TOKEN
        from jammi_duck.encoder.passages.words import word_starts

        title = title[: most * LONGEST_TOKEN].strip()
        while title and (over := counts.alone([title])[0] - most) > 0:
            end = int(counts.ends(title)[-over - 1]) if over < len(counts.ends(title)) else 0
            starts = word_starts(title, 0, len(title))
            place = int(np.searchsorted(starts, end, "right")) - 1
            shorter = title[: int(starts[place])].strip() if place >= 0 else title[:end]
            title = shorter if len(shorter) < len(title) else title[: len(title) // 2]
        return title

    def cut(self, text: str, title: str = "") -> Cuts:
        """The passages of a text, which the model is to read after a title.

        All of a text is in passages, but white space around them. No passage is blank, and a blank text has none.

        Raises:
            EncodingError: the model's tokenizer fails at the text.
        """
        if is_blank(text):
            return _cuts([])
        from jammi_duck.encoder.passages.cutting import Cutting

        passages = Cutting(self._counts, self._rule, text, self.title(title)).passages()
        return _cuts([each for each in passages if not is_blank(text[slice(*each)])])


def _cuts(passages: list[tuple[int, int]]) -> Cuts:
    both = np.array(passages, np.int64).reshape(-1, 2)
    return Cuts(both[:, 0], both[:, 1])
