"""On how many cores torch computes, thread by thread."""

from __future__ import annotations

import os
import threading

import torch

from jammi_duck.encoder.local.workers import cores_here

_here = threading.local()
_setting = threading.Lock()


def _after_fork() -> None:
    global _setting
    _setting = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def threads() -> int:
    """How many cores torch would use without us."""
    return torch.get_num_threads()


def use_cores() -> None:
    """Let torch compute on as many cores as the calling thread has; see `workers.cores_here`."""
    cores = cores_here()
    if cores is not None and not hasattr(_here, "cores"):
        _use_threads(cores)
        _here.cores = cores


def _use_threads(count: int) -> None:
    """Let torch compute on `count` cores when this thread calls it, without changing other threads.

    torch has a number for each thread, and a global one that a thread copies when it first computes. The global number
    is restored once this thread has copied it.
    """
    with _setting:
        others: list[int] = []
        unseen = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
        unseen.start()
        unseen.join()
        torch.set_num_threads(count)
        torch.get_num_threads()
        restored = threading.Thread(target=torch.set_num_threads, args=others)
        restored.start()
        restored.join()
