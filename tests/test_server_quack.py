"""Quack, DuckDB's own protocol: what another DuckDB sees of a server that it attaches, and what is refused.

The extension is there for one version of DuckDB. With the others, the server says that it is not there.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from jammi_duck.doors.server.identity import add_token, revoke_token
from jammi_duck.doors.server.quack import refuse_open_quack
from jammi_duck.errors import ConfigError
from tests.serving import PATENTS, Process, config_of, make_database

VERSION = "1.5.5"
NAMES = ("httpfs", "quack")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "server.md"
# Models that compute in another precision elsewhere give other last digits.
VARIABLES = {"JAMMI_INFERENCE__PRECISION": "float32"}
needs_the_extension = pytest.mark.skipif(
    duckdb.__version__ != VERSION, reason=f"the extension is there for DuckDB {VERSION}"
)


@pytest.fixture(scope="module")
def extensions(tmp_path_factory):
    """The folder of the packages with the extensions."""
    folder = tmp_path_factory.mktemp("extensions")
    # They demand the DuckDB that they are for, which is there on another path.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    packages = [f"duckdb-extension-{name}=={VERSION}" for name in NAMES]
    subprocess.run([*command, *packages], check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        file = make_database(tmp_path_factory.mktemp("served"))
    with duckdb.connect(file) as con:
        con.execute("CREATE TABLE questions AS SELECT 1 AS id, 'clean water' AS text")
        con.execute("CREATE TABLE judgements AS SELECT 1 AS question, 1 AS key, 1 AS grade")
    return file


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Served:
    """A server with Quack, its tokens, and clients of it."""

    def __init__(self, file, extensions, **environment):
        self.folder, self.tokens = extensions, file.parent / f"tokens-{len(environment)}.json"
        self.port = free_port()
        self.uri = f"quack:127.0.0.1:{self.port}"
        self.all = add_token(self.tokens, "all", "reader")
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(extensions))))
        arguments = ("--tokens", self.tokens, "--quack", f"127.0.0.1:{self.port}")
        self.process = Process(file, *arguments, PYTHONPATH=path, **VARIABLES, **environment)

    @contextlib.contextmanager
    def client(self, token=None):
        with duckdb.connect() as con:
            for name in NAMES:
                file = f"duckdb_extension_{name}/extensions/v{VERSION}/{name}.duckdb_extension"
                con.execute(f"LOAD '{self.folder / file}'")
            con.execute(f"ATTACH '{self.uri}' AS remote (TOKEN '{token or self.all}')")
            yield con


@pytest.fixture(scope="module")
def served(file, extensions):
    server = Served(file, extensions)
    with server.process:
        yield server


def asked(con, text):
    """The rows of a text that the server runs."""
    return con.execute("FROM remote.query($1)", [text]).fetchall()


def remote_names(con):
    return sorted(name for (name,) in con.execute("FROM remote.query('SELECT table_name FROM duckdb_views()')"))


@needs_the_extension
class TestClients:
    def test_tables_views_and_embedding_tables_have_their_names(self, served):
        with served.client() as con:
            assert con.execute("FROM remote.patents ORDER BY id").fetchall() == PATENTS
            assert con.execute("SELECT count(*), max(note) FROM remote.notes WHERE id < 5").fetchall() == [
                (5, "note 4")
            ]
            ((name,),) = asked(con, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'jammi'")
            assert con.execute(f'SELECT len(vector) FROM remote.jammi."{name}" LIMIT 1').fetchall() == [(384,)]

    @pytest.mark.minilm
    def test_searches_run_on_the_server(self, served):
        with served.client() as con:
            found = asked(con, "SELECT title FROM jammi_search('patents', 'clean water', 2)")
            assert [title for (title,) in found] == ["Membrane filter", "Water pump"]
            joined = "SELECT p.title FROM mine m JOIN remote.query($$FROM patents$$) p USING (id)"
            con.execute("CREATE TABLE mine AS SELECT 4 AS id")
            assert con.execute(joined).fetchall() == [("Solar panel",)]

    @pytest.mark.minilm
    def test_the_other_functions_run_on_the_server(self, served):
        with served.client() as con:
            assert asked(con, "SELECT len(embed('clean water'))") == [(384,)]
            assert asked(con, "SELECT current, gone FROM jammi_status('patents')") == [(5, 0)]
            (found,) = asked(
                con, "SELECT value FROM jammi_eval('patents', 'questions', 'judgements') WHERE metric = 'hit'"
            )
            assert found == (1.0,)

    def test_values_come_as_they_are(self, served):
        texts = ["1::HUGEINT AS a", "[1, NULL] AS b", "{'x': DATE '2020-01-02'} AS c", "NULL::BLOB AS d", "1 AS a"]
        with served.client() as con:
            assert asked(con, f"SELECT {', '.join(texts)}") == duckdb.sql(f"SELECT {', '.join(texts)}").fetchall()
            assert asked(con, "SELECT 1 AS a WHERE false") == []

    def test_large_results_come_whole(self, served):
        with served.client() as con:
            query = "SELECT count(*), sum(n) FROM remote.query('SELECT range AS n FROM range(300000)')"
            assert con.execute(query).fetchall() == [(300_000, 299_999 * 150_000)]

    def test_without_attaching(self, served):
        with served.client() as con:
            query = f"FROM quack_query('{served.uri}', 'SELECT 42', token = '{served.all}')"
            assert con.execute(query).fetchall() == [(42,)]

    @pytest.mark.minilm
    def test_what_the_page_shows_runs(self, served):
        (code, output) = re.search(
            r"^```sql\n(ATTACH 'quack:.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.M | re.S
        ).groups()
        code = code.replace("quack:localhost:9494", f"quack:localhost:{served.port}").replace("jd_...", served.all)
        with served.client() as con:
            con.execute("DETACH remote")
            *first, last = [each for each in code.split(";\n") if each.strip()]
            for each in first:
                con.execute(each).fetchall()
            assert str(con.sql(last)).strip() == output.strip()


@needs_the_extension
class TestRefused:
    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO remote.notes VALUES (99, 'x')", "CREATE TABLE remote.x (a INTEGER)", "DROP TABLE remote.notes",
            "DROP VIEW remote.patents", "CREATE VIEW remote.y AS SELECT 1", "CREATE SCHEMA remote.z",
            "DELETE FROM remote.notes", "UPDATE remote.notes SET note = ''",
        ],
    )  # fmt: skip
    def test_changes_of_an_attached_server(self, served, statement):
        with served.client() as con:
            with pytest.raises(duckdb.Error):
                con.execute(statement)
        with served.client() as con:
            assert con.execute("SELECT count(*) FROM remote.notes").fetchall() == [(20,)]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("INSERT INTO notes VALUES (99, 'x')", "Authorization failed"),
            (" /**/ insert into notes values (99, 'x')", "INSERT statement is refused"),
            ("WITH x AS (INSERT INTO notes VALUES (99, 'x') RETURNING 1) FROM x", "."),
            ("CREATE TABLE x (a INTEGER)", "CREATE statement is refused"),
            ("BEGIN TRANSACTION", "TRANSACTION statement is refused"),
            ("COPY notes TO '/tmp/notes.csv'", "COPY statement is refused"),
            ("ATTACH '/tmp/other.duckdb'", "ATTACH statement is refused"),
            ("SET threads = 1", "SET statement is refused"),
            ("LOAD httpfs", "LOAD statement is refused"),
            ("CALL quack_serve('quack:localhost:9999')", "CALL statement is refused"),
            ("SELECT 1; SELECT 2", "one statement at a time"),
            ("FROM read_text('/etc/hostname')", "function read_text is refused"),
            ("FROM '/etc/passwd.csv'", "is not read"),
            ("SELECT getenv('HOME')", "function getenv is refused"),
            ("FROM quack_query('quack:localhost:9999', '', token = 'abcd')", "file system operations are disabled"),
            ("FROM jammi_refresh('patents')", "."),
            ("FROM nothing", "no table, view or file 'nothing'"),
            ("SELECT 'it''s' FRO x", "syntax error"),
            ("", "empty"),
        ],
    )  # fmt: skip
    def test_texts(self, served, text, words):
        with served.client() as con:
            with pytest.raises(duckdb.Error, match=words):
                asked(con, text)
            assert asked(con, "SELECT count(*) FROM notes") == [(20,)]

    def test_results_of_others(self, served):
        with served.client() as mine, served.client() as other:
            asked(mine, "SELECT 'a secret' AS secret")
            listed = asked(other, "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views()")
            assert not [name for (name,) in listed if re.fullmatch(r"[0-9a-f]{32}", name)]

    def test_an_admin_only_reads(self, tmp_path, extensions):
        served = Served(make_database(tmp_path), extensions, JAMMI_SERVER__ALLOW_WRITE="true")
        with served.process:
            with served.client(add_token(served.tokens, "nightly", "admin")) as con:
                with pytest.raises(duckdb.Error, match="this client only reads"):
                    asked(con, "FROM jammi_refresh('patents')")

    def test_too_large_results(self, file, extensions):
        limits = {"JAMMI_SERVER__MAX_RESULT_ROWS": "50", "JAMMI_SERVER__QUERY_TIMEOUT": "2 seconds"}
        served = Served(file, extensions, **limits)
        with served.process, served.client() as con:
            with pytest.raises(duckdb.Error, match="more than 50 rows"):
                asked(con, "FROM range(51)")
            with pytest.raises(duckdb.Error, match="took longer than 2 s"):
                asked(con, "SELECT count(*) FROM range(100000) a, range(100000) b WHERE a.range + b.range = -1")
            assert len(asked(con, "FROM range(50)")) == 50


@needs_the_extension
class TestTokens:
    @pytest.mark.parametrize("token", ["wrong", "''", "jd_", "Bearer x"])
    def test_wrong_ones_are_refused(self, served, token):
        with pytest.raises(duckdb.Error, match="Authentication failed|syntax"):
            with served.client(token):
                pass

    def test_revoked_ones_are_refused(self, served):
        token = add_token(served.tokens, "for now", "reader")
        with served.client(token) as con:
            assert asked(con, "SELECT 1") == [(1,)]
            revoke_token(served.tokens, "for now")
            with pytest.raises(duckdb.Error, match="revoked"):
                asked(con, "SELECT 1")

    def test_those_for_some_sources_see_no_others(self, served):
        token = add_token(served.tokens, "few", "reader", ["patents"])
        with served.client(token) as con:
            assert con.execute("SELECT count(*) FROM remote.patents").fetchall() == [(5,)]
            with pytest.raises(duckdb.Error, match="does not exist"):
                con.execute("FROM remote.notes")
            with pytest.raises(duckdb.Error, match="no table 'notes'"):
                asked(con, "FROM notes")
            with pytest.raises(duckdb.Error, match="cannot call duckdb_tables"):
                asked(con, "SELECT table_name FROM duckdb_tables()")
            assert {name for (name,) in asked(con, "SELECT table_name FROM information_schema.tables")} > {"patents"}
            assert "notes" not in str(asked(con, "FROM information_schema.tables"))


@needs_the_extension
def test_a_port_that_is_taken(file, extensions):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve(file, "--quack", f"127.0.0.1:{port}", PYTHONPATH=f"{os.environ.get('PYTHONPATH')}:{extensions}")
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port} ([server] quack_listen)" in done.stderr


def serve(file, *arguments, **environment):
    """`jammi-duck serve`, which ends by itself."""
    program = Path(sys.executable).with_name("jammi-duck")
    add_token(file.parent / "tokens.json", "mine", "reader")
    try:
        return subprocess.run(
            [program, "serve", "--db", file, "--storage", file.parent / "artifacts", "--flight", "127.0.0.1:0",
             "--http", "127.0.0.1:0", "--tokens", file.parent / "tokens.json", *arguments],
            capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
        )  # fmt: skip
    finally:
        (file.parent / "tokens.json").unlink()


def test_without_the_extension_the_server_says_so(file, tmp_path):
    # DuckDB has its extensions in the home directory.
    done = serve(file, "--quack", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    for words in (
        "[server] quack_listen needs DuckDB's extensions httpfs and quack",
        f"DuckDB {duckdb.__version__} has no httpfs here",
        "duckdb-extension-httpfs from PyPI",
        "leave out --quack",
    ):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quack_listen": "0.0.0.0:9494"}, "has no TLS"),
        ({"quack_listen": ":9494"}, "has no TLS"),
        ({"quack_listen": "192.168.0.1:9494", "allow_anonymous": True}, "has no TLS"),
        ({"quack_listen": "127.0.0.1:9494", "tokens": None}, "needs tokens"),
        ({"quack_listen": "127.0.0.1:9494", "tokens": None, "allow_anonymous": True}, "needs tokens"),
        ({"quack_listen": "localhost:9494", "tls_client_ca": "/x/ca.pem"}, "exclude each other"),
        ({"quack_listen": "[::1]:9494"}, None),
        ({"quack_listen": "localhost:9494", "allow_anonymous": True}, None),
        ({"tokens": None}, None),
    ],
)
def test_open_doors_are_refused(tmp_path, options, words):
    config = config_of(tmp_path / "my.duckdb", **{"tokens": "/x/tokens.json", **options})
    with pytest.raises(ConfigError, match=words) if words else contextlib.nullcontext():
        refuse_open_quack(config)
