"""Long work shows a bar on a terminal, lines in a log, and nothing in a pipe."""

import json
import logging
import os
import pty
import subprocess
import sys
import termios

import pytest

WORK = """
import sys, duckdb
from pathlib import Path
from jammi_duck.config.options import Config
from jammi_duck.doors.installation import equip
from tests.fakes import FakeEncoders
con = duckdb.connect()
con.execute("SET enable_progress_bar = false")  # DuckDB's own, which some versions show
equip(con, Config(storage=sys.argv[1], model="fake/small", cache_dir=Path(sys.argv[1])), FakeEncoders())
con.execute("CREATE TABLE t AS SELECT range AS id, 'word ' || range AS text FROM range(9000)")
con.execute("FROM jammi_generate('t', 'text', 'id')").fetchall()
con.close()
"""


def test_a_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    child = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path)], stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert child.wait() == 0
    assert b"embedding t:" in shown
    assert b"indexing t:" in shown
    assert b"9.00k" in shown


def test_nothing_in_a_pipe(tmp_path):
    done = subprocess.run([sys.executable, "-c", WORK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(("variables", "lines"), [({"JAMMI_LOGGING__FORMAT": "json"}, 3), ({}, 0)])
def test_a_log_where_the_configuration_asks_for_one(tmp_path, tiny_model, variables, lines):
    work = """
import duckdb, jammi_duck, sys
con = duckdb.connect()
con.execute("SET enable_progress_bar = false")
jammi = jammi_duck.install(con, storage=sys.argv[1], model=sys.argv[2])
con.execute("CREATE TABLE t AS SELECT range AS id, 'word ' || range AS text FROM range(9)")
jammi.generate("t", "text", "id")
con.close()
"""
    command = [sys.executable, "-c", work, str(tmp_path), str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **variables})
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.stdout, len(told)) == ("", lines)
    assert {line["level"] for line in told} <= {"INFO"}


@pytest.mark.parametrize("stage", ["embedding animals: 5 rows in", "indexing animals: 5 rows in"])
def test_lines_in_a_log(animals, caplog, stage):
    with caplog.at_level(logging.INFO, logger="jammi_duck"):
        animals.execute("FROM jammi_generate('animals', 'text', 'id')").fetchall()
    assert stage in caplog.text
