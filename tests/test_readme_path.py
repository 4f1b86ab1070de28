"""The README's path, in an environment of its own: install, Python, the stock shell, the command line, dbt."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SECTIONS = dict(part.split("\n", 1) for part in re.split(r"^##+ ", README, flags=re.MULTILINE)[1:])
# What a reader has: a table of patents, and one of questions.
TABLES = """
con.execute('''CREATE TABLE patents AS FROM (VALUES
    (1, 'Filter', 'A porous film through which water passes, while salt stays behind.'),
    (2, 'Brake', 'A bicycle brake that charges a battery.'),
    (3, 'Arm', 'A robot arm that picks ripe strawberries.')) t(id, title, abstract)''')
con.execute("CREATE TABLE questions AS SELECT unnest(['clean water', 'harvest fruit']) AS text")
"""
MODEL = "SELECT id FROM jammi_search('{{ source('main', 'patents') }}', 'harvest fruit', 1)"
SOURCES = "sources:\n  - name: main\n    schema: main\n    tables:\n      - name: patents\n"


def commands(section: str, program: str) -> list[str]:
    """The commands of a section that run a program, without their comments."""
    lines = re.findall(rf"^    ({program} .*)$", SECTIONS[section], re.MULTILINE)
    return [line.partition(" #")[0].strip() for line in lines]


def code(section: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A folder of the reader's, and what runs a command there with only what the README's commands install."""
    folder = tmp_path_factory.mktemp("reader")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    environment = {**kept, "PATH": f"{folder / 'env' / 'bin'}:/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}

    def run(command: str, cwd: Path = folder, text: str = "") -> str:
        done = subprocess.run(
            shlex.split(command), cwd=cwd, env=environment, input=text, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # The line for PyTorch's own index saves space, and needs the internet.
    _, ours, *others = commands("Installation", "pip")
    assert ours.endswith(" .")
    for command in (f"{ours[:-2]} .[dbt]", *others, *commands("Work without Python", "pip")):
        run(command, ROOT)
    return folder, run


@pytest.mark.long
class TestPath:
    """In this order: each goes on with the database file of the one before."""

    def test_python(self, path):
        folder, run = path
        lines = code("Embed a table and search it", "python")
        opened, rest = lines.split("con.execute(", 1)
        (folder / "first.py").write_text(f"{opened}{TABLES}con.execute({rest}con.close()\n")
        shown = run("python first.py")
        assert "Filter" in shown
        assert "harvest" not in shown.split("clean water")[0]
        assert "Arm" in shown

    def test_the_shell_reads_that_file(self, path):
        _, run = path
        (shell,) = [each for each in commands("Work without Python", "jammi-duck") if " shell " in each]
        query = "SELECT id FROM jammi_search('patents', 'membrane that cleans water', 1);"
        assert run(f"{shell} -csv -noheader", text=query) == "1\n"

    def test_the_command_line_does(self, path):
        _, run = path
        (sync,) = [each for each in commands("Work without Python", "jammi-duck") if " sync " in each]
        assert re.search(r"^action +unchanged$", run(sync), re.MULTILINE)

    def test_dbt_does(self, path):
        folder, run = path
        project = folder / "project"
        (project / "models").mkdir(parents=True)
        plugin = code("Work without Python", "yaml").replace("./artifacts", str(folder / "artifacts"))
        target = f"      type: duckdb\n      path: {folder / 'patents.duckdb'}\n{plugin}"
        (project / "profiles.yml").write_text(f"p:\n  target: dev\n  outputs:\n    dev:\n{target}")
        (project / "dbt_project.yml").write_text("name: p\nprofile: p\nversion: '1.0'\n")
        (project / "models" / "found.sql").write_text(MODEL)
        (project / "models" / "sources.yml").write_text(SOURCES)
        run("dbt build --no-use-colors", project)
        shown = run("jammi-duck shell patents.duckdb -csv -noheader", text="FROM found;")
        assert shown == "3\n"
