"""open_clip in an environment of its own, to compare with: python -m tools.open_clip makes it (5.6 GB).

It needs torchvision, which PyPI has for torch's CUDA build only, and that does not import beside the CPU build. Models
have random weights, in files that open_clip itself has written; `vectors` is what it makes of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1] / ".venv-open-clip"
REQUIREMENTS = ("torch==2.14.1", "torchvision==0.29.1", "open_clip_torch==3.3.0")
_PYTHON = FOLDER / "bin" / "python"
_STAMP = FOLDER / "installed"
_SCRIPT = Path(__file__).with_name("open_clip_vectors.py")


def is_there() -> bool:
    """Whether the environment is made."""
    return _STAMP.is_file()


def main() -> None:
    """Make the environment, unless it is there."""
    if is_there():
        return
    venv.create(FOLDER, with_pip=True)
    subprocess.run(
        [str(_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS], check=True
    )
    _STAMP.touch()


def merges() -> Path:
    """The list of merges of OpenAI's tokenizer, which open_clip brings along."""
    (found,) = FOLDER.glob("lib/*/site-packages/open_clip/bpe_simple_vocab_16e6.txt.gz")
    return found


def make_model(architecture: str, folder: Path) -> None:
    """Write a model of one of open_clip's architectures, with random weights."""
    _run("make", architecture, str(folder))


def vectors(folder: Path, texts: Sequence[str], pictures: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """What open_clip makes of texts and pictures: arrays `texts`, `pictures`, `pixels`, and `ids` of the tokens."""
    with tempfile.TemporaryDirectory() as place:
        given = Path(place)
        (given / "texts.json").write_text(json.dumps(list(texts)))
        for number, content in enumerate(pictures):
            (given / f"{number:04}.picture").write_bytes(content)
        _run("encode", str(folder), place)
        with np.load(given / "made.npz") as made:
            return dict(made)


def _run(*arguments: str) -> None:
    done = subprocess.run([str(_PYTHON), "-P", str(_SCRIPT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])


if __name__ == "__main__":
    main(*sys.argv[1:])
