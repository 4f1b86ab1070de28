"""The threads that forward passes run on: who goes first, how many cores, and nothing else disturbed."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from jammi_duck.cpus import cpus
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.local.workers import Workers, cores_here, workers
from jammi_duck.encoder.torch_engine.threads import use_cores


def cores():
    """On how many cores torch computes here."""
    use_cores()
    return torch.get_num_threads()


def test_what_is_urgent_goes_before_what_waits():
    pool = Workers(1)
    gate, order = threading.Event(), []
    first = pool.submit(gate.wait)
    waiting = [pool.submit(lambda i=i: order.append(i)) for i in range(3)]
    urgent = [pool.submit(lambda i=i: order.append(i), urgent=True) for i in ("a", "b")]
    gate.set()
    for future in (first, *waiting, *urgent):
        future.result(10)
    assert order == ["a", "b", 0, 1, 2]


def test_a_pass_takes_all_cores_where_there_are_no_others_and_one_where_there_are():
    pool = Workers(3)
    assert pool.submit(cores).result(10) == 1
    assert pool.submit(cores, spread=True).result(10) == 3
    together = threading.Barrier(3)
    begun = threading.Event()

    def one():
        begun.set()
        together.wait(10)
        return cores()

    found = [pool.submit(one, spread=True)]
    assert begun.wait(10)
    found += [pool.submit(one, spread=True) for _ in range(2)]
    assert [future.result(10) for future in found] == [3, 1, 1]
    assert pool.submit(cores, spread=True).result(10) == 3


def test_what_may_run_here_does_so_only_where_nothing_else_runs():
    pool = Workers(1)
    here = threading.get_ident()
    assert pool.submit(threading.get_ident, here=True).result(10) == here
    assert pool.submit(threading.get_ident).result(10) != here
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0, here=True).result(10)
    gate = threading.Event()
    pool.submit(gate.wait)
    waiting = pool.submit(threading.get_ident, here=True)
    assert not waiting.done()
    gate.set()
    assert waiting.result(10) != here
    assert pool.submit(threading.get_ident, here=True).result(10) == here


def test_passes_do_not_wait_for_a_load():
    pool, gate = Workers(1), threading.Event()
    load = pool.load(lambda: (gate.wait(10), cores_here())[1])
    assert pool.submit(lambda: 7).result(10) == 7
    gate.set()
    assert load.result(10) == 1


def test_errors_reach_who_asked_and_the_pool_goes_on():
    pool = Workers(1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(10)
    gate = threading.Event()
    pool.submit(gate.wait)
    dropped = pool.submit(lambda: 1)
    assert dropped.cancel()
    gate.set()
    assert pool.submit(lambda: 2).result(10) == 2


def test_torch_has_as_many_threads_as_before_for_everybody_else(tiny_model):
    def in_a_new_thread():
        counts = []
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return counts[0]

    before = (torch.get_num_threads(), in_a_new_thread())
    encoder = LoadedEncoders(4, 2, "float32", threads=3).get(str(tiny_model))
    encoder.encode(["duck"])
    encoder.encode([f"duck {i}" for i in range(200)])
    assert (torch.get_num_threads(), in_a_new_thread()) == before


def test_many_pools_that_start_at_once_leave_torch_as_it_was():
    def in_a_new_thread():
        with ThreadPoolExecutor(1) as new:
            return new.submit(torch.get_num_threads).result(10)

    def start_all_threads():
        pool, together = Workers(4), threading.Barrier(4)
        for job in [pool.submit(lambda: (use_cores(), together.wait(10))) for _ in range(4)]:
            job.result(10)

    before = in_a_new_thread()
    for _ in range(20):
        start_all_threads()
        assert in_a_new_thread() == before


def test_a_thread_that_cannot_set_itself_up_says_so_and_tries_again(monkeypatch):
    from jammi_duck.encoder.torch_engine import threads as module

    pool = Workers(1)
    real, failures = module._use_threads, ["can't start new thread"]

    def use_threads(cores):
        if failures:
            raise RuntimeError(failures.pop())
        real(cores)

    monkeypatch.setattr(module, "_use_threads", use_threads)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.submit(cores).result(10)
    assert pool.submit(cores).result(10) == 1


def test_the_number_of_threads_does_not_change_the_vectors(tiny_model):
    texts = [f"{'water ' * (i % 14)}duck {i}" for i in range(300)]
    one, many = (LoadedEncoders(4, 3, "float32", threads=n).get(str(tiny_model)).encode(texts) for n in (1, 4))
    assert np.abs(one - many).max() < 1e-6


def test_one_pool_for_the_whole_process():
    assert workers(2) is workers(2)
    assert workers(None).threads == cpus()


def _encode_in_child(path, answers):
    encoder = LoadedEncoders(4, 3, "float32").get(path)
    answers.put(encoder.encode(["duck", "water"]).tolist())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(tiny_model):
    expected = LoadedEncoders(4, 3, "float32").get(str(tiny_model)).encode(["duck", "water"])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_encode_in_child, args=(str(tiny_model), answers))
    child.start()
    try:
        assert np.abs(np.array(answers.get(timeout=60)) - expected).max() < 1e-6
    finally:
        child.join(10)
        child.kill()
