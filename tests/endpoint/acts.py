"""What may happen to a request: an act for each thing that providers, and all that lies between, have been seen to do.

`NAMED` has acts by name, so that tests can be repeated for each; functions make those that need arguments.
"""

import contextlib
import functools
import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate

import numpy as np

from tests.endpoint.exchange import Exchange
from tests.endpoint.form import RefusedError
from tests.endpoint.vectors import Item


@dataclass(frozen=True)
class Act:
    """Something that happens to a request."""

    name: str
    happens: Callable[[Exchange], None]

    def __call__(self, exchange: Exchange) -> None:
        """Let it happen. A request that has no right answer is refused, if the act is about that answer."""
        try:
            self.happens(exchange)
        except RefusedError as error:
            exchange.send_error(error.status, error.message, error.code)


def act_of(act: "Act | str") -> Act:
    """The act of a name."""
    return act if isinstance(act, Act) else NAMED[act]


# Good answers


def ok(headers: Mapping[str, str] | None = None, *, after: float | None = None) -> Act:
    """The right answer, after a while."""

    def happens(exchange):
        exchange.items  # noqa: B018 - what is refused is refused at once
        exchange.wait(exchange.endpoint.delay if after is None else after)
        _answer(exchange, headers)

    return Act("ok", happens)


def _answer(exchange: Exchange, headers: Mapping[str, str] | None = None) -> None:
    body = exchange.answer()
    with _answering(exchange):
        exchange.send(200, body, headers)


@contextlib.contextmanager
def _answering(exchange: Exchange) -> Iterator[None]:
    """Note that what is sent is a good answer: before it leaves, since a client may look at once."""
    exchange.request.answered = True
    try:
        yield
    except BaseException:
        exchange.request.answered = False
        raise


def _chunked(exchange):
    body = exchange.answer()
    _chunked_head(exchange)
    for start in range(0, len(body), 1000):
        _send_chunk(exchange, body[start : start + 1000])
    with _answering(exchange):
        exchange.send_bytes(b"0\r\n\r\n")


def _gzipped(exchange):
    body = gzip.compress(exchange.answer())
    with _answering(exchange):
        exchange.send(200, body, {"Content-Encoding": "gzip"})


def _hinted(exchange):
    exchange.send_bytes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")
    _answer(exchange)


def drip(seconds: float = 0.2, pieces: int = 50, *, ends: bool = True) -> Act:
    """The right answer, a few bytes at a time; or half of it, and then nothing more."""

    def happens(exchange):
        body = exchange.answer()
        exchange.send_head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        size = -(-len(body) // pieces)
        for start in range(0, len(body) - size if ends else len(body) // 2, size):
            exchange.send_bytes(body[start : start + size])
            exchange.wait(seconds / pieces)
        if not ends:
            exchange.wait(3600)
        with _answering(exchange):
            exchange.send_bytes(body[size * (-(-len(body) // size) - 1) :])

    return Act("drip" if ends else "stall", happens)


# Errors


def failing(
    status: int,
    message: str = "The server had an error.",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Act:
    """An error in the provider's form."""
    return Act(f"{status}", lambda exchange: exchange.send_error(status, message, code, headers))


def limited(
    after: float | None = None,
    *,
    as_date: bool = False,
    milliseconds: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Act:
    """429, with Retry-After as a number or a date, or `retry-after-ms`, or neither."""

    def happens(exchange):
        given = dict(headers or {})
        if milliseconds:
            given["retry-after-ms"] = f"{after * 1000:.0f}"
        elif after is not None:
            # A date has whole seconds only.
            date = formatdate(np.ceil(time.time() + after), usegmt=True)
            given["Retry-After"] = date if as_date else f"{after:g}"
        message = "Rate limit reached for requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again later."
        exchange.send_error(429, message, "rate_limit_exceeded", given)

    return Act("429", happens)


def rate_headers(seconds: float, remaining: int = 0) -> dict[str, str]:
    """OpenAI's headers on how much is left until when."""
    reset = f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:g}s"
    return {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": reset,
        "x-ratelimit-limit-tokens": "40000",
        "x-ratelimit-remaining-tokens": "39999",
        "x-ratelimit-reset-tokens": "1ms",
    }


def redirect(status: int, target: str) -> Act:
    """To another place."""
    return Act(f"{status}", lambda exchange: exchange.send(status, b"", {"Location": target}))


def echo(status: int) -> Act:
    """An error that repeats the request's headers, the key among them, as a careless proxy does."""

    def happens(exchange):
        headers = "; ".join(f"{name}: {value}" for name, value in exchange.request.headers.items())
        key = exchange.form.key(exchange.request.headers)
        exchange.send_error(status, f"the request with the key {key} failed. Headers were: {headers}", str(key))

    return Act(f"echo {status}", happens)


def _echo_in_pieces(exchange):
    """The same, so long and in such pieces that a reader who stops early stops within the key."""
    key = exchange.form.key(exchange.request.headers) or "no key, but a long text instead"
    body = exchange.form.error(400, " " * 5000 + f"the request with the key {key} failed").encode()
    middle = body.index(key.encode()) + len(key) - 4
    exchange.send_head(400, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body[:middle])
    exchange.wait(0.1)
    exchange.send_bytes(body[middle:])


# Connections


def _reset_within(exchange):
    body = exchange.answer()
    exchange.send_head(
        200, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body[: len(body) // 2]
    )
    # What was sent arrives before the connection breaks.
    time.sleep(0.01)
    exchange.reset()


def _truncated(exchange):
    body = exchange.answer()
    exchange.send_head(
        200, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body[: len(body) // 2]
    )
    exchange.close()


def _chunks_end_early(exchange):
    _chunked_head(exchange)
    _send_chunk(exchange, exchange.answer()[:-20])
    exchange.close()


# Answers that are no answers

FLOOD_START, FLOOD_END = b'{"more": [', b"0], "


def _with_body(
    name: str, body: Callable[[bytes], bytes], headers: Mapping[str, str] | None = None, status: int = 200
) -> Act:
    return Act(name, lambda exchange: exchange.send(status, body(exchange.answer()), headers))


def _length_is_less(exchange):
    body = exchange.answer()
    exchange.send(200, body, {"Content-Length": str(len(body) - 20)})
    exchange.close()


def flood(size: int = 200_000_000, *, declared: bool = False) -> Act:
    """The right answer, but before it, in the same JSON, so many bytes of numbers, made while they are sent."""

    def happens(exchange):
        whole = exchange.answer()
        block = b"0.125, " * 20_000
        count = size // len(block)
        head = {"Content-Length": str(len(whole) + len(FLOOD_START) + count * len(block) + len(FLOOD_END) - 1)}
        if not declared:
            head = {"Connection": "close"}
        exchange.send_head(200, {"Content-Type": "application/json", **head}, FLOOD_START)
        for _ in range(count):
            exchange.send_bytes(block)
        exchange.send_bytes(FLOOD_END + whole[1:])
        exchange.close()

    return Act("flood", happens)


@functools.cache
def _packed_block() -> bytes:
    """A million spaces, so packed that the block can be repeated."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packing.compress(b" " * 1_000_000) + packing.flush(zlib.Z_FULL_FLUSH)


def _gzip_bomb(exchange):
    """Four gigabytes of spaces, in four megabytes."""
    exchange.endpoint.checked(exchange.request, exchange.form)
    header = b"\x1f\x8b\x08" + b"\0" * 5 + b"\2\xff"
    exchange.send_head(
        200, {"Content-Type": "application/json", "Content-Encoding": "gzip", "Connection": "close"}, header
    )
    for _ in range(4000):
        exchange.send_bytes(_packed_block())
    exchange.close()


def _endless_headers(exchange):
    exchange.send_bytes(b"HTTP/1.1 200 OK\r\n")
    for number in range(2_000_000):
        exchange.send_bytes(b"X-%d: %s\r\n" % (number, b"x" * 100))
    exchange.close()


def _chunked_head(exchange):
    exchange.send_head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"})


def _send_chunk(exchange, content):
    exchange.send_bytes(b"%x\r\n%s\r\n" % (len(content), content))


# Answers with wrong vectors


def changed(name: str, change: Callable[[list[Item]], None]) -> Act:
    """The right answer, but for a change of its vectors."""

    def happens(exchange):
        change(exchange.items)
        exchange.send(200, exchange.answer())

    return Act(name, happens)


def _reordered(exchange):
    exchange.items.reverse()
    _answer(exchange)


def _first_twice(items):
    items[-1].index = items[0].index
    if len(items) == 1:
        items.append(items[0])


def _one_more(items):
    items.append(Item(len(items), np.zeros(32, np.float32), len(items[0].values)))


def _each(change: Callable[[Item], None], *, only_first: bool = False) -> Callable[[list[Item]], None]:
    def applied(items):
        for item in items[:1] if only_first else items:
            change(item)

    return applied


def _set(name: str, value: object) -> Callable[[Item], None]:
    return lambda item: setattr(item, name, value)


def _component(text: str) -> Callable[[Item], None]:
    """Another number as the second component, in JSON and in base64."""

    def change(item):
        values = item.values.copy()
        if text in ("NaN", "Infinity"):
            values[1 % len(values)] = np.float32(text.lower())
            item.values = values
        else:
            numbers = [json.dumps(number) for number in values.tolist()]
            numbers[1 % len(numbers)] = text
            item.written = f"[{', '.join(numbers)}]"

    return change


def _longer(item):
    item.values = [*item.values, 0.5]


def _as_texts(item):
    item.written = json.dumps([str(number) for number in item.values.tolist()])


def _zeros(item):
    item.values = np.zeros(len(item.values))


HTML = b"<!doctype html><html><head><title>Sign in</title></head><body>Your network wants you to sign in.</body></html>"
QUOTA = "You exceeded your current quota, please check your plan and billing details."

NAMED: Mapping[str, Act] = {
    act.name: act
    for act in (
        ok(),
        Act("chunked", _chunked),
        Act("gzip", _gzipped),
        Act("hints", _hinted),
        drip(),
        Act("reordered", _reordered),
        # Errors.
        Act("429", limited().happens),
        Act("429 out of quota", failing(429, QUOTA, "insufficient_quota").happens),
        *(failing(status) for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 500, 502, 503, 504, 529)),
        *(echo(status) for status in (400, 401, 404, 429, 500)),
        Act("echo in pieces", _echo_in_pieces),
        # Connections.
        Act("reset", lambda exchange: exchange.reset()),
        Act("reset within", _reset_within),
        Act("closed", lambda exchange: exchange.close()),
        Act("truncated", _truncated),
        Act("chunks end early", _chunks_end_early),
        Act("hang", lambda exchange: exchange.wait(3600)),
        drip(ends=False),
        # No answers.
        Act("html", lambda exchange: exchange.send(200, HTML, {"Content-Type": "text/html"})),
        Act("html 502", lambda exchange: exchange.send(502, HTML, {"Content-Type": "text/html"})),
        Act("error with 200", lambda exchange: exchange.send(200, exchange.form.error(500, "overloaded").encode())),
        Act("204", lambda exchange: exchange.send_head(204, {})),
        _with_body("empty", lambda _: b""),
        _with_body("null", lambda _: b"null"),
        _with_body("half of the JSON", lambda body: body[: len(body) // 2]),
        _with_body("two answers", lambda body: body + body),
        _with_body("not UTF-8", lambda body: body[:-1] + b', "x": "\xff"}'),
        _with_body("deep", lambda _: b"[" * 1_000_000),
        _with_body("deep objects", lambda _: b'{"data":' * 200_000),
        _with_body("long number", lambda _: b'{"data": [{"index": 0, "embedding": [' + b"9" * 1_000_000 + b"]}]}"),
        _with_body("gzip that is none", lambda body: body, {"Content-Encoding": "gzip"}),
        Act("length is less", _length_is_less),
        Act("flood", flood().happens),
        Act("flood that is declared", flood(declared=True).happens),
        Act("gzip bomb", _gzip_bomb),
        Act("endless headers", _endless_headers),
        # Wrong vectors.
        changed("index twice", _first_twice),
        changed("no index", _each(_set("index", None))),
        changed("index beyond", lambda items: setattr(items[-1], "index", len(items) + 5)),
        changed("index negative", lambda items: setattr(items[-1], "index", -1)),
        changed("index as text", _each(lambda item: setattr(item, "index", str(item.index)))),
        changed("index as fraction", lambda items: setattr(items[0], "index", 0.5)),
        changed("one short", lambda items: items.pop()),
        changed("none at all", lambda items: items.clear()),
        changed("one more", _one_more),
        changed("one is longer", _each(_longer, only_first=True)),
        changed("one is empty", _each(_set("written", "[]"), only_first=True)),
        changed("one is null", _each(_set("written", "null"), only_first=True)),
        changed("one is a number", _each(_set("written", "7"), only_first=True)),
        changed("one is nested", _each(lambda item: setattr(item, "written", f"[{item.json()}]"), only_first=True)),
        changed("one is bad base64", _each(_set("written", '"AAAA AA*"'), only_first=True)),
        changed("all are longer", _each(_longer)),
        changed("all are empty", _each(_set("written", "[]"))),
        changed("all are texts", _each(_as_texts)),
        changed("all are zeros", _each(_zeros)),
        changed("one is zeros", _each(_zeros, only_first=True)),
        *(
            changed(f"one has {text}", _each(_component(text), only_first=True))
            for text in ("NaN", "Infinity", "null", "true", '"0.5"', "1e400", "{}")
        ),
    )
}
