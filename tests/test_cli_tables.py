"""`jammi-duck sources`, `generate`, `search`, `config`: what a session does not show."""

import json
import re

import duckdb
import pytest

from jammi_duck.config import settings
from jammi_duck.config.options import options
from tests.conftest import S3_KEYS, S3_WRITER
from tests.test_cli import call, folder  # noqa: F401 - a fixture
from tools.program import in_pipe


@pytest.fixture
def database(folder, capsys):  # noqa: F811
    """A database with a table, a view over a file, and the view's embeddings."""
    with duckdb.connect("my.duckdb") as con:
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word ' || range AS text FROM range(3)")
        con.execute("CREATE SCHEMA raw; CREATE VIEW raw.v AS FROM t")
    assert call(capsys, "sources add animals --path animals.csv --db my.duckdb")[0] == 0
    assert call(capsys, "generate animals --columns text --key id --db my.duckdb")[0] == 0
    return folder


class TestSources:
    def test_list(self, database, capsys):
        code, out, err = call(capsys, "sources list --db my.duckdb --json")
        assert [tuple(row.values()) for row in json.loads(out)] == [
            ("animals", "view", 3),
            ("raw.v", "view", 2),
            ("t", "table", 2),
        ]

    @pytest.mark.parametrize(
        ("file", "copy", "words"),
        [
            ("a.parquet", "(FORMAT parquet)", ""),
            ("a.tsv", "(FORMAT csv, DELIMITER '\t')", ""),
            ("a.JSONL.gz", "(FORMAT json, COMPRESSION gzip)", ""),
            ("a.bin", "(FORMAT parquet)", "--format parquet"),
        ],
    )
    def test_formats(self, folder, capsys, file, copy, words):  # noqa: F811
        duckdb.sql(f"COPY (SELECT 1 AS id, 'a cat' AS text) TO '{file}' {copy}")
        code, out, err = call(capsys, f"sources add a --path {file} {words} --json")
        assert (code, err) == (0, "")
        assert [row["column_name"] for row in json.loads(out)] == ["id", "text"]
        with duckdb.connect("jammi_duck.duckdb") as con:
            assert con.sql("FROM a").fetchall() == [(1, "a cat")]

    def test_several_files_and_another_working_directory(self, folder, capsys, monkeypatch):  # noqa: F811
        for number in (1, 2):
            (folder / f"part{number}.csv").write_text(f"id,text\n{number},a cat\n")
        assert call(capsys, "sources add parts --path 'part*.csv'")[0] == 0
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
        with duckdb.connect("../jammi_duck.duckdb") as con:
            assert con.sql("SELECT count(*) FROM parts").fetchall() == [(2,)]

    def test_names_are_only_names(self, folder, capsys):  # noqa: F811
        strange = "x'; DROP TABLE t; --"
        (folder / "quo'ted.csv").write_text('id,"a""b"\n1,some text\n')
        code, out, _ = call(capsys, f'sources add "\\"{strange}\\"" --path "quo\'ted.csv"')
        assert code == 0
        suggested = re.search("Continue with: jammi-duck (.*)", out)[1]
        assert call(capsys, suggested)[0] == 0
        code, out, err = call(capsys, f'generate "\\"{strange}\\"" --columns \'"a""b"\' --key id --json')
        assert (code, json.loads(out)[0]["row_count"]) == (0, 1)
        code, out, _ = call(capsys, f'search "\\"{strange}\\"" "text; --" --json')
        assert (code, json.loads(out)[0]['a"b']) == (0, "some text")

    def test_a_file_that_does_not_read_leaves_no_database(self, folder, capsys):  # noqa: F811
        (folder / "bad.parquet").write_bytes(b"no parquet")
        code, out, err = call(capsys, "sources add bad --path bad.parquet")
        assert (code, out, (folder / "jammi_duck.duckdb").exists()) == (1, "", False)
        assert "bad.parquet" in err
        code, _, err = call(capsys, "sources add bad --path nowhere.parquet")
        assert (code, f"there is no table, view or file '{folder / 'nowhere.parquet'}'" in err) == (2, True)
        assert not (folder / "jammi_duck.duckdb").exists()

    @pytest.mark.s3
    def test_s3(self, folder, capsys, s3_server, monkeypatch):  # noqa: F811
        import s3fs

        bucket = s3_server.bucket("sources")
        files = s3fs.S3FileSystem(**s3_server.options(), skip_instance_cache=True)
        for number in (1, 2):
            duckdb.sql(f"COPY (SELECT {number} AS id, 'a cat' AS text) TO 'part.parquet'")
            files.put_file("part.parquet", f"{bucket}/in/part{number}.parquet")
        monkeypatch.setenv("JAMMI_STORAGE__LOCATION", f"s3://{bucket}/out")
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS", json.dumps(s3_server.options()))
        code, out, err = call(capsys, f"sources add parts --path s3://{bucket}/in/*.parquet")
        assert (code, err) == (0, "")
        assert call(capsys, "generate parts --columns text --key id")[0] == 0
        code, out, _ = call(capsys, "search parts cat --json")
        assert (code, sorted(row["id"] for row in json.loads(out))) == (0, [1, 2])
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS__SECRET", "wrong-secret")
        code, out, err = call(capsys, f"sources add again --path s3://{bucket}/in/part1.parquet")
        assert (code, out) == (1, "")
        assert err.startswith(f"jammi-duck: cannot read 's3://{bucket}/in/part1.parquet' (")
        assert len(err.splitlines()) == 1
        assert not re.search(f"wrong-secret|{S3_KEYS['secret']}", err)

    @pytest.mark.s3
    @pytest.mark.parametrize("file", ["x.csv", "*.csv"])
    def test_a_mistyped_bucket(self, folder, capsys, s3_server, monkeypatch, file):  # noqa: F811
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS", json.dumps(s3_server.options(**S3_WRITER)))
        code, out, err = call(capsys, f"sources add x --path 's3://no-such-bucket/{file}'")
        assert (code, out) == (1, "")
        assert err.startswith(f"jammi-duck: there is no bucket 'no-such-bucket' for 's3://no-such-bucket/{file}', or")

    @pytest.mark.s3
    def test_no_secret_is_kept(self, folder, s3_server):  # noqa: F811
        import s3fs

        bucket, secret = s3_server.bucket("secrets"), S3_KEYS["secret"]
        env = {
            "JAMMI_STORAGE__LOCATION": f"s3://{S3_KEYS['key']}:{secret}@{bucket}/out",
            "JAMMI_STORAGE__OPTIONS__CLIENT_KWARGS": json.dumps(s3_server.options()["client_kwargs"]),
            "JAMMI_LOGGING__LEVEL": "debug",
        }
        assert in_pipe("jammi-duck sources add animals --path animals.csv", folder, **env).returncode == 0
        built = in_pipe("jammi-duck generate animals --columns text --key id", folder, **env)
        assert (built.returncode, f"s3://{bucket}/out" in built.stdout) == (0, True)
        files = s3fs.S3FileSystem(**s3_server.options(), skip_instance_cache=True)
        kept = [files.cat_file(path) for path in files.find(f"{bucket}/out")]
        assert len(kept) == 6
        kept += [path.read_bytes() for path in folder.iterdir() if path.is_file()]
        kept += [(built.stdout + built.stderr).encode()]
        assert not any(secret.encode() in content for content in kept)


class TestSearch:
    def test_a_database_that_only_reads(self, database, capsys):
        (database / "my.duckdb").chmod(0o444)
        code, out, err = call(capsys, "search animals 'the duck' -k 1 --columns name --db my.duckdb --exact --json")
        assert (code, [row["name"] for row in json.loads(out)]) == (0, ["duck"])

    def test_vectors_are_shortened_for_people(self, database, capsys):
        with duckdb.connect("my.duckdb") as con:
            vector = "[id, 0.123456, 0.123456, 0.5, 0.25, 0.123456, 1, 2]::FLOAT[8]"
            con.execute(f"CREATE TABLE vectors AS SELECT *, {vector} AS v FROM animals")
        call(capsys, "generate vectors --columns text --key id --db my.duckdb")
        line = "search vectors duck -k 5 --db my.duckdb"
        shown = call(capsys, line)[1]
        assert "[3.0, 0.123456, 0.123456, 0.5, 0…]" in shown
        assert "0.25" not in shown
        row, *_ = json.loads(call(capsys, f"{line} --json")[1])
        assert row["v"][3:5] == [0.5, 0.25]

    def test_several_readers_at_once(self, database, capsys):
        with duckdb.connect("my.duckdb", read_only=True):
            assert call(capsys, "search animals duck --db my.duckdb")[0] == 0

    def test_a_model_and_a_table(self, database, capsys, tiny_model):
        (table,) = json.loads(call(capsys, "tables --db my.duckdb --json")[1])
        line = f"search animals duck --db my.duckdb --model {tiny_model} --table {table['embedding_table']} -k 2 --json"
        assert len(json.loads(call(capsys, line)[1])) == 2
        code, _, err = call(capsys, "search animals duck --db my.duckdb --model fake/other")
        assert (code, "of the model 'fake/other'" in err) == (2, True)

    def test_parameters_are_values_and_never_sql(self, database, capsys):
        line = "search animals duck --db my.duckdb --json --columns name --filter 'name = $n OR text = $t' --parameter"
        for value in ("duck", "x' OR 'a'='a", "duck' --", "a=b", ""):
            code, out, _ = call(capsys, f'{line} n="{value}" --parameter t=')
            assert (code, [row["name"] for row in json.loads(out)]) == (0, ["duck"] if value == "duck" else [])

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--filter 'name = $n'", "the filter names $n, and no parameter 'n' was given"),
            ("--filter 'name = $n' --parameter n=1 --parameter m=2", "the parameter 'm' was given"),
            ("--parameter n=1", "the parameter 'n' was given"),
            ("--filter 'name = $n' --parameter n", "'n' is not NAME=VALUE"),
            ("--filter 'name = $n' --parameter =n", "'=n' is not NAME=VALUE"),
        ],
    )
    def test_parameters_that_do_not_fit(self, database, capsys, words, message):
        code, out, err = call(capsys, f"search animals duck --db my.duckdb {words}")
        assert (code, out) == (2, "")
        # There, a NULL in a CTE is an INTEGER.
        assert message in err or (duckdb.__version__ < "1.5" and "array_extract(INTEGER" in err)

    def test_a_source_whose_name_is_nearly_right(self, database, capsys):
        code, _, err = call(capsys, "search animal duck --db my.duckdb")
        assert (code, "no embedding table for 'animal'; did you mean 'animals'?" in err) == (2, True)

    def test_no_number_is_null_in_json(self, folder, capsys):  # noqa: F811
        with duckdb.connect("jammi_duck.duckdb") as con:
            con.execute(
                "CREATE TABLE n AS SELECT 1 AS id, 'a cat' AS text, 'NaN'::FLOAT AS f, '-Infinity'::DOUBLE AS d"
            )
        assert call(capsys, "generate n --columns text --key id")[0] == 0
        (row,) = json.loads(call(capsys, "search n cat --json")[1], parse_constant=lambda name: pytest.fail(name))
        assert (row["f"], row["d"], row["text"]) == (None, None, "a cat")


class TestConfig:
    def test_what_it_prints_is_a_file_that_says_the_same(self, folder, capsys, monkeypatch):  # noqa: F811
        values = {
            "JAMMI_STORAGE__LOCATION": "s3://bucket/ä \"quoted\" \\ x", "JAMMI_STORAGE__RETENTION": "90 minutes",
            "JAMMI_STORAGE__CACHE_DIR": "/tmp/c", "JAMMI_INFERENCE__PRELOAD_MODELS": '["a", "b"]',
            "JAMMI_GPU__MEMORY_LIMIT": "8 GB", "JAMMI_GPU__MEMORY_FRACTION": "0.5", "JAMMI_GPU__DEVICE": "-1",
            "JAMMI_LOGGING__FORMAT": "json", "JAMMI_INFERENCE__THREADS": "3",
        }  # fmt: skip
        for name, text in values.items():
            monkeypatch.setenv(name, text)
        before = settings.load().config
        code, out, err = call(capsys, "config")
        assert (code, err) == (0, "")
        for name in [*values, "JAMMI_INFERENCE__MODEL"]:
            monkeypatch.delenv(name)
        (folder / "jammi.toml").write_text(out)
        assert settings.load().config == before

    def test_every_option_is_there_with_its_origin(self, folder, capsys, monkeypatch):  # noqa: F811
        (folder / "jammi.toml").write_text("[inference]\nthreads = 2")
        code, out, err = call(capsys, "config --json")
        rows = {row["option"]: row for row in json.loads(out)}
        assert set(rows) == {option.key for option in options().values()}
        assert (rows["inference.threads"]["value"], rows["inference.threads"]["origin"]) == (
            2,
            f"{folder}/jammi.toml:2",
        )
        assert rows["inference.model"]["origin"] == "JAMMI_INFERENCE__MODEL"
        assert (rows["storage.retention"]["value"], rows["storage.retention"]["origin"]) == ("7 days", "default")

    def test_no_secret_is_shown(self, folder, capsys, monkeypatch):  # noqa: F811
        monkeypatch.setenv("JAMMI_STORAGE__LOCATION", "s3://KEYID:hush-hush/x@bucket/prefix")
        monkeypatch.setenv("JAMMI_STORAGE__OPTIONS__TOKEN", "hush-hush")
        (folder / "jammi.toml").write_text("[storage.options]\nsecret = 'hush-hush'")
        for line in ("config", "config --json"):
            code, out, err = call(capsys, line)
            assert (code, err) == (0, "")
            assert "s3://bucket/prefix" in out
            assert all(name in out for name in ("secret", "token", "key"))
            assert not re.search("hush|KEYID", out)


LONG = "A duck swims in the water of a quiet pond. " * 3 + "\n\n" + "A loud dog barks at night. " * 4


class TestPassages:
    @pytest.fixture
    def long(self, folder):  # noqa: F811
        rows = [{"id": 1, "name": "pond", "text": LONG}, {"id": 2, "name": "short", "text": "an owl"}]
        (folder / "long.json").write_text(json.dumps(rows))
        return folder

    def test_generate_shows_how_many_there_are_and_a_search_finds_one(self, long, capsys):
        code, out, err = call(capsys, "generate long.json --columns text --key id --passages --tokens 14 --json")
        assert code == 0, err
        (built,) = json.loads(out)
        assert (built["row_count"], built["advice"]) == (2, None)
        assert built["passage_count"] > 2
        _, out, _ = call(capsys, "search long.json 'a dog barks' -k 1 --json")
        (found,) = json.loads(out)
        assert found["_passage_text"] == LONG[found["_start"] : found["_end"]]

    @pytest.mark.parametrize(
        ("options", "cut"),
        [
            ("--passages", {}),
            ("--tokens 14", {"tokens": 14}),
            ("--tokens 14 --overlap 5", {"tokens": 14, "overlap": 5}),
            ("--by word", {"by": "word"}),
            ("--title name", {"title": ["name"]}),
            ("--tokens 14 --by sentence --title name,id", {"tokens": 14, "by": "sentence", "title": ["name", "id"]}),
        ],
    )
    @pytest.mark.parametrize("command", ["generate", "sync"])
    def test_each_option_implies_passages(self, long, capsys, command, options, cut):
        assert call(capsys, f"{command} long.json --columns text --key id {options}")[0] == 0
        (manifest,) = (long / "artifacts" / "jammi_db").glob("*.json")
        made = json.loads(manifest.read_text())["definition"]
        assert cut.items() <= made["passages"].items()
        assert made["columns"] == [*cut.get("title", []), "text"]
        assert (made["passages"].get("title") or []) == cut.get("title", [])

    def test_a_sync_with_the_same_options_refreshes(self, long, capsys):
        sync = "sync long.json --columns text --key id --tokens 14 --json"
        done = [
            json.loads(call(capsys, line)[1])[0]["action"] for line in (sync, sync, sync.replace("14", "14 --by word"))
        ]
        assert done == ["generated", "unchanged", "generated"]

    def test_the_command_shows_how_rows_were_cut(self, long, capsys):
        call(capsys, "generate long.json --columns text --key id --tokens 14")
        code, out, err = call(capsys, "passages long.json --json")
        assert code == 0, err
        rows = json.loads(out)
        assert [tuple(row) for row in rows] == [("_row_id", "_passage", "_start", "_end", "_passage_text")] * len(rows)
        assert [row["_passage"] for row in rows if row["_row_id"] == "1"] == list(range(len(rows) - 1))
        assert all(row["_passage_text"] == LONG[row["_start"] : row["_end"]] for row in rows if row["_row_id"] == "1")
        _, out, _ = call(capsys, "passages long.json --row 2")
        assert "an owl" in out
        assert "duck" not in out
        assert call(capsys, "passages long.json --row 3")[1] == "no passages\n"

    def test_the_table_has_the_beginning_of_each_passage(self, long, capsys):
        (long / "long.json").write_text(json.dumps([{"id": 1, "text": "ж" * 100}]))
        call(capsys, "generate long.json --columns text --key id --passages")
        _, out, _ = call(capsys, "passages long.json --row 1")
        assert f" {'ж' * 58}… " in out
        _, out, _ = call(capsys, "passages long.json --row 1 --json")
        assert json.loads(out)[0]["_passage_text"] == "ж" * 100

    def test_many_texts_that_are_too_long_are_told_of(self, long, capsys, caplog):
        (long / "long.json").write_text(json.dumps([{"id": 1, "text": "duck water " * 1000}]))
        code, out, err = call(capsys, "generate long.json --columns text --key id")
        assert code == 0
        assert "--passages on the command line" in caplog.text
        assert re.search(r"^advice +100 % of the texts are longer than the model reads", out, re.MULTILINE)

    def test_vectors_of_passages_are_imported(self, long, capsys):
        end = LONG.index("\n")
        duckdb.sql(
            "COPY (SELECT 1 AS id, unnest([0, $1]) AS a, unnest([$2, $3]) AS b, list_resize([1.0], $4, 0.5) AS v) "
            "TO 'vectors.parquet'",
            params=[end + 2, end, len(LONG), 32],
        )
        code, out, err = call(
            capsys,
            "import long.json vectors.parquet id v --model $MODEL --columns text --start a --end b --json".replace(
                "$MODEL", str(settings.load().config.model)
            ),
        )
        assert code == 0, err
        assert json.loads(out)[0]["passage_count"] == 2
        rows = json.loads(call(capsys, "passages long.json --json")[1])
        assert [row["_passage_text"] for row in rows] == [LONG[:end], LONG[end + 2 :]]
