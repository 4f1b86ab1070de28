"""Flight SQL by a client for Node.js from npm, which speaks it in Rust."""

import json
import shutil
import subprocess

import pytest

from jammi_duck.doors.server.identity import add_token
from tests.serving import PATENTS, Process, make_database

pytestmark = [
    pytest.mark.long,
    pytest.mark.minilm,
    pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm"),
]

CLIENT = "@lakehouse-rs/flight-sql-client@0.0.10"
# Asks what the arguments say, and prints the rows of each answer, or an error's text.
SCRIPT = """
import { createFlightSqlClient } from '@lakehouse-rs/flight-sql-client'
import { tableFromIPC } from 'apache-arrow'

const [options, calls] = process.argv.slice(2).map((text) => JSON.parse(text))
const plain = (key, value) => typeof value === 'bigint' ? Number(value) : value
const found = []
try {
  const client = await createFlightSqlClient({ host: '127.0.0.1', tls: false, headers: [], ...options })
  for (const [method, ...given] of calls) {
    try {
      const table = tableFromIPC(await client[method](...given))
      found.push(table.toArray().map((row) => row.toJSON()))
    } catch (error) {
      found.push(`error: ${error.message}`)
    }
  }
} catch (error) {
  found.push(`refused: ${error.message}`)
}
console.log(JSON.stringify(found, plain))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    (folder / "ask.mjs").write_text(SCRIPT)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", CLIENT]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(file):
    with Process(file) as server:
        yield server


@pytest.fixture(scope="module")
def ask(folder):
    def ask(server, *calls, **options):
        words = [json.dumps({"port": server.flight, **options}), json.dumps(calls)]
        done = subprocess.run(
            ["node", "ask.mjs", *words], cwd=folder, check=True, capture_output=True, text=True, timeout=120
        )
        return json.loads(done.stdout)

    return ask


def test_queries(server, ask):
    rows, search, large, values = ask(
        server,
        ("query", "SELECT id, title, year FROM patents WHERE year > 2020 ORDER BY id"),
        ("query", "SELECT id FROM jammi_search('patents', 'clean water', 2) ORDER BY id"),
        ("query", "SELECT count(*) AS n, sum(a)::BIGINT AS total FROM (SELECT range AS a FROM range(300000))"),
        ("query", "SELECT 'ä' AS text, NULL AS nothing, [1, 2] AS list, {'a': 1} AS struct, true AS flag"),
    )
    assert rows == [{"id": id, "title": title, "year": year} for id, title, _, year in PATENTS if year > 2020]
    assert search == [{"id": 1}, {"id": 3}]
    assert large == [{"n": 300_000, "total": sum(range(300_000))}]
    assert values == [{"text": "ä", "nothing": None, "list": [1, 2], "struct": {"a": 1}, "flag": True}]


def test_many_rows(server, ask):
    (rows,) = ask(server, ("query", "SELECT range AS n, 'row ' || range AS text FROM range(50000)"))
    assert rows == [{"n": n, "text": f"row {n}"} for n in range(50_000)]


def test_catalog(server, ask):
    catalogs, schemas, tables, described = ask(
        server,
        ("getCatalogs",),
        ("getDbSchemas", {"catalog": "patents"}),
        ("getTables", {"catalog": "patents"}),
        ("getTables", {"tableNameFilterPattern": "note%", "tableTypes": ["TABLE"], "includeSchema": True}),
    )
    assert {"patents", "notes"} <= {row["catalog_name"] for row in catalogs}
    assert schemas == [{"catalog_name": "patents", "db_schema_name": "public"}]
    place = {"catalog_name": "patents", "db_schema_name": "public"}
    assert tables == [{**place, "table_name": "patents", "table_type": "VIEW"}]
    assert [row["table_name"] for row in described] == ["notes"]
    assert b"note" in bytes(described[0]["table_schema"].values())


def test_an_error_ends_its_query_alone(server, ask):
    """The client does not pass on the server's words."""
    wrong, written, right = ask(
        server,
        ("query", "SELECT nothing FROM patents"),
        ("query", "INSERT INTO notes VALUES (99, 'x')"),
        ("query", "SELECT 1 AS a"),
    )
    assert wrong.startswith("error: ")
    assert written.startswith("error: ")
    assert right == [{"a": 1}]


def test_tokens(tmp_path, ask):
    file = make_database(tmp_path)
    tokens = tmp_path / "tokens.json"
    token = add_token(tokens, "node", "reader")
    one = ("query", "SELECT 1 AS a")
    with Process(file, "--tokens", tokens) as server:
        assert ask(server, one, token=token) == [[{"a": 1}]]
        (without,) = ask(server, one)
        (wrong,) = ask(server, one, token="wrong")
    assert without.startswith("error: ")
    assert wrong.startswith("error: ")
