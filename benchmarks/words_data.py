"""The data of benchmarks.words: texts, queries of words and of frequent words, and vectors.

The texts are the packages' descriptions; more rows than there are texts are the same ones again. A query is a summary
of 3 to 8 words that is no text itself. The vectors are those of benchmarks.search, which cost what the texts' own do.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import packages

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

# Of so many frequent words, a query has three.
FREQUENT = 10


@dataclass(frozen=True)
class Asked:
    """What is searched for."""

    queries: list[str]
    frequent: list[str]

    @classmethod
    def load(cls, folder: Path) -> Asked:
        """What `write` wrote."""
        return cls(**json.loads((folder / "asked.json").read_text()))


def write(folder: Path, texts: Sequence[str], documents: Vectors, asked: Asked, queries: Vectors) -> None:
    """Write what contenders read: the rows with their vectors, and the queries with theirs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": np.arange(len(texts)), "text": texts}), folder / "texts.parquet")
    np.save(folder / "documents.npy", documents)
    np.save(folder / "queries.npy", queries)
    (folder / "asked.json").write_text(json.dumps(asdict(asked)))


def texts_in(folder: Path) -> list[str]:
    """The texts that `write` wrote."""
    import pyarrow.parquet as pq

    texts: list[str] = pq.read_table(folder / "texts.parquet", columns=["text"]).column("text").to_pylist()
    return texts


def descriptions() -> list[str]:
    """The packages' descriptions, each once."""
    return list(dict.fromkeys(packages("description")))


def repeated(texts: Sequence[str], rows: int) -> list[str]:
    """So many texts, from the first on again."""
    return list(itertools.islice(itertools.cycle(texts), rows))


def chosen(texts: Sequence[str], count: int) -> Asked:
    """So many queries, and a fifth as many of three frequent words; seeded."""
    known = set(texts)
    summaries = [each for each in dict.fromkeys(packages("summary")) if 3 <= len(each.split()) <= 8]
    queries = random.Random(0).sample([each for each in summaries if each not in known], count)
    triples = list(itertools.combinations(_frequent(texts), 3))
    frequent = random.Random(1).sample(triples, min(len(triples), max(3, count // 5)))
    return Asked(queries, [" ".join(words) for words in frequent])


def _frequent(texts: Sequence[str]) -> list[str]:
    """The words that are in most texts, without stop words."""
    from jammi_duck.storage.words.analyser import ENGLISH
    from jammi_duck.storage.words.stop_words import stop_words

    left_out = set(stop_words(ENGLISH))
    counts = Counter(word for text in texts for word in set(re.findall(r"[a-z]+", text.lower())))
    return [word for word, _ in counts.most_common() if word not in left_out][:FREQUENT]
