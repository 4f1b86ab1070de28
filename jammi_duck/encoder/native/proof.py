"""Whether a model can do with 8 bits: its vectors of built-in texts in int8, beside those in float32.

For a large model this takes seconds, so what comes of it is kept in the cache, for as long as the model's files, the
library and the CPU's kernels are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jammi_duck.config.cache import default_cache_dir
from jammi_duck.encoder.description import ModelDescription, TransformerDescription
from jammi_duck.encoder.model_files import state
from jammi_duck.encoder.native.int8_texts import TEXTS
from jammi_duck.encoder.native.library import FILE, kernels, supports
from jammi_duck.encoder.native.mapped_weights import Floats
from jammi_duck.regular_files import read_regular
from jammi_duck.version import __version__

# The cosine to float32 that each of the texts must keep, and all on average.
LEAST_COSINE = 0.99
LEAST_MEAN = 0.995
_MOST_BYTES = 1000


@dataclass(frozen=True)
class Proof:
    """The lowest and the mean cosine of vectors in int8 to those in float32; NaN if either are no numbers."""

    lowest: float
    mean: float

    @property
    def holds(self) -> bool:
        """Whether the model may be computed in int8."""
        return self.lowest >= LEAST_COSINE and self.mean >= LEAST_MEAN


def proof(description: TransformerDescription, compare: Callable[[], tuple[Floats, Floats]]) -> Proof:
    """What is kept of a model; otherwise of its vectors in int8 and float32, rows of length 1, by `compare`."""
    file = default_cache_dir() / "int8" / _key(description)
    kept = _read(file)
    if kept is None:
        found, exact = compare()
        cosines = np.add.reduce(found.astype(np.float64) * exact, axis=1)
        none = Proof(math.nan, math.nan)
        kept = Proof(float(cosines.min()), float(cosines.mean())) if len(cosines) else none
        # Where nothing can be kept, as without a home, the next process compares again.
        if file.is_absolute():
            with contextlib.suppress(OSError):
                _write(file, kept)
    return kept


def _key(description: TransformerDescription) -> str:
    modules = description.modules if isinstance(description, ModelDescription) else ()
    files = [state(folder) for folder in (description.path, *(module.path for module in modules)) if folder.is_dir()]
    built = os.stat(FILE)
    facts = (__version__, built.st_size, built.st_mtime_ns, kernels(), supports("bfloat16"), TEXTS, description, files)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _read(file: Path) -> Proof | None:
    try:
        made = Proof(**json.loads(read_regular(file, _MOST_BYTES)))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    are_cosines = all(isinstance(each, float) and abs(each) < 1.001 for each in (made.lowest, made.mean))
    return made if are_cosines else None


def _write(file: Path, made: Proof) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        unfinished.write_text(json.dumps(asdict(made)))
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
