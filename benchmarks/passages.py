"""Passages of long texts: what is found that whole texts hide, and what they cost.

facts       300 made-up facts, hidden in long texts and asked for in other words: alone, within a paragraph, and so with
            the name of whom or what the fact is about in the question
sweep       the same, of texts cut in many ways, with fewer facts
collections nDCG@10 of SciFact and Cranfield: whole texts, their passages, and these with titles
cutting     the cutter against the encoder on the same texts; its memory
edits       how many passages are embedded for an edit of a book
searches    200,000 passages against 200,000 plain rows

All parts but the sweep are run unless some are named. They need the default model. Ratios are medians of rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import judged_collections, passages_cutting, search_data
from benchmarks import passages_searches as searches
from benchmarks.common import show
from benchmarks.passages_answers import (
    MODES,
    PASSAGE,
    ROW,
    Found,
    answers,
    equipped,
    generated,
    judged,
    overlap,
    qualities,
    write,
)
from benchmarks.passages_facts import FACTS, facts
from benchmarks.passages_texts import LEAST, MOST, PARAGRAPHS, LongTexts, hide, joined, pieces
from benchmarks.rounds import HEADER, Report

PARTS = ("facts", "sweep", "collections", "cutting", "edits", "searches")
# Columns and `passages` of each table of the facts, and whether it has goals.
TABLES = {
    "whole texts": ("'text'", "false"),
    "passages": ("'text'", "true"),
    "with a title": ("['title', 'text']", "{'title': 'title'}"),
}
SWEEP = (
    *(f"{{'tokens': {tokens}, 'overlap': {overlap}}}" for tokens in (64, 128, 200, 254) for overlap in (0, 32)),
    *(f"{{'tokens': {tokens}, 'by': 'sentence'}}" for tokens in (32, 64, 128, 254)),
)
# Row @5 of the facts that are paragraphs, and of those between sentences of one.
APART = ("own paragraph", "within one")
FOUND = ("facts", "table", "rows", "mode", "row @1", "row @5", "passage @1", "passage @5", *APART)
GOALS = {ROW: ">= 0.95", PASSAGE: ">= 0.9"}
EDITS = 40


def main() -> None:
    """Print the measures, and the goals and whether they are met."""
    options = _options()
    if options.memory_of:
        passages_cutting.print_memory(options.memory_of)
        return
    began, load = time.perf_counter(), os.getloadavg()[0]
    report = Report(is_trial=options.quick)
    parts = {
        "facts": _facts,
        "sweep": _sweep,
        "collections": _collections,
        "cutting": _cutting,
        "edits": _edits,
        "searches": _searches,
    }
    for name in options.only:
        at = time.perf_counter()
        parts[name](options, report)
        print(f"\n{name}: {time.perf_counter() - at:.0f} s", flush=True)
    show("Goals", HEADER, report.lines)
    for missing, reason in report.missing.items():
        print(f"Not measured: {missing}: {reason}")
    print(f"\nLoad of a minute when it began: {load:.1f}. {time.perf_counter() - began:.0f} s in all")
    report.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "sweep"])
    parser.add_argument("--facts", type=int, default=FACTS)
    parser.add_argument(
        "--around", nargs="+", choices=("alone", "around", "named"), default=("named", "around", "alone")
    )
    parser.add_argument("--words", type=int, nargs=2, default=(LEAST, MOST), help="of a text")
    parser.add_argument("--title", action="store_true", help="also find facts in texts with titles")
    parser.add_argument("--sweep", nargs="+", default=SWEEP, help="what `passages` is in the sweep")
    parser.add_argument("--missed", type=int, default=0, help="print so many facts that were not found")
    parser.add_argument("--collections", nargs="+", choices=judged_collections.NAMES, default=("scifact", "cranfield"))
    parser.add_argument("--megabytes", type=int, default=50, help="of the text whose memory is measured")
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--rows", type=int, default=200_000, help="that are searched")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5, help="after the one that warms up")
    parser.add_argument("--quick", action="store_true", help="a trial: everything is small, and there are no goals")
    parser.add_argument("--cache", type=Path, default=search_data.CACHE, help="where the texts' vectors are kept")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.facts, options.words, options.megabytes, options.edits = 42, (500, 1000), 5, 8
        options.rows, options.queries, options.rounds = 5_000, 10, 2
    return options


def _hidden(options: argparse.Namespace, around: str) -> LongTexts:
    return hide(facts(options.facts, around=around != "alone", named=around == "named"), pieces(), tuple(options.words))


def _facts(options: argparse.Namespace, report: Report) -> None:
    tables = {name: table for name, table in TABLES.items() if name != "with a title" or options.title}
    for around in options.around:
        lines, long = [], _hidden(options, around)
        with equipped() as con:
            write(con, long)
            for name, (columns, option) in tables.items():
                table = generated(con, "texts", columns, option)
                for mode in MODES:
                    found = answers(con, table, long.hidden, mode)
                    lines.append(_line(around, name, table.stored, mode, found))
                    if name == "passages":
                        _add_hits(report, around, mode, found)
                        _show_missed(found, options.missed)
        words = [len(text.split()) for text in long.texts]
        show(f"{len(long.hidden)} facts ({around}) in {len(words)} texts, {sum(words):,} words", FOUND, lines)
        print(
            f"A text has {min(words):,} to {max(words):,} words. By chance, {5 / len(words):.3f} of the rows are among "
            f"the first five. Of the words of a question, {overlap(long.hidden):.2f} are in its fact."
        )


def _line(facts: str, table: str, stored: int, mode: str, found: Found) -> tuple[str, ...]:
    hits = [found.hit(what, k) for what in (ROW, PASSAGE) for k in (1, 5)]
    kinds = {each.alone for each in found.hidden}
    apart = [f"{found.hit(ROW, 5, alone):.3f}" if alone in kinds else "" for alone in (True, False)]
    return (facts, table, f"{stored:,}", mode, *(f"{hit:.3f}" for hit in hits), *apart)


def _add_hits(report: Report, around: str, mode: str, found: Found) -> None:
    for what, goal in GOALS.items():
        value = found.hit(what, 5)
        report.add(f"facts ({around}), {mode}: {what} @5", f"{value:.3f}", "", "", value, goal)


def _show_missed(found: Found, most: int) -> None:
    for each in list(found.missed())[:most]:
        print(f"missed: {each.fact.question} | {each.fact.sentence}")


def _sweep(options: argparse.Namespace, report: Report) -> None:
    for around in options.around:
        lines, long = [], _hidden(options, around)
        with equipped() as con:
            write(con, long)
            for option in options.sweep:
                table = generated(con, "texts", "'text'", option)
                lines += [
                    _line(around, option, table.stored, mode, answers(con, table, long.hidden, mode)) for mode in MODES
                ]
        show(f"{len(long.hidden)} facts ({around})", FOUND, lines)


def _collections(options: argparse.Namespace, report: Report) -> None:
    lines = []
    for name in options.collections:
        loaded = judged(name, 1000 if options.quick else None)
        if loaded is None:
            report.missing[name] = f"{name} is not there"
            continue
        found = qualities(*loaded)
        lines += [(loaded[0].label, way, mode, f"{value:.4f}") for (way, mode), value in found.items()]
        for mode in MODES:
            whole, cut, titled = (found[way, mode] for way in ("whole", "passages", "passages with title"))
            goals = (">= -0.005", "> 0") if name == "scifact" else ("", "")
            report.add(f"{name}, {mode}: passages", f"{cut:.4f}", "whole", f"{whole:.4f}", cut - whole, goals[0])
            report.add(
                f"{name}, {mode}: with title", f"{titled:.4f}", "whole", f"{whole:.4f}", titled - whole, goals[1]
            )
            report.add(f"{name}, {mode}: with title", f"{titled:.4f}", "passages", f"{cut:.4f}", titled - cut)
    show("nDCG@10", ("collection", "what is embedded", "mode", "nDCG@10"), lines)


def _cutting(options: argparse.Namespace, report: Report) -> None:
    share = 10 if options.quick else 1
    known = pieces()
    abstracts = [each.text for each in known if len(each.text) > 1000][: 400 // share]
    rest = iter(known)
    long = [PARAGRAPHS.join(each.text for each in joined(rest, words // share)) for words in (2_000, 6_000, 20_000) * 2]
    book = [PARAGRAPHS.join(passages_cutting.paragraphs(joined(rest, 50_000 // share), headings=True))]
    encoder, cut, most = passages_cutting.cutter()
    for name, texts in (("abstracts", abstracts), ("long texts", long), ("a book", book)):
        cost = passages_cutting.cost(name, encoder, cut, most, texts, min(options.rounds, 3))
        what = f"cutting {len(texts)} ({name}) into {cost.passages:,}"
        report.compare(what, cost.cutting, "encoding these", cost.encoding, "s", "<= 0.08")
        report.add(f"{name}: mean fill of a passage", f"{cost.fill:.2f}", "most tokens", f"{most}", cost.fill)
    of_text, taken = passages_cutting.memory(known, options.megabytes * 1_000_000)
    report.add("cutting a long text, MB more", f"{taken:.0f} MB", "the text", f"{of_text:.0f} MB", taken)


def _edits(options: argparse.Namespace, report: Report) -> None:
    words = 5_000 if options.quick else passages_cutting.BOOK_WORDS
    lines = []
    for name, option, headings in (
        ("paragraphs", "true", False),
        ("headings", "true", True),
        ("overlap 32", "{'overlap': 32}", False),
    ):
        with equipped() as con:
            count, found = passages_cutting.edits(con, pieces(), words, options.edits, option, headings=headings)
        for kind in passages_cutting.KINDS:
            mine = [each.embedded for each in found if each.kind == kind]
            lines.append((name, kind, len(mine), median(mine), max(mine)))
        most = max(each.embedded for each in found)
        middle = median(each.embedded for each in found)
        what = f"an edit of {count} passages ({name}), highest of {len(found)}"
        report.add(what, f"{most}", "median", f"{middle}", most, "<= 4")
    show(f"Passages embedded for an edit of {words:,} words", ("text", "edit", "edits", "median", "highest"), lines)


def _searches(options: argparse.Namespace, report: Report) -> None:
    made = searches.rows(options.cache, options.rows, options.queries)
    with equipped() as con:
        seconds, found = searches.measure(con, made, options.rounds)
    kinds = (searches.EVEN, searches.SKEWED)
    for way in searches.WAYS:
        for kind in kinds:
            report.compare(
                f"{way}, {kind} passages", found[way, kind], "plain rows", found[way, searches.PLAIN], "ms", "<= 1.3"
            )
    lines = [_described(made, kind, seconds[kind]) for kind in (searches.PLAIN, *kinds)]
    show("Searched", ("table", "rows", "median passages", "most passages", "import"), lines)


def _described(made: searches.Rows, kind: str, seconds: float) -> Sequence[object]:
    import numpy as np

    counts = np.bincount(made.of(kind))
    return (kind, f"{len(counts):,}", f"{np.median(counts):.0f}", f"{counts.max():,}", f"{seconds:.0f} s")


if __name__ == "__main__":
    main()
