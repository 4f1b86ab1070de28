"""HTTP: health, metrics, embeddings, search, and their documentation."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jammi_duck.config.logs import log
from jammi_duck.doors.server import codes, docs_page, openapi
from jammi_duck.doors.server.admission import BusyError, GoneError
from jammi_duck.doors.server.codes import Code, code_of
from jammi_duck.doors.server.http_api import Caller, embeddings, json_of, search
from jammi_duck.doors.server.identity import Visitor
from jammi_duck.doors.server.metrics import CONTENT_TYPE
from jammi_duck.doors.server.service import Service
from jammi_duck.encoder import loaded
from jammi_duck.errors import DeniedError, JammiError
from jammi_duck.version import __version__

T = TypeVar("T")
# What a request does, on a thread.
_Work = Callable[[Service, Visitor, bytes, Caller], bytes]
_Endpoint = Callable[[Request], Awaitable[Response]]

_EMBEDDINGS, _SEARCH = "/v1/embeddings", "/v1/search"
_MOST_BYTES = {_EMBEDDINGS: 16 << 20, _SEARCH: 1 << 20}
# A body that is refused, but which a client would send to its end before it reads why.
_MOST_DRAINED = 64 << 20
_MOST_SCRAPES = 8
# Requests beyond those that run or wait for their turn.
_SPARE = 16
_READY_SECONDS = 2.0
_BODY_SECONDS = 30.0
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
_TABLES = "SELECT embedding_table, row_count, age FROM jammi_tables()"


class RequestError(JammiError):
    """A request that HTTP itself has a status for."""

    def __init__(self, code: Code, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})


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
        self._page, self._page_policy = docs_page.page(document)
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
            raise RequestError(codes.NOT_FOUND, "Not found")
        allowed, endpoint = self._routes[path]
        methods = (allowed, "HEAD") if allowed == "GET" else (allowed,)
        if method not in methods:
            text = f"{path} takes {' and '.join(methods)} only"
            raise RequestError(codes.METHOD_NOT_ALLOWED, text, {"allow": ", ".join(methods)})
        return endpoint

    def _failed(self, path: str, error: Exception) -> Response:
        code, headers = code_of(error), {}
        if isinstance(error, RequestError):
            code, headers = error.code, dict(error.headers)
        elif isinstance(error, GoneError) and self._service.is_ending:
            code = codes.ENDING
        text = str(error) or type(error).__name__
        if code is codes.INTERNAL:
            log.error("a request over HTTP failed", exc_info=error)
            text = "the server has failed; its log tells more"
        elif code is codes.UNAUTHENTICATED:
            headers["www-authenticate"] = "Bearer"
        elif code is codes.BUSY:
            headers["retry-after"] = "1"
        body: object = {"error": text, "code": code.word}
        if path == _EMBEDDINGS:
            body = {"error": {"message": text, "type": code.kind, "param": None, "code": code.word}}
        return _json(body, code.http, headers)

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
                return Response(status_code=codes.LEFT.http)
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
        text = "the body must be JSON: send Content-Type: application/json"
        raise RequestError(codes.UNSUPPORTED_MEDIA_TYPE, text)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        text = "the body must be sent as it is, without Content-Encoding"
        raise RequestError(codes.UNSUPPORTED_MEDIA_TYPE, text)
    declared = int(headers.get("content-length", "0"))
    closing = {"connection": "close"}
    too_large = f"the body is larger than {most >> 20} MiB"
    if declared > most:
        raise RequestError(codes.TOO_LARGE, too_large, closing if declared > _MOST_DRAINED else None)
    parts: list[bytes] = []
    total = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                total += len(part)
                if total > most:
                    raise RequestError(codes.TOO_LARGE, too_large, closing)
                parts.append(part)
    except TimeoutError:
        text = f"the body did not come within {_BODY_SECONDS:g} s"
        raise RequestError(codes.BODY_TIMEOUT, text, closing) from None
    except ClientDisconnect:
        raise RequestError(codes.LEFT, "the client has gone away") from None
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
