"""As many CPUs are used as the process may use, also within a container that has a quota of their time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from jammi_duck import cpus


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Control groups of this test alone, and 16 CPUs."""
    monkeypatch.setattr(cpus, "_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", 16), ("9900000 100000", 16),
     ("", 16), ("nonsense", 16), ("1 2 3", 16), ("100000 0", 16), ("-1 100000", 16)],
)  # fmt: skip
def test_a_quota(groups, quota, count):
    (groups / "cpu.max").write_text(quota + "\n")
    assert cpus.cpus() == count


@pytest.mark.parametrize(("quota", "count"), [("300000", 3), ("-1", 16)])
def test_a_quota_of_version_1(groups, quota, count):
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cpus.cpus() == count


def test_the_least_quota_of_the_groups_that_a_process_is_in(groups, monkeypatch):
    inner = groups / "system" / "service"
    inner.mkdir(parents=True)
    monkeypatch.setattr(cpus, "_folders", lambda: {groups, inner.parent, inner})
    for folder, quota in ((inner, "400000 100000"), (inner.parent, "300000 100000")):
        (folder / "cpu.max").write_text(quota)
    assert cpus.cpus() == 3


def test_groups_are_those_of_this_process(groups):
    found = cpus._folders()
    assert groups in found
    assert all(folder.is_relative_to(groups) for folder in found)


def test_none_of_it_where_there_are_no_groups(groups):
    assert cpus.cpus() == 16


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset here")
def test_the_cpus_that_a_process_is_held_to():
    code = "from jammi_duck.encoder.local.workers import workers; print(workers(None).threads)"
    done = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"
