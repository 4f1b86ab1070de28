"""Servers for the tests: the installed command as a process, and the parts of one in this process."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb

import jammi_duck
from jammi_duck.config.settings import load

PATENTS = [
    (1, "Membrane filter", "a membrane that cleans water", 2019),
    (2, "Robot arm", "an arm of a robot that welds", 2021),
    (3, "Water pump", "a pump that moves water uphill", 2022),
    (4, "Solar panel", "a panel that makes electricity of light", 2023),
    (5, "Wind turbine", "a turbine that the wind turns", 2018),
]


def make_database(folder, *, model=None):
    """A database of patents over a Parquet file, with an embedding table, and a table of notes; its path."""
    parquet, file = folder / "patents.parquet", folder / "my.duckdb"
    with duckdb.connect() as con:
        con.execute("CREATE TABLE p (id BIGINT, title VARCHAR, abstract VARCHAR, year INTEGER)")
        con.executemany("INSERT INTO p VALUES (?, ?, ?, ?)", PATENTS)
        con.execute(f"COPY p TO '{parquet}'")
    options = {"storage": str(folder / "artifacts"), "cache_dir": str(folder / "cache")}
    con = jammi_duck.connect(file, **options, **({"model": model} if model else {}))
    con.execute(f"CREATE VIEW patents AS FROM '{parquet}'")
    con.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, note VARCHAR)")
    con.execute("INSERT INTO notes SELECT range, 'note ' || range FROM range(20)")
    con.execute("SELECT * FROM jammi_generate('patents', ['title', 'abstract'], 'id')").fetchall()
    con.close()
    return file


def config_of(file, **options):
    """The configuration for a database that `make_database` has made."""
    folder = Path(file).parent
    given = {
        "database": str(file),
        "storage": str(folder / "artifacts"),
        "cache_dir": str(folder / "cache"),
        "flight_listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        **options,
    }
    return load(given).config


@contextlib.contextmanager
def in_process(config, gate=None):
    """A server for Flight SQL in this process: its service and its port."""
    from jammi_duck.doors.server.grpc_server import grpc_server
    from jammi_duck.doors.server.identity import Gate
    from jammi_duck.doors.server.service import Service

    with contextlib.ExitStack() as stack:
        service = Service(config, gate or Gate(config.tokens, open_to_all=config.tokens is None))
        stack.callback(service.close)
        server, port = grpc_server(service, config.flight_listen, None)
        server.start()
        stack.callback(lambda: server.stop(0).wait(10))
        yield service, port


class Process:
    """`jammi-duck serve` as a process."""

    def __init__(self, file, *arguments, **environment):
        folder = Path(file).parent
        program = Path(sys.executable).with_name("jammi-duck")
        variables = {"JAMMI_STORAGE__CACHE_DIR": str(folder / "cache"), **environment}
        self.log = folder / "serve.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [program, "serve", "--db", file, "--storage", folder / "artifacts", "--flight", "127.0.0.1:0",
                 "--http", "127.0.0.1:0", *arguments],
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env={**os.environ, **variables},
            )  # fmt: skip
        line = self.process.stdout.readline()
        where = r"Flight SQL on \S+:(\d+), HTTP on \S+?:(\d+)(?:, Quack on \S+)?"
        found = re.fullmatch(where + "; Ctrl-C ends the server\n", line)
        assert found, f"{line!r} {self.log.read_text()}"
        self.flight, self.http = int(found[1]), int(found[2])
        self.uri = f"grpc://127.0.0.1:{self.flight}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.process.stdout.close()

    def end(self, number=signal.SIGTERM, seconds=60):
        """Send a signal, and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


def waited_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
