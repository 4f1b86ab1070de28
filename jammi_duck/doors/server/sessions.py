"""What the server keeps for clients of Flight SQL: their prepared statements, and their sessions."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jammi_duck.doors.server.admission import BusyError
from jammi_duck.doors.server.statements import Statement


@dataclass
class Prepared:
    """A prepared statement of a client, with the parameters that it has sent last."""

    statement: Statement
    owner: str
    path: str | None
    rows: Sequence[Sequence[Any]] = ((),)
    kinds: Sequence[str | None] = ()
    used: float = field(default_factory=time.monotonic)


@dataclass
class Session:
    """The options that a client has set."""

    owner: str
    options: dict[str, str] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)


class Kept(OrderedDict[bytes, Any]):
    """What is kept for clients, by an id that nobody can guess: so many at most, and unused ones for a time."""

    def __init__(self, most: int, seconds: float) -> None:
        super().__init__()
        self._most = most
        self._seconds = seconds
        self._lock = threading.Lock()

    def keep(self, id: bytes, value: Any) -> None:  # noqa: ANN401
        """Keep a value. Raises BusyError where there are too many that are in use."""
        with self._lock:
            end = time.monotonic() - self._seconds
            while self and next(iter(self.values())).used < end:
                self.popitem(last=False)
            if len(self) >= self._most:
                raise BusyError(f"there are {len(self)} of these already, as many as may be: close some")
            self[id] = value

    def use(self, id: bytes, owner: str) -> Any:  # noqa: ANN401
        """A value that this owner has; None where there is none."""
        with self._lock:
            found = self.get(id)
            if found is None or found.owner != owner:
                return None
            found.used = time.monotonic()
            self.move_to_end(id)
            return found
