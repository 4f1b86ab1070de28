"""Sends requests to a provider: beside each other, again after a pause, and never more than the provider allows.

All requests of a process run on one event loop in a thread of its own, so that whoever waits for them can stop at any
time: what is under way is cancelled then.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx2

from jammi_duck.config.logs import log
from jammi_duck.encoder.waits import pause
from jammi_duck.threads import beside
from jammi_duck.version import __version__

T = TypeVar("T")
Work: TypeAlias = Callable[[], Coroutine[Any, Any, T]]
_RESET = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (3600.0, 60.0, 1.0, 0.001)
_TOLD_FROM_SECONDS = 2.0
# More says nothing to a reader.
_MOST_OF_ERROR = 4096


@dataclass(frozen=True)
class Reply:
    """What a server answered: the status, headers with names in lower case, and the content."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Failed(Exception):
    """A request has failed. `status` is that of the answer, 0 if there was none; `lasting`, if it would fail again.

    Without `lasting`, it may be made again, after `seconds` if the server said so.
    """

    def __init__(self, reason: str, status: int = 0, *, lasting: bool = False, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.lasting = lasting
        self.seconds = seconds


class Gate:
    """Lets requests through to one account: so many at once, and none before the time that the server has named."""

    def __init__(self, most: int) -> None:
        self.free = asyncio.Semaphore(most)
        self._opens = 0.0

    def close(self, seconds: float) -> None:
        """Let none through for so long."""
        self._opens = max(self._opens, time.monotonic() + seconds)

    async def opened(self) -> None:
        """Wait until requests may go through."""
        while (left := self._opens - time.monotonic()) > 0:
            await asyncio.sleep(left)


class Begun(Generic[T]):
    """Work on the network's loop, which puts itself into a queue once it is over.

    Ctrl-C while another thread waits there leaves no lock taken, for the reasons that jammi_duck/threads.py gives.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work[T], landed: SimpleQueue[Begun[T]]) -> None:
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._begin, work, landed)

    def cancel(self) -> None:
        """End the work, unless it is over."""
        self._loop.call_soon_threadsafe(self._cancel)

    def error(self) -> BaseException | None:
        """The error of work that is over."""
        assert self._task is not None
        return self._task.exception()

    def result(self) -> T:
        """What came of work that is over; raises its error."""
        assert self._task is not None
        return self._task.result()

    def _begin(self, work: Work[T], landed: SimpleQueue[Begun[T]]) -> None:
        def is_over(task: asyncio.Task[T]) -> None:
            if not task.cancelled():
                # The loop would tell of an error that nobody has looked at.
                task.exception()
                landed.put(self)

        self._task = self._loop.create_task(work())
        self._task.add_done_callback(is_over)

    def _cancel(self) -> None:
        # Not there if an interrupt struck before it was asked for.
        if self._task is not None:
            self._task.cancel()


class Network:
    """The event loop, its thread, and the connections. There is one for a process; a forked child gets its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._gates: dict[tuple[object, ...], Gate] = {}
        self._client: httpx2.AsyncClient | None = None
        threading.Thread(target=self.loop.run_forever, name="jammi_duck providers", daemon=True).start()

    def start(self, work: Work[T], landed: SimpleQueue[Begun[T]]) -> Begun[T]:
        """Begin work on the loop, which is put into `landed` when it is over."""
        return Begun(self.loop, work, landed)

    def gate(self, *account: object, most: int) -> Gate:
        """The gate of an account, for so many requests at once. On the loop only."""
        return self._gates.setdefault((*account, most), Gate(most))

    async def post(
        self, url: str, headers: Mapping[str, str], content: bytes, *, timeout: float, most_bytes: int
    ) -> Reply:
        """Send one request, and read the answer: within `timeout` seconds, and no more than so many bytes of it.

        Raises:
            Failed: there is no answer, or one that is too long.
        """
        if self._client is None:
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
            self._client = httpx2.AsyncClient(timeout=None, limits=limits, follow_redirects=False)
        reason, is_lasting = "", False
        try:
            async with asyncio.timeout(timeout):
                return await _answer(self._client, url, headers, content, most_bytes)
        except TimeoutError:
            reason = f"no answer within {timeout:g} s"
        except (httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError) as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        except httpx2.TransportError as error:
            # Its text may have a header in it.
            reason = type(error).__name__
        except Failed:
            raise
        except Exception as error:
            # What cannot be sent, such as to a port that there cannot be.
            reason, is_lasting = f"the request cannot be made ({type(error).__name__}); check base_url", True
        # Outside of the handler: the error of the library, whose frames have the key, is not to hang on to ours.
        raise Failed(reason, lasting=is_lasting)


async def _answer(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], content: bytes, most: int) -> Reply:
    sent = {
        "content-type": "application/json",
        "accept": "application/json",
        # A compressed answer may be a thousand times as long as what is sent.
        "accept-encoding": "identity",
        "user-agent": f"jammi-duck/{__version__}",
        **headers,
    }
    async with client.stream("POST", url, headers=sent, content=content) as response:
        unpacked = _unpacking(response.headers.get("content-encoding", ""))
        parts: list[bytes] = []
        length = 0
        async for packed in response.aiter_raw():
            part = unpacked(packed, most - length + 1)
            length += len(part)
            parts.append(part)
            if response.status_code != 200 and length > _MOST_OF_ERROR:
                break
            if length > most:
                # The error, and with it this frame, may live for a while.
                parts.clear()
                part = b""
                raise Failed(f"the answer is longer than {most:,} bytes", lasting=False)
    named = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, named, b"".join(parts))


def _unpacking(encoding: str) -> Callable[[bytes, int], bytes]:
    """Unpacks the parts of an answer, and of each no more than so many bytes."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return lambda part, most: part
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Failed(f"the answer is packed by '{encoding[:40]}', which was not asked for")
    packing = zlib.decompressobj(31 if "gzip" in encoding else 15)

    def unpacked(part: bytes, most: int) -> bytes:
        try:
            return packing.decompress(part, most)
        except zlib.error as error:
            failed = f"the answer cannot be unpacked: {error}"
        raise Failed(failed)

    return unpacked


def failure(reply: Reply, reason: str) -> Failed:
    """Why a reply is no answer: what its status says, and the `reason` that the server gives."""
    status = reply.status
    told = f"{status}{f': {reason}' if reason else ''}"
    if 300 <= status < 400:
        host = _host(reply.headers.get("location", ""))
        told = f"{status}, a redirect{f' to {host}' if host else ''}, which is not followed"
        return Failed(told, status, lasting=True)
    comes_again = status in (408, 409, 425, 429) or status >= 500
    if status == 400 and b"API_KEY_INVALID" in reply.content:
        # Google's way to say 401.
        status = 401
    # OpenAI's word for an account without money; a pause does not help.
    is_over = status == 429 and "insufficient_quota" in reply.content.decode("utf-8", "replace")
    return Failed(told, status, lasting=is_over or not comes_again, seconds=asked_to_wait(reply.headers))


def _host(location: str) -> str | None:
    try:
        return urlsplit(location).hostname
    except ValueError:
        return None


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait by `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError, TypeError):
        return None
    return max((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)


def exhausted_for(headers: Mapping[str, str]) -> float:
    """Seconds until more requests, or tokens, are allowed, by `x-ratelimit-…` headers; 0 where there are some left."""
    seconds = 0.0
    for kind in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0":
            seconds = max(seconds, _reset(headers.get(f"x-ratelimit-reset-{kind}", "")))
    return seconds


def _reset(text: str) -> float:
    """Seconds, written as `6m0s`, `20ms`, or a number."""
    text = text.strip()
    match = _RESET.fullmatch(text)
    if match and text:
        return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part)
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    # nan fails both comparisons; a larger one is a moment, and no time to wait.
    return seconds if 0 < seconds < 86_400 else 0.0


async def pause_before(attempt: int, error: Failed, gate: Gate, longest: float, told: str) -> None:
    """Wait before the next attempt: as long as the server says, otherwise twice as long each time.

    Raises:
        Failed: the server asks for more than `longest` seconds.
    """
    if error.seconds is not None and error.seconds > longest:
        raise Failed(
            f"{error}; it asks to wait {error.seconds:,.0f} s, which is more than max_wait, {longest:g} s",
            error.status,
            lasting=True,
        )
    seconds = pause(attempt, longest) if error.seconds is None else error.seconds
    if error.status == 429:
        # All others would be answered in the same way.
        gate.close(seconds)
    level = logging.WARNING if seconds >= _TOLD_FROM_SECONDS else logging.DEBUG
    if log.isEnabledFor(level):
        # On another thread: before Python 3.13, a handler stays locked if Ctrl-C strikes another thread within it.
        beside(partial(log.log, level, "%s: %s; again in %.1f s", told, error, seconds))
    await asyncio.sleep(seconds)


_network: Network | None = None
_starting = threading.Lock()


def network() -> Network:
    """The network of this process."""
    global _network
    with _starting:
        if _network is None:
            _network = Network()
        return _network


def _after_fork() -> None:
    global _network, _starting
    _network, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
