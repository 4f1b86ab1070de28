"""A database whose model is a provider that is played on loopback, and looks at all that came of it."""

import contextlib
import dataclasses
import io
import logging
import re
import subprocess
import sys
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

import jammi_duck
from jammi_duck import JammiError
from tests.endpoint import Endpoint, vector_of

# Nothing else looks like it, and no part of it is a word.
KEY = "sk-Zq7xW2vKp9Ty4RmB8nLc3HdJ6fGs5AeU"
DIMENSIONS = 16
# The shortest part of a key that must not be seen. A provider may show its ends.
_PART = 12

VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "azure": "OPENAI_API_KEY",
    "cohere": "CO_API_KEY",
    "ollama": "OLLAMA_API_KEY",
    "voyageai": "VOYAGE_API_KEY",
    "jina": "JINA_API_KEY",
    "gemini-text": "GEMINI_API_KEY",
}
_FORMS = {"voyageai": "voyage", "gemini-text": "gemini"}
_RUN = """
import sys, duckdb, jammi_duck
folder, queries = sys.argv[1], sys.argv[2:]
con = duckdb.connect(folder + "/my.duckdb")
jammi_duck.install(con, storage=folder + "/artifacts", cache_dir=folder + "/cache")
for query in queries:
    try:
        print(con.execute(query).fetchall(), file=sys.stderr)
    except duckdb.Error as error:
        print(error, file=sys.stderr)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), flush=True)
"""
# The forms whose vectors say by an index which text they belong to.
WITH_INDEX = ("openai", "azure", "voyageai", "jina")


@dataclasses.dataclass
class Outcome:
    """What came of a build: the row that it returned, or its error."""

    rows: int
    row: dict | None = None
    error: Exception | None = None

    @property
    def failed(self):
        return self.row["failed_count"]


class World:
    """A database, its storage and its cache below a folder, and a played provider."""

    def __init__(self, folder: Path, form: str, endpoint: Endpoint, **options) -> None:
        self.folder, self.form, self.endpoint, self.options = folder, form, endpoint, options
        self.texts: dict[str, str | None] = {}
        self.errors: list[Exception] = []
        self.logged = io.StringIO()
        self._handler = logging.StreamHandler(self.logged)
        self._logger = logging.getLogger("jammi_duck")
        self._before = self._logger.level
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.DEBUG)
        self.open()

    def open(self) -> None:
        """Open the database, once more after `con.close()`."""
        self.con = duckdb.connect(str(self.folder / "my.duckdb"))
        places = {"storage": self.folder / "artifacts", "cache_dir": self.folder / "cache"}
        self.jammi = jammi_duck.install(self.con, **{**places, **self.options})

    def other(self) -> duckdb.DuckDBPyConnection:
        """Another session on the database; it ends with it."""
        other = self.con.cursor()
        places = {"storage": self.folder / "artifacts", "cache_dir": self.folder / "cache"}
        jammi_duck.install(other, **{**places, **self.options})
        return other

    def close(self) -> None:
        """Close the database, and listen to the log no more."""
        self.con.close()
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._before)

    def model(self, **arguments) -> str:
        """The name of the model, with arguments for short waits."""
        arguments = {"dimensions": DIMENSIONS, "max_retries": 2, "max_wait": 0.02, "batch_size": 10, **arguments}
        arguments["base_url"] = self.endpoint.url(_FORMS.get(self.form, self.form))
        if self.form == "azure":
            arguments["api_version"] = "2024-10-21"
        given = "&".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
        return f"{'openai' if self.form == 'azure' else self.form}:any?{given}"

    def fill(self, label: str, texts: int = 25) -> int:
        """Make the table `docs` with so many different texts, all of them new; the number of its rows."""
        self.label = label
        bodies = [f"{label}: text {i} 🦆" for i in range(texts)]
        rows = [*bodies, None, "  ", *bodies[:5]]
        self.texts = {str(key): body for key, body in enumerate(rows)}
        self.con.execute("CREATE OR REPLACE TABLE docs (id INTEGER, body VARCHAR)")
        self.con.executemany("INSERT INTO docs VALUES (?, ?)", list(enumerate(rows)))
        return len(rows)

    def query(self, **arguments) -> str:
        """The query that embeds `docs`."""
        return (
            f"SELECT * FROM jammi_generate('docs', 'body', 'id', words := false, model := '{self.model(**arguments)}')"
        )

    def build(self, **arguments) -> Outcome:
        """Embed `docs`; what came of it."""
        try:
            relation = self.con.execute(self.query(**arguments))
            names = [each[0] for each in relation.description]
            return Outcome(len(self.texts), dict(zip(names, relation.fetchone(), strict=True)))
        except (duckdb.Error, JammiError) as error:
            self.errors.append(error)
            return Outcome(len(self.texts), error=error)

    @contextlib.contextmanager
    def process(self, *queries: str) -> Iterator[subprocess.Popen]:
        """Another Python that runs queries on the database, which is closed here meanwhile; it is killed at the end.

        After each query, it prints the most kilobytes of memory that it has had.
        """
        self.con.close()
        command = [sys.executable, "-c", _RUN, self.folder, *queries]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                self.open()

    def vectors(self) -> dict[str, np.ndarray]:
        """All vectors of texts of the last `fill` that are in files, by key."""
        found = {}
        newest = "SELECT embedding_table FROM jammi_tables() WHERE source = 'docs' ORDER BY started DESC LIMIT 1"
        for (name,) in self.con.execute(newest).fetchall():
            for file in (self.folder / "artifacts").rglob(f"{name}*.parquet"):
                with duckdb.connect() as con:
                    rows = con.execute(f"SELECT _row_id, vector FROM '{file}' WHERE vector IS NOT NULL").fetchall()
                found |= {key: np.array(vector, np.float32) for key, vector in rows}
        return found

    def check(self, outcome: Outcome, of_build: int | None = None) -> dict[str, np.ndarray]:
        """Hold that no vector is on a wrong row, and that every row is accounted for; the vectors.

        `of_build` requests were made by the build; by default, all.
        """
        vectors = self.vectors()
        for key, vector in vectors.items():
            text = self.texts[key]
            assert (text or "").strip(), f"a vector for {text!r}"
            right = vector_of(text, len(vector))
            assert np.abs(vector - right).max() < 1e-5, f"the vector of {text!r} is another"
        if outcome.row:
            row = outcome.row
            assert row["status"] == "ready"
            assert row["row_count"] == len(vectors)
            assert row["row_count"] + row["skipped_count"] + row["failed_count"] == outcome.rows
            assert row["skipped_count"] == 2
            # One that meets a connection which is being closed does not arrive.
            arrived = len(self.endpoint.requests) if of_build is None else of_build
            assert arrived <= row["requests"] <= arrived + 2
        return vectors

    def written(self) -> dict[str, bytes]:
        """The content of all files, of the log, and of what SQL shows."""
        self.con.execute("CHECKPOINT")
        found = {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        found["log"] = self.logged.getvalue().encode()
        for sql in ("FROM jammi_tables()", "FROM jammi_models()", "FROM jammi_status('docs')"):
            with contextlib.suppress(duckdb.Error):
                found[sql] = repr(self.con.execute(sql).fetchall()).encode()
        return found

    def check_secrecy(self) -> None:
        """Hold that the key is in nothing that was written or said."""
        for name, content in self.written().items():
            assert not shows_key(content), f"the key is in {name}"
        for error in self.errors:
            assert not shows_key(told(error).encode()), f"the key is in what is told of {error!r}"


class Worlds:
    """`worlds(form)` is a world of that form, which tests share; at the end, nothing that was written has the key.

    The key is in the environment, where users have it.
    """

    def __init__(self, folders) -> None:
        self._folders = folders
        self._made: dict[str, World] = {}
        self._patch = pytest.MonkeyPatch()

    def __call__(self, form: str) -> World:
        if form not in self._made:
            self._made[form] = World(self._folders.mktemp(form), form, Endpoint(key=KEY))
        endpoint = self._made[form].endpoint
        endpoint.forget()
        endpoint.acts, endpoint.refuses, endpoint.most_texts, endpoint.delay = (), "", None, 0
        return self._made[form]

    def __enter__(self) -> "Worlds":
        for name in ("OPENAI_BASE_URL", "CO_API_URL", "OLLAMA_HOST"):
            self._patch.delenv(name, raising=False)
        for name in VARIABLES.values():
            self._patch.setenv(name, KEY)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for world in self._made.values():
                world.check_secrecy()
        finally:
            self._patch.undo()
            for world in self._made.values():
                world.close()
                world.endpoint.close()


def check_error(error: Exception, form: str) -> None:
    """Hold that an error names the provider, where it is, the cause, and what to do."""
    provider = "openai" if form == "azure" else form
    assert re.search(rf"'{provider}' (failed at http://127\.0\.0\.1:\d+/|gave )", str(error))
    assert re.search("run the same again|check the|give dimensions", str(error))
    assert "dimensions=0" not in str(error)


def check_resumed(world: World, vectors: int = 30) -> None:
    """Hold that the same again does the rest, and sends nothing that was answered."""
    before = world.endpoint.answered
    world.endpoint.forget()
    world.endpoint.acts = ()
    outcome = world.build(max_in_flight=1)
    assert len(world.check(outcome)) == vectors
    assert not set(before) & set(world.endpoint.sent)


def parts_of(key: str = KEY) -> list[bytes]:
    """The parts of a key that must not be seen."""
    return [key[start : start + _PART].encode() for start in range(len(key) - _PART + 1)]


def shows_key(content: bytes, key: str = KEY) -> bool:
    """Whether a part of the key is in some bytes, or in what they are packed of."""
    return any(part in content for part in parts_of(key)) or any(part in _unpacked(content) for part in parts_of(key))


def _unpacked(content: bytes) -> bytes:
    return zlib.decompress(content, 47) if content[:2] == b"\x1f\x8b" else b""


def told(error: BaseException) -> str:
    """All that a report of an error may show: the texts and the local variables of it and all errors behind it."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def told_deeply(error: BaseException) -> str:
    """The same, with the errors that Python would leave out."""
    seen, left, found = set(), [error], []
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        found.append(f"{each!r} {each.args!r} {vars(each)!r}")
        for frame, _ in traceback.walk_tb(each.__traceback__):
            found.append(
                f"{frame.f_code.co_name}: " + "; ".join(f"{n} = {_shown(v)}" for n, v in frame.f_locals.items())
            )
        left += [each.__cause__, each.__context__]
    return "\n".join(found)


def _shown(value) -> str:
    try:
        return repr(value)
    except Exception:
        return "?"
