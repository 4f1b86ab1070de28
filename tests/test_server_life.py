"""The installed command as a process: it starts, answers, ends, and is killed."""

import contextlib
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from pyarrow.flight import FlightClient, FlightDescriptor

import jammi_duck
from tests.serving import Process, make_database
from tests.test_server_flight import ENDLESS, fetched, waited_for
from tools.program import in_pipe

pytestmark = pytest.mark.minilm


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(file):
    with Process(file) as server:
        yield server


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.status, answer.read().decode()


def test_the_script_of_the_guide(server):
    client = FlightClient(f"grpc://localhost:{server.flight}")
    info = client.get_flight_info(
        FlightDescriptor.for_command(b"SELECT id, title, year FROM patents.public.patents WHERE year > 2020")
    )
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert table.num_rows == 3
    assert list(table.to_pandas()["title"]) == ["Robot arm", "Water pump", "Solar panel"]
    info = client.get_flight_info(
        FlightDescriptor.for_command(b"SELECT table_name FROM information_schema.tables WHERE table_schema = 'jammi'")
    )
    assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 1


def test_the_client_of_the_readme(server):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "adbc" in each)
    code = code.replace("localhost:8081", f"localhost:{server.flight}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "title: string" in done.stdout
    assert "Membrane filter" in done.stdout


def test_health_and_metrics(server):
    assert get(server.http, "/healthz") == (200, json.dumps(
        {"status": "ok", "version": jammi_duck.__version__}, separators=(",", ":")))  # fmt: skip
    assert get(server.http, "/readyz") == (200, '{"status":"ready"}')
    before = _counted(get(server.http, "/metrics")[1])
    with FlightClient(server.uri) as client:
        fetched(client, "SELECT id FROM jammi_search('patents', 'water', 1)")
    after = _counted(get(server.http, "/metrics")[1])
    assert after["jammi_grpc_requests_total"] == before["jammi_grpc_requests_total"] + 2
    assert after["jammi_flight_queries_total"] == before["jammi_flight_queries_total"] + 1
    assert after["jammi_search_latency_seconds_count"] == before["jammi_search_latency_seconds_count"] + 1
    assert after["jammi_eval_invocations_total"] == 0
    buckets = [name for name in after if name.startswith("jammi_search_latency_seconds_bucket")]
    assert [name.split('"')[1] for name in buckets] == [
        "0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "+Inf",
    ]  # fmt: skip


def _counted(text):
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_probe(server, tmp_path):
    ready = in_pipe(f"jammi-duck probe --http 127.0.0.1:{server.http}", tmp_path)
    assert (ready.returncode, ready.stdout) == (0, '{"status":"ready"}\n')
    gone = in_pipe("jammi-duck probe --http 127.0.0.1:1", tmp_path)
    assert gone.returncode == 1
    assert "no answer from http://127.0.0.1:1/readyz" in gone.stdout


def test_other_processes_read_the_file_and_none_writes(server, file):
    reading = subprocess.run(
        [sys.executable, "-c", f"import duckdb; print(duckdb.connect({str(file)!r}, read_only=True).execute("
         "'SELECT count(*) FROM notes').fetchone())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert reading.stdout == "(20,)\n"
    refused = in_pipe(f"jammi-duck drop x --db {file}", file.parent)
    assert refused.returncode == 1
    assert "is open in the process" in refused.stderr


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--db none.duckdb", 2, "there is no database 'none.duckdb'"),
        ("", 2, "there is no database 'jammi_duck.duckdb'"),
        ("--flight 0.0.0.0:0", 2, "lets in anybody who reaches this machine"),
        ("--http 0.0.0.0:0", 2, "lets in anybody who reaches this machine"),
        ("--flight 127.0.0.1:{port}", 2, "cannot listen on 127.0.0.1:"),
        ("--flight 127.0.0.1:0 --http 127.0.0.1:{port}", 2, "cannot listen on 127.0.0.1:"),
        ("--flight nonsense", 2, "must be a host and a port"),
        ("--tokens broken.json", 2, "is no file of tokens"),
    ],
)
def test_what_cannot_be_served(tmp_path, arguments, code, words):
    make_database(tmp_path)
    (tmp_path / "broken.json").write_text("nonsense")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = arguments.format(port=taken.getsockname()[1])
        base = "--db my.duckdb " if line and "--db" not in line else ""
        base += "--http 127.0.0.1:0 " if "--http" not in line else ""
        base += "--flight 127.0.0.1:0 " if "--flight" not in line else ""
        done = in_pipe(f"jammi-duck serve {base}{line}", tmp_path)
    assert words in done.stderr
    assert done.returncode == code


def test_a_database_that_is_being_written_is_not_served(tmp_path):
    file = make_database(tmp_path)
    con = duckdb.connect(str(file))
    try:
        done = in_pipe("jammi-duck serve --db my.duckdb --flight 127.0.0.1:0 --http 127.0.0.1:0", tmp_path)
    finally:
        con.close()
    assert done.returncode == 1
    assert "is open in the process" in done.stderr


def endless(uri, raised):
    with FlightClient(uri) as client:
        try:
            client.do_get(flight.Ticket(ENDLESS)).read_all()
        except (flight.FlightError, pa.ArrowException) as error:
            raised.append(str(error))


def test_what_runs_ends_before_the_server_does(tmp_path):
    """SIGTERM under load: every answer is whole, or an error."""
    file = make_database(tmp_path)
    with Process(file) as server:
        answers, refused, wrong = [], [], []

        def work(number):
            with FlightClient(server.uri) as client:
                while True:
                    try:
                        table = fetched(client, f"SELECT range * {number} AS n FROM range(50000)")
                        ids = fetched(client, "SELECT id FROM jammi_search('patents', 'water', 3)")
                    except (flight.FlightError, pa.ArrowException) as error:
                        refused.append(str(error))
                        return
                    is_right = table.num_rows == 50_000 and ids.num_rows == 3
                    (answers if is_right else wrong).append(number)

        threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        waited_for(lambda: len(answers) > 20)
        assert server.end() == 0
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert len(refused) == 8


def test_a_query_may_go_on_for_so_long_and_no_longer(tmp_path):
    file = make_database(tmp_path)
    with Process(file, JAMMI_SERVER__DRAIN="1s") as server:
        raised = []
        thread = threading.Thread(target=endless, args=[server.uri, raised])
        thread.start()
        waited_for(lambda: "jammi_queries_running 1.0" in get(server.http, "/metrics")[1])
        assert server.end() == 0
        thread.join(60)
    assert "the server ends" in raised[0]


def test_while_it_ends_it_is_not_ready_and_a_second_signal_ends_it_at_once(tmp_path):
    file = make_database(tmp_path)
    with Process(file, JAMMI_SERVER__DRAIN="10 minutes") as server:
        raised = []
        thread = threading.Thread(target=endless, args=[server.uri, raised])
        thread.start()
        waited_for(lambda: "jammi_queries_running 1.0" in get(server.http, "/metrics")[1])
        server.process.send_signal(signal.SIGTERM)

        def not_ready():
            with contextlib.suppress(urllib.error.HTTPError):
                get(server.http, "/readyz")
                return False
            return True

        waited_for(not_ready)
        assert server.process.poll() is None
        with FlightClient(server.uri) as client, pytest.raises((flight.FlightError, pa.ArrowException)):
            fetched(client, "SELECT 1 AS a")
        assert server.end(signal.SIGINT) == 0
        thread.join(60)
    assert len(raised) == 1


def test_a_killed_server_leaves_all_as_it_was(tmp_path):
    file = make_database(tmp_path)
    before = file.read_bytes()
    with Process(file) as server:
        thread = threading.Thread(target=endless, args=[server.uri, []])
        thread.start()
        waited_for(lambda: "jammi_queries_running 1.0" in get(server.http, "/metrics")[1])
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        thread.join(60)
    assert file.read_bytes() == before
    with Process(file) as again, FlightClient(again.uri) as client:
        assert fetched(client, "SELECT id FROM jammi_search('patents', 'clean water', 1)").to_pydict() == {"id": [1]}


def test_many_connections(server):
    clients = [FlightClient(server.uri) for _ in range(500)]
    try:
        for client in clients:
            client.wait_for_available(60)
        for client in clients[::25]:
            assert fetched(client, "SELECT 1 AS a").num_rows == 1
    finally:
        for client in clients:
            client.close()


def test_bytes_that_are_no_calls(server):
    """Whatever is sent to a port, the server goes on."""
    for port in (server.flight, server.http):
        for content in (
            b"",
            b"\x00" * 1000,
            b"GET / HTTP/1.0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 999,
        ):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sent:
                sent.settimeout(0.2)
                sent.sendall(content)
                sent.recv(100)
    with FlightClient(server.uri) as client:
        assert fetched(client, "SELECT 1 AS a").num_rows == 1


def make_certificates(folder):
    """A certificate authority, and certificates by it for `localhost` and for a client."""
    run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)  # noqa: E731
    run(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=ca",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        run(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip


def _serial(port, authority):
    context = ssl.create_default_context(cafile=authority)
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            return secure.getpeercert()["serialNumber"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates")
def test_tls(tmp_path):
    file = make_database(tmp_path)
    make_certificates(tmp_path)
    variables = {
        "JAMMI_SERVER__TLS_CERTIFICATE": str(tmp_path / "server.pem"),
        "JAMMI_SERVER__TLS_KEY": str(tmp_path / "server.key"),
    }
    authority = (tmp_path / "ca.pem").read_bytes()
    with Process(file, **variables) as server:
        with FlightClient(f"grpc+tls://localhost:{server.flight}", tls_root_certs=authority) as client:
            assert fetched(client, "SELECT 1 AS a").num_rows == 1
        with FlightClient(server.uri) as plain, pytest.raises(flight.FlightUnavailableError):
            fetched(plain, "SELECT 1 AS a")
        before = [_serial(port, tmp_path / "ca.pem") for port in (server.flight, server.http)]
        probed = in_pipe(f"jammi-duck probe --http 127.0.0.1:{server.http}", tmp_path, **variables)
        assert (probed.returncode, probed.stdout) == (0, '{"status":"ready"}\n')
        make_certificates(tmp_path)
        server.process.send_signal(signal.SIGHUP)

        def renewed():
            with contextlib.suppress(ssl.SSLError):
                now = [_serial(port, tmp_path / "ca.pem") for port in (server.flight, server.http)]
                return all(a != b for a, b in zip(before, now, strict=True))

        waited_for(renewed)
        (tmp_path / "server.pem").write_text("broken")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert _serial(server.flight, tmp_path / "ca.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates")
def test_clients_with_certificates(tmp_path):
    file = make_database(tmp_path)
    make_certificates(tmp_path)
    variables = {
        "JAMMI_SERVER__TLS_CERTIFICATE": str(tmp_path / "server.pem"),
        "JAMMI_SERVER__TLS_KEY": str(tmp_path / "server.key"),
        "JAMMI_SERVER__TLS_CLIENT_CA": str(tmp_path / "ca.pem"),
    }
    authority, certificate, key = ((tmp_path / name).read_bytes() for name in ("ca.pem", "client.pem", "client.key"))
    with Process(file, **variables) as server:
        uri = f"grpc+tls://localhost:{server.flight}"
        with FlightClient(uri, tls_root_certs=authority, cert_chain=certificate, private_key=key) as client:
            assert fetched(client, "SELECT 1 AS a").num_rows == 1
        with FlightClient(uri, tls_root_certs=authority) as client, pytest.raises(flight.FlightError):
            fetched(client, "SELECT 1 AS a")

        def probed():
            done = in_pipe(f"jammi-duck probe --http 127.0.0.1:{server.http}", tmp_path, **variables)
            return done.returncode, done.stdout

        assert probed() == (0, '{"status":"ready"}\n')
        # Another authority, which has signed everything anew: the one before counts no more.
        make_certificates(tmp_path)
        server.process.send_signal(signal.SIGHUP)
        waited_for(lambda: probed()[0] == 0)
        authority = (tmp_path / "ca.pem").read_bytes()
        with FlightClient(uri, tls_root_certs=authority, cert_chain=certificate, private_key=key) as client:
            with pytest.raises(flight.FlightError):
                fetched(client, "SELECT 1 AS a")
        certificate, key = ((tmp_path / name).read_bytes() for name in ("client.pem", "client.key"))
        with FlightClient(uri, tls_root_certs=authority, cert_chain=certificate, private_key=key) as client:
            assert fetched(client, "SELECT 1 AS a").num_rows == 1


def test_the_log_is_json_if_asked(tmp_path):
    file = make_database(tmp_path)
    with Process(file, JAMMI_LOGGING__FORMAT="json") as server:
        with FlightClient(server.uri) as client:
            fetched(client, "SELECT 'hidden' AS a")
            fetched(client, "SELECT id FROM jammi_search('patents', 'water', 1)")
        assert server.end() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    query, _ = [line for line in lines if line["message"].startswith("query of")]
    assert (query["user"], query["rows"], query["error"]) == ("anonymous", 1, None)
    assert len(query["statement"]) == 16
    assert "hidden" not in server.log.read_text()


def test_preloaded_models_are_there_before_the_port_opens(tmp_path):
    file = make_database(tmp_path)
    name = "sentence-transformers/all-MiniLM-L6-v2"
    with Process(file, JAMMI_SERVER__PRELOAD_MODELS=json.dumps([name])) as server:
        assert "jammi_loaded_models 1.0" in get(server.http, "/metrics")[1]
        assert get(server.http, "/readyz")[0] == 200
    wrong = in_pipe(
        "jammi-duck serve --db my.duckdb --flight 127.0.0.1:0 --http 127.0.0.1:0",
        tmp_path,
        JAMMI_SERVER__PRELOAD_MODELS='["/none"]',
    )
    assert wrong.returncode != 0
    assert "/none" in wrong.stderr
    assert Path(file).exists()


@pytest.mark.long
def test_every_command_on_a_server(tmp_path):
    """Every command for embedding tables runs on a server, with the same output as without."""
    file = make_database(tmp_path)

    def run(line):
        return in_pipe(line, tmp_path, JAMMI_STORAGE__CACHE_DIR=f"{tmp_path}/cache")

    here = run("jammi-duck search patents 'clean water' -k 2 --columns id,title --db my.duckdb --storage artifacts")
    for name, role in (("a", "admin"), ("r", "reader")):
        (tmp_path / name).write_text(run(f"jammi-duck token add {name} --role {role} --tokens tokens.json").stdout)
    with Process(file, "--tokens", str(tmp_path / "tokens.json"), JAMMI_SERVER__ALLOW_WRITE="true") as server:
        where = f"--server {server.uri}"
        there = run(f"jammi-duck search patents 'clean water' -k 2 --columns id,title {where} --token-file r")
        assert (there.returncode, there.stdout) == (0, here.stdout)
        generated = run(f"jammi-duck generate notes --columns note --key id --json {where} --token-file a")
        (row,) = json.loads(generated.stdout)
        assert (row["source"], row["row_count"]) == ("notes", 20)
        for command in ("status notes", "refresh notes", "sync notes --columns note --key id", "compact notes",
                        "index-words notes", "tables", "recover", "vacuum", "refresh --all"):  # fmt: skip
            done = run(f"jammi-duck {command} {where} --token-file a")
            assert done.returncode == 0, (command, done.stderr)
        refused = run(f"jammi-duck drop {row['embedding_table']} {where} --token-file r")
        assert (refused.returncode, "this client only reads" in refused.stderr) == (1, True)
        assert run(f"jammi-duck drop {row['embedding_table']} {where} --token-file a").returncode == 0
        for line, code, words in (
            (f"jammi-duck tables {where}", 2, "this server needs a token"),
            (f"jammi-duck tables {where} --token-file none", 2, "cannot read the token in 'none'"),
            (f"jammi-duck tables {where} --token-file a --db my.duckdb", 2, "exclude each other"),
            (f"jammi-duck search nope x {where} --token-file r", 2, "no embedding table for 'nope'"),
            ("jammi-duck tables --server nonsense", 2, "is no address of a server"),
            ("jammi-duck tables --server grpc://127.0.0.1:1", 1, "the server cannot be reached"),
        ):
            done = run(line)
            assert (done.returncode, words in done.stderr) == (code, True), (line, done.stderr)


def test_commands_on_a_server(tmp_path):
    """As `test_every_command_on_a_server`, for two of them."""
    file = make_database(tmp_path)
    with Process(file) as server:
        found = in_pipe(f"jammi-duck search patents 'clean water' -k 1 --json --server {server.uri}", tmp_path)
        (row,) = json.loads(found.stdout)
        assert (row["id"], row["title"], row["_rank"]) == (1, "Membrane filter", 1)
        refused = in_pipe(f"jammi-duck refresh patents --server {server.uri}", tmp_path)
        assert (refused.returncode, "this client only reads" in refused.stderr) == (1, True)
