"""Who may come in, and what they may do: tokens, roles, addresses."""

import json
import os
import stat
import threading
import warnings
from datetime import timedelta

import duckdb
import pyarrow.flight as flight
import pytest
from pyarrow.flight import FlightClient

from jammi_duck.doors.server.identity import ANYBODY, Gate, UnknownError, add_token, read_tokens, revoke_token
from jammi_duck.doors.server.serving import Credentials, refuse_open_doors
from jammi_duck.errors import ConfigError, InputError, JammiWarning, NotFoundError
from tests.serving import config_of, in_process, make_database
from tests.test_server_flight import waited_for
from tools.program import in_pipe

needs_a_model = [
    pytest.mark.minilm,
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
]


@pytest.fixture
def tokens(tmp_path):
    return tmp_path / "tokens.json"


def test_a_token_is_stored_as_its_digest_alone(tokens):
    secret = add_token(tokens, "reports", "reader")
    assert secret not in tokens.read_text()
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    (token,) = read_tokens(tokens)
    assert (token.name, token.role, len(token.sha256)) == ("reports", "reader", 64)
    assert os.listdir(tokens.parent) == ["tokens.json"]


def test_names_of_tokens(tokens):
    add_token(tokens, "a", "reader")
    with pytest.raises(InputError, match="there is a token 'a'"):
        add_token(tokens, "a", "admin")
    with pytest.raises(InputError, match="needs a name"):
        add_token(tokens, " ", "reader")
    with pytest.raises(NotFoundError, match="no token 'b'.*tokens: a"):
        revoke_token(tokens, "b")
    revoke_token(tokens, "a")
    assert read_tokens(tokens) == []


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", "nonsense", '{"version": 1}', '{"version": 2, "tokens": []}', '{"version": 1, "tokens": [1]}',
        '{"version": 1, "tokens": [{"name": "a"}]}',
        '{"version": 1, "tokens": [{"name": "a", "role": "root", "sha256": "x", "created": "y"}]}',
        '{"version": 1, "tokens": [{"name": "a", "role": "admin", "sha256": "x", "created": "y", "sources": "z"}]}',
        '{"version": 1, "tokens": [{"name": "a", "role": "reader", "sha256": "x", "created": "y", "sources": [1]}]}',
        '{"version": 1, "tokens": [{"name": "a", "role": "reader", "sha256": "x", "created": "y"}]}',
        '{"version": 1, "tokens": [{"name": "a", "role": "reader", "sha256": "x", "created": "y", "sources": null, '
        '"x": 1}]}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_lets_nobody_in(tokens, content):
    tokens.write_text(content)
    with pytest.raises(ConfigError, match=r"tokens\.json"):
        Gate(tokens, open_to_all=False)


def test_the_gate(tokens):
    reader, admin = add_token(tokens, "r", "reader"), add_token(tokens, "a", "admin")
    gate = Gate(tokens, open_to_all=False)
    assert gate.visitor(f"Bearer {reader}").role == "reader"
    assert gate.visitor(f"bearer  {admin} ").role == "admin"
    # `token:SECRET`
    from base64 import b64encode

    assert gate.visitor("Basic " + b64encode(f"token:{admin}".encode()).decode()).name == "a"
    for wrong in (
        None, "", "Bearer", "Bearer x", reader, f"Basic {reader}", "Basic !!", f"Digest {reader}",
        "Basic " + b64encode(f"root:{admin}".encode()).decode(), f"Bearer {reader}x", "Bearer ä", "Bearer \ud800",
    ):  # fmt: skip
        with pytest.raises(UnknownError):
            gate.visitor(wrong)
    revoke_token(tokens, "r")
    with pytest.raises(UnknownError, match="wrong, or was revoked"):
        gate.visitor(f"Bearer {reader}")
    assert gate.visitor(f"Bearer {admin}").role == "admin"


def test_wrong_tokens_cost_time_and_do_not_hold_up_others(tokens, monkeypatch):
    slept = []
    monkeypatch.setattr("jammi_duck.doors.server.identity.time.sleep", slept.append)
    secret = add_token(tokens, "r", "reader")
    gate = Gate(tokens, open_to_all=False)
    with pytest.raises(UnknownError):
        gate.visitor("Bearer wrong")
    assert slept == [0.5]
    gate.visitor(f"Bearer {secret}")
    assert slept == [0.5]


def test_open_gates(tokens):
    assert Gate(None, open_to_all=True).visitor("Bearer anything") == ANYBODY
    secret = add_token(tokens, "a", "admin")
    gate = Gate(tokens, open_to_all=True)
    assert gate.visitor(None) == ANYBODY
    assert gate.visitor(f"Bearer {secret}").role == "admin"
    with pytest.raises(UnknownError):
        gate.visitor("Bearer wrong")


@pytest.mark.parametrize(
    ("listen", "options", "is_refused"),
    [
        ("127.0.0.1:8081", {}, False), ("localhost:8081", {}, False), ("[::1]:8081", {}, False),
        ("0.0.0.0:8081", {}, True), ("[::]:8081", {}, True), (":8081", {}, True), ("192.168.0.1:1", {}, True),
        ("example.org:1", {}, True), ("0.0.0.0:8081", {"allow_anonymous": True}, False),
        ("0.0.0.0:8081", {"tokens": "/x/tokens.json"}, False),
    ],
)  # fmt: skip
def test_open_addresses_need_tokens(tmp_path, listen, options, is_refused):
    for name in ("flight_listen", "http_listen"):
        config = config_of(tmp_path / "my.duckdb", **{name: listen}, **options)
        if is_refused:
            with pytest.raises(ConfigError, match=rf"{name} = .*allow_anonymous"):
                refuse_open_doors(config)
        else:
            refuse_open_doors(config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tls_certificate": "/x/c.pem"}, "belong together"),
        ({"tls_key": "/x/k.pem"}, "belong together"),
        ({"tls_client_ca": "/x/k.pem"}, "needs tls_certificate"),
        ({"tls_certificate": "/x/c.pem", "tls_key": "/x/k.pem"}, "cannot read '/x/c.pem' for TLS"),
    ],
)
def test_files_of_tls(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        Credentials(config_of(tmp_path / "my.duckdb", **options))


def call_with(token):
    return flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])


def asked_with(client, token, text):
    options = call_with(token) if token else None
    info = client.get_flight_info(flight.FlightDescriptor.for_command(text.encode()), options)
    return client.do_get(info.endpoints[0].ticket, options).read_all()


class TestOverFlight:
    pytestmark = needs_a_model

    def test_tokens(self, tmp_path, tokens):
        file = make_database(tmp_path)
        reader, other = add_token(tokens, "r", "reader"), add_token(tokens, "o", "reader")
        with in_process(config_of(file, tokens=str(tokens))) as (_, port):
            with FlightClient(f"grpc://127.0.0.1:{port}") as client:
                for wrong in (None, "nope"):
                    with pytest.raises(flight.FlightUnauthenticatedError):
                        asked_with(client, wrong, "SELECT 1 AS a")
                assert asked_with(client, reader, "SELECT 1 AS a").num_rows == 1
                header = client.authenticate_basic_token("token", other)
                assert header == (b"authorization", f"Bearer {other}".encode())
                revoke_token(tokens, "r")
                with pytest.raises(flight.FlightUnauthenticatedError, match="revoked"):
                    asked_with(client, reader, "SELECT 1 AS a")
                assert asked_with(client, other, "SELECT 1 AS a").num_rows == 1

    def test_adbc_with_a_user(self, tmp_path, tokens):
        import adbc_driver_flightsql.dbapi as adbc
        import adbc_driver_manager

        file = make_database(tmp_path)
        secret = add_token(tokens, "r", "reader")
        with in_process(config_of(file, tokens=str(tokens))) as (_, port):
            uri = f"grpc://127.0.0.1:{port}"
            for options in (
                {"username": "token", "password": secret},
                {"adbc.flight.sql.authorization_header": f"Bearer {secret}"},
            ):
                with adbc.connect(uri, db_kwargs=options, autocommit=True) as con, con.cursor() as cursor:
                    cursor.execute("SELECT 1 AS a")
                    assert cursor.fetchone() == (1,)
            with pytest.raises(adbc_driver_manager.Error):
                adbc.connect(uri, db_kwargs={"username": "token", "password": "x"}, autocommit=True)

    def test_one_cannot_use_what_is_anothers(self, tmp_path, tokens):
        file = make_database(tmp_path)
        mine, theirs = add_token(tokens, "m", "reader"), add_token(tokens, "t", "reader")
        from jammi_duck.doors.server.messages import FLIGHT_SQL, packed, unpacked

        with in_process(config_of(file, tokens=str(tokens))) as (_, port):
            with FlightClient(f"grpc://127.0.0.1:{port}") as client:
                request = packed(FLIGHT_SQL["ActionCreatePreparedStatementRequest"](query="SELECT 1 AS a"))
                (result,) = client.do_action(flight.Action("CreatePreparedStatement", request), call_with(mine))
                handle = unpacked(bytes(result.body)).prepared_statement_handle
                command = packed(FLIGHT_SQL["CommandPreparedStatementQuery"](prepared_statement_handle=handle))
                descriptor = flight.FlightDescriptor.for_command(command)
                with pytest.raises(KeyError, match="no such prepared statement"):
                    client.get_flight_info(descriptor, call_with(theirs))
                assert client.get_flight_info(descriptor, call_with(mine)).schema.names == ["a"]

    @pytest.mark.parametrize("allow_write", [False, True])
    def test_what_an_admin_may_do(self, tmp_path, tokens, allow_write):
        file = make_database(tmp_path)
        reader, admin = add_token(tokens, "r", "reader"), add_token(tokens, "a", "admin")
        with in_process(config_of(file, tokens=str(tokens), allow_write=allow_write)) as (_, port):
            with FlightClient(f"grpc://127.0.0.1:{port}") as client:
                generate = "SELECT * FROM jammi_generate('notes', 'note', 'id')"
                with pytest.raises(flight.FlightUnauthorizedError, match="this client only reads"):
                    asked_with(client, reader, generate)
                if not allow_write:
                    with pytest.raises(flight.FlightUnauthorizedError, match="this client only reads"):
                        asked_with(client, admin, generate)
                    return
                built = asked_with(client, admin, generate).to_pylist()[0]
                assert (built["source"], built["row_count"]) == ("notes", 20)
                with warnings.catch_warnings():
                    # DuckDB 1 does not tell a second query from a second look at a relation.
                    warnings.simplefilter("ignore", JammiWarning)
                    again = asked_with(client, admin, generate).to_pylist()[0]
                is_new = again["embedding_table"] != built["embedding_table"]
                assert is_new or duckdb.__version__.startswith("1.")
                found = asked_with(client, reader, "SELECT id FROM jammi_search('notes', 'note 7', 1)")
                assert found.to_pydict() == {"id": [7]}
                assert asked_with(client, admin, "SELECT * FROM jammi_refresh('notes')").num_rows == 1
                for table in {built["embedding_table"], again["embedding_table"]}:
                    with pytest.raises(flight.FlightUnauthorizedError):
                        asked_with(client, reader, f"SELECT * FROM jammi_drop('{table}')")
                    assert asked_with(client, admin, f"SELECT * FROM jammi_drop('{table}')").num_rows == 1
                # The database itself is for nobody to change.
                for text in ("DELETE FROM notes", "CREATE TABLE x (a INT)", "COPY notes TO '/tmp/x'"):
                    with pytest.raises(flight.FlightUnauthorizedError):
                        asked_with(client, admin, text)

    def test_a_build_of_a_client_that_goes_away_stops(self, tmp_path, tokens):
        file = make_database(tmp_path)
        admin = add_token(tokens, "a", "admin")
        config = config_of(file, tokens=str(tokens), allow_write=True, query_timeout="1 second")
        with duckdb.connect(str(file)) as con:
            con.execute(
                "CREATE TABLE many AS SELECT range AS id, 'some text of the row ' || range AS t FROM range(200000)"
            )
        with in_process(config) as (service, port), FlightClient(f"grpc://127.0.0.1:{port}") as client:
            header = (b"authorization", f"Bearer {admin}".encode())
            # A build may take longer than other queries.
            soon = flight.FlightCallOptions(headers=[header], timeout=4)
            with pytest.raises(flight.FlightTimedOutError):
                client.do_get(flight.Ticket(b"SELECT * FROM jammi_generate('many', 't', 'id')"), soon)
            waited_for(lambda: service.admission.running == 0)
            left = asked_with(client, admin, "SELECT status FROM jammi_tables() WHERE source = 'many'")
            assert left.to_pylist() in ([{"status": "building"}], [{"status": "failed"}])
            assert service.database.engine.jobs.at_work() == {}


def test_tokens_at_the_command_line(tmp_path):
    def run(line):
        return in_pipe(line, tmp_path, XDG_CONFIG_HOME=f"{tmp_path}/config")

    made = run("jammi-duck token add reports --tokens tokens.json")
    assert made.returncode == 0
    assert made.stdout.startswith("jd_")
    assert made.stdout.strip() not in (tmp_path / "tokens.json").read_text()
    assert run("jammi-duck token add nightly --role admin --tokens tokens.json").returncode == 0
    listed = run("jammi-duck token list --tokens tokens.json --json")
    rows = json.loads(listed.stdout)
    assert [(row["name"], row["role"]) for row in rows] == [("reports", "reader"), ("nightly", "admin")]
    assert run("jammi-duck token revoke reports --tokens tokens.json").returncode == 0
    assert "reports" not in run("jammi-duck token list --tokens tokens.json").stdout
    refused = run("jammi-duck token add x")
    assert (refused.returncode, "name one with --tokens" in refused.stderr) == (2, True)


def test_durations_of_the_server_are_durations(tmp_path):
    config = config_of(tmp_path / "x.duckdb", drain="3s", idle_timeout="2 hours")
    assert (config.drain, config.idle_timeout) == (timedelta(seconds=3), timedelta(hours=2))


def test_two_requests_at_once_read_the_tokens_once(tokens):
    secret = add_token(tokens, "r", "reader")
    gate = Gate(tokens, open_to_all=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(gate.visitor(f"Bearer {secret}").name)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["r"] * 8
