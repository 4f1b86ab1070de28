"""How many CPUs this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")
# A line for each hierarchy of groups: its number, what it controls (nothing in version 2), and the process's group.
_MINE = Path("/proc/self/cgroup")


def cpus() -> int:
    """Those that it may run on, or fewer where its control group, such as a container, has a quota of time.

    Quotas are read from Linux's control groups of version 2 (cpu.max) and 1 (cpu.cfs_quota_us, cpu.cfs_period_us).
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(mine, _quota())))


def _quota() -> float:
    """How many CPUs' time the process gets; infinity without a quota, or where it is not known."""
    least = math.inf
    for folder in _folders():
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = " ".join((folder / file).read_text() for file in files).split()
                # Without a quota, there is `max`, or -1.
                if quota != "max" and int(quota) > 0:
                    least = min(least, int(quota) / int(period))
    return least


def _folders() -> set[Path]:
    """The folders of the process's control groups and of those that these are in, which have quotas of their own."""
    found = {_GROUPS, _GROUPS / "cpu"}
    with contextlib.suppress(OSError, ValueError):
        for line in _MINE.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = _GROUPS / "cpu" if controllers else _GROUPS
            inner = PurePosixPath(group.lstrip("/"))
            found |= {root / each for each in (inner, *inner.parents) if ".." not in each.parts}
    return found
