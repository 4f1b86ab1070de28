"""The life of a server: it starts, gets ready, answers, and ends without breaking off what runs."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc

from jammi_duck.config.logs import log
from jammi_duck.config.options import Config
from jammi_duck.doors.server.grpc_server import grpc_server
from jammi_duck.doors.server.identity import Gate
from jammi_duck.doors.server.quack import Quack, refuse_open_quack
from jammi_duck.doors.server.service import Service
from jammi_duck.errors import ConfigError

_LAST_SECONDS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(config: Config, *, wait: timedelta = timedelta(0), ready: Callable[[str], None] = lambda where: None) -> int:
    """Serve until a signal comes; returns the exit code.

    While another process has the database open, it is tried again for as long as `wait`. `ready` is called once clients
    may come, with where they find the server.

    Raises:
        ConfigError: an address cannot be had, or anybody could come in from outside without a token.
        ModelError, NotFoundError, StorageError: a model or the database cannot be had.
    """
    refuse_open_doors(config)
    refuse_open_quack(config)
    quack = None if config.quack_listen is None else Quack(config.quack_listen)
    # In the log, a warning is a line like all others.
    warnings.filterwarnings("ignore", "Arrow output on a DB-API result")
    warnings.showwarning = lambda message, *_: log.warning("%s", message)
    ending, at_once = threading.Event(), threading.Event()

    def stop(number: int, frame: object) -> None:
        (at_once if ending.is_set() else ending).set()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        credentials = Credentials(config)
        gate = Gate(config.tokens, open_to_all=not config.tokens or config.allow_anonymous)
        service = Service(config, gate, wait=wait)
        hang_up = signal.signal(signal.SIGHUP, lambda number, frame: credentials.read_again())
        try:
            return _run(service, credentials, quack, ending, at_once, ready)
        finally:
            signal.signal(signal.SIGHUP, hang_up)
            service.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(
    service: Service,
    credentials: Credentials,
    quack: Quack | None,
    ending: threading.Event,
    at_once: threading.Event,
    ready: Callable[[str], None],
) -> int:
    from jammi_duck.doors.server.http_server import HttpServer

    config = service.config
    flight, port = grpc_server(service, config.flight_listen, credentials.of_grpc())
    http = HttpServer(service, config.http_listen, credentials)
    if quack is not None:
        quack.start(service)
    flight.start()
    http.start()
    _tell_systemd("READY=1")
    where = f"Flight SQL on {_at(config.flight_listen, port)}, HTTP on {_at(config.http_listen, http.port)}"
    if quack is not None:
        where += f", Quack on {config.quack_listen}"
    log.info("serving %s", where)
    ready(where)
    # A wait without a limit would not be interrupted by signals on every platform.
    while not ending.wait(1):
        pass
    _tell_systemd("STOPPING=1")
    log.info("ending; queries that run have %g s", config.drain.total_seconds())
    drained = threading.Thread(target=service.drain, args=[config.drain.total_seconds()], daemon=True)
    drained.start()
    while drained.is_alive() and not at_once.is_set():
        drained.join(0.1)
    if at_once.is_set():
        service.drain(0)
    # What has ended its query still has its answer to send.
    flight.stop(_LAST_SECONDS).wait(2 * _LAST_SECONDS)
    http.stop()
    if quack is not None:
        quack.stop()
    log.info("the server has ended")
    return 0


def _at(address: str, port: int) -> str:
    """An address with the port that it really has, where any was asked for."""
    return f"{address.rpartition(':')[0]}:{port}"


def refuse_open_doors(config: Config) -> None:
    """Raise ConfigError where the server would let anybody in from other machines."""
    if config.tokens is not None or config.allow_anonymous or config.tls_client_ca is not None:
        return
    for name, address in (("flight_listen", config.flight_listen), ("http_listen", config.http_listen)):
        if not _is_loopback(address):
            raise ConfigError(
                f"[server] {name} = '{address}' lets in anybody who reaches this machine: name a file with [server] "
                "tokens (`jammi-duck token add NAME` makes it), or, in a private network, set [server] allow_anonymous "
                "= true"
            )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Credentials:
    """The PEM files for TLS, which are read again on SIGHUP."""

    def __init__(self, config: Config) -> None:
        """Read them. Raises ConfigError where one is missing or cannot be read."""
        self._paths = config.tls_certificate, config.tls_key, config.tls_client_ca
        certificate, key, authority = self._paths
        if (certificate is None) != (key is None):
            raise ConfigError("[server] tls_certificate and tls_key belong together: set both, or neither")
        if authority is not None and certificate is None:
            raise ConfigError("[server] tls_client_ca needs tls_certificate and tls_key, too")
        self.changed = threading.Event()
        self.files = self._read()
        self._used: object = self.files

    @property
    def paths(self) -> tuple[Path | None, Path | None, Path | None]:
        """The files: certificates, key, and whose certificates clients must have."""
        return self._paths

    def _read(self) -> tuple[bytes | None, ...]:
        return tuple(None if path is None else _content(path) for path in self._paths)

    def read_again(self) -> None:
        """Read the files again; where that fails, what was read before stays in use."""
        try:
            self.files = self._read()
            log.info("the certificates were read again")
        except ConfigError as error:
            log.error("the certificates stay as they were: %s", error)
        self.changed.set()

    def of_grpc(self) -> grpc.ServerCredentials | None:
        """Credentials that follow the files; None without TLS."""
        if self._paths[0] is None:
            return None

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            if self.files is self._used:
                return None
            self._used = self.files
            return self._configuration()

        is_mutual = self._paths[2] is not None
        return grpc.dynamic_ssl_server_credentials(self._configuration(), fetch, is_mutual)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, authority = self.files
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read '{path}' for TLS: {error.strerror}") from None


def _tell_systemd(state: str) -> None:
    """Tell systemd, where it has started the server, how it is; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.sendto(state.encode(), address)
    except OSError as error:
        log.warning("cannot tell systemd: %s", error.strerror)
