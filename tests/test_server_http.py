"""HTTP, by the clients of Python's own library."""

import base64
import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from html.parser import HTMLParser

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck.doors.server import http as http_side
from jammi_duck.doors.server import http_server
from jammi_duck.doors.server.http_server import HttpServer
from jammi_duck.doors.server.identity import Gate, add_token, revoke_token
from jammi_duck.doors.server.service import Service
from jammi_duck.doors.server.serving import Credentials
from jammi_duck.errors import ConfigError
from tests.serving import config_of, make_database

pytestmark = [
    # The server's own process leaves this out; DuckDB gives such advice once.
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads"),
]
_KINDS = """CREATE TABLE kinds AS SELECT
    1 AS id, 'a duck in water' AS "te xt", 'NaN'::DOUBLE AS nothing, '-Infinity'::FLOAT AS least, 1.10::DECIMAL(9, 2)
    AS price, 'ab'::BLOB AS bytes, DATE '2024-02-29' AS day, TIMESTAMP '2024-02-29 12:30:00.5' AS at,
    TIMESTAMPTZ '2024-02-29 12:30:00+00' AS zoned, TIME '01:02:03' AS hour,
    INTERVAL '1 month 2 days 3.5 seconds' AS span,
    TIMESTAMP_NS '2024-02-29 12:30:00.123456789' AS exactly, TIMESTAMP '200000-01-01' AS late, DATE 'infinity' AS never,
    9007199254740993 AS large, 170141183460469231731687303715884105727::HUGEINT AS huge,
    {'a': [1, NULL], 'b': {'c': 'x'}} AS nested, MAP {'k': 1} AS pairs, NULL::VARCHAR AS missing, true AS flag,
    '0b5c3f5e-0c2b-4a39-9c3c-6d2f6e1c1f11'::UUID AS name, 'say "hi"; --' AS _rank"""


@contextlib.contextmanager
def running(config, gate=None):
    with contextlib.ExitStack() as stack:
        service = Service(config, gate or Gate(None, open_to_all=True))
        stack.callback(service.close)
        server = HttpServer(service, config.http_listen, Credentials(config))
        stack.callback(server.stop)
        server.start()
        server.service = service
        yield server


@pytest.fixture(scope="module")
def model(tiny_model):
    return str(tiny_model)


@pytest.fixture(scope="module")
def file(tmp_path_factory, model):
    file = make_database(tmp_path_factory.mktemp("served"), model=model)
    folder = file.parent
    options = {"storage": str(folder / "artifacts"), "cache_dir": str(folder / "cache"), "model": model}
    con = jammi_duck.connect(file, **options)
    con.execute(_KINDS)
    con.execute("FROM jammi_generate('kinds', 'te xt', 'id')").fetchall()
    con.execute("CREATE TABLE slow AS SELECT range AS id, 'text ' || range AS text FROM range(200)")
    con.execute("FROM jammi_generate('slow', 'text', 'id')").fetchall()
    con.execute(
        "CREATE TABLE manuals AS SELECT id, 'Pump' AS title, repeat('a pump. ', id + 3) AS body FROM slow LIMIT 9"
    )
    con.execute("FROM jammi_generate('manuals', 'body', 'id', passages := true)").fetchall()
    con.close()
    return file


@pytest.fixture(scope="module")
def config(file, model):
    return config_of(file, model=model)


@pytest.fixture
def other(file, model, tmp_path):
    """Configurations for servers of their own: DuckDB has a file open but once in a process."""

    def config(**options):
        mine = tmp_path / "mine.duckdb"
        shutil.copy(file, mine)
        folder = file.parent
        shared = {"storage": str(folder / "artifacts"), "cache_dir": str(folder / "cache")}
        return config_of(mine, model=model, **shared, **options)

    return config


@pytest.fixture(scope="module")
def served(config):
    with running(config) as server:
        yield server


@pytest.fixture
def sql(served):
    """Rows as dictionaries, of a query on a connection of the server's."""
    from jammi_duck.doors.server.identity import ANYBODY

    def rows(statement, *parameters):
        with served.service.lend(ANYBODY) as lent:
            found = lent.con.execute(statement, parameters)
            names = [each[0] for each in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    return rows


class Answer:
    def __init__(self, response, method):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


def sent(server, method, path, body=None, headers=None, timeout=30):
    con = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        con.request(method, path, body, headers or {})
        return Answer(con.getresponse(), method)
    finally:
        con.close()


def posted(server, path, value, **headers):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return sent(server, "POST", path, body, {"Content-Type": "application/json", **headers})


def searched(server, **keys):
    answer = posted(server, "/v1/search", {"source": "patents", "query": "water", **keys})
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"rows", "seconds"}
    return answer.json["rows"]


def refused(server, status, code, path="/v1/search", **keys):
    given = {"source": "patents", "query": "water"} if path == "/v1/search" else {"input": "water"}
    answer = posted(server, path, {**given, **keys})
    assert answer.status == status, answer.body
    error = answer.json
    if path == "/v1/embeddings":
        assert set(error) == {"error"}
        assert set(error["error"]) == {"message", "type", "param", "code"}
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["code"] == code
        return error["error"]["message"]
    assert set(error) == {"error", "code"}
    assert error["code"] == code
    return error["error"]


def metric(server, line):
    for each in sent(server, "GET", "/metrics").body.decode().splitlines():
        if each.startswith(line + " "):
            return float(each.rpartition(" ")[2])
    return 0.0


def until(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


# Health, metrics, documentation.


def test_health(served):
    answer = sent(served, "GET", "/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok", "version": jammi_duck.__version__})
    answer = sent(served, "GET", "/readyz")
    assert (answer.status, answer.json) == (200, {"status": "ready"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] is None


def test_head_is_get_without_a_body(served):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        answer = sent(served, "HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["content-length"]) > 0


def test_paths_and_methods_that_there_are_not(served):
    for path in ("/", "/v1", "/v1/search/", "/healthz/x", "/%2e%2e/etc/passwd", "/HEALTHZ"):
        answer = sent(served, "GET", path)
        assert (answer.status, answer.json) == (404, {"error": "Not found", "code": "not_found"}), path
    for method, path, allowed in (
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("GET", "/v1/search", "POST"),
        ("OPTIONS", "/v1/search", "POST"),
    ):
        answer = sent(served, method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert (set(answer.json), answer.json["code"]) == ({"error", "code"}, "method_not_allowed")
    answer = sent(served, "GET", "/v1/embeddings")
    assert (answer.status, answer.json["error"]["code"]) == (405, "method_not_allowed")


def test_what_is_no_http_is_told_so(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as con:
        con.sendall(b"hello\r\n\r\n")
        answer = b""
        while part := con.recv(4096):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "invalid"


def test_not_ready_when_the_database_breaks(other, monkeypatch):
    with running(other()) as server:

        def broken(*_, **__):
            raise duckdb.IOException("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(server.service, "lend", broken)
            answer = sent(server, "GET", "/readyz")
            assert answer.status == 503
            assert answer.json == {"status": "not_ready", "detail": "IOException: the disk is gone"}
            assert sent(server, "GET", "/healthz").status == 200
            assert b"jammi_queries_running 0.0" in sent(server, "GET", "/metrics").body
        assert sent(server, "GET", "/readyz").status == 200
        server.service.drain(0)
        answer = sent(server, "GET", "/readyz")
        assert (answer.status, answer.json["detail"]) == (503, "the server is ending")
        answer = posted(server, "/v1/search", {"source": "patents", "query": "water"})
        assert (answer.status, answer.json["code"]) == (503, "ending")


def test_a_check_that_hangs_is_asked_once(other, monkeypatch):
    monkeypatch.setattr(http_side, "_READY_SECONDS", 0.3)
    going_on, checks = threading.Event(), []

    def is_ready(self):
        checks.append(1)
        going_on.wait(60)

    monkeypatch.setattr(Service, "is_ready", is_ready)
    with running(other()) as server:
        for _ in range(3):
            answer = sent(server, "GET", "/readyz")
            assert (answer.status, answer.json["detail"]) == (503, "no answer within 0.3 s")
        assert len(checks) == 1
        going_on.set()
        until(lambda: sent(server, "GET", "/readyz").status == 200)


def test_metrics(served):
    before = metric(served, 'jammi_http_requests_total{path="/healthz",status="200"}')
    others = metric(served, 'jammi_http_requests_total{path="other",status="404"}')
    searches = metric(served, "jammi_search_latency_seconds_count")
    sent(served, "GET", "/healthz")
    sent(served, "GET", "/no/such/path")
    searched(served)
    assert metric(served, 'jammi_http_requests_total{path="/healthz",status="200"}') == before + 1
    assert metric(served, 'jammi_http_requests_total{path="other",status="404"}') == others + 1
    assert metric(served, "jammi_search_latency_seconds_count") == searches + 1
    answer = sent(served, "GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.body.decode()
    assert "no/such" not in text
    for line in ("jammi_connections 1.0", "jammi_queries_running 0.0", "jammi_queries_waiting 0.0"):
        assert line in text
    assert metric(served, "jammi_loaded_models") >= 1
    (table,) = (line for line in text.splitlines() if line.startswith('jammi_table_rows{embedding_table="patents'))
    assert table.endswith(" 5.0")
    assert 'jammi_table_age_seconds{embedding_table="patents' in text


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "style") or name[:2] == "on"]


def test_documentation(served):
    document = sent(served, "GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == jammi_duck.__version__
    answer = sent(served, "GET", "/docs")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    page = Page()
    page.feed(answer.body.decode())
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    for path, methods in document["paths"].items():
        assert f">{path}<" in answer.body.decode()
        for method, operation in methods.items():
            assert sent(served, "PUT", path).headers["allow"].partition(",")[0] == method.upper()
            if "requestBody" in operation:
                assert set(operation["responses"]) >= {"200", "400", "401", "404", "413", "415", "429", "503"}


def test_the_documented_keys_are_those_that_are_taken(served):
    schemas = sent(served, "GET", "/openapi.json").json["components"]["schemas"]
    for path, name in (("/v1/search", "SearchRequest"), ("/v1/embeddings", "EmbeddingsRequest")):
        text = refused(served, 400, "invalid", path, zzzzzz=1)
        assert set(text.partition("there are: ")[2].split(", ")) == set(schemas[name]["properties"])


# Embeddings.


def embedded(server, **keys):
    answer = posted(server, "/v1/embeddings", keys)
    assert answer.status == 200, answer.body
    value = answer.json
    assert set(value) == {"object", "data", "model", "usage"}
    assert value["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert [each["index"] for each in value["data"]] == list(range(len(value["data"])))
    return [each["embedding"] for each in value["data"]]


def test_embeddings_equal_those_of_sql(served, sql, model):
    texts = ["a duck swims", "water", "the"]
    for role in ("document", "query"):
        wanted = [sql("SELECT embed(?, role := ?) AS v", text, role)[0]["v"] for text in texts]
        found = embedded(served, model=model, input=texts, input_type=role)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        (alone,) = embedded(served, input=texts[0], input_type=role, user="somebody")
        np.testing.assert_allclose(alone, wanted[0], atol=1e-6)
    packed = embedded(served, input=texts, encoding_format="base64")
    plain = embedded(served, input=texts)
    np.testing.assert_array_equal([np.frombuffer(base64.b64decode(each), "<f4") for each in packed], np.float32(plain))
    (short,) = embedded(served, input="water", dimensions=8)
    np.testing.assert_allclose(short, sql("SELECT embed('water', dims := 8) AS v")[0]["v"], atol=1e-6)


def test_embeddings_that_are_refused(served):
    def text(code="invalid", status=400, **keys):
        return refused(served, status, code, "/v1/embeddings", **keys)

    assert "tokens" in text(input=[1, 2, 3])
    assert "tokens" in text(input=[[1, 2], [3]])
    assert "empty" in text(input=[])
    assert "blank text, number 0" in text(input="")
    assert "blank text, number 1" in text(input=["a", " \n"])
    assert "number 1 is none" in text(input=["a", None])
    assert "2,049 texts" in text(input=["a"] * 2049)
    assert "'input' is missing" in text(input=None)
    assert "has 1 to 32" in text(dimensions=33)
    assert "has 1 to 32" in text(dimensions=0)
    assert "'dimensions' must be a whole number" in text(dimensions=True)
    assert "'encoding_format' must be" in text(encoding_format="int8")
    assert "'input_type' must be" in text(input_type="documents")
    assert "did you mean 'input_type'" in text(inputtype="query")
    assert "no model 'text-embedding-3-small'" in text("model_not_found", 404, model="text-embedding-3-small")
    assert "no model '/etc'" in text("model_not_found", 404, model="/etc")


def test_embeddings_wait_for_their_turn(other):
    with running(other(max_queries=1, max_waiting=1)) as server:
        admission = server.service.admission
        with admission.turn(is_search=True, is_gone=lambda: False):
            with socket.create_connection(("127.0.0.1", server.port)) as waiting:
                waiting.sendall(_raw("/v1/embeddings", {"input": "water"}))
                until(lambda: admission.waiting == 1)
                answer = posted(server, "/v1/search", {"source": "patents", "query": "water"})
                assert (answer.status, answer.json["code"]) == (429, "busy")
                assert answer.headers["retry-after"] == "1"
                answer = posted(server, "/v1/embeddings", {"input": "water"})
                assert (answer.status, answer.json["error"]["code"]) == (429, "busy")
            until(lambda: admission.waiting == 0)


def _raw(path, value):
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# Search.


@pytest.mark.parametrize(
    ("keys", "call"),
    [
        ({}, ""),
        ({"k": 2}, ", 2"),
        ({"k": 3, "mode": "text"}, ", 3, mode := 'text'"),
        ({"mode": "hybrid", "weight": 0.2}, ", mode := 'hybrid', weight := 0.2"),
        ({"fusion": "rrf", "mode": "hybrid"}, ", mode := 'hybrid', fusion := 'rrf'"),
        (
            {"exact": True, "min_similarity": 0.1, "mode": "vector"},
            ", exact := true, min_similarity := 0.1, mode := 'vector'",
        ),
        ({"filter": "year > 2020"}, ", filter := 'year > 2020'"),
        (
            {"filter": "year > $year AND title IN $titles", "parameters": {"year": 2019, "titles": ["Robot arm"]}},
            ", filter := 'year = 2021'",
        ),
        (
            {"filter": "year IN $key AND $value IS NOT NULL", "parameters": {"key": [2021], "value": [1]}},
            ", filter := 'year = 2021'",
        ),
        ({"parameters": {}, "filter": None, "model": None}, ""),
    ],
)  # fmt: skip
def test_a_search_gives_the_rows_of_sql(served, sql, keys, call):
    wanted = sql(f"SELECT * FROM jammi_search('patents', 'water'{call}) ORDER BY _rank")
    assert searched(served, **keys) == wanted
    assert wanted


def test_a_search_by_a_vector_and_by_table(served, sql, model):
    vector = [1, 0.5] + [0] * 30
    wanted = sql("SELECT * FROM jammi_search('patents', ?::FLOAT[]) ORDER BY _rank", vector)
    assert searched(served, query=vector) == wanted
    (table,) = (row["embedding_table"] for row in sql("FROM jammi_tables()") if row["source"] == "patents")
    assert searched(served, query=vector, embedding_table=table, model=model) == wanted
    assert "dimensions" in refused(served, 400, "invalid", query=[1, 2])


def test_columns(served):
    (row,) = searched(served, columns=["title", "ID", "title", "_rank"], k=1)
    assert list(row) == ["title", "id", "_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25"]
    (row,) = searched(served, columns=[], k=1)
    assert list(row) == ["_row_id", "_rank", "_score", "_similarity", "_distance", "_bm25"]
    (row,) = searched(served, source="kinds", query="duck", columns=["te xt", "__rank"])
    assert (row["te xt"], row["__rank"], row["_rank"]) == ("a duck in water", 'say "hi"; --', 1)
    assert "no column 'titel'" in refused(served, 400, "invalid", columns=["titel"])


def test_each_kind_of_value_is_json(served):
    (row,) = searched(served, source="kinds", query="duck")
    nested = {"a": [1, None], "b": {"c": "x"}}
    wanted = {
        "nothing": None, "least": None, "price": "1.10", "bytes": "YWI=", "day": "2024-02-29",
        "at": "2024-02-29T12:30:00.500000", "hour": "01:02:03", "span": "P1M2DT3.5S",
        "exactly": "2024-02-29T12:30:00.123456789", "late": "200000-01-01T00:00:00.000000", "never": "infinity",
        "large": 9007199254740993, "huge": "170141183460469231731687303715884105727", "nested": nested,
        "pairs": [["k", 1]], "missing": None, "flag": True, "name": "0b5c3f5e-0c2b-4a39-9c3c-6d2f6e1c1f11",
    }  # fmt: skip
    assert {name: row[name] for name in wanted} == wanted
    assert row["zoned"].startswith("2024-02-29T")


@pytest.mark.parametrize(
    "keys",
    [
        {"columns": ['title" FROM patents; DROP TABLE notes; --']},
        {"columns": ["title, (SELECT note FROM notes LIMIT 1)"]},
        {"columns": ["(SELECT 1)"]},
        {"columns": ["_jammi_result"]},
        {"columns": ["*"]},
        {"columns": [""]},
        {"filter": "1=1) UNION SELECT * FROM notes --"},
        {"filter": "id IN (SELECT id FROM read_csv('/etc/passwd'))"},
        {"filter": "title = $x", "parameters": {"x'} ) --": 1}},
        {"mode": "text', k := 1000) --"},
        {"k": "1) --"},
    ],
)
def test_nothing_that_is_sent_becomes_sql(served, keys):
    assert refused(served, 400, "invalid", **keys)
    assert len(searched(served)) == 5


def test_values_of_parameters_stay_values(served):
    hostile = "x' OR 1=1 --"
    assert searched(served, filter="title = $title", parameters={"title": hostile}) == []
    assert searched(served, query="'); DROP TABLE notes; --")


@pytest.mark.parametrize(
    "source",
    ["patents; DROP TABLE notes", "(SELECT * FROM notes)", "/etc/passwd", "no_such", "notes", "", "a\0b", 'a"b'],
)
def test_a_source_is_a_name(served, source):
    answer = posted(served, "/v1/search", {"source": source, "query": "water"})
    assert answer.status in (400, 403, 404), answer.body
    assert set(answer.json) == {"error", "code"}


def test_searches_that_are_refused(served):
    def text(**keys):
        return refused(served, 400, "invalid", **keys)

    assert "did you mean 'filter'" in text(filtr="x")
    assert "'source' is missing" in text(source=None)
    assert "'query' must be a text, or a vector" in text(query=[])
    assert "'query' must be" in text(query=["a"])
    assert "'query' must be" in text(query=[True])
    assert "'query' must be" in text(query=[10**400])
    assert "'query' must be" in text(query={"text": "x"})
    for k in (0, 1001, 1.5, "3", True, 10**30):
        assert "'k' must be a whole number from 1 to 1,000" in text(k=k)
    assert "'exact' must be true or false" in text(exact=1)
    assert "'weight' must be a number" in text(weight="0.5")
    assert "'columns' must be a list of names" in text(columns="title")
    assert "'parameters' must be" in text(parameters=[1])
    assert "'parameters' must be" in text(parameters={"x": 10**30})
    assert "no mode 'vectors'" in text(mode="vectors")
    assert refused(served, 404, "not_found", source="nothing")
    assert refused(served, 404, "not_found", model="/etc")


def test_a_model_that_there_is_not_has_one_code(served, model):
    for name in ("no-such-model", "/etc", "../etc"):
        wanted = f"no model '{name}'"
        assert wanted in refused(served, 404, "model_not_found", rerank=name)
        assert wanted in refused(served, 404, "model_not_found", "/v1/embeddings", model=name)
    # It is here, and is no re-ranker.
    assert model in refused(served, 404, "model_not_found", rerank=model)


def test_bodies_that_are_refused(served):
    for body in (b"", b"{", b"nonsense", b'{"source": "\xff"}', b"[1]", b'"x"', b"null", b'{"k": NaN}', b"[" * 100_000):
        answer = posted(served, "/v1/search", body)
        assert (answer.status, answer.json["code"]) == (400, "invalid"), body[:10]
    deep = {"x": 1}
    for _ in range(300):
        deep = {"x": deep}
    assert "'parameters' must be" in refused(served, 400, "invalid", parameters=deep)
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        answer = sent(served, "POST", "/v1/search", b"{}", headers)
        assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")
    answer = posted(served, "/v1/search", b"x", **{"Content-Encoding": "gzip"})
    assert answer.status == 415
    answer = posted(
        served, "/v1/search", json.dumps({"source": "patents", "query": "water"}).encode(),
        **{"Content-Type": "Application/JSON; charset=utf-8"},
    )  # fmt: skip
    assert answer.status == 200


def test_bodies_that_are_too_large(served):
    answer = posted(served, "/v1/search", {"source": "patents", "query": "x" * (1 << 20)})
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    answer = posted(served, "/v1/embeddings", {"input": "x" * (16 << 20)})
    assert (answer.status, answer.json["error"]["code"]) == (413, "too_large")
    assert len(embedded(served, input="x" * (2 << 20))) == 1
    con = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    con.putrequest("POST", "/v1/search")
    con.putheader("Content-Type", "application/json")
    con.putheader("Transfer-Encoding", "chunked")
    con.endheaders()
    for _ in range(17):
        con.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
    assert con.getresponse().status == 413
    con.close()


def test_a_body_that_does_not_come(served, monkeypatch):
    monkeypatch.setattr(http_side, "_BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as con:
        con.sendall(_raw("/v1/search", {"source": "patents"})[:-3])
        assert con.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_headers_that_do_not_come(other, monkeypatch):
    monkeypatch.setattr(http_server, "_IDLE_SECONDS", 0.3)
    with running(other()) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as con:
            con.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
            assert con.recv(4096) == b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as con:
            con.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert con.recv(4096).startswith(b"HTTP/1.1 200 ")
            con.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
            while con.recv(4096):
                pass


def test_an_answer_that_nobody_reads(other, monkeypatch):
    monkeypatch.setattr(http_server, "_IDLE_SECONDS", 0.3)
    with running(other()) as server:
        with socket.socket() as con:
            con.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            con.connect(("127.0.0.1", server.port))
            con.sendall(_raw("/v1/embeddings", {"input": ["water"] * 2048}) * 4)
            connections = server._server.server_state.connections
            until(lambda: connections)
            until(lambda: not connections)


# A filter whose sub-query takes longer than any test.
_SLOW = (
    "id IN (SELECT a.id FROM slow a, slow b, slow c, slow d, slow e WHERE sin(a.id + b.id * c.id + d.id * e.id) > 2)"
)


def test_a_client_that_leaves_stops_its_query(served):
    with socket.create_connection(("127.0.0.1", served.port)) as con:
        con.sendall(_raw("/v1/search", {"source": "slow", "query": "text", "filter": _SLOW}))
        until(lambda: served.service._running)
        time.sleep(0.3)
        assert served.service._running
    until(lambda: not served.service._running and served.service.admission.running == 0)
    until(lambda: metric(served, 'jammi_http_requests_total{path="/v1/search",status="499"}') == 1)
    assert len(searched(served)) == 5


def test_a_query_that_takes_too_long(other):
    with running(other(query_timeout="1 second")) as server:
        answer = posted(server, "/v1/search", {"source": "slow", "query": "text", "filter": _SLOW})
        assert (answer.status, answer.json["code"]) == (504, "timeout")


def test_a_client_that_leaves_stops_its_embeddings(served, monkeypatch):
    from jammi_duck.encoder.local.transformer import TransformerEncoder

    begun, ended = threading.Event(), threading.Event()

    def encode_rows(self, texts, role, progress):
        begun.set()
        try:
            while True:
                time.sleep(0.01)
                progress(1)
        finally:
            ended.set()

    monkeypatch.setattr(TransformerEncoder, "encode_rows", encode_rows)
    with socket.create_connection(("127.0.0.1", served.port)) as con:
        con.sendall(_raw("/v1/embeddings", {"input": ["a", "b"]}))
        assert begun.wait(30)
    assert ended.wait(30)
    until(lambda: served.service.admission.running == 0)


def test_a_server_that_ends_answers_what_runs(other):
    answers = []
    with running(other()) as server:

        def ask():
            answers.append(posted(server, "/v1/search", {"source": "slow", "query": "text", "filter": _SLOW}))

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: server.service._running)
        server.service.drain(0)
        asking.join(30)
    (answer,) = answers
    assert (answer.status, answer.json["code"]) == (503, "ending")


def test_many_clients_at_once(served):
    wanted, failed = searched(served), []

    def ask(number):
        con = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        for _ in range(5):
            body = json.dumps({"source": "patents", "query": "water"})
            con.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
            response = con.getresponse()
            if response.status != 200 or json.loads(response.read())["rows"] != wanted:
                failed.append(number)
        con.close()

    threads = [threading.Thread(target=ask, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed


def test_requests_that_come_before_the_answer(served):
    request = _raw("/v1/search", {"source": "patents", "query": "water", "k": 1})
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as con:
        con.sendall(request + request + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := con.recv(65536):
            answer += part
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_a_result_that_is_too_large(other):
    with running(other(max_result_rows=2)) as server:
        answer = posted(server, "/v1/search", {"source": "patents", "query": "water"})
        assert (answer.status, answer.json["code"]) == (400, "result_too_large")


def test_what_fails_within_is_not_shown(other, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(http_side, "search", broken)
    with running(other()) as server:
        answer = posted(server, "/v1/search", {"source": "patents", "query": "water"})
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    assert "a secret of the server" in caplog.text


# Who may come in.


def test_tokens(other, tmp_path):
    tokens = tmp_path / "tokens.json"
    token = add_token(tokens, "app", "reader")
    with running(other(), Gate(tokens, open_to_all=False)) as server:

        def status(path, **headers):
            given = {"source": "patents", "query": "water"} if path == "/v1/search" else {"input": "water"}
            return posted(server, path, given, **headers)

        for path in ("/v1/search", "/v1/embeddings"):
            for headers in ({}, {"Authorization": "Bearer jd_wrong"}, {"Authorization": "nonsense"}):
                answer = status(path, **headers)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
                error = answer.json["error"] if path == "/v1/embeddings" else answer.json
                assert error["code"] == "unauthenticated"
            assert status(path, Authorization=f"Bearer {token}").status == 200
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert sent(server, "GET", path).status == 200
        for forwarded in ("X-Forwarded-For", "Forwarded"):
            assert sent(server, "GET", "/metrics", headers={forwarded: "127.0.0.1"}).status == 401
        by_proxy = {"X-Forwarded-For": "10.0.0.1", "Authorization": f"Bearer {token}"}
        assert sent(server, "GET", "/metrics", headers=by_proxy).status == 200
        # Refused before its body is looked at.
        assert sent(server, "POST", "/v1/search", b"x").status == 401
        revoke_token(tokens, "app")
        assert status("/v1/search", Authorization=f"Bearer {token}").status == 401


# Where it listens.


def test_an_address_in_use(served, other):
    config = other(http_listen=f"127.0.0.1:{served.port}")
    with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1:\d+ \(\[server\] http_listen\): it is in use"):
        with running(config):
            pass


def test_localhost(other):
    with running(other(http_listen="localhost:0")) as server:
        with urllib.request.urlopen(f"http://localhost:{server.port}/healthz", timeout=10) as answer:
            assert answer.status == 200


def test_nothing_answers_after_the_stop(other):
    with running(other()) as server:
        port = server.port
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)


def certify(folder, name, authority=None):
    """A certificate and its key for localhost, as PEM files: its own, or one that an authority has signed."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    if authority is not None:
        command += ["-CA", authority[0], "-CAkey", authority[1]]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def over_tls(port, trusted, own=None):
    context = ssl.create_default_context(cafile=trusted)
    if own is not None:
        context.load_cert_chain(*own)
    con = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        con.request("GET", "/healthz")
        return con.getresponse().status
    finally:
        con.close()


def resumed(port, context, session):
    """Whether a connection resumes an earlier one, and its session. Raises where it is refused."""
    with socket.create_connection(("127.0.0.1", port), 30) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure:
            secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            # With TLS 1.3, a client hears that it is refused once it reads.
            if not secure.recv(4096):
                raise ConnectionError
            return secure.session_reused, secure.session


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_authority_that_was_taken_out_counts_no_more(other, tmp_path, version):
    certificate, key = certify(tmp_path, "server")
    old, new = certify(tmp_path, "old"), certify(tmp_path, "new")
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(old[0].read_bytes())
    options = {"tls_certificate": str(certificate), "tls_key": str(key), "tls_client_ca": str(authorities)}
    context = ssl.create_default_context(cafile=certificate)
    context.maximum_version = version
    context.load_cert_chain(*old)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(other(**options)))
        kept = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=30)
        stack.callback(kept.close)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        _, session = resumed(server.port, context, None)
        assert resumed(server.port, context, session)[0]
        authorities.write_bytes(new[0].read_bytes())
        server._credentials.read_again()
        until(lambda: not server._credentials.changed.is_set())
        assert over_tls(server.port, certificate, new) == 200
        for earlier in (None, session):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                resumed(server.port, context, earlier)
        # An open connection goes on.
        kept.request("GET", "/healthz")
        assert kept.getresponse().status == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_tls(other, tmp_path):
    certificate, key = certify(tmp_path, "server")
    client = certify(tmp_path, "client")
    first = shutil.copy(certificate, tmp_path / "first.pem")
    options = {"tls_certificate": str(certificate), "tls_key": str(key)}
    with running(other(**options)) as server:
        assert over_tls(server.port, certificate) == 200
        another = certify(tmp_path, "other")
        with pytest.raises(ssl.SSLError):
            over_tls(server.port, another[0])
        # A certificate without its key changes nothing.
        certificate.write_bytes(another[0].read_bytes())
        server._credentials.read_again()
        until(lambda: not server._credentials.changed.is_set())
        assert over_tls(server.port, first) == 200
        key.write_bytes(another[1].read_bytes())
        server._credentials.read_again()
        until(lambda: not server._credentials.changed.is_set())
        assert over_tls(server.port, another[0]) == 200
    options["tls_client_ca"] = str(client[0])
    with running(other(**options)) as server:
        assert over_tls(server.port, certificate, client) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            over_tls(server.port, certificate)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            over_tls(server.port, certificate, another)
    key.write_text("no key")
    with pytest.raises(ConfigError, match="cannot use"):
        with running(other(**options)):
            pass


def test_passages(served):
    rows = searched(served, source="manuals", k=2, per_row=3)
    assert {row["_rank"] for row in rows} == {1, 2}
    assert len(rows) > 2
    for row in rows:
        assert row["_passage_text"] == row["body"][row["_start"] : row["_end"]]
    assert rows == sorted(rows, key=lambda row: (row["_rank"], -row["_score"], row["_passage"]))
    firsts = {row["_rank"]: row["_passage"] for row in reversed(rows)}
    assert {row["_rank"]: row["_passage"] for row in searched(served, source="manuals", k=2)} == firsts
    (row,) = searched(served, source="manuals", k=1, columns=["title", "_passage_text"])
    assert list(row)[:3] == ["title", "_passage_text", "_row_id"]
    assert "has each text as a whole" in refused(served, 400, "invalid", per_row=2)
    assert "'per_row' must be a whole number from 1" in refused(served, 400, "invalid", per_row=0)
