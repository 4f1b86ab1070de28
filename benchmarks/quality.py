"""How well an encoder finds what people judged relevant: nDCG@10 by exact cosine search."""

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
    """Documents (title and text), queries, and for each query the grades of documents, by their places."""

    name: str
    documents: list[str]
    queries: list[str]
    grades: list[dict[int, int]]
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
        relevant = {row["docid"] for row in judged}
        corpus = sorted(corpus, key=lambda row: row["id"] not in relevant)[:most]
    places = {row["id"]: place for place, row in enumerate(corpus)}
    grades: dict[str, dict[int, int]] = defaultdict(dict)
    for row in judged:
        if row["docid"] in places:
            grades[row["qid"]][places[row["docid"]]] = row["score"]
    asked = [row for row in queries if row["id"] in grades]
    return Collection(
        name,
        [f"{row['title']} {row['text']}" for row in corpus],
        [row["text"] for row in asked],
        [grades[row["id"]] for row in asked],
        whole,
    )


def ndcg(collection: Collection, encode_documents: Encode, encode_queries: Encode) -> float:
    """The mean nDCG@10: the gain of a document is its grade, divided by log2 of its rank plus one."""
    similarities = encode_queries(collection.queries) @ encode_documents(collection.documents).T
    discounts = 1 / np.log2(np.arange(2, 12))
    found = []
    for row, grades in zip(similarities, collection.grades, strict=True):
        ranked = np.argsort(-row, kind="stable")[:10]
        gains = [max(grades.get(int(place), 0), 0) for place in ranked]
        ideal = sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:10]
        best = float(np.dot(ideal, discounts[: len(ideal)]))
        if best > 0:
            found.append(float(np.dot(gains, discounts[: len(gains)])) / best)
    return float(np.mean(found))
