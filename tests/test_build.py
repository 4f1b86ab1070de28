"""What setup.py makes of the sources in C, with compilers that work, that are old, that fail, and without one."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
ENCODER, EXTENSION = Path("encoder", "native", "libjammi_encoder.so"), Path("udfs", "native", "jammi.duckdb_extension")
COMPILER = shutil.which(os.environ.get("CC", "cc"))
MACHINES = {"x86_64": ("plain", "avx2", "avx512"), "aarch64": ("plain",)}

pytest.importorskip("setuptools", minversion="77", reason="older ones do not read this project's pyproject.toml")
needs_compiler = pytest.mark.skipif(
    COMPILER is None or platform.machine() not in MACHINES, reason="no C compiler: set CC, or install gcc or clang"
)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the package is built from."""
    copy = tmp_path / "checkout"
    built = shutil.ignore_patterns("__pycache__", "*.so", "*.duckdb_extension", "*.egg-info")
    for name in ("jammi_duck", "storage", "udfs"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=built, symlinks=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy / name)
    return copy


def compiler(folder, *, fails_for="nothing-of-that-name"):
    """A compiler that does not optimise, and does not know some files."""
    script = folder / "compiler"
    script.write_text(
        f'#!/usr/bin/env bash\n[[ "$*" != *{fails_for}* ]] || {{ echo "unknown target" >&2; exit 1; }}\n'
        f'exec "{COMPILER}" "${{@/-O[23]/-O0}}"\n'
    )
    script.chmod(0o755)
    return str(script)


def setup(checkout, *words, **environment):
    """Standard error of a command, which must not fail."""
    known = {name: value for name, value in os.environ.items() if name != "CC"}
    ran = subprocess.run(
        [sys.executable, "setup.py", *words], cwd=checkout, capture_output=True, text=True, env={**known, **environment}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stderr + ran.stdout


def build(checkout, **environment):
    """The package as it is built, and what was said."""
    said = setup(checkout, "build", "--build-lib", "made", **environment)
    return checkout / "made" / "jammi_duck", said


def supported(library):
    """The kernels and precisions that a library can compute here."""
    loaded = ctypes.CDLL(str(library))
    return {(kernels, precision) for kernels in range(3) for precision in range(3)
            if loaded.encoder_supports(kernels, precision)}  # fmt: skip


@needs_compiler
def test_a_wheel_has_both_files_and_the_sources_have_none(checkout, tmp_path):
    (checkout / "jammi_duck" / ENCODER).write_text("of an older build")
    (checkout / EXTENSION).write_text("of an older build")
    setup(checkout, "sdist", "bdist_wheel", CC=compiler(tmp_path))
    (wheel,) = (checkout / "dist").glob("*.whl")
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        for file in (ENCODER, EXTENSION):
            assert archive.read(f"jammi_duck/{file}")[:4] == b"\x7fELF"
    (sources,) = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("udfs/native", "jammi_duck/encoder/native"):
        expected = {str(file.relative_to(checkout)) for file in (checkout / folder).rglob("*.[ch]")}
        assert expected
        assert expected <= names
    assert not [name for name in names if name.endswith((".so", ".duckdb_extension"))]


@needs_compiler
def test_a_compiler_that_does_not_know_some_kernels_leaves_these_out(checkout, tmp_path):
    made, said = build(checkout, CC=compiler(tmp_path))
    everything = supported(made / ENCODER)
    assert {(0, 0), (0, 2)} <= everything
    assert "too old" not in said
    made, said = build(checkout, CC=compiler(tmp_path, fails_for="-c*avx512_"))
    # A library is known by its path to the process that has loaded it.
    shutil.copy(made / ENCODER, tmp_path / "without.so")
    assert supported(tmp_path / "without.so") == {pair for pair in everything if pair[0] != 2}
    for name in ("float32", "bfloat16", "int8", "int8_bfloat16"):
        assert f"too old for jammi_duck/encoder/native/kernels/avx512_{name}.c" in said


@needs_compiler
@pytest.mark.parametrize("lost", ["-c*plain_int8.c", "-shared*.o"])
def test_without_a_file_that_all_need_there_is_no_library(checkout, tmp_path, lost):
    made, said = build(checkout, CC=compiler(tmp_path, fails_for=lost))
    assert not (made / ENCODER).exists()
    assert (made / EXTENSION).exists()
    assert "the C compiler failed: local models will be computed by torch" in said


@pytest.mark.parametrize("which", ["false", "/nowhere/cc"])
def test_a_compiler_that_fails_costs_no_more_than_what_it_would_make(checkout, which):
    (checkout / "jammi_duck" / ENCODER).write_text("of an older build")
    made, said = build(checkout, CC=which)
    assert not (made / ENCODER).exists()
    assert not (made / EXTENSION).exists()
    assert (made / "encoder" / "native" / "library.py").exists()
    assert "the C compiler failed: local models will be computed by torch" in said
    assert "the C compiler failed: `jammi-duck shell` will not work" in said


def test_without_a_compiler(checkout, tmp_path):
    made, said = build(checkout, PATH=str(tmp_path))
    assert not (made / ENCODER).exists()
    assert not (made / EXTENSION).exists()
    assert "no C compiler, or another system than Linux on x86_64 or aarch64: local models" in said
    assert "no C compiler, or another system than Linux on x86_64 or aarch64: `jammi-duck shell`" in said
