"""What the index of words costs `jammi_generate`: time with the default model, peak memory, and bytes on disk.

Builds with words and builds without them take turns, in an order that moves on by one; the first round warms up and is
dropped. Memory is that of new processes, with a quick encoder without a model. The texts are the packages'
descriptions; more rows than there are texts are the same ones again.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import duckdb

from benchmarks.common import environment, peak_mb, show
from benchmarks.memory import RandomEncoders
from benchmarks.rounds import HEADER, Report, Samples, interleave
from benchmarks.words_data import descriptions, repeated

WITH, WITHOUT = "with words", "without"
WORDS = {WITH: True, WITHOUT: False}


def main() -> None:
    """Print the measures and their goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000, help="for the time")
    parser.add_argument("--rounds", type=int, default=5, help="after the one that warms up")
    parser.add_argument("--memory-rows", type=int, default=100_000, help="for the memory and the bytes")
    parser.add_argument("--quick", action="store_true", help="a trial: 500 rows and 5,000, 2 rounds, and no goals")
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _print_peak(Path(options.one[0]), options.one[1])
        return
    if options.quick:
        options.rows, options.memory_rows, options.rounds = 500, 5_000, 2
    load = os.getloadavg()[0]
    report = Report(is_trial=options.quick)
    _time(options.rows, options.rounds, report)
    _memory(options.memory_rows, min(options.rounds, 3), report)
    show(f"The words of {options.rows:,} and of {options.memory_rows:,} descriptions", HEADER, report.lines)
    print(f"Other load on the machine when it began (average of a minute): {load:.1f}.")
    report.end()


def _time(rows: int, rounds: int, report: Report) -> None:
    import jammi_duck

    texts = random.Random(0).sample(descriptions(), rows)
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        con.execute("SET enable_progress_bar = false")
        jammi_duck.install(con, storage=folder)
        con.execute("CREATE TABLE t AS SELECT unnest(range(len($1))) AS id, unnest($1) AS text", [texts])
        measures = {way: partial(_seconds, con, words) for way, words in WORDS.items()}
        samples = interleave("builds", measures, rounds)
        con.close()
    report.compare(f"jammi_generate, {rows:,} rows, {WITH}", samples[WITH], WITHOUT, samples[WITHOUT], "s", "<= 1.05")


def _seconds(con: duckdb.DuckDBPyConnection, words: bool) -> float:
    began = time.perf_counter()
    con.execute("FROM jammi_generate('t', 'text', 'id', words := $1)", [words]).fetchall()
    return time.perf_counter() - began


def _memory(rows: int, rounds: int, report: Report) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = repeated(descriptions(), rows)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.parquet")
        pq.write_table(pa.table({"id": range(rows), "text": texts}), source)
        taken: dict[str, list[list[float]]] = {way: [] for way in WORDS}

        def peak(way: str) -> float:
            command = [sys.executable, "-m", "benchmarks.words_build", "--one", str(source), way]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
            taken[way].append([float(word) for word in done.stdout.split()])
            return taken[way][-1][0]

        samples: Samples = interleave("memory", {way: partial(peak, way) for way in WORDS}, rounds)
    size = sum(len(text.encode()) for text in texts)
    words = taken[WITH][-1][1]
    more = [a - b for a, b in zip(samples[WITH], samples[WITHOUT], strict=True)]
    report.compare(f"peak memory, {rows:,} rows, {WITH}", samples[WITH], WITHOUT, samples[WITHOUT], "MB")
    report.add("the most MB more in a round", "", "", "", max(more), "< 60")
    report.add(
        "bytes of the words", f"{words / 1e6:.1f} MB", "the texts", f"{size / 1e6:.1f} MB", words / size, "<= 0.35"
    )


def _print_peak(source: Path, way: str) -> None:
    """Build, and print the process's peak memory in MB, and the bytes of the words."""
    from jammi_duck.config.options import Config
    from jammi_duck.doors.installation import equip

    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        con.execute("SET enable_progress_bar = false")
        equip(con, Config(storage=f"{folder}/artifacts", cache_dir=Path(folder, "cache")), RandomEncoders())
        con.execute("FROM jammi_generate($1, 'text', 'id', words := $2)", [str(source), WORDS[way]]).fetchall()
        print(peak_mb(), sum(path.stat().st_size for path in Path(folder).rglob("*.words")))
        con.close()


if __name__ == "__main__":
    main()
