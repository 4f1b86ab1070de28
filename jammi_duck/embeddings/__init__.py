"""Functions that make vectors, and tables in Python that call them.

`get_registry().get(id).create(...)` gives a function, and `register(id)` adds one of your own. `connect(folder)` opens
tables whose rows are embedded as they are added; it needs pydantic: `pip install 'jammi-duck[tables]'`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from jammi_duck.encoder.functions import EmbeddingFunction, TextEmbeddingFunction
from jammi_duck.encoder.registry import Registry, get_registry, register

if TYPE_CHECKING:
    from jammi_duck.embeddings.schema import LanceModel, Model, Vector
    from jammi_duck.embeddings.tables import connect

_IN = {"connect": "tables", "Model": "schema", "LanceModel": "schema", "Vector": "schema"}

__all__ = [
    "EmbeddingFunction",
    "LanceModel",
    "Model",
    "Registry",
    "TextEmbeddingFunction",
    "Vector",
    "connect",
    "get_registry",
    "register",
]


def __getattr__(name: str) -> object:
    """What needs pydantic, which is imported when it is asked for."""
    if name not in _IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_IN[name]}"), name)
