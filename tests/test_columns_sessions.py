"""The commands for columns of vectors in every order of their options, killed, and watched, on both databases.

python -m tests.test_columns_sessions --write     writes tests/golden/columns.txt anew
"""

import contextlib
import itertools
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jammi_duck.config.logs import log
from jammi_duck.doors.cli import columns, main, parser
from tests.column_worlds import LETTERS, DuckDB, PostgreSQL
from tests.effort import some

GOLDEN = Path(__file__).parent / "golden" / "columns.txt"
PASSAGES = [
    "Since the most expensive collection action is a lawsuit, few are filed.",
    "And Jesus, knowing their thoughts, said nothing.",
    None,
    "Further Reading. A few good sources for bees.",
    "   ",
    "a bad one",
    "In folklore the markhor is known to kill snakes.",
    "Cheap tricks, reviewed.",
]
COLUMN = (("-t", "passage"), ("-i", "passage"), ("-o", "passage_vector"))
FLAGS = (("-b", "3"), ("-n", "2"), ("-w", "2"), ("-F",), ("-v",), ("-p",))
LONG = {
    "-u": "--url", "-t": "--table", "-i": "--input", "-o": "--output", "-m": "--model", "-b": "--batch-size",
    "-n": "--num-batches", "-w": "--workers", "-F": "--follow", "-v": "--verbose", "-p": "--progress", "-l": "--limit",
}  # fmt: skip
SEARCHED = "New York City is the financial capital of the world!"
PROGRAM = Path(sys.executable).with_name("jammi-duck")


class Session:
    """A database with the passages in it, for commands that run in this process."""

    def __init__(self, url, run, folder):
        self.url, self.run = url, run
        (folder / "letters.py").write_text(LETTERS.format(sleep=0))
        self.model = (("-m", "letters"), ("--models", str(folder)))

    def reset(self):
        self.run("DROP TABLE IF EXISTS passage")
        self.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
        for row in enumerate(PASSAGES, start=1):
            self.run("INSERT INTO passage VALUES ($1, $2)", *row)

    def said(self, capsys, words):
        """The exit code and what was printed, without seconds and further digits."""
        level = log.level
        code = main(words)
        log.setLevel(level)
        out = capsys.readouterr().out
        out = re.sub(r"in \d+(\.\d+)? s(econds)?\b", r"in 1.5 s\2", out)
        return code, re.sub(
            r"^\d\.\d+(e-\d+)? -->", lambda each: f"{float(each[0][:-4]):.4f} -->", out, flags=re.MULTILINE
        )

    def vectors(self):
        return self.run("SELECT id FROM passage WHERE passage_vector IS NOT NULL ORDER BY id")


class DuckDBSession(Session):
    def __init__(self, folder):
        self.path, self.new = folder / "my.duckdb", folder / "new.duckdb"
        super().__init__(str(self.path), self.run_here, folder)

    def run_here(self, statement, *values):
        with duckdb.connect(str(self.path)) as con:
            return con.execute(statement, values).fetchall()

    def reset(self):
        if not self.new.exists():
            with duckdb.connect(str(self.new)) as con:
                con.execute("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
                con.executemany("INSERT INTO passage VALUES (?, ?)", list(enumerate(PASSAGES, start=1)))
        shutil.copy(self.new, self.path)


@pytest.fixture(params=["duckdb", "postgresql"])
def session(request, tmp_path):
    if request.param == "duckdb":
        yield DuckDBSession(tmp_path)
        return
    world = PostgreSQL(request.getfixturevalue("postgres"))
    yield Session(world.url, world.run, tmp_path)
    world.close()


def embed_words(session, flags):
    return ["embed", *itertools.chain(*(("-u", session.url), *COLUMN, *session.model, *flags))]


def search_words(session, flags, command="search"):
    return [command, *itertools.chain(*(("-u", session.url), *COLUMN, *session.model, *flags)), SEARCHED]


def combinations():
    """Every set of the options of embed."""
    for count in range(len(FLAGS) + 1):
        yield from itertools.combinations(FLAGS, count)


def whole_session(session, capsys):
    """What embed prints with every set of its options, and search and size afterwards."""
    parts = []
    for flags in combinations():
        session.reset()
        code, out = session.said(capsys, embed_words(session, flags))
        parts.append(f"$ embed {shlex.join(itertools.chain(*flags))}\n{out}(exit code {code})\n")
    for flags in ((), (("-l", "2"),), (("-v",), ("-l", "2")), (("--where", "id > 6 -- {}%"),), (("-l", "1"), ("-v",))):
        code, out = session.said(capsys, search_words(session, flags))
        parts.append(f"$ search {shlex.join(itertools.chain(*flags))}\n{out}(exit code {code})\n")
    return "\n".join(parts)


class TestOptions:
    def test_every_set_of_them_prints_what_it_did(self, session, capsys):
        assert whole_session(session, capsys) == GOLDEN.read_text()

    @pytest.mark.sampled(2)
    @settings(max_examples=some(25), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_in_every_order(self, session, capsys, data):
        in_any_order(session, capsys, data)

    @pytest.mark.long
    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_in_more_orders(self, session, capsys, data):
        in_any_order(session, capsys, data)

    def test_the_statement_of_search_runs_as_it_is_printed(self, session, capsys):
        session.reset()
        main(embed_words(session, [("-F",)]))
        capsys.readouterr()
        where = ("--where", "passage LIKE '%e%' -- {} %s $1")
        assert main(search_words(session, [where, ("-l", "3")], "sql")) == 0
        statement = capsys.readouterr().out
        rows = session.run(statement)
        assert main(search_words(session, [where, ("-l", "3")])) == 0
        found = [each.partition(" --> ")[2] for each in capsys.readouterr().out.split("\n\n")[:-1]]
        assert found == [f"{key}\n{text}" for _, key, text in rows]
        assert len(rows) == 3

    def test_size(self, session, capsys):
        session.reset()
        main(embed_words(session, [("-F",)]))
        capsys.readouterr()
        assert main(["size", "-u", session.url, "-t", "passage", "-o", "passage_vector"]) == 0
        facts = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert (facts["rows_with_vector"], facts["rows_without_vector"], facts["dimensions"]) == ("5", "3", "3")
        assert int(facts["vector_bytes"]) >= 60

    def test_instrument_and_cleanup(self, session, capsys):
        session.reset()
        main(embed_words(session, [("-F",)]))
        capsys.readouterr()
        words = ["-u", session.url, *itertools.chain(*COLUMN)]
        code = main(["instrument", *words, "--no-index"])
        out, err = capsys.readouterr()
        if code == 2:
            # The file that this DuckDB makes by default has no triggers.
            assert session.url.endswith(".duckdb")
            assert "DuckDB 2.0" in err or "STORAGE_VERSION 'v2.0.0'" in err
        else:
            assert len(out.splitlines()) == 1
            session.run("UPDATE passage SET passage = 'changed' WHERE id = 1")
            code, out = session.said(capsys, embed_words(session, [("-F",)]))
            assert out.startswith("rows embedded: 1, ")
        for _ in range(2):
            assert main(["cleanup", *words]) == 0
        assert session.vectors() == [(1,), (2,), (4,), (7,), (8,)]

    def test_rows_that_fail_are_named(self, session, capsys, caplog):
        session.reset()
        assert main(embed_words(session, [("-F",)])) == 3
        assert "rows that could not be embedded: 1; the first is row id 6: the wrapper 'letters' failed" in caplog.text
        assert "embedding_encode raised ValueError: it is bad" in caplog.text

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["-b", "0"], "--batch-size is 0"), (["-n", "0"], "--num-batches is 0"), (["-w", "-1"], "--workers is -1"),
            (["--min-idle", "1"], "add --watch"), (["--watch", "--min-idle", "0"], "--min-idle is 0"),
            (["--watch", "--min-idle", "9", "--max-idle", "3"], "--min-idle is 9, more than --max-idle, which is 3"),
            (["--key", "nope"], "no column 'nope'"), (["-t", "passages"], "did you mean 'passage'"),
        ],
    )  # fmt: skip
    def test_wrong_options(self, session, capsys, flags, said):
        session.reset()
        assert main([*embed_words(session, []), *flags]) == 2
        assert said in capsys.readouterr().err


def in_any_order(session, capsys, data):
    """The options in any order, short or long, print what they print in order."""
    flags = data.draw(st.sampled_from(list(combinations())))
    given = [("-u", session.url), *COLUMN, *session.model, *flags]
    shuffled = data.draw(st.permutations(given))
    words = ["embed"]
    for name, *value in shuffled:
        form = data.draw(st.sampled_from(["short", "long", "joined"]))
        long = LONG.get(name, name)
        words += [f"{long}={value[0]}"] if form == "joined" and value else [long if form == "long" else name, *value]
    session.reset()
    in_order = session.said(capsys, embed_words(session, flags))
    wanted = session.vectors()
    session.reset()
    assert session.said(capsys, words) == in_order
    assert session.vectors() == wanted
    searching = [
        ("-u", session.url),
        *COLUMN,
        *session.model,
        ("-l", "3"),
        ("-v",),
        ("--where", "id <> 4"),
        (SEARCHED,),
    ]
    searched = session.said(capsys, ["search", *itertools.chain(*searching)])
    assert searched[0] == 0
    words = ["search", *itertools.chain(*data.draw(st.permutations(searching)))]
    assert session.said(capsys, words) == searched


@pytest.fixture(params=["duckdb", "postgresql"])
def world(request, tmp_path):
    if request.param == "duckdb":
        found = DuckDB(tmp_path / "my.duckdb")
    else:
        found = PostgreSQL(request.getfixturevalue("postgres"))
    found.run("CREATE TABLE passage (id INTEGER PRIMARY KEY, passage VARCHAR)")
    found.run("INSERT INTO passage SELECT i, 'a text about ' || i FROM generate_series(1, 400) s(i)")
    yield found
    found.close()


def begun(world, folder, *flags, sleep=0.02):
    """The program at work on a database that this process does not hold."""
    (folder / "letters.py").write_text(LETTERS.format(sleep=sleep))
    if world.name == "duckdb":
        world.close()
    words = [PROGRAM, "embed", "-u", world.url, *itertools.chain(*COLUMN), "-m", "letters", "--models", folder, *flags]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def again(world):
    return DuckDB(world.url) if world.name == "duckdb" else world


def killed(world, folder, times):
    """Kill embed so often at some moment: each batch is there as a whole, and the next run goes on."""
    before = 0
    for at in range(times):
        process = begun(world, folder, "-b", "5", "-F", "-v", sleep=0.01)
        lines = 0
        for line in process.stdout:
            lines += "starting" in line
            if lines > at % 4:
                break
        time.sleep(0.003 * (at % 10))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        world = again(world)
        ((count,),) = world.run("SELECT count(passage_vector) FROM passage")
        assert count % 5 == 0
        assert count >= before
        before = count
        if count == 400:
            world.run("UPDATE passage SET passage_vector = NULL")
            before = 0
    process = begun(world, folder, "-F")
    out, err = process.communicate()
    assert process.returncode == 0, err
    world = again(world)
    assert world.run("SELECT count(passage_vector) FROM passage") == [(400,)]
    for number, vector in world.run("SELECT id, passage_vector FROM passage"):
        text = f"a text about {number}"
        wanted = (1.0 + text.count("a"), 1.0 + text.count("e"), len(text))
        assert tuple(world.vector(vector)) == wanted
    world.close()


class TestKilled:
    @pytest.mark.sampled(2)
    def test_three_times(self, world, tmp_path):
        killed(world, tmp_path, 3)

    @pytest.mark.long
    def test_thirty_times(self, world, tmp_path):
        killed(world, tmp_path, 30)


def eventually(world, process, count, then=None):
    """Wait until so many rows have vectors; then run a statement, while the program leaves the database alone."""
    while process.poll() is None:
        with contextlib.suppress(duckdb.Error):
            found = again(world)
            try:
                columns = found.run("SELECT column_name FROM information_schema.columns WHERE table_name = 'passage'")
                is_there = ("passage_vector",) in columns
                if is_there and found.run("SELECT count(passage_vector) FROM passage") == [(count,)]:
                    return found.run(then) if then else None
            finally:
                if world.name == "duckdb":
                    found.close()
        time.sleep(0.02)
    raise AssertionError(process.communicate())


class TestWatch:
    def test_it_waits_for_more_rows(self, world, tmp_path):
        flags = ("--watch", "--min-idle", "0.05", "--max-idle", "0.2", "-b", "100", "-w", "1")
        process = begun(world, tmp_path, *flags, sleep=0)
        for count in (400, 401, 402):
            more = f"INSERT INTO passage (id, passage) VALUES (1{count}, 'one more')"
            eventually(world, process, count, more if count < 402 else None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == 130, err
        assert re.fullmatch(r"rows embedded: 402, in [\d.]+ s; stopped by Ctrl-C\n", out)

    def test_ctrl_c_ends_a_run(self, world, tmp_path):
        process = begun(world, tmp_path, "-F", "-b", "5", "-v", sleep=0.05)
        for line in process.stdout:
            if "Run 3" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert process.returncode == 130, out
        summary = re.search(r"rows embedded: (\d+), in [\d.]+ s; stopped by Ctrl-C\n$", out)
        assert summary, (out, err)
        count = int(summary[1])
        world = again(world)
        assert world.run("SELECT count(passage_vector) FROM passage") == [(count,)]
        assert count % 5 == 0
        world.close()


def test_ctrl_c_that_appears_as_another_error(tmp_path, monkeypatch, capsys):
    world = DuckDB(tmp_path / "my.duckdb")
    world.run("CREATE TABLE passage (id INTEGER, passage VARCHAR)")
    world.close()
    (tmp_path / "letters.py").write_text(LETTERS.format(sleep=0))

    def interrupted(*_, **__):
        raise duckdb.TransactionException("the transaction is no more")

    monkeypatch.setattr(columns, "fill", interrupted)
    words = ["embed", "-u", str(world.url), *itertools.chain(*COLUMN), "-m", "letters", "--models", str(tmp_path)]
    assert main(words) != 130
    monkeypatch.setattr(parser._CtrlC, "pressed", True)
    assert main(words) == 130
    assert capsys.readouterr().out.endswith("; stopped by Ctrl-C\n")


def test_what_ships_is_the_description_s(capsys):
    assert main(["model", "list"]) == 0
    assert capsys.readouterr().out.startswith(
        "hf_st_all_minilm_l6\tHugging Face Sentence Transformer all-MiniLM-L6-v2\n"
    )


def _write():
    import io
    import tempfile
    from types import SimpleNamespace

    class Captured:
        def readouterr(self):
            text = printed.getvalue()
            printed.seek(0)
            printed.truncate()
            return SimpleNamespace(out=text)

    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed):
        GOLDEN.write_text(whole_session(DuckDBSession(Path(folder)), Captured()))


if __name__ == "__main__" and "--write" in sys.argv:
    _write()
