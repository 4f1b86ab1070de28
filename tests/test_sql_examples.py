"""Runs every file of sql_examples/ and compares what it prints with the `.out` file beside it.

`python -m tests.test_sql_examples --write` writes the `.out` files anew; read what changed before you keep it.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pytest

import jammi_duck
from tests.endpoint import Endpoint

EXAMPLES = Path(__file__).resolve().parents[1] / "sql_examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sql"))


def run(script: Path, storage: Path) -> str:
    """What a script prints in a fresh database: its results, a blank line between them.

    The provider of hosted models is played on loopback.
    """
    with duckdb.connect() as con, Endpoint() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", endpoint.url("openai"))
        patch.setenv("OPENAI_API_KEY", str(endpoint.key))
        patch.delenv("VOYAGE_API_KEY", raising=False)
        jammi_duck.install(con, storage=storage, cache_dir=storage.with_name("cache"), precision="float32")
        results = []
        for statement in con.extract_statements(script.read_text()):
            con.execute(statement)
            # CREATE, INSERT, COPY and SET answer with a count or with nothing, which teaches nothing.
            if statement.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]:
                results.append(render(con))
        return "\n".join(results)


def render(con: duckdb.DuckDBPyConnection) -> str:
    names, types = zip(*(column[:2] for column in con.description), strict=True)
    rows = [[text(value, kind) for value, kind in zip(row, types, strict=True)] for row in con.fetchall()]
    return "".join(" | ".join(line) + "\n" for line in [names, *rows])


def text(value: object, kind: object) -> str:
    if value is None:
        return "NULL"
    # Python has no 32-bit floats: as one of its own, 0.4 would read 0.4000000059604645.
    return str(np.float32(value)) if str(kind) == "FLOAT" else str(value)


@pytest.mark.minilm
@pytest.mark.filterwarnings("ignore:.* of the texts are longer than the model reads")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(script, tmp_path / "artifacts") == script.with_suffix(".out").read_text()


def test_every_example_has_its_output():
    outputs = sorted(EXAMPLES.glob("*.out"))
    assert [path.stem for path in SCRIPTS] == [path.stem for path in outputs]
    assert len(SCRIPTS) >= 10


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_example_says_what_it_shows(script):
    assert script.read_text().startswith("-- ")


def write_all() -> None:
    for script in SCRIPTS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            script.with_suffix(".out").write_text(run(script, Path(folder) / "artifacts"))


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.test_sql_examples --write")
    write_all()
