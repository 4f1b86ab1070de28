"""Shared by the benchmarks: the real data, new processes and their memory, and the printed tables."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


def packages(column: str, count: int | None = None) -> list[str]:
    """The first `count` texts (or all) of a column of packages.parquet; ends the program where it is not there."""
    import pyarrow.parquet as pq

    path = DATA / "packages.parquet"
    if not path.exists():
        sys.exit(f"This benchmark needs {path}, which is not part of the project.")
    texts: list[str] = pq.read_table(path, columns=[column]).column(column).to_pylist()[:count]
    return texts


def environment() -> dict[str, str]:
    """For a new process: with this checkout's modules, whose bytecode is kept, as an installation keeps it."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": paths}


def peak_mb() -> float:
    """The peak memory of this process. Not ru_maxrss, which a process inherits from its parent."""
    with open("/proc/self/status") as status:
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(kilobytes) / 1024


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown, and what it was measured on."""
    import duckdb

    print(f"\n{title}\n")
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(f"\nDuckDB {duckdb.__version__}, Python {platform.python_version()}, {platform.machine()}", flush=True)
