"""One request of a played endpoint, how it is read from a connection, and all that can be done with it."""

import contextlib
import json
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.endpoint.form import WIDTHS, Call, Form, RefusedError
from tests.endpoint.vectors import Item


class GoneError(Exception):
    """The client has closed the connection, or the endpoint ends."""


@dataclass(eq=False)
class Request:
    """What has arrived, and what became of it."""

    connection: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    number: int = 0
    # Seconds of a monotonic clock; `at_once` requests, this one included, were being answered when it arrived.
    began: float = 0
    ended: float | None = None
    at_once: int = 0
    form: str = ""
    call: Call | None = None
    refusal: RefusedError | None = None
    act: str = ""
    status: int = 0
    # Whether a good answer has left completely.
    answered: bool = False

    @property
    def texts(self) -> Sequence[str]:
        """Its texts; none, if it could not be read."""
        return self.call.texts if self.call else ()

    @property
    def role(self) -> str:
        """The role of its texts."""
        return self.call.role if self.call else ""

    @cached_property
    def payload(self):
        """Its body, read as JSON."""
        return json.loads(self.body)

    def read(self, form: Form, names: Mapping[str, str]) -> None:
        """Note what it asks for, or why it is refused. It meets the act that it is due in either case."""
        self.form = form.name
        try:
            self.call = form.read({**self.query, **names}, json.loads(self.body))
        except RefusedError as error:
            self.refusal = error
        except ValueError:
            self.refusal = RefusedError(400, "We could not parse the JSON body of your request.")


def received(connection: socket.socket, stream, number: int) -> Request | None:
    """The next request of a connection; None if it has ended. A body may be chunked."""
    line = stream.readline(65536)
    if not line.strip():
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while (line := stream.readline(65536)).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _unchunked(stream) if "chunked" in headers.get("transfer-encoding", "") else _whole(stream, headers)
    address = urlsplit(target)
    return Request(number, method, unquote(address.path), dict(parse_qsl(address.query)), headers, body)


def _whole(stream, headers):
    length = int(headers.get("content-length", 0))
    body = stream.read(length)
    if len(body) < length:
        raise GoneError
    return body


def _unchunked(stream):
    parts = []
    while size := int(stream.readline(100).split(b";")[0], 16):
        parts.append(stream.read(size))
        stream.readline(10)
    stream.readline(10)
    return b"".join(parts)


class Exchange:
    """A request that is being answered: what an act gets."""

    def __init__(self, endpoint, connection: socket.socket, request: Request, form: Form) -> None:
        self.endpoint, self.request, self.form = endpoint, request, form
        self.is_open = True
        self._connection = connection

    @cached_property
    def items(self) -> list[Item]:
        """The vectors of the right answer.

        Raises:
            RefusedError: there is no right answer.
        """
        call = self.endpoint.checked(self.request, self.form)
        return call.items(self.endpoint.dimensions or WIDTHS.get(call.model, 64))

    def answer(self) -> bytes:
        """The body of an answer with `items`, as they are now."""
        items = self.items
        return self.form.answer(self.request.call, items).encode()

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer; headers that are not given are those that belong to the body."""
        # Once the client has it, it may ask again on another connection.
        self.endpoint.leave(self.request)
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.send_head(status, {**usual, **(headers or {})}, body)

    def send_error(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send an error in the provider's form."""
        self.send(status, self.form.error(status, message, code).encode(), headers)

    def send_head(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send the status line, exactly these headers, and what comes after them."""
        self.request.status = status
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Other"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.send_bytes("\r\n".join(lines).encode("latin-1") + body)

    def send_bytes(self, content: bytes) -> None:
        """Send anything.

        Raises:
            GoneError: the client has gone.
        """
        try:
            self._connection.sendall(content)
        except OSError as error:
            self.is_open = False
            raise GoneError from error

    def wait(self, seconds: float) -> None:
        """Do nothing for a while.

        Raises:
            GoneError: the client has gone meanwhile, or the endpoint ends.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.2:
            readable, _, _ = select.select([self._connection], [], [], 0.1)
            if self.endpoint.is_closed or (readable and self._is_closed()):
                raise GoneError
        # A short wait is not worth a look at the connection.
        time.sleep(max(left, 0))

    def _is_closed(self) -> bool:
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def close(self) -> None:
        """End the connection in an orderly way."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End the connection by a RST."""
        self.is_open = False
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
