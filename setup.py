"""Finds the packages, and builds what is written in C; everything else stands in pyproject.toml."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

# What stands at the top of the checkout, and is a room of the package.
TOP = ("storage", "udfs")
API_VERSION = "v1.2.0"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class BuildNative(Command):
    """Compiles the sources in a folder to one file, which lies beside them or at that place of the wheel."""

    folder: ClassVar[Path]
    file: ClassVar[str]
    flags: ClassVar[tuple[str, ...]]
    loss: ClassVar[str]

    def initialize_options(self) -> None:
        """As setuptools asks for it."""
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """As setuptools asks for it."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Build the file; where that cannot be, say so, and go on without it."""
        target = self._target()
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
        if sys.platform != "linux" or platform.machine() not in MACHINES or compiler is None:
            self.warn(f"no C compiler, or another system than Linux on x86_64 or aarch64: {self.loss}")
            target.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, self.file)
            if not self.compile(compiler.split(), made):
                self.warn(f"the C compiler failed: {self.loss}")
                target.unlink(missing_ok=True)
                return
            # In one step, since a process may have the file of before.
            fresh = target.with_name(f"{self.file}.new")
            shutil.copy(made, fresh)
            fresh.replace(target)

    def compile(self, compiler: list[str], target: Path) -> bool:
        """Make the file; False if the compiler cannot. `compiler` is a command and its first arguments."""
        raise NotImplementedError

    def compiled(self, command: list[str]) -> bool:
        """Whether a command of the compiler runs, and well; what it says goes to standard error."""
        try:
            return subprocess.run(command, check=False).returncode == 0
        except OSError as error:
            self.warn(str(error))
            return False

    def sources(self) -> list[Path]:
        """The files that are compiled, each to an object of its own."""
        return sorted(self.folder.rglob("*.c"))

    def _target(self) -> Path:
        if self.editable_mode or self.build_lib is None:
            return self.folder / self.file
        inside = self.folder if self.folder.parts[0] == "jammi_duck" else "jammi_duck" / self.folder
        return self.build_lib / inside / self.file

    def get_source_files(self) -> list[str]:
        """What an archive of the sources must have."""
        return sorted(map(str, self.folder.rglob("*.[ch]")))

    def get_outputs(self) -> list[str]:
        """The file, if it could be built."""
        return [str(self._target())] if self._target().exists() else []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing is copied from elsewhere."""
        return {}


class BuildExtension(BuildNative):
    """The extension for DuckDB's shell: also appends what DuckDB wants to know before it loads a file."""

    folder = Path("udfs", "native")
    file = "jammi.duckdb_extension"
    flags = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread")
    loss = "`jammi-duck shell` will not work"

    def compile(self, compiler: list[str], target: Path) -> bool:
        """All sources at once, and the footer."""
        if not self.compiled([*compiler, *self.flags, "-o", str(target), *map(str, self.sources())]):
            return False
        with target.open("ab") as file:
            file.write(footer(f"linux_{MACHINES[platform.machine()]}"))
        return True


class BuildEncoder(BuildNative):
    """The native engine. Each file in `kernels` is for some CPUs; a compiler that does not know them leaves it out."""

    folder = Path("jammi_duck", "encoder", "native")
    file = "libjammi_encoder.so"
    flags = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-pthread")
    loss = "local models will be computed by torch, which is slower"

    def compile(self, compiler: list[str], target: Path) -> bool:
        """Each source, side by side, then the library of those objects that there are."""
        objects = {source: target.with_name("_".join(source.parts) + ".o") for source in self.sources()}
        commands = ([*compiler, *self.flags, "-c", str(source), "-o", str(made)] for source, made in objects.items())
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            results = dict(zip(objects, threads.map(self.compiled, commands), strict=True))
        missing = [source for source, is_there in results.items() if not is_there]
        if any(self._is_needed(source) for source in missing):
            return False
        for source in missing:
            self.warn(f"the C compiler is too old for {source}: CPUs that could use it will use the next best")
        there = [str(made) for source, made in objects.items() if results[source]]
        return self.compiled([*compiler, "-shared", "-pthread", "-o", str(target), *there])

    def _is_needed(self, source: Path) -> bool:
        return source.parent.name != "kernels" or source.name.startswith("plain_")


def footer(system: str) -> bytes:
    """What DuckDB reads at the end of an extension: a section as of WebAssembly, eight fields, room for a signature."""
    fields = ("", "", "", "C_STRUCT", "v1", API_VERSION, system, "4")
    return (
        b"\0\x93\x04\x10duckdb_signature\x80\x04" + b"".join(f.encode().ljust(32, b"\0") for f in fields) + bytes(256)
    )


class PlatformWheel(bdist_wheel):
    """A wheel for any Python, of one system: what is built here does not know Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """`py3-none-PLATFORM`."""
        self.root_is_pure = False
        return ("py3", "none", super().get_tag()[2])


build.sub_commands = [*build.sub_commands, ("build_extension", None), ("build_encoder", None)]
rooms = find_packages(include=["jammi_duck", "jammi_duck.*"], exclude=[f"jammi_duck.{room}*" for room in TOP])
rooms += [f"jammi_duck.{room}" for room in find_packages(include=[f"{top}*" for top in TOP])]
setup(
    packages=rooms,
    package_dir={f"jammi_duck.{room}": room for room in TOP},
    cmdclass={"build_extension": BuildExtension, "build_encoder": BuildEncoder, "bdist_wheel": PlatformWheel},
)
