"""What the scalar functions work with, and what one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from jammi_duck.encoder import Encoders
from jammi_duck.generate import Generator
from jammi_duck.selection import Selections
from jammi_duck.storage.place import Place
from jammi_duck.types import Host


@dataclass(frozen=True)
class Engine:
    """What the functions of one database work with."""

    host: Host
    place: Place
    encoders: Encoders
    generator: Generator
    selections: Selections
    default_model: str


@dataclass(frozen=True)
class ScalarFunction:
    """One SQL function: `call` gets the engine and a column for each parameter, and gives a column of as many rows."""

    name: str
    parameters: tuple[str, ...]
    returns: str
    volatile: bool
    call: Callable[..., pa.Array]
