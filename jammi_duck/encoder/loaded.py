"""The models that are loaded in this process, shared by all connections; the least recently used one goes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from jammi_duck.encoder.description import describe
from jammi_duck.encoder.listing import Listed, listed
from jammi_duck.encoder.names import Found, find, full_name

if TYPE_CHECKING:
    from jammi_duck.encoder import Encoder

_loaded: OrderedDict[tuple[Found, int], Encoder] = OrderedDict()
_loading = threading.Lock()


class LoadedEncoders:
    """See `jammi_duck.encoder.Encoders`. What one installation loads, another finds loaded."""

    def __init__(self, batch_size: int, most_loaded: int) -> None:
        """`batch_size` texts of full length fit one forward pass; at most `most_loaded` models stay."""
        self._batch_size = batch_size
        self._most_loaded = most_loaded
        self._found: dict[str, Found] = {}

    def get(self, name: str) -> Encoder:
        """See `Encoders.get`: a name as on the hub, a bare name, or a local directory."""
        with _loading:
            found = self._found.get(name) or find(name)
            if not found.is_local:
                self._found[name] = found
            key = (found, self._batch_size)
            if key not in _loaded:
                from jammi_duck.encoder.transformer import TransformerEncoder

                description = describe(found.path, found.name, found.revision)
                _loaded[key] = TransformerEncoder(description, self._batch_size)
            _loaded.move_to_end(key)
            while len(_loaded) > self._most_loaded:
                _loaded.popitem(last=False)
            return _loaded[key]

    def names(self, name: str) -> set[str]:
        """See `Encoders.names`."""
        return {name, full_name(name), str(Path(name).expanduser().resolve())}

    def available(self, default: str) -> list[Listed]:
        """See `Encoders.available`."""
        return listed(default)
