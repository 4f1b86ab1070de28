"""The cost of a refresh for a source of 100,000 real texts, compared with embedding all of it again.

A full build is timed once; refreshes of one row in a hundred, and refreshes that find nothing, in rounds. After 19
refreshes the table has 20 segments: a search over them alternates with one over a table of one segment and the
same rows, before and after a compaction, which is timed, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from statistics import median

import duckdb

from benchmarks.common import show
from benchmarks.rounds import HEADER, Report
from benchmarks.search_data import texts

ROWS = 100_000
SEARCHES = 40
ROUNDS = 5


def main() -> None:
    """Print the table of the measures and their goals."""
    import jammi_duck

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--refreshes", type=int, default=19)
    options = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        jammi_duck.install(con, storage=folder)
        con.execute("SET enable_progress_bar = false")
        con.execute("CREATE TABLE texts AS SELECT unnest(range(len($1))) AS id, unnest($1) AS text", [texts()])
        con.execute("CREATE TABLE source AS FROM texts WHERE id < $1", [options.rows])
        con.execute("CREATE TABLE same AS FROM source LIMIT 0")
        con.execute("SELECT embed('warm')").fetchall()
        full = _seconds(con, "FROM jammi_generate('source', 'text', 'id')")
        nothing = [_seconds(con, "FROM jammi_refresh('source')") for _ in range(3)]
        share = [_change_and_refresh(con, options.rows // 100, turn) for turn in range(options.refreshes)]
        # Both are written anew, so that the joins with them cost the same.
        con.execute("CREATE TABLE written AS FROM source; DROP TABLE source; ALTER TABLE written RENAME TO source")
        con.execute("INSERT INTO same FROM source")
        con.execute("CREATE TABLE vectors AS SELECT _row_id::BIGINT AS id, vector FROM " + _view(con))
        con.execute("FROM jammi_import('same', 'vectors', 'id', 'vector', model := 'all-MiniLM-L6-v2')").fetchall()
        con.execute(
            "CREATE TABLE queries AS SELECT row_number() OVER () - 1 AS i, vector AS v FROM vectors LIMIT $1",
            [SEARCHES],
        )
        one, many = _searches(con, ("same", "source"))
        (segments,) = con.execute("SELECT segments FROM jammi_status('source')").fetchall()[0]
        compaction = _seconds(con, "FROM jammi_compact('source')")
        after_one, after = _searches(con, ("same", "source"))
        con.close()
    report.add("full build", f"{full:.1f} s", "", "", full)
    ratio = median(share) / full
    report.add("refresh of 1 %", f"{median(share):.2f} s", "full build", f"{full:.1f} s", ratio, "<= 0.03")
    report.add("refresh that finds nothing, s", f"{median(nothing):.2f} s", "", "", median(nothing), "< 1")
    report.compare(f"search over {segments} segments", many, "over one", one, "ms", "<= 2")
    report.compare("search after compaction", after, "over one", after_one, "ms", "<= 1.1")
    report.add("compaction", f"{compaction:.1f} s", "full build", f"{full:.1f} s", compaction / full, "< 0.1")
    show(f"Refresh of {options.rows:,} texts, {options.refreshes} times", HEADER, report.lines)
    report.end()


def _change_and_refresh(con: duckdb.DuckDBPyConnection, rows: int, turn: int) -> float:
    """Change the text of half so many rows, delete as many, and add as many; then refresh."""
    half = rows // 2
    con.execute("UPDATE source SET text = text || $1 WHERE hash(id, $2) % 1_000_000 < 5_000", [f" ({turn})", turn])
    con.execute(f"DELETE FROM source WHERE id IN (SELECT id FROM source ORDER BY hash(id, {turn}) LIMIT {half})")
    con.execute(
        "INSERT INTO source SELECT 1_000_000 * ($1 + 1) + id, text || ' again ' || $1 FROM texts LIMIT $2", [turn, half]
    )
    return _seconds(con, "FROM jammi_refresh('source')")


def _searches(con: duckdb.DuckDBPyConnection, sources: tuple[str, str]) -> tuple[list[float], list[float]]:
    """For each source the median milliseconds of a search, in rounds, where the sources take turns at each query."""
    found: tuple[list[float], list[float]] = [], []
    queries = [f"SELECT s.* FROM queries q, jammi_search('{name}', q.v, 10) s WHERE q.i = ?" for name in sources]
    for turn in range(ROUNDS + 1):
        times = [[_seconds(con, query, i) for query in queries] for i in range(SEARCHES)]
        if turn:
            for taken, of_source in zip(found, zip(*times, strict=True), strict=True):
                taken.append(1000 * median(of_source))
    return found


def _view(con: duckdb.DuckDBPyConnection) -> str:
    (name,) = con.execute("SELECT embedding_table FROM jammi_tables() WHERE source = 'source'").fetchall()[0]
    return f'jammi."{name}"'


def _seconds(con: duckdb.DuckDBPyConnection, query: str, *parameters: object) -> float:
    began = time.perf_counter()
    con.execute(query, list(parameters)).fetchall()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
