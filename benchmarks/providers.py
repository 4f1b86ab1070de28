"""What a build gets out of a hosted provider that answers 100 texts in 50 ms, and allows 8 requests at once.

The provider is played on loopback, in a process of its own. What it can give is what a client reaches that does nothing
but send prepared requests and read the answers; `ideal` is what the pauses alone allow.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import duckdb
import msgspec

from benchmarks.common import show
from benchmarks.overhead import time_indexing
from benchmarks.rounds import HEADER, Report, interleave
from jammi_duck.doors.installation import install
from jammi_duck.encoder.loaded import LoadedEncoders

TEXTS, BATCH, SECONDS, AT_ONCE = 20_000, 100, 0.05, 8
KEY = "sk-played-0123456789abcdef"
ROUNDS = 5
BARE = "a bare client"


@contextmanager
def endpoint(dimensions: int) -> Iterator[str]:
    """The URL of a played provider."""
    command = [sys.executable, "-m", "tests.endpoint", "--delay", str(SECONDS), "--at-once", str(AT_ONCE)]
    process = subprocess.Popen(
        [*command, "--dimensions", str(dimensions)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline().strip().rstrip("/") + "/v1"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def bare(url: str, texts: list[str], dimensions: int) -> None:
    """Send prepared requests, and read the answers."""
    place = urlsplit(url)
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for start in range(0, len(texts), BATCH):
        some = texts[start : start + BATCH]
        waiting.put(
            msgspec.json.encode({"model": "any", "input": some, "encoding_format": "base64", "dimensions": dimensions})
        )
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    def work() -> None:
        connection = http.client.HTTPConnection(str(place.netloc))
        while not waiting.empty():
            connection.request("POST", f"{place.path}/embeddings", waiting.get(), headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ways(url: str, folder: Path, dimensions: int) -> dict[str, Callable[[], float]]:
    """Each way to have 20,000 new texts embedded; gives the seconds that it took, without an index of vectors."""
    indexing = time_indexing()
    numbers = itertools.count()
    model = model_at(url, dimensions)
    con = duckdb.connect()
    install(con, storage=folder / "st", cache_dir=folder / "cache")
    encoder = LoadedEncoders(32, 3, vectors_path=folder / "cache" / "vectors.sqlite").get(model)

    def timed(work: Callable[[list[str]], None]) -> Callable[[], float]:
        def run() -> float:
            number = next(numbers)
            texts = [f"short text {number} {i} about something" for i in range(TEXTS)]
            indexing.clear()
            began = time.perf_counter()
            work(texts)
            return time.perf_counter() - began - sum(indexing)

        return run

    def encode(texts: list[str]) -> None:
        assert encoder.encode(texts).shape == (TEXTS, dimensions)

    def generate(texts: list[str], options: str) -> None:
        con.execute("CREATE OR REPLACE TABLE docs AS SELECT unnest(range(len($1))) AS id, unnest($1) AS body", [texts])
        query = f"SELECT row_count FROM jammi_generate('docs', 'body', 'id', model := ?{options})"
        assert con.execute(query, [model]).fetchall() == [(TEXTS,)]

    return {
        BARE: timed(lambda texts: bare(url, texts, dimensions)),
        "the encoder": timed(encode),
        "jammi_generate, words := false": timed(lambda texts: generate(texts, ", words := false")),
        "jammi_generate": timed(lambda texts: generate(texts, "")),
    }


def model_at(url: str, dimensions: int) -> str:
    """The name of the model."""
    return f"openai:any?base_url={url}&dimensions={dimensions}&batch_size={BATCH}&max_in_flight={AT_ONCE}"


def peak(url: str, dimensions: int, rows: int) -> int:
    """The peak memory, in MB, of a new process that builds a table of so many rows."""
    command = [sys.executable, "-m", "benchmarks.providers", "--dimensions", str(dimensions)]
    done = subprocess.run(
        [*command, "--peak-of", str(rows), "--url", url], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout)


def print_peak(url: str, dimensions: int, rows: int) -> None:
    """Build a table, in segments of 20,000 rows, and print the peak memory of this process."""
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        install(con, storage=f"{folder}/st", cache_dir=f"{folder}/cache", segment_rows=TEXTS)
        con.execute("CREATE TABLE docs AS SELECT i AS id, 'short text ' || i AS body FROM range(?) r(i)", [rows])
        query = "SELECT row_count FROM jammi_generate('docs', 'body', 'id', model := ?, words := false)"
        assert con.execute(query, [model_at(url, dimensions)]).fetchall() == [(rows,)]
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    if options.peak_of:
        print_peak(options.url, options.dimensions, options.peak_of)
        return
    report = Report()
    with tempfile.TemporaryDirectory() as folder, endpoint(options.dimensions) as url:
        seconds = interleave("providers", ways(url, Path(folder), options.dimensions), options.rounds)
        small, large = (peak(url, options.dimensions, rows) for rows in (TEXTS, 5 * TEXTS))
    ideal = TEXTS / BATCH / AT_ONCE * SECONDS
    given = seconds.pop(BARE)
    report.add("what it gives to a bare client", f"{median(given):.2f} s", "the pauses alone", f"{ideal:.2f} s",
               median(given) / ideal)  # fmt: skip
    for name, times in seconds.items():
        # At least 0.9 of what it can give is at most 1.11 times its time.
        report.compare(f"{name}, without its index", times, BARE, given, "s", "<= 1.11" if "encoder" in name else "")
    report.add(f"peak memory of {5 * TEXTS:,} rows", f"{large} MB", f"{TEXTS:,} rows", f"{small} MB", large - small,
               "<= 100")  # fmt: skip
    show(f"{TEXTS:,} short texts, {options.dimensions} dimensions, {options.rounds} rounds", HEADER, report.lines)
    report.end()


if __name__ == "__main__":
    main()
