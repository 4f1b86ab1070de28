"""Detects modules of this package that were loaded again, as notebooks do, so that their classes no longer fit."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "jammi_duck"

# The spec of each module, which a reload replaces; and the number of all loaded modules.
_specs: dict[str, ModuleSpec | None] = globals().get("_specs", {})
_seen: list[int] = globals().get("_seen", [0])


def note_loaded() -> None:
    """Note the spec of each module, if there are new ones."""
    if len(sys.modules) != _seen[0]:
        _seen[0] = len(sys.modules)
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{_PACKAGE}."):
                _specs.setdefault(name, module.__spec__)


def reloaded() -> str | None:
    """The name of a module that was loaded again since it was noted; None if there is none."""
    note_loaded()
    for name, spec in _specs.items():
        known: Any = sys.modules.get(name)
        if known is not None and known.__spec__ is not spec:
            return name
    return None


def load_anew(name: str) -> ModuleType:
    """Load all modules again, so that they fit each other; returns the one of this name."""
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(f"{_PACKAGE}.")]:
        del sys.modules[loaded]
    importlib.reload(sys.modules[_PACKAGE])
    return importlib.import_module(name)
