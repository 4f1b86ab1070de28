"""Embed, store and search text in DuckDB: `install(con)`, then plain SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jammi_duck.errors import (
    BuildError,
    ConfigError,
    DamagedError,
    DeniedError,
    EncodingError,
    InputError,
    JammiError,
    JammiWarning,
    ModelError,
    NoModelError,
    NoSourceError,
    NotFoundError,
    StateError,
    StorageError,
    UnsupportedError,
)
from jammi_duck.version import __version__

if TYPE_CHECKING:
    from jammi_duck.doors.installation import connect, install
    from jammi_duck.jammi import Jammi

__all__ = [
    "BuildError",
    "ConfigError",
    "DamagedError",
    "DeniedError",
    "EncodingError",
    "InputError",
    "Jammi",
    "JammiError",
    "JammiWarning",
    "ModelError",
    "NoModelError",
    "NoSourceError",
    "NotFoundError",
    "StateError",
    "StorageError",
    "UnsupportedError",
    "__version__",
    "connect",
    "install",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as Python asks a module for what it does not have
    """DuckDB and Arrow are imported with the first of these: not every program that imports a part needs them."""
    if name not in ("Jammi", "connect", "install"):
        raise AttributeError(f"module 'jammi_duck' has no attribute '{name}'")
    from jammi_duck.doors import installation

    return getattr(installation, name)
