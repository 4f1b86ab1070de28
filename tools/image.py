"""Builds and runs the image of the Dockerfile without a container engine, by namespaces of Linux; needs root.

    python -m tools.image build FOLDER [--arg NAME=VALUE]
    python -m tools.image run --volume FOLDER [--bind SOURCE:TARGET] [--env NAME=VALUE] FOLDER [ARGUMENTS]

The steps run on overlays over this machine's own system and its Python, in place of python:slim. The finished root has
nothing of the machine but that Python, a shell, and the libraries that its programs are linked to. `run` gives a
container its own processes, network and mounts, and a root that cannot be written to.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIG, ROOT = "config.json", "rootfs"
# What the steps see of this machine, through an overlay; other folders at the top are the stage's own.
_SYSTEM = ("bin", "etc", "lib", "lib32", "lib64", "libx32", "opt", "root", "sbin", "srv", "usr", "var")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEFT_OUT = ("site-packages", "dist-packages", "test", "__pycache__", "config-*")
_NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child=SIGKILL")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


@dataclass(frozen=True)
class Instruction:
    """A line of a Dockerfile: `RUN`, its options such as `--mount=…`, and the rest."""

    name: str
    options: tuple[str, ...]
    rest: str


def read_dockerfile(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments and with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        options = []
        while match := re.match(r"(--[a-z-]+=\S+)\s+", rest):
            options.append(match[1])
            rest = rest[match.end() :]
        found.append(Instruction(name.upper(), tuple(options), rest.strip()))
    return found


def is_in_context(path: str, patterns: Iterable[str]) -> bool:
    """Whether `.dockerignore` leaves a file in: the last pattern that fits it, or a folder above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    is_in = True
    for line in patterns:
        pattern = line.removeprefix("!").removeprefix("**/")
        names = parts if line.removeprefix("!").startswith("**/") else above
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            is_in = line.startswith("!")
    return is_in


@dataclass
class Stage:
    """A stage: what it has written so far, below `folder`, and its configuration."""

    folder: Path
    parent: Stage | None
    variables: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    workdir: str = "/"

    @property
    def layers(self) -> list[Path]:
        """Its folder and those of the stages that it stands on, the nearest first."""
        return [self.folder, *(self.parent.layers if self.parent else [])]

    def written(self, path: str) -> Path:
        """Where a path of the stage lies on this machine, if the stage itself has written it."""
        return self.folder / "written" / path.strip("/")

    def sources(self, path: str) -> list[Path]:
        """Where a path lies in the layers, the lowest first."""
        places = [layer / "written" / path.strip("/") for layer in reversed(self.layers)]
        return [place for place in places if place.exists()]

    def filled(self, text: str) -> str:
        """A text with the stage's variables in it."""
        return _VARIABLE.sub(lambda match: self.variables.get(match[1] or match[2], ""), text)


class Build:
    """One run over the Dockerfile, into a folder."""

    def __init__(self, folder: Path, arguments: dict[str, str]) -> None:
        """Raises FileExistsError where there is something in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        if folder.resolve().parts[1] in _SYSTEM:
            raise ValueError(f"{folder} lies in a folder of the system; choose another, such as one in /tmp")
        self._folder = folder.resolve()
        self._arguments = arguments
        self._globals: dict[str, str] = {}
        self._stages: dict[str, Stage] = {}
        self._base = self._folder / "base"
        _copy_python(self._base / "written/usr/local")

    def run(self) -> None:
        """Carry out all instructions, and put the last stage's root together."""
        stage: Stage | None = None
        for each in read_dockerfile((CHECKOUT / "Dockerfile").read_text()):
            if each.name == "FROM":
                stage = self._begin(each.rest)
            elif stage is None:
                self._globals.update([self._argument(each.rest)])
            else:
                getattr(self, f"_{each.name.lower()}")(stage, each)
        assert stage is not None
        self._finish(stage)

    def _argument(self, text: str) -> tuple[str, str]:
        name, _, default = text.partition("=")
        return name, self._arguments.get(name, default)

    def _begin(self, text: str) -> Stage:
        source, _, name = re.sub(r"\s+[Aa][Ss]\s+", "\0", text).partition("\0")
        parent = self._stages.get(source)
        stage = Stage(self._folder / f"stage{len(self._stages)}", parent or Stage(self._base, None))
        stage.variables = dict(parent.variables) if parent else {"PATH": _PATH}
        stage.workdir = parent.workdir if parent else "/"
        self._stages[name or str(len(self._stages))] = stage
        return stage

    def _arg(self, stage: Stage, each: Instruction) -> None:
        name, value = self._argument(each.rest)
        stage.variables[name] = value

    def _env(self, stage: Stage, each: Instruction) -> None:
        for pair in shlex.split(each.rest):
            name, _, value = pair.partition("=")
            stage.variables[name] = stage.filled(value)
            stage.config.setdefault("Env", {})[name] = stage.variables[name]

    def _workdir(self, stage: Stage, each: Instruction) -> None:
        stage.workdir = stage.config["WorkingDir"] = each.rest
        if not stage.sources(each.rest):
            stage.written(each.rest).mkdir(parents=True)

    def _copy(self, stage: Stage, each: Instruction) -> None:
        *sources, target = each.rest.split()
        goal = stage.written(os.path.join(stage.workdir, target))
        goal.mkdir(parents=True, exist_ok=True)
        if each.options:
            other = self._stages[each.options[0].removeprefix("--from=")]
            for layer in (layer for source in sources for layer in other.sources(source)):
                subprocess.run(["cp", "--archive", f"{layer}/.", goal], check=True)
            return
        for path in _context():
            for source in sources:
                if source == "." or path == source:
                    (goal / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(CHECKOUT / path, goal / path)

    def _run(self, stage: Stage, each: Instruction) -> None:
        for top in _tops():
            for kind in ("written", "work", "root"):
                (stage.folder / kind / top).mkdir(parents=True, exist_ok=True)
        mounts = []
        for top in _tops():
            lower = [str(layer / "written" / top) for layer in stage.layers[1:]]
            lower = [*filter(os.path.isdir, lower), f"/{top}"]
            upper, work = stage.folder / "written" / top, stage.folder / "work" / top
            where = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
            mounts.append(["mount", "-t", "overlay", "overlay", "-o", where, str(stage.folder / "root" / top)])
        for option in each.options:
            target = option.partition("target=")[2]
            cache = self._folder / "caches" / target.strip("/").replace("/", "-")
            cache.mkdir(parents=True, exist_ok=True)
            inside = stage.folder / "root" / target.strip("/")
            mounts += [["mkdir", "-p", str(inside)], ["mount", "--bind", str(cache), str(inside)]]
        # What is not the system's is the stage's own; a later stage may stand on it.
        own = _own_tops(stage)
        for top in own:
            (stage.folder / "root" / top).mkdir(exist_ok=True)
            for layer in reversed(stage.layers[1:]):
                if (layer / "written" / top).is_dir():
                    subprocess.run(
                        ["cp", "--archive", "--update", f"{layer}/written/{top}/.", stage.written(top)], check=True
                    )
            mounts.append(["mount", "--bind", str(stage.written(top)), str(stage.folder / "root" / top)])
        for top in ("proc", "sys", "dev", "run"):
            (stage.folder / "root" / top).mkdir(exist_ok=True)
            mounts.append(["mount", "--rbind", f"/{top}", str(stage.folder / "root" / top)])
        (stage.folder / "root" / "tmp").mkdir(exist_ok=True)
        mounts.append(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(stage.folder / "root" / "tmp")])
        for link in Path("/").iterdir():
            if link.is_symlink() and link.name in _SYSTEM and not (stage.folder / "root" / link.name).is_symlink():
                (stage.folder / "root" / link.name).symlink_to(os.readlink(link))
        passed = {name: text for name, text in os.environ.items() if re.match(r"PIP_|.*_PROXY$|SSL_CERT", name, re.I)}
        script = "set -e\n" + "\n".join(map(shlex.join, mounts)) + '\nexec chroot "$0" /bin/sh -c "cd $1 && $2"'
        sys.stderr.write(f"RUN {each.rest}\n")
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, stage.folder / "root", shlex.quote(stage.workdir), each.rest],
            check=True,
            env={**passed, "HOME": "/root", **stage.variables},
        )
        # A folder at the top that the step has made.
        for made in (stage.folder / "root").iterdir():
            if made.name not in {*_SYSTEM, *own, "proc", "sys", "dev", "run", "tmp"}:
                subprocess.run(["cp", "--archive", made, stage.folder / "written"], check=True)

    def _volume(self, stage: Stage, each: Instruction) -> None:
        stage.config["Volumes"] = each.rest.split()

    def _user(self, stage: Stage, each: Instruction) -> None:
        stage.config["User"] = each.rest

    def _expose(self, stage: Stage, each: Instruction) -> None:
        stage.config["ExposedPorts"] = each.rest.split()

    def _healthcheck(self, stage: Stage, each: Instruction) -> None:
        stage.config["Healthcheck"] = json.loads(each.rest.removeprefix("CMD"))

    def _entrypoint(self, stage: Stage, each: Instruction) -> None:
        stage.config["Entrypoint"] = json.loads(each.rest)

    def _finish(self, stage: Stage) -> None:
        root = self._folder / ROOT
        for layer in (self._base, stage.folder):
            subprocess.run(["cp", "--archive", f"{layer}/written/.", root], check=True)
        for top in ("proc", "sys", "dev", "tmp"):
            (root / top).mkdir(exist_ok=True)
        for name in ("shadow", "gshadow", "passwd-", "group-", "shadow-", "gshadow-"):
            (root / "etc" / name).unlink(missing_ok=True)
        for link in Path("/").iterdir():
            if link.is_symlink() and link.name in _SYSTEM:
                (root / link.name).rmdir() if (root / link.name).is_dir() else None
                (root / link.name).symlink_to(os.readlink(link))
        (root / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath("/bin/sh"), root / "usr/bin/sh")
        needed = {Path(path).name for path in _linked(root / "opt") if _is_outside(path, root)}
        stage.config["Libraries"] = sorted(needed)
        for path in _linked(root):
            if _is_outside(path, root):
                goal = root / os.path.realpath(os.path.dirname(path)).lstrip("/") / os.path.basename(path)
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, goal)
        (self._folder / CONFIG).write_text(json.dumps(stage.config, indent=2) + "\n")
        for name in ("caches", *(each.folder.name for each in self._stages.values())):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        shutil.rmtree(self._base)


def _copy_python(goal: Path) -> None:
    """Copy this machine's Python, without what was installed with it, to where python:slim has it."""
    library = Path(os.__file__).parent
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (goal / "bin").mkdir(parents=True)
    # A link from a virtual environment leads to the program itself.
    shutil.copy2(os.path.realpath(sys.executable), goal / "bin" / name)
    for link in ("python", "python3"):
        (goal / "bin" / link).symlink_to(name)
    shutil.copytree(library, goal / "lib" / name, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    (goal / "lib" / name / "site-packages").mkdir()


def _context() -> Iterator[str]:
    """The files of the checkout that `.dockerignore` leaves in."""
    patterns = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for top in sorted(CHECKOUT.iterdir()):
        if is_in_context(top.name, patterns):
            for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
                name = str(path.relative_to(CHECKOUT))
                if path.is_file() and is_in_context(name, patterns):
                    yield name


def _tops() -> list[str]:
    return [top for top in _SYSTEM if os.path.isdir(f"/{top}") and not os.path.islink(f"/{top}")]


def _own_tops(stage: Stage) -> list[str]:
    found = {path.name for layer in stage.layers for path in (layer / "written").glob("*") if path.is_dir()}
    for name in found - set(_SYSTEM):
        stage.written(name).mkdir(parents=True, exist_ok=True)
    return sorted(found - set(_SYSTEM))


def _is_outside(path: str, root: Path) -> bool:
    return not os.path.abspath(path).startswith(f"{root}/")


def _linked(folder: Path) -> set[str]:
    """The libraries that programs and libraries in a folder are linked to, wherever they are."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (".so" in path.name or os.access(path, os.X_OK)):
            with path.open("rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
            told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
            found.update(_LIBRARY.findall(told))
    return found


def start(options: argparse.Namespace) -> None:
    """Become a container: new namespaces, and then `_enter` in them."""
    command = ["unshare", *_NAMESPACES, sys.executable, "-m", "tools.image", "enter", *sys.argv[2:]]
    os.execvp(command[0], command)


def enter(options: argparse.Namespace) -> None:
    """Within the namespaces: mount, change the root, become the image's user, and start its program."""
    root = Path(options.folder).resolve() / ROOT
    config = json.loads((root.parent / CONFIG).read_text())
    binds = [(source, target) for source, _, target in (text.partition(":") for text in options.bind)]
    for target in config["Volumes"]:
        (root / target.strip("/")).mkdir(parents=True, exist_ok=True)
    for source, target in binds:
        # As a container engine does: what is mounted over is made in the image.
        goal = root / target.strip("/")
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.mkdir(exist_ok=True) if os.path.isdir(source) else goal.touch()
    _mount("--bind", str(root), str(root))
    _mount("-t", "proc", "proc", str(root / "proc"))
    _mount("--rbind", "/sys", str(root / "sys"))
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp"))
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    (root / "dev" / "shm").mkdir()
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "dev" / "shm"))
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    for source, target in binds:
        _mount("--bind", source, str(root / target.strip("/")))
        _mount("-o", "remount,bind,ro", str(root / target.strip("/")))
    for target in config["Volumes"]:
        _mount("--bind", options.volume, str(root / target.strip("/")))
    _mount("-o", "remount,bind,ro", str(root))
    _bring_loopback_up()
    user, _, group = config["User"].partition(":")
    os.chroot(root)
    os.chdir(config["WorkingDir"])
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
    os.umask(0o022)
    # The change of user has undone what --kill-child asked for.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    environment = {**config["Env"], **dict(text.split("=", 1) for text in options.env)}
    command = [options.entrypoint] if options.entrypoint else config["Entrypoint"]
    os.execvpe(command[0], [*command, *options.arguments], environment)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _build(options: argparse.Namespace) -> None:
    Build(Path(options.folder), dict(text.split("=", 1) for text in options.arg)).run()


def main() -> None:
    """The commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="build the image into an empty folder")
    build.add_argument("folder")
    build.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="an ARG of the Dockerfile")
    build.set_defaults(command=_build)
    for name, command in (("run", start), ("enter", enter)):
        run = commands.add_parser(name, help="run it in namespaces of its own")
        run.add_argument("folder")
        run.add_argument("--volume", required=True, help="the folder for the image's volume; it belongs to its user")
        run.add_argument("--bind", action="append", default=[], metavar="SOURCE:TARGET", help="what it reads besides")
        run.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
        run.add_argument("--entrypoint", help="another program than the image's")
        run.add_argument("arguments", nargs=argparse.REMAINDER)
        run.set_defaults(command=command)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
