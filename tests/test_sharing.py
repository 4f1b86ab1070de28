"""Lone passes are shared by threads where that is faster, and not where other processes use the cores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.native import library, sharing
from jammi_duck.encoder.native.sharing import Sharing

PRODUCTS = 10_000_000


class Clock:
    """A clock that passes move on; `speed(members)` is how many tokens so many threads do in a second."""

    def __init__(self, monkeypatch):
        self.now, self.speed, self.members = 0.0, float, []
        monkeypatch.setattr(sharing.time, "perf_counter", lambda: self.now)

    def passes(self, shared, count, tokens=12, most=4):
        """How many of so many passes were shared."""

        def work(members):
            self.members.append(members)
            self.now += tokens / self.speed(members)
            return tokens

        before = len(self.members)
        assert [shared.run(tokens, most, work) for _ in range(count)] == [tokens] * count
        return sum(members > 1 for members in self.members[before:])


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_shared_where_that_is_faster(clock):
    clock.speed = lambda members: 1000 * members
    assert clock.passes(Sharing("bfloat16", PRODUCTS), 1000) > 900
    assert set(clock.members) == {1, 4}


def test_not_shared_where_that_is_slower(clock):
    clock.speed = lambda members: 1000 / members
    shared = Sharing("bfloat16", PRODUCTS)
    clock.passes(shared, 1000)
    assert clock.passes(shared, 1000) < 10


def test_shared_again_once_the_cores_are_free(clock):
    shared = Sharing("bfloat16", PRODUCTS)
    clock.speed = lambda members: 1000 / members
    clock.passes(shared, 1000)
    clock.speed = lambda members: 1000 * members
    clock.passes(shared, sharing._MOST_REST)
    assert clock.passes(shared, 1000) > 900


@pytest.mark.parametrize(("precision", "tokens"), [("float32", 3), ("bfloat16", 3), ("int8", 9)])
def test_each_thread_has_enough_to_do(clock, precision, tokens):
    clock.speed = lambda members: 1000 * members
    shared = Sharing(precision, PRODUCTS)
    assert shared.least_tokens == tokens
    assert clock.passes(shared, 100, tokens - 1) == 0
    assert clock.passes(shared, 100, tokens) > 80
    assert set(clock.members) == {1, 2}


@given(
    st.sampled_from(sorted(sharing._PRODUCTS_OF_MEMBER)),
    st.integers(1, 1 << 40),
    st.lists(st.tuples(st.integers(1, 100_000), st.integers(1, 64)), max_size=60),
)
def test_never_more_threads_than_there_may_be(precision, products, passes):
    shared = Sharing(precision, products)
    for tokens, most in passes:
        assert shared.run(tokens, most, lambda members, most=most: 1 <= members <= most)


def test_an_error_is_the_callers(clock):
    with pytest.raises(ZeroDivisionError):
        Sharing("int8", PRODUCTS).run(100, 2, lambda _: 1 // 0)


@pytest.mark.skipif(library.why_not() is not None, reason="no native engine here")
@pytest.mark.parametrize("precision", library.PRECISIONS)
def test_a_lone_text_has_the_same_bits_however_it_is_shared(tiny_model, monkeypatch, precision):
    if not library.supports(precision):
        pytest.skip("this CPU does not multiply it")
    encoder = LoadedEncoders(4, 3, precision=precision, threads=3, engine="native").get(str(tiny_model))
    engine, seen = encoder.engine, set()
    engine._sharing = Sharing(precision, 1 << 40)
    encoder.engine.spread_tokens = engine._sharing.least_tokens
    pooled = engine._forward.pooled

    def counted(*arguments, threads):
        seen.add(threads)
        return pooled(*arguments, threads=threads)

    monkeypatch.setattr(engine._forward, "pooled", counted)
    vectors = [encoder.encode(["duck water " * 6]) for _ in range(50)]
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)
    assert seen == {1, 3}
