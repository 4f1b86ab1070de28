"""The time, where an order hangs on it: a clock may go back, or be a year ahead for one build."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_STEP = timedelta(microseconds=1)
# What claims to be of a later time than this from now is not believed.
_FARTHEST = timedelta(days=36_500)


def now() -> datetime:
    """The time by the machine's clock, in UTC."""
    return datetime.now(UTC)


def later_than(moments: Iterable[datetime]) -> datetime:
    """The time by the clock, or just after the latest of these moments (UTC), if that is later."""
    present = now()
    known = [moment.replace(tzinfo=UTC) for moment in moments]
    return max(present, *(moment + _STEP for moment in known if moment < present + _FARTHEST), present)
