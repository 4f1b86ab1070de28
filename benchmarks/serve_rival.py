"""jammi-server beside ours, for benchmarks.serve; this file contains both ends of its client's process.

serve_rival.py URI MODEL TEXTS VECTORS      gives the server these files, then answers requests, a line of JSON each

Both servers read the same Parquet file, have the same vectors, which ours has computed, and load the same directory of
the model: the rival in float32, ours as it does by default. SQL comes from the same client of ADBC, with the same text
and a parameter that is new each time. For the rest, each has a client in Python on a connection that stays open: the
rival its package jammi-ai, whose search takes a vector, so that a text is encoded first, in a call of its own; ours a
plain ticket of Flight, and HTTP for an embedding alone. A vector ends as a list of floats, a search as an Arrow table
with all columns of the source.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.parquet as pq

from benchmarks.common import ROOT, environment
from benchmarks.rounds import Report, interleave

if TYPE_CHECKING:
    import duckdb

NAME = "jammi-server"
_PROGRAMS = ROOT / ".venv-serve" / "bin"
_CONFIG = """
artifact_dir = {}
[server]
flight_listen = "127.0.0.1:0"
health_listen = "127.0.0.1:0"
[gpu]
device = -1
[logging]
level = "error"
"""
_START = "jammi-server listening flight="
_SOURCE = "described"
_AGGREGATE = f"SELECT count(*), max(length(text)) FROM {_SOURCE}.public.{_SOURCE} WHERE id >= $1"
_FILTER = f"SELECT id, text FROM {_SOURCE}.public.{_SOURCE} WHERE id < $1"
_SOME_THOUSAND = 3_000
_WIDTH = 384
_K = 10
_QUERIES = 40


def share(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the table `packages` and its vectors to the files that both servers get, and give them to ours."""
    from jammi_duck.config.options import DEFAULT_MODEL

    texts, vectors = _files(folder)
    row = con.execute("SELECT embedding_table FROM jammi_tables() WHERE source = 'packages'").fetchone()
    assert row
    con.execute(f"COPY packages TO '{texts}'")
    # DuckDB writes arrays as lists, which the rival does not take.
    columns = f"_row_id, _row_id::BIGINT AS id, vector::FLOAT[{_WIDTH}] AS vector"
    reader: Any = con.sql(f'SELECT {columns} FROM jammi."{row[0]}"').to_arrow_reader()
    pq.write_table(reader.read_all(), vectors)
    con.execute(f"CREATE VIEW {_SOURCE} AS FROM '{texts}'")
    con.execute(
        f"SELECT * FROM jammi_import('{_SOURCE}', '{vectors}', 'id', 'vector', model := '{DEFAULT_MODEL}')"
    ).fetchall()


def compare(
    report: Report, folder: Path, uri: str, http: str, questions: Callable[[int], Iterator[str]], rounds: int
) -> None:
    """Measure both in turns. `questions` counts from a number on; nobody has asked these before."""
    with ExitStack() as running:
        try:
            rival = running.enter_context(closing(_Rival(folder)))
        except ImportError as error:
            report.missing[NAME] = str(error)
            return
        ours = running.enter_context(closing(_Ours(uri, http)))
        theirs = running.enter_context(closing(_Adbc(rival.uri)))
        measures: dict[str, Callable[[], float]] = {}
        for name, text, start in (("aggregate", _AGGREGATE, 0), ("filter", _FILTER, _SOME_THOUSAND)):
            for side, client in (("ours", ours.adbc), ("theirs", theirs)):
                measures[f"{name}, {side}"] = _turn(client.of(text), itertools.count(start))
        measures["encode, ours"] = _turn(ours.encode, questions(1_000_000))
        measures["post, ours"] = _turn(ours.post, questions(2_000_000))
        measures["encode, theirs"] = _asked(rival, "encode", questions(1_000_000))
        measures["search, ours"] = _turn(ours.search, questions(3_000_000))
        measures["search, theirs"] = _asked(rival, "search", questions(3_000_000))
        vectors = [ours.encode(text) for text in itertools.islice(questions(4_000_000), 4 * _QUERIES)]
        measures["nearest, ours"] = _turn(ours.nearest, itertools.cycle(vectors))
        measures["nearest, theirs"] = _asked(rival, "nearest", itertools.cycle(vectors))
        samples = interleave(NAME, measures, rounds)
        for what, name, base in (
            ("SQL over ADBC, an aggregate", "aggregate", "aggregate"),
            (f"SQL over ADBC, the first {_SOME_THOUSAND:,} rows", "filter", "filter"),
            ("embed by a plain ticket, encode_query", "encode", "encode"),
            ("/v1/embeddings, encode_query", "post", "encode"),
            (f"top {_K} of a text", "search", "search"),
            (f"top {_K} of a vector", "nearest", "nearest"),
        ):
            report.compare(what, samples[f"{name}, ours"], NAME, samples[f"{base}, theirs"], "ms", "< 1")
        texts = list(itertools.islice(questions(5_000_000), _QUERIES))
        common = _common([ours.found(text) for text in texts], rival.ask("found", texts))
        report.add(f"of their top {_K}, found by ours", f"{common:.0%}", NAME, "", common)


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "described.parquet", folder / "described-vectors.parquet"


def _turn(work: Callable[[Any], object], values: Iterator[object]) -> Callable[[], float]:
    return lambda: _p50(work, itertools.islice(values, _QUERIES))


def _asked(rival: _Rival, name: str, values: Iterator[object]) -> Callable[[], float]:
    return lambda: float(rival.ask(name, [*itertools.islice(values, _QUERIES)]))


def _p50(work: Callable[[Any], object], values: Iterable[object]) -> float:
    milliseconds = []
    for value in values:
        began = time.perf_counter()
        work(value)
        milliseconds.append((time.perf_counter() - began) * 1e3)
    return median(milliseconds)


def _common(ours: list[list[int]], theirs: list[list[int]]) -> float:
    pairs = list(zip(ours, theirs, strict=True))
    return sum(len({*a} & {*b}) for a, b in pairs) / sum(len(b) for _, b in pairs)


class _Adbc:
    """The same client for both servers."""

    def __init__(self, uri: str) -> None:
        import adbc_driver_flightsql.dbapi as adbc

        self._con = adbc.connect(uri, autocommit=True)
        self._cursor = self._con.cursor()

    def of(self, text: str) -> Callable[[object], object]:
        """What runs this query with a value of its parameter."""

        def query(value: object) -> object:
            self._cursor.execute(text, (value,))
            return self._cursor.fetch_arrow_table()

        return query

    def close(self) -> None:
        self._cursor.close()
        self._con.close()


class _Ours:
    """The clients of ours."""

    def __init__(self, uri: str, http: str) -> None:
        from jammi_duck.config.options import DEFAULT_MODEL

        self.adbc = _Adbc(uri)
        self._client = flight.connect(uri)
        self._http = HTTPConnection(http)
        self._model = DEFAULT_MODEL

    def encode(self, text: str) -> list[float]:
        vector: list[float] = self._read(f"SELECT embed({_literal(text)})")[0][0].as_py()
        return vector

    def post(self, text: str) -> list[float]:
        body = json.dumps({"model": self._model, "input": text})
        self._http.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        with self._http.getresponse() as answer:
            vector: list[float] = json.load(answer)["data"][0]["embedding"]
        return vector

    def search(self, text: str) -> pa.Table:
        return self._top(_literal(text))

    def nearest(self, vector: list[float]) -> pa.Table:
        return self._top(f"{vector}::FLOAT[]")

    def found(self, text: str) -> list[int]:
        ids: list[int] = self.search(text).column("id").to_pylist()
        return ids

    def close(self) -> None:
        self._http.close()
        self._client.close()
        self.adbc.close()

    def _top(self, query: str) -> pa.Table:
        return self._read(f"SELECT * FROM jammi_search('{_SOURCE}', {query}, {_K}, mode := 'vector')")

    def _read(self, text: str) -> pa.Table:
        return self._client.do_get(flight.Ticket(text.encode())).read_all()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class _Rival:
    """The rival's server and its client, a process each."""

    def __init__(self, folder: Path) -> None:
        """Start them, and give the server the files.

        Raises:
            ImportError: they are not installed.
        """
        from benchmarks.contenders import default_model

        program = _PROGRAMS / NAME
        if not program.exists():
            raise ImportError(f"there is no {program}")
        home = folder / NAME
        home.mkdir()
        config = home / "jammi.toml"
        config.write_text(_CONFIG.format(json.dumps(str(home))))
        self._server = subprocess.Popen([program, "--config", config], stdout=subprocess.PIPE, text=True, cwd=home)
        assert self._server.stdout
        line = self._server.stdout.readline()
        if not line.startswith(_START):
            raise RuntimeError(f"{NAME} has not begun: {line}")
        self.uri = "grpc://" + line.removeprefix(_START).split()[0]
        command: list[str | Path] = [
            _PROGRAMS / "python",
            "-P",
            __file__,
            self.uri,
            f"local:{default_model().path}",
            *_files(folder),
        ]
        self._client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=home
        )

    def ask(self, name: str, values: Sequence[object]) -> Any:  # noqa: ANN401 - what JSON can hold
        """What the client answers: a median of milliseconds, or the ids that searches found."""
        requests, answers = self._client.stdin, self._client.stdout
        assert requests
        assert answers
        requests.write(json.dumps([name, list(values)]) + "\n")
        requests.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the client of {NAME} has ended")
        return json.loads(line)

    def close(self) -> None:
        self._client.communicate()
        self._server.terminate()
        self._server.wait(60)


def main() -> None:
    """Be the rival's client."""
    import jammi  # type: ignore[import-not-found]

    uri, model, texts, vectors = sys.argv[1:]
    # What libraries print is not to be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    db = jammi.connect(uri)
    db.add_source(_SOURCE, url=texts, format="parquet")
    db.import_embeddings(
        source=_SOURCE, model=model, vectors_url=vectors, key="id", text_columns=["text"], dimensions=_WIDTH
    )

    def encode(text: str) -> list[float]:
        vector: list[float] = db.encode_query(model=model, query=text)
        return vector

    def nearest(vector: list[float]) -> pa.Table:
        return db.search(_SOURCE, query=vector, k=_K)

    def search(text: str) -> pa.Table:
        return nearest(encode(text))

    work: dict[str, Callable[[Any], Any]] = {"encode": encode, "nearest": nearest, "search": search}
    for line in sys.stdin:
        name, values = json.loads(line)
        answer: object
        if name == "found":
            answer = [search(text).column("id").to_pylist() for text in values]
        else:
            answer = _p50(work[name], values)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
