"""Shows progress: a bar on a terminal, lines in the log, nothing in a pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Self

from jammi_duck.config.logs import log

_SECONDS_BETWEEN_LINES = 10.0


def _after_fork() -> None:
    # A bar of another thread may have held the lock that all bars share.
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.set_lock(threading.RLock())


os.register_at_fork(after_in_child=_after_fork)


class Progress:
    """One stage of long work on `source`, `total` rows of it. Use it as a context."""

    def __init__(self, stage: str, source: str, total: int) -> None:
        """`stage` and `source` stand before the bar and in each line of the log."""
        # Imported here, because an installation does without.
        from tqdm import tqdm

        self._fields: dict[str, object] = {"stage": stage, "source": source}
        self._label = f"{stage} {source}"
        self._total = total
        self._done = 0
        self._bar = tqdm(total=total, desc=self._label, unit="row", unit_scale=True, disable=None, leave=False)
        self._started = self._last_line = time.monotonic()

    def advance(self, rows: int) -> None:
        """Note that so many more rows are done."""
        self._done += rows
        self._bar.update(rows)
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            fields = {**self._fields, "rows": self._done, "total": self._total}
            log.info("%s: %d of %d rows", self._label, self._done, self._total, extra=fields)

    def close(self) -> None:
        """Take the bar away: the stage was not done to its end."""
        self._bar.close()

    def done(self) -> None:
        """Take the bar away, and log how long the stage took, unless there was nothing to do."""
        self.close()
        if not self._total:
            return
        seconds = round(time.monotonic() - self._started, 3)
        fields = {**self._fields, "rows": self._done, "seconds": seconds}
        log.info("%s: %d rows in %.1f s", self._label, self._done, seconds, extra=fields)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Done, or closed where something went wrong."""
        if kind is None:
            self.done()
        else:
            self.close()
