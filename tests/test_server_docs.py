"""What docs/server.md says of the server is so, and what it shows runs.

A block in `bash` or `python` runs against a server, and prints what the block in `text` right after it shows, if there
is one; one in `json` shows numbers roughly. A comment before a block names its server: `tokens` or `tls`.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import grpc
import pytest

from jammi_duck.config import settings
from jammi_duck.config.options import options
from jammi_duck.doors.cli.configuration import shown
from jammi_duck.doors.cli.parser import parser
from jammi_duck.doors.server.admission import BusyError, GoneError
from jammi_duck.doors.server.codes import UnsupportedCallError, code_of
from jammi_duck.doors.server.identity import UnknownError, add_token
from jammi_duck.doors.server.models import ModelDeniedError
from jammi_duck.doors.server.service import LimitError
from jammi_duck.errors import DeniedError, InputError, ModelError, NotFoundError, StorageError
from tests.serving import PATENTS, Process
from tests.test_server_life import make_certificates

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "server.md").read_text()
_BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
# Models that compute in another precision elsewhere give other last digits.
VARIABLES = {"JAMMI_INFERENCE__PRECISION": "float32"}


@dataclass
class Block:
    """A block of code on the page, and what it prints, if the page shows that."""

    server: str
    language: str
    code: str
    output: tuple[str, str] | None = None


def blocks():
    found, end = [], 0
    for match in _BLOCK.finditer(PAGE):
        is_output = match[2] in ("text", "json") and not PAGE[end : match.start()].strip()
        if is_output and found and found[-1].output is None:
            found[-1].output = (match[2], match[3])
        else:
            found.append(Block(match[1] or "", match[2], match[3]))
        end = match.end()
    return found


START, *BLOCKS = [block for block in blocks() if block.language in ("bash", "python")]


def rows_after(heading):
    """The cells of the first table after a heading."""
    lines = PAGE.partition(f"\n{heading}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next(i for i, line in enumerate(lines) if i > start and not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]


def variables(folder):
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    cache = {"JAMMI_STORAGE__CACHE_DIR": str(folder / "cache")}
    return {**os.environ, **VARIABLES, **cache, "PATH": programs, "no_proxy": "*"}


def run(language, code, folder, more=None):
    """What a script prints, in a process of its own."""
    command = {"bash": ["bash", "-euo", "pipefail", "-c", code], "python": [sys.executable, "-W", "error", "-c", code]}
    done = subprocess.run(
        command[language], cwd=folder, env={**variables(folder), **(more or {})}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    assert language == "bash" or done.stderr == "", f"{code}\n{done.stderr}"
    return done.stdout


def write_patents(folder, rows):
    with duckdb.connect() as con:
        con.execute("CREATE TABLE p (id BIGINT, title VARCHAR, abstract VARCHAR, year INTEGER)")
        con.executemany("INSERT INTO p VALUES (?, ?, ?, ?)", rows)
        con.execute(f"COPY p TO '{folder}/next.parquet'")
    (folder / "next.parquet").replace(folder / "patents.parquet")


@pytest.fixture
def file(tmp_path):
    """The database that the first commands of the page make."""
    write_patents(tmp_path, PATENTS)
    *commands, serve = START.code.splitlines()
    run("bash", "\n".join(commands), tmp_path)
    assert serve == "jammi-duck serve --db my.duckdb"
    return tmp_path / "my.duckdb"


def run_blocks(name, server, folder, more=None):
    """Run the blocks for one server; how many there were."""
    mine = [block for block in BLOCKS if block.server == name]
    for block in mine:
        if "curl" in block.code and shutil.which("curl") is None:
            continue
        code = block.code.replace("8081", str(server.flight)).replace("8080", str(server.http))
        printed = run(block.language, code, folder, more)
        if block.output is None:
            continue
        language, expected = block.output
        if language == "json":
            assert_alike(json.loads(printed), json.loads(expected))
        else:
            assert printed.rstrip("\n") == expected.rstrip("\n"), block.code
    return len(mine)


def assert_alike(found, expected, key=""):
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for each in expected:
            assert_alike(found[each], expected[each], each)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_alike(a, b)
    elif isinstance(expected, float):
        assert isinstance(found, float)
        assert key == "seconds" or found == pytest.approx(expected, abs=0.006)
    else:
        assert found == expected


@pytest.mark.minilm
def test_what_the_page_shows_runs(file):
    folder = file.parent
    kind, line = START.output
    assert kind == "text"
    with Process(file, **VARIABLES) as server:
        ports = line.replace("8081", "1").replace("8080", "1")
        assert ports == "Flight SQL on 127.0.0.1:1, HTTP on 127.0.0.1:1; Ctrl-C ends the server\n"
        before = file.stat().st_ino
        # What the last block refreshes.
        write_patents(folder, [*PATENTS, (6, "Rain barrel", "a barrel that collects rain", 2020)])
        assert run_blocks("", server, folder) > 10
        assert file.stat().st_ino != before
        code = next(block.code for block in BLOCKS if "fetchall" in block.code and "clean water" in block.code)
        code = code.replace("8081", str(server.flight)).replace("clean water", "rain barrel").replace("2021", "2000")
        end = time.monotonic() + 60
        while "Rain barrel" not in run("python", code, folder):
            assert time.monotonic() < end
            time.sleep(0.5)
        assert_all_metrics_are_told(server)


def assert_all_metrics_are_told(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    told = {name.strip("`"): kind for name, kind, _ in rows_after("### Metrics")}
    assert {name: kind for name, kind in kinds.items() if not name.endswith("_created")} == told


@pytest.mark.minilm
def test_what_the_page_shows_with_tokens_runs(file):
    tokens = file.parent / "tokens.json"
    mine = {"TOKEN": add_token(tokens, "mine", "reader"), "ADMIN_TOKEN": add_token(tokens, "nightly", "admin")}
    with Process(file, "--tokens", "tokens.json", **VARIABLES, JAMMI_SERVER__ALLOW_WRITE="true") as server:
        assert run_blocks("tokens", server, file.parent, mine) == 3


@pytest.mark.minilm
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates")
def test_what_the_page_shows_with_tls_runs(file):
    folder = file.parent
    make_certificates(folder)
    pems = {
        "JAMMI_SERVER__TLS_CERTIFICATE": str(folder / "server.pem"),
        "JAMMI_SERVER__TLS_KEY": str(folder / "server.key"),
    }
    with Process(file, **VARIABLES, **pems) as server:
        assert run_blocks("tls", server, folder) == 1


def test_every_block_that_runs_is_for_a_server_that_there_is():
    assert {block.server for block in BLOCKS} == {"", "tokens", "tls"}
    assert {block.language for block in blocks()} == {"bash", "python", "js", "toml", "ini", "sql"}


def test_the_options_are_those_of_the_server():
    told = {key.strip("`"): default.strip("`") for key, default, _ in rows_after("## Starting")}
    assert told == {
        option.key: shown(option.default) for option in options().values() if option.key.startswith("server.")
    }
    also = {option.also for option in options().values() if option.also}
    for name in re.findall(r"`(server\.\w+)", PAGE):
        assert name in told or name in also, name


def test_the_example_of_the_configuration_is_one(tmp_path, monkeypatch):
    (block,) = [block for block in blocks() if block.language == "toml"]
    (tmp_path / "jammi.toml").write_text(block.code)
    monkeypatch.chdir(tmp_path)
    config = settings.load().config
    assert (config.http_listen, config.query_timeout) == ("0.0.0.0:8080", timedelta(seconds=30))
    assert config.tokens == Path("tokens.json")


def test_the_unit_of_systemd_starts_the_server():
    (block,) = [block for block in blocks() if block.language == "ini"]
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(block.code)
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "jammi-duck"
    assert parser().parse_args(arguments).tokens == "tokens.json"
    assert unit["Service"]["Type"] == "notify"
    assert timedelta(seconds=int(unit["Service"]["TimeoutStopSec"])) > options()["drain"].default


def test_errors_have_the_codes_that_the_page_tells():
    told = {tuple(cell.strip("`") for cell in row[1:]) for row in rows_after("### Errors and limits")}
    errors = [
        UnknownError("x"), DeniedError("x"), InputError("x"), NotFoundError("x"), BusyError("x"), StorageError("x"),
        LimitError("the query took longer than 1 s"), LimitError("the result has more than 1 rows"), MemoryError(),
        GoneError("the query was cancelled"), RuntimeError("x"), ModelDeniedError("x"), ModelError("x"),
    ]  # fmt: skip
    codes = {(code.grpc, str(code.http), code.word) for code in map(code_of, errors)}
    # What the server answers while it ends, and what HTTP has no calls for.
    codes |= {("CANCELLED", "503", "ending"), ("UNIMPLEMENTED", "", "")}
    assert code_of(UnsupportedCallError("x")).grpc == "UNIMPLEMENTED"
    assert {name for name, *_ in codes} <= {status.name for status in grpc.StatusCode}
    assert told == codes
