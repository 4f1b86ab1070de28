"""Peak memory of a build of 400,000 rows, compared with a build of 20,000 rows, with 20,000 rows per segment.

The encoder is a quick one without a model, of 384 dimensions. Each build has a process of its own; the sizes take
turns, and of each the median counts, since one build differs from the next by some 10 MB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.common import show
from benchmarks.rounds import HEADER, Report
from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from jammi_duck.encoder import Encoder, Encoders, Encodings, Identity
from jammi_duck.encoder.listing import ModelRow
from jammi_duck.types import Role, Vectors

DIMENSIONS = 384
SEGMENT_ROWS = 20_000
ROUNDS = 3


class RandomEncoder(Encoder):
    """Random unit vectors, at once."""

    def __init__(self) -> None:
        """Seeded, so that each run does the same."""
        self.identity = Identity("random")
        self.dimensions = DIMENSIONS
        self._random = np.random.default_rng(0)

    def encode_rows(self, texts: Sequence[str], role: Role, progress: Callable[[int], None]) -> Encodings:
        """See `jammi_duck.encoder.Encoder`."""
        progress(len(texts))
        none = np.zeros(len(texts), np.bool_)
        return Encodings(self.vectors(texts), none, none)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """A vector for each text."""
        vectors = self._random.standard_normal((len(texts), DIMENSIONS), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


class RandomEncoders(Encoders):
    """Any model is the random one."""

    def __init__(self) -> None:
        """One encoder for all names."""
        self._encoder = RandomEncoder()

    def get(self, name: str) -> RandomEncoder:
        """See `jammi_duck.encoder.loaded.LoadedEncoders`."""
        return self._encoder

    def names(self, name: str) -> set[str]:
        """See `jammi_duck.encoder.loaded.LoadedEncoders`."""
        return {name}

    def available(self, default: str) -> list[ModelRow]:
        """See `jammi_duck.encoder.loaded.LoadedEncoders`."""
        return []


def write(rows: int, source: str) -> None:
    """Write a Parquet file of so many texts."""
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT range AS id, 'text ' || range AS text FROM range({rows:d})) TO '{source}'")


def build(source: str, folder: str) -> None:
    """Generate a table of a file, and print the process's peak memory in MB, before and after."""
    con = duckdb.connect()
    config = Config(storage=f"{folder}/artifacts", segment_rows=SEGMENT_ROWS, cache_dir=Path(folder, "cache"))
    equip(con, config, RandomEncoders())
    before = _peak_mb()
    con.execute("SELECT * FROM jammi_generate(?, 'text', 'id')", [source]).fetchall()
    print(before, _peak_mb())
    con.close()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the peaks of both sizes, and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=(20_000, 400_000))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        build(options.one, options.folder)
        return
    measured: dict[int, list[tuple[float, float]]] = {rows: [] for rows in options.rows}
    with tempfile.TemporaryDirectory() as sources:
        for rows in options.rows:
            write(rows, f"{sources}/{rows}.parquet")
        for rows in [*options.rows] * ROUNDS:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "benchmarks.memory", "--one", f"{sources}/{rows}.parquet"]
                done = subprocess.run([*command, "--folder", folder], check=True, capture_output=True, text=True)
            before, peak = map(float, done.stdout.split())
            measured[rows].append((before, peak))
    report = Report()
    peaks = []
    for rows, pairs in measured.items():
        before, peak = (statistics.median(each) for each in zip(*pairs, strict=True))
        report.add(f"peak of {rows:,} rows, MB", f"{peak:.0f}", "before the build", f"{before:.0f}", peak)
        peaks.append(peak)
    report.add("growth, MB", "", "", "", peaks[1] - peaks[0], "< 100")
    show("Peak memory of jammi_generate", HEADER, report.lines)
    report.end()


if __name__ == "__main__":
    main()
