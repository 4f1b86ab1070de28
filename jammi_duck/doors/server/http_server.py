"""The server for HTTP: where it listens, its connections, and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from jammi_duck.config.logs import log
from jammi_duck.doors.server import codes
from jammi_duck.doors.server.http import Api
from jammi_duck.doors.server.http_api import json_of
from jammi_duck.doors.server.service import Service
from jammi_duck.errors import ConfigError

_MOST_CONNECTIONS = 1_000
_MOST_HEADERS = 32 << 10
_IDLE_SECONDS = 30
_STOP_SECONDS = 5


class _Protocol(H11Protocol):
    """HTTP/1.1 whose requests must come in time, on a number of connections."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.close()
        else:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._waiting, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def _await_reader(self) -> None:
        """Cut off who reads nothing of an answer in time."""
        unread = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() < unread:
                self._await_reader()
            else:
                self.transport.abort()

        self._unread = self.loop.call_later(_IDLE_SECONDS, check)

    def on_response_complete(self) -> None:
        # What has come already is begun there, too.
        self._expect()
        super().on_response_complete()

    def _expect(self) -> None:
        """Close the connection where the next request is not here to the end of its headers in time.

        Who still reads an answer is waited for, and who does not is cut off.
        """
        before, unread = self.cycle, self.transport.get_write_buffer_size()

        def close() -> None:
            still = self.transport.get_write_buffer_size()
            if self.cycle is not before:
                return
            if not still:
                self.transport.close()
            elif still < unread:
                self._expect()
            else:
                self.transport.abort()

        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(_IDLE_SECONDS, close)

    def send_400_response(self, msg: str) -> None:
        body = json_of({"error": msg, "code": codes.INVALID.word})
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        # It may have begun to answer what came before.
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _ToOurLog(logging.Handler):
    """What uvicorn logs, in the log of this package."""

    def emit(self, record: logging.LogRecord) -> None:
        if log.isEnabledFor(record.levelno):
            log.handle(record)


class Credentials(Protocol):
    """See `serving.Credentials`."""

    changed: threading.Event

    @property
    def paths(self) -> tuple[Path | None, Path | None, Path | None]:
        """The files: certificates, key, and whose certificates clients must have."""
        ...


class HttpServer:
    """Serves HTTP on a thread of its own."""

    def __init__(self, service: Service, address: str, credentials: Credentials) -> None:
        """At this address, which nobody listens at before `start()`.

        Raises:
            ConfigError: the certificate or its key cannot be used.
        """
        self._address = address
        self._credentials = credentials
        self._context = None if credentials.paths[0] is None else _Renewed(_context(credentials))
        self._sockets: list[socket.socket] = []
        self._api = Api(service)
        self._server = uvicorn.Server(self._config())
        connections = self._server.server_state.connections
        service.metrics.watch("jammi_connections", "Open connections of HTTP.", lambda: len(connections))
        self._thread = threading.Thread(target=self._run, name="jammi-http", daemon=True)

    def _config(self) -> uvicorn.Config:
        config = uvicorn.Config(
            self._api,
            http=_Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            workers=1,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=_MOST_HEADERS,
            callback_notify=self._follow_certificates,
            timeout_notify=0,
        )
        config.load()
        config.ssl = self._context
        theirs = logging.getLogger("uvicorn.error")
        theirs.handlers, theirs.propagate = [_ToOurLog()], False
        theirs.setLevel(logging.WARNING)
        return config

    @property
    def port(self) -> int:
        """The port at which it listens."""
        return self._port

    def start(self) -> None:
        """Listen, and serve from then on.

        Raises:
            ConfigError: the address is in use, or is none of this machine.
        """
        try:
            self._sockets = _listening(self._address)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._address} ([server] http_listen): it is in use, or not of this machine"
            ) from error
        self._port: int = self._sockets[0].getsockname()[1]
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop listening, and end what is still answered."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(2 * _STOP_SECONDS)
        for each in self._sockets:
            each.close()
        self._api.close()

    def _run(self) -> None:
        try:
            self._server.run(self._sockets)
        except BaseException:
            log.exception("the server for HTTP has failed")

    async def _follow_certificates(self) -> None:
        if self._context is None or not self._credentials.changed.is_set():
            return
        self._credentials.changed.clear()
        try:
            self._context.newest = _context(self._credentials)
        except ConfigError as error:
            log.error("the certificates for HTTP stay as they were: %s", error)


def _listening(address: str) -> list[socket.socket]:
    """Sockets that listen at all that an address names and this machine has. Raises OSError where that is nothing."""
    host, _, port = address.rpartition(":")
    number = int(port)
    found = socket.getaddrinfo(host.strip("[]") or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = dict.fromkeys((family, place) for family, *_, place in found)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, place in places:
            is_both = (
                family == socket.AF_INET6 and len(places) == 1 and place[0] == "::" and socket.has_dualstack_ipv6()
            )
            try:
                sockets.append(_socket(family, (place[0], number, *place[2:]), is_both))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
                continue
            number = sockets[0].getsockname()[1]
        if missing is not None and not sockets:
            raise missing
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _socket(family: int, where: tuple[str | int, ...], is_both: bool) -> socket.socket:
    # By its protocol, asyncio knows that small answers are not to wait for acknowledgements.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_both else 1)
        made.bind(where)
        made.listen(512)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


class _Renewed(ssl.SSLContext):
    """The context of a listener, which stays: the newest one is that of each new connection.

    Nothing takes an authority away from a context, nor the sessions that clients may resume.
    """

    newest: ssl.SSLContext

    def __new__(cls, newest: ssl.SSLContext) -> _Renewed:
        made = super().__new__(cls, newest.protocol)
        made.newest = newest
        return made

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`, by which asyncio begins a connection."""
        return self.newest.wrap_bio(*arguments, **named)


def _context(credentials: Credentials) -> ssl.SSLContext:
    """What TLS needs. Raises ConfigError where the files are none for that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    certificate, key, authority = credentials.paths
    if certificate is None:
        raise ConfigError("TLS needs [server] tls_certificate")
    try:
        # A password would be asked for at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use '{certificate}' with the key '{key}' for TLS: {error}") from None
    try:
        if authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use '{authority}' for TLS: {error}") from None
    return context
