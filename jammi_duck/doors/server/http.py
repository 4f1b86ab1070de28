"""HTTP: health, metrics, embeddings, search, and their documentation."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import h11
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from jammi_duck.config.logs import log
from jammi_duck.doors.server import openapi
from jammi_duck.doors.server.admission import BusyError, GoneError
from jammi_duck.doors.server.http_api import Caller, RequestError, embeddings, json_of, search, status_of
from jammi_duck.doors.server.identity import Visitor
from jammi_duck.doors.server.metrics import CONTENT_TYPE
from jammi_duck.doors.server.service import Service
from jammi_duck.encoder import loaded
from jammi_duck.errors import ConfigError, DeniedError
from jammi_duck.version import __version__

T = TypeVar("T")
# What a request does, on a thread.
_Work = Callable[[Service, Visitor, bytes, Caller], bytes]
_Endpoint = Callable[[Request], Awaitable[Response]]

_EMBEDDINGS, _SEARCH = "/v1/embeddings", "/v1/search"
_MOST_BYTES = {_EMBEDDINGS: 16 << 20, _SEARCH: 1 << 20}
# A body that is refused, but which a client would send to its end before it reads why.
_MOST_DRAINED = 64 << 20
_MOST_CONNECTIONS = 1_000
_MOST_HEADERS = 32 << 10
_MOST_SCRAPES = 8
# Requests beyond those that run or wait for their turn.
_SPARE = 16
_READY_SECONDS = 2.0
_BODY_SECONDS = 30.0
_IDLE_SECONDS = 30
_STOP_SECONDS = 5
# What a status of 499 is to nginx: nobody reads the answer.
_LEFT = 499
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
_TABLES = "SELECT embedding_table, row_count, age FROM jammi_tables()"


class Asked(Generic[T]):
    """A question whose answer may never come: it is asked on a thread of its own, and by one at a time."""

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        """`seconds` are how long the answer may take."""
        self._ask = ask
        self._seconds = seconds
        self._lock = threading.Lock()
        self._future: Future[T] | None = None
        self._end = 0.0

    def begun(self) -> tuple[Future[T], float]:
        """The answer to come, and the seconds that are left for it. Asks unless somebody has, and waits still."""
        with self._lock:
            now = time.monotonic()
            if self._future is None or self._future.done():
                self._future, self._end = Future(), now + self._seconds
                self._future.set_running_or_notify_cancel()
                threading.Thread(target=self._run, args=[self._future], name="jammi-asked", daemon=True).start()
            return self._future, max(0.0, self._end - now)

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._ask())
        except BaseException as error:
            future.set_exception(error)


class Api:
    """The routes, as an application of ASGI."""

    def __init__(self, service: Service) -> None:
        """For one service."""
        self._service = service
        self._most = service.config.max_queries + service.config.max_waiting + _SPARE
        self._working = ThreadPoolExecutor(self._most, thread_name_prefix="jammi-http")
        self._scraping = ThreadPoolExecutor(2, thread_name_prefix="jammi-metrics")
        self._requests = 0
        self._scrapes = 0
        self._ready = Asked(service.is_ready, _READY_SECONDS)
        self._tables = Asked(self._ask_for_tables, _READY_SECONDS)
        document = openapi.document()
        self._document = json_of(document)
        self._page, self._page_policy = openapi.page(document)
        self._routes: dict[str, tuple[str, _Endpoint]] = {
            "/healthz": ("GET", self._healthz),
            "/readyz": ("GET", self._readyz),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._openapi),
            "/docs": ("GET", self._docs),
            _EMBEDDINGS: ("POST", lambda request: self._answered(request, embeddings)),
            _SEARCH: ("POST", lambda request: self._answered(request, search)),
        }
        self._watch()

    def close(self) -> None:
        """Take no more work."""
        self._working.shutdown(wait=False, cancel_futures=True)
        self._scraping.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        path = scope["path"]
        try:
            response = await self._endpoint(path, scope["method"])(request)
        except Exception as error:
            response = self._failed(path, error)
        label = path if path in self._routes else "other"
        self._service.metrics.http_requests.labels(label, str(response.status_code)).inc()
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    def _endpoint(self, path: str, method: str) -> _Endpoint:
        if path not in self._routes:
            raise RequestError(404, "not_found", "Not found")
        allowed, endpoint = self._routes[path]
        methods = (allowed, "HEAD") if allowed == "GET" else (allowed,)
        if method not in methods:
            headers = {"allow": ", ".join(methods)}
            raise RequestError(405, "method_not_allowed", f"{path} takes {' and '.join(methods)} only", headers)
        return endpoint

    def _failed(self, path: str, error: Exception) -> Response:
        status, code = status_of(error)
        text = str(error) or type(error).__name__
        headers = dict(error.headers) if isinstance(error, RequestError) else {}
        if isinstance(error, GoneError) and self._service.is_ending:
            code = "ending"
        if status == 500:
            log.error("a request over HTTP failed", exc_info=error)
            text = "the server has failed; its log tells more"
        elif status == 401:
            headers["www-authenticate"] = "Bearer"
        elif status == 429:
            headers["retry-after"] = "1"
        body: object = {"error": text, "code": code}
        if path == _EMBEDDINGS:
            kind = "invalid_request_error" if status < 500 else "server_error"
            body = {"error": {"message": text, "type": kind, "param": None, "code": code}}
        return _json(body, status, headers)

    # Health.

    async def _healthz(self, request: Request) -> Response:
        return _json({"status": "ok", "version": __version__})

    async def _readyz(self, request: Request) -> Response:
        detail: str | None = "the server is ending"
        if not self._service.is_ending:
            future, left = self._ready.begun()
            answer = asyncio.wrap_future(future)
            await asyncio.wait([answer], timeout=left)
            if not answer.done():
                answer.cancel()
                detail = f"no answer within {_READY_SECONDS:g} s"
            else:
                error = answer.exception()
                detail = answer.result() if error is None else f"{type(error).__name__}: {error}"
        if detail is None:
            return _json({"status": "ready"})
        return _json({"status": "not_ready", "detail": detail}, 503)

    # Metrics.

    async def _metrics(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        if not _is_here(request):
            with self._slot():
                visitor = await self._visitor(request)
            if visitor.sources is not None:
                raise DeniedError("the metrics name all embedding tables, and this token is for some sources only")
        if self._scrapes >= _MOST_SCRAPES:
            raise BusyError(f"{self._scrapes} requests for metrics are answered already: try again in a moment")
        self._scrapes += 1
        try:
            text = await loop.run_in_executor(self._scraping, self._service.metrics.text)
        finally:
            self._scrapes -= 1
        return Response(text, headers={"content-type": CONTENT_TYPE})

    def _watch(self) -> None:
        service = self._service
        watch, watch_each = service.metrics.watch, service.metrics.watch_each
        watch("jammi_queries_running", "Queries that run now.", lambda: service.admission.running)
        watch("jammi_queries_waiting", "Queries that wait for others.", lambda: service.admission.waiting)
        watch("jammi_loaded_models", "Models in memory.", lambda: len(loaded._loaded))
        watch_each("jammi_table_rows", "Rows of embedding tables.", "embedding_table", self._rows_of_tables)
        watch_each(
            "jammi_table_age_seconds",
            "Time since embedding tables were last written.",
            "embedding_table",
            self._ages_of_tables,
        )

    def _ask_for_tables(self) -> list[tuple[str, float | None, float | None]]:
        with self._service.lend(Visitor("metrics", "reader")) as lent:
            return [
                (name, count, None if age is None else age.total_seconds()) for name, count, age in lent.rows(_TABLES)
            ]

    def _now_in_tables(self) -> list[tuple[str, float | None, float | None]]:
        future, left = self._tables.begun()
        try:
            return future.result(left)
        except Exception as error:
            log.warning("no metrics of embedding tables: %s: %s", type(error).__name__, error)
            return []

    def _rows_of_tables(self) -> Iterable[tuple[str, float]]:
        return [(name, count) for name, count, _ in self._now_in_tables() if count is not None]

    def _ages_of_tables(self) -> Iterable[tuple[str, float]]:
        return [(name, age) for name, _, age in self._now_in_tables() if age is not None]

    # Documentation.

    async def _openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def _docs(self, request: Request) -> Response:
        headers = {"content-security-policy": self._page_policy, "x-frame-options": "DENY"}
        return Response(self._page, media_type="text/html", headers=headers)

    # Work.

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """Be one of the requests that are answered at once, each of which has a thread."""
        if self._requests >= self._most:
            raise BusyError(f"{self._requests} requests are answered already, as many as may: try again in a moment")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def _visitor(self, request: Request) -> Visitor:
        """Who sends a request; on a thread, because a wrong token takes time."""
        visitor, authorization = self._service.gate.visitor, request.headers.get("authorization")
        return await asyncio.get_running_loop().run_in_executor(self._working, visitor, authorization)

    async def _answered(self, request: Request, work: _Work) -> Response:
        with self._slot():
            visitor = await self._visitor(request)
            content = await _body(request, _MOST_BYTES[request.scope["path"]])
            return await self._worked(request, work, visitor, content)

    async def _worked(self, request: Request, work: _Work, visitor: Visitor, content: bytes) -> Response:
        """The answer of work on a thread, which is stopped where the client leaves."""
        caller = Caller(self._service)
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._working, work, self._service, visitor, content, caller)
        leaving = asyncio.ensure_future(_left(request))
        first: list[asyncio.Future[Any]] = [working, leaving]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                caller.leave()
            return Response(await working, media_type="application/json")
        except asyncio.CancelledError:
            caller.leave()
            raise
        except Exception:
            if caller.is_gone():
                return Response(status_code=_LEFT)
            raise
        finally:
            leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, which must be JSON.

    Raises:
        RequestError: it is something else, too large, or too slow.
        GoneError: the client went away meanwhile.
    """
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(415, "unsupported_media_type", "the body must be JSON: send Content-Type: application/json")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RequestError(415, "unsupported_media_type", "the body must be sent as it is, without Content-Encoding")
    declared = int(headers.get("content-length", "0"))
    closing = {"connection": "close"}
    too_large = f"the body is larger than {most >> 20} MiB"
    if declared > most:
        raise RequestError(413, "too_large", too_large, closing if declared > _MOST_DRAINED else None)
    parts: list[bytes] = []
    total = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                total += len(part)
                if total > most:
                    raise RequestError(413, "too_large", too_large, closing)
                parts.append(part)
    except TimeoutError:
        text = f"the body did not come within {_BODY_SECONDS:g} s"
        raise RequestError(408, "timeout", text, closing) from None
    except ClientDisconnect:
        raise RequestError(_LEFT, "gone", "the client has gone away") from None
    return b"".join(parts)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_of(value), status, headers, "application/json")


def _is_here(request: Request) -> bool:
    """Whether a request comes from this machine itself, and not through a proxy on it."""
    if request.client is None or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


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
        body = json_of({"error": msg, "code": "invalid"})
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
        self._context = None if credentials.paths[0] is None else _context(credentials)
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
            # What does not fit together would leave the context without a key.
            _context(self._credentials)
            _load(self._context, self._credentials)
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
    made = socket.socket(family, socket.SOCK_STREAM)
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


def _context(credentials: Credentials) -> ssl.SSLContext:
    """What TLS needs. Raises ConfigError where the files are none for that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if credentials.paths[2] is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, credentials)
    return context


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
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
            context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use '{authority}' for TLS: {error}") from None
