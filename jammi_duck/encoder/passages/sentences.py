"""Where the sentences of a text begin, by Unicode's rules (UAX 29), but for what is said below.

A line break ends no sentence, since many texts are wrapped. A full stop, an exclamation or a question mark of ASCII
ends one only before white space, so that addresses and code stay whole. A full stop ends none after an abbreviation, an
initial, or a number that begins a line, or that stands before a month.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np
import regex

from jammi_duck.encoder.passages.words import JOINED

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Marks that end a sentence, with closing quotes and brackets after them, and white space.
_FULL = r"[\p{Sentence_Break=STerm}\uff0e\ufe52--[!?]]"
_CLOSING = r"[\p{Sentence_Break=Close}\p{Sentence_Break=Extend}\p{Sentence_Break=Format}]*+"
# Without a space, what opens a bracket or a quote belongs to what follows.
_CLOSED = r"[[\p{Sentence_Break=Close}\p{Sentence_Break=Extend}\p{Sentence_Break=Format}]--[\p{Ps}\p{Pi}]]*+"
_GOES_ON = r"[\p{Sentence_Break=SContinue}\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}]"
_NO_LETTER = (
    r"[^\p{Sentence_Break=OLetter}\p{Sentence_Break=Upper}\p{Sentence_Break=Lower}"
    r"\p{Sentence_Break=STerm}\p{Sentence_Break=ATerm}\n]"
)
_END = regex.compile(
    rf"""
    (?: (?P<full> (?: {_FULL} [.!?]*+ )++ {_CLOSED} (?: \s++ | (?<! {JOINED} ) ) )
      | [!?] [.!?]*+ {_CLOSING} \s++
      | (?P<stop> \. ) [.!?]*+ {_CLOSING} \s++ (?! {_NO_LETTER}{{0,20}}+ \p{{Sentence_Break=Lower}} )
    ) (?! {_GOES_ON} | {JOINED} ) (?= . )
    """,
    regex.VERBOSE | regex.V1 | regex.DOTALL,
)
# Abbreviations that rarely end a sentence, in lower case: of English, German, French and Spanish.
_ABBREVIATIONS = frozenset(
    # ruff: noqa: SIM905 - a list of texts would take five times as many lines
    "mr mrs ms dr prof st rev hon gen col capt lt sgt maj cmdr sen gov pres mt messrs vs viz cf approx dept al ca resp "
    "bzw dipl ing hr fr frl ggf inkl exkl evtl vgl sog bspw geb gest hrsg mio mrd zzgl abzgl z.b d.h u.a z.t u.u i.d.r "
    "mm mme mlle pr ste env p.ex c.-à-d éd sr sra srta dra dña ud uds vd vds lic avda p.ej ee.uu".split(" ")
)
# Those that are words of their own, too, but not before a number.
_BEFORE_NUMBERS = frozenset(
    "no nos nr art arts abs fig figs vol vols pp ch chap sec secs eq eqs ref refs tab bd kap str tel max min núm pág "
    "págs cap av ft para paras cl".split(" ")
)
_MONTHS = ("jan", "feb", "mär", "apr", "mai", "jun", "jul", "aug", "sep", "okt", "nov", "dez")
_OPENING = "([{<\"'«„“\u2018\u201a¿¡*_"
_LONGEST = 20


def sentence_starts(text: str) -> NDArray[np.int32]:
    """Where sentences begin, ascending, but for the first."""
    found = array("i")
    for match in _END.finditer(text):
        if match["stop"] is None or not _is_within(text, match.start(), match.end()):
            found.append(match.end())
    return np.array(found, np.int32)


def _is_within(text: str, stop: int, after: int) -> bool:
    """Whether a full stop ends no sentence, by the word before it and what begins `after` it."""
    words = text[max(0, stop - _LONGEST) : stop].rsplit(None, 1)
    word = words[-1].lstrip(_OPENING).lower() if words else ""
    if not word or len(word) > 12:
        return False
    if word.isdigit():
        is_month = len(word) <= 2 and text[after : after + 3].lower() in _MONTHS
        return is_month or (len(word) <= 3 and _begins_line(text, stop - len(word)))
    if word in _ABBREVIATIONS or (word in _BEFORE_NUMBERS and text[after].isdigit()):
        return True
    # Initials: of a name, or "U.S".
    return all(len(part) == 1 and part.isalpha() for part in word.split("."))


def _begins_line(text: str, place: int) -> bool:
    before = text[max(0, place - _LONGEST) : place].rstrip(" \t(")
    return before.endswith(("\n", "\r")) or (not before and place <= _LONGEST)
