"""Long texts, joined of real ones: those in which facts are hidden at known places, and one as long as a book."""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.common import DATA, packages
from benchmarks.passages_facts import Fact

# The words of a text: at least so many, and at most those of its last piece more.
LEAST, MOST = 2_000, 19_500
_LONGEST = 500
PARAGRAPHS = "\n\n"
_SENTENCE = re.compile(r"(?<=[a-z)][.!?]) (?=[A-Z])")


@dataclass(frozen=True)
class Piece:
    """A real text of one paragraph, and its title."""

    title: str
    text: str


@dataclass(frozen=True)
class Hidden:
    """A fact and where it is: `text[start:end]` of the text with this number. `alone`: as a paragraph of its own."""

    fact: Fact
    text: int
    start: int
    end: int
    alone: bool


@dataclass(frozen=True)
class LongTexts:
    """Texts with a fact in each. The title of a text is that of its first piece, and says nothing of the fact."""

    titles: list[str]
    texts: list[str]
    hidden: list[Hidden]


def pieces(seed: int = 0) -> list[Piece]:
    """The packages' descriptions, each once, and SciFact's abstracts, in a seeded order; none that is too long."""
    import pyarrow.parquet as pq

    described = dict(zip(packages("description"), packages("summary"), strict=True))
    corpus = DATA / "scifact" / "corpus.parquet"
    if not corpus.exists():
        sys.exit(f"This benchmark needs {corpus}, which is not part of the project.")
    abstracts = pq.read_table(corpus, columns=["title", "text"]).to_pylist()
    found = [Piece(summary, text) for text, summary in described.items()] + [Piece(**each) for each in abstracts]
    found = [Piece(each.title, " ".join(each.text.split())) for each in found]
    found = [each for each in found if 0 < len(each.text.split()) <= _LONGEST]
    random.Random(seed).shuffle(found)
    return found


def hide(
    facts: Sequence[Fact], pieces: Sequence[Piece], words: tuple[int, int] = (LEAST, MOST), seed: int = 0
) -> LongTexts:
    """A text for each fact, which is after any of its sentences, with the same chance for all.

    The numbers of the texts' words are spread evenly by their logarithms. Every other fact is a paragraph of its own;
    all are that have something around them.
    """
    chance, rest = random.Random(seed), itertools.cycle(pieces)
    least, most = words
    found = LongTexts([], [], [])
    for number, fact in enumerate(facts):
        chosen = joined(rest, round(math.exp(chance.uniform(math.log(least), math.log(most)))))
        text, alone = PARAGRAPHS.join(each.text for each in chosen), number % 2 == 0 or bool(fact.before + fact.after)
        place, border = _place(text, chance, alone)
        head = f"{text[:place]}{border}{fact.before} ".rstrip(" ") + (" " if fact.before or border == " " else "")
        tail = f" {fact.after}".rstrip() + border + text[place:].lstrip()
        start = len(head)
        found.texts.append(head + fact.sentence + tail)
        found.titles.append(chosen[0].title)
        found.hidden.append(Hidden(fact, number, start, start + len(fact.sentence), alone))
    return found


def joined(pieces: Iterator[Piece], words: int) -> list[Piece]:
    """The next pieces, until they have so many words together."""
    chosen, count = [], 0
    while count < words:
        chosen.append(next(pieces))
        count += len(chosen[-1].text.split())
    return chosen


def _place(text: str, chance: random.Random, alone: bool) -> tuple[int, str]:
    """Where a fact goes, and what comes before and after it there."""
    if alone:
        return chance.choice([match.start() for match in re.finditer(PARAGRAPHS, text)]), PARAGRAPHS
    return chance.choice([match.start() for match in _SENTENCE.finditer(text)]), " "
