"""Collections whose answers people judged, and how good answers to them are: nDCG@10."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import DATA

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

NAMES = ("cranfield", "scifact")
# What sentence-transformers 6.2 reaches on the whole of each (README.md beside the data).
REFERENCE = {"cranfield": 0.3998, "scifact": 0.6449}
# So many documents of an answer count.
K = 10

# The positions of documents, the best first.
Ranked = Sequence[int]


@dataclass(frozen=True)
class Collection:
    """Documents (title and text), queries, and for each query the positions of the documents that are relevant."""

    name: str
    documents: list[str]
    queries: list[str]
    relevant: list[set[int]]
    whole: bool

    @property
    def label(self) -> str:
        """Its name and sizes."""
        return f"{self.name}, {len(self.documents):,} documents, {len(self.queries)} queries"


def load(name: str, most: int | None = None) -> Collection | None:
    """A collection, or None where it is not there. Of `most` documents the judged ones are the first."""
    import pyarrow.parquet as pq

    folder = DATA / name
    if not folder.exists():
        return None
    corpus, queries, judged = (
        pq.read_table(folder / f"{part}.parquet").to_pylist() for part in ("corpus", "queries", "qrels")
    )
    whole = most is None or len(corpus) <= most
    if not whole:
        known = {row["docid"] for row in judged}
        corpus = sorted(corpus, key=lambda row: row["id"] not in known)[:most]
    positions = {row["id"]: place for place, row in enumerate(corpus)}
    relevant: dict[str, set[int]] = defaultdict(set)
    for row in judged:
        if row["docid"] in positions and row["score"] > 0:
            relevant[row["qid"]].add(positions[row["docid"]])
    asked = [row for row in queries if row["id"] in relevant]
    return Collection(
        name,
        [f"{row['title']} {row['text']}" for row in corpus],
        [row["text"] for row in asked],
        [relevant[row["id"]] for row in asked],
        whole,
    )


def nearest(documents: Vectors, queries: Vectors, k: int = K) -> list[list[int]]:
    """The `k` documents nearest to each query, found by looking at all."""
    ranked: list[list[int]] = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k].tolist()
    return ranked


def ndcg(collection: Collection, answers: Sequence[Ranked]) -> float:
    """The mean nDCG@10: a relevant document counts 1 / log2(rank + 1), as in the reference, whatever its grade."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    found = []
    for ranked, relevant in zip(answers, collection.relevant, strict=True):
        gain = sum(discount for place, discount in zip(ranked, discounts, strict=False) if place in relevant)
        found.append(gain / discounts[: len(relevant)].sum())
    return float(np.mean(found))
