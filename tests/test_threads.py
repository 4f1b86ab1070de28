"""Several connections and threads of one process embed, generate and search at once; and a build is interrupted."""

import os
import signal
import subprocess
import sys
import threading

import duckdb
import pytest

from jammi_duck.kept import kept
from jammi_duck.sql import template
from tests.fakes import text_vector
from tests.test_generate import generate

ROWS = 3000


def run_all(works):
    """Run functions at once, each in a thread; raises the first problem, and one that hangs is a problem."""
    problems = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a deadlock"
    if problems:
        raise problems[0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("file", [None, "db.duckdb"])
def test_everything_at_once(fake, tmp_path, file):
    root = duckdb.connect(str(tmp_path / file) if file else ":memory:")
    fake(root, segment_rows=1000)
    root.execute(f"CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range({ROWS})")
    generate(root, "t")

    def connection():
        own = root.cursor()
        fake(own)
        return own

    def build(table):
        con = connection()
        con.execute(f"CREATE TABLE {table} AS FROM t")
        for _ in range(3):
            con.execute(f"UPDATE {table} SET text = text || '.' WHERE id = 0")
            assert generate(con, table) == [(ROWS, 0, 0)]

    def search(seed):
        con = connection()
        for i in range(seed, ROWS, 70):
            found = con.execute("SELECT id FROM jammi_search('t', ?, 1)", [f"word{i}"]).fetchall()
            assert found == [(i,)]

    def embed(seed):
        con = connection()
        rows = con.execute("SELECT text, embed(text) FROM t WHERE id % 7 = ?", [seed]).fetchall()
        assert len(rows) >= ROWS // 7
        for text, vector in rows[:: len(rows) // 20]:
            assert vector == pytest.approx(text_vector(text), abs=1e-6)

    def keep_house():
        con = connection()
        for _ in range(8):
            con.execute("FROM jammi_tables()").fetchall()
            con.execute("FROM jammi_vacuum()").fetchall()
            con.execute("FROM jammi_recover()").fetchall()

    run_all(
        [lambda: build("a"), lambda: build("b"), lambda: build("c"), keep_house]
        + [lambda seed=seed: search(seed) for seed in range(3)]
        + [lambda seed=seed: embed(seed) for seed in range(2)]
    )
    rows = root.execute(
        "SELECT source, count(*), min(row_count), max(status) FROM jammi_tables() GROUP BY 1 ORDER BY 1"
    )
    assert rows.fetchall() == [(s, n, ROWS, "ready") for s, n in (("a", 3), ("b", 3), ("c", 3), ("t", 1))]


def test_tables_that_are_dropped_while_they_are_searched(fake):
    root = duckdb.connect()
    fake(root)
    root.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(300)")
    generate(root, "t")
    done = threading.Event()

    def replace():
        con = root.cursor()
        fake(con)
        try:
            for i in range(10):
                con.execute("UPDATE t SET text = ? WHERE id = 0", [f"other{i}"])
                generate(con, "t")
                old = con.execute("SELECT embedding_table FROM jammi_tables() ORDER BY started LIMIT 1").fetchall()[0][
                    0
                ]
                con.execute("FROM jammi_drop(?)", [old]).fetchall()
        finally:
            done.set()

    def search():
        con = root.cursor()
        fake(con)
        found = 0
        while not done.is_set() or not found:
            try:
                assert con.execute("SELECT id FROM jammi_search('t', 'word7', 1)").fetchall() == [(7,)]
                found += 1
            except duckdb.Error as error:
                # Two replacements in the moment between planning and running are one too many, and said so.
                if "while this query was planned; run it again" not in str(error):
                    raise

    run_all([replace, search, search])


def test_a_build_that_removes_its_files_is_not_settled_meanwhile(fake, storage, monkeypatch):
    """Its last Parquet is whole when the index fails; another connection looks in while the files are deleted."""
    from jammi_duck.storage.files.local_store import LocalStore
    from jammi_duck.storage.index import sidecars as index

    root = duckdb.connect()
    fake(root)
    other = root.cursor()
    fake(other)
    root.execute("CREATE TABLE t AS SELECT 1 AS id, 'x' AS text")
    delete = LocalStore.delete
    seen = []

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def looked_at(self, file):
        if not seen:
            seen.append(other.execute("SELECT status FROM jammi_tables()").fetchall())
        delete(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(index, "build", full)
        patch.setattr(LocalStore, "delete", looked_at)
        with pytest.raises(duckdb.Error, match="No space left on device"):
            generate(root, "t")
    assert seen == [[("building",)]]
    assert root.execute("SELECT status FROM jammi_tables()").fetchall() == [("failed",)]
    assert sorted(path.suffix for path in storage.rglob("*") if path.is_file()) == [".parquet", ".words"]


SLOW = """
import os, sys, time, threading, duckdb
from pathlib import Path
from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from tests import fakes

class Slow(fakes.FakeEncoder):
    calls = 0

    def encode_rows(self, texts, role, progress):
        self.calls += 1
        if self.calls == 1:
            print("embedding", flush=True)
        for _ in range(100):
            progress(0)
            time.sleep(0.01)
        return super().encode_rows(texts, role, progress)

encoders = fakes.FakeEncoders()
encoders.loaded["fake/small"] = Slow("fake/small")
con = duckdb.connect(sys.argv[1])
equip(con, Config(storage=sys.argv[2], model="fake/small", cache_dir=Path(sys.argv[3])), encoders)
con.execute("SET enable_progress_bar = false; SET threads = " + sys.argv[4])
con.execute("CREATE OR REPLACE TABLE t AS SELECT range AS id, 'word ' || range AS text FROM range(30000)")
print("ready", flush=True)
try:
    con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
except (KeyboardInterrupt, RuntimeError, duckdb.Error):
    print("interrupted", flush=True)
encoders.loaded["fake/small"] = fakes.FakeEncoder("fake/small")
print(con.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id')").fetchall(), flush=True)
print(con.execute("SELECT status FROM jammi_tables() ORDER BY started").fetchall(), flush=True)
con.close()
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_build_and_the_next_one_works(tmp_path, threads):
    arguments = [str(tmp_path / "db.duckdb"), str(tmp_path / "artifacts"), str(tmp_path / "cache"), str(threads)]
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    assert child.stdout.readline() == "embedding\n"
    threading.Event().wait(0.5)
    os.kill(child.pid, signal.SIGINT)
    try:
        out, err = child.communicate(timeout=100)
    finally:
        child.kill()
    assert out.splitlines() == ["interrupted", "[(30000,)]", "[('failed',), ('ready',)]"], err
    assert not list((tmp_path / "artifacts").rglob(".*"))


def test_a_relation_with_values_waits_for_no_function_of_python():
    """DuckDB 1 would wait for ever here, with `con.sql(…, params=…)`."""
    con = duckdb.connect()
    con.create_function("twice", lambda number: number * 2, ["BIGINT"], "BIGINT", side_effects=True)
    text = template("SELECT twice(range) FROM range(1_000_000) LIMIT {}")
    found = kept(con, text, [200_000], lambda call: call())
    assert len(found.fetchall()) == 200_000
