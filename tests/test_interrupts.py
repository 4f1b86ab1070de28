"""Ctrl-C at any moment ends the call that it strikes, and nothing else: whoever comes later is answered."""

from __future__ import annotations

import _thread
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

from jammi_duck import lifetime
from jammi_duck.embeddings import get_registry
from jammi_duck.encoder import vector_cache
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local import workers
from jammi_duck.encoder.local.gathering import Gathering
from jammi_duck.encoder.local.workers import Workers
from jammi_duck.encoder.providers.remote_encoder import Claim, Claims, RemoteEncoder
from jammi_duck.encoder.vector_cache import VectorCache
from jammi_duck.threads import Task, Threads, beside
from tests.endpoint import Endpoint
from tests.hostile import KEY

INTERRUPTS = 400

# An interrupt that strikes within a finalizer, or a callback of the garbage collector, can only be told as a warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def alarms():
    """Alarms that raise KeyboardInterrupt, as Ctrl-C does. Gives a function that lets one ring in so many seconds."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupted(call, longest, count=INTERRUPTS, seconds=60):
    """Call `call(i)` again and again, each time with an interrupt within `longest` seconds, until so many struck.

    Each call that is not struck has to be right, which it says itself.
    """
    dice, struck, end = random.Random(7), 0, time.monotonic() + seconds
    with alarms() as ring_in:
        for i in range(10**9):
            try:
                ring_in(dice.uniform(1e-5, longest))
                call(i)
                ring_in(0)
            except KeyboardInterrupt:
                struck += 1
            if struck == count or time.monotonic() > end:
                break
    assert struck > count // 20, "too few interrupts struck"


def on_another_thread(call):
    """The result of a call on another thread; it must come."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "another thread waits for ever"
    return answers[0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("count", [1, 40])
def test_an_encoder_answers_after_interrupts(tiny_model, engine, count):
    encoder = LoadedEncoders(4, 3, precision="float32", threads=2, engine=engine).get(str(tiny_model))
    expected = encoder.encode(["duck"])
    whole = []
    for role in ("query", "document"):
        at = time.perf_counter()
        encoder.encode([f"{role} {i}" for i in range(count)], role)
        whole.append(time.perf_counter() - at)

        def call(number, role=role):
            vectors = encoder.encode([*(f"duck {number} {i}" for i in range(count)), "duck"], role)
            assert np.array_equal(vectors[-1:], expected)

        interrupted(call, 1.5 * whole[-1], INTERRUPTS // 2, seconds=10)
    # Passes that had begun go on to their end.
    end = time.monotonic() + 30
    while lifetime._others_work() or not encoder._workers.is_idle:
        assert time.monotonic() < end, "what was interrupted counts as work for ever"
        time.sleep(0.01)
    assert np.array_equal(on_another_thread(lambda: encoder.encode(["duck"])), expected)
    assert on_another_thread(lambda: encoder.encode(["duck of another"], "query")).shape == (1, 32)


def test_others_are_answered_while_one_is_interrupted():
    gathering, over, answered = Gathering(), threading.Event(), Counter()

    def encode(texts):
        return np.array([[len(text)] for text in texts], np.float32)

    def one(number):
        while not over.is_set():
            assert gathering.encode(["x" * number], encode).tolist() == [[number]]
            answered[number] += 1

    threads = [threading.Thread(target=one, args=[number], daemon=True) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    try:
        interrupted(lambda number: gathering.encode(["x" * (number % 9)], encode), 1e-3)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert len(answered) == 8
    assert not gathering._is_running
    assert not gathering._waiting


def test_threads_do_what_they_are_given_between_interrupts():
    pool = Threads(2, "interrupted")

    def call(number):
        tasks = [Task(lambda i=i: number + i) for i in range(5)]
        for i, task in enumerate(tasks):
            pool.start(task, urgent=i % 2 == 0)
        assert [task.result() for task in tasks] == [number + i for i in range(5)]

    interrupted(call, 3e-4)
    assert on_another_thread(lambda: pool.submit(lambda: 7).result(10)) == 7
    assert pool.waiting == 0
    tasks = [Task(lambda i=i: i) for i in range(20)]
    for i, task in enumerate(tasks):
        pool.start(task, urgent=i % 3 == 0)
    assert [task.result(10) for task in tasks] == list(range(20))


def test_closed_threads_begin_nothing_more():
    pool, gate = Threads(2, "closed"), threading.Event()
    begun = [pool.submit(gate.wait) for _ in range(2)]
    end = time.monotonic() + 10
    while pool.waiting and time.monotonic() < end:
        time.sleep(0.01)
    others = [pool.submit(lambda: 1) for _ in range(3)]
    pool.close()
    gate.set()
    assert [task.result(10) for task in begun] == [True, True]
    while any(each.name.startswith("closed-") for each in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(each.name.startswith("closed-") for each in threading.enumerate())
    assert not any(task.done() for task in others)


@pytest.mark.parametrize("dimensions", [16, None])
def test_a_provider_is_asked_after_interrupts(monkeypatch, dimensions):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Endpoint(key=KEY) as endpoint:
        arguments = {"name": "any", "base_url": endpoint.url("openai"), "batch_size": 1, "max_in_flight": 4}

        def encoder():
            return RemoteEncoder(get_registry().get("openai").create(**arguments, dimensions=dimensions))

        kept = encoder()
        expected = kept.encode(["duck"])
        at = time.perf_counter()
        kept.encode([f"text {i}" for i in range(20)])
        whole = time.perf_counter() - at

        def call(number):
            # Of an unknown length, a vector is asked for first.
            asked = encoder() if dimensions is None else kept
            vectors = asked.encode([*(f"duck {number} {i}" for i in range(20)), "duck"])
            assert np.array_equal(vectors[-1:], expected)

        interrupted(call, 1.5 * whole, seconds=10)
        assert np.array_equal(on_another_thread(lambda: kept.encode(["duck"])), expected)
        assert on_another_thread(lambda: kept.encode(["text 1", "duck 1 1"])).shape == expected.repeat(2, 0).shape


def test_a_claim_that_was_interrupted_is_free_for_others():
    claims, first, second = Claims(), Claim(), Claim()
    assert claims.take(first, [b"a", b"b"]) == ([b"a", b"b"], set())
    assert claims.take(second, [b"b", b"c"]) == ([b"c"], {first})
    # No more than this may happen where an interrupt strikes while a claim is given up.
    first.is_over = True
    assert claims.take(second, [b"b"]) == ([b"b"], set())
    claims.release(first, [b"a", b"b"])
    assert claims.take(Claim(), [b"b"]) == ([], {second})
    second.is_over = True
    claims.release(second, [b"b", b"c"])
    second.wait(lambda _: pytest.fail("it was over"))
    assert claims.take(Claim(), [b"a", b"b", b"c"]) == ([b"a", b"b", b"c"], set())


def struck_where(calls):
    """What `calls` gives, and at its end, within C, a Ctrl-C: it is raised where Python looks for signals next."""
    return itertools.chain(calls, iter(_thread.interrupt_main, None))


def test_texts_are_free_although_the_last_step_was_interrupted(monkeypatch):
    """The error, with all its frames, is kept meanwhile, as a notebook keeps the last one."""

    def struck(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Endpoint(key=KEY) as endpoint:
        function = get_registry().get("openai").create(name="any", base_url=endpoint.url("openai"), dimensions=16)
        encoder = RemoteEncoder(function)
        with monkeypatch.context() as patch:
            # An interrupt may strike as soon as a function is entered, before it has done anything.
            patch.setattr(encoder._claims, "release", struck)
            with pytest.raises(KeyboardInterrupt) as kept:
                encoder.encode(["duck"])
        assert on_another_thread(lambda: encoder.encode(["duck"])).shape == (1, 16)
        assert kept


def test_the_cache_of_vectors_is_free_although_it_was_interrupted(monkeypatch, tmp_path):
    cache = VectorCache(tmp_path / "vectors.sqlite")
    cache.put([(b"a" * 32, np.ones(2, np.float32))])
    for call in (lambda: cache.get([b"a" * 32]), lambda: cache.put([(b"b" * 32, np.ones(2, np.float32))])):
        with monkeypatch.context() as patch:
            patch.setattr(vector_cache, "range", lambda *given: struck_where(range(*given)), raising=False)
            with pytest.raises(KeyboardInterrupt) as kept:
                call()
        assert set(on_another_thread(lambda: cache.get([b"a" * 32]))) == {b"a" * 32}
        assert kept


def test_a_task_says_what_became_of_it():
    pool, gate = Threads(1, "one"), threading.Event()
    first = pool.submit(gate.wait)
    second = pool.submit(lambda: 1 / 0)
    third = pool.submit(lambda: 3)
    with pytest.raises(TimeoutError, match="not done after 0.01 seconds"):
        second.result(0.01)
    assert not second.done()
    assert third.cancel()
    gate.set()
    assert first.result(10) is True
    with pytest.raises(ZeroDivisionError):
        second.result(10)
    assert isinstance(second.exception(), ZeroDivisionError)
    assert not third.cancel()
    assert not third.done()


def test_nothing_of_a_failed_task_stays():
    class Much:
        pass

    def fail():
        much = Much()
        kept.append(weakref.ref(much))
        raise ValueError(len(kept))

    kept, pool = [], Threads(1, "failing")
    gc.disable()
    try:
        for start in (pool.submit, beside):
            with pytest.raises(ValueError, match=str(len(kept) + 1)):
                start(fail).result(10)
            # The thread may not have dropped the task yet.
            end = time.monotonic() + 10
            while kept[-1]() is not None and time.monotonic() < end:
                time.sleep(0.01)
            assert kept[-1]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_passes_go_on_after_a_fork_that_was_interrupted(monkeypatch):
    monkeypatch.setattr(workers._passes, "after_fork", lambda: None)
    monkeypatch.setattr(workers, "_FORK_SECONDS", 0.2)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert Workers(1).submit(lambda: 7).result(10) == 7


INTERRUPTED_SEARCHES = """
import os, random, signal, sys, time
import duckdb, jammi_duck

def interrupt(*_):
    raise KeyboardInterrupt

folder, model = sys.argv[1:]
con = duckdb.connect(f"{folder}/db")
jammi = jammi_duck.install(con, storage=f"{folder}/store", model=model)
con.execute("CREATE TABLE ducks AS SELECT range AS id, 'duck ' || range || ' water' AS text FROM range(200)")
con.execute("SELECT * FROM jammi_generate('ducks', 'text', 'id')").fetchall()
signal.signal(signal.SIGALRM, interrupt)
dice, struck, answered = random.Random(3), 0, 0
# So that about half of the searches are struck, however busy the machine is.
longest = 8e-3
end = time.monotonic() + 15
while struck < 300 and time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-4, longest))
        assert len(jammi.search("ducks", f"duck {struck} {answered}", 3).fetchall()) == 3
        signal.setitimer(signal.ITIMER_REAL, 0)
        answered += 1
        longest /= 1.1025
    except KeyboardInterrupt:
        struck += 1
    except (duckdb.Error, jammi_duck.JammiError, RuntimeError) as error:
        # What DuckDB makes of an interrupt.
        assert "nterrupt" in repr(error), repr(error)
        struck += 1
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            pass
    longest *= 1.05
assert len(jammi.search("ducks", "duck", 3).fetchall()) == 3
print(struck > 20 and answered > 20, flush=True)
print(time.monotonic(), flush=True)
"""


def test_a_process_searches_on_after_interrupts_and_ends_at_once(tmp_path, tiny_model):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_SEARCHES, str(tmp_path), str(tiny_model)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    struck, ended = done.stdout.split()
    assert struck == "True"
    assert time.monotonic() - float(ended) < lifetime._WAIT_SECONDS / 2
