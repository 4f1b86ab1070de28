"""Timestamps that keep their order, even if the system clock goes back or was a year ahead for one build."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_STEP = timedelta(microseconds=1)
# What claims to be of a later time than this from now is not believed.
_FARTHEST = timedelta(days=36_500)


def not_before(moments: Iterable[datetime], now: datetime) -> datetime:
    """The time by the clock, `now`, or just after the latest of these moments (UTC), if that is later."""
    known = [moment.replace(tzinfo=UTC) for moment in moments]
    return max(now, *(moment + _STEP for moment in known if moment < now + _FARTHEST), now)
