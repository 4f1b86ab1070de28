"""How one text is cut: at the best of its borders, so that no passage is longer than the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder.passages.borders import LONGEST_TOKEN, Room, borders_of, up_to
from jammi_duck.encoder.passages.cutter import embedded_text
from jammi_duck.encoder.passages.joining import kept_borders, order_of
from jammi_duck.encoder.passages.levels import Level
from jammi_duck.encoder.passages.words import character_starts, next_word, word_starts

if TYPE_CHECKING:
    from jammi_duck.encoder.token_counts import TokenCounts
    from jammi_duck.types import PassageRule

_NO_LIMIT = 1 << 30
# A passage is counted again if it may be over the limit with so many more tokens: at its start, a word may have others.
_LONGEST_FIRST_WORD = 200


class Cutting:
    """The work on one text."""

    def __init__(self, counts: TokenCounts, rule: PassageRule, text: str, title: str) -> None:
        self._counts, self._rule, self._text, self._title = counts, rule, text, title
        of_title = counts.alone([embedded_text(title, "")])[0] if title else 0
        limit = counts.limit - counts.fixed - of_title if counts.limit else _NO_LIMIT
        self._most = max(1, min(rule.tokens, limit))
        self._overlap = min(rule.overlap, self._most // 2)
        characters = LONGEST_TOKEN * self._most
        if counts.most_characters:
            characters = max(1, min(characters, counts.most_characters - len(embedded_text(title, ""))))
        self._characters = characters

    def passages(self) -> list[tuple[int, int]]:
        """The starts and ends of all passages."""
        text = self._text
        self._ends = self._counts.ends(text)
        start, end = self._stripped(0, len(text))
        share = self._most - self._overlap
        if len(self._ends) <= share and not self._over([(start, end)])[0]:
            return [(start, end)]
        room = Room(share, max(1, self._characters * share // self._most))
        self._borders = borders_of(text, self._ends, room, self._rule.by)
        borders = self._borders
        order = order_of(text, borders.places, borders.levels)
        kept = kept_borders(order, borders.levels, borders.tokens, borders.places, (room.tokens, room.characters))
        cores = [(int(a), int(b)) for a, b in zip(borders.places[kept], borders.places[kept[1:]], strict=False)]
        cores = [(s, e) for s, e in (self._stripped(a, b) for a, b in cores) if s < e]
        return self._overlapping(self._fitting(cores))

    def _stripped(self, start: int, end: int) -> tuple[int, int]:
        part = self._text[start:end]
        return end - len(part.lstrip()) if part.strip() else end, start + len(part.rstrip())

    def _fitting(self, pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """These pieces, cut again where they are over the limit by themselves."""
        found: list[tuple[int, int]] = []
        while pieces:
            again: list[tuple[int, int]] = []
            for piece, over in zip(pieces, self._over(pieces), strict=True):
                middle = self._middle(*piece) if over else None
                if middle is None:
                    found.append(piece)
                else:
                    again += [self._stripped(piece[0], middle), self._stripped(middle, piece[1])]
            pieces = [(start, end) for start, end in again if start < end]
        return sorted(found)

    def _overlapping(self, pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """These pieces, begun earlier by as much of the ones before them as is asked for, and fits."""
        starts = [start for start, _ in pieces]
        left = dict.fromkeys(range(1, len(pieces)), self._overlap)
        while left:
            begun = {i: self._begun(pieces[i][0], pieces[i - 1][0], overlap) for i, overlap in left.items()}
            earlier = {i: (start, pieces[i][1]) for i, start in begun.items() if start < pieces[i][0]}
            over = dict(zip(earlier, self._over(list(earlier.values())), strict=True))
            starts = [earlier[i][0] if over.get(i) == 0 else start for i, start in enumerate(starts)]
            left = {i: left[i] - more - 1 for i, more in over.items() if more}
        return [(start, end) for start, (_, end) in zip(starts, pieces, strict=True)]

    def _begun(self, start: int, before: int, overlap: int) -> int:
        """Where the passage of a piece begins: with words of at most so many tokens of the piece before it.

        `start` and `before` are the starts of both. A heading is the first of its passage.
        """
        if overlap <= 0:
            return start
        border = up_to(self._borders.places, start) - 1
        level = int(self._borders.levels[border]) if self._borders.places[border] == start else Level.CHARACTER
        if level >= Level.HEADING:
            return start
        tokens = up_to(self._ends, start)
        lowest = int(self._ends[tokens - overlap - 1]) if tokens > overlap else 0
        lowest = max(lowest, start - max(1, self._characters * overlap // self._most))
        lowest = max(lowest, before + 1)
        place = next_word(self._text, lowest, start)
        if place is None and level <= Level.CHARACTER:
            place = int(self._borders.places[up_to(self._borders.places, lowest - 1)])
        return start if place is None else self._stripped(min(place, start), start)[0]

    def _over(self, passages: list[tuple[int, int]]) -> list[int]:
        """By how many tokens or characters each passage is over the limit, as the model will read it."""
        over = [max(0, end - start - self._characters) for start, end in passages]
        doubtful = [i for i, passage in enumerate(passages) if self._is_doubtful(*passage)]
        texts = [self._text[start:end] for start, end in (passages[i] for i in doubtful)]
        alone = self._counts.alone(texts)
        embedded = [count + self._counts.fixed for count in alone]
        if self._title or not self._counts.is_plain:
            embedded = self._counts.embedded([embedded_text(self._title, text) for text in texts])
        limit = self._counts.limit or _NO_LIMIT
        for i, count, all_of_it in zip(doubtful, alone, embedded, strict=True):
            over[i] = max(over[i], count - self._rule.tokens, all_of_it - limit)
        return over

    def _is_doubtful(self, start: int, end: int) -> bool:
        """Whether a passage may have more tokens by itself than are allowed."""
        text, separators = self._text, self._counts.separators
        if (start and text[start - 1] not in separators) or (end < len(text) and text[end] not in separators):
            return True
        tokens = up_to(self._ends, end) - up_to(self._ends, start)
        word = text[start : start + _LONGEST_FIRST_WORD].split(None, 1)[0]
        return tokens + len(word.encode("utf-8", "surrogatepass")) > self._most

    def _middle(self, start: int, end: int) -> int | None:
        """The strongest border within a piece, of equal ones the nearest to its middle; None if it has none."""
        borders = self._borders
        inner = slice(up_to(borders.places, start), up_to(borders.places, end - 1))
        places, levels = borders.places[inner], borders.levels[inner]
        if len(places):
            places = places[levels == levels.max()]
        else:
            for find in (word_starts, character_starts):
                places = find(self._text, start, end)
                if len(places):
                    break
        if not len(places):
            places = np.arange(start + 1, end, dtype=np.int32)
        return int(places[np.abs(places - (start + end) / 2).argmin()]) if len(places) else None
