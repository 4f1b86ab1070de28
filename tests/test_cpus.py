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


@pytest.mark.parametrize(
    ("lines", "folders"),
    [
        ("0::/\n", set()),
        ("0::/system.slice/some service\n", {"system.slice", "system.slice/some service"}),
        ("3:cpuset:/a\n2:cpu,cpuacct:/docker/x\n1:name=systemd:/b\n0::/\n", {"cpu/docker", "cpu/docker/x"}),
        ("0::/../outside\n", set()),
        ("nonsense\n", set()),
        ("", set()),
    ],
)
def test_the_groups_of_this_process(groups, monkeypatch, tmp_path, lines, folders):
    monkeypatch.setattr(cpus, "_MINE", tmp_path / "mine")
    (tmp_path / "mine").write_text(lines)
    assert cpus._folders() - {groups, groups / "cpu"} == {groups / folder for folder in folders}


def test_groups_with_names_that_are_no_text(groups, monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "_MINE", tmp_path / "mine")
    (tmp_path / "mine").write_bytes(b"0::/\xff\n")
    assert cpus.cpus() == 16


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
