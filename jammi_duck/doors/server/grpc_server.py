"""The server for gRPC, which answers with Flight SQL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import Message

from jammi_duck.config.logs import log
from jammi_duck.doors.server.codes import code_of
from jammi_duck.doors.server.flight import Call, FlightSql, parsed
from jammi_duck.doors.server.service import Service
from jammi_duck.errors import ConfigError

_SERVICE = "/arrow.flight.protocol.FlightService/"
_MOST_MESSAGE = 16 << 20
# Calls that run no query, such as those for the catalog.
_SPARE_THREADS = 16


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The calls of gRPC, each with what it takes and gives."""

    def __init__(self, flight: FlightSql, service: Service) -> None:
        self._service = service

        def unary(name: str, request: str, answer: Callable[[Call, Any], Any]) -> None:
            def run(content: bytes, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
                with self._answering(context):
                    return answer(flight.call(context), parsed(request, content))

            self._known[_SERVICE + name] = grpc.unary_unary_rpc_method_handler(run, response_serializer=_serialized)

        def stream(name: str, request: str, answer: Callable[[Call, Any], Iterator[Any]]) -> None:
            def run(content: bytes, context: grpc.ServicerContext) -> Iterator[Any]:
                with self._answering(context):
                    yield from answer(flight.call(context), parsed(request, content))

            self._known[_SERVICE + name] = grpc.unary_stream_rpc_method_handler(run, response_serializer=_serialized)

        def both(
            name: str, request: str, answer: Callable[[grpc.ServicerContext, Iterator[Any]], Iterator[Any]]
        ) -> None:
            def run(contents: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
                with self._answering(context):
                    yield from answer(context, (parsed(request, content) for content in contents))

            self._known[_SERVICE + name] = grpc.stream_stream_rpc_method_handler(run, response_serializer=_serialized)

        self._known: dict[str, grpc.RpcMethodHandler] = {}
        unary("GetFlightInfo", "FlightDescriptor", flight.flight_info)
        unary("GetSchema", "FlightDescriptor", flight.schema)
        stream("DoGet", "Ticket", flight.get)
        stream("DoAction", "Action", flight.act)
        stream("ListActions", "Criteria", lambda call, _: flight.actions())
        stream("ListFlights", "Criteria", lambda call, _: iter(()))
        both("DoPut", "FlightData", lambda context, messages: flight.put(flight.call(context), messages))
        both("Handshake", "HandshakeRequest", flight.handshake)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """See `grpc.GenericRpcHandler`."""
        return self._known.get(details.method)

    @contextlib.contextmanager
    def _answering(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Count a call, and let its errors reach the client by their codes."""
        self._service.metrics.grpc_requests.inc()
        try:
            yield
        except GeneratorExit:
            raise
        except Exception as error:
            code = grpc.StatusCode[code_of(error).grpc]
            if code is grpc.StatusCode.INTERNAL:
                log.exception("a call over gRPC failed")
            context.abort(code, str(error) or type(error).__name__)


def _serialized(answer: Any) -> bytes:  # noqa: ANN401
    if isinstance(answer, Message):
        return bytes(answer.SerializeToString())
    return bytes(answer)


def grpc_server(service: Service, address: str, credentials: grpc.ServerCredentials | None) -> tuple[grpc.Server, int]:
    """A server for Flight SQL at this address, which answers from `start()` on, and its port.

    Raises:
        ConfigError: the address is in use, or is none of this machine.
    """
    most = service.config.max_queries + service.config.max_waiting + _SPARE_THREADS
    server = grpc.server(
        ThreadPoolExecutor(most, thread_name_prefix="jammi-flight"),
        handlers=[_Handlers(FlightSql(service), service)],
        maximum_concurrent_rpcs=most,
        options=[
            ("grpc.max_receive_message_length", _MOST_MESSAGE),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigError(f"cannot listen on {address} ([server] flight_listen): it is in use, or not of this machine")
    return server, port
