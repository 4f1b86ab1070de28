"""The models that a server's clients may use: those that are here, by their names, and no path or download."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from jammi_duck.doors.server.admission import Cores
from jammi_duck.encoder import Encoder, Encoders, Reranker
from jammi_duck.encoder.listing import ModelRow
from jammi_duck.errors import DeniedError
from jammi_duck.types import Definition


class ModelDeniedError(DeniedError):
    """The server has no such model, or it is not for clients."""


class ServedEncoders(Encoders):
    """Finds the models of a server, and notes how long they take."""

    def __init__(
        self,
        inner: Encoders,
        default: str,
        known: Iterable[str],
        observe: Callable[[float], None],
        cores: Cores,
    ) -> None:
        """`default` and `known` may be used whatever their names are; `observe` gets the seconds of each encoding.

        While one is encoded, the caller leaves its core to others.
        """
        self._inner = inner
        self._default = default
        self._known = {default, *known}
        self._observe = observe
        self._cores = cores

    def get(self, name: str) -> Encoder:
        """See `Encoders.get`. Raises ModelDeniedError for a model that is not here, or a path."""
        self._refuse_others(name)
        return self._timed(self._inner.get(name))

    def recorded(self, definition: Definition) -> Encoder:
        """See `Encoders.recorded`."""
        return self._timed(self._inner.recorded(definition))

    def reranker(self, name: str) -> Reranker:
        """See `Encoders.reranker`. Raises ModelDeniedError for a model that is not here, or a path."""
        self._refuse_others(name)
        return self._inner.reranker(name)

    def takes_images(self, name: str) -> bool:
        """See `Encoders.takes_images`. Raises ModelDeniedError for a model that is not here, or a path."""
        self._refuse_others(name)
        return self._inner.takes_images(name)

    def weights_and_pooling(self, name: str) -> tuple[str, str] | None:
        """See `Encoders.weights_and_pooling`."""
        return self._inner.weights_and_pooling(name)

    def names(self, name: str) -> set[str]:
        """See `Encoders.names`."""
        return self._inner.names(name)

    def available(self, default: str) -> list[ModelRow]:
        """See `Encoders.available`. A provider costs money, so clients have only those that they were given."""
        rows = self._inner.available(default)
        return [row for row in rows if row.origin not in ("provider", "python") or row.name in self._known]

    def use_secrets(self, find: Callable[[str], str | None]) -> None:
        """See `Encoders.use_secrets`."""
        self._inner.use_secrets(find)

    def _refuse_others(self, name: str) -> None:
        if name in self._known:
            return
        is_path = os.path.isabs(name) or name.startswith((".", "~"))
        if not is_path and any(
            name in (row.name, row.name.rpartition("/")[2]) for row in self.available(self._default)
        ):
            self._known.add(name)
            return
        raise ModelDeniedError(
            f"this server has no model '{name}'; SELECT * FROM jammi_models() lists those it has, and [server] "
            "preload_models adds to them"
        )

    def _timed(self, encoder: Encoder) -> Encoder:
        return cast(Encoder, _Timed(encoder, self._observe, self._cores))


class _Timed:
    """An encoder that tells how long each encoding took; in all else the one that it stands for."""

    def __init__(self, inner: Encoder, observe: Callable[[float], None], cores: Cores) -> None:
        self._inner = inner
        self._observe = observe
        self._cores = cores

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._inner, name)

    def encode(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        began = time.perf_counter()
        try:
            with self._cores.left_to_others():
                return self._inner.encode(*arguments, **named)
        finally:
            self._observe(time.perf_counter() - began)
