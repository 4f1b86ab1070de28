"""The borders of a text that its lines show: headings, blank lines, items of lists, code and tables."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jammi_duck.encoder.passages.levels import Level, heading

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BREAKS = "\n\r\x0b\x0c\x85\u2028\u2029"
_LINE_BREAK = re.compile(f"\r\n|[{_BREAKS}]")
_AT_END = rf"(?: [{_BREAKS}] | \Z )"
# What a line may begin with that makes it more than a line. Numbers tell the kinds; headings have those of their ranks.
_KINDS = rf"""
    (?= (?P<heading> \#{{1,6}} ) (?: [ \t] | {_AT_END} ) )
  | (?= (?P<underline> ={{2,}}+ | -{{2,}}+ ) [ \t]*+ {_AT_END} )
  | (?= (?P<item> [-*+•‣◦\u2013] | \(?[0-9]{{1,3}}[.)] | \(?[A-Za-z][.)] ) [ \t] )
"""
_ROW = rf"| (?= (?P<row> \| | [^{_BREAKS}|]*+ \| ) )"
_FIRST = re.compile(rf"\s*+ (?: {_KINDS} {_ROW} )?", re.VERBOSE)
_NEXT = re.compile(rf"[{_BREAKS}] \s*+ (?: {_KINDS} )?", re.VERBOSE)
_NEXT_OF_TABLES = re.compile(rf"[{_BREAKS}] \s*+ (?: {_KINDS} {_ROW} )?", re.VERBOSE)
_UNDERLINE, _ITEM, _ROW_OF_TABLE = 7, 8, 9
_OTHERS = {"underline": _UNDERLINE, "item": _ITEM, "row": _ROW_OF_TABLE}
_FENCE = re.compile(rf"(?:\A|(?<=[{_BREAKS}])) [ \t]*+ (`{{3,}}+|~{{3,}}+) ([^{_BREAKS}]*+)", re.VERBOSE)
# What is a heading if it is a paragraph of its own: capitals alone, or a number or a word that tells its place.
_PLAIN_HEADING = re.compile(
    rf"""
    (?= [^{_BREAKS}]*? [^\W\d_]{{2}} )
    (?: [^a-zß-öø-ÿ{_BREAKS}]{{4,80}}+
      | (?: [0-9]{{1,3}}(?:\.[0-9]{{1,3}})*+[.)]? | [IVXLC]{{1,7}}[.)] | §§?[ ]?[0-9]+[a-z]? | [A-Z]\.
          | (?:Chapter|Section|Article|Part|Appendix|Annex|Schedule|Kapitel|Abschnitt|Artikel|Teil|Anhang|Anlage
              |Chapitre|Titre|Partie|Annexe|Capítulo|Sección|Artículo|Parte|Anexo)[ ][0-9IVXLCA-Z]+[.:]?
        ) (?: [ \t]++ (?=\S) [^{_BREAKS}]{{1,100}}+ )?
    )
    (?<! [.;:,?!] ) (?= [{_BREAKS}] )
    """,
    re.VERBOSE,
)
_LONGEST_HEADING = 140


@dataclass(frozen=True)
class Lines:
    """Where lines begin (`places`, ascending), and the level of the border before each.

    `kept` are the starts and the ends of code blocks and tables, ascending.
    """

    places: NDArray[np.int32]
    levels: NDArray[np.int8]
    kept: list[tuple[int, int]]


def lines_of(text: str) -> Lines:
    """All lines of a text. The line breaks within a paragraph are borders, too."""
    places, levels, kinds = _scanned(text)
    kept = _code_blocks(text)
    starts, ends = np.array(kept, np.int32).reshape(-1, 2).T
    begun, ended = np.searchsorted(starts, places, "left"), np.searchsorted(ends, places, "right")
    is_code = begun > ended
    levels[is_code] = np.where(levels[is_code] == Level.LINE, Level.LINE_KEPT, Level.BLANK_KEPT)
    kinds[is_code] = 0
    kept += _tables(text, places, levels, kinds)
    levels[(kinds == _ITEM) & (levels == Level.LINE)] = Level.LINE_END
    _mark_headings(text, places, levels, kinds)
    return Lines(places, levels, sorted(kept))


def _scanned(text: str) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int8]]:
    """Each line's start, whether it is a paragraph's first, and its kind."""
    places, levels, kinds = array("i"), array("b"), array("b")
    first = _FIRST.match(text)
    start = first.end() if first else 0
    pattern = _NEXT_OF_TABLES if "|" in text else _NEXT
    line, paragraph = int(Level.LINE), int(Level.PARAGRAPH)
    matches = [first] if first else []
    for match in (*matches, *()) if start == len(text) else _chained(matches, pattern.finditer(text, start)):
        run = match.group()
        place, kind = match.end(), match.lastgroup
        is_paragraph = match.start() == 0 or (len(run) > 1 and len(_LINE_BREAK.findall(run)) > 1)
        places.append(place)
        levels.append(paragraph if is_paragraph else line)
        kinds.append(0 if kind is None else len(match["heading"]) if kind == "heading" else _OTHERS[kind])
    if places and places[-1] == len(text):
        for column in (places, levels, kinds):
            column.pop()
    return np.array(places, np.int32), np.array(levels, np.int8), np.array(kinds, np.int8)


def _chained(first: list[re.Match[str]], others: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    yield from first
    yield from others


def _code_blocks(text: str) -> list[tuple[int, int]]:
    """The starts and ends of fenced code, with its fences. A fence that is never closed is none."""
    if "```" not in text and "~~~" not in text:
        return []
    blocks = []
    fences = [(match.start(1), match.end(), match[1], not match[2].strip()) for match in _FENCE.finditer(text)]
    closers = {mark: [i for i, each in enumerate(fences) if each[3] and each[2][0] == mark] for mark in "`~"}
    after = {"`": 0, "~": 0}
    next_free = 0
    for i, (start, _, mark, _) in enumerate(fences):
        if i < next_free:
            continue
        same = closers[mark[0]]
        place = after[mark[0]]
        while place < len(same) and same[place] <= i:
            place += 1
        after[mark[0]] = place
        while place < len(same) and len(fences[same[place]][2]) < len(mark):
            place += 1
        if place < len(same):
            blocks.append((start, fences[same[place]][1]))
            next_free = same[place] + 1
    return blocks


def _tables(
    text: str, places: NDArray[np.int32], levels: NDArray[np.int8], kinds: NDArray[np.int8]
) -> list[tuple[int, int]]:
    """The starts and ends of runs of two lines or more with a vertical bar; the borders within become weak."""
    is_row = kinds == _ROW_OF_TABLE
    goes_on = is_row & np.concatenate(([False], is_row[:-1])) & (levels == Level.LINE) if len(is_row) else is_row
    levels[goes_on] = Level.LINE_KEPT
    edges = np.diff(np.concatenate(([0], goes_on.astype(np.int8), [0])))
    starts, ends = np.flatnonzero(edges == 1) - 1, np.flatnonzero(edges == -1)
    return [
        (int(places[start]), int(places[end]) if end < len(places) else len(text))
        for start, end in zip(starts, ends, strict=True)
    ]


def _mark_headings(text: str, places: NDArray[np.int32], levels: NDArray[np.int8], kinds: NDArray[np.int8]) -> None:
    """Borders before headings become strong, and those after them weak."""
    headed = np.zeros(len(places) + 1, np.bool_)
    ranks = np.zeros(len(places), np.int8)
    is_marked = (kinds > 0) & (kinds < _UNDERLINE)
    ranks[is_marked] = kinds[is_marked]
    headed[1:] = is_marked
    for i in np.flatnonzero((kinds == _UNDERLINE) & (levels == Level.LINE)).tolist():
        top = i - 1
        if top > 0 and levels[top] == Level.LINE and kinds[top - 1] == _UNDERLINE:
            headed[top] = True
            top -= 1
        if top >= 0 and (top == 0 or levels[top] == Level.PARAGRAPH) and kinds[i - 1] in (0, _ITEM):
            ranks[top] = 1 if text[places[i]] == "=" else 2
            headed[i : i + 2] = True
    for i in _plain_headings(text, places, levels, kinds):
        ranks[i] = 6
        headed[i + 1] = True
    is_heading = ranks > 0
    levels[is_heading] = heading(ranks[is_heading])
    levels[headed[:-1]] = Level.HEADED


def _plain_headings(
    text: str, places: NDArray[np.int32], levels: NDArray[np.int8], kinds: NDArray[np.int8]
) -> list[int]:
    is_first = levels == Level.PARAGRAPH
    is_alone = is_first[:-1] & is_first[1:] & (np.diff(places) <= _LONGEST_HEADING) & np.isin(kinds[:-1], (0, _ITEM))
    starts = places.tolist() if is_alone.any() else []
    return [i for i in np.flatnonzero(is_alone).tolist() if _PLAIN_HEADING.match(text, starts[i])]
