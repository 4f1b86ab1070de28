"""Queries run in the order in which they came, so many at a time, and searches do not wait for scans."""

import threading
import time

import pytest

from jammi_duck.doors.server import admission as admissions
from jammi_duck.doors.server.admission import Admission, BusyError, Cores, GoneError


class Queries:
    """Queries on threads, each of which runs until it is let go."""

    def __init__(self, admission):
        self.admission = admission
        self.began, self.failed, self.ends, self.threads = [], [], {}, []
        self.gone = set()

    def start(self, name, *, is_search):
        self.ends[name] = threading.Event()
        before = (self.admission.waiting, len(self.began), len(self.failed))

        def run():
            try:
                with self.admission.turn(is_search=is_search, is_gone=lambda: name in self.gone):
                    self.began.append(name)
                    assert self.ends[name].wait(60)
            except (BusyError, GoneError) as error:
                self.failed.append((name, type(error)))

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        until(lambda: (self.admission.waiting, len(self.began), len(self.failed)) != before)

    def end(self, name):
        count = len(self.began)
        waiting = self.admission.waiting
        self.ends[name].set()
        until(lambda: len(self.began) > count or not waiting)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in self.ends.values():
            end.set()
        for thread in self.threads:
            thread.join(60)
        assert self.admission.running == self.admission.waiting == 0


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_first_come_first_served():
    with Queries(Admission(1, 10)) as queries:
        for name in "abcde":
            queries.start(name, is_search=True)
        assert (queries.began, queries.admission.running, queries.admission.waiting) == (["a"], 1, 4)
        for i, name in enumerate("abcd"):
            queries.end(name)
            assert queries.began == list("abcde"[: i + 2])


def test_searches_pass_scans():
    with Queries(Admission(4, 10)) as queries:
        for name in ("scan 1", "scan 2", "scan 3", "scan 4"):
            queries.start(name, is_search=False)
        assert queries.began == ["scan 1", "scan 2", "scan 3"]
        queries.start("search", is_search=True)
        assert queries.began[-1] == "search"
        queries.start("search 2", is_search=True)
        assert queries.admission.waiting == 2
        queries.end("scan 1")
        # The scan came first.
        assert queries.began[-1] == "scan 4"
        queries.end("search")
        assert queries.began[-1] == "search 2"


def test_too_many_wait():
    with Queries(Admission(1, 2)) as queries:
        for name in "abcd":
            queries.start(name, is_search=True)
        assert queries.failed == [("d", BusyError)]
        queries.end("a")
        queries.start("e", is_search=True)
        assert queries.admission.waiting == 2


def test_who_is_gone_is_not_called():
    with Queries(Admission(1, 10)) as queries:
        for name in "abc":
            queries.start(name, is_search=True)
        queries.gone.add("b")
        until(lambda: queries.failed == [("b", GoneError)])
        queries.end("a")
        assert queries.began == ["a", "c"]


def test_the_end():
    with Queries(Admission(1, 10)) as queries:
        queries.start("a", is_search=True)
        queries.start("b", is_search=False)
        queries.admission.close()
        until(lambda: queries.failed == [("b", GoneError)])
        queries.start("c", is_search=True)
        assert queries.failed[-1] == ("c", GoneError)
        assert not queries.admission.drained(0.05)
        queries.end("a")
        assert queries.admission.drained(60)


def test_an_error_gives_the_turn_back():
    admission = Admission(1, 1)
    with pytest.raises(ZeroDivisionError), admission.turn(is_search=True, is_gone=lambda: False):
        1 / 0  # noqa: B018
    with admission.turn(is_search=True, is_gone=lambda: False) as waited:
        assert waited >= 0


def test_cores_are_left_to_others_while_one_waits():
    cores = Cores(1)
    order, inside, other_is_done = [], threading.Event(), threading.Event()

    def waits():
        with cores.one():
            order.append("first")
            with cores.left_to_others():
                inside.set()
                assert other_is_done.wait(10)
            order.append("first again")

    thread = threading.Thread(target=waits)
    thread.start()
    assert inside.wait(10)
    with cores.one():
        order.append("second")
        other_is_done.set()
        # It takes its core again only once this one is free.
        thread.join(0.2)
        assert order == ["first", "second"]
    thread.join(10)
    assert order == ["first", "second", "first again"]
    with cores.left_to_others():
        pass
    with cores.one():
        pass


def test_nobody_waits_for_a_core_for_long(monkeypatch):
    monkeypatch.setattr(admissions, "_PATIENCE_SECONDS", 0.05)
    cores = Cores(1)
    entered = threading.Event()

    def computes():
        with cores.one(), cores.left_to_others():
            entered.set()

    with cores.one():
        thread = threading.Thread(target=computes)
        thread.start()
        assert entered.wait(10)
        thread.join(10)
    # Who had none has given none back.
    with cores.one():
        assert not cores._free.acquire(blocking=False)
