"""Whether a module of this package was loaded again, as notebooks do: then its classes are not those of the others."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "jammi_duck"

# What each module was loaded by, which a reload replaces; and how many modules there were of all kinds.
_specs: dict[str, ModuleSpec | None] = globals().get("_specs", {})
_seen: list[int] = globals().get("_seen", [0])


def note_loaded() -> None:
    """Note what each module was loaded by, if there are new ones."""
    if len(sys.modules) != _seen[0]:
        _seen[0] = len(sys.modules)
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{_PACKAGE}."):
                _specs.setdefault(name, module.__spec__)


def reloaded() -> str | None:
    """The name of a module that was loaded again since it was noted; None if none was."""
    note_loaded()
    for name, spec in _specs.items():
        known: Any = sys.modules.get(name)
        if known is not None and known.__spec__ is not spec:
            return name
    return None


def load_anew(name: str) -> ModuleType:
    """Load all modules again, so that they fit each other; gives the one of this name."""
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(f"{_PACKAGE}.")]:
        del sys.modules[loaded]
    importlib.reload(sys.modules[_PACKAGE])
    return importlib.import_module(name)
