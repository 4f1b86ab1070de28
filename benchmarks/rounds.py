"""Compares contenders, each in its own process, interleaved in rounds, by the median of the rounds' ratios."""

from __future__ import annotations

import multiprocessing
import operator
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.common import ROOT, environment
from benchmarks.contenders import RIVALS, Encode, default_model, ours

if TYPE_CHECKING:
    from jammi_duck.types import Role, Vectors

GOALS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
MISSED = "NO"
HEADER = ("measure", "ours", "against", "theirs", "ratio", "goal", "met")
PAUSE = 0.3  # Seconds in which the threads of the contender before stop waiting for more.

Samples = dict[str, list[float]]


@dataclass
class Report:
    """The lines of the table, and why others are not in it. A trial has no goals."""

    lines: list[tuple[str, ...]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    is_trial: bool = False

    def compare(self, what: str, ours: list[float], rival: str, theirs: list[float], unit: str, goal: str = "") -> None:
        """Add a line with two medians, and the median ratio, ours to theirs."""
        ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
        self.add(what, _figure(ours, unit), rival, _figure(theirs, unit), ratio, goal)

    def add(self, what: str, ours: str, rival: str, theirs: str, value: float, goal: str = "") -> None:
        """Add a line, and whether its value meets its goal, which is written like `>= 5.5`."""
        goal = "" if self.is_trial else goal
        sign, _, bound = goal.partition(" ")
        met = ("yes" if GOALS[sign](value, float(bound)) else MISSED) if goal else ""
        self.lines.append((what, ours, rival, theirs, f"{value:.3f}", goal, met))

    def end(self) -> None:
        """End the program, with status 1 where a goal was missed."""
        sys.exit(int(any(line[-1] == MISSED for line in self.lines)))


class Contender:
    """An encoder, warm, in a process of its own, for one role.

    Libraries of arithmetic keep their number of threads for a whole process: two of them in one process would not be
    what they are alone.
    """

    def __init__(self, name: str, role: Role = "document") -> None:
        """One of RIVALS or of OWN. Nothing is loaded yet."""
        self._what = (name, role)
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors.

        Raises:
            ImportError: its packages are not installed.
            JammiError: one of ours cannot be had here.
        """
        return self._process.submit(_encode, *self._what, texts).result()

    def seconds(self, texts: Sequence[str]) -> float:
        """How long it encodes the texts."""
        return self._process.submit(_seconds, *self._what, texts).result()

    def latency(self, texts: Sequence[str]) -> float:
        """How long it encodes one text, alone: the median of all."""
        return self._process.submit(_latency, *self._what, texts).result()

    def close(self) -> None:
        """End its process."""
        self._process.shutdown()


def _encode(name: str, role: Role, texts: Sequence[str]) -> Vectors:
    return _loaded(name, role)(texts)


def _seconds(name: str, role: Role, texts: Sequence[str]) -> float:
    encode = _loaded(name, role)
    started = time.perf_counter()
    encode(texts)
    return time.perf_counter() - started


def _latency(name: str, role: Role, texts: Sequence[str]) -> float:
    return median(_seconds(name, role, [text]) for text in texts)


@cache
def _loaded(name: str, role: Role) -> Encode:
    return RIVALS[name](default_model()) if name in RIVALS else ours(name, role)


def interleave(title: str, measures: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Take every measure once a round, in an order that moves on by one; the first round is dropped."""
    samples: Samples = {name: [] for name in measures}
    names = list(measures)
    for turn in range(rounds + 1):
        print(f"{title}: {f'round {turn} of {rounds}' if turn else 'warming up'}", file=sys.stderr, flush=True)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            samples[name].append(measures[name]())
    return {name: values[1:] for name, values in samples.items()}


def child(*arguments: object) -> float:
    """The number that benchmarks/child.py prints in a new process."""
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / "child.py"), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def _figure(values: list[float], unit: str) -> str:
    middle = median(values)
    return f"{middle:,.0f} {unit}" if middle >= 100 else f"{middle:.3g} {unit}"
