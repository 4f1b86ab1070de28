"""What the calls of Arrow Flight SQL do."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any

import grpc
import pyarrow as pa

from jammi_duck.doors.server.admission import GoneError
from jammi_duck.doors.server.catalogue import Catalogue
from jammi_duck.doors.server.codes import UnsupportedCallError
from jammi_duck.doors.server.identity import Visitor, token_in
from jammi_duck.doors.server.messages import FLIGHT, FLIGHT_SQL, packed, unpacked
from jammi_duck.doors.server.parameters import MOST_BYTES, kinds_of, rows_of
from jammi_duck.doors.server.service import Query, Service
from jammi_duck.doors.server.sessions import Kept, Prepared, Session
from jammi_duck.doors.server.statements import parameter_schema, statement_of
from jammi_duck.doors.server.streams import flight_info, received, schema_bytes, stream_data
from jammi_duck.errors import DeniedError, InputError, NotFoundError
from jammi_duck.raised import errors_of_ours

_COOKIE = "arrow_flight_session_id"
_MOST_PREPARED = 10_000
_MOST_SESSIONS = 10_000
_ACTIONS = {
    "CreatePreparedStatement": "Prepares a statement, and gives its handle.",
    "ClosePreparedStatement": "Forgets a prepared statement.",
    "CancelQuery": "Stops a query.",
    "CancelFlightInfo": "Stops a query.",
    "SetSessionOptions": "Sets the catalog or the schema of the session.",
    "GetSessionOptions": "Tells the options of the session.",
    "CloseSession": "Ends the session.",
}
_TRANSACTIONS = ("BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint")
_CANCELLED, _NOT_CANCELLABLE = 1, 3
_CLOSED = 1
_INVALID_NAME, _INVALID_VALUE = 1, 2


@dataclass
class Call:
    """A call of a client: who it is, and what it has sent with it."""

    context: grpc.ServicerContext
    visitor: Visitor
    session_id: str | None
    session: Session | None


class FlightSql:
    """Answers the calls of Flight SQL."""

    def __init__(self, service: Service) -> None:
        """For one service."""
        self._service = service
        self._catalogue = Catalogue(service)
        idle = service.config.idle_timeout.total_seconds()
        self._prepared = Kept(_MOST_PREPARED, idle)
        self._sessions = Kept(_MOST_SESSIONS, idle)
        # Queries that were stopped before they were fetched.
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    # What a client asks for.

    def flight_info(self, call: Call, descriptor: Any) -> Any:  # noqa: ANN401
        """Where the answer to a command is, and its columns. Nothing runs yet."""
        command = self._command(descriptor)
        if isinstance(command, str):
            return self._query_info(call, descriptor, command)
        name = command.DESCRIPTOR.name
        if name == "CommandStatementQuery":
            self._refuse_transaction(command)
            return self._query_info(call, descriptor, command.query)
        if name == "CommandPreparedStatementQuery":
            prepared = self._prepared_of(call, command.prepared_statement_handle)
            query = Query(prepared.statement, call.visitor, prepared.rows, prepared.kinds, prepared.path)
            ticket = _ticket(query.id, b"p", command.prepared_statement_handle)
            return flight_info(self._schema(call, query), descriptor, ticket)
        return flight_info(self._catalogue.schema(command), descriptor, descriptor.cmd)

    def _query_info(self, call: Call, descriptor: Any, text: str) -> Any:  # noqa: ANN401
        query = Query(statement_of(text), call.visitor, path=self._path(call))
        return flight_info(self._schema(call, query), descriptor, _ticket(query.id, b"s", text.encode()))

    def schema(self, call: Call, descriptor: Any) -> Any:  # noqa: ANN401
        """The columns of the answer to a command."""
        return FLIGHT["SchemaResult"](schema=self.flight_info(call, descriptor).schema)

    def get(self, call: Call, ticket: Any) -> Iterator[bytes]:  # noqa: ANN401
        """The rows of an answer."""
        command = unpacked(ticket.ticket)
        if command is None:
            # As in a descriptor, a statement itself.
            yield from self._run(call, Query(statement_of(_text(ticket.ticket)), call.visitor, path=self._path(call)))
        elif command.DESCRIPTOR.name == "TicketStatementQuery":
            yield from self._run(call, self._ticketed(call, command.statement_handle))
        else:
            with errors_of_ours():
                table = self._catalogue.table(command, call.visitor)
            yield from stream_data(table.schema, table.to_batches())

    def _ticketed(self, call: Call, handle: bytes) -> Query:
        kind, id, rest = handle[:1], handle[1:33].decode("ascii", "replace"), handle[33:]
        if id in self._cancelled:
            raise GoneError("the query was cancelled")
        if kind == b"s":
            query = Query(statement_of(_text(rest)), call.visitor, path=self._path(call))
        elif kind == b"p":
            prepared = self._prepared_of(call, rest)
            query = Query(prepared.statement, call.visitor, prepared.rows, prepared.kinds, prepared.path)
        else:
            raise InputError("the ticket is not one of this server")
        query.id = id
        return query

    def _run(self, call: Call, query: Query) -> Iterator[bytes]:
        self._service.metrics.flight_queries.inc()
        query.hang_up = call.context.cancel
        answer = self._service.answer(query, lambda: not call.context.is_active())
        with self._stopped_with(call, query), answer as (schema, batches):
            yield from stream_data(schema, batches)

    @contextlib.contextmanager
    def _stopped_with(self, call: Call, query: Query) -> Iterator[None]:
        """Stop a query once its client is gone."""
        is_over = threading.Event()

        def gone() -> None:
            if not is_over.is_set():
                self._service.stop(query, GoneError("the client has gone away"))

        if not call.context.add_callback(gone):
            raise GoneError("the client has gone away")
        try:
            yield
        finally:
            is_over.set()

    def _schema(self, call: Call, query: Query) -> pa.Schema:
        with self._stopped_with(call, query):
            return self._service.schema(query)

    def put(self, call: Call, messages: Iterator[Any]) -> Iterator[Any]:
        """Take the parameters of a prepared statement. Raises DeniedError for what would write."""
        first = next(messages, None)
        if first is None:
            raise InputError("a stream without a descriptor")
        command = self._command(first.flight_descriptor)
        name = "" if isinstance(command, str) else command.DESCRIPTOR.name
        if name == "CommandPreparedStatementQuery":
            prepared = self._prepared_of(call, command.prepared_statement_handle)
            table = received(_chain(first, messages), MOST_BYTES)
            prepared.rows = rows_of(table, prepared.statement)
            prepared.kinds = kinds_of(table, prepared.statement)
            handle = command.prepared_statement_handle
            result = FLIGHT_SQL["DoPutPreparedStatementResult"](prepared_statement_handle=handle)
            yield FLIGHT["PutResult"](app_metadata=result.SerializeToString())
            return
        for _ in messages:
            pass
        if name in ("CommandStatementUpdate", "CommandPreparedStatementUpdate"):
            if name == "CommandStatementUpdate":
                # The reason for a statement that is none, or that writes.
                statement_of(command.query)
            raise InputError("the statement gives rows: send it as a query, and not as an update")
        if name == "CommandStatementIngest":
            raise DeniedError("the server takes no rows: it only reads")
        raise UnsupportedCallError(f"the server takes no {name or 'such command'}")

    def act(self, call: Call, action: Any) -> Iterator[Any]:  # noqa: ANN401
        """Carry out an action."""
        body = action.body
        if action.type in _TRANSACTIONS or action.type == "CreatePreparedSubstraitPlan":
            raise UnsupportedCallError(
                "the server has no transactions, and takes no Substrait plans: each query sees one state"
            )
        if action.type not in _ACTIONS:
            raise UnsupportedCallError(f"the server has no action '{action.type}'")
        if action.type == "CreatePreparedStatement":
            result = packed(self._prepare(call, unpacked_as(body, "ActionCreatePreparedStatementRequest")))
        elif action.type == "ClosePreparedStatement":
            handle = unpacked_as(body, "ActionClosePreparedStatementRequest").prepared_statement_handle
            if self._prepared.use(handle, call.visitor.name) is not None:
                self._prepared.pop(handle, None)
            return
        elif action.type == "CancelQuery":
            info = parsed("FlightInfo", unpacked_as(body, "ActionCancelQueryRequest").info)
            result = packed(FLIGHT_SQL["ActionCancelQueryResult"](result=self._cancel(call, info)))
        elif action.type == "CancelFlightInfo":
            info = parsed("CancelFlightInfoRequest", body).info
            result = FLIGHT["CancelFlightInfoResult"](status=self._cancel(call, info)).SerializeToString()
        elif action.type == "SetSessionOptions":
            result = self._set_options(call, parsed("SetSessionOptionsRequest", body)).SerializeToString()
        elif action.type == "GetSessionOptions":
            result = self._options(call).SerializeToString()
        else:
            if call.session_id is not None:
                self._sessions.pop(call.session_id.encode(), None)
            result = FLIGHT["CloseSessionResult"](status=_CLOSED).SerializeToString()
        yield FLIGHT["Result"](body=result)

    def actions(self) -> Iterator[Any]:
        """The actions that there are."""
        for name, about in _ACTIONS.items():
            yield FLIGHT["ActionType"](type=name, description=about)

    # The parts of these.

    def _command(self, descriptor: Any) -> Any:  # noqa: ANN401
        """The command of a descriptor: a message, or the text of a statement."""
        if not descriptor.cmd:
            raise InputError("the descriptor has no command; send SQL, or a command of Flight SQL")
        command = unpacked(descriptor.cmd)
        return _text(descriptor.cmd) if command is None else command

    def _refuse_transaction(self, command: Any) -> None:  # noqa: ANN401
        if command.HasField("transaction_id") and command.transaction_id:
            raise UnsupportedCallError("the server has no transactions")

    def _prepare(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        self._refuse_transaction(request)
        statement = statement_of(request.query)
        path = self._path(call)
        schema = self._schema(call, Query(statement, call.visitor, path=path))
        handle = secrets.token_bytes(16)
        self._prepared.keep(handle, Prepared(statement, call.visitor.name, path))
        return FLIGHT_SQL["ActionCreatePreparedStatementResult"](
            prepared_statement_handle=handle,
            dataset_schema=schema_bytes(schema),
            parameter_schema=schema_bytes(parameter_schema(statement)),
        )

    def _prepared_of(self, call: Call, handle: bytes) -> Prepared:
        found = self._prepared.use(handle, call.visitor.name)
        if not isinstance(found, Prepared):
            raise NotFoundError("there is no such prepared statement; it was closed, or not used for too long")
        return found

    def _cancel(self, call: Call, info: Any) -> int:  # noqa: ANN401
        """Stop the query of a FlightInfo; the number by which Flight SQL says what came of it."""
        status = _NOT_CANCELLABLE
        for endpoint in info.endpoint:
            ticket = unpacked(endpoint.ticket.ticket)
            if ticket is None or ticket.DESCRIPTOR.name != "TicketStatementQuery":
                continue
            id = ticket.statement_handle[1:33].decode("ascii", "replace")
            query = self._service.find(id)
            if query is not None and query.visitor.name != call.visitor.name:
                continue
            self._cancelled[id] = None
            while len(self._cancelled) > _MOST_PREPARED:
                self._cancelled.popitem(last=False)
            if query is not None:
                self._service.stop(query, GoneError("the query was cancelled"))
            status = _CANCELLED
        return status

    def _path(self, call: Call) -> str | None:
        """The search path of a session that has chosen a catalog or a schema."""
        options = call.session.options if call.session else {}
        # A token for some sources knows them by the names that it was given.
        if not options or call.visitor.sources is not None:
            return None
        return self._catalogue.path(options.get("catalog"), options.get("schema"))

    def _set_options(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        session = call.session
        if session is None:
            id = secrets.token_hex(16)
            session = Session(call.visitor.name)
            self._sessions.keep(id.encode(), session)
            call.context.send_initial_metadata([("set-cookie", f"{_COOKIE}={id}; HttpOnly")])
        errors = {}
        wanted = dict(session.options)
        for option in request.session_options:
            if option.key not in ("catalog", "schema"):
                errors[option.key] = _INVALID_NAME
            elif option.value.WhichOneof("one_of") is None:
                wanted.pop(option.key, None)
            elif option.value.WhichOneof("one_of") != "string_value":
                errors[option.key] = _INVALID_VALUE
            else:
                wanted[option.key] = option.value.string_value
        if wanted and not self._catalogue.has(call.visitor, wanted.get("catalog"), wanted.get("schema")):
            errors.update({key: _INVALID_VALUE for key in wanted if session.options.get(key) != wanted[key]})
        if not errors:
            session.options = wanted
        named = [
            FLIGHT["NamedSessionError"](key=key, value=FLIGHT["SessionError"](value=value))
            for key, value in errors.items()
        ]
        return FLIGHT["SetSessionOptionsResult"](errors=named)

    def _options(self, call: Call) -> Any:  # noqa: ANN401
        options = call.session.options if call.session else {}
        return FLIGHT["GetSessionOptionsResult"](
            session_options=[
                FLIGHT["SessionOption"](key=key, value=FLIGHT["SessionOptionValue"](string_value=value))
                for key, value in options.items()
            ]
        )

    def call(self, context: grpc.ServicerContext) -> Call:
        """Who calls. Raises UnknownError where that may not be."""
        metadata = {key: value for key, value in context.invocation_metadata()}
        authorization = metadata.get("authorization")
        visitor = self._service.gate.visitor(authorization if isinstance(authorization, str) else None)
        cookie = metadata.get("cookie")
        id: str | None = None
        if isinstance(cookie, str):
            with contextlib.suppress(Exception):
                found = SimpleCookie(cookie).get(_COOKIE)
                id = None if found is None else found.value
        session = None if id is None else self._sessions.use(id.encode(), visitor.name)
        return Call(context, visitor, id if session is not None else None, session)

    def handshake(self, context: grpc.ServicerContext, messages: Iterator[Any]) -> Iterator[Any]:
        """Give who sends a token by Basic the header to send it by from then on."""
        self.call(context)
        authorization = dict(context.invocation_metadata()).get("authorization")
        token = token_in(authorization) if isinstance(authorization, str) else None
        if token is not None:
            context.send_initial_metadata([("authorization", f"Bearer {token}")])
        yield FLIGHT["HandshakeResponse"]()


def _ticket(id: str, kind: bytes, rest: bytes) -> bytes:
    return packed(FLIGHT_SQL["TicketStatementQuery"](statement_handle=b"".join((kind, id.encode(), rest))))


def _chain(first: Any, others: Iterator[Any]) -> Iterator[Any]:  # noqa: ANN401
    yield first
    yield from others


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InputError("the command is neither SQL in UTF-8 nor a command of Flight SQL") from None


def parsed(name: str, content: bytes) -> Any:  # noqa: ANN401
    """A message of Flight. Raises DecodeError."""
    message = FLIGHT[name]()
    message.ParseFromString(content)
    return message


def unpacked_as(content: bytes, name: str) -> Any:  # noqa: ANN401
    """A message of Flight SQL within an `Any`. Raises InputError where it is another."""
    message = unpacked(content)
    if message is None or message.DESCRIPTOR.name != name:
        raise InputError(f"the body of this action must be a {name}")
    return message
