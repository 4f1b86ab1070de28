"""ONNX Runtime held to AVX2, as on a CPU without AVX-512: it has no option for that.

It asks the CPU (`cpuid`) for its instructions, and the operating system (`xgetbv`) for the registers that it saves. In
a copy of its library, this answer is always the one of a system that saves those of AVX, and no larger ones.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

# `xgetbv`, where register 0 is asked for right before, or the bits of AVX are tested soon after; not within another
# instruction, whose constant is the first byte.
_ASKED = re.compile(rb"(?<=\x31\xc9)\x0f\x01\xd0|(?<!\x83.)\x0f\x01\xd0(?=.{8,24}\xa8\x06)", re.DOTALL)
# `push 7; pop rax`: those of x87, SSE and AVX.
_ANSWER = b"\x6a\x07\x58"
_LIBRARY = "onnxruntime_pybind11_state*.so"


def onnxruntime_of_avx2() -> ModuleType:
    """The package onnxruntime, held to AVX2. A process that has imported it as it comes cannot have it.

    Raises:
        ImportError: it is not installed, or cannot be held.
    """
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        raise ImportError("No module named 'onnxruntime'")
    if "onnxruntime" in sys.modules:
        raise ImportError("onnxruntime is already there, as it comes")
    sys.path.insert(0, str(_held(Path(found.origin).parent)))
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def _held(package: Path) -> Path:
    """The folder with the copy; made once, in the temporary folder."""
    library = next(package.glob(f"capi/{_LIBRARY}"))
    folder = Path(tempfile.gettempdir(), "jammi-duck-benchmark", f"onnxruntime-avx2-{library.stat().st_mtime_ns}")
    if folder.exists():
        return folder
    held, count = _ASKED.subn(_ANSWER, library.read_bytes())
    if not count:
        raise ImportError("onnxruntime cannot be held to AVX2: its library does not ask for the registers as it did")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(package, unfinished / "onnxruntime", ignore=shutil.ignore_patterns("libonnxruntime.so*"))
    (unfinished / "onnxruntime" / "capi" / library.name).write_bytes(held)
    os.rename(unfinished, folder)
    return folder
