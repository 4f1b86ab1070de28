"""The options of one installation, checked before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from jammi_duck.errors import ConfigError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PRECISIONS = ("auto", "float32", "bfloat16")


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jammi_duck`, or `~/.cache/jammi_duck`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jammi_duck"


@dataclass(frozen=True)
class Config:
    """What `install` was told.

    `storage` is a local path or an fsspec URL. `segment_rows` is how many rows go to one Parquet file.
    `retention` is how long `jammi_vacuum()` spares files that nothing names. `batch_size` is the number of
    texts of full length that one forward pass may hold. `precision` is float32, bfloat16, or auto: bfloat16 where the
    hardware computes it natively. `threads` is how many cores models compute on, by default all; `device` is the number
    of a CUDA device, -1 for the CPU, by default the first CUDA device where there is one. `storage_options` go to
    fsspec as they are, and are written nowhere.
    """

    storage: str = "./artifacts"
    model: str = DEFAULT_MODEL
    segment_rows: int = 500_000
    retention: timedelta = timedelta(days=7)
    cache_dir: Path = field(default_factory=default_cache_dir)
    batch_size: int = 32
    max_loaded_models: int = 3
    precision: str = "auto"
    threads: int | None = None
    device: int | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the option, its value, and what it may be.
        """
        least = {"segment_rows": 1, "batch_size": 1, "max_loaded_models": 1, "threads": 1, "device": -1}
        for name, lowest in least.items():
            value = getattr(self, name)
            is_number = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
            if not is_number and not (value is None and name in ("threads", "device")):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {lowest}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}")
        for name in ("storage", "model"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{name} is {value!r}; it must be a text that is not empty")
        if not isinstance(self.retention, timedelta) or self.retention < timedelta(0):
            raise ConfigError(f"retention is {self.retention!r}; it must be a timedelta of at least 0")
