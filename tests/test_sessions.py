"""Whose work it is: one session's is stopped, or is over, and the others' goes on."""

import threading

import pytest

from jammi_duck.doors import installation
from jammi_duck.errors import BuildError
from jammi_duck.types import Caller
from jammi_duck.work.generate import Census, Generator, Request
from jammi_duck.work.jobs import Jobs
from tests.fakes import FakeEncoder
from tests.test_generate import error_of, generate


@pytest.fixture
def engine(jammi):
    return installation._installations[installation._installation_of(jammi.con)].engine


class Slow(FakeEncoder):
    """Takes until it is let go, and is told to end meanwhile."""

    def __init__(self):
        super().__init__("fake/small")
        self.begun = threading.Barrier(3)
        self.let_go = threading.Event()

    def encode_rows(self, texts, role, progress):
        if len(texts) == 20 and not self.let_go.is_set():
            self.begun.wait(60)
            while not self.let_go.wait(0.01):
                progress(0)
        return super().encode_rows(texts, role, progress)


def test_an_interrupt_stops_one_session_alone(jammi, fake, engine):
    slow = jammi.encoders.loaded["fake/small"] = Slow()
    con = jammi.con
    other = fake(con.cursor()).con
    con.execute("CREATE TABLE a AS SELECT range AS id, 'word' || range AS text FROM range(20)")
    con.execute("CREATE TABLE b AS FROM a")
    ends = {}

    def build(own, table):
        try:
            ends[table] = generate(own, table)
        except Exception as error:
            ends[table] = str(error)

    threads = [threading.Thread(target=build, args=each, daemon=True) for each in ((con, "a"), (other, "b"))]
    for thread in threads:
        thread.start()
    slow.begun.wait(60)
    engine.jobs.interrupt(engine.host.add(other))
    threads[1].join(60)
    assert "the build was interrupted" in ends["b"]
    assert "a" not in ends
    slow.let_go.set()
    threads[0].join(60)
    assert ends["a"] == [(20, 0, 0)]
    assert con.execute("SELECT source, status FROM jammi_tables() ORDER BY source").fetchall() == [
        ("a", "ready"),
        ("b", "failed"),
    ]
    # The session itself goes on.
    assert generate(other, "b") == [(20, 0, 0)]


@pytest.fixture
def sessions(engine):
    """Jobs of sessions that are no connections, by what they are told: the ids of those that have ended."""
    over = []
    return over, Jobs(engine.tables, lambda: over)


def begin(engine, jobs, caller):
    generator = Generator(engine.tables, engine.encoders, jobs)
    request = Request(caller.session, ("text",), "id", "fake/small")
    (token,) = generator.begin([request], Census(2, 2, 2, "BIGINT"), [None], caller)
    return generator, token


def test_what_an_ended_session_has_begun_is_over_and_nothing_else(engine, sessions, con):
    over, jobs = sessions
    gone, token_of_gone = begin(engine, jobs, Caller("one", 1))
    here, token = begin(engine, jobs, Caller("two", 1))
    gone.push(token_of_gone, [("1", "a cat")])
    over.append("one")
    jobs.settle()
    with pytest.raises(BuildError, match="this build is over"):
        gone.push(token_of_gone, [("2", "a dog")])
    here.push(token, [("1", "a cat"), ("2", "a dog")])
    assert [each.row_count for each in here.finish([token], [2])] == [2]
    statuses = con.execute("SELECT source, status FROM jammi_tables() ORDER BY source").fetchall()
    assert statuses == [("one", "failed"), ("two", "ready")]


def test_a_session_that_begins_its_next_transaction_has_left_what_the_one_before_began(engine, sessions):
    _, jobs = sessions
    generator, first = begin(engine, jobs, Caller("one", 1))
    other, token = begin(engine, jobs, Caller("two", 1))
    _, second = begin(engine, jobs, Caller("one", 2))
    with pytest.raises(BuildError, match="this build is over"):
        generator.finish([first], [0])
    for each in (token, second):
        other.push(each, [("1", "a cat"), ("2", "a dog")])
        assert [made.row_count for made in other.finish([each], [2])] == [2]


def test_ctrl_c_is_for_what_the_main_thread_has_planned(engine, con):
    con.execute("CREATE TABLE t AS SELECT 1 AS id, 'a cat' AS text")
    stopped = []

    class Stopped(FakeEncoder):
        def encode_rows(self, texts, role, progress):
            engine.jobs.ctrl_c()
            progress(0)
            stopped.append("not at all")
            return super().encode_rows(texts, role, progress)

    engine.encoders.loaded["fake/small"] = Stopped("fake/small")
    assert "the build was interrupted" in error_of(con, "FROM jammi_generate('t', 'text', 'id')")
    assert stopped == []
    elsewhere = threading.Thread(target=lambda: con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall())
    elsewhere.start()
    elsewhere.join(60)
    assert stopped == ["not at all"]
