"""Threads that do tasks. Ctrl-C while waiting for one never leaves a lock taken.

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

T = TypeVar("T")


class Task(Generic[T]):
    """Some work, and its result once it is done."""

    def __init__(self, work: Callable[[], T], landed: SimpleQueue[Task[T]] | None = None) -> None:
        """When it is done, the task puts itself into the queue `landed`, where there is one."""
        self._work: Callable[[], T] | None = work
        self._landed = landed
        self._done: SimpleQueue[None] = SimpleQueue()
        self._answer: tuple[T | None, BaseException | None] | None = None

    def run(self) -> None:
        """Do the work here, unless the task was cancelled; its errors are for whoever wants the result."""
        work, self._work = self._work, None
        if work is None:
            return
        try:
            self._answer = work(), None
        except BaseException as error:
            self._answer = None, error
        if self._landed is None:
            self._done.put(None)
        else:
            self._landed.put(self)
        # An error's traceback has this frame: otherwise the task would stay until Python looks for cycles.
        del self

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

        A task that has a queue `landed` must have come from there.

        Raises:
            TimeoutError: it is not done within `timeout` seconds.
        """
        if self._answer is None:
            try:
                self._done.get(timeout=timeout)
            except Empty:
                raise TimeoutError(f"the task is not done after {timeout} seconds") from None
        assert self._answer is not None
        result, error = self._answer
        if error is None:
            return result  # type: ignore[return-value]
        try:
            raise error
        finally:
            # See `run`.
            del self, error


class Threads:
    """Threads that do tasks in their order, the urgent ones first. They end with the process, or by `close`."""

    def __init__(self, count: int, name: str, prepare: Callable[[], None] = lambda: None) -> None:
        """Start `count` threads, named after `name`; each calls `prepare` first."""
        self._urgent: deque[Task[Any]] = deque()
        self._others: deque[Task[Any]] = deque()
        # Something for each task. A thread that it wakes does all tasks that wait, so it matters not if one is missing.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._count, self._is_closed = count, False
        try:
            for number in range(count):
                threading.Thread(target=self._work, args=(prepare,), name=f"{name}-{number}", daemon=True).start()
        except BaseException:
            self.close()
            raise

    def start(self, task: Task[Any], *, urgent: bool = False) -> None:
        """Run a task as soon as a thread is free."""
        (self._urgent if urgent else self._others).append(task)
        self._wake.put(None)

    def submit(self, work: Callable[[], T]) -> Task[T]:
        """Do some work as soon as a thread is free."""
        task = Task(work)
        self.start(task)
        return task

    def close(self) -> None:
        """End each thread after the task that it is at; what waits is not begun."""
        self._is_closed = True
        for _ in range(self._count):
            self._wake.put(None)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a thread."""
        return len(self._urgent) + len(self._others)

    def _work(self, prepare: Callable[[], None]) -> None:
        prepare()
        while not self._is_closed:
            self._wake.get()
            while not self._is_closed and (task := self._next()) is not None:
                task.run()
                del task

    def _next(self) -> Task[Any] | None:
        for tasks in (self._urgent, self._others):
            try:
                return tasks.popleft()
            except IndexError:
                pass
        return None


def beside(work: Callable[[], T], landed: SimpleQueue[Task[T]] | None = None) -> Task[T]:
    """Do some work on a thread of its own, which does not keep a program from ending; `landed` is as for a task."""
    task = Task(work, landed)
    threading.Thread(target=task.run, name="jammi-beside", daemon=True).start()
    return task
