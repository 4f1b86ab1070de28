"""Finds the packages, and builds the extension for the DuckDB shell; everything else stands in pyproject.toml."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

# What stands at the top of the checkout, and is a room of the package.
TOP = ("storage", "udfs")
SOURCES = Path("udfs", "native")
EXTENSION = "jammi.duckdb_extension"
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread")
API_VERSION = "v1.2.0"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class BuildExtension(Command):
    """Compiles udfs/native, and appends what DuckDB wants to know before it loads a file."""

    def initialize_options(self) -> None:
        """As setuptools asks for it."""
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """As setuptools asks for it."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Build the file; where that cannot be, say so, and go on without it."""
        target = Path(self._target())
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
        machine = MACHINES.get(platform.machine())
        if sys.platform != "linux" or machine is None or compiler is None:
            self.warn("no C compiler, or another system than Linux: `jammi-duck shell` will not work")
            return
        command = [*compiler.split(), *FLAGS, "-o", str(target), *sorted(map(str, SOURCES.glob("*.c")))]
        if subprocess.run(command, check=False).returncode:
            target.unlink(missing_ok=True)
            self.warn("the C compiler failed: `jammi-duck shell` will not work")
            return
        with target.open("ab") as file:
            file.write(footer(f"linux_{machine}"))

    def _target(self) -> str:
        if self.editable_mode or self.build_lib is None:
            return str(SOURCES / EXTENSION)
        return str(Path(self.build_lib, "jammi_duck", SOURCES, EXTENSION))

    def get_source_files(self) -> list[str]:
        """What an archive of the sources must have."""
        return sorted(map(str, SOURCES.glob("*.[ch]")))

    def get_outputs(self) -> list[str]:
        """The file, if it could be built."""
        return [self._target()] if Path(self._target()).exists() else []

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing is copied from elsewhere."""
        return {}


def footer(system: str) -> bytes:
    """What DuckDB reads at the end of an extension: a section as of WebAssembly, eight fields, room for a signature."""
    fields = ("", "", "", "C_STRUCT", "v1", API_VERSION, system, "4")
    return (
        b"\0\x93\x04\x10duckdb_signature\x80\x04" + b"".join(f.encode().ljust(32, b"\0") for f in fields) + bytes(256)
    )


class PlatformWheel(bdist_wheel):
    """A wheel for any Python, of one system: the extension does not know Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """`py3-none-PLATFORM`."""
        self.root_is_pure = False
        return ("py3", "none", super().get_tag()[2])


build.sub_commands = [*build.sub_commands, ("build_extension", None)]
rooms = find_packages(include=["jammi_duck", "jammi_duck.*"], exclude=[f"jammi_duck.{room}*" for room in TOP])
rooms += [f"jammi_duck.{room}" for room in find_packages(include=[f"{top}*" for top in TOP])]
setup(
    packages=rooms,
    package_dir={f"jammi_duck.{room}": room for room in TOP},
    cmdclass={"build_extension": BuildExtension, "bdist_wheel": PlatformWheel},
)
