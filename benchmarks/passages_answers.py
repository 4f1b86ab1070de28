"""How well rows and passages are found: facts hidden in long texts, and collections that people have judged."""

from __future__ import annotations

import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

import jammi_duck
from benchmarks import judged_collections
from benchmarks.common import DATA
from benchmarks.judged_collections import Collection, K
from benchmarks.passages_texts import Hidden, LongTexts
from jammi_duck.errors import JammiWarning

if TYPE_CHECKING:
    import duckdb

MODES = ("hybrid", "vector")
# So many rows are asked for.
BEST = 5
ROW, PASSAGE = "row", "passage"

# `passages` as an option of `jammi_generate`, in SQL.
Option = str


@dataclass(frozen=True)
class Found:
    """Whether each fact's row is among the first and the first five, and whether that row's passage has the fact."""

    hidden: Sequence[Hidden]
    ranks: Sequence[int | None]
    has_fact: Sequence[bool]

    def hit(self, what: str, k: int, alone: bool | None = None) -> float:
        """The share of facts whose row, or passage, is among the first `k`; of those alone in a paragraph, or not."""
        hits = [
            rank is not None and rank <= k and (what == ROW or has_fact)
            for each, rank, has_fact in zip(self.hidden, self.ranks, self.has_fact, strict=True)
            if alone in (None, each.alone)
        ]
        return float(np.mean(hits)) if hits else 0.0

    def missed(self) -> Iterator[Hidden]:
        """The facts whose passage is not among the first five."""
        for each, rank, has_fact in zip(self.hidden, self.ranks, self.has_fact, strict=True):
            if rank is None or not has_fact:
                yield each


@contextmanager
def equipped() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose files are gone afterwards."""
    import duckdb

    with TemporaryDirectory() as name:
        con = duckdb.connect()
        con.execute("SET enable_progress_bar = false")
        jammi_duck.install(con, storage=Path(name, "artifacts"), cache_dir=Path(name, "cache"))
        try:
            yield con
        finally:
            con.close()


def write(con: duckdb.DuckDBPyConnection, long: LongTexts) -> None:
    """The tables `texts` (id, title, text) and `asked` (n, text)."""
    con.execute(
        "CREATE TABLE texts AS SELECT unnest(range(len($1))) AS id, unnest($1) AS title, unnest($2) AS text",
        [long.titles, long.texts],
    )
    write_asked(con, [each.fact.question for each in long.hidden])


def write_asked(con: duckdb.DuckDBPyConnection, questions: Sequence[str]) -> None:
    """The table `asked` (n, text)."""
    con.execute("CREATE TABLE asked AS SELECT unnest(range(len($1))) AS n, unnest($1) AS text", [questions])


@dataclass(frozen=True)
class Made:
    """An embedding table, how many rows it stores, and the seconds it took."""

    name: str
    stored: int
    seconds: float


def generated(con: duckdb.DuckDBPyConnection, source: str, columns: str, option: Option) -> Made:
    """An embedding table of such passages, or of whole texts, where the option is `false`."""
    print(f"passages: {source}, {columns}, {option}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    text = f"SELECT embedding_table FROM jammi_generate('{source}', {columns}, 'id', passages := {option})"
    with warnings.catch_warnings():
        # What whole texts hide is measured.
        warnings.simplefilter("ignore", JammiWarning)
        ((name,),) = con.execute(text).fetchall()
    seconds = time.perf_counter() - began
    ((stored,),) = con.execute(f'SELECT count(*) FROM jammi."{name}"').fetchall()
    return Made(name, stored, seconds)


def answers(con: duckdb.DuckDBPyConnection, table: Made, hidden: Sequence[Hidden], mode: str) -> Found:
    """What searches of the table find, one for each fact."""
    rows: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    cursor = con.execute(
        f"SELECT q.n, s.* FROM asked q, jammi_search('texts', q.text, {BEST:d}, mode := '{mode}', "
        f"embedding_table := '{table.name}') s ORDER BY q.n, s._rank"
    )
    names = [column[0] for column in cursor.description]
    for values in cursor.fetchall():
        rows[values[0]].append(dict(zip(names, values, strict=True)))
    mine = [next((row for row in rows[n] if row["id"] == each.text), None) for n, each in enumerate(hidden)]
    has_fact = [row is not None and _contains(row, each) for row, each in zip(mine, hidden, strict=True)]
    return Found(hidden, [None if row is None else row["_rank"] for row in mine], has_fact)


def _contains(row: Mapping[str, Any], hidden: Hidden) -> bool:
    start, end = row.get("_start"), row.get("_end")
    return start is not None and end is not None and start <= hidden.start and hidden.end <= end


def overlap(hidden: Sequence[Hidden]) -> float:
    """The mean share of the words of a question that are in its fact, too; without stop words, by their stems."""
    shares = []
    for each in hidden:
        asked, told = (_stems(text) for text in (each.fact.question, each.fact.sentence))
        shares.append(len(asked & told) / max(1, len(asked)))
    return float(np.mean(shares))


def _stems(text: str) -> set[str]:
    from jammi_duck.storage.words.analyser import ENGLISH, analyser, tokens

    return {term.text for token in tokens(text) for term in analyser(ENGLISH).token(token).terms if term.is_own}


def judged(name: str, most: int | None = None) -> tuple[Collection, list[tuple[str, str]]] | None:
    """A collection, and the title and text of each document; None if it is not there. See `judged_collections.load`."""
    import pyarrow.parquet as pq

    collection = judged_collections.load(name, most)
    if collection is None:
        return None
    corpus = pq.read_table(DATA / name / "corpus.parquet").to_pylist()
    known = {f"{row['title']} {row['text']}": (row["title"], row["text"]) for row in corpus}
    return collection, [known[document] for document in collection.documents]


WAYS = {
    "whole": ("['title', 'text']", "false"),
    "passages": ("['title', 'text']", "true"),
    "passages with title": ("['title', 'text']", "{'title': 'title'}"),
}


def qualities(collection: Collection, documents: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """The nDCG@10 of each way to embed the documents, and mode."""
    found = {}
    with equipped() as con:
        con.execute(
            "CREATE TABLE texts AS SELECT unnest(range(len($1))) AS id, unnest($1) AS title, unnest($2) AS text",
            [[title for title, _ in documents], [text for _, text in documents]],
        )
        write_asked(con, collection.queries)
        for way, (columns, option) in WAYS.items():
            table = generated(con, "texts", columns, option)
            for mode in MODES:
                found[way, mode] = judged_collections.ndcg(collection, _ranked(con, table, collection, mode))
    return found


def _ranked(con: duckdb.DuckDBPyConnection, table: Made, collection: Collection, mode: str) -> list[list[int]]:
    rows = con.execute(
        f"SELECT q.n, s.id FROM asked q, jammi_search('texts', q.text, {K:d}, mode := '{mode}', "
        f"embedding_table := '{table.name}') s ORDER BY q.n, s._rank"
    ).fetchall()
    found: dict[int, list[int]] = defaultdict(list)
    for query, row in rows:
        found[query].append(row)
    return [found[query] for query in range(len(collection.queries))]
