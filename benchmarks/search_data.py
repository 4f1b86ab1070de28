"""The data of benchmarks.search: vectors, the right answers, and the columns for filters.

They are real: the default model's of the packages' summaries, and of the first sentences of their descriptions. More
rows than there are texts are the same ones again with noise (NOISE for each number), so much that the rows nearest to
a query are those of several texts, and not one text's copies: `originals` says of how many.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import DATA, packages

if TYPE_CHECKING:
    from jammi_duck.types import Vectors

TEXTS = 100_000
CACHE = Path(tempfile.gettempdir(), "jammi-duck-benchmark-search")
HELD_OUT = 2_000
NOISE = 0.03
# How many rows are asked for.
K = 10
# A filter `column < n` passes n of so many rows.
PARTS = 1_000
FILTERED = ("bucket", "topic")
_BLOCK_ROWS = 1 << 15
LONGEST = 200

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """What is searched, what for, and the columns of the filters: `bucket` at random, `topic` by nearness to one."""

    documents: Vectors
    queries: Vectors
    bucket: Places
    topic: Places

    @classmethod
    def prepare(cls, folder: Path, cache: Path, rows: int, queries: int) -> Data:
        """Write it below a folder, where the contenders read it; the cache keeps what the encoder gave."""
        held_out = _real(cache)[TEXTS:]
        documents = vectors(cache, rows)
        order = np.random.default_rng(1).permutation(rows)
        # A text that is no query, so that no query is at the topic's centre.
        nearest_first = np.argsort(-(documents @ held_out[-1]), kind="stable")
        parts = np.arange(rows) * PARTS // rows
        topic = np.empty(rows, np.int64)
        topic[nearest_first] = parts
        made = cls(documents, np.ascontiguousarray(held_out[:queries]), parts[order], topic)
        for name, array in vars(made).items():
            np.save(folder / f"{name}.npy", array)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Data:
        """What `prepare` wrote; the documents are memory-mapped."""
        return cls(
            np.load(folder / "documents.npy", mmap_mode="r"),
            *(np.load(folder / f"{name}.npy") for name in ("queries", *FILTERED)),
        )


def vectors(cache: Path, rows: int) -> Vectors:
    """The vectors of so many rows; the cache keeps what the encoder gave."""
    return _many(_real(cache)[:TEXTS], rows)


def nearest(documents: Vectors, queries: Vectors, k: int = K) -> Places:
    """The positions of the `k` rows nearest to each query (fewer, if there are), found by looking at all."""
    positions = np.empty((len(queries), 0), np.int64)
    near = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(documents), _BLOCK_ROWS):
        block = documents[start : start + _BLOCK_ROWS]
        here = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        near = np.concatenate([near, queries @ block.T], axis=1)
        positions = np.concatenate([positions, here], axis=1)
        if near.shape[1] > k:
            best = np.argpartition(-near, k - 1, axis=1)[:, :k]
            near, positions = np.take_along_axis(near, best, 1), np.take_along_axis(positions, best, 1)
    return positions


def recall(found: Sequence[Sequence[int]], right: Places) -> float:
    """How many of the rows that are right were found, of all."""
    hits = sum(len(set(row) & set(truth)) for row, truth in zip(found, right.tolist(), strict=True))
    return hits / max(right.size, 1)


def originals(right: Places) -> float:
    """How many texts the nearest rows of a query stem from: the median."""
    return float(np.median([len(set(row)) for row in (right % TEXTS).tolist()]))


def _many(real: Vectors, rows: int) -> Vectors:
    if rows <= len(real):
        return real[:rows]
    noise = np.random.default_rng(0)
    many = np.empty((rows, real.shape[1]), np.float32)
    many[: len(real)] = real
    for start in range(len(real), rows, len(real)):
        block = many[start : start + len(real)]
        block[:] = real[: len(block)] + noise.standard_normal(block.shape, np.float32) * np.float32(NOISE)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return many


def _real(cache: Path) -> Vectors:
    """The vectors of all texts, those that are held out last."""
    kept = cache / "vectors.npy"
    if not kept.exists():
        from jammi_duck.config.options import DEFAULT_MODEL
        from jammi_duck.encoder.loaded import LoadedEncoders

        found = texts()
        print(f"encoding {len(found):,} texts, once; {kept} keeps them", file=sys.stderr, flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npy")
        np.save(part, LoadedEncoders(32, 3).get(DEFAULT_MODEL).encode(found))
        part.replace(kept)
    real: Vectors = np.load(kept, mmap_mode="r")
    if len(real) != TEXTS + HELD_OUT:
        sys.exit(f"{kept} has {len(real):,} vectors, not {TEXTS + HELD_OUT:,}: remove it, and they are made again")
    return real


def texts() -> list[str]:
    """Unique summaries, and first sentences where those are too few, in a seeded order."""
    texts = dict.fromkeys(packages("summary"))
    for description in packages("description"):
        if len(texts) >= TEXTS + HELD_OUT:
            break
        first = re.split(r"(?<=[.!?])\s", description.strip())[0][:LONGEST]
        if len(first) > 20:
            texts.setdefault(first)
    if len(texts) < TEXTS + HELD_OUT:
        sys.exit(f"{DATA / 'packages.parquet'} has {len(texts):,} different texts; {TEXTS + HELD_OUT:,} are needed")
    chosen = list(texts)
    random.Random(0).shuffle(chosen)
    return chosen[: TEXTS + HELD_OUT]
