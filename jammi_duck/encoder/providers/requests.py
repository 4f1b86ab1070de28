"""Asks a provider for the vectors of texts, until each text has its vector or a reason why there is none."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jammi_duck.config.redaction import HIDDEN, redacted
from jammi_duck.encoder.given_vectors import Made, checked_all, length_of
from jammi_duck.encoder.providers.batches import most_tokens_of, tokens_of
from jammi_duck.encoder.providers.remote import Answer, Malformed
from jammi_duck.encoder.providers.transport import Failed, Gate, Reply, exhausted_for, failure, network, pause_before
from jammi_duck.errors import EncodingError
from jammi_duck.types import Role

if TYPE_CHECKING:
    from jammi_duck.encoder.providers.remote import RemoteFunction

_DENIED = (401, 403)
# What a server says of texts that it does not take.
_REFUSED = (400, 413, 422)
# How often a part of a batch is sent again that failed as a whole.
_AGAIN = 1
PROBE = "a text"
_MOST_OF_REASON = 300
_SHORTEST_SECRET = 4
# A number of a vector has some 20 characters in JSON; a dimension that is not known yet is at most so large.
_BYTES_PER_NUMBER, _MOST_DIMENSIONS = 32, 8192


class SpentError(EncodingError):
    """A request would pass a limit that the user has set."""


class Budget:
    """Counts requests and tokens, and lets no request begin that might pass the limits of a function."""

    def __init__(self, function: RemoteFunction) -> None:
        self._id = function.id
        self._most_requests, self._most_tokens = function.max_requests, function.max_tokens
        self.requests = self.tokens = 0
        self._under_way = self._reserved = 0
        self._changed = asyncio.Event()

    async def reserve(self, tokens: int) -> None:
        """Wait until a request of at most so many tokens may begin.

        Raises:
            SpentError: it would pass a limit, whatever the requests under way have; these are over then.
        """
        while limit := self._passed_with(tokens):
            if not self._under_way:
                raise self._spent(*limit)
            self._changed.clear()
            await self._changed.wait()
        self.requests += 1
        self._under_way += 1
        self._reserved += tokens

    def settle(self, reserved: int, used: int) -> None:
        """Count what a request has used for which so many tokens were reserved."""
        self._under_way -= 1
        self._reserved -= reserved
        self.tokens += used
        self._changed.set()

    def _passed_with(self, tokens: int) -> tuple[str, int] | None:
        """The limit that one more request might pass."""
        if self._most_requests is not None and self.requests >= self._most_requests:
            return "max_requests", self._most_requests
        if self._most_tokens is not None and self.tokens + self._reserved + tokens > self._most_tokens:
            return "max_tokens", self._most_tokens
        return None

    def _spent(self, limit: str, most: int) -> SpentError:
        return SpentError(
            f"'{self._id}' was not asked further: {limit} is {most:,}, and {self.requests:,} requests with "
            f"{self.tokens:,} tokens were made. What they gave is kept; raise {limit}, and run the same again"
        )


class Requests:
    """Requests to one provider, with one key, within a budget. Its coroutines run on the network's loop."""

    def __init__(self, function: RemoteFunction, key: str | None, dimensions: int | None, budget: Budget) -> None:
        """`dimensions` is how long the vectors must be; None is as long as they are."""
        self._function = function
        self._headers = _Headers(function.headers(key))
        self._secrets = frozenset({key} if key and len(key) >= _SHORTEST_SECRET else ())
        self._account = function.endpoint, hashlib.sha256((key or "").encode()).digest()
        self._dimensions = dimensions
        self._budget = budget
        self._has_answered = self._has_fitted = False
        # Why no further request may begin.
        self._ended: EncodingError | None = None

    async def first(self, texts: list[str], role: Role) -> list[Made]:
        """The vector of one text, however long it is.

        Raises:
            EncodingError: there is none.
        """
        try:
            (made,) = await self._asked(texts, role, self._function.max_retries)
        except Failed as error:
            raise self._stopped(error, self._function.max_retries + 1) from None
        if isinstance(made, str):
            raise self._stopped(Failed(made, lasting=True))
        return [made]

    async def embed(self, texts: list[str], role: Role) -> list[Made]:
        """The vector of each text, or the reason why there is none.

        Raises:
            EncodingError: neither these texts nor others can be embedded now.
        """
        return await self._embed(texts, role, self._function.max_retries)

    async def _embed(self, texts: list[str], role: Role, retries: int, *, is_again: bool = False) -> list[Made]:
        try:
            made = await self._asked(texts, role, retries)
        except Failed as error:
            if error.status in _REFUSED or not error.lasting:
                return await self._parted(texts, role, error, retries)
            raise self._stopped(error) from None
        bad = [place for place, each in enumerate(made) if isinstance(each, str)]
        if bad and retries and not is_again:
            again = await self._embed([texts[place] for place in bad], role, retries, is_again=True)
            for place, each in zip(bad, again, strict=True):
                made[place] = each
        return made

    async def _parted(self, texts: list[str], role: Role, error: Failed, retries: int) -> list[Made]:
        """What comes of the halves of a batch that failed as a whole; a text that fails alone is the one to blame.

        Unless the provider takes no text at all, or none now: a probe tells. It is sent again as often as max_retries
        allows beyond the `retries` that the batch has had, which has none if it is refused.
        """
        if not self._has_answered or error.status not in _REFUSED:
            retried = 0 if error.lasting else retries
            left = max(self._function.max_retries - retried, 0)
            try:
                await self._asked([PROBE], role, left)
            except Failed as other:
                blamed = error if other.status == error.status else other
                raise self._stopped(blamed, tries=retried + 1 + left + 1) from None
        if len(texts) == 1:
            return [f"'{self._function.id}' failed for it: {error}"]
        middle = len(texts) // 2
        halves = (self._embed(part, role, _AGAIN) for part in (texts[:middle], texts[middle:]))
        return [each for half in await asyncio.gather(*halves) for each in half]

    async def _asked(self, texts: list[str], role: Role, retries: int) -> list[Made]:
        """What a request gives, which is made again as often as `retries` says.

        Raises:
            Failed: there is no answer.
        """
        function = self._function
        gate = network().gate(*self._account, most=function.max_in_flight)
        for attempt in range(retries + 1):
            try:
                made = await self._once(texts, role, gate)
            except Failed as error:
                if error.lasting or attempt == retries:
                    raise
                await pause_before(attempt, error, gate, function.max_wait, f"'{function.id}' failed")
            else:
                self._has_answered = True
                return made
        raise AssertionError("unreachable")

    async def _once(self, texts: list[str], role: Role, gate: Gate) -> list[Made]:
        content = msgspec.json.encode(self._function.body(texts, role))
        reserved, used = sum(map(most_tokens_of, texts)), 0
        async with gate.free:
            await gate.opened()
            if self._ended:
                raise self._ended
            await self._budget.reserve(reserved)
            try:
                reply = await self._sent(content, len(texts))
            except BaseException:
                self._budget.settle(reserved, used)
                raise
            gate.close(min(exhausted_for(reply.headers), self._function.max_wait))
            if reply.status != 200:
                try:
                    self._react(failure(reply, self._told(reply.content)), gate)
                except Failed:
                    self._budget.settle(reserved, used)
                    raise
        try:
            # On another thread: this one is to send the next request meanwhile.
            made, used = await asyncio.to_thread(self._read, reply, texts)
        finally:
            self._budget.settle(reserved, used)
        return made

    async def _sent(self, content: bytes, texts: int) -> Reply:
        function = self._function
        most_bytes = texts * (self._dimensions or _MOST_DIMENSIONS) * _BYTES_PER_NUMBER + (1 << 20)
        return await network().post(
            function.address(), self._headers.values, content, timeout=function.timeout, most_bytes=most_bytes
        )

    def _read(self, reply: Reply, texts: Sequence[str]) -> tuple[list[Made], int]:
        """The vectors in a reply, and the number of tokens that it had."""
        if reply.status != 200:
            raise failure(reply, self._told(reply.content))
        try:
            answer = self._function.answer(reply.content, len(texts))
        except Malformed as error:
            reason = self._public(str(error))
        else:
            return self._checked(answer), sum(map(tokens_of, texts)) if answer.tokens is None else answer.tokens
        raise Failed(reason)

    def _checked(self, answer: Answer) -> list[Made]:
        wanted = self._dimensions or length_of(answer.vectors[0])
        made = checked_all(answer.vectors, wanted)
        if any(not isinstance(each, str) for each in made):
            self._has_fitted = True
            return made
        lengths = {length_of(each) for each in answer.vectors}
        if len(lengths) == 1 and wanted not in lengths and lengths != {0} and not self._has_fitted:
            (length,) = lengths
            raise EncodingError(
                f"'{self._function.id}' gave vectors of {length} numbers for '{self._function.name}', and not of "
                f"{wanted}: give dimensions={length}, or the name of the model that is meant"
            )
        return made

    def _react(self, error: Failed, gate: Gate) -> None:
        """Before another request can begin, see to it that none does that would be answered in the same way."""
        longest = self._function.max_wait
        is_too_long = error.seconds is not None and error.seconds > longest
        if error.status == 429 and is_too_long:
            told = f"{error}; it asks to wait {error.seconds:,.0f} s, which is more than max_wait, {longest:g} s"
            error = Failed(told, error.status, lasting=True)
        if error.lasting and error.status not in _REFUSED:
            self._ended = self._ended or self._stopped(error)
            raise error
        if error.status == 429 and error.seconds is not None:
            gate.close(error.seconds)

    def end(self, error: EncodingError) -> None:
        """Begin no further request."""
        self._ended = self._ended or error

    def _told(self, content: bytes) -> str:
        """The reason that a server gives for an error, whatever its form is, without secrets."""
        try:
            said: Any = msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            text = self._without_cut_secret(content.decode("utf-8", "replace"))
            # A page is for a browser.
            return "" if "<" in text else self._public(text)
        while isinstance(said, dict):
            said = next((said[key] for key in ("error", "message", "detail") if key in said), "")
        return self._public(said if isinstance(said, str) else "")

    def _without_cut_secret(self, text: str) -> str:
        """A text whose end was cut off, without the beginning of a secret there."""
        for secret in self._secrets:
            for length in range(min(len(secret), len(text)), _SHORTEST_SECRET - 1, -1):
                if text.endswith(secret[:length]):
                    return f"{text[:-length]}{HIDDEN}"
        return text

    def _public(self, text: str) -> str:
        shown = redacted(" ".join(text.split()), self._secrets)
        return shown if len(shown) <= _MOST_OF_REASON else f"{shown[:_MOST_OF_REASON]}…"

    def _stopped(self, error: Failed, tries: int = 1) -> EncodingError:
        """Why no text can be embedded, and what to do, after so many tries."""
        function = self._function
        if error.status in _DENIED:
            names = " or ".join(function.key_variables)
            advice = f"check the key: {names} in the environment, or api_key in [providers.{function.id}]"
        elif error.status == 404:
            advice = f"check the model's name, '{function.name}', and base_url"
        elif error.lasting:
            advice = "correct that, and run the same again"
        else:
            is_away = not error.status and str(error).startswith("ConnectError")
            then = function.when_away if is_away else "run the same again later"
            advice = f"it was asked {tries} times; {then}"
        where = redacted(function.address())
        return EncodingError(f"'{function.id}' failed at {where}: {error}; {advice}. What it gave before is kept")


class _Headers:
    """Headers with a key, which no traceback shows."""

    def __init__(self, values: Any) -> None:  # noqa: ANN401 - a mapping of texts
        self.values = values

    def __repr__(self) -> str:
        return HIDDEN
