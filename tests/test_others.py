"""What other processes have done to a table is seen by searches, statuses and refreshes, without a new install."""

import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from jammi_duck import JammiWarning
from jammi_duck.storage.files import manifest
from jammi_duck.storage.files.local_store import LocalStore
from jammi_duck.storage.files.location import open_store
from jammi_duck.storage.files.locks import SharedLocks, exclusive_lock, is_locked
from jammi_duck.storage.files.object_store import ObjectStore
from jammi_duck.storage.tables import build, change
from jammi_duck.storage.tables import snapshot as present
from jammi_duck.storage.tables.build import Build
from jammi_duck.storage.tables.change import Change
from jammi_duck.storage.tables.clock import not_before
from jammi_duck.storage.tables.table import Table
from jammi_duck.storage.tables.watch import Watch
from jammi_duck.work.refresh import Refresher
from tests.histories import ask

ALWAYS = timedelta(0)


@pytest.fixture(
    params=["disk", pytest.param("memory", marks=pytest.mark.long), pytest.param("s3", marks=pytest.mark.s3)]
)
def place(request, tmp_path):
    """A location and what fsspec needs for it."""
    if request.param == "disk":
        return str(tmp_path / "artifacts"), {}
    if request.param == "memory":
        return f"memory://{tmp_path.name}", {}
    server = request.getfixturevalue("s3_server")
    return f"s3://{server.bucket(f'others-{os.urandom(4).hex()}')}/x", server.options()


@pytest.fixture
def opened(fake, place, tmp_path):
    """`opened(side, **options)`: a connection to a database at the location, with a source `t` of ten rows."""

    def connect(side, con=None, **options):
        con = con or duckdb.connect()
        if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 't'").fetchall():
            con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
        location, keys = place
        given = {"storage": location, "storage_options": keys, "cache_dir": tmp_path / f"cache of {side}"}
        fake(con, **given, **{"follow": ALWAYS, **options})
        return con

    return connect


def generate(con):
    """Another table each time, even if nothing has changed: there is nothing to resume."""
    return ask(con, "FROM jammi_generate('t', 'text', 'id', resume := true)")["embedding_table"]


def found(con, text="word10 word11"):
    return {row[0] for row in con.execute("SELECT _row_id FROM jammi_matches('t', ?, 2)", [text]).fetchall()}


def add(con, first=10):
    """Two more rows, and a refresh."""
    con.execute(f"INSERT INTO t SELECT range, 'word' || range FROM range({first}, {first + 2})")
    return ask(con, "FROM jammi_refresh('t')")


def test_a_search_sees_what_another_database_has_refreshed(opened):
    ours = opened("ours")
    generate(ours)
    theirs = opened("theirs")
    cursor = ours.cursor()
    opened("ours", cursor)
    assert found(ours) & {"10", "11"} == set()
    add(theirs)
    assert found(cursor) == found(ours) == {"10", "11"}
    assert ours.execute("SELECT row_count FROM jammi_tables()").fetchall() == [(12,)]
    told = ask(ours, "FROM jammi_status('t')")
    assert (told["current"], told["gone"], told["segments"]) == (10, 2, 2)
    view = ours.execute("SELECT embedding_table FROM jammi_tables()").fetchone()[0]
    assert ours.execute(f'SELECT count(*) FROM jammi."{view}"').fetchall() == [(12,)]


def test_a_status_looks_at_once_and_a_search_finds_what_it_tells(opened):
    ours = opened("ours", follow=timedelta(days=1))
    generate(ours)
    theirs = opened("theirs")
    found(ours)
    add(theirs)
    assert "10" not in found(ours)
    assert ask(ours, "FROM jammi_status('t')")["gone"] == 2
    assert found(ours) == {"10", "11"}


def test_a_new_install_looks_at_once(opened):
    ours = opened("ours", follow=timedelta(days=1))
    generate(ours)
    theirs = opened("theirs")
    add(theirs)
    found(ours)
    opened("ours", ours, follow=timedelta(days=1))
    assert found(ours) == {"10", "11"}


def test_an_install_on_another_cursor_finds_the_first_table(opened):
    ours = opened("ours", follow=timedelta(days=1))
    generate(opened("theirs"))
    cursor = ours.cursor()
    opened("ours", cursor, follow=timedelta(days=1))
    assert len(found(cursor)) == 2


def test_a_read_only_database_follows(opened, tmp_path):
    con = opened("ours", duckdb.connect(str(tmp_path / "db.duckdb")))
    generate(con)
    con.close()
    ours = duckdb.connect(str(tmp_path / "db.duckdb"), read_only=True)
    opened("ours", ours)
    add(opened("theirs"))
    assert found(ours) == {"10", "11"}
    assert ask(ours, "FROM jammi_tables()")["row_count"] == 12


def views(con):
    rows = con.execute("SELECT view_name FROM duckdb_views() WHERE database_name = 'jammi' AND NOT internal").fetchall()
    return {name for (name,) in rows}


def test_a_table_that_another_database_has_dropped_gives_way_to_an_older_one(opened):
    ours = opened("ours")
    old, new = generate(ours), generate(ours)
    theirs = opened("theirs")
    theirs.execute("FROM jammi_drop(?)", [new]).fetchall()
    with pytest.warns(JammiWarning, match=f"'{new}' cannot be used: every file of it is gone from .*'{old}', an older"):
        found(ours)
    found(ours)
    told = "SELECT embedding_table, status, error FROM jammi_tables() ORDER BY started"
    (_, status, _), (_, gone, why) = ours.execute(told).fetchall()
    assert (status, gone) == ("ready", "gone")
    assert views(ours) == {old}
    assert "another database has dropped it" in why
    with pytest.raises(duckdb.Error, match="every file of it is gone from"):
        ours.execute("FROM jammi_search('t', 'word1', 1, embedding_table := ?)", [new]).fetchall()
    assert ask(ours, "FROM jammi_recover()")["status"] == "gone"
    assert add(ours)["embedding_table"] == old
    ours.execute("FROM jammi_drop(?)", [new]).fetchall()
    assert [row[:2] for row in ours.execute(told).fetchall()] == [(old, "ready")]


def test_the_only_table_of_a_source_that_is_gone_is_named(opened):
    ours = opened("ours")
    name = generate(ours)
    ours.execute("CREATE TABLE u AS FROM t")
    ours.execute("FROM jammi_generate('u', 'text', 'id')").fetchall()
    opened("theirs").execute("FROM jammi_drop(?)", [name]).fetchall()
    with pytest.raises(duckdb.Error, match=f"no embedding table for 't': '{name}' cannot be used, every file of it is"):
        found(ours)


def test_what_is_gone_comes_back_with_its_files(fake, tmp_path):
    con = fake(follow=ALWAYS).con
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con)
    new = generate(con)
    folder = tmp_path / "artifacts" / "jammi_db"
    away = tmp_path / "away"
    away.mkdir()
    for file in list(folder.glob(f"{new}.*")):
        shutil.move(file, away)
    with pytest.warns(JammiWarning, match="is taken instead"):
        found(con)
    assert new not in views(con)
    for file in away.iterdir():
        shutil.move(file, folder)
    assert ask(con, "FROM jammi_status('t')")["embedding_table"] == new
    assert new in views(con)
    assert con.execute(f'SELECT count(*) FROM jammi."{new}"').fetchall() == [(10,)]


def test_an_empty_location_drops_nothing(fake, tmp_path):
    con = fake(follow=ALWAYS).con
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con)
    found(con)
    folder = tmp_path / "artifacts" / "jammi_db"
    for empty in (True, False):
        folder.rename(tmp_path / "away")
        if empty:
            folder.mkdir()
        assert len(found(con)) == 2
        assert con.execute("SELECT status FROM jammi_tables()").fetchall() == [("missing",)]
        shutil.rmtree(folder, ignore_errors=True)
        (tmp_path / "away").rename(folder)
        assert con.execute("SELECT status FROM jammi_tables()").fetchall() == [("ready",)]


def test_a_folder_that_is_as_it_was_is_not_listed_again(fake, storage, monkeypatch):
    con = fake(follow=ALWAYS).con
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con)
    monkeypatch.setattr("jammi_duck.storage.tables.watch._SETTLED", 0.0)
    found(con)
    listed, real = [], LocalStore.names
    monkeypatch.setattr(LocalStore, "names", lambda store: listed.append(store) or real(store))
    found(con)
    assert listed == []
    (storage / "jammi_db" / "x").touch()
    found(con)
    assert len(listed) == 1


def test_a_change_within_one_tick_of_the_folders_clock_is_seen(monkeypatch, tmp_path, fake):
    con, other = fake(follow=ALWAYS).con, fake(follow=ALWAYS, cache_dir=tmp_path / "other").con
    for each in (con, other):
        each.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con)
    other.execute("FROM jammi_recover()").fetchall()
    monkeypatch.setattr(LocalStore, "change_token", lambda store: "always the same")
    found(con)
    add(other)
    assert found(con) == {"10", "11"}


@pytest.fixture
def slow(monkeypatch):
    """A remote location, of which listings wait until they are let go."""
    monkeypatch.setattr("jammi_duck.storage.tables.watch._PATIENCE", 0.01)
    go, real = threading.Event(), ObjectStore.names
    init = ObjectStore.__init__

    def far(store, *arguments, **options):
        init(store, *arguments, **options)
        store.is_remote = True

    monkeypatch.setattr(ObjectStore, "__init__", far)
    monkeypatch.setattr(ObjectStore, "names", lambda store: (go.wait(30), real(store))[1])
    go.set()
    yield go
    go.set()


def test_a_search_does_not_wait_for_a_location_that_does_not_answer(fake, tmp_path, slow):
    location = f"memory://{tmp_path.name}"
    con, other = (fake(storage=location, follow=every, cache_dir=tmp_path / "c") for every in ("1 second", ALWAYS))
    for each in (con.con, other.con):
        each.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    con = con.con
    generate(con)
    other.con.execute("FROM jammi_recover()").fetchall()
    found(con)
    add(other.con)
    slow.clear()
    until(lambda: found(con) and "has not answered for" in str(error_in_tables(con)))
    assert "10" not in found(con)
    slow.set()
    until(lambda: found(con) == {"10", "11"})
    assert error_in_tables(con) is None


def error_in_tables(con):
    return con.execute("SELECT error FROM jammi_tables()").fetchone()[0]


def until(holds):
    """Wait for what happens after a while."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_search_goes_on_where_a_location_cannot_be_listed(fake, tmp_path, monkeypatch):
    con = fake(follow=ALWAYS).con
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con)
    found(con)
    failing = Watch(ALWAYS)
    assert failing.failure("anywhere") is None

    def refused(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("jammi_duck.storage.files.local_store.os.listdir", refused)
        (tmp_path / "artifacts" / "jammi_db" / "x").touch()
        assert len(found(con)) == 2
        assert "Permission denied" in error_in_tables(con)
    assert error_in_tables(con) is None


def test_a_search_goes_on_whatever_goes_wrong_in_a_look(fake, tmp_path, monkeypatch, slow):
    location = f"memory://{tmp_path.name}"
    con = fake(storage=location, follow=ALWAYS, cache_dir=tmp_path / "c").con
    con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(10)")
    generate(con)

    found(con)

    def broken(store):
        raise RuntimeError("a fault of the client")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "names", broken)
        assert len(found(con)) == 2
        assert error_in_tables(con).endswith("RuntimeError: a fault of the client")
    assert error_in_tables(con) is None


def jump(patch, by):
    """The clock goes to another time."""

    class Jumped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + by

    for module in (build, change):
        patch.setattr(module, "datetime", Jumped)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ahead", [timedelta(days=365), timedelta(hours=1)])
def test_the_newest_table_is_the_one_that_was_made_last_whatever_the_clock_was(opened, ahead, monkeypatch, tmp_path):
    ours = opened("ours", duckdb.connect(str(tmp_path / "db.duckdb")))
    with monkeypatch.context() as patch:
        jump(patch, ahead)
        first = generate(ours)
    second = generate(ours)
    assert ask(ours, "FROM jammi_status('t')")["embedding_table"] == second
    assert ours.execute("SELECT count(*) FROM jammi_tables() WHERE age < INTERVAL 0 SECONDS").fetchall() == [(0,)]
    # A database that knows no table of the source sees the names in the location.
    theirs = opened("theirs")
    names = [row[0] for row in theirs.execute("SELECT embedding_table FROM jammi_tables()").fetchall()]
    assert names == [second, first]
    add(theirs)
    assert found(ours) == {"10", "11"}


def test_a_clock_that_goes_back_hides_no_refresh(opened, monkeypatch):
    ours = opened("ours")
    generate(ours)
    theirs = opened("theirs")
    jump(monkeypatch, -timedelta(hours=1))
    add(theirs)
    assert found(ours) == {"10", "11"}
    finished = "SELECT started, finished FROM jammi_tables()"
    ((started, first),) = ours.execute(finished).fetchall()
    add(ours, 12)
    ((_, last),) = ours.execute(finished).fetchall()
    assert started < first < last


def test_a_time_that_nobody_can_have_is_not_believed():
    year = timedelta(days=365)
    now = datetime.now(UTC)
    assert not_before([now + year], now) > now + year
    assert not_before([now - year], now) == now
    assert not_before([datetime.max.replace(tzinfo=UTC)], now) == now


def test_what_is_found_is_the_same_for_every_store(place, tmp_path):
    location, options = place
    store = open_store(location, tmp_path / "cache", options)
    assert store.names() == set()
    store.change_token()
    scratch = store.scratch("a__embedding__m__20260101T000000.parquet", "0" * 32)
    scratch.write_bytes(b"1")
    store.create("a__embedding__m__20260101T000000.parquet", scratch)
    assert store.names() == set(store.files())
    assert store.change_token() == store.change_token()


def error_of(con, query):
    """What DuckDB says against a query, if anything."""
    try:
        con.execute(query).fetchall()
    except duckdb.Error as error:
        return str(error)
    return None


@pytest.fixture
def both(opened):
    """Two databases that know one table, whose vacuums spare nothing that is over."""
    ours, theirs = (opened(side, retention=ALWAYS) for side in ("ours", "theirs"))
    generate(ours)
    theirs.execute("FROM jammi_recover()").fetchall()
    return ours, theirs


def overtake(con, first):
    """Some later states, and a vacuum of all before the last."""
    for i in range(3):
        add(con, first + 2 * i)
    con.execute("FROM jammi_compact('t')").fetchall()
    con.execute("FROM jammi_vacuum()").fetchall()


def keys(con):
    return {int(row[0]) for row in con.execute("SELECT _row_id FROM jammi_matches('t', 'word1', 100)").fetchall()}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "moment", [(Refresher, "begin"), (Change, "finish"), (manifest, "commit"), (Change, "_rebase")]
)
def test_a_refresh_that_others_overtake_and_vacuum_is_not_lost(both, before, moment, place):
    """The name of its manifest is free again by then. Elsewhere than on a disk, its files may be gone: it says so."""
    ours, theirs = both
    ours.execute("INSERT INTO t SELECT range, 'word' || range FROM range(10, 12)")
    if moment == (Change, "_rebase"):
        before(manifest, "commit", lambda: add(theirs, 50))
    before(*moment, lambda: overtake(theirs, 20))
    if error := error_of(ours, "FROM jammi_refresh('t')"):
        assert "://" in place[0]
        assert "again" in error
        ask(ours, "FROM jammi_refresh('t')")
    assert keys(ours) == keys(theirs) == set(range(12))
    assert ask(ours, "FROM jammi_status('t')")["coverage"] == 1.0
    assert keys(opened_again(ours)) == set(range(12))


def opened_again(con):
    con.execute("FROM jammi_recover()").fetchall()
    return con


def test_a_status_reads_what_it_was_planned_on(both, before):
    ours, theirs = both
    add(theirs, 50)
    before(present, "pinned_snapshot", lambda: overtake(theirs, 20))
    assert ask(ours, "FROM jammi_status('t')")["current"] == 10


def test_what_is_being_written_is_spared_by_the_vacuum_of_another(both, before, place):
    if "://" in place[0]:
        pytest.skip("another machine's work is not seen there")
    ours, theirs = both

    def vacuum():
        theirs.execute("FROM jammi_vacuum()").fetchall()

    before(Build, "finish", vacuum)
    before(manifest, "commit", vacuum)
    name = generate(ours)
    assert ask(ours, "FROM jammi_status('t')")["embedding_table"] == name
    before(Change, "finish", vacuum)
    before(manifest, "commit", vacuum)
    add(ours)
    assert keys(ours) == set(range(12))


def test_a_search_without_an_index_goes_on_with_a_later_state(both, place, before, tmp_path):
    ours, theirs = both
    store = open_store(place[0], tmp_path / "cache", place[1])
    for file in store.names():
        if file.endswith(("vectors", "rowmap")):
            store.delete(file)
    before(Table, "search", lambda: overtake(theirs, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found_by = "SELECT _row_id FROM jammi_search('t', 'word1', 100, filter := 'id > 4')"
        assert {int(row[0]) for row in ours.execute(found_by).fetchall()} == set(range(5, 10))


def test_held_files_stay(tmp_path):
    path = tmp_path / "file"
    path.touch()
    held = SharedLocks([path])
    assert is_locked(path)
    with exclusive_lock(path) as is_free:
        assert not is_free
    held.close()
    held.close()
    assert not is_locked(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        SharedLocks([path])


@pytest.mark.parametrize(
    ("processes", "seconds"), [pytest.param(2, 6), pytest.param(3, 90, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_processes_that_contend_for_one_table_lose_nothing(tmp_path, processes, seconds):
    command = [sys.executable, "-m", "tests.contending", str(tmp_path / "artifacts")]
    running = [
        subprocess.Popen([*command, str(side), str(seconds)], stdout=subprocess.PIPE, text=True)
        for side in range(processes)
    ]
    assert [process.communicate()[0] for process in running] == [""] * processes
    assert [process.returncode for process in running] == [0] * processes
