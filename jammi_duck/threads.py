"""Threads that do tasks, whose answers Ctrl-C can interrupt at any moment without a hang.

Ctrl-C raises KeyboardInterrupt in the main thread, between any two of its steps in Python. Conditions are written in
Python, and so are futures and most queues, which are made of them: an interrupt there can leave a lock taken for good,
and whoever wants it waits for ever. What is shared here changes in single steps: SimpleQueue, deque and dict.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from jammi_duck.lifetime import at_work

T = TypeVar("T")


class Task(Generic[T]):
    """Some work, and its result once it is done."""

    def __init__(self, work: Callable[[], T], landed: SimpleQueue[Task[T]] | None = None) -> None:
        """The task puts itself into the queue `landed` when it is done, by default into one of its own."""
        self._work: Callable[[], T] | None = work
        self._landed: SimpleQueue[Task[T]] = SimpleQueue() if landed is None else landed
        self._answer: tuple[T | None, BaseException | None] | None = None

    def run(self) -> None:
        """Do the work here, unless the task was cancelled; its errors are for whoever wants the result."""
        work, self._work = self._work, None
        if work is None:
            return
        try:
            answer: tuple[T | None, BaseException | None] = work(), None
        except BaseException as error:
            answer = None, error
        self._answer = answer
        self._landed.put(self)

    def done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._answer is not None

    def cancel(self) -> bool:
        """Do not begin the work; returns whether it had not begun. A cancelled task is never done."""
        work, self._work = self._work, None
        return work is not None

    def exception(self) -> BaseException | None:
        """The error of a task that is done."""
        return None if self._answer is None else self._answer[1]

    def result(self, timeout: float | None = None) -> T:
        """Wait until the task is done, and return the result or raise the error. For one caller only.

        Raises:
            TimeoutError: it is not done within `timeout` seconds.
        """
        if self._answer is None:
            try:
                self._landed.get(timeout=timeout)
            except Empty:
                raise TimeoutError(f"the task is not done after {timeout} seconds") from None
        assert self._answer is not None
        result, error = self._answer
        if error is not None:
            raise error
        return result  # type: ignore[return-value]


class Threads:
    """Threads that do tasks in their order, the urgent ones first. They end with the process."""

    def __init__(self, count: int, name: str, prepare: Callable[[], None] = lambda: None) -> None:
        """Start `count` threads, named after `name`; each calls `prepare` first."""
        # An urgent task waits among the urgent ones, and a None in its place wakes a thread.
        self._tasks: SimpleQueue[Task[Any] | None] = SimpleQueue()
        self._urgent: deque[Task[Any]] = deque()
        for number in range(count):
            threading.Thread(target=self._work, args=(prepare,), name=f"{name}-{number}", daemon=True).start()

    def start(self, task: Task[Any], *, urgent: bool = False) -> None:
        """Run a task as soon as a thread is free."""
        if urgent:
            self._urgent.append(task)
        self._tasks.put(None if urgent else task)

    def submit(self, work: Callable[[], T]) -> Task[T]:
        """Do some work as soon as a thread is free."""
        task = Task(work)
        self.start(task)
        return task

    @property
    def waiting(self) -> int:
        """How many tasks wait for a thread."""
        return self._tasks.qsize()

    def _work(self, prepare: Callable[[], None]) -> None:
        prepare()
        while True:
            task = self._tasks.get()
            while self._urgent:
                self._run_urgent()
            if task is not None:
                task.run()
            del task

    def _run_urgent(self) -> None:
        try:
            task = self._urgent.popleft()
        except IndexError:
            return
        task.run()


def beside(work: Callable[[], T]) -> Task[T]:
    """Do some work on a thread of its own, for which an exit waits."""

    def counted() -> T:
        with at_work():
            return work()

    task = Task(counted)
    threading.Thread(target=task.run, name="jammi-beside", daemon=True).start()
    return task
