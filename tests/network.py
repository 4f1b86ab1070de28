"""A network that breaks: a proxy on loopback, before a real server, that does to some request what networks do."""

import contextlib
import http.client
import socket
import struct
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
# How long a client that a test sends through the network waits for more, in seconds.
READ_TIMEOUT = 2


class Network:
    """Passes requests on to a server, but for the faults that are asked for; `struck` says which have happened."""

    def __init__(self, server):
        self._server = urllib.parse.urlsplit(server).netloc
        self._faults = []
        self._lock = threading.Lock()
        self.struck = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", lambda handler: self._serve(handler))
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._proxy.daemon_threads = True
        self._thread = threading.Thread(target=self._proxy.serve_forever, args=(0.05,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._proxy.server_port}"

    def breaks(self, kind, method, ending, times=1):
        """The next such requests for a path with this ending meet a fault.

        `kind` is `reset before` (half of the upload has come), `reset after` (the server has done it, and its answer is
        lost), `reset within` (half of the answer has come), `busy` (503), `denied` (403), or `stalled` (the second half
        of the answer does not come while the client waits).
        """
        self._faults.append([kind, method, ending, times])

    def calm(self):
        """No fault is to come any more."""
        self._faults.clear()

    def close(self):
        self._proxy.shutdown()
        self._proxy.server_close()
        self._thread.join()

    def _fault(self, method, path):
        with self._lock:
            for fault in self._faults:
                kind, its_method, ending, times = fault
                if times and its_method == method and path.endswith(ending):
                    fault[3] -= 1
                    self.struck.append(kind)
                    return kind
        return None

    def _serve(self, handler):
        kind = self._fault(handler.command, urllib.parse.urlsplit(handler.path).path)
        length = int(handler.headers.get("Content-Length", 0))
        if kind == "reset before":
            handler.rfile.read(length // 2)
            return _reset(handler)
        body = handler.rfile.read(length)
        if kind in ("busy", "denied"):
            return _answer(handler, *((503, SLOW_DOWN) if kind == "busy" else (403, DENIED)))
        status, headers, content = self._ask(handler, body)
        if kind == "reset after":
            return _reset(handler)
        handler.send_response_only(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        half = len(content) // 2
        handler.wfile.write(content[:half])
        if kind == "reset within":
            return _reset(handler)
        if kind == "stalled":
            time.sleep(2 * READ_TIMEOUT)
        with contextlib.suppress(OSError):
            handler.wfile.write(content[half:])

    def _ask(self, handler, body):
        # The client has signed the host that it knows, which is this proxy's.
        server = http.client.HTTPConnection(self._server, timeout=60)
        with contextlib.closing(server):
            server.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in ("connection", "expect"):
                    server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            content = answer.read()
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in ("connection", "transfer-encoding")]
        if handler.command != "HEAD":
            headers = [(n, v) for n, v in headers if n.lower() != "content-length"]
            headers.append(("Content-Length", str(len(content))))
        return answer.status, headers, content


def _answer(handler, status, content):
    handler.send_response_only(status)
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def _reset(handler):
    """End the connection with a RST."""
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
