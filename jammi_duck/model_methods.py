"""Models of the user's own, as methods for Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jammi_duck.udfs.arguments import plain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ModelMethods:
    """The method of `Jammi` that adds a model."""

    def register_model(
        self,
        name: str,
        function: Callable[[list[str]], Iterable[list[float] | NDArray[np.float32] | None] | NDArray[Any]],
        dimensions: int,
    ) -> None:
        """Let a function of yours be a model, by its name, in this process: `embed(text, 'name')`, `model := 'name'`.

        Vectors are brought to the length 1. If the function raises, its texts are tried again, in smaller groups, until
        the ones are found that it raises for. It is called by one thread at a time. Another process that searches what
        it has embedded has to register it, too: see docs/providers.md.

        Args:
            name: a letter, and then letters, digits, '.', '_' and '-'. A model of this name that was registered before
                is replaced.
            function: takes a list of texts (str), and gives as many vectors, in their order: lists of numbers, or an
                array of the shape [texts, dimensions]. None stands for a text without a vector.
            dimensions: how many numbers a vector has, from 1 to 65,536.

        Raises:
            InputError: one of them cannot be what it is.

        Example:
            >>> jammi.register_model("lengths", lambda texts: [[1.0, len(text)] for text in texts], 2)
            >>> jammi.embed("four", "lengths").round(2).tolist()
            [0.24, 0.97]
        """
        # Imported late, since most users register nothing.
        from jammi_duck.encoder.registry import get_registry

        get_registry().register_function(name, function, plain(dimensions))
