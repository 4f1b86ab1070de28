"""What cutting costs, beside the encoder; its memory; and how much of a long text is embedded again after an edit."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import environment, peak_mb
from benchmarks.passages_answers import Option
from benchmarks.passages_texts import PARAGRAPHS, Piece, joined
from benchmarks.rounds import interleave

if TYPE_CHECKING:
    import duckdb

    from jammi_duck.encoder import Encoder
    from jammi_duck.encoder.passages import Cutter

# A book of a hundred pages, and how many pieces it has under a heading.
BOOK_WORDS = 50_000
_SECTION = 8
_SENTENCE = re.compile(r"(?<=[.!?]) ")


@dataclass(frozen=True)
class Cost:
    """Seconds of cutting texts and of encoding their passages, in rounds; how full these are."""

    cutting: list[float]
    encoding: list[float]
    passages: int
    fill: float


def cutter(tokens: int | None = None, overlap: int | None = None, by: str | None = None) -> tuple[Encoder, Cutter, int]:
    """The default model, what cuts for it, and the most tokens of a passage."""
    from jammi_duck.config.options import DEFAULT_MODEL
    from jammi_duck.encoder.loaded import LoadedEncoders
    from jammi_duck.encoder.passages import Cutter, resolve_rule

    encoder = LoadedEncoders(32, 3).get(DEFAULT_MODEL)
    rule = resolve_rule(encoder, tokens, overlap, by)
    return encoder, Cutter(encoder, rule), rule.tokens


def cost(name: str, encoder: Encoder, cut: Cutter, most: int, texts: Sequence[str], rounds: int) -> Cost:
    """Cutting texts, and encoding their passages, in turn."""
    passages = list(cut_texts(cut, texts))
    measures: dict[str, Callable[[], float]] = {
        "cutting": partial(_seconds, lambda: [cut.cut(text) for text in texts]),
        "encoding": partial(_seconds, lambda: encoder.encode_rows(passages, "document", lambda _: None)),
    }
    samples = interleave(f"cutting {name}", measures, rounds)
    fill = float(np.mean(encoder.token_counts.alone(passages))) / most
    return Cost(samples["cutting"], samples["encoding"], len(passages), fill)


def cut_texts(cut: Cutter, texts: Sequence[str]) -> Iterator[str]:
    """The passages of texts."""
    for text in texts:
        cuts = cut.cut(text)
        for start, end in zip(cuts.starts.tolist(), cuts.ends.tolist(), strict=True):
            yield text[start:end]


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def memory(pieces: Sequence[Piece], characters: int) -> tuple[float, float]:
    """The MB of a text of so many characters, and what cutting it takes beside, at most, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text")
        path.write_text(long_text(pieces, characters))
        command = [sys.executable, "-m", "benchmarks.passages", "--memory-of", str(path)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    of_text, taken = (float(word) for word in done.stdout.split())
    return of_text, taken


def print_memory(path: Path) -> None:
    """Cut the text in a file, and print the MB that it takes, and what cutting takes beside."""
    _, cut, _ = cutter()
    text = path.read_text()
    # What is loaded once is no part of it.
    cut.cut(text[:1_000_000])
    before = _restarted_mb()
    cut.cut(text)
    print(sys.getsizeof(text) / 2**20, peak_mb() - before)


def _restarted_mb() -> float:
    """The memory that this process has now, from which its peak is counted on."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def long_text(pieces: Sequence[Piece], characters: int) -> str:
    """The pieces' texts as paragraphs, from the first on again, so many characters of them."""
    chosen, length = [], 0
    for piece in itertools.cycle(pieces):
        if length >= characters:
            break
        chosen.append(piece.text)
        length += len(piece.text) + len(PARAGRAPHS)
    return PARAGRAPHS.join(chosen)[:characters]


@dataclass(frozen=True)
class Edit:
    """A kind of edit, and how many passages were embedded for it."""

    kind: str
    embedded: int


def edits(
    con: duckdb.DuckDBPyConnection,
    pieces: Sequence[Piece],
    words: int,
    count: int,
    option: Option,
    *,
    headings: bool = False,
) -> tuple[int, list[Edit]]:
    """How many passages a book has, and what so many edits of one of its paragraphs each cost, one after another."""
    rest, chance = iter(pieces), random.Random(0)
    book = paragraphs(joined(rest, words), headings=headings)
    con.execute("CREATE OR REPLACE TABLE books AS SELECT 1 AS id, $1 AS text", [PARAGRAPHS.join(book)])
    con.execute(f"FROM jammi_generate('books', 'text', 'id', passages := {option})").fetchall()
    ((passages,),) = con.execute("SELECT passages FROM jammi_status('books')").fetchall()
    found = []
    for kind in itertools.islice(itertools.cycle(KINDS), count):
        book = edited(book, kind, next(rest).text, chance)
        con.execute("UPDATE books SET text = $1", [PARAGRAPHS.join(book)])
        ((embedded,),) = con.execute("SELECT encoded FROM jammi_refresh('books')").fetchall()
        found.append(Edit(kind, embedded))
    return passages, found


def paragraphs(pieces: Sequence[Piece], *, headings: bool) -> list[str]:
    """The paragraphs of a text, some of which begin with a heading in Markdown, if that is wanted."""
    return [
        f"## {each.title}{PARAGRAPHS}{each.text}" if headings and i % _SECTION == 0 else each.text
        for i, each in enumerate(pieces)
    ]


KINDS = ("a sentence changed", "a paragraph replaced", "a paragraph added", "a paragraph removed")


def edited(book: Sequence[str], kind: str, new: str, chance: random.Random) -> list[str]:
    """A book after an edit of a kind, somewhere; `new` is a paragraph that it does not have."""
    place, changed = chance.randrange(len(book)), list(book)
    if kind == "a sentence changed":
        sentences = _SENTENCE.split(changed[place])
        sentences[chance.randrange(len(sentences))] = _SENTENCE.split(new)[0]
        changed[place] = " ".join(sentences)
    elif kind == "a paragraph replaced":
        changed[place] = new
    elif kind == "a paragraph added":
        changed.insert(place, new)
    else:
        del changed[place]
    return changed
