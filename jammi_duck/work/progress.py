"""Shows progress: a bar on a terminal or in a notebook, lines in the log, nothing in a pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from typing import Any, Self

from jammi_duck.config.logs import log

_SECONDS_BETWEEN_LINES = 10.0


def _after_fork() -> None:
    # A bar of another thread may have held the lock that all bars share.
    for module in ("tqdm", "tqdm.auto"):
        if module in sys.modules:
            sys.modules[module].tqdm.set_lock(threading.RLock())


os.register_at_fork(after_in_child=_after_fork)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _new_bar(**options: Any) -> Any:  # noqa: ANN401 - a tqdm of some kind
    # Imported here, because an installation does without.
    if not in_notebook():
        from tqdm import tqdm

        return tqdm(disable=None, **options)
    with warnings.catch_warnings():
        # Where ipywidgets is missing, its text bar does.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm(**options)


class Progress:
    """One stage of long work on `source`, `total` rows of it. Use it as a context."""

    def __init__(self, stage: str, source: str, total: int) -> None:
        """`stage` and `source` stand before the bar and in each line of the log."""
        self._fields: dict[str, object] = {"stage": stage, "source": source}
        self._label = f"{stage} {source}"
        self._total = total
        self._done: float = 0
        self._bar = _new_bar(total=total, desc=self._label, unit="row", unit_scale=True, leave=False)
        self._started = self._last_line = time.monotonic()

    def advance(self, rows: float) -> None:
        """Note that so many more rows are done; parts of one count as well."""
        self._done += rows
        self._bar.update(rows)
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            fields = {**self._fields, "rows": int(self._done), "total": self._total}
            log.info("%s: %d of %d rows", self._label, self._done, self._total, extra=fields)

    def close(self) -> None:
        """Take the bar away: the stage was not done to its end. In a notebook, it stays, in red."""
        self._bar.close()

    def done(self) -> None:
        """Take the bar away, and log how long the stage took, unless there was nothing to do."""
        # Rows without a text are not counted: to a notebook, the work would seem to have failed.
        self._done = round(self._done)
        self._bar.total = self._done
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
