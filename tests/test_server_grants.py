"""A token for some sources sees those and their embedding tables, and nothing of the others."""

import adbc_driver_flightsql.dbapi as adbc
import duckdb
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from pyarrow.flight import FlightClient

import jammi_duck
from jammi_duck.doors.server.identity import add_token
from tests.serving import config_of, in_process, make_database

pytestmark = [
    pytest.mark.minilm,
    pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result:UserWarning"),
    pytest.mark.filterwarnings("ignore:Cannot disable autocommit:Warning"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server with two sources that have embeddings, and a token for one of them."""
    folder = tmp_path_factory.mktemp("granted")
    file = make_database(folder)
    con = jammi_duck.connect(file, storage=str(folder / "artifacts"), cache_dir=str(folder / "cache"))
    con.execute("CREATE TABLE secrets AS SELECT range AS id, 'hidden word ' || range AS t FROM range(5)")
    con.execute("CREATE VIEW over_secrets AS FROM secrets")
    con.execute("CREATE SCHEMA archive")
    con.execute("CREATE TABLE archive.patents AS SELECT 'hidden' AS z")
    con.execute("CREATE SCHEMA public")
    con.execute("CREATE TABLE public.patents AS SELECT range AS id, 'hidden word ' || range AS t FROM range(5)")
    con.execute("CREATE TYPE moods AS ENUM ('hidden_a', 'hidden_b')")
    con.execute("CREATE SEQUENCE sq")
    con.execute("CREATE MACRO peek() AS (SELECT max(t) FROM secrets)")
    con.execute("CREATE MACRO upper(x) AS (SELECT max(t) FROM secrets)")
    con.execute("CREATE MACRO peek_table() AS TABLE FROM secrets")
    con.execute("SELECT * FROM jammi_generate('secrets', 't', 'id')").fetchall()
    con.execute("SELECT * FROM jammi_generate('public.patents', 't', 'id')").fetchall()
    names = dict(con.execute("SELECT source, embedding_table FROM jammi_tables()").fetchall())
    con.close()
    tokens = folder / "tokens.json"
    part, whole = add_token(tokens, "part", "reader", ["patents"]), add_token(tokens, "whole", "reader")
    with in_process(config_of(file, tokens=str(tokens))) as (_, port):
        yield {"port": port, "part": part, "whole": whole, "names": names, "folder": folder}


@pytest.fixture
def ask(world):
    with FlightClient(f"grpc://127.0.0.1:{world['port']}") as client:

        def ask(text, token="part"):
            options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {world[token]}".encode())])
            text = text.format(mine=world["names"]["patents"], theirs=world["names"]["secrets"], folder=world["folder"])
            info = client.get_flight_info(flight.FlightDescriptor.for_command(text.encode()), options)
            table = client.do_get(info.endpoints[0].ticket, options).read_all()
            assert table.schema == info.schema
            return table

        yield ask


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT count(*) AS n FROM patents", [{"n": 5}]),
        ("SELECT count(*) AS n FROM patents.public.patents", [{"n": 5}]),
        ("SELECT count(*) AS n FROM main.patents", [{"n": 5}]),
        ("SELECT count(*) AS n FROM my.main.PATENTS", [{"n": 5}]),
        ('SELECT count(*) AS n FROM jammi."{mine}"', [{"n": 5}]),
        ('SELECT count(*) AS n FROM "jammi.{mine}"', [{"n": 5}]),
        ("SELECT id FROM jammi_search('patents', 'clean water', 1)", [{"id": 1}]),
        ("SELECT id FROM jammi_search('my.main.patents', 'clean water', 1)", [{"id": 1}]),
        ("SELECT id FROM jammi_search('patents', 'clean water', 1, filter := 'year > 2020')", [{"id": 3}]),
        ("SELECT id FROM jammi_search('patents', 'clean water', 1, embedding_table := '{mine}')", [{"id": 1}]),
        ("WITH x AS (FROM patents) SELECT count(*) AS n FROM x", [{"n": 5}]),
        ("WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 3) SELECT max(n) AS n FROM x",
         [{"n": 3}]),
        ("SELECT (SELECT max(year) FROM patents p WHERE p.id = q.id) AS y FROM patents q WHERE id = 1", [{"y": 2019}]),
        ("SELECT list_transform([1, 2], lambda x: x + 1) AS l, lower('A') AS u", [{"l": [2, 3], "u": "a"}]),
        ("SELECT p.id, s._rank FROM patents p, LATERAL jammi_search('patents', p.title, 1) s WHERE p.id = 1",
         [{"id": 1, "_rank": 1}]),
        ("SELECT table_name FROM information_schema.tables WHERE table_catalog = 'my'", [{"table_name": "patents"}]),
        ("SELECT t.table_name FROM information_schema.tables t WHERE table_schema = 'jammi'",
         [{"table_name": "{mine}"}]),
        ("SELECT count(*) AS n FROM information_schema.columns WHERE table_name = 'secrets'", [{"n": 0}]),
        ("SELECT DISTINCT catalog_name AS c FROM information_schema.schemata ORDER BY c",
         [{"c": "jammi"}, {"c": "jammi_server"}, {"c": "my"}, {"c": "patents"}]),
        ("SELECT source FROM jammi_tables()", [{"source": "patents"}]),
        ("SELECT column_name FROM (DESCRIBE patents) LIMIT 1", [{"column_name": "id"}]),
        ("SELECT embed('x') IS NOT NULL AS e, jammi_snippet('a b', 'b') AS s", [{"e": True, "s": "a **b**"}]),
        ("SELECT jammi_split('a b')[1]._passage_text AS t", [{"t": "a b"}]),
        ("SELECT range AS r FROM range(2)", [{"r": 0}, {"r": 1}]),
    ],
)  # fmt: skip
def test_what_is_granted(ask, world, text, rows):
    mine = world["names"]["patents"]
    expected = [{key: mine if value == "{mine}" else value for key, value in row.items()} for row in rows]
    assert ask(text).to_pylist() == expected


def test_how_the_texts_of_a_granted_table_were_cut_is_granted(ask):
    with pytest.raises(pa.ArrowInvalid, match="were not cut into passages"):
        ask("SELECT * FROM jammi_passages('patents')")


@pytest.mark.parametrize(
    "text",
    [
        "FROM secrets", "FROM main.secrets", "FROM my.main.secrets", "FROM secrets.public.secrets", "FROM notes",
        "FROM over_secrets", "SELECT peek() AS p", "FROM peek_table()", "SELECT main.peek() AS p",
        "SELECT upper('a') AS u",
        "SELECT main.upper('a') AS u", "SELECT system.main.upper('a') AS u",
        'FROM jammi."{theirs}"', 'FROM "jammi.{theirs}"', 'FROM jammi.main."{theirs}"',
        'FROM jammi_server.jammi."{theirs}"',
        "SELECT id FROM jammi_search('secrets', 'hidden')", "SELECT id FROM jammi_search('main.secrets', 'hidden')",
        "SELECT id FROM jammi_search('sec' || 'rets', 'hidden')",
        "SELECT id FROM jammi_search('over_secrets', 'hidden')",
        "SELECT id FROM jammi_search('patents', 'x', embedding_table := '{theirs}')",
        "SELECT id FROM jammi_search('patents', 'x', embedding_table := lower('{theirs}'))",
        "SELECT id FROM jammi_search('patents', 'x', filter := 'id IN (SELECT id FROM secrets)')",
        "SELECT id FROM jammi_search('patents', 'x', filter := concat('id IN (SELECT id FROM ', 'secrets)'))",
        "SELECT id FROM jammi_search('patents', (SELECT max(t) FROM secrets))",
        "SELECT * FROM jammi_eval('patents', 'secrets', 'secrets')", "SELECT * FROM jammi_status('secrets')",
        "SELECT * FROM jammi_passages('secrets')", "SELECT * FROM jammi_passages('patents', NULL, '{theirs}')",
        "SELECT jammi_split((SELECT max(t) FROM secrets)) AS s",
        "SELECT * FROM jammi_eval_compare('patents', 'patents', 'patents', [{{'embedding_table': '{theirs}'}}])",
        "WITH secrets AS (SELECT 1) FROM secrets", "WITH patents AS (FROM secrets) FROM patents",
        "SELECT * FROM (WITH notes AS (SELECT 1 AS a) FROM notes), notes", "SELECT EXISTS (FROM secrets) AS e",
        "SELECT id FROM patents WHERE id IN (SELECT id FROM secrets)",
        "SELECT 1 FROM patents ORDER BY (SELECT max(id) FROM secrets)",
        "SHOW TABLES", "SHOW ALL TABLES", "DESCRIBE secrets", "SUMMARIZE secrets", "FROM (DESCRIBE secrets)",
        "FROM duckdb_tables()", "FROM duckdb_views", "FROM pg_catalog.pg_class", "FROM pg_class", "FROM sqlite_master",
        "FROM duckdb_settings()", "SELECT current_setting('allowed_paths') AS p", "SELECT pg_get_viewdef(1) AS v",
        "FROM information_schema.key_column_usage", "FROM pragma_table_info('secrets')", "FROM query_table('secrets')",
        "FROM query('FROM secrets')", "FROM '{folder}/patents.parquet'",
        "FROM read_parquet('{folder}/patents.parquet')",
        "FROM jammi_infer('secrets', 't', 'id')", "EXPLAIN FROM secrets", "EXPLAIN ANALYZE FROM secrets",
        "PIVOT secrets ON t IN ('a') USING count(*)", "TABLE secrets", "FROM jammi_catalog.embedding_tables",
        "FROM jammi.jammi_catalog.embedding_tables", "SELECT COLUMNS(*) FROM secrets",
        "FROM patents ASOF JOIN secrets USING (id)",
        "SELECT unnest(_jammi_tables('x', 1))", "FROM nope",
    ],
)  # fmt: skip
def test_what_is_not_granted(ask, text):
    with pytest.raises((flight.FlightError, pa.ArrowException, KeyError)) as raised:
        ask(text)
    told = str(raised.value)
    assert "hidden word" not in told
    # What was not asked for is not told.
    assert "over_secrets" not in told or "over_secrets" in text


def test_errors_do_not_tell_of_other_sources(world, tmp_path):
    """A granted source without embeddings: for others, the error lists those that have some."""
    tokens = tmp_path / "tokens.json"
    token = add_token(tokens, "notes", "reader", ["notes"])
    file = tmp_path / "my.duckdb"
    file.write_bytes((world["folder"] / "my.duckdb").read_bytes())
    config = config_of(file, tokens=str(tokens), storage=str(world["folder"] / "artifacts"))
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
    text = b"SELECT * FROM jammi_search('notes', 'x')"
    with in_process(config) as (_, port), FlightClient(f"grpc://127.0.0.1:{port}") as client:
        with pytest.raises(KeyError) as raised:
            client.do_get(flight.Ticket(text), options).read_all()
    assert "secrets" not in str(raised.value)
    assert "patents" not in str(raised.value)


def test_others_see_all(ask):
    assert ask("SELECT count(*) AS n FROM secrets", "whole").to_pylist() == [{"n": 5}]
    assert ask("SELECT peek() AS p", "whole").to_pylist() == [{"p": "hidden word 4"}]


def test_parameters_are_checked_when_they_have_values(world):
    options = {"adbc.flight.sql.authorization_header": f"Bearer {world['part']}"}
    with adbc.connect(f"grpc://127.0.0.1:{world['port']}", db_kwargs=options) as con, con.cursor() as cursor:
        cursor.execute("SELECT id FROM jammi_search('patents', ?, ?)", ("clean water", 1))
        assert cursor.fetchall() == [(1,)]
        cursor.execute("SELECT id FROM jammi_search('patents', 'water', 1, filter := ?)", ("year = 2022",))
        assert cursor.fetchall() == [(3,)]
        for text, value, words in (
            ("SELECT id FROM jammi_search('patents', 'water', 1, filter := ?)", "id IN (FROM secrets)", "no table"),
            ("SELECT id FROM jammi_search(?, 'hidden', 1)", "secrets", "no source 'secrets'"),
            ("SELECT id FROM jammi_search('patents', 'x', 1, embedding_table := ?)", "x", "no embedding table 'x'"),
        ):
            with pytest.raises(adbc.Error, match=words):
                cursor.execute(text, (value,))


def test_what_adbc_lists(world):
    options = {"adbc.flight.sql.authorization_header": f"Bearer {world['part']}"}
    with adbc.connect(f"grpc://127.0.0.1:{world['port']}", db_kwargs=options) as con:
        found = con.adbc_get_objects(depth="columns").read_all().to_pylist()
    assert "secrets" not in str(found)
    assert "notes" not in str(found)
    assert {catalog["catalog_name"] for catalog in found} == {"jammi_server", "my", "patents"}


def test_an_admin_sees_all(tmp_path):
    from jammi_duck.errors import InputError

    with pytest.raises(InputError, match="an admin sees all sources"):
        add_token(tmp_path / "t.json", "a", "admin", ["patents"])


def test_duckdb_has_no_other_kinds_of_table_reference():
    """A new way to name a table would have to be looked at."""
    with duckdb.connect() as con:
        ((parsed,),) = con.execute(
            "SELECT json_serialize_sql('FROM a, b.c, d(1), (SHOW e), (VALUES (1)) v')"
        ).fetchall()
    for kind in ("BASE_TABLE", "TABLE_FUNCTION", "SHOW_REF", "EXPRESSION_LIST"):
        assert f'"{kind}"' in parsed


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM jammi_search(query := 'patents', source := 'secrets', k := 1)",
        "SELECT * FROM jammi_search('patents', source := 'secrets', query := 'x')",
        "SELECT id FROM jammi_search('patents', 'x', 5, NULL, 'id IN (SELECT id FROM secrets)')",
        "SELECT id FROM jammi_search('patents', 'x', 5, NULL, NULL, false, '{theirs}')",
        "SELECT * FROM jammi_status('patents', NULL, '{theirs}')",
        "SELECT * FROM jammi_search('public.patents', 'word', 1)",
        "SELECT * FROM jammi_search('secrets.public.secrets', 'word', 1)",
        "SELECT * FROM jammi_eval(questions := 'secrets', judgements := 'secrets', source := 'patents')",
        "SELECT * FROM jammi_eval_compare('patents', 'patents', 'patents', [])",
        '/* /* */ EXPLAIN SELECT 1 AS "*/ EXPLAIN ANALYZE FROM secrets --"',
        '--\rEXPLAIN ANALYZE FROM secrets /*\nEXPLAIN SELECT 1 AS "*/ --"',
        "/* x */ EXPLAIN FROM patents", "EXPLAIN/**/ANALYZE FROM secrets",
        "SELECT * FROM (WITH duckdb_tables AS (SELECT 1 a) FROM duckdb_tables), duckdb_tables",
        "SELECT * FROM (WITH pg_class AS (SELECT 1 a) FROM pg_class), pg_class",
        "SELECT * FROM (WITH sqlite_master AS (SELECT 1 a) FROM sqlite_master), sqlite_master",
        "SELECT json_serialize_plan('SELECT * FROM secrets') AS p", "SELECT enum_range(NULL::moods) AS e",
        "SELECT NULL::main.moods AS e", "SELECT currval('sq') AS c", "SELECT nextval('sq') AS c",
    ],
)  # fmt: skip
def test_what_a_review_has_found(ask, text):
    with pytest.raises((flight.FlightError, pa.ArrowException, KeyError)) as raised:
        ask(text)
    told = str(raised.value)
    assert "hidden" not in told
    assert "Did you mean" not in told


def test_explain(ask):
    assert "id" in ask("EXPLAIN SELECT id FROM patents")["explain_value"][0].as_py()


def test_types_of_duckdb_are_there(ask):
    kinds = "1::INTEGER, '2020-01-01'::DATE, [1]::INT[], {{'a': 1}}::STRUCT(a BIGINT, b VARCHAR), 1::DECIMAL(10, 2), "
    kinds += "TRY_CAST('a' AS UUID), MAP {{'a': 1}}::MAP(VARCHAR, INT), NULL::ENUM('a'), NULL::TIMESTAMPTZ, 1::FLOAT[1]"
    assert ask(f"SELECT count(*) AS n FROM (SELECT {kinds})").to_pylist() == [{"n": 1}]


def test_a_session_cannot_choose_another_schema(world):
    from jammi_duck.doors.server.messages import FLIGHT

    option = FLIGHT["SessionOption"](key="schema", value=FLIGHT["SessionOptionValue"](string_value="archive"))
    body = FLIGHT["SetSessionOptionsRequest"](session_options=[option]).SerializeToString()
    token = [(b"authorization", f"Bearer {world['part']}".encode())]
    with FlightClient(f"grpc://127.0.0.1:{world['port']}") as client:
        (result,) = client.do_action(flight.Action("SetSessionOptions", body), flight.FlightCallOptions(headers=token))
    message = FLIGHT["SetSessionOptionsResult"]()
    message.ParseFromString(bytes(result.body))
    assert [each.key for each in message.errors] == ["schema"]
