"""Texts far longer than a model reads: memory does not grow with what is not read, and nothing else changes."""

import subprocess
import sys

import duckdb
import pytest

import jammi_duck
from jammi_duck.encoder.local import excerpts

# Prints what each query gives, and by how many megabytes the peak of memory has grown.
MEASURED = """
import resource, sys, duckdb, jammi_duck
con = duckdb.connect()
jammi_duck.install(con, storage=sys.argv[1], model=sys.argv[2])
con.execute("SET threads = 1; SET enable_progress_bar = false; SELECT embed('duck')").fetchall()
con.execute("CREATE TABLE t AS SELECT i AS id, i || repeat(' lorem ipsum dolor', 2777) AS body FROM range(600) r(i)")
con.execute("CREATE TABLE few AS FROM t LIMIT 10")
con.execute("FROM jammi_generate('few', 'body', 'id')").fetchall()
con.execute("INSERT INTO few FROM t WHERE id >= 10")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for query in sys.argv[3:]:
    before = peak()
    print(con.execute(query).fetchone()[0], peak() - before)
"""
QUERIES = {
    "SELECT count(embed(body)) FROM t": 600,
    "SELECT truncated_count FROM jammi_generate('t', 'body', 'id')": 600,
    "SELECT added FROM jammi_refresh('few')": 590,
    "SELECT count(vector) FROM jammi_infer('t', 'body', 'id')": 600,
    "SELECT count(*) FROM jammi_search('few', repeat('lorem ipsum ', 2500000), 3)": 3,
    "SELECT len(embed(repeat('x', 30000000)))": 32,
}


def test_memory_is_that_of_what_is_read(tiny_model, tmp_path):
    """The tokenizer alone would take 1,500 MB for the 30 MB of text in each of these."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED, str(tmp_path), str(tiny_model), *QUERIES],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [result for result, _ in found] == list(QUERIES.values())
    assert max(megabytes for _, megabytes in found) < 500, found


def test_a_text_that_cannot_be_cut_and_is_too_long_fails_alone(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(excerpts, "MOST_CHARACTERS", 1000)
    con = duckdb.connect()
    jammi_duck.install(con, storage=tmp_path, model=str(tiny_model))
    con.execute(
        "CREATE TABLE t AS FROM (VALUES (1, 'duck'), (2, repeat(chr(8734), 1001)), (3, repeat('duck ', 999))) "
        "t(id, body)"
    )
    with pytest.warns(jammi_duck.JammiWarning, match="50 % of the texts are longer than the model reads"):
        found = con.execute("SELECT row_count, failed_count, truncated_count FROM jammi_generate('t', 'body', 'id')")
    assert found.fetchall() == [(2, 1, 1)]
    with pytest.raises(duckdb.Error, match="of 1001 characters could not be embedded"):
        con.execute("SELECT embed(body) FROM t WHERE id = 2").fetchall()
    con.close()
