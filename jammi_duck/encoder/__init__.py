"""Text to vectors. Knows neither DuckDB nor files of ours.

`LoadedEncoders(...).get(name)` finds a model by name, loads it once per process, and gives an `Encoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from jammi_duck.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jammi_duck.encoder.description import ModelDescription
    from jammi_duck.encoder.listing import Listed
    from jammi_duck.types import Vectors


@dataclass
class TokenBudget:
    """How many tokens, padding included, one forward pass may hold.

    A stream of texts keeps one budget: what running out of memory has taken from it stays taken.
    """

    tokens: int
    halvings_left: int = 3


@dataclass(frozen=True)
class Encodings:
    """What became of n texts, in their order.

    `vectors` is float32 [n, dimensions], L2-normalised, zeros where `failed`; `truncated` marks texts that were longer
    than the model reads; `failed` marks texts that did not fit into memory even alone, or whose numbers overflowed.
    """

    vectors: Vectors
    truncated: NDArray[np.bool_]
    failed: NDArray[np.bool_]


class Encoder(Protocol):
    """A loaded model. Threads may share it."""

    description: ModelDescription

    def encode(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """The L2-normalised vectors of texts, float32 [n, dimensions], in their order.

        Raises:
            EncodingError: a text did not fit into memory even alone.
        """
        ...

    def encode_rows(
        self, texts: Sequence[str], role: Role, budget: TokenBudget, progress: Callable[[int], None]
    ) -> Encodings:
        """As `encode`, saying for each text what became of it.

        `progress` is told after each forward pass how many more texts are done (equal texts count as one), and ends
        the work by raising.
        """
        ...

    def budget(self) -> TokenBudget:
        """A new budget for a stream of texts."""
        ...


class Encoders(Protocol):
    """Where encoders are had by name. `loaded.LoadedEncoders` is the real one."""

    def get(self, name: str) -> Encoder:
        """The encoder of a model.

        Raises:
            ModelError: the model cannot be found, or cannot be loaded.
        """
        ...

    def names(self, name: str) -> set[str]:
        """What a model may be called in an embedding table, if a user calls it `name`."""
        ...

    def available(self, default: str) -> list[Listed]:
        """The models that can be had without a download, by name; `default` is one of them where it is a directory."""
        ...
