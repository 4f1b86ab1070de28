"""What long work shows: a bar on a terminal, lines in the log, nothing in a pipe."""

from __future__ import annotations

import logging
import time
from typing import Self

from tqdm import tqdm

log = logging.getLogger("jammi_duck")

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """One stage of long work, `total` rows of it. Use it as a context."""

    def __init__(self, label: str, total: int) -> None:
        """`label` stands before the bar and in each line of the log."""
        self._label = label
        self._total = total
        self._done = 0
        self._bar = tqdm(total=total, desc=label, unit="row", unit_scale=True, disable=None, leave=False)
        self._started = self._last_line = time.monotonic()

    def advance(self, rows: int) -> None:
        """Note that so many more rows are done."""
        self._done += rows
        self._bar.update(rows)
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            log.info("%s: %d of %d rows", self._label, self._done, self._total)

    def close(self) -> None:
        """Take the bar away, and log how long the stage took."""
        self._bar.close()
        log.info("%s: %d rows in %.1f s", self._label, self._done, time.monotonic() - self._started)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever happened."""
        self.close()
