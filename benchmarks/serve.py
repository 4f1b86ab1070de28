"""The server against the same work without it, and against jammi-server: latency, clients, streams, and its start.

Client and server are processes; what is compared runs in turns. `--rows` is how many descriptions are searched,
`--vectors` how many rows of 384 floats are streamed. benchmarks/serve_rival.py says how jammi-server is compared.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

import jammi_duck
from benchmarks import serve_rival
from benchmarks.common import environment, packages, show
from benchmarks.rounds import HEADER, Report, interleave
from jammi_duck.config.options import DEFAULT_MODEL

_SEARCH = "SELECT id, _similarity FROM jammi_search('packages', {}, 10)"
_CLIENTS = 64
_QUERIES = 40
_WIDTH = 384
_START = re.compile(r"Flight SQL on (\S+), HTTP on ([^\s,;]+)")


def main() -> None:
    """Print the measures, and end with status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the clients of a round search")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Cannot disable autocommit")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = _database(folder, options.rows, options.vectors)
        report = Report()
        _starts(report, folder, file, options.rounds)
        with _Served(folder, file) as server:
            _latencies(report, folder, file, server.uri, options)
            _clients(report, server.uri, options)
            serve_rival.compare(
                report, folder, server.uri, server.http, lambda first: _queries(options.rows, first), options.rounds
            )
            _streams(report, server.process, server.uri, options)
    title = f"The server, {options.rows:,} descriptions, {options.rounds} rounds, medians"
    show(title, HEADER, report.lines)
    for name, reason in report.missing.items():
        print(f"Not measured: {name}: {reason}")
    report.end()


def _database(folder: Path, rows: int, vectors: int) -> Path:
    file = folder / "served.duckdb"
    con = jammi_duck.connect(file, storage=str(folder / "artifacts"))
    con.execute("CREATE TABLE packages AS SELECT unnest(range(len($1))) AS id, unnest($1) AS text", [_texts(rows)])
    print("embedding", file=sys.stderr, flush=True)
    con.execute("SELECT * FROM jammi_generate('packages', 'text', 'id')").fetchall()
    some = np.random.default_rng(1).standard_normal((1_000, _WIDTH), np.float32)
    con.register("samples", pa.table({"n": range(1_000), "v": list(some)}))
    con.execute(
        f"COPY (SELECT i.range AS id, s.v::FLOAT[{_WIDTH}] AS v FROM range({vectors}) i JOIN samples s "
        f"ON s.n = i.range % 1000) TO '{folder}/vectors.parquet' (ROW_GROUP_SIZE 2048)"
    )
    con.unregister("samples")
    con.execute(f"CREATE VIEW vectors AS FROM '{folder}/vectors.parquet'")
    serve_rival.share(con, folder)
    con.close()
    return file


def _texts(rows: int) -> list[str]:
    return [text or "nothing" for text in packages("description", rows)]


def _queries(rows: int, first: int) -> Iterator[str]:
    """Questions that nobody has asked before, from a number on: the server remembers the vectors of recent ones."""
    texts = _texts(rows)
    for number in itertools.count(first):
        words = texts[number * 7919 % len(texts)].split()
        yield " ".join(words[number % 3 :][:6]) + f" {number}"


class _Server:
    """`jammi-duck serve` as a process."""

    def __init__(self, folder: Path, file: Path) -> None:
        program = Path(sys.executable).with_name("jammi-duck")
        preload = {"JAMMI_SERVER__PRELOAD_MODELS": f'["{DEFAULT_MODEL}"]', "JAMMI_LOGGING__LEVEL": "warning"}
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, program, "serve", "--db", file, "--storage", folder / "artifacts",
             "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True, env={**environment(), **preload}, cwd=folder,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.seconds = time.perf_counter() - began
        places = _START.match(line)
        if not places:
            raise RuntimeError(f"the server has not begun: {line}")
        self.uri, self.http = f"grpc://{places[1]}", places[2]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class _Served:
    def __init__(self, folder: Path, file: Path) -> None:
        self._given = folder, file

    def __enter__(self) -> _Server:
        self._server = _Server(*self._given)
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.end()


def _starts(report: Report, folder: Path, file: Path, rounds: int) -> None:
    seconds = []
    for _ in range(rounds + 1):
        server = _Server(folder, file)
        server.end()
        seconds.append(server.seconds)
    middle = median(seconds[1:])
    report.add("ready with one preloaded model", f"{middle:.3g} s", "", "", middle, "<= 1.5")


def _latencies(report: Report, folder: Path, file: Path, uri: str, options: argparse.Namespace) -> None:
    """One client, warm; the median of `_QUERIES` searches in each turn."""
    questions = _queries(options.rows, 0)
    here = duckdb.connect(str(file), read_only=True)
    jammi = jammi_duck.install(here, storage=str(folder / "artifacts"))
    vectors = jammi.embed([next(questions) for _ in range(200)])
    given = itertools.cycle([vector.tolist() for vector in vectors if vector is not None])
    con = adbc.connect(uri, autocommit=True)
    cursor = con.cursor()
    client = flight.connect(uri)
    parameter = _SEARCH.format("?")
    by_vector = _SEARCH.format("?::FLOAT[]")

    def in_process(text: str, values: Callable[[], object]) -> Callable[[], float]:
        return lambda: _middle(lambda: _read(here.execute(text, [values()])))

    def over_adbc(text: str, values: Callable[[], object]) -> Callable[[], float]:
        def search() -> None:
            cursor.execute(text, (values(),))
            cursor.fetch_arrow_table()

        return lambda: _middle(search)

    def plainly() -> None:
        text = _SEARCH.format("'" + next(questions).replace("'", "''") + "'")
        client.do_get(flight.Ticket(text.encode())).read_all()

    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    samples = interleave(
        "one client",
        {
            "text here": in_process(parameter, lambda: next(questions)),
            "text adbc": over_adbc(parameter, lambda: next(questions)),
            "text flight": lambda: _middle(plainly),
            "vector here": in_process(by_vector, lambda: next(given)),
            "vector adbc": over_adbc(by_vector, lambda: next(given)),
        },
        options.rounds,
    )
    for what, name, base, goal in (
        ("text search over ADBC, ms more", "text adbc", "text here", "<= 2"),
        ("text search by a plain ticket, ms more", "text flight", "text here", "<= 2"),
        ("vector search over ADBC, ms more", "vector adbc", "vector here", "<= 1.5"),
    ):
        more = median(a - b for a, b in zip(samples[name], samples[base], strict=True)) * 1e3
        report.add(
            what,
            f"{median(samples[name]) * 1e3:.3g} ms",
            "in process",
            f"{median(samples[base]) * 1e3:.3g} ms",
            more,
            goal,
        )
    cursor.close()
    con.close()
    client.close()
    here.close()


def _read(con: duckdb.DuckDBPyConnection) -> pa.Table:
    reader: Any = con.to_arrow_reader()
    return reader.read_all()


def _middle(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_QUERIES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _clients(report: Report, uri: str, options: argparse.Namespace) -> None:
    questions = _queries(options.rows, 500_000)
    lock = threading.Lock()
    one: list[float] = []
    many: list[float] = []
    errors: list[BaseException] = []

    def search(until: float, seconds: list[float]) -> None:
        with flight.connect(uri) as client:
            while time.perf_counter() < until:
                with lock:
                    text = _SEARCH.format("'" + next(questions).replace("'", "''") + "'")
                began = time.perf_counter()
                try:
                    client.do_get(flight.Ticket(text.encode())).read_all()
                except Exception as error:
                    errors.append(error)
                    return
                seconds.append(time.perf_counter() - began)

    def rate(count: int, kept: list[float]) -> float:
        seconds: list[float] = []
        until = time.perf_counter() + options.seconds
        threads = [threading.Thread(target=search, args=[until, seconds]) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept += seconds
        return len(seconds) / float(options.seconds)

    samples = interleave("clients", {"one": lambda: rate(1, one), "many": lambda: rate(_CLIENTS, many)}, options.rounds)
    report.compare(f"searches a second, {_CLIENTS} clients", samples["many"], "one", samples["one"], "/s", ">= 4")
    last = sorted(many)[int(len(many) * 0.99)]
    middle = median(one)
    report.add(
        "p99 of many, by p50 of one", f"{last * 1e3:.3g} ms", "one", f"{middle * 1e3:.3g} ms", last / middle, "< 15"
    )
    report.add("errors", str(len(errors)), "", "", len(errors), "<= 0")


_PLAIN = """
import sys
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight

width, rows = map(int, sys.argv[1:])
vectors = np.random.default_rng(1).standard_normal(2730 * width, np.float32)
batch = pa.record_batch({"id": pa.array(range(2730)), "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors), width)})


class Server(flight.FlightServerBase):
    def do_get(self, context, ticket):
        reader = pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(rows // 2730)))
        return flight.RecordBatchStream(reader)


server = Server("grpc://127.0.0.1:0")
print(server.port, flush=True)
server.serve()
"""


def _streams(report: Report, process: subprocess.Popen[str], uri: str, options: argparse.Namespace) -> None:
    command = [sys.executable, "-c", _PLAIN, str(_WIDTH), str(options.vectors)]
    plain = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert plain.stdout is not None
    alone = f"grpc://127.0.0.1:{int(plain.stdout.readline())}"

    def rate(where: str, ticket: bytes) -> float:
        began = time.perf_counter()
        count: float = 0
        with flight.connect(where) as client:
            for chunk in client.do_get(flight.Ticket(ticket)):
                count += chunk.data.nbytes
        return float(count) / (time.perf_counter() - began) / 1e6

    try:
        before = _memory_mb(process.pid)
        peaks = _Peak(process.pid)
        samples = interleave(
            "streams",
            {"ours": lambda: rate(uri, b"SELECT id, v FROM vectors"), "plain": lambda: rate(alone, b"")},
            options.rounds,
        )
        grown = peaks.end() - before
    finally:
        plain.kill()
        plain.wait()
    what = f"MB a second, {options.vectors:,} rows of {_WIDTH} floats"
    report.compare(what, samples["ours"], "pyarrow.flight alone", samples["plain"], "MB/s", ">= 0.6")
    report.add(
        "memory of the server meanwhile, MB more",
        f"{before + grown:,.0f} MB",
        "before",
        f"{before:,.0f} MB",
        grown,
        "< 150",
    )


def _memory_mb(process: int) -> float:
    with open(f"/proc/{process}/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmRSS:"))) / 1024


class _Peak:
    """The most memory that a process has while this looks."""

    def __init__(self, process: int) -> None:
        self._most, self._is_over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, args=[process])
        self._thread.start()

    def _look(self, process: int) -> None:
        while not self._is_over.wait(0.02):
            self._most = max(self._most, _memory_mb(process))

    def end(self) -> float:
        self._is_over.set()
        self._thread.join()
        return self._most


if __name__ == "__main__":
    main()
