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
import resource
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
from jammi_duck.doors.installation import install
from jammi_duck.encoder.loaded import LoadedEncoders

TEXTS, BATCH, SECONDS, AT_ONCE = 20_000, 100, 0.05, 8
KEY = "sk-played-0123456789abcdef"
ROUNDS = 5


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


def ways(url: str, folder: Path, dimensions: int) -> dict[str, Callable[[], float | None]]:
    """Each way to have 20,000 new texts embedded; those that build an index say how long that took."""
    indexing = time_indexing()
    numbers = itertools.count()
    model = f"openai:any?base_url={url}&dimensions={dimensions}&batch_size={BATCH}&max_in_flight={AT_ONCE}"
    con = duckdb.connect()
    install(con, storage=folder / "st", cache_dir=folder / "cache")

    def texts() -> list[str]:
        number = next(numbers)
        return [f"short text {number} {i} about something" for i in range(TEXTS)]

    def encoder() -> None:
        encoded = LoadedEncoders(32, 3).get(model).encode(texts())
        assert encoded.shape == (TEXTS, dimensions)

    def generate(options: str) -> Callable[[], float]:
        def run() -> float:
            con.execute(
                "CREATE OR REPLACE TABLE docs AS SELECT i AS id, 'short text ' || ? || ' ' || i AS body "
                "FROM range(?) r(i)",
                [next(numbers), TEXTS],
            ).fetchall()
            query = f"SELECT row_count FROM jammi_generate('docs', 'body', 'id', model := ?{options})"
            indexing.clear()
            assert con.execute(query, [model]).fetchall() == [(TEXTS,)]
            return sum(indexing)

        return run

    return {
        "bare client": lambda: bare(url, texts(), dimensions),
        "encoder": encoder,
        "jammi_generate without its index": generate(", words := false"),
        "the same with words": generate(""),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dimensions", type=int, default=384)
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as folder, endpoint(options.dimensions) as url:
        every = ways(url, Path(folder), options.dimensions)
        seconds: dict[str, list[float]] = {name: [] for name in every}
        indexed: list[float] = []
        peaks = []
        for number in range(options.rounds + 1):
            for name, run in every.items():
                began = time.perf_counter()
                apart = run() or 0.0
                # The first round warms all up.
                if number:
                    seconds[name].append(time.perf_counter() - began - apart)
                    indexed.append(apart)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    ideal = TEXTS / BATCH / AT_ONCE * SECONDS
    given = median(seconds["bare client"])
    rows = [
        (name, f"{median(times):.2f} s", f"{given / median(times):.2f}", f"{ideal / median(times):.2f}")
        for name, times in seconds.items()
    ]
    show("20,000 short texts", ["way", "median", "of what it gives", "of the ideal"], rows)
    print(f"the index of a build, apart: {max(indexed):.1f} s at most")
    print(f"peak memory after each round, MB: {', '.join(map(str, peaks))}")


if __name__ == "__main__":
    main()
