"""The server of a played endpoint: HTTP/1.1 on loopback, a thread for each connection, and a record of all requests."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.endpoint.acts import Act, act_of, limited, ok
from tests.endpoint.exchange import Exchange, GoneError, Request, received
from tests.endpoint.form import Call, Form
from tests.endpoint.forms import form_of
from tests.endpoint.openai_forms import OpenAI

KEY = "sk-played-0123456789abcdef"

Script = Sequence[Act | str] | Callable[[Request], Act | str | None]


class Endpoint:
    """A provider on loopback. Its attributes may be changed while it runs.

    Args:
        key: the key that requests need; None takes any, and none.
        dimensions: how long vectors are, if a request does not say; by default as the model's are, or 64.
        delay: how long a good answer takes, in seconds.
        most_at_once: further requests at the same time are answered by 429.
        models: the models that exist; by default all.
        refuses: a request with this in one of its texts is answered by 400.
        acts: what happens to which request: a list, followed by good answers, or a function of the request.
        most_texts: instead of the provider's limit on texts of a request.
        most_tokens: instead of its limit on their tokens.
        keeps: whether requests are kept in `requests`, or only counted.
        port: by default, a free one.
    """

    def __init__(
        self,
        *,
        key: str | None = KEY,
        dimensions: int | None = None,
        delay: float = 0,
        most_at_once: int | None = None,
        models: Sequence[str] | None = None,
        refuses: str = "",
        acts: Script = (),
        most_texts: int | None = None,
        most_tokens: int | None = None,
        keeps: bool = True,
        port: int = 0,
    ) -> None:
        self.key, self.dimensions, self.delay, self.most_at_once = key, dimensions, delay, most_at_once
        self.models, self.refuses, self.acts, self.keeps = models, refuses, acts, keeps
        self.most_texts, self.most_tokens = most_texts, most_tokens
        self.requests: list[Request] = []
        self.connections = 0
        self.is_closed = False
        self._lock = threading.Lock()
        self._now = 0
        self._sums = dict.fromkeys(("requests", "texts", "at_once"), 0)
        self._open: dict[socket.socket, threading.Thread] = {}
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="played endpoint", daemon=True)
        self._accepting.start()

    def url(self, form: str = "") -> str:
        """Where a client of a provider has to look: without a name, the root."""
        paths = {"openai": "/v1", "voyage": "/voyage/v1", "jina": "/jina/v1", "gemini": "/v1beta"}
        return f"http://127.0.0.1:{self.port}{paths.get(form, '')}"

    @property
    def sent(self) -> list[str]:
        """All texts that have arrived, in the order of their requests."""
        return [text for request in list(self.requests) for text in request.texts]

    @property
    def answered(self) -> list[str]:
        """The texts whose vectors have left."""
        return [text for request in list(self.requests) if request.answered for text in request.texts]

    @property
    def sums(self) -> Mapping[str, int]:
        """How many requests and texts there were, and the most requests at once."""
        return dict(self._sums)

    def forget(self) -> None:
        """Begin the record, and the list of acts, anew."""
        with self._lock:
            self.requests = []
            self._sums = dict.fromkeys(self._sums, 0)

    def close(self) -> None:
        """End all connections, and wait for their threads."""
        self.is_closed = True
        # Only a shutdown wakes a thread that waits for the socket.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            still = list(self._open.items())
        for connection, _ in still:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in still:
            thread.join()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def checked(self, request: Request, form: Form) -> Call:
        """The call of a request, if its key, its model and its size are right.

        Raises:
            RefusedError: they are not.
        """
        key = form.key(request.headers)
        if self.key is not None and key != self.key and (key or form.needs_key):
            raise form.wrong_key(key)
        if request.refusal:
            raise request.refusal
        call = request.call
        if self.models is not None and call.model not in self.models:
            raise form.no_model(call.model)
        form.check_size(call, self.most_texts or form.most_texts, self.most_tokens or form.most_tokens)
        if self.refuses and any(self.refuses in text for text in call.texts):
            raise form.refused_text()
        return call

    def leave(self, request: Request) -> None:
        """Note that a request is no longer being answered."""
        with self._lock:
            if request.began and request.ended is None:
                request.ended = time.monotonic()
                self._now -= 1

    def _accept(self) -> None:
        while not self.is_closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                thread = threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True)
                self.connections += 1
                self._open[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, connection.makefile("rb") as stream, contextlib.suppress(GoneError, OSError, ValueError):
                while not self.is_closed and self._serve_one(connection, stream, number):
                    pass
        finally:
            with self._lock:
                self._open.pop(connection, None)

    def _serve_one(self, connection: socket.socket, stream, number: int) -> bool:
        """Answer the next request; False once the connection has ended."""
        request = received(connection, stream, number)
        if request is None:
            return False
        form, names = form_of(request.path) or (OpenAI(), None)
        exchange = Exchange(self, connection, request, form)
        if request.path == "/played":
            exchange.send(200, json.dumps(self._sums).encode())
        elif names is None or request.method != "POST":
            exchange.send_error(404, f"Invalid URL ({request.method} {request.path})")
        else:
            request.read(form, names)
            with self._recorded(request):
                self._act(exchange)
        return exchange.is_open and request.headers.get("connection", "").lower() != "close"

    def _act(self, exchange: Exchange) -> None:
        request = exchange.request
        act = self._due(request)
        if self.most_at_once is not None and request.at_once > self.most_at_once:
            act = limited()
        request.act = act.name
        act(exchange)

    def _due(self, request: Request) -> Act:
        if callable(self.acts):
            return act_of(self.acts(request) or ok())
        return act_of(self.acts[request.number]) if request.number < len(self.acts) else ok()

    @contextlib.contextmanager
    def _recorded(self, request: Request) -> Iterator[None]:
        with self._lock:
            self._now += 1
            request.began, request.at_once = time.monotonic(), self._now
            request.number = self._sums["requests"]
            self._sums["requests"] += 1
            self._sums["texts"] += len(request.texts)
            self._sums["at_once"] = max(self._sums["at_once"], self._now)
            if self.keeps:
                self.requests.append(request)
        try:
            yield
        finally:
            self.leave(request)
