"""Vectors in a column of the user's own table, and tables that are always current: what each costs, interleaved.

- A fill of 20,000 summaries on DuckDB and on PostgreSQL (which is started for it), in the batches of
  `jammi-duck embed`, against the encoder alone; and the way of a script: sentence-transformers row by row, with an
  UPDATE for each row, on some of the rows, scaled.
- An exact search of a column of 100,000 vectors, against DuckDB's own query for it.
- Searches of a table that is followed, or with `fresh := true`, against plain ones; inserts with triggers, without.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import duckdb

from benchmarks.common import packages, show
from benchmarks.rounds import HEADER, Report, interleave
from jammi_duck.config.options import DEFAULT_MODEL
from jammi_duck.doors.host import ConnectionHost
from jammi_duck.doors.installation import install
from jammi_duck.encoder import Encoder
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.udfs.vector_column import VectorColumn
from jammi_duck.work.fill import Column, fill

MEASURES = ("duckdb", "postgres", "script", "search", "fresh", "followed", "insert")
# What `jammi-duck embed` takes.
BATCH = 1000
ROWS, ROUNDS = 20_000, 3
SCRIPTED = 200
SOURCE, SEARCHES, NEW = 100_000, 20, 10
INSERTED = 1000
QUERY = "a program that plays music"


def main() -> None:
    """Print the table of the measures and their goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--source-rows", type=int, default=SOURCE)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES)
    options = parser.parse_args()
    is_trial = (options.rows, options.source_rows, options.rounds) != (ROWS, SOURCE, ROUNDS)
    report = Report(is_trial=is_trial)
    if {"duckdb", "postgres", "script"} & set(options.only):
        _fills(report, packages("summary", options.rows), options.rounds, options.only)
    if {"search", "fresh", "followed", "insert"} & set(options.only):
        _sources(report, options.source_rows, options.rounds, options.only)
    title = f"{options.rows:,} summaries in a column, {options.source_rows:,} in a source"
    show(f"{title}, medians of {options.rounds} rounds", HEADER, report.lines)
    for what, why in report.missing.items():
        print(f"without {what}: {why}")
    report.end()


def _fills(report: Report, texts: list[str], rounds: int, only: list[str]) -> None:
    encoder = LoadedEncoders(32, 3).get(DEFAULT_MODEL)
    encoder.encode(texts[:200])
    measures: dict[str, Callable[[], float]] = {"encoder alone": lambda: _timed(lambda: encoder.encode(texts))}
    with contextlib.ExitStack() as stack:
        if "duckdb" in only:
            measures["duckdb"] = stack.enter_context(_on_duckdb(texts, encoder))
        if "postgres" in only:
            try:
                measures["postgres"] = stack.enter_context(_on_postgres(texts, encoder))
            except ImportError as error:
                report.missing["PostgreSQL"] = str(error)
        samples = interleave("fill", measures, rounds)
    alone = samples["encoder alone"]
    for name, what, goal in (("duckdb", "DuckDB", "<= 1.15"), ("postgres", "PostgreSQL", "<= 1.3")):
        if name in samples:
            report.compare(f"fill on {what}", samples[name], "encoder alone", alone, "s", goal)
    if "script" in only:
        try:
            seconds = _by_a_script(texts[:SCRIPTED])
        except ImportError as error:
            report.missing["the script"] = str(error)
            return
        scaled = seconds * len(texts) / min(SCRIPTED, len(texts))
        mine = samples.get("duckdb", alone)
        what = f"a script, row by row ({min(SCRIPTED, len(texts)):,} rows, scaled)"
        report.add("fill on DuckDB", f"{median(mine):.1f} s", what, f"{scaled:.1f} s", median(mine) / scaled, "< 1")


def _filled(column: Column, encoder: Encoder) -> None:
    fill(
        column,
        encoder,
        batch_size=BATCH,
        batches=1,
        to_the_end=True,
        began=lambda *_: None,
        encoded=lambda *_: None,
    )


@contextlib.contextmanager
def _on_duckdb(texts: list[str], encoder: Encoder) -> Iterator[Callable[[], float]]:
    """A measure: a new file with a table of the texts is filled."""
    with tempfile.TemporaryDirectory() as folder:

        def seconds() -> float:
            file = Path(folder, f"{time.monotonic_ns()}.duckdb")
            with duckdb.connect(file) as con:
                _make(con, texts)
                con.execute("CHECKPOINT")
                host = ConnectionHost()
                host.add(con)

                def filled() -> None:
                    column = VectorColumn(host, "passage", "passage", "v")
                    column.create(encoder.dimensions)
                    _filled(column, encoder)

                taken = _timed(filled)
                assert con.execute("SELECT count(v) FROM passage").fetchone() == (len(texts),)
            os.remove(file)
            return taken

        yield seconds


@contextlib.contextmanager
def _on_postgres(texts: list[str], encoder: Encoder) -> Iterator[Callable[[], float]]:
    """The same on a server that is started for it. Raises ImportError where there is none."""
    from jammi_duck.doors.columns.connections import Connections
    from jammi_duck.doors.columns.server_column import ServerColumn

    server = importlib.import_module("tests.postgres").Server()
    try:

        def seconds() -> float:
            database = server.new_database()
            with server.connect(database) as con:
                con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage TEXT)")
                with con.cursor().copy("COPY passage FROM STDIN") as copy:
                    for row in enumerate(texts):
                        copy.write_row(row)
            with contextlib.closing(Connections(server.url(database))) as connections:

                def filled() -> None:
                    column = ServerColumn(connections, "passage", "passage", "v")
                    column.create(encoder.dimensions)
                    _filled(column, encoder)

                return _timed(filled)

        yield seconds
    finally:
        server.close()


def _by_a_script(texts: list[str]) -> float:
    """The seconds of a script that embeds each row by itself, and writes it. Raises ImportError."""
    from benchmarks.contenders import default_model, sentence_transformers

    encode = sentence_transformers(default_model())
    encode(texts[:2])
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/t.duckdb") as con:
        _make(con, texts)
        con.execute("ALTER TABLE passage ADD COLUMN v FLOAT[384]")

        def each() -> None:
            for key, text in con.execute("SELECT id, passage FROM passage WHERE v IS NULL").fetchall():
                vector = encode([text])[0].tolist()
                con.execute("UPDATE passage SET v = $1 WHERE id = $2", [vector, key])

        return _timed(each)


def _sources(report: Report, rows: int, rounds: int, only: list[str]) -> None:
    """The measures of searches of a large table: of its column, and as what is embedded is brought up to date."""
    with tempfile.TemporaryDirectory() as folder:
        # Triggers need a file of DuckDB 2.
        con = duckdb.connect(f"{folder}/s.duckdb", config=_newest())
        install(con, storage=f"{folder}/artifacts")
        con.execute("SET enable_progress_bar = false")
        known = packages("summary")
        _make(con, [f"{known[i % len(known)]} {i // len(known) or ''}".rstrip() for i in range(rows)])
        con.execute("FROM jammi_generate('passage', 'passage', 'id')").fetchall()
        if "search" in only:
            _search(report, con, rounds)
        if "fresh" in only:
            _fresh(report, con, rows, rounds)
        if {"followed", "insert"} & set(only):
            _followed(report, con, rows, rounds, only)
        con.close()


def _search(report: Report, con: duckdb.DuckDBPyConnection, rounds: int) -> None:
    """An exact search of a column, by a vector, against the query that one would write."""
    (view,) = con.execute("SELECT embedding_table FROM jammi_tables()").fetchall()[0]
    con.execute(f'CREATE TABLE vectors AS SELECT _row_id::INTEGER AS id, vector::FLOAT[384] AS v FROM jammi."{view}"')
    con.execute("SET VARIABLE q = (SELECT v::DOUBLE[] FROM vectors WHERE id = 7)")
    (q,) = con.execute("SELECT getvariable('q')").fetchall()[0]
    by_hand = "SELECT id FROM vectors ORDER BY list_cosine_similarity(v::DOUBLE[], $1::DOUBLE[]) DESC LIMIT 10"
    measures = {
        "ours": lambda: _of_many(con, "SELECT id FROM jammi_search_column('vectors', 'v', $1::DOUBLE[], 10)", [q]),
        "by hand": lambda: _of_many(con, by_hand, [q]),
    }
    samples = interleave("search of a column", measures, rounds)
    con.execute("DROP TABLE vectors")
    report.compare("search of a column", samples["ours"], "ORDER BY ... LIMIT", samples["by hand"], "ms", "<= 1.5")


def _fresh(report: Report, con: duckdb.DuckDBPyConnection, rows: int, rounds: int) -> None:
    """What `fresh := true` adds to a search, with nothing new and with a few rows that are."""
    plain = f"SELECT id FROM jammi_search('passage', '{QUERY}', 10, fresh := false)"
    fresh = f"SELECT id FROM jammi_search('passage', '{QUERY}', 10, fresh := true)"
    con.execute(fresh).fetchall()
    measures = {
        "plain": lambda: _of_many(con, plain),
        "nothing": lambda: _of_many(con, fresh, count=3),
        "new": lambda: _after_new_rows(con, rows, fresh),
    }
    samples = interleave("fresh := true", measures, rounds)
    over = _over(samples["nothing"], samples["plain"])
    report.add("fresh := true, nothing new, over a plain search", f"{over:.0f} ms", "", "", over / 1000, "<= 0.3")
    over = _over(samples["new"], samples["plain"])
    report.add(f"the same, {NEW} rows new", f"{over:.0f} ms", "", "", over / 1000)


def _followed(report: Report, con: duckdb.DuckDBPyConnection, rows: int, rounds: int, only: list[str]) -> None:
    """What a search of a followed table costs, and an insert into one."""
    con.execute("CREATE TABLE other AS FROM passage; ALTER TABLE other ADD PRIMARY KEY (id)")
    ((how,),) = con.execute("SELECT changes_by FROM jammi_follow('passage')").fetchall()
    if how != "triggers":
        report.missing["a followed table with triggers"] = f"changes are found by {how}"
    text = f"SELECT id FROM jammi_search('passage', '{QUERY}', 10{{}})"
    measures: dict[str, Callable[[], float]] = {}
    if "followed" in only:
        plain, followed = text.format(", fresh := false"), text.format("")
        con.execute(followed).fetchall()
        measures["plain"] = lambda: _of_many(con, plain)
        measures["followed"] = lambda: _of_many(con, followed)
        measures["new"] = lambda: _after_new_rows(con, rows, followed)
    if "insert" in only:
        measures["insert"] = lambda: _inserted(con, "passage", rows)
        measures["without"] = lambda: _inserted(con, "other", rows)
    samples = interleave("followed", measures, rounds)
    if "followed" in only:
        over = _over(samples["followed"], samples["plain"])
        report.add(f"followed by {how}, nothing new, over a plain search, ms", f"{over:.1f} ms", "", "", over, "<= 3")
        over = _over(samples["new"], samples["plain"])
        report.add(f"the same, {NEW} rows new", f"{over:.0f} ms", "", "", over / 1000)
    if "insert" in only:
        what = f"insert of {INSERTED:,} rows"
        report.compare(what, samples["insert"], "without triggers", samples["without"], "ms", "<= 1.5")


def _make(con: duckdb.DuckDBPyConnection, texts: list[str]) -> None:
    con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
    con.execute("INSERT INTO passage SELECT unnest(range(len($1))), unnest($1)", [texts])


def _newest() -> dict[str, str | bool | int | float | list[str]]:
    return {"storage_compatibility_version": "v2.0.0"} if duckdb.__version__.startswith("2") else {}


def _after_new_rows(con: duckdb.DuckDBPyConnection, rows: int, query: str) -> float:
    """Milliseconds of a search after some rows have come; they go afterwards, and another search notes that."""
    tag = time.monotonic_ns()
    con.execute(f"INSERT INTO passage SELECT {rows} + range, 'new text ' || range || ' {tag}' FROM range({NEW})")
    taken = 1000 * _timed(lambda: con.execute(query).fetchall())
    con.execute(f"DELETE FROM passage WHERE id >= {rows}")
    con.execute(query).fetchall()
    return taken


def _inserted(con: duckdb.DuckDBPyConnection, table: str, rows: int) -> float:
    """Milliseconds of an insert of many rows, which are deleted again."""
    insert = f"INSERT INTO {table} SELECT {rows} + range, 'another text ' || range FROM range({INSERTED})"
    taken = 1000 * _timed(lambda: con.execute(insert))
    con.execute(f"DELETE FROM {table} WHERE id >= {rows}")
    return taken


def _over(mine: list[float], plain: list[float]) -> float:
    """By how much more a measure takes than another, the median of the rounds."""
    return median(a - b for a, b in zip(mine, plain, strict=True))


def _of_many(
    con: duckdb.DuckDBPyConnection, query: str, values: list[object] | None = None, *, count: int = SEARCHES
) -> float:
    """The median milliseconds of a query."""
    return median(1000 * _timed(lambda: con.execute(query, values or []).fetchall()) for _ in range(count))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
