"""In a notebook, long work shows a bar of its kind, and DuckDB shows none of its own."""

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import nbclient
import nbformat
import pytest

STAGE = """
from jammi_duck.work.progress import Progress
with Progress("embedding", "t", 9) as bar:
    bar.advance(5)
"""


class Recorded(nbclient.NotebookClient):
    """A notebook that is executed by a kernel, with the messages that the kernel has sent meanwhile."""

    def __init__(self, *cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        super().__init__(notebook, allow_errors=True)
        self.messages = []

    def process_message(self, msg, cell, cell_index):
        self.messages.append(msg)
        return super().process_message(msg, cell, cell_index)

    def outputs(self):
        return [output for cell in self.nb.cells for output in cell.outputs]

    def shown(self):
        """The texts of what is displayed: a widget's tells what it is."""
        return [output.data["text/plain"] for output in self.outputs() if output.output_type == "display_data"]

    def results(self):
        return [output.data["text/plain"] for output in self.outputs() if output.output_type == "execute_result"]

    def states(self):
        """What the widgets are told, as pairs of a widget's id and a part of its state."""
        for message in self.messages:
            if message["msg_type"] in ("comm_open", "comm_msg"):
                yield message["content"]["comm_id"], message["content"]["data"].get("state", {})

    def bars(self):
        """The values that each bar has had, one after another."""
        bars = {}
        for widget, state in self.states():
            if state.get("_model_name") == "FloatProgressModel":
                bars[widget] = []
            if widget in bars and "value" in state:
                bars[widget].append(state["value"])
        return list(bars.values())


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """Executes a notebook of these cells: `executed(*cells)`."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def execute(*cells):
        notebook = Recorded(*cells)
        notebook.execute(cwd=str(tmp_path))
        return notebook

    return execute


def test_a_widget_is_the_bar_where_there_are_widgets(executed):
    notebook = executed(STAGE)
    assert [text.partition(":")[0] for text in notebook.shown()] == ["embedding t"]
    assert len(notebook.outputs()) == 1


@pytest.mark.parametrize(("end", "styles"), [("pass", set()), ("1 / 0", {"danger"})])
def test_a_stage_is_red_if_it_fails_and_not_if_rows_have_no_text(executed, end, styles):
    notebook = executed(STAGE + "    " + end)
    assert notebook.bars() == [[0, 5]]
    assert {state["bar_style"] for _, state in notebook.states() if state.get("bar_style")} == styles


def test_a_text_is_the_bar_where_there_are_no_widgets(executed):
    notebook = executed("import sys; sys.modules['ipywidgets'] = None", STAGE)
    assert {output.output_type for output in notebook.outputs()} == {"stream"}
    told = "".join(output.text for output in notebook.outputs())
    assert [part.partition(":")[0] for part in told.split("\r") if part.strip()] == ["embedding t"]


@pytest.mark.parametrize(
    "before", ["import sys; sys.modules['ipywidgets'] = None", "con.execute('SET lock_configuration = true'); None"]
)
def test_install_leaves_a_transaction_alone_where_the_bar_of_duckdb_cannot_be_set(executed, before):
    notebook = executed(
        "import duckdb, jammi_duck; con = duckdb.connect()",
        before,
        "con.execute('BEGIN; CREATE TABLE t AS SELECT 1 AS one'); None",
        "jammi_duck.install(con); None",
        "con.execute('FROM t').fetchall()",
    )
    assert (notebook.results(), len(notebook.outputs())) == (["[(1,)]"], 1)


@pytest.mark.parametrize("loaded", ["", "import IPython"])
def test_outside_a_notebook_its_bar_is_not_imported(loaded):
    after = "import sys; print([name for name in ('tqdm', 'tqdm.auto', 'IPython') if name in sys.modules])"
    command = [sys.executable, "-c", "\n".join((loaded, STAGE, after))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ("['tqdm', 'IPython']\n" if loaded else "['tqdm']\n")


@pytest.mark.long
def test_progress_rises_and_the_bar_of_duckdb_is_not_shown(executed, tmp_path, tiny_model):
    notebook = executed(
        "import duckdb, jammi_duck; con = duckdb.connect()",
        "con.execute('SET progress_bar_time = 100'); None",  # or DuckDB would show nothing for two seconds
        f"jammi_duck.install(con, storage={str(tmp_path)!r}, model={str(tiny_model)!r}); None",
        "con.execute('''CREATE TABLE t AS SELECT range AS id, if(id < 8000, 'word ' || id, NULL) AS text"
        " FROM range(9000)'''); None",
        "con.execute('''SELECT row_count FROM jammi_generate('t', 'text', 'id')''').fetchall()",
        "con.execute('''SELECT id FROM jammi_search('t', 'word', 3)''').fetchall().__len__()",
    )
    embedded, indexed = notebook.bars()
    assert (embedded, indexed) == (sorted(embedded), sorted(indexed))
    assert (embedded[0], embedded[-1], indexed[-1]) == (0, 8000, 8000)
    assert [text.partition(":")[0] for text in notebook.shown()] == ["embedding t", "indexing t"]
    assert notebook.results() == ["[(8000,)]", "3"]
    assert len(notebook.outputs()) == 4


@pytest.mark.minilm
@pytest.mark.skipif(duckdb.__version__ < "2", reason="a statement that cannot be parsed aborts no transaction there")
def test_sql_magic_as_the_page_about_python_describes_it(executed, monkeypatch):
    monkeypatch.setenv("PLOOMBER_STATS_ENABLED", "false")
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text().partition("\n## SQLAlchemy")[2]
    engine = re.findall(r"^>>> (.*)", page, re.MULTILINE)[:3]
    magic = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1].splitlines()
    notebook = executed(
        *("import jammi_duck", *engine, *magic),
        "%%sql\nSELECT 'it''s' AS quoted",
        "%sql SELECT 'it''s' AS quoted",
        "%sql SELECT 1 AS after_an_error",
        "%sql ROLLBACK",
        "%sql SELECT 1 AS after_a_rollback",
        "con = jammi_duck.connect(storage='vectors')",
        "%sql con --alias native",
        "%sql SELECT embed('kitten')",
    )
    tables = [re.findall(r"\w[\w']*", result) for result in notebook.results()]
    assert tables == [["dimensions", "384"], ["quoted", "it's"], ["Success"], ["after_a_rollback", "1"]]
    refused = "".join(output.text for output in notebook.outputs() if output.output_type == "stream")
    assert re.findall(r"(\w+) Error: (.*)", refused) == [
        ("Parser", "syntax error at or near \"'s'\""),
        ("TransactionContext", "Current transaction is aborted (please ROLLBACK)"),
        ("Catalog", "Scalar Function with name embed does not exist!"),
    ]
