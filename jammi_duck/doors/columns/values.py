"""Values of a server as Python has them: a time that Python does not know, such as infinity, stays a text."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.types import datetime as times

from jammi_duck.doors.columns.connections import Connection


class _OrText:
    """Mixed into a loader: what it cannot load, it gives as it came."""

    def load(self, data: Buffer) -> Any:  # noqa: ANN401 - a value of any type
        try:
            return super().load(data)  # type: ignore[misc]
        except psycopg.DataError:
            return bytes(data).decode()


class _Date(_OrText, times.DateLoader):
    pass


class _Time(_OrText, times.TimeLoader):
    pass


class _TimeTz(_OrText, times.TimetzLoader):
    pass


class _Timestamp(_OrText, times.TimestampLoader):
    pass


class _TimestampTz(_OrText, times.TimestamptzLoader):
    pass


class _Interval(_OrText, times.IntervalLoader):
    pass


_LOADERS: dict[str, type[psycopg.abc.Loader]] = {
    "date": _Date,
    "time": _Time,
    "timetz": _TimeTz,
    "timestamp": _Timestamp,
    "timestamptz": _TimestampTz,
    "interval": _Interval,
}


def keep_strange_times(con: Connection) -> None:
    """Have this connection give such times as texts, where it would fail."""
    for name, loader in _LOADERS.items():
        con.adapters.register_loader(name, loader)
