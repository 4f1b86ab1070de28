"""Measures how well an encoder finds documents that people judged relevant: nDCG@10 with exact cosine search."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from benchmarks.common import DATA
from benchmarks.contenders import Encode

# What sentence-transformers 6.2 reaches on the whole of each (README.md beside the data).
REFERENCE = {"cranfield": 0.3998, "scifact": 0.6449}


@dataclass(frozen=True)
class Collection:
    """Documents (title and text), queries, and for each query the positions of the documents that are relevant."""

    name: str
    documents: list[str]
    queries: list[str]
    relevant: list[set[int]]
    whole: bool


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


def ndcg(collection: Collection, encode_documents: Encode, encode_queries: Encode) -> float:
    """The mean nDCG@10: a relevant document counts 1 / log2(rank + 1), as in the reference, whatever its grade."""
    similarities = encode_queries(collection.queries) @ encode_documents(collection.documents).T
    discounts = 1 / np.log2(np.arange(2, 12))
    found = []
    for row, relevant in zip(similarities, collection.relevant, strict=True):
        ranked = np.argsort(-row, kind="stable")[:10]
        gain = sum(discount for place, discount in zip(ranked, discounts, strict=True) if int(place) in relevant)
        found.append(gain / discounts[: len(relevant)].sum())
    return float(np.mean(found))
