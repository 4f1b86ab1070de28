"""The life of a process: forks, modules that are loaded again, and an exit while something is under way."""

import signal
import subprocess
import sys
import time

import duckdb
import pytest

import jammi_duck

PARENT = """
import duckdb, jammi_duck, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
storage, model, state = sys.argv[1:4]
con = duckdb.connect()
con.execute("SET threads = 2")
jammi_duck.install(con, storage=storage, model=model)
con.execute("CREATE TABLE t AS SELECT i AS id, 'water ' || i AS body FROM range(3000) r(i)")
con.execute("FROM jammi_generate('t', 'body', 'id')").fetchall()
SEARCH = "SELECT _row_id FROM jammi_matches('t', 'water 7', 2, exact := true)"
expected = con.execute(SEARCH).fetchall()

def again(query):
    cursor = con.cursor()
    jammi_duck.install(cursor)
    while True:
        cursor.execute(query).fetchall()

def embeds_and_searches():
    own = duckdb.connect()
    jammi_duck.install(own, storage=storage, model=model)
    assert own.execute(SEARCH).fetchall() == expected
    assert own.execute("SELECT len(embed('duck'))").fetchall() == [(32,)]
    own.execute("CREATE TABLE u AS SELECT i AS id, 'duck ' || i AS body FROM range(3000) r(i)")
    own.execute("FROM jammi_generate('u', 'body', 'id')").fetchall()
    own.execute("INSERT INTO u VALUES (3000, 'water')")
    assert own.execute("SELECT added FROM jammi_refresh('u')").fetchall() == [(1,)]
    assert own.execute("SELECT id FROM jammi_search('u', 'water', 1)").fetchall() == [(3000,)]

def uses_what_it_inherits():
    for work in (lambda: con.execute(SEARCH).fetchall(), lambda: jammi_duck.install(con)):
        try:
            work()
            raise SystemExit("no error")
        except (duckdb.Error, jammi_duck.JammiError) as error:
            assert "connect and install in the child" in str(error), error

def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
            status = 0
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            status = 1
        # As multiprocessing does: without us, too, a child may crash where Python takes DuckDB's connections apart.
        os._exit(status)
    for _ in range(1200):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"

query = {"searching": SEARCH, "building": "FROM jammi_generate('t', 'body', 'id')"}.get(state)
if query:
    threading.Thread(target=again, args=[query], daemon=True).start()
    time.sleep(0.2)
codes = [forked(embeds_and_searches) for _ in range(2)]
if state == "idle":
    codes.append(forked(uses_what_it_inherits))
    assert con.execute(SEARCH).fetchall() == expected
print(codes, flush=True)
if state == "idle":
    con.close()
os._exit(0)
"""


@pytest.mark.parametrize("state", ["idle", "building", pytest.param("searching", marks=pytest.mark.long)])
def test_a_forked_child_works_on_a_connection_of_its_own(tiny_model, tmp_path, state):
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path), str(tiny_model), state],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == str([0] * (3 if state == "idle" else 2)), done.stdout + done.stderr


STARTED = """
import duckdb, jammi_duck, multiprocessing, sys

def search(storage, model, answers):
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")
    jammi_duck.install(con, storage=storage, model=model)
    answers.put(con.execute("SELECT _row_id FROM jammi_matches('t', 'water', 1)").fetchall())

if __name__ == "__main__":
    storage, model = sys.argv[1:]
    con = duckdb.connect()
    jammi_duck.install(con, storage=storage, model=model)
    con.execute("SET enable_progress_bar = false")
    con.execute("CREATE TABLE t AS FROM (VALUES (1, 'duck'), (2, 'water')) t(id, body)")
    con.execute("FROM jammi_generate('t', 'body', 'id')").fetchall()
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        answers = context.Queue()
        child = context.Process(target=search, args=(storage, model, answers))
        child.start()
        print(answers.get(timeout=100))
        child.join()
    con.close()
"""


@pytest.mark.long
def test_children_that_are_spawned_work(tiny_model, tmp_path):
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    arguments = [sys.executable, str(script), str(tmp_path / "artifacts"), str(tiny_model)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-2:] == ["[('2',)]"] * 2, done.stdout + done.stderr


ENDING = """
import atexit, duckdb, jammi_duck, signal, sys, threading, time
from pathlib import Path
database, storage, model, way = sys.argv[1:]
con = duckdb.connect(database)
con.execute("SET enable_progress_bar = false; SET threads = 2")
jammi_duck.install(con, storage=storage, model=model, segment_rows=4096)
con.execute("CREATE TABLE t AS SELECT i AS id, 'water ' || i AS body FROM range(400000) r(i)")

def build():
    cursor = con.cursor()
    jammi_duck.install(cursor)
    cursor.execute("FROM jammi_generate('t', 'body', 'id')").fetchall()

def ended(number, frame):
    raise SystemExit(4)

signal.signal(signal.SIGTERM, ended)
if way == "main thread":
    print("ready", flush=True)
    build()
threading.Thread(target=build, daemon=True).start()
while not any(Path(storage).rglob("*__embedding__*.parquet")):
    time.sleep(0.01)
print("ready", flush=True)
if way == "closed at the exit":
    atexit.register(con.close)
if way == "an error":
    raise ValueError("an error")
if way == "waiting":
    time.sleep(60)
sys.exit(3)
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("way", "signals", "codes"),
    [
        ("sys.exit", [], (3,)),
        pytest.param("an error", [], (1,), marks=pytest.mark.long),
        pytest.param("closed at the exit", [], (3,), marks=pytest.mark.long),
        ("waiting", [signal.SIGTERM], (4,)),
        ("waiting", [signal.SIGINT, signal.SIGINT], (-signal.SIGINT, 130)),
        pytest.param("waiting", [signal.SIGKILL], (-signal.SIGKILL,), marks=pytest.mark.long),
    ],
)
def test_an_exit_in_the_midst_of_a_build_leaves_what_a_crash_leaves(tiny_model, tmp_path, way, signals, codes):
    database, storage = str(tmp_path / "db.duckdb"), tmp_path / "artifacts"
    storage.mkdir()
    arguments = [sys.executable, "-W", "ignore", "-c", ENDING, database, str(storage), str(tiny_model), way]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        for number in signals:
            child.send_signal(number)
            time.sleep(0.02)
        _, told = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode in codes, told
    assert "terminate called" not in told
    con = duckdb.connect(database)
    jammi_duck.install(con, storage=storage, model=str(tiny_model))
    con.execute("DELETE FROM t WHERE id >= 20000")
    found = con.execute("SELECT status FROM jammi_tables()").fetchall()
    assert found == [("failed",)]
    con.execute("FROM jammi_generate('t', 'body', 'id', resume := true)").fetchall()
    assert con.execute("SELECT status, row_count FROM jammi_tables()").fetchall() == [("ready", 20_000)]
    con.close()


BETWEEN = """
import duckdb, jammi_duck, sys, threading, time
con = duckdb.connect()
con.execute("SET enable_progress_bar = false; SET threads = 1")
jammi_duck.install(con, storage=sys.argv[1], model=sys.argv[2])

def query():
    cursor = con.cursor()
    jammi_duck.install(cursor)
    slow = "list_sum(list_transform(range(20000), lambda y: y * x % 7))::BIGINT % 9"
    cursor.execute(f"SELECT count(embed(({slow})::VARCHAR)) FROM range(1000000) t(x)").fetchall()

con.execute("SELECT embed('water')").fetchall()
threading.Thread(target=query, daemon=True).start()
time.sleep(3)
sys.exit(3)
"""


def test_an_exit_while_a_query_is_between_two_calls(tiny_model, tmp_path):
    arguments = [sys.executable, "-W", "ignore", "-c", BETWEEN, str(tmp_path), str(tiny_model)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr


RELOADED = """
import duckdb, importlib, jammi_duck, sys
con = duckdb.connect()
jammi_duck.install(con, storage=sys.argv[1], model=sys.argv[2])
con.execute("CREATE TABLE t AS SELECT i AS id, 'water ' || i AS body FROM range(100) r(i)")
con.execute("FROM jammi_generate('t', 'body', 'id')").fetchall()
QUERY = "SELECT id FROM jammi_search('t', 'water 7', 1)"
loaded = lambda: sorted(name for name in sys.modules if name.partition(".")[0] == "jammi_duck")

def check(install):
    try:
        assert con.execute(QUERY).fetchall() == [(7,)]
    except duckdb.Error as error:
        assert "call install again" in str(error), error
    if install:
        jammi_duck.install(con)
        assert con.execute(QUERY).fetchall() == [(7,)]
        assert con.execute("SELECT id FROM jammi_similar('t', 7, 1)").fetchall() != [(7,)]
        try:
            jammi_duck.install(con, storage="elsewhere")
        except jammi_duck.ConfigError:
            return
        raise SystemExit("a class of error is another's")

if sys.argv[3] == "each":
    for name in loaded():
        importlib.reload(importlib.import_module(name))
        check(install=True)
for step in (1, -1):
    for name in loaded()[::step]:
        importlib.reload(sys.modules[name])
        check(install=False)
    check(install=True)
for name in loaded():
    del sys.modules[name]
check(install=False)
import jammi_duck
check(install=True)
con.close()
print("ok")
"""


@pytest.mark.parametrize("how", ["all", pytest.param("each", marks=pytest.mark.long)])
def test_modules_that_are_loaded_again(tiny_model, tmp_path, how):
    arguments = [sys.executable, "-W", "ignore", "-c", RELOADED, str(tmp_path), str(tiny_model), how]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.stdout.splitlines()[-1:] == ["ok"], done.stderr
