"""The native engine's C: random models beside a reference in double, hostile shapes, tensors and texts, allocations
that fail, and threads, under sanitizers; and on ARM, where there is a cross compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.c_programs import build, run

BUILD = Path(__file__).with_name("native_encoder") / "build.sh"
ARM_COMPILER, ARM, ARM_LIBRARIES = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return build(BUILD, tmp_path_factory.mktemp("native_encoder"), "driver", "address", "address,undefined")


def test_random_models_give_what_a_reference_gives(driver):
    told = run(driver, "models", 0, 20)
    assert "plain float32: from the reference" in told
    assert "plain int8: from the reference" in told


def test_what_is_wrong_is_refused(driver):
    run(driver, "hostile", 0, 8)


def test_allocations_that_fail(driver):
    run(driver, "allocations", 0, 4)


@pytest.mark.long
def test_threads_share_a_model(tmp_path):
    run(build(BUILD, tmp_path, "driver", "thread", "thread"), "threads", 0, 1)


def test_arm(tmp_path):
    if shutil.which(ARM_COMPILER) is None:
        pytest.skip(f"not compiled for ARM: no {ARM_COMPILER}; apt-get install gcc-aarch64-linux-gnu")
    program = tmp_path / "driver"
    command = ["bash", str(BUILD), str(program), "none", "-Werror"]
    made = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CC": ARM_COMPILER})
    assert made.returncode == 0, made.stderr
    if shutil.which(ARM) is None or not Path(ARM_LIBRARIES).is_dir():
        pytest.skip(f"compiled for ARM, but not run: no {ARM}; apt-get install qemu-user")
    for words in (("models", 0, 20), ("hostile", 0, 5), ("allocations", 0, 2)):
        run(ARM, "-L", ARM_LIBRARIES, program, *words)
