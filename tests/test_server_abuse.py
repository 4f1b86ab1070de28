"""What nobody should send: messages that are none, and statements that would write, read files or get out."""

import itertools
import os
import random
import time

import grpc
import pytest
from pyarrow.flight import FlightClient

from jammi_duck.doors.server.messages import FLIGHT, FLIGHT_SQL, packed
from jammi_duck.doors.server.statements import statement_of
from jammi_duck.errors import DeniedError, InputError
from tests.serving import Process, make_database
from tests.test_server_flight import WRITES, digests, fetched
from tests.test_server_messages import EXAMPLES

pytestmark = pytest.mark.minilm

SERVICE = "/arrow.flight.protocol.FlightService/"
UNARY, STREAMED, BOTH = (
    ("GetFlightInfo", "GetSchema"),
    ("DoGet", "DoAction", "ListActions", "ListFlights"),
    ("DoPut", "Handshake"),
)


def bytes_as_they_are(content):
    return content


def sent(channel, method, content):
    """Send bytes to a call, and read what comes; the code of its error, or None."""
    kind = {True: channel.unary_unary, False: channel.unary_stream}[method in UNARY]
    if method in BOTH:
        kind = channel.stream_stream
    call = kind(SERVICE + method, bytes_as_they_are, bytes_as_they_are)
    try:
        if method in UNARY:
            call(content, timeout=30)
        elif method in STREAMED:
            list(itertools.islice(call(content, timeout=30), 100))
        else:
            list(itertools.islice(call(iter([content]), timeout=30), 100))
    except grpc.RpcError as error:
        return error.code()
    return None


def messages(generator):
    """Whole messages, truncated ones, ones with other bytes in them, and random bytes."""
    commands = [packed(FLIGHT_SQL[name](**fields)) for name, fields in EXAMPLES.items()] + [b"SELECT 1", b""]
    while True:
        command = generator.choice(commands)
        whole = generator.choice(
            [
                FLIGHT["FlightDescriptor"](type=2, cmd=command).SerializeToString(),
                FLIGHT["Ticket"](ticket=command).SerializeToString(),
                FLIGHT["Action"](type=generator.choice(["CreatePreparedStatement", "CancelQuery", "SetSessionOptions",
                    "CancelFlightInfo", "GetSessionOptions", "CloseSession", "x"]), body=command).SerializeToString(),
                FLIGHT["FlightData"](
                    flight_descriptor=FLIGHT["FlightDescriptor"](type=2, cmd=command),
                    data_header=generator.randbytes(generator.randrange(64)), data_body=generator.randbytes(64),
                ).SerializeToString(),
                generator.randbytes(generator.randrange(200)),
            ]
        )  # fmt: skip
        content = bytearray(whole)
        for _ in range(generator.choice([0, 0, 1, 3])):
            if content:
                content[generator.randrange(len(content))] = generator.randrange(256)
        yield bytes(content[: generator.randrange(len(content) + 1)] if generator.random() < 0.3 else content)


def abuse(server, seconds, seed):
    """Send such messages for a time, and then ask something."""
    generator = random.Random(seed)
    codes = {}
    end = time.monotonic() + seconds
    with grpc.insecure_channel(f"127.0.0.1:{server.flight}") as channel:
        for content in messages(generator):
            if time.monotonic() > end:
                break
            method = generator.choice(UNARY + STREAMED + BOTH)
            code = sent(channel, method, content)
            codes[code] = codes.get(code, 0) + 1
            assert code is not grpc.StatusCode.UNKNOWN, (method, content)
            assert code is not grpc.StatusCode.INTERNAL, (method, content)
            assert code is not grpc.StatusCode.UNAVAILABLE, (method, content)
    with FlightClient(server.uri) as client:
        assert fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [20]}
    return codes


def test_random_messages(tmp_path):
    file = make_database(tmp_path)
    with Process(file) as server:
        before = digests(tmp_path / "artifacts")
        codes = abuse(server, 5, 1)
        assert codes[grpc.StatusCode.INVALID_ARGUMENT] > 50
        assert digests(tmp_path / "artifacts") == before


@pytest.mark.long
def test_random_messages_for_minutes(tmp_path):
    file = make_database(tmp_path)
    with Process(file) as server:
        abuse(server, float(os.environ.get("JAMMI_FUZZ_SECONDS", "300")), random.randrange(2**32))


# Ways to write the same, or to hide it.
DISGUISES = (
    "{}", "{};", " \n\t{}", "/* SELECT */ {}", "-- SELECT 1\n{}", "EXPLAIN ANALYZE {}", "EXPLAIN {}", "({})",
    "WITH x AS ({}) SELECT * FROM x", "SELECT * FROM ({}) t", "SELECT EXISTS ({}) AS e", "SELECT ({}) AS e",
    "SELECT 1 UNION ALL {}", "{} UNION ALL SELECT 1", "SELECT 1; {}", "{}; SELECT 1", "CREATE TABLE y AS {}",
    "PREPARE p AS {}", "COPY ({}) TO '/tmp/jammi-abuse.csv'", "DESCRIBE {}", "SELECT * FROM (DESCRIBE {}) t",
    "SUMMARIZE {}", "WITH RECURSIVE x AS (SELECT 1 UNION ALL ({})) FROM x", "FROM range(1) r, LATERAL ({}) t",
    "PIVOT ({}) ON 1 IN (1) USING count(*)", "CREATE OR REPLACE TEMP VIEW v AS {}", "EXECUTE IMMEDIATE '{}'",
    "SELECT * FROM query('{}')", "SELECT * FROM query(concat('', '{}'))", "VALUES (({}))", "BEGIN; {}; COMMIT",
)  # fmt: skip
TWICE = (
    "({})", "SELECT * FROM ({}) t", "WITH x AS ({}) SELECT * FROM x", "SELECT ({}) AS e", "EXPLAIN ANALYZE {}",
    "/**/{}--", "{} LIMIT 1", "VALUES (({}))",
)  # fmt: skip
FUNCTIONS = (
    "read_csv", "read_csv_auto", "read_parquet", "parquet_scan", "parquet_metadata", "parquet_schema", "read_json",
    "read_json_auto", "read_ndjson", "read_text", "read_blob", "glob", "sniff_csv", "query", "query_table",
    "json_execute_serialized_sql", "parquet_kv_metadata", "parquet_file_metadata", "READ_TEXT", "Read_Blob",
)  # fmt: skip
FILES = (
    "/etc/passwd",
    "{folder}/my.duckdb",
    "{folder}/*",
    "https://127.0.0.1:1/x",
    "s3://bucket/x",
    "~/.ssh/id_rsa",
    "../x",
)


def attempts(folder, table):
    """Statements of which none may do anything."""
    plain = [text.format(folder=folder, table=table) for text in WRITES if text.strip(";- ")]
    calls = [f"SELECT * FROM {name}('{file.format(folder=folder)}')" for name in FUNCTIONS for file in FILES]
    files = [f"FROM '{file.format(folder=folder)}'" for file in FILES]
    for text in (*plain, *calls, *files):
        for disguise in DISGUISES:
            escaped = text.replace("'", "''") if "'{}'" in disguise else text
            yield disguise.format(escaped)
    for text, outer, inner in itertools.product(plain, TWICE, TWICE):
        yield outer.format(inner.format(text))


@pytest.mark.long
def test_ten_thousand_attempts(tmp_path):
    """None of them gives a row of what it was after, or changes a file."""
    file = make_database(tmp_path)
    (table,) = {path.name.split(".")[0] for path in (tmp_path / "artifacts" / "jammi_db").iterdir()}
    passed = set()
    count = 0
    before = digests(tmp_path)
    for text in attempts(tmp_path, table):
        count += 1
        try:
            statement_of(text)
        except (DeniedError, InputError):
            continue
        passed.add(text)
    with Process(file) as server, FlightClient(server.uri) as client:
        for number, text in enumerate(sorted(passed)):
            if not _does_nothing(text):
                with pytest.raises(Exception):  # noqa: B017, PT011 - of many kinds
                    fetched(client, text)
            if number % 500 == 0:
                assert fetched(client, "SELECT count(*) AS n FROM notes").to_pydict() == {"n": [20]}
    after = digests(tmp_path)
    after.pop(str(tmp_path / "serve.log"), None)
    before.pop(str(tmp_path / "serve.log"), None)
    assert after == before
    assert not os.path.exists("/tmp/jammi-abuse.csv")
    assert count > 10_000


def _does_nothing(text):
    """Whether a statement only says which columns a query would have, or asks for rows without their columns."""
    is_told = "DESCRIBE" in text or (text.startswith("EXPLAIN ") and "ANALYZE" not in text)
    return is_told or ("EXISTS" in text and "model :=" in text)


@pytest.mark.parametrize(
    "text",
    [
        "/**/EXPLAIN ANALYZE CREATE TEMP TABLE x (a INT)--", "-- x\nEXPLAIN ANALYZE CHECKPOINT",
        "EXPLAIN/**/ANALYZE COPY (SELECT 1) TO '/tmp/jammi-abuse.csv'", "EXPLAIN (FORMAT json) DELETE FROM notes",
        "/**/ EXPLAIN SELECT 1", "EXPLAIN ANALYZE CREATE TEMP TABLE x (a INT)", "EXPLAIN EXPLAIN ANALYZE CHECKPOINT",
        "EXPLAIN ANALYZE EXPLAIN ANALYZE DROP TABLE notes", "EXPLAIN ANALYZE /**/ CALL pragma_version()",
        "EXPLAIN ANALYZE\u3000CHECKPOINT", "EXPLAIN ANALYZE VERBOSE SELECT 1", "(EXPLAIN ANALYZE CHECKPOINT)",
    ],
)  # fmt: skip
def test_an_explain_explains_a_query_alone(text):
    with pytest.raises((DeniedError, InputError)):
        statement_of(text)
