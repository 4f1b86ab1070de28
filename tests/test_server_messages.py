"""The messages of Flight and Flight SQL are those of the public definitions."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from jammi_duck.doors.server.messages import FLIGHT, FLIGHT_SQL, packed, unpacked

GOLDEN = Path(__file__).parent / "golden" / "flight_sql.json"
# One of each message, with every field set.
EXAMPLES = {
    "CommandGetSqlInfo": {"info": [0, 8, 576]},
    "CommandGetXdbcTypeInfo": {"data_type": -5},
    "CommandGetCatalogs": {},
    "CommandGetDbSchemas": {"catalog": "", "db_schema_filter_pattern": "m%"},
    "CommandGetTables": {
        "catalog": "my", "db_schema_filter_pattern": "main", "table_name_filter_pattern": "p_t%",
        "table_types": ["TABLE", "VIEW"], "include_schema": True,
    },
    "CommandGetTableTypes": {},
    "CommandGetPrimaryKeys": {"catalog": "my", "db_schema": "main", "table": "notes"},
    "CommandGetExportedKeys": {"catalog": "my", "db_schema": "main", "table": "notes"},
    "CommandGetImportedKeys": {"catalog": "my", "db_schema": "main", "table": "notes"},
    "CommandGetCrossReference": {
        "pk_catalog": "a", "pk_db_schema": "b", "pk_table": "c",
        "fk_catalog": "d", "fk_db_schema": "e", "fk_table": "f",
    },
    "CommandStatementQuery": {"query": "SELECT 'ä'", "transaction_id": b"t"},
    "CommandStatementUpdate": {"query": "DELETE FROM t", "transaction_id": b""},
    "CommandPreparedStatementQuery": {"prepared_statement_handle": b"\x00h"},
    "CommandPreparedStatementUpdate": {"prepared_statement_handle": b"\x00h"},
    "TicketStatementQuery": {"statement_handle": b"ticket"},
    "ActionCreatePreparedStatementRequest": {"query": "SELECT ?", "transaction_id": b"t"},
    "ActionCreatePreparedStatementResult": {
        "prepared_statement_handle": b"h", "dataset_schema": b"d", "parameter_schema": b"p",
    },
    "ActionClosePreparedStatementRequest": {"prepared_statement_handle": b"h"},
    "ActionCancelQueryRequest": {"info": b"i"},
    "ActionCancelQueryResult": {"result": 2},
    "DoPutUpdateResult": {"record_count": -1},
}  # fmt: skip


def test_bytes_are_the_golden_ones():
    golden = json.loads(GOLDEN.read_text())
    assert {name: packed(FLIGHT_SQL[name](**fields)).hex() for name, fields in EXAMPLES.items()} == golden


@pytest.mark.parametrize("name", EXAMPLES)
def test_another_implementation_has_the_same_bytes(name):
    theirs = pytest.importorskip("flightsql.flightsql_pb2")
    ours = FLIGHT_SQL[name](**EXAMPLES[name]).SerializeToString()
    other = getattr(theirs, name)(**EXAMPLES[name])
    assert ours == other.SerializeToString()
    assert {field.name: field.number for field in FLIGHT_SQL[name].DESCRIPTOR.fields} == {
        field.name: field.number for field in other.DESCRIPTOR.fields
    }


def test_flight_messages_are_those_of_arrow():
    schema = pa.schema([("a", pa.int32())])
    descriptor = flight.FlightDescriptor.for_command(b"SELECT 1")
    endpoints = [flight.FlightEndpoint(b"t", ["grpc://a:1"])]
    theirs = flight.FlightInfo(schema, descriptor, endpoints, 3, 4)
    ours = FLIGHT["FlightInfo"]()
    ours.ParseFromString(theirs.serialize())
    assert (ours.flight_descriptor.cmd, ours.flight_descriptor.type) == (b"SELECT 1", 2)
    assert [each.ticket.ticket for each in ours.endpoint] == [b"t"]
    assert (ours.total_records, ours.total_bytes) == (3, 4)
    assert flight.FlightInfo.deserialize(ours.SerializeToString()).schema == schema
    assert FLIGHT["Ticket"](ticket=b"x").SerializeToString() == flight.Ticket(b"x").serialize()
    action = flight.Action("CancelQuery", b"body")
    message = FLIGHT["Action"](type="CancelQuery", body=b"body")
    assert message.SerializeToString() == b"\x0a\x0bCancelQuery\x12\x04body"
    assert (action.type, action.body.to_pybytes()) == (message.type, message.body)


def test_unset_and_empty_differ():
    assert not unpacked(packed(FLIGHT_SQL["CommandGetTables"]())).HasField("catalog")
    assert unpacked(packed(FLIGHT_SQL["CommandGetTables"](catalog=""))).HasField("catalog")


@pytest.mark.parametrize(
    "content",
    [b"", b"SELECT 1", b"SELECT id, title FROM patents WHERE year > 2020", b"\x0a\x03a/b", b"\xff\xff\xff", b"\n\nx"],
)
def test_what_is_no_command_is_told_apart(content):
    assert unpacked(content) is None


def test_sql_is_never_taken_for_a_command():
    # The first byte of a packed message is a line feed, with which SQL may begin.
    name = "type.googleapis.com/arrow.flight.protocol.sql.CommandGetCatalogs"
    assert unpacked(f"\n{chr(len(name))}{name}".encode()).DESCRIPTOR.name == "CommandGetCatalogs"
    assert unpacked(b"\nSELECT 1") is None
