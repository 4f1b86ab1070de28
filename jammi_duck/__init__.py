"""Embed, store and search text in DuckDB: `install(con)`, then plain SQL."""

from __future__ import annotations

from jammi_duck.errors import (
    BuildError,
    ConfigError,
    DamagedError,
    EncodingError,
    InputError,
    JammiError,
    JammiWarning,
    ModelError,
    NotFoundError,
    StateError,
    StorageError,
)
from jammi_duck.install import Jammi, connect, install
from jammi_duck.version import __version__

__all__ = [
    "BuildError",
    "ConfigError",
    "DamagedError",
    "EncodingError",
    "InputError",
    "Jammi",
    "JammiError",
    "JammiWarning",
    "ModelError",
    "NotFoundError",
    "StateError",
    "StorageError",
    "__version__",
    "connect",
    "install",
]
