"""The borders of a text: the strong ones of all of it, and the weak ones where nothing stronger is near enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jammi_duck.encoder.passages.levels import Level, heading
from jammi_duck.encoder.passages.lines import lines_of
from jammi_duck.encoder.passages.sentences import sentence_starts
from jammi_duck.encoder.passages.words import character_starts, spaced_marks, word_starts


@dataclass(frozen=True)
class Borders:
    """Borders of a text, ascending, from its start to its end: their places, levels, and the tokens before them."""

    places: NDArray[np.int32]
    levels: NDArray[np.int8]
    tokens: NDArray[np.int32]


@dataclass(frozen=True)
class Room:
    """How many tokens and how many characters fit a passage."""

    tokens: int
    characters: int


def borders_of(text: str, ends: NDArray[np.int32], room: Room, by: str) -> Borders:
    """The borders of a text whose tokens have these `ends`; those within a sentence only where it is over the limit."""
    places, levels, kept = _strong(text, by)
    borders = _with_tokens(places, levels, ends)
    step = max(1, min(LONGEST_TOKEN, room.characters // 4))

    def words(start: int, end: int) -> tuple[NDArray[np.int32], int]:
        return word_starts(text, start, end), Level.WORD_KEPT if _is_kept(kept, start) else Level.WORD

    def characters(start: int, end: int) -> tuple[NDArray[np.int32], int]:
        whole = character_starts(text, start, end)
        # Where a token ends within a character, the border is behind that.
        nearest = np.unique(np.searchsorted(whole, _cuts(ends, start, end, step)))
        return whole[nearest[nearest < len(whole)]], Level.CHARACTER

    def code_points(start: int, end: int) -> tuple[NDArray[np.int32], int]:
        return _cuts(ends, start, end, step), Level.CODE_POINT

    for find in (words, characters, code_points):
        borders = _refined(text, borders, ends, room, find)
    return borders


# A token is longer than so many characters only if it stands for a whole unknown word.
LONGEST_TOKEN = 64
_STRONGEST = heading(1)
# The starts and the ends of what is kept in one piece.
_Kept = tuple[NDArray[np.int32], NDArray[np.int32]]


def _strong(text: str, by: str) -> tuple[NDArray[np.int32], NDArray[np.int8], _Kept]:
    """The ends of the text and the starts of its lines and sentences, with their levels; and what is kept together."""
    edges, strongest = np.array([0, len(text)], np.int32), np.full(2, _STRONGEST, np.int8)
    if by == "word":
        return edges, strongest, (edges[:0], edges[:0])
    lines, sentences = lines_of(text), sentence_starts(text)
    starts, stops = np.array(lines.kept, np.int32).reshape(-1, 2).T
    is_within = np.searchsorted(starts, sentences, "left") > np.searchsorted(stops, sentences, "right")
    sentences = sentences[~is_within]
    of_sentences = np.full(len(sentences), Level.SENTENCE, np.int8)
    of_sentences[np.isin(sentences, lines.places, assume_unique=True)] = Level.LINE_END
    # What follows a heading is as near to it if a sentence begins there.
    headed = lines.places[lines.levels == Level.HEADED]
    of_sentences[np.isin(sentences, headed, assume_unique=True)] = Level.HEADED
    places = np.concatenate((edges, lines.places, sentences))
    levels = np.concatenate((strongest, lines.levels, of_sentences))
    order = np.lexsort((-levels, places))
    places, levels = places[order], levels[order]
    # Of two at one place, the stronger.
    chosen = np.concatenate(([True], places[1:] != places[:-1])) & ~np.isin(places, spaced_marks(text))
    places, levels = places[chosen], levels[chosen]
    if by == "sentence":
        levels[1:-1] = np.minimum(levels[1:-1], Level.SENTENCE)
    return places, levels, (starts, stops)


def _is_kept(kept: _Kept, place: int) -> bool:
    starts, stops = kept
    return up_to(starts, place) > up_to(stops, place)


def _with_tokens(places: NDArray[np.int32], levels: NDArray[np.int8], ends: NDArray[np.int32]) -> Borders:
    return Borders(places, levels, np.searchsorted(ends, places, "right").astype(np.int32))


def _refined(
    text: str,
    borders: Borders,
    ends: NDArray[np.int32],
    room: Room,
    find: Callable[[int, int], tuple[NDArray[np.int32], int]],
) -> Borders:
    """With more borders, as `find` finds them, where the next border is too far away."""
    is_over = (np.diff(borders.tokens) > room.tokens) | (np.diff(borders.places) > room.characters)
    more: list[NDArray[np.int32]] = []
    levels: list[NDArray[np.int8]] = []
    for i in np.flatnonzero(is_over).tolist():
        start, end = int(borders.places[i]), int(borders.places[i + 1])
        end = start + len(text[start:end].rstrip())
        tokens = up_to(ends, end) - int(borders.tokens[i])
        if tokens > room.tokens or end - start > room.characters:
            found, level = find(start, end)
            more.append(found)
            levels.append(np.full(len(found), level, np.int8))
    if not more:
        return borders
    places = np.concatenate((borders.places, *more))
    order = np.argsort(places, kind="stable")
    return _with_tokens(places[order], np.concatenate((borders.levels, *levels))[order], ends)


def up_to(ends: NDArray[np.int32], place: int) -> int:
    """How many of these places are not behind another."""
    # By a number of another type, numpy would copy them all.
    return int(ends.searchsorted(np.int32(place), "right"))


def _cuts(ends: NDArray[np.int32], start: int, end: int, step: int) -> NDArray[np.int32]:
    """The ends of tokens within a word, and a place for each so many characters: a token may be a whole word."""
    of_tokens = ends[up_to(ends, start) : up_to(ends, end - 1)]
    return np.union1d(of_tokens, np.arange(start + step, end, step, dtype=np.int32))
