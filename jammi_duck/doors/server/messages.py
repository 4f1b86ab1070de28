"""The messages of Arrow Flight and Flight SQL, described by hand.

Names and numbers are those of the public definitions Flight.proto and FlightSql.proto of Apache Arrow. Their pool is
our own, so that another package in the process may have the same messages.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_FLIGHT = "arrow.flight.protocol"
_SQL = "arrow.flight.protocol.sql"
# A line is a message, then its fields: a name, a type and a number. `?` marks fields that tell unset from empty, `*`
# those that repeat, `|` those of which one is set. An enumeration is a number here.
_FLIGHT_MESSAGES = """
HandshakeRequest: protocol_version uint64 1, payload bytes 2
HandshakeResponse: protocol_version uint64 1, payload bytes 2
BasicAuth: username string 2, password string 3
Criteria: expression bytes 1
ActionType: type string 1, description string 2
Action: type string 1, body bytes 2
Result: body bytes 1
SchemaResult: schema bytes 1
FlightDescriptor: type int32 1, cmd bytes 2, path string* 3
Timestamp: seconds int64 1, nanos int32 2
Ticket: ticket bytes 1
Location: uri string 1
FlightEndpoint: ticket Ticket 1, location Location* 2, expiration_time Timestamp 3, app_metadata bytes 4
FlightInfo: schema bytes 1, flight_descriptor FlightDescriptor 2, endpoint FlightEndpoint* 3, total_records int64 4, \
total_bytes int64 5, ordered bool 6, app_metadata bytes 7
FlightData: flight_descriptor FlightDescriptor 1, data_header bytes 2, app_metadata bytes 3, data_body bytes 1000
PutResult: app_metadata bytes 1
CancelFlightInfoRequest: info FlightInfo 1
CancelFlightInfoResult: status int32 1
StringListValue: values string* 1
SessionOptionValue: string_value string| 1, bool_value bool| 2, int64_value sfixed64| 3, double_value double| 4, \
string_list_value StringListValue| 5
SessionOption: key string 1, value SessionOptionValue 2
SetSessionOptionsRequest: session_options SessionOption* 1
SessionError: value int32 1
NamedSessionError: key string 1, value SessionError 2
SetSessionOptionsResult: errors NamedSessionError* 1
GetSessionOptionsRequest:
GetSessionOptionsResult: session_options SessionOption* 1
CloseSessionRequest:
CloseSessionResult: status int32 1
"""
_SQL_MESSAGES = """
CommandGetSqlInfo: info uint32* 1
CommandGetXdbcTypeInfo: data_type int32? 1
CommandGetCatalogs:
CommandGetDbSchemas: catalog string? 1, db_schema_filter_pattern string? 2
CommandGetTables: catalog string? 1, db_schema_filter_pattern string? 2, table_name_filter_pattern string? 3, \
table_types string* 4, include_schema bool 5
CommandGetTableTypes:
CommandGetPrimaryKeys: catalog string? 1, db_schema string? 2, table string 3
CommandGetExportedKeys: catalog string? 1, db_schema string? 2, table string 3
CommandGetImportedKeys: catalog string? 1, db_schema string? 2, table string 3
CommandGetCrossReference: pk_catalog string? 1, pk_db_schema string? 2, pk_table string 3, fk_catalog string? 4, \
fk_db_schema string? 5, fk_table string 6
CommandStatementQuery: query string 1, transaction_id bytes? 2
CommandStatementUpdate: query string 1, transaction_id bytes? 2
CommandPreparedStatementQuery: prepared_statement_handle bytes 1
CommandPreparedStatementUpdate: prepared_statement_handle bytes 1
CommandStatementSubstraitPlan:
CommandStatementIngest:
TicketStatementQuery: statement_handle bytes 1
ActionCreatePreparedStatementRequest: query string 1, transaction_id bytes? 2
ActionCreatePreparedStatementResult: prepared_statement_handle bytes 1, dataset_schema bytes 2, parameter_schema bytes 3
ActionClosePreparedStatementRequest: prepared_statement_handle bytes 1
ActionCancelQueryRequest: info bytes 1
ActionCancelQueryResult: result int32 1
DoPutUpdateResult: record_count int64 1
DoPutPreparedStatementResult: prepared_statement_handle bytes? 1
"""
_TYPES = {
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "sfixed64": FieldDescriptorProto.TYPE_SFIXED64,
}
_ANY = "type.googleapis.com"


def _file(name: str, package: str, messages: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for line in messages.strip().splitlines():
        message, _, fields = line.partition(":")
        described = file.message_type.add(name=message)
        for field in filter(None, fields.strip().split(", ")):
            _add_field(described, package, *field.split())
    return file


def _add_field(message: DescriptorProto, package: str, name: str, kind: str, number: str) -> None:
    plain = kind.rstrip("?*|")
    field = message.field.add(name=name, number=int(number))
    field.label = FieldDescriptorProto.LABEL_REPEATED if kind.endswith("*") else FieldDescriptorProto.LABEL_OPTIONAL
    if plain in _TYPES:
        field.type = _TYPES[plain]
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{plain}"
    if kind.endswith("?"):
        field.oneof_index, field.proto3_optional = len(message.oneof_decl), True
        message.oneof_decl.add(name=f"_{name}")
    elif kind.endswith("|"):
        field.oneof_index = 0
        if not message.oneof_decl:
            message.oneof_decl.add(name="one_of")


_pool = DescriptorPool()
_pool.Add(_file("flight", _FLIGHT, _FLIGHT_MESSAGES))
_pool.Add(_file("flight_sql", _SQL, _SQL_MESSAGES))
_pool.Add(_file("any", "google.protobuf", "Any: type_url string 1, value bytes 2"))


def _class(package: str, name: str) -> Any:  # noqa: ANN401 - protobuf makes it
    return GetMessageClass(_pool.FindMessageTypeByName(f"{package}.{name}"))


def _classes(package: str, messages: str) -> dict[str, Any]:
    names = [line.partition(":")[0] for line in messages.strip().splitlines()]
    return {name: _class(package, name) for name in names}


FLIGHT = _classes(_FLIGHT, _FLIGHT_MESSAGES)
FLIGHT_SQL = _classes(_SQL, _SQL_MESSAGES)
_AnyMessage = _class("google.protobuf", "Any")


def packed(message: Any) -> bytes:  # noqa: ANN401
    """A message of Flight SQL within an `Any`, as bytes."""
    name = f"{_ANY}/{message.DESCRIPTOR.full_name}"
    return bytes(_AnyMessage(type_url=name, value=message.SerializeToString()).SerializeToString())


def unpacked(content: bytes) -> Any:  # noqa: ANN401
    """The message of Flight SQL that an `Any` contains; None where these bytes are no `Any` of one.

    Raises:
        google.protobuf.message.DecodeError: it is an `Any` of one, and what it contains is damaged.
    """
    from google.protobuf.message import DecodeError

    any_message = _AnyMessage()
    try:
        any_message.ParseFromString(content)
    except DecodeError:
        return None
    _, slash, name = any_message.type_url.rpartition("/")
    package, _, short = name.rpartition(".")
    if not slash or package != _SQL or short not in FLIGHT_SQL:
        return None
    message = FLIGHT_SQL[short]()
    message.ParseFromString(any_message.value)
    return message
