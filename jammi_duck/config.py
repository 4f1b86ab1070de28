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


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/jammi_duck`, or `~/.cache/jammi_duck`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jammi_duck"


@dataclass(frozen=True)
class Config:
    """What `install` was told.

    `storage` is a local path or an fsspec URL. `segment_rows` is how many rows go to one Parquet file.
    `retention` is how long `jammi_vacuum()` spares files that nothing names. `batch_size` is the number of
    texts of full length that one forward pass may hold. `storage_options` go to fsspec as they are, and are
    written nowhere.
    """

    storage: str = "./artifacts"
    model: str = DEFAULT_MODEL
    segment_rows: int = 500_000
    retention: timedelta = timedelta(days=7)
    cache_dir: Path = field(default_factory=default_cache_dir)
    batch_size: int = 32
    max_loaded_models: int = 3
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: naming the option, its value, and what it may be.
        """
        for name in ("segment_rows", "batch_size", "max_loaded_models"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name in ("storage", "model"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{name} is {value!r}; it must be a text that is not empty")
        if not isinstance(self.retention, timedelta) or self.retention < timedelta(0):
            raise ConfigError(f"retention is {self.retention!r}; it must be a timedelta of at least 0")
