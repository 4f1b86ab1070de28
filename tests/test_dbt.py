"""The dbt plugin: a real project, built several times over by the real dbt, and looked at after each build."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

import jammi_duck

if importlib.util.find_spec("dbt") is None or importlib.util.find_spec("dbt.adapters.duckdb") is None:
    pytest.skip("dbt-core and dbt-duckdb are not installed: pip install 'jammi-duck[dbt]'", allow_module_level=True)

PROJECT = Path(__file__).parent / "dbt_project"
HOOK = "SELECT * FROM jammi_generate('{{ this }}', 'body', 'id')"
WRONG = HOOK.replace("body", "boddy")

# Fails where the run's variable says so: after its vectors are there, and within the transaction of the model.
LATE = (
    "{{ config(post_hook=[\"HOOK\", \"SELECT if({{ var('late', false) }}, error('too late'), NULL)\"]) }}\n"
    "SELECT id, body || ' ({{ var('edition', 1) }})' AS body FROM {{ ref('tickets') }}"
).replace("HOOK", HOOK)

# Tables in use side by side: of other columns, and of another name.
SEVERAL = """
{{ config(post_hook=[
    "SELECT * FROM jammi_generate('{{ this }}', 'body', 'id')",
    "SELECT * FROM jammi_generate('{{ this }}', 'title', 'id')",
    "SELECT * FROM jammi_generate('{{ this }}', 'title', 'id', name := 'titles')",
]) }}
SELECT id, body, body[:9] AS title FROM {{ ref('tickets') }}
"""

PYTHON = """
def model(dbt, session):
    dbt.config(materialized="table")
    dbt.ref("ticket_embeddings")
    return session.sql("SELECT id, body FROM jammi_search('tickets', 'teapot', 1)")
"""

MISTAKES = {
    "wrong_column": '{{ config(post_hook="WRONG") }} FROM {{ ref("tickets") }}',
    "wrong_column_committed": (
        '{{ config(post_hook={"sql": "WRONG", "transaction": false}) }} FROM {{ ref("tickets") }}'
    ),
    "wrong_column_in_a_table": "SELECT * FROM jammi_generate('{{ ref('tickets') }}', 'boddy', 'id')",
    "unreadable": (
        "{{ config(materialized='view') }} "
        "SELECT id, if(id = 7, error('cannot be read'), body) AS body FROM {{ ref('tickets') }}"
    ),
    "unreadable_embeddings": "SELECT * FROM jammi_generate('{{ ref('unreadable') }}', 'body', 'id')",
}


@dataclass
class Run:
    """What a `dbt build` printed, what it says of each node, and what was in the database and in storage then."""

    code: int
    output: str
    status: dict[str, str]
    message: dict[str, str]
    threads: set[str]
    tables: dict[str, list[tuple]]
    builds: list[tuple[str, str]]
    files: set[str]

    def builds_of(self, source):
        return sorted(status for name, status in self.builds if name == source)


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "warehouse.duckdb"
        self.storage = folder / "vectors"
        shutil.copytree(PROJECT, folder, dirs_exist_ok=True)

    def dbt(self, *arguments, **environment):
        quiet = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        folders = {"HELPDESK_DATABASE": str(self.database), "HELPDESK_STORAGE": str(self.storage)}
        return subprocess.run(
            [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--no-use-colors", *arguments],
            cwd=self.folder,
            env={**os.environ, **quiet, **folders, **environment},
            capture_output=True,
            text=True,
        )

    def build(self, *arguments, **variables) -> Run:
        done = self.dbt("build", *arguments, "--vars", json.dumps(variables))
        results = json.loads((self.folder / "target" / "run_results.json").read_text())["results"]
        names = {result["unique_id"]: result["unique_id"].split(".")[2] for result in results}
        with duckdb.connect(self.database, read_only=True) as con:
            tables = "SELECT table_name FROM duckdb_tables() WHERE schema_name <> 'jammi_catalog'"
            own = [name for (name,) in con.execute(tables).fetchall()]
            return Run(
                done.returncode,
                done.stdout + done.stderr,
                {names[result["unique_id"]]: result["status"] for result in results},
                {names[result["unique_id"]]: result["message"] for result in results},
                {result["thread_id"] for result in results},
                {name: con.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in own},
                con.execute("SELECT source, status FROM jammi_catalog.embedding_tables").fetchall(),
                {path.name for path in (self.storage / "jammi_db").iterdir()},
            )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("dbt") / "helpdesk")


@pytest.fixture(scope="module")
def first(project):
    return project.build()


@pytest.fixture(scope="module")
def second(project, first):
    """With two new tickets, another text for one, and three more models."""
    seed = project.folder / "seeds" / "tickets.csv"
    text = seed.read_text().replace("blue teapot", "green teapot")
    seed.write_text(text + "11,2026-02-09,The mug has a crack from top to bottom.\n12,2026-02-09,How do I log out?\n")
    (project.folder / "models" / "late.sql").write_text(LATE)
    (project.folder / "models" / "teapots.py").write_text(PYTHON)
    (project.folder / "models" / "several.sql").write_text(SEVERAL)
    return project.build()


@pytest.fixture(scope="module")
def third(project, second):
    """With mistakes in some models, and a failure after one's vectors are there."""
    for name, text in MISTAKES.items():
        (project.folder / "models" / f"{name}.sql").write_text(text.replace("WRONG", WRONG))
    run = project.build(late=True, edition=2)
    with duckdb.connect(project.database) as con:
        jammi = jammi_duck.install(con, storage=project.storage)
        text = "Do you have the green teapot in a larger size? (2)"
        run.tables["searched"] = jammi.search("late", text, 1).project("body, _similarity").fetchall()
    return run


@pytest.fixture(scope="module")
def fourth(project, third):
    """Without the failure."""
    return project.build("--select", "late", edition=3)


@pytest.mark.minilm
class TestFirstBuild:
    def test_all_is_well(self, first):
        assert first.code == 0, first.output
        assert set(first.status.values()) == {"success", "pass"}
        assert first.status["each_topic_has_a_near_ticket"] == "pass"

    def test_embed_in_a_table_model(self, first):
        rows = first.tables["ticket_vectors"]
        assert len(rows) == len(first.tables["tickets"])
        assert {id: vector and len(vector) for id, vector in rows if id in (1, 9)} == {1: 384, 9: None}

    def test_vectors_compare_in_sql(self, first):
        assert (1, 8) in {(id, other) for id, other, _ in first.tables["similar_tickets"]}

    def test_a_post_hook_generates(self, first):
        for source in ("searchable_tickets", "searchable_tickets_committed", "tickets"):
            assert first.builds_of(source) == ["ready"]

    def test_a_post_hook_follows(self, project, first):
        with duckdb.connect(project.database, read_only=True) as con:
            followed = con.execute("SELECT source, changes FROM jammi_catalog.followed").fetchall()
        assert followed == [("followed_tickets", None)]

    def test_generate_is_a_table_model(self, first):
        ((name, source, _, status, rows, skipped, *_),) = first.tables["ticket_embeddings"]
        assert (source, status, rows, skipped) == ("tickets", "ready", 9, 1)
        assert f"{name}.parquet" in first.files

    def test_search_is_a_model(self, first):
        assert {id for id, _, _ in first.tables["broken_deliveries"]} == {1, 5, 8}
        best = {topic: id for topic, id, rank, _ in first.tables["ticket_topics"] if rank == 1}
        assert best == {"damage": 1, "refund": 6, "account": 3}

    def test_a_filter_takes_its_values_from_parameters(self, first):
        rows = first.tables["recent_damage"]
        assert len(rows) == 3
        assert {5, 8} < {id for id, _, _ in rows}
        assert {str(opened) >= "2026-02-04" for _, opened, _ in rows} == {True}

    def test_a_long_text_is_found_by_its_passages(self, first):
        weeks = first.tables["ticket_weeks"]
        assert len(weeks) == 1
        found = first.tables["weekly_damage"]
        assert len(found) == 2
        assert all(passage in weeks[0][1] for _, passage, _ in found)
        assert any("soaked" in passage for _, passage, _ in found)

    def test_several_threads(self, first):
        assert "Concurrency: 4 threads" in first.output
        assert len(first.threads) > 1

    def test_a_view_searches_again_wherever_jammi_duck_is_installed(self, project, first):
        with duckdb.connect(project.database, read_only=True) as con:
            with pytest.raises(duckdb.CatalogException, match="jammi_search does not exist"):
                con.execute("FROM refunds")
            assert con.execute("SELECT count(*) FROM duckdb_columns() WHERE table_name = 'refunds'").fetchall() == [
                (3,)
            ]
            jammi_duck.install(con, storage=project.storage)
            assert {id for id, _, _ in con.execute("FROM refunds").fetchall()[:2]} == {2, 6}


@pytest.mark.minilm
class TestSecondBuild:
    def test_all_is_well(self, second):
        assert second.code == 0, second.output

    def test_only_new_and_changed_rows_are_embedded(self, first, second):
        name = "ticket_vectors_incremental"
        (before,) = {run for *_, run in first.tables[name]}
        after = {id: run for id, *_, run in second.tables[name]}
        assert len(after) == len(second.tables[name]) == 12
        assert {id for id, run in after.items() if run != before} == {7, 11, 12}

    def test_search_finds_new_rows(self, second):
        assert ("account", 12) in {(topic, id) for topic, id, *_ in second.tables["ticket_topics"]}

    def test_python_models_have_the_sql(self, second):
        assert second.tables["teapots"] == [(7, "Do you have the green teapot in a larger size?")]

    def test_old_embedding_tables_are_dropped(self, first, second):
        assert second.builds_of("tickets") == ["dropped", "ready"]
        assert not {file for file in first.files & second.files if file.startswith("tickets__")}

    def test_tables_of_other_columns_or_another_name_stay(self, second):
        assert second.builds_of("several") == ["ready"] * 3

    def test_a_sync_refreshes_the_table_of_the_first_run(self, first, second):
        assert second.builds_of("searchable_tickets") == ["ready"]
        parquet = {file for file in first.files if file.startswith("searchable_tickets__") and file.endswith("parquet")}
        assert parquet
        assert parquet <= second.files


@pytest.mark.minilm
class TestMistakes:
    def test_only_these_fail(self, third):
        assert third.code == 1
        failed = {name for name, status in third.status.items() if status == "error"}
        assert failed == {*MISTAKES, "late"} - {"unreadable"}

    def test_nothing_is_embedded_again_without_need(self, second, third):
        assert third.tables["ticket_vectors_incremental"] == second.tables["ticket_vectors_incremental"]

    def test_the_message_is_shown(self, third):
        for name, source in [("wrong_column", "wrong_column"), ("wrong_column_in_a_table", "tickets")]:
            written = f'"warehouse"."main"."{source}"'
            wanted = f"no column 'boddy' in '{written}'; did you mean 'body'? columns: id, opened, body"
            assert wanted in third.message[name]
            assert wanted in third.output

    def test_a_mistake_in_a_post_hook_takes_the_model_back(self, third):
        assert "wrong_column" not in third.tables
        assert third.builds_of("wrong_column") == []

    def test_after_the_commit_the_model_stays(self, third):
        assert len(third.tables["wrong_column_committed"]) == 12
        assert third.builds_of("wrong_column_committed") == []

    def test_a_mistake_in_a_table_model_leaves_no_table(self, third):
        assert "wrong_column_in_a_table" not in third.tables
        assert third.builds_of("tickets") == ["dropped", "ready", "ready"]

    def test_a_source_that_fails_on_the_way_is_settled(self, third, fourth):
        assert "cannot be read" in third.message["unreadable_embeddings"]
        assert third.builds_of("unreadable")[0] in ("building", "failed")
        assert fourth.builds_of("unreadable") == ["failed"]


@pytest.mark.minilm
class TestRollback:
    def test_the_rows_are_those_of_before(self, second, third):
        assert "too late" in third.message["late"]
        assert third.tables["late"] == second.tables["late"]

    def test_the_vectors_stay(self, second, third):
        assert second.builds_of("late") == ["ready"]
        assert third.builds_of("late") == ["ready", "ready"]

    def test_a_search_ranks_by_texts_that_never_came_to_be(self, third):
        ((body, similarity),) = third.tables["searched"]
        assert body == "Do you have the green teapot in a larger size? (1)"
        assert similarity == pytest.approx(1, abs=1e-3)

    def test_nothing_is_dropped_after_a_failure(self, second, third):
        assert second.files < third.files

    def test_the_next_build_is_well(self, fourth):
        assert fourth.code == 0, fourth.output
        assert (1, "The parcel arrived soaked, and the lamp inside was in pieces. (3)") in fourth.tables["late"]
        assert fourth.builds_of("late") == ["dropped", "dropped", "ready"]


class TestOptions:
    def test_an_unknown_option_stops_dbt_before_it_opens_the_database(self, tmp_path):
        project = Project(tmp_path / "helpdesk")
        profiles = project.folder / "profiles.yml"
        profiles.write_text(profiles.read_text().replace("storage:", "strage:"))
        done = project.dbt("build")
        assert done.returncode == 2
        assert done.stdout.splitlines()[-3:] == [
            "Database Error",
            "  Runtime Error",
            "    plugin jammi_duck.dbt in profiles.yml: no option 'strage'; did you mean 'storage'? options: storage, "
            "model, " + done.stdout.rstrip().split("model, ")[1],
        ]
        assert not project.database.exists()
        assert not project.storage.exists()

    def test_a_wrong_value(self, plugins, tmp_path):
        from dbt_common.exceptions import DbtRuntimeError

        plugin = plugins({"storage": str(tmp_path), "batch_size": "many"})
        with duckdb.connect() as con, pytest.raises(DbtRuntimeError, match=r"yml: batch_size is 'many'; it must be"):
            plugin.configure_connection(con)

    def test_settings_of_duckdb_are_no_options(self, plugins, tmp_path):
        plugin = plugins({"storage": str(tmp_path), "threads": 2}, settings={"memory_limit": "1GB", "threads": 3})
        with duckdb.connect() as con:
            plugin.configure_connection(con)
            # Another number of threads would be refused here.
            jammi_duck.install(con, threads=2)

    def test_a_cursor_has_the_macros(self, plugins, tmp_path):
        plugin = plugins({"storage": str(tmp_path)}, alias="vectors")
        with duckdb.connect() as con:
            plugin.configure_connection(con)
            cursor = con.cursor()
            plugin.configure_cursor(cursor)
            assert cursor.execute("FROM jammi_tables()").fetchall() == []


@pytest.fixture
def plugins():
    """`plugins(config, settings=..., alias=...)`: the plugin as dbt-duckdb makes it from a profile."""
    from dbt.adapters.duckdb.credentials import DuckDBCredentials, PluginConfig
    from dbt.adapters.duckdb.environments import Environment

    def make(config, settings=None, alias=None):
        ours = PluginConfig(module="jammi_duck.dbt", config=config, alias=alias)
        (plugin,) = Environment.initialize_plugins(DuckDBCredentials(settings=settings, plugins=[ours])).values()
        return plugin

    return make
