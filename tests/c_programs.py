"""Programs in C that tests build with sanitizers."""

import os
import shutil
import subprocess

import pytest

COMPILER = shutil.which(os.environ.get("CC", "cc"))


def build(script, folder, name, what, sanitizers):
    """What a build.sh makes of `what`, as folder / name. Skips where such a program cannot be built, or not run."""
    if COMPILER is None:
        pytest.skip("no C compiler: set CC, or install gcc or clang")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    flags = [f"-fsanitize={sanitizers}", "-o", str(folder / "probe")]
    linked = subprocess.run([COMPILER, str(probe), *flags], capture_output=True)
    # Some kernels lay memory out as some sanitizers cannot bear.
    if linked.returncode or subprocess.run([str(folder / "probe")], capture_output=True).returncode:
        pytest.skip(f"no program of {COMPILER} -fsanitize={sanitizers} runs here")
    command = ["bash", str(script), str(folder / name), what, "-Werror"]
    made = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CC": COMPILER})
    assert made.returncode == 0, made.stderr
    return folder / name


def run(program, *words):
    """What a program prints, which must end well."""
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
    ran = subprocess.run([*map(str, [program, *words])], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
