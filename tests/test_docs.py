"""The documentation says what is so."""

import builtins
import doctest
import http.server
import inspect
import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck.embeddings import get_registry
from jammi_duck.jammi import Jammi
from jammi_duck.udfs.macros import macros

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.minilm
@pytest.mark.skipif(duckdb.__version__ < "2", reason="earlier versions draw their tables a little differently")
def test_the_transcript_of_the_readme_is_what_is_printed(monkeypatch, tmp_path):
    from tools.transcript import README, filled

    monkeypatch.chdir(tmp_path)
    assert filled(README.read_text()) == README.read_text()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse of another Python words its help in another way")
def test_pages_say_what_the_code_says():
    from tools.pages import PAGES, commands, filled

    for page in PAGES:
        assert filled(page.read_text()) == page.read_text()
    page = (ROOT / "docs" / "cli.md").read_text()
    for name, command in commands():
        assert not command.get_default("run") or f"<!-- help {name} -->" in page


@pytest.mark.minilm
@pytest.mark.skipif(duckdb.__version__ < "2", reason="earlier versions draw their tables a little differently")
def test_the_picture_shows_what_is_printed():
    from tools.picture import PICTURE, drawn, session, steady, written

    lines = session()
    assert written(drawn(lines)) == [line for line in lines if line]
    assert list(steady(written(PICTURE.read_text()))) == list(steady([line for line in lines if line]))


def test_the_example_of_the_configuration_is_one(tmp_path, monkeypatch):
    from jammi_duck.config import settings

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.DOTALL)
    (tmp_path / "jammi.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    config = settings.load().config
    assert (config.storage, config.batch_size, config.log_format) == ("s3://vectors/prod", 64, "json")
    assert set(config.storage_options) == {"key", "endpoint_url"}


@pytest.mark.minilm
def test_the_page_about_python_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    names, told = {}, []
    example = doctest.DocTestParser().get_doctest("".join(blocks), names, "python.md", None, 0)
    outcome = doctest.DocTestRunner(verbose=False).run(example, out=told.append, clear_globs=False)
    example.globs["con"].close()
    assert (outcome.failed, outcome.attempted > 15) == (0, True), "".join(told)


@pytest.mark.minilm
@pytest.mark.filterwarnings("ignore:'contracts' has embedding tables of different columns")
def test_the_page_about_long_texts_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    example = (ROOT / "sql_examples" / "25_long_texts.sql").read_text()
    page = (ROOT / "docs" / "passages.md").read_text()
    with jammi_duck.connect(storage=tmp_path / "artifacts", cache_dir=tmp_path / "cache") as con:
        con.execute(example[: example.index("-- Most texts need no options")])
        answers = [
            con.execute(statement).fetchall()
            for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
            for statement in con.extract_statements(block)
        ]
    assert len(answers) > 12
    assert all(answers), page


def test_the_page_about_python_has_every_method():
    page = (ROOT / "docs" / "python.md").read_text()
    for name, _ in inspect.getmembers(Jammi, inspect.isfunction):
        assert name.startswith("_") or f"`jammi.{name}(" in page


@pytest.mark.parametrize(
    ("query", "place"), [("FROM jammi_search('t', 'word')", "\n## `{}`\n"), ("SELECT embed('word')", "`{}`")]
)
def test_the_page_about_python_has_what_duckdb_says_without_the_functions(con, query, place):
    page = (ROOT / "docs" / "python.md").read_text()
    with pytest.raises(duckdb.CatalogException) as raised:
        con.cursor().execute(query)
    assert place.format(str(raised.value).splitlines()[0]) in page


@pytest.mark.minilm
@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
def test_the_python_of_the_readme_runs(monkeypatch, tmp_path, shared_data, capsys):
    # The other one needs a server: see test_server_life.py.
    code, _ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = code.replace(".show()", ".fetchall()")
    first, rest = code.split("con.execute(", 1)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(first, names)
    con = names["con"]
    con.execute(f"CREATE TABLE patents AS FROM '{shared_data}/patents.parquet' LIMIT 60")
    con.execute("CREATE TABLE questions AS SELECT unnest(['laser', 'robot arm']) AS text")
    exec("con.execute(" + rest, names)
    con.close()
    assert list((tmp_path / "artifacts" / "jammi_db").glob("patents__embedding__all-MiniLM-L6-v2__*.parquet"))


def sections():
    """The sections of the page about the SQL, by the functions that their headings name."""
    parts = re.split(r"^## ", (ROOT / "docs" / "sql.md").read_text(), flags=re.MULTILINE)
    return {name: part for part in parts[1:] for name in re.findall(r"`(\w+)\(", part.partition("\n")[0])}


def test_every_function_and_argument_is_documented_in_its_section():
    found = sections()
    for statement in macros("0" * 16):
        name, arguments = re.match(r"CREATE OR REPLACE TEMP MACRO (\w+)\((.*?)\) AS", statement).groups()
        heading, told = found[name].partition("\n")[0], found[name]
        for argument in arguments.split(", ") if arguments else ():
            word = argument.partition(" :=")[0]
            # The same as another function's, which this section names.
            others = [found[other] for other in re.findall(r"`(\w+)`", told) if other in found]
            as_another = any(f"`{word}` " in part or f"`{word} :=" in part for part in others)
            assert word in heading or f"`{word} :=" in told or as_another, f"{name}: {word}"


def test_every_column_is_documented_in_its_section():
    from jammi_duck.encoder.listing import ModelRow
    from jammi_duck.retrieval.check import Checked
    from jammi_duck.retrieval.evaluation import MetricRow, QuestionRow, WayRow
    from jammi_duck.retrieval.tuning import Tuned
    from jammi_duck.storage.tables.recovery import Action
    from jammi_duck.storage.tables.removal import Removed
    from jammi_duck.udfs import embedding, searching
    from jammi_duck.udfs.columns import fields_of
    from jammi_duck.udfs.refreshing import TableStatus
    from jammi_duck.udfs.splitting import PassageOfText
    from jammi_duck.udfs.upkeep import TableRow
    from jammi_duck.work.compact import Compacted
    from jammi_duck.work.generate import Generated
    from jammi_duck.work.refresh import Refreshed
    from jammi_duck.work.sync import Synced

    shapes = {
        "jammi_search": fields_of(searching.Hit).keys() - {"_source_id", "_row_digest"},
        "jammi_matches": fields_of(searching.Hit).keys() - {"_row_digest"},
        "jammi_explain": fields_of(searching.StageRow),
        "jammi_check": fields_of(Checked),
        "jammi_eval": fields_of(MetricRow),
        "jammi_eval_queries": fields_of(QuestionRow),
        "jammi_eval_compare": fields_of(WayRow),
        "jammi_tune": fields_of(Tuned),
        "jammi_refresh": fields_of(Refreshed),
        "jammi_status": fields_of(TableStatus),
        "jammi_compact": fields_of(Compacted),
        "jammi_generate": fields_of(Generated),
        "jammi_infer": fields_of(embedding.InferredRow),
        "jammi_tables": fields_of(TableRow),
        "jammi_recover": fields_of(Action),
        "jammi_split": fields_of(PassageOfText),
        "jammi_sync": fields_of(Synced),
        "jammi_models": fields_of(ModelRow),
        "jammi_vacuum": fields_of(Removed),
    }
    for name, shape in shapes.items():
        for column in shape:
            assert f"`{column}`" in sections()[name], f"{name}: {column}"


def test_every_block_of_the_dbt_page_is_in_the_project_that_the_tests_build():
    project = ROOT / "tests" / "dbt_project"
    files = [path.read_text() for path in project.rglob("*") if path.suffix in (".sql", ".yml")]
    # The page shows the default of each environment variable.
    shown = [re.sub(r"\"\{\{ env_var\('\w+', '(.*?)'\) \}\}\"", r"\1", text) for text in files]
    blocks = re.findall(r"```(?:sql|yaml)\n(.*?)```", (ROOT / "docs" / "dbt.md").read_text(), re.DOTALL)
    assert len(blocks) > 10
    for block in blocks:
        assert any(block in text for text in shown), block


def test_what_the_page_about_extending_names_is_there():
    page = (ROOT / "docs" / "extending.md").read_text()
    files = [path for room in ("jammi_duck", "storage", "udfs", "tests") for path in (ROOT / room).rglob("*.py")]
    for path in re.findall(r"`([\w/]+\.py)`", page):
        assert any(str(file).endswith(f"/{path}") for file in files), path
    code = "\n".join(file.read_text() for file in files)
    for word in re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", page):
        assert f"class {word}" in code or word in dir(builtins), word
    for word in re.findall(r"`([a-z_]+_[a-z_]+)`", page):
        assert re.search(rf"\b{word}\b", code), word


class Service(http.server.BaseHTTPRequestHandler):
    """The service that the page about extending takes as its example."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert set(asked) == {"model", "texts", "kind"}
        vectors = [[float(len(text)), *np.eye(7)[sum(text.encode()) % 7]] for text in asked["texts"]]
        answer = json.dumps({"vectors": vectors}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def test_the_provider_of_the_page_about_extending_works(tmp_path, monkeypatch):
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)[1]
    names = {"__name__": "page"}
    exec(block, names)
    monkeypatch.setattr(get_registry(), "_own", {})
    get_registry().register("example", names["Example"])
    monkeypatch.setattr(get_registry(), "trusted_places", set())
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server,
        duckdb.connect() as con,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        jammi_duck.install(con, storage=tmp_path / "st", cache_dir=tmp_path / "cache")
        model = f"example:any?base_url=http://127.0.0.1:{server.server_address[1]}&dimensions=8"
        con.execute("CREATE TABLE t AS SELECT range AS id, 'word' || range AS text FROM range(5)")
        made = "SELECT row_count, dimensions, requests FROM jammi_generate('t', 'text', 'id', model := ?)"
        assert con.execute(made, [model]).fetchall() == [(5, 8, 1)]
        assert con.execute("SELECT id FROM jammi_search('t', 'word0', 1)").fetchall() == [(0,)]
        con.execute("INSERT INTO t VALUES (9, 'another')")
        assert con.execute("SELECT encoded, requests FROM jammi_refresh('t')").fetchall() == [(1, 1)]
        server.shutdown()


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_the_pages_about_installation_take_the_pytorch_that_the_constraints_take(page):
    (pinned,) = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert re.findall(r"^    pip install (torch\S*) --index-url", (ROOT / page).read_text(), re.MULTILINE) == [pinned]


def test_a_lean_installation_takes_all_that_the_package_needs_but_torch_and_transformers():
    (command,) = re.findall(r"^    (python -c .*) > lean\.txt$", (ROOT / "docs/install.md").read_text(), re.MULTILINE)
    _, *arguments = shlex.split(command)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    left_out = [each for each in needed if each not in done.stdout.splitlines()]
    assert [re.match(r"\w+", each)[0] for each in left_out] == ["torch", "transformers"]


def test_links_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_links_to_a_section_lead_to_a_heading():
    def anchors(page):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}

    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert anchor in anchors(page.parent / link if link else page), f"{page.name}: {link}#{anchor}"
