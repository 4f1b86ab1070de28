"""Batches of texts that are embedded at once: how many, what of an order stays, and what ends all of them."""

import threading
import time

import duckdb
import pyarrow.parquet as pq
import pytest

from jammi_duck.errors import BuildError, EncodingError
from jammi_duck.storage.files import marker
from jammi_duck.work import text_buffer
from jammi_duck.work.jobs import Jobs
from jammi_duck.work.text_buffer import IN_FLIGHT
from tests.fakes import FakeEncoder
from tests.test_generate import error_of

# As many texts as fill a batch here, and batches of them.
ROWS, BATCHES = 1000, 6


class Meeting(FakeEncoder):
    """Waits in each call until so many are under way, once; notes how many there are at most."""

    def __init__(self, together):
        super().__init__("fake/small", 8)
        self.together = threading.Barrier(together)
        self.met = False
        self.now = self.most = self.calls = 0
        self.counting = threading.Lock()

    def encode_rows(self, texts, role, progress):
        with self.counting:
            self.now += 1
            self.calls += 1
            call, self.most = self.calls, max(self.most, self.now)
        try:
            if not self.met:
                self.together.wait(20)
                self.met = True
            self.at(call, progress)
            return super().encode_rows(texts, role, progress)
        finally:
            with self.counting:
                self.now -= 1

    def at(self, call, progress):
        """Call number `call`, once they have met."""


@pytest.fixture
def parts(fake, monkeypatch):
    """A function that makes a source of several tables, each of which a thread of its own reads, with this encoder."""

    monkeypatch.setattr(text_buffer, "ROWS", ROWS)

    def open_with(encoder, threads=4):
        jammi = fake()
        jammi.encoders.loaded["fake/small"] = encoder
        jammi.con.execute(f"SET threads = {threads}")
        for part in range(BATCHES):
            jammi.con.execute(
                f"CREATE TABLE part{part} AS SELECT {part} * 100_000 + range AS id, 'word' || (range % 50) AS text "
                f"FROM range({ROWS})"
            )
        union = " UNION ALL ".join(f"FROM part{part}" for part in range(BATCHES))
        jammi.con.execute(f"CREATE VIEW t AS {union}")
        return jammi.con

    return open_with


def generate(con):
    return con.execute("SELECT row_count FROM jammi_generate('t', 'text', 'id')").fetchall()


def test_as_many_as_are_allowed_and_no_more(parts):
    """Each waits for the other: a lock around the encoder would let neither go on."""
    encoder = Meeting(IN_FLIGHT)
    con = parts(encoder)
    assert generate(con) == [(BATCHES * ROWS,)]
    assert encoder.most == IN_FLIGHT
    assert encoder.calls == BATCHES
    assert con.execute("SELECT count(DISTINCT _row_id) FROM jammi_matches('t', 'word7', 100_000)").fetchall() == [
        (BATCHES * ROWS,)
    ]


def test_one_thread_keeps_the_order_of_the_source(parts, storage):
    con = parts(Meeting(1), threads=1)
    con.execute(f"CREATE OR REPLACE VIEW t AS SELECT range AS id, 'word' AS text FROM range({BATCHES * ROWS + 7})")
    assert generate(con) == [(BATCHES * ROWS + 7,)]
    ids = [int(key) for key in pq.read_table(*storage.rglob("*.parquet"))["_row_id"].to_pylist()]
    assert ids == list(range(BATCHES * ROWS + 7))


def test_a_refresh_does_the_same(parts):
    encoder = Meeting(IN_FLIGHT)
    con = parts(encoder)
    encoder.met = True
    assert generate(con) == [(BATCHES * ROWS,)]
    for part in range(BATCHES):
        # Each text is embedded once, for all its rows.
        con.execute(f"UPDATE part{part} SET text = 'new ' || id")
    encoder.met, encoder.most = False, 0
    found = con.execute("SELECT changed, encoded FROM jammi_refresh('t')").fetchall()
    assert found == [(BATCHES * ROWS, BATCHES * ROWS)]
    assert encoder.most == IN_FLIGHT


class Failing(Meeting):
    """The first call fails; the other goes on until it is told to stop, and notes why."""

    def __init__(self):
        super().__init__(IN_FLIGHT)
        self.told = []

    def at(self, call, progress):
        if call == 1:
            raise EncodingError("the model is gone")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                progress(0)
            except BaseException as error:
                self.told.append(str(error))
                raise
            time.sleep(0.01)


def test_an_error_ends_all_and_is_what_is_said(parts, storage):
    encoder = Failing()
    con = parts(encoder)
    assert "the model is gone" in error_of(con, "FROM jammi_generate('t', 'text', 'id')")
    assert encoder.told == ["the model is gone"] * (IN_FLIGHT - 1)
    assert encoder.calls == IN_FLIGHT
    ((status, error),) = con.execute("SELECT status, error FROM jammi_tables()").fetchall()
    assert status == "failed"
    assert error.startswith("EncodingError: the model is gone")
    assert [path for path in storage.rglob("*") if path.is_file()] == []
    con.execute("CREATE TABLE u AS SELECT 1 AS id, 'a' AS text")
    encoder.met, encoder.at = True, lambda *_: None
    assert con.execute("SELECT row_count FROM jammi_generate('u', 'text', 'id')").fetchall() == [(1,)]


def test_a_thread_that_comes_after_the_end_hears_why(parts):
    from jammi_duck.doors import installation

    con = parts(Failing())
    installed = installation._installations[installation._installation_of(con)]
    engine, tokens = installed.engine, []
    begin = engine.generator.begin
    engine.generator.begin = lambda *asked: tokens.extend(begin(*asked)) or tokens
    assert "the model is gone" in error_of(con, "FROM jammi_generate('t', 'text', 'id')")
    for _ in range(2):
        with pytest.raises(EncodingError, match="the model is gone"):
            engine.generator.push(tokens[0], [("1", "a text")])
    with pytest.raises(BuildError, match="this build is over"):
        engine.generator.push("another", [("1", "a text")])


class Late(Meeting):
    """The first call fails when the other has its vectors, which come to be written when all is over."""

    def __init__(self):
        super().__init__(IN_FLIGHT)
        self.over = threading.Event()

    def encode_rows(self, texts, role, progress):
        encodings = super().encode_rows(texts, role, lambda _: None)
        self.over.wait(60)
        return encodings

    def at(self, call, progress):
        if call == 1:
            raise EncodingError("the model is gone")


def test_what_comes_after_the_end_is_not_written(parts, storage, monkeypatch):
    from jammi_duck.storage.tables.build import Build

    encoder = Late()
    con = parts(encoder)
    abandon, written = Build.abandon, []

    def abandoned(self, *reason, **keep):
        abandon(self, *reason, **keep)
        monkeypatch.setattr(Build, "write", lambda *rows: written.append(rows))
        encoder.over.set()

    monkeypatch.setattr(Build, "abandon", abandoned)
    assert "the model is gone" in error_of(con, "FROM jammi_generate('t', 'text', 'id')")
    assert encoder.over.is_set()
    assert written == []
    assert [path for path in storage.rglob("*") if path.is_file()] == []


def test_a_mark_that_cannot_be_held_is_not_left(words, storage, monkeypatch):
    real = marker.SharedLocks

    def full(paths=()):
        monkeypatch.setattr(marker, "SharedLocks", real)
        raise OSError(28, "No space left on device")

    words.execute("INSERT INTO t VALUES (77, 'a violet submarine')")
    monkeypatch.setattr(marker, "SharedLocks", full)
    assert words.execute("SELECT added FROM jammi_refresh('t')").fetchall() == [(1,)]
    assert marker.SharedLocks is real
    assert list(storage.rglob(".*.tmp")) == []


def test_threads_that_wait_hear_of_an_interrupt(parts):
    """One batch hangs in the encoder; what waits for its turn does not wait for that."""
    encoder = Meeting(1)
    con = parts(encoder)
    hang, heard = threading.Event(), []

    def at(call, progress):
        try:
            while not hang.wait(0.01):
                progress(0)
        except BaseException as error:
            heard.append(str(error))
            raise

    encoder.at = at
    from jammi_duck.doors import installation

    installed = installation._installations[installation._installation_of(con)]
    timer = threading.Timer(1.0, lambda: installed.engine.jobs.interrupt())
    timer.start()
    with pytest.raises(duckdb.Error, match="the build was interrupted"):
        generate(con)
    assert heard
    hang.set()


def test_ctrl_c_between_the_plan_of_a_query_and_the_start_of_its_job(parts, monkeypatch):
    """As a handler of the signal calls it, while another thread than the main one begins."""
    con = parts(Meeting(1))
    start = Jobs.start

    def later(jobs, *asked):
        jobs.ctrl_c()
        return start(jobs, *asked)

    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "start", later)
        with pytest.raises(duckdb.Error, match="the build was interrupted"):
            generate(con)
    generate(con)
