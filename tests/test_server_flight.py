"""Flight SQL, by the clients that people use: pyarrow, ADBC, flightsql-dbapi."""

import hashlib
import json
import threading
from decimal import Decimal
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import duckdb
import polars
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from pyarrow.flight import FlightClient, FlightDescriptor

from jammi_duck.doors.server.messages import FLIGHT, FLIGHT_SQL, packed, unpacked
from tests.serving import config_of, in_process, make_database, waited_for

pytestmark = [
    pytest.mark.minilm,
    pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning"),
    # The server's own process leaves these out; DuckDB gives such advice once.
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def served(file):
    with in_process(config_of(file)) as (service, port):
        service.port = port
        yield service


@pytest.fixture
def client(served):
    with FlightClient(f"grpc://127.0.0.1:{served.port}") as client:
        yield client


@pytest.fixture
def cursor(served):
    with adbc.connect(f"grpc://127.0.0.1:{served.port}") as con, con.cursor() as cursor:
        yield cursor


def fetched(client, command):
    command = command.encode() if isinstance(command, str) else command
    info = client.get_flight_info(FlightDescriptor.for_command(command))
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.schema.equals(info.schema), (table.schema, info.schema)
    return table


def asked(client, name, **fields):
    return fetched(client, packed(FLIGHT_SQL[name](**fields)))


def acted(client, kind, body):
    return [bytes(result.body) for result in client.do_action(flight.Action(kind, body))]


def prepared(client, text):
    (result,) = acted(
        client, "CreatePreparedStatement", packed(FLIGHT_SQL["ActionCreatePreparedStatementRequest"](query=text))
    )
    return unpacked(result)


def bound(client, handle, table):
    descriptor = FlightDescriptor.for_command(
        packed(FLIGHT_SQL["CommandPreparedStatementQuery"](prepared_statement_handle=handle))
    )
    writer, reader = client.do_put(descriptor, table.schema)
    with writer:
        writer.write_table(table)
        writer.done_writing()
        reader.read()
    info = client.get_flight_info(descriptor)
    return client.do_get(info.endpoints[0].ticket).read_all()


def test_the_example_of_the_guide(client):
    table = fetched(client, "SELECT id, title, year FROM patents.public.patents WHERE year > 2020")
    assert sorted(table.to_pylist(), key=lambda row: row["id"]) == [
        {"id": 2, "title": "Robot arm", "year": 2021},
        {"id": 3, "title": "Water pump", "year": 2022},
        {"id": 4, "title": "Solar panel", "year": 2023},
    ]
    (name,) = fetched(
        client, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'jammi'"
    ).to_pydict()["table_name"]
    for written in (f'"jammi.{name}"', f'jammi."{name}"'):
        rows = fetched(client, f"SELECT _row_id, _model_id FROM {written} LIMIT 10").to_pylist()
        assert sorted(row["_row_id"] for row in rows) == ["1", "2", "3", "4", "5"]
        assert {row["_model_id"] for row in rows} == {"sentence-transformers/all-MiniLM-L6-v2"}


def test_a_packed_statement_is_answered_like_a_bare_one(client):
    text = "SELECT count(*) AS n FROM notes"
    assert fetched(client, text) == asked(client, "CommandStatementQuery", query=text)


def test_search_over_adbc(cursor):
    cursor.execute("SELECT id, title, _similarity FROM jammi_search('patents', ?, ?)", ("clean water", 2))
    table = cursor.fetch_arrow_table()
    assert [row["id"] for row in table.to_pylist()] == [1, 3]
    assert table.schema.field("_similarity").type == pa.float32()


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("SELECT $1 + 1 AS a, typeof($1) AS b", (5,), (6, "BIGINT")),
        ("SELECT $2 AS a, $1 AS b", ("x", "y"), ("y", "x")),
        ("SELECT ? AS a", (None,), (None,)),
        ("SELECT ? AS a", (1.5,), (1.5,)),
        ("SELECT ? AS a", (b"\x00\xff",), (b"\x00\xff",)),
        ("SELECT ? || 'ä' AS a", ("ö",), ("öä",)),
        ("SELECT title AS a FROM patents WHERE id = ? AND year = ?", (2, 2021), ("Robot arm",)),
        ("SELECT title AS a FROM patents WHERE id = $id", (3,), ("Water pump",)),
    ],
)
def test_parameters(cursor, text, values, expected):
    cursor.execute(text, values)
    assert cursor.fetchall() == [expected]


def test_a_prepared_statement_with_rows_of_parameters(client):
    statement = prepared(client, "SELECT title FROM patents WHERE id = ? AND year >= ?")
    assert pa.ipc.read_schema(pa.py_buffer(statement.dataset_schema)) == pa.schema([("title", pa.string())])
    assert pa.ipc.read_schema(pa.py_buffer(statement.parameter_schema)).names == ["1", "2"]
    handle = statement.prepared_statement_handle
    rows = pa.table({"a": pa.array([1, 2, 3], pa.int16()), "b": pa.array([2000, 2100, 2000])})
    assert bound(client, handle, rows).to_pydict() == {"title": ["Membrane filter", "Water pump"]}
    assert bound(client, handle, rows.slice(0, 0)).to_pydict() == {"title": []}
    closing = packed(FLIGHT_SQL["ActionClosePreparedStatementRequest"](prepared_statement_handle=handle))
    assert acted(client, "ClosePreparedStatement", closing) == []
    with pytest.raises(KeyError, match="no such prepared statement"):
        bound(client, handle, rows)


def test_a_source_may_be_a_parameter(cursor):
    cursor.execute("SELECT * FROM jammi_search(?, ?, 1)", ("patents", "clean water"))
    assert cursor.fetch_arrow_table().to_pylist()[0]["title"] == "Membrane filter"
    failures = (adbc_driver_manager.Error, polars.exceptions.ComputeError)
    with pytest.raises(failures, match="no embedding table for 'notes'"):
        polars.read_database(
            "SELECT * FROM jammi_search(?, ?, 1)", cursor, execute_options={"parameters": ("notes", "x")}
        )


def test_columns_follow_the_values_of_parameters(client):
    """Of which source they are, and of which type."""
    statement = prepared(client, "SELECT $1 AS a")
    for column in (
        pa.array([1], pa.int16()), pa.array([1], pa.int64()), pa.array([Decimal("1.5")]), pa.array([Decimal("10.25")]),
        pa.array(["x"]), pa.array([[1]]), pa.array([["x"]]), pa.array([{"a": 1}]), pa.array([{"b": "x"}]),
    ):  # fmt: skip
        table = bound(client, statement.prepared_statement_handle, pa.table({"1": column}))
        assert table["a"].to_pylist() == column.to_pylist()


def test_columns_of_arrow_types_as_parameters(client):
    statement = prepared(client, "SELECT typeof($1) AS t, $1::VARCHAR AS v")
    for column, expected in [
        (pa.array([7], pa.uint8()), ("UTINYINT", "7")),
        (pa.array([7.5], pa.float32()), ("FLOAT", "7.5")),
        (pa.array(["x"]).dictionary_encode(), ("VARCHAR", "x")),
        (pa.array(["x"], pa.large_string()), ("VARCHAR", "x")),
        (pa.array([1_600_000_000_123_456_789], pa.timestamp("ns")), ("TIMESTAMP", "2020-09-13 12:26:40.123456")),
        (pa.array([18_000], pa.date32()), ("DATE", "2019-04-14")),
        (pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)), ("DOUBLE[]", "[1.0, 2.0]")),
        (pa.array([None], pa.int32()), ("INTEGER", None)),
    ]:
        table = bound(client, statement.prepared_statement_handle, pa.table({"1": column}))
        if column.null_count:
            assert table["v"].to_pylist() == [None]
        else:
            assert table.to_pydict() == {"t": [expected[0]], "v": [expected[1]]}


def test_nothing_runs_before_it_is_fetched(client, served):
    """A statement that takes for ever is prepared, and described, at once."""
    endless = "SELECT count(*) AS n FROM range(1000000000000) a, range(1000000) b"
    assert prepared(client, endless).dataset_schema
    assert client.get_flight_info(FlightDescriptor.for_command(endless.encode())).schema.names == ["n"]
    assert served.admission.running == 0


def test_objects_that_adbc_lists(cursor, served):
    found = cursor.connection.adbc_get_objects(depth="columns").read_all().to_pylist()
    tables = {
        (catalog["catalog_name"], schema["db_schema_name"], table["table_name"]): (
            table["table_type"],
            [column["column_name"] for column in table["table_columns"]],
        )
        for catalog in found
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    columns = ["id", "title", "abstract", "year"]
    assert tables[("my", "main", "patents")] == ("VIEW", columns)
    assert tables[("my", "main", "notes")] == ("TABLE", ["id", "note"])
    assert tables[("patents", "public", "patents")] == ("VIEW", columns)
    (embedded,) = [name for _, schema, name in tables if schema == "jammi"]
    assert embedded.startswith("patents__embedding__")
    assert len(tables) == 5
    assert cursor.connection.adbc_get_table_types() == ["TABLE", "VIEW"]
    assert cursor.connection.adbc_get_table_schema("notes").names == ["id", "note"]
    info = cursor.connection.adbc_get_info()
    assert info["vendor_name"] == "jammi-duck"


def test_filters_of_the_catalog(client):
    assert asked(client, "CommandGetCatalogs").to_pydict()["catalog_name"] == ["jammi_server", "my", "notes", "patents"]
    schemas = asked(client, "CommandGetDbSchemas", catalog="my").to_pylist()
    assert schemas == [{"catalog_name": "my", "db_schema_name": "main"}]
    assert asked(client, "CommandGetDbSchemas", db_schema_filter_pattern="pub%").num_rows == 2
    assert asked(client, "CommandGetTables", table_types=["TABLE"]).to_pydict()["table_name"] == ["notes"]
    named = asked(client, "CommandGetTables", table_name_filter_pattern="n_te%", catalog="my", include_schema=True)
    assert named.to_pydict()["table_name"] == ["notes"]
    schema = pa.ipc.read_schema(pa.py_buffer(named["table_schema"][0].as_py()))
    assert schema.field("id").metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"INTEGER"
    assert asked(client, "CommandGetTables", table_name_filter_pattern="'; DROP TABLE notes; --").num_rows == 0
    assert asked(client, "CommandGetPrimaryKeys", table="notes").to_pylist() == [
        {
            "catalog_name": "my", "db_schema_name": "main", "table_name": "notes", "column_name": "id",
            "key_name": None, "key_sequence": 1,
        }
    ]  # fmt: skip
    for name in ("CommandGetExportedKeys", "CommandGetImportedKeys"):
        assert asked(client, name, table="notes").num_rows == 0
    assert asked(client, "CommandGetCrossReference", pk_table="notes", fk_table="patents").num_rows == 0
    types = asked(client, "CommandGetXdbcTypeInfo").to_pylist()
    assert {row["type_name"] for row in types} >= {"INTEGER", "VARCHAR", "TIMESTAMP", "DOUBLE"}
    assert [row["type_name"] for row in asked(client, "CommandGetXdbcTypeInfo", data_type=12).to_pylist()] == [
        "VARCHAR",
        "UUID",
    ]


def test_the_server_describes_itself(client):
    info = {row["info_name"]: row["value"] for row in asked(client, "CommandGetSqlInfo").to_pylist()}
    assert set(info) == {*range(12), 100, 101, *range(500, 577)}
    assert (info[0], info[3], info[4], info[5], info[8], info[9]) == ("jammi-duck", True, True, False, 0, True)
    assert "SELECT" in [word.upper() for word in info[508]]
    some = asked(client, "CommandGetSqlInfo", info=[8, 504, 99_999]).to_pydict()
    assert some == {"info_name": [8, 504], "value": [0, '"']}


def test_statements_that_show(client):
    assert "notes" in fetched(client, "SHOW TABLES").to_pydict()["name"]
    assert fetched(client, "DESCRIBE notes").to_pydict()["column_name"] == ["id", "note"]
    assert fetched(client, "EXPLAIN SELECT 1").schema.names == ["explain_key", "explain_value"]
    assert fetched(client, "FROM notes LIMIT 0").num_rows == 0
    assert fetched(client, "SELECT 1 AS a, 2 AS a").schema.names == ["a", "a"]
    assert fetched(client, "SELECT * FROM jammi_status('patents')").num_rows == 1
    assert fetched(client, "SELECT embed('x') IS NOT NULL AS e").to_pydict() == {"e": [True]}


WRITES = [
    "INSERT INTO notes VALUES (99, 'x')", "UPDATE notes SET note = 'x'", "DELETE FROM notes", "TRUNCATE notes",
    "CREATE TABLE x (a INT)", "CREATE TEMP TABLE x (a INT)", "CREATE VIEW x AS SELECT 1", "CREATE MACRO f() AS 1",
    "DROP TABLE notes", "ALTER TABLE notes ADD COLUMN x INT", "COPY notes TO '{folder}/x.csv'",
    "COPY notes FROM '{folder}/patents.parquet'", "ATTACH '{folder}/x.duckdb'", "DETACH my", "INSTALL httpfs",
    "LOAD httpfs", "SET threads = 1", "SET GLOBAL threads = 1", "RESET threads", "PRAGMA threads=1", "CHECKPOINT",
    "VACUUM", "ANALYZE", "EXPORT DATABASE '{folder}/x'", "IMPORT DATABASE '{folder}/x'", "BEGIN", "COMMIT", "USE my",
    "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "CALL pragma_version()", "CREATE SECRET s (TYPE s3)",
    "WITH x AS (INSERT INTO notes VALUES (99, 'x') RETURNING *) SELECT * FROM x",
    "EXPLAIN ANALYZE INSERT INTO notes VALUES (99, 'x')",
    "EXPLAIN ANALYZE WITH x AS (DELETE FROM notes RETURNING *) SELECT * FROM x",
    "COMMENT ON TABLE notes IS 'x'", "MERGE INTO notes USING notes n ON notes.id = n.id WHEN MATCHED THEN DELETE",
    "SELECT 1; DROP TABLE notes", "SELECT 1; SELECT 2", "", ";", "--",
    "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM read_csv('/etc/passwd')", "FROM '/etc/passwd'",
    "SELECT * FROM glob('{folder}/*')", "SELECT * FROM read_blob('{folder}/my.duckdb')",
    "SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet')", "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM jammi_generate('notes', 'note', 'id')", "SELECT * FROM jammi_refresh('patents')",
    "SELECT * FROM jammi_sync('patents', ['title', 'abstract'], 'id')", "SELECT * FROM jammi_compact('patents')",
    "SELECT * FROM jammi_index_words('patents')", "SELECT * FROM jammi_vacuum()", "SELECT * FROM jammi_recover()",
    "SELECT * FROM jammi_drop('{table}')", "SELECT _jammi_drop('{table}', 'x', 1)",
    "SELECT unnest(_jammi_vacuum('0000000000000000', txid_current()::BIGINT))",
    "SELECT _jammi_compact('{table}', 'x', 1)", "SELECT * FROM query('SELECT _jammi_drop(''{table}'', ''x'', 1)')",
    "EXPLAIN ANALYZE SELECT * FROM jammi_drop('{table}')",
    "SELECT embed('x', model := '{folder}')", "SELECT embed('x', model := 'someone/elses-model')",
    "SELECT * FROM jammi_infer('notes', 'note', 'id', model := '/etc')",
    "SELECT * FROM force_checkpoint('my')", "SELECT * FROM enable_logging()",
]  # fmt: skip


def digests(folder):
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and "cache" not in path.parts
    }


@pytest.mark.parametrize("text", WRITES)
def test_attempts_to_write_or_to_read_files_are_refused(client, file, text):
    (table,) = {path.name.split(".")[0] for path in (file.parent / "artifacts" / "jammi_db").iterdir()}
    before = digests(file.parent)
    with pytest.raises((flight.FlightError, pa.ArrowException, KeyError)):
        fetched(client, text.format(folder=file.parent, table=table))
    assert digests(file.parent) == before
    assert fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [20]}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("SELECT nope FROM notes", pa.ArrowInvalid, 'column "nope" not found'),
        ("SELEC 1", pa.ArrowInvalid, "syntax error"),
        ("SELECT * FROM jammi_search('nope', 'x')", KeyError, "no embedding table for 'nope'"),
        ("SELECT * FROM jammi_search('patents', 'x', 0)", pa.ArrowInvalid, "k"),
        ("DROP TABLE notes", flight.FlightUnauthorizedError, "a DROP statement is refused: the server only reads"),
        ("SELECT * FROM jammi_vacuum()", flight.FlightUnauthorizedError, "this client only reads"),
        ("PIVOT notes ON note USING count(*)", pa.ArrowInvalid, "IN ('a', 'b')"),
        ("SELECT '" + "x" * (1 << 17) + "'", pa.ArrowInvalid, "longer than 131,072 bytes"),
        # Each DuckDB has its own words for it.
        ("FROM t" + ", t" * 40_000, pa.ArrowInvalid, ""),
        ("SELECT " + "(" * 1000 + "1" + ")" * 1000, pa.ArrowInvalid, "nested too deeply"),
        ("SELECT " + "1 + " * 5_000 + "1", pa.ArrowInvalid, ""),
        ("SELECT a" + ".a" * 60_000, pa.ArrowInvalid, "nested too deeply"),
    ],
)
def test_errors_name_the_cause(client, text, error, words):
    with pytest.raises(error) as raised:
        fetched(client, text)
    assert words in str(raised.value)
    assert "UDF" not in str(raised.value)


@pytest.mark.parametrize("kind", ["BeginTransaction", "EndTransaction", "BeginSavepoint", "Nonsense"])
def test_actions_that_are_not_there(client, kind):
    with pytest.raises(NotImplementedError, match="the server has no"):
        acted(client, kind, b"")


def test_actions_are_listed(client):
    assert {action.type for action in client.list_actions()} >= {"CreatePreparedStatement", "CancelQuery"}
    assert list(client.list_flights()) == []


def _sent(writer, reader, table):
    with writer:
        writer.write_table(table)
        writer.done_writing()
        reader.read()


def test_updates_and_ingestion_are_refused(client, cursor):
    for command, error in [
        (FLIGHT_SQL["CommandStatementUpdate"](query="DELETE FROM notes"), flight.FlightUnauthorizedError),
        (FLIGHT_SQL["CommandStatementUpdate"](query="SELECT 1"), pa.ArrowInvalid),
        (FLIGHT_SQL["CommandStatementIngest"](), flight.FlightUnauthorizedError),
    ]:
        table = pa.table({"a": [1]})
        writer, reader = client.do_put(FlightDescriptor.for_command(packed(command)), table.schema)
        with pytest.raises(error):
            _sent(writer, reader, table)
    with pytest.raises(adbc_driver_manager.Error):
        cursor.adbc_ingest("notes", pa.table({"id": [1]}), mode="append")


def test_a_cursor_for_each_thread(served):
    failures = []

    def work(number):
        try:
            with adbc.connect(f"grpc://127.0.0.1:{served.port}") as con, con.cursor() as cursor:
                for i in range(5):
                    cursor.execute("SELECT id FROM jammi_search('patents', ?, 3)", (f"water {number} {i}",))
                    assert cursor.fetch_arrow_table().num_rows == 3
                    cursor.execute("SELECT ? AS n", (number,))
                    assert cursor.fetchone() == (number,)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert served.admission.running == served.admission.waiting == 0


def test_polars_reads(cursor):
    frame = polars.read_database("SELECT id, title FROM patents ORDER BY id", cursor.connection)
    assert frame.rows()[0] == (1, "Membrane filter")


def test_flightsql_dbapi_reads(served):
    dbapi = pytest.importorskip("flightsql")
    client = dbapi.FlightSQLClient(host="127.0.0.1", port=served.port, insecure=True)
    info = client.execute("SELECT id FROM patents ORDER BY id")
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pydict() == {"id": [1, 2, 3, 4, 5]}
    con = dbapi.connect(client)
    cursor = con.cursor()
    cursor.execute("SELECT title FROM jammi_search('patents', 'clean water', 1)")
    assert [tuple(row) for row in cursor.fetchall()] == [("Membrane filter",)]


def test_large_results_come_in_slices(client):
    info = client.get_flight_info(
        FlightDescriptor.for_command(b"SELECT range AS i, repeat('x', 2000) AS t FROM range(20000)")
    )
    reader = client.do_get(info.endpoints[0].ticket)
    sizes, seen = [], 0
    for chunk in reader:
        sizes.append(chunk.data.nbytes)
        assert chunk.data.column("i").to_pylist() == list(range(seen, seen + chunk.data.num_rows))
        seen += chunk.data.num_rows
    assert seen == 20_000
    assert max(sizes) <= 4 << 20


def test_a_row_that_is_too_large_for_a_slice_comes_alone(client):
    assert len(fetched(client, "SELECT repeat('x', 10000000) AS t").to_pydict()["t"][0]) == 10_000_000


@pytest.mark.parametrize(
    "kind",
    ["UUID", "HUGEINT", "DECIMAL(20, 5)", "BLOB", "TIME", "TIMESTAMPTZ", "INTERVAL", "INTEGER[]", "FLOAT[3]",
     "STRUCT(a INTEGER, b VARCHAR[])", "MAP(VARCHAR, INTEGER)", "ENUM('a', 'b')", "BIT", "TIMESTAMP_NS"],
)  # fmt: skip
def test_types_have_the_schema_that_was_told(client, kind):
    assert fetched(client, f"SELECT NULL::{kind} AS a UNION ALL SELECT NULL").num_rows == 2


ENDLESS = b"SELECT count(*) AS n FROM range(1000000000000) a, range(1000000) b"


def run_endless(client):
    info = client.get_flight_info(FlightDescriptor.for_command(ENDLESS))
    raised = []

    def fetch():
        try:
            client.do_get(info.endpoints[0].ticket).read_all()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    return info, thread, raised


def test_one_query_is_cancelled_alone(client, served):
    info, thread, raised = run_endless(client)
    other, other_thread, other_raised = run_endless(client)
    waited_for(lambda: served.admission.running == 2)
    (result,) = acted(client, "CancelQuery", packed(FLIGHT_SQL["ActionCancelQueryRequest"](info=info.serialize())))
    assert unpacked(result).result == 1
    thread.join(60)
    assert "cancelled" in str(raised[0])
    assert served.admission.running == 1
    message = FLIGHT["FlightInfo"]()
    message.ParseFromString(other.serialize())
    (result,) = acted(client, "CancelFlightInfo", FLIGHT["CancelFlightInfoRequest"](info=message).SerializeToString())
    other_thread.join(60)
    assert len(other_raised) == 1
    waited_for(lambda: served.admission.running == 0)
    with pytest.raises(flight.FlightCancelledError):
        client.do_get(info.endpoints[0].ticket).read_all()


def test_adbc_cancels(served):
    with adbc.connect(f"grpc://127.0.0.1:{served.port}") as con, con.cursor() as cursor:
        timer = threading.Timer(0.5, cursor.adbc_cancel)
        timer.start()
        with pytest.raises((adbc_driver_manager.Error, polars.exceptions.ComputeError)):
            polars.read_database(ENDLESS.decode(), cursor)
        timer.join()
    waited_for(lambda: served.admission.running == 0)


def test_a_client_that_goes_away_stops_its_query(served):
    client = FlightClient(f"grpc://127.0.0.1:{served.port}")
    info = client.get_flight_info(
        FlightDescriptor.for_command(b"SELECT range AS i, repeat('x', 1000) AS t FROM range(100000000)")
    )
    reader = client.do_get(info.endpoints[0].ticket)
    reader.read_chunk()
    waited_for(lambda: served.admission.running == 1)
    reader.cancel()
    client.close()
    waited_for(lambda: served.admission.running == 0)


def test_a_client_that_does_not_read_loses_its_turn(tmp_path):
    config = config_of(make_database(tmp_path), max_queries=4, query_timeout="1 second")
    with in_process(config) as (service, port):
        readers = []
        for _ in range(3):
            client = FlightClient(f"grpc://127.0.0.1:{port}")
            reader = client.do_get(flight.Ticket(b"SELECT range AS i, repeat('x', 1000) AS t FROM range(100000000)"))
            reader.read_chunk()
            readers.append((client, reader))
        assert service.admission.running == 3
        waited_for(lambda: service.admission.running == 0)
        with FlightClient(f"grpc://127.0.0.1:{port}") as another:
            assert fetched(another, "SELECT 1 AS a").num_rows == 1


def test_sessions_choose_a_catalog(served):
    cookies = []

    class Cookies(flight.ClientMiddleware):
        def received_headers(self, headers):
            cookies.extend(headers.get("set-cookie", []))

        def sending_headers(self):
            return {"cookie": cookies[0].partition(";")[0]} if cookies else {}

    class Factory(flight.ClientMiddlewareFactory):
        def start_call(self, info):
            return Cookies()

    with FlightClient(f"grpc://127.0.0.1:{served.port}", middleware=[Factory()]) as client:

        def set_options(**options):
            request = FLIGHT["SetSessionOptionsRequest"](
                session_options=[
                    FLIGHT["SessionOption"](key=key, value=FLIGHT["SessionOptionValue"](string_value=value))
                    for key, value in options.items()
                ]
            )
            (result,) = acted(client, "SetSessionOptions", request.SerializeToString())
            message = FLIGHT["SetSessionOptionsResult"]()
            message.ParseFromString(result)
            return {each.key: each.value.value for each in message.errors}

        assert set_options(catalog="patents", schema="public") == {}
        assert len(cookies) == 1
        assert "HttpOnly" in cookies[0]
        assert fetched(client, "SELECT current_schema() AS s").to_pydict() == {"s": ["public"]}
        assert fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [20]}
        assert set_options(catalog="nope") == {"catalog": 2}
        assert set_options(color="red") == {"color": 1}
        (result,) = acted(client, "GetSessionOptions", b"")
        told = FLIGHT["GetSessionOptionsResult"]()
        told.ParseFromString(result)
        assert {each.key: each.value.string_value for each in told.session_options} == {
            "catalog": "patents",
            "schema": "public",
        }
        acted(client, "CloseSession", b"")
        assert fetched(client, "SELECT current_schema() AS s").to_pydict() == {"s": ["main"]}


@pytest.mark.parametrize(
    "command",
    [
        b"\xff\xfe", b"\x0a\x41type.googleapis.com/arrow.flight.protocol.sql.CommandGetTables\x12\x01\xff",
        packed(FLIGHT_SQL["CommandStatementSubstraitPlan"]()), packed(FLIGHT_SQL["DoPutUpdateResult"]()),
        packed(FLIGHT_SQL["CommandPreparedStatementQuery"](prepared_statement_handle=b"nope")),
        packed(FLIGHT_SQL["CommandStatementQuery"](query="SELECT 1", transaction_id=b"t")), b"\x00",
    ],
)  # fmt: skip
def test_commands_that_are_none(client, command):
    for ask in (
        lambda: client.get_flight_info(FlightDescriptor.for_command(command)),
        lambda: client.get_schema(FlightDescriptor.for_command(command)),
        lambda: client.do_get(flight.Ticket(command)).read_all(),
    ):
        with pytest.raises((flight.FlightError, pa.ArrowException, KeyError)):
            ask()
    assert fetched(client, "SELECT 1 AS a").num_rows == 1


def test_as_many_queries_as_may_run_and_wait(tmp_path):
    with in_process(config_of(make_database(tmp_path), max_queries=2, max_waiting=1)) as (service, port):
        clients = [FlightClient(f"grpc://127.0.0.1:{port}") for _ in range(3)]
        first, *rest = [run_endless(client) for client in clients[:2]]
        # One of two is kept for searches.
        waited_for(lambda: (service.admission.running, service.admission.waiting) == (1, 1))
        with pytest.raises(pa.ArrowException, match="queries run and 1 wait") as refused:
            clients[2].do_get(flight.Ticket(ENDLESS)).read_all()
        assert "RESOURCE_EXHAUSTED" in str(refused.value) or "wait" in str(refused.value)
        assert fetched(clients[2], "SELECT id FROM jammi_search('patents', 'water', 1)").num_rows == 1
        service.drain(0)
        for _, thread, raised in (first, *rest):
            thread.join(60)
            assert len(raised) == 1


def test_limits(tmp_path):
    with (
        in_process(
            config_of(make_database(tmp_path), max_result_rows=10, max_result_bytes="1 MB", query_timeout="1 second")
        ) as (_, port),
        FlightClient(f"grpc://127.0.0.1:{port}") as client,
    ):
        assert fetched(client, "FROM notes LIMIT 10").num_rows == 10
        for text, words in [
            ("FROM notes", "more than 10 rows"),
            ("SELECT repeat('x', 2000000) AS t", "more than 1,000,000 bytes"),
            (ENDLESS.decode(), "took longer than 1 s"),
        ]:
            with pytest.raises((flight.FlightError, pa.ArrowException), match=words):
                fetched(client, text)


def test_what_another_process_makes_appears(tmp_path):
    file = make_database(tmp_path)
    with in_process(config_of(file, server_follow="0.1 seconds")) as (_, port):
        with FlightClient(f"grpc://127.0.0.1:{port}") as client:
            listed = "SELECT count(*) AS n FROM information_schema.tables WHERE table_schema = 'jammi'"
            assert fetched(client, listed).to_pydict() == {"n": [1]}
            # As a nightly job does: it works on a copy, which takes the file's place.
            import jammi_duck

            copy = tmp_path / "copy.duckdb"
            copy.write_bytes(file.read_bytes())
            con = jammi_duck.connect(copy, storage=str(tmp_path / "artifacts"), cache_dir=str(tmp_path / "cache"))
            con.execute("CREATE TABLE added AS SELECT range AS id, 'row ' || range AS t FROM range(3)")
            con.execute("SELECT * FROM jammi_generate('added', 't', 'id')").fetchall()
            con.close()
            copy.replace(file)
            waited_for(lambda: fetched(client, listed).to_pydict() == {"n": [2]})
            waited_for(lambda: _answers(client, "SELECT count(*) AS n FROM added"))
            assert fetched(client, "SELECT id FROM jammi_search('added', 'row 2', 1)").to_pydict() == {"id": [2]}
            assert fetched(client, "SELECT count(*) AS n FROM added.public.added").to_pydict() == {"n": [3]}


def test_a_copy_is_served_while_the_file_is_written(tmp_path):
    """With `snapshot`, a nightly job may open the file; the server takes a new copy afterwards."""
    import jammi_duck

    file = make_database(tmp_path)
    with in_process(config_of(file, snapshot=True, server_follow="0.1 seconds")) as (service, port):
        with FlightClient(f"grpc://127.0.0.1:{port}") as client:
            assert fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [20]}
            con = jammi_duck.connect(file, storage=str(tmp_path / "artifacts"), cache_dir=str(tmp_path / "cache"))
            con.execute("INSERT INTO notes VALUES (99, 'new')")
            con.execute("SELECT * FROM jammi_generate('notes', 'note', 'id')").fetchall()
            assert fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [20]}
            con.close()
            waited_for(lambda: fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [21]})
            assert fetched(client, "SELECT id FROM jammi_search('notes', 'new', 1)").to_pydict() == {"id": [99]}
            folder = Path(service.database._folder.name)
            assert folder.is_dir()
    assert not folder.exists()


def test_views_over_patterns(tmp_path):
    """Their files are read, and those that come later, and no others in the folder."""
    file = make_database(tmp_path)
    folder = tmp_path / "parts"
    folder.mkdir()
    with duckdb.connect(str(file)) as con:
        con.execute(f"COPY (SELECT 1 AS n) TO '{folder}/a.parquet'")
        con.execute(f"COPY (SELECT 9 AS n) TO '{folder}/hidden.csv'")
        con.execute(f"CREATE VIEW parts AS FROM read_parquet('{folder}/*.parquet')")
        con.execute(f"CREATE VIEW parts2 AS FROM '{tmp_path}/**/a.parquet'")
    with in_process(config_of(file, server_follow="0.1 seconds")) as (_, port):
        with FlightClient(f"grpc://127.0.0.1:{port}") as client:
            assert fetched(client, "SELECT sum(n) AS n FROM parts").to_pydict() == {"n": [1]}
            assert fetched(client, "SELECT sum(n) AS n FROM parts2").to_pydict() == {"n": [1]}
            with duckdb.connect() as con:
                con.execute(f"COPY (SELECT 2 AS n) TO '{folder}/new.parquet.tmp' (FORMAT parquet)")
            (folder / "new.parquet.tmp").rename(folder / "b.parquet")
            waited_for(lambda: _answers(client, "SELECT sum(n) AS n FROM parts"))
            waited_for(lambda: fetched(client, "SELECT sum(n) AS n FROM parts").to_pydict() == {"n": [3]})
            for name in ("hidden.csv", "a.parquet"):
                with pytest.raises(flight.FlightUnauthorizedError, match="is not read"):
                    fetched(client, f"FROM '{folder}/{name}'")


def test_a_query_that_waits_too_long(tmp_path):
    config = config_of(make_database(tmp_path), max_queries=1, query_timeout="1 second")
    with in_process(config) as (service, port), FlightClient(f"grpc://127.0.0.1:{port}") as client:
        with service.admission.turn(is_search=False, is_gone=lambda: False):
            with pytest.raises(flight.FlightTimedOutError, match="took longer than 1 s"):
                fetched(client, "SELECT 1 AS a")


def _answers(client, text):
    try:
        fetched(client, text)
    except (flight.FlightError, pa.ArrowException, KeyError):
        return False
    return True


def test_log_lines_name_the_query_without_its_text(served, client, caplog):
    with caplog.at_level("INFO", "jammi_duck"):
        fetched(client, "SELECT 'a secret word' AS s")
        waited_for(lambda: any("query of" in record.getMessage() for record in caplog.records))
    (record,) = [record for record in caplog.records if record.getMessage().startswith("query of")]
    assert (record.user, record.rows) == ("anonymous", 1)
    assert len(record.statement) == 16
    assert "secret" not in json.dumps({key: str(value) for key, value in vars(record).items()})


def test_a_file_that_is_written_by_another_is_not_served(file):
    con = duckdb.connect(str(file.parent / "held.duckdb"))
    con.execute("CREATE TABLE t (a INT)")
    con.close()
    assert Path(file.parent / "held.duckdb").exists()
