"""Overhead of jammi_generate over 20,000 short texts, compared with the encoder alone on the same, interleaved."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import duckdb

from benchmarks.common import packages, show
from benchmarks.rounds import HEADER, Report
from jammi_duck.config.options import DEFAULT_MODEL
from jammi_duck.doors.installation import install
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.storage.tables.build import Build


def main() -> None:
    """Print the medians of both, their ratio, and the time of the index apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = packages("summary", options.rows)
    encoder = LoadedEncoders(32, 3).get(DEFAULT_MODEL)
    encoder.encode(texts[:200])
    indexing = time_indexing()
    alone, built, indexed = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        install(con, storage=folder)
        con.execute("CREATE TABLE packages AS SELECT unnest(range(len($1))) AS id, unnest($1) AS summary", [texts])
        for _ in range(options.rounds):
            started = time.perf_counter()
            encoder.encode(texts)
            alone.append(time.perf_counter() - started)
            indexing.clear()
            started = time.perf_counter()
            con.execute("SELECT * FROM jammi_generate('packages', 'summary', 'id')").fetchall()
            total = time.perf_counter() - started
            indexed.append(sum(indexing))
            built.append(total - sum(indexing))
        con.close()
    report = Report()
    report.compare("jammi_generate without its index", built, "encoder alone", alone, "s", "<= 1.1")
    report.add("index and commit", f"{statistics.median(indexed):.1f} s", "", "", statistics.median(indexed))
    show(f"Overhead, {len(texts):,} summaries, medians of {options.rounds} rounds", HEADER, report.lines)
    report.end()


def time_indexing() -> list[float]:
    """The seconds that each build's last part takes, from the last vector to ready."""
    seconds: list[float] = []
    finish = Build.finish

    def timed(*arguments: object) -> object:
        started = time.perf_counter()
        try:
            return finish(*arguments)  # type: ignore[arg-type]
        finally:
            seconds.append(time.perf_counter() - started)

    Build.finish = timed  # type: ignore[assignment,method-assign]
    return seconds


if __name__ == "__main__":
    main()
