"""Queries of several callers go through the model together, and each gets its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from jammi_duck.encoder.local.gathering import MOST_TEXTS, Gathering


class Slow:
    """Gives each text its length; the first pass waits until it is let go."""

    def __init__(self):
        self.passes = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, texts: Sequence[str]):
        self.passes.append(list(texts))
        self.begun.set()
        assert self.go_on.wait(60)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[len(text)] for text in texts], np.float32)


def ask(gathering, encode, asked):
    """Encode texts on a thread each, the first of them before all others; the answers or errors, in their order."""
    answers = [None] * len(asked)

    def one(i):
        try:
            answers[i] = gathering.encode(asked[i], encode)[:, 0].tolist()
        except ValueError as error:
            answers[i] = str(error)

    threads = [threading.Thread(target=one, args=[i]) for i in range(len(asked))]
    threads[0].start()
    assert encode.begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(gathering._waiting) < len(asked) - 1:
        time.sleep(0.001)
    encode.go_on.set()
    for thread in threads:
        thread.join(60)
    return answers


def test_those_who_wait_share_one_pass():
    encode = Slow()
    asked = [["x" * i, "y"] for i in range(1, 11)]
    assert ask(Gathering(), encode, asked) == [[i, 1] for i in range(1, 11)]
    assert [len(texts) for texts in encode.passes] == [2, 18]


def test_one_alone_does_not_wait():
    encode = Slow()
    encode.go_on.set()
    gathering = Gathering()
    for text in ("a", "bb"):
        assert gathering.encode([text], encode).tolist() == [[len(text)]]
    assert encode.passes == [["a"], ["bb"]]


def test_a_pass_has_a_most():
    encode = Slow()
    asked = [["x"] * MOST_TEXTS, ["a"] * 40, ["b"] * 40, ["c"] * (MOST_TEXTS + 10)]
    answers = ask(Gathering(), encode, asked)
    assert [len(answer) for answer in answers] == [MOST_TEXTS, 40, 40, MOST_TEXTS + 10]
    assert sorted(map(len, encode.passes)) == [40, 40, MOST_TEXTS, MOST_TEXTS + 10]


def test_an_error_is_told_to_whom_it_belongs():
    encode = Slow()
    assert ask(Gathering(), encode, [["a"], ["bad"], ["ccc"]]) == [[1], "bad", [3]]


def test_an_interrupt_of_one_frees_the_others():
    gathering = Gathering()

    def interrupted(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gathering.encode(["a"], interrupted)
    assert gathering.encode(["bb"], lambda texts: np.array([[2.0]], np.float32)).tolist() == [[2]]
