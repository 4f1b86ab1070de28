"""How good searches by vectors, by words, and by both are, beside others on the same vectors; how well names are found.

Cranfield and SciFact have judged questions: nDCG@10. Names are those of packages, in a table of names and descriptions:
how often the package is among the first 10, by its exact name, and with one separator of the name replaced by a space.
Nothing is timed. The rivals need benchmarks/requirements-search.txt (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np

import jammi_duck
from benchmarks import judged_collections, words_data
from benchmarks.common import DATA, packages, show
from benchmarks.judged_collections import Collection, K
from benchmarks.rounds import HEADER, Report
from benchmarks.search_contenders import BM25S, LANCEDB_WORDS, contender
from jammi_duck.storage.index.graph import CONNECTIVITY, EXPANSION_ADD

if TYPE_CHECKING:
    from benchmarks.words_contenders import WordsContender
    from jammi_duck.types import Vectors

PARTS = ("collections", "names")
VECTOR, TEXT, HYBRID, RANKS = "vector", "text", "hybrid", "hybrid, fusion := 'rrf'"
MODES = {
    VECTOR: "mode := 'vector'",
    TEXT: "mode := 'text'",
    HYBRID: "mode := 'hybrid'",
    RANKS: "mode := 'hybrid', fusion := 'rrf'",
}
BOTH_BY_RANKS = f"{BM25S} and exact vectors, by ranks"
LANCEDB_HYBRID = "LanceDB hybrid"
# For the whole collections.
GOALS = {"cranfield": ">= 0.435", "scifact": ">= 0.735"}
# Reciprocal rank fusion of the rivals: rows of each list, and what is added to a rank.
DEEP, CONSTANT = 100, 60
# With the most that benchmarks.search lets LanceDB look for.
LANCEDB_SETTING = (512, 30)
NAMES = 500
_SEPARATOR = r"(?<=[^\W_])[-_.+](?=[^\W_])"


def main() -> None:
    """Print the quality of each search, and the goals and whether they are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="a trial: 1,000 documents or rows each, and no goals")
    options = parser.parse_args()
    began = time.perf_counter()
    report = Report(is_trial=options.quick)
    table: list[tuple[str, ...]] = []
    if "collections" in options.only:
        for name in judged_collections.NAMES:
            collection = judged_collections.load(name, 1000 if options.quick else None)
            if collection is None:
                report.missing[name] = f"{DATA / name} is not there"
                continue
            print(f"quality: {name}", file=sys.stderr, flush=True)
            found = _qualities(collection, report)
            table += [(collection.label, who, f"{value:.4f}") for who, value in found.items()]
            _compare(collection, found, report)
    if "names" in options.only:
        _names(1000 if options.quick else None, report)
    if table:
        show(f"nDCG@{K}", ("collection", "search", f"nDCG@{K}"), table)
    show("Goals", HEADER, report.lines)
    for missing, reason in report.missing.items():
        print(f"Not measured: {missing}: {reason}")
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    report.end()


def _qualities(collection: Collection, report: Report) -> dict[str, float]:
    """The nDCG@10 of each search."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        con = _equipped(folder)
        con.execute(
            "CREATE TABLE docs AS SELECT unnest(range(len($1))) AS id, unnest($1) AS text", [collection.documents]
        )
        con.execute("FROM jammi_generate('docs', 'text', 'id')").fetchall()
        answers: dict[str, Sequence[judged_collections.Ranked]] = {
            mode: _answers(con, "docs", collection.queries, options) for mode, options in MODES.items()
        }
        documents, queries = _stored(con, len(collection.documents)), _encoded(con, collection.queries)
        con.close()
        asked = words_data.Asked(collection.queries, [])
        words_data.write(folder, collection.documents, documents, asked, queries)
        try:
            deep = _by_rival(BM25S, folder, len(collection.queries), "text", DEEP)
            answers[BM25S] = deep
            answers[BOTH_BY_RANKS] = _by_ranks(deep, judged_collections.nearest(documents, queries, DEEP))
        except ImportError as error:
            report.missing[BM25S] = str(error)
        try:
            answers[LANCEDB_HYBRID] = _by_rival(LANCEDB_WORDS, folder, len(collection.queries), "hybrid", K)
        except ImportError as error:
            report.missing[LANCEDB_HYBRID] = str(error)
    return {who: judged_collections.ndcg(collection, found) for who, found in answers.items()}


def _equipped(folder: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")
    jammi_duck.install(con, storage=folder / "artifacts", cache_dir=folder / "cache")
    return con


def _answers(con: duckdb.DuckDBPyConnection, source: str, queries: Sequence[str], options: str) -> list[list[int]]:
    """The ids of the rows that each query finds, by one statement."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE asked AS SELECT unnest(range(len($1))) AS n, unnest($1) AS text", [queries]
    )
    rows = con.execute(
        f"SELECT q.n, m._row_id::BIGINT FROM asked q, jammi_matches('{source}', q.text, {K}, {options}) m "
        "ORDER BY q.n, m._rank"
    ).fetchall()
    answers: dict[int, list[int]] = defaultdict(list)
    for query, row in rows:
        answers[query].append(row)
    return [answers[query] for query in range(len(queries))]


def _stored(con: duckdb.DuckDBPyConnection, documents: int) -> Vectors:
    """The vectors that our searches have, in the order of the documents."""
    (name,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[0]
    found = con.execute(f'SELECT _row_id::BIGINT, vector FROM jammi."{name}"').fetchall()
    known = np.array([vector for _, vector in found], np.float32)
    # A document without text has no vector. The rivals need one: it is far from all others.
    vectors: Vectors = np.tile(-known.mean(axis=0) / np.linalg.norm(known.mean(axis=0)), (documents, 1))
    vectors[[row for row, _ in found]] = known
    return vectors


def _encoded(con: duckdb.DuckDBPyConnection, queries: Sequence[str]) -> Vectors:
    found = con.execute("SELECT embed(text, role := 'query') FROM asked ORDER BY n").fetchall()
    assert len(found) == len(queries)
    return np.array([vector for (vector,) in found], np.float32)


def _by_rival(name: str, folder: Path, queries: int, kind: str, k: int) -> list[list[int]]:
    """What a rival finds. Raises ImportError where it is not installed."""
    rival: WordsContender = contender(name, folder)  # type: ignore[assignment]
    rival.k = k
    rival.prepare()
    rival.build(CONNECTIVITY, EXPANSION_ADD)
    rival.open()
    rival.load()
    if name == LANCEDB_WORDS:
        rival.use(LANCEDB_SETTING)
    return [rival.ids(getattr(rival, kind)(query))[0] for query in range(queries)]


def _by_ranks(*lists: Sequence[judged_collections.Ranked]) -> list[list[int]]:
    """Reciprocal rank fusion, as most systems have it."""
    answers = []
    for ranked in zip(*lists, strict=True):
        scores: dict[int, float] = defaultdict(float)
        for each in ranked:
            for rank, row in enumerate(each, start=1):
                scores[row] += 1 / (CONSTANT + rank)
        answers.append(sorted(scores, key=scores.__getitem__, reverse=True)[:K])
    return answers


def _compare(collection: Collection, found: dict[str, float], report: Report) -> None:
    """The goals."""

    def add(what: str, ours: str, rival: str, value: float, goal: str) -> None:
        theirs = f"{found[rival]:.4f}" if rival in found else ""
        label = f"{collection.name}: {what}"
        report.add(label, f"{found[ours]:.4f}", rival, theirs, value, goal)

    better = max(VECTOR, TEXT, key=found.__getitem__)
    add("hybrid", HYBRID, "", found[HYBRID], GOALS[collection.name])
    add("hybrid, higher by", HYBRID, better, found[HYBRID] - found[better], ">= 0.03")
    if BM25S in found:
        add("text, higher by", TEXT, BM25S, found[TEXT] - found[BM25S], ">= -0.003")
    for rival in (RANKS, BOTH_BY_RANKS, LANCEDB_HYBRID):
        if rival in found:
            add("hybrid, higher by", HYBRID, rival, found[HYBRID] - found[rival], "")


def _names(most: int | None, report: Report) -> None:
    """How often a package is found by its name, of the first so many packages."""
    print("quality: names", file=sys.stderr, flush=True)
    names, chance = packages("package", most), random.Random(0)
    exact = chance.sample(range(len(names)), NAMES)
    separated = [row for row, name in enumerate(names) if re.search(_SEPARATOR, name)]
    changed = chance.sample(separated, NAMES)
    asked = {
        "exact name": (exact, [names[row] for row in exact], ">= 0.98"),
        "one separator changed": (changed, [_changed(names[row], chance) for row in changed], ">= 0.95"),
    }
    with tempfile.TemporaryDirectory() as folder:
        con = _equipped(Path(folder))
        con.execute(
            "CREATE TABLE packages AS SELECT unnest(range(len($1))) AS id, unnest($1) AS package, "
            "unnest($2) AS description",
            [names, packages("description", most)],
        )
        con.execute("FROM jammi_generate('packages', ['package', 'description'], 'id')").fetchall()
        for what, (rows, queries, goal) in asked.items():
            hits = {}
            for mode in (HYBRID, VECTOR, TEXT):
                answers = _answers(con, "packages", queries, MODES[mode])
                missed = [query for row, query, found in zip(rows, queries, answers, strict=True) if row not in found]
                hits[mode] = 1 - len(missed) / len(queries)
                if mode == HYBRID and missed:
                    print(f"{what}: not found, such as {missed[:5]}", file=sys.stderr, flush=True)
            label = f"{what}: hit@{K} of {NAMES}, hybrid"
            report.add(label, f"{hits[HYBRID]:.3f}", "vector", f"{hits[VECTOR]:.3f}", hits[HYBRID], goal)
            report.add(label, f"{hits[HYBRID]:.3f}", "text", f"{hits[TEXT]:.3f}", hits[HYBRID])
        con.close()


def _changed(name: str, chance: random.Random) -> str:
    """A name with one of its separators replaced by a space."""
    place = chance.choice([found.start() for found in re.finditer(_SEPARATOR, name)])
    return f"{name[:place]} {name[place + 1 :]}"


if __name__ == "__main__":
    main()
